"""What a single broker says of the cluster, asked over a connection of its own."""

from collections import namedtuple

from wire import Connection, Disconnected, Error
from wire.calls import metadata

OFFSETS_TOPIC = "__consumer_offsets"
CONTROLLER_TOPIC = "__cluster_metadata"
ANSWER_S = 5

Placement = namedtuple("Placement", "leader epoch replicas isr")


def placements(connection, topic):
    """{partition: Placement} of a topic, empty where the broker does not know it."""
    return {
        p["PartitionIndex"]: Placement(p["LeaderId"], p["LeaderEpoch"], p["ReplicaNodes"], p["IsrNodes"])
        for p in metadata(connection, topic)["Partitions"]
    }


def asked(address, question, *arguments):
    """What one broker answers to `question(connection, *arguments)`; why not, as a text, where it does not answer."""
    try:
        with Connection(address, timeout_s=ANSWER_S) as connection:
            return question(connection, *arguments)
    except (OSError, Disconnected) as error:
        return f"no answer: {error!r}"


def voters(connection):
    """Ids of the brokers that decide on the metadata, an empty list where it is not known."""
    asks = [{"TopicName": CONTROLLER_TOPIC, "Partitions": [{"PartitionIndex": 0}]}]
    answer = connection.call("DescribeQuorum", 2, Topics=asks)
    if answer["ErrorCode"] != Error.NONE or not answer["Topics"]:
        return []
    return sorted(voter["ReplicaId"] for voter in answer["Topics"][0]["Partitions"][0]["CurrentVoters"])


def find_coordinator(connection, group):
    """Asks once; the first question of all makes the offsets topic."""
    return connection.call("FindCoordinator", 4, KeyType=0, CoordinatorKeys=[group])["Coordinators"][0]["ErrorCode"]


def offsets_partition(group, partitions):
    """The partition of the offsets topic that keeps a group, by Java's hash of its name, which is of ASCII."""
    hashed = 0
    for unit in group.encode("ascii"):
        hashed = (hashed * 31 + unit) & 0xFFFFFFFF
    return (hashed & 0x7FFFFFFF) % partitions


def committed(connection, group, topic, partitions):
    """{partition: offset} as this broker knows them, -1 where there is none; None where it is not the group's coordinator."""
    wanted = [{"Name": topic, "PartitionIndexes": list(range(partitions))}]
    answer = connection.call("OffsetFetch", 8, RequireStable=False, Groups=[{"GroupId": group, "Topics": wanted}])
    (found,) = answer["Groups"]
    if found["ErrorCode"] != Error.NONE or any(p["ErrorCode"] != Error.NONE for t in found["Topics"] for p in t["Partitions"]):
        return None
    return {p["PartitionIndex"]: p["CommittedOffset"] for t in found["Topics"] for p in t["Partitions"]}


def epoch_ends(connection, topic, partitions, epochs=range(1, 64)):
    """{partition: [(epoch, offset at which it ends)]} as a leader knows them; nothing of partitions that this broker does not lead."""
    found = {}
    for partition in range(partitions):
        ends = set()
        for epoch in epochs:
            asks = [{"Partition": partition, "CurrentLeaderEpoch": -1, "LeaderEpoch": epoch}]
            answer = connection.call("OffsetForLeaderEpoch", 4, ReplicaId=-1, Topics=[{"Topic": topic, "Partitions": asks}])
            told = answer["Topics"][0]["Partitions"][0]
            if told["ErrorCode"] != Error.NONE:
                break
            ends.add((told["LeaderEpoch"], told["EndOffset"]))
        if ends:
            found[partition] = sorted(ends)
    return found
