"""Another process fills the disk in one step: producers are refused, readers go on, and once there is space again all
goes on without a restart. On a file system of the test's own, so it needs the right to mount one."""

import os
import subprocess
import time
from pathlib import Path

import pytest

from harness.broker import new_broker
from wire import Connection, Error, build_batch, parse_batches
from wire.calls import create_topic, fetch, list_offset, produce

RECORD = b"x" * 50_000
SMALL = {
    "journal.file.bytes": 4 << 20,
    "journal.files.min": 2,
    "journal.bytes.max": 16 << 20,
    "disk.reserve.bytes": 1 << 20,
    "log.segment.bytes": 1 << 20,
}


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 96 MiB."""
    mount = tmp_path / "disk"
    mount.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root may mount")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96m", "tmpfs", mount], check=True)
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
