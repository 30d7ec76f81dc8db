//! The 61 bytes before a batch's records: fields at fixed offsets, read and written in place.
//!
//! Invariant: the length field is at least the header's own and the magic is 2. Knows nothing of the records.

use crate::compression::Compression;
use crate::types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence, TimestampMs};

use super::BatchError;

/// Length of the batch header in bytes, up to and including the record count.
pub const HEADER_BYTES: usize = 61;

/// Bytes of base offset and length, which the length field does not count.
pub const LENGTH_OVERHEAD_BYTES: usize = 12;

/// Where the checksummed part begins: attributes.
pub(super) const CHECKSUMMED_FROM: usize = ATTRIBUTES;

const BASE_OFFSET: usize = 0;
const LENGTH: usize = 8;
const LEADER_EPOCH: usize = 12;
const MAGIC: usize = 16;
const CRC: usize = 17;
const ATTRIBUTES: usize = 21;
const LAST_OFFSET_DELTA: usize = 23;
const BASE_TIMESTAMP: usize = 27;
const MAX_TIMESTAMP: usize = 35;
const PRODUCER_ID: usize = 43;
const PRODUCER_EPOCH: usize = 51;
const BASE_SEQUENCE: usize = 53;
const RECORD_COUNT: usize = 57;

const CODEC_MASK: i16 = 0x07;
const LOG_APPEND_TIME: i16 = 0x08;
const TRANSACTIONAL: i16 = 0x10;
const CONTROL: i16 = 0x20;
const DELETE_HORIZON: i16 = 0x40;

/// Header of one record batch of format v2.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader([u8; HEADER_BYTES]);

/// What a new batch says of itself; see [`super::builder::BatchBuilder`].
pub(super) struct HeaderFields {
    pub base_offset: Offset,
    pub records_bytes: usize,
    pub leader_epoch: LeaderEpoch,
    pub compression: Compression,
    pub is_transactional: bool,
    pub is_control: bool,
    pub last_offset_delta: i32,
    pub base_timestamp: TimestampMs,
    pub max_timestamp: TimestampMs,
    pub producer_id: ProducerId,
    pub producer_epoch: ProducerEpoch,
    pub base_sequence: Sequence,
    pub record_count: i32,
}

impl BatchHeader {
    /// Checks the header at the front of `bytes`. The batch may be cut: compare [`Self::size_bytes`].
    pub fn parse(bytes: &[u8]) -> Result<BatchHeader, BatchError> {
        if let Some(&magic) = bytes.get(MAGIC)
            && magic != 2
        {
            return Err(BatchError::Magic(magic.cast_signed()));
        }
        let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else {
            return Err(BatchError::Cut {
                have: bytes.len(),
                need: HEADER_BYTES,
            });
        };
        let header = BatchHeader(*header);
        let length = header.length();
        match usize::try_from(length) {
            Ok(length) if length >= HEADER_BYTES - LENGTH_OVERHEAD_BYTES => Ok(header),
            _ => Err(BatchError::Length(length)),
        }
    }

    /// `None` when the length field cannot say the records' size. The checksum is left to be set.
    pub(super) fn build(fields: &HeaderFields) -> Option<BatchHeader> {
        let mut header = BatchHeader([0; HEADER_BYTES]);
        let attributes = fields.compression as i16
            | if fields.is_transactional {
                TRANSACTIONAL
            } else {
                0
            }
            | if fields.is_control { CONTROL } else { 0 };
        header.put(BASE_OFFSET, fields.base_offset.0.to_be_bytes());
        header.set_records_bytes(fields.records_bytes)?;
        header.put(LEADER_EPOCH, fields.leader_epoch.0.to_be_bytes());
        header.put(MAGIC, [2]);
        header.put(ATTRIBUTES, attributes.to_be_bytes());
        header.put(LAST_OFFSET_DELTA, fields.last_offset_delta.to_be_bytes());
        header.put(BASE_TIMESTAMP, fields.base_timestamp.0.to_be_bytes());
        header.put(MAX_TIMESTAMP, fields.max_timestamp.0.to_be_bytes());
        header.put(PRODUCER_ID, fields.producer_id.0.to_be_bytes());
        header.put(PRODUCER_EPOCH, fields.producer_epoch.0.to_be_bytes());
        header.put(BASE_SEQUENCE, fields.base_sequence.0.to_be_bytes());
        header.put(RECORD_COUNT, fields.record_count.to_be_bytes());
        Some(header)
    }

    /// Header as stored and sent.
    pub fn as_bytes(&self) -> &[u8; HEADER_BYTES] {
        &self.0
    }

    /// Size of the whole batch, as its length field says.
    pub fn size_bytes(&self) -> usize {
        // `parse` and `build` let only lengths of at least 49 in.
        LENGTH_OVERHEAD_BYTES + usize::try_from(self.length()).unwrap_or(0)
    }

    /// Offset of the first record.
    pub fn base_offset(&self) -> Offset {
        Offset(i64::from_be_bytes(self.get(BASE_OFFSET)))
    }

    /// Offset of the last record.
    pub fn last_offset(&self) -> Offset {
        Offset(
            self.base_offset()
                .0
                .saturating_add(i64::from(self.last_offset_delta())),
        )
    }

    /// Offset after the last record.
    pub fn next_offset(&self) -> Offset {
        Offset(self.last_offset().0.saturating_add(1))
    }

    /// Last offset delta: records that the batch spans, minus one.
    pub fn last_offset_delta(&self) -> i32 {
        i32::from_be_bytes(self.get(LAST_OFFSET_DELTA))
    }

