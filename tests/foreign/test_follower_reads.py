"""Consumers that read from the replica in their rack (KIP-392): byte by byte over a socket, and as confluent-kafka and the Java
client do it, with followers that are killed or stand still, leaders that move, and offsets out of range.

The tests over the wire run against three nodes of Apache Kafka as well.
"""

import time
from contextlib import contextmanager

import pytest
from confluent_kafka import Consumer, ElectionType, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from kafka import KafkaAdminClient
from kafka import TopicPartition as Partition

from clients.java import Java
from harness.cluster import (
    IS_TIDELOG,
    PATIENCE_S,
    Load,
    bootstrap,
    check_books,
    create,
    kafka_running,
    live_brokers,
    moved,
    paused,
    placement,
    running,
    until,
)
from wire import Connection, Error, build_batch, parse_batches
from wire.calls import delete_records, fetch, fetch_body, fetch_partition, list_offset, metadata, produce

RACKS = ("a", "b", "c")
SELECTOR = "org.apache.kafka.common.replica.RackAwareReplicaSelector"
LEADER, FOLLOWER = 1, 2
# The first version in which consumers name their rack, and the one before it.
RACK_VERSION, NO_RACK_VERSION = 11, 10
LONG_WAIT = {"max_wait_ms": 8000, "min_bytes": 1 << 20}

only_tidelog = pytest.mark.skipif(not IS_TIDELOG, reason="asks Tidelog's metrics who served what")


@contextmanager
def in_racks(folder, **settings):
    """Three brokers, each in a rack of its own; leaderships go back to nobody by themselves."""
    settings |= {"replica_selector_class": SELECTOR, "auto_leader_rebalance_enable": "false"}
    started = running(folder, 3, racks=RACKS, **settings) if IS_TIDELOG else kafka_running(folder, RACKS, **settings)
    with started as brokers:
        until(lambda: live_brokers(brokers), lambda live: live == [1, 2, 3])
        yield brokers


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """Brokers that tests share: none is stopped."""
    with in_racks(tmp_path_factory.mktemp("racks")) as brokers:
        yield brokers


@pytest.fixture
def cluster(tmp_path):
    """Brokers that the test may hurt."""
    with in_racks(tmp_path) as brokers:
        yield brokers


@pytest.fixture
def wires(three):
    """A connection to each broker, by its id."""
    connections = {number: Connection(broker.address) for number, broker in enumerate(three, 1)}
    yield connections
    for connection in connections.values():
        connection.close()


def create_led(brokers, name, replicas=(1, 2, 3), config=None):
    """A topic of one partition whose first replica leads, with all in sync."""
    create(brokers, name, assignment=[list(replicas)], config=config)

    admin = AdminClient({"bootstrap.servers": bootstrap(brokers)})

    def look():
        found = placement(brokers, name)
        # A broker that has just come back may have been too late to lead at first.
        if found.leader > 0 and found.leader != replicas[0]:
            admin.elect_leaders(ElectionType.PREFERRED, [TopicPartition(name, 0)]).result(PATIENCE_S)
        return found

    until(look, lambda found: found.leader == replicas[0] and sorted(found.isr) == sorted(replicas))
    return name


@pytest.fixture
def topic(three, wires, name):
    """Ten records of which all replicas know that they are committed."""
    create_led(three, name)
    fill(wires[LEADER], name, 10)
    for connection in wires.values():
        known(connection, name, 10)
    return name


def lead(brokers, topic, replicas):
    """Puts the replicas into this order, and lets the first lead."""
    with KafkaAdminClient(bootstrap_servers=[broker.address for broker in brokers]) as client:
        (error,) = client.alter_partition_reassignments({Partition(topic, 0): replicas}).values()
        assert error is None
    moved(brokers, topic, replicas)
    admin = AdminClient({"bootstrap.servers": bootstrap(brokers)})
    admin.elect_leaders(ElectionType.PREFERRED, [TopicPartition(topic, 0)]).result(PATIENCE_S)
    until(lambda: placement(brokers, topic), lambda found: found.leader == replicas[0])


def fill(connection, topic, count):
    for _ in range(count):
        assert produce(connection, topic, build_batch([b"x" * 100]))["ErrorCode"] == Error.NONE


def known(connection, topic, high_watermark):
    """Waits until a broker says that so much is committed."""
    until(lambda: fetch(connection, topic, version=RACK_VERSION)["HighWatermark"], lambda found: found == high_watermark)


def offsets_of(data):
    return [r.offset for batch in parse_batches(data["Records"]) for r in batch.records]


