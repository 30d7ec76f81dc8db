//! Which partition a record goes to: by its key as the Java client has it, else by chance, a batch at a time.

use std::collections::HashMap;

use tidelog_protocol::types::{PartitionIndex, TopicName};

use crate::metadata::TopicInfo;

/// Partition choice of one producer; remembers where records without key go at present.
#[derive(Debug)]
pub(super) struct Partitioner {
    batch_bytes: usize,
    sticky: HashMap<TopicName, Sticky>,
}

#[derive(Debug)]
struct Sticky {
    partition: PartitionIndex,
    /// Bytes sent there since it was chosen.
    sent_bytes: usize,
}

impl Partitioner {
    pub(super) fn new(batch_bytes: usize) -> Self {
        Partitioner {
            batch_bytes,
            sticky: HashMap::new(),
        }
    }

    pub(super) fn choose(
        &mut self,
        topic: &TopicInfo,
        key: Option<&[u8]>,
        size: usize,
    ) -> PartitionIndex {
        match key {
            Some(key) => PartitionIndex(partition_for_key(key, topic.partitions.len())),
            None => self.choose_sticky(topic, size),
        }
    }

    /// Fills one partition's batch before it goes to another, so that batches are large; partitions without a
    /// leader are left out while others have one.
    fn choose_sticky(&mut self, topic: &TopicInfo, size: usize) -> PartitionIndex {
        let has_leader = |index: PartitionIndex| {
            topic
                .partition(index)
                .is_some_and(|partition| partition.leader.is_some())
        };
        if let Some(sticky) = self.sticky.get_mut(&topic.name)
            && sticky.sent_bytes < self.batch_bytes
            && has_leader(sticky.partition)
        {
            sticky.sent_bytes = sticky.sent_bytes.saturating_add(size);
            return sticky.partition;
        }
        let led: Vec<_> = topic
            .partitions
            .iter()
            .filter(|partition| partition.leader.is_some())
            .map(|partition| partition.index)
            .collect();
        let partition = match led.len() {
            0 => PartitionIndex(0),
            count => led
                .get(rand::random_range(0..count))
                .copied()
                .unwrap_or(PartitionIndex(0)),
        };
        self.sticky.insert(
            topic.name.clone(),
            Sticky {
                partition,
                sent_bytes: size,
            },
        );
        partition
    }
}

/// The partition of a key among `partitions`, as the Java client chooses it.
pub fn partition_for_key(key: &[u8], partitions: usize) -> i32 {
    let positive = murmur2(key) & 0x7fff_ffff;
    let count = u32::try_from(partitions).unwrap_or(u32::MAX).max(1);
    // Less than 2^31 because of the mask.
    (positive % count) as i32
}

/// Murmur2 with the Java client's seed.
fn murmur2(data: &[u8]) -> u32 {
    const MIX: u32 = 0x5bd1_e995;
    // Wraps as Java's `int` does.
    let mut hash = 0x9747_b28c_u32 ^ (data.len() as u32);
    let (words, rest) = data.as_chunks::<4>();
    for word in words {
        let mut word = u32::from_le_bytes(*word).wrapping_mul(MIX);
        word ^= word >> 24;
        hash = hash.wrapping_mul(MIX) ^ word.wrapping_mul(MIX);
    }
    if !rest.is_empty() {
        for (at, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * at);
        }
        hash = hash.wrapping_mul(MIX);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(MIX);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::PartitionInfo;
    use tidelog_protocol::types::{BrokerId, LeaderEpoch, TopicId};

    /// The values of the Java client's own test.
    #[test]
    fn murmur2_is_the_java_clients() {
        let vectors: [(&[u8], i32); 6] = [
            (b"21", -973_932_308),
            (b"foobar", -790_332_482),
            (b"a-little-bit-long-string", -985_981_536),
            (b"a-little-bit-longer-string", -1_486_304_829),
            (
                b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8",
                -58_897_971,
            ),
            (b"abc", 479_470_107),
        ];
        for (key, expected) in vectors {
            assert_eq!(
                murmur2(key) as i32,
                expected,
                "{}",
                String::from_utf8_lossy(key)
            );
        }
    }

    fn topic(leaders: &[Option<i32>]) -> TopicInfo {
        TopicInfo {
            name: "t".into(),
            id: TopicId::NONE,
            is_internal: false,
            partitions: leaders
                .iter()
                .enumerate()
                .map(|(index, leader)| PartitionInfo {
                    index: PartitionIndex(i32::try_from(index).unwrap()),
                    leader: leader.map(BrokerId),
                    leader_epoch: LeaderEpoch(0),
                    replicas: Vec::new(),
                    in_sync: Vec::new(),
                })
                .collect(),
        }
    }

    #[test]
    fn records_without_key_fill_a_batch_before_they_move_on() {
        let topic = topic(&[Some(1), Some(1), None, Some(1)]);
        let mut partitioner = Partitioner::new(100);
        let mut seen = std::collections::HashSet::new();
        for _ in 0..200 {
            let first = partitioner.choose(&topic, None, 60);
            assert_eq!(partitioner.choose(&topic, None, 60), first);
            seen.insert(first.0);
        }
        assert_eq!(seen, [0, 1, 3].into());
    }

    #[test]
    fn a_key_always_goes_to_its_partition() {
        let topic = topic(&[Some(1), None, Some(1)]);
        let mut partitioner = Partitioner::new(1);
        let at = partitioner.choose(&topic, Some(b"foobar"), 10);
        assert_eq!(at.0, partition_for_key(b"foobar", 3));
        assert_eq!(partition_for_key(b"foobar", 1), 0);
        assert_eq!(partition_for_key(b"21", 0), 0);
    }
}
