"""Kafka's own command-line tools, release 4.3.1: what an operator types, and what is printed."""

import json
import re
import time

import pytest

from harness import tools
from wire import Record, build_batch
from wire.calls import commit, find_coordinator, list_offset, produce


@pytest.fixture
def tool(broker):
    """Runs a tool against the shared broker."""

    def run(name, *arguments, **more):
        return tools.run(name, "--bootstrap-server", broker.address, *arguments, **more)

    return run


def table(text):
    """The rows of a printed table, as dictionaries by column title."""
    lines = [line for line in text.splitlines() if line.strip()]
    start = next(i for i, line in enumerate(lines) if line.startswith("GROUP"))
    titles = re.split(r"\s{2,}|\s(?=[A-Z-]+)", lines[start].strip())
    titles = [t for t in (t.strip() for t in titles) if t]
    return [dict(zip(titles, line.split(), strict=False)) for line in lines[start + 1 :]]


def test_topics(tool, name):
    assert f"Created topic {name}" in tool(
        "kafka-topics", "--create", "--topic", name, "--partitions", 3, "--config", "retention.ms=100000"
    )
    described = tool("kafka-topics", "--describe", "--topic", name)
    assert re.search(rf"Topic: {name}\s+TopicId: \S{{22}}\s+PartitionCount: 3\s+ReplicationFactor: 1\s+Configs: .*retention.ms=100000", described)
    assert len(re.findall(r"Partition: \d+\s+Leader: \d+\s+Replicas: \d+\s+Isr: \d+", described)) == 3
    tool("kafka-topics", "--alter", "--topic", name, "--partitions", 4)
    assert "PartitionCount: 4" in tool("kafka-topics", "--describe", "--topic", name)
    assert name in tool("kafka-topics", "--list").splitlines()
    with pytest.raises(tools.Failed, match="already exists"):
        tool("kafka-topics", "--create", "--topic", name)
    tool("kafka-topics", "--delete", "--topic", name)
    with pytest.raises(tools.Failed, match="does not exist as expected"):
        tool("kafka-topics", "--describe", "--topic", name)


def test_topics_that_need_attention_are_none(tool, topic):
    assert topic not in tool("kafka-topics", "--describe", "--under-replicated-partitions")
    assert topic not in tool("kafka-topics", "--describe", "--unavailable-partitions")


def test_topics_refuses_with_the_reason(tool, name):
    with pytest.raises(tools.Failed, match="Replication factor: 3 larger than available brokers: 1|replication factor"):
        tool("kafka-topics", "--create", "--topic", name, "--replication-factor", 3)


def test_configs_of_topics(tool, topic):
    which = ["--entity-type", "topics", "--entity-name", topic]
    tool("kafka-configs", "--alter", *which, "--add-config", "retention.ms=5000,segment.ms=6000")
    described = tool("kafka-configs", "--describe", *which)
    assert "retention.ms=5000" in described and "segment.ms=6000" in described
    tool("kafka-configs", "--alter", *which, "--delete-config", "segment.ms")
    everything = tool("kafka-configs", "--describe", "--all", *which)
    assert re.search(r"retention\.ms=5000 sensitive=false synonyms=\{DYNAMIC_TOPIC_CONFIG:retention\.ms=5000", everything)
    assert re.search(r"segment\.ms=604800000 sensitive=false synonyms=\{", everything)
    assert re.search(r"max\.message\.bytes=1048588 sensitive=false synonyms=\{DEFAULT_CONFIG:message\.max\.bytes=1048588\}", everything)
    with pytest.raises(tools.Failed, match="(?i)invalid"):
        tool("kafka-configs", "--alter", *which, "--add-config", "retention.ms=never")


def test_configs_of_the_broker(tool, broker, wire):
    node = wire.call("Metadata", 12, Topics=[])["Brokers"][0]["NodeId"]
    described = tool("kafka-configs", "--describe", "--all", "--entity-type", "brokers", "--entity-name", node)
    for key in ("num.partitions=1", "auto.create.topics.enable=true", "group.initial.rebalance.delay.ms=100"):
        assert key in described, key


