"""Replicas that move to other brokers, leaderships that are moved on purpose, brokers that leave for good: asked for by Kafka's
tools, kafka-python, confluent-kafka and `tidelog`, under load, with brokers that stand still and brokers that are killed.

Tidelog's own: brokers join by its flag. What the tools print and which errors clients hear is Kafka's.
"""

import json
import re
import time

import pytest
from confluent_kafka import Consumer, ElectionType, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from kafka import KafkaAdminClient
from kafka import TopicPartition as Partition

from harness import tools
from harness.cluster import (
    IS_TIDELOG,
    PARTITIONS,
    PATIENCE_S,
    Load,
    bootstrap,
    check_books,
    create,
    live_brokers,
    moved,
    paused,
    placement,
    read_all,
    running,
    tidelog,
    tidelog_json,
    until,
)
from wire import Connection, Error
from wire.calls import delete_records, metadata

pytestmark = pytest.mark.skipif(not IS_TIDELOG, reason="brokers join by Tidelog's own flag")

@pytest.fixture(scope="module")
def four(tmp_path_factory):
    """Four brokers that tests share: none is stopped, and leaderships go back to nobody by themselves."""
    with running(tmp_path_factory.mktemp("four"), 4, auto_leader_rebalance_enable="false") as brokers:
        yield brokers


@pytest.fixture
def cluster(tmp_path):
    """Four brokers that the test may hurt."""
    with running(tmp_path, 4, auto_leader_rebalance_enable="false") as brokers:
        # Until then the first one is the only controller that votes, and cannot be spared.
        until(lambda: controllers(brokers), lambda found: found[1:] == ([1, 2, 3], [4]))
        yield brokers


def kafka_python(brokers):
    return KafkaAdminClient(bootstrap_servers=[broker.address for broker in brokers])


def controllers(brokers):
    """The leader of the controller group, its voters, and who listens."""
    with kafka_python(brokers) as client:
        found = client.describe_metadata_quorum()["topics"][0]["partitions"][0]
    members = [sorted(member["replica_id"] for member in found[kind]) for kind in ("current_voters", "observers")]
    return found["leader_id"], *members


def reassign(client, topic, replicas, partition=0):
    """Asks for other replicas, with None for those from before; returns the name of the error, if there is one."""
    (error,) = client.alter_partition_reassignments({Partition(topic, partition): replicas}).values()
    return error and error.__name__


def moves(client, topic):
    """The topic's reassignments that are going on: (replicas, adding, removing) by partition."""
    found = client.list_partition_reassignments().items()
    return {p.partition: tuple(one.values()) for p, one in found if p.topic == topic}


def leader_of(brokers, topic, partition=0):
    return until(lambda: placement(brokers, topic, partition), lambda found: found.leader > 0).leader


def sizes(broker, topic):
    """Bytes of the topic's partitions in the broker's data directory, as the broker itself says."""
    with Connection(broker.address) as connection:
        directories = connection.call("DescribeLogDirs", 4, Topics=None)["Results"]
    topics = [t for directory in directories for t in directory["Topics"] if t["Name"] == topic]
    return {p["PartitionIndex"]: p["PartitionSize"] for t in topics for p in t["Partitions"]}


def held(broker, topic):
    """The topic's partitions there."""
    return sorted(sizes(broker, topic))


def folders(broker, topic):
    """The same, as the data directory says."""
    return sorted(folder.name for folder in broker.data_dir.glob(f"topics/{topic}-*"))


def holds_nothing(broker, topic):
    until(lambda: held(broker, topic) + folders(broker, topic), lambda left: left == [])


def plan(folder, topic, replicas):
    """A file that gives all partitions of a list these replicas, as Kafka's tool reads it."""
    partitions = [{"topic": topic, "partition": p, "replicas": brokers} for p, brokers in enumerate(replicas)]
    file = folder / "reassignment.json"
    file.write_text(json.dumps({"version": 1, "partitions": partitions}))
    return ["--reassignment-json-file", file]


