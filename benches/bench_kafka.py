"""Tidelog and Apache Kafka side by side: what writing and reading costs each of them, and how fast it goes.

Both run at the same time on loopback, each with a folder of its own, and take turns: every load goes to one, then to the
other, the other way round in the next round; the figures are medians. Kafka is warmed up first and has the memory and
garbage collector that its start script gives it. Run by `make bench-kafka`, on a machine that does nothing else; the result
is a table for benches/RESULTS.md.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "foreign"))

from harness import paths, tools  # noqa: E402
from harness.broker import KafkaBroker, TidelogBroker  # noqa: E402
from measure import GIB, around, dirty_limit_gib, drive, memory_mib  # noqa: E402
from wire import Connection, Disconnected, Error, build_batch  # noqa: E402
from wire.calls import create_topic, produce  # noqa: E402

PARTITIONS, CONNECTIONS = 4, 4
SMALL, LARGE = 16384, 1 << 20
RECORD = 1024
# Requests in flight on each connection, by batch size: as many bytes as a client's defaults would have.
IN_FLIGHT = {SMALL: 16, LARGE: 2}
STARTS = 5


class WarmKafka(KafkaBroker):
    """Kafka as `kafka-server-start.sh` starts it; the tests' own settings are made for a quick start instead."""

    name = "Kafka"
    durability = {"os": [], "sync": ["flush.messages=1"]}
    _jvm = [
        "java", "-Xms1g", "-Xmx1g", "-server", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20",
        "-XX:InitiatingHeapOccupancyPercent=35", "-XX:+ExplicitGCInvokesConcurrent", "-Djava.awt.headless=true",
    ]  # fmt: skip

    def __init__(self, home):
        # Deleted data must be gone before the next run.
        super().__init__(home, {"log.segment.delete.delay.ms": "1000"})


class Tidelog(TidelogBroker):
    name = "Tidelog"
    durability = {"os": ["durability=os"], "sync": ["durability=sync"]}

    def __init__(self, home):
        super().__init__(home, {"inter.broker.listener": "127.0.0.1:0"})
        self.settings["inter.broker.listener"] = f"127.0.0.1:{self.controller_port}"


class Bench:
    """The two brokers and what was measured: (load, broker name) to the reports of all rounds."""

    def __init__(self, args, folder):
        self.args = args
        self.brokers = [Tidelog(Path(folder) / "tidelog"), WarmKafka(Path(folder) / "kafka")]
        self.reports = {}
        self.topics = 0
        self.lines = []

    def say(self, text):
        print(text, file=sys.stderr, flush=True)

    def write(self, broker, load, batch, durability, gib, keep=False):
        """Writes a topic of its own and returns its name; deletes it unless it is to be kept."""
        self.topics += 1
        topic = f"bench-{self.topics}"
        report = drive(
            self.args.driver, broker, "produce", topic, partitions=PARTITIONS, connections=CONNECTIONS, record_size=RECORD,
            batch_bytes=batch, in_flight=IN_FLIGHT[batch], bytes=int(gib * GIB), config=broker.durability[durability],
        )  # fmt: skip
        self.keep(load, broker, report)
        if not keep:
            self.delete(broker, topic)
        return topic

    def read(self, broker, load, topic, gib):
        report = drive(
            self.args.driver, broker, "consume", topic, connections=CONNECTIONS, fetch_bytes=1 << 20, bytes=int(gib * GIB)
        )  # fmt: skip
        self.keep(load, broker, report)

    def keep(self, load, broker, report):
        if load:
            self.reports.setdefault((load, broker.name), []).append(report)
        self.say(
            f"{broker.name:8} {load or 'warm-up':24} {report['mib_per_s']:8.1f} MiB/s  broker {report['broker_cpu_s_per_gib']:.2f}"
            f"  kernel {report['kernel_cpu_s_per_gib']:.2f} s/GiB  others {report['others_cpu_s']:.1f} s"
        )

    def delete(self, broker, topic):
        subprocess.run(
            [self.args.driver, "topic", "delete", topic, "--bootstrap-server", broker.address],
            check=True, capture_output=True,
        )  # fmt: skip
        time.sleep(2)

    def round(self, order):
        gib, sync_gib = self.args.gib, self.args.sync_gib
        for load, batch, durability in LOADS:
            for broker in order:
                size = gib if durability == "os" else sync_gib
                topic = self.write(broker, load, batch, durability, size, keep=load == OS_SMALL)
                if load == OS_SMALL:
                    self.read(broker, READ, topic, size)
                    self.delete(broker, topic)

    def foreign(self):
        """The same 16 KiB load by Kafka's own generator: whether both generators see the same."""
        count = int(self.args.foreign_gib * GIB / RECORD)
        for broker in self.brokers:
            with Connection(broker.address) as wire:
                topic = f"foreign-{broker.name}"
                config = dict(pair.split("=") for pair in broker.durability["os"])
                create_topic(wire, topic, partitions=PARTITIONS, **({"configs": config} if config else {}))

            def generate(broker=broker, topic=topic):
                begun = time.perf_counter()
                text = tools.run(
                    "kafka-producer-perf-test", "--topic", topic, "--num-records", count, "--record-size", RECORD,
                    "--throughput", -1, "--producer-props", f"bootstrap.servers={broker.address}", f"batch.size={SMALL}",
                    "linger.ms=5", "acks=all", timeout_s=1800,
                )  # fmt: skip
                self.say(text.strip().splitlines()[-1])
                took = time.perf_counter() - begun
                return {"bytes": count * RECORD, "mib_per_s": count * RECORD / (1 << 20) / took}

            self.keep(FOREIGN, broker, around(broker, generate))
            self.delete(broker, topic)


