"""What partitions cost that hold data and sleep, before and after one of three brokers is killed, and how fast they wake.

Three brokers on loopback are one cluster; topics of `--partitions` partitions in all, each with three replicas and one record, made so
slowly that those made before are asleep. Consumers are parked on all of them. Then one broker is killed, and at last some hundred
sleepers are written to, one after the other. Run by `make bench-hibernation`, on a machine that does nothing else.
"""

import argparse
import re
import resource
import selectors
import signal
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "foreign"))

from bench_failover import give_up, say  # noqa: E402
from clusters import BROKERS, TidelogCluster  # noqa: E402
from failover_wire import ProduceRequests  # noqa: E402
from figures import percentile  # noqa: E402
from harness import paths  # noqa: E402
from harness.cluster import until  # noqa: E402
from kafka_table import machine  # noqa: E402
from measure import cpu_s, memory_mib  # noqa: E402
from wire import Connection, Error, build_batch  # noqa: E402
from wire.calls import create_topic, fetch_body, fetch_partition  # noqa: E402

RECORD = 100
TOPIC_PARTITIONS = 1000
PATIENCE_S = 120
PARKED_MS = 600_000
MIB_MAX, PERCENT_MAX, WAKE_MS_MAX, RECORD_BYTES_MAX = 1.5e9 / (1 << 20), 1, 5, 300
OPEN_FILES = 20_000


def gauge(broker, name):
    """A gauge of a broker's metrics."""
    _, text = broker.http("/metrics", timeout_s=30)
    return float(re.search(rf"^{name} (\S+)$", text, re.MULTILINE).group(1))


class Consumers:
    """Connections, each with one Fetch that waits at the end of some partitions of one leader."""

    def __init__(self, bench, count):
        self.bench, self.count = bench, count
        self.parked = {}

    def park(self, leaders):
        """`leaders`: {broker: [(topic, partition)]}, each with an even share of the consumers."""
        total = sum(map(len, leaders.values()))
        for number, partitions in leaders.items():
            share = max(1, round(self.count * len(partitions) / total)) if partitions else 0
            for n in range(share):
                mine = partitions[n::share]
                wire = Connection(self.bench.cluster.broker(number).address, timeout_s=PATIENCE_S)
                self.parked[wire] = mine
                self.fetch(wire, mine)

    def fetch(self, wire, partitions):
        by_topic = {}
        for topic, partition in partitions:
            by_topic.setdefault(topic, []).append(partition)
        body = fetch_body("", [], max_wait_ms=PARKED_MS)
        # Each holds one record.
        body["Topics"] = [
            {"Topic": topic, "Partitions": [fetch_partition(one, 1, CurrentLeaderEpoch=-1) for one in ones]}
            for topic, ones in by_topic.items()
        ]
        wire.send("Fetch", 9, **body)

    def lost(self):
        """Partitions of consumers whose broker has gone or has answered; they are parked no more."""
        with selectors.DefaultSelector() as selector:
            for wire in self.parked:
                selector.register(wire.socket, selectors.EVENT_READ, wire)
            gone = [key.data for key, _ in selector.select(0)]
        partitions = [one for wire in gone for one in self.parked.pop(wire)]
        for wire in gone:
            wire.close()
        return partitions

    def end(self):
        for wire in self.parked:
            wire.close()


