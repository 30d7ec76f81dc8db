//! Finding the partition that a request names, and what to say when it is not served here.
//!
//! Shared by the handlers of the data path.

use std::sync::Arc;

use tidelog_protocol::ErrorCode;
use tidelog_protocol::types::{BrokerId, LeaderEpoch, PartitionIndex, TopicId, TopicName};
use tidelog_replication::{
    MetadataImage, Partition, PartitionImage, PartitionState, Role, TopicImage,
};
use uuid::Uuid;

use crate::kafka::context::RequestContext;

/// A topic as a request names it: by id from some version on, by name before.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TopicKey {
    /// By name.
    Name(TopicName),
    /// By id.
    Id(TopicId),
}

/// Why a request for a partition is refused, with who leads it, where that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The error code.
    pub code: ErrorCode,
    /// The leader, for the clients that take the hint.
    pub leader: Option<(BrokerId, LeaderEpoch)>,
}

impl From<ErrorCode> for Refusal {
    fn from(code: ErrorCode) -> Self {
        Refusal { code, leader: None }
    }
}

impl TopicKey {
    /// The key that a request of this version carries.
    pub fn of(by_id: bool, name: &str, id: Uuid) -> TopicKey {
        if by_id {
            TopicKey::Id(TopicId(id))
        } else {
            TopicKey::Name(TopicName::from(name))
        }
    }

    /// Finds the topic.
    pub fn find<'a>(&self, image: &'a MetadataImage) -> Result<&'a Arc<TopicImage>, ErrorCode> {
        match self {
            TopicKey::Name(name) => image.topic(name).ok_or(ErrorCode::UnknownTopicOrPartition),
            TopicKey::Id(id) => image.topic_by_id(*id).ok_or(ErrorCode::UnknownTopicId),
        }
    }
}

/// The replica of a partition on this broker, if it leads, and its state.
pub fn led_here(
    cx: &RequestContext,
    topic: &TopicImage,
    index: PartitionIndex,
) -> Result<(Arc<Partition>, PartitionState), Refusal> {
    let (partition, state) = held_here(cx, topic, index)?;
    if state.is_leader() {
        return Ok((partition, state));
    }
    Err(Refusal {
        code: ErrorCode::NotLeaderOrFollower,
        leader: state.leader.map(|leader| (leader, state.leader_epoch)),
    })
}

/// The replica of a partition on this broker, whether it leads or follows, and its state.
pub fn held_here(
    cx: &RequestContext,
    topic: &TopicImage,
    index: PartitionIndex,
) -> Result<(Arc<Partition>, PartitionState), Refusal> {
    let image = topic
        .partition(index)
        .ok_or(ErrorCode::UnknownTopicOrPartition)?;
    let Some(partition) = cx.broker.replication.partition(topic.id, index) else {
        return Err(Refusal {
            code: ErrorCode::NotLeaderOrFollower,
            leader: image.leader.map(|leader| (leader, image.leader_epoch)),
        });
    };
    let state = partition.state();
    match state.role {
        Role::Leader => Ok((partition, state)),
        Role::Follower => Ok((partition, as_shown(state, image))),
        Role::Offline => Err(ErrorCode::KafkaStorageError.into()),
    }
}

/// A follower hears of its leader with the next record or message of it; the metadata may be ahead of that.
fn as_shown(mut state: PartitionState, image: &PartitionImage) -> PartitionState {
    if state.leader.is_none() || image.leader_epoch > state.leader_epoch {
        state.leader = image.leader;
    }
    state.leader_epoch = state.leader_epoch.max(image.leader_epoch);
    state
}

/// Rule 23: compares the epoch that a request names (-1: none) with the current one.
pub fn check_epoch(asked: i32, state: &PartitionState) -> Result<(), Refusal> {
    let current = state.leader_epoch;
    let code = match asked {
        asked if asked < 0 || asked == current.0 => return Ok(()),
        asked if asked < current.0 => ErrorCode::FencedLeaderEpoch,
        _ => ErrorCode::UnknownLeaderEpoch,
    };
    Err(Refusal {
        code,
        leader: state.leader.map(|leader| (leader, current)),
    })
}

#[cfg(test)]
mod tests {
    use tidelog_protocol::types::Offset;

    use super::*;

    fn state(leader: Option<i32>, epoch: i32) -> PartitionState {
        PartitionState {
            role: Role::Follower,
            leader: leader.map(BrokerId),
            leader_epoch: LeaderEpoch(epoch),
            epoch_start: Offset(0),
            high_watermark: Offset(0),
            last_stable_offset: Offset(0),
            log_start: Offset(0),
            log_end: Offset(0),
        }
    }

    #[test]
    fn a_follower_knows_the_newer_of_what_it_heard_and_what_the_metadata_shows() {
        let image = PartitionImage {
            replicas: Arc::from([]),
            reassignment: None,
            isr: Arc::from([]),
            leader: Some(BrokerId(2)),
            leader_epoch: LeaderEpoch(5),
            partition_epoch: 0,
        };
        for (heard, expected) in [
            ((Some(1), 4), (2, 5)),
            ((Some(1), 6), (1, 6)),
            ((Some(2), 5), (2, 5)),
            // Started again, and not heard of anybody yet.
            ((None, 0), (2, 5)),
        ] {
            let shown = as_shown(state(heard.0, heard.1), &image);
            let shown = (shown.leader.map(|it| it.0), shown.leader_epoch.0);
            assert_eq!(shown, (Some(expected.0), expected.1), "{heard:?}");
        }
    }
}
