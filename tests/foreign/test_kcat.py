"""kcat as Debian ships it, on a librdkafka of years ago, used the way it is used in scripts."""

import json
import subprocess
import time

import pytest

from wire import Error, build_batch, parse_batches
from wire.batch import CODECS
from wire.calls import committed, describe_group, fetch, list_offset, produce


class Kcat:
    """Runs kcat against one broker."""

    def __init__(self, address):
        self.address = address

    def command(self, *arguments):
        return ["kcat", "-b", self.address, *map(str, arguments)]

    def __call__(self, *arguments, stdin=b"", timeout_s=30):
        done = subprocess.run(self.command(*arguments), input=stdin, capture_output=True, timeout=timeout_s)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def fails(self, *arguments, stdin=b"", timeout_s=30):
        """What it says when it must fail."""
        done = subprocess.run(self.command(*arguments), input=stdin, capture_output=True, timeout=timeout_s)
        assert done.returncode != 0, done.stdout.decode()
        return done.stderr.decode()


@pytest.fixture
def kcat(broker):
    return Kcat(broker.address)


FORMAT = ("-f", "%p %o %T %k %h %s\n")


@pytest.mark.parametrize("codec", CODECS)
def test_every_codec(kcat, topic, wire, codec):
    lines = b"".join(b"key-%d:value-%d\n" % (n, n) for n in range(50))
    kcat("-P", "-t", topic, "-p", 0, "-z", codec, "-K", ":", stdin=lines)
    printed = kcat("-C", "-t", topic, "-o", "beginning", "-e", "-q", "-K", ":")
    assert printed == lines
    assert {b.codec for b in parse_batches(fetch(wire, topic)["Records"])} == {CODECS[codec]}


def test_headers_nulls_and_empty_values(kcat, topic, wire):
    headers = ["-H", "a=1", "-H", "a=2", "-H", "e="]
    kcat("-P", "-t", topic, "-p", 0, "-K", ":", *headers, stdin=b"k:v\n")
    kcat("-P", "-t", topic, "-p", 0, "-K", ":", "-Z", stdin=b"tombstone:\n")
    kcat("-P", "-t", topic, "-p", 0, "-K", ":", stdin=b"k:\n")
    records = [r for b in parse_batches(fetch(wire, topic)["Records"]) for r in b.records]
    assert [(r.key, r.value) for r in records] == [(b"k", b"v"), (b"tombstone", None), (b"k", b"")]
    assert records[0].headers == [(b"a", b"1"), (b"a", b"2"), (b"e", b"")]
    printed = [json.loads(line) for line in kcat("-C", "-t", topic, "-e", "-q", "-J").splitlines()]
    assert [p["payload"] for p in printed] == ["v", None, ""]
    assert printed[0]["headers"] == ["a", "1", "a", "2", "e", ""]


def test_idempotent_producing(kcat, topic, wire):
    kcat("-P", "-t", topic, "-p", 0, "-X", "enable.idempotence=true", stdin=b"a\nb\nc\n")
    stored = parse_batches(fetch(wire, topic)["Records"])
    assert [r.value for b in stored for r in b.records] == [b"a", b"b", b"c"]
    assert all(b.producer_id >= 0 and b.base_sequence >= 0 for b in stored)


def test_reading_from_everywhere(kcat, topic, wire):
    for n in range(6):
        produce(wire, topic, build_batch([b"%d" % n], timestamp=1000 + n))
    read = ["-C", "-t", topic, "-p", 0, "-e", "-q", "-f", "%s,"]
    assert kcat(*read, "-o", "beginning") == b"0,1,2,3,4,5,"
    assert kcat(*read, "-o", 4) == b"4,5,"
    assert kcat(*read, "-o", -2) == b"4,5,"
    assert kcat(*read, "-o", "s@1003") == b"3,4,5,"
    assert kcat(*read, "-o", "s@1002", "-o", "e@1004") == b"2,3,"
    assert kcat(*read, "-o", "end") == b""


