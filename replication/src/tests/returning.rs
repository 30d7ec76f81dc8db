//! Replicas that come back: to a partition that they have left, or to a leader that they knew.

use openraft::EntryPayload;
use openraft::raft::{AppendEntriesRequest, VoteRequest};
use tidelog_protocol::types::LeaderEpoch;
use tidelog_storage::log::{EntryId, EntryIndex, LogPosition, PartitionLog};

use super::brokers::{Node, produce};
use super::moving::{four, moved, reassign};
use super::replica::{noted, shared, throttles};
use super::*;
use crate::notices::Notices;
use crate::partition::group::{GroupContext, PartitionGroup};
use crate::partition::shared::PartitionShared;
use crate::raft::config::{self, OnStart};
use crate::raft::network::NoPeers;
use crate::raft::state_store::GroupStateStore;
use crate::raft::types::{Entry, GroupId, LogId, ReplicaId, Vote};

const TOPIC: TopicId = TopicId(Uuid::from_u128(42));

fn replica(broker: i32) -> ReplicaId {
    ReplicaId {
        broker: BrokerId(broker),
        directory: Uuid::from_u128(10 + broker.unsigned_abs() as u128),
    }
}

fn group_id(topic: TopicId) -> GroupId {
    GroupId {
        topic,
        partition: PartitionIndex(0),
    }
}

fn had(epoch: i32, index: u64) -> EntryId {
    EntryId {
        epoch: LeaderEpoch(epoch),
        index: EntryIndex(index),
    }
}

fn create(logs: &LogManager) -> Arc<PartitionLog> {
    let log = logs.create_log(
        &"left".into(),
        TOPIC,
        PartitionIndex(0),
        LogConfig::default(),
    );
    log.expect("is made")
}

async fn start(logs: &LogManager, shared: &Arc<PartitionShared>) -> PartitionGroup {
    let context = GroupContext {
        me: replica(1),
        kv: logs.kv().clone(),
        transport: Arc::new(NoPeers),
        records: None,
        throttles: throttles(replica(1)),
    };
    let config = config::partition(Durability::Sync, OnStart::Follow).expect("valid");
    let started = PartitionGroup::start(&context, shared, config, &[]);
    started.await.expect("starts")
}

