"""A cluster of the previous commit's binary becomes one of this one, broker by broker, under idempotent producers of librdkafka and Java,
followers and groups; then its feature level is raised. Nothing is lost, doubled or out of order, and no committed offset goes back.

`scripts/previous.sh` builds the previous binary (`make previous`); where there is none the test says why it is skipped. So that there
is always a level to raise, its brokers are told to act as a version that knows the first one only, which one that is no younger is anyway.

Tidelog's own: brokers join by its flag.
"""

import json
import subprocess
import time
from contextlib import ExitStack

import pytest
from confluent_kafka.admin import AdminClient, NewTopic
from kafka import KafkaAdminClient

from chaos.conclusion import conclude
from chaos.load import ASSIGNMENT, World
from chaos.nodes import Cluster
from chaos.view import asked, placements
from harness import paths, tools
from harness.cluster import IS_TIDELOG, PATIENCE_S, create, node, running, until
from wire import Connection, Error

pytestmark = pytest.mark.skipif(not IS_TIDELOG, reason="brokers join by Tidelog's own flag")

BROKERS = (1, 2, 3)
FEATURE = "tidelog.metadata"
# How a binary is started that acts as one that knows the first level only, or only later ones.
FIRST_LEVEL = {"TIDELOG_TEST_FEATURE_LEVELS": "1-1"}
LATER_LEVELS = {"TIDELOG_TEST_FEATURE_LEVELS": "2-3"}
# The highest level that this version knows.
NEWEST = 3
TEST_MODE = r"test mode: acts as a version that knows other feature levels"
RAISE_IT = "raise it with `tidelog cluster upgrade`"
OTHER_VERSION = "version that the other brokers run"


@pytest.fixture(scope="module")
def previous():
    """The binary of the previous commit."""
    found = subprocess.run([paths.REPO / "scripts" / "previous.sh", "find"], capture_output=True, text=True)
    if found.returncode != 0:
        pytest.skip(found.stderr.strip())
    return found.stdout.strip()


class Versions(Cluster):
    """A cluster whose brokers are started as one version or another."""

    def __init__(self, nodes, previous):
        super().__init__(nodes)
        self.previous, self.world, self.old = previous, None, set(nodes)
        for expected in self.expected.values():
            expected.append(TEST_MODE)

    def _spawn(self, number):
        broker, is_old = self.nodes[number], number in self.old
        broker.binary, broker.environment = (self.previous, FIRST_LEVEL) if is_old else (None, {})
        super()._spawn(number)

    def restart(self, number, old):
        """SIGTERM, then the other version on the same data directory; all goes on before, meanwhile and after."""
        self.stop(number)
        self.world.hold(1)
        (self.old.add if old else self.old.discard)(number)
        self.bring_back(number)
        self.world.goes_on()

    def broker(self, old):
        """One that runs this version, None if there is none."""
        return next((broker for number, broker in self.nodes.items() if (number in self.old) == old), None)