def test_big_records(kcat, topic, wire, tmp_path):
    payload = tmp_path / "big"
    payload.write_bytes(bytes(1_048_000))
    kcat("-P", "-t", topic, "-p", 0, "-X", "message.max.bytes=4000000", payload)
    assert len(kcat("-C", "-t", topic, "-p", 0, "-o", 0, "-c", 1, "-q", "-D", "")) == 1_048_000
    payload.write_bytes(bytes(1_048_600))
    told = kcat.fails("-P", "-t", topic, "-p", 0, "-X", "message.max.bytes=4000000", payload)
    assert "Message size too large" in told
    assert list_offset(wire, topic, -1)["Offset"] == 1


def test_metadata(kcat, broker, topics, name):
    topics.create(name, partitions=3)
    listed = json.loads(kcat("-L", "-J", "-t", name))
    assert [b["name"] for b in listed["brokers"]] == [broker.address]
    (topic,) = listed["topics"]
    assert topic["topic"] == name and len(topic["partitions"]) == 3
    assert all(p["leader"] >= 0 and len(p["isrs"]) == 1 for p in topic["partitions"])


def test_query_of_offsets_by_time(kcat, topic, wire):
    for n in range(6):
        produce(wire, topic, build_batch([b"%d" % n], timestamp=1000 + n))
    assert kcat("-Q", "-t", f"{topic}:0:1003").split() == [topic.encode(), b"[0]", b"offset", b"3"]
    assert kcat("-Q", "-t", f"{topic}:0:-1").split()[-1] == b"6"


def _member(kcat, group, topic, path):
    settings = [f"{k}={v}" for k, v in {
        "auto.offset.reset": "earliest", "heartbeat.interval.ms": 300, "session.timeout.ms": 10000,
        "auto.commit.interval.ms": 200, "partition.assignment.strategy": "range"}.items()]  # fmt: skip
    options = [part for s in settings for part in ("-X", s)]
    with path.open("wb") as out:
        return subprocess.Popen(
            kcat.command("-G", group, "-q", "-u", "-f", "%p %s\n", *options, topic),
            stdout=out, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL,
        )  # fmt: skip


def test_group_members_come_and_go(kcat, topics, wire, name, tmp_path):
    topics.create(name, partitions=4)

    def fill(tag):
        for partition in range(4):
            assert produce(wire, name, build_batch([b"%s-%d" % (tag, n) for n in range(5)]), partition=partition)["ErrorCode"] == 0

    def lines(*paths):
        return [line for p in paths for line in p.read_text().splitlines()]

    def eventually(condition, what):
        deadline = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < deadline, what
            time.sleep(0.1)

    outputs = [tmp_path / "a", tmp_path / "b"]
    fill(b"one")
    first = _member(kcat, name, name, outputs[0])
    second = None
    try:
        eventually(lambda: len(lines(outputs[0])) == 20, "the first reads all")
        second = _member(kcat, name, name, outputs[1])
        eventually(lambda: len(describe_group(wire, name)["Members"]) == 2, "two members")
        eventually(lambda: describe_group(wire, name)["GroupState"] == "Stable", "a stable group")
        fill(b"two")
        eventually(lambda: len(lines(*outputs)) >= 40, "both read")
        assert len({line.split()[0] for line in lines(outputs[1])}) == 2
        second.terminate()
        second.wait(20)
        eventually(lambda: len(describe_group(wire, name)["Members"]) == 1, "one member")
        fill(b"three")
        eventually(lambda: len(lines(*outputs)) >= 60, "the first reads the rest")
    finally:
        for process in (first, second):
            if process and process.poll() is None:
                process.terminate()
                process.wait(20)
    assert len(set(lines(*outputs))) == 60 == len(lines(*outputs))
    assert [committed(wire, name, name, partition=p)[0] for p in range(4)] == [15] * 4


def test_what_it_is_told(kcat, topic, wire, name):
    assert "Unknown topic or partition" in kcat.fails("-C", "-t", name + "-none", "-e", "-X", "allow.auto.create.topics=false")
    produce(wire, topic, build_batch([b"x"]))
    told = kcat.fails("-C", "-t", topic, "-p", 0, "-o", 77, "-c", 1, "-X", "topic.auto.offset.reset=error")
    assert "out of range" in told.lower()
    # By when the answer comes: a failed delivery names the broker's error, a refused produce call librdkafka's own.
    told = kcat.fails("-P", "-t", "not a name", stdin=b"x\n")
    assert "Broker: Invalid topic" in told or "Local: Unknown topic" in told
