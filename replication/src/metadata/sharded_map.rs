//! A map whose copies share what did not change.
//!
//! Copying costs a reference count per shard, changing costs a copy of one shard: an image of 10,000 topics is
//! changed in microseconds while readers keep the old one.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Arc;

/// Shards. 256 of them hold 40 topics each at 10,000 topics.
const SHARDS: usize = 256;

/// See the module. Empty shards take no memory.
#[derive(Clone, Debug)]
pub struct ShardedMap<K, V> {
    shards: Vec<Option<Arc<HashMap<K, V>>>>,
    hasher: RandomState,
    len: usize,
}

impl<K, V> Default for ShardedMap<K, V> {
    fn default() -> Self {
        let mut shards = Vec::with_capacity(SHARDS);
        shards.resize_with(SHARDS, || None);
        ShardedMap {
            shards,
            hasher: RandomState::new(),
            len: 0,
        }
    }
}

impl<K: Hash + Eq + Clone, V: Clone> ShardedMap<K, V> {
    /// Value of a key.
    pub fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.shards.get(self.shard_of(key))?.as_ref()?.get(key)
    }

    /// Sets a key; returns what was there.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let shard = self.shard_of(&key);
        let slot = self.shards.get_mut(shard)?;
        let old = Arc::make_mut(slot.get_or_insert_default()).insert(key, value);
        if old.is_none() {
            self.len += 1;
        }
        old
    }

    /// Removes a key; returns what was there.
    pub fn remove<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let shard = self.shard_of(key);
        let slot = self.shards.get_mut(shard)?;
        if !slot.as_ref()?.contains_key(key) {
            return None;
        }
        let old = Arc::make_mut(slot.as_mut()?).remove(key);
        self.len -= 1;
        old
    }

    /// All values, in no order.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.shards
            .iter()
            .flatten()
            .flat_map(|shard| shard.values())
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.len
    }

    fn shard_of<Q: Hash + ?Sized>(&self, key: &Q) -> usize {
        (self.hasher.hash_one(key) % SHARDS as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_keep_what_they_had() {
        let mut map = ShardedMap::default();
        for key in 0..1000 {
            assert_eq!(map.insert(key, key * 2), None);
        }
        let before = map.clone();
        assert_eq!(map.insert(7, 0), Some(14));
        assert_eq!(map.remove(&8), Some(16));
        assert_eq!(map.remove(&8), None);
        assert_eq!(before.get(&7), Some(&14));
        assert_eq!(before.get(&8), Some(&16));
        assert_eq!((before.len(), map.len()), (1000, 999));
        assert_eq!(map.values().count(), 999);
    }
}
