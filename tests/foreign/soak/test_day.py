"""A day in a quarter of an hour: all clients, retention, compaction, groups and topics that come and go, at once against one
broker process. Afterwards the books must balance, groups have never gone back, and the process is no larger than it was.

TIDELOG_TEST_SOAK_SECONDS says how long (`make soak-day`: 900), TIDELOG_TEST_SEED what the random choices begin with.
"""

import os
import time
from collections import defaultdict

import pytest

from clients import ALL
from harness.topics import Topics
from soak.books import Balance, Book
from soak.gauges import MIB, Gauges, growth, sample
from soak.load import Commits, Follower, GroupChurn, Kcat, PassingGroups, PatientKafkaJs, Topic, TopicChurn, Writer, read_all
from wire import Connection

SECONDS = int(os.environ.get("TIDELOG_TEST_SOAK_SECONDS", "60"))
SEED = os.environ.get("TIDELOG_TEST_SEED", "1")

# A day's worth of segments, cleanings, checkpoints and expiries in each minute; caches so small that they are soon full.
SETTINGS = {
    "log.retention.check.interval.ms": "500",
    "log.cleaner.backoff.ms": "300",
    "offsets.topic.segment.bytes": str(1 << 20),
    "offsets.retention.check.interval.ms": "2000",
    "producer.id.expiration.ms": "10000",
    "max.incremental.fetch.session.cache.slots": "50",
    # Only Tidelog has these; Kafka passes over them.
    "log.cache.bytes": str(16 * MIB),
    "journal.file.bytes": str(8 * MIB),
    "journal.bytes.max": str(64 * MIB),
}
SEGMENT = {"segment_bytes": MIB}
CLEANED = {"min_cleanable_dirty_ratio": 0.1, "delete_retention_ms": 1000}
LASTING = {
    "stream": dict(partitions=4, keys=None, retention_bytes=3 * MIB, **SEGMENT),
    "aged": dict(partitions=2, keys=None, retention_ms=8000, **SEGMENT),
    "table": dict(partitions=2, keys=300, cleanup_policy="compact", **CLEANED, **SEGMENT),
    "both": dict(partitions=1, keys=2000, cleanup_policy="compact,delete", retention_bytes=2 * MIB, **CLEANED, **SEGMENT),
}
GROUPED = "stream"
# What a partition may take on disk where its size is bounded: what is kept, and some segments that are to go.
ON_DISK_BYTES = {"stream": 6 * MIB, "table": 6 * MIB, "both": 6 * MIB}


def create(address):
    """The topics that last, with their books."""
    made = {}
    with Topics(address) as topics:
        for name, configs in LASTING.items():
            configs = dict(configs)
            keys, partitions = configs.pop("keys"), configs.pop("partitions")
            topics.create(name, partitions, **configs)
            compacted = "compact" in configs.get("cleanup_policy", "")
            made[name] = Topic(name, [Book(name, p, compacted) for p in range(partitions)], keys)
    return made


def work(address, clients, lasting):
    """Everybody, in the order in which they are told to end."""
    grouped = lasting[GROUPED].books
    kcat = Kcat(address)
    writers = [Writer(client, list(lasting.values()), SEED) for client in [*clients.values(), kcat]]
    churn = [TopicChurn(list(clients.values()), address, n, SEED) for n in range(2)] + [PassingGroups(address, GROUPED, SEED)]
    followers = [
        Follower([*clients.values()] + ([] if topic.keys else [kcat]), address, book, SEED)
        for topic in lasting.values() for book in topic.books
    ]  # fmt: skip
    # KafkaJS has an assigner of its own, so it cannot share a group with the others.
    mixed = [client for client in clients.values() if client.name != "kafkajs"]
    groups = [GroupChurn(mixed, "mixed", GROUPED, len(grouped), SEED), GroupChurn([clients["kafkajs"]], "kafkajs", GROUPED, len(grouped), SEED)]
    commits = Commits(address, [group.group for group in groups], GROUPED, len(grouped), SEED)
    return writers, churn, followers, groups, commits


