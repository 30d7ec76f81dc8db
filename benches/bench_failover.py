"""What a failure of a broker costs, and what replicas cost while nothing fails.

Three brokers on loopback are one cluster, each a replica of every partition of one topic. First they are idle; then every
partition is written to many times a second while one broker after the other is killed, stands still, and is stopped, the
controller's leader last; then a GiB is written to three replicas, with Apache Kafka beside it. Run by `make bench-failover`,
on a machine that does nothing else; the result is the section for benches/RESULTS.md. `--quick` only shows that it works.
"""

import argparse
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "foreign"))

import failover_generator  # noqa: E402
import figures  # noqa: E402
from clusters import BROKERS, TidelogCluster  # noqa: E402
from failover_cpu import CpuBench, default_gib  # noqa: E402
from failover_table import KILL, PAUSE, STOP, Event, cpu_table, cpu_words, events_table, idle_table, lengths_s  # noqa: E402
from failover_wire import ProduceRequests  # noqa: E402
from harness import paths  # noqa: E402
from harness.cluster import until  # noqa: E402
from kafka_table import machine  # noqa: E402
from measure import GIB, cpu_s, memory_mib  # noqa: E402
from wire import Connection, Error, build_batch  # noqa: E402
from wire.calls import create_topic  # noqa: E402

TOPIC = "failover"
RECORD = 20
SESSION_S = 3
# Load before something happens, and from the event until the broker comes back; the gap may be longer than that.
STEADY_S, AWAY_S, PATIENCE_S = 3, 4, 30
# A broker stands still for longer than its session and what is to follow it.
PAUSE_S = SESSION_S + 5
# What was on its way at the moment of the event arrives within this.
GRACE_S = 0.2
UNDISTURBED_S = 10
# Until all replicas are in sync, or all leaders where they are preferred.
IN_SYNC_S = 120
# Beyond the time that was given, for what has begun.
OVERTIME_S = 300


def say(text):
    print(text, file=sys.stderr, flush=True)