/// Asks for a vote as one does that has everything up to an entry.
async fn is_granted(group: &PartitionGroup, term: u64, last: LogId) -> bool {
    let asked = VoteRequest::new(Vote::new(term, replica(2)), Some(last));
    let pre = group.vote(asked.clone(), true).await.expect("is answered");
    let answer = group.vote(asked, false).await.expect("is answered");
    assert_eq!(pre.vote_granted, answer.vote_granted);
    answer.vote_granted
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_had_more_helps_nobody_to_lead_who_lacks_it() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let logs = open_logs(directory.path()).await;
    let log = create(&logs);
    let shared = shared(replica(1), &log, had(5, 10));
    let group = start(&logs, &shared).await;
    assert!(!shared.is_whole());
    // It asks for nothing itself.
    group.elect().await;
    assert!(!is_granted(&group, 7, LogId::new_term_index(5, 8)).await);
    assert!(!is_granted(&group, 7, LogId::new_term_index(4, 900)).await);
    // Entries of a group count from 0, those of its log from 1.
    assert!(is_granted(&group, 7, LogId::new_term_index(5, 9)).await);
    group.shutdown().await;
    drop(group);
    // Once it has as much again, its log says what it has.
    let last = LogPosition {
        last: had(6, 3),
        ..LogPosition::default()
    };
    log.reset(last).await.expect("is done");
    assert_eq!(shared.lacks(), None);
    assert!(shared.is_whole());
    logs.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_of_an_earlier_run_leads_once_it_speaks() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let logs = open_logs(directory.path()).await;
    let log = create(&logs);
    // It heard of its leader by a record, and had not been asked to vote.
    let state = GroupStateStore::new(logs.kv().clone(), log.id());
    let vote = Vote::new_committed(3, replica(2));
    state.write_vote(&vote).await.expect("is written");
    let shared = shared(replica(1), &log, EntryId::default());
    let group = start(&logs, &shared).await;
    assert_eq!(shared.state().leader, None);
    let append = AppendEntriesRequest {
        vote,
        prev_log_id: None,
        entries: Vec::new(),
        leader_commit: None,
    };
    let answered = group.raft().append_entries(append).await;
    answered.expect("is answered");
    let state = shared.state();
    let leader = (state.leader, state.leader_epoch);
    assert_eq!(leader, (Some(BrokerId(2)), LeaderEpoch(3)));
    group.shutdown().await;
    drop(group);
    logs.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_was_given_up_leads_on_once_it_writes() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let logs = open_logs(directory.path()).await;
    let log = create(&logs);
    let notices = Arc::new(Notices::default());
    let shared = noted(replica(1), &log, EntryId::default(), notices.clone());
    let group = start(&logs, &shared).await;
    // Who leads after the leader wrote its next entry.
    let write = async |index: u64| {
        let at = |index| LogId::new_term_index(3, index);
        let blank = Entry {
            log_id: at(index),
            payload: EntryPayload::Blank,
        };
        let append = AppendEntriesRequest {
            vote: Vote::new_committed(3, replica(2)),
            prev_log_id: index.checked_sub(1).map(at),
            entries: vec![blank],
            leader_commit: None,
        };
        let answered = group.raft().append_entries(append).await;
        assert!(answered.expect("is answered").is_success());
        shared.state().leader
    };
    let leader = BrokerId(2);
    assert_eq!(write(0).await, Some(leader));
    assert!(shared.is_led());
    // It is fenced, and nobody can take over, as it has more than the others.
    notices.fenced.store(Arc::new([leader].into()));
    shared.lose_leader(leader);
    drop(notices.leaderless.take());
    assert_eq!(write(1).await, Some(leader));
    // Its end would be no news.
    assert!(!shared.is_led());
    assert!(!notices.leaderless.is_empty());
    notices.fenced.store(Arc::default());
    assert!(shared.is_led());
    assert_eq!(shared.state().leader_epoch, LeaderEpoch(3));
    group.shutdown().await;
    drop(group);
    logs.shutdown().await;
}

async fn move_to(nodes: &[Node], topic: TopicId, to: &[i32]) {
    reassign(&nodes[0], topic, Some(to)).await;
    for node in nodes {
        moved(node, topic, to).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_replica_must_not_forget_outlives_its_log() {
    let mut nodes = four().await;
    let topic = nodes[0].create("orders", &[1, 2, 3]).await;
    for number in 0..10 {
        produce(&nodes, topic, batch_of(4, number, 1)).await;
    }
    let is_there = |node: &Node| node.logs.log(topic, PartitionIndex(0)).is_some();
    assert!(is_there(&nodes[2]));
    move_to(&nodes, topic, &[1, 2, 4]).await;
    eventually("its log is removed", || !is_there(&nodes[2])).await;
    let departure = |node: &Node| node.replication.hosted().departure(group_id(topic));
    let left = departure(&nodes[2]).expect("is remembered");
    assert!(left.last.index.0 >= 10, "{left:?}");
    assert!(left.vote.is_some());
    for stayed in [0, 1, 3] {
        assert_eq!(departure(&nodes[stayed]), None);
    }
    for number in 10..20 {
        produce(&nodes, topic, batch_of(4, number, 1)).await;
    }
    move_to(&nodes, topic, &[1, 2, 3]).await;
    let back = nodes[2].partition(topic);
    eventually("it has all", || {
        back.state().high_watermark == Offset(20) && back.shared().lacks().is_none()
    })
    .await;
    assert_eq!(stored_offsets(&back), (0..20).collect::<Vec<_>>());
    // It counts again.
    drop(nodes.remove(0).kill().await);
    for number in 20..25 {
        let offset = produce(&nodes, topic, batch_of(4, number, 1)).await;
        assert_eq!(offset, Offset(number.into()));
    }
    drop(back);
    for node in nodes {
        node.stop().await;
    }
}
