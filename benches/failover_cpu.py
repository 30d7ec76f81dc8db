"""What a GiB costs that is written to three replicas: processor seconds of all brokers together, Tidelog beside Apache Kafka.

Both clusters run at the same time and take turns, as in `bench_kafka.py`; Kafka is warmed up first with the same load.
"""

import subprocess
import tempfile
import time
from pathlib import Path

from clusters import BROKERS, KafkaCluster, TidelogCluster
from measure import GIB, dirty_limit_gib, drive, memory_mib

PARTITIONS = 12
# A client has one connection to each broker and five requests in flight on it.
CONNECTIONS, IN_FLIGHT = BROKERS, 5
RECORD, BATCH = 1024, 100 * 1024
# Kafka's page cache against the same, and against what Tidelog does unless it is told otherwise.
LOADS = [("os", ("Tidelog", "Kafka")), ("sync", ("Tidelog",))]
TIDELOG_WARM_UP_S = 10


def default_gib():
    """Three replicas on one machine go a tenth beyond what the kernel takes before writers have to wait."""
    return round(dirty_limit_gib() * 1.1 / BROKERS, 1)


class CpuBench:
    """The clusters, and what was measured: (durability, cluster's name) to the reports of all rounds."""

    def __init__(self, args, say):
        self.args, self.say = args, say
        self.reports = {}
        self.topics = 0
        self.rounds_done = 0

    def run(self):
        with tempfile.TemporaryDirectory(dir=self.args.folder) as folder:
            # The load goes to the leaders that it began with.
            clusters = [TidelogCluster(Path(folder) / "tidelog", auto_leader_rebalance_enable="false")]
            if self.args.only != "tidelog":
                clusters.append(KafkaCluster(Path(folder) / "kafka"))
            try:
                for cluster in clusters:
                    cluster.start()
                for cluster in clusters:
                    self.warm_up(cluster)
                self.rounds(clusters)
            finally:
                for cluster in clusters:
                    cluster.discard()

    def warm_up(self, cluster):
        wanted_s = self.args.warm_up_s if cluster.name == "Kafka" else min(self.args.warm_up_s, TIDELOG_WARM_UP_S)
        done_s = 0
        while done_s < wanted_s and time.monotonic() < self.args.deadline:
            done_s += self.write(cluster, "os")["seconds"]

    def rounds(self, clusters):
        """As many as were asked for, but none that would not end in time; every other one the other way round."""
        longest = 0
        while self.rounds_done < self.args.cpu_rounds and time.monotonic() + longest < self.args.deadline:
            begun = time.monotonic()
            turns = [(durability, cluster) for durability, names in LOADS for cluster in clusters if cluster.name in names]
            for durability, cluster in turns if self.rounds_done % 2 == 0 else turns[::-1]:
                report = self.write(cluster, durability)
                self.reports.setdefault((durability, cluster.name), []).append(report)
            self.rounds_done, longest = self.rounds_done + 1, max(longest, time.monotonic() - begun)

    def write(self, cluster, durability):
        """Writes a topic of its own and deletes it."""
        self.topics += 1
        topic = f"load-{self.topics}"
        report = drive(
            self.args.driver, cluster, "produce", topic, partitions=PARTITIONS, replication_factor=BROKERS, connections=CONNECTIONS,
            in_flight=IN_FLIGHT, record_size=RECORD, batch_bytes=BATCH, bytes=int(self.args.gib * GIB),
            config=cluster.durability[durability],
        )  # fmt: skip
        report["memory_mib"] = sum(memory_mib(pid) for pid in cluster.pids)
        report["driver_cpu_s_per_gib"] = report["driver"]["cpu_s_per_gib"]
        self.say(
            f"{cluster.name:8} {durability:5} {report['mib_per_s']:8.1f} MiB/s  brokers {report['broker_cpu_s_per_gib']:.2f}"
            f"  kernel {report['kernel_cpu_s_per_gib']:.2f} s/GiB  others {report['others_cpu_s']:.1f} s"
            + ("" if report["was_quiet"] else "  (did not become quiet)")
        )
        subprocess.run(
            [self.args.driver, "topic", "delete", topic, "--bootstrap-server", cluster.address],
            check=True, capture_output=True,
        )  # fmt: skip
        time.sleep(2)
        return report
