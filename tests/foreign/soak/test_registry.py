"""A real schema registry that keeps everything in the log: Apicurio Registry with its "kafkasql" storage, through the
interface that it shares with Confluent's. Its topics are kept whole; what compaction does to a registry is in
test_schema_registry.py."""

import json
import os
import subprocess
import time
import urllib.error
import urllib.request

import pytest

from harness import paths
from harness.broker import die_with_parent, free_ports

HOME = paths.CACHE / "java" / "registry"
SUBJECTS, VERSIONS = 30, 3


class Registry:
    """One registry process. All that it knows between two starts is in the broker."""

    def __init__(self, java, home, broker_address):
        self.java, self.home, self.broker_address = java, home, broker_address
        (self.port,) = free_ports(1)
        self.log_path = home / "registry.log"

    def start(self):
        settings = {
            "APICURIO_STORAGE_KIND": "kafkasql", "APICURIO_KAFKASQL_BOOTSTRAP_SERVERS": self.broker_address,
            "QUARKUS_HTTP_HOST": "127.0.0.1", "QUARKUS_HTTP_PORT": str(self.port),
        }  # fmt: skip
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [self.java, "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-jar", HOME / "quarkus-run.jar"],
                env=os.environ | settings, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=self.home,
                preexec_fn=die_with_parent,
            )  # fmt: skip
        deadline = time.monotonic() + 120
        while True:
            try:
                self.call("GET", "/subjects")
                return
            except OSError:
                gone = self.process.poll() is not None or time.monotonic() > deadline
                assert not gone, f"the registry did not start:\n{self.log_path.read_text()[-4000:]}"
                time.sleep(0.3)

    def stop(self):
        self.process.terminate()
        self.process.wait(60)

    def call(self, method, path, body=None):
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/apis/ccompat/v7{path}", method=method,
            headers={"Content-Type": "application/vnd.schemaregistry.v1+json"},
            data=None if body is None else json.dumps(body).encode(),
        )  # fmt: skip
        with urllib.request.urlopen(request, timeout=60) as reply:
            return json.loads(reply.read())

    def register(self, subject, version):
        fields = [{"name": f"f{n}", "type": "string", "default": ""} for n in range(version)]
        schema = json.dumps({"type": "record", "name": subject.replace("-", "_"), "fields": fields})
        return self.call("POST", f"/subjects/{subject}/versions", {"schema": schema})["id"]

    def everything(self):
        """All versions of all subjects, with their ids."""
        found = {}
        for subject in self.call("GET", "/subjects"):
            for version in self.call("GET", f"/subjects/{subject}/versions"):
                one = self.call("GET", f"/subjects/{subject}/versions/{version}")
                found[subject, version] = (one["id"], json.loads(one["schema"]))
        return found

    def knows(self, known):
        """Waits until it says this: it answers before it has read all of its topic."""
        deadline = time.monotonic() + 120
        while True:
            try:
                found = self.everything()
            except urllib.error.HTTPError as error:
                found = error
            if found == known:
                return
            assert time.monotonic() < deadline, found
            time.sleep(0.3)


@pytest.mark.timeout(900)
def test_a_registry_reads_back_what_it_was_told(start_broker, tmp_path):
    if "TIDELOG_TEST_SOAK_SECONDS" not in os.environ or not HOME.is_dir():
        pytest.skip("a long form: `scripts/deps.sh soak` installs the registry")
    java = paths.java(at_least=21)
    if java is None:
        pytest.skip("Apicurio Registry needs Java 21")
    broker = start_broker()
    registry = Registry(java, tmp_path, broker.address)
    registry.start()
    try:
        for n in range(SUBJECTS):
            for version in range(1, VERSIONS + 1):
                registry.register(f"subject-{n}", version)
        for n in range(0, SUBJECTS, 5):
            registry.call("DELETE", f"/subjects/subject-{n}")
            registry.call("DELETE", f"/subjects/subject-{n}?permanent=true")
        known = registry.everything()
        assert len(known) == (SUBJECTS - SUBJECTS // 5) * VERSIONS

        registry.stop()
        registry.start()
        registry.knows(known)

        # Under the registry's feet.
        broker.stop()
        broker.start()
        registry.register("later", 1)
        known = registry.everything()
        assert ("later", 1) in known

        registry.stop()
        broker.kill()
        broker.start()
        registry.start()
        registry.knows(known)
        registry.register("last", 1)
    finally:
        registry.stop()
    broker.stop()
