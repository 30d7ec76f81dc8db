"""The figures of one broker: topic creation, a lone append, a large rebalance, restart, memory, ten thousand idle partitions.

Starts `bin/tidelog` (or TIDELOG_TEST_BINARY) on loopback in a temporary folder and prints one line a figure; the same
against Apache Kafka with TIDELOG_TEST_BROKER=kafka. Run it by `make figures` on a machine that does nothing else.
"""

import os
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "foreign"))

from harness.broker import new_broker  # noqa: E402
from wire import Connection, Error, build_batch  # noqa: E402
from wire.calls import Member, create_topic, metadata, produce, produce_body, produced  # noqa: E402

PARTITIONS = 1000
MANY_TOPICS = 10
OPEN_FILES = 20_000
IDLE_S = 30
MEMBERS, ASSIGNED = 200, 900
ROUNDS = 5


def show(name, value):
    print(f"{name:<58} {value}", flush=True)


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def sync_cost(folder):
    """Median cost of overwriting 4 KiB of a preallocated file and syncing, in ms: the floor of a durable append."""
    path = Path(folder) / "probe"
    path.write_bytes(bytes(1 << 20))
    costs = []
    with open(path, "r+b") as file:
        os.fsync(file.fileno())
        for n in range(200):
            file.seek((n % 256) * 4096)
            begun = time.perf_counter()
            file.write(bytes(4096))
            file.flush()
            os.fdatasync(file.fileno())
            costs.append((time.perf_counter() - begun) * 1000)
    path.unlink()
    return statistics.median(costs)


def topic_creation(wire):
    took = []
    for n in range(ROUNDS):
        begun = time.perf_counter()
        answer = create_topic(wire, f"wide-{n}", partitions=PARTITIONS)
        assert answer["ErrorCode"] == Error.NONE, answer
        while True:
            found = metadata(wire, f"wide-{n}")
            led = [p for p in found["Partitions"] if p["ErrorCode"] == Error.NONE and p["LeaderId"] >= 0]
            if len(led) == PARTITIONS:
                break
        took.append(time.perf_counter() - begun)
    show(f"topic of {PARTITIONS} partitions created and led, s (each round)", " ".join(f"{t:.2f}" for t in took))


def lone_append(wire):
    assert create_topic(wire, "lone", partitions=1)["ErrorCode"] == Error.NONE
    batch = build_batch([bytes(1000)])
    costs = []
    for _ in range(2000):
        begun = time.perf_counter()
        assert produce(wire, "lone", batch)["ErrorCode"] == Error.NONE
        costs.append((time.perf_counter() - begun) * 1000)
    show("lone acks=all append of 1 KB, client included, p50 / p99 ms", f"{percentile(costs, 0.5):.2f} / {percentile(costs, 0.99):.2f}")


def rebalance(broker, wire):
    assert create_topic(wire, "grouped", partitions=ASSIGNED)["ErrorCode"] == Error.NONE
    members = [Member(broker.address, "big", protocols=(("range", bytes(64)),)) for _ in range(MEMBERS)]
    for member in members:
        assert member.join_once()["ErrorCode"] == Error.MEMBER_ID_REQUIRED
    begun = time.perf_counter()
    for member in members:
        member.send_join()
    joined = [member.receive_join(60) for member in members]
    assert {answer["ErrorCode"] for answer in joined} == {Error.NONE}
    leader = next(m for m, answer in zip(members, joined) if answer["Members"])
    share = bytes(20 + 4 * (ASSIGNED // MEMBERS + 1))
    for member in members:
        member.send_sync({m.member_id: share for m in members} if member is leader else None)
    synced = [member.connection.receive(60)[1] for member in members]
    assert {answer["ErrorCode"] for answer in synced} == {Error.NONE}
    show(f"{MEMBERS} members over {ASSIGNED} partitions rebalanced, with 1 s of initial delay, s", f"{time.perf_counter() - begun:.2f}")
    for member in members:
        member.connection.close()


def cpu_s(pid):
    """Seconds of CPU that a process has used, and how often its threads went to sleep and woke up."""
    cpu, switches = 0, 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        cpu += int((task / "schedstat").read_text().split()[0])
        for line in (task / "status").read_text().splitlines():
            if line.startswith("voluntary_ctxt_switches:"):
                switches += int(line.split()[1])
    return cpu / 1e9, switches


def idle(broker, what):
    """Lets a broker be for a while."""
    time.sleep(15)
    pid = broker.process.pid
    (cpu, switches), begun = cpu_s(pid), time.monotonic()
    time.sleep(IDLE_S)
    (cpu_after, switches_after), took = cpu_s(pid), time.monotonic() - begun
    share = 100 * (cpu_after - cpu) / took
    show(f"{what}: CPU, % of a core / wake-ups a second", f"{share:.2f} / {(switches_after - switches) / took:.0f}")
    show(f"{what}: memory, MiB", memory_mib(pid))


def started(broker, what):
    begun = time.perf_counter()
    broker.start()
    show(what, f"{time.perf_counter() - begun:.2f}")


def many_partitions(folder):
    """Ten topics of a thousand partitions, a record in each."""
    broker = new_broker(Path(folder) / "many")
    started(broker, "start of an empty broker, s")
    try:
        idle(broker, "empty broker")
        with Connection(broker.address, timeout_s=60) as wire:
            batch = build_batch([bytes(100)])
            begun = time.perf_counter()
            for topic in range(MANY_TOPICS):
                assert create_topic(wire, f"many-{topic}", partitions=PARTITIONS)["ErrorCode"] == Error.NONE
            show(f"{MANY_TOPICS * PARTITIONS} partitions created, s", f"{time.perf_counter() - begun:.2f}")
            for topic in range(MANY_TOPICS):
                for partition in range(PARTITIONS):
                    wire.send("Produce", 9, **produce_body(f"many-{topic}", batch, partition))
                for _ in range(PARTITIONS):
                    assert produced(wire.receive()[1])["ErrorCode"] == Error.NONE
        many = f"{MANY_TOPICS * PARTITIONS} partitions with data"
        idle(broker, many)
        broker.stop()
        started(broker, f"start with {many} after a stop, s")
        idle(broker, f"{many}, started again")
        broker.kill()
        started(broker, f"start with {many} after kill -9, s")
        broker.stop()
    finally:
        broker.discard()


def memory_mib(pid):
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) // 1024
    return None


def main():
    resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, OPEN_FILES))
    with tempfile.TemporaryDirectory() as folder:
        show("overwrite and fdatasync of 4 KiB, median ms", f"{sync_cost(folder):.2f}")
        begun = time.perf_counter()
        broker = new_broker(Path(folder) / "broker", {"group.initial.rebalance.delay.ms": "1000"})
        broker.start()
        show("first start, s", f"{time.perf_counter() - begun:.2f}")
        try:
            with Connection(broker.address, timeout_s=60) as wire:
                show("memory at start, MiB", memory_mib(broker.process.pid))
                lone_append(wire)
                rebalance(broker, wire)
                topic_creation(wire)
                show(f"memory with {ROUNDS * PARTITIONS + ASSIGNED} partitions, MiB", memory_mib(broker.process.pid))
            broker.stop()
            begun = time.perf_counter()
            broker.start()
            show(f"start with {ROUNDS * PARTITIONS + ASSIGNED} partitions, s", f"{time.perf_counter() - begun:.2f}")
            broker.stop()
        finally:
            broker.discard()
        many_partitions(folder)


if __name__ == "__main__":
    main()
