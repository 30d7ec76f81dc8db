//! How offsets and groups go: OffsetDelete, DeleteGroups, deleted topics, expiry.

use std::collections::{BTreeSet, HashSet};

use tidelog_protocol::types::{TimestampMs, TopicName, TopicPartition};

use super::appended::{Pending, PendingRemoval, RemovalAnswer};
use super::effect::{GroupRecord, Reply};
use super::error::GroupError;
use super::ids::{Now, ReplyToken};
use super::offset::CommittedOffset;
use super::state::{Group, GroupState};

/// Tombstones in one append, so that it fits into a batch: a tombstone takes at most 2 x 32 KiB of names in theory,
/// some 100 bytes in practice.
const TOMBSTONES_MAX: usize = 2_000;

impl Group {
    pub(super) fn delete(&mut self, token: ReplyToken) {
        let refusal = match self.state {
            GroupState::Dead => Some(GroupError::GroupNotFound),
            GroupState::Empty if self.is_vacant() => Some(GroupError::GroupNotFound),
            GroupState::Empty => None,
            _ => Some(GroupError::NonEmptyGroup),
        };
        if let Some(error) = refusal {
            return self.reply(token, Reply::Delete(Err(error)));
        }
        // Commits that are on their way come before the tombstones in the log, so they are covered too.
        let mut partitions: BTreeSet<TopicPartition> = self.offsets.keys().cloned().collect();
        partitions.extend(
            self.in_flight
                .values()
                .flat_map(Pending::partitions)
                .cloned(),
        );
        self.state = GroupState::Dead;
        self.pending_members.clear();
        let answer = RemovalAnswer {
            token,
            stored: Reply::Delete(Ok(())),
        };
        self.remove(partitions.into_iter().collect(), true, Some(answer));
    }

    pub(super) fn delete_offsets(&mut self, token: ReplyToken, asked: Vec<TopicPartition>) {
        if let Err(error) = self.check_delete_offsets() {
            return self.reply(token, Reply::DeleteOffsets(Err(error)));
        }
        let on_their_way = self.in_flight_partitions();
        let mut outcomes = Vec::with_capacity(asked.len());
        let mut partitions = Vec::new();
        for partition in asked {
            if self.is_subscribed(&partition.topic) {
                outcomes.push(Err(GroupError::SubscribedToTopic));
                continue;
            }
            outcomes.push(Ok(()));
            if self.offsets.contains_key(&partition) || on_their_way.contains(&partition) {
                partitions.push(partition);
            }
        }
        let stored = Reply::DeleteOffsets(Ok(outcomes));
        if partitions.is_empty() {
            return self.reply(token, stored);
        }
        self.remove(partitions, false, Some(RemovalAnswer { token, stored }));
    }

    fn check_delete_offsets(&self) -> Result<(), GroupError> {
        match self.state {
            GroupState::Dead => Err(GroupError::GroupNotFound),
            GroupState::Empty if self.is_vacant() => Err(GroupError::GroupNotFound),
            GroupState::Empty => Ok(()),
            // Only of consumers is it known which topics they use.
            _ if self.uses_consumer_protocol() => Ok(()),
            _ => Err(GroupError::NonEmptyGroup),
        }
    }

    pub(super) fn topics_deleted(&mut self, topics: &HashSet<TopicName>) {
        let on_their_way = self.in_flight_partitions();
        let partitions: BTreeSet<TopicPartition> = self
            .offsets
            .keys()
            .chain(on_their_way.iter())
            .filter(|tp| topics.contains(&tp.topic))
            .cloned()
            .collect();
        if !partitions.is_empty() {
            self.remove(partitions.into_iter().collect(), false, None);
        }
    }

    /// Removes expired offsets, and the group itself once it is empty and has none left.
    pub(super) fn expire_offsets(&mut self, now: Now) {
        let on_their_way = self.in_flight_partitions();
        let expired: Vec<TopicPartition> = self
            .offsets
            .iter()
            .filter(|(tp, _)| !on_their_way.contains(*tp) && !self.is_subscribed(&tp.topic))
            .filter(|(_, offset)| self.is_expired(offset, now))
            .map(|(tp, _)| tp.clone())
            .collect();
        let group = self.state == GroupState::Empty
            && expired.len() == self.offsets.len()
            && self.pending_members.is_empty()
            && self.in_flight.is_empty();
        if group && !self.is_vacant() {
            self.state = GroupState::Dead;
            self.remove(expired, true, None);
        } else if !expired.is_empty() {
            self.remove(expired, false, None);
        }
    }

    /// Whether the retention of an offset is over: counted from when the group became empty, or from the commit
    /// where there is no group but only offsets, or where a live group has turned to other topics.
    fn is_expired(&self, offset: &CommittedOffset, now: Now) -> bool {
        let since = match (&self.protocol_type, self.state) {
            (None, _) => offset.commit_timestamp,
            (Some(_), GroupState::Empty) if self.state_timestamp != TimestampMs::NONE => {
                self.state_timestamp
            }
            (Some(_), GroupState::Empty) => offset.commit_timestamp,
            (Some(_), GroupState::Stable)
                if self.uses_consumer_protocol() && self.subscribed.is_some() =>
            {
                offset.commit_timestamp
            }
            _ => return false,
        };
        match offset.expire_timestamp {
            Some(at) => now.wall >= at,
            None => now.wall.0.saturating_sub(since.0) >= self.settings.offsets_retention_ms,
        }
    }

    /// Whether the members read the topic; of a consumer group whose subscriptions cannot be read, assume it.
    pub(super) fn is_subscribed(&self, topic: &TopicName) -> bool {
        match &self.subscribed {
            _ if !self.uses_consumer_protocol() => false,
            Some(topics) => topics.contains(topic),
            None => true,
        }
    }

    fn in_flight_partitions(&self) -> BTreeSet<TopicPartition> {
        self.in_flight
            .values()
            .flat_map(Pending::partitions)
            .cloned()
            .collect()
    }

    /// Appends the tombstones, in pieces; the last piece takes the group along and answers.
    fn remove(
        &mut self,
        partitions: Vec<TopicPartition>,
        group: bool,
        answer: Option<RemovalAnswer>,
    ) {
        let mut rest = partitions;
        while rest.len() > TOMBSTONES_MAX {
            let later = rest.split_off(TOMBSTONES_MAX);
            let records = rest
                .iter()
                .map(|tp| GroupRecord::Offset(tp.clone(), None))
                .collect();
            self.append(
                records,
                Pending::Removal(PendingRemoval {
                    answer: None,
                    partitions: rest,
                    group: false,
                }),
            );
            rest = later;
        }
        let mut records: Vec<GroupRecord> = rest
            .iter()
            .map(|tp| GroupRecord::Offset(tp.clone(), None))
            .collect();
        if group {
            records.push(GroupRecord::Metadata(None));
        }
        self.append(
            records,
            Pending::Removal(PendingRemoval {
                answer,
                partitions: rest,
                group,
            }),
        );
    }
}
