"""Rules 26, 29 and 30 of the protocol reference, and its section 1.3: order, versions, addresses, hostile frames."""

import struct
import time

import pytest

from wire import Connection, Error, build_batch
from wire.calls import (
    create_topic,
    fetch_body,
    fetch_partition,
    find_coordinator,
    metadata,
    produce,
    produce_body,
    versions_of,
)

# ---- 26: answers in the order of the requests


def test_rule_26_answers_come_in_the_order_of_the_requests(wire, topic):
    expected = []
    for n in range(30):
        expected.append(wire.send("Produce", 9, **produce_body(topic, build_batch([b"%d" % n]))))
        expected.append(wire.send("Metadata", 12, Topics=[{"Name": topic}]))
        expected.append(wire.send("Fetch", 12, **fetch_body(topic, [fetch_partition()], max_wait_ms=5)))
    answers = [wire.receive() for _ in expected]
    assert [correlation_id for correlation_id, _ in answers] == expected
    offsets = [a["Responses"][0]["PartitionResponses"][0]["BaseOffset"] for _, a in answers[::3]]
    assert offsets == list(range(30)), "appended in the order in which they were sent"


def test_rule_26_a_parked_fetch_answers_before_what_follows_it(broker, wire, topic):
    with Connection(broker.address) as connection:
        parked = connection.send("Fetch", 12, **fetch_body(topic, [fetch_partition()], max_wait_ms=700))
        behind = connection.send("Metadata", 12, Topics=[{"Name": topic}])
        assert connection.silent_for(0.3), "nothing may overtake the parked fetch"
        assert [connection.receive()[0] for _ in range(2)] == [parked, behind]


# ---- 29 and 30


def test_rule_29_the_controller_of_the_metadata_takes_admin_requests(wire, broker, name):
    everything = wire.call("Metadata", 12, Topics=[])
    nodes = {b["NodeId"]: f"{b['Host']}:{b['Port']}" for b in everything["Brokers"]}
    assert everything["ControllerId"] in nodes
    with Connection(nodes[everything["ControllerId"]]) as controller:
        assert create_topic(controller, name)["ErrorCode"] == Error.NONE


@pytest.fixture(scope="module")
def two_listeners(start_broker):
    broker = start_broker(listeners={"PLAINTEXT": ("127.0.0.1", "127.0.0.1"), "INSIDE": ("127.0.0.1", "localhost")})
    yield broker
    broker.stop()


def test_rule_30_addresses_are_those_of_the_listener_one_came_in_on(two_listeners, name):
    seen = {}
    for listener, address in two_listeners.bound.items():
        with Connection(address) as connection:
            brokers = connection.call("Metadata", 12, Topics=[])["Brokers"]
            cluster = connection.call("DescribeCluster", 1)["Brokers"]
            coordinator = find_coordinator(connection, name)
            seen[listener] = {f"{b['Host']}:{b['Port']}" for b in [*brokers, *cluster, coordinator]}
    assert seen == {listener: {address} for listener, address in two_listeners.advertised.items()}


# ---- 1.3: versions


@pytest.mark.parametrize("version", range(4))
def test_api_versions_answers_every_version_with_a_plain_header(wire, version):
    more = {"ClientSoftwareName": "tests", "ClientSoftwareVersion": "1"} if version >= 3 else {}
    answer = wire.call("ApiVersions", version, **more)
    assert answer["ErrorCode"] == Error.NONE and answer["ApiKeys"]


def test_a_newer_api_versions_request_is_answered_with_version_0(broker, wire):
    with Connection(broker.address) as connection:
        # Version 99 with a body that no known version has.
        header = struct.pack(">hhih", 18, 99, 5, -1) + b"\0"
        body = header + b"\xff\xff\xff\xff\xff"
        connection.send_raw(struct.pack(">i", len(body)) + body)
        answer = connection.decode("ApiVersions", 0, connection.receive_frame(5))
        assert answer["ErrorCode"] == Error.UNSUPPORTED_VERSION
        assert [k["ApiKey"] for k in answer["ApiKeys"]] == [18]
        (key,) = answer["ApiKeys"]
        assert (key["MinVersion"], key["MaxVersion"]) == versions_of(wire)[18]
        # The connection stays: the client asks again with what it learned.
        assert versions_of(connection)


