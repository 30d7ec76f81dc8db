"""kill -9 under load: what was acknowledged is there after the restart, once, where its acknowledgement said.

This shows that the process may die at any moment. It does not show what a power loss leaves, since the page cache
survives a kill; that needs a broker which forgets what it has not synced.
"""

import collections
import threading
import time

import pytest
from confluent_kafka import Producer

from clients import ALL, Rec
from wire import Connection, Disconnected, Error, build_batch, parse_batches
from wire.calls import (
    commit,
    committed,
    create_topic,
    describe_configs,
    fetch,
    find_coordinator,
    init_producer,
    list_offset,
    metadata,
    produce,
    produce_body,
    produced,
)
from harness.topics import Topics

ROUNDS = 3
LOAD_S = 1.5


class Load(threading.Thread):
    """Writes numbered values until told to stop; `acked` maps each acknowledged value to (partition, offset)."""

    def __init__(self, address, topic, tag, partition):
        super().__init__(daemon=True)
        self.address, self.topic, self.tag, self.partition = address, topic, tag, partition
        self.acked, self.ending, self.failure = {}, threading.Event(), None
        self.count = 0

    def value(self):
        self.count += 1
        return b"%s-%06d" % (self.tag, self.count)

    def run(self):
        try:
            self.write()
        except Exception as error:  # told by finish()
            self.failure = error

    def finish(self):
        self.ending.set()
        self.join(60)
        assert not self.is_alive(), f"{self.tag} did not end"
        if self.failure:
            raise self.failure


class ConfluentLoad(Load):
    """librdkafka, idempotent: it sends again by itself until the broker is back."""

    def write(self):
        producer = Producer({
            "bootstrap.servers": self.address, "enable.idempotence": True, "linger.ms": 2, "compression.type": "lz4",
            "message.timeout.ms": 60000, "reconnect.backoff.max.ms": 200, "log_level": 0,
        })  # fmt: skip

        def report(error, message):
            if error:
                self.failure = RuntimeError(f"{self.tag}: {error}")
            else:
                self.acked[message.value()] = (message.partition(), message.offset())

        while not self.ending.is_set() and not self.failure:
            producer.produce(self.topic, self.value(), partition=self.partition, on_delivery=report)
            producer.poll(0)
            if self.count % 20 == 0:
                producer.poll(0.01)
        assert producer.flush(50) == 0, f"{self.tag}: records left in the queue"


class KafkaPythonLoad(Load):
    """kafka-python, idempotent by default."""

    def write(self):
        from kafka import KafkaProducer

        producer = KafkaProducer(
            bootstrap_servers=self.address, acks="all", linger_ms=2, reconnect_backoff_max_ms=200,
            delivery_timeout_ms=60000, request_timeout_ms=5000,
        )  # fmt: skip
        sent = []
        while not self.ending.is_set():
            value = self.value()
            sent.append((value, producer.send(self.topic, value, partition=self.partition)))
            if self.count % 20 == 0:
                time.sleep(0.01)
        producer.flush(50)
        for value, future in sent:
            done = future.get(50)
            self.acked[value] = (done.partition, done.offset)
        producer.close(5)


class WireLoad(Load):
    """An idempotent producer by hand: five batches in flight, all that was not answered sent again after a reconnect."""

    def write(self):
        waiting, sequence, connection, ids = collections.deque(), 0, None, None
        while not self.ending.is_set() or waiting:
            try:
                if connection is None:
                    connection = Connection(self.address, timeout_s=10)
                    ids = ids or init_producer(connection)
                    for _, batch in waiting:
                        connection.send("Produce", 9, **produce_body(self.topic, batch, self.partition))
                while len(waiting) < 5 and not self.ending.is_set():
                    values = [self.value() for _ in range(3)]
                    batch = build_batch(values, producer_id=ids[0], producer_epoch=ids[1], base_sequence=sequence)
                    sequence += len(values)
                    waiting.append((values, batch))
                    connection.send("Produce", 9, **produce_body(self.topic, batch, self.partition))
                answer = produced(connection.receive()[1])
            except (OSError, Disconnected):
                if connection:
                    connection.close()
                connection = None
                time.sleep(0.02)
                continue
            if answer["ErrorCode"] in (Error.NOT_LEADER_OR_FOLLOWER, Error.UNKNOWN_TOPIC_OR_PARTITION):
                # The broker is up and still loading; what is in flight is asked for again.
                connection.close()
                connection = None
                time.sleep(0.02)
                continue
            assert answer["ErrorCode"] == Error.NONE, answer
            values, _ = waiting.popleft()
            for n, value in enumerate(values):
                self.acked[value] = (self.partition, answer["BaseOffset"] + n)
        connection.close()


def read_all(address, topic, partition):
    """{offset: value} of a whole partition, every checksum looked at."""
    found, offset = {}, 0
    with Connection(address) as connection:
        end = list_offset(connection, topic, -1, partition=partition)["Offset"]
        while offset < end:
            data = fetch(connection, topic, offset, partition=partition, partition_max_bytes=4 << 20)
            assert data["ErrorCode"] == Error.NONE, data
            batches = parse_batches(data["Records"])
            assert batches and all(b.crc_ok for b in batches)
            for batch in batches:
                found |= {r.offset: r.value for r in batch.records}
                offset = batch.last_offset + 1
    # More than was there at first, where somebody goes on writing.
    assert len(found) >= end and sorted(found) == list(range(len(found))), "offsets without a gap"
    return found


