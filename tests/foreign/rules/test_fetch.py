"""Rules 13 to 21 of the protocol reference: what a fetch returns, when, and what a fetch session remembers.

Not here: aborted transactions (19), for which one needs transactions, and emptied batches of compaction (20): test_compaction.
"""

import time
import uuid

import pytest

from wire import Connection, Error, Record, build_batch, parse_batches
from wire.calls import delete_records, fetch, fetch_body, fetch_partition, produce, produce_body

READ_COMMITTED = 1


def fill(connection, topic, sizes, partition=0, **more):
    for size in sizes:
        assert produce(connection, topic, build_batch([b"x" * size]), partition=partition, **more)["ErrorCode"] == Error.NONE


def offsets_of(data):
    return [r.offset for batch in parse_batches(data["Records"]) for r in batch.records]


def responses(answer):
    return {p["PartitionIndex"]: p for topic in answer["Responses"] for p in topic["Partitions"]}


# ---- 13: at least one whole batch, partitions in order


def test_rule_13_the_first_batch_comes_whole_over_every_limit(wire, topic):
    fill(wire, topic, [50_000, 10])
    assert offsets_of(fetch(wire, topic, partition_max_bytes=1)) == [0]
    assert offsets_of(fetch(wire, topic, partition_max_bytes=1 << 20, max_bytes=1)) == [0]
    assert offsets_of(fetch(wire, topic, partition_max_bytes=1 << 20)) == [0, 1]


def test_rule_13_only_the_first_partition_may_exceed_the_limits(wire, topics, name):
    topic = topics.create(name, partitions=3)
    for partition in (1, 2):
        fill(wire, topic, [50_000], partition)
    # Partition 0 is empty, so the first that has something is the one that may.
    asked = [fetch_partition(p, max_bytes=1000) for p in (0, 1, 2)]
    answer = responses(wire.call("Fetch", 12, **fetch_body(topic, asked, max_bytes=1000)))
    assert {p: offsets_of(data) for p, data in answer.items()} == {0: [], 1: [0], 2: []}


def test_rule_13_partitions_are_served_in_request_order(wire, topics, name):
    topic = topics.create(name, partitions=3)
    for partition in range(3):
        fill(wire, topic, [50_000], partition)
    asked = [fetch_partition(p, max_bytes=60_000) for p in (2, 0, 1)]
    answer = wire.call("Fetch", 12, **fetch_body(topic, asked, max_bytes=60_000))
    order = [p["PartitionIndex"] for t in answer["Responses"] for p in t["Partitions"]]
    assert order == [2, 0, 1]
    assert offsets_of(responses(answer)[2]) == [0]
    assert offsets_of(responses(answer)[0]) == [] and offsets_of(responses(answer)[1]) == []


# ---- 14: whole batches


def test_rule_14_an_offset_inside_a_batch_returns_the_whole_batch(wire, topic):
    produce(wire, topic, build_batch([b"%d" % i for i in range(10)]))
    produce(wire, topic, build_batch([b"next"]))
    for offset in (0, 3, 9):
        assert offsets_of(fetch(wire, topic, offset=offset)) == list(range(11))
    assert offsets_of(fetch(wire, topic, offset=10)) == [10]


# ---- 15: long poll


def elapsed(connection, **body):
    """(seconds, answer) of a fetch."""
    begun = time.monotonic()
    answer = connection.call("Fetch", 12, **body)
    return time.monotonic() - begun, answer


def test_rule_15_an_empty_fetch_waits_max_wait(wire, topic):
    seconds, answer = elapsed(wire, **fetch_body(topic, [fetch_partition()], max_wait_ms=400, min_bytes=1))
    assert 0.35 <= seconds < 3
    assert offsets_of(responses(answer)[0]) == []


