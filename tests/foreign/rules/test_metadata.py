"""Rules 31 to 34 of the protocol reference: topics, their names, ids and settings."""

import time
import uuid

import pytest

from wire import Connection, Error, build_batch
from wire.calls import (
    create_topic,
    delete_topic,
    describe_configs,
    fetch_body,
    fetch_partition,
    list_offset,
    metadata,
    produce,
)
from wire.schema import ZERO_UUID

TOPIC, BROKER = 2, 4

# ---- 31: automatic creation


@pytest.mark.parametrize("version", [1, 4, 9, 12])
def test_rule_31_metadata_creates_what_it_may(wire, name, version):
    asked = {"AllowAutoTopicCreation": True} if version >= 4 else {}
    topic = f"{name}-auto"
    first = wire.call("Metadata", version, Topics=[{"Name": topic}], **asked)["Topics"][0]
    assert first["ErrorCode"] in (Error.UNKNOWN_TOPIC_OR_PARTITION, Error.LEADER_NOT_AVAILABLE, Error.NONE)
    for _ in range(100):
        again = wire.call("Metadata", version, Topics=[{"Name": topic}], **asked)["Topics"][0]
        if again["ErrorCode"] == Error.NONE and all(p["ErrorCode"] == 0 for p in again["Partitions"]):
            break
        time.sleep(0.05)
    assert again["ErrorCode"] == Error.NONE and len(again["Partitions"]) == 1


def test_rule_31_nothing_is_created_unasked(wire, name):
    for _ in range(3):
        assert metadata(wire, name, auto_create=False)["ErrorCode"] == Error.UNKNOWN_TOPIC_OR_PARTITION
    produce(wire, name, build_batch([b"x"]))
    assert list_offset(wire, name, -1)["ErrorCode"] == Error.UNKNOWN_TOPIC_OR_PARTITION
    assert metadata(wire, name, auto_create=False)["ErrorCode"] == Error.UNKNOWN_TOPIC_OR_PARTITION


def test_rule_31_an_invalid_name_is_not_created(wire):
    assert metadata(wire, "in valid", auto_create=True)["ErrorCode"] == Error.INVALID_TOPIC_EXCEPTION


def test_rule_31_null_asks_for_all_and_empty_for_none(wire, topic):
    names = {t["Name"] for t in wire.call("Metadata", 12, Topics=None)["Topics"]}
    assert topic in names
    assert wire.call("Metadata", 12, Topics=[])["Topics"] == []


# ---- 32: names


@pytest.mark.parametrize("bad", ["", ".", "..", "a b", "a/b", "ä", "x" * 250, "a\0b", "a:b"])
def test_rule_32_invalid_names(wire, bad):
    assert create_topic(wire, bad)["ErrorCode"] == Error.INVALID_TOPIC_EXCEPTION


def test_rule_32_the_longest_name(wire, name):
    longest = (name + "x" * 249)[:249]
    assert create_topic(wire, longest)["ErrorCode"] == Error.NONE


def test_rule_32_dot_and_underscore_collide(wire, name):
    assert create_topic(wire, f"{name}.a_b")["ErrorCode"] == Error.NONE
    assert create_topic(wire, f"{name}_a.b")["ErrorCode"] == Error.INVALID_TOPIC_EXCEPTION
    assert create_topic(wire, f"{name}.a_b")["ErrorCode"] == Error.TOPIC_ALREADY_EXISTS


# ---- 33: ids


def test_rule_33_a_topic_made_again_has_another_id_and_no_old_records(wire, topics, name):
    topics.create(name)
    old = topics.topic_id(name)
    produce(wire, name, build_batch([b"old"] * 3))
    assert delete_topic(wire, name)["ErrorCode"] == Error.NONE
    for _ in range(100):
        created = create_topic(wire, name)
        if created["ErrorCode"] != Error.TOPIC_ALREADY_EXISTS:
            break
        time.sleep(0.05)
    assert created["ErrorCode"] == Error.NONE
    topics.wait_until_led(name)
    new = topics.topic_id(name)
    assert new not in (old, ZERO_UUID) and created["TopicId"] == new
    assert list_offset(wire, name, -1)["Offset"] == 0
    answer = wire.call("Fetch", 13, **fetch_body(None, [fetch_partition()], topic_id=old))
    assert answer["Responses"][0]["Partitions"][0]["ErrorCode"] == Error.UNKNOWN_TOPIC_ID
    old_write = wire.call("Produce", 13, Acks=-1, TimeoutMs=1000, TopicData=[
        {"TopicId": old, "PartitionData": [{"Index": 0, "Records": build_batch([b"late"])}]}])  # fmt: skip
    assert old_write["Responses"][0]["PartitionResponses"][0]["ErrorCode"] == Error.UNKNOWN_TOPIC_ID


