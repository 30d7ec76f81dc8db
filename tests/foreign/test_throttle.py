"""Moves of replicas at a rate that is set (KIP-73): by Kafka's kafka-reassign-partitions and by `tidelog`, beside a producer that is
not to notice.

Tidelog's own: brokers join by its flag. What the tools print, and what they set and take back, is Kafka's.
"""

import json
import os
import time

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, ConfigResource, ConfigSource

from harness import tools
from harness.cluster import IS_TIDELOG, PATIENCE_S, Load, bootstrap, create, moved, placement, read_all, running, tidelog, until

pytestmark = pytest.mark.skipif(not IS_TIDELOG, reason="brokers join by Tidelog's own flag")

# What is sent at a time (a megabyte, and the batch that passes it), and what a new replica may lack when it gets a vote.
RATE, PIECE, CLOSE = 4_000_000, 2 << 20, 4 << 20
RECORD, RECORDS = 100_000, 400
LISTS = ["leader.replication.throttled.replicas", "follower.replication.throttled.replicas"]
RATES = ["leader.replication.throttled.rate", "follower.replication.throttled.rate"]


@pytest.fixture
def three(tmp_path):
    with running(tmp_path, 3, auto_leader_rebalance_enable="false", log_cleaner_backoff_ms=200) as brokers:
        yield brokers


def fill(brokers, topic, records, keys=None):
    """Records that no compression makes smaller."""
    producer = Producer({"bootstrap.servers": bootstrap(brokers), "acks": "all", "enable.idempotence": True, "linger.ms": 5})
    for number in range(records):
        producer.produce(topic, os.urandom(RECORD), str(number % keys) if keys else None, partition=0)
        producer.poll(0)
    assert producer.flush(PATIENCE_S) == 0


def size(broker, topic):
    """Bytes of the partition's log there."""
    return sum(file.stat().st_size for file in broker.data_dir.glob(f"topics/{topic}-*/**/*.log"))


def plan(folder, topic, replicas):
    file = folder / f"{topic}.json"
    partitions = [{"topic": topic, "partition": 0, "replicas": replicas}]
    file.write_text(json.dumps({"version": 1, "partitions": partitions}))
    return ["--reassignment-json-file", file]


def reassign_partitions(brokers, *arguments):
    return tools.run("kafka-reassign-partitions", "--bootstrap-server", bootstrap(brokers), *arguments)


def settings(brokers, kind, name):
    """What is set for a topic, or for a broker while it runs."""
    client, wanted = AdminClient({"bootstrap.servers": bootstrap(brokers)}), ConfigResource(kind, name)
    found = client.describe_configs([wanted])[wanted].result(PATIENCE_S)
    source = {ConfigResource.Type.TOPIC: ConfigSource.DYNAMIC_TOPIC_CONFIG, ConfigResource.Type.BROKER: ConfigSource.DYNAMIC_BROKER_CONFIG}[kind]
    return {key: entry.value for key, entry in found.items() if entry.source == source.value}


def throttles(brokers, topic):
    """The lists of the topic, and the rates of each broker."""
    lists = settings(brokers, ConfigResource.Type.TOPIC, topic)
    rates = [settings(brokers, ConfigResource.Type.BROKER, str(number)) for number, _ in enumerate(brokers, 1)]
    return [lists.get(key) for key in LISTS], [[found.get(key) for key in RATES] for found in rates]


NONE = [None, None], [[None, None]] * 3


def test_a_move_keeps_to_its_rate_until_it_gets_another_one(three, tmp_path):
    create(three, "slow", assignment=[[1]])
    fill(three, "slow", RECORDS)
    load = Load(three, "slow", [0])
    with load.beside():
        wanted = plan(tmp_path, "slow", [2])
        began = time.monotonic()
        said = reassign_partitions(three, "--execute", *wanted, "--throttle", RATE)
        assert f"The inter-broker throttle limit was set to {RATE} B/s" in said
        rates = [[str(RATE), str(RATE)]] * 2 + [[None, None]]
        assert throttles(three, "slow") == (["0:1", "0:2"], rates)
        load.goes_on()
        assert placement(three, "slow").replicas != [2], "the producer is heard before the move ends"
        moved(three, "slow", [2])
        took = time.monotonic() - began
        # The first piece goes at once, and the last is paid for by nobody. A single replica is needed once it votes.
        assert took >= (RECORD * RECORDS - 2 * PIECE - CLOSE) / RATE
        load.goes_on()

        # At this rate the next one would take minutes.
        wanted = plan(tmp_path, "slow", [3])
        reassign_partitions(three, "--execute", *wanted, "--throttle", RATE // 20)
        load.goes_on()
        still = reassign_partitions(three, "--verify", *wanted)
        assert "Reassignment of partition slow-0 is still in progress." in still
        assert throttles(three, "slow")[0] == ["0:2", "0:3"], "a move that goes on keeps its throttle"
        raised = time.monotonic()
        reassign_partitions(three, "--execute", "--additional", *wanted, "--throttle", 1 << 30)
        moved(three, "slow", [3])
        assert time.monotonic() - raised < 30
        said = reassign_partitions(three, "--verify", *wanted)
        assert "Reassignment of partition slow-0 is completed." in said
        assert "Clearing broker-level throttles on brokers 1,2,3" in said
        assert "Clearing topic-level throttles on topic slow" in said
        until(lambda: throttles(three, "slow"), lambda found: found == NONE)
        load.goes_on()
    acknowledged = load.finish()[0]
    read = read_all(three, "slow", {0: RECORDS + len(acknowledged)})[0]
    assert read[RECORDS:] == sorted(acknowledged)


def test_what_compaction_has_left_comes_at_the_rate_of_our_own_command_line(three):
    keys, rate = 100, 1_000_000
    compacted = {"cleanup.policy": "compact", "segment.bytes": str(1 << 20), "min.cleanable.dirty.ratio": "0.01"}
    create(three, "table", assignment=[[1]], config=compacted)
    fill(three, "table", 3 * keys, keys)
    until(lambda: size(three[0], "table"), lambda found: found < 1.5 * keys * RECORD)
    move = ["partition", "reassign", "table", 0, "--replicas", 2, "--wait", "--throttle"]
    with pytest.raises(tools.Failed, match="its throttle stays until this command is run again and ends"):
        tidelog(three, *move, 1_000, "--timeout", 1)
    assert throttles(three, "table") == (["0:1,0:2"] * 2, [["1000", "1000"]] * 2 + [[None, None]])
    began = time.monotonic()
    printed = tidelog(three, *move, rate, "--timeout", 50)
    assert printed.splitlines()[-1] == "partition 0 of topic 'table' is on brokers 2"
    assert time.monotonic() - began >= (keys * RECORD - 3 * PIECE) / rate
    until(lambda: throttles(three, "table"), lambda found: found == NONE)
    assert "records are copied from the leader" in three[1].log()