def told(data):
    """(error, replica that is to be asked, offsets)"""
    return data["ErrorCode"], data.get("PreferredReadReplica", -1), offsets_of(data)


def three_offsets(data):
    return data["HighWatermark"], data["LastStableOffset"], data["LogStartOffset"]


ALL = (Error.NONE, -1, list(range(10)))
ELSEWHERE = (Error.NONE, FOLLOWER, [])


# ---- the leader


@pytest.mark.parametrize("version", [RACK_VERSION, 12, 17])
def test_the_leader_sends_consumers_to_the_replica_in_their_rack(three, wires, topic, version):
    named = {"topic_id": metadata(wires[LEADER], topic)["TopicId"]} if version >= 13 else {}
    for offset in (0, 5, 10):
        begun = time.monotonic()
        data = fetch(wires[LEADER], topic, offset, version=version, RackId="b", **LONG_WAIT, **named)
        assert told(data) == ELSEWHERE
        assert three_offsets(data) == (10, 10, 0)
        assert time.monotonic() - begun < 3, "that is said at once"
    assert told(fetch(wires[LEADER], topic, version=version, RackId="c", **named))[1] == 3


def test_the_leader_serves_who_is_in_its_rack_in_none_or_in_one_without_replica(wires, topic):
    for rack in ("a", "", "elsewhere"):
        assert told(fetch(wires[LEADER], topic, version=RACK_VERSION, RackId=rack)) == ALL, rack
    assert told(fetch(wires[LEADER], topic, version=NO_RACK_VERSION)) == ALL


def test_a_rack_without_replica_of_the_partition_is_served_by_the_leader(three, wires, name):
    create_led(three, name, (1, 3))
    fill(wires[LEADER], name, 1)
    assert told(fetch(wires[LEADER], name, version=RACK_VERSION, RackId="b")) == (Error.NONE, -1, [0])


def test_the_leader_itself_says_what_is_out_of_range(wires, topic):
    for offset in (11, 1000, -1):
        data = fetch(wires[LEADER], topic, offset, version=RACK_VERSION, RackId="b")
        assert told(data) == (Error.OFFSET_OUT_OF_RANGE, -1, [])


def test_the_leader_checks_the_epoch_first(wires, topic):
    epoch = metadata(wires[LEADER], topic)["Partitions"][0]["LeaderEpoch"]
    data = fetch(wires[LEADER], topic, version=RACK_VERSION, RackId="b", epoch=epoch + 1)
    assert told(data) == (Error.UNKNOWN_LEADER_EPOCH, -1, [])
    assert told(fetch(wires[LEADER], topic, version=RACK_VERSION, RackId="b", epoch=epoch)) == ELSEWHERE


def test_a_partition_that_is_read_elsewhere_holds_up_no_other(three, wires, topic):
    here = create_led(three, topic + "-here", (1, 3))
    fill(wires[LEADER], here, 2)
    topics = [{"Topic": t, "Partitions": [fetch_partition()]} for t in (topic, here)]
    body = fetch_body(topic, [], **LONG_WAIT) | {"Topics": topics}
    begun = time.monotonic()
    answer = wires[LEADER].call("Fetch", RACK_VERSION, **body, RackId="b")
    assert time.monotonic() - begun < 3
    found = {t["Topic"]: told(t["Partitions"][0]) for t in answer["Responses"]}
    assert found == {topic: ELSEWHERE, here: (Error.NONE, -1, [0, 1])}


def test_a_session_names_the_replica_each_time(wires, topic):
    def ask(session, epoch, partitions):
        body = fetch_body(topic, partitions)
        if not partitions:
            body["Topics"] = []
        answer = wires[LEADER].call("Fetch", 12, **body, RackId="b", SessionId=session, SessionEpoch=epoch)
        assert answer["ErrorCode"] == Error.NONE
        return answer["SessionId"], [told(p) for t in answer["Responses"] for p in t["Partitions"]]

    session, first = ask(0, 0, [fetch_partition()])
    assert session != 0 and first == [ELSEWHERE]
    for epoch in (1, 2):
        assert ask(session, epoch, []) == (session, [ELSEWHERE])


# ---- followers


@pytest.mark.parametrize("rack", ["b", "a", ""])
def test_a_follower_serves_consumers_of_any_rack(wires, topic, rack):
    data = fetch(wires[FOLLOWER], topic, version=RACK_VERSION, RackId=rack)
    assert told(data) == ALL
    assert three_offsets(data) == (10, 10, 0)
    data = fetch(wires[FOLLOWER], topic, 10, version=17, topic_id=metadata(wires[1], topic)["TopicId"], RackId=rack)
    assert told(data) == (Error.NONE, -1, [])
    assert three_offsets(data) == (10, 10, 0), "an empty answer too"


