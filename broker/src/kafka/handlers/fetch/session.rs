//! One fetch session (KIP-227): which partitions a consumer reads, and what it was told of them last.
//!
//! Pure: no clock, no lock, no log. Invariant: `partitions` holds each key once, in the order in which the next
//! reply serves them; a partition that returned records moves to the end, so that none starves.

use indexmap::IndexMap;
use tidelog_protocol::types::{LeaderEpoch, Offset, PartitionIndex};

use crate::kafka::handlers::partitions::TopicKey;

/// A partition in a session.
pub(crate) type PartitionKey = (TopicKey, PartitionIndex);

/// What a consumer wants of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// First offset to return.
    pub(crate) offset: Offset,
    /// Most bytes to return.
    pub(crate) bytes_max: usize,
    /// Epoch that the consumer believes current; negative: none.
    pub(crate) current_epoch: i32,
    /// Epoch of the last record that the consumer has; negative: none.
    pub(crate) last_fetched_epoch: LeaderEpoch,
}

/// What a reply says of a partition, as far as sessions care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    /// High watermark.
    pub(crate) high_watermark: Offset,
    /// Log start.
    pub(crate) log_start: Offset,
    /// Whether it has records.
    pub(crate) has_records: bool,
    /// Whether it has an error or a diverging epoch.
    pub(crate) is_special: bool,
    /// Whether it names a replica that is to be asked (KIP-392).
    pub(crate) names_preferred: bool,
}

#[derive(Debug)]
struct Member {
    wanted: Wanted,
    high_watermark: Offset,
    log_start: Offset,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct FetchSession {
    partitions: IndexMap<PartitionKey, Member>,
    by_id: bool,
    epoch: i32,
}

/// The epoch after this one; after the largest comes 1, as 0 opens a session.
pub(crate) fn next_epoch(epoch: i32) -> i32 {
    epoch.checked_add(1).unwrap_or(1)
}

impl FetchSession {
    /// A session as its first request (epoch 0) opens it.
    pub(crate) fn open(wanted: &[(PartitionKey, Wanted)], by_id: bool) -> FetchSession {
        let mut session = FetchSession {
            partitions: IndexMap::new(),
            by_id,
            epoch: 1,
        };
        session.want(wanted);
        session
    }

    /// Epoch that the next request must carry.
    pub(crate) fn epoch(&self) -> i32 {
        self.epoch
    }

    /// Whether its requests name topics by id.
    pub(crate) fn is_by_id(&self) -> bool {
        self.by_id
    }

    /// Number of partitions.
    pub(crate) fn len(&self) -> usize {
        self.partitions.len()
    }

    /// Takes over an incremental request and moves to the next epoch.
    pub(crate) fn update(&mut self, wanted: &[(PartitionKey, Wanted)], forgotten: &[PartitionKey]) {
        self.want(wanted);
        if !forgotten.is_empty() {
            let forgotten: std::collections::HashSet<&PartitionKey> = forgotten.iter().collect();
            self.partitions.retain(|key, _| !forgotten.contains(key));
        }
        self.epoch = next_epoch(self.epoch);
    }

    fn want(&mut self, wanted: &[(PartitionKey, Wanted)]) {
        for (key, wanted) in wanted {
            let unknown = Member {
                wanted: *wanted,
                high_watermark: Offset::NONE,
                log_start: Offset::NONE,
            };
            self.partitions.entry(key.clone()).or_insert(unknown).wanted = *wanted;
        }
    }

    /// All partitions, in the order to serve them.
    pub(crate) fn wanted(&self) -> Vec<(PartitionKey, Wanted)> {
        self.partitions
            .iter()
            .map(|(key, member)| (key.clone(), member.wanted))
            .collect()
    }

    /// Whether the reply would tell the consumer something new about the partition.
    pub(crate) fn is_news(&self, key: &PartitionKey, told: &Told) -> bool {
        self.partitions.get(key).is_none_or(|member| {
            told.has_records
                || told.is_special
                || told.names_preferred
                || member.high_watermark != told.high_watermark
                || member.log_start != told.log_start
        })
    }

