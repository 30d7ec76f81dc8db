//! Record batches, format v2 (`magic` 2), as they travel and as they are stored.
//!
//! A [`RecordBatch`] is the 61-byte header, copied so that offset and epoch can be stamped, and the
//! records section as a slice of the buffer that it was received in. The record bytes are never copied.

pub mod builder;
mod header;
mod owned;
pub mod record;
mod retain;
mod scratch;
#[cfg(test)]
mod tests;
pub mod validate;

use std::fmt;
use std::ops::Deref;

use bytes::Bytes;

use crate::compression::Compression;
use crate::types::{LeaderEpoch, Offset, TimestampMs};

pub use builder::{BatchBuilder, BuildError, NewRecord};
pub use header::{BatchHeader, HEADER_BYTES, LENGTH_OVERHEAD_BYTES};
pub use owned::{Header, Record};
pub use record::{HeaderView, RecordFormatError, RecordIter, RecordView};
pub use retain::RetainError;
pub use scratch::{RecordsError, Scratch};

/// One record batch of format v2 whose structure (length, magic) has been checked, and nothing else.
///
/// The header's fields are read through [`BatchHeader`], to which this dereferences.
#[derive(Clone, PartialEq, Eq)]
pub struct RecordBatch {
    header: BatchHeader,
    records: Bytes,
}

/// Why bytes are not a record batch. Mapped to a Kafka error code by the Produce handler alone.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
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
    /// The length field is smaller than the header itself.
    #[error("impossible batch length {0}")]
    Length(i32),
}

impl RecordBatch {
    /// Splits the first batch off `bytes`, sharing its memory. On an error `bytes` is unchanged.
    pub fn split_first(bytes: &mut Bytes) -> Result<RecordBatch, BatchError> {
        let header = BatchHeader::parse(bytes)?;
        let size = header.size_bytes();
        if bytes.len() < size {
            return Err(BatchError::Cut {
                have: bytes.len(),
                need: size,
            });
        }
        let records = bytes.split_to(size).slice(HEADER_BYTES..);
        Ok(RecordBatch { header, records })
    }

    /// Splits concatenated batches, for example a Fetch reply's. A cut last batch is left out if a whole one
    /// precedes it, as Kafka's clients do.
    pub fn split_all(mut bytes: Bytes) -> Result<Vec<RecordBatch>, BatchError> {
        let mut batches = Vec::new();
        while !bytes.is_empty() {
            match RecordBatch::split_first(&mut bytes) {
                Ok(batch) => batches.push(batch),
                Err(BatchError::Cut { .. }) if !batches.is_empty() => break,
                Err(error) => return Err(error),
            }
        }
        Ok(batches)
    }

    /// Header and records that were read apart; `None` unless the header's length says `records`.
    pub fn from_parts(header: BatchHeader, records: Bytes) -> Option<RecordBatch> {
        (header.size_bytes() == HEADER_BYTES + records.len())
            .then_some(RecordBatch { header, records })
    }

    /// The header.
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// The header as stored and sent.
    pub fn header_bytes(&self) -> &[u8; HEADER_BYTES] {
        self.header.as_bytes()
    }

    /// The records section (compressed as the producer sent it).
    pub fn records_bytes(&self) -> &Bytes {
        &self.records
    }

    /// Header and records together, in bytes.
    pub fn size_bytes(&self) -> usize {
        HEADER_BYTES + self.records.len()
    }

    /// The same batch with records of its own: one that is kept no longer keeps the buffer that it was cut from.
    #[must_use]
    pub fn detached(self) -> RecordBatch {
        RecordBatch {
            records: Bytes::copy_from_slice(&self.records),
            ..self
        }
    }

    /// Header and records in one buffer; copies.
    pub fn to_bytes(&self) -> Bytes {
        [self.header_bytes(), &self.records[..]].concat().into()
    }

    /// Writes base offset and partition leader epoch; both lie outside the checksum.
    pub fn stamp(&mut self, base_offset: Offset, epoch: LeaderEpoch) {
        self.header.set_base_offset(base_offset);
        self.header.set_leader_epoch(epoch);
    }

    /// Sets the LogAppendTime attribute and the maximal timestamp, and recomputes the checksum.
    pub fn set_log_append_time(&mut self, now: TimestampMs) {
        self.header.set_log_append_time();
        self.header.set_max_timestamp(now);
        self.reseal();
    }

    /// Corrects the maximal timestamp; recomputes the checksum if it changes.
    pub fn set_max_timestamp(&mut self, timestamp: TimestampMs) {
        if self.header.max_timestamp() != timestamp {
            self.header.set_max_timestamp(timestamp);
            self.reseal();
        }
    }

    /// Whether the stored CRC-32C matches attributes onward.
    pub fn checksum_matches(&self) -> bool {
        self.header.checksum() == self.computed_checksum()
    }

    /// CRC-32C of attributes onward.
    pub fn computed_checksum(&self) -> u32 {
        let head = crc32c::crc32c(&self.header_bytes()[header::CHECKSUMMED_FROM..]);
        crc32c::crc32c_append(head, &self.records)
    }

    /// The same batch with its decompressed records section stored under another codec.
    fn with_section(&self, section: &[u8], codec: Compression) -> Result<RecordBatch, BuildError> {
        let mut records = Vec::with_capacity(section.len());
        codec.compress(section, &mut records)?;
        let mut header = self.header;
        header.set_compression(codec);
        header
            .set_records_bytes(records.len())
            .ok_or(BuildError::TooLarge)?;
        let mut batch = RecordBatch {
            header,
            records: records.into(),
        };
        batch.reseal();
        Ok(batch)
    }

    fn reseal(&mut self) {
        let crc = self.computed_checksum();
        self.header.set_checksum(crc);
    }
}

impl Deref for RecordBatch {
    type Target = BatchHeader;

    fn deref(&self) -> &BatchHeader {
        &self.header
    }
}

impl fmt::Debug for BatchHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchHeader")
            .field("base_offset", &self.base_offset().0)
            .field("last_offset", &self.last_offset().0)
            .field("record_count", &self.record_count())
            .field("leader_epoch", &self.leader_epoch().0)
            .field("attributes", &self.attributes())
            .field("producer_id", &self.producer_id().0)
            .field("producer_epoch", &self.producer_epoch().0)
            .field("base_sequence", &self.base_sequence().0)
            .field("size_bytes", &self.size_bytes())
            .finish()
    }
}

impl fmt::Debug for RecordBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.header.fmt(f)
    }
}
