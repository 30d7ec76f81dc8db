//! What is keyed and small: votes, checkpoints, metadata images, coordinator snapshots.
//!
//! Owns `DATA/kv/` (RocksDB). Never record data.

mod ballast;
#[cfg(test)]
mod conformance;
mod memory;
mod rocks;
mod volatile;
mod writer;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::sync_channel;

use bytes::Bytes;

pub use memory::MemoryKv;
pub use rocks::RocksKv;

use crate::SyncPoint;

/// Key spaces. One RocksDB column family each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeySpace {
    /// Identity of the data directory, feature levels, counters.
    Meta,
    /// Votes and committed marks of consensus groups, by log id.
    Vote,
    /// Log checkpoints, by log id.
    Checkpoint,
    /// Snapshots of the cluster metadata.
    Metadata,
    /// Snapshots of coordinators, by log id.
    Coordinator,
    /// Index of delayed records.
    Delay,
}

/// One change.
#[derive(Clone, Debug)]
pub enum KvWrite {
    /// Sets a key.
    Put(KeySpace, Bytes, Bytes),
    /// Removes a key.
    Delete(KeySpace, Bytes),
    /// Removes all keys of `from..to`.
    DeleteRange(KeySpace, Bytes, Bytes),
}

/// Why the store failed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("key-value store: {0}")]
pub struct KvError(pub String);

/// Called once a batch is as durable as was asked, or is known not to be.
pub type KvCompletion = Box<dyn FnOnce(Result<(), KvError>) + Send>;

/// Blocks until a write is done.
fn wait(write: impl FnOnce(KvCompletion)) -> Result<(), KvError> {
    let (tell, told) = sync_channel(1);
    // It is told below for as long as somebody may tell.
    write(Box::new(move |written| drop(tell.send(written))));
    told.recv()
        .unwrap_or_else(|_| Err(KvError("closed".to_owned())))
}

/// A key-value store. `get` and `scan` may block for a disk read; they are small.
pub trait KeyValueStore: Send + Sync + std::fmt::Debug + 'static {
    /// Value of a key.
    fn get(&self, space: KeySpace, key: &[u8]) -> Result<Option<Bytes>, KvError>;
    /// All pairs whose key starts with `prefix`, in key order.
    fn scan(&self, space: KeySpace, prefix: &[u8]) -> Result<Vec<(Bytes, Bytes)>, KvError>;
    /// Applies all writes or none. With a `point`, which says who asks, `done` is called once they are on stable storage;
    /// writes of callers that come while a sync runs go out together with the next one. Without one they may be lost
    /// with the power until a later batch is on stable storage: batches get there in the order of the calls. Must not
    /// be assumed before `done`.
    fn write(&self, batch: Vec<KvWrite>, point: Option<SyncPoint>, done: KvCompletion);
    /// Like `write`, and blocks until it is done.
    fn write_and_wait(&self, batch: Vec<KvWrite>, point: Option<SyncPoint>) -> Result<(), KvError> {
        wait(|done| self.write(batch, point, done))
    }
    /// Like `write`, and blocks until it is on stable storage.
    fn write_sync(&self, batch: Vec<KvWrite>, point: SyncPoint) -> Result<(), KvError> {
        self.write_and_wait(batch, Some(point))
    }
    /// Whether the disk has, or had a moment ago, no room for a write. Such a write waits and does not fail; others
    /// should leave what room there is to it.
    fn is_short_of_room(&self) -> bool;
    /// From now on a write that finds no room fails, and the store with it: for a stop, which cannot wait.
    fn stop_waiting(&self);
    /// The store's sequence number: rises with each batch, over all restarts, once the batch is on stable storage and
    /// before it is done. One that is lower than before means that the store has lost batches.
    fn progress(&self) -> Arc<AtomicU64>;
}