def test_rule_15_these_do_not_wait(wire, topic):
    fill(wire, topic, [10])
    end, wait = fetch_partition(offset=1), 8000
    for why, partitions, more in [
        ("max wait 0", [end], {"max_wait_ms": 0}),
        ("min bytes 0", [end], {"max_wait_ms": wait, "min_bytes": 0}),
        ("enough bytes", [fetch_partition()], {"max_wait_ms": wait}),
        ("out of range", [fetch_partition(offset=99)], {"max_wait_ms": wait}),
        ("min bytes above max bytes", [fetch_partition()], {"max_wait_ms": wait, "min_bytes": 1 << 20, "max_bytes": 50}),
    ]:
        seconds, _ = elapsed(wire, **fetch_body(topic, partitions, **more))
        assert seconds < 2, why
    seconds, _ = elapsed(wire, MaxWaitMs=wait, MinBytes=1, Topics=[])
    assert seconds < 2, "no partitions"


def test_rule_15_only_errors_of_the_read_itself_end_the_wait(wire, topics, name):
    """Beside a partition that nobody knows Kafka waits all the same; for that one alone it does not."""
    topic = topics.create(name, partitions=2)
    fill(wire, topic, [10])
    end, unknown = fetch_partition(offset=1), fetch_partition(partition=9)
    for why, partitions, waits in [
        ("unknown partition beside", [end, unknown], True),
        ("out of range beside", [fetch_partition(partition=1, offset=99), end], False),
        ("unknown partition alone", [unknown], False),
    ]:
        seconds, _ = elapsed(wire, **fetch_body(topic, partitions, max_wait_ms=2500, min_bytes=1))
        assert (seconds >= 2.3) == waits, why


def test_rule_15_a_parked_fetch_is_woken_by_the_high_watermark(broker, wire, topic):
    with Connection(broker.address) as waiting:
        waiting.send("Fetch", 12, **fetch_body(topic, [fetch_partition()], max_wait_ms=10_000))
        assert waiting.silent_for(0.2)
        begun = time.monotonic()
        fill(wire, topic, [10])
        answer = waiting.receive()[1]
        assert time.monotonic() - begun < 2
        assert offsets_of(responses(answer)[0]) == [0]


def test_rule_15_a_parked_fetch_collects_min_bytes(broker, wire, topic):
    with Connection(broker.address) as waiting:
        waiting.send("Fetch", 12, **fetch_body(topic, [fetch_partition()], max_wait_ms=10_000, min_bytes=3000))
        fill(wire, topic, [1000, 1000])
        assert waiting.silent_for(0.3)
        fill(wire, topic, [1500])
        assert offsets_of(responses(waiting.receive()[1])[0]) == [0, 1, 2]


# ---- 16 and 17: what is visible, and the three offsets of every answer


def test_rule_16_the_end_is_empty_and_beyond_is_out_of_range(wire, topic):
    fill(wire, topic, [10, 10, 10])
    at_end = fetch(wire, topic, offset=3)
    assert (at_end["ErrorCode"], offsets_of(at_end)) == (Error.NONE, [])
    for offset in (4, 1000, -1):
        assert fetch(wire, topic, offset=offset)["ErrorCode"] == Error.OFFSET_OUT_OF_RANGE


def test_rule_16_below_the_log_start_is_out_of_range(wire, topic):
    fill(wire, topic, [10, 10, 10])
    delete_records(wire, topic, 2)
    assert fetch(wire, topic, offset=1)["ErrorCode"] == Error.OFFSET_OUT_OF_RANGE
    assert offsets_of(fetch(wire, topic, offset=2)) == [2]


@pytest.mark.parametrize("isolation", [0, READ_COMMITTED])
def test_rule_17_every_answer_carries_the_right_offsets(wire, topic, isolation):
    def three(data):
        return data["HighWatermark"], data["LastStableOffset"], data["LogStartOffset"]

    assert three(fetch(wire, topic, isolation=isolation)) == (0, 0, 0)
    fill(wire, topic, [10, 10, 10])
    assert three(fetch(wire, topic, isolation=isolation)) == (3, 3, 0)
    assert three(fetch(wire, topic, offset=3, isolation=isolation)) == (3, 3, 0), "an empty answer too"
    delete_records(wire, topic, 1)
    assert three(fetch(wire, topic, offset=3, isolation=isolation)) == (3, 3, 1)


