"""Rules 22 to 25 of the protocol reference: where a partition begins and ends, and under which leader."""

import pytest

from wire import Error, Record, build_batch, parse_batches
from wire.calls import (
    EARLIEST,
    EARLIEST_LOCAL,
    LATEST,
    LATEST_TIERED,
    MAX_TIMESTAMP,
    delete_records,
    fetch,
    list_offset,
    metadata,
    produce,
)


def leader_epoch(connection, topic):
    return metadata(connection, topic)["Partitions"][0]["LeaderEpoch"]


def found(answer):
    assert answer["ErrorCode"] == Error.NONE, answer
    return answer["Offset"], answer["Timestamp"]


@pytest.fixture
def stamped(wire, topic):
    """Offsets 0 to 6 with the timestamps 100 200 300 | 900 400 | 500 600."""
    for stamps in ([100, 200, 300], [900, 400], [500, 600]):
        produce(wire, topic, build_batch([Record(value=b"x", timestamp=t) for t in stamps], timestamp=stamps[0]))
    return topic


# ---- 22: ListOffsets


@pytest.mark.parametrize("isolation", [0, 1])
def test_rule_22_earliest_and_latest(wire, topic, isolation):
    assert list_offset(wire, topic, LATEST, isolation=isolation)["Offset"] == 0
    assert list_offset(wire, topic, EARLIEST, isolation=isolation)["Offset"] == 0
    produce(wire, topic, build_batch([b"x"] * 5))
    delete_records(wire, topic, 2)
    assert found(list_offset(wire, topic, LATEST, isolation=isolation)) == (5, -1)
    assert found(list_offset(wire, topic, EARLIEST, isolation=isolation)) == (2, -1)


def test_rule_22_a_timestamp_finds_the_first_record_at_or_after_it(wire, stamped):
    for asked, expected in [(0, (0, 100)), (100, (0, 100)), (101, (1, 200)), (300, (2, 300)), (301, (3, 900)), (900, (3, 900))]:
        assert found(list_offset(wire, stamped, asked)) == expected, asked


def test_rule_22_a_timestamp_after_everything_finds_nothing(wire, stamped):
    assert found(list_offset(wire, stamped, 901)) == (-1, -1)


def test_rule_22_the_greatest_timestamp(wire, topic, topics, name):
    assert found(list_offset(wire, topic, MAX_TIMESTAMP)) == (-1, -1)
    for stamps in ([100, 900, 300], [500], [900, 1]):
        produce(wire, topic, build_batch([Record(value=b"x", timestamp=t) for t in stamps], timestamp=stamps[0]))
    assert found(list_offset(wire, topic, MAX_TIMESTAMP)) == (1, 900)


def test_rule_22_compressed_batches_are_searched_inside(wire, topic):
    stamps = [100, 200, 300, 400]
    produce(wire, topic, build_batch([Record(value=b"x", timestamp=t) for t in stamps], timestamp=100, codec=4))
    assert found(list_offset(wire, topic, 250)) == (2, 300)


def test_rule_22_no_remote_storage(wire, stamped):
    assert list_offset(wire, stamped, EARLIEST_LOCAL, version=9)["Offset"] == 0
    assert list_offset(wire, stamped, LATEST_TIERED, version=9)["Offset"] == -1


@pytest.mark.parametrize("version", range(1, 11))
def test_rule_22_every_version(wire, stamped, version):
    assert list_offset(wire, stamped, LATEST, version=version)["Offset"] == 7
    assert list_offset(wire, stamped, 301, version=version)["Offset"] == 3


def test_rule_22_unknown_partitions(wire, topic, name):
    assert list_offset(wire, topic, LATEST, partition=9)["ErrorCode"] == Error.UNKNOWN_TOPIC_OR_PARTITION
    assert list_offset(wire, name + "-none", LATEST)["ErrorCode"] == Error.UNKNOWN_TOPIC_OR_PARTITION


# ---- 23: leader epochs


def test_rule_23_the_epoch_is_in_metadata_batches_and_offsets(wire, topic):
    produce(wire, topic, build_batch([b"x"]))
    epoch = leader_epoch(wire, topic)
    assert epoch >= 0
    (batch,) = parse_batches(fetch(wire, topic)["Records"])
    assert batch.leader_epoch == epoch
    assert list_offset(wire, topic, LATEST)["LeaderEpoch"] == epoch
    assert list_offset(wire, topic, 0)["LeaderEpoch"] == epoch


def test_rule_23_another_epoch_is_fenced_or_unknown(wire, topic):
    # A fresh Kafka partition has epoch 0, below which there is only -1, which means: do not check.
    epoch = leader_epoch(wire, topic)
    for asked, error in [(epoch, Error.NONE), (epoch + 1, Error.UNKNOWN_LEADER_EPOCH), (-1, Error.NONE)]:
        assert fetch(wire, topic, epoch=asked)["ErrorCode"] == error
        assert list_offset(wire, topic, LATEST, epoch=asked)["ErrorCode"] == error
    if epoch > 0:
        assert fetch(wire, topic, epoch=epoch - 1)["ErrorCode"] == Error.FENCED_LEADER_EPOCH
        assert list_offset(wire, topic, LATEST, epoch=epoch - 1)["ErrorCode"] == Error.FENCED_LEADER_EPOCH