def test_console_producer_and_consumer(tool, topic):
    lines = ["trace:1,trace:2\tk1\tfirst", "h:v\tk2\tsecond"]
    tool(
        "kafka-console-producer", "--topic", topic, "--reader-property", "parse.key=true", "--reader-property",
        "parse.headers=true", "--compression-codec", "zstd", stdin="\n".join(lines) + "\n",
    )  # fmt: skip
    printed = tool(
        "kafka-console-consumer", "--topic", topic, "--from-beginning", "--max-messages", 2, "--timeout-ms", 20000,
        *(p for key in ("key", "headers", "offset", "partition") for p in ("--formatter-property", f"print.{key}=true")),
    )  # fmt: skip
    assert printed.splitlines() == [
        "Partition:0\tOffset:0\ttrace:1,trace:2\tk1\tfirst",
        "Partition:0\tOffset:1\th:v\tk2\tsecond",
    ]


def test_console_consumer_in_a_group(tool, topic, wire, name):
    produce(wire, topic, build_batch([b"%d" % n for n in range(5)]))
    arguments = ["--topic", topic, "--group", name, "--from-beginning", "--timeout-ms", 6000]
    assert tool("kafka-console-consumer", *arguments, "--max-messages", 3).split() == ["0", "1", "2"]
    assert tool("kafka-console-consumer", *arguments, "--max-messages", 2).split() == ["3", "4"]


def test_get_offsets(tool, topic, wire):
    for n in range(4):
        produce(wire, topic, build_batch([Record(value=b"x")], timestamp=1000 * (4 - n)))
    for time_, offset in [("latest", 4), ("earliest", 0), ("-1", 4), ("max-timestamp", 0), ("2500", 0)]:
        assert tool("kafka-get-offsets", "--topic", topic, "--time", time_).strip() == f"{topic}:0:{offset}", time_
    assert tool("kafka-get-offsets", "--topic", topic, "--time", 5000).strip() == "", "nothing that late"


def test_delete_records(tool, topic, wire, tmp_path):
    produce(wire, topic, build_batch([b"x"] * 10))
    where = tmp_path / "offsets.json"
    where.write_text(json.dumps({"version": 1, "partitions": [{"topic": topic, "partition": 0, "offset": 4}]}))
    assert "low_watermark: 4" in tool("kafka-delete-records", "--offset-json-file", where)
    assert list_offset(wire, topic, -2)["Offset"] == 4


def test_log_dirs(tool, topic, wire):
    produce(wire, topic, build_batch([bytes(10_000)]))
    printed = tool("kafka-log-dirs", "--describe", "--topic-list", topic)
    answer = json.loads(printed[printed.index("{") :])
    (partition,) = [p for b in answer["brokers"] for d in b["logDirs"] for p in d["partitions"]]
    assert partition["partition"] == f"{topic}-0" and partition["size"] >= 10_000 and partition["offsetLag"] == 0


def test_consumer_groups(tool, topic, wire, name):
    find_coordinator(wire, name)
    produce(wire, topic, build_batch([b"x"] * 10))
    assert commit(wire, name, topic, 4) == 0
    assert name in tool("kafka-consumer-groups", "--list").splitlines()
    (row,) = table(tool("kafka-consumer-groups", "--describe", "--group", name))
    assert [row[c] for c in ("TOPIC", "PARTITION", "CURRENT-OFFSET", "LOG-END-OFFSET", "LAG")] == [topic, "0", "4", "10", "6"]
    assert "Empty" in tool("kafka-consumer-groups", "--describe", "--state", "--group", name)
    reset = ["--reset-offsets", "--group", name, "--topic", topic]
    assert re.search(rf"{topic}\s+0\s+9", tool("kafka-consumer-groups", *reset, "--shift-by", 5, "--dry-run"))
    tool("kafka-consumer-groups", *reset, "--to-earliest", "--execute")
    (row,) = table(tool("kafka-consumer-groups", "--describe", "--group", name))
    assert (row["CURRENT-OFFSET"], row["LAG"]) == ("0", "10")
    tool("kafka-consumer-groups", "--delete-offsets", "--group", name, "--topic", topic)
    assert "was successful" in tool("kafka-consumer-groups", "--delete", "--group", name)
    # The broker's own words, or the tool's.
    gone = tool("kafka-consumer-groups", "--describe", "--group", name)
    assert f"Consumer group '{name}' does not exist" in gone or f"Group {name} not found" in gone


