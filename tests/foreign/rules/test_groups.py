"""Rules 35 to 38 of the protocol reference: classic consumer groups, driven member by member."""

import threading
import time

import pytest

from wire import Error
from wire.calls import (
    Member,
    commit,
    committed,
    delete_group,
    delete_topic,
    describe_group,
    find_coordinator,
    versions_of,
)


@pytest.fixture
def group(broker, name):
    """A group name, and members that are closed at the end: `group.member(...)`."""

    class Group:
        def __init__(self):
            self.name, self.members = name, []

        def member(self, **options):
            member = Member(broker.address, self.name, **options)
            self.members.append(member)
            return member

    group = Group()
    yield group
    for member in group.members:
        member.connection.close()


def stable(*members):
    """Brings members that have not joined yet into one stable generation; the first is the leader."""
    for member in members:
        if not member.member_id and member.version >= 4 and not member.instance:
            assert member.join_once()["ErrorCode"] == Error.MEMBER_ID_REQUIRED
    for member in members:
        member.send_join()
    answers = [member.receive_join() for member in members]
    assert {a["ErrorCode"] for a in answers} == {Error.NONE}, answers
    assert len({a["GenerationId"] for a in answers}) == 1
    leader = next(m for m, a in zip(members, answers, strict=True) if a["Leader"] == m.member_id)
    for member in members:
        member.send_sync({m.member_id: b"assigned to " + m.member_id.encode() for m in members} if member is leader else None)
    for member in members:
        answer = member.connection.receive()[1]
        assert answer["ErrorCode"] == Error.NONE
        assert answer["Assignment"] == b"assigned to " + member.member_id.encode()
    return leader, answers


# ---- 35: timing, and who gets the member list


def test_rule_35_an_empty_group_waits_for_more_members(start_broker, name):
    broker = start_broker({"group.initial.rebalance.delay.ms": "1500"})
    with Member(broker.address, name) as first, Member(broker.address, name) as second:
        first.join_once()
        second.join_once()
        begun = time.monotonic()
        first.send_join()
        time.sleep(0.5)
        second.send_join()
        answers = [first.receive_join(), second.receive_join()]
        assert time.monotonic() - begun >= 1.4, "the initial delay"
        # Both came in while the group waited, so one generation holds them.
        assert [a["GenerationId"] for a in answers] == [1, 1]
        assert sorted(len(a["Members"]) for a in answers) == [0, 2]
    broker.stop()


def test_rule_35_only_the_leader_gets_the_members(group):
    members = [group.member(protocols=(("range", b"meta-%d" % n),)) for n in range(3)]
    leader, answers = stable(*members)
    for member, answer in zip(members, answers, strict=True):
        listed = {m["MemberId"]: m["Metadata"] for m in answer["Members"]}
        assert listed == ({m.member_id: m.protocols[0][1] for m in members} if member is leader else {})
        assert answer["Leader"] == leader.member_id and answer["ProtocolName"] == "range"


def test_rule_35_a_rebalance_ends_when_all_known_members_rejoined(group):
    first = group.member()
    stable(first)
    second = group.member()
    second.join_once()
    second.send_join()
    assert second.connection.silent_for(0.3), "the join waits for the first member"
    assert first.heartbeat() == Error.REBALANCE_IN_PROGRESS
    first.send_join()
    answers = [first.receive_join(), second.receive_join()]
    assert {a["ErrorCode"] for a in answers} == {Error.NONE} and {a["GenerationId"] for a in answers} == {2}


def test_rule_35_laggards_are_removed_at_the_rebalance_timeout(group):
    slow = group.member(rebalance_timeout_ms=1200, session_timeout_ms=30000)
    stable(slow)
    quick = group.member(rebalance_timeout_ms=1200, session_timeout_ms=30000)
    quick.join_once()
    quick.send_join()
    deadline = time.monotonic() + 10
    # The slow one stays alive, so its session is not what ends it.
    while quick.connection.silent_for(0.3) and time.monotonic() < deadline:
        assert slow.heartbeat() in (Error.REBALANCE_IN_PROGRESS, Error.UNKNOWN_MEMBER_ID)
    answer = quick.receive_join()
    assert (answer["ErrorCode"], len(answer["Members"])) == (Error.NONE, 1)
    assert slow.heartbeat() == Error.UNKNOWN_MEMBER_ID


