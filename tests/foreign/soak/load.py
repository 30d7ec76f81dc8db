"""The parts of a day: who writes, who reads, which groups and topics come and go. Each runs on a thread until told to end."""

import random
import re
import subprocess
import threading
import time
from dataclasses import dataclass

from clients import ClientError, Rec
from clients.kafkajs import KafkaJs
from wire import Connection, Error, build_batch, parse_batches
from wire.batch import Record
from wire.calls import (
    EARLIEST,
    LATEST,
    commit,
    committed,
    delete_group,
    fetch,
    find_coordinator,
    list_offset,
    produce,
)

# How a client tells that the group went on without it, which is what churn does to members.
FENCED = re.compile(r"ILLEGAL_GENERATION|UNKNOWN_MEMBER|REBALANCE_IN_PROGRESS|IllegalGeneration|UnknownMember|RebalanceInProgress|CommitFailed|not assigned|rebalanc")
FENCED_CODES = {Error.ILLEGAL_GENERATION, Error.UNKNOWN_MEMBER_ID, Error.REBALANCE_IN_PROGRESS}
OFFSET_OUT_OF_RANGE = 1


def was_fenced(error):
    return getattr(error, "code", None) in FENCED_CODES or FENCED.search(f"{type(error).__name__} {error}") is not None


class Worker(threading.Thread):
    """Repeats `step` until told to end; the first failure ends it and is told by `finish`."""

    pause_s = 0.1

    def __init__(self, name, seed):
        super().__init__(name=name, daemon=True)
        self.random = random.Random(f"{seed} {name}")
        self.ending, self.failure, self.steps = threading.Event(), None, 0

    def run(self):
        try:
            while not self.ending.is_set():
                self.step()
                self.steps += 1
                self.ending.wait(self.pause_s * self.random.uniform(0.2, 1.8))
            self.close()
        except BaseException as error:  # told by finish()
            self.failure = error

    def step(self):
        raise NotImplementedError

    def close(self):
        """Gives back what was kept between steps."""

    def check(self):
        if self.failure:
            raise AssertionError(f"{self.name}, step {self.steps}: {self.failure!r}") from self.failure

    def finish(self, timeout_s=90):
        self.ending.set()
        self.join(timeout_s)
        self.check()
        assert not self.is_alive(), f"{self.name} did not end"


class Kcat:
    """kcat with the face of a client, as far as it goes: one process for each call."""

    name, codecs, lacks = "kcat", ("none", "gzip", "snappy", "lz4", "zstd"), {}

    def __init__(self, address):
        self.address = address

    def close(self):
        pass

    def _run(self, *arguments, stdin=b""):
        command = ["kcat", "-b", self.address, *map(str, arguments)]
        done = subprocess.run(command, input=stdin, capture_output=True, timeout=60)
        if done.returncode != 0:
            raise AssertionError(f"kcat exited with {done.returncode}: {done.stderr.decode()[-2000:]}")
        return done

    def produce(self, topic, records, *, codec="none", idempotent=True):
        """All records go to the partition of the first."""
        lines = b"".join(r.key + b"\t" + r.value + b"\n" for r in records)
        done = self._run("-P", "-t", topic, "-p", records[0].partition, "-K", "\t", "-z", codec, "-vv",
                         "-X", "enable.idempotence=true", stdin=lines)  # fmt: skip
        told = re.findall(rb"delivered to partition (\d+) \(offset (\d+)\)", done.stderr)
        assert len(told) == len(records), done.stderr[-2000:]
        return [(int(p), int(o)) for p, o in told]

    def read_on(self, topic, partition, start):
        """Everything from `start` to the end of now."""
        done = self._run("-C", "-t", topic, "-p", partition, "-o", start, "-e", "-q", "-f", "%o %s\n",
                         "-X", "topic.auto.offset.reset=error")  # fmt: skip
        lines = (line.split(b" ", 1) for line in done.stdout.splitlines())
        return [Rec(value=value, partition=partition, offset=int(offset)) for offset, value in lines]


@dataclass
class Topic:
    """A topic that lasts: its books by partition, and how many keys it has (None: each record has its own)."""

    name: str
    books: list
    keys: int | None = None


class PatientKafkaJs(KafkaJs):
    """Asked about all topics, KafkaJS fails while one that was just created has no leader; on a busy machine that may last."""

    retries = 8