def test_a_follower_does_not_serve_who_is_older_than_that(wires, topic):
    assert told(fetch(wires[FOLLOWER], topic, version=NO_RACK_VERSION)) == (Error.NOT_LEADER_OR_FOLLOWER, -1, [])


def test_a_follower_says_what_is_out_of_range(wires, topic):
    for offset in (11, 1000, -1):
        data = fetch(wires[FOLLOWER], topic, offset, version=RACK_VERSION, RackId="b")
        assert told(data) == (Error.OFFSET_OUT_OF_RANGE, -1, [])
        assert data["HighWatermark"] == -1, "by that clients know that another replica may say something else"
    delete_records(wires[LEADER], topic, 4)
    until(lambda: fetch(wires[FOLLOWER], topic, 5, version=RACK_VERSION)["LogStartOffset"], lambda found: found == 4)
    assert told(fetch(wires[FOLLOWER], topic, 3, version=RACK_VERSION)) == (Error.OFFSET_OUT_OF_RANGE, -1, [])
    assert told(fetch(wires[FOLLOWER], topic, 4, version=RACK_VERSION)) == (Error.NONE, -1, list(range(4, 10)))


def test_a_follower_checks_epochs(wires, topic):
    epoch = metadata(wires[LEADER], topic)["Partitions"][0]["LeaderEpoch"]
    for asked, error in [(epoch, Error.NONE), (epoch + 1, Error.UNKNOWN_LEADER_EPOCH), (-1, Error.NONE)]:
        assert fetch(wires[FOLLOWER], topic, version=RACK_VERSION, epoch=asked)["ErrorCode"] == error, asked


def test_after_a_leader_moved_its_followers_fence_the_epoch_before(three, wires, name):
    create_led(three, name)
    fill(wires[LEADER], name, 1)
    epoch = metadata(wires[LEADER], name)["Partitions"][0]["LeaderEpoch"]
    lead(three, name, [2, 1, 3])
    for number in (1, 3):
        until(lambda: metadata(wires[number], name)["Partitions"][0]["LeaderId"], lambda leader: leader == 2)
        assert fetch(wires[number], name, version=RACK_VERSION, epoch=epoch)["ErrorCode"] == Error.FENCED_LEADER_EPOCH
        newer = metadata(wires[number], name)["Partitions"][0]["LeaderEpoch"]
        # A new leader knows a moment later what is committed, and others after it.
        until(lambda: told(fetch(wires[number], name, version=RACK_VERSION, epoch=newer)), lambda it: it == (Error.NONE, -1, [0]))


def test_a_fetch_that_waits_at_a_follower_is_woken_by_what_is_committed(three, wires, topic):
    with Connection(three[FOLLOWER - 1].address) as waiting:
        waiting.send("Fetch", 12, **fetch_body(topic, [fetch_partition(offset=10)], max_wait_ms=10_000), RackId="b")
        assert waiting.silent_for(0.3)
        begun = time.monotonic()
        fill(wires[LEADER], topic, 1)
        answer = waiting.receive()[1]
        assert time.monotonic() - begun < 3
        assert told(answer["Responses"][0]["Partitions"][0]) == (Error.NONE, -1, [10])


def test_what_is_asked_of_a_leader_only_stays_with_it(wires, topic):
    assert list_offset(wires[FOLLOWER], topic, -1)["ErrorCode"] == Error.NOT_LEADER_OR_FOLLOWER
    asked = {"Partition": 0, "CurrentLeaderEpoch": -1, "LeaderEpoch": 0}
    answer = wires[FOLLOWER].call("OffsetForLeaderEpoch", 4, ReplicaId=-1, Topics=[{"Topic": topic, "Partitions": [asked]}])
    assert answer["Topics"][0]["Partitions"][0]["ErrorCode"] == Error.NOT_LEADER_OR_FOLLOWER


def test_a_broker_without_replica_says_who_leads(three, wires, name):
    create_led(three, name, (1, 3))
    until(lambda: metadata(wires[FOLLOWER], name)["Partitions"][0]["LeaderId"], lambda leader: leader == 1)
    topic_id = metadata(wires[FOLLOWER], name)["TopicId"]
    data = fetch(wires[FOLLOWER], name, version=17, topic_id=topic_id, RackId="b")
    assert told(data) == (Error.NOT_LEADER_OR_FOLLOWER, -1, [])
    assert data["CurrentLeader"]["LeaderId"] == LEADER


