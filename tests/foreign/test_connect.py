"""Kafka Connect keeps all that it knows in three compacted topics: a distributed worker, a source, a sink, with restarts of
the worker and of the broker in between while those topics are compacted."""

import time

import pytest

from harness.connect import STATE, Refused, Worker
from wire import Connection, Error, parse_batches
from wire.calls import LATEST, describe_configs, fetch, list_offset

SETTINGS = {"log.cleaner.backoff.ms": "200"}


@pytest.fixture
def broker(start_broker):
    return start_broker(SETTINGS)


@pytest.fixture
def worker(broker, tmp_path):
    worker = Worker(tmp_path, broker.address).start()
    yield worker
    worker.discard()


def wait_until(holds, what, worker, timeout_s=60):
    deadline = time.monotonic() + timeout_s
    while not (value := holds()):
        assert time.monotonic() < deadline, f"{what}\n{worker.log_tail()}"
        time.sleep(0.2)
    return value


class Lines:
    """The file that the source reads and the one that the sink writes."""

    def __init__(self, folder, worker):
        self.worker, self.source, self.sink = worker, folder / "in.txt", folder / "out.txt"
        self.written = []

    def write(self, count):
        new = [f"line {len(self.written) + n}" for n in range(count)]
        with self.source.open("a") as file:
            file.writelines(f"{line}\n" for line in new)
        self.written += new

    def arrived(self):
        return self.sink.read_text().splitlines() if self.sink.exists() else []

    def wait(self):
        """Until the sink has written all lines, in order. Connect promises "at least once": a task that ends may leave some of
        its last ones to be done again."""
        wait_until(lambda: set(self.arrived()) == set(self.written), "not all lines arrived", self.worker)
        assert list(dict.fromkeys(self.arrived())) == self.written


def configure(worker, lines, topic, **more):
    common = {"topic": topic, "tasks.max": "1"} | more
    worker.call("PUT", "/connectors/source/config", {"connector.class": "FileStreamSource", "file": str(lines.source)} | common)
    common["topics"] = common.pop("topic")
    worker.call("PUT", "/connectors/sink/config", {"connector.class": "FileStreamSink", "file": str(lines.sink)} | common)


def is_running(worker, connector):
    status = worker.call("GET", f"/connectors/{connector}/status")
    return status["connector"]["state"] == "RUNNING" and [t["state"] for t in status["tasks"]] == ["RUNNING"]


def state(broker):
    """{topic: (records there, records ever written)} of the worker's own topics."""
    found = {}
    with Connection(broker.address, timeout_s=30) as wire:
        for part, topic in STATE.items():
            there = ever = 0
            for partition in range(1 if part == "config" else 2):
                end, offset = list_offset(wire, topic, LATEST, partition=partition)["Offset"], 0
                while offset < end:
                    data = fetch(wire, topic, offset, partition=partition)
                    assert data["ErrorCode"] == Error.NONE, data
                    batches = parse_batches(data["Records"])
                    there += sum(len(batch.records) for batch in batches)
                    offset = batches[-1].last_offset + 1
                ever += end
            found[topic] = (there, ever)
    return found


def read_position(worker):
    (one,) = worker.call("GET", "/connectors/source/offsets")["offsets"]
    return one["offset"]["position"]


@pytest.mark.timeout(300)
def test_a_worker_its_connectors_and_their_offsets_survive_restarts(broker, worker, tmp_path):
    lines = Lines(tmp_path, worker)
    lines.write(100)
    configure(worker, lines, "lines")
    lines.wait()
    with Connection(broker.address) as wire:
        for topic in STATE.values():
            assert describe_configs(wire, 2, topic)[1]["cleanup.policy"]["Value"] == "compact"

    # Every key of the three topics is written several times: configurations, wanted states, offsets, status.
    for n in range(4):
        configure(worker, lines, "lines", **{"batch.size": str(100 + n)} if n else {})
        for connector in ("source", "sink"):
            worker.call("PUT", f"/connectors/{connector}/pause")
            worker.call("PUT", f"/connectors/{connector}/resume")
        lines.write(20)
        lines.wait()
        time.sleep(0.6)
    compacted = wait_until(
        lambda: (found := state(broker)) and all(there < ever for there, ever in found.values()) and found,
        "a topic was not compacted", worker,
    )  # fmt: skip
    print("records there, ever written:", compacted)

    # A new worker knows everything from the compacted topics.
    worker.stop()
    lines.write(50)
    worker.start()
    assert worker.call("GET", "/connectors") and sorted(worker.call("GET", "/connectors")) == ["sink", "source"]
    assert worker.call("GET", "/connectors/source/config")["batch.size"] == "103"
    lines.wait()
    wait_until(lambda: read_position(worker) == lines.source.stat().st_size, "the source's offset", worker)

    # The broker goes away under a worker at work.
    broker.stop()
    lines.write(50)
    broker.start()
    lines.wait()
    wait_until(lambda: is_running(worker, "source") and is_running(worker, "sink"), "connectors do not run", worker)

    # What was deleted stays so, and what was reset is read again, by a broker and a worker that are both new.
    worker.call("DELETE", "/connectors/sink")
    worker.call("PUT", "/connectors/source/stop")
    wait_until(lambda: worker.call("GET", "/connectors/source/status")["connector"]["state"] == "STOPPED", "stop", worker)
    worker.call("DELETE", "/connectors/source/offsets")
    worker.stop()
    broker.kill()
    broker.start()
    worker.start()
    assert worker.call("GET", "/connectors") == ["source"]
    with pytest.raises(Refused, match="404"):
        worker.call("GET", "/connectors/sink/status")
    assert worker.call("GET", "/connectors/source/offsets") == {"offsets": []}
    worker.stop()
    broker.stop()
