//! The key-value store in memory, for tests: it can hold back syncs and lose what was not synced.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

use super::writer::{BatchWriter, Target};
use super::{KeySpace, KeyValueStore, KvCompletion, KvError, KvWrite};

type Map = BTreeMap<(KeySpace, Bytes), Bytes>;

/// The store in memory. Dropping it forgets everything.
pub struct MemoryKv {
    map: Arc<MemoryMap>,
    writer: BatchWriter,
}

#[derive(Default)]
struct MemoryMap {
    pairs: Mutex<Map>,
    progress: Arc<AtomicU64>,
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
        *kv.map.pairs.lock() = pairs
            .map(|(space, key, value)| ((space, key), value))
            .collect();
        kv.map.progress.store(sequence, Ordering::Release);
        Ok(kv)
    }

    /// Loses all batches that are not done; their completions hear of it.
    pub fn power_loss(&self) {
        self.writer.discard(&KvError("power is gone".to_owned()));
    }
}

impl Target for MemoryMap {
    fn apply(&self, writes: &[KvWrite]) -> Result<(), KvError> {
        let mut map = self.pairs.lock();
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
        self.progress.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }
}

impl KeyValueStore for MemoryKv {
    fn get(&self, space: KeySpace, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        Ok(self
            .map
            .pairs
            .lock()
            .get(&(space, Bytes::copy_from_slice(key)))
            .cloned())
    }

    fn scan(&self, space: KeySpace, prefix: &[u8]) -> Result<Vec<(Bytes, Bytes)>, KvError> {
        let map = self.map.pairs.lock();
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

    fn progress(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.map.progress)
    }
}

impl fmt::Debug for MemoryKv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryKv")
            .field("keys", &self.map.pairs.lock().len())
            .finish()
    }
}