@pytest.mark.timeout(240)
def test_acknowledged_records_survive_kill_9(start_broker, name):
    broker = start_broker()
    with Topics(broker.address) as topics:
        topics.create(name, partitions=4)
    kinds = [ConfluentLoad, KafkaPythonLoad, WireLoad, WireLoad]
    loads = [kind(broker.address, name, b"w%d" % p, p) for p, kind in enumerate(kinds)]
    for load in loads:
        load.start()
    for _ in range(ROUNDS):
        time.sleep(LOAD_S)
        broker.kill()
        broker.start()
    time.sleep(LOAD_S)
    for load in loads:
        load.finish()
    for load in loads:
        assert len(load.acked) > 50, f"{load.tag} got too little done to show anything"
        stored = read_all(broker.address, name, load.partition)
        missing = [v for v, (_, offset) in load.acked.items() if stored.get(offset) != v]
        assert not missing, f"{load.tag}: {len(missing)} of {len(load.acked)} acknowledged records are not where they were put"
        twice = [v for v, n in collections.Counter(stored.values()).items() if n > 1]
        assert not twice, f"{load.tag}: an idempotent producer's records are there twice: {twice[:5]}"
        assert sorted(stored.values()) == list(stored[o] for o in sorted(stored)), "in the order in which they were sent"
    broker.stop()


@pytest.mark.timeout(120)
def test_what_was_settled_survives_kill_9(start_broker, name):
    broker = start_broker()
    with Connection(broker.address) as connection:
        assert create_topic(connection, name, partitions=3, configs={"retention.ms": "777000"})["ErrorCode"] == Error.NONE
        find_coordinator(connection, name)
        topic_id = metadata(connection, name)["TopicId"]
        pid, epoch = init_producer(connection)
        batches = [build_batch([b"x"], producer_id=pid, producer_epoch=epoch, base_sequence=n) for n in range(3)]
        assert [produce(connection, name, b)["BaseOffset"] for b in batches] == [0, 1, 2]
        for offset in range(1, 30):
            assert commit(connection, name, name, offset, metadata=f"at {offset}") == Error.NONE
    broker.kill()
    broker.start()
    with Topics(broker.address) as topics:
        topics.wait_until_led(name, 3)
    with Connection(broker.address) as connection:
        assert metadata(connection, name)["TopicId"] == topic_id
        assert describe_configs(connection, 2, name)[1]["retention.ms"]["Value"] == "777000"
        find_coordinator(connection, name)
        assert committed(connection, name, name) == (29, "at 29", Error.NONE)
        # The producer's state is there too: a repeat is a repeat, the next in line is the next, a gap is a gap.
        # (Of each producer Kafka remembers the last batch over a restart, of the four before it only that they were.)
        assert produce(connection, name, batches[2])["BaseOffset"] == 2
        gap = build_batch([b"x"], producer_id=pid, producer_epoch=epoch, base_sequence=9)
        assert produce(connection, name, gap)["ErrorCode"] == Error.OUT_OF_ORDER_SEQUENCE_NUMBER
        following = build_batch([b"x"], producer_id=pid, producer_epoch=epoch, base_sequence=3)
        assert produce(connection, name, following)["BaseOffset"] == 3
        assert init_producer(connection)[0] != pid, "a producer id is never handed out twice"
    broker.stop()


@pytest.mark.timeout(180)
@pytest.mark.parametrize("end", ["kill", "stop"])
def test_a_group_goes_on_after_the_restart(start_broker, name, end):
    broker = start_broker()
    with Topics(broker.address) as topics:
        topics.create(name, partitions=2)
    client = ALL["confluent"](broker.address)
    member = client.member(name, name)

    def wait_for(count):
        deadline = time.monotonic() + 60
        while len({v for _, _, v in member.received()}) < count:
            assert time.monotonic() < deadline, f"{len(member.received())} of {count}"
            time.sleep(0.05)

    client.produce(name, [Rec(b"a%d" % n, partition=n % 2) for n in range(20)], idempotent=True)
    wait_for(20)
    if end == "kill":
        broker.kill()
    else:
        broker.stop()
    broker.start()
    client.produce(name, [Rec(b"b%d" % n, partition=n % 2) for n in range(20)], idempotent=True)
    wait_for(40)
    member.stop()
    # What was committed before is not read again.
    assert len(member.received()) == 40
    broker.stop()


def test_a_clean_stop_keeps_everything_and_starts_again(start_broker, name):
    broker = start_broker()
    with Topics(broker.address) as topics:
        topics.create(name)
        for n in range(50):
            assert produce(topics.connection, name, build_batch([b"%d" % n]))["BaseOffset"] == n
    for _ in range(2):
        broker.stop()
        broker.start()
    with Topics(broker.address) as topics:
        topics.wait_until_led(name)
    assert [v for _, v in sorted(read_all(broker.address, name, 0).items())] == [b"%d" % n for n in range(50)]
    broker.stop()