class Load:
    """The generators, each a process with its share of the partitions."""

    def __init__(self, args, cluster):
        context = multiprocessing.get_context("spawn")
        addresses = {number: broker.address for number, broker in enumerate(cluster.brokers, 1)}
        batch = build_batch([bytes(RECORD)])
        self.processes, self.controls = [], []
        for number in range(args.generators):
            partitions = list(range(number, args.partitions, args.generators))
            plan = failover_generator.Plan(TOPIC, partitions, addresses, batch, args.rate)
            ours, theirs = context.Pipe()
            process = context.Process(target=failover_generator.run, args=(plan, theirs), daemon=True)
            process.start()
            theirs.close()
            self.processes.append(process)
            self.controls.append(ours)

    def ask(self, *question):
        """The answers of all generators."""
        for control in self.controls:
            control.send(question)
        answers = []
        for control in self.controls:
            if not control.poll(PATIENCE_S):
                raise RuntimeError(f"a generator does not answer {question[0]}")
            answers.append(control.recv())
        return answers

    def gaps(self, since, before):
        """As `Generator.gaps`, of all partitions; waits until all of them have ended, for a while."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            gaps = {partition: gap for answer in self.ask("gaps", since, before) for partition, gap in answer.items()}
            if all(end is not None for _, end in gaps.values()) or time.monotonic() > deadline:
                return gaps
            time.sleep(1)

    def rates(self, since, before):
        """How often a second each partition was acknowledged: least, and all together."""
        counts = [count for answer in self.ask("counts", since, before) for count in answer.values()]
        return min(counts) / (before - since), sum(counts) / (before - since)

    def forget(self):
        self.ask("forget", time.monotonic() - STEADY_S)

    def use(self):
        """Processor seconds of all generators so far, and how often each error code came."""
        answers = self.ask("use")
        return sum(seconds for seconds, _ in answers), sum((Counter(errors) for _, errors in answers), Counter())

    def end(self):
        for process, control in zip(self.processes, self.controls, strict=True):
            try:
                control.send(("end",))
            except OSError:
                pass  # It is gone already.
            process.join(5)
            if process.is_alive():
                process.kill()
                process.join()


class Failover:
    """The cluster under load, and what happened to it."""

    def __init__(self, args, cluster):
        self.args, self.cluster = args, cluster
        self.load = None
        self.undisturbed, self.words = {}, ""
        self.events = []
        # {partition: broker}, as of the last time that all was well.
        self.leaders = {}

    def run(self):
        self.load = Load(self.args, self.cluster)
        try:
            self.settle()
            self.leave_alone()
            for _ in range(self.args.rounds):
                for kind in (KILL, PAUSE, STOP):
                    self.happen_to_all(kind)
            used_s, errors = self.load.use()
            say(f"the load used {used_s:.0f} s of CPU; errors by code: {dict(errors)}")
        finally:
            self.load.end()

    def happen_to_all(self, kind):
        """To the controller's leader last: until then it stays that."""
        controller = self.cluster.controller()
        for number in sorted(range(1, BROKERS + 1), key=lambda number: number == controller):
            if time.monotonic() < self.args.deadline:
                self.happen(kind, number)

    def settle(self):
        """Waits until every replica is in sync and every first replica leads, then for a while."""
        partitions = self.in_sync()
        deadline = time.monotonic() + IN_SYNC_S
        while any(led.leader != led.replicas[0] for led in partitions):
            if time.monotonic() > deadline:
                say("not every partition is led by its first replica")
                break
            # Its exit code says no more than what is looked at here.
            subprocess.run(
                [self.args.driver, "partition", "elect", TOPIC, "--bootstrap-server", self.cluster.address],
                capture_output=True, timeout=IN_SYNC_S,
            )  # fmt: skip
            partitions = self.in_sync()
        self.leaders = {led.partition: led.leader for led in partitions}
        time.sleep(STEADY_S)

    def in_sync(self):
        """The partitions, once all of them have a leader and all replicas."""
        return wait_for(self.args, self.cluster, lambda led: led.leader >= 0 and len(led.in_sync) == BROKERS)

    def leave_alone(self):
        """What the gaps, the rate, and the machine's load are while nothing happens."""
        since, own = time.monotonic(), self.load.use()[0]
        used = [cpu_s(pid) for pid in self.cluster.pids]
        time.sleep(UNDISTURBED_S)
        now = time.monotonic()
        took = now - since
        shares = [100 * (cpu_s(pid) - before) / took for pid, before in zip(self.cluster.pids, used, strict=True)]
        own = 100 * (self.load.use()[0] - own) / took
        self.undisturbed = self.load.gaps(since, now)
        least, total = self.load.rates(since, now)
        self.words = (
            f"While nothing happened for {took:.0f} s each partition was acknowledged at least {least:.1f} times a second, all together"
            f" {total:.0f} times; the brokers used {', '.join(f'{share:.0f}' for share in shares)} % of a core, the load {own:.0f} %."
        )
        say(self.words)
        self.load.forget()

    def happen(self, kind, number):
        victim = self.cluster.broker(number)
        led = {partition for partition, leader in self.leaders.items() if leader == number}
        is_controller = self.cluster.controller() == number
        event = Event(kind, number, is_controller, led, time.monotonic(), {})
        if kind == KILL:
            victim.kill()
        elif kind == PAUSE:
            victim.process.send_signal(signal.SIGSTOP)
        else:
            victim.stop()
            event.took_s = time.monotonic() - event.since
        over = event.since + event.took_s + GRACE_S
        try:
            time.sleep(PAUSE_S if kind == PAUSE else AWAY_S)
            event.gaps = self.load.gaps(event.since, over)
            self.events.append(event)
            say(f"{event.title()}: led {len(led)}, longest gap {max(lengths_s(event.gaps)):.3f} s")
        finally:
            back = time.monotonic()
            if kind == PAUSE:
                victim.process.send_signal(signal.SIGCONT)
        if kind != PAUSE:
            victim.start()
        self.in_sync()
        given_back = time.monotonic()
        event.back = self.load.gaps(back, given_back)
        self.settle()
        event.given_back = self.load.gaps(given_back, time.monotonic() - STEADY_S + GRACE_S)
        self.load.forget()