def reassign_partitions(brokers, *arguments):
    return tools.run("kafka-reassign-partitions", "--bootstrap-server", bootstrap(brokers), *arguments)


def test_replicas_move_under_load(four, tmp_path):
    create(four, "moved", assignment=[[1, 2, 3]] * PARTITIONS)
    wanted = plan(tmp_path, "moved", [[2, 3, 4]] * PARTITIONS)
    names = [f"moved-{p}" for p in range(PARTITIONS)]
    one, other = Load(four, "moved", [0, 1]), Load(four, "moved", [2])
    with one.beside(), other.beside():
        started = reassign_partitions(four, "--execute", *wanted)
        assert f"Successfully started partition reassignments for {','.join(names)}" in started
        for partition in range(PARTITIONS):
            moved(four, "moved", [2, 3, 4], partition)
        # Kafka's tool also takes back the throttles that it may have set, from each broker and from the topic.
        verified = reassign_partitions(four, "--verify", *wanted)
        assert all(f"Reassignment of partition {name} is completed." in verified for name in names)
        one.goes_on()
        other.goes_on()
    check_books(four, "moved", one.finish() | other.finish())
    holds_nothing(four[0], "moved")
    assert held(four[3], "moved") == list(range(PARTITIONS))
    until(lambda: folders(four[3], "moved"), lambda there: len(there) == PARTITIONS)


def test_the_leader_moves_away(four):
    create(four, "led", assignment=[[1, 2, 3]])
    load = Load(four, "led", [0])
    with load.beside(), kafka_python(four) as client:
        leader = leader_of(four, "led")
        wanted = [broker for broker in (1, 2, 3) if broker != leader] + [4]
        assert reassign(client, "led", wanted) is None
        moved(four, "led", wanted)
        load.goes_on()
    check_books(four, "led", load.finish())
    assert load.longest_silence_s < PATIENCE_S
    holds_nothing(four[leader - 1], "led")


def test_another_order_takes_effect_at_once_and_its_first_is_elected(four):
    create(four, "ordered", assignment=[[1, 2, 3]])
    leader = leader_of(four, "ordered")
    preferred, last = (broker for broker in (3, 2, 1) if broker != leader)
    wanted = [preferred, leader, last]
    with kafka_python(four) as client:
        assert reassign(client, "ordered", wanted) is None
        assert moves(client, "ordered") == {}
    assert moved(four, "ordered", wanted).leader == leader, "an order moves no leadership"
    asked = ["kafka-leader-election", "--bootstrap-server", bootstrap(four), "--election-type", "PREFERRED"]
    asked += ["--topic", "ordered", "--partition", 0]
    assert "Successfully completed leader election (PREFERRED) for partitions ordered-0" in tools.run(*asked)
    until(lambda: placement(four, "ordered").leader, lambda found: found == preferred)
    assert "Valid replica already elected for partitions ordered-0" in tools.run(*asked)
    client = AdminClient({"bootstrap.servers": bootstrap(four)})
    (refused,) = client.elect_leaders(ElectionType.PREFERRED, [TopicPartition("ordered", 0)]).result(PATIENCE_S).values()
    assert "ELECTION_NOT_NEEDED" in str(refused)


def test_bad_reassignments_are_refused(four):
    create(four, "kept", assignment=[[1, 2, 3]])
    leader_of(four, "kept")
    with kafka_python(four) as client:
        # Kafka's INVALID_REPLICA_ASSIGNMENT.
        assert reassign(client, "kept", [1, 2, 99]) == "InvalidReplicationAssignmentError"
        assert reassign(client, "kept", [1, 2, 2]) == "InvalidReplicationAssignmentError"
        assert reassign(client, "kept", [1, 2, 4], partition=1) == "UnknownTopicOrPartitionError"
        assert reassign(client, "kept", None, partition=1) == "UnknownTopicOrPartitionError"
        assert reassign(client, "nothing-of-that-name", [1, 2, 4]) == "UnknownTopicOrPartitionError"
        assert reassign(client, "kept", None) == "NoReassignmentInProgressError"
        assert moves(client, "kept") == {}
    # No library sends this.
    nowhere = [{"Name": "kept", "Partitions": [{"PartitionIndex": 0, "Replicas": []}]}]
    with Connection(four[0].address) as connection:
        reply = connection.call("AlterPartitionReassignments", 0, Topics=nowhere)
    assert reply["ErrorCode"] == Error.NONE
    assert reply["Responses"][0]["Partitions"][0]["ErrorCode"] == Error.INVALID_REPLICA_ASSIGNMENT
    assert placement(four, "kept").replicas == [1, 2, 3]


