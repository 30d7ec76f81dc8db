"""One broker process on ephemeral loopback ports, with a data directory and a log of its own.

`TIDELOG_TEST_BROKER=kafka` puts Apache Kafka in Tidelog's place; tests cannot tell which one they talk to, except
through `broker.is_tidelog`, which is for what only one of them has (its HTTP listener, its log).
"""

import base64
import ctypes
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path

from . import paths

START_TIMEOUT_S = 120
STOP_TIMEOUT_S = 60

# Kafka's defaults but for what makes a test wait, on both brokers alike.
COMMON = {
    "group.initial.rebalance.delay.ms": "100",
    "offsets.topic.num.partitions": "5",
}


def _environment():
    """Ours without the variables that a broker would read as settings, those of the tests themselves among them."""
    return {name: value for name, value in os.environ.items() if not name.startswith("TIDELOG_")} | {"RUST_BACKTRACE": "1"}


def die_with_parent():
    """Runs in the new process: a test run that crashes must not leave its brokers behind."""
    set_parent_death_signal = 1
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)


def free_ports(count):
    """Ports that were free a moment ago, all different."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]
    finally:
        for s in sockets:
            s.close()


class Broker:
    """A broker process; subclasses know how one kind is started and asked whether it is ready."""

    is_tidelog = False

    def __init__(self, home, overrides=None, listeners=None):
        """`listeners` maps listener names to (bind address, advertised host); PLAINTEXT alone when left out."""
        self.home = Path(home)
        self.home.mkdir(parents=True, exist_ok=True)
        self.data_dir = self.home / "data"
        self.log_path = self.home / "broker.log"
        self.settings = COMMON | (overrides or {})
        names = listeners or {"PLAINTEXT": ("127.0.0.1", "127.0.0.1")}
        ports = free_ports(len(names) + 2)
        self.bound = {name: f"{bind}:{port}" for (name, (bind, _)), port in zip(names.items(), ports, strict=False)}
        self.advertised = {name: f"{host}:{port}" for (name, (_, host)), port in zip(names.items(), ports, strict=False)}
        self.http_port, self.controller_port = ports[-2:]
        self.process = None
        # Another one than the binary under test, where there is such a thing.
        self.binary = None
        # Variables of the process, on top of what all have.
        self.environment = {}

    @property
    def address(self):
        """host:port of the first listener, as a client's bootstrap.servers wants it."""
        return next(iter(self.bound.values()))

    def spawn(self):
        """Starts the process and does not wait for it."""
        command = self._command()
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, cwd=self.home,
                env=_environment() | self.environment, preexec_fn=die_with_parent,
            )  # fmt: skip

    def start(self):
        """Starts the process and returns once it answers."""
        self.spawn()
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._ready():
            if self.process.poll() is not None:
                raise RuntimeError(f"broker exited with {self.process.returncode} at start:\n{self.log_tail()}")
            if time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"broker not ready after {START_TIMEOUT_S} s:\n{self.log_tail()}")
            time.sleep(0.05)
        return self

    def stop(self):
        """SIGTERM, as an operator stops it; the exit code must be 0."""
        if self.process is None or self.process.poll() is not None:
            raise RuntimeError(f"broker was gone before it was stopped:\n{self.log_tail()}")
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise RuntimeError(f"broker did not stop within {STOP_TIMEOUT_S} s of SIGTERM:\n{self.log_tail()}") from None
        if code != self.exit_code_of_sigterm:
            raise RuntimeError(f"broker exited with {code} on SIGTERM:\n{self.log_tail()}")

    def kill(self):
        """kill -9: nothing is flushed, nobody is told."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def discard(self):
        """Ends what still runs and removes the data."""
        self.kill()
        shutil.rmtree(self.data_dir, ignore_errors=True)

    def log(self):
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def log_tail(self, lines=40):
        return "\n".join(self.log().splitlines()[-lines:])

    def complaints(self, expected=()):
        """Log lines of level WARN or ERROR, and panics, that no pattern of `expected` allows."""
        return []

    def _command(self):
        raise NotImplementedError

    def _ready(self):
        raise NotImplementedError


class TidelogBroker(Broker):
    """The binary under test."""

    is_tidelog = True
    exit_code_of_sigterm = 0
    _complaint = re.compile(r"^\S{0,40}\s*(?:WARN|ERROR)\b|^thread '.*panicked at|\"level\":\"(?:WARN|ERROR)\"")

    def _command(self):
        settings = {
            "listeners": ",".join(f"{name}://{address}" for name, address in self.bound.items()),
            "advertised.listeners": ",".join(f"{name}://{address}" for name, address in self.advertised.items()),
            "http.listeners": f"http://127.0.0.1:{self.http_port}",
        } | self.settings
        if set(self.bound) != {"PLAINTEXT"}:
            settings["listener.security.protocol.map"] = ",".join(f"{name}:PLAINTEXT" for name in self.bound)
        command = [str(self.binary or paths.tidelog_binary()), "serve", "--data-dir", str(self.data_dir)]
        for name, value in settings.items():
            command += ["--set", f"{name}={value}"]
        return command

    def http(self, path, timeout_s=2):
        """(status, body) of a GET on the HTTP listener."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}{path}", timeout=timeout_s) as reply:
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def _ready(self):
        try:
            return self.http("/health/ready")[0] == 200
        except OSError:
            return False

    def complaints(self, expected=()):
        colour = re.compile(r"\x1b\[[0-9;]*m")
        lines = (colour.sub("", line) for line in self.log().splitlines())
        return [line for line in lines if self._complaint.search(line) and not any(re.search(e, line) for e in expected)]