def test_members_of_a_live_group_are_shown_and_cannot_be_deleted(tool, broker, topic, wire, name):
    produce(wire, topic, build_batch([b"x"] * 3))
    consumer = tools.start(
        "kafka-verifiable-consumer", "--bootstrap-server", broker.address, "--topic", topic, "--group-id", name,
        "--reset-policy", "earliest", "--group-instance-id", "shown",
    )  # fmt: skip
    try:
        for line in consumer.stdout:
            if '"offsets_committed"' in line:
                break
        members = tool("kafka-consumer-groups", "--describe", "--members", "--verbose", "--group", name)
        assert re.search(rf"{name}\s+shown-\S+\s+shown\s+/127\.0\.0\.1\s+\S+\s+1\s+.*{topic}", members)
        assert re.search(rf"{name}\s.*range\s+Stable\s+1", tool("kafka-consumer-groups", "--describe", "--state", "--group", name))
        # The tool reports the failure and exits with 0 all the same.
        assert "The group is not empty" in tool("kafka-consumer-groups", "--delete", "--group", name)
    finally:
        consumer.terminate()
        consumer.wait(20)


def test_verifiable_producer_and_perf_tests(tool, broker, topic):
    printed = tool("kafka-verifiable-producer", "--topic", topic, "--max-messages", 500, "--acks", -1, "--value-prefix", 7)
    assert '"sent":500' in printed and '"acked":500' in printed
    done = tools.run(
        "kafka-producer-perf-test", "--topic", topic, "--num-records", 2000, "--record-size", 500, "--throughput", -1,
        "--producer-props", f"bootstrap.servers={broker.address}", "compression.type=lz4",
    )  # fmt: skip
    assert "2000 records sent" in done
    printed = tool("kafka-consumer-perf-test", "--topic", topic, "--messages", 2500, "--hide-header", "--timeout", 20000)
    assert int(printed.strip().splitlines()[-1].split(",")[4]) >= 2500


def test_cluster_and_versions(tool, broker):
    assert re.search(r"Cluster ID: \S{22}", tools.run("kafka-cluster", "cluster-id", "--bootstrap-server", broker.address))
    versions = tool("kafka-broker-api-versions")
    assert broker.address in versions and re.search(r"Produce\(0\): 0 to 1\d \[usable: \d+\]", versions)


def test_groups_of_all_kinds(tool, wire, topic, name):
    find_coordinator(wire, name)
    commit(wire, name, topic, 1)
    assert re.search(rf"{name}\s+Classic", tool("kafka-groups", "--list"))


def test_dump_log_reads_the_segments(tool, broker, topic, wire):
    records = [Record(b"key-%d" % n, b"value-%d" % n, [(b"h", b"1"), (b"h", b"2")], 1000 + n) for n in range(3)]
    produce(wire, topic, build_batch(records, timestamp=1000, codec=4))
    produce(wire, topic, build_batch([b"this one is not compressed"]))
    # Kafka names the folder after topic and partition; Tidelog may name it by the topic's id. A segment is written a moment
    # after the journal.
    holders, deadline = [], time.monotonic() + 20
    while not holders and time.monotonic() < deadline:
        time.sleep(0.2)
        holders = [p.parent for p in broker.data_dir.rglob("*.log") if b"is not compressed" in p.read_bytes()]
    assert holders, "no segment holds the record"
    segments = ",".join(str(p) for p in sorted(holders[0].glob("*.log")))
    printed = tools.run("kafka-dump-log", "--files", segments, "--print-data-log", "--deep-iteration")
    assert re.search(r"baseOffset: 0 lastOffset: 2 count: 3 .*compresscodec: zstd .*isvalid: true", printed)
    assert re.search(r"\| offset: 2 CreateTime: 1002 .*headerKeys: \[h,h\] key: key-2 payload: value-2", printed)
    assert "payload: this one is not compressed" in printed and "isvalid: false" not in printed
