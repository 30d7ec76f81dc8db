//! One partition's log: entries, their Kafka offsets, segments, indexes, epochs, producer state.
//!
//! An entry is either a Kafka record batch, which takes offsets, or opaque bytes of the consensus layer, which take
//! none. Entry indexes are dense from 1; offsets are the running sum of record counts of the batches.
//! Invariant: `log_start <= recovery point <= log end`; high watermark is the caller's.

mod checkpoint;
mod cleaner;
mod envelope;
mod epochs;
mod files;
mod partition;
mod payload;
mod position;
mod producer;
mod records;
mod segment;
mod settled;
mod shared;
mod sparse_index;
mod state;
mod tail;
mod write_queue;

#[cfg(test)]
mod tests;

pub use cleaner::{CleanStats, CleanerPace};
pub use epochs::EpochTable;
pub use partition::{Cleanable, CleaningBasis, PartitionLog, RecordCopy};
pub use position::{AppendDone, LogBounds, LogDescription, LogPosition, Stamping};
pub use producer::{ProducerStateTable, ProducerStateView, SequenceCheck, SequenceError};

pub(crate) use checkpoint::{Checkpoint, key as checkpoint_key, log_of as log_of_checkpoint};
pub(crate) use files::{TOPICS, is_log_file};
pub(crate) use partition::{Captured, Harm, Replay, run_write_behind};
pub(crate) use payload::{Identity, decode_reset};
pub(crate) use shared::{Shared, SharedSizes};

use std::sync::Arc;

use bytes::Bytes;
use tidelog_protocol::batch::RecordBatch;
use tidelog_protocol::types::{LeaderEpoch, Offset, PartitionIndex, TimestampMs};

use crate::journal::Durability;

/// Id of one incarnation of one partition's log in this data directory; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId(pub u64);

/// Position of an entry in its log, counting all entries; the first is 1 and 0 means "none".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct EntryIndex(pub u64);

/// Identity of an entry: the epoch in which it was written and its index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct EntryId {
    /// Leader epoch.
    pub epoch: LeaderEpoch,
    /// Index.
    pub index: EntryIndex,
}

/// What an entry carries.
#[derive(Clone)]
pub enum EntryBody {
    /// A record batch.
    Batch(RecordBatch),
    /// Bytes of the consensus layer or a control command; `tag` is the writer's. Takes no offset.
    Opaque {
        /// The writer's tag.
        tag: u8,
        /// The bytes, inline in the side file.
        bytes: Bytes,
    },
}

/// An entry with its versioned envelope.
#[derive(Clone)]
pub struct LogEntry {
    /// Epoch and index.
    pub id: EntryId,
    /// Partition that the batch was first produced to, where that is another one (forwarded batches).
    pub origin: Option<PartitionIndex>,
    /// Feature flags of the entry; 0 today, kept as they are.
    pub flags: u16,
    /// Auxiliary bytes of later features, stored beside the batch and replicated with it; mostly empty.
    pub aux: Bytes,
    /// The content.
    pub body: EntryBody,
}

/// An entry without its record bytes; opaque bodies are included.
#[derive(Clone, Debug)]
pub struct EntryHeader {
    /// Epoch and index.
    pub id: EntryId,
    /// Base offset of a batch; for an opaque entry the next offset.
    pub base_offset: Offset,
    /// Offsets that the entry takes; 0 for an opaque one.
    pub record_count: u32,
    /// Tag and bytes of an opaque entry.
    pub opaque: Option<(u8, Bytes)>,
}

/// Settings of one log; resolved from topic and broker configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct LogConfig {
    /// `segment.bytes`.
    pub segment_bytes: u32,
    /// `segment.ms` minus nothing: a segment older than this rolls at the next append.
    pub segment_ms: i64,
    /// `segment.index.bytes`.
    pub index_bytes_max: u32,
    /// `index.interval.bytes`.
    pub index_interval_bytes: u32,
    /// `retention.ms`; `None` = unlimited.
    pub retention_ms: Option<i64>,
    /// `retention.bytes`; `None` = unlimited.
    pub retention_bytes: Option<u64>,
    /// Whether old segments are deleted (`cleanup.policy` has `delete`).
    pub delete: bool,
    /// Whether the log is compacted (`cleanup.policy` has `compact`).
    pub compact: bool,
    /// How, if it is.
    pub cleaning: CleaningConfig,
    /// `durability`.
    pub durability: Durability,
    /// `file.delete.delay.ms` is not needed: open readers keep their handle. Idle producers are forgotten after this.
    pub producer_id_expiration_ms: i64,
}