@pytest.mark.parametrize("software", ["", "-x", "a b", "x" * 3 + "!"])
def test_client_software_names_are_checked(broker, software):
    with Connection(broker.address) as connection:
        answer = connection.call("ApiVersions", 3, ClientSoftwareName=software, ClientSoftwareVersion="1")
        assert answer["ErrorCode"] == Error.INVALID_REQUEST


def test_old_clients_find_the_minimum_versions_they_look_for(wire):
    versions = versions_of(wire)
    # librdkafka before 2.11 switches features off when these are higher (reference 1.3, rule 4 and 6).
    for key, minimum in {0: 0, 11: 0, 1: 4, 2: 1, 8: 2, 9: 1, 19: 2, 20: 1, 23: 2, 32: 1, 3: 0, 10: 0, 18: 0, 22: 0}.items():
        assert versions[key][0] <= minimum, f"api {key}"


def test_what_is_advertised_reaches_what_clients_negotiate(wire):
    versions = versions_of(wire)
    # 8 and 9: Kafka has 10, the message codec's requests end at 9.
    wanted = {
        0: 13, 1: 18, 2: 10, 3: 13, 8: 9, 9: 9, 10: 6, 11: 9, 12: 4, 13: 5, 14: 5, 15: 6, 16: 5, 18: 4, 19: 7, 20: 6,
        21: 2, 22: 5, 23: 4, 32: 4, 33: 2, 35: 4, 37: 3, 42: 2, 44: 1, 47: 0, 60: 2, 61: 0, 74: 1, 75: 0,
    }  # fmt: skip
    short = {key: (versions.get(key), top) for key, top in wanted.items() if key not in versions or versions[key][1] < top}
    assert not short


@pytest.mark.parametrize(("api_key", "version"), [(999, 0), (-1, 0), (3, 99), (0, 2), (3, -1), (7, 0)])
def test_an_unknown_api_or_version_closes_the_connection(broker, api_key, version):
    with Connection(broker.address) as connection:
        frame = struct.pack(">hhih", api_key, version, 1, -1) + b"\0" * 16
        connection.send_raw(struct.pack(">i", len(frame)) + frame)
        assert connection.is_closed_within(5)


@pytest.mark.parametrize("body", [b"", b"\0", b"\0\x03\0\x0c", b"\0\x03\0\x0c\0\0\0\x01\xff\xff\0\xff\xff\xff\xff\x7f"])
def test_a_body_that_ends_early_closes_only_its_own_connection(broker, wire, body):
    with Connection(broker.address) as connection:
        connection.send_raw(struct.pack(">i", len(body)) + body)
        assert connection.is_closed_within(5)
    assert wire.call("Metadata", 12, Topics=[])["Brokers"]


def test_bytes_behind_a_request_are_ignored(wire, topic):
    # librdkafka asks for all topics with three bytes too many: its null array is four zero bytes long.
    wire.sent[77] = ("Metadata", 13)
    wire.send_raw(wire.request_bytes("Metadata", 13, 77, b"\0\0\0\0\x01\0\0"))
    correlation_id, answer = wire.receive()
    assert correlation_id == 77 and topic in {t["Name"] for t in answer["Topics"]}


def test_a_frame_may_arrive_byte_by_byte(broker, topic):
    with Connection(broker.address) as connection:
        frame = connection.request_bytes("Metadata", 12, 1, {"Topics": [{"Name": topic}]})
        for byte in frame:
            connection.send_raw(bytes([byte]))
        connection.sent[1] = ("Metadata", 12)
        assert connection.receive()[1]["Topics"][0]["Name"] == topic


def test_a_null_client_id_is_fine(broker, topic):
    with Connection(broker.address) as connection:
        connection.send_raw(connection.request_bytes("Metadata", 12, 1, {"Topics": []}, client_id=None))
        connection.sent[1] = ("Metadata", 12)
        assert connection.receive()[1]["Brokers"]


def test_a_client_that_vanishes_takes_nobody_along(broker, wire, topic):
    for _ in range(20):
        connection = Connection(broker.address)
        connection.send("Fetch", 12, **fetch_body(topic, [fetch_partition()], max_wait_ms=30_000))
        connection.close()
    begun = time.monotonic()
    assert produce(wire, topic, build_batch([b"x"]))["ErrorCode"] == Error.NONE
    assert metadata(wire, topic)["ErrorCode"] == Error.NONE
    assert time.monotonic() - begun < 2
