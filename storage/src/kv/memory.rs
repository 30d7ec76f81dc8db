//! The key-value store in memory, for tests: it can hold back syncs, lose what was not synced and be full.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

use super::writer::{ApplyError, BatchWriter, Target};
use super::{KeySpace, KeyValueStore, KvCompletion, KvError, KvWrite};

type Map = BTreeMap<(KeySpace, Bytes), Bytes>;

/// The store in memory. Dropping it forgets everything.
pub struct MemoryKv {
    map: Arc<MemoryMap>,
    writer: BatchWriter,
}

#[derive(Default)]
struct MemoryMap {
    map: Mutex<Map>,
    full: AtomicBool,
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

    /// While full, writes find no room.
    pub fn set_full(&self, full: bool) {
        self.map.full.store(full, Ordering::Relaxed);
    }

    /// Loses all batches that are not done; their completions hear of it.
    pub fn power_loss(&self) {
        self.writer.discard(&KvError("power is gone".to_owned()));
    }
}

impl Target for MemoryMap {
    fn apply(&self, writes: &[KvWrite]) -> Result<(), ApplyError> {
        if self.full.load(Ordering::Relaxed) {
            return Err(ApplyError::NoRoom(KvError("memory is full".to_owned())));
        }
        let mut map = self.map.lock();
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
            .map
            .lock()
            .get(&(space, Bytes::copy_from_slice(key)))
            .cloned())
    }

    fn scan(&self, space: KeySpace, prefix: &[u8]) -> Result<Vec<(Bytes, Bytes)>, KvError> {
        let map = self.map.map.lock();
        let from = map.range((space, Bytes::copy_from_slice(prefix))..);
        let inside =
            from.take_while(|((in_space, key), _)| *in_space == space && key.starts_with(prefix));
        Ok(inside
            .map(|((_, key), value)| (key.clone(), value.clone()))
            .collect())
    }

    fn write(&self, batch: Vec<KvWrite>, done: KvCompletion) {
        self.writer.write(batch, done);
    }

    fn write_sync(&self, batch: Vec<KvWrite>) -> Result<(), KvError> {
        self.writer.write_sync(batch)
    }

    fn is_short_of_room(&self) -> bool {
        self.writer.waits_for_room()
    }

    fn stop_waiting(&self) {
        self.writer.stop_waiting();
    }
}

impl fmt::Debug for MemoryKv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryKv")
            .field("keys", &self.map.map.lock().len())
            .finish()
    }
}