# ---- real clients


class Confluent:
    """A reader of partition 0 by librdkafka."""

    def __init__(self, brokers, topic, rack, start=0, reset="error"):
        self.consumer = Consumer({
            "bootstrap.servers": bootstrap(brokers), "group.id": "none", "enable.auto.commit": False, "client.rack": rack,
            "auto.offset.reset": reset, "fetch.wait.max.ms": 100, "socket.timeout.ms": 5_000,
            "topic.metadata.refresh.interval.ms": 1_000, "fetch.error.backoff.ms": 100,
        })  # fmt: skip
        self.consumer.assign([TopicPartition(topic, 0, start)])

    def poll(self, timeout_s):
        found = []
        for message in self.consumer.consume(1000, timeout_s):
            # Brokers come and go; what the client cannot deal with shows as records that are missing.
            if not message.error():
                found.append((message.offset(), message.value()))
        return found

    def close(self):
        self.consumer.close()


class JavaReader:
    """The same by the Java client."""

    def __init__(self, brokers, topic, rack, start=0, reset="none"):
        self.client = Java(bootstrap(brokers))
        self.reader = self.client.reader(topic, start, reset=reset, rack=rack)

    def poll(self, timeout_s):
        return [(r.offset, r.value) for r in self.reader.poll(100_000, timeout_s)]

    def close(self):
        self.reader.close()
        self.client.close()


CLIENTS = {"confluent": Confluent, "java": JavaReader}


@pytest.fixture(params=CLIENTS)
def read_in(request):
    """Opens readers: `read_in(brokers, topic, rack, ...)`."""
    opened = []

    def open_reader(*args, **more):
        opened.append(CLIENTS[request.param](*args, **more))
        return opened[-1]

    yield open_reader
    for reader in opened:
        reader.close()


def collect(reader, count, patience_s=PATIENCE_S):
    """Exactly so many records, as they come."""
    found, deadline = [], time.monotonic() + patience_s
    while len(found) < count:
        assert time.monotonic() < deadline, f"{len(found)} of {count} after {patience_s} s"
        found += reader.poll(0.2)
    assert len(found) == count
    return found


def write(brokers, topic, first, count, size=1000):
    """Records whose values begin with their offsets."""
    producer = Producer({"bootstrap.servers": bootstrap(brokers), "enable.idempotence": True, "linger.ms": 5})
    for number in range(first, first + count):
        producer.produce(topic, (b"%d " % number).ljust(size, b"."), partition=0)
    assert producer.flush(PATIENCE_S) == 0


def numbers(records):
    assert all(int(value.split()[0]) == offset for offset, value in records)
    return [offset for offset, _ in records]


def fetched(broker):
    """(bytes read from this broker, those of them as a follower)"""
    found = {}
    for line in broker.http("/metrics")[1].splitlines():
        name, _, value = line.rpartition(" ")
        found[name] = value
    names = ("tidelog_fetched_bytes_total", "tidelog_follower_fetched_bytes_total")
    return tuple(int(float(found.get(n, 0))) for n in names)


@only_tidelog
def test_clients_read_from_the_replica_in_their_rack_and_only_there(three, read_in, name):
    create_led(three, name)
    write(three, name, 0, 5000)
    before = [fetched(broker) for broker in three]
    reader = read_in(three, name, "b")
    assert numbers(collect(reader, 5000)) == list(range(5000))
    # At the end of the log, with what comes then.
    slowest = 0
    for number in range(5000, 5020):
        write(three, name, number, 1)
        begun = time.monotonic()
        assert numbers(collect(reader, 1)) == [number]
        slowest = max(slowest, time.monotonic() - begun)
    print(f"longest wait for a record at the end of the log: {slowest * 1000:.0f} ms")
    assert slowest < 3
    after = [fetched(broker) for broker in three]
    served = [(a - b, c - d) for (a, c), (b, d) in zip(after, before, strict=True)]
    assert served[0] == (0, 0), "nothing from the leader"
    assert served[1][0] == served[1][1] >= 5020 * 1000, "all from the follower in the rack"
    assert served[2] == (0, 0)