class Idle:
    """CPU and memory of each broker while nobody asks anything of it, without and with the topic."""

    def __init__(self, args, cluster):
        self.args, self.cluster = args, cluster
        self.empty, self.full = [], []

    def run(self):
        self.empty = self.look()
        self.create()
        self.full = self.look()

    def look(self):
        time.sleep(self.args.settle_s)
        before, begun = [figures.cpu_s(pid)[0] for pid in self.cluster.pids], time.monotonic()
        time.sleep(self.args.idle_s)
        took = time.monotonic() - begun
        after = [figures.cpu_s(pid)[0] for pid in self.cluster.pids]
        shares = [100 * (now - then) / took for now, then in zip(after, before, strict=True)]
        found = list(zip(shares, (memory_mib(pid) for pid in self.cluster.pids), strict=True))
        say("idle: " + ", ".join(f"{share:.2f} % {memory:.0f} MiB" for share, memory in found))
        return found

    def create(self):
        """The topic, with a record in each partition."""
        create(self.args, self.cluster)
        requests = ProduceRequests(TOPIC, build_batch([bytes(RECORD)]), range(self.args.partitions), PATIENCE_S * 1000)
        by_leader = {}
        for led in self.cluster.partitions(TOPIC):
            by_leader.setdefault(led.leader, []).append(led.partition)
        for leader, partitions in by_leader.items():
            with Connection(self.cluster.broker(leader).address, timeout_s=2 * PATIENCE_S) as wire:
                write_all(wire, requests, partitions)


def write_all(wire, requests, partitions):
    """A record in each partition. What is refused is sent again, as a client does while leaders are new."""
    deadline = time.monotonic() + PATIENCE_S
    while partitions:
        wire.send_raw(requests.request(0, partitions))
        answers = requests.answers(wire.receive_frame())
        partitions = [partition for partition, error in answers if error != Error.NONE]
        if partitions and time.monotonic() > deadline:
            raise RuntimeError(f"writes failed: { {error for _, error in answers} }")
        time.sleep(0.1 if partitions else 0)


def create(args, cluster):
    """The topic, with all its leaders."""
    with Connection(cluster.brokers[0].address, timeout_s=3 * PATIENCE_S) as wire:
        answer = create_topic(wire, TOPIC, partitions=args.partitions, replication=BROKERS, timeout_ms=2 * PATIENCE_S * 1000)
    if answer["ErrorCode"] != Error.NONE:
        raise RuntimeError(f"the topic was not created: {answer}")
    wait_for(args, cluster, lambda led: led.leader >= 0)


def wait_for(args, cluster, is_good):
    """The topic's partitions, once all of them are good as every broker sees them."""
    partitions = []

    def good():
        # One that was just woken or started may still tell what was before.
        seen = [cluster.partitions(TOPIC, broker) for broker in cluster.brokers]
        partitions[:] = seen[0]
        return min(sum(map(is_good, one)) for one in seen)

    until(good, lambda count: count == args.partitions, IN_SYNC_S)
    return partitions


