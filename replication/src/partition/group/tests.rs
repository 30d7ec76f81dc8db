//! Where a group starts whose log and checkpoint do not agree.

use std::sync::Arc;

use bytes::Bytes;
use tidelog_protocol::types::{LeaderEpoch, Offset, PartitionIndex, TopicId};
use tidelog_storage::journal::Durability;
use tidelog_storage::log::{EntryBody, EntryId, LogConfig, LogEntry, Stamping};
use tidelog_storage::manager::LogManager;
use uuid::Uuid;

use super::*;
use crate::raft::codec::PartitionSnapshot;
use crate::raft::types::StoredMembership;
use crate::tests::{batch, open_logs};

/// A log of a group, and the group's state beside it.
struct Stored {
    log: Arc<PartitionLog>,
    state: GroupStateStore,
    logs: Arc<LogManager>,
    _directory: tempfile::TempDir,
}

impl Stored {
    async fn new() -> Stored {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let logs = open_logs(directory.path()).await;
        let config = LogConfig {
            durability: Durability::Os,
            ..LogConfig::default()
        };
        let topic = TopicId(Uuid::from_u128(42));
        let log = logs
            .create_log(&"short".into(), topic, PartitionIndex(0), config)
            .expect("is made");
        let state = GroupStateStore::new(logs.kv().clone(), log.id());
        Stored {
            log,
            state,
            logs,
            _directory: directory,
        }
    }

    /// Appends a blank entry and batches of one record each.
    async fn append(&self, epoch: i32, batches: u64) {
        let next = self.log.bounds().last.index.0 + 1;
        let entries = (0..=batches).map(|number| LogEntry {
            id: id(epoch, next + number),
            origin: None,
            flags: 0,
            aux: Bytes::new(),
            body: match number {
                0 => {
                    let (tag, bytes) = codec::encode_opaque(&openraft::EntryPayload::Blank);
                    EntryBody::Opaque { tag, bytes }
                }
                _ => EntryBody::Batch(batch(1)),
            },
        });
        self.log
            .append(entries.collect(), Stamping::Leader, Box::new(drop))
            .await
            .expect("is appended");
    }

    async fn save(&self, applied: EntryId, high_watermark: i64) {
        let write = self.state.checkpoint_write(&Checkpoint {
            applied: codec::log_id(applied).expect("an entry"),
            high_watermark: Offset(high_watermark),
            log_start: Offset(0),
            membership: StoredMembership::default(),
        });
        crate::raft::state_store::write(&**self.logs.kv(), vec![write], None)
            .await
            .expect("is saved");
    }

    async fn start(&self) -> (EntryId, Offset) {
        let snapshot = last_snapshot(&self.log, &self.state).await;
        let (checkpoint, _) = start_point(&self.log, &self.state, snapshot.expect("is readable"))
            .expect("is readable")
            .expect("there is one");
        let applied = codec::entry_id(&checkpoint.applied).expect("a small term");
        (applied, checkpoint.high_watermark)
    }
}

fn id(epoch: i32, index: u64) -> EntryId {
    EntryId {
        epoch: LeaderEpoch(epoch),
        index: EntryIndex(index),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_power_loss_took_was_not_applied() {
    let stored = Stored::new().await;
    stored.append(1, 3).await;
    stored.save(id(1, 9), 8).await;
    assert_eq!(stored.start().await, (id(1, 4), Offset(3)));
    stored.logs.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_of_a_later_term_do_not_count_as_those_that_were_applied() {
    let stored = Stored::new().await;
    stored.append(1, 3).await;
    stored.save(id(1, 4), 3).await;
    assert_eq!(stored.start().await, (id(1, 4), Offset(3)), "as it was");
    // The end is lost, and another leader's entries come to stand there.
    let kept = EntryIndex(2);
    stored.log.truncate_after(kept).await.expect("is cut");
    stored.append(2, 5).await;
    assert_eq!(stored.start().await, (id(1, 2), Offset(1)));
    stored.logs.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_from_before_the_snapshot_is_raised_to_it() {
    let stored = Stored::new().await;
    stored.append(1, 5).await;
    let log = stored.log.clone();
    let position = tokio::task::spawn_blocking(move || log.position_at(EntryIndex(4)));
    let position = position.await.expect("no panic").expect("is readable");
    let snapshot = codec::encode_snapshot(&PartitionSnapshot {
        position,
        membership: StoredMembership::default(),
    });
    let written = stored.state.write_snapshot(snapshot, None).await;
    written.expect("is written");
    stored.save(id(1, 2), 1).await;
    assert_eq!(stored.start().await, (id(1, 4), Offset(3)));
    stored.save(id(1, 5), 4).await;
    assert_eq!(
        stored.start().await,
        (id(1, 5), Offset(4)),
        "a later one counts"
    );
    stored.logs.shutdown().await;
}
