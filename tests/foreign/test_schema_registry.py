"""The way in which Confluent's Schema Registry keeps schemas in a compacted topic, done again with the Java client.

The registry itself is in no public package registry. What it does is known: one partition, whose cleanup policy it
checks; one producer without idempotence that waits for each record; one reader that assigns itself the partition, holds all of it in
memory and has caught up once it meets a record without meaning that was just written; deletions are tombstones; one of several
registries is the leader, as member of a group whose protocol is not a consumer's.
"""

import json
import threading
import time

import pytest

from clients import Rec
from clients.base import BEGINNING
from clients.java import Java
from wire import Connection, Error
from wire.calls import LATEST, Member, list_offset

TOPIC = "_schemas"
NOOP = json.dumps({"keytype": "NOOP", "magic": 0}).encode()
SUBJECTS, VERSIONS = 40, 3


@pytest.fixture
def broker(start_broker):
    return start_broker({"log.cleaner.backoff.ms": "200"})


def schema_key(subject, version):
    return json.dumps({"keytype": "SCHEMA", "subject": subject, "version": version, "magic": 1}).encode()


def schema_value(subject, version, number, deleted=False):
    fields = [{"name": f"field{n}", "type": "string", "doc": "d" * 200} for n in range(version + 5)]
    schema = json.dumps({"type": "record", "name": subject.replace("-", "_"), "fields": fields})
    return json.dumps({"subject": subject, "version": version, "id": number, "schema": schema, "deleted": deleted}).encode()


def config_key(subject):
    return json.dumps({"keytype": "CONFIG", "subject": subject, "magic": 0}).encode()


class Registry:
    """One registry process's view of the topic."""

    def __init__(self, address):
        self.java = Java(address)
        self.content, self.read_to, self.count = {}, -1, 0
        self.changed, self.ending = threading.Condition(), threading.Event()
        if TOPIC not in self.java.list_topics():
            # What its documentation tells operators to set, and segments short enough for a test.
            configs = {"cleanup.policy": "compact", "segment.ms": 500, "min.cleanable.dirty.ratio": 0.01, "delete.retention.ms": 500}
            self.java.create_topic(TOPIC, 1, 1, configs)
        assert self.java.topic_config(TOPIC)["cleanup.policy"] == "compact", "it would refuse to start"
        assert len(self.java.daemon.call("describe_topic", name=TOPIC)["partitions"]) == 1, "it would refuse to start"
        self.thread = threading.Thread(target=self._follow, daemon=True)
        self.thread.start()
        self.catch_up()

    def _follow(self):
        with self.java.reader(TOPIC, BEGINNING, reset="earliest") as reader:
            while not self.ending.is_set():
                records = reader.poll(500, 0.1)
                with self.changed:
                    for record in records:
                        assert record.offset > self.read_to, "in order, once"
                        self.read_to, self.count = record.offset, self.count + 1
                        if record.value is None:
                            self.content.pop(record.key, None)
                        else:
                            self.content[record.key] = record.value
                    self.changed.notify_all()

    def catch_up(self):
        self.put(NOOP, None)

    def put(self, key, value):
        """Writes one record and waits until it was read back."""
        (ack,) = self.java.produce(TOPIC, [Rec(key=key, value=value)])
        with self.changed:
            assert self.changed.wait_for(lambda: self.read_to >= ack.offset, 30), f"{self.read_to} was read, {ack.offset} written"

    def close(self):
        self.ending.set()
        self.thread.join(20)
        self.java.close()


def end_of(broker):
    with Connection(broker.address) as wire:
        return list_offset(wire, TOPIC, LATEST)["Offset"]


@pytest.mark.timeout(240)
def test_schemas_survive_compaction_and_restarts(broker):
    registry, wanted, number = Registry(broker.address), {}, 0

    def put(key, value):
        registry.put(key, value)
        wanted[key] = value
        if value is None:
            del wanted[key]

    for subject in (f"subject-{n}-value" for n in range(SUBJECTS)):
        for version in range(1, VERSIONS + 1):
            number += 1
            put(schema_key(subject, version), schema_value(subject, version, number))
        put(config_key(subject), b'{"compatibilityLevel":"FULL"}')
    # First deleted softly, which keeps the record, then for good, which is a tombstone.
    for n in range(0, SUBJECTS, 4):
        for version in range(1, VERSIONS + 1):
            put(schema_key(f"subject-{n}-value", version), schema_value(f"subject-{n}-value", version, number, deleted=True))
            put(schema_key(f"subject-{n}-value", version), None)
    for level in ("NONE", "BACKWARD"):
        for n in range(SUBJECTS):
            put(config_key(f"subject-{n}-value"), json.dumps({"compatibilityLevel": level}).encode())
    assert registry.content == wanted
    registry.close()

    # Registries that come later read less, and know the same.
    for restart in (None, broker.stop, broker.kill):
        if restart:
            restart()
            broker.start()
        deadline = time.monotonic() + 40
        while True:
            registry = Registry(broker.address)
            assert registry.content == wanted
            read, end = registry.count, end_of(broker)
            registry.close()
            # Everything but the newest of each key, the tombstones too, and what the active segment still holds.
            if read <= len(wanted) + 20:
                break
            assert time.monotonic() < deadline, f"{read} of {end} records are still there, for {len(wanted)} keys"
            time.sleep(0.5)
    print(f"read {read} of {end} records for {len(wanted)} keys")
    broker.stop()


def test_registries_choose_a_leader(broker):
    """Their protocol type is "sr"; what members say of themselves and are told is theirs alone."""

    def identity(host):
        return json.dumps({"version": 1, "host": host, "port": 8081, "master_eligibility": True}).encode()

    def registry(host):
        return Member(broker.address, "schema-registry", protocols=(("v0", identity(host)),), protocol_type="sr")

    with registry("one") as first, registry("two") as second:
        assert [m["Metadata"] for m in first.join()["Members"]] == [identity("one")]
        told = json.dumps({"error": 0, "master": first.member_id, "master_identity": "one"}).encode()
        assert first.sync({first.member_id: told})["Assignment"] == told
        second.join_once()
        second.send_join()
        # The two have connections of their own: the heartbeat may be there first.
        deadline = time.monotonic() + 10
        while (told_first := first.heartbeat()) == Error.NONE and time.monotonic() < deadline:
            time.sleep(0.05)
        assert told_first == Error.REBALANCE_IN_PROGRESS
        answer = first.join()
        assert {m["Metadata"] for m in answer["Members"]} == {identity("one"), identity("two")}
        assert second.receive_join()["ErrorCode"] == Error.NONE
        second.send_sync()
        first.sync({first.member_id: told, second.member_id: told})
        answer = second.connection.receive()[1]
        assert (answer["Assignment"], answer["ProtocolType"], answer["ProtocolName"]) == (told, "sr", "v0")
    broker.stop()