class Bench:
    """All parts in turn. What was measured is shown even if a later part fails."""

    def __init__(self, args):
        self.args = args
        self.idle = self.failover = self.cpu = None

    def run(self):
        if {"idle", "failover"} & set(self.args.parts):
            self.one_cluster()
        if "cpu" in self.args.parts:
            self.cpu = CpuBench(self.args, say)
            self.cpu.run()

    def one_cluster(self):
        with tempfile.TemporaryDirectory(dir=self.args.folder) as folder:
            # Leaderships move only when this program says so.
            cluster = TidelogCluster(
                Path(folder), broker_session_timeout_ms=SESSION_S * 1000, auto_leader_rebalance_enable="false"
            )
            try:
                cluster.start()
                if "idle" in self.args.parts:
                    self.idle = Idle(self.args, cluster)
                    self.idle.run()
                else:
                    create(self.args, cluster)
                if "failover" in self.args.parts:
                    self.failover = Failover(self.args, cluster)
                    self.failover.run()
            except BaseException:
                say(cluster.log_tail())
                raise
            finally:
                cluster.discard()

    def show(self, folder):
        args = self.args
        kafka = "" if "cpu" in args.parts and args.only is None else " Apache Kafka did not run."
        print(machine(folder, args.driver).replace("make bench-kafka", "make bench-failover") + kafka)
        print(f"Three brokers on loopback, {args.partitions} partitions of 3 replicas, `durability=sync` unless it says otherwise.\n")
        if self.idle and self.idle.full:
            print(f"Nobody asks anything: {args.idle_s:g} s, {args.settle_s:g} s after the last request; a record in each partition.\n")
            print("\n".join(idle_table(self.idle.empty, self.idle.full, args.partitions)) + "\n")
        if self.failover and (self.failover.undisturbed or self.failover.events):
            interval_s = 1 / args.rate
            print(
                f"Each partition is written {args.rate:g} times a second, a record of {RECORD} bytes at a time, `acks=all`; session time-out"
                f" {SESSION_S} s. A gap is the longest time between two acknowledgements of a partition of which the first came before the"
                f" event was over and the second after it began. The {interval_s * 1000:.0f} ms between two writes are part of it, and so is"
                f" what holds up another partition of the same request. {self.failover.words}\n"
            )
            print("\n".join(events_table(self.failover.undisturbed, self.failover.events, interval_s, SESSION_S)) + "\n")
        if self.cpu and self.cpu.reports:
            print(cpu_words(args, self.cpu.rounds_done) + "\n")
            print("\n".join(cpu_table(self.cpu.reports)))
            reports = [report for of in self.cpu.reports.values() for report in of]
            noise = [report["others_cpu_s"] for report in reports]
            print(f"\nOther processes used up to {max(noise):.1f} s of CPU during a run.")
            if not all(report["was_quiet"] for report in reports):
                print("**In some runs the brokers did not become quiet**, so that idle work is counted.")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=["tidelog"], help="leave Apache Kafka out")
    parser.add_argument("--parts", nargs="+", choices=["idle", "failover", "cpu"], default=["idle", "failover", "cpu"])
    parser.add_argument("--partitions", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=12, help="writes to each partition a second [%(default)s]")
    parser.add_argument("--generators", type=int, default=2, help="processes that write [%(default)s]")
    parser.add_argument("--rounds", type=int, default=1, help="how often each broker is killed, paused and stopped")
    parser.add_argument("--cpu-rounds", type=int, default=3, help="at most")
    parser.add_argument("--gib", type=float, help="data of a run for CPU [default: three replicas go a tenth beyond the dirty limit]")
    parser.add_argument("--warm-up-s", type=float, default=100, help="seconds of load that warm Kafka up")
    parser.add_argument("--idle-s", type=float, default=30)
    parser.add_argument("--settle-s", type=float, default=15, help="from the last request until brokers count as idle")
    parser.add_argument("--minutes", type=float, default=25, help="nothing begins later")
    parser.add_argument("--quick", action="store_true", help="little of everything, whose figures mean nothing")
    parser.add_argument("--folder", help="where the data goes [default: a temporary folder]")
    parser.add_argument("--driver", default=os.environ.get("TIDELOG_BENCH_DRIVER"), help="binary that makes the load for CPU")
    args = parser.parse_args()
    args.driver = args.driver or paths.tidelog_binary()
    args.gib = args.gib or default_gib()
    if args.quick:
        args.partitions, args.gib, args.cpu_rounds, args.warm_up_s, args.idle_s, args.settle_s = 60, 0.1, 1, 1, 2, 1
    if not 1 <= args.generators <= args.partitions:
        parser.error("--generators: at least one, and a partition for each")
    args.deadline = time.monotonic() + args.minutes * 60
    return args


def give_up(number, _):
    """Ends the run by way of its `finally` clauses, so that no process and no folder is left."""
    signal.alarm(0)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise RuntimeError("the run took too long" if number == signal.SIGALRM else "the run was ended by SIGTERM")


def main():
    args = arguments()
    signal.signal(signal.SIGALRM, give_up)
    signal.signal(signal.SIGTERM, give_up)
    signal.alarm(int(args.minutes * 60) + OVERTIME_S)
    folder = args.folder or tempfile.gettempdir()
    free = shutil.disk_usage(folder).free / GIB
    if "cpu" in args.parts and free < 4 * BROKERS * args.gib + 8:
        sys.exit(f"{free:.0f} GiB free in {folder} are too few for runs of {args.gib} GiB")
    bench, is_whole = Bench(args), False
    try:
        bench.run()
        is_whole = True
    finally:
        signal.alarm(0)
        bench.show(folder)
        if not is_whole:
            print("\n**Broken off.**", flush=True)


if __name__ == "__main__":
    main()