def test_rule_33_metadata_and_deletion_by_id(wire, topics, topic):
    topic_id = topics.topic_id(topic)
    by_id = wire.call("Metadata", 12, Topics=[{"Name": None, "TopicId": topic_id}])["Topics"][0]
    assert (by_id["ErrorCode"], by_id["Name"]) == (Error.NONE, topic)
    nobody = wire.call("Metadata", 12, Topics=[{"Name": None, "TopicId": uuid.uuid4()}])["Topics"][0]
    assert nobody["ErrorCode"] == Error.UNKNOWN_TOPIC_ID
    assert delete_topic(wire, topic_id=uuid.uuid4())["ErrorCode"] == Error.UNKNOWN_TOPIC_ID
    assert delete_topic(wire, topic_id=topic_id)["ErrorCode"] == Error.NONE


# ---- 34: settings, and echoes of every topic asked about


def synonyms(entry):
    return [(s["Name"], s["Value"], s["Source"]) for s in entry["Synonyms"]]


def test_rule_34_every_topic_setting_is_described(wire, topics, name):
    topic = topics.create(name, retention_ms=123456)
    _, configs = describe_configs(wire, TOPIC, topic)
    assert {
        "cleanup.policy", "compression.type", "compression.gzip.level", "compression.lz4.level", "compression.zstd.level",
        "delete.retention.ms", "file.delete.delay.ms", "flush.messages", "flush.ms",
        "follower.replication.throttled.replicas", "index.interval.bytes", "leader.replication.throttled.replicas",
        "local.retention.bytes", "local.retention.ms", "max.compaction.lag.ms", "max.message.bytes",
        "message.timestamp.after.max.ms", "message.timestamp.before.max.ms", "message.timestamp.type",
        "min.cleanable.dirty.ratio", "min.compaction.lag.ms", "min.insync.replicas", "preallocate",
        "remote.storage.enable", "retention.bytes", "retention.ms", "segment.bytes", "segment.index.bytes",
        "segment.jitter.ms", "segment.ms", "unclean.leader.election.enable",
    } <= set(configs)  # fmt: skip
    dynamic_topic, default = 1, 5
    retention = configs["retention.ms"]
    assert (retention["Value"], retention["ConfigSource"], retention["ConfigType"]) == ("123456", dynamic_topic, 5)
    # log.retention.ms has no value by default, so it is no synonym until somebody sets it.
    assert synonyms(retention) == [("retention.ms", "123456", dynamic_topic)]
    untouched = configs["max.message.bytes"]
    assert (untouched["Value"], untouched["ConfigSource"]) == ("1048588", default)
    assert synonyms(untouched) == [("message.max.bytes", "1048588", default)]
    assert not untouched["ReadOnly"] and not untouched["IsSensitive"]


def test_rule_34_kafkas_defaults(wire, topic):
    _, configs = describe_configs(wire, TOPIC, topic)
    expected = {
        "cleanup.policy": "delete", "compression.type": "producer", "delete.retention.ms": "86400000",
        "index.interval.bytes": "4096", "max.message.bytes": "1048588", "message.timestamp.type": "CreateTime",
        "message.timestamp.after.max.ms": "3600000", "message.timestamp.before.max.ms": "9223372036854775807",
        "min.insync.replicas": "1", "retention.bytes": "-1", "retention.ms": "604800000", "segment.bytes": "1073741824",
        "segment.ms": "604800000", "segment.index.bytes": "10485760", "unclean.leader.election.enable": "false",
    }  # fmt: skip
    assert {key: configs[key]["Value"] for key in expected} == expected


