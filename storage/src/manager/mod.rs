//! All logs of a data directory, and the journal that they share.
//!
//! Owns which logs exist: ids, creation, removal, start, stop. Invariant: an id is never used twice; a log that is
//! found by its partition is not removed.

mod knowledge;
mod open;
mod options;
mod reclaim;
mod space;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::{Mutex, RwLock};
use tidelog_protocol::types::{PartitionIndex, TopicId, TopicName};

use crate::SyncPoint;
use crate::fs::Space;
use crate::kv::{KeySpace, KeyValueStore, KvError, KvWrite};
use crate::log::{
    Identity, LogConfig, LogDescription, LogError, LogId, LogPosition, PartitionLog, Shared,
};

pub(crate) use open::JOURNAL;
pub use options::{OpenError, RecoveryReport, SpaceReserve, StorageOptions};

/// Key of the number up to which log ids are taken, u64 big-endian, in [`KeySpace::Meta`].
const LOG_ID_LIMIT: &[u8] = b"log-id-limit";
/// Key that is there between a clean stop and the next start, in [`KeySpace::Meta`].
const CLEAN_STOP: &[u8] = b"clean-stop";
/// Key of what the journal has of files, in [`KeySpace::Meta`].
const JOURNAL_FILES: &[u8] = b"journal-files";
/// Ids that are taken at once; those that a stop leaves unused are lost.
const LOG_ID_BLOCK: u64 = 1 << 16;

/// Every log of one data directory.
pub struct LogManager {
    shared: Arc<Shared>,
    logs: RwLock<Logs>,
    ids: Mutex<LogIds>,
    background: Arc<space::Background>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct Logs {
    by_id: HashMap<LogId, Arc<PartitionLog>>,
    by_partition: HashMap<(TopicId, PartitionIndex), LogId>,
}

impl Logs {
    /// Adds a log. Of two logs of a partition the one that was made later is found by it: the other is being removed.
    fn insert(&mut self, log: Arc<PartitionLog>) {
        let key = (log.topic_id(), log.partition());
        let found = self.by_partition.entry(key).or_insert(log.id());
        *found = log.id().max(*found);
        self.by_id.insert(log.id(), log);
    }

    fn remove(&mut self, id: LogId) -> Option<Arc<PartitionLog>> {
        self.hide(id)?;
        self.by_id.remove(&id)
    }

    /// From now on the log is not found by its partition, which may get another one.
    fn hide(&mut self, id: LogId) -> Option<&Arc<PartitionLog>> {
        let log = self.by_id.get(&id)?;
        let key = (log.topic_id(), log.partition());
        if self.by_partition.get(&key) == Some(&id) {
            self.by_partition.remove(&key);
        }
        Some(log)
    }

    fn find(&self, topic_id: TopicId, partition: PartitionIndex) -> Option<&Arc<PartitionLog>> {
        self.by_id
            .get(self.by_partition.get(&(topic_id, partition))?)
    }
}

/// Ids that may be handed out.
#[derive(Debug)]
struct LogIds {
    next: u64,
    limit: u64,
}

impl std::fmt::Debug for LogManager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogManager")
            .field("directory", &self.shared.directory)
            .finish_non_exhaustive()
    }
}

impl LogManager {
    /// The key-value store of the directory.
    pub fn kv(&self) -> &Arc<dyn KeyValueStore> {
        &self.shared.kv
    }

    /// Makes a log, or returns the one there is after giving it the settings. Does not wait for a disk: whatever is
    /// made durable through the log or the key-value store later implies that the log is durable too.
    pub fn create_log(
        &self,
        topic: &TopicName,
        topic_id: TopicId,
        partition: PartitionIndex,
        config: LogConfig,
    ) -> Result<Arc<PartitionLog>, LogError> {
        let mut logs = self.logs.write();
        if let Some(log) = logs.find(topic_id, partition) {
            log.set_config(config);
            return Ok(Arc::clone(log));
        }
        let id = self.next_id();
        let identity = Identity {
            topic: topic.clone(),
            topic_id,
            partition,
        };
        let log = PartitionLog::create(&self.shared, id, identity, config, LogPosition::default());
        // Both, and neither is waited for: whichever reaches the disk first brings the log back.
        let first = vec![log.first_checkpoint()];
        self.shared.kv.write(
            first,
            None,
            Box::new(move |written| {
                if let Err(error) = written {
                    tracing::error!(log = id.0, %error, "first checkpoint not written");
                }
            }),
        );
        log.submit_creation()?;
        logs.insert(Arc::clone(&log));
        Ok(log)
    }

