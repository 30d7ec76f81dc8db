"""One set of scenarios, driven by every client library: what its users do all day, and what it is told when it may not.

What a client cannot do is skipped with its reason (`Client.lacks`). What is stored is checked on the wire, so that a
client which reads its own mistakes back is found out.
"""

import time

import pytest

from clients import ALL, ClientError, Rec
from clients.base import BEGINNING, END
from wire import Connection, Error, Record, build_batch, parse_batches
from wire.batch import CODECS
from wire.calls import committed, describe_group, fetch, list_offset, produce

MAX_MESSAGE_BYTES = 1_048_588


@pytest.fixture(scope="session")
def clients(broker):
    """One adapter of each kind, started when first asked for."""
    started = {}

    def get(name):
        if name not in started:
            started[name] = ALL[name](broker.address)
        return started[name]

    yield get
    for client in started.values():
        client.close()


@pytest.fixture(params=list(ALL))
def client(request, clients):
    return clients(request.param)


def needs(client, *features):
    for feature in features:
        if feature in client.lacks:
            pytest.skip(client.lacks[feature])


def eventually(condition, timeout_s=30, what="condition"):
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if result := condition():
            return result
        time.sleep(0.05)
    raise AssertionError(f"not within {timeout_s} s: {what}")


def told(call, *args, **kwargs):
    """The code of the error that a call must end with."""
    with pytest.raises(ClientError) as caught:
        call(*args, **kwargs)
    return caught.value.code


def mixed_records(client, now):
    """Everything a record can be: keys and values absent, empty, binary; headers repeated, absent, empty."""
    no_value = [] if "null_header" in client.lacks else [("n", None)]
    return [
        Rec(b"plain", b"key", [], now),
        Rec(None, b"tombstone", [], now + 1),
        Rec(b"no key", None, [], now + 2),
        Rec(b"", b"empty value", [], now + 3),
        Rec(bytes(range(256)), bytes(range(255, -1, -1)), [("b", bytes(range(256)))], now + 4),
        Rec(b"headers", b"h", [("a", b"1"), ("a", b"2"), ("a", b"1"), ("e", b""), *no_value], now + 5),
        Rec(b"long" * 5000, "schlüssel \u2603".encode(), [("trace-id", b"x" * 300)], now + 6),
    ]


# ---- records


@pytest.mark.parametrize("codec", CODECS)
def test_records_come_back_as_they_were_sent(client, topic, wire, codec):
    if codec not in client.codecs:
        pytest.skip(f"{client.name} has no {codec}")
    now = int(time.time() * 1000)
    records = mixed_records(client, now)
    acks = client.produce(topic, records, codec=codec)
    assert [a.offset for a in acks] == list(range(len(records)))
    back = client.read(topic, BEGINNING, len(records))
    assert [r.content() for r in back] == [r.content() for r in records]
    assert [(r.timestamp, r.offset) for r in back] == [(now + i, i) for i in range(len(records))]
    stored = parse_batches(fetch(wire, topic)["Records"])
    assert {b.codec for b in stored} <= {CODECS[codec], 0} and CODECS[codec] in {b.codec for b in stored}
    assert all(b.crc_ok for b in stored)


def test_every_codec_of_others_is_read(client, topic, wire):
    expected = []
    for codec in CODECS:
        for raw in (True, False) if codec == "snappy" else (False,):
            value = b"written by hand with %s" % codec.encode() * 20
            record = Record(b"k", value, [(b"h", b"1"), (b"h", b"2")])
            assert produce(wire, topic, build_batch([record, record], codec=CODECS[codec], snappy_raw=raw))["ErrorCode"] == 0
            expected += [value] * 2
    back = client.read(topic, BEGINNING, len(expected))
    assert [r.value for r in back] == expected
    assert all([v for _, v in r.headers] == [b"1", b"2"] for r in back)


def test_reading_from_offset_timestamp_and_end(client, topic, wire):
    for n in range(10):
        produce(wire, topic, build_batch([Record(value=b"%d" % n)], timestamp=1_000_000 + n * 1000))
    assert [r.offset for r in client.read(topic, 4, 6)] == [4, 5, 6, 7, 8, 9]
    assert [r.offset for r in client.read(topic, ("timestamp", 1_006_500), 3)] == [7, 8, 9]
    with client.reader(topic, END) as reader:
        seen = []
        for n in range(100):
            produce(wire, topic, build_batch([b"late %d" % n]))
            if seen := reader.poll(10, 0.3):
                break
        assert seen and all(r.offset >= 10 and r.value.startswith(b"late") for r in seen)


