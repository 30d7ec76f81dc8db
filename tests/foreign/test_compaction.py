"""Compacted topics as clients see them: the newest value of each key, tombstones, offsets that do not move."""

import time

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Producer, TopicPartition

from harness import tools
from harness.topics import Topics
from wire import Connection, Error, build_batch, parse_batches
from wire.batch import Record
from wire.calls import fetch, list_offset, produce

KEYS = 100
ROUNDS = 250


@pytest.fixture(scope="module")
def compacting(start_broker):
    """A broker that looks for something to compact five times a second."""
    return start_broker({"log.cleaner.backoff.ms": "200", "log.retention.check.interval.ms": "500"})


@pytest.fixture
def compacted(compacting, name):
    """A topic that is compacted as soon as a segment ends."""
    with Topics(compacting.address) as topics:
        yield topics.create(
            name, cleanup_policy="compact", segment_bytes=1 << 20, min_cleanable_dirty_ratio=0.01, delete_retention_ms=0
        )


@pytest.fixture
def connection(compacting):
    with Connection(compacting.address, timeout_s=30) as connection:
        yield connection


def fill(address, topic, rounds=range(ROUNDS), value=b"%06d" + b"." * 100, **config):
    """Each key once a round; returns the offset behind the last record."""
    producer = Producer({"bootstrap.servers": address, "batch.size": 16384, "linger.ms": 5, **config})
    last = []
    for number in rounds:
        for key in range(KEYS):
            on_delivery = (lambda error, message: last.append((error, message.offset()))) if key == KEYS - 1 else None
            producer.produce(topic, key=b"key-%03d" % key, value=value % number, partition=0, on_delivery=on_delivery)
        producer.poll(0)
    assert producer.flush(60) == 0
    assert not [error for error, _ in last if error]
    return max(offset for _, offset in last) + 1


def consume(address, topic):
    """Offset, key, value of everything, and the position at the end."""
    consumer = Consumer({"bootstrap.servers": address, "group.id": "reader", "enable.partition.eof": True})
    consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
    found = []
    while True:
        message = consumer.poll(20)
        assert message is not None, "the consumer hangs"
        if message.error():
            assert message.error().code() == KafkaError._PARTITION_EOF, message.error()
            break
        found.append((message.offset(), message.key(), message.value()))
    position = consumer.position([TopicPartition(topic, 0)])[0].offset
    consumer.close()
    return found, position


def wait_until(holds, timeout_s=30):
    deadline = time.monotonic() + timeout_s
    while not (value := holds()):
        assert time.monotonic() < deadline, "never"
        time.sleep(0.3)
    return value


def newest(found):
    return {key: (offset, value) for offset, key, value in found}


