"""Several broker processes as one cluster, a load of an idempotent producer on it, and the books: every acknowledged record is
read, once, in the order of its partition.

Tidelog's own: brokers join by its flag.
"""

import json
import os
import signal
import subprocess
import threading
import time
from collections import defaultdict, namedtuple
from contextlib import contextmanager

from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from . import paths, tools
from .broker import KafkaBroker, TidelogBroker, free_ports

IS_TIDELOG = os.environ.get("TIDELOG_TEST_BROKER", "tidelog") == "tidelog"

Placement = namedtuple("Placement", "leader replicas isr")

PARTITIONS = 3
PATIENCE_S = 60
# What a broker says of others that are killed.
EXPECTED = [
    r"broker is not heard of and is fenced",
    r"not every request was answered",
    r"no connection: ",
    r"connection of a broker refused: .* secret",
    r"was expected with data directory",
    r"the controller does not know",
]


def node(folder, number, contact=None, **settings):
    """A broker, not started: the first of a cluster, or one that joins by `contact`. Setting names are given with underscores for dots."""
    (peers,) = free_ports(1)
    settings = {
        "node.id": str(number),
        "inter.broker.listener": f"127.0.0.1:{peers}",
        "offsets.topic.num.partitions": "3",
    } | {key.replace("_", "."): str(value) for key, value in settings.items()}
    if contact:
        settings["cluster.join"] = contact
    broker = TidelogBroker(folder / f"broker{number}", settings)
    broker.peer_address = settings["inter.broker.listener"]
    return broker


@contextmanager
def running(folder, count, alone=None, expected=(), racks=(), environment=None, **settings):
    """Brokers 1 to `count` as one cluster; `alone` is called with the first before the others join. At the end those that run
    are stopped, and the logs of all are looked at: `expected` are complaints that the test provokes."""
    brokers = []
    try:
        for number in range(1, count + 1):
            own = {"broker.rack": racks[number - 1]} if racks else {}
            brokers.append(node(folder, number, brokers[0].peer_address if brokers else None, **settings, **own))
            brokers[-1].environment = dict(environment or {})
            brokers[-1].start()
            if number == 1 and alone is not None:
                alone(brokers)
        yield brokers
        for broker in brokers:
            if broker.process.poll() is None:
                broker.process.send_signal(signal.SIGCONT)
                broker.stop()
            assert broker.complaints([*EXPECTED, *expected]) == []
    finally:
        for broker in brokers:
            broker.discard()


@contextmanager
def kafka_running(folder, racks, **settings):
    """Apache Kafka on as many brokers as there are racks; the first is the controller."""
    brokers = []
    try:
        for number, rack in enumerate(racks, 1):
            own = {"node.id": str(number), "broker.rack": rack} | {key.replace("_", "."): value for key, value in settings.items()}
            brokers.append(KafkaBroker(folder / f"broker{number}", own))
            voter = f"1@127.0.0.1:{brokers[0].controller_port}"
            brokers[-1].settings["controller.quorum.voters"] = voter
            if number > 1:
                brokers[-1].join(brokers[0])
            brokers[-1].start()
        yield brokers
    finally:
        for broker in brokers:
            broker.discard()


@contextmanager
def paused(broker):
    """The process stands still: its connections are open and nobody reads them."""
    broker.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        broker.process.send_signal(signal.SIGCONT)


def until(ask, good, patience_s=PATIENCE_S):
    """Asks until the answer is good, and returns it."""
    deadline = time.monotonic() + patience_s
    while not good(answer := ask()):
        assert time.monotonic() < deadline, f"after {patience_s} s it is still {answer!r}"
        time.sleep(0.1)
    return answer


def bootstrap(brokers):
    return ",".join(broker.address for broker in brokers)


def create(brokers, name, replicas=-1, assignment=None, config=None):
    """A topic of PARTITIONS partitions, or of those that `assignment` lists, with the brokers of each."""
    admin = AdminClient({"bootstrap.servers": bootstrap(brokers)})
    if assignment is None:
        topic = NewTopic(name, num_partitions=PARTITIONS, replication_factor=replicas, config=config or {})
    else:
        topic = NewTopic(name, num_partitions=len(assignment), replica_assignment=assignment, config=config or {})
    admin.create_topics([topic])[name].result(PATIENCE_S)
    return admin.list_topics(name, timeout=PATIENCE_S).topics[name].partitions


def live_brokers(brokers):
    """Ids of the brokers that clients are told of: those that are heard of."""
    return sorted(AdminClient({"bootstrap.servers": bootstrap(brokers)}).list_topics(timeout=PATIENCE_S).brokers)


