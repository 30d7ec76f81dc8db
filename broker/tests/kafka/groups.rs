//! Consumer groups over the wire: every version of their APIs, restarts, draining.

use std::time::Duration;

use bytes::Bytes;
use tidelog_protocol::messages::describe_groups_request::DescribeGroupsRequest;
use tidelog_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use tidelog_protocol::messages::leave_group_request::MemberIdentity;
use tidelog_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use tidelog_protocol::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use tidelog_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use tidelog_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use tidelog_protocol::messages::*;
use tidelog_protocol::{ErrorCode, StrBytes};

use crate::harness::{Client, TestBroker};

const QUICK: &[&str] = &[
    "group.initial.rebalance.delay.ms=0",
    "offsets.topic.num.partitions=4",
];

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn group(name: &str) -> GroupId {
    GroupId(text(name))
}

/// Asks until the coordinator is there and has loaded.
async fn find_coordinator(client: &mut Client, name: &str) {
    let find = FindCoordinatorRequest::default().with_key(text(name));
    for _ in 0..500 {
        let found: FindCoordinatorResponse = client.call(1, &find).await;
        if found.error_code == 0 {
            let describe = DescribeGroupsRequest::default().with_groups(vec![group(name)]);
            let described: DescribeGroupsResponse = client.call(0, &describe).await;
            if described.groups[0].error_code == 0 {
                return;
            }
        } else {
            assert_eq!(found.error_code, ErrorCode::CoordinatorNotAvailable.code());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the coordinator of {name} did not come up");
}

fn join_request(name: &str, member: &str) -> JoinGroupRequest {
    JoinGroupRequest::default()
        .with_group_id(group(name))
        .with_member_id(text(member))
        .with_session_timeout_ms(10_000)
        .with_rebalance_timeout_ms(20_000)
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![
            JoinGroupRequestProtocol::default()
                .with_name(text("range"))
                .with_metadata(Bytes::from_static(b"\0\0\0\0\0\0")),
        ])
}

/// Joins, with the round trip of newer versions.
async fn join(client: &mut Client, version: i16, name: &str) -> JoinGroupResponse {
    let mut request = join_request(name, "");
    if version == 0 {
        request = request.with_rebalance_timeout_ms(-1);
    }
    let joined: JoinGroupResponse = client.call(version, &request).await;
    if joined.error_code != ErrorCode::MemberIdRequired.code() {
        assert!(version < 4, "newcomers are given an id first");
        return joined;
    }
    assert!(version >= 4);
    client
        .call(version, &request.with_member_id(joined.member_id))
        .await
}

async fn sync(
    client: &mut Client,
    version: i16,
    name: &str,
    joined: &JoinGroupResponse,
) -> SyncGroupResponse {
    let mut request = SyncGroupRequest::default()
        .with_group_id(group(name))
        .with_generation_id(joined.generation_id)
        .with_member_id(joined.member_id.clone())
        .with_assignments(vec![
            SyncGroupRequestAssignment::default()
                .with_member_id(joined.member_id.clone())
                .with_assignment(Bytes::from_static(b"everything")),
        ]);
    if version >= 5 {
        request = request
            .with_protocol_type(Some(text("consumer")))
            .with_protocol_name(Some(text("range")));
    }
    client.call(version, &request).await
}

async fn heartbeat(
    client: &mut Client,
    version: i16,
    name: &str,
    joined: &JoinGroupResponse,
) -> i16 {
    let request = HeartbeatRequest::default()
        .with_group_id(group(name))
        .with_generation_id(joined.generation_id)
        .with_member_id(joined.member_id.clone());
    let beat: HeartbeatResponse = client.call(version, &request).await;
    beat.error_code
}

fn commit_request(name: &str, topic: &str, offset: i64) -> OffsetCommitRequest {
    let partition = |index: i32| {
        OffsetCommitRequestPartition::default()
            .with_partition_index(index)
            .with_committed_offset(offset)
            .with_committed_metadata(Some(text("note")))
    };
    OffsetCommitRequest::default()
        .with_group_id(group(name))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![
            OffsetCommitRequestTopic::default()
                .with_name(TopicName(text(topic)))
                .with_partitions(vec![partition(0), partition(99)]),
        ])
}

