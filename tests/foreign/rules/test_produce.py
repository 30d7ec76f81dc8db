"""Rules 1 to 12 of the protocol reference: what a broker takes and refuses from a producer, byte by byte."""

import struct
import time

import pytest

from wire import Connection, Disconnected, Error, Record, build_batch, parse_batches
from wire.batch import CODECS, CONTROL, GZIP, LOG_APPEND_TIME, LZ4, SNAPPY, ZSTD, encode_record
from wire.calls import create_topic, fetch, find_coordinator, init_producer, list_offset, produce, produce_body, produced
from wire.schema import varint

DAY_MS = 24 * 3600 * 1000


def end_offset(connection, topic):
    return list_offset(connection, topic, -1)["Offset"]


# ---- 1: one right batch per partition and request


def _control_batch():
    # Key of a COMMIT marker: version 0, type 1; value: version 0, coordinator epoch 0.
    return build_batch([Record(b"\0\0\0\1", b"\0\0\0\0\0\0")], attributes=CONTROL, producer_id=1, producer_epoch=0)


WRONG_BATCHES = {
    "two batches": lambda: build_batch([b"a"]) + build_batch([b"b"]),
    "no batch": lambda: b"",
    "base offset not 0": lambda: build_batch([b"a"], base_offset=5),
    "count above last offset delta": lambda: build_batch([b"a", b"b"], last_offset_delta=0),
    "count below last offset delta": lambda: build_batch([b"a"], last_offset_delta=1),
    "no records": lambda: build_batch([], last_offset_delta=-1),
    "control batch": _control_batch,
    "producer id without sequence": lambda: build_batch([b"a"], producer_id=7, producer_epoch=0, base_sequence=-1),
}


@pytest.mark.parametrize("wrong", WRONG_BATCHES)
def test_rule_01_a_wrong_batch_is_an_invalid_record(wire, topic, wrong):
    answer = produce(wire, topic, WRONG_BATCHES[wrong]())
    assert answer["ErrorCode"] == Error.INVALID_RECORD
    assert answer["BaseOffset"] == -1
    assert end_offset(wire, topic) == 0


def test_rule_01_offsets_are_dense_from_zero(wire, topic):
    offsets = [produce(wire, topic, build_batch([b"x"] * n))["BaseOffset"] for n in (1, 3, 2)]
    assert offsets == [0, 1, 4]
    assert end_offset(wire, topic) == 6


# ---- 2: checksum


def test_rule_02_a_bad_checksum_is_a_corrupt_message(wire, topic):
    assert produce(wire, topic, build_batch([b"a"], crc=12345))["ErrorCode"] == Error.CORRUPT_MESSAGE
    assert end_offset(wire, topic) == 0


def test_rule_02_offset_and_epoch_are_stamped_without_touching_the_rest(wire, topic):
    produce(wire, topic, build_batch([b"first"]))
    batch = build_batch([b"a", b"b"], leader_epoch=77)
    produce(wire, topic, batch)
    stored = fetch(wire, topic, offset=1)["Records"]
    assert struct.unpack(">q", stored[:8])[0] == 1
    assert struct.unpack(">i", stored[12:16])[0] != 77, "a producer's leader epoch is not believed"
    assert stored[8:12] == batch[8:12] and stored[16:] == batch[16:]


def test_rule_02_log_append_time_is_stamped_under_a_new_checksum(wire, topics, name):
    topic = topics.create(name, message_timestamp_type="LogAppendTime")
    before = int(time.time() * 1000)
    answer = produce(wire, topic, build_batch([Record(b"k", b"v", [], 1000)], timestamp=1000))
    (stored,) = parse_batches(fetch(wire, topic)["Records"])
    assert stored.crc_ok
    assert stored.attributes & LOG_APPEND_TIME
    assert before <= stored.max_timestamp <= int(time.time() * 1000)
    assert answer["LogAppendTimeMs"] == stored.max_timestamp


# ---- 3: every record is looked at


def _one_record_too_few(codec):
    return build_batch([b"a", b"b"], codec=codec, last_offset_delta=2, record_count=3)


