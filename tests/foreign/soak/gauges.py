"""What a broker process takes: memory, open files, threads, sampled beside the load."""

import json
import os
import statistics
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

MIB = 1 << 20


@dataclass
class Sample:
    """One look at the process. Memory in bytes; `allocated` is what the program asked for, `resident` with what the allocator
    keeps. Sockets are as many as clients hold; `files` are the other descriptors."""

    seconds: float
    rss: int
    allocated: int
    resident: int
    sockets: int
    files: int
    threads: int


def _link(descriptor):
    """What a descriptor is open on; nothing once it is closed."""
    try:
        return os.readlink(descriptor)
    except FileNotFoundError:
        return ""


def sample(broker, seconds=0.0):
    """Looks at a Tidelog process now."""
    process = Path(f"/proc/{broker.process.pid}")
    status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
    metrics = dict(line.rsplit(" ", 1) for line in broker.http("/metrics")[1].splitlines() if line and line[0] != "#")
    links = list(map(_link, (process / "fd").iterdir()))
    sockets = sum(link.startswith("socket:") for link in links)
    return Sample(
        seconds, int(status["VmRSS"].split()[0]) * 1024, int(float(metrics["tidelog_memory_allocated_bytes"])),
        int(float(metrics["tidelog_memory_resident_bytes"])), sockets, len(links) - sockets, int(status["Threads"]),
    )  # fmt: skip


class Gauges(threading.Thread):
    """Looks at the process once a second until ended."""

    def __init__(self, broker):
        super().__init__(daemon=True)
        self.broker, self.samples, self.ending, self.failure = broker, [], threading.Event(), None

    def run(self):
        begun = time.monotonic()
        while not self.ending.wait(1.0):
            try:
                self.samples.append(sample(self.broker, time.monotonic() - begun))
            except TimeoutError:
                pass  # A busy machine; the next look comes.
            except Exception as error:
                self.failure = error
                return

    def finish(self):
        """Ends, and leaves the samples as lines of JSON in TIDELOG_TEST_LOGS, where that is set."""
        self.ending.set()
        self.join(10)
        if kept := os.environ.get("TIDELOG_TEST_LOGS"):
            lines = (json.dumps(asdict(one)) + "\n" for one in self.samples)
            (Path(kept) / "gauges.jsonl").write_text("".join(lines))
        if self.failure:
            raise self.failure


def growth(samples, name):
    """(median, growth) of one gauge over the samples: the growth is the median slope between pairs of samples half the time apart,
    times the time, so that neither peaks nor a single step make it."""
    half = len(samples) // 2
    pairs = zip(samples[:half], samples[half:])
    slope = statistics.median((getattr(b, name) - getattr(a, name)) / (b.seconds - a.seconds) for a, b in pairs)
    return statistics.median(getattr(s, name) for s in samples), slope * (samples[-1].seconds - samples[0].seconds)
