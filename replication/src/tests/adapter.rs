//! What a group's log keeps when it is stopped at any point.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::BoxFuture;
use openraft::storage::{IOFlushed, RaftLogStorage, RaftStateMachine};
use openraft::{EntryPayload, Membership, SnapshotMeta};
use tidelog_storage::fs::HostileFs;
use tidelog_storage::journal::JournalConfig;
use tidelog_storage::kv::MemoryKv;
use tidelog_storage::log::{EntryIndex, LogError, LogPosition, PartitionLog};

use super::replica::{shared, throttles};
use super::*;
use crate::partition::records::{RecordSource, RecordsRead, RecordsWanted};
use crate::partition::state_machine::PartitionStateMachine;
use crate::raft::codec::{PartitionSnapshot, encode_snapshot, entry_id};
use crate::raft::log_store::{GroupEvents, GroupLog};
use crate::raft::state_store::GroupStateStore;
use crate::raft::types::{Entry, LogId, ReplicaId, StoredMembership, Vote};
use crate::throttle::{Pacer, Side};

/// An owner that does not care.
#[derive(Debug)]
struct Silent;

impl GroupEvents for Silent {
    fn vote_changed(&self, _vote: &Vote) {}
    fn failed(&self, _error: &LogError) {}
}

const TOPIC: TopicId = TopicId(Uuid::from_u128(42));

fn me() -> ReplicaId {
    ReplicaId {
        broker: BrokerId(1),
        directory: Uuid::from_u128(11),
    }
}

fn create(logs: &LogManager, durability: Durability) -> Arc<PartitionLog> {
    let config = LogConfig {
        durability,
        ..LogConfig::default()
    };
    logs.create_log(&"new".into(), TOPIC, PartitionIndex(0), config)
        .expect("is made")
}

fn group_log(log: &Arc<PartitionLog>, state: GroupStateStore) -> GroupLog {
    GroupLog::open(log.clone(), state, me(), Arc::new(Silent), None).expect("opens")
}

fn blank(term: u64, index: u64) -> Entry {
    Entry {
        log_id: LogId::new_term_index(term, index),
        payload: EntryPayload::Blank,
    }
}

fn open_on(disk: &Arc<HostileFs>, kv: &Arc<MemoryKv>) -> Arc<LogManager> {
    let mut options = StorageOptions::new(PathBuf::from("/data"), disk.clone(), kv.clone());
    options.journal = JournalConfig {
        file_bytes: 64 << 10,
        files_min: 2,
        files_max: 4,
        queue_bytes_max: 1 << 20,
        ..JournalConfig::default()
    };
    LogManager::open(options).expect("opens").0
}