def test_the_controllers_as_kafka_shows_them(four):
    leader, *_ = until(lambda: controllers(four), lambda found: found[1:] == ([1, 2, 3], [4]))
    asked = ["kafka-metadata-quorum", "--bootstrap-server", bootstrap(four), "describe"]
    status = dict(re.findall(r"(\w+):\s+(.*)", tools.run(*asked, "--status")))
    assert status["LeaderId"] == str(leader)
    assert sorted(voter["id"] for voter in json.loads(status["CurrentVoters"])) == [1, 2, 3]
    assert [observer["id"] for observer in json.loads(status["CurrentObservers"])] == [4]
    assert int(status["LeaderEpoch"]) > 0 and int(status["HighWatermark"]) > 0
    titles, *rows = (line.split() for line in tools.run(*asked, "--replication").splitlines() if line.strip())
    roles = {int(row[0]): row[-1] for row in rows}
    assert titles[0] == "NodeId" and titles[-1] == "Status"
    assert roles == {1: "Follower", 2: "Follower", 3: "Follower", 4: "Observer"} | {leader: "Leader"}


def test_a_single_replica_moves_with_everything_that_it_holds(cluster):
    create(cluster, "alone", assignment=[[1], [1]])
    load, removed = Load(cluster, "alone", [0, 1]), 200
    load.run(2)
    load.finish()
    with Connection(cluster[0].address) as connection:
        assert delete_records(connection, "alone", removed, partition=1)["ErrorCode"] == Error.NONE
    with kafka_python(cluster) as client:
        for partition in (0, 1):
            assert reassign(client, "alone", [4], partition) is None
    for partition in (0, 1):
        moved(cluster, "alone", [4], partition)
    cluster[0].kill()
    # The same producer goes on, so what is known of producers came along, too.
    load.run(1)
    acknowledged = load.finish()
    first = {0: 0, 1: removed}
    read = read_all(cluster[1:], "alone", {p: len(acknowledged[p]) - first[p] for p in first})
    for partition, records in acknowledged.items():
        assert [offset for offset, _ in read[partition]] == list(range(first[partition], len(records)))
        assert read[partition] == sorted(records)[first[partition] :]


def test_a_move_that_cannot_end_is_cancelled(cluster, tmp_path):
    create(cluster, "stuck", assignment=[[1, 2, 3]])
    *up, away = cluster
    load = Load(up, "stuck", [0])
    with load.beside(), kafka_python(up) as client:
        # From here on this client talks to the controller alone, so that it does not ask the broker that will not answer.
        assert moves(client, "stuck") == {}
        with paused(away):
            assert reassign(client, "stuck", [1, 2, 4]) is None
            # Until then Java's client might ask that broker.
            until(lambda: live_brokers(up), lambda live: live == [1, 2, 3])
            assert "stuck-0: replicas: 1,2,4,3. adding: 4. removing: 3." in reassign_partitions(up, "--list")
            load.goes_on()
            # The tool would wait for the paused broker to take its throttles back.
            wanted = [*plan(tmp_path, "stuck", [[1, 2, 4]]), "--preserve-throttles"]
            cancelled = reassign_partitions(up, "--cancel", *wanted)
            assert "Successfully cancelled partition reassignment for: stuck-0" in cancelled.splitlines()
            assert "No partition reassignments found." in reassign_partitions(up, "--list")
            assert moves(client, "stuck") == {}
            moved(up, "stuck", [1, 2, 3])
            load.goes_on()
            create(up, "later", assignment=[[1]])
        # What this broker says is news once it has heard of what came after the cancellation.
        with Connection(away.address, timeout_s=PATIENCE_S) as connection:
            until(lambda: metadata(connection, "later")["ErrorCode"], lambda code: code == Error.NONE)
        holds_nothing(away, "stuck")
        load.goes_on()
    moved(cluster, "stuck", [1, 2, 3])
    check_books(cluster, "stuck", load.finish())


