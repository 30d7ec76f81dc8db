"""Short forms of the requests that most tests send, each reduced to the one partition, topic or group it is about."""

from .connection import Connection
from .errors import Error

EARLIEST, LATEST, MAX_TIMESTAMP, EARLIEST_LOCAL, LATEST_TIERED = -2, -1, -3, -4, -5


# ---- records


def produce(connection, topic, batch, *, partition=0, version=9, acks=-1, timeout_ms=5000, topic_id=None):
    """Produces the bytes of `batch` and returns the partition's answer."""
    connection.send("Produce", version, **produce_body(topic, batch, partition, acks, timeout_ms, topic_id))
    return produced(connection.receive()[1])


def produce_body(topic, batch, partition=0, acks=-1, timeout_ms=5000, topic_id=None):
    named = {"TopicId": topic_id} if topic_id else {"Name": topic}
    return {
        "Acks": acks,
        "TimeoutMs": timeout_ms,
        "TopicData": [named | {"PartitionData": [{"Index": partition, "Records": batch}]}],
    }


def produced(response):
    """The one partition of a Produce answer."""
    (topic,) = response["Responses"]
    (partition,) = topic["PartitionResponses"]
    return partition


def fetch_partition(partition=0, offset=0, max_bytes=1 << 20, **more):
    return {"Partition": partition, "FetchOffset": offset, "PartitionMaxBytes": max_bytes} | more


def fetch_body(topic, partitions, *, max_wait_ms=0, min_bytes=1, max_bytes=50 << 20, isolation=0, topic_id=None, **more):
    named = {"TopicId": topic_id} if topic_id else {"Topic": topic}
    return {
        "MaxWaitMs": max_wait_ms,
        "MinBytes": min_bytes,
        "MaxBytes": max_bytes,
        "IsolationLevel": isolation,
        "Topics": [named | {"Partitions": partitions}],
    } | more


def fetch(connection, topic, offset=0, *, partition=0, version=12, partition_max_bytes=1 << 20, epoch=-1, **more):
    """Fetches from one partition, waits for nothing unless asked to, and returns the partition's answer."""
    extra = {"CurrentLeaderEpoch": epoch} if version >= 9 else {}
    asked = fetch_partition(partition, offset, partition_max_bytes, **extra)
    response = connection.call("Fetch", version, **fetch_body(topic, [asked], **more))
    assert response.get("ErrorCode", 0) == Error.NONE, response
    (answered,) = response["Responses"]
    (data,) = answered["Partitions"]
    return data


def list_offset(connection, topic, timestamp, *, partition=0, version=7, isolation=0, epoch=-1):
    """The answer of ListOffsets for one partition."""
    asked = {"PartitionIndex": partition, "Timestamp": timestamp}
    if version >= 4:
        asked["CurrentLeaderEpoch"] = epoch
    body = {"ReplicaId": -1, "Topics": [{"Name": topic, "Partitions": [asked]}]}
    if version >= 2:
        body["IsolationLevel"] = isolation
    response = connection.call("ListOffsets", version, **body)
    return response["Topics"][0]["Partitions"][0]


def delete_records(connection, topic, offset, *, partition=0, version=2):
    response = connection.call(
        "DeleteRecords", version, TimeoutMs=10000,
        Topics=[{"Name": topic, "Partitions": [{"PartitionIndex": partition, "Offset": offset}]}],
    )  # fmt: skip
    return response["Topics"][0]["Partitions"][0]


def init_producer(connection, *, version=4, transactional_id=None, producer_id=-1, epoch=-1):
    """A producer id and epoch for an idempotent producer."""
    body = {"TransactionalId": transactional_id, "TransactionTimeoutMs": 60000}
    if version >= 3:
        body |= {"ProducerId": producer_id, "ProducerEpoch": epoch}
    for _ in range(100):
        response = connection.call("InitProducerId", version, **body)
        if response["ErrorCode"] not in (Error.COORDINATOR_LOAD_IN_PROGRESS, Error.COORDINATOR_NOT_AVAILABLE):
            break
        connection.silent_for(0.05)
    assert response["ErrorCode"] == Error.NONE, response
    return response["ProducerId"], response["ProducerEpoch"]