def test_reading_goes_on_over_the_end(client, topic, wire):
    produce(wire, topic, build_batch([b"first"]))
    with client.reader(topic, BEGINNING) as reader:
        assert [r.value for r in client.collect(reader, 1)] == [b"first"]
        produce(wire, topic, build_batch([b"second"]))
        assert [r.value for r in client.collect(reader, 1)] == [b"second"]


@pytest.mark.parametrize("acks", [0, 1, -1])
def test_acks(client, topic, wire, acks):
    client.produce(topic, [Rec(b"x", timestamp=1000 + n) for n in range(5)], acks=acks)
    eventually(lambda: list_offset(wire, topic, -1)["Offset"] == 5, 10)


def test_an_idempotent_producer_numbers_its_batches(client, topic, wire):
    acks = client.produce(topic, [Rec(b"%d" % n) for n in range(20)], idempotent=True)
    assert [a.offset for a in acks] == list(range(20))
    stored = parse_batches(fetch(wire, topic)["Records"])
    assert all(b.producer_id >= 0 for b in stored)
    sequences = [b.base_sequence + i for b in stored for i in range(len(b.records))]
    assert sequences == list(range(20))


def test_many_partitions_at_once(client, topics, name):
    topics.create(name, partitions=8)
    records = [Rec(b"%d" % n, partition=n % 8) for n in range(80)]
    acks = client.produce(name, records)
    assert [a.partition for a in acks] == [n % 8 for n in range(80)]
    for partition in range(8):
        values = [r.value for r in client.read(name, BEGINNING, 10, partition=partition)]
        assert values == [b"%d" % n for n in range(partition, 80, 8)]


def test_a_record_just_under_the_limit_passes(client, topic):
    value = bytes(MAX_MESSAGE_BYTES - 200)
    assert client.produce(topic, [Rec(value)], max_bytes=4 << 20)[0].offset == 0
    assert client.read(topic, BEGINNING, 1)[0].value == value


def test_a_record_just_over_the_limit_is_too_large(client, topic, wire):
    assert told(client.produce, topic, [Rec(bytes(MAX_MESSAGE_BYTES))], max_bytes=4 << 20) == Error.MESSAGE_TOO_LARGE
    assert list_offset(wire, topic, -1)["Offset"] == 0


def test_producing_creates_the_topic(client, name):
    # The client asks for metadata, is told that the topic is not there yet, and asks again.
    assert client.produce(name + "-auto", [Rec(b"x")])[0].offset == 0
    assert name + "-auto" in client.list_topics()


# ---- groups


def fill(wire, topic, partitions, tag, each=10):
    """`each` records into every partition; returns their values."""
    values = []
    for partition in range(partitions):
        batch = [b"%s-%d-%d" % (tag, partition, n) for n in range(each)]
        assert produce(wire, topic, build_batch(batch), partition=partition)["ErrorCode"] == Error.NONE
        values += batch
    return values


def values_of(*members):
    return sorted(v for m in members for _, _, v in m.received())


def test_members_come_and_go(client, topics, wire, name):
    topic = topics.create(name, partitions=6)
    sent = fill(wire, topic, 6, b"first")
    first = client.member(name, topic, commit_metadata="by the first")
    eventually(lambda: values_of(first) == sorted(sent), what="one member reads everything")
    assert first.assignment() == [0, 1, 2, 3, 4, 5]

    second = client.member(name, topic)
    eventually(
        lambda: second.assignment() and sorted(first.assignment() + second.assignment()) == [0, 1, 2, 3, 4, 5],
        what="two members share",
    )
    sent += fill(wire, topic, 6, b"second")
    eventually(lambda: len(values_of(first, second)) >= len(sent), what="both read on")
    assert {o for _, o, _ in second.received()} == set(range(10, 20)), "the second begins where the first committed"

    second.stop()
    eventually(lambda: first.assignment() == [0, 1, 2, 3, 4, 5], what="the first has everything again")
    sent += fill(wire, topic, 6, b"third")
    eventually(lambda: len(values_of(first, second)) >= len(sent), what="the first reads the rest")
    first.stop()

    assert values_of(first, second) == sorted(sent), "each record exactly once"
    assert all(committed(wire, name, topic, partition=p)[0] == 30 for p in range(6))
    assert describe_group(wire, name)["GroupState"] == "Empty"

    # A third goes on where the others stopped.
    more = fill(wire, topic, 6, b"fourth", each=1)
    third = client.member(name, topic)
    eventually(lambda: len(values_of(third)) >= len(more), what="the third goes on")
    third.stop()
    assert values_of(third) == sorted(more)


