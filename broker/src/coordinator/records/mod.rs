//! Records of `__consumer_offsets`, byte for byte as Kafka writes them, so that its tools read them.
//!
//! Owns the formats: keys of version 1 (offset) and 2 (group), offset values of version 3, or 1 with an own expiry,
//! group values of version 3. Knows nothing of groups' rules. Bytes that come back from a log are checked like
//! any others; keys of other versions belong to somebody else and are passed over.

mod group_metadata;
mod key;
mod offset_commit;
mod wire;

use bytes::Bytes;

use super::group::{GroupId, GroupRecord};
use key::Key;

/// A record as bytes; no value is a tombstone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedRecord {
    /// The key.
    pub key: Bytes,
    /// The value.
    pub value: Option<Bytes>,
}

/// A name or a byte string does not fit its length field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a field of {0} bytes does not fit the record format")]
pub struct FieldTooLong(pub usize);

/// Why a record of the offsets topic cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The bytes end inside a field.
    #[error("the record ends inside its {0}")]
    Cut(&'static str),
    /// A name is not UTF-8.
    #[error("the {0} is not text")]
    NotText(&'static str),
    /// A version that this program never writes.
    #[error("the {0} has version {1}")]
    Version(&'static str, i16),
    /// Bytes are left over.
    #[error("{0} bytes follow the record")]
    Trailing(usize),
}

/// Writes a group's record.
pub fn encode(group: &GroupId, record: &GroupRecord) -> Result<EncodedRecord, FieldTooLong> {
    let (key, value) = match record {
        GroupRecord::Offset(partition, offset) => {
            let value = offset.as_ref().map(offset_commit::encode).transpose()?;
            (key::encode_offset(group, partition)?, value)
        }
        GroupRecord::Metadata(metadata) => {
            let value = metadata.as_ref().map(group_metadata::encode).transpose()?;
            (key::encode_group(group)?, value)
        }
    };
    Ok(EncodedRecord { key, value })
}

/// Reads a record; `None` if its key is of a version that is not the coordinator's.
pub fn decode(
    key: &[u8],
    value: Option<&[u8]>,
) -> Result<Option<(GroupId, GroupRecord)>, RecordError> {
    Ok(match key::decode(key)? {
        Some(Key::Offset(group, partition)) => {
            let offset = value.map(offset_commit::decode).transpose()?;
            Some((group, GroupRecord::Offset(partition, offset)))
        }
        Some(Key::Group(group)) => {
            let metadata = value.map(group_metadata::decode).transpose()?;
            Some((group, GroupRecord::Metadata(metadata)))
        }
        None => None,
    })
}

#[cfg(test)]
mod tests;
