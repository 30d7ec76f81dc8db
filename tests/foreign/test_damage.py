"""A damaged data directory under the whole program: whether it starts, what clients hear of the damaged partition and
of the others, and what `tidelog storage check` says.

The first table is that of docs/DISK_FORMAT.md ("File of the directory"); what needs no broker process is shown next to
the code, in storage/src/manager/tests.
"""

import hashlib
import json
import shutil
import subprocess
import time

import pytest

from harness import paths
from harness.broker import new_broker
from harness.topics import Topics
from wire import Connection, Error, build_batch, parse_batches
from wire.calls import fetch, list_offset, produce

SETTINGS = {"journal.file.bytes": 1 << 20, "log.segment.bytes": 1 << 20}
RECORD = b"r" * 20_000
BATCHES = 150


def cut(path):
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def flip(path):
    content = bytearray(path.read_bytes())
    content[FLIPPED.get(path.name, 100)] ^= 1
    path.write_bytes(content)


def empty(path):
    path.write_bytes(b"")


def delete(path):
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


DAMAGES = {"truncated": cut, "bit flipped": flip, "emptied": empty, "deleted": delete}

# In the digits of directory.id.
FLIPPED = {"meta.properties": 60, ".lock": 0}

METADATA_ENTRIES = "topics/__cluster_metadata-0.*/*.entries"

# File, damage, what a start does after a clean stop and after kill -9, what the check says after the clean stop.
TABLE = [
    ("`meta.properties`", "meta.properties", "truncated", "no start", "no start", "no-start"),
    ("`meta.properties`", "meta.properties", "bit flipped", "no start", "no start", "no-start"),
    ("`meta.properties`", "meta.properties", "emptied", "no start", "no start", "no-start"),
    ("`meta.properties`", "meta.properties", "deleted", "no start", "no start", "no-start"),
    ("`.lock`", ".lock", "bit flipped", "whole", "whole", "nothing"),
    ("`.lock`", ".lock", "emptied", "whole", "whole", "nothing"),
    ("`.lock`", ".lock", "deleted", "whole", "whole", "nothing"),
    ("all of `journal`", "journal", "deleted", "reported", "no start", "reported"),
    ("all of `kv`", "kv", "deleted", "no start", "no start", "no-start"),
    ("all of `topics`", "topics", "deleted", "no start", "no start", "no-start"),
    ("side file of the metadata log", METADATA_ENTRIES, "truncated", "no start", "no start", "no-start"),
    ("side file of the metadata log", METADATA_ENTRIES, "bit flipped", "no start", "no start", "no-start"),
    ("side file of the metadata log", METADATA_ENTRIES, "emptied", "no start", "no start", "no-start"),
    ("side file of the metadata log", METADATA_ENTRIES, "deleted", "no start", "no start", "no-start"),
]


@pytest.fixture(autouse=True)
def tidelog_only(broker):
    if not broker.is_tidelog:
        pytest.skip("about Tidelog's files")


def check(data_dir):
    """Exit code and what was found."""
    command = [str(paths.tidelog_binary()), "storage", "check", "--data-dir", str(data_dir), "--output", "json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return done.returncode, json.loads(done.stdout) if done.stdout else done.stderr


def tree(folder):
    """Every file with size, time of its last change and content."""
    return {
        path.relative_to(folder): (path.stat().st_size, path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).digest())
        for path in folder.rglob("*")
        if path.is_file()
    }


def fill(broker, offsets):
    with Connection(broker.address) as connection:
        for offset in offsets:
            for partition in (0, 1):
                assert produce(connection, "t", build_batch([RECORD]), partition=partition)["BaseOffset"] == offset


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """The same directory after kill -9 and after a clean stop: a topic with two partitions, several segments each, and a
    metadata log that has files. Before the kill most of it is in checkpoints, so that the journal does not have it."""
    home = tmp_path_factory.mktemp("damage")
    broker = new_broker(home / "broker", SETTINGS).start()
    with Topics(broker.address) as topics:
        topics.create("t", partitions=2)
        topics.create("many", partitions=700)
    fill(broker, range(BATCHES - 5))
    broker.stop()
    broker.start()
    fill(broker, range(BATCHES - 5, BATCHES))
    # The journal says after half a second of silence that what it has is durable.
    time.sleep(1)
    broker.kill()
    shutil.copytree(broker.data_dir, home / "killed")
    broker.start()
    broker.stop()
    shutil.copytree(broker.data_dir, home / "stopped")
    broker.discard()
    return {"killed": home / "killed", "stopped": home / "stopped"}


def restore(image, home):
    broker = new_broker(home, SETTINGS)
    shutil.copytree(image, broker.data_dir)
    return broker