class Writer(Worker):
    """Writes a few records at a time with one client, here and there, and enters what was acknowledged into the books."""

    def __init__(self, client, topics, seed):
        super().__init__(f"writer {client.name}", seed)
        self.client, self.topics = client, topics
        self.numbered = 0

    def record(self, topic, partition):
        self.numbered += 1
        key = b"key-%d" % (self.random.randrange(topic.keys) if topic.keys else self.numbered)
        value = b"%s %d " % (self.name.encode(), self.numbered) + self.random.randbytes(self.random.randrange(10, 1200)).hex().encode()
        if topic.keys and self.client.name != "kcat" and self.random.random() < 0.02:
            value = None
        return Rec(value=value, key=key, partition=partition)

    def step(self):
        topic = self.random.choice(self.topics)
        partitions = range(len(topic.books))
        if self.client.name == "kcat":
            partitions = [self.random.choice(partitions)]
        records = [self.record(topic, self.random.choice(partitions)) for _ in range(self.random.randrange(20, 300))]
        codec = self.random.choice(self.client.codecs)
        acks = self.client.produce(topic.name, records, codec=codec, idempotent=self.random.random() < 0.8)
        assert len(acks) == len(records)
        for record, (partition, offset) in zip(records, acks):
            assert partition == record.partition
            topic.books[partition].acknowledge(offset, record.key, record.value)


class Follower(Worker):
    """Reads one partition from its beginning to its end, by one client after the other, each going on where the last one stood."""

    pause_s = 0.3

    def __init__(self, clients, address, book, seed):
        super().__init__(f"follower {book}", seed)
        self.clients, self.address, self.book = clients, address, book

    def log_start(self):
        # It is asked so rarely that the broker would have closed a connection that waits for it.
        with Connection(self.address, timeout_s=30) as wire:
            return list_offset(wire, self.book.topic, EARLIEST, partition=self.book.partition)["Offset"]

    def take(self, records):
        for record in records:
            self.book.saw(record.offset, record.value, self.log_start)

    def step(self):
        client = self.clients[(self.steps + self.book.partition) % len(self.clients)]
        try:
            if client.name == "kcat":
                # A tombstone is an empty line of its output, so it reads where there are none.
                self.take(client.read_on(self.book.topic, self.book.partition, self.book.position))
            else:
                self.follow(client, time.monotonic() + self.random.uniform(2, 8))
        except (ClientError, AssertionError) as error:
            # kcat has words for it only.
            if getattr(error, "code", None) != OFFSET_OUT_OF_RANGE and "out of range" not in str(error).lower():
                raise
            self.book.moved_to(self.log_start())

    def follow(self, client, until):
        with client.reader(self.book.topic, self.book.position, partition=self.book.partition) as reader:
            while time.monotonic() < until and not self.ending.is_set():
                self.take(reader.poll(500, 0.5))

    def close(self):
        """The writers have ended: what is left is read to the end."""
        with Connection(self.address, timeout_s=30) as wire:
            end = list_offset(wire, self.book.topic, LATEST, partition=self.book.partition)["Offset"]
            while self.book.position < end:
                self.book.position = max(self.book.position, self.log_start())
                batches = read_batches(wire, self.book.topic, self.book.partition, self.book.position)
                for batch in batches:
                    self.take(Rec(r.value, offset=r.offset) for r in batch.records if r.offset >= self.book.position)
                self.book.position = max(self.book.position, batches[-1].last_offset + 1)


def read_batches(wire, topic, partition, offset):
    """The next batches from an offset, checksums looked at."""
    data = fetch(wire, topic, offset, partition=partition, partition_max_bytes=4 << 20)
    assert data["ErrorCode"] == Error.NONE, data
    batches = parse_batches(data["Records"])
    assert batches and all(batch.crc_ok for batch in batches)
    return batches


def read_all(wire, topic, partition):
    """(log start, end, {offset: value}) of a partition that nobody writes to; read again where retention cuts in between."""
    while True:
        start = list_offset(wire, topic, EARLIEST, partition=partition)["Offset"]
        end = list_offset(wire, topic, LATEST, partition=partition)["Offset"]
        found, offset = {}, start
        while offset < end:
            if fetch(wire, topic, offset, partition=partition)["ErrorCode"] == Error.OFFSET_OUT_OF_RANGE:
                break
            for batch in read_batches(wire, topic, partition, offset):
                for record in batch.records:
                    if record.offset >= offset:
                        assert record.offset not in found, f"{topic}-{partition}: {record.offset} is there twice"
                        found[record.offset] = record.value
                offset = max(offset, batch.last_offset + 1)
        if start == list_offset(wire, topic, EARLIEST, partition=partition)["Offset"]:
            return start, end, found