/// Starts a group on a disk whose power goes after so many operations. Says whether a vote is left, and the last entry.
async fn left_by_a_power_loss(
    durability: Durability,
    operations: u64,
    seed: u64,
) -> (bool, EntryIndex) {
    let disk = Arc::new(HostileFs::new(seed));
    let kv = Arc::new(MemoryKv::new().expect("a thread starts"));
    let logs = open_on(&disk, &kv);
    let log = create(&logs, durability);
    let state = GroupStateStore::new(kv.clone(), log.id());
    let mut group = group_log(&log, state.clone());
    disk.cut_power_after(operations);
    let members = Membership::new_with_defaults(vec![[me()].into()], []);
    let first = Entry {
        log_id: LogId::new_term_index(0, 0),
        payload: EntryPayload::Membership(members),
    };
    // Either may fail, as the power is going.
    let _ = group.append([first], IOFlushed::noop()).await;
    let _ = group.save_vote(&Vote::new(1, me())).await;
    // Nothing of what its threads still do reaches the disk.
    disk.cut_power_after(0);
    logs.shutdown().await;
    disk.power_loss(seed);
    let logs = open_on(&disk, &kv);
    let log = logs.log(TOPIC, PartitionIndex(0));
    let last = log.map_or(EntryIndex(0), |log| log.bounds().last.index);
    logs.shutdown().await;
    (state.read_vote().expect("is readable").is_some(), last)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vote_is_never_there_without_the_first_membership() {
    for durability in [Durability::Sync, Durability::Os] {
        let (mut votes, mut runs) = (0, 0);
        for (operations, seed) in (0..6).flat_map(|it| (0..6).map(move |seed| (it, seed))) {
            let (voted, last) = left_by_a_power_loss(durability, operations, seed).await;
            assert!(
                !voted || last >= EntryIndex(1),
                "{durability:?}, {operations} operations, seed {seed}: a vote, and no members"
            );
            votes += usize::from(voted);
            runs += 1;
        }
        assert!(votes > 0, "{durability:?}: the power always went too early");
        assert!(
            votes < runs,
            "{durability:?}: the power always went too late"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_is_purged_beyond_its_end_begins_anew_there() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let logs = open_logs(directory.path()).await;
    let log = create(&logs, Durability::Sync);
    let mut group = group_log(&log, GroupStateStore::new(logs.kv().clone(), log.id()));
    let entries = (0..3).map(|index| blank(1, index));
    group
        .append(entries, IOFlushed::noop())
        .await
        .expect("appends");
    let boundary = LogId::new_term_index(2, 9);
    group.purge(boundary).await.expect("purges");
    let bounds = log.bounds();
    let expected = entry_id(&boundary).expect("a small term");
    assert_eq!((bounds.purged, bounds.last), (expected, expected));
    group
        .append([blank(2, 10)], IOFlushed::noop())
        .await
        .expect("goes on behind the boundary");
    assert_eq!(log.bounds().last.index, EntryIndex(11));
    logs.shutdown().await;
}

/// A leader that is out of reach for some calls, and of whose records compaction has left none.
#[derive(Debug)]
struct Unreachable {
    calls: AtomicUsize,
    until: usize,
}

impl RecordSource for Unreachable {
    fn read(
        &self,
        _from: BrokerId,
        wanted: RecordsWanted,
    ) -> BoxFuture<'_, Result<RecordsRead, String>> {
        let away = self.calls.fetch_add(1, Ordering::Relaxed) < self.until;
        let read = RecordsRead {
            mark: 1,
            next: wanted.upto,
            piece_bytes: 0,
            bytes: Default::default(),
        };
        Box::pin(async move {
            match away {
                true => Err("connection refused".to_owned()),
                false => Ok(read),
            }
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_of_records_outlasts_a_leader_that_is_out_of_reach() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let logs = open_logs(directory.path()).await;
    let log = create(&logs, Durability::Os);
    let shared = shared(me(), &log, Default::default());
    let other = ReplicaId {
        broker: BrokerId(2),
        ..me()
    };
    shared.vote_changed(&Vote::new_committed(1, other));
    let source = Arc::new(Unreachable {
        calls: AtomicUsize::new(0),
        until: 3,
    });
    let state = GroupStateStore::new(logs.kv().clone(), log.id());
    let pacer = Pacer::new(throttles(me()), shared.clone(), Side::Follower);
    let records = Some(source.clone() as Arc<dyn RecordSource>);
    let mut machine = PartitionStateMachine::new(shared, state, records, pacer, Arc::default());
    let boundary = LogId::new_term_index(1, 9);
    let snapshot = PartitionSnapshot {
        position: LogPosition {
            last: entry_id(&boundary).expect("a small term"),
            next_offset: Offset(50),
            ..LogPosition::default()
        },
        membership: StoredMembership::default(),
    };
    let meta = SnapshotMeta {
        last_log_id: Some(boundary),
        last_membership: StoredMembership::default(),
    };
    machine
        .install_snapshot(&meta, encode_snapshot(&snapshot))
        .await
        .expect("is installed once the leader answers");
    assert_eq!(source.calls.load(Ordering::Relaxed), 4);
    assert_eq!(log.bounds().log_end, Offset(50));
    logs.shutdown().await;
}
