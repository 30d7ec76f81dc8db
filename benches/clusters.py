"""Three brokers on loopback as one cluster, of Tidelog or of Apache Kafka, for the benches that need more than one.

A cluster is to `measure.py` what a broker is: it has an `address`, `pids`, a `log_tail`.
"""

import base64
import subprocess
import uuid

from bench_kafka import Tidelog, WarmKafka
from failover_wire import metadata_request, read_metadata
from harness import paths
from harness.broker import START_TIMEOUT_S
from harness.cluster import bootstrap, node, until
from wire import Connection, Disconnected, Error

BROKERS = 3


class Cluster:
    """Brokers 1 to 3; subclasses know how they become one cluster."""

    def __init__(self, brokers):
        self.brokers = brokers

    @property
    def address(self):
        return bootstrap(self.brokers)

    @property
    def pids(self):
        return [broker.process.pid for broker in self.brokers]

    def log_tail(self):
        return "\n".join(f"broker {number}:\n{broker.log_tail()}" for number, broker in enumerate(self.brokers, 1))

    def discard(self):
        for broker in self.brokers:
            broker.discard()

    def ask(self, question, brokers=None):
        """What the first of the brokers that answers says to `question(connection)`; None if nobody does."""
        for broker in brokers or self.brokers:
            try:
                with Connection(broker.address, timeout_s=5) as wire:
                    return question(wire)
            except (OSError, Disconnected):
                continue
        return None


class TidelogCluster(Cluster):
    name = "Tidelog"
    durability = Tidelog.durability

    def __init__(self, folder, **settings):
        brokers = []
        for number in range(1, BROKERS + 1):
            brokers.append(node(folder, number, brokers[0].peer_address if brokers else None, **settings))
        super().__init__(brokers)

    def start(self):
        for broker in self.brokers:
            broker.start()
        # Until all have a vote the first one cannot be spared.
        until(self.quorum, lambda quorum: len(quorum[1]) == BROKERS)
        return self

    def broker(self, number):
        return self.brokers[number - 1]

    def quorum(self):
        """Id of the controller's leader, and of the brokers that vote with it; (None, []) while nobody knows."""
        asked = [{"TopicName": "__cluster_metadata", "Partitions": [{"PartitionIndex": 0}]}]
        answer = self.ask(lambda wire: wire.call("DescribeQuorum", 0, Topics=asked))
        if answer is None or answer["ErrorCode"] != Error.NONE:
            return None, []
        (partition,) = answer["Topics"][0]["Partitions"]
        return partition["LeaderId"], [voter["ReplicaId"] for voter in partition["CurrentVoters"]]

    def controller(self):
        """Id of the controller's leader, once there is one."""
        return until(self.quorum, lambda quorum: quorum[0] is not None)[0]

    def partitions(self, topic, broker=None):
        """The topic's partitions as this broker or any sees them, in their order; none while it does not know the topic."""

        def question(wire):
            wire.send_raw(metadata_request(0, topic))
            return sorted(read_metadata(wire.receive_frame()))

        return self.ask(question, broker and [broker]) or []


class KafkaNode(WarmKafka):
    """One of three that are broker and controller each."""

    def __init__(self, home, number, cluster_id):
        super().__init__(home)
        self.cluster_id = cluster_id
        self.settings |= {"node.id": str(number), "offsets.topic.replication.factor": str(BROKERS)}

    def _command(self):
        # What is formatted already, and for the same cluster as the others, is left as it is.
        properties = self.home / "server.properties"
        properties.write_text("".join(f"{name}={value}\n" for name, value in self._properties().items()))
        if not (self.data_dir / "meta.properties").exists():
            tool = [*self._jvm, "-cp", paths.jars("server"), "kafka.tools.StorageTool"]
            subprocess.run([*tool, "format", "-t", self.cluster_id, "-c", str(properties)], check=True, capture_output=True)
        return super()._command()

    def brokers_known(self):
        """How many brokers it tells clients of; what it needs before it knows itself is a majority of controllers."""
        if self.process.poll() is not None:
            raise RuntimeError(f"broker exited with {self.process.returncode} at start:\n{self.log_tail()}")
        try:
            with Connection(self.address, timeout_s=2) as wire:
                return len(wire.call("Metadata", 12, Topics=[])["Brokers"])
        except (OSError, Disconnected):
            return 0


class KafkaCluster(Cluster):
    name = "Kafka"
    durability = WarmKafka.durability

    def __init__(self, folder):
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        nodes = [KafkaNode(folder / f"broker{number}", number, cluster_id) for number in range(1, BROKERS + 1)]
        voters = ",".join(f"{number}@127.0.0.1:{one.controller_port}" for number, one in enumerate(nodes, 1))
        for one in nodes:
            one.settings["controller.quorum.voters"] = voters
        super().__init__(nodes)

    def start(self):
        for one in self.brokers:
            one.spawn()
        for one in self.brokers:
            until(one.brokers_known, lambda known: known == BROKERS, START_TIMEOUT_S)
        return self
