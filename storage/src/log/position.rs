//! Positions and bounds of a log, as the layers above see them.
//!
//! Plain values; nothing in here touches a file.

use tidelog_protocol::types::{Offset, PartitionIndex, TopicId, TopicName};

use super::{EntryId, LogError, LogId, ProducerStateTable};

/// Called once an append is as durable as its log's setting asks, on the journal's thread. Must not block.
pub type AppendDone = Box<dyn FnOnce(Result<(), LogError>) + Send>;

/// Who decides the base offsets and epochs of appended batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stamping {
    /// The log: it stamps the next offset and the entry's epoch into each batch.
    Leader,
    /// The leader of another broker did; the log asserts that they are what it would have stamped.
    Follower,
}

/// A place between two entries at which a log can begin: everything up to `last` is gone or elsewhere.
#[derive(Clone, Debug, Default)]
pub struct LogPosition {
    /// Last entry before the position.
    pub last: EntryId,
    /// Offset of the first record after it.
    pub next_offset: Offset,
    /// Log start offset as of the position.
    pub log_start: Offset,
    /// What is known of producers at the position.
    pub producers: ProducerStateTable,
}

/// Where a log begins and ends. Invariant: `purged <= last`, `log_start <= log_end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct LogBounds {
    /// Last entry that was forgotten; the first one held is the next.
    pub purged: EntryId,
    /// Last entry appended; `purged` when the log is empty.
    pub last: EntryId,
    /// First offset that readers may ask for.
    pub log_start: Offset,
    /// Offset of the next record.
    pub log_end: Offset,
    /// Bytes of record batches held.
    pub size_bytes: u64,
}

/// One log of a data directory.
#[derive(Clone, Debug)]
pub struct LogDescription {
    /// Incarnation.
    pub id: LogId,
    /// Topic name.
    pub topic: TopicName,
    /// Topic id.
    pub topic_id: TopicId,
    /// Partition.
    pub partition: PartitionIndex,
    /// Extent.
    pub bounds: LogBounds,
    /// Why it is stopped, if it is.
    pub stopped: Option<std::sync::Arc<str>>,
}
