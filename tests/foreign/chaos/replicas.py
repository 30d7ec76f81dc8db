"""What each replica holds, as it says when it leads: leaderships are given to one broker after the other, and all of it is read."""

import hashlib
import struct
import time

from chaos.view import asked, placements
from wire import Connection, Error, parse_batches
from wire.calls import LATEST, fetch, list_offset

PATIENCE_S = 60
FETCH_BYTES = 4 << 20
# Up to the field that says how long the rest is; the field that says how many offsets a batch takes.
LOG_OVERHEAD, LAST_OFFSET_DELTA = 12, 23


def ends(cluster, topic, partitions):
    """Where each partition ends, as its leader says."""
    found = []
    for partition in range(partitions):
        leader = asked(next(iter(cluster.nodes.values())).address, placements, topic)[partition].leader
        with Connection(cluster.nodes[leader].address) as connection:
            found.append(_end(connection, topic, partition))
    return found


def _end(connection, topic, partition):
    deadline = time.monotonic() + PATIENCE_S
    while True:
        answer = list_offset(connection, topic, LATEST, partition=partition)
        if answer["ErrorCode"] == Error.NONE:
            return answer["Offset"]
        # A new leader has to hear from the others first.
        assert time.monotonic() < deadline, f"no end of {topic}-{partition}: {answer}"
        time.sleep(0.1)


def lead(cluster, topic, partitions, number):
    """Makes one broker the preferred leader of all partitions, and the leader."""
    others = [other for other in cluster.nodes if other != number]
    wanted = [{"PartitionIndex": partition, "Replicas": [number, *others]} for partition in range(partitions)]
    deadline = time.monotonic() + PATIENCE_S
    with Connection(cluster.nodes[number].address, timeout_s=PATIENCE_S) as connection:
        reply = connection.call("AlterPartitionReassignments", 0, Topics=[{"Name": topic, "Partitions": wanted}])
        codes = [partition["ErrorCode"] for answered in reply["Responses"] for partition in answered["Partitions"]]
        assert reply["ErrorCode"] == Error.NONE and set(codes) == {Error.NONE}, reply
        while True:
            elected = [{"Topic": topic, "Partitions": list(range(partitions))}]
            answer = connection.call("ElectLeaders", 2, ElectionType=0, TopicPartitions=elected, TimeoutMs=10_000)
            found = placements(connection, topic)
            if all(one.leader == number for one in found.values()):
                return
            assert time.monotonic() < deadline, f"broker {number} does not lead: {found}, {answer}"
            time.sleep(0.2)


def _batches(data):
    """(base offset, offset behind it, bytes) of each whole batch."""
    at = 0
    while at + LOG_OVERHEAD <= len(data):
        base, length = struct.unpack_from(">qi", data, at)
        end = at + LOG_OVERHEAD + length
        if end > len(data):
            return
        (last,) = struct.unpack_from(">i", data, at + LAST_OFFSET_DELTA)
        yield base, base + last + 1, data[at:end]
        at = end


def _read(connection, topic, partition, end):
    """The bytes of all batches of a partition up to its end."""
    offset, deadline = 0, time.monotonic() + PATIENCE_S
    while offset < end:
        answer = fetch(connection, topic, offset, partition=partition, partition_max_bytes=FETCH_BYTES)
        found = list(_batches(answer["Records"] or b""))
        for base, behind, data in found:
            assert base == offset, f"{topic}-{partition}: the batch at {base} is read for {offset}"
            yield base, data
            offset = behind
        if found:
            deadline = time.monotonic() + PATIENCE_S
            continue
        assert time.monotonic() < deadline, f"{topic}-{partition}: nothing to read at {offset} of {end}: {answer['ErrorCode']}"
        time.sleep(0.1)


def _records(data, where):
    (batch,) = parse_batches(data)
    assert batch.crc_ok, f"{where}: the checksum of the batch at {batch.base_offset} is wrong"
    return [(record.offset, record.value) for record in batch.records]


def read_each(cluster, topic, wanted):
    """The records of each partition, [(offset, value)], after every replica was read: all of them hold the same bytes. `wanted` are
    the ends."""
    records, digests = [[] for _ in wanted], {}
    for number, broker in cluster.nodes.items():
        lead(cluster, topic, len(wanted), number)
        with Connection(broker.address, timeout_s=PATIENCE_S) as connection:
            for partition, end in enumerate(wanted):
                where = f"broker {number}, {topic}-{partition}"
                assert (found := _end(connection, topic, partition)) == end, f"{where} ends at {found}, not {end}"
                held = []
                for base, data in _read(connection, topic, partition, end):
                    held.append((base, hashlib.blake2b(data, digest_size=16).digest()))
                    if partition not in digests:
                        records[partition] += _records(data, where)
                first = digests.setdefault(partition, held)
                if first != held:
                    differs = next((a[0] for a, b in zip(first, held) if a != b), "the end")
                    raise AssertionError(f"{where}: other bytes than broker {next(iter(cluster.nodes))} has, from {differs} on")
    return records