@pytest.mark.parametrize("codec", ["none", "gzip", "zstd"])
def test_rule_03_a_record_count_that_the_records_do_not_have_is_refused(wire, topic, codec):
    assert produce(wire, topic, _one_record_too_few(CODECS[codec]))["ErrorCode"] == Error.INVALID_RECORD
    assert end_offset(wire, topic) == 0


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_rule_03_a_compressed_body_that_is_none_is_refused(wire, topic, codec):
    answer = produce(wire, topic, build_batch([b"a"], codec=CODECS[codec], payload=b"this is not compressed"))
    # Kafka answers what its decompressor happened to throw, UNKNOWN_SERVER_ERROR included.
    assert answer["ErrorCode"] in (Error.CORRUPT_MESSAGE, Error.INVALID_RECORD, Error.UNKNOWN_SERVER_ERROR)
    assert end_offset(wire, topic) == 0


def test_rule_03_a_record_longer_than_its_batch_is_refused(wire, topic):
    body = encode_record(Record(value=b"a"), 0, 0)
    answer = produce(wire, topic, build_batch([b"a"], payload=varint(1000) + body[1:]))
    assert answer["ErrorCode"] == Error.INVALID_RECORD
    assert end_offset(wire, topic) == 0


def test_rule_03_wrong_offset_deltas_never_reach_a_consumer(wire, topic):
    # Kafka means to put them right by writing a compressed batch anew, and 4.4 then fails with
    # UNKNOWN_SERVER_ERROR; either a right batch or a refusal keeps the promise.
    answer = produce(wire, topic, build_batch([b"a", b"b"], codec=GZIP, offset_deltas=[0, 5]))
    if answer["ErrorCode"] == Error.NONE:
        (stored,) = parse_batches(fetch(wire, topic)["Records"])
        assert [r.offset for r in stored.records] == [0, 1]
    else:
        assert answer["ErrorCode"] in (Error.INVALID_RECORD, Error.UNKNOWN_SERVER_ERROR)
        assert end_offset(wire, topic) == 0


@pytest.mark.parametrize(
    ("setting", "sent", "kept"),
    [("producer", GZIP, GZIP), ("gzip", 0, GZIP), ("uncompressed", GZIP, 0), ("lz4", ZSTD, LZ4), ("snappy", SNAPPY, SNAPPY),
     ("zstd", LZ4, ZSTD)],
)  # fmt: skip
def test_rule_03_the_topic_decides_the_stored_compression(wire, topics, name, setting, sent, kept):
    topic = topics.create(name, compression_type=setting)
    records = [Record(b"k%d" % i, b"v" * 100, [(b"h", b"1"), (b"h", b"2")], 1000 + i) for i in range(3)]
    batch = build_batch(records, codec=sent, timestamp=1000)
    assert produce(wire, topic, batch)["ErrorCode"] == Error.NONE
    data = fetch(wire, topic)["Records"]
    (stored,) = parse_batches(data)
    assert stored.codec == kept and stored.crc_ok
    assert [(r.key, r.value, r.headers, r.timestamp, r.offset) for r in stored.records] == [
        (r.key, r.value, r.headers, r.timestamp, i) for i, r in enumerate(records)
    ]
    if sent == kept:
        assert data[16:] == batch[16:], "nothing to change, so the producer's bytes are kept"


# ---- 4 and 5: idempotence


def idempotent(connection, topic, pid, epoch, sequence, count=1, **more):
    batch = build_batch([b"x"] * count, producer_id=pid, producer_epoch=epoch, base_sequence=sequence)
    return produce(connection, topic, batch, **more)


def test_rule_04_a_repeated_batch_gets_its_first_offset(wire, topic):
    pid, epoch = init_producer(wire)
    first = [idempotent(wire, topic, pid, epoch, n * 2, 2)["BaseOffset"] for n in range(5)]
    assert first == [0, 2, 4, 6, 8]
    for n in (0, 4, 2):
        again = idempotent(wire, topic, pid, epoch, n * 2, 2)
        assert (again["ErrorCode"], again["BaseOffset"]) == (Error.NONE, n * 2)
    assert end_offset(wire, topic) == 10


