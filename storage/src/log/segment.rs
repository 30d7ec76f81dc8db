//! The segment that a log appends to: positions and sparse indexes, in memory.
//!
//! Pure. Invariant: what is written to files never passes what was placed; index entries only point at placed entries.

use bytes::{BufMut, Bytes, BytesMut};
use tidelog_protocol::types::{Offset, TimestampMs};

use super::envelope::Envelope;
use super::files::SegmentName;
use super::sparse_index::{OFFSET_ENTRY_BYTES, OffsetIndex, TIME_ENTRY_BYTES, TimeIndex};
use super::{EntryId, EntryIndex, LogConfig, LogId, ProducerStateTable};

/// Bytes before the first envelope of a side file.
pub const SIDE_HEADER_BYTES: usize = 64;

/// Side file bytes between two entries of its index: one page, so that a lookup reads about one.
const SIDE_INDEX_INTERVAL_BYTES: u64 = 4096;

/// Least size at which a side file rolls, so that a small `segment.bytes` does not make a file of every entry.
const SIDE_BYTES_MIN: u64 = 1 << 20;

const SIDE_MAGIC: [u8; 8] = *b"TLENTRY\n";
const SIDE_VERSION: u16 = 1;

/// How far the files of a segment have been written (through the page cache).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WrittenTo {
    /// Bytes of `.log`.
    pub log: u64,
    /// Bytes of the side file.
    pub side: u64,
    /// Entries of `.index`.
    pub offsets: usize,
    /// Entries of `.timeindex`.
    pub times: usize,
    /// Entries of `.entryindex`.
    pub entries: usize,
    /// Bytes of `.log` whose write-back was started.
    pub hinted: u64,
}

/// A segment that is appended to, or was until its files are complete.
#[derive(Clone, Debug)]
pub struct OpenSegment {
    /// Where it begins.
    pub name: SegmentName,
    /// Bytes of `.log` when all is written.
    pub log_end: u64,
    /// Bytes of the side file when all is written; 0 while there is no entry.
    pub side_end: u64,
    /// Largest timestamp.
    pub max_timestamp: TimestampMs,
    /// Offset of the last record of the batch that has it.
    pub offset_of_max: Offset,
    /// Offset to position.
    pub offsets: OffsetIndex,
    /// Timestamp to offset.
    pub times: TimeIndex,
    /// Entry index to position in the side file.
    pub entries: OffsetIndex,
    /// Progress of the files.
    pub written: WrittenTo,
    /// Producer state before its first entry; `None` when it has to be read from the snapshot file.
    pub producers_before: Option<ProducerStateTable>,
    first_timestamp: Option<TimestampMs>,
    log_since_index: u64,
    side_since_index: u64,
}

impl OpenSegment {
    /// An empty segment.
    pub fn new(name: SegmentName, producers_before: Option<ProducerStateTable>) -> OpenSegment {
        OpenSegment {
            name,
            log_end: 0,
            side_end: 0,
            max_timestamp: TimestampMs::NONE,
            offset_of_max: name.base,
            offsets: OffsetIndex::default(),
            times: TimeIndex::default(),
            entries: OffsetIndex::default(),
            written: WrittenTo::default(),
            producers_before,
            first_timestamp: None,
            log_since_index: 0,
            side_since_index: 0,
        }
    }

    /// Whether it holds no entry.
    pub fn is_empty(&self) -> bool {
        self.side_end == 0
    }

    /// Whether its files hold all that was placed in it.
    pub fn is_written(&self) -> bool {
        let written = &self.written;
        written.log == self.log_end
            && written.side == self.side_end
            && written.offsets == self.offsets.len()
            && written.times == self.times.len()
            && written.entries == self.entries.len()
    }

    /// Bytes of records and envelopes that its files lack.
    pub fn unwritten_bytes(&self) -> u64 {
        (self.log_end.saturating_sub(self.written.log))
            .saturating_add(self.side_end.saturating_sub(self.written.side))
    }

    /// Whether an entry has to go to a new segment.
    pub fn must_roll(&self, config: &LogConfig, envelope: &Envelope) -> bool {
        if self.is_empty() {
            return false;
        }
        let log_max = u64::from(config.segment_bytes.min(i32::MAX.cast_unsigned()));
        let side_max = log_max.max(SIDE_BYTES_MIN);
        let size = self.log_end + u64::from(envelope.batch_bytes);
        let side = self.side_end + envelope.encoded_bytes() as u64;
        let last_offset = envelope.next_offset().0.saturating_sub(self.name.base.0);
        let relative = envelope.id.index.0.saturating_sub(self.name.first.0);
        let index_bytes = config.index_bytes_max as usize;
        (self.log_end > 0 && size > log_max)
            || side > side_max
            || last_offset > i64::from(i32::MAX)
            || relative > u64::from(i32::MAX.cast_unsigned())
            || (self.offsets.len() + 1) * OFFSET_ENTRY_BYTES > index_bytes
            || (self.times.len() + 2) * TIME_ENTRY_BYTES > index_bytes
            || self.first_timestamp.is_some_and(|first| {
                envelope.max_timestamp.0.saturating_sub(first.0) > config.segment_ms
            })
    }