class Bench:
    def __init__(self, args, cluster):
        self.args, self.cluster = args, cluster
        self.topics = [f"sleepy-{n}" for n in range(-(-args.partitions // TOPIC_PARTITIONS))]
        self.rows, self.wakes_ms = [], []
        self.record_bytes = self.named_s = None
        self.victim = None

    def live(self):
        return [broker for n, broker in enumerate(self.cluster.brokers, 1) if n != self.victim]

    def run(self):
        consumers = Consumers(self, self.args.consumers)
        try:
            empty = self.look("nothing is there")
            self.create()
            full = self.look("all sleep")
            self.record_bytes = [(one[1] - none[1]) * 1024**2 / self.args.partitions for none, one in zip(empty, full, strict=True)]
            consumers.park(self.leaders())
            self.look(f"{len(consumers.parked)} consumers are parked")
            self.kill(consumers)
            self.look("one broker was killed")
            self.wake()
        finally:
            consumers.end()

    def create(self):
        batch = build_batch([bytes(RECORD)])
        for n, topic in enumerate(self.topics):
            count = min(TOPIC_PARTITIONS, self.args.partitions - n * TOPIC_PARTITIONS)
            with Connection(self.cluster.brokers[0].address, timeout_s=PATIENCE_S) as wire:
                answer = create_topic(wire, topic, partitions=count, replication=BROKERS, timeout_ms=PATIENCE_S * 1000)
            assert answer["ErrorCode"] == Error.NONE, answer
            requests = ProduceRequests(topic, batch, range(count), PATIENCE_S * 1000)
            led = until(lambda: self.cluster.partitions(topic), lambda led: all(one.leader > 0 for one in led) and led, PATIENCE_S)
            for leader in range(1, BROKERS + 1):
                self.write(requests, leader, [one.partition for one in led if one.leader == leader])
            if self.args.idle_ms > 0:
                # Awake they would take more memory than there is.
                until(self.awake, lambda awake: awake < self.args.awake_max, PATIENCE_S)
            say(f"{topic}: {(n * TOPIC_PARTITIONS + count)} partitions, at most {self.awake():.0f} awake on a broker")
        if self.args.idle_ms > 0:
            until(self.awake, lambda awake: awake <= self.args.partitions / 1000, PATIENCE_S)

    def write(self, requests, leader, partitions):
        """Until all of them have a record."""
        deadline = time.monotonic() + PATIENCE_S
        with Connection(self.cluster.broker(leader).address, timeout_s=PATIENCE_S) as wire:
            while partitions:
                assert time.monotonic() < deadline, f"{len(partitions)} partitions are not written"
                wire.send_raw(requests.request(0, partitions))
                partitions = [one for one, error in requests.answers(wire.receive_frame()) if error != Error.NONE]

    def awake(self):
        """The most that are awake on any broker."""
        return max(gauge(one, "tidelog_partitions") - gauge(one, "tidelog_partitions_asleep") for one in self.live())

    def leaders(self):
        led = {}
        for topic in self.topics:
            for one in self.cluster.partitions(topic, self.live()[0]):
                led.setdefault(one.leader, []).append((topic, one.partition))
        return led

    def kill(self, consumers):
        self.victim = next(n for n in range(1, BROKERS + 1) if n != self.cluster.controller())
        self.cluster.broker(self.victim).kill()
        begun = time.monotonic()
        until(self.leaders, lambda led: not {self.victim, -1} & set(led), PATIENCE_S)
        self.named_s = time.monotonic() - begun
        lost = set(consumers.lost())
        again = {number: [one for one in partitions if one in lost] for number, partitions in self.leaders().items()}
        consumers.count = round(self.args.consumers * len(lost) / self.args.partitions)
        consumers.park(again)
        say(f"all are led {self.named_s:.1f} s after the kill; {len(lost)} partitions of consumers moved on")

    def look(self, what):
        """[(CPU in percent of a core, MiB, partitions awake, bytes allocated)] of each broker that lives."""
        time.sleep(self.args.settle_s)
        live = self.live()
        before, begun = [cpu_s(one.process.pid) for one in live], time.monotonic()
        time.sleep(self.args.idle_s)
        took = time.monotonic() - begun
        found = []
        for one, then in zip(live, before, strict=True):
            share = 100 * (cpu_s(one.process.pid) - then) / took
            awake = gauge(one, "tidelog_partitions") - gauge(one, "tidelog_partitions_asleep")
            found.append((share, memory_mib(one.process.pid), awake, gauge(one, "tidelog_memory_allocated_bytes")))
        self.rows.append((what, found))
        say(f"{what}: " + ", ".join(f"{share:.2f} % {memory:.0f} MiB {awake:.0f} awake" for share, memory, awake, _ in found))
        return found

    def wake(self):
        """How long a lone append to one sleeper after the other takes, client included."""
        batch = build_batch([bytes(RECORD)])
        connections = {}
        for number, partitions in self.leaders().items():
            connections[number] = Connection(self.cluster.broker(number).address, timeout_s=PATIENCE_S)
            for topic, partition in partitions[:: max(1, len(partitions) // self.args.wakes)][: self.args.wakes]:
                requests = ProduceRequests(topic, batch, [partition], PATIENCE_S * 1000)
                request = requests.request(0, [partition])
                begun = time.perf_counter()
                connections[number].send_raw(request)
                ((_, error),) = requests.answers(connections[number].receive_frame())
                took = (time.perf_counter() - begun) * 1000
                if error == Error.NONE:
                    self.wakes_ms.append(took)
                else:
                    say(f"{topic}-{partition}: error {error}")
                time.sleep(0.005)
        for one in connections.values():
            one.close()

    def show(self):
        args = self.args
        asleep = f"a partition sleeps after {args.idle_ms} ms" if args.idle_ms > 0 else "hibernation is off"
        print(f"{args.partitions} partitions of 3 replicas with a record of {RECORD} bytes each; {asleep}.\n")
        print("| when | CPU of each broker, % of a core | goal | MiB of each | goal | awake |")
        print("|---|---|---|---|---|---|")
        for what, found in self.rows:
            shares, memory = [share for share, *_ in found], [mib for _, mib, *_ in found]
            cells = [", ".join(f"{share:.2f}" for share in shares), held(max(shares), PERCENT_MAX, "%")]
            cells += [", ".join(f"{mib:.0f}" for mib in memory), held(max(memory), MIB_MAX, "MiB")]
            print(f"| {what} | {' | '.join(cells)} | {max(awake for *_, awake, _ in found):.0f} |")
        if self.record_bytes:
            print(f"\nA replica takes {max(self.record_bytes):.0f} bytes of resident memory, whatever it is used for; goal {held(max(self.record_bytes), RECORD_BYTES_MAX, 'bytes')}.")
        if self.named_s is not None:
            print(f"After the kill every partition had a leader again within {self.named_s:.2f} s, as asked of one broker in turn.")
        if self.wakes_ms:
            values = [percentile(self.wakes_ms, share) for share in (0.5, 0.99)] + [max(self.wakes_ms)]
            p50, p99, most = (f"{value:.2f}" for value in values)
            print(
                f"First acknowledgement of a sleeper, `acks=all`, a Python client included, {len(self.wakes_ms)} of them:"
                f" p50 {p50} ms, p99 {p99} ms, max {most} ms; goal {held(values[1], WAKE_MS_MAX, 'ms')}."
            )


def held(value, bound, unit):
    return f"<= {bound:.0f} {unit}: " + ("held" if value <= bound else "**missed**")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--partitions", type=int, default=50_000)
    parser.add_argument("--consumers", type=int, default=1000)
    parser.add_argument("--wakes", type=int, default=200, help="sleepers that are woken on each broker")
    parser.add_argument("--idle-ms", type=int, default=5000, help="-1: nothing sleeps")
    parser.add_argument("--awake-max", type=int, default=3000, help="partitions of a broker that are awake while more are made")
    parser.add_argument("--idle-s", type=float, default=30)
    parser.add_argument("--settle-s", type=float, default=20)
    parser.add_argument("--minutes", type=float, default=40)
    parser.add_argument("--folder")
    args = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, OPEN_FILES))
    for number in (signal.SIGALRM, signal.SIGTERM):
        signal.signal(number, give_up)
    signal.alarm(int(args.minutes * 60))
    folder = args.folder or tempfile.gettempdir()
    print(machine(folder, paths.tidelog_binary()).replace("make bench-kafka", "make bench-hibernation") + "\n", flush=True)
    with tempfile.TemporaryDirectory(dir=args.folder) as home:
        cluster = TidelogCluster(Path(home), partition_hibernation_idle_ms=args.idle_ms, auto_leader_rebalance_enable="false")
        bench = Bench(args, cluster)
        try:
            cluster.start()
            bench.run()
        except BaseException:
            say(cluster.log_tail())
            raise
        finally:
            signal.alarm(0)
            cluster.discard()
            bench.show()


if __name__ == "__main__":
    main()
