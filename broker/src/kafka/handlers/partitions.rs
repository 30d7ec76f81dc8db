//! Finding the partition that a request names, and what to say when it is not served here.
//!
//! Shared by the handlers of the data path.

use std::sync::Arc;

use tidelog_protocol::ErrorCode;
use tidelog_protocol::types::{BrokerId, LeaderEpoch, PartitionIndex, TopicId, TopicName};
use tidelog_replication::{MetadataImage, Partition, PartitionState, Role, TopicImage};
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
    let image = topic
        .partition(index)
        .ok_or(ErrorCode::UnknownTopicOrPartition)?;
    let hint = image.leader.map(|leader| (leader, image.leader_epoch));
    let Some(partition) = cx.broker.replication.partition(topic.id, index) else {
        return Err(Refusal {
            code: ErrorCode::NotLeaderOrFollower,
            leader: hint,
        });
    };
    let state = partition.state();
    match state.role {
        Role::Leader => Ok((partition, state)),
        Role::Follower => {
            let leader = state
                .leader
                .map(|leader| (leader, state.leader_epoch))
                .or(hint);
            Err(Refusal {
                code: ErrorCode::NotLeaderOrFollower,
                leader,
            })
        }
        Role::Offline => Err(ErrorCode::KafkaStorageError.into()),
    }
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