    /// Takes an entry in behind the last one; returns the position of its envelope in the side file.
    pub fn place(&mut self, envelope: &Envelope, index_interval_bytes: u32) -> u64 {
        if envelope.batch_bytes > 0 {
            self.place_batch(envelope, u64::from(index_interval_bytes));
        }
        if self.side_end == 0 {
            self.side_end = SIDE_HEADER_BYTES as u64;
        }
        let position = self.side_end;
        let bytes = envelope.encoded_bytes() as u64;
        if self.side_since_index >= SIDE_INDEX_INTERVAL_BYTES {
            self.entries.push(
                envelope.id.index.0.saturating_sub(self.name.first.0),
                position,
            );
            self.side_since_index = 0;
        }
        self.side_since_index += bytes;
        self.side_end += bytes;
        position
    }

    fn place_batch(&mut self, envelope: &Envelope, interval: u64) {
        let last_offset = Offset(envelope.next_offset().0 - 1);
        if envelope.max_timestamp > self.max_timestamp {
            self.max_timestamp = envelope.max_timestamp;
            self.offset_of_max = last_offset;
        }
        self.first_timestamp = self.first_timestamp.or(Some(envelope.max_timestamp));
        if self.log_since_index > interval {
            self.offsets.push(self.relative(last_offset), self.log_end);
            self.times
                .push(self.max_timestamp, self.relative(self.offset_of_max));
            self.log_since_index = 0;
        }
        let bytes = u64::from(envelope.batch_bytes);
        self.log_since_index += bytes;
        self.log_end += bytes;
    }

    /// Completes the indexes when nothing more will be placed.
    pub fn seal(&mut self) {
        self.times
            .push(self.max_timestamp, self.relative(self.offset_of_max));
    }

    fn relative(&self, offset: Offset) -> u64 {
        u64::try_from(offset.0.saturating_sub(self.name.base.0)).unwrap_or(0)
    }
}

/// The bytes at the front of a side file.
///
/// ```text
///  0 8 bytes "TLENTRY\n"        16 u64 log id              40 i32 epoch of the entry before the first
///  8 u16 version = 1            24 u64 first entry index   44 20 bytes 0, reserved
/// 10 2 bytes 0                  32 i64 base offset
/// 12 u32 CRC-32C of the bytes 16..64
/// ```
pub fn side_header(log: LogId, name: SegmentName, before: EntryId) -> Bytes {
    let mut out = BytesMut::with_capacity(SIDE_HEADER_BYTES);
    out.put_slice(&SIDE_MAGIC);
    out.put_u16(SIDE_VERSION);
    out.put_bytes(0, 6);
    out.put_u64(log.0);
    out.put_u64(name.first.0);
    out.put_i64(name.base.0);
    out.put_i32(before.epoch.0);
    out.put_bytes(0, SIDE_HEADER_BYTES - out.len());
    let crc = crc32c::crc32c(&out[16..]);
    out[12..16].copy_from_slice(&crc.to_be_bytes());
    out.freeze()
}

/// Checks the front of a side file; the error says what is wrong.
pub fn check_side_header(bytes: &[u8], log: LogId, name: SegmentName) -> Result<(), &'static str> {
    let header: &[u8; SIDE_HEADER_BYTES] = bytes.first_chunk().ok_or("side file header is cut")?;
    if header[..8] != SIDE_MAGIC {
        return Err("not a side file");
    }
    if header[8..10] != SIDE_VERSION.to_be_bytes() {
        return Err("side file version is not known");
    }
    if header[12..16] != crc32c::crc32c(&header[16..]).to_be_bytes() {
        return Err("side file header checksum does not match");
    }
    let expected = side_header(log, name, EntryId::default());
    if header[16..40] != expected[16..40] {
        return Err("side file of another segment");
    }
    Ok(())
}

/// The entry index after the last one of a segment that begins at `first` and ends before `next`.
pub fn is_below(next: SegmentName, purged: EntryIndex) -> bool {
    next.first.0 <= purged.0.saturating_add(1)
}