# ---- 18: fetch sessions


class Session:
    """A fetch session over one connection; if the broker answers with session id 0 it keeps none, which is legal."""

    def __init__(self, connection, topic, partitions, version=12, topic_id=None):
        self.connection, self.topic, self.version, self.topic_id = connection, topic, version, topic_id
        self.epoch = 0
        answer = self.ask(partitions, session_id=0)
        assert answer["ErrorCode"] == Error.NONE
        self.first, self.id = answer, answer["SessionId"]

    def ask(self, partitions, forget=(), session_id=None, epoch=None, **more):
        named = {"TopicId": self.topic_id} if self.topic_id else {"Topic": self.topic}
        body = fetch_body(self.topic, partitions, topic_id=self.topic_id, **more)
        if not partitions:
            body["Topics"] = []
        answer = self.connection.call(
            "Fetch", self.version, **body,
            SessionId=self.id if session_id is None else session_id,
            SessionEpoch=self.epoch if epoch is None else epoch,
            ForgottenTopicsData=[named | {"Partitions": list(forget)}] if forget else [],
        )  # fmt: skip
        if epoch is None and answer["ErrorCode"] == Error.NONE:
            self.epoch += 1
        return answer


@pytest.fixture
def two_partitions(wire, topics, name):
    topic = topics.create(name, partitions=2)
    fill(wire, topic, [10], 0)
    return topic


def test_rule_18_a_session_sends_only_what_changed(wire, two_partitions):
    topic = two_partitions
    session = Session(wire, topic, [fetch_partition(0), fetch_partition(1)])
    assert set(responses(session.first)) == {0, 1}
    if session.id == 0:
        pytest.skip("this broker keeps no fetch sessions, which is legal")
    # Both at their ends: nothing to say.
    assert responses(session.ask([fetch_partition(0, offset=1)])) == {}
    fill(wire, topic, [10], 1)
    answer = session.ask([])
    assert {p: offsets_of(d) for p, d in responses(answer).items()} == {1: [0]}
    # A partition that is not mentioned keeps its fetch offset, so its data comes again until it moves on.
    assert {p: offsets_of(d) for p, d in responses(session.ask([])).items()} == {1: [0]}
    assert responses(session.ask([fetch_partition(1, offset=1)])) == {}


def test_rule_18_forgotten_partitions_are_not_answered(wire, two_partitions):
    topic = two_partitions
    session = Session(wire, topic, [fetch_partition(0), fetch_partition(1)])
    if session.id == 0:
        pytest.skip("this broker keeps no fetch sessions, which is legal")
    session.ask([fetch_partition(0, offset=1)], forget=[1])
    fill(wire, topic, [10], 0)
    fill(wire, topic, [10], 1)
    assert set(responses(session.ask([]))) == {0}


def test_rule_18_wrong_sessions_and_epochs_have_their_errors(wire, two_partitions):
    topic = two_partitions
    session = Session(wire, topic, [fetch_partition(0)])
    unknown = session.ask([fetch_partition(0)], session_id=(session.id ^ 0x5A5A5A) or 1, epoch=1)
    assert unknown["ErrorCode"] == Error.FETCH_SESSION_ID_NOT_FOUND
    if session.id == 0:
        pytest.skip("this broker keeps no fetch sessions, which is legal")
    assert session.ask([], epoch=session.epoch + 5)["ErrorCode"] == Error.INVALID_FETCH_SESSION_EPOCH
    # The session survives a wrong epoch.
    assert session.ask([])["ErrorCode"] == Error.NONE