def test_a_move_survives_kill_9_of_the_leader(cluster):
    create(cluster, "torn", assignment=[[1, 2, 3]])
    load = Load(cluster[:3], "torn", [0])
    with load.beside():
        leader = leader_of(cluster, "torn")
        others = [broker for broker in (1, 2, 3) if broker != leader]
        victim, rest = cluster[leader - 1], [cluster[broker - 1] for broker in others]
        with kafka_python(cluster[:3]) as client:
            assert moves(client, "torn") == {}
            # Nothing ends while the new replica's broker stands still, so the leader dies in the middle of it.
            with paused(cluster[3]):
                assert reassign(client, "torn", [*others, 4]) is None
                assert moves(client, "torn") == {0: ([*others, 4, leader], [4], [leader])}
                victim.kill()
                until(lambda: placement(rest, "torn"), lambda found: found.leader in others)
                load.goes_on()
        up = [*rest, cluster[3]]
        moved(up, "torn", [*others, 4])
        load.goes_on()
        victim.start()
        holds_nothing(victim, "torn")
        load.goes_on()
    check_books(up, "torn", load.finish())


def test_a_broker_is_removed_once_it_is_stopped_and_holds_nothing(cluster):
    create(cluster, "left", assignment=[[2, 3, 4]])
    moved(cluster, "left", [2, 3, 4])
    *rest, leaving = cluster
    unregister = ["kafka-cluster", "unregister", "--bootstrap-server", bootstrap(rest), "--id", 4]
    with pytest.raises(tools.Failed, match="broker 4 is up"):
        tools.run(*unregister)
    leaving.stop()
    until(lambda: live_brokers(rest), lambda live: live == [1, 2, 3])
    with pytest.raises(tools.Failed, match="broker 4 has replicas of 1 partition"):
        tools.run(*unregister)
    with kafka_python(rest) as client:
        assert reassign(client, "left", [2, 3, 1]) is None
        moved(rest, "left", [2, 3, 1])
        # With those that are not heard of.
        assert sorted(broker["broker_id"] for broker in client.describe_cluster()["brokers"]) == [1, 2, 3, 4]
        assert "Broker 4 is no longer registered." in tools.run(*unregister)

        def known():
            observers = client.describe_metadata_quorum()["topics"][0]["partitions"][0]["observers"]
            return sorted(broker["broker_id"] for broker in client.describe_cluster()["brokers"]), observers

        until(known, lambda found: found == ([1, 2, 3], []))


def test_a_broker_that_comes_back_leads_again_where_it_is_preferred(tmp_path):
    with running(tmp_path, 3, leader_imbalance_check_interval_seconds=1) as brokers:
        create(brokers, "balanced", assignment=[[2, 1, 3], [2, 3, 1], [1, 2, 3]])
        one, victim, other = brokers

        def leaders():
            return [placement([one, other], "balanced", p).leader for p in range(PARTITIONS)]

        load = Load(brokers, "balanced")
        with load.beside():
            until(leaders, lambda found: found == [2, 2, 1])
            victim.kill()
            until(leaders, lambda found: set(found) <= {1, 3})
            load.goes_on()
            victim.start()
            until(leaders, lambda found: found == [2, 2, 1])
            load.goes_on()
        check_books(brokers, "balanced", load.finish())


