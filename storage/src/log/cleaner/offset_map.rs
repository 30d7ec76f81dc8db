//! The newest offset of each key, in bounded memory.
//!
//! Holds no keys, only 128 bits of a hash that nobody outside can predict: two keys that share them would cost a
//! record, so they must not be made on purpose. Invariant: what `get` says was `put`.

use std::hash::{BuildHasher, Hasher, RandomState};

use tidelog_protocol::types::Offset;

/// A slot: two halves of the hash, and the offset plus one; 0 is empty.
type Slot = [u64; 3];

/// Bytes that a key takes.
const SLOT_BYTES: u64 = size_of::<Slot>() as u64;

/// Kafka's `log.cleaner.io.buffer.load.factor`: beyond it, looking a key up gets slow.
const LOAD_PERCENT: usize = 90;

/// Key hash to newest offset.
pub(crate) struct OffsetMap {
    slots: Vec<Slot>,
    count: usize,
    count_max: usize,
    keys: [RandomState; 2],
    end: Offset,
}

impl OffsetMap {
    /// A map that takes up to `keys_wanted` keys, fewer if they do not fit `bytes_max`, at least one.
    pub fn new(keys_wanted: u64, bytes_max: u64) -> OffsetMap {
        let wanted = keys_wanted.saturating_mul(100) / LOAD_PERCENT as u64 + 2;
        let slots = wanted.min(bytes_max / SLOT_BYTES).max(2);
        let slots = usize::try_from(slots).unwrap_or(usize::MAX);
        OffsetMap {
            slots: vec![[0; 3]; slots],
            count: 0,
            count_max: (slots / 100 * LOAD_PERCENT + slots % 100 * LOAD_PERCENT / 100).max(1),
            keys: [RandomState::new(), RandomState::new()],
            end: Offset(0),
        }
    }

    /// Whether no key that is not known fits any more.
    pub fn is_full(&self) -> bool {
        self.count >= self.count_max
    }

    /// Offset up to which records were taken in: what is at or above it is not judged.
    pub fn end(&self) -> Offset {
        self.end
    }

    /// Notes that everything below an offset was taken in.
    pub fn advance_end(&mut self, end: Offset) {
        self.end = self.end.max(end);
    }

    /// Notes a record. False if the map is full, whether the key is known or not.
    pub fn put(&mut self, key: &[u8], offset: Offset) -> bool {
        if self.is_full() {
            return false;
        }
        let hash = self.hash(key);
        let at = self.find(hash);
        let slot = &mut self.slots[at];
        if slot[2] == 0 {
            self.count += 1;
        }
        *slot = [hash[0], hash[1], offset.0.cast_unsigned().saturating_add(1)];
        self.end = self.end.max(Offset(offset.0.saturating_add(1)));
        true
    }

    /// The newest offset of a key, if it was noted.
    pub fn get(&self, key: &[u8]) -> Option<Offset> {
        let slot = self.slots[self.find(self.hash(key))];
        Some(Offset(slot[2].checked_sub(1)?.cast_signed()))
    }

    fn hash(&self, key: &[u8]) -> [u64; 2] {
        let half = |state: &RandomState| {
            let mut hasher = state.build_hasher();
            hasher.write(key);
            hasher.finish()
        };
        [half(&self.keys[0]), half(&self.keys[1])]
    }

    /// The slot of a hash, or the free one where it belongs: there is always one, for the map is never quite full.
    fn find(&self, hash: [u64; 2]) -> usize {
        let count = self.slots.len();
        let mut at = usize::try_from(hash[0] % count as u64).unwrap_or(0);
        loop {
            let slot = self.slots[at];
            if slot[2] == 0 || slot[..2] == hash {
                return at;
            }
            at = (at + 1) % count;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_map_until_it_is_full(keys in prop::collection::vec(0u16..60, 0..200), bytes_max in 0u64..2000) {
            let mut map = OffsetMap::new(200, bytes_max);
            let mut model = HashMap::new();
            for (offset, key) in keys.iter().enumerate() {
                let offset = Offset(offset as i64);
                if map.put(&key.to_be_bytes(), offset) {
                    model.insert(*key, offset);
                    prop_assert_eq!(map.end(), Offset(offset.0 + 1));
                } else {
                    prop_assert!(map.is_full());
                    break;
                }
            }
            prop_assert!((model.len() as u64 * SLOT_BYTES) <= bytes_max.max(2 * SLOT_BYTES));
            for key in 0u16..60 {
                prop_assert_eq!(map.get(&key.to_be_bytes()), model.get(&key).copied());
            }
        }
    }

    #[test]
    fn memory_follows_what_is_wanted() {
        let map = OffsetMap::new(1000, 128 << 20);
        assert!(map.slots.len() < 1200 && map.count_max >= 1000);
    }
}