# ---- topics


def create_topic(
    connection, name, *, partitions=1, replication=1, configs=None, version=7, validate_only=False, assignments=(), timeout_ms=15000
):
    """Asks for one topic and returns the answer about it, good or bad."""
    topic = {
        "Name": name,
        "NumPartitions": partitions,
        "ReplicationFactor": replication,
        "Assignments": [{"PartitionIndex": p, "BrokerIds": list(b)} for p, b in assignments],
        "Configs": [{"Name": key, "Value": value} for key, value in (configs or {}).items()],
    }
    response = connection.call("CreateTopics", version, Topics=[topic], timeoutMs=timeout_ms, validateOnly=validate_only)
    return response["Topics"][0]


def delete_topic(connection, name=None, *, topic_id=None):
    """Deletes by name, or by id with `topic_id`."""
    asked = {"Name": name, "TopicId": topic_id} if topic_id else {"Name": name}
    return connection.call("DeleteTopics", 6, Topics=[asked], TimeoutMs=15000)["Responses"][0]


def metadata(connection, name, *, version=12, auto_create=False):
    return connection.call("Metadata", version, Topics=[{"Name": name}], AllowAutoTopicCreation=auto_create)["Topics"][0]


def describe_configs(connection, resource_type, resource, keys=None, version=4):
    """(answer, {name: entry}) of one resource: 2 is a topic, 4 a broker."""
    asked = {"ResourceType": resource_type, "ResourceName": resource, "ConfigurationKeys": keys}
    response = connection.call(
        "DescribeConfigs", version, Resources=[asked], IncludeSynonyms=True,
        **({"IncludeDocumentation": True} if version >= 3 else {}),
    )  # fmt: skip
    (result,) = response["Results"]
    return result, {entry["Name"]: entry for entry in result["Configs"]}


# ---- groups


def find_coordinator(connection, group):
    """Waits until the group's coordinator is there and has loaded its groups, and returns it."""
    not_yet = (Error.COORDINATOR_LOAD_IN_PROGRESS, Error.COORDINATOR_NOT_AVAILABLE, Error.NOT_COORDINATOR)
    for _ in range(300):
        response = connection.call("FindCoordinator", 4, KeyType=0, CoordinatorKeys=[group])
        (found,) = response["Coordinators"]
        if found["ErrorCode"] == Error.NONE and describe_group(connection, group)["ErrorCode"] not in not_yet:
            return found
        connection.silent_for(0.05)
    raise AssertionError(f"no coordinator: {found}")