def test_rule_04_a_gap_and_a_forgotten_batch_are_out_of_order(wire, topic):
    pid, epoch = init_producer(wire)
    for n in range(7):
        idempotent(wire, topic, pid, epoch, n)
    for sequence in (8, 100, 0, 1):  # two gaps; two that are older than the last five
        assert idempotent(wire, topic, pid, epoch, sequence)["ErrorCode"] == Error.OUT_OF_ORDER_SEQUENCE_NUMBER
    assert end_offset(wire, topic) == 7
    assert idempotent(wire, topic, pid, epoch, 7)["BaseOffset"] == 7


def test_rule_04_half_a_known_batch_is_no_duplicate(wire, topic):
    pid, epoch = init_producer(wire)
    idempotent(wire, topic, pid, epoch, 0, 4)
    assert idempotent(wire, topic, pid, epoch, 2, 2)["ErrorCode"] == Error.OUT_OF_ORDER_SEQUENCE_NUMBER
    assert end_offset(wire, topic) == 4


def test_rule_04_sequences_wrap_to_zero(wire, topic):
    pid, epoch = init_producer(wire)
    # A producer id without state may start anywhere (rule 5), here just below the end.
    top = 2**31 - 1
    assert idempotent(wire, topic, pid, epoch, top - 1, 2)["ErrorCode"] == Error.NONE
    assert idempotent(wire, topic, pid, epoch, 1)["ErrorCode"] == Error.OUT_OF_ORDER_SEQUENCE_NUMBER
    assert idempotent(wire, topic, pid, epoch, 0)["BaseOffset"] == 2


def test_rule_04_pipelined_duplicates_are_written_once(wire, topic):
    pid, epoch = init_producer(wire)
    batches = [build_batch([b"x"], producer_id=pid, producer_epoch=epoch, base_sequence=n) for n in (0, 0, 1, 1, 0, 2)]
    for batch in batches:
        wire.send("Produce", 9, **produce_body(topic, batch))
    answers = [produced(wire.receive()[1]) for _ in batches]
    assert [(a["ErrorCode"], a["BaseOffset"]) for a in answers] == [(0, 0), (0, 0), (0, 1), (0, 1), (0, 0), (0, 2)]
    assert end_offset(wire, topic) == 3


def test_rule_05_a_new_epoch_starts_at_zero_and_fences_the_old(wire, topic):
    pid, epoch = init_producer(wire)
    for n in range(3):
        idempotent(wire, topic, pid, epoch, n)
    assert idempotent(wire, topic, pid, epoch + 1, 3)["ErrorCode"] == Error.OUT_OF_ORDER_SEQUENCE_NUMBER
    assert idempotent(wire, topic, pid, epoch + 1, 0)["BaseOffset"] == 3
    assert idempotent(wire, topic, pid, epoch, 3)["ErrorCode"] == Error.INVALID_PRODUCER_EPOCH
    assert end_offset(wire, topic) == 4


def test_rule_05_an_unknown_producer_may_start_anywhere(wire, topic):
    pid, epoch = init_producer(wire)
    assert idempotent(wire, topic, pid, epoch, 42)["ErrorCode"] == Error.NONE
    assert idempotent(wire, topic, pid, epoch, 43)["BaseOffset"] == 1


def test_rule_05_producer_ids_are_unique_and_epochs_can_be_bumped(wire):
    pids = [init_producer(wire)[0] for _ in range(20)]
    assert len(set(pids)) == 20
    pid, epoch = init_producer(wire)
    bumped = init_producer(wire, producer_id=pid, epoch=epoch)
    # Without a transactional id there is no state to bump: Kafka hands out a new id, which is as good.
    assert bumped != (pid, epoch)


# ---- 6: acks


def test_rule_06_acks_0_has_no_answer(wire, topic):
    wire.send("Produce", 9, **produce_body(topic, build_batch([b"quiet"]), acks=0))
    assert wire.silent_for(0.3)
    # The next answer on the connection is that of the next request.
    assert end_offset(wire, topic) == 1


def test_rule_06_acks_0_closes_on_error(broker, topic):
    with Connection(broker.address) as connection:
        connection.send("Produce", 9, **produce_body(topic, build_batch([b"a"], crc=1), acks=0))
        assert connection.is_closed_within(5)


