//! Walks a request's body along its schema before the codec decodes it.
//!
//! The codec reserves memory for whatever element count the wire claims: five bytes ask it for hundreds of
//! gigabytes. This walk proves first that every element, string and tag is really there and that their number
//! stays within [`limits`]; it allocates nothing. It knows the fields of each served request and their versions
//! (compared with the codec by the tests), and nothing of their meaning.

mod admin;
mod data;
mod groups;
#[cfg(test)]
mod tests;

use crate::api::ApiKey;
use crate::{limits, varint};

/// A request's fields, and the first version with compact lengths and tag sections.
struct Schema {
    flexible: i16,
    fields: &'static [Field],
}

/// One field of a struct.
struct Field {
    name: &'static str,
    min: i16,
    max: i16,
    /// Number in the tag section; `None` for a field at its own place.
    tag: Option<u32>,
    kind: Kind,
}

/// How a field is encoded.
enum Kind {
    /// So many bytes.
    Fixed(usize),
    /// String, nullable or not: the codec tells them apart.
    Text,
    /// Bytes, nullable or not.
    Blob,
    /// Array, nullable or not.
    List(&'static Kind),
    /// Fields, then a tag section if the version is flexible.
    Struct(&'static [Field]),
    /// One byte that says whether the struct follows.
    Optional(&'static [Field]),
}

const BOOL: Kind = Kind::Fixed(1);
const INT8: Kind = Kind::Fixed(1);
const INT16: Kind = Kind::Fixed(2);
const INT32: Kind = Kind::Fixed(4);
const INT64: Kind = Kind::Fixed(8);
const UUID: Kind = Kind::Fixed(16);

/// Topics by name, with indexes of their partitions.
const TOPICS_WITH_INDEXES: Kind = Kind::List(&Kind::Struct(&[
    all("name", Kind::Text),
    all("partition_indexes", Kind::List(&INT32)),
]));

/// The same, with a struct for each index.
const TOPICS_WITH_PARTITIONS: Kind = Kind::List(&Kind::Struct(&[
    all("name", Kind::Text),
    all(
        "partitions",
        Kind::List(&Kind::Struct(&[all("partition_index", INT32)])),
    ),
]));

/// No version of the message is flexible.
const NEVER: i16 = i16::MAX;

const fn all(name: &'static str, kind: Kind) -> Field {
    within(0, i16::MAX, name, kind)
}

const fn since(min: i16, name: &'static str, kind: Kind) -> Field {
    within(min, i16::MAX, name, kind)
}

const fn within(min: i16, max: i16, name: &'static str, kind: Kind) -> Field {
    Field {
        name,
        min,
        max,
        tag: None,
        kind,
    }
}

const fn tagged(tag: u32, min: i16, name: &'static str, kind: Kind) -> Field {
    Field {
        name,
        min,
        max: i16::MAX,
        tag: Some(tag),
        kind,
    }
}

/// Why a body does not follow its schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SchemaError {
    /// The API is not one that is served.
    #[error("no schema")]
    Unknown,
    /// The body ends inside the field, or its length is impossible.
    #[error("{0} is cut")]
    Cut(&'static str),
    /// The request has more array elements than are taken.
    #[error("{0} has too many elements")]
    Elements(&'static str),
    /// A tag section is cut, too long, or holds a field that is not as long as it says.
    #[error("tag section is malformed")]
    Tags,
}

/// Checks the front of `body` and yields how many bytes are left after the last field.
pub(crate) fn check_request(api: ApiKey, version: i16, body: &[u8]) -> Result<usize, SchemaError> {
    walk_request(api, version, body).map(|walk| walk.rest.len())
}

/// Checks the front of `body` and yields how many array elements it has, all arrays together.
pub(crate) fn count_elements(api: ApiKey, version: i16, body: &[u8]) -> Result<usize, SchemaError> {
    walk_request(api, version, body)
        .map(|walk| limits::REQUEST_ELEMENTS_MAX.saturating_sub(walk.elements_left))
}

fn walk_request(api: ApiKey, version: i16, body: &[u8]) -> Result<Walk<'_>, SchemaError> {
    let schema = schema_of(api).ok_or(SchemaError::Unknown)?;
    let mut walk = Walk {
        rest: body,
        version,
        is_flexible: version >= schema.flexible,
        elements_left: limits::REQUEST_ELEMENTS_MAX,
        tags_left: limits::TAGGED_FIELDS_MAX,
    };
    walk.fields(schema.fields)?;
    Ok(walk)
}

/// What is left of the body and of its allowances.
struct Walk<'a> {
    rest: &'a [u8],
    version: i16,
    is_flexible: bool,
    elements_left: usize,
    tags_left: usize,
}

/// Longest text, compact or not.
const TEXT_BYTES_MAX: usize = i16::MAX as usize;

impl Walk<'_> {
    fn fields(&mut self, fields: &'static [Field]) -> Result<(), SchemaError> {
        for field in fields {
            if field.tag.is_none() && self.has(field) {
                self.value(field.name, &field.kind)?;
            }
        }
        if self.is_flexible {
            self.tags(fields)
        } else {
            Ok(())
        }
    }

    fn has(&self, field: &Field) -> bool {
        (field.min..=field.max).contains(&self.version)
    }

    fn value(&mut self, name: &'static str, kind: &'static Kind) -> Result<(), SchemaError> {
        let cut = SchemaError::Cut(name);
        match kind {
            Kind::Fixed(len) => self.skip(*len).ok_or(cut),
            Kind::Text => {
                let len = if self.is_flexible {
                    // A compact length could say more; Kafka takes no longer text in either form.
                    self.compact_len().filter(|len| *len <= TEXT_BYTES_MAX)
                } else {
                    self.short_len()
                };
                len.and_then(|len| self.skip(len)).ok_or(cut)
            }
            Kind::Blob => self.len().and_then(|len| self.skip(len)).ok_or(cut),
            Kind::List(element) => {
                let count = self.len().ok_or(cut)?;
                // Every element takes a byte at least, so this also bounds the loop by the bytes at hand.
                self.elements_left = self
                    .elements_left
                    .checked_sub(count)
                    .ok_or(SchemaError::Elements(name))?;
                if count > self.rest.len() {
                    return Err(cut);
                }
                (0..count).try_for_each(|_| self.value(name, element))
            }
            Kind::Struct(fields) => self.fields(fields),
            Kind::Optional(fields) => {
                let (&present, rest) = self.rest.split_first().ok_or(cut)?;
                self.rest = rest;
                if present == 1 {
                    self.fields(fields)
                } else {
                    Ok(())
                }
            }
        }
    }

    fn tags(&mut self, fields: &'static [Field]) -> Result<(), SchemaError> {
        let count = varint::read_unsigned(&mut self.rest).ok_or(SchemaError::Tags)? as usize;
        self.tags_left = self.tags_left.checked_sub(count).ok_or(SchemaError::Tags)?;
        for _ in 0..count {
            let tag = varint::read_unsigned(&mut self.rest).ok_or(SchemaError::Tags)?;
            // The codec keeps the numbers of tags that it does not know as signed ones.
            if i32::try_from(tag).is_err() {
                return Err(SchemaError::Tags);
            }
            let len = varint::read_unsigned(&mut self.rest).ok_or(SchemaError::Tags)? as usize;
            let before = self.rest.len();
            match fields.iter().find(|field| field.tag == Some(tag)) {
                // The codec reads the field and does not look at its length: the two must agree.
                Some(field) if self.has(field) => self.value(field.name, &field.kind)?,
                Some(_) => return Err(SchemaError::Tags),
                None => self.skip(len).ok_or(SchemaError::Tags)?,
            }
            if before - self.rest.len() != len {
                return Err(SchemaError::Tags);
            }
        }
        Ok(())
    }

    /// Length of bytes or an array; null counts as 0.
    fn len(&mut self) -> Option<usize> {
        if self.is_flexible {
            return self.compact_len();
        }
        let (len, rest) = self.rest.split_first_chunk::<4>()?;
        self.rest = rest;
        nullable_len(i32::from_be_bytes(*len))
    }

    fn short_len(&mut self) -> Option<usize> {
        let (len, rest) = self.rest.split_first_chunk::<2>()?;
        self.rest = rest;
        nullable_len(i16::from_be_bytes(*len).into())
    }

    fn compact_len(&mut self) -> Option<usize> {
        let raw = varint::read_unsigned(&mut self.rest)?;
        Some(raw.saturating_sub(1) as usize)
    }

    fn skip(&mut self, len: usize) -> Option<()> {
        self.rest = self.rest.get(len..)?;
        Some(())
    }
}

fn nullable_len(len: i32) -> Option<usize> {
    if len == -1 {
        Some(0)
    } else {
        usize::try_from(len).ok()
    }
}

fn schema_of(api: ApiKey) -> Option<&'static Schema> {
    Some(match api {
        ApiKey::Produce => &data::PRODUCE,
        ApiKey::Fetch => &data::FETCH,
        ApiKey::ListOffsets => &data::LIST_OFFSETS,
        ApiKey::Metadata => &data::METADATA,
        ApiKey::InitProducerId => &data::INIT_PRODUCER_ID,
        ApiKey::OffsetForLeaderEpoch => &data::OFFSET_FOR_LEADER_EPOCH,
        ApiKey::ApiVersions => &data::API_VERSIONS,
        ApiKey::DescribeTopicPartitions => &data::DESCRIBE_TOPIC_PARTITIONS,
        ApiKey::DescribeProducers => &data::DESCRIBE_PRODUCERS,
        ApiKey::DescribeCluster => &data::DESCRIBE_CLUSTER,
        ApiKey::OffsetCommit => &groups::OFFSET_COMMIT,
        ApiKey::OffsetFetch => &groups::OFFSET_FETCH,
        ApiKey::FindCoordinator => &groups::FIND_COORDINATOR,
        ApiKey::JoinGroup => &groups::JOIN_GROUP,
        ApiKey::Heartbeat => &groups::HEARTBEAT,
        ApiKey::LeaveGroup => &groups::LEAVE_GROUP,
        ApiKey::SyncGroup => &groups::SYNC_GROUP,
        ApiKey::DescribeGroups => &groups::DESCRIBE_GROUPS,
        ApiKey::ListGroups => &groups::LIST_GROUPS,
        ApiKey::DeleteGroups => &groups::DELETE_GROUPS,
        ApiKey::OffsetDelete => &groups::OFFSET_DELETE,
        ApiKey::CreateTopics => &admin::CREATE_TOPICS,
        ApiKey::DeleteTopics => &admin::DELETE_TOPICS,
        ApiKey::DeleteRecords => &admin::DELETE_RECORDS,
        ApiKey::DescribeConfigs => &admin::DESCRIBE_CONFIGS,
        ApiKey::AlterConfigs => &admin::ALTER_CONFIGS,
        ApiKey::DescribeLogDirs => &admin::DESCRIBE_LOG_DIRS,
        ApiKey::CreatePartitions => &admin::CREATE_PARTITIONS,
        ApiKey::IncrementalAlterConfigs => &admin::INCREMENTAL_ALTER_CONFIGS,
        ApiKey::ListConfigResources => &admin::LIST_CONFIG_RESOURCES,
        ApiKey::ElectLeaders => &admin::ELECT_LEADERS,
        ApiKey::AlterPartitionReassignments => &admin::ALTER_PARTITION_REASSIGNMENTS,
        ApiKey::ListPartitionReassignments => &admin::LIST_PARTITION_REASSIGNMENTS,
        ApiKey::DescribeQuorum => &admin::DESCRIBE_QUORUM,
        ApiKey::UpdateFeatures => &admin::UPDATE_FEATURES,
        ApiKey::UnregisterBroker => &admin::UNREGISTER_BROKER,
        _ => return None,
    })
}
