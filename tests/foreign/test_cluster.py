"""Three broker processes as one cluster: joining, replicas on each, kill -9 of each in turn under load of idempotent producers.

Tidelog's own: brokers join by its flag. What is checked is what any client sees: every acknowledged record is read, once, in
the order of its partition, and what a group has committed stays committed.
"""

import time

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient

from harness.cluster import IS_TIDELOG, PARTITIONS, PATIENCE_S, Load, bootstrap, check_books, create, node, paused, running, until
from wire import Connection, Error, build_batch
from wire.calls import list_offset, metadata, produce

pytestmark = pytest.mark.skipif(not IS_TIDELOG, reason="brokers join by Tidelog's own flag")


@pytest.fixture
def cluster(tmp_path):
    with running(tmp_path, 3) as brokers:
        yield brokers


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


def test_min_insync_replicas_above_a_majority(cluster):
    create(cluster, "careful", assignment=[[1, 2, 3]], config={"min.insync.replicas": "3"})
    with Connection(cluster[0].address) as wire:
        found = until(lambda: metadata(wire, "careful")["Partitions"], lambda all_: all_ and all_[0]["LeaderId"] > 0)
    leads = found[0]["LeaderId"]
    leader, last = cluster[leads - 1], next(broker for broker in reversed(cluster) if broker is not cluster[leads - 1])
    rest = sorted(number for number, broker in enumerate(cluster, 1) if broker is not last)
    with Connection(leader.address) as wire:
        in_sync = lambda: sorted(metadata(wire, "careful")["Partitions"][0]["IsrNodes"])  # noqa: E731
        write = lambda: produce(wire, "careful", build_batch([b"x"]), timeout_ms=1_000)["ErrorCode"]  # noqa: E731
        end = lambda: list_offset(wire, "careful", -1)["Offset"]  # noqa: E731
        until(write, lambda error: error == Error.NONE)
        ended = end()
        with paused(last):
            assert write() == Error.NOT_ENOUGH_REPLICAS_AFTER_APPEND, "it counts as alive for some seconds"
            assert end() == ended + 1, "a majority has it"
            assert produce(wire, "careful", build_batch([b"x"]), acks=1)["ErrorCode"] == Error.NONE
            until(in_sync, lambda brokers: brokers == rest, patience_s=10)
            assert write() == Error.NOT_ENOUGH_REPLICAS
            assert end() == ended + 2, "nothing is appended"
        until(in_sync, lambda brokers: brokers == [1, 2, 3])
        assert write() == Error.NONE
        assert end() == ended + 3


def test_replicas_of_a_dead_broker_are_not_in_sync(cluster):
    """Also of partitions that nobody writes to."""
    create(cluster, "quiet", assignment=[[1, 2, 3], [2, 3, 1]])
    with Connection(cluster[0].address) as wire:
        in_sync = lambda: [sorted(p["IsrNodes"]) for p in metadata(wire, "quiet")["Partitions"]]  # noqa: E731
        until(in_sync, lambda found: found == [[1, 2, 3]] * 2)
        cluster[2].kill()
        until(in_sync, lambda found: found == [[1, 2]] * 2, patience_s=5)
        cluster[2].start()
        until(in_sync, lambda found: found == [[1, 2, 3]] * 2)


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