def test_cooperative_members_keep_what_they_have(client, topics, wire, name):
    if client.name not in ("confluent", "java"):
        pytest.skip("only librdkafka and the Java client have the cooperative assignor")
    topic = topics.create(name, partitions=6)
    sent = fill(wire, topic, 6, b"a")
    members = [client.member(name, topic, strategy="cooperative-sticky")]
    eventually(lambda: values_of(*members) == sorted(sent), what="one member reads everything")
    members.append(client.member(name, topic, strategy="cooperative-sticky"))
    eventually(lambda: [len(m.assignment()) for m in members] == [3, 3], what="half each")
    kept = members[0].assignment()
    sent += fill(wire, topic, 6, b"b")
    eventually(lambda: len(values_of(*members)) >= len(sent), what="both read on")
    members[1].stop()
    eventually(lambda: len(members[0].assignment()) == 6, what="the first takes over")
    assert set(kept) <= set(members[0].assignment())
    sent += fill(wire, topic, 6, b"c")
    eventually(lambda: len(values_of(*members)) >= len(sent), what="the first reads the rest")
    members[0].stop()
    assert values_of(*members) == sorted(sent)


def test_a_static_member_comes_back_without_a_rebalance(client, topics, wire, name):
    needs(client, "static")
    topic = topics.create(name, partitions=4)
    stays = client.member(name, topic, instance="stays")
    goes = client.member(name, topic, instance="goes")
    eventually(lambda: len(stays.assignment()) == len(goes.assignment()) == 2, what="two each")
    before, generation = goes.assignment(), _generation(wire, name)
    goes.stop()
    sent = fill(wire, topic, 4, b"while away")
    back = client.member(name, topic, instance="goes")
    eventually(lambda: back.assignment() == before, what="the same partitions again")
    eventually(lambda: len(values_of(stays, goes, back)) >= len(sent), what="everything read")
    assert {m["GroupInstanceId"] for m in describe_group(wire, name)["Members"]} == {"stays", "goes"}
    assert _generation(wire, name) == generation, "nobody rebalanced"
    stays.stop()
    back.stop()


def _generation(wire, group):
    """Changes with every rebalance: a member's assignment is made for one generation."""
    return sorted((m["GroupInstanceId"], m["MemberAssignment"]) for m in describe_group(wire, group)["Members"])


def test_commits_carry_offset_and_metadata(client, topic, wire, name):
    assert client.committed(name, topic, 0) == (-1, "")
    member = client.member(name, topic, commit_metadata="noted")
    produce(wire, topic, build_batch([b"x"] * 3))
    eventually(lambda: len(member.received()) == 3, what="three records")
    eventually(lambda: committed(wire, name, topic)[0] == 3, what="the commit")
    member.stop()
    offset, metadata, code = committed(wire, name, topic)
    # confluent-kafka sends the text's closing NUL as part of it now and then, also to Apache Kafka.
    assert (offset, metadata.rstrip("\0"), code) == (3, "noted", Error.NONE)
    assert client.committed(name, topic, 0) == (3, "noted")


def test_commits_without_membership(client, topic, wire, name):
    client.commit(name, topic, 0, 7)
    assert committed(wire, name, topic)[0] == 7
    client.commit(name, topic, 0, 3)
    assert client.committed(name, topic, 0)[0] == 3


# ---- administration


def test_topics_are_made_grown_and_removed(client, topics, wire, name):
    client.create_topic(name, 2, configs={"retention.ms": "123000", "cleanup.policy": "delete"})
    topics.wait_until_led(name, 2)
    assert name in client.list_topics()
    client.create_partitions(name, 5)
    topics.wait_until_led(name, 5)
    config = client.topic_config(name)
    assert config["retention.ms"] == "123000" and config["segment.bytes"] == "1073741824"
    client.delete_topic(name)
    eventually(lambda: topics.metadata(name)["ErrorCode"] == Error.UNKNOWN_TOPIC_OR_PARTITION, 10)
    eventually(lambda: name not in client.list_topics(), 10)


def test_settings_are_changed(client, topics, name):
    topics.create(name, segment_ms=77000)
    client.set_config(name, "retention.ms", "55000")
    eventually(lambda: client.topic_config(name)["retention.ms"] == "55000", 10)
    kept = "604800000" if "incremental_configs" in client.lacks else "77000"
    assert client.topic_config(name)["segment.ms"] == kept


def test_records_are_deleted(client, topic, wire):
    produce(wire, topic, build_batch([b"x"] * 10))
    client.delete_records(topic, 0, 6)
    assert list_offset(wire, topic, -2)["Offset"] == 6
    assert client.read(topic, BEGINNING, 1)[0].offset == 6