/// The code of partition 0; partition 99 does not exist.
async fn commit(client: &mut Client, version: i16, request: &OffsetCommitRequest) -> i16 {
    let committed: OffsetCommitResponse = client.call(version, request).await;
    let codes: Vec<i16> = committed.topics[0]
        .partitions
        .iter()
        .map(|p| p.error_code)
        .collect();
    assert_eq!(codes[1], ErrorCode::UnknownTopicOrPartition.code());
    codes[0]
}

/// Offset and note of partition 0.
async fn fetch(client: &mut Client, version: i16, name: &str, topic: &str) -> (i64, String) {
    let request = if version < 8 {
        OffsetFetchRequest::default()
            .with_group_id(group(name))
            .with_topics(Some(vec![
                OffsetFetchRequestTopic::default()
                    .with_name(TopicName(text(topic)))
                    .with_partition_indexes(vec![0, 7]),
            ]))
    } else {
        OffsetFetchRequest::default().with_groups(vec![
            OffsetFetchRequestGroup::default()
                .with_group_id(group(name))
                .with_topics(Some(vec![
                    OffsetFetchRequestTopics::default()
                        .with_name(TopicName(text(topic)))
                        .with_partition_indexes(vec![0, 7]),
                ])),
        ])
    };
    let fetched: OffsetFetchResponse = client.call(version, &request).await;
    if version < 8 {
        let partitions = &fetched.topics[0].partitions;
        assert_eq!(
            (
                fetched.error_code,
                partitions[1].committed_offset,
                partitions[1].error_code
            ),
            (0, -1, 0)
        );
        let metadata = partitions[0].metadata.as_ref().map(ToString::to_string);
        (partitions[0].committed_offset, metadata.unwrap_or_default())
    } else {
        let partitions = &fetched.groups[0].topics[0].partitions;
        assert_eq!(
            (fetched.groups[0].error_code, partitions[1].committed_offset),
            (0, -1)
        );
        let metadata = partitions[0].metadata.as_ref().map(ToString::to_string);
        (partitions[0].committed_offset, metadata.unwrap_or_default())
    }
}

#[tokio::test]
async fn every_version_of_join_sync_heartbeat_and_leave() {
    let broker = TestBroker::with(QUICK).await;
    let mut client = broker.connect().await;
    for version in 0..=9 {
        let name = format!("g{version}");
        find_coordinator(&mut client, &name).await;
        let joined = join(&mut client, version, &name).await;
        assert_eq!(
            (joined.error_code, joined.generation_id),
            (0, 1),
            "version {version}"
        );
        assert_eq!(
            (&joined.leader, joined.members.len()),
            (&joined.member_id, 1)
        );
        assert_eq!(joined.protocol_name, Some(text("range")));
        assert_eq!(joined.protocol_type.is_some(), version >= 7);
        let synced = sync(&mut client, version.min(5), &name, &joined).await;
        assert_eq!(
            (synced.error_code, &synced.assignment[..]),
            (0, &b"everything"[..]),
            "version {version}"
        );
        assert_eq!(
            heartbeat(&mut client, version.min(4), &name, &joined).await,
            0
        );
        let leave = LeaveGroupRequest::default().with_group_id(group(&name));
        let leave = if version < 3 {
            leave.with_member_id(joined.member_id.clone())
        } else {
            let member = MemberIdentity::default().with_member_id(joined.member_id.clone());
            leave.with_members(vec![member.with_group_instance_id(None)])
        };
        let left: LeaveGroupResponse = client.call(version.min(5), &leave).await;
        assert_eq!(left.error_code, 0);
        assert!(left.members.iter().all(|member| member.error_code == 0));
        let again: LeaveGroupResponse = client.call(version.min(5), &leave).await;
        let code = again
            .members
            .first()
            .map_or(again.error_code, |member| member.error_code);
        assert_eq!(code, ErrorCode::UnknownMemberId.code(), "version {version}");
    }
    assert!(broker.server.shutdown().await);
}