def tidelog(brokers, *arguments):
    """What our own command line prints. Raises Failed as for Kafka's tools."""
    command = [paths.tidelog_binary(), *map(str, arguments), "--bootstrap-server", bootstrap(brokers)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    if done.returncode != 0:
        raise tools.Failed(done.stdout + done.stderr)
    return done.stdout


def tidelog_json(brokers, *arguments):
    return json.loads(tidelog(brokers, *arguments, "--output", "json"))


def placement(brokers, topic, partition=0):
    """A partition as the metadata shows it."""
    topics = AdminClient({"bootstrap.servers": bootstrap(brokers)}).list_topics(topic, timeout=PATIENCE_S).topics
    found = topics[topic].partitions.get(partition)
    return Placement(found.leader, found.replicas, found.isrs) if found else Placement(-1, [], [])


def moved(brokers, topic, replicas, partition=0):
    """Waits until the partition has these replicas and no others, all of them in sync and one of them the leader."""

    def is_there(found):
        return found.replicas == replicas and sorted(found.isr) == sorted(replicas) and found.leader in replicas

    return until(lambda: placement(brokers, topic, partition), is_there)


class Load:
    """An idempotent producer that remembers what was acknowledged, partition by partition."""

    def __init__(self, brokers, topic, partitions=range(PARTITIONS)):
        self.topic, self.partitions, self.acknowledged, self.failed, self.next = topic, partitions, defaultdict(list), [], 0
        self.longest_silence_s, self.heard = 0, None
        self.producer = Producer({
            "bootstrap.servers": bootstrap(brokers), "enable.idempotence": True, "acks": "all", "linger.ms": 5,
            "message.timeout.ms": 120_000, "socket.timeout.ms": 5_000, "retry.backoff.ms": 50, "topic.metadata.refresh.interval.ms": 1_000,
        })  # fmt: skip

    def _delivered(self, error, message):
        now = time.monotonic()
        self.longest_silence_s = max(self.longest_silence_s, now - (self.heard or now))
        self.heard = now
        if error is not None:
            self.failed.append(str(error))
        else:
            self.acknowledged[message.partition()].append((message.offset(), message.value()))

    def _step(self):
        for _ in range(20):
            partition = self.partitions[self.next % len(self.partitions)]
            self.producer.produce(self.topic, str(self.next).encode(), partition=partition, callback=self._delivered)
            self.next += 1
        self.producer.poll(0.02)

    def run(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._step()

    @contextmanager
    def beside(self):
        """Runs in a thread of its own while other things are done."""
        ending, failures = threading.Event(), []

        def work():
            try:
                while not ending.wait(0.01):
                    self._step()
            except Exception as error:  # told below
                failures.append(error)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        try:
            self.goes_on()
            yield self
        finally:
            ending.set()
            thread.join(PATIENCE_S)
        assert not thread.is_alive() and failures == [], failures

    def goes_on(self):
        """Waits until each partition acknowledges something that was sent after now."""
        sent = self.next

        def newest():
            return {p: max((int(value) for _, value in self.acknowledged[p][-1:]), default=-1) for p in self.partitions}

        until(newest, lambda values: self.failed or min(values.values()) >= sent)
        assert self.failed == []

    def finish(self):
        assert self.producer.flush(120) == 0
        assert self.failed == []
        return self.acknowledged


def read_all(brokers, topic, counts):
    """The first records of each partition, as many as `counts` says."""
    consumer = Consumer({"bootstrap.servers": bootstrap(brokers), "group.id": "reader", "auto.offset.reset": "earliest"})
    consumer.assign([TopicPartition(topic, p, 0) for p in counts])
    read = defaultdict(list)
    deadline = time.monotonic() + PATIENCE_S
    while any(len(read[p]) < count for p, count in counts.items()):
        assert time.monotonic() < deadline, {p: (len(read[p]), count) for p, count in counts.items()}
        message = consumer.poll(1)
        if message is None:
            continue
        if message.error():
            assert message.error().code() == KafkaError._PARTITION_EOF or message.error().retriable(), message.error()
            continue
        read[message.partition()].append((message.offset(), message.value()))
    consumer.close()
    return read


def check_books(brokers, topic, acknowledged):
    ends = {p: len(records) for p, records in acknowledged.items()}
    read = read_all(brokers, topic, ends)
    for partition, records in acknowledged.items():
        assert [offset for offset, _ in read[partition]] == list(range(ends[partition]))
        # The producer sends in order, so the values of a partition are read as they were sent.
        assert sorted(records) == read[partition]
        values = [int(value) for _, value in read[partition]]
        assert values == sorted(set(values))
