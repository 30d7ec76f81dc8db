//! Three replicas of one group in one process, over memory or sockets that can be cut.

mod acks;
mod net;

use openraft::raft::VoteRequest;

use super::replica::{shared, throttles};
use super::*;
use crate::partition::PartitionLimits;
use crate::partition::group::{GroupContext, PartitionGroup};
use crate::raft::config::{self, OnStart};
use crate::raft::types::{LogId, ReplicaId, Vote};
use net::{InMemory, Net, Tcp};

/// One replica with its own data directory.
struct Replica {
    id: ReplicaId,
    partition: Arc<Partition>,
    _directory: TempDir,
}

struct Cluster<N = InMemory> {
    net: N,
    replicas: Vec<Replica>,
}

fn ids() -> Vec<ReplicaId> {
    (1..=3)
        .map(|id| ReplicaId {
            broker: BrokerId(id),
            directory: Uuid::from_u128(id as u128),
        })
        .collect()
}

impl<N: Net> Cluster<N> {
    /// Three replicas, the first of which leads.
    async fn start(net: N, log_config: LogConfig) -> Cluster<N> {
        let ids = ids();
        let mut replicas = Vec::new();
        // The one that names the members comes last, when the others listen.
        for id in ids.iter().rev() {
            replicas.push(Replica::start(&net, *id, &ids, log_config.clone()).await);
        }
        replicas.reverse();
        let cluster = Cluster { net, replicas };
        cluster.leader_is(0).await;
        cluster
    }

    fn partition(&self, index: usize) -> &Arc<Partition> {
        &self.replicas[index].partition
    }

    fn cut(&self, index: usize, cut: bool) {
        self.net.set_cut(self.replicas[index].id, cut);
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
        self.net.end().await;
    }
}

