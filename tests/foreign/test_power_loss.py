"""kill -9 that is a power loss: the broker keeps what it has not synced in its own memory, by sector, and so forgets it.

Everything that was acknowledged under `durability=sync` (records, commits, topics and their removal) must be there after
every restart, in order, once. Without a sync it must not be: that shows that the broker under test does forget.
"""

import collections
import itertools
import os
import threading
import time

import pytest

from harness.broker import new_broker
from test_crash import ConfluentLoad, WireLoad, read_all
from wire import Connection, Disconnected, Error
from wire.calls import commit, committed, create_topic, delete_topic, find_coordinator, metadata

SOAK = "TIDELOG_SOAK" in os.environ
KILLS = 55 if SOAK else 6
KILLS_WITHOUT_A_SYNC = 12
LOAD_S = 1.0
PAUSE_S = 0.002

# Small files, so that journal files are used again, segments end and checkpoints are written all the time.
SMALL = {
    "journal.file.bytes": 1 << 20,
    "journal.files.min": 3,
    "journal.bytes.max": 6 << 20,
    "log.segment.bytes": 1 << 20,
}
FORGETFUL = r"test mode: everything that was not synced is lost"

RETRIED = (
    Error.NOT_LEADER_OR_FOLLOWER, Error.UNKNOWN_TOPIC_OR_PARTITION, Error.COORDINATOR_NOT_AVAILABLE, Error.NOT_COORDINATOR,
    Error.COORDINATOR_LOAD_IN_PROGRESS, Error.REQUEST_TIMED_OUT,
)  # fmt: skip


class ForgetfulBroker:
    """A broker of the fault build; each start has another seed."""

    def __init__(self, home, left_out=None):
        self.broker = new_broker(home, SMALL)
        self.left_out, self.seeds = left_out, itertools.count(1)

    def start(self):
        self.broker.environment = {"TIDELOG_TEST_VOLATILE_STORAGE": str(next(self.seeds))}
        if self.left_out:
            self.broker.environment["TIDELOG_TEST_LEAVE_OUT_SYNC"] = self.left_out
        self.broker.start()


class Paced:
    """A load that leaves something for the others, and for who reads all of it again after each power loss."""

    def value(self):
        time.sleep(PAUSE_S)
        return super().value()


class PacedConfluentLoad(Paced, ConfluentLoad):
    pass


class PacedWireLoad(Paced, WireLoad):
    pass


class LargeLoad(PacedWireLoad):
    """Values that fill journal files and segments."""

    def value(self):
        return super().value() + b"." * 3000


class Steps(threading.Thread):
    """Small decisions, one after the other; `step` does one and returns whether it was acknowledged."""

    def __init__(self, address):
        super().__init__(daemon=True)
        self.address, self.ending, self.failure, self.count = address, threading.Event(), None, 0

    def run(self):
        connection = None
        while not self.ending.is_set():
            try:
                connection = connection or Connection(self.address, timeout_s=5)
                self.step(connection)
                self.count += 1
            except (OSError, Disconnected):
                if connection:
                    connection.close()
                connection = None
                time.sleep(0.02)
            except Exception as error:  # told by finish()
                self.failure = error
                return

    def finish(self):
        self.ending.set()
        self.join(30)
        if self.failure:
            raise self.failure


class Commits(Steps):
    """A group that commits one offset after the other."""

    def __init__(self, address, group, topic):
        super().__init__(address)
        self.group, self.topic, self.acked, self.sent = group, topic, -1, -1

    def step(self, connection):
        self.sent = self.acked + 1 if self.sent == self.acked else self.sent
        code = commit(connection, self.group, self.topic, self.sent)
        if code == Error.NONE:
            self.acked = self.sent
        elif code in RETRIED:
            time.sleep(0.02)
        else:
            raise AssertionError(f"commit: {code}")

    def lost(self, connection):
        acked = self.acked
        find_coordinator(connection, self.group)
        offset, _, _ = committed(connection, self.group, self.topic)
        return [] if acked <= offset <= self.sent else [f"commit {acked} was acknowledged, {offset} is there"]


class TopicChurn(Steps):
    """Topics that are made and, two later, deleted. `there` and `gone` were acknowledged."""

    def __init__(self, address, stem):
        super().__init__(address)
        self.stem, self.there, self.gone = stem, set(), set()

    def step(self, connection):
        name, old = f"{self.stem}-{self.count}", f"{self.stem}-{self.count - 2}"
        code = create_topic(connection, name)["ErrorCode"]
        # One that was made without an answer is there already.
        assert code in (Error.NONE, Error.TOPIC_ALREADY_EXISTS, *RETRIED), code
        if code in RETRIED:
            raise Disconnected
        self.there.add(name)
        if old in self.there:
            self.there.discard(old)
            code = delete_topic(connection, old)["ErrorCode"]
            if code == Error.NONE:
                self.gone.add(old)
        time.sleep(0.02)

    def lost(self, connection):
        there, gone = set(self.there), set(self.gone)

        def exists(name):
            return metadata(connection, name)["ErrorCode"] != Error.UNKNOWN_TOPIC_OR_PARTITION

        # What is deleted by now may be on its way out.
        missing = [name for name in there if not exists(name) and name in self.there]
        back = [name for name in sorted(gone)[-20:] if exists(name)]
        return [f"{name} is lost" for name in missing] + [f"{name} is back" for name in back]