def test_rule_35_a_silent_member_is_removed_at_its_session_timeout(group):
    silent = group.member(session_timeout_ms=6000)
    other = group.member(session_timeout_ms=30000)
    stable(silent, other)
    deadline = time.monotonic() + 15
    while other.heartbeat() == Error.NONE and time.monotonic() < deadline:
        time.sleep(0.1)
    assert other.heartbeat() == Error.REBALANCE_IN_PROGRESS
    assert [m["MemberId"] for m in other.join()["Members"]] == [other.member_id]


def test_rule_35_a_leaving_member_starts_a_rebalance(group):
    staying, leaving = group.member(), group.member()
    stable(staying, leaving)
    assert leaving.leave()["Members"][0]["ErrorCode"] == Error.NONE
    assert staying.heartbeat() == Error.REBALANCE_IN_PROGRESS
    assert staying.join()["GenerationId"] == 2
    staying.sync({staying.member_id: b""})
    assert staying.leave()["ErrorCode"] == Error.NONE
    assert describe_group(staying.connection, group.name)["GroupState"] == "Empty"


@pytest.mark.parametrize("timeout_ms", [1, 5999, 1_800_001])
def test_rule_35_session_timeouts_have_bounds(group, timeout_ms):
    assert group.member(session_timeout_ms=timeout_ms).join_once()["ErrorCode"] == Error.INVALID_SESSION_TIMEOUT


# ---- 36: member ids and static members


def test_rule_36_a_new_member_is_handed_its_id_first(group):
    member = group.member()
    first = member.join_once()
    assert first["ErrorCode"] == Error.MEMBER_ID_REQUIRED and first["MemberId"].startswith("tidelog-wire-")
    assert member.join_once()["ErrorCode"] == Error.NONE


@pytest.mark.parametrize("version", [2, 3])
def test_rule_36_old_versions_join_at_once(group, version):
    assert group.member(version=version).join_once()["ErrorCode"] == Error.NONE


def test_rule_36_an_unknown_member_id_is_refused(group):
    stable(group.member())
    stranger = group.member()
    stranger.member_id = "nobody-1"
    assert stranger.join_once()["ErrorCode"] == Error.UNKNOWN_MEMBER_ID
    assert stranger.heartbeat(generation=1) == Error.UNKNOWN_MEMBER_ID


def test_rule_36_a_static_member_needs_no_second_round(group):
    member = group.member(instance="i-1")
    answer = member.join_once()
    assert answer["ErrorCode"] == Error.NONE and answer["MemberId"].startswith("i-1-")


def test_rule_36_a_static_member_that_returns_keeps_the_generation(group, topic):
    first, other = group.member(instance="i-1"), group.member(instance="i-2")
    stable(first, other)
    again = group.member(instance="i-1")
    answer = again.join_once()
    assert answer["ErrorCode"] == Error.NONE and answer["GenerationId"] == first.generation
    assert again.member_id not in ("", first.member_id)
    assert other.heartbeat() == Error.NONE, "nobody has to rebalance"
    # It takes over the assignment of its former self, which is fenced.
    assert again.sync()["Assignment"] == b"assigned to " + first.member_id.encode()
    assert first.heartbeat() == Error.FENCED_INSTANCE_ID
    assert first.commit(topic, 1) == Error.FENCED_INSTANCE_ID
    assert again.heartbeat() == Error.NONE


def test_rule_36_a_static_member_that_changes_the_protocol_rebalances(group):
    both = (("range", b"r"), ("roundrobin", b"rr"))
    returning, staying = group.member(instance="i-1", protocols=both), group.member(instance="i-2", protocols=both)
    stable(returning, staying)
    # New metadata under the chosen protocol would be stored without a rebalance; another protocol needs one.
    again = group.member(instance="i-1", protocols=both[1:])
    again.send_join()
    deadline = time.monotonic() + 5
    while staying.heartbeat() == Error.NONE and time.monotonic() < deadline:
        time.sleep(0.05)
    assert staying.heartbeat() == Error.REBALANCE_IN_PROGRESS
    staying.send_join()
    answers = [again.receive_join(), staying.receive_join()]
    assert [(a["ErrorCode"], a["ProtocolName"], a["GenerationId"]) for a in answers] == [(Error.NONE, "roundrobin", 2)] * 2


