//! Where a consumer is in each of its partitions, and which of them are being fetched.
//!
//! Invariant: an answer counts only for a partition that is still at the offset that was asked for.

use std::collections::{BTreeMap, BTreeSet};

use tidelog_protocol::types::{Offset, TopicName, TopicPartition};
use tokio::time::Instant;

use crate::backoff;

#[derive(Debug, Default)]
pub(super) struct Positions {
    partitions: BTreeMap<TopicPartition, Position>,
}

#[derive(Debug)]
struct Position {
    next: Offset,
    is_requested: bool,
    failures: u32,
    not_before: Option<Instant>,
    /// It failed since the cluster was last asked where it is.
    is_lost: bool,
}

impl Positions {
    pub(super) fn replace(
        &mut self,
        partitions: impl IntoIterator<Item = (TopicPartition, Offset)>,
    ) {
        self.partitions = partitions
            .into_iter()
            .map(|(of, next)| {
                let position = Position {
                    next,
                    is_requested: false,
                    failures: 0,
                    not_before: None,
                    is_lost: false,
                };
                (of, position)
            })
            .collect();
    }

    pub(super) fn partitions(&self) -> Vec<TopicPartition> {
        self.partitions.keys().cloned().collect()
    }

    pub(super) fn get(&self, of: &TopicPartition) -> Option<Offset> {
        self.partitions.get(of).map(|position| position.next)
    }

    /// Partitions to be fetched now.
    pub(super) fn idle(&self, now: Instant) -> Vec<(TopicPartition, Offset)> {
        self.partitions
            .iter()
            .filter(|(_, position)| {
                !position.is_requested && position.not_before.is_none_or(|at| at <= now)
            })
            .map(|(of, position)| (of.clone(), position.next))
            .collect()
    }

    pub(super) fn requested(&mut self, of: &TopicPartition) {
        if let Some(position) = self.partitions.get_mut(of) {
            position.is_requested = true;
        }
    }

    /// Whether the answer to a request for `asked` is still wanted.
    pub(super) fn answered(&mut self, of: &TopicPartition, asked: Offset) -> bool {
        match self.partitions.get_mut(of) {
            Some(position) if position.is_requested && position.next == asked => {
                position.is_requested = false;
                true
            }
            _ => false,
        }
    }

    pub(super) fn advance(&mut self, of: &TopicPartition, next: Offset) {
        if let Some(position) = self.partitions.get_mut(of) {
            position.next = next;
            position.failures = 0;
            position.not_before = None;
            position.is_lost = false;
        }
    }

    /// The cluster was asked where the partitions are.
    pub(super) fn refreshed(&mut self) {
        for position in self.partitions.values_mut() {
            position.is_lost = false;
        }
    }

    /// When the first of those that wait is to be tried again.
    pub(super) fn next_attempt(&self) -> Option<Instant> {
        self.partitions
            .values()
            .filter_map(|position| position.not_before)
            .min()
    }

    /// Not to be tried again at once.
    pub(super) fn failed(&mut self, of: &TopicPartition) {
        if let Some(position) = self.partitions.get_mut(of) {
            position.not_before = Some(Instant::now() + backoff::delay_after(position.failures));
            position.failures = position.failures.saturating_add(1);
            position.is_lost = true;
        }
    }

    pub(super) fn topics_in_trouble(&self) -> Vec<TopicName> {
        let topics: BTreeSet<_> = self
            .partitions
            .iter()
            .filter(|(_, position)| position.is_lost)
            .map(|(of, _)| of.topic.clone())
            .collect();
        topics.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidelog_protocol::types::PartitionIndex;

    fn partition(index: i32) -> TopicPartition {
        TopicPartition {
            topic: "t".into(),
            partition: PartitionIndex(index),
        }
    }

    #[test]
    fn answers_for_partitions_that_moved_on_are_dropped() {
        let mut positions = Positions::default();
        positions.replace([(partition(0), Offset(5)), (partition(1), Offset(0))]);
        positions.requested(&partition(0));
        positions.requested(&partition(1));
        assert!(positions.idle(Instant::now()).is_empty());
        positions.replace([(partition(0), Offset(9))]);
        assert!(!positions.answered(&partition(0), Offset(5)));
        assert!(!positions.answered(&partition(1), Offset(0)));
        positions.requested(&partition(0));
        assert!(positions.answered(&partition(0), Offset(9)));
        positions.advance(&partition(0), Offset(11));
        assert_eq!(positions.get(&partition(0)), Some(Offset(11)));
    }

    #[test]
    fn a_partition_that_failed_waits() {
        let mut positions = Positions::default();
        positions.replace([(partition(0), Offset(0))]);
        positions.failed(&partition(0));
        assert!(positions.idle(Instant::now()).is_empty());
        assert_eq!(positions.topics_in_trouble(), [TopicName::from("t")]);
        let later = Instant::now() + std::time::Duration::from_secs(2);
        assert_eq!(positions.idle(later).len(), 1);
        positions.advance(&partition(0), Offset(1));
        assert!(positions.topics_in_trouble().is_empty());
    }
}