@pytest.mark.parametrize("acks", [2, -2, 7])
def test_rule_06_other_acks_are_refused(wire, topic, acks):
    assert produce(wire, topic, build_batch([b"a"]), acks=acks)["ErrorCode"] == Error.INVALID_REQUIRED_ACKS
    assert end_offset(wire, topic) == 0


# ---- 7: min.insync.replicas


def test_rule_07_min_insync_replicas_never_asks_for_more_than_there_are(wire, topics, name):
    # Kafka counts the smaller of min.insync.replicas and the replication factor, so one replica is always enough here.
    topic = topics.create(name, min_insync_replicas=2)
    assert produce(wire, topic, build_batch([b"a"]), acks=-1)["BaseOffset"] == 0
    assert produce(wire, topic, build_batch([b"a"]), acks=1)["BaseOffset"] == 1


# ---- 8: sizes


def test_rule_08_a_batch_over_the_topic_limit_is_too_large(wire, topics, name):
    topic = topics.create(name, max_message_bytes=1000)
    exact = build_batch([b"x" * (1000 - len(build_batch([b"x" * 900])) + 900)])
    assert len(exact) == 1000
    assert produce(wire, topic, exact)["ErrorCode"] == Error.NONE
    over = build_batch([b"x" * (1001 - len(build_batch([b"x" * 900])) + 900)])
    assert len(over) == 1001
    assert produce(wire, topic, over)["ErrorCode"] == Error.MESSAGE_TOO_LARGE
    # The bytes as sent count: what is small when compressed passes.
    assert produce(wire, topic, build_batch([b"x" * 5000], codec=GZIP))["ErrorCode"] == Error.NONE
    assert end_offset(wire, topic) == 2


def test_rule_08_the_limit_is_per_partition(wire, topics, name):
    topic = topics.create(name, partitions=2, max_message_bytes=1000)
    data = [{"Index": 0, "Records": build_batch([b"x" * 2000])}, {"Index": 1, "Records": build_batch([b"small"])}]
    response = wire.call("Produce", 9, Acks=-1, TimeoutMs=5000, TopicData=[{"Name": topic, "PartitionData": data}])
    errors = {p["Index"]: p["ErrorCode"] for p in response["Responses"][0]["PartitionResponses"]}
    assert errors == {0: Error.MESSAGE_TOO_LARGE, 1: Error.NONE}


def test_rule_08_the_default_limit_is_kafkas(wire, topic):
    overhead = len(build_batch([b"x" * 1_000_000])) - 1_000_000
    fits = build_batch([b"x" * (1_048_588 - overhead)])
    assert len(fits) == 1_048_588
    assert produce(wire, topic, fits)["ErrorCode"] == Error.NONE
    assert produce(wire, topic, build_batch([b"x" * (1_048_589 - overhead)]))["ErrorCode"] == Error.MESSAGE_TOO_LARGE


@pytest.mark.parametrize("length", [100 * 1024 * 1024 + 1, 2**31 - 1, -1, -(2**31)])
def test_rule_08_a_frame_over_100_mib_closes_the_connection(broker, length):
    with Connection(broker.address) as connection:
        connection.send_raw(struct.pack(">i", length) + b"\0" * 64)
        assert connection.is_closed_within(5)


# ---- 9 and 10: errors per partition and record, timestamps


def test_rule_09_each_partition_has_its_own_error(wire, topics, name):
    topic = topics.create(name, partitions=2)
    data = [
        {"Index": 0, "Records": build_batch([b"good"])},
        {"Index": 1, "Records": build_batch([b"bad"], crc=1)},
        {"Index": 9, "Records": build_batch([b"nowhere"])},
    ]
    missing = {"Name": name + "-missing", "PartitionData": [{"Index": 0, "Records": build_batch([b"x"])}]}
    response = wire.call("Produce", 9, Acks=-1, TimeoutMs=5000, TopicData=[{"Name": topic, "PartitionData": data}, missing])
    errors = {(t["Name"], p["Index"]): p["ErrorCode"] for t in response["Responses"] for p in t["PartitionResponses"]}
    assert errors == {
        (topic, 0): Error.NONE,
        (topic, 1): Error.CORRUPT_MESSAGE,
        (topic, 9): Error.UNKNOWN_TOPIC_OR_PARTITION,
        (missing["Name"], 0): Error.UNKNOWN_TOPIC_OR_PARTITION,
    }


