//! The handle of one partition's log.

use std::sync::Arc;

use tidelog_protocol::types::{
    LeaderEpoch, Offset, PartitionIndex, TimestampMs, TopicId, TopicName,
};

use super::{
    AppendDone, EntryHeader, EntryId, EntryIndex, LogBounds, LogConfig, LogEntry, LogError, LogId,
    LogPosition, ProducerStateTable, ReadData, Stamping, TimestampOffset,
};

/// One partition's log. Changes (append, truncate, purge, reset) take effect in the order of their calls.
#[derive(Debug)]
pub struct PartitionLog {
    _private: (),
}

impl PartitionLog {
    /// Incarnation.
    pub fn id(&self) -> LogId {
        unimplemented!()
    }
    /// Topic name.
    pub fn topic(&self) -> &TopicName {
        unimplemented!()
    }
    /// Topic id.
    pub fn topic_id(&self) -> TopicId {
        unimplemented!()
    }
    /// Partition.
    pub fn partition(&self) -> PartitionIndex {
        unimplemented!()
    }
    /// Settings in force.
    pub fn config(&self) -> Arc<LogConfig> {
        unimplemented!()
    }
    /// Replaces the settings; they count from the next append on.
    pub fn set_config(&self, _config: LogConfig) {
        unimplemented!()
    }
    /// Appends entries whose indexes follow the last one and returns the base offset of each (for an opaque entry the
    /// next offset). They are readable when this returns; `done` is called when they are durable, exactly once if this
    /// returned Ok and never if it did not.
    pub async fn append(
        &self,
        _entries: Vec<LogEntry>,
        _stamping: Stamping,
        _done: AppendDone,
    ) -> Result<Vec<Offset>, LogError> {
        unimplemented!()
    }
    /// Cuts off the entries after `index`. Durable when it returns.
    pub async fn truncate_after(&self, _index: EntryIndex) -> Result<(), LogError> {
        unimplemented!()
    }
    /// Forgets the entries up to `index` and deletes the segments that hold nothing else. Durable when it returns.
    pub async fn purge_to(&self, _index: EntryIndex) -> Result<(), LogError> {
        unimplemented!()
    }
    /// Drops everything and restarts at a position. Durable when it returns.
    pub async fn reset(&self, _at: LogPosition) -> Result<(), LogError> {
        unimplemented!()
    }
    /// Extent.
    pub fn bounds(&self) -> LogBounds {
        unimplemented!()
    }
    /// Why the log is stopped, if it is.
    pub fn stopped(&self) -> Option<Arc<str>> {
        unimplemented!()
    }
    /// Whether records may be appended now: not stopped and more space than the reserve. Ask before an append is
    /// proposed; the append itself may use the reserve.
    pub fn check_writable(&self) -> Result<(), LogError> {
        unimplemented!()
    }
    /// Headers of `from..until`, at most `count_max`. May block for a read when they are not in memory.
    pub fn headers(
        &self,
        _from: EntryIndex,
        _until: EntryIndex,
        _count_max: usize,
    ) -> Result<Vec<EntryHeader>, LogError> {
        unimplemented!()
    }
    /// Header of one entry; `None` outside of what the log holds. The id of the purged boundary is known as well.
    pub fn entry_id(&self, _index: EntryIndex) -> Result<Option<EntryId>, LogError> {
        unimplemented!()
    }
    /// Entries of `from..until`, at least one if the range is not empty, about `bytes_max` at most. Checked against
    /// their checksums. May block for a read.
    pub fn entries(
        &self,
        _from: EntryIndex,
        _until: EntryIndex,
        _bytes_max: usize,
    ) -> Result<Vec<LogEntry>, LogError> {
        unimplemented!()
    }
    /// First entry of each epoch held, with the next offset before it, in order.
    pub fn epoch_starts(&self) -> Vec<(EntryId, Offset)> {
        unimplemented!()
    }
    /// Kafka's OffsetForLeaderEpoch: the largest epoch that is not above the asked one, and its end offset.
    pub fn end_offset_for_epoch(&self, _epoch: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        unimplemented!()
    }
    /// Reads whole batches of `from..upto` from memory; `None` means that a disk must be read.
    pub fn try_read_cached(
        &self,
        _from: Offset,
        _upto: Offset,
        _bytes_max: usize,
        _at_least_one: bool,
    ) -> Option<Result<ReadData, LogError>> {
        unimplemented!()
    }
    /// Reads whole batches of `from..upto`; blocks. The first batch is the one that holds `from`. Empty at `upto`.
    pub fn read_blocking(
        &self,
        _from: Offset,
        _upto: Offset,
        _bytes_max: usize,
        _at_least_one: bool,
    ) -> Result<ReadData, LogError> {
        unimplemented!()
    }
    /// First record below `upto` whose timestamp is not before `at_or_after`. Blocks.
    pub fn offset_for_timestamp(
        &self,
        _at_or_after: TimestampMs,
        _upto: Offset,
    ) -> Result<Option<TimestampOffset>, LogError> {
        unimplemented!()
    }
    /// The record below `upto` with the largest timestamp (the first of them). Blocks.
    pub fn max_timestamp(&self, _upto: Offset) -> Result<Option<TimestampOffset>, LogError> {
        unimplemented!()
    }
    /// Raises the log start offset; an older one is ignored. Persisted with the next checkpoint.
    pub fn advance_log_start(&self, _to: Offset) {
        unimplemented!()
    }
    /// End of the last segment that retention (time, bytes, log start) lets go, below the high watermark. Rolls the
    /// active segment when all of it has expired. May block.
    pub fn retention_boundary(
        &self,
        _now: TimestampMs,
        _high_watermark: Offset,
    ) -> Result<Option<LogPosition>, LogError> {
        unimplemented!()
    }
    /// The position right after an entry that is held (or the purged boundary). May block.
    pub fn position_at(&self, _index: EntryIndex) -> Result<LogPosition, LogError> {
        unimplemented!()
    }
    /// Producer state of everything appended.
    pub fn producers(&self) -> Result<ProducerStateTable, LogError> {
        unimplemented!()
    }
}
