//! Three replicas of one group in one process, over a transport that can be cut.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::future::BoxFuture;
use openraft::Raft;
use openraft::errors::{NetworkError, RPCError, Unreachable};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use tidelog_protocol::types::TopicPartition;
use tokio::sync::{Notify, Semaphore};

use super::*;
use crate::notices::Notices;
use crate::partition::group::{GroupContext, PartitionGroup};
use crate::partition::shared::{Budgets, PartitionShared};
use crate::partition::state_machine::PartitionStateMachine;
use crate::raft::config;
use crate::raft::network::{CallResult, PeerTransport, Snapshot};
use crate::raft::types::{GroupId, GroupTypes, ReplicaId, Vote};

type GroupRaft = Raft<GroupTypes, PartitionStateMachine>;

/// All replicas by id, and those that are cut off.
#[derive(Debug, Default)]
struct Wire {
    replicas: Mutex<HashMap<ReplicaId, GroupRaft>>,
    cut: Mutex<HashSet<ReplicaId>>,
    changed: Notify,
    calls: AtomicU64,
}

impl Wire {
    fn set_cut(&self, replica: ReplicaId, cut: bool) {
        if cut {
            self.cut.lock().insert(replica);
        } else {
            self.cut.lock().remove(&replica);
        }
        self.changed.notify_waiters();
    }

    fn connected(&self, one: ReplicaId, other: ReplicaId) -> bool {
        let cut = self.cut.lock();
        !cut.contains(&one) && !cut.contains(&other)
    }
}

/// One replica's end of the wire.
#[derive(Clone, Debug)]
struct WireEnd {
    wire: Arc<Wire>,
    me: ReplicaId,
}

impl WireEnd {
    fn call<T, F>(
        &self,
        peer: ReplicaId,
        call: impl FnOnce(GroupRaft) -> F + Send + 'static,
    ) -> BoxFuture<'static, CallResult<T>>
    where
        F: Future<Output = Result<T, String>> + Send,
        T: Send + 'static,
    {
        let end = self.clone();
        Box::pin(async move {
            end.wire.calls.fetch_add(1, Ordering::Relaxed);
            let raft = end.wire.replicas.lock().get(&peer).cloned();
            let Some(raft) = raft.filter(|_| end.wire.connected(end.me, peer)) else {
                return Err(RPCError::Unreachable(Unreachable::from_string("cut")));
            };
            let answer = call(raft).await;
            if !end.wire.connected(end.me, peer) {
                return Err(RPCError::Unreachable(Unreachable::from_string("cut")));
            }
            answer.map_err(|error| RPCError::Network(NetworkError::from_string(error)))
        })
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

impl PeerTransport for WireEnd {
    fn reachable(&self, peer: ReplicaId) -> BoxFuture<'static, ()> {
        let end = self.clone();
        Box::pin(async move {
            loop {
                let changed = end.wire.changed.notified();
                if end.wire.connected(end.me, peer) {
                    return;
                }
                changed.await;
            }
        })
    }

    fn append(
        &self,
        _group: GroupId,
        peer: ReplicaId,
        request: AppendEntriesRequest<GroupTypes>,
    ) -> BoxFuture<'static, CallResult<AppendEntriesResponse<GroupTypes>>> {
        self.call(peer, |raft| async move {
            raft.append_entries(request).await.map_err(text)
        })
    }

    fn vote(
        &self,
        _group: GroupId,
        peer: ReplicaId,
        request: VoteRequest<GroupTypes>,
        pre_vote: bool,
    ) -> BoxFuture<'static, CallResult<VoteResponse<GroupTypes>>> {
        self.call(peer, move |raft| async move {
            let answer = if pre_vote {
                raft.pre_vote(request).await
            } else {
                raft.vote(request).await
            };
            answer.map_err(text)
        })
    }

    fn snapshot(
        &self,
        _group: GroupId,
        peer: ReplicaId,
        vote: Vote,
        snapshot: Snapshot,
    ) -> BoxFuture<'static, CallResult<SnapshotResponse<GroupTypes>>> {
        self.call(peer, move |raft| async move {
            raft.install_full_snapshot(vote, snapshot)
                .await
                .map_err(text)
        })
    }

    fn transfer_leader(
        &self,
        _group: GroupId,
        peer: ReplicaId,
        request: TransferLeaderRequest<GroupTypes>,
    ) -> BoxFuture<'static, CallResult<TransferLeaderResponse<GroupTypes>>> {
        self.call(peer, move |raft| async move {
            raft.handle_transfer_leader(request).await.map_err(text)
        })
    }
}

/// One replica with its own data directory.
struct Replica {
    id: ReplicaId,
    partition: Arc<Partition>,
    _directory: TempDir,
}

