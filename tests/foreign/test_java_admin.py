"""What only the Java client asks for, beside the scenarios of test_clients.py."""

import pytest

from clients import ClientError, Rec
from clients.base import BEGINNING
from clients.java import Java
from wire import Error, Record, build_batch
from wire.calls import commit, committed, describe_group, find_coordinator, init_producer, produce


@pytest.fixture(scope="module")
def java(broker):
    client = Java(broker.address)
    yield client
    client.close()


def test_cluster(java, broker):
    found = java.daemon.call("describe_cluster")
    assert found["nodes"] == [broker.address] and len(found["cluster"]) == 22 and found["controller"] >= 0


def test_topics_are_described_page_by_page(java, topics, name):
    topics.create(name, partitions=20)
    found = java.daemon.call("describe_topic", name=name)
    assert [p[0] for p in found["partitions"]] == list(range(20))
    assert all(p[1] >= 0 and p[2:] == [1, 1] for p in found["partitions"])
    assert not found["internal"]
    with pytest.raises(ClientError) as caught:
        java.daemon.call("describe_topic", name=name + "-none")
    assert caught.value.code == Error.UNKNOWN_TOPIC_OR_PARTITION


def test_log_directories(java, topic, wire):
    produce(wire, topic, build_batch([bytes(5000)]))
    assert java.daemon.call("log_dirs")[f"{topic}-0"] >= 5000


def test_active_producers(java, topic, wire):
    pid, epoch = init_producer(wire)
    produce(wire, topic, build_batch([b"x"] * 3, producer_id=pid, producer_epoch=epoch, base_sequence=0))
    assert java.daemon.call("describe_producers", topic=topic, partition=0) == [[pid, epoch, 2]]


def test_offsets_by_every_spec(java, topic, wire):
    for stamp in (100, 300, 200):
        produce(wire, topic, build_batch([Record(value=b"x")], timestamp=stamp))

    def offset(spec):
        return java.daemon.call("list_offset", topic=topic, partition=0, spec=str(spec))[:2]

    assert [offset(s) for s in ("earliest", "latest", "max_timestamp", 150)] == [[0, -1], [3, -1], [1, 300], [1, 300]]


def test_lists_are_appended_to_and_settings_removed(java, topic):
    java.daemon.call("append_config", name=topic, key="cleanup.policy", value="delete")
    java.daemon.call("set_config", name=topic, key="retention.ms", value="1000")
    java.daemon.call("delete_config", name=topic, key="retention.ms")
    config = java.topic_config(topic)
    assert (config["cleanup.policy"], config["retention.ms"]) == ("delete", "604800000")


def test_offsets_of_a_group_are_altered_and_deleted(java, topic, wire, name):
    find_coordinator(wire, name)
    produce(wire, topic, build_batch([b"x"] * 5))
    commit(wire, name, topic, 1)
    java.daemon.call("alter_offset", group=name, topic=topic, partition=0, offset=4)
    assert committed(wire, name, topic)[0] == 4
    java.daemon.call("delete_offset", group=name, topic=topic, partition=0)
    assert committed(wire, name, topic)[0] == -1


def test_a_static_member_is_removed_from_outside(java, topic, wire, name):
    member = java.member(name, topic, instance="gone")
    produce(wire, topic, build_batch([b"x"]))
    while not member.received():
        wire.silent_for(0.05)
    with pytest.raises(ClientError) as caught:
        java.daemon.call("alter_offset", group=name, topic=topic, partition=0, offset=0)
    assert caught.value.code == Error.UNKNOWN_MEMBER_ID, "the group is live"
    before = member_ids(wire, name)
    java.daemon.call("remove_member", group=name, instance="gone")
    # The member finds out from its heartbeat and joins anew, under another id.
    for _ in range(200):
        if not before & member_ids(wire, name):
            break
        wire.silent_for(0.05)
    assert not before & member_ids(wire, name)
    member.stop()


def member_ids(wire, group):
    return {m["MemberId"] for m in describe_group(wire, group)["Members"]}


def test_a_large_batch_of_records_keeps_its_order(java, topic):
    records = [Rec(b"%d" % n, timestamp=1000 + n) for n in range(5000)]
    acks = java.produce(topic, records, codec="lz4", idempotent=True)
    assert [a.offset for a in acks] == list(range(5000))
    assert [r.value for r in java.read(topic, BEGINNING, 5000)] == [r.value for r in records]