    /// Number of records.
    pub fn record_count(&self) -> i32 {
        i32::from_be_bytes(self.get(RECORD_COUNT))
    }

    /// Partition leader epoch.
    pub fn leader_epoch(&self) -> LeaderEpoch {
        LeaderEpoch(i32::from_be_bytes(self.get(LEADER_EPOCH)))
    }

    /// Stored CRC-32C of attributes onward.
    pub fn checksum(&self) -> u32 {
        u32::from_be_bytes(self.get(CRC))
    }

    /// Attribute bits.
    pub fn attributes(&self) -> i16 {
        i16::from_be_bytes(self.get(ATTRIBUTES))
    }

    /// Codec of the records section; `None` when the attribute bits name no known codec.
    pub fn compression(&self) -> Option<Compression> {
        Compression::from_id(self.attributes() & CODEC_MASK)
    }

    /// Whether the broker stamped the records' time ([`Self::max_timestamp`]), not the producer.
    pub fn is_log_append_time(&self) -> bool {
        self.attributes() & LOG_APPEND_TIME != 0
    }

    /// Whether the batch is part of a transaction.
    pub fn is_transactional(&self) -> bool {
        self.attributes() & TRANSACTIONAL != 0
    }

    /// Whether the batch holds a control record (transaction marker).
    pub fn is_control(&self) -> bool {
        self.attributes() & CONTROL != 0
    }

    /// When the batch's tombstones may go, once compaction has decided it (KIP-534).
    pub fn delete_horizon(&self) -> Option<TimestampMs> {
        (self.attributes() & DELETE_HORIZON != 0).then(|| self.base_timestamp())
    }

    /// What the records' timestamps are counted from: that of the first record, or the delete horizon.
    pub fn base_timestamp(&self) -> TimestampMs {
        TimestampMs(i64::from_be_bytes(self.get(BASE_TIMESTAMP)))
    }

    /// Largest timestamp in the batch.
    pub fn max_timestamp(&self) -> TimestampMs {
        TimestampMs(i64::from_be_bytes(self.get(MAX_TIMESTAMP)))
    }

    /// Producer id, or [`ProducerId::NONE`].
    pub fn producer_id(&self) -> ProducerId {
        ProducerId(i64::from_be_bytes(self.get(PRODUCER_ID)))
    }

    /// Producer epoch.
    pub fn producer_epoch(&self) -> ProducerEpoch {
        ProducerEpoch(i16::from_be_bytes(self.get(PRODUCER_EPOCH)))
    }

    /// Sequence of the first record; -1 without a producer id.
    pub fn base_sequence(&self) -> Sequence {
        Sequence(i32::from_be_bytes(self.get(BASE_SEQUENCE)))
    }

    /// Sequence of the last record, wrapping; -1 without a producer id.
    pub fn last_sequence(&self) -> Sequence {
        match self.base_sequence() {
            none @ Sequence(..0) => none,
            first => first.plus(self.last_offset_delta()),
        }
    }

    fn length(&self) -> i32 {
        i32::from_be_bytes(self.get(LENGTH))
    }

    /// `None` when the length field cannot say it.
    pub(super) fn set_records_bytes(&mut self, records_bytes: usize) -> Option<()> {
        let length = i32::try_from(HEADER_BYTES - LENGTH_OVERHEAD_BYTES + records_bytes).ok()?;
        self.put(LENGTH, length.to_be_bytes());
        Some(())
    }

    pub(super) fn set_base_offset(&mut self, offset: Offset) {
        self.put(BASE_OFFSET, offset.0.to_be_bytes());
    }

    pub(super) fn set_leader_epoch(&mut self, epoch: LeaderEpoch) {
        self.put(LEADER_EPOCH, epoch.0.to_be_bytes());
    }

    pub(super) fn set_checksum(&mut self, crc: u32) {
        self.put(CRC, crc.to_be_bytes());
    }

    pub(super) fn set_compression(&mut self, codec: Compression) {
        let attributes = self.attributes() & !CODEC_MASK | codec as i16;
        self.put(ATTRIBUTES, attributes.to_be_bytes());
    }

    pub(super) fn set_record_count(&mut self, count: i32) {
        self.put(RECORD_COUNT, count.to_be_bytes());
    }

    pub(super) fn set_delete_horizon(&mut self, horizon: TimestampMs) {
        let attributes = self.attributes() | DELETE_HORIZON;
        self.put(ATTRIBUTES, attributes.to_be_bytes());
        self.put(BASE_TIMESTAMP, horizon.0.to_be_bytes());
    }

    /// For a batch without records, whose base timestamp means nothing.
    pub(super) fn clear_delete_horizon(&mut self) {
        let attributes = self.attributes() & !DELETE_HORIZON;
        self.put(ATTRIBUTES, attributes.to_be_bytes());
        self.put(BASE_TIMESTAMP, TimestampMs::NONE.0.to_be_bytes());
    }

    pub(super) fn set_max_timestamp(&mut self, timestamp: TimestampMs) {
        self.put(MAX_TIMESTAMP, timestamp.0.to_be_bytes());
    }

    pub(super) fn set_log_append_time(&mut self) {
        let attributes = self.attributes() | LOG_APPEND_TIME;
        self.put(ATTRIBUTES, attributes.to_be_bytes());
    }

    /// `at` is one of this file's constants, so the range is inside the header.
    fn get<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut field = [0; N];
        field.copy_from_slice(&self.0[at..at + N]);
        field
    }

    fn put<const N: usize>(&mut self, at: usize, field: [u8; N]) {
        self.0[at..at + N].copy_from_slice(&field);
    }
}