class Member:
    """One classic group member on a connection of its own, driven step by step."""

    def __init__(self, address, group, *, instance=None, session_timeout_ms=10000, rebalance_timeout_ms=10000,
                 protocols=(("range", b"any"),), protocol_type="consumer", version=7):  # fmt: skip
        self.connection = Connection(address, timeout_s=30)
        self.group, self.instance, self.version = group, instance, version
        self.session_timeout_ms, self.rebalance_timeout_ms = session_timeout_ms, rebalance_timeout_ms
        self.protocols, self.protocol_type = protocols, protocol_type
        self.member_id, self.generation = "", -1
        find_coordinator(self.connection, group)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.connection.close()

    def _static(self, since, version):
        return {"GroupInstanceId": self.instance} if version >= since else {}

    def send_join(self):
        """Sends JoinGroup and does not wait: the broker parks it until the rebalance ends."""
        self.connection.send(
            "JoinGroup", self.version, GroupId=self.group, SessionTimeoutMs=self.session_timeout_ms,
            RebalanceTimeoutMs=self.rebalance_timeout_ms, MemberId=self.member_id, ProtocolType=self.protocol_type,
            Protocols=[{"Name": n, "Metadata": m} for n, m in self.protocols], **self._static(5, self.version),
        )  # fmt: skip

    def receive_join(self, timeout_s=None):
        response = self.connection.receive(timeout_s)[1]
        if response["ErrorCode"] in (Error.NONE, Error.MEMBER_ID_REQUIRED):
            self.member_id = response["MemberId"]
        if response["ErrorCode"] == Error.NONE:
            self.generation = response["GenerationId"]
        return response

    def join_once(self):
        self.send_join()
        return self.receive_join()

    def join(self):
        """Joins as a client does: takes the member id that it is handed, joins again with it."""
        response = self.join_once()
        if response["ErrorCode"] == Error.MEMBER_ID_REQUIRED:
            response = self.join_once()
        assert response["ErrorCode"] == Error.NONE, response
        return response

    def send_sync(self, assignments=None):
        protocol = {"ProtocolType": self.protocol_type, "ProtocolName": self.protocols[0][0]}
        self.connection.send(
            "SyncGroup", 5, GroupId=self.group, GenerationId=self.generation, MemberId=self.member_id,
            GroupInstanceId=self.instance, **protocol,
            Assignments=[{"MemberId": m, "Assignment": a} for m, a in (assignments or {}).items()],
        )  # fmt: skip

    def sync(self, assignments=None):
        self.send_sync(assignments)
        return self.connection.receive()[1]

    def heartbeat(self, generation=None, member_id=None):
        return self.connection.call(
            "Heartbeat", 4, GroupId=self.group, GenerationId=self.generation if generation is None else generation,
            MemberId=self.member_id if member_id is None else member_id, GroupInstanceId=self.instance,
        )["ErrorCode"]  # fmt: skip

    def commit(self, topic, offset, *, partition=0, metadata="", generation=None, member_id=None, version=8):
        return commit(
            self.connection, self.group, topic, offset, partition=partition, metadata=metadata, version=version,
            generation=self.generation if generation is None else generation, instance=self.instance,
            member_id=self.member_id if member_id is None else member_id,
        )  # fmt: skip

    def leave(self):
        member = {"MemberId": self.member_id, "GroupInstanceId": self.instance}
        return self.connection.call("LeaveGroup", 4, GroupId=self.group, Members=[member])


def commit(connection, group, topic, offset, *, partition=0, metadata="", generation=-1, member_id="", instance=None, version=8):
    """Commits one offset, as a simple consumer unless a member is named; returns the partition's error."""
    response = connection.call(
        "OffsetCommit", version, GroupId=group, GenerationIdOrMemberEpoch=generation, MemberId=member_id,
        **({"GroupInstanceId": instance} if version >= 7 else {}),
        Topics=[{"Name": topic, "Partitions": [
            {"PartitionIndex": partition, "CommittedOffset": offset, "CommittedMetadata": metadata}]}],
    )  # fmt: skip
    return response["Topics"][0]["Partitions"][0]["ErrorCode"]


def committed(connection, group, topic, *, partition=0, version=8, require_stable=False):
    """(offset, metadata, error) of one partition; (-1, "", 0) where nothing was committed."""
    topics = [{"Name": topic, "PartitionIndexes": [partition]}]
    response = connection.call(
        "OffsetFetch", version, RequireStable=require_stable, Groups=[{"GroupId": group, "Topics": topics}]
    )
    (answered,) = response["Groups"]
    assert answered["ErrorCode"] == Error.NONE, answered
    found = answered["Topics"][0]["Partitions"][0]
    return found["CommittedOffset"], found["Metadata"], found["ErrorCode"]


def describe_group(connection, group, version=6):
    return connection.call("DescribeGroups", version, Groups=[group])["Groups"][0]


def delete_group(connection, group, version=2):
    return connection.call("DeleteGroups", version, GroupsNames=[group])["Results"][0]["ErrorCode"]


def versions_of(connection):
    """The version ranges that a broker advertises, by API key."""
    answer = connection.call("ApiVersions", 3, ClientSoftwareName="tidelog-tests", ClientSoftwareVersion="1.0")
    assert answer["ErrorCode"] == Error.NONE
    return {a["ApiKey"]: (a["MinVersion"], a["MaxVersion"]) for a in answer["ApiKeys"]}
