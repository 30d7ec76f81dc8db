"""Who uses the cluster while faults go on: producers, followers, groups, and who watches what groups commit. Each runs on a thread
until told to end; none of them knows of faults.
"""

import re
import threading
import time
from array import array
from collections import Counter, defaultdict
from functools import partial

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from chaos.books import Balance, Committed, Ledger, check
from chaos.view import OFFSETS_TOPIC, asked, committed, epoch_ends, offsets_partition, placements
from clients import ClientError, Rec
from clients.java import Java
from harness.cluster import create, until
from soak.load import Worker
from wire import Connection, Disconnected

TOPIC = "orders"
# Each broker is preferred for two of the partitions.
ASSIGNMENT = [[1, 2, 3], [2, 3, 1], [3, 1, 2]] * 2
PARTITIONS = len(ASSIGNMENT)
# Each with how its members share the partitions. They are in different partitions of the offsets topic.
GROUPS = {"residents": "range", "travellers": "cooperative-sticky"}
MEMBERS = 2

# Longer than any fault: a record whose delivery is given up may turn up behind later ones, as in Kafka, where the connection that it
# was sent on is slower than the next.
DELIVERY_S = 180
IN_FLIGHT_MAX = 5_000
# From the end of a fault until every partition takes records again.
RECOVERY_S = 60
# From the end of the last fault until everybody has read everything.
CATCH_UP_S = 120
ENDING_S = 90

COMMON = {
    "log_level": 0, "socket.connection.setup.timeout.ms": 3_000, "reconnect.backoff.ms": 50, "reconnect.backoff.max.ms": 500,
    "topic.metadata.refresh.interval.ms": 1_000,
}  # fmt: skip
TRUNCATION = re.compile(r"truncation detected at offset (\d+) \(leader epoch (\d+)\)")
# What a consumer is told when records are gone that it has seen, or were never there.
NEVER = {
    KafkaError._AUTO_OFFSET_RESET, KafkaError._LOG_TRUNCATION, KafkaError._NO_OFFSET, KafkaError._FATAL, KafkaError._BAD_MSG,
    KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._MAX_POLL_EXCEEDED,
}  # fmt: skip


class Writer(Worker):
    """librdkafka, idempotent: a few records to each partition in turn, all the time."""

    pause_s = 0.05

    def __init__(self, address, ledger, seed, settings):
        super().__init__(ledger.producer, seed)
        self.ledger, self.abandoned, self.next = ledger, False, 0
        self.longest_silence_s, self.heard = 0, time.monotonic()
        self.producer = Producer(COMMON | {
            "bootstrap.servers": address, "enable.idempotence": True, "acks": "all", "linger.ms": 5, "retry.backoff.ms": 50,
            "message.timeout.ms": DELIVERY_S * 1000,
        } | settings)  # fmt: skip

    def _delivered(self, partition, sequence, error, message):
        now = time.monotonic()
        self.longest_silence_s, self.heard = max(self.longest_silence_s, now - self.heard), now
        if error is None:
            assert message.partition() == partition
            self.ledger.acknowledge(partition, sequence, message.offset())
        else:
            assert self.abandoned or error.code() != KafkaError._FATAL, f"{self.name}: {error}"
            self.ledger.failed += 1

    def step(self):
        if len(self.producer) < IN_FLIGHT_MAX:
            for _ in range(20):
                partition, self.next = self.next % PARTITIONS, self.next + 1
                sequence, value = self.ledger.take(partition)
                self.producer.produce(TOPIC, value, partition=partition, on_delivery=partial(self._delivered, partition, sequence))
        self.producer.poll(0)

    def close(self):
        if self.abandoned:
            self.producer.purge()
        left = self.producer.flush(5 if self.abandoned else ENDING_S)
        assert self.abandoned or left == 0, f"{self.name}: {left} records were neither acknowledged nor refused"