    fn next_id(&self) -> LogId {
        let mut ids = self.ids.lock();
        if ids.next >= ids.limit {
            let limit = ids.limit.saturating_add(LOG_ID_BLOCK);
            take_ids(&*self.shared.kv, limit);
            ids.limit = limit;
        }
        ids.next += 1;
        LogId(ids.next - 1)
    }

    /// The log of a partition.
    pub fn log(&self, topic_id: TopicId, partition: PartitionIndex) -> Option<Arc<PartitionLog>> {
        self.logs.read().find(topic_id, partition).cloned()
    }

    /// A log by its id.
    pub fn log_by_id(&self, id: LogId) -> Option<Arc<PartitionLog>> {
        self.logs.read().by_id.get(&id).cloned()
    }

    /// All logs, but for those that are being removed.
    pub fn logs(&self) -> Vec<LogDescription> {
        let logs = self.logs.read();
        let found = (logs.by_partition.values()).filter_map(|id| logs.by_id.get(id));
        found.map(|log| log.describe()).collect()
    }

    pub(crate) fn all(&self) -> Vec<Arc<PartitionLog>> {
        self.logs.read().by_id.values().cloned().collect()
    }

    /// Removes a log for good. One that is not there is fine.
    pub async fn remove_log(&self, id: LogId) -> Result<(), LogError> {
        let Some(log) = self.logs.write().hide(id).cloned() else {
            return Ok(());
        };
        // Until it is gone for good its frames count, and the journal asks for it before it drops them.
        log.remove().await?;
        self.logs.write().remove(id);
        self.discard_side_file(id);
        Ok(())
    }

    /// Forgets the frames that the journal keeps aside for a log, if it does.
    fn discard_side_file(&self, id: LogId) {
        let discarded = self
            .shared
            .journal()
            .map(|journal| journal.discard_side_file(id));
        if let Ok(Err(error)) = discarded {
            tracing::warn!(log = id.0, %error, "side file of the journal not removed");
        }
    }

    /// Writes and syncs everything and marks the stop as clean. Appends after it fail. A second call does nothing.
    pub async fn shutdown(self: &Arc<Self>) {
        let me = Arc::clone(self);
        if tokio::task::spawn_blocking(move || me.shutdown_blocking())
            .await
            .is_err()
        {
            tracing::error!("shutdown of the logs did not end in order");
        }
    }

    fn shutdown_blocking(&self) {
        let threads = std::mem::take(&mut *self.threads.lock());
        if threads.is_empty() {
            return;
        }
        self.shared.kv.stop_waiting();
        // The second pass finds little: what came while the first one ran.
        self.checkpoint_all();
        if let Ok(journal) = self.shared.journal() {
            journal.close();
        }
        let complete = self.checkpoint_all();
        self.background.stop();
        self.shared.queue.close();
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the logs panicked");
            }
        }
        if complete {
            let mark = KvWrite::Put(KeySpace::Meta, CLEAN_STOP.into(), vec![1].into());
            if let Err(error) = self.shared.kv.write_sync(vec![mark], SyncPoint::CleanStop) {
                tracing::error!(%error, "the clean stop is not marked");
            }
        }
    }

    /// Free space of the data directory.
    pub fn space(&self) -> io::Result<Space> {
        self.shared.fs.space(&self.shared.directory)
    }

    /// The data directory.
    pub fn directory(&self) -> &Path {
        &self.shared.directory
    }

    /// Why nothing can be written any more, if so (a failed journal).
    pub fn failure(&self) -> Option<String> {
        Some(self.shared.journal().ok()?.failure()?.to_string())
    }
}

impl Drop for LogManager {
    fn drop(&mut self) {
        self.background.stop();
        self.shared.queue.close();
    }
}

/// Takes ids below `limit` for good. Nobody waits for it: what the key-value store holds of a log is written behind
/// it, and a log that only the journal knows is seen when the journal is read.
fn take_ids(kv: &dyn KeyValueStore, limit: u64) {
    let value = limit.to_be_bytes().to_vec();
    let write = KvWrite::Put(KeySpace::Meta, LOG_ID_LIMIT.into(), value.into());
    write_soon(kv, write, "log ids that are taken are not noted");
}

/// Writes what goes to stable storage with a later batch. Nobody waits for it; `failed` is logged if it fails.
fn write_soon(kv: &dyn KeyValueStore, write: KvWrite, failed: &'static str) {
    let done = Box::new(move |written| {
        if let Err::<(), KvError>(error) = written {
            tracing::error!(%error, "{failed}");
        }
    });
    kv.write(vec![write], None, done);
}
