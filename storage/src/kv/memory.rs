//! The key-value store in memory, for tests: it can hold back syncs and lose what was not synced.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::writer::{BatchWriter, Target};
use super::{KeySpace, KeyValueStore, KvCompletion, KvError, KvWrite};
use crate::SyncPoint;

type Map = BTreeMap<(KeySpace, Bytes), Bytes>;

/// The store in memory. Dropping it forgets everything.
pub struct MemoryKv {
    map: Arc<MemoryMap>,
    writer: BatchWriter,
}

#[derive(Default)]
struct MemoryMap(Mutex<Contents>);

#[derive(Default)]
struct Contents {
    seen: Map,
    /// What is on stable storage, where that is not what is seen.
    durable: Option<Map>,
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

    /// Loses all batches that are not done, whose completions hear of it, and those that are not on stable storage.
    pub fn power_loss(&self) {
        self.writer.discard(&KvError("power is gone".to_owned()));
        let mut contents = self.map.0.lock();
        if let Some(durable) = contents.durable.take() {
            contents.seen = durable;
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
    fn apply(&self, writes: &[KvWrite], durably: bool) -> Result<(), KvError> {
        let mut contents = self.0.lock();
        if durably {
            contents.durable = None;
        } else if contents.durable.is_none() {
            contents.durable = Some(contents.seen.clone());
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
            .0
            .lock()
            .seen
            .get(&(space, Bytes::copy_from_slice(key)))
            .cloned())
    }

    fn scan(&self, space: KeySpace, prefix: &[u8]) -> Result<Vec<(Bytes, Bytes)>, KvError> {
        let contents = self.map.0.lock();
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

    fn write_sync(&self, batch: Vec<KvWrite>, point: SyncPoint) -> Result<(), KvError> {
        self.writer.write_sync(batch, point)
    }
}

impl fmt::Debug for MemoryKv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryKv")
            .field("keys", &self.map.0.lock().seen.len())
            .finish()
    }
}
