"""A worker of Kafka Connect in distributed mode, and its REST interface on loopback."""

import json
import subprocess
import time
import urllib.error
import urllib.request

from . import paths
from .broker import die_with_parent, free_ports

START_TIMEOUT_S = 90
# The topics that a worker keeps its own state in. Segments end after half a second, so that a test sees them compacted.
STATE = {"config": "connect-configs", "offset": "connect-offsets", "status": "connect-status"}
STATE_SETTINGS = {"segment.ms": 500, "min.cleanable.dirty.ratio": 0.01, "delete.retention.ms": 1000}


class Refused(Exception):
    """The worker's answer to a request that it would not do."""


class Worker:
    """One worker process; its state is in the broker, so it may end and another go on."""

    def __init__(self, home, broker_address):
        self.home, self.broker_address = home, broker_address
        (self.port,) = free_ports(1)
        self.log_path = home / "connect.log"
        self.process = None

    def _properties(self):
        state = {}
        for part, topic in STATE.items():
            state |= {f"{part}.storage.topic": topic, f"{part}.storage.replication.factor": 1}
            state |= {f"{part}.storage.{name}": value for name, value in STATE_SETTINGS.items()}
        return state | {
            "bootstrap.servers": self.broker_address,
            "group.id": "connect",
            "offset.storage.partitions": 2,
            "status.storage.partitions": 2,
            "key.converter": "org.apache.kafka.connect.storage.StringConverter",
            "value.converter": "org.apache.kafka.connect.storage.StringConverter",
            "offset.flush.interval.ms": 200,
            "scheduled.rebalance.max.delay.ms": 0,
            "plugin.discovery": "service_load",
            "listeners": f"http://127.0.0.1:{self.port}",
        }

    def start(self):
        """Starts the worker and returns once it has read its topics and answers."""
        properties = self.home / "connect.properties"
        properties.write_text("".join(f"{name}={value}\n" for name, value in self._properties().items()))
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                ["java", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-cp", paths.jars("connect"),
                 "org.apache.kafka.connect.cli.ConnectDistributed", str(properties)],
                stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, cwd=self.home, preexec_fn=die_with_parent,
            )  # fmt: skip
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the worker did not start:\n{self.log_tail()}")
            try:
                self.call("GET", "/connectors")
                return self
            except (OSError, Refused):
                time.sleep(0.1)

    def stop(self):
        """SIGTERM: connectors stop, offsets are committed."""
        self.process.terminate()
        self.process.wait(60)

    def discard(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def log_tail(self):
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-40:])

    def call(self, method, path, body=None):
        """One request; what it answers, decoded. Waits out a rebalance of the workers, during which nothing is answered."""
        deadline = time.monotonic() + 30
        while True:
            request = urllib.request.Request(
                f"http://127.0.0.1:{self.port}{path}", method=method, headers={"Content-Type": "application/json"},
                data=None if body is None else json.dumps(body).encode(),
            )  # fmt: skip
            try:
                with urllib.request.urlopen(request, timeout=60) as reply:
                    text = reply.read()
                    return json.loads(text) if text else None
            except urllib.error.HTTPError as error:
                told = error.read().decode()
                if error.code != 409 or time.monotonic() > deadline:
                    raise Refused(f"{error.code} for {method} {path}: {told}") from None
                time.sleep(0.2)