class World:
    """A broker under load, and what it acknowledged."""

    def __init__(self, forgetful, name):
        self.forgetful, self.name = forgetful, name
        self.loads, self.steps = [], []

    @property
    def address(self):
        return self.forgetful.broker.address

    def begin(self):
        with Connection(self.address) as connection:
            assert create_topic(connection, self.name, partitions=3)["ErrorCode"] == Error.NONE
        kinds = [PacedConfluentLoad, PacedWireLoad, LargeLoad]
        self.loads = [kind(self.address, self.name, b"w%d" % p, p) for p, kind in enumerate(kinds)]
        self.steps = [Commits(self.address, self.name, self.name), TopicChurn(self.address, self.name)]
        for thread in self.loads + self.steps:
            thread.start()

    def kill_and_look(self):
        """What of the acknowledged things a power loss took."""
        self.forgetful.broker.kill()
        self.forgetful.start()
        return self.lost()

    def lost(self):
        lost = []
        for load in self.loads:
            acked = dict(load.acked)
            stored = read_all(self.address, self.name, load.partition)
            missing = [v for v, (_, offset) in acked.items() if stored.get(offset) != v]
            lost += [f"{len(missing)} of {len(acked)} records of {load.tag} are not where they were put"] if missing else []
            twice = [v for v, n in collections.Counter(stored.values()).items() if n > 1]
            lost += [f"{load.tag}: {twice[0][:20]} is there twice"] if twice else []
            values = [stored[offset] for offset in sorted(stored)]
            lost += [] if values == sorted(values) else [f"{load.tag} is out of order"]
        with Connection(self.address, timeout_s=10) as connection:
            for steps in self.steps:
                lost += steps.lost(connection)
        return lost

    def finish(self):
        for thread in self.loads + self.steps:
            thread.finish()


@pytest.fixture
def forgetful(tmp_path, broker):
    if not broker.is_tidelog:
        pytest.skip("Apache Kafka cannot be made to forget")
    started = []

    def start(left_out=None):
        started.append(ForgetfulBroker(tmp_path / "forgetful", left_out))
        started[-1].start()
        return started[-1]

    yield start
    for one in started:
        one.broker.discard()


@pytest.mark.timeout(1800 if SOAK else 240)
def test_power_losses_take_nothing_that_was_acknowledged(forgetful, name):
    world = World(forgetful(), name)
    world.begin()
    for number in range(KILLS):
        # Soon after the start, too: recovery is no safe place.
        time.sleep(LOAD_S if number % 3 else LOAD_S / 5)
        assert world.kill_and_look() == [], f"after {number + 1} power losses"
    time.sleep(LOAD_S)
    world.finish()
    assert world.lost() == []
    print({thread.__class__.__name__: thread.count for thread in world.loads + world.steps})
    assert all(len(load.acked) > 20 * KILLS for load in world.loads), "too little done to show anything"
    assert all(steps.count > KILLS for steps in world.steps)
    world.forgetful.broker.stop()
    assert world.forgetful.broker.complaints([FORGETFUL]) == []


# Each is shown in a test of its own crate, under a disk in memory. These show in a broker, too.
SHOWN_BY_A_BROKER = ["JournalGroup"] + (
    ["JournalFileMade", "DataFolders", "IdentityContents", "SegmentRecords", "SegmentNames", "LogFolder"]
    if SOAK else []
)  # fmt: skip


@pytest.mark.timeout(300)
@pytest.mark.parametrize("left_out", SHOWN_BY_A_BROKER)
def test_without_a_sync_a_power_loss_takes_something(forgetful, name, left_out):
    world = World(forgetful(left_out), name)
    world.begin()
    for number in range(KILLS_WITHOUT_A_SYNC):
        time.sleep(LOAD_S)
        try:
            lost = world.kill_and_look()
        except (AssertionError, OSError, RuntimeError, Disconnected) as error:
            # It does not start, or a partition cannot be read.
            lost = [str(error)]
        if lost:
            print(f"{left_out}: {number + 1} power losses: {lost[0][-200:]}")
            return
    pytest.fail(f"{KILLS_WITHOUT_A_SYNC} power losses took nothing")