#[tokio::test]
async fn every_version_of_commit_and_fetch() {
    let broker = TestBroker::with(QUICK).await;
    broker.create_topic("t").await;
    let mut client = broker.connect().await;
    find_coordinator(&mut client, "g").await;
    assert_eq!(fetch(&mut client, 1, "g", "t").await, (-1, String::new()));
    for version in 2..=9 {
        let request = commit_request("g", "t", i64::from(version));
        assert_eq!(
            commit(&mut client, version, &request).await,
            0,
            "version {version}"
        );
        for fetch_version in 1..=9 {
            let expected = (i64::from(version), "note".to_owned());
            assert_eq!(
                fetch(&mut client, fetch_version, "g", "t").await,
                expected,
                "{version}, {fetch_version}"
            );
        }
    }
    let all = OffsetFetchRequest::default()
        .with_group_id(group("g"))
        .with_topics(None);
    let fetched: OffsetFetchResponse = client.call(7, &all.with_require_stable(true)).await;
    assert_eq!(fetched.topics[0].partitions[0].committed_offset, 9);
    assert!(broker.server.shutdown().await);
}

#[tokio::test]
async fn groups_are_listed_described_and_deleted_in_every_version() {
    let broker = TestBroker::with(QUICK).await;
    broker.create_topic("t").await;
    let mut client = broker.connect().await;
    find_coordinator(&mut client, "live").await;
    find_coordinator(&mut client, "simple").await;
    let joined = join(&mut client, 5, "live").await;
    sync(&mut client, 3, "live", &joined).await;
    assert_eq!(
        commit(&mut client, 8, &commit_request("simple", "t", 1)).await,
        0
    );
    for version in 0..=5 {
        let listed: ListGroupsResponse = client.call(version, &ListGroupsRequest::default()).await;
        let mut names: Vec<_> = listed
            .groups
            .iter()
            .map(|g| (g.group_id.to_string(), g.protocol_type.to_string()))
            .collect();
        names.sort();
        assert_eq!(
            names,
            [
                ("live".to_owned(), "consumer".to_owned()),
                ("simple".to_owned(), String::new())
            ]
        );
    }
    let stable = ListGroupsRequest::default().with_states_filter(vec![text("stable")]);
    let listed: ListGroupsResponse = client.call(4, &stable).await;
    assert_eq!(
        (listed.groups.len(), listed.groups[0].group_state.as_str()),
        (1, "Stable")
    );
    let shares = ListGroupsRequest::default().with_types_filter(vec![text("share")]);
    let listed: ListGroupsResponse = client.call(5, &shares).await;
    assert!(listed.groups.is_empty());
    for version in 0..=6 {
        let ask = DescribeGroupsRequest::default()
            .with_groups(vec![group("live"), group("nobody")])
            .with_include_authorized_operations(version == 3);
        let described: DescribeGroupsResponse = client.call(version, &ask).await;
        let [live, nobody] = &described.groups[..] else {
            panic!("two groups")
        };
        assert_eq!(
            (
                live.error_code,
                live.group_state.as_str(),
                live.protocol_data.as_str()
            ),
            (0, "Stable", "range")
        );
        assert_eq!(
            live.members[0].member_assignment,
            Bytes::from_static(b"everything")
        );
        assert_eq!(live.members[0].client_host.as_str(), "/127.0.0.1");
        assert_eq!(live.authorized_operations != i32::MIN, version == 3);
        assert_eq!(nobody.group_state.as_str(), "Dead");
        assert_eq!(
            nobody.error_code == ErrorCode::GroupIdNotFound.code(),
            version == 6
        );
    }
    for (version, name, code) in [(0, "live", 68), (1, "simple", 0), (2, "simple", 69)] {
        let ask = DeleteGroupsRequest::default().with_groups_names(vec![group(name)]);
        let deleted: DeleteGroupsResponse = client.call(version, &ask).await;
        assert_eq!(deleted.results[0].error_code, code, "{name}");
    }
    assert!(broker.server.shutdown().await);
}

