"""Tidelog and Apache Kafka side by side: what writing and reading costs each of them, and how fast it goes.

Both run at the same time on loopback, each with a folder of its own, and take turns: every load goes to one, then to the
other, the other way round in the next round; the figures are medians. Kafka is warmed up first and has the memory and
garbage collector that its start script gives it. Run by `make bench-kafka`, on a machine that does nothing else; the result
is the section for benches/RESULTS.md. A run takes as many rounds as fit into its time; `--quick` only shows that it works.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "foreign"))

from harness import paths, tools  # noqa: E402
from harness.broker import KafkaBroker, TidelogBroker  # noqa: E402
from kafka_table import FOREIGN, LONE, OS_SMALL, READ, machine, table  # noqa: E402
from measure import GIB, around, dirty_limit_gib, drive, memory_mib  # noqa: E402
from wire import Connection, Disconnected, Error, build_batch  # noqa: E402
from wire.calls import create_topic, produce  # noqa: E402

PARTITIONS, CONNECTIONS = 4, 4
SMALL, LARGE = 16384, 1 << 20
RECORD = 1024
# Requests in flight on each connection, by batch size: as many bytes as a client's defaults would have.
IN_FLIGHT = {SMALL: 16, LARGE: 2}
# Loads at a fixed rate, well below what either broker takes: what an append takes, waits for its turn included.
OPEN_IN_FLIGHT = 1024


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

    def say(self, text):
        print(text, file=sys.stderr, flush=True)

    def write(self, broker, load, batch, durability, gib, keep=False, rate_mib=None):
        """Writes a topic of its own and returns its name; deletes it unless it is to be kept."""
        self.topics += 1
        topic = f"bench-{self.topics}"
        paced = {"rate": rate_mib * (1 << 20) / batch, "in_flight": OPEN_IN_FLIGHT} if rate_mib else {"in_flight": IN_FLIGHT[batch]}
        report = drive(
            self.args.driver, broker, "produce", topic, partitions=PARTITIONS, connections=CONNECTIONS, record_size=RECORD,
            batch_bytes=batch, bytes=int(gib * GIB), config=broker.durability[durability], **paced,
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

    def lone(self, broker):
        """One record after the other, each written when the one before it was acknowledged."""
        self.topics += 1
        topic = f"bench-{self.topics}"
        report = drive(
            self.args.driver, broker, "produce", topic, partitions=1, connections=1, in_flight=1, record_size=RECORD, batch_bytes=1,
            seconds=self.args.open_s, config=broker.durability["sync"],
        )  # fmt: skip
        self.keep(LONE, broker, report)
        self.delete(broker, topic)

    def warm_up(self, broker):
        topic = self.write(broker, None, SMALL, "os", min(self.args.gib, 2), keep=True)
        self.read(broker, None, topic, min(self.args.gib, 2))
        self.delete(broker, topic)

    def keep(self, load, broker, report):
        if load:
            self.reports.setdefault((load, broker.name), []).append(report)
        report["memory_mib"] = memory_mib(broker.process.pid)
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
        args = self.args
        sizes = {"os": args.gib, "sync": args.sync_gib}
        for load, batch, durability in LOADS:
            for broker in order:
                topic = self.write(broker, load, batch, durability, sizes[durability], keep=load == OS_SMALL)
                if load == OS_SMALL:
                    self.read(broker, READ, topic, args.gib)
                    self.delete(broker, topic)
        for load, durability, rate_mib in OPEN_LOADS:
            for broker in order:
                self.write(broker, load, SMALL, durability, args.open_s * rate_mib / 1024, rate_mib=rate_mib)
        for broker in order:
            self.lone(broker)

    def rounds(self):
        """As many rounds as were asked for, but none that would not end in time; returns how many."""
        done, longest = 0, 0
        while done < self.args.rounds and (done == 0 or time.monotonic() + longest < self.args.deadline):
            begun = time.monotonic()
            self.round(self.brokers if done % 2 == 0 else self.brokers[::-1])
            done, longest = done + 1, max(longest, time.monotonic() - begun)
            self.say(f"round {done} took {time.monotonic() - begun:.0f} s")
        return done

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


# Load, bytes of a batch, durability; closed loop.
LOADS = [
    (OS_SMALL, SMALL, "os"),
    ("produce 1 MiB, os", LARGE, "os"),
    ("produce 16 KiB, sync", SMALL, "sync"),
    ("produce 1 MiB, sync", LARGE, "sync"),
]
# Load, durability, MiB/s; open loop.
OPEN_LOADS = [("16 KiB at 50 MiB/s, os", "os", 50), ("16 KiB at 10 MiB/s, sync", "sync", 10)]


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


def start_times(broker, count):
    """Starts again and again, and leaves the broker running; also what it holds when nothing was asked of it."""
    broker.start()
    with Connection(broker.address) as wire:
        create_topic(wire, "first", partitions=1)
        produce(wire, "first", build_batch([bytes(RECORD)]))
    times = []
    for _ in range(count):
        broker.stop()
        times.append(first_record(broker))
    time.sleep(10)
    return times, memory_mib(broker.process.pid)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gib", type=float, help="data of a run without syncs [default: a tenth beyond the dirty limit]")
    parser.add_argument("--sync-gib", type=float, default=0.75, help="data of a run with syncs")
    parser.add_argument("--open-s", type=float, default=8, help="seconds of a run at a fixed rate")
    parser.add_argument("--foreign-gib", type=float, default=0.5, help="data of the foreign generator; 0 leaves it out")
    parser.add_argument("--rounds", type=int, default=3, help="at most")
    parser.add_argument("--starts", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=12, help="no round begins that would end later")
    parser.add_argument("--quick", action="store_true", help="one small round, whose figures mean nothing")
    parser.add_argument("--folder", help="where the data goes [default: a temporary folder]")
    parser.add_argument("--driver", default=os.environ.get("TIDELOG_BENCH_DRIVER"), help="binary that makes the load")
    args = parser.parse_args()
    args.driver = args.driver or paths.tidelog_binary()
    args.gib = args.gib or round(dirty_limit_gib() * 1.1, 1)
    if args.quick:
        args.gib, args.sync_gib, args.foreign_gib, args.open_s, args.rounds, args.starts = 0.25, 0.05, 0.05, 1, 1, 1
    args.deadline = time.monotonic() + args.minutes * 60
    return args


def main():
    args = arguments()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        free = shutil.disk_usage(folder).free / GIB
        if free < 3 * args.gib + 4:
            sys.exit(f"{free:.0f} GiB free in {folder} are too few for runs of {args.gib} GiB")
        bench = Bench(args, folder)
        try:
            starts = {broker.name: start_times(broker, args.starts) for broker in bench.brokers}
            for broker in bench.brokers:
                bench.warm_up(broker)
            if args.foreign_gib:
                bench.foreign()
            rounds = bench.rounds()
            print(machine(folder, args.driver))
            print(
                f"{PARTITIONS} partitions, {CONNECTIONS} connections, records of {RECORD} bytes, `acks=all`; {IN_FLIGHT[SMALL]} (16 KiB"
                f" batches) or {IN_FLIGHT[LARGE]} (1 MiB) requests in flight on each connection, closed loop, and two loads at a fixed"
                f" rate; {args.gib:g} GiB a run ({args.sync_gib:g} GiB with syncs), dirty limit {dirty_limit_gib():.1f} GiB; medians of"
                f" {rounds} rounds, in brackets the least and the most. CPU counts until the broker is quiet and all is on disk.\n"
            )
            print("\n".join(table(bench.reports, starts)))
            # The foreign generator is one of the others itself.
            noise = [r["others_cpu_s"] for (load, _), reports in bench.reports.items() if load != FOREIGN for r in reports]
            print(f"\nOther processes used up to {max(noise):.1f} s of CPU during a run, {sum(noise):.0f} s in all.")
        finally:
            for broker in bench.brokers:
                broker.discard()


if __name__ == "__main__":
    main()