class GroupChurn(Worker):
    """Members of several clients join one group and leave it again; what they got is kept by partition."""

    pause_s = 1.5

    def __init__(self, clients, group, topic, partitions, seed):
        super().__init__(f"group {group}", seed)
        self.clients, self.group, self.topic = clients, group, topic
        self.members, self.received = [], [set() for _ in range(partitions)]
        self.fenced = 0

    def step(self):
        if len(self.members) < 2 or (len(self.members) < 4 and self.random.random() < 0.5):
            self.members.append(self.random.choice(self.clients).member(self.group, self.topic))
        else:
            # Mostly the oldest: a member remembers all that it got, and nobody stays long.
            self.leave(self.members.pop(self.random.choice([0, 0, 0, -1])))

    def leave(self, member):
        try:
            member.stop()
        except Exception as error:
            if not was_fenced(error):
                raise
            self.fenced += 1
        for partition, offset, _ in member.received():
            self.received[partition].add(offset)

    def close(self):
        while self.members:
            self.leave(self.members.pop())


class Commits(Worker):
    """Looks at what the groups have committed: it never goes back."""

    pause_s = 0.2

    def __init__(self, address, groups, topic, partitions, seed):
        super().__init__("commits", seed)
        self.wire = Connection(address, timeout_s=30)
        self.groups, self.topic = groups, topic
        self.newest = {(group, p): -1 for group in groups for p in range(partitions)}
        for group in groups:
            find_coordinator(self.wire, group)

    def step(self):
        for (group, partition), before in self.newest.items():
            now, _, error = committed(self.wire, group, self.topic, partition=partition)
            assert error == Error.NONE
            assert now >= before, f"{group} had committed {before} of partition {partition}, now {now}"
            self.newest[group, partition] = now

    def close(self):
        self.step()
        self.wire.close()


def settled(commit_once):
    """Commits, again while a group of that name is just being removed: clients retry this, too."""
    for _ in range(100):
        code = commit_once()
        if code != Error.COORDINATOR_NOT_AVAILABLE:
            assert code == Error.NONE, f"a commit was refused: {code}"
            return
        time.sleep(0.02)
    raise AssertionError("a commit was never accepted")


class PassingGroups(Worker):
    """Groups that commit, are asked and are deleted."""

    pause_s = 0.3

    def __init__(self, address, topic, seed):
        super().__init__("passing groups", seed)
        self.wire, self.topic = Connection(address, timeout_s=30), topic

    def step(self):
        group = f"passing-{self.steps}"
        offset = self.random.randrange(1 << 40)
        settled(lambda: commit(self.wire, group, self.topic, offset, metadata="m" * self.random.randrange(200)))
        assert committed(self.wire, group, self.topic)[0] == offset
        assert delete_group(self.wire, group) == Error.NONE
        assert committed(self.wire, group, self.topic)[0] == -1

    def close(self):
        self.wire.close()


class TopicChurn(Worker):
    """Topics are created, written, committed for, read and deleted by different clients, again and again under few names."""

    pause_s = 0.3

    def __init__(self, clients, address, number, seed):
        super().__init__(f"topics {number}", seed)
        self.clients, self.topic = clients, f"passing-{number}"
        self.wire = Connection(address, timeout_s=30)

    def step(self):
        creator, deleter = self.random.choice(self.clients), self.random.choice(self.clients)
        partitions = self.random.randrange(1, 5)
        policy = self.random.choice(["delete", "compact", "compact,delete"])
        self.create(creator, partitions, {"cleanup.policy": policy, "segment.bytes": str(1 << 20)})
        values = [b"%d of step %d" % (n, self.steps) for n in range(self.random.randrange(1, 50))]
        where = self.random.randrange(partitions)
        batch = build_batch([Record(key=value, value=value) for value in values])
        answer = self.led(lambda: produce(self.wire, self.topic, batch, partition=where))
        assert answer["BaseOffset"] == 0, "a new topic begins at 0"
        settled(lambda: commit(self.wire, "of-passing-topics", self.topic, len(values), partition=where))
        _, _, found = read_all(self.wire, self.topic, where)
        assert [found[offset] for offset in sorted(found)] == values, "and has its own records only"
        deleter.delete_topic(self.topic)

    def create(self, client, partitions, configs):
        for _ in range(100):
            try:
                return client.create_topic(self.topic, partitions, 1, configs)
            except ClientError as error:
                # A deletion may take a while.
                if error.code != Error.TOPIC_ALREADY_EXISTS:
                    raise
                time.sleep(0.1)
        raise AssertionError(f"{self.topic} cannot be created again")

    @staticmethod
    def led(call):
        """The answer once the new partition has its leader."""
        for _ in range(100):
            answer = call()
            if answer["ErrorCode"] not in (Error.NOT_LEADER_OR_FOLLOWER, Error.UNKNOWN_TOPIC_OR_PARTITION, Error.LEADER_NOT_AVAILABLE):
                assert answer["ErrorCode"] == Error.NONE, answer
                return answer
            time.sleep(0.05)
        raise AssertionError(answer)

    def close(self):
        self.wire.close()