def test_rule_36_a_static_member_is_removed_by_its_instance(group):
    member = group.member(instance="i-1")
    stable(member)
    asked = [{"MemberId": "", "GroupInstanceId": "i-1"}, {"MemberId": "", "GroupInstanceId": "i-9"}]
    answer = member.connection.call("LeaveGroup", 4, GroupId=group.name, Members=asked)
    assert [m["ErrorCode"] for m in answer["Members"]] == [Error.NONE, Error.UNKNOWN_MEMBER_ID]


# ---- 37: codes of each state


def test_rule_37_commits_in_each_state(group, topic):
    member, other = group.member(), group.member()
    stable(member, other)
    assert member.commit(topic, 1) == Error.NONE
    # PreparingRebalance: the member that has not rejoined yet may still commit.
    joining = group.member()
    joining.join_once()
    joining.send_join()
    assert joining.connection.silent_for(0.2)
    assert member.heartbeat() == Error.REBALANCE_IN_PROGRESS
    assert member.commit(topic, 2) == Error.NONE
    # CompletingRebalance: everyone joined, nobody has an assignment.
    members = [member, other]
    for m in members:
        m.send_join()
    for m in (*members, joining):
        m.receive_join()
    assert member.commit(topic, 3) == Error.REBALANCE_IN_PROGRESS
    assert committed(member.connection, group.name, topic)[0] == 2


def test_rule_37_wrong_generations_and_members(group, topic):
    member = group.member()
    stable(member)
    for generation in (member.generation - 1, member.generation + 1):
        assert member.heartbeat(generation=generation) == Error.ILLEGAL_GENERATION
        assert member.commit(topic, 1, generation=generation) == Error.ILLEGAL_GENERATION
    assert member.heartbeat(member_id="nobody") == Error.UNKNOWN_MEMBER_ID
    assert member.commit(topic, 1, member_id="nobody") == Error.UNKNOWN_MEMBER_ID
    assert commit(member.connection, group.name, topic, 1) == Error.UNKNOWN_MEMBER_ID, "a simple commit into a live group"
    member.generation += 1
    assert member.sync()["ErrorCode"] == Error.ILLEGAL_GENERATION


def test_rule_37_a_group_has_one_protocol_type_and_a_common_protocol(group):
    stable(group.member(protocol_type="connect", protocols=(("sessioned", b"\0\1opaque"), ("eager", b"x"))))
    assert group.member(protocol_type="consumer").join_once()["ErrorCode"] == Error.INCONSISTENT_GROUP_PROTOCOL
    foreign = group.member(protocol_type="connect", protocols=(("other", b""),))
    assert foreign.join_once()["ErrorCode"] == Error.INCONSISTENT_GROUP_PROTOCOL


def test_rule_37_metadata_and_assignments_are_opaque(group):
    odd = bytes(range(256)) * 40
    member = group.member(protocol_type="sr", protocols=(("v0", odd),))
    answer = member.join()
    assert answer["Members"][0]["Metadata"] == odd
    assert member.sync({member.member_id: odd})["Assignment"] == odd
    described = describe_group(member.connection, group.name)
    assert (described["GroupState"], described["ProtocolType"], described["ProtocolData"]) == ("Stable", "sr", "v0")
    assert described["Members"][0]["MemberAssignment"] == odd and described["Members"][0]["MemberMetadata"] == odd


def test_rule_37_the_protocol_all_members_have_is_chosen(group):
    first = group.member(protocols=(("a", b"1a"), ("b", b"1b")))
    second = group.member(protocols=(("b", b"2b"),))
    for member in (first, second):
        member.join_once()
        member.send_join()
    answers = [first.receive_join(), second.receive_join()]
    assert {a["ProtocolName"] for a in answers} == {"b"}
    listed = next(a["Members"] for a in answers if a["Members"])
    assert sorted(m["Metadata"] for m in listed) == [b"1b", b"2b"]


