"""Three broker processes as one cluster: joining, replicas on each, kill -9 of each in turn under load of idempotent producers.

Tidelog's own: brokers join by its flag. What is checked is what any client sees: every acknowledged record is read, once, in
the order of its partition, and what a group has committed stays committed.
"""

import os
import time
from collections import defaultdict

import pytest
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from harness.broker import TidelogBroker, free_ports

pytestmark = pytest.mark.skipif(
    os.environ.get("TIDELOG_TEST_BROKER", "tidelog") != "tidelog", reason="brokers join by Tidelog's own flag"
)

PARTITIONS = 3
PATIENCE_S = 60
# What a broker says of others that are killed.
EXPECTED = [r"broker is not heard of and is fenced", r"not every request was answered", r"no connection: ", r"connection of a broker refused: .* secret", r"the controller does not know"]


def node(folder, number, contact=None):
    (peers,) = free_ports(1)
    settings = {
        "node.id": str(number),
        "inter.broker.listener": f"127.0.0.1:{peers}",
        "offsets.topic.num.partitions": "3",
    }
    if contact:
        settings["cluster.join"] = contact
    broker = TidelogBroker(folder / f"broker{number}", settings)
    broker.peer_address = settings["inter.broker.listener"]
    return broker


@pytest.fixture
def cluster(tmp_path):
    brokers = [node(tmp_path, 1).start()]
    for number in (2, 3):
        brokers.append(node(tmp_path, number, brokers[0].peer_address).start())
    yield brokers
    for broker in brokers:
        if broker.process.poll() is None:
            broker.stop()
        assert broker.complaints(EXPECTED) == []
        broker.discard()


def bootstrap(brokers):
    return ",".join(broker.address for broker in brokers)


def create(brokers, name, replicas=-1):
    admin = AdminClient({"bootstrap.servers": bootstrap(brokers)})
    future = admin.create_topics([NewTopic(name, num_partitions=PARTITIONS, replication_factor=replicas)])[name]
    future.result(PATIENCE_S)
    return admin.list_topics(name, timeout=PATIENCE_S).topics[name].partitions


class Load:
    """An idempotent producer that remembers what was acknowledged, partition by partition."""

    def __init__(self, brokers, topic):
        self.topic, self.acknowledged, self.failed, self.next = topic, defaultdict(list), [], 0
        self.producer = Producer({
            "bootstrap.servers": bootstrap(brokers), "enable.idempotence": True, "acks": "all", "linger.ms": 5,
            "message.timeout.ms": 120_000, "socket.timeout.ms": 5_000, "retry.backoff.ms": 50, "topic.metadata.refresh.interval.ms": 1_000,
        })  # fmt: skip

    def _delivered(self, error, message):
        if error is not None:
            self.failed.append(str(error))
        else:
            self.acknowledged[message.partition()].append((message.offset(), message.value()))

    def run(self, seconds):
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for _ in range(20):
                self.producer.produce(self.topic, str(self.next).encode(), partition=self.next % PARTITIONS, callback=self._delivered)
                self.next += 1
            self.producer.poll(0.02)

    def finish(self):
        assert self.producer.flush(120) == 0
        assert self.failed == []
        return self.acknowledged


def read_all(brokers, topic, ends):
    """Everything below the ends, by partition."""
    consumer = Consumer({"bootstrap.servers": bootstrap(brokers), "group.id": "reader", "auto.offset.reset": "earliest"})
    consumer.assign([TopicPartition(topic, p, 0) for p in ends])
    read = defaultdict(list)
    deadline = time.monotonic() + PATIENCE_S
    while any(len(read[p]) < end for p, end in ends.items()):
        assert time.monotonic() < deadline, {p: (len(read[p]), end) for p, end in ends.items()}
        message = consumer.poll(1)
        if message is None:
            continue
        if message.error():
            assert message.error().code() == KafkaError._PARTITION_EOF or message.error().retriable(), message.error()
            continue
        read[message.partition()].append((message.offset(), message.value()))
    consumer.close()
    return read


def check_books(brokers, topic, acknowledged):
    ends = {p: len(records) for p, records in acknowledged.items()}
    read = read_all(brokers, topic, ends)
    for partition, records in acknowledged.items():
        assert [offset for offset, _ in read[partition]] == list(range(ends[partition]))
        # The producer sends in order, so the values of a partition are read as they were sent.
        assert sorted(records) == read[partition]
        values = [int(value) for _, value in read[partition]]
        assert values == sorted(set(values))


def committed(brokers, topic):
    consumer = Consumer({"bootstrap.servers": bootstrap(brokers), "group.id": "committer"})
    positions = consumer.committed([TopicPartition(topic, p) for p in range(PARTITIONS)], timeout=PATIENCE_S)
    consumer.close()
    return {position.partition: position.offset for position in positions}


def test_three_brokers_are_one_cluster(cluster):
    partitions = create(cluster, "spread")
    assert all(sorted(p.replicas) == [1, 2, 3] for p in partitions.values()), "three brokers, three replicas"
    for broker in cluster:
        metadata = AdminClient({"bootstrap.servers": broker.address}).list_topics("spread", timeout=PATIENCE_S)
        assert sorted(metadata.brokers) == [1, 2, 3]
        assert {p.leader for p in metadata.topics["spread"].partitions.values()} <= {1, 2, 3}
    load = Load(cluster[2:], "spread")
    load.run(1)
    check_books(cluster[:1], "spread", load.finish())


def test_kill_9_of_each_broker_in_turn_loses_and_doubles_nothing(cluster):
    create(cluster, "orders")
    load = Load(cluster, "orders")
    load.run(2)
    consumer = Consumer({"bootstrap.servers": bootstrap(cluster), "group.id": "committer", "enable.auto.commit": False})
    for round_number, victim in enumerate(cluster):
        victim.kill()
        load.run(4)
        victim.start()
        positions = [TopicPartition("orders", p, (round_number + 1) * 10) for p in range(PARTITIONS)]
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                assert all(done.error is None for done in consumer.commit(offsets=positions, asynchronous=False))
                break
            except Exception:
                assert time.monotonic() < deadline
                time.sleep(0.5)
        assert committed(cluster, "orders") == {p: (round_number + 1) * 10 for p in range(PARTITIONS)}
        load.run(2)
    consumer.close()
    acknowledged = load.finish()
    assert sum(map(len, acknowledged.values())) == load.next
    check_books(cluster, "orders", acknowledged)


def test_a_broker_that_stops_hands_over_and_the_rest_go_on(cluster):
    create(cluster, "handed")
    load = Load(cluster, "handed")
    load.run(1)
    cluster[0].stop()
    load.run(2)
    cluster[0].start()
    load.run(1)
    check_books(cluster[1:], "handed", load.finish())


def test_who_may_not_join_hears_why(cluster, tmp_path):
    taken = node(tmp_path / "other", 2, cluster[0].peer_address)
    with pytest.raises(RuntimeError, match="broker id 2 belongs to another data directory"):
        taken.start()
    taken.discard()
    stranger = node(tmp_path / "stranger", 4)
    stranger.start()
    stranger.stop()
    secret = tmp_path / "secret"
    secret.write_text("nobody else knows this one")
    stranger.discard()
    stranger.settings |= {"cluster.join": cluster[0].peer_address, "cluster.secret.file": str(secret)}
    stranger.spawn()
    deadline = time.monotonic() + PATIENCE_S
    while "secret" not in stranger.log():
        assert time.monotonic() < deadline, stranger.log_tail()
        time.sleep(0.2)
    stranger.discard()