def test_groups_are_listed_described_and_deleted(client, topic, wire, name):
    member = client.member(name, topic)
    produce(wire, topic, build_batch([b"x"]))
    eventually(lambda: len(member.received()) == 1, what="a record")
    assert name in client.list_groups()
    assert client.describe_group(name) == ("Stable", 1)
    if "delete_group" not in client.lacks:
        assert told(client.delete_group, name) == Error.NON_EMPTY_GROUP
    member.stop()
    eventually(lambda: client.describe_group(name) == ("Empty", 0), 10)
    needs(client, "delete_group")
    client.delete_group(name)
    assert name not in client.list_groups()
    assert told(client.delete_group, name) == Error.GROUP_ID_NOT_FOUND


# ---- what a client is told


def test_creating_what_cannot_be(client, topic, name):
    for error, arguments in [
        (Error.TOPIC_ALREADY_EXISTS, (topic,)),
        (Error.INVALID_TOPIC_EXCEPTION, ("not/a/name",)),
        (Error.INVALID_PARTITIONS, (name + "-a", 0)),
        (Error.INVALID_REPLICATION_FACTOR, (name + "-b", 1, 3)),
        (Error.INVALID_CONFIG, (name + "-c", 1, 1, {"retention.ms": "soon"})),
        (Error.INVALID_CONFIG, (name + "-d", 1, 1, {"no.such.setting": "1"})),
    ]:
        assert told(client.create_topic, *arguments) in (error, client_side(client, error)), arguments


def client_side(client, error):
    """librdkafka refuses some things itself and then has no code of the broker's to show."""
    return None if client.name == "confluent" and error == Error.INVALID_PARTITIONS else error


def test_changing_what_is_not_there(client, topic, name):
    assert told(client.delete_topic, name + "-none") == Error.UNKNOWN_TOPIC_OR_PARTITION
    assert told(client.create_partitions, name + "-none", 3) == Error.UNKNOWN_TOPIC_OR_PARTITION
    assert told(client.create_partitions, topic, 1) == Error.INVALID_PARTITIONS
    assert told(client.set_config, topic, "retention.ms", "never") == Error.INVALID_CONFIG
    assert told(client.delete_records, topic, 0, 99) == Error.OFFSET_OUT_OF_RANGE


def test_producing_to_a_name_that_cannot_be(client):
    # Most clients learn it from the metadata; some do not ask the broker first, and aiokafka calls it unknown.
    told_codes = (Error.INVALID_TOPIC_EXCEPTION, Error.UNKNOWN_TOPIC_OR_PARTITION, None)
    assert told(client.produce, "not a name", [Rec(b"x")]) in told_codes


def test_an_offset_out_of_range_is_told_or_reset(client, topic, wire):
    produce(wire, topic, build_batch([b"x"] * 5))
    client.delete_records(topic, 0, 2)
    if "reset_none" not in client.lacks:
        with client.reader(topic, 0, reset=None) as reader:
            code = None
            try:
                client.collect(reader, 1, 10)
            except ClientError as error:
                code = error.code
            assert code == Error.OFFSET_OUT_OF_RANGE
    assert client.read(topic, 0, 1, reset="earliest")[0].offset == 2


def test_a_stranger_may_not_commit_into_a_live_group(client, topic, wire, name):
    member = client.member(name, topic)
    produce(wire, topic, build_batch([b"x"]))
    eventually(lambda: len(member.received()) == 1, what="a record")
    code = told(client.commit, name, topic, 0, 0)
    assert code in (Error.UNKNOWN_MEMBER_ID, None)
    assert committed(wire, name, topic)[0] == 1
    member.stop()


def test_metadata_that_is_too_long_is_refused(client, topic, name):
    needs(client, "commit_outside")
    assert told(client.commit, name, topic, 0, 1, "x" * 4097) in (Error.OFFSET_METADATA_TOO_LARGE, None)


def test_a_member_whose_session_ended_is_fenced(client, broker, topic, wire, name):
    """Another member with the same instance id takes over; the former one must end with an error, not go on."""
    needs(client, "static")
    first = client.member(name, topic, instance="one")
    produce(wire, topic, build_batch([b"x"]))
    eventually(lambda: len(first.received()) == 1, what="a record")
    second = client.member(name, topic, instance="one")
    with Connection(broker.address) as connection:
        eventually(lambda: second.assignment() == [0], what="the second takes over")
        produce(connection, topic, build_batch([b"y"]))
    eventually(lambda: b"y" in values_of(second), what="the second reads on")
    second.stop()
    # aiokafka's old OffsetCommit cannot say which instance it is, so there it is merely an unknown member.
    with pytest.raises(Exception, match="(?i)fenced|instance|CommitFailed"):
        first.stop()