impl Replica {
    async fn start(
        net: &impl Net,
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
        let shared = shared(id, &log, Default::default());
        let limits = PartitionLimits {
            in_flight_bytes_max: 1 << 20,
            broker_in_flight_bytes_max: 1 << 20,
            replica_lag_max: Duration::from_secs(30),
        };
        let partition = Arc::new(Partition::new(shared, 1, limits));
        let context = GroupContext {
            me: id,
            kv: logs.kv().clone(),
            transport: net.transport(id),
            records: None,
            throttles: throttles(id),
        };
        let config = config::partition(durability, OnStart::Follow).expect("valid");
        let started = PartitionGroup::start(&context, partition.shared(), config, members)
            .await
            .expect("starts");
        net.serve(id, started.raft().clone());
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

async fn followers_hold_the_same_bytes(net: impl Net) {
    let cluster = Cluster::start(net, log_config()).await;
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

async fn an_idle_leader_renews_its_lease_before_it_writes(net: impl Net) {
    let cluster = Cluster::start(net, log_config()).await;
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

async fn a_lost_leader_is_replaced_and_what_it_did_not_commit_is_sent_again(net: impl Net) {
    let cluster = Cluster::start(net, log_config()).await;
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
        // Sockets are closed a moment after the cut: what got through is what the next leader has as well.
        let true_answer = match &answer {
            Ok(appended) => appended.base_offset == Offset(5),
            Err(error) => matches!(error, AppendError::Unknown | AppendError::NotLeader { .. }),
        };
        assert!(true_answer, "{answer:?}");
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

async fn a_dead_peer_is_not_asked_again_and_again(net: impl Net) {
    let cluster = Cluster::start(net, log_config()).await;
    cluster.cut(2, true);
    append_patiently(cluster.partition(0), batch(1)).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let before = cluster.net.calls();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let calls = cluster.net.calls() - before;
    assert!(calls < 50, "{calls} calls within an idle second");
    cluster.cut(2, false);
    append_patiently(cluster.partition(0), batch(1)).await;
    cluster.caught_up(2, 2).await;
    cluster.stop().await;
}

async fn a_replica_behind_the_log_start_gets_all_that_is_retained(net: impl Net) {
    let cluster = Cluster::start(net, log_config()).await;
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

impl<N: Net> Cluster<N> {
    /// Cuts the leader off and lets another replica take over.
    async fn elect_after_cut(&self, index: usize) {
        self.cut(0, true);
        self.elect(index).await;
    }
}

/// Runs each scenario over memory and over sockets.
mod over {
    use super::*;

    mod memory {
        use super::*;

        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn followers_hold_the_same_bytes() {
            super::super::followers_hold_the_same_bytes(InMemory::default()).await;
        }

        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn an_idle_leader_renews_its_lease_before_it_writes() {
            super::super::an_idle_leader_renews_its_lease_before_it_writes(InMemory::default())
                .await;
        }

        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn a_lost_leader_is_replaced_and_what_it_did_not_commit_is_sent_again() {
            super::super::a_lost_leader_is_replaced_and_what_it_did_not_commit_is_sent_again(
                InMemory::default(),
            )
            .await;
        }

        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn a_dead_peer_is_not_asked_again_and_again() {
            super::super::a_dead_peer_is_not_asked_again_and_again(InMemory::default()).await;
        }

        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn a_replica_behind_the_log_start_gets_all_that_is_retained() {
            super::super::a_replica_behind_the_log_start_gets_all_that_is_retained(
                InMemory::default(),
            )
            .await;
        }
    }

    mod sockets {
        use super::*;

        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn followers_hold_the_same_bytes() {
            super::super::followers_hold_the_same_bytes(Tcp::start(&ids()).await).await;
        }

        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn an_idle_leader_renews_its_lease_before_it_writes() {
            super::super::an_idle_leader_renews_its_lease_before_it_writes(
                Tcp::start(&ids()).await,
            )
            .await;
        }

        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn a_lost_leader_is_replaced_and_what_it_did_not_commit_is_sent_again() {
            super::super::a_lost_leader_is_replaced_and_what_it_did_not_commit_is_sent_again(
                Tcp::start(&ids()).await,
            )
            .await;
        }

        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn a_dead_peer_is_not_asked_again_and_again() {
            super::super::a_dead_peer_is_not_asked_again_and_again(Tcp::start(&ids()).await).await;
        }

        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn a_replica_behind_the_log_start_gets_all_that_is_retained() {
            super::super::a_replica_behind_the_log_start_gets_all_that_is_retained(
                Tcp::start(&ids()).await,
            )
            .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_hear_at_once_what_is_committed_also_if_nothing_follows() {
    let cluster = Cluster::start(Tcp::start(&ids()).await, log_config()).await;
    let leader = cluster.partition(0);
    for round in 0..5 {
        append_patiently(leader, batch(1)).await;
        let appended = std::time::Instant::now();
        for follower in [1, 2] {
            cluster.caught_up(follower, round + 1).await;
        }
        let took = appended.elapsed();
        println!("followers knew after {took:?}");
        assert!(took < Duration::from_secs(2), "{took:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_did_not_hear_what_is_committed_is_told_when_it_asks() {
    let cluster = Cluster::start(InMemory::default(), log_config()).await;
    let (leader, follower) = (cluster.partition(0), cluster.partition(2));
    append_patiently(leader, batch(1)).await;
    cluster.caught_up(2, 1).await;
    cluster.net.set_deaf(cluster.replicas[2].id, true);
    append_patiently(leader, batch(1)).await;
    cluster.caught_up(1, 2).await;
    eventually("it has the record", || {
        follower.state().log_end == Offset(2)
    })
    .await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    cluster.net.set_deaf(cluster.replicas[2].id, false);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(follower.shared().is_behind(), "it was told anyway");
    leader.group().expect("runs").tell_committed().await;
    cluster.caught_up(2, 2).await;
    assert!(!follower.shared().is_behind());
    // What leaders know of their followers is told as offsets, once they have looked who is in sync.
    assert_eq!(leader.in_sync_ends(), []);
    eventually("all are in sync", || leader.in_sync_now(&[]).len() == 3).await;
    let mut ends = leader.in_sync_ends();
    ends.sort_unstable();
    assert_eq!(ends, [(BrokerId(2), Offset(2)), (BrokerId(3), Offset(2))]);
    assert_eq!(follower.in_sync_ends(), []);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_knows_how_far_the_logs_of_its_followers_reach() {
    let cluster = Cluster::start(InMemory::default(), log_config()).await;
    let leader = cluster.partition(0);
    for number in 0..5 {
        append_patiently(leader, batch_of(4, number * 3, 3)).await;
    }
    cluster.caught_up(2, 15).await;
    eventually("all are in sync", || leader.in_sync_now(&[]).len() == 3).await;
    cluster.cut(2, true);
    append_patiently(leader, batch_of(4, 15, 3)).await;
    append_patiently(leader, batch_of(4, 18, 3)).await;
    let ends = || {
        leader.in_sync_now(&[]);
        let mut ends = leader.in_sync_ends();
        ends.sort_unstable();
        ends
    };
    let expected = [(BrokerId(2), Offset(21)), (BrokerId(3), Offset(15))];
    eventually("the one that is cut off lacks two batches", || {
        ends() == expected
    })
    .await;
    cluster.cut(2, false);
    append_patiently(leader, batch_of(4, 21, 3)).await;
    eventually("it has caught up", || {
        ends() == [(BrokerId(2), Offset(24)), (BrokerId(3), Offset(24))]
    })
    .await;
    cluster.stop().await;
}

/// Appends so many batches while something happens to the network, and checks that all replicas hold all of them, once.
async fn append_through(cluster: Cluster<Tcp>, batches: i32, happens: impl AsyncFn(&Tcp)) {
    let leader = cluster.partition(0);
    let appending = async {
        for number in 0..batches {
            append_patiently(leader, batch_of(4, number, 1)).await;
        }
    };
    tokio::join!(appending, happens(&cluster.net));
    append_patiently(leader, batch_of(4, batches, 1)).await;
    for replica in 0..3 {
        cluster.caught_up(replica, i64::from(batches) + 1).await;
        let expected: Vec<i64> = (0..=i64::from(batches)).collect();
        assert_eq!(stored_offsets(cluster.partition(replica)), expected);
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_die_again_and_again_lose_and_repeat_nothing() {
    let cluster = Cluster::start(Tcp::start(&ids()).await, log_config()).await;
    append_through(cluster, 200, async |net: &Tcp| {
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_millis(150)).await;
            net.kill_connections();
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_way_that_is_cut_in_one_direction_holds_up_nobody_and_heals() {
    let ids = ids();
    for stall in [true, false] {
        let cluster = Cluster::start(Tcp::start(&ids).await, log_config()).await;
        let way = (ids[0], ids[2]);
        append_through(cluster, 100, async |net: &Tcp| {
            tokio::time::sleep(Duration::from_millis(50)).await;
            net.way(way.0, way.1).change(|mode| {
                mode.stall_requests = stall;
                mode.stall_answers = !stall;
            });
            tokio::time::sleep(Duration::from_secs(4)).await;
            net.way(way.0, way.1).change(|mode| {
                mode.stall_requests = false;
                mode.stall_answers = false;
            });
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_follower_slows_nobody_but_itself() {
    let ids = ids();
    let cluster = Cluster::start(Tcp::start(&ids).await, log_config()).await;
    cluster
        .net
        .way(ids[0], ids[2])
        .change(|mode| mode.pause = Duration::from_millis(100));
    let leader = cluster.partition(0);
    for number in 0..100 {
        append_patiently(leader, batch_of(4, number, 1)).await;
    }
    cluster.caught_up(1, 100).await;
    cluster.caught_up(2, 100).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_that_voted_for_a_first_leader_that_is_gone_elect_another() {
    let (net, ids) = (InMemory::default(), ids());
    let mut replicas = Vec::new();
    for id in &ids[1..] {
        replicas.push(Replica::start(&net, *id, &ids, log_config()).await);
    }
    let cluster = Cluster { net, replicas };
    // It is elected, and its disk is lost before it has said anything.
    let asked = VoteRequest::new(Vote::new(1, ids[0]), Some(LogId::new_term_index(0, 0)));
    for replica in &cluster.replicas {
        let group = replica.partition.group().expect("runs");
        let answer = group.vote(asked.clone(), false).await;
        assert!(answer.expect("is answered").vote_granted);
    }
    cluster.leader_is(0).await;
    let offset = append_patiently(cluster.partition(0), batch_of(4, 0, 1)).await;
    assert_eq!(offset, Offset(0));
    cluster.caught_up(1, 1).await;
    cluster.stop().await;
}