def test_the_same_by_our_own_command_line(cluster):
    create(cluster, "ours", assignment=[[1, 2, 3], [1, 2, 3]])
    *rest, leaving = cluster
    load = Load(cluster, "ours", [0, 1])
    load.run(1)
    load.finish()
    move = ["partition", "reassign", "ours"]
    printed = tidelog(cluster, *move, 0, "--replicas", "2,3,4", "--wait", "--timeout", 50)
    assert printed.splitlines()[-1] == "partition 0 of topic 'ours' is on brokers 2,3,4"
    moved(cluster, "ours", [2, 3, 4])

    with paused(leaving):
        until(lambda: live_brokers(rest), lambda live: live == [1, 2, 3])
        assert tidelog(rest, *move, 1, "--replicas", "1,2,4") == "moving partition 1 of topic 'ours' to brokers 1,2,4\n"
        (moving,) = tidelog_json(rest, "partition", "reassignments")
        shown = {"topic": "ours", "partition": 1, "replicas": [1, 2, 4, 3], "adding": [4], "removing": [3]}
        assert {key: moving[key] for key in shown} == shown
        assert tidelog_json(rest, "cluster", "status")["partitions"]["being_reassigned"] == 1
        assert tidelog(rest, *move, 1, "--cancel") == "cancelled the move of partition 1 of topic 'ours'\n"
        assert tidelog_json(rest, "partition", "reassignments", "ours") == []
        moved(rest, "ours", [1, 2, 3], 1)
        with pytest.raises(tools.Failed, match="partition 1 of topic 'ours' is not being moved"):
            tidelog(rest, *move, 1, "--cancel")
    until(lambda: live_brokers(rest), lambda live: live == [1, 2, 3, 4])

    leader = leader_of(cluster, "ours", 1)
    wanted = sorted((1, 2, 3), key=lambda broker: (broker == leader, -broker))
    tidelog(cluster, *move, 1, "--replicas", ",".join(map(str, wanted)), "--wait", "--timeout", 50)
    for outcome in ("elected", "not-needed"):
        elected = tidelog_json(cluster, "partition", "elect", "ours", 1)
        assert elected == [{"topic": "ours", "partition": 1, "outcome": outcome, "error": None}]
    assert leader_of(cluster, "ours", 1) == wanted[0]

    listed = {broker["broker"]: broker for broker in tidelog_json(cluster, "broker", "list")}
    assert {number: (row["state"], row["replicas"]) for number, row in listed.items()} == {
        1: ("up", 1), 2: ("up", 2), 3: ("up", 2), 4: ("up", 1),
    }  # fmt: skip
    assert sum(row["leaders"] for row in listed.values()) == 2 and listed[4]["bytes"] > 0

    with pytest.raises(tools.Failed, match="broker 4 is up"):
        tidelog(rest, "broker", "remove", 4)
    leaving.stop()
    until(lambda: live_brokers(rest), lambda live: live == [1, 2, 3])
    with pytest.raises(tools.Failed, match="broker 4 has replicas of 1 partition"):
        tidelog(rest, "broker", "remove", 4)
    tidelog(rest, *move, 0, "--replicas", "2,3,1", "--wait", "--timeout", 50)
    assert tidelog(rest, "broker", "remove", 4) == "removed broker 4 from the cluster\n"

    def state():
        status = tidelog_json(rest, "cluster", "status")
        group = status["controller_group"]
        members = [[member["broker"] for member in group[kind]] for kind in ("voters", "observers")]
        return [broker["broker"] for broker in status["brokers"]], *members, status["partitions"]

    well = {"total": 2, "without_leader": 0, "under_replicated": 0, "being_reassigned": 0}
    until(state, lambda found: found == ([1, 2, 3], [1, 2, 3], [], well))
    check_books(rest, "ours", load.acknowledged)


