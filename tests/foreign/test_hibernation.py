"""Three broker processes whose partitions sleep whenever nobody uses them: real clients must not notice.

Tidelog's own: nothing of Apache Kafka sleeps.
"""

import re
import time

import pytest
from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from harness.cluster import IS_TIDELOG, PARTITIONS, PATIENCE_S, Load, bootstrap, check_books, create, running, until
from wire import Connection, Error
from wire.calls import LATEST, list_offset

pytestmark = pytest.mark.skipif(not IS_TIDELOG, reason="nothing of Kafka sleeps")

IDLE_MS = 300


@pytest.fixture
def cluster(tmp_path):
    with running(tmp_path, 3, partition_hibernation_idle_ms=IDLE_MS) as brokers:
        yield brokers


def gauge(broker, name):
    return float(re.search(rf"^{name} (\S+)$", broker.http("/metrics")[1], re.MULTILINE).group(1))


def awake(brokers):
    return sum(gauge(broker, "tidelog_partitions") - gauge(broker, "tidelog_partitions_asleep") for broker in brokers)


def all_sleep(brokers):
    until(lambda: awake(brokers), lambda count: count == 0)


def leaders(broker, topic):
    found = AdminClient({"bootstrap.servers": broker.address}).list_topics(topic, timeout=PATIENCE_S).topics[topic]
    return {p.id: p.leader for p in found.partitions.values()}


def a_consumer(brokers, group="sleeper"):
    return Consumer({
        "bootstrap.servers": bootstrap(brokers), "group.id": group, "enable.auto.commit": False, "auto.offset.reset": "earliest",
    })  # fmt: skip


def test_an_idempotent_producer_pauses_while_everything_sleeps(cluster):
    create(cluster, "orders")
    load = Load(cluster, "orders")
    for _ in range(3):
        load.run(1)
        load.producer.flush(PATIENCE_S)
        all_sleep(cluster)
    check_books(cluster, "orders", load.finish())


def test_what_needs_no_group_wakes_nobody(cluster):
    create(cluster, "orders")
    load = Load(cluster, "orders")
    load.run(1)
    acknowledged = load.finish()
    consumer = a_consumer(cluster)
    consumer.assign([TopicPartition("orders", p, len(acknowledged[p])) for p in range(PARTITIONS)])
    # It looks for its coordinator, and has the topic of offsets made for that.
    assert consumer.poll(2) is None
    all_sleep(cluster)
    for _ in range(5):
        assert consumer.poll(0.2) is None
        led = leaders(cluster[0], "orders")
        for partition, leader in led.items():
            with Connection(cluster[leader - 1].address) as wire:
                assert list_offset(wire, "orders", LATEST, partition=partition)["Offset"] == len(acknowledged[partition])
        assert awake(cluster) == 0
    load = Load(cluster, "orders", partitions=[0])
    load.run(0.5)
    load.finish()
    message = consumer.poll(PATIENCE_S)
    assert (message.partition(), message.offset()) == (0, len(acknowledged[0])), "the parked fetch was woken"
    consumer.close()


def test_a_group_whose_coordinator_slept_commits_and_reads_what_it_committed(cluster):
    create(cluster, "orders")
    load = Load(cluster, "orders")
    load.run(1)
    acknowledged = load.finish()
    positions = [TopicPartition("orders", p, len(acknowledged[p]) // 2) for p in range(PARTITIONS)]
    for wanted in range(3):
        consumer = a_consumer(cluster)
        for position in positions:
            position.offset += wanted > 0
        consumer.commit(offsets=positions, asynchronous=False)
        all_sleep(cluster)
        begun = time.monotonic()
        asked = [TopicPartition("orders", p) for p in range(PARTITIONS)]
        found = {p.partition: p.offset for p in consumer.committed(asked, timeout=PATIENCE_S)}
        assert found == {p.partition: p.offset for p in positions}
        assert time.monotonic() - begun < 5
        consumer.close()
        all_sleep(cluster)


def test_a_transactional_producer_is_refused_as_ever(cluster):
    create(cluster, "orders")
    all_sleep(cluster)
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": bootstrap(cluster), "transactional.id": "one", "socket.timeout.ms": 2000})
    with pytest.raises(KafkaException):
        producer.init_transactions(5)
    assert awake(cluster) == 0


def test_kill_9_while_everything_sleeps_loses_nothing(cluster):
    create(cluster, "orders")
    load = Load(cluster, "orders")
    load.run(1)
    for victim in cluster:
        load.producer.flush(PATIENCE_S)
        all_sleep(cluster)
        number = cluster.index(victim) + 1
        victim.kill()
        others = [broker for broker in cluster if broker is not victim]
        until(lambda: set(leaders(others[0], "orders").values()), lambda found: not found & {number, -1})
        consumer = a_consumer(others, f"after-{number}")
        consumer.assign([TopicPartition("orders", p, 0) for p in range(PARTITIONS)])
        read = sum(consumer.poll(PATIENCE_S) is not None for _ in range(PARTITIONS))
        assert read == PARTITIONS
        consumer.close()
        load.run(1)
        victim.start()
    check_books(cluster, "orders", load.finish())


def test_an_offset_commit_after_a_sleep_needs_no_new_coordinator(cluster):
    """The epoch of a coordinator's partition does not change when it wakes."""
    create(cluster, "orders")
    consumer = a_consumer(cluster, "steady")
    consumer.subscribe(["orders"])
    until(lambda: consumer.poll(0.2) or consumer.assignment(), bool)
    generations = set()
    for _ in range(3):
        all_awake_but_group = time.monotonic() + 3 * IDLE_MS / 1000
        while time.monotonic() < all_awake_but_group:
            consumer.poll(0.1)
        position = TopicPartition("orders", 0, 0)
        (done,) = consumer.commit(offsets=[position], asynchronous=False)
        assert done.error is None
        generations.add(tuple(sorted(p.partition for p in consumer.assignment())))
    assert len(generations) == 1
    consumer.close()