/// When and how a log is compacted.
#[derive(Clone, Debug, PartialEq)]
pub struct CleaningConfig {
    /// `delete.retention.ms`: how long a tombstone stays once nothing older than it is left of its key. Default a day.
    pub delete_retention_ms: i64,
    /// `min.cleanable.dirty.ratio`: share of the log that compaction has not seen, above which it looks. Default 0.5.
    pub min_dirty_ratio: f64,
    /// `min.compaction.lag.ms`: younger records are left alone. Default 0.
    pub min_lag_ms: i64,
    /// `max.compaction.lag.ms`: a record older than this is looked at whatever the ratio. Default without limit.
    pub max_lag_ms: i64,
}

impl Default for CleaningConfig {
    fn default() -> Self {
        CleaningConfig {
            delete_retention_ms: 24 * 3_600_000,
            min_dirty_ratio: 0.5,
            min_lag_ms: 0,
            max_lag_ms: i64::MAX,
        }
    }
}

impl Default for LogConfig {
    /// Kafka's defaults for a topic that is not compacted.
    fn default() -> Self {
        LogConfig {
            segment_bytes: 1 << 30,
            segment_ms: 7 * 24 * 3_600_000,
            index_bytes_max: 10 << 20,
            index_interval_bytes: 4096,
            retention_ms: Some(7 * 24 * 3_600_000),
            retention_bytes: None,
            delete: true,
            compact: false,
            cleaning: CleaningConfig::default(),
            durability: Durability::Sync,
            producer_id_expiration_ms: 24 * 3_600_000,
        }
    }
}

/// What a read found: whole batches, byte for byte as stored.
#[derive(Clone, Debug, Default)]
pub struct ReadData {
    /// Bytes to send, in pieces (a header and a records slice for each cached batch, or one run from a segment).
    pub pieces: Vec<Bytes>,
    /// Sum of the pieces.
    pub size_bytes: usize,
    /// First offset after the last batch returned.
    pub next_offset: Offset,
}

/// A record found by timestamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimestampOffset {
    /// Timestamp of the record.
    pub timestamp: TimestampMs,
    /// Its offset.
    pub offset: Offset,
    /// Epoch of its batch.
    pub epoch: LeaderEpoch,
}

/// Why a log refused or failed. `Stopped` and `Corrupt` are final until a person acts.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LogError {
    /// Offset below the log start or above its end.
    #[error("offset {offset} is outside {start}..{end}")]
    OffsetOutOfRange {
        /// Asked for.
        offset: Offset,
        /// Log start.
        start: Offset,
        /// Log end.
        end: Offset,
    },
    /// The log was stopped by an earlier failure.
    #[error("log stopped: {0}")]
    Stopped(Arc<str>),
    /// A file is damaged inside acknowledged data.
    #[error("{file} is damaged at byte {position}: {reason}")]
    Corrupt {
        /// File name below the data directory.
        file: String,
        /// Byte position.
        position: u64,
        /// What is wrong.
        reason: String,
    },
    /// The disk is full or at its reserve, or no more files can be opened. Passes by itself.
    #[error("no space: {0}")]
    NoSpace(String),
    /// The system refused.
    #[error("{0}")]
    Io(Arc<str>),
    /// What was to be appended does not belong here; nothing changed.
    #[error("entries refused: {0}")]
    Refused(Arc<str>),
    /// An entry or a position that the log does not hold.
    #[error("entry {index:?} is outside of what the log holds")]
    EntryOutOfRange {
        /// Asked for.
        index: EntryIndex,
    },
    /// The log was removed.
    #[error("log removed")]
    Removed,
}