def test_groups_survive_the_first_broker_of_a_cluster_that_grew(tmp_path):
    position = TopicPartition("read", 0, 7)

    def commit(brokers):
        create(brokers, "read", replicas=1)
        consumer = Consumer({"bootstrap.servers": bootstrap(brokers), "group.id": "early"})
        consumer.commit(offsets=[position], asynchronous=False)
        consumer.close()

    with running(tmp_path, 3, alone=commit) as brokers:
        for partition in range(PARTITIONS):
            is_grown = lambda found: sorted(found.isr) == [1, 2, 3]  # noqa: E731
            until(lambda p=partition: placement(brokers, "__consumer_offsets", p), is_grown)
        brokers[0].kill()
        survivor = Consumer({"bootstrap.servers": bootstrap(brokers[1:]), "group.id": "early"})
        (found,) = until(lambda: survivor.committed([position], timeout=PATIENCE_S), lambda found: found[0].error is None)
        assert found.offset == 7
        survivor.close()


def test_a_compacted_partition_moves_with_what_is_left(tmp_path):
    with running(tmp_path, 4, auto_leader_rebalance_enable="false", log_cleaner_backoff_ms=200) as brokers:
        settings = {"cleanup.policy": "compact", "segment.bytes": str(1 << 20), "min.cleanable.dirty.ratio": "0.01"}
        create(brokers, "table", assignment=[[1, 2, 3]], config=settings)
        producer = Producer({"bootstrap.servers": bootstrap(brokers), "enable.idempotence": True, "linger.ms": 5})
        for number in range(60_000):
            producer.produce("table", f"{number}{'.' * 100}", str(number % 100), partition=0)
            producer.poll(0)
        assert producer.flush(PATIENCE_S) == 0
        until(lambda: sizes(brokers[0], "table"), lambda found: found[0] < 3_000_000)
        assert reassign(kafka_python(brokers), "table", [4]) is None
        moved(brokers, "table", [4])
        for broker in brokers[:3]:
            holds_nothing(broker, "table")
        newest = {}
        for message in read_to_end(brokers, "table"):
            newest[message.key()] = int(message.value().rstrip(b"."))
        assert newest == {str(key).encode(): 59_900 + key for key in range(100)}


def read_to_end(brokers, topic):
    """All messages of partition 0."""
    consumer = Consumer({"bootstrap.servers": bootstrap(brokers), "group.id": "reader", "enable.partition.eof": True})
    consumer.assign([TopicPartition(topic, 0, 0)])
    deadline = time.monotonic() + PATIENCE_S
    while True:
        assert time.monotonic() < deadline
        message = consumer.poll(1)
        if message is None or (message.error() and message.error().code() != KafkaError._PARTITION_EOF):
            continue
        if message.error():
            consumer.close()
            return
        yield message


def test_a_broker_is_drained_under_load(tmp_path):
    with running(tmp_path, 4) as brokers:
        create(brokers, "busy", assignment=[[4, 1, 2], [1, 4, 3], [2, 3, 4]])
        load = Load(brokers, "busy")
        with load.beside():
            said = tidelog(brokers, "broker", "drain", 4, "--wait", "--timeout", 50)
        assert said.endswith("broker 4 has 0 replicas\n")
        holds_nothing(brokers[3], "busy")
        for partition in range(PARTITIONS):
            assert sorted(placement(brokers, "busy", partition).replicas) == [1, 2, 3]
        fresh = create(brokers, "fresh", replicas=3)
        assert all(sorted(p.replicas) == [1, 2, 3] for p in fresh.values())
        with pytest.raises(tools.Failed, match="replicas stay on broker 3, .* there is no other broker for them"):
            tidelog(brokers, "broker", "drain", 3, "--wait", "--timeout", 50)
        for broker in (3, 4):
            assert f"broker {broker} is used again" in tidelog(brokers, "broker", "undrain", broker)
        with pytest.raises(tools.Failed, match="there is no broker 9"):
            tidelog(brokers, "broker", "drain", 9)
        spread = [create(brokers, f"spread-{n}", replicas=1).values() for n in range(4)]
        assert 4 in {broker for topic in spread for p in topic for broker in p.replicas}
        check_books(brokers, "busy", load.finish())