    /// Notes what a reply says. Partitions that returned records are served last the next time.
    pub(crate) fn note(&mut self, told: &[(PartitionKey, Told)]) {
        let mut served = std::collections::HashSet::new();
        for (key, told) in told {
            let Some(member) = self.partitions.get_mut(key) else {
                continue;
            };
            // After an error everything is news again.
            member.high_watermark = if told.is_special {
                Offset::NONE
            } else {
                told.high_watermark
            };
            member.log_start = told.log_start;
            if told.has_records {
                served.insert(key);
            }
        }
        if !served.is_empty() {
            // Stable: the order among the served, and among the others, stays.
            self.partitions
                .sort_by_cached_key(|key, _| served.contains(key));
        }
    }
}

#[cfg(test)]
mod tests {
    use tidelog_protocol::types::TopicName;

    use super::*;

    fn key(topic: &str, partition: i32) -> PartitionKey {
        (
            TopicKey::Name(TopicName::from(topic)),
            PartitionIndex(partition),
        )
    }

    fn wanted(offset: i64) -> Wanted {
        Wanted {
            offset: Offset(offset),
            bytes_max: 1 << 20,
            current_epoch: -1,
            last_fetched_epoch: LeaderEpoch::NONE,
        }
    }

    fn told(high_watermark: i64, has_records: bool) -> Told {
        Told {
            high_watermark: Offset(high_watermark),
            log_start: Offset(0),
            has_records,
            is_special: false,
            names_preferred: false,
        }
    }

    #[test]
    fn epochs_wrap_past_the_opening_one() {
        assert_eq!(next_epoch(1), 2);
        assert_eq!(next_epoch(i32::MAX), 1);
    }

    #[test]
    fn rule_18_unchanged_partitions_are_no_news() {
        let mut session =
            FetchSession::open(&[(key("a", 0), wanted(0)), (key("a", 1), wanted(0))], false);
        assert!(
            session.is_news(&key("a", 0), &told(5, false)),
            "nothing was told yet"
        );
        session.note(&[(key("a", 0), told(5, false)), (key("a", 1), told(7, false))]);
        assert!(!session.is_news(&key("a", 0), &told(5, false)));
        assert!(
            session.is_news(&key("a", 0), &told(6, false)),
            "the high watermark moved"
        );
        assert!(session.is_news(&key("a", 0), &told(5, true)), "records");
        let elsewhere = Told {
            names_preferred: true,
            ..told(5, false)
        };
        session.note(&[(key("a", 0), elsewhere)]);
        assert!(
            session.is_news(&key("a", 0), &elsewhere),
            "who is to be asked is told each time"
        );
        assert!(!session.is_news(&key("a", 0), &told(5, false)));
        let failed = Told {
            is_special: true,
            ..told(5, false)
        };
        assert!(session.is_news(&key("a", 0), &failed));
        session.note(&[(key("a", 0), failed)]);
        assert!(
            session.is_news(&key("a", 0), &told(5, false)),
            "news after an error"
        );
    }

    #[test]
    fn rule_18_updates_add_change_and_forget() {
        let mut session =
            FetchSession::open(&[(key("a", 0), wanted(0)), (key("a", 1), wanted(0))], false);
        session.update(
            &[(key("a", 1), wanted(9)), (key("b", 0), wanted(3))],
            &[key("a", 0)],
        );
        assert_eq!(
            session.wanted(),
            vec![(key("a", 1), wanted(9)), (key("b", 0), wanted(3))]
        );
        assert_eq!(session.epoch(), 2);
    }

    #[test]
    fn partitions_that_returned_records_are_served_last() {
        let keys: Vec<PartitionKey> = (0..4).map(|index| key("a", index)).collect();
        let all: Vec<_> = keys.iter().map(|key| (key.clone(), wanted(0))).collect();
        let mut session = FetchSession::open(&all, false);
        session.note(&[
            (keys[0].clone(), told(5, true)),
            (keys[2].clone(), told(5, true)),
        ]);
        let order: Vec<i32> = session
            .wanted()
            .iter()
            .map(|((_, index), _)| index.0)
            .collect();
        assert_eq!(order, [1, 3, 0, 2]);
    }
}