def run(everybody, seconds):
    for worker in everybody:
        worker.start()
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(0.2)
        for worker in everybody:
            worker.check()


def balance(address, lasting):
    """The books of each topic, after every promise was looked at: as the followers read it, and as it is stored."""
    followed, now = defaultdict(Balance), defaultdict(Balance)
    with Connection(address, timeout_s=60) as wire:
        for topic in lasting.values():
            for book in topic.books:
                start, end, stored = read_all(wire, book.topic, book.partition)
                one, other = book.balance(stored, start, end)
                followed[topic.name] += one
                now[topic.name] += other
    return followed, now


def is_flat(gauges):
    """Nothing grows once the caches are full, which takes them the first third of a short run. Sockets are the clients' affair;
    threads come and go with blocking calls, files with segments."""
    steady = gauges.samples[len(gauges.samples) // 3 :]
    seconds = steady[-1].seconds - steady[0].seconds
    bounds = {"allocated": 16 * MIB, "resident": 24 * MIB, "rss": 24 * MIB, "files": 30, "threads": 8}
    for name, bound in bounds.items():
        middle, grown = growth(steady, name)
        unit = MIB if bound >= MIB else 1
        print(f"{name}: {middle / unit:.1f}, grown by {grown / unit:.1f} in {seconds:.0f} s")
        assert grown <= bound, f"{name} grew by {grown / unit:.1f} from {middle / unit:.1f} in {seconds:.0f} s"


def is_small_on_disk(broker):
    """What retention and compaction let go is gone from the disk, too."""
    for name, bound in ON_DISK_BYTES.items():
        for folder in (broker.data_dir / "topics").glob(f"{name}-*"):
            taken = sum(file.stat().st_size for file in folder.glob("*.log"))
            print(f"{folder.name}: {taken / MIB:.1f} MiB in {len(list(folder.iterdir()))} files")
            assert taken <= bound, f"{folder.name} takes {taken / MIB:.1f} MiB"


def much_has_happened(workers, groups, lasting, followed, now):
    """A quiet day would show nothing."""
    print("steps:", {worker.name: worker.steps for worker in workers}, "members fenced:", sum(g.fenced for g in groups))
    assert all(worker.steps >= 5 for worker in workers), "somebody did nothing"
    assert all(now[name].removed_by_retention for name in ("stream", "aged", "both"))
    assert all(now[name].compacted_away for name in ("table", "both"))
    assert followed["stream"].read > now["stream"].read
    for group in groups:
        for partition, received in enumerate(group.received):
            assert received, f"{group.group} got nothing of partition {partition}"
            assert all(lasting[GROUPED].books[partition].acked[offset] for offset in received)


@pytest.mark.timeout(SECONDS * 2 + 300)
def test_a_day(start_broker):
    broker = start_broker(SETTINGS)
    clients = {name: kind(broker.address) for name, kind in (ALL | {PatientKafkaJs.name: PatientKafkaJs}).items()}
    lasting = create(broker.address)
    writers, churn, followers, groups, commits = work(broker.address, clients, lasting)
    gauges = Gauges(broker) if broker.is_tidelog else None
    if gauges:
        gauges.start()
    try:
        run([*writers, *churn, *followers, *groups, commits], SECONDS)
    finally:
        if gauges:
            gauges.finish()
    # Who writes ends first, so that who reads can come to the end.
    for worker in [*writers, *churn, *followers, *groups, commits]:
        worker.finish()
    for client in clients.values():
        client.close()

    followed, now = balance(broker.address, lasting)
    for name in lasting:
        print(f"{name}, followed: {followed[name]}")
        print(f"{name}, stored:   {now[name]}")
    much_has_happened([*writers, *churn, *groups], groups, lasting, followed, now)
    if gauges:
        print("at the end:", sample(broker))
        is_flat(gauges)
        is_small_on_disk(broker)
    broker.stop()
    assert not broker.complaints(), "unexpected in the log"
    broker.start()
    assert balance(broker.address, lasting)[1]["table"].acknowledged == now["table"].acknowledged
    broker.stop()