struct Cluster {
    wire: Arc<Wire>,
    replicas: Vec<Replica>,
}

impl Cluster {
    /// Three replicas, the first of which leads.
    async fn start(log_config: LogConfig) -> Cluster {
        let wire = Arc::new(Wire::default());
        let ids: Vec<ReplicaId> = (1..=3)
            .map(|id| ReplicaId {
                broker: BrokerId(id),
                directory: Uuid::from_u128(id as u128),
            })
            .collect();
        let mut replicas = Vec::new();
        // The one that names the members comes last, when the others listen.
        for id in ids.iter().rev() {
            replicas.push(Replica::start(&wire, *id, &ids, log_config.clone()).await);
        }
        replicas.reverse();
        let cluster = Cluster { wire, replicas };
        cluster.leader_is(0).await;
        cluster
    }

    fn partition(&self, index: usize) -> &Arc<Partition> {
        &self.replicas[index].partition
    }

    fn cut(&self, index: usize, cut: bool) {
        self.wire.set_cut(self.replicas[index].id, cut);
    }

    async fn leader_is(&self, index: usize) {
        // The first election may have missed its time on a loaded machine.
        self.elect(index).await;
        let partition = self.partition(index).clone();
        eventually("it leads", || {
            let state = partition.state();
            state.is_leader() && state.high_watermark >= state.epoch_start
        })
        .await;
    }

    /// Asks a replica to take over until it does.
    async fn elect(&self, index: usize) {
        let partition = self.partition(index).clone();
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !partition.state().is_leader() {
            assert!(tokio::time::Instant::now() < deadline, "nobody leads");
            partition.group().expect("runs").elect().await;
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }

    async fn caught_up(&self, index: usize, to: i64) {
        let partition = self.partition(index).clone();
        eventually("it has caught up", || {
            partition.state().high_watermark == Offset(to)
        })
        .await;
    }

    async fn stop(self) {
        for replica in &self.replicas {
            if let Some(group) = replica.partition.swap_group(None) {
                group.shutdown().await;
            }
        }
    }
}

impl Replica {
    async fn start(
        wire: &Arc<Wire>,
        id: ReplicaId,
        members: &[ReplicaId],
        log_config: LogConfig,
    ) -> Replica {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let logs = open_logs(directory.path()).await;
        let topic = TopicId(Uuid::from_u128(42));
        let (name, index) = (TopicName::from("replicated"), PartitionIndex(0));
        let durability = log_config.durability;
        let log = logs
            .create_log(&name, topic, index, log_config)
            .expect("is made");
        let budgets = Budgets {
            partition: 1 << 20,
            broker: Arc::new(Semaphore::new(1 << 20)),
        };
        let group = GroupId {
            topic,
            partition: index,
        };
        let name = TopicPartition {
            topic: name,
            partition: index,
        };
        let shared = Arc::new(PartitionShared::new(
            group,
            name,
            id,
            log,
            budgets,
            Arc::new(Notices::default()),
        ));
        let partition = Arc::new(Partition::new(shared, 1, 1 << 20, 1 << 20));
        let transport = Arc::new(WireEnd {
            wire: wire.clone(),
            me: id,
        });
        let context = GroupContext {
            me: id,
            kv: logs.kv().clone(),
            transport,
        };
        let config = config::partition(durability).expect("valid");
        let started = PartitionGroup::start(&context, partition.shared(), config, members)
            .await
            .expect("starts");
        wire.replicas.lock().insert(id, started.raft().clone());
        partition.swap_group(Some(Arc::new(started)));
        Replica {
            id,
            partition,
            _directory: directory,
        }
    }
}

/// Appends as a client does: what a leader could not confirm in time is sent again.
async fn append_patiently(partition: &Partition, batch: RecordBatch) -> Offset {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        match append(partition, batch.clone(), Acks::All).await {
            Ok(appended) => return appended.base_offset,
            Err(AppendError::NotLeader { .. }) if tokio::time::Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(error) => panic!("not appended: {error}"),
        }
    }
}

