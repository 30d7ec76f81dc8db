//! Keys: OffsetCommitKey (versions 0 and 1 are the same) and GroupMetadataKey.

use bytes::{BufMut, Bytes};
use tidelog_protocol::types::{PartitionIndex, TopicName, TopicPartition};

use super::wire::{Fields, put_string};
use super::{FieldTooLong, RecordError};
use crate::coordinator::group::GroupId;

const OFFSET_OLD: i16 = 0;
const OFFSET: i16 = 1;
const GROUP: i16 = 2;

/// A key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// Of a committed offset.
    Offset(GroupId, TopicPartition),
    /// Of a group's generation.
    Group(GroupId),
}

pub(super) fn encode_offset(
    group: &GroupId,
    partition: &TopicPartition,
) -> Result<Bytes, FieldTooLong> {
    let mut out = Vec::with_capacity(10 + group.0.len() + partition.topic.as_str().len());
    out.put_i16(OFFSET);
    put_string(&mut out, &group.0)?;
    put_string(&mut out, partition.topic.as_str())?;
    out.put_i32(partition.partition.0);
    Ok(Bytes::from(out))
}

pub(super) fn encode_group(group: &GroupId) -> Result<Bytes, FieldTooLong> {
    let mut out = Vec::with_capacity(4 + group.0.len());
    out.put_i16(GROUP);
    put_string(&mut out, &group.0)?;
    Ok(Bytes::from(out))
}

pub(super) fn decode(bytes: &[u8]) -> Result<Option<Key>, RecordError> {
    let mut fields = Fields(bytes);
    let key = match fields.i16("key version")? {
        OFFSET_OLD | OFFSET => {
            let group = GroupId(fields.string("group")?);
            let topic = TopicName::from(&*fields.string("topic")?);
            let partition = PartitionIndex(fields.i32("partition")?);
            Key::Offset(group, TopicPartition { topic, partition })
        }
        GROUP => Key::Group(GroupId(fields.string("group")?)),
        _ => return Ok(None),
    };
    fields.end()?;
    Ok(Some(key))
}
