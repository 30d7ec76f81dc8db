"""The two requests of the failover load, byte by byte: written once, read fast.

`tests/foreign/wire` reads any message, at a price for every field. A generator that writes thousands of partitions a second,
and is to know the new leaders of all of them within milliseconds, cannot pay it. The versions are old ones: in them a
partition's answer has the same length whatever it says, and there is nothing that may be left out.
"""

import struct
from typing import NamedTuple

# Key and version of a request.
PRODUCE, METADATA = (0, 7), (3, 7)
CLIENT_ID = b"tidelog-failover"
ACKS_ALL = -1

_SHORT, _INT = struct.Struct(">h"), struct.Struct(">i")
# Of a Produce answer: partition, error, base offset, time of the append, log start.
_PRODUCED = struct.Struct(">ihqqq")
# Of a Metadata answer, up to the list of replicas: error, partition, leader, its epoch.
_LED = struct.Struct(">hiii")
_THROTTLE_BYTES = 4


class Led(NamedTuple):
    """A partition in an answer of Metadata; `leader` is -1 where there is none."""

    partition: int
    leader: int
    epoch: int
    replicas: tuple
    in_sync: tuple


def _frame(api, number, body):
    key, version = api
    payload = struct.pack(">hhih", key, version, number, len(CLIENT_ID)) + CLIENT_ID + body
    return _INT.pack(len(payload)) + payload


def _one_topic(topic):
    name = topic.encode()
    return struct.pack(">ih", 1, len(name)) + name


class ProduceRequests:
    """Requests with `acks=all` for any of a topic's partitions: what is sent to each of them is written once."""

    def __init__(self, topic, batch, partitions, timeout_ms):
        no_transaction = -1
        self._head = struct.pack(">hhi", no_transaction, ACKS_ALL, timeout_ms) + _one_topic(topic)
        self._parts = {partition: struct.pack(">ii", partition, len(batch)) + batch for partition in partitions}
        # Behind the correlation id, the topic, and the number of its partitions.
        self._answers_at = 4 + len(_one_topic(topic)) + 4

    def request(self, number, partitions):
        parts = b"".join([self._parts[partition] for partition in partitions])
        return _frame(PRODUCE, number, self._head + _INT.pack(len(partitions)) + parts)

    def answers(self, reply):
        """(partition, error code) of each partition that was asked for."""
        answers = memoryview(reply)[self._answers_at : -_THROTTLE_BYTES]
        return [(partition, error) for partition, error, *_ in _PRODUCED.iter_unpack(answers)]


def metadata_request(number, topic):
    no_auto_creation = b"\0"
    return _frame(METADATA, number, _one_topic(topic) + no_auto_creation)


def number_of(reply):
    """The correlation id that a reply begins with."""
    return _INT.unpack_from(reply)[0]


def read_metadata(reply):
    """The partitions of the one topic that was asked for; none while the broker does not know it."""
    at = 4 + _THROTTLE_BYTES
    brokers, at = _int(reply, at)
    for _ in range(brokers):
        at = _behind_text(reply, at + 4) + 4  # id, host, port
        at = _behind_text(reply, at)  # rack
    at = _behind_text(reply, at) + 4  # cluster, controller
    at = _behind_text(reply, at + 4 + 2) + 1  # number of topics, error; name, whether internal
    count, at = _int(reply, at)
    partitions = []
    for _ in range(count):
        _, partition, leader, epoch = _LED.unpack_from(reply, at)
        replicas, at = _ints(reply, at + _LED.size)
        in_sync, at = _ints(reply, at)
        _, at = _ints(reply, at)  # offline
        partitions.append(Led(partition, leader, epoch, replicas, in_sync))
    return partitions


def _int(reply, at):
    return _INT.unpack_from(reply, at)[0], at + 4


def _ints(reply, at):
    count, at = _int(reply, at)
    return struct.unpack_from(f">{count}i", reply, at), at + 4 * count


def _behind_text(reply, at):
    """Where the field behind a text begins; a null has length -1."""
    return at + 2 + max(_SHORT.unpack_from(reply, at)[0], 0)
