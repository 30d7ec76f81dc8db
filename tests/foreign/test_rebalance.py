"""Brokers that join with auto.rebalance=on_join and get their share of what there is: under load, over kill -9 of the controller,
once.

Tidelog's own: brokers join by its flag, and nothing moves by itself in Kafka.
"""

import time
from collections import Counter

import pytest
from confluent_kafka.admin import AdminClient
from kafka import KafkaAdminClient
from kafka import TopicPartition as Partition

from harness.cluster import (
    IS_TIDELOG,
    PATIENCE_S,
    Load,
    bootstrap,
    check_books,
    create,
    live_brokers,
    moved,
    node,
    placement,
    running,
    until,
)

pytestmark = pytest.mark.skipif(not IS_TIDELOG, reason="brokers join by Tidelog's own flag")

ROUND = [[1, 2, 3], [2, 3, 1], [3, 1, 2]]
# Longer than the controller's broker takes from one look to the next.
A_WHILE_S = 3


def join(folder, brokers, number, **settings):
    brokers.append(node(folder, number, brokers[0].peer_address, **settings))
    return brokers[-1].start()


def held(brokers):
    """How many replicas each broker has, and how many partitions it is preferred as leader of."""
    topics = AdminClient({"bootstrap.servers": bootstrap(brokers)}).list_topics(timeout=PATIENCE_S).topics
    partitions = [p.replicas for topic in topics.values() for p in topic.partitions.values()]
    return Counter(broker for replicas in partitions for broker in replicas), Counter(replicas[0] for replicas in partitions)


def is_filled(brokers):
    return any("a broker that joined holds its share" in broker.log() for broker in brokers)


def test_a_broker_that_joins_gets_its_share_once(tmp_path):
    with running(tmp_path, 3) as brokers:
        create(brokers, "busy", assignment=ROUND)
        create(brokers, "wide", assignment=ROUND * 3)
        load = Load(brokers, "busy")
        with load.beside():
            join(tmp_path, brokers, 4)
            time.sleep(A_WHILE_S)
            assert held(brokers)[0] == {1: 12, 2: 12, 3: 12}, "nobody asked for it"
            join(tmp_path, brokers, 5, auto_rebalance="on_join")
            until(lambda: is_filled(brokers), bool)
            replicas, leaders = held(brokers)
            assert replicas == {1: 9, 2: 9, 3: 9, 5: 9}
            assert leaders == {1: 3, 2: 3, 3: 3, 5: 3}
        # What an operator wants stays, also when the broker returns.
        with KafkaAdminClient(bootstrap_servers=[broker.address for broker in brokers]) as client:
            client.alter_partition_reassignments({Partition("wide", p): [1, 2, 3] for p in range(9)})
        for partition in range(9):
            moved(brokers, "wide", [1, 2, 3], partition)
        brokers[4].stop()
        brokers[4].start()
        until(lambda: live_brokers(brokers), lambda live: live == [1, 2, 3, 4, 5])
        time.sleep(A_WHILE_S)
        for partition in range(9):
            assert placement(brokers, "wide", partition).replicas == [1, 2, 3]
        check_books(brokers, "busy", load.finish())


def test_the_next_controller_goes_on_with_it(tmp_path):
    # The one that is killed may just be about to lead something: its partition is started again then.
    with running(tmp_path, 3, expected=["its leadership was handed over, and nobody took it"]) as brokers:
        create(brokers, "many", assignment=ROUND * 40)
        create(brokers, "busy", assignment=ROUND)
        load = Load(brokers, "busy")
        with load.beside():
            join(tmp_path, brokers, 4, auto_rebalance="on_join")
            until(lambda: held(brokers)[0][4], lambda count: count > 0)
            # The first one is the controller.
            brokers[0].kill()
            at = held(brokers[1:])[0][4]
            assert at < 92, "it was killed too late to show anything"
            until(lambda: held(brokers[1:])[0][4], lambda count: count > at)
            brokers[0].start()
            until(lambda: is_filled(brokers), bool)
        replicas, leaders = held(brokers)
        assert sum(replicas.values()) == 369
        assert max(replicas.values()) - replicas[4] <= 1, replicas
        assert max(leaders.values()) - leaders[4] <= 1, leaders
        check_books(brokers, "busy", load.finish())