def test_rule_34_the_broker_describes_itself(wire):
    node = wire.call("Metadata", 12, Topics=[])["Brokers"][0]["NodeId"]
    result, configs = describe_configs(wire, BROKER, str(node))
    assert result["ErrorCode"] == Error.NONE
    for key in ("num.partitions", "auto.create.topics.enable", "log.retention.hours", "message.max.bytes", "listeners",
                "default.replication.factor", "group.initial.rebalance.delay.ms", "compression.type"):  # fmt: skip
        assert key in configs, key
    assert configs["group.initial.rebalance.delay.ms"]["Value"] == "100"


def test_rule_34_only_what_was_asked_for(wire, topic):
    for version in (1, 2, 3, 4):
        _, configs = describe_configs(wire, TOPIC, topic, keys=["retention.ms", "cleanup.policy"], version=version)
        assert set(configs) == {"retention.ms", "cleanup.policy"}


def test_rule_34_an_unknown_topic_has_no_settings(wire, name):
    result, configs = describe_configs(wire, TOPIC, name)
    assert result["ErrorCode"] == Error.UNKNOWN_TOPIC_OR_PARTITION and not configs


def test_rule_34_create_topics_echoes_every_topic(wire, name):
    asked = [{"Name": f"{name}-{n}", "NumPartitions": n, "ReplicationFactor": 1} for n in (1, 2, -1, 0)]
    response = wire.call("CreateTopics", 7, Topics=asked, timeoutMs=15000)
    answers = {t["Name"]: t for t in response["Topics"]}
    assert [t["Name"] for t in asked] == [t["Name"] for t in response["Topics"]] or len(answers) == 4
    assert {n: answers[f"{name}-{n}"]["ErrorCode"] for n in (1, 2, -1, 0)} == {
        1: Error.NONE, 2: Error.NONE, -1: Error.NONE, 0: Error.INVALID_PARTITIONS}  # fmt: skip
    assert answers[f"{name}-2"]["NumPartitions"] == 2 and answers[f"{name}--1"]["NumPartitions"] == 1
    assert {c["Name"] for c in answers[f"{name}-1"]["Configs"]} >= {"retention.ms", "cleanup.policy"}


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"partitions": 0}, Error.INVALID_PARTITIONS),
        ({"partitions": -2}, Error.INVALID_PARTITIONS),
        ({"replication": 2}, Error.INVALID_REPLICATION_FACTOR),
        ({"replication": 0}, Error.INVALID_REPLICATION_FACTOR),
        ({"configs": {"no.such.setting": "1"}}, Error.INVALID_CONFIG),
        ({"configs": {"retention.ms": "soon"}}, Error.INVALID_CONFIG),
        ({"configs": {"min.insync.replicas": "0"}}, Error.INVALID_CONFIG),
        ({"configs": {"compression.type": "rar"}}, Error.INVALID_CONFIG),
        ({"partitions": -1, "replication": -1, "assignments": [(0, [4711])]}, Error.INVALID_REPLICA_ASSIGNMENT),
    ],
)  # fmt: skip
def test_a_topic_that_cannot_be_is_refused_with_its_reason(wire, name, change, error):
    for validate_only in (True, False):
        answer = create_topic(wire, name, validate_only=validate_only, **change)
        assert answer["ErrorCode"] == error
        assert answer["ErrorMessage"]
    assert metadata(wire, name)["ErrorCode"] == Error.UNKNOWN_TOPIC_OR_PARTITION


def test_validate_only_creates_nothing(wire, name):
    assert create_topic(wire, name, validate_only=True)["ErrorCode"] == Error.NONE
    assert metadata(wire, name)["ErrorCode"] == Error.UNKNOWN_TOPIC_OR_PARTITION


def test_rule_34_create_partitions_echoes_every_topic(wire, topics, name):
    topics.create(name, partitions=2)
    asked = [{"Name": n, "Count": 4, "Assignments": None} for n in (name, name + "-none")]
    response = wire.call("CreatePartitions", 3, Topics=asked, TimeoutMs=15000, ValidateOnly=False)
    errors = {r["Name"]: r["ErrorCode"] for r in response["Results"]}
    assert errors == {name: Error.NONE, name + "-none": Error.UNKNOWN_TOPIC_OR_PARTITION}
    topics.wait_until_led(name, 4)
    for count in (4, 1):
        again = [{"Name": name, "Count": count, "Assignments": None}]
        response = wire.call("CreatePartitions", 3, Topics=again, TimeoutMs=15000)
        assert response["Results"][0]["ErrorCode"] == Error.INVALID_PARTITIONS


