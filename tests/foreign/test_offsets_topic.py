"""`__consumer_offsets` is a compacted topic in Kafka's own format: after compaction Kafka's tools read it, and a coordinator
that starts anew knows the same."""

import json
import re
import time

import pytest

from harness import tools
from wire import Connection, Error, parse_batches
from wire.calls import LATEST, committed, create_topic, delete_group, fetch, find_coordinator, list_offset

TOPIC = "__consumer_offsets"
GROUPS, PARTITIONS, ROUNDS = 30, 5, 25
SETTINGS = {"offsets.topic.num.partitions": "1", "offsets.topic.segment.bytes": str(1 << 20), "log.cleaner.backoff.ms": "200"}
METADATA = "m" * 1500


def commit_all(wire, group, number):
    """Commits `number` plus the partition, for all partitions of one group."""
    response = wire.call(
        "OffsetCommit", 8, GroupId=group, GenerationIdOrMemberEpoch=-1, MemberId="",
        Topics=[{"Name": "read", "Partitions": [
            {"PartitionIndex": p, "CommittedOffset": number + p, "CommittedMetadata": METADATA} for p in range(PARTITIONS)]}],
    )  # fmt: skip
    assert all(p["ErrorCode"] == Error.NONE for p in response["Topics"][0]["Partitions"])


def stored(wire):
    """How many records are there, and how many ever were."""
    end, offset, count = list_offset(wire, TOPIC, LATEST)["Offset"], 0, 0
    while offset < end:
        batches = parse_batches(fetch(wire, TOPIC, offset, partition_max_bytes=4 << 20)["Records"])
        count += sum(len(batch.records) for batch in batches)
        offset = batches[-1].last_offset + 1
    return count, end


def documents(text):
    """The JSON documents of a text, which follow each other without anything in between."""
    decoder, text = json.JSONDecoder(), text.strip()
    while text:
        document, length = decoder.raw_decode(text)
        yield document
        text = text[length:].lstrip()


def newest(lines):
    """{(group, partition): offset, None once deleted} of records that a tool printed as JSON, in their order."""
    found = {}
    for key, value in lines:
        key = key["data"]
        if "partition" in key:
            found[key["group"], key["partition"]] = value and value["data"]["offset"]
    return found


@pytest.mark.timeout(240)
def test_kafka_tools_read_the_offsets_after_compaction(start_broker):
    broker = start_broker(SETTINGS)
    wanted = {}
    with Connection(broker.address, timeout_s=30) as wire:
        assert create_topic(wire, "read", partitions=PARTITIONS)["ErrorCode"] == Error.NONE
        find_coordinator(wire, "group-0")
        for number in range(ROUNDS):
            for group in range(GROUPS):
                commit_all(wire, f"group-{group}", number * 1000 + group)
        for group in range(GROUPS):
            wanted |= {(f"group-{group}", p): (ROUNDS - 1) * 1000 + group + p for p in range(PARTITIONS)}
        assert delete_group(wire, "group-7") == Error.NONE
        deadline = time.monotonic() + 60
        while True:
            there, ever = stored(wire)
            if there < ever / 2:
                break
            assert time.monotonic() < deadline, f"{there} of {ever} records are still there"
            time.sleep(0.3)
    wanted |= {("group-7", p): None for p in range(PARTITIONS)}

    printed = tools.run(
        "kafka-console-consumer", "--bootstrap-server", broker.address, "--topic", TOPIC, "--from-beginning",
        "--timeout-ms", 6000, "--formatter", "org.apache.kafka.tools.consumer.OffsetsMessageFormatter",
    )  # fmt: skip
    records = list(documents(printed))
    assert newest((record["key"], record["value"]) for record in records) == wanted
    assert len(records) <= there

    # Kafka names the folder after topic and partition; Tidelog may name it by the topic's id.
    folder = next(p.parent for p in broker.data_dir.rglob("*.log") if b"group-11" in p.read_bytes() and p.name[0] == "0")
    segments = sorted(folder.glob("*.log"))
    assert len(segments) > 1
    printed = tools.run("kafka-dump-log", "--offsets-decoder", "--files", ",".join(map(str, segments)))
    dumped = re.findall(r"^\|? ?offset: .* key: (\{.*?\}) payload: (\{.*\}|<DELETE>|null)$", printed, re.M)
    assert newest((json.loads(key), json.loads(value) if value[0] == "{" else None) for key, value in dumped) == wanted
    assert "isvalid: false" not in printed and "Found" not in printed

    broker.kill()
    broker.start()
    with Connection(broker.address, timeout_s=30) as wire:
        find_coordinator(wire, "group-0")
        for (group, partition), offset in wanted.items():
            assert committed(wire, group, "read", partition=partition)[0] == (-1 if offset is None else offset)
    broker.stop()