fn log_config() -> LogConfig {
    let topic = TopicImage {
        name: TopicName::from("replicated"),
        id: TopicId(Uuid::from_u128(42)),
        partitions: Vec::new(),
        configs: BTreeMap::from([("segment.bytes".into(), "4096".into())]),
    };
    TestConfigs::default().log_config(&topic)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_hold_the_same_bytes() {
    let cluster = Cluster::start(log_config()).await;
    let leader = cluster.partition(0);
    for number in 0..30 {
        assert_eq!(
            append_patiently(leader, batch_of(4, number * 2, 2)).await,
            Offset(i64::from(number) * 2)
        );
    }
    let read = |partition: &Partition| {
        partition
            .log()
            .read_blocking(Offset(0), Offset(60), usize::MAX >> 1, true)
            .expect("reads")
            .pieces
            .concat()
    };
    let expected = read(leader);
    for follower in [1, 2] {
        cluster.caught_up(follower, 60).await;
        let partition = cluster.partition(follower);
        assert_eq!(partition.state().leader, Some(BrokerId(1)));
        assert!(read(partition) == expected);
        assert!(matches!(
            append(partition, batch(1), Acks::All).await,
            Err(AppendError::NotLeader { .. })
        ));
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_leader_renews_its_lease_before_it_writes() {
    let cluster = Cluster::start(log_config()).await;
    for round in 0..3 {
        tokio::time::sleep(Duration::from_millis(600)).await;
        assert_eq!(
            append_patiently(cluster.partition(0), batch(1)).await,
            Offset(round)
        );
    }
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while cluster.partition(0).confirm_leadership().await.is_err() {
        assert!(
            tokio::time::Instant::now() < deadline,
            "the leadership is never confirmed"
        );
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_leader_is_replaced_and_what_it_did_not_commit_is_sent_again() {
    let cluster = Cluster::start(log_config()).await;
    for number in 0..5 {
        append_patiently(cluster.partition(0), batch_of(4, number, 1)).await;
    }
    // Commit the follower's knowledge of the fifth batch before the cut.
    cluster.caught_up(1, 5).await;
    cluster.cut(0, true);
    let request = AppendRequest {
        batch: batch_of(4, 5, 1),
        acks: Acks::All,
        epoch: None,
    };
    let lost = cluster.partition(0).submit(request).await;
    cluster.elect(1).await;
    let new_leader = cluster.partition(1);
    assert_eq!(
        append_patiently(new_leader, batch_of(4, 4, 1)).await,
        Offset(4),
        "a duplicate"
    );
    assert_eq!(
        append_patiently(new_leader, batch_of(4, 5, 1)).await,
        Offset(5),
        "sent again"
    );
    cluster.cut(0, false);
    append_patiently(new_leader, batch_of(4, 6, 1)).await;
    cluster.caught_up(0, 7).await;
    assert_eq!(cluster.partition(0).state().leader, Some(BrokerId(2)));
    if let Ok(ticket) = lost {
        let answer = tokio::time::timeout(PATIENCE, ticket)
            .await
            .expect("is answered");
        assert!(
            matches!(
                answer,
                Err(AppendError::Unknown | AppendError::NotLeader { .. })
            ),
            "{answer:?}"
        );
    }
    for replica in 0..3 {
        cluster.caught_up(replica, 7).await;
        assert_eq!(
            stored_offsets(cluster.partition(replica)),
            [0, 1, 2, 3, 4, 5, 6]
        );
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_peer_is_not_asked_again_and_again() {
    let cluster = Cluster::start(log_config()).await;
    cluster.cut(2, true);
    append_patiently(cluster.partition(0), batch(1)).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let before = cluster.wire.calls.load(Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let calls = cluster.wire.calls.load(Ordering::Relaxed) - before;
    assert!(calls < 50, "{calls} calls within an idle second");
    cluster.cut(2, false);
    append_patiently(cluster.partition(0), batch(1)).await;
    cluster.caught_up(2, 2).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_behind_the_log_start_gets_all_that_is_retained() {
    let cluster = Cluster::start(log_config()).await;
    cluster.cut(2, true);
    let leader = cluster.partition(0);
    for number in 0..60 {
        append_patiently(leader, batch_of(4, number, 1)).await;
    }
    while leader.delete_records(Some(Offset(45))).await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // A purge of what a lost peer has not got is postponed; retention asks for it again.
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while leader.log().bounds().purged.index.0 <= 1 && tokio::time::Instant::now() < deadline {
        leader.drop_deleted().await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    cluster.cut(2, false);
    append_patiently(leader, batch_of(4, 60, 1)).await;
    cluster.caught_up(2, 61).await;
    let behind = cluster.partition(2);
    eventually("it has the log start", || {
        behind.state().log_start == Offset(45)
    })
    .await;
    assert_eq!(stored_offsets(behind), (45..=60).collect::<Vec<_>>());
    cluster.elect_after_cut(2).await;
    cluster.cut(0, false);
    assert_eq!(
        append_patiently(behind, batch_of(4, 61, 1)).await,
        Offset(61),
        "it knows the producer"
    );
    cluster.stop().await;
}

impl Cluster {
    /// Cuts the leader off and lets another replica take over.
    async fn elect_after_cut(&self, index: usize) {
        self.cut(0, true);
        self.elect(index).await;
    }
}