def test_rule_34_describe_topic_partitions_pages(wire, topics, name):
    topics.create(name, partitions=5)
    first = wire.call("DescribeTopicPartitions", 0, Topics=[{"Name": name}], ResponsePartitionLimit=3)
    assert [p["PartitionIndex"] for p in first["Topics"][0]["Partitions"]] == [0, 1, 2]
    assert first["NextCursor"] == {"TopicName": name, "PartitionIndex": 3}
    rest = wire.call(
        "DescribeTopicPartitions", 0, Topics=[{"Name": name}], ResponsePartitionLimit=3, Cursor=first["NextCursor"]
    )
    assert [p["PartitionIndex"] for p in rest["Topics"][0]["Partitions"]] == [3, 4]
    assert rest["NextCursor"] is None


def test_rule_34_settings_are_changed_one_by_one_or_replaced_whole(wire, topic):
    def alter(operations):
        configs = [{"Name": n, "ConfigOperation": op, "Value": v} for n, op, v in operations]
        asked = [{"ResourceType": TOPIC, "ResourceName": topic, "Configs": configs}]
        return wire.call("IncrementalAlterConfigs", 1, Resources=asked, ValidateOnly=False)["Responses"][0]["ErrorCode"]

    def value(key):
        return describe_configs(wire, TOPIC, topic)[1][key]["Value"]

    def eventually(key, expected):
        for _ in range(100):
            if value(key) == expected:
                return
            time.sleep(0.02)
        assert value(key) == expected

    set_, delete, append, subtract = range(4)
    assert alter([("retention.ms", set_, "1000"), ("segment.ms", set_, "5000")]) == Error.NONE
    eventually("retention.ms", "1000")
    eventually("segment.ms", "5000")
    assert alter([("retention.ms", delete, None)]) == Error.NONE
    eventually("retention.ms", "604800000")
    # A list may be appended to; what it has already is not taken twice.
    assert alter([("cleanup.policy", append, "delete")]) == Error.NONE
    eventually("cleanup.policy", "delete")
    throttled = "leader.replication.throttled.replicas"
    assert alter([(throttled, append, "0:1")]) == Error.NONE
    eventually(throttled, "0:1")
    assert alter([(throttled, append, "1:1")]) == Error.NONE
    eventually(throttled, "0:1,1:1")
    assert alter([(throttled, subtract, "0:1")]) == Error.NONE
    eventually(throttled, "1:1")
    assert alter([(throttled, set_, "0:1,*")]) == Error.INVALID_CONFIG
    assert alter([("retention.ms", append, "1")]) == Error.INVALID_CONFIG
    assert alter([("retention.ms", set_, "never")]) == Error.INVALID_CONFIG
    assert alter([("no.such.setting", set_, "1")]) == Error.INVALID_CONFIG
    # AlterConfigs replaces: what it does not name falls back to its default.
    asked = [{"ResourceType": TOPIC, "ResourceName": topic, "Configs": [{"Name": "retention.ms", "Value": "2000"}]}]
    replaced = wire.call("AlterConfigs", 2, Resources=asked, ValidateOnly=False)["Responses"][0]
    assert replaced["ErrorCode"] == Error.NONE
    eventually("retention.ms", "2000")
    eventually("segment.ms", "604800000")


def test_automatic_creation_can_be_switched_off(start_broker, name):
    broker = start_broker({"auto.create.topics.enable": "false", "num.partitions": "3"})
    with Connection(broker.address) as connection:
        for _ in range(3):
            assert metadata(connection, name, auto_create=True)["ErrorCode"] == Error.UNKNOWN_TOPIC_OR_PARTITION
        assert create_topic(connection, name, partitions=-1, replication=-1)["NumPartitions"] == 3
    broker.stop()


def test_one_request_brings_about_ten_thousand_partitions_at_most(wire, name):
    answer = create_topic(wire, name, partitions=10_001)
    assert answer["ErrorCode"] == Error.POLICY_VIOLATION
    assert metadata(wire, name)["ErrorCode"] == Error.UNKNOWN_TOPIC_OR_PARTITION