def test_rule_37_many_members_join_at_once(broker, group):
    members = [group.member() for _ in range(20)]
    results = []

    def join(member):
        results.append(member.join()["GenerationId"])

    threads = [threading.Thread(target=join, args=(m,)) for m in members]
    for thread in threads:
        thread.start()
    # Who came late makes the others join again, as their heartbeats would tell them.
    deadline = time.monotonic() + 30
    for thread in threads:
        thread.join(max(0.1, deadline - time.monotonic()))
    assert len(results) == 20


def test_rule_37_an_empty_group_id_is_invalid(wire, topic):
    assert commit(wire, "", topic, 1, version=2) in (Error.INVALID_GROUP_ID, Error.NONE)
    answer = wire.call(
        "JoinGroup", 7, GroupId="", SessionTimeoutMs=10000, RebalanceTimeoutMs=10000, MemberId="",
        ProtocolType="consumer", Protocols=[{"Name": "range", "Metadata": b""}],
    )  # fmt: skip
    assert answer["ErrorCode"] == Error.INVALID_GROUP_ID


# ---- 38: offsets


def test_rule_38_offset_and_metadata_come_back(wire, group, topic):
    find_coordinator(wire, group.name)
    assert committed(wire, group.name, topic) == (-1, "", Error.NONE)
    assert commit(wire, group.name, topic, 42, metadata="wörds \u2603") == Error.NONE
    assert committed(wire, group.name, topic) == (42, "wörds \u2603", Error.NONE)
    assert commit(wire, group.name, topic, 7, metadata=None) == Error.NONE
    assert committed(wire, group.name, topic)[:2] in ((7, ""), (7, None))


def test_rule_38_long_metadata_is_refused(wire, group, topic):
    find_coordinator(wire, group.name)
    assert commit(wire, group.name, topic, 1, metadata="x" * 4096) == Error.NONE
    assert commit(wire, group.name, topic, 2, metadata="x" * 4097) == Error.OFFSET_METADATA_TOO_LARGE
    assert committed(wire, group.name, topic)[0] == 1


@pytest.mark.parametrize("version", range(2, 10))
def test_rule_38_every_version_commits(wire, group, topic, version):
    find_coordinator(wire, group.name)
    assert commit(wire, group.name, topic, version, version=version) == Error.NONE
    assert committed(wire, group.name, topic)[0] == version


def test_rule_38_old_and_new_offset_fetch_agree(wire, group, topic):
    find_coordinator(wire, group.name)
    commit(wire, group.name, topic, 5, metadata="m")
    for version in range(1, 8):
        asked = [{"Name": topic, "PartitionIndexes": [0, 3]}]
        answer = wire.call("OffsetFetch", version, GroupId=group.name, Topics=asked)
        partitions = {p["PartitionIndex"]: p for p in answer["Topics"][0]["Partitions"]}
        assert (partitions[0]["CommittedOffset"], partitions[0]["Metadata"]) == (5, "m")
        assert (partitions[3]["CommittedOffset"], partitions[3]["ErrorCode"]) == (-1, Error.NONE)
    for version in (2, 5, 7):
        everything = wire.call("OffsetFetch", version, GroupId=group.name, Topics=None)
        assert [(t["Name"], [p["PartitionIndex"] for p in t["Partitions"]]) for t in everything["Topics"]] == [(topic, [0])]


def test_rule_38_require_stable_without_transactions_changes_nothing(wire, group, topic):
    find_coordinator(wire, group.name)
    commit(wire, group.name, topic, 3)
    assert committed(wire, group.name, topic, require_stable=True)[0] == 3


def test_rule_38_only_an_empty_group_is_deleted(wire, group, topic):
    member = group.member()
    stable(member)
    member.commit(topic, 1)
    assert delete_group(wire, group.name) == Error.NON_EMPTY_GROUP
    member.leave()
    assert delete_group(wire, group.name) == Error.NONE
    assert delete_group(wire, group.name) == Error.GROUP_ID_NOT_FOUND
    assert committed(wire, group.name, topic)[0] == -1


