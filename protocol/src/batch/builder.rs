//! Builds record batches: for producers, for the records that coordinators write, and for tests.
//!
//! A finished batch passes [`super::validate`] unless it was asked to be something that clients may not send
//! (control, log append time).

use std::io;

use bytes::{BufMut, Bytes};

use super::RecordBatch;
use super::header::{BatchHeader, HeaderFields};
use crate::compression::Compression;
use crate::types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence, TimestampMs};
use crate::varint;

/// Collects records, then becomes a batch.
#[derive(Clone, Debug)]
pub struct BatchBuilder {
    compression: Compression,
    base_offset: Offset,
    leader_epoch: LeaderEpoch,
    producer_id: ProducerId,
    producer_epoch: ProducerEpoch,
    base_sequence: Sequence,
    is_transactional: bool,
    is_control: bool,
    base_timestamp: TimestampMs,
    max_timestamp: TimestampMs,
    count: i32,
    section: Vec<u8>,
}

/// A record to be added; borrows everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct NewRecord<'a> {
    /// The record's time.
    pub timestamp: TimestampMs,
    /// Key; `None` is null.
    pub key: Option<&'a [u8]>,
    /// Value; `None` is null.
    pub value: Option<&'a [u8]>,
    /// Headers in order.
    pub headers: &'a [(&'a [u8], Option<&'a [u8]>)],
}

/// Why a batch cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A batch has at least one record.
    #[error("a batch needs a record")]
    Empty,
    /// More than fits the format's 32-bit fields.
    #[error("batch or record is too large for the format")]
    TooLarge,
    /// The codec failed.
    #[error("compression failed: {0}")]
    Compression(#[from] io::Error),
}

impl BatchBuilder {
    /// An empty batch without producer id, at offset 0.
    pub fn new(compression: Compression) -> Self {
        BatchBuilder {
            compression,
            base_offset: Offset(0),
            leader_epoch: LeaderEpoch(-1),
            producer_id: ProducerId::NONE,
            producer_epoch: ProducerEpoch::NONE,
            base_sequence: Sequence::NONE,
            is_transactional: false,
            is_control: false,
            base_timestamp: TimestampMs::NONE,
            max_timestamp: TimestampMs::NONE,
            count: 0,
            section: Vec::new(),
        }
    }

    /// Makes it an idempotent producer's batch.
    pub fn producer(mut self, id: ProducerId, epoch: ProducerEpoch, sequence: Sequence) -> Self {
        (self.producer_id, self.producer_epoch, self.base_sequence) = (id, epoch, sequence);
        self
    }

    /// Makes it part of a transaction.
    pub fn transactional(mut self) -> Self {
        self.is_transactional = true;
        self
    }

    /// Makes it a control batch, which only brokers write.
    pub fn control(mut self) -> Self {
        self.is_control = true;
        self
    }

    /// Sets what the leader stamps at append.
    pub fn at(mut self, base_offset: Offset, epoch: LeaderEpoch) -> Self {
        (self.base_offset, self.leader_epoch) = (base_offset, epoch);
        self
    }

    /// Number of records so far.
    pub fn count(&self) -> i32 {
        self.count
    }

    /// Whether it has no record yet.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes of the records so far, before compression.
    pub fn section_bytes(&self) -> usize {
        self.section.len()
    }

    /// Adds a record. On an error the builder is unchanged.
    pub fn push(&mut self, record: NewRecord<'_>) -> Result<(), BuildError> {
        let base = if self.count == 0 {
            record.timestamp
        } else {
            self.base_timestamp
        };
        let timestamp_delta = record.timestamp.0.wrapping_sub(base.0);
        let len = body_len(&record, timestamp_delta, self.count).ok_or(BuildError::TooLarge)?;
        let next_count = self.count.checked_add(1).ok_or(BuildError::TooLarge)?;
        if self.section.len().saturating_add(len as usize) > MAX_SECTION_BYTES {
            return Err(BuildError::TooLarge);
        }
        let out = &mut self.section;
        varint::write_varint(out, len);
        out.put_i8(0);
        varint::write_varlong(out, timestamp_delta);
        varint::write_varint(out, self.count);
        put_nullable(out, record.key);
        put_nullable(out, record.value);
        varint::write_varint(out, record.headers.len() as i32);
        for (key, value) in record.headers {
            put_nullable(out, Some(key));
            put_nullable(out, *value);
        }
        self.base_timestamp = base;
        self.max_timestamp = self.max_timestamp.max(record.timestamp);
        self.count = next_count;
        Ok(())
    }

    /// Compresses, seals, and yields the batch.
    pub fn build(self) -> Result<RecordBatch, BuildError> {
        if self.count == 0 {
            return Err(BuildError::Empty);
        }
        let records = if self.compression == Compression::None {
            Bytes::from(self.section)
        } else {
            let mut compressed = Vec::with_capacity(self.section.len() / 2);
            self.compression.compress(&self.section, &mut compressed)?;
            Bytes::from(compressed)
        };
        let header = BatchHeader::build(&HeaderFields {
            base_offset: self.base_offset,
            records_bytes: records.len(),
            leader_epoch: self.leader_epoch,
            compression: self.compression,
            is_transactional: self.is_transactional,
            is_control: self.is_control,
            last_offset_delta: self.count - 1,
            base_timestamp: self.base_timestamp,
            max_timestamp: self.max_timestamp,
            producer_id: self.producer_id,
            producer_epoch: self.producer_epoch,
            base_sequence: self.base_sequence,
            record_count: self.count,
        })
        .ok_or(BuildError::TooLarge)?;
        let mut batch = RecordBatch { header, records };
        batch.reseal();
        Ok(batch)
    }
}

/// Leaves room for the header in the format's 32-bit length, also if compression makes the section larger.
const MAX_SECTION_BYTES: usize = 1 << 30;

/// Length of a record after its length field; `None` if a part does not fit 32 bits.
fn body_len(record: &NewRecord<'_>, timestamp_delta: i64, offset_delta: i32) -> Option<i32> {
    let mut sum = 1 + varint::varlong_len(timestamp_delta) + varint::varint_len(offset_delta);
    sum += nullable_len(record.key)? + nullable_len(record.value)?;
    sum += varint::varint_len(i32::try_from(record.headers.len()).ok()?);
    for (key, value) in record.headers {
        sum += nullable_len(Some(key))? + nullable_len(*value)?;
    }
    i32::try_from(sum).ok()
}

fn nullable_len(field: Option<&[u8]>) -> Option<usize> {
    match field {
        None => Some(1),
        Some(bytes) => Some(varint::varint_len(i32::try_from(bytes.len()).ok()?) + bytes.len()),
    }
}

/// Lengths were checked by `body_len`.
fn put_nullable(out: &mut Vec<u8>, field: Option<&[u8]>) {
    match field {
        None => varint::write_varint(out, -1),
        Some(bytes) => {
            varint::write_varint(out, bytes.len() as i32);
            out.put_slice(bytes);
        }
    }
}