OS_SMALL, READ, FOREIGN = "produce 16 KiB, os", "consume", "foreign, 16 KiB, os"
LOADS = [
    (OS_SMALL, SMALL, "os"),
    ("produce 1 MiB, os", LARGE, "os"),
    ("produce 16 KiB, sync", SMALL, "sync"),
    ("produce 1 MiB, sync", LARGE, "sync"),
]


def first_record(broker):
    """Seconds from the start of the process to the first acknowledged record, into a topic that is there."""
    batch = build_batch([bytes(RECORD)])
    begun = time.perf_counter()
    broker.spawn()
    while True:
        try:
            with Connection(broker.address, timeout_s=5) as wire:
                while produce(wire, "first", batch)["ErrorCode"] != Error.NONE:
                    time.sleep(0.002)
                return time.perf_counter() - begun
        except (OSError, Disconnected):
            if broker.process.poll() is not None or time.perf_counter() - begun > 60:
                raise RuntimeError(broker.log_tail()) from None
            time.sleep(0.002)


def start_times(broker):
    """Starts again and again, and leaves the broker running; also what it holds when nothing was asked of it."""
    broker.start()
    with Connection(broker.address) as wire:
        create_topic(wire, "first", partitions=1)
        produce(wire, "first", build_batch([bytes(RECORD)]))
    times = []
    for _ in range(STARTS):
        broker.stop()
        times.append(first_record(broker))
    time.sleep(10)
    return statistics.median(times), memory_mib(broker.process.pid)


def median(reports, field):
    return statistics.median(report[field] for report in reports)


def table(bench, starts):
    reports = bench.reports
    yield "| load | | Tidelog | Kafka | ratio | bound |"
    yield "|---|---|---|---|---|---|"
    bounds = {
        (OS_SMALL, "broker_cpu_s_per_gib"): "<= 0.5",
        ("produce 16 KiB, sync", "broker_cpu_s_per_gib"): "<= 0.67 of Kafka's os",
        ("produce 16 KiB, sync", "mib_per_s"): ">= 5",
        (READ, "broker_cpu_s_per_gib"): "<= 1.5",
    }
    fields = [
        ("broker_cpu_s_per_gib", "broker CPU, s/GiB", 2), ("kernel_cpu_s_per_gib", "kernel threads, s/GiB", 2),
        ("mib_per_s", "MiB/s", 0),
    ]  # fmt: skip
    kafka_os = median(reports[OS_SMALL, "Kafka"], "broker_cpu_s_per_gib")
    for load in dict.fromkeys(load for load, _ in reports):
        for field, words, digits in fields:
            ours, theirs = (median(reports[load, name], field) for name in ("Tidelog", "Kafka"))
            bound = bounds.get((load, field), "")
            against = kafka_os if "os" in bound else theirs
            ratio = f"{ours / against:.2f}" if against else ""
            yield f"| {load} | {words} | {ours:.{digits}f} | {theirs:.{digits}f} | {ratio} | {bound} |"
    (our_start, our_memory), (their_start, their_memory) = starts
    yield f"| start to first acknowledged record | s | {our_start:.2f} | {their_start:.2f} | | <= 0.5 s |"
    yield f"| memory, idle | MiB | {our_memory:.0f} | {their_memory:.0f} | | <= 60 MB |"
    for load in (OS_SMALL, READ):
        own = (max(r["driver"]["cpu_s_per_gib"] for r in reports[load, name]) for name in ("Tidelog", "Kafka"))
        ours, theirs = own
        yield f"| {load} | driver's own CPU, s/GiB, at most | {ours:.2f} | {theirs:.2f} | | <= 1.2 |"


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gib", type=float, default=5, help="data of a run without syncs; beyond the dirty limit")
    parser.add_argument("--sync-gib", type=float, default=1, help="data of a run with syncs")
    parser.add_argument("--foreign-gib", type=float, default=1, help="data of the foreign generator; 0 leaves it out")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", help="where the data goes [default: a temporary folder]")
    parser.add_argument("--driver", default=os.environ.get("TIDELOG_BENCH_DRIVER"), help="binary that makes the load")
    args = parser.parse_args()
    args.driver = args.driver or paths.tidelog_binary()
    return args


def main():
    args = arguments()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        free = shutil.disk_usage(folder).free / GIB
        if free < 3 * args.gib + 4:
            sys.exit(f"{free:.0f} GiB free in {folder} are too few for runs of {args.gib} GiB")
        bench = Bench(args, folder)
        try:
            starts = [start_times(broker) for broker in bench.brokers]
            for broker in bench.brokers:
                bench.write(broker, None, SMALL, "os", min(args.gib, 2))
            for number in range(args.rounds):
                bench.round(bench.brokers if number % 2 == 0 else bench.brokers[::-1])
            if args.foreign_gib:
                bench.foreign()
            limit = dirty_limit_gib()
            print(
                f"{PARTITIONS} partitions, {CONNECTIONS} connections, records of {RECORD} bytes, acks=all; {args.gib:g} GiB a run"
                f" ({args.sync_gib:g} GiB with syncs), dirty limit {limit:.1f} GiB; medians of {args.rounds}\n"
            )
            print("\n".join(table(bench, starts)))
            # The foreign generator is one of the others itself.
            noise = [r["others_cpu_s"] for (load, _), reports in bench.reports.items() if load != FOREIGN for r in reports]
            print(f"\nOther processes used up to {max(noise):.0f} s of CPU during a run.")
        finally:
            for broker in bench.brokers:
                broker.discard()


if __name__ == "__main__":
    main()
