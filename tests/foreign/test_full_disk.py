"""Another process fills the disk in one step: producers are refused, readers go on, topics can be deleted, and once
there is space again all goes on without a restart. On a file system of the test's own, so it needs the right to mount
one."""

import os
import subprocess
import time
from pathlib import Path

import pytest

from harness.broker import new_broker
from wire import Connection, Error, build_batch, parse_batches
from wire.calls import create_topic, delete_topic, fetch, list_offset, metadata, produce

RECORD = b"x" * 50_000
SMALL = {
    "journal.file.bytes": 4 << 20,
    "journal.files.min": 2,
    "journal.bytes.max": 16 << 20,
    "disk.reserve.bytes": 1 << 20,
    "log.segment.bytes": 1 << 20,
}


# The journal holds all that happens while segments find no room.
LARGE_JOURNAL = SMALL | {"journal.file.bytes": 16 << 20, "journal.files.min": 5, "journal.bytes.max": 80 << 20}


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 192 MiB."""
    mount = tmp_path / "disk"
    mount.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root may mount")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=192m", "tmpfs", mount], check=True)
    yield mount
    subprocess.run(["umount", "--lazy", mount], check=True)


def fill(path: Path):
    with path.open("wb") as filler, pytest.raises(OSError, match="No space"):
        while True:
            filler.write(bytes(1 << 20))
            filler.flush()


def test_a_disk_that_another_process_fills_refuses_and_recovers(broker, small_disk):
    if not broker.is_tidelog:
        pytest.skip("Apache Kafka stops when its disk is full")
    # Its log is on that disk as well.
    broker = new_broker(small_disk / "broker", SMALL).start()
    with Connection(broker.address) as connection:
        create_topic(connection, "t")
        stored = 0

        def produce_one():
            nonlocal stored
            code = produce(connection, "t", build_batch([RECORD]), timeout_ms=2000)["ErrorCode"]
            stored += code == Error.NONE
            return code

        for _ in range(50):
            assert produce_one() == Error.NONE
        fill(small_disk / "filler")
        refused = time.monotonic() + 3
        codes = []
        while time.monotonic() < refused:
            codes.append(produce_one())
        assert codes[-1] == Error.KAFKA_STORAGE_ERROR
        assert set(codes) <= {Error.NONE, Error.KAFKA_STORAGE_ERROR, Error.REQUEST_TIMED_OUT}
        # Readers notice nothing.
        batches = parse_batches(fetch(connection, "t", offset=0, partition_max_bytes=4 << 20)["Records"])
        assert [record.value for record in batches[0].records] == [RECORD]
        (small_disk / "filler").unlink()
        recovered = time.monotonic() + 20
        while produce_one() != Error.NONE:
            assert time.monotonic() < recovered
            time.sleep(0.1)
        assert list_offset(connection, "t", -1)["Offset"] >= stored
        assert create_topic(connection, "u")["ErrorCode"] == Error.NONE
    broker.kill()
    broker.start()
    with Connection(broker.address) as connection:
        assert list_offset(connection, "t", -1)["Offset"] >= stored
    broker.stop()


PARTITIONS = 400


def churn(connection, name):
    """Makes a topic and deletes it, which the key-value store has much to write of."""
    assert create_topic(connection, name, partitions=PARTITIONS)["ErrorCode"] == Error.NONE
    assert delete_topic(connection, name)["ErrorCode"] == Error.NONE


def folders(broker, topic):
    return list((broker.data_dir / "topics").glob(f"{topic}-*"))


def within(seconds, holds):
    """Waits until it holds."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_the_key_value_store_outlives_a_disk_without_a_byte(broker, small_disk, tmp_path):
    if not broker.is_tidelog:
        pytest.skip("Apache Kafka stops when its disk is full")
    broker = new_broker(small_disk / "broker", LARGE_JOURNAL)
    broker.log_path = tmp_path / "broker.log"
    broker.start()
    ballast = broker.data_dir / "kv" / "BALLAST"
    assert ballast.exists()
    with Connection(broker.address, timeout_s=60) as connection:
        for topic in ("kept", "gone"):
            assert create_topic(connection, topic)["ErrorCode"] == Error.NONE
            for _ in range(20):
                assert produce(connection, topic, build_batch([RECORD]))["ErrorCode"] == Error.NONE
        assert folders(broker, "gone")
        fill(small_disk / "filler")

        def is_refused():
            return produce(connection, "kept", build_batch([RECORD]))["ErrorCode"] == Error.KAFKA_STORAGE_ERROR

        # What waits for its segment is of the topic that will be deleted, so that the journal has room for the rest.
        while produce(connection, "gone", build_batch([RECORD]))["ErrorCode"] == Error.NONE:
            pass
        assert is_refused()
        # What the store has reserved for its log is used up, and it goes on with its ballast.
        for round_ in range(100):
            if not ballast.exists():
                break
            churn(connection, f"wide-{round_}")
        assert not ballast.exists()
        assert is_refused(), "the ballast is not for records"
        # A topic can be deleted, and its files go.
        assert delete_topic(connection, "gone")["ErrorCode"] == Error.NONE
        assert metadata(connection, "gone")["ErrorCode"] == Error.UNKNOWN_TOPIC_OR_PARTITION
        within(20, lambda: not folders(broker, "gone"))
        # Once more, until nothing at all is left to it: what is asked of it now waits.
        round_ = 0
        while "the key-value store has no room; its writes wait" not in broker.log():
            fill(small_disk / f"filler-{round_}")
            create_topic(connection, f"held-{round_}", partitions=PARTITIONS, timeout_ms=1000)
            round_ += 1
            assert round_ < 100, "the store has room on a full disk"
        assert "the key-value store failed" not in broker.log()
        assert broker.http("/health/ready")[0] == 200
        read = parse_batches(fetch(connection, "kept", offset=0, partition_max_bytes=4 << 20)["Records"])
        assert [record.value for record in read[0].records] == [RECORD]
        for filler in small_disk.glob("filler*"):
            filler.unlink()
        within(20, lambda: not is_refused())
        within(20, ballast.exists)
        # What waited was done, in its turn.
        assert create_topic(connection, "after")["ErrorCode"] == Error.NONE
        assert {p["ErrorCode"] for p in metadata(connection, f"held-{round_ - 1}")["Partitions"]} == {Error.NONE}
        assert list_offset(connection, "kept", -1)["Offset"] == 21
    broker.kill()
    broker.start()
    with Connection(broker.address) as connection:
        assert list_offset(connection, "kept", -1)["Offset"] == 21
        assert metadata(connection, "after")["ErrorCode"] == Error.NONE
        assert metadata(connection, "gone")["ErrorCode"] == Error.UNKNOWN_TOPIC_OR_PARTITION
    broker.stop()