#[tokio::test]
async fn offsets_are_deleted_by_request_and_with_their_topic() {
    let broker = TestBroker::with(QUICK).await;
    broker.create_topic("t").await;
    let mut client = broker.connect().await;
    find_coordinator(&mut client, "g").await;
    assert_eq!(
        commit(&mut client, 8, &commit_request("g", "t", 1)).await,
        0
    );
    let delete = OffsetDeleteRequest::default()
        .with_group_id(group("g"))
        .with_topics(vec![
            OffsetDeleteRequestTopic::default()
                .with_name(TopicName(text("t")))
                .with_partitions(vec![
                    OffsetDeleteRequestPartition::default().with_partition_index(0),
                    OffsetDeleteRequestPartition::default().with_partition_index(99),
                ]),
        ]);
    let deleted: OffsetDeleteResponse = client.call(0, &delete).await;
    let codes: Vec<i16> = deleted.topics[0]
        .partitions
        .iter()
        .map(|p| p.error_code)
        .collect();
    assert_eq!(
        (deleted.error_code, codes),
        (0, vec![0, ErrorCode::UnknownTopicOrPartition.code()])
    );
    assert_eq!(fetch(&mut client, 7, "g", "t").await.0, -1);
    assert!(broker.server.shutdown().await);
}

#[tokio::test]
async fn find_coordinator_in_every_version_and_for_what_is_not_built() {
    let broker = TestBroker::with(QUICK).await;
    let mut client = broker.connect().await;
    find_coordinator(&mut client, "g").await;
    let port = i32::from(broker.server.endpoints()[0].port);
    for version in 0..=3 {
        let find = FindCoordinatorRequest::default().with_key(text("g"));
        let found: FindCoordinatorResponse = client.call(version, &find).await;
        assert_eq!(
            (found.error_code, found.port),
            (0, port),
            "version {version}"
        );
    }
    for version in 4..=6 {
        let find =
            FindCoordinatorRequest::default().with_coordinator_keys(vec![text("g"), text("h")]);
        let found: FindCoordinatorResponse = client.call(version, &find).await;
        let ports: Vec<_> = found
            .coordinators
            .iter()
            .map(|c| (c.error_code, c.port))
            .collect();
        assert_eq!(ports, [(0, port), (0, port)], "version {version}");
    }
    for (key_type, code) in [(1, 35), (2, 35), (9, 42)] {
        let find = FindCoordinatorRequest::default()
            .with_coordinator_keys(vec![text("g")])
            .with_key_type(key_type);
        let found: FindCoordinatorResponse = client.call(6, &find).await;
        let refused = &found.coordinators[0];
        assert_eq!((refused.error_code, refused.node_id), (code, BrokerId(-1)));
        assert!(
            refused
                .error_message
                .as_ref()
                .is_some_and(|message| !message.is_empty())
        );
    }
    assert!(broker.server.shutdown().await);
}

#[tokio::test]
async fn draining_sends_parked_members_away_and_a_restart_keeps_their_group() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let broker = TestBroker::at(directory.path(), QUICK).await;
    broker.create_topic("t").await;
    let mut client = broker.connect().await;
    find_coordinator(&mut client, "g").await;
    let joined = join(&mut client, 3, "g").await;
    sync(&mut client, 3, "g", &joined).await;
    let mine = commit_request("g", "t", 5)
        .with_generation_id_or_member_epoch(joined.generation_id)
        .with_member_id(joined.member_id.clone());
    assert_eq!(commit(&mut client, 7, &mine).await, 0);
    let mut newcomer = broker.connect().await;
    let parked = newcomer.send(3, &join_request("g", "")).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(
        broker.server.shutdown().await,
        "a parked join does not hold the drain up"
    );
    let told: JoinGroupResponse = newcomer.receive::<JoinGroupRequest, _>(3, parked).await;
    assert_eq!(told.error_code, ErrorCode::CoordinatorNotAvailable.code());

    let broker = TestBroker::at(directory.path(), QUICK).await;
    let mut client = broker.connect().await;
    find_coordinator(&mut client, "g").await;
    assert_eq!(heartbeat(&mut client, 3, "g", &joined).await, 0);
    assert_eq!(
        fetch(&mut client, 7, "g", "t").await,
        (5, "note".to_owned())
    );
    assert_eq!(commit(&mut client, 7, &mine).await, 0);
    assert!(broker.server.shutdown().await);
}