class KafkaBroker(Broker):
    """Apache Kafka, one process that is broker and controller."""

    # The JVM ends with 128 + SIGTERM after its shutdown hooks ran.
    exit_code_of_sigterm = 143

    _jvm = ["java", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"]

    def __init__(self, home, overrides=None, listeners=None):
        super().__init__(home, overrides, listeners)
        self.cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")

    def join(self, first):
        """Makes this a broker of the cluster of another, which is its controller."""
        self.cluster, self.controller_port = first.cluster, first.controller_port
        self.settings |= {"process.roles": "broker", "listeners": f"PLAINTEXT://{self.address}"}

    def _properties(self):
        listeners = self.bound | {"CONTROLLER": f"127.0.0.1:{self.controller_port}"}
        return {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@127.0.0.1:{self.controller_port}",
            "controller.listener.names": "CONTROLLER",
            "listeners": ",".join(f"{name}://{address}" for name, address in listeners.items()),
            "advertised.listeners": ",".join(f"{name}://{address}" for name, address in self.advertised.items()),
            "listener.security.protocol.map": ",".join(f"{name}:PLAINTEXT" for name in listeners),
            "inter.broker.listener.name": next(iter(self.bound)),
            "log.dirs": str(self.data_dir),
            "offsets.topic.replication.factor": "1",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            "log.cleaner.dedupe.buffer.size": "16777216",
        } | self.settings

    def _command(self):
        properties = self.home / "server.properties"
        properties.write_text("".join(f"{name}={value}\n" for name, value in self._properties().items()))
        java = [*self._jvm, "-cp", paths.jars("server")]
        if not (self.data_dir / "meta.properties").exists():
            subprocess.run(
                [*java, "kafka.tools.StorageTool", "format", "-t", self.cluster, "-c", str(properties)],
                check=True, capture_output=True,
            )  # fmt: skip
        return [*java, "kafka.Kafka", str(properties)]

    def _ready(self):
        from wire import Connection, Disconnected

        try:
            with Connection(self.address, timeout_s=2) as connection:
                return bool(connection.call("Metadata", 12, Topics=[])["Brokers"])
        except (OSError, Disconnected):
            return False


def new_broker(home, overrides=None, listeners=None):
    """A broker of the kind under test, not started."""
    kind = {"tidelog": TidelogBroker, "kafka": KafkaBroker}[os.environ.get("TIDELOG_TEST_BROKER", "tidelog")]
    return kind(home, overrides, listeners)
