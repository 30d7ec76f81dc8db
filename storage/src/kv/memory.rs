//! The key-value store in memory, for tests: it can hold back syncs, lose what was not synced and be full.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

use super::writer::{ApplyError, BatchWriter, Target};
use super::{KeySpace, KeyValueStore, KvCompletion, KvError, KvWrite};
use crate::SyncPoint;

type Map = BTreeMap<(KeySpace, Bytes), Bytes>;

/// The store in memory. Dropping it forgets everything.
pub struct MemoryKv {
    map: Arc<MemoryMap>,
    writer: BatchWriter,
}

#[derive(Default)]
struct MemoryMap {
    contents: Mutex<Contents>,
    full: AtomicBool,
    progress: Arc<AtomicU64>,
}

#[derive(Default)]
struct Contents {
    seen: Map,
    /// What is on stable storage, where that is not what is seen.
    durable: Option<Map>,
    /// Number of the last batch that is seen.
    sequence: u64,
}

impl MemoryKv {
    /// An empty store.
    pub fn new() -> Result<MemoryKv, KvError> {
        let map = Arc::new(MemoryMap::default());
        let writer = BatchWriter::start(map.clone())?;
        Ok(MemoryKv { map, writer })
    }

    /// While held, nothing that is written becomes durable, visible or done.
    pub fn hold(&self, held: bool) {
        self.writer.set_held(held);
    }

    /// A store that holds some pairs, at a sequence number.
    pub(crate) fn of(
        pairs: impl IntoIterator<Item = (KeySpace, Bytes, Bytes)>,
        sequence: u64,
    ) -> Result<MemoryKv, KvError> {
        let kv = MemoryKv::new()?;
        let pairs = pairs.into_iter();
        *kv.map.contents.lock() = Contents {
            seen: pairs
                .map(|(space, key, value)| ((space, key), value))
                .collect(),
            durable: None,
            sequence,
        };
        kv.map.progress.store(sequence, Ordering::Release);
        Ok(kv)
    }

    /// While full, writes find no room.
    pub fn set_full(&self, full: bool) {
        self.map.full.store(full, Ordering::Relaxed);
    }

    /// Loses all batches that are not done, whose completions hear of it, and those that are not on stable storage.
    pub fn power_loss(&self) {
        self.writer.discard(&KvError("power is gone".to_owned()));
        let mut contents = self.map.contents.lock();
        if let Some(durable) = contents.durable.take() {
            contents.seen = durable;
            contents.sequence = self.map.progress.load(Ordering::Acquire);
        }
    }

    /// The process is killed: loses all batches that are not done; their completions hear of it.
    pub fn kill(&self) {
        self.writer
            .discard(&KvError("the process is killed".to_owned()));
    }

    /// From now on batches of this point are done without being on stable storage.
    pub fn leave_out(&self, point: Option<SyncPoint>) {
        self.writer.leave_out(point);
    }
}

impl Target for MemoryMap {
    fn apply(&self, writes: &[KvWrite], durably: bool) -> Result<(), ApplyError> {
        if self.full.load(Ordering::Relaxed) {
            return Err(ApplyError::NoRoom(KvError("memory is full".to_owned())));
        }
        let mut contents = self.contents.lock();
        if durably {
            contents.durable = None;
        } else if contents.durable.is_none() {
            contents.durable = Some(contents.seen.clone());
        }
        contents.sequence += 1;
        if durably {
            self.progress.store(contents.sequence, Ordering::Release);
        }
        let map = &mut contents.seen;
        for write in writes {
            match write {
                KvWrite::Put(space, key, value) => {
                    map.insert((*space, key.clone()), value.clone());
                }
                KvWrite::Delete(space, key) => {
                    map.remove(&(*space, key.clone()));
                }
                KvWrite::DeleteRange(space, from, to) => {
                    map.retain(|(in_space, key), _| in_space != space || key < from || key >= to);
                }
            }
        }
        Ok(())
    }
}

impl KeyValueStore for MemoryKv {
    fn get(&self, space: KeySpace, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        Ok(self
            .map
            .contents
            .lock()
            .seen
            .get(&(space, Bytes::copy_from_slice(key)))
            .cloned())
    }

    fn scan(&self, space: KeySpace, prefix: &[u8]) -> Result<Vec<(Bytes, Bytes)>, KvError> {
        let contents = self.map.contents.lock();
        let from = contents
            .seen
            .range((space, Bytes::copy_from_slice(prefix))..);
        let inside =
            from.take_while(|((in_space, key), _)| *in_space == space && key.starts_with(prefix));
        Ok(inside
            .map(|((_, key), value)| (key.clone(), value.clone()))
            .collect())
    }

    fn write(&self, batch: Vec<KvWrite>, point: Option<SyncPoint>, done: KvCompletion) {
        self.writer.write(batch, point, done);
    }

    fn is_short_of_room(&self) -> bool {
        self.writer.waits_for_room()
    }

    fn stop_waiting(&self) {
        self.writer.stop_waiting();
    }

    fn progress(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.map.progress)
    }
}

impl fmt::Debug for MemoryKv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryKv")
            .field("keys", &self.map.contents.lock().seen.len())
            .finish()
    }
}