def test_rule_38_deleting_a_topic_drops_its_offsets(wire, topics, group, name):
    topics.create(name + "-a")
    topics.create(name + "-b")
    find_coordinator(wire, group.name)
    for suffix in ("-a", "-b"):
        commit(wire, group.name, name + suffix, 1)
    delete_topic(wire, name + "-a")
    deadline = time.monotonic() + 10
    while committed(wire, group.name, name + "-a")[0] != -1 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert committed(wire, group.name, name + "-a")[0] == -1
    assert committed(wire, group.name, name + "-b")[0] == 1


def test_rule_38_offsets_are_deleted_one_by_one(wire, topics, group, name):
    topics.create(name, partitions=2)
    find_coordinator(wire, group.name)
    for partition in (0, 1):
        commit(wire, group.name, name, 10 + partition, partition=partition)
    asked = [{"Name": name, "Partitions": [{"PartitionIndex": 0}]}]
    answer = wire.call("OffsetDelete", 0, GroupId=group.name, Topics=asked)
    assert answer["ErrorCode"] == Error.NONE and answer["Topics"][0]["Partitions"][0]["ErrorCode"] == Error.NONE
    assert [committed(wire, group.name, name, partition=p)[0] for p in (0, 1)] == [-1, 11]


def test_rule_38_topic_ids_from_version_10(wire, topics, group, topic):
    if versions_of(wire)[8][1] < 10:
        pytest.skip("the message codec's commit ends at version 9, and so does what is advertised")
    find_coordinator(wire, group.name)
    topic_id = topics.topic_id(topic)
    asked = [{"TopicId": topic_id, "Partitions": [
        {"PartitionIndex": 0, "CommittedOffset": 9, "CommittedMetadata": "by id"}]}]  # fmt: skip
    answer = wire.call(
        "OffsetCommit", 10, GroupId=group.name, GenerationIdOrMemberEpoch=-1, MemberId="", Topics=asked
    )
    assert answer["Topics"][0]["Partitions"][0]["ErrorCode"] == Error.NONE
    fetched = wire.call("OffsetFetch", 10, RequireStable=False, Groups=[
        {"GroupId": group.name, "Topics": [{"TopicId": topic_id, "PartitionIndexes": [0]}]}])  # fmt: skip
    found = fetched["Groups"][0]["Topics"][0]["Partitions"][0]
    assert (found["CommittedOffset"], found["Metadata"]) == (9, "by id")


def test_rule_38_groups_outlive_their_members(broker, group, topic, wire):
    member = group.member()
    stable(member)
    member.commit(topic, 4)
    member.leave()
    listed = {g["GroupId"]: g for g in wire.call("ListGroups", 5, StatesFilter=[], TypesFilter=[])["Groups"]}
    assert listed[group.name]["GroupState"] == "Empty" and listed[group.name]["ProtocolType"] == "consumer"
    assert listed[group.name]["GroupType"].lower() == "classic"
    only_stable = wire.call("ListGroups", 4, StatesFilter=["Stable"])["Groups"]
    assert group.name not in {g["GroupId"] for g in only_stable}
    assert committed(wire, group.name, topic)[0] == 4


def test_an_unknown_group_is_not_found(wire, name):
    find_coordinator(wire, name)
    described = describe_group(wire, name)
    assert (described["ErrorCode"], described["GroupState"]) == (Error.GROUP_ID_NOT_FOUND, "Dead")
    assert describe_group(wire, name, version=5)["GroupState"] == "Dead"
    assert delete_group(wire, name) == Error.GROUP_ID_NOT_FOUND


def test_coordinators_are_found_in_every_version(wire, name):
    find_coordinator(wire, name)
    for version in range(0, 7):
        if version < 4:
            body = {"Key": name} | ({"KeyType": 0} if version >= 1 else {})
            found = wire.call("FindCoordinator", version, **body)
        else:
            found = wire.call("FindCoordinator", version, KeyType=0, CoordinatorKeys=[name, name + "2"])["Coordinators"][1]
        assert found["ErrorCode"] == Error.NONE and found["Port"] > 0, version


