//! Fields that the group APIs share, between the wire and the coordinator.
//!
//! What the coordinator keeps is copied out of the request: a slice would keep the whole frame in memory for as
//! long as the member lives.

use std::sync::Arc;

use bytes::Bytes;
use tidelog_protocol::StrBytes;
use tidelog_protocol::types::{PartitionIndex, TopicName, TopicPartition};

use crate::coordinator::group::{GroupError, GroupId, InstanceId, MemberId};

/// A group's name.
pub fn group_id(name: &StrBytes) -> GroupId {
    GroupId::from(name.as_str())
}

/// A group's name where it must not be empty, as in everything that a member does.
pub fn member_group_id(name: &StrBytes) -> Result<GroupId, GroupError> {
    if name.is_empty() {
        Err(GroupError::InvalidGroupId)
    } else {
        Ok(group_id(name))
    }
}

/// A member id; empty is none.
pub fn member_id(id: &StrBytes) -> Option<MemberId> {
    (!id.is_empty()).then(|| MemberId::from(id.as_str()))
}

/// An instance id.
pub fn instance_id(id: Option<&StrBytes>) -> Option<InstanceId> {
    id.map(|id| InstanceId::from(id.as_str()))
}

/// Text for the coordinator to keep.
pub fn text(text: &StrBytes) -> Arc<str> {
    Arc::from(text.as_str())
}

/// Bytes for the coordinator to keep.
pub fn bytes(bytes: &Bytes) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

/// Text of the coordinator, for the wire.
pub fn wire(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// A partition.
pub fn partition(topic: &TopicName, index: i32) -> TopicPartition {
    TopicPartition {
        topic: topic.clone(),
        partition: PartitionIndex(index),
    }
}