def test_rule_09_the_bad_record_is_named_by_its_index(wire, topics, name):
    topic = topics.create(name, message_timestamp_before_max_ms=DAY_MS)
    now = int(time.time() * 1000)
    stamps = [now, now - 2 * DAY_MS, now, now - 3 * DAY_MS]
    batch = build_batch([Record(value=b"x", timestamp=t) for t in stamps], timestamp=now)
    answer = produce(wire, topic, batch, version=8)
    assert answer["ErrorCode"] == Error.INVALID_TIMESTAMP
    assert [e["BatchIndex"] for e in answer["RecordErrors"]] == [1, 3]
    assert answer["ErrorMessage"]
    assert end_offset(wire, topic) == 0


def test_rule_10_timestamps_outside_the_bounds_are_refused(wire, topics, name):
    topic = topics.create(name, message_timestamp_before_max_ms=DAY_MS, message_timestamp_after_max_ms=3600 * 1000)
    now = int(time.time() * 1000)
    for stamp, error in [
        (now - DAY_MS - 60_000, Error.INVALID_TIMESTAMP),
        (now + 3600 * 1000 + 60_000, Error.INVALID_TIMESTAMP),
        (now - DAY_MS + 60_000, Error.NONE),
        (now + 3600 * 1000 - 60_000, Error.NONE),
    ]:
        assert produce(wire, topic, build_batch([b"x"], timestamp=stamp))["ErrorCode"] == error


def test_rule_10_the_default_bounds_are_kafkas(wire, topic):
    now = int(time.time() * 1000)
    assert produce(wire, topic, build_batch([b"x"], timestamp=0))["ErrorCode"] == Error.NONE
    assert produce(wire, topic, build_batch([b"x"], timestamp=now + 7200 * 1000))["ErrorCode"] == Error.INVALID_TIMESTAMP


def test_rule_10_a_client_may_not_claim_log_append_time(wire, topics, topic, name):
    batch = build_batch([b"x"], attributes=LOG_APPEND_TIME)
    stamped = topics.create(name + "-stamped", message_timestamp_type="LogAppendTime")
    assert produce(wire, stamped, batch)["ErrorCode"] == Error.INVALID_TIMESTAMP
    # Under CreateTime Kafka 4.4 takes such a batch but clears the attribute; a refusal keeps the promise too.
    answer = produce(wire, topic, batch)
    if answer["ErrorCode"] == Error.NONE:
        (stored,) = parse_batches(fetch(wire, topic)["Records"])
        assert stored.crc_ok and not stored.attributes & LOG_APPEND_TIME
    else:
        assert answer["ErrorCode"] == Error.INVALID_TIMESTAMP


def test_rule_10_create_time_answers_minus_one(wire, topic):
    answer = produce(wire, topic, build_batch([b"x"], timestamp=1234))
    assert answer["LogAppendTimeMs"] == -1
    (stored,) = parse_batches(fetch(wire, topic)["Records"])
    assert stored.records[0].timestamp == 1234


# ---- 11: one broker never says NOT_LEADER; what it says for a partition that is nowhere must not point to a leader


def test_rule_11_an_unknown_partition_names_no_leader(wire, topic):
    answer = produce(wire, topic, build_batch([b"x"]), partition=5, version=10)
    assert answer["ErrorCode"] == Error.UNKNOWN_TOPIC_OR_PARTITION
    assert answer.get("CurrentLeader", {"LeaderId": -1})["LeaderId"] == -1


# ---- 12: codecs and versions