def test_rule_18_epoch_minus_one_closes_the_session(wire, two_partitions):
    topic = two_partitions
    session = Session(wire, topic, [fetch_partition(0)])
    closing = session.ask([fetch_partition(0)], epoch=-1)
    assert (closing["ErrorCode"], closing["SessionId"]) == (Error.NONE, 0)
    assert set(responses(closing)) == {0}
    if session.id:
        assert session.ask([], epoch=1)["ErrorCode"] == Error.FETCH_SESSION_ID_NOT_FOUND


def test_rule_18_a_session_does_not_switch_from_ids_to_names(wire, topics, two_partitions):
    topic = two_partitions
    session = Session(wire, topic, [fetch_partition(0)], version=13, topic_id=topics.topic_id(topic))
    if session.id == 0:
        pytest.skip("this broker keeps no fetch sessions, which is legal")
    session.version, session.topic_id = 12, None
    assert session.ask([fetch_partition(0)])["ErrorCode"] == Error.FETCH_SESSION_TOPIC_ID_ERROR


def test_rule_18_a_session_reports_a_new_high_watermark_and_log_start(wire, two_partitions):
    topic = two_partitions
    session = Session(wire, topic, [fetch_partition(0, offset=1)])
    if session.id == 0:
        pytest.skip("this broker keeps no fetch sessions, which is legal")
    delete_records(wire, topic, 1)
    answer = responses(session.ask([]))
    assert answer[0]["LogStartOffset"] == 1


# ---- 19 and 20: without transactions there is nothing to say about them


def test_rule_19_no_aborted_transactions_where_there_are_none(wire, topic):
    fill(wire, topic, [10])
    assert not fetch(wire, topic, isolation=READ_COMMITTED)["AbortedTransactions"]
    assert fetch(wire, topic, isolation=0)["AbortedTransactions"] is None


# ---- 21: cut batches


def test_rule_21_only_a_batch_behind_a_whole_one_may_be_cut(wire, topic):
    fill(wire, topic, [10_000, 10_000, 10_000])
    for limit in (100, 10_100, 12_000, 25_000):
        records = fetch(wire, topic, partition_max_bytes=limit)["Records"]
        got = [batch.base_offset for batch in parse_batches(records)]
        assert got == list(range(len(got))) and got, limit
        # What follows the whole ones is the beginning of the next, or nothing.
        assert len(records) <= max(limit, len(build_batch([b"x" * 10_000])))


# ---- topic ids in Fetch (see 33)


def test_rule_33_fetch_by_an_unknown_topic_id(wire):
    nobody = uuid.uuid4()
    answer = wire.call("Fetch", 13, **fetch_body(None, [fetch_partition()], topic_id=nobody))
    (partition,) = answer["Responses"][0]["Partitions"]
    assert partition["ErrorCode"] == Error.UNKNOWN_TOPIC_ID


def test_a_fetch_sees_every_codec_and_version(wire, topics, topic):
    produce(wire, topic, build_batch([Record(b"k", b"v", [(b"h", b"1"), (b"h", b"2")])], codec=2))
    topic_id = topics.topic_id(topic)
    for version in range(4, 19):
        by_id = {"topic_id": topic_id} if version >= 13 else {}
        # The consumer's place for its own replica id moved into a tag at version 15; left out it means a consumer.
        data = fetch(wire, topic if version < 13 else None, version=version, **by_id)
        (batch,) = parse_batches(data["Records"])
        assert batch.records[0].headers == [(b"h", b"1"), (b"h", b"2")], version


def test_two_requests_in_one_write_are_answered_in_turn(wire, topic):
    first = wire.request_bytes("Produce", 9, 901, produce_body(topic, build_batch([b"a"])))
    second = wire.request_bytes("Fetch", 12, 902, fetch_body(topic, [fetch_partition()]))
    wire.sent |= {901: ("Produce", 9), 902: ("Fetch", 12)}
    wire.send_raw(first + second)
    assert [wire.receive()[0] for _ in range(2)] == [901, 902]
