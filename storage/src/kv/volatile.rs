//! Batches that are not on stable storage yet, kept in memory so that the end of the process loses them.
//!
//! For the fault build: a write-ahead log that was written and not synced would outlive kill -9. Invariant: what is here
//! is newer than the database, and goes there in the order of the calls, all of it or nothing.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{KeySpace, KvWrite};

/// Pairs in key order; a value that is `None` was deleted.
type Changes = BTreeMap<(KeySpace, Bytes), Option<Bytes>>;

/// The batches and what they amount to.
#[derive(Debug, Default)]
pub(super) struct Unsynced {
    writes: Vec<KvWrite>,
    changes: Changes,
}

impl Unsynced {
    /// Adds a batch. `held` are the keys that the database has in the ranges that the batch deletes.
    pub(super) fn add(&mut self, writes: &[KvWrite], held: impl Fn(&KvWrite) -> Vec<Bytes>) {
        for write in writes {
            match write {
                KvWrite::Put(space, key, value) => {
                    (self.changes).insert((*space, key.clone()), Some(value.clone()));
                }
                KvWrite::Delete(space, key) => {
                    self.changes.insert((*space, key.clone()), None);
                }
                KvWrite::DeleteRange(space, from, to) => {
                    for key in held(write) {
                        self.changes.entry((*space, key)).or_default();
                    }
                    if from < to {
                        let range = (*space, from.clone())..(*space, to.clone());
                        (self.changes.range_mut(range)).for_each(|(_, value)| *value = None);
                    }
                }
            }
        }
        self.writes.extend_from_slice(writes);
    }

    /// All batches, which are to be on stable storage now.
    pub(super) fn writes(&self) -> &[KvWrite] {
        &self.writes
    }

    /// They are.
    pub(super) fn clear(&mut self) {
        self.changes.clear();
        self.writes.clear();
    }

    /// What became of a key; `None` if nothing did.
    pub(super) fn get(&self, space: KeySpace, key: &Bytes) -> Option<Option<Bytes>> {
        self.changes.get(&(space, key.clone())).cloned()
    }

    /// Puts the changes of a prefix over what the database has of it, in key order.
    pub(super) fn overlay(
        &self,
        space: KeySpace,
        prefix: &[u8],
        found: Vec<(Bytes, Bytes)>,
    ) -> Vec<(Bytes, Bytes)> {
        let mut pairs: BTreeMap<Bytes, Bytes> = found.into_iter().collect();
        let from = (self.changes).range((space, Bytes::copy_from_slice(prefix))..);
        let inside =
            from.take_while(|((in_space, key), _)| *in_space == space && key.starts_with(prefix));
        for ((_, key), value) in inside {
            match value {
                Some(value) => drop(pairs.insert(key.clone(), value.clone())),
                None => drop(pairs.remove(key)),
            }
        }
        pairs.into_iter().collect()
    }
}