# ---- 24: OffsetForLeaderEpoch


def end_of_epoch(connection, topic, asked, current=-1, partition=0, version=4):
    response = connection.call(
        "OffsetForLeaderEpoch", version, **({"ReplicaId": -1} if version >= 3 else {}),
        Topics=[{"Topic": topic, "Partitions": [
            {"Partition": partition, "CurrentLeaderEpoch": current, "LeaderEpoch": asked}]}],
    )  # fmt: skip
    return response["Topics"][0]["Partitions"][0]


def test_rule_24_the_current_epoch_ends_at_the_end(wire, topic):
    epoch = leader_epoch(wire, topic)
    produce(wire, topic, build_batch([b"x"] * 3))
    for version in (2, 3, 4):
        answer = end_of_epoch(wire, topic, epoch, version=version)
        assert (answer["ErrorCode"], answer["LeaderEpoch"], answer["EndOffset"]) == (Error.NONE, epoch, 3)


def test_rule_24_what_is_not_known_is_minus_one(wire, topic):
    epoch = leader_epoch(wire, topic)
    produce(wire, topic, build_batch([b"x"] * 3))
    future = end_of_epoch(wire, topic, epoch + 10)
    assert (future["ErrorCode"], future["LeaderEpoch"], future["EndOffset"]) == (Error.NONE, -1, -1)
    assert end_of_epoch(wire, topic, epoch, current=epoch + 1)["ErrorCode"] == Error.UNKNOWN_LEADER_EPOCH
    assert end_of_epoch(wire, topic, epoch, partition=9)["ErrorCode"] == Error.UNKNOWN_TOPIC_OR_PARTITION


def test_rule_24_a_fetch_that_diverged_is_told_where(wire, topic):
    epoch = leader_epoch(wire, topic)
    produce(wire, topic, build_batch([b"x"] * 3))
    body = {"Partition": 0, "FetchOffset": 5, "LastFetchedEpoch": epoch, "PartitionMaxBytes": 1000}
    answer = wire.call("Fetch", 12, MaxWaitMs=0, MinBytes=1, Topics=[{"Topic": topic, "Partitions": [body]}])
    partition = answer["Responses"][0]["Partitions"][0]
    assert partition["ErrorCode"] == Error.NONE
    assert (partition["DivergingEpoch"]["Epoch"], partition["DivergingEpoch"]["EndOffset"]) == (epoch, 3)


# ---- 25: DeleteRecords


def test_rule_25_the_low_watermark_is_answered(wire, topic):
    produce(wire, topic, build_batch([b"x"] * 5))
    answer = delete_records(wire, topic, 3)
    assert (answer["ErrorCode"], answer["LowWatermark"]) == (Error.NONE, 3)
    assert list_offset(wire, topic, EARLIEST)["Offset"] == 3
    # It never goes back, and asking again is no error.
    assert delete_records(wire, topic, 1)["LowWatermark"] == 3
    assert list_offset(wire, topic, EARLIEST)["Offset"] == 3


@pytest.mark.parametrize("version", [0, 1, 2])
def test_rule_25_minus_one_is_the_high_watermark(wire, topic, version):
    produce(wire, topic, build_batch([b"x"] * 5))
    assert delete_records(wire, topic, -1, version=version)["LowWatermark"] == 5
    assert fetch(wire, topic, offset=5)["LogStartOffset"] == 5
    assert produce(wire, topic, build_batch([b"x"]))["BaseOffset"] == 5


def test_rule_25_beyond_the_high_watermark_is_out_of_range(wire, topic):
    produce(wire, topic, build_batch([b"x"] * 5))
    for offset in (6, 1000, -2):
        assert delete_records(wire, topic, offset)["ErrorCode"] == Error.OFFSET_OUT_OF_RANGE
    assert delete_records(wire, topic, 0, partition=9)["ErrorCode"] == Error.UNKNOWN_TOPIC_OR_PARTITION
    assert list_offset(wire, topic, EARLIEST)["Offset"] == 0


def test_rule_25_compacted_topics_refuse(wire, topics, name):
    topics.create(name, cleanup_policy="compact")
    assert delete_records(wire, name, 0)["ErrorCode"] == Error.POLICY_VIOLATION


def test_rule_25_internal_topics_refuse(wire, name):
    from wire.calls import find_coordinator

    find_coordinator(wire, name)
    answer = delete_records(wire, "__consumer_offsets", 0)
    assert answer["ErrorCode"] == Error.INVALID_TOPIC_EXCEPTION