def start(broker):
    """What a start does: "no start", with one line that says why; else "reported" or "whole"."""
    broker.spawn()
    deadline = time.monotonic() + 60
    while not broker._ready():
        if broker.process.poll() is not None:
            assert broker.process.returncode == 1, broker.log_tail()
            last = broker.log().splitlines()[-1]
            assert last.startswith("tidelog: "), last
            assert "panicked" not in broker.log()
            return "no start", last
        assert time.monotonic() < deadline, broker.log_tail()
        time.sleep(0.05)
    with Connection(broker.address) as connection:
        for partition in (0, 1):
            assert list_offset(connection, "t", -1, partition=partition)["Offset"] == BATCHES
            assert produce(connection, "t", build_batch([RECORD]), partition=partition)["BaseOffset"] == BATCHES
    reported = "ERROR" in broker.log()
    broker.kill()
    return ("reported" if reported else "whole"), broker.log()


def words(report):
    return sorted({finding["outcome"] for finding in report["findings"]})


@pytest.mark.timeout(300)
@pytest.mark.parametrize("row", TABLE, ids=[f"{file}-{damage}" for file, _, damage, *_ in TABLE])
def test_a_start_over_damage(images, tmp_path, row):
    name, pattern, damage, after_stop, after_kill, said = row
    document = (paths.REPO / "docs" / "DISK_FORMAT.md").read_text()
    assert f"| {name} | {damage} | {after_stop} | {after_kill} | {said} |" in document
    for image, expected in (("stopped", after_stop), ("killed", after_kill)):
        broker = restore(images[image], tmp_path / image)
        # The last one: of the metadata log the active segment.
        DAMAGES[damage](sorted(broker.data_dir.glob(pattern))[-1])
        before = tree(broker.data_dir)
        code, report = check(broker.data_dir)
        assert tree(broker.data_dir) == before, "the check changed something"
        if image == "stopped":
            assert (code, said in words(report)) == ((0, False) if said == "nothing" else (1, True)), report
        assert (code == 0) == (expected == "whole"), report
        came, text = start(broker)
        assert came == expected, text
        # A refused start changes nothing that would let the next one go on.
        if came == "no start":
            assert start(broker)[0] == "no start"
        broker.discard()


@pytest.mark.timeout(120)
def test_a_damaged_partition_is_refused_by_name_and_the_others_go_on(images, tmp_path):
    for damage in DAMAGES.values():
        for when in ("at start", "while running"):
            broker = restore(images["stopped"], tmp_path / "broker")
            log = sorted(broker.data_dir.glob("topics/t-0.*/*.log"))[0 if when == "while running" else -1]
            FLIPPED[log.name] = 6  # in the base offset, which no checksum of the batch covers
            if when == "at start":
                if damage is flip:
                    log = log.with_name(sorted(path.name for path in log.parent.glob("*.entries"))[-1])
                damage(log)
            broker.start()
            with Connection(broker.address) as connection:
                if when == "while running":
                    damage(log)
                # In what is lost of the first segment, or anywhere in the last.
                offset = BATCHES - 1 if when == "at start" else 0 if damage is flip else 40
                answer = fetch(connection, "t", offset=offset, partition_max_bytes=1 << 14)
                assert answer["ErrorCode"] == Error.KAFKA_STORAGE_ERROR, (damage, when, answer["ErrorCode"])
                assert produce(connection, "t", build_batch([RECORD]))["ErrorCode"] == Error.KAFKA_STORAGE_ERROR
                # The other partition notices nothing.
                assert produce(connection, "t", build_batch([RECORD]), partition=1)["BaseOffset"] == BATCHES
                batches = parse_batches(fetch(connection, "t", offset=0, partition=1)["Records"])
                assert batches[0].records[0].value == RECORD
            stopped = [line for line in broker.log().splitlines() if "log stopped" in line]
            assert stopped and "topics/t-0." in stopped[0] and " at byte " in stopped[0], broker.log_tail()
            broker.discard()


@pytest.mark.timeout(120)
def test_the_check_of_a_directory_that_is_in_order(images, tmp_path):
    for image in ("stopped", "killed"):
        broker = restore(images[image], tmp_path / image)
        before = tree(broker.data_dir)
        code, report = check(broker.data_dir)
        assert (code, report["findings"]) == (0, [])
        assert report["clean_stop"] == (image == "stopped")
        assert report["batches"] >= 2 * BATCHES and report["logs"] == 703
        assert tree(broker.data_dir) == before
    broker.start()
    code, message = check(broker.data_dir)
    assert code == 2 and f"in use by process {broker.process.pid}" in message
    broker.kill()
    assert check(tmp_path / "nowhere")[0] == 2


@pytest.mark.timeout(120)
def test_a_store_that_lost_its_log_while_running_is_refused_at_the_next_start(images, tmp_path):
    """The open file goes on, and with the process all that was in it: votes and checkpoints."""
    broker = restore(images["stopped"], tmp_path / "broker").start()
    for log in broker.data_dir.glob("kv/*.log"):
        log.unlink()
    with Topics(broker.address) as topics:
        topics.create("later")
        assert produce(topics.connection, "later", build_batch([RECORD]))["ErrorCode"] == Error.NONE
    time.sleep(1)
    broker.kill()
    came, line = start(broker)
    assert came == "no start" and "kv" in line, line
    assert "no-start" in words(check(broker.data_dir)[1])
    broker.discard()