@pytest.mark.parametrize("codec", ["none", "lz4"])
def test_only_the_newest_values_stay_and_offsets_with_them(compacting, compacted, codec):
    # Compressed, it takes more to fill a segment.
    value = b"%06d" + (b"." * 100 if codec == "none" else bytes(range(1, 256)).replace(b"%", b"") * 3)
    rounds = range(ROUNDS if codec == "none" else 700)
    end = fill(compacting.address, compacted, rounds, value, **{"compression.type": codec, "enable.idempotence": True})
    assert end == len(rounds) * KEYS
    found, position = wait_until(
        lambda: (read := consume(compacting.address, compacted)) and len(read[0]) < end * 0.7 and read
    )
    assert position == end
    assert newest(found) == {
        b"key-%03d" % key: (end - KEYS + key, value % rounds[-1]) for key in range(KEYS)
    }
    for offset, key, got in found:
        assert (key, got) == (b"key-%03d" % (offset % KEYS), value % (offset // KEYS)), "a record keeps its offset"
    # The same after a restart, and the log goes on where it ended.
    compacting.stop()
    compacting.start()
    again, position = consume(compacting.address, compacted)
    assert newest(again) == newest(found) and position == end
    assert fill(compacting.address, compacted, range(1), b"%06d") == end + KEYS


def test_tombstones_take_their_keys_along(compacting, compacted, connection):
    fill(compacting.address, compacted)
    producer = Producer({"bootstrap.servers": compacting.address})
    producer.produce(compacted, key=b"key-007", value=None, partition=0)
    assert producer.flush(30) == 0
    fill(compacting.address, compacted, range(ROUNDS // 2, ROUNDS), b"%06d" + b"," * 100)
    producer.produce(compacted, key=b"key-007", value=None, partition=0)
    assert producer.flush(30) == 0
    others = [key for key in range(KEYS) if key != 7]

    def gone():
        # Only what is new makes the log be looked at again.
        for key in others:
            producer.produce(compacted, key=b"key-%03d" % key, value=b"z" * 12000, partition=0)
        producer.flush(30)
        found, _ = consume(compacting.address, compacted)
        return not [1 for _, key, _ in found if key == b"key-007"] and found

    found = wait_until(gone)
    assert {key for _, key, _ in found} == {b"key-%03d" % key for key in others}


def test_batches_keep_their_ends_and_dump_log_reads_them(compacting, compacted, connection):
    end = fill(compacting.address, compacted, **{"enable.idempotence": True})
    wait_until(lambda: len(consume(compacting.address, compacted)[0]) < end * 0.7)
    assert list_offset(connection, compacted, -1)["Offset"] == end
    assert list_offset(connection, compacted, -2)["Offset"] == 0
    batches, position = [], 0
    while position < end:
        # A reply ends with its segment.
        batches += parse_batches(fetch(connection, compacted, position, partition_max_bytes=8 << 20)["Records"])
        assert batches[-1].last_offset >= position, "no progress"
        position = batches[-1].last_offset + 1
    assert batches[-1].last_offset == end - 1
    assert all(batch.crc_ok for batch in batches)
    assert all(before.last_offset < after.base_offset for before, after in zip(batches, batches[1:]))
    holders = {p.parent for p in compacting.data_dir.rglob("*.log") if b"key-042" in p.read_bytes() and compacted in str(p)}
    segments = sorted(holders.pop().glob("*.log"))
    if compacting.is_tidelog:
        assert [p for p in segments if ".r" in p.name], "nothing was rewritten"
    printed = tools.run("kafka-dump-log", "--files", ",".join(map(str, segments)), "--print-data-log", "--deep-iteration")
    assert "key: key-042" in printed
    assert "isvalid: false" not in printed and "Found" not in printed


def test_a_record_without_a_key_is_refused(compacting, compacted, connection):
    producer = Producer({"bootstrap.servers": compacting.address})
    errors = []
    producer.produce(compacted, value=b"no key", on_delivery=lambda error, _: errors.append(error.code()))
    producer.flush(30)
    assert errors == [KafkaError.INVALID_RECORD]
    batch = build_batch([Record(b"k", b"v", [], 0), Record(None, b"v", [], 0)])
    answer = produce(connection, compacted, batch)
    assert answer["ErrorCode"] == Error.INVALID_RECORD
    assert [error["BatchIndex"] for error in answer["RecordErrors"]] == [1]
    assert list_offset(connection, compacted, -1)["Offset"] == 0


def test_compact_and_delete_do_both(compacting, name, connection):
    with Topics(compacting.address) as topics:
        topic = topics.create(
            name, cleanup_policy="compact,delete", segment_bytes=1 << 20, min_cleanable_dirty_ratio=0.01, retention_ms=-1
        )
    end = fill(compacting.address, topic)
    wait_until(lambda: len(consume(compacting.address, topic)[0]) < end * 0.7)
    reply = connection.call(
        "IncrementalAlterConfigs", 1, ValidateOnly=False,
        Resources=[{"ResourceType": 2, "ResourceName": topic,
                    "Configs": [{"Name": "retention.ms", "ConfigOperation": 0, "Value": "1"}]}],
    )  # fmt: skip
    assert reply["Responses"][0]["ErrorCode"] == Error.NONE
    wait_until(lambda: list_offset(connection, topic, -2)["Offset"] == end)
    assert consume(compacting.address, topic)[0] == []


def alter_broker(connection, **settings):
    """Sets dynamic settings of all brokers; returns code and message."""
    configs = [{"Name": name.replace("_", "."), "ConfigOperation": 0, "Value": str(value)} for name, value in settings.items()]
    asked = {"ResourceType": 4, "ResourceName": "", "Configs": configs}
    (answered,) = connection.call("IncrementalAlterConfigs", 1, Resources=[asked], ValidateOnly=False)["Responses"]
    return answered["ErrorCode"], answered["ErrorMessage"]


def test_settings_of_the_cleaner_change_while_the_broker_runs(start_broker, name):
    broker = start_broker({"log.cleaner.backoff.ms": "3600000"})
    with Topics(broker.address) as topics, Connection(broker.address, timeout_s=30) as connection:
        topic = topics.create(name, cleanup_policy="compact", segment_bytes=1 << 20, min_cleanable_dirty_ratio=0.01)
        end = fill(broker.address, topic)
        time.sleep(2)
        found, _ = consume(broker.address, topic)
        assert len(found) == end, "the next look is an hour away"
        assert alter_broker(connection, log_cleaner_backoff_ms=200)[0] == Error.NONE
        wait_until(lambda: len(consume(broker.address, topic)[0]) < end)
        # More of them, at another pace and in less memory; no more than twice as many at once.
        code, message = alter_broker(connection, log_cleaner_threads=3)
        assert code == Error.INVALID_REQUEST
        assert "Log cleaner threads cannot be increased to more than double the current value 1" in message
        settings = {"log_cleaner_threads": 2, "log_cleaner_io_max_bytes_per_second": 1e9, "log_cleaner_dedupe_buffer_size": 8 << 20}
        assert alter_broker(connection, **settings)[0] == Error.NONE
        before = len(consume(broker.address, topic)[0])
        fill(broker.address, topic)
        wait_until(lambda: len(consume(broker.address, topic)[0]) < before + end)