@only_tidelog
def test_without_the_selector_clients_read_from_the_leader(tmp_path, read_in):
    with running(tmp_path, 3, racks=RACKS, auto_leader_rebalance_enable="false") as brokers:
        create_led(brokers, "plain")
        write(brokers, "plain", 0, 100)
        assert numbers(collect(read_in(brokers, "plain", "b"), 100)) == list(range(100))
        assert [fetched(broker)[1] for broker in brokers] == [0, 0, 0]
        # Followers serve who asks them all the same, as in Kafka.
        with Connection(brokers[1].address) as follower:
            assert len(offsets_of(fetch(follower, "plain", version=RACK_VERSION))) == 100


@only_tidelog
@pytest.mark.parametrize("what", ["kill", "pause"])
def test_readers_go_on_when_their_replica_is_killed_or_stands_still(cluster, read_in, what):
    create_led(cluster, "hurt")
    write(cluster, "hurt", 0, 1000)
    reader, follower = read_in(cluster, "hurt", "b"), cluster[FOLLOWER - 1]
    assert numbers(collect(reader, 1000)) == list(range(1000))
    assert fetched(follower)[1] > 0
    others = [cluster[0], cluster[2]]

    def goes_on():
        write(others, "hurt", 1000, 100)
        begun = time.monotonic()
        assert numbers(collect(reader, 100)) == list(range(1000, 1100))
        print(f"after {what}: read on after {time.monotonic() - begun:.1f} s")

    if what == "kill":
        follower.kill()
        goes_on()
        follower.start()
    else:
        with paused(follower):
            goes_on()
    # And is there again for those who come then.
    until(lambda: live_brokers(cluster), lambda live: live == [1, 2, 3])
    write(cluster, "hurt", 1100, 10)
    until(lambda: placement(cluster, "hurt"), lambda found: sorted(found.isr) == [1, 2, 3])
    before = fetched(follower)[1]
    again = read_in(cluster, "hurt", "b")
    assert numbers(collect(again, 1110)) == list(range(1110))
    assert fetched(follower)[1] > before


@only_tidelog
def test_readers_go_on_when_the_leader_moves_or_dies(cluster, read_in):
    create_led(cluster, "led")
    written = 500
    write(cluster, "led", 0, written)
    reader = read_in(cluster, "led", "b")
    assert numbers(collect(reader, written)) == list(range(written))

    def goes_on(brokers):
        nonlocal written
        write(brokers, "led", written, 100)
        assert numbers(collect(reader, 100)) == list(range(written, written + 100))
        written += 100

    # To the third, to the replica that is read from, and back.
    for replicas in ([3, 1, 2], [2, 1, 3], [1, 2, 3]):
        lead(cluster, "led", replicas)
        goes_on(cluster)
    cluster[0].kill()
    until(lambda: placement(cluster[1:], "led"), lambda found: found.leader in (2, 3))
    goes_on(cluster[1:])
    cluster[0].start()


@only_tidelog
def test_a_reader_whose_offset_is_gone_begins_where_the_leader_says(three, read_in, name):
    create_led(three, name)
    write(three, name, 0, 100)
    first = read_in(three, name, "b", 0, reset="earliest")
    assert numbers(collect(first, 100)) == list(range(100))
    with Connection(three[0].address) as leader:
        assert delete_records(leader, name, 60)["ErrorCode"] == Error.NONE
    for start, expected in [(10, range(60, 100)), (100_000, range(60, 100)), (80, range(80, 100))]:
        reader = read_in(three, name, "b", start, reset="earliest")
        assert numbers(collect(reader, len(expected))) == list(expected), start


@only_tidelog
def test_readers_in_all_racks_get_everything_once_through_kills(cluster):
    create_led(cluster, "books")
    readers = [Confluent(cluster, "books", rack) for rack in RACKS]
    found = {rack: [] for rack in RACKS}

    def read_on():
        for rack, reader in zip(RACKS, readers, strict=True):
            found[rack] += reader.poll(0.05)

    load = Load(cluster, "books", partitions=[0])
    for victim in cluster:
        load.run(1)
        read_on()
        victim.kill()
        for _ in range(6):
            load.run(0.5)
            read_on()
        victim.start()
    load.run(1)
    acknowledged = load.finish()
    check_books(cluster, "books", acknowledged)
    expected = sorted(acknowledged[0])
    deadline = time.monotonic() + PATIENCE_S
    while any(len(records) < len(expected) for records in found.values()):
        assert time.monotonic() < deadline, {rack: len(records) for rack, records in found.items()} | {"all": len(expected)}
        read_on()
    for rack in RACKS:
        assert found[rack] == expected, rack
    for reader in readers:
        reader.close()