def test_rule_12_zstd_needs_produce_7_and_fetch_10(wire, topics, name):
    topic = topics.create(name, compression_type="zstd")
    batch = build_batch([b"x" * 100], codec=ZSTD)
    assert produce(wire, topic, batch, version=6)["ErrorCode"] == Error.UNSUPPORTED_COMPRESSION_TYPE
    assert produce(wire, topic, batch, version=7)["ErrorCode"] == Error.NONE
    # Kafka 4.4 no longer refuses an old fetch of such a topic; older brokers do.
    assert fetch(wire, topic, version=9)["ErrorCode"] in (Error.UNSUPPORTED_COMPRESSION_TYPE, Error.NONE)
    assert fetch(wire, topic, version=10)["ErrorCode"] == Error.NONE


@pytest.mark.parametrize("raw", [True, False], ids=["raw", "xerial"])
def test_rule_12_snappy_comes_raw_or_framed(wire, topic, raw):
    batch = build_batch([b"abc" * 50], codec=SNAPPY, snappy_raw=raw)
    answer = produce(wire, topic, batch)
    # Kafka's own decompressor falls back to raw snappy when the framing's magic is missing.
    assert answer["ErrorCode"] == Error.NONE
    (stored,) = parse_batches(fetch(wire, topic)["Records"])
    assert stored.records[0].value == b"abc" * 50


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("version", [3, 5, 7, 8, 9, 12])
def test_rule_12_every_codec_in_every_version(wire, topics, broker, name, codec, version):
    if codec == "zstd" and version < 7:
        pytest.skip("zstd starts at version 7")
    topic = topics.create(name)
    batch = build_batch([Record(b"key", b"value" * 100, [(b"h", b"")])] * 5, codec=CODECS[codec])
    assert produce(wire, topic, batch, version=version)["ErrorCode"] == Error.NONE
    (stored,) = parse_batches(fetch(wire, topic, version=11)["Records"])
    assert stored.crc_ok and stored.codec == CODECS[codec]
    assert [r.offset for r in stored.records] == [0, 1, 2, 3, 4]


def test_rule_12_the_topic_id_names_the_topic_from_version_13(wire, topics, topic):
    topic_id = topics.topic_id(topic)
    answer = produce(wire, None, build_batch([b"x"]), version=13, topic_id=topic_id)
    assert (answer["ErrorCode"], answer["BaseOffset"]) == (Error.NONE, 0)


def test_a_magic_of_old_kafka_is_refused(broker, topic):
    # Formats v0 and v1 went with Kafka 4.0.
    with Connection(broker.address) as connection:
        try:
            answer = produce(connection, topic, build_batch([b"x"], magic=1))
        except Disconnected:
            return
        assert answer["ErrorCode"] in (Error.INVALID_RECORD, Error.CORRUPT_MESSAGE)


# ---- What costs others nothing: refusals before a batch has its place


def test_internal_topics_take_no_records_from_clients(wire, name):
    find_coordinator(wire, name)
    answer = produce(wire, "__consumer_offsets", build_batch([Record(b"x", b"y")]))
    assert answer["ErrorCode"] == Error.INVALID_TOPIC_EXCEPTION


def test_a_batch_that_the_journal_cannot_hold_is_too_large_and_costs_nothing(broker, start_broker):
    if not broker.is_tidelog:
        pytest.skip("Apache Kafka has no journal")
    broker = start_broker({"journal.file.bytes": 1 << 20, "journal.files.min": 2})
    with Connection(broker.address) as connection:
        create_topic(connection, "large", configs={"max.message.bytes": "20000000"})
        assert produce(connection, "large", build_batch([b"x" * 3_000_000]))["ErrorCode"] == Error.MESSAGE_TOO_LARGE
        assert produce(connection, "large", build_batch([b"x"]))["BaseOffset"] == 0


def test_the_longest_topic_name_keeps_its_records(start_broker):
    broker = start_broker()
    longest = "n" * 249
    for round in range(3):
        with Connection(broker.address) as connection:
            if round == 0:
                create_topic(connection, longest)
            # Enough for files of its own.
            assert produce(connection, longest, build_batch([b"x" * 100_000]))["BaseOffset"] == round
        broker.stop()
        broker.start()
    with Connection(broker.address) as connection:
        assert list_offset(connection, longest, -1)["Offset"] == 3
        assert fetch(connection, longest, offset=0)["ErrorCode"] == Error.NONE