class JavaWriter(Worker):
    """The Java client, idempotent: a producer of its own for a few records at a time, which gives up after seconds. What the books know
    as one producer is one of these: after one has given up, its records may still come, but not those of another one before them."""

    pause_s = 0.3
    # Where nobody answers, each record takes three seconds, and all of them less than a minute.
    RECORDS = 8

    def __init__(self, address, open_ledger, seed):
        super().__init__("java", seed)
        self.client, self.open_ledger, self.refused = Java(address), open_ledger, 0

    def step(self):
        ledger = self.open_ledger(f"java-{self.steps}")
        sent = []
        for partition in self.random.sample(range(PARTITIONS), 2) * (self.RECORDS // 2):
            sent.append((partition, *ledger.take(partition)))
        try:
            acks = self.client.produce(TOPIC, [Rec(value=value, partition=partition) for partition, _, value in sent], idempotent=True)
        except ClientError:
            # Some may have been acknowledged: the fate of all is unknown.
            self.refused += 1
            return
        assert len(acks) == len(sent)
        for (partition, sequence, _), (told, offset) in zip(sent, acks):
            assert told == partition
            ledger.acknowledge(partition, sequence, offset)


class Reader(Worker):
    """What followers and members have in common: a consumer that is told of errors, which are counted unless they may never be."""

    pause_s = 0.01

    def __init__(self, name, seed):
        super().__init__(name, seed)
        self.consumer, self.errors = None, Counter()

    def note(self, error, partition):
        assert not error.fatal() and error.code() not in NEVER, f"{self.name}: {error}"
        self.errors[error.name()] += 1

    def poll(self, most=200):
        """The next records, as they come one by one: whatever a rebalance took away is not among them."""
        for count in range(most):
            message = self.consumer.poll(0 if count else 0.2)
            if message is None:
                return
            if message.error():
                self.note(message.error(), message.partition())
                if self.consumer is None:
                    return
            else:
                yield message

    def close(self):
        if self.consumer:
            self.consumer.close()
            self.consumer = None


class Follower(Reader):
    """Reads every partition from its beginning; what once stood at an offset stands there for ever. One that is `restless` begins anew
    every some seconds, when it has read again all that it had read before."""

    def __init__(self, address, name, seed, restless):
        super().__init__(name, seed)
        self.settings = COMMON | {
            "bootstrap.servers": address, "group.id": name, "enable.auto.commit": False, "auto.offset.reset": "error",
            "socket.timeout.ms": 10_000, "fetch.wait.max.ms": 100, "check.crcs": True,
        }  # fmt: skip
        self.restless, self.settled, self.rounds = restless, False, 0
        self.digests = [array("q") for _ in range(PARTITIONS)]
        self.positions = [0] * PARTITIONS

    def note(self, error, partition):
        """librdkafka asks where the epoch of a position ended, and holds the answer against a later position if a fetch that was on
        its way has moved it meanwhile. Such a truncation is none if the leader has that epoch up to there and beyond."""
        found = TRUNCATION.search(error.str())
        if error.code() != KafkaError._AUTO_OFFSET_RESET or not found:
            return super().note(error, partition)
        offset, epoch = map(int, found.groups())
        addresses, ends = self.settings["bootstrap.servers"].split(","), []

        def leader_says():
            told = [asked(address, epoch_ends, TOPIC, PARTITIONS, [epoch]) for address in addresses]
            ends[:] = [end for one in told if isinstance(one, dict) for _, end in one.get(partition, [])]
            return ends

        until(leader_says, lambda ends: any(end >= offset for end in ends))
        self.errors["answer for an older position"] += 1
        self.close()

    def step(self):
        if self.consumer is None:
            self.positions = [0] * PARTITIONS
            self.consumer = Consumer(self.settings)
            self.consumer.assign([TopicPartition(TOPIC, partition, 0) for partition in range(PARTITIONS)])
            self.known = [len(digests) for digests in self.digests]
            self.again_at = time.monotonic() + self.random.uniform(3, 8)
        for message in self.poll():
            self._take(message)
        if self.restless and not self.settled and time.monotonic() > self.again_at and self.reached(self.known):
            self.rounds += 1
            self.close()

    def _take(self, message):
        partition, offset, digest = message.partition(), message.offset(), hash(message.value())
        digests = self.digests[partition]
        assert offset == self.positions[partition], f"{self.name}: {offset} of partition {partition} after {self.positions[partition] - 1}"
        if offset < len(digests):
            assert digests[offset] == digest, f"{self.name}: another record at {offset} of partition {partition} than before"
        else:
            digests.append(digest)
        self.positions[partition] = offset + 1

    def reached(self, ends):
        return all(position >= end for position, end in zip(self.positions, ends, strict=True))


class Group:
    """What the members of one group got and committed, all together."""

    def __init__(self, name, strategy):
        self.name, self.strategy = name, strategy
        self.lock = threading.Lock()
        self.received = [bytearray() for _ in range(PARTITIONS)]
        # The newest that a member was told is committed.
        self.acknowledged = [0] * PARTITIONS

    def got(self, partition, offset):
        with self.lock:
            flags = self.received[partition]
            flags.extend(bytes(max(0, offset + 1 - len(flags))))
            flags[offset] = 1

    def acknowledge(self, partition, offset):
        with self.lock:
            self.acknowledged[partition] = max(self.acknowledged[partition], offset)

    def missing(self, ends):
        """Partitions of which it did not get everything."""
        with self.lock:
            return [p for p, end in enumerate(ends) if self.received[p].count(1) < end]


class Member(Reader):
    """A member of a group that commits what it got twice a second; one that is `restless` leaves and comes back.

    The socket waits longer than any fault lasts, and commits go out one after the other on it: a commit that is on its way on
    an earlier connection could come in behind a later one, as in Kafka.
    """

    def __init__(self, address, group, number, seed, restless):
        super().__init__(f"member {number} of {group.name}", seed)
        self.group, self.restless, self.settled, self.refused = group, restless, False, Counter()
        self.positions, self.commit_at, self.leave_at = {}, 0, 0
        self.settings = COMMON | {
            "bootstrap.servers": address, "group.id": group.name, "enable.auto.commit": False, "auto.offset.reset": "earliest",
            "partition.assignment.strategy": group.strategy, "session.timeout.ms": 10_000, "heartbeat.interval.ms": 1_000,
            "socket.timeout.ms": 60_000, "fetch.wait.max.ms": 100,
        }  # fmt: skip

    def step(self):
        if self.consumer is None:
            self._join()
        for message in self.poll():
            self.group.got(message.partition(), message.offset())
            self.positions[message.partition()] = message.offset() + 1
        if self.positions and time.monotonic() > self.commit_at:
            self._commit()
        if self.restless and not self.settled and time.monotonic() > self.leave_at:
            self.close()

    def _join(self):
        self.positions = {}
        self.leave_at = time.monotonic() + self.random.uniform(5, 20)
        self.consumer = Consumer(self.settings)
        self.consumer.subscribe([TOPIC], on_assign=self._changed, on_revoke=self._changed, on_lost=self._changed)

    def _changed(self, _, partitions):
        """What was got of these and not committed is for whoever has them from now on."""
        for one in partitions:
            self.positions.pop(one.partition, None)

    def _commit(self):
        self.commit_at = time.monotonic() + 0.5
        offsets = [TopicPartition(TOPIC, partition, offset) for partition, offset in self.positions.items()]
        try:
            done = self.consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as error:
            # Whether it was committed is not known. The next commit says more.
            self.refused[error.args[0].name()] += 1
            return
        for one in done:
            if one.error is None:
                self.group.acknowledge(one.partition, one.offset)
                if self.positions.get(one.partition) == one.offset:
                    del self.positions[one.partition]


class Watch(Worker):
    """Asks one broker again and again what the groups have committed, as long as it says of itself that it is their coordinator."""

    pause_s = 0.3

    def __init__(self, number, address, seen, seed):
        super().__init__(f"watch of broker {number}", seed)
        self.number, self.address, self.seen, self.wire, self.answers = number, address, seen, None, 0

    def step(self):
        try:
            self.wire = self.wire or Connection(self.address, timeout_s=3)
            for group in GROUPS:
                self._look(group)
        except (OSError, Disconnected):
            self.close()

    def _term(self, group):
        """The leader epoch in which this broker coordinates the group, None if it does not."""
        found = placements(self.wire, OFFSETS_TOPIC)
        if not found:
            return None
        leads = found[offsets_partition(group, len(found))]
        return leads.epoch if leads.leader == self.number else None

    def _look(self, group):
        term = self._term(group)
        if term is None:
            return
        floors = [self.seen.floor((group, partition), term) for partition in range(PARTITIONS)]
        answer = committed(self.wire, group, TOPIC, PARTITIONS)
        # An answer from between two terms is of neither.
        if answer is None or self._term(group) != term:
            return
        self.answers += 1
        for partition, offset in answer.items():
            self.seen.saw((group, partition), term, offset, floors[partition], f"broker {self.number}")

    def close(self):
        if self.wire:
            self.wire.close()
            self.wire = None


class World:
    """Everybody together, and the books. Entered, all of them work; left, all of them have ended."""

    def __init__(self, cluster, seed, java):
        self.cluster, address = cluster, cluster.address
        self.ledgers, self.lock = {}, threading.Lock()
        self.seen = Committed()
        self.groups = [Group(name, strategy) for name, strategy in GROUPS.items()]
        create(list(cluster.nodes.values()), TOPIC, assignment=ASSIGNMENT)
        cluster.settle([TOPIC])
        # One whose connections end early when nobody answers, one that waits.
        kinds = {"hasty": {"socket.timeout.ms": 5_000, "compression.type": "lz4"}, "patient": {"compression.type": "none"}}
        self.writers = [Writer(address, self.open_ledger(name), seed, settings) for name, settings in kinds.items()]
        self.java = JavaWriter(address, self.open_ledger, seed) if java else None
        self.followers = [Follower(address, name, seed, name == "restless") for name in ("restless", "steadfast")]
        self.members = [
            Member(address, group, number, seed, group.name == "travellers") for group in self.groups for number in range(MEMBERS)
        ]
        self.watches = [Watch(number, broker.address, self.seen, seed) for number, broker in cluster.nodes.items()]

    def open_ledger(self, producer):
        with self.lock:
            assert producer not in self.ledgers
            self.ledgers[producer] = ledger = Ledger(producer, PARTITIONS)
        return ledger

    def everybody(self):
        return [*self.writers, *filter(None, [self.java]), *self.followers, *self.members, *self.watches]

    def __enter__(self):
        for worker in self.everybody():
            worker.start()
        return self

    def __exit__(self, kind, *_):
        """Those who still work are told to end, and given a while for it."""
        for worker in self.everybody():
            worker.abandoned = True
            worker.ending.set()
        deadline = time.monotonic() + ENDING_S
        for worker in self.everybody():
            worker.join(max(0, deadline - time.monotonic()))
        # One that found something out has left its consumer open.
        for worker in [*self.followers, *self.members]:
            if not worker.is_alive():
                worker.close()
        if self.java:
            self.java.client.close()
        left = [worker.name for worker in self.everybody() if worker.is_alive()]
        assert kind or not left, f"did not end: {left}"

    def check(self):
        """Nobody has found anything out, and nobody is dead."""
        self.cluster.check()
        for worker in self.everybody():
            worker.check()

    def wait(self, what, patience_s):
        """Waits until `what()` returns nothing that is left to wait for."""
        deadline = time.monotonic() + patience_s
        while left := what():
            self.check()
            assert time.monotonic() < deadline, f"after {patience_s} s there is still: {left}"
            time.sleep(0.1)

    def hold(self, seconds):
        """Lets time go by, and looks."""
        until = time.monotonic() + seconds
        while True:
            self.check()
            left = until - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, 0.2))

    def goes_on(self):
        """Waits until each partition has acknowledged to each writer something that was sent after now; how long that took."""
        begun = time.monotonic()
        sent = {writer: [writer.ledger.sent(partition) for partition in range(PARTITIONS)] for writer in self.writers}

        def left():
            return [
                f"{writer.name} to partition {partition}" for writer, counts in sent.items() for partition, count in enumerate(counts)
                if writer.ledger.acknowledged[partition] <= count
            ]  # fmt: skip

        self.wait(left, RECOVERY_S)
        return time.monotonic() - begun

    def end_writing(self):
        for worker in [*self.writers, *filter(None, [self.java])]:
            worker.finish(ENDING_S + 30)

    def read_to(self, ends):
        """Waits until followers and groups have come to the ends, and have committed them; then they end."""
        for worker in [*self.followers, *self.members]:
            worker.settled = True
        self.wait(lambda: self._behind(ends), CATCH_UP_S)
        for worker in [*self.followers, *self.members, *self.watches]:
            worker.finish(ENDING_S)
        for group in self.groups:
            newest = [self.seen.highest((group.name, partition)) for partition in range(PARTITIONS)]
            assert newest == ends, f"{group.name}: {newest} was seen as committed, not {ends}"

    def _behind(self, ends):
        left = [f"{one.name} at {one.positions}, not {ends}" for one in self.followers if not one.reached(ends)]
        for group in self.groups:
            if missing := group.missing(ends):
                left.append(f"{group.name} got not all of {missing}")
            found = self.committed(group.name)
            if found != ends:
                left.append(f"{group.name} has committed {found}, not {ends}")
            # Whatever a member was told is committed; a new coordinator knows it, too.
            elif any(told > offset for told, offset in zip(group.acknowledged, found, strict=True)):
                left.append(f"{group.name} has committed {found}, and was told {group.acknowledged}")
            for partition, offset in enumerate(ends):
                if self.seen.highest((group.name, partition)) < offset:
                    left.append(f"{group.name}, partition {partition}: nobody was seen to know {offset}")
        return left

    def committed(self, group):
        """What the group's coordinator says, by partition."""
        for broker in self.cluster.nodes.values():
            found = asked(broker.address, committed, group, TOPIC, PARTITIONS)
            if isinstance(found, dict):
                return [found[partition] for partition in range(PARTITIONS)]
        return None

    def balance(self, stored):
        """The books of all partitions; `stored` holds their records in order, [(offset, value)]."""
        total, problems = Balance(), []
        for partition, records in enumerate(stored):
            one, found = check(partition, self.ledgers, records)
            total += one
            problems += found
        assert not problems, "the books do not balance:\n  " + "\n  ".join(problems)
        return total

    def have_read(self, stored):
        """What followers read on the way is what stands there."""
        for partition, records in enumerate(stored):
            digests = array("q", (hash(value) for _, value in records))
            for follower in self.followers:
                assert follower.digests[partition] == digests, f"{follower.name} has read other records of partition {partition}"

    def told(self):
        """What everybody has done, for a person."""
        lines = [
            f"{writer.name}: {writer.steps} steps, {writer.ledger.failed} records failed, longest silence {writer.longest_silence_s:.1f} s"
            for writer in self.writers
        ]
        if self.java:
            lines.append(f"java: {self.java.steps} producers, {self.java.refused} gave up")
        lines += [f"{f.name}: {sum(f.positions)} records, began anew {f.rounds} times; {dict(f.errors)}" for f in self.followers]
        commits = defaultdict(Counter)
        for member in self.members:
            commits[member.group.name] += member.refused + member.errors
        lines += [f"{name}: {dict(counts)}" for name, counts in commits.items()]
        lines.append(f"committed offsets were seen {sum(watch.answers for watch in self.watches)} times")
        return "\n".join(lines)

    def was_busy(self):
        """A quiet time would show nothing."""
        for writer in self.writers:
            assert min(writer.ledger.acknowledged) > 100, f"{writer.name} got too little done: {writer.ledger.acknowledged}"
        assert self.java is None or self.java.steps > self.java.refused, "the Java client got nothing done"
        assert sum(watch.answers for watch in self.watches) > 20, "committed offsets were hardly looked at"
        assert self.followers[0].rounds > 0, "nobody read from the beginning anew"
