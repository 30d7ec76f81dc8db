//! Record batches, format v2 (`magic` 2), as they travel and as they are stored.
//!
//! A [`RecordBatch`] is the 61-byte header, copied so that offset and epoch can be stamped, and the
//! records section as a slice of the buffer that it was received in. The record bytes are never copied.

use bytes::Bytes;

use crate::types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence, TimestampMs};
use crate::compression::Compression;

/// Length of the batch header in bytes, up to and including the record count.
pub const HEADER_BYTES: usize = 61;

/// One record batch of format v2 whose structure (length, magic) has been checked, and nothing else.
#[derive(Clone)]
pub struct RecordBatch {
    header: [u8; HEADER_BYTES],
    records: Bytes,
}

/// Why bytes are not a record batch. Mapped to a Kafka error code by the Produce handler alone.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BatchError {
    /// Fewer bytes than the header or than its length field claims.
    #[error("batch is cut: {have} of {need} bytes")]
    Cut {
        /// Bytes at hand.
        have: usize,
        /// Bytes needed.
        need: usize,
    },
    /// Not format v2.
    #[error("unsupported magic {0}")]
    Magic(i8),
}

impl RecordBatch {
    /// Splits the first batch off `bytes`, sharing its memory.
    pub fn split_first(_bytes: &mut Bytes) -> Result<RecordBatch, BatchError> { unimplemented!() }
    /// The header as stored and sent.
    pub fn header_bytes(&self) -> &[u8; HEADER_BYTES] { &self.header }
    /// The records section (compressed as the producer sent it).
    pub fn records_bytes(&self) -> &Bytes { &self.records }
    /// Header and records together, in bytes.
    pub fn size_bytes(&self) -> usize { HEADER_BYTES + self.records.len() }
    /// Writes base offset and partition leader epoch; both lie outside the checksum.
    pub fn stamp(&mut self, _base_offset: Offset, _epoch: LeaderEpoch) { unimplemented!() }
    /// Sets the LogAppendTime attribute and the maximal timestamp, and recomputes the checksum.
    pub fn set_log_append_time(&mut self, _now: TimestampMs) { unimplemented!() }
    /// Whether the stored CRC-32C matches attributes onward.
    pub fn checksum_matches(&self) -> bool { unimplemented!() }
    /// Offset of the first record.
    pub fn base_offset(&self) -> Offset { unimplemented!() }
    /// Offset of the last record.
    pub fn last_offset(&self) -> Offset { unimplemented!() }
    /// Last offset delta: records that the batch spans, minus one.
    pub fn last_offset_delta(&self) -> i32 { unimplemented!() }
    /// Number of records.
    pub fn record_count(&self) -> i32 { unimplemented!() }
    /// Partition leader epoch.
    pub fn leader_epoch(&self) -> LeaderEpoch { unimplemented!() }
    /// Attribute bits.
    pub fn attributes(&self) -> i16 { unimplemented!() }
    /// Codec of the records section; `None` when the attribute bits name no known codec.
    pub fn compression(&self) -> Option<Compression> { unimplemented!() }
    /// Whether the batch is part of a transaction.
    pub fn is_transactional(&self) -> bool { unimplemented!() }
    /// Whether the batch holds a control record (transaction marker).
    pub fn is_control(&self) -> bool { unimplemented!() }
    /// Timestamp of the first record.
    pub fn base_timestamp(&self) -> TimestampMs { unimplemented!() }
    /// Largest timestamp in the batch.
    pub fn max_timestamp(&self) -> TimestampMs { unimplemented!() }
    /// Producer id, or [`ProducerId::NONE`].
    pub fn producer_id(&self) -> ProducerId { unimplemented!() }
    /// Producer epoch.
    pub fn producer_epoch(&self) -> ProducerEpoch { unimplemented!() }
    /// Sequence of the first record; -1 without a producer id.
    pub fn base_sequence(&self) -> Sequence { unimplemented!() }
}