def tidelog(broker, *arguments):
    """Exit code and all that it printed."""
    command = [paths.tidelog_binary(), *map(str, arguments), "--bootstrap-server", broker.address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout + done.stderr


def level(broker):
    """What `tidelog cluster status` says of the feature level."""
    code, printed = tidelog(broker, "cluster", "status", "--output", "json")
    assert code == 0, printed
    return json.loads(printed)["feature_level"]


def controller(cluster):
    """The broker that leads the controller group."""
    with KafkaAdminClient(bootstrap_servers=cluster.address.split(",")) as client:
        return client.describe_metadata_quorum()["topics"][0]["partitions"][0]["leader_id"]


def reassign(broker, topic, replicas):
    """Error code and text."""
    wanted = [{"PartitionIndex": 0, "Replicas": replicas}]
    with Connection(broker.address, timeout_s=PATIENCE_S) as connection:
        reply = connection.call("AlterPartitionReassignments", 0, Topics=[{"Name": topic, "Partitions": wanted}])
    answered = reply["Responses"][0]["Partitions"][0]
    return answered["ErrorCode"], answered["ErrorMessage"]


def leaders_move(broker, to):
    """Whatever a broker is preferred for is handed over to it; by way of another, which asks brokers of both versions to do so."""
    wanted = [{"Topic": "orders", "Partitions": [p for p, replicas in enumerate(ASSIGNMENT) if replicas[0] == to]}]

    def leaders():
        with Connection(broker.address, timeout_s=PATIENCE_S) as connection:
            connection.call("ElectLeaders", 2, ElectionType=0, TopicPartitions=wanted, TimeoutMs=10_000)
            found = placements(connection, "orders")
        return {found[partition].leader for partition in wanted[0]["Partitions"]}

    until(leaders, lambda found: found == {to})


def made_by(broker, topic):
    """A topic that this broker is asked for."""
    admin = AdminClient({"bootstrap.servers": broker.address})
    admin.create_topics([NewTopic(topic, num_partitions=2, replication_factor=3)])[topic].result(PATIENCE_S)
    admin.poll(0)


def new_things_are_refused(broker):
    """With what to do, and before anything is written that brokers of the old version could not read."""
    drained = {"ResourceType": 4, "ResourceName": "3", "Configs": [{"Name": "broker.draining", "ConfigOperation": 0, "Value": "true"}]}
    with Connection(broker.address, timeout_s=PATIENCE_S) as connection:
        drain = connection.call("IncrementalAlterConfigs", 1, Resources=[drained], ValidateOnly=False)["Responses"][0]
        remove = connection.call("UnregisterBroker", 0, BrokerId=3)
    answers = [reassign(broker, "orders", [3, 2, 1]), *((it["ErrorCode"], it["ErrorMessage"]) for it in (drain, remove))]
    for code, text in answers:
        assert code == Error.UNSUPPORTED_VERSION and RAISE_IT in text, (code, text)


def refuses(broker, text, environment=None):
    """The broker ends by itself, soon, and says this."""
    before = len(broker.log())
    if environment is not None:
        broker.environment = environment
    broker.spawn()
    assert broker.process.wait(PATIENCE_S) == 1, broker.log_tail()
    assert text in broker.log()[before:], broker.log_tail()


@pytest.mark.timeout(600)
def test_brokers_are_replaced_by_those_of_a_new_version_one_after_the_other(tmp_path, previous):
    began = time.monotonic()

    def say(text):
        print(f"{time.monotonic() - began:6.1f} s: {text}", flush=True)

    with ExitStack() as undo:
        nodes = {}
        for number in BROKERS:
            nodes[number] = node(tmp_path, number, nodes[1].peer_address if nodes else None, auto_create_topics_enable="false")
            undo.callback(nodes[number].discard)
        cluster = Versions(nodes, previous)
        cluster.start()
        world = cluster.world = undo.enter_context(World(cluster, 1, java=True))
        world.goes_on()
        say("three brokers of the previous version are a cluster")

        # The controller's leader last, so that each command is judged by both versions.
        leader = controller(cluster)
        order = [*(number for number in BROKERS if number != leader), leader]
        for count, number in enumerate(order, 1):
            cluster.restart(number, old=False)
            new, old = cluster.broker(old=False), cluster.broker(old=True)
            made_by(new, f"by-the-new-{count}")
            new_things_are_refused(new)
            found = level(new)
            assert (found["current"], found["known"]) == (1, NEWEST), found
            say(f"broker {number} runs this version")
            if old is None:
                assert found["held_back"] is None, found
                break
            made_by(old, f"by-the-old-{count}")
            behind = [other for other in BROKERS if other in cluster.old]
            assert all(f"broker {other} knows 1" in found["held_back"] for other in behind), found
            code, printed = tidelog(new, "cluster", "upgrade")
            assert code == 1 and f"broker {behind[0]} knows 1" in printed and "INVALID_UPDATE_VERSION" in printed, printed
            cluster.kill(behind[0])
            world.hold(1)
            cluster.bring_back(behind[0])
            world.goes_on()
            leaders_move(new, behind[0])
            world.goes_on()
            say(f"broker {behind[0]} of the previous version was killed and is back")

        # The way back is open until the level is raised, also for whoever leads the controller group.
        back = controller(cluster)
        cluster.restart(back, old=True)
        say(f"broker {back} runs the previous version again")
        new_things_are_refused(cluster.broker(old=False))
        cluster.restart(back, old=False)
        say(f"broker {back} runs this version")

        code, printed = tidelog(nodes[1], "cluster", "upgrade", "--dry-run")
        assert code == 0 and f"can be raised to {NEWEST}" in printed, printed
        assert level(nodes[1])["current"] == 1
        tools.run("kafka-features", "--bootstrap-server", cluster.address, "upgrade", "--feature", f"{FEATURE}={NEWEST}")
        for broker in nodes.values():
            until(lambda: level(broker), lambda found: found == {"current": NEWEST, "known": NEWEST, "held_back": None})
        create(list(nodes.values()), "moves", assignment=[[1]])
        assert reassign(nodes[2], "moves", [3])[0] == Error.NONE
        until(lambda: asked(nodes[1].address, placements, "moves")[0].replicas, lambda found: found == [3])
        world.goes_on()
        say("the level is raised, and replicas move")

        # There is no way back any more, and nothing of the cluster is the worse for it.
        cluster.stop(2)
        cluster.old.add(2)
        cluster.nodes[2].binary = previous
        refuses(nodes[2], OTHER_VERSION, FIRST_LEVEL)
        cluster.expected[2] += [OTHER_VERSION, r"a metadata record cannot be applied"]
        world.goes_on()
        cluster.old.discard(2)
        cluster.bring_back(2)
        world.goes_on()
        say("the previous version was refused")
        for count, _ in enumerate(order[:-1], 1):
            for who in ("new", "old"):
                assert len(asked(nodes[2].address, placements, f"by-the-{who}-{count}")) == 2
        conclude(cluster, world, say)


def test_kafka_features_shows_and_raises_the_level(tmp_path):
    def features(*arguments):
        return " ".join(tools.run("kafka-features", "--bootstrap-server", broker.address, *arguments).split())

    with ExitStack() as undo:
        broker = node(tmp_path, 1)
        undo.callback(broker.discard)
        broker.environment = FIRST_LEVEL
        broker.start()
        create([broker], "orders", replicas=1)
        described = f"Feature: {FEATURE} SupportedMinVersion: 1 SupportedMaxVersion: {{}} FinalizedVersionLevel: {{}} "
        assert described.format(1, 1) in features("describe")
        broker.stop()
        broker.environment = {}
        broker.start()
        assert described.format(NEWEST, 1) in features("describe")
        assert RAISE_IT in reassign(broker, "orders", [1])[1]
        for asked_for, why in [
            (("upgrade", "--feature", f"{FEATURE}={NEWEST + 1}"), f"broker 1 knows {NEWEST}"),
            (("downgrade", "--feature", f"{FEATURE}=0", "--unsafe"), "never lowered"),
            (("upgrade", "--release-version", "4.0"), "No broker supports this feature"),
        ]:
            with pytest.raises(tools.Failed, match=why):
                features(*asked_for)
        features("upgrade", "--feature", f"{FEATURE}={NEWEST}", "--dry-run")
        assert level(broker) == {"current": 1, "known": NEWEST, "held_back": None}
        assert f"was upgraded to {NEWEST}" in features("upgrade", "--feature", f"{FEATURE}={NEWEST}")
        assert described.format(NEWEST, NEWEST) in features("describe")
        assert reassign(broker, "orders", [1])[0] == Error.NONE
        assert tidelog(broker, "cluster", "upgrade") == (0, f"the cluster is at feature level {NEWEST}\n")
        broker.stop()
        assert broker.complaints([TEST_MODE]) == []


def test_a_version_that_is_too_far_away_is_refused_with_what_to_do(tmp_path):
    with ExitStack() as undo:
        old = node(tmp_path / "old", 1)
        undo.callback(old.discard)
        old.environment = FIRST_LEVEL
        old.start()
        # One that no longer reads the level that the cluster is at, joining it and by itself.
        young = node(tmp_path, 2, old.peer_address)
        undo.callback(young.discard)
        refuses(young, "start the version before this one", LATER_LEVELS)
        old.stop()
        refuses(old, "start the version before this one", LATER_LEVELS)
        old.environment = {}
        old.start()
        old.stop()
        with running(tmp_path / "new", 1) as brokers:
            late = node(tmp_path, 3, brokers[0].peer_address)
            undo.callback(late.discard)
            refuses(late, OTHER_VERSION, FIRST_LEVEL)
