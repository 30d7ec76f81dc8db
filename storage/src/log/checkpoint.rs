//! What the key-value store knows of a log: enough to open it without touching a file.
//!
//! Key: log id, u64 big-endian. Value, big-endian:
//! ```text
//! u8 version = 2 (1 without the last line), u8 flags (1: has files; 2: producers are in the snapshot file and the segments; 4: removed, its
//! folder is to be deleted), u16 0
//! identity (see payload.rs)
//! config: u32 segment.bytes, i64 segment.ms, u32 segment.index.bytes, u32 index.interval.bytes, i64 retention.ms,
//!         i64 retention.bytes (-1: none), u8 delete, u8 compact, u8 durability (0 sync, 1 os), u8 0, i64 producer expiration
//! u64 sequence of the last journal frame covered
//! purged: i32 epoch, u64 index; last: the same; i64 log start, i64 next offset
//! u64 size in bytes, i64 largest timestamp of the oldest segment (-1: none)
//! segment end (see payload.rs)
//! epochs: u32 n, n x { i32 epoch, u64 first index, i64 offset }
//! u32 length and bytes of the producer snapshot, u32 length and bytes of the entries of a log without files
//! settled segments (see settled.rs)
//! ```
//! Invariant: everything up to `last` is in synced files or in the value itself.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tidelog_protocol::types::{Offset, TimestampMs};

use super::payload::{Identity, SegmentEnd, get_id, put_id};
use super::settled::Settled;
use super::{CleaningConfig, EntryId, EpochTable, LogConfig, LogId, ProducerStateTable};
use crate::journal::{Durability, FrameSequence};

const VERSION: u8 = 2;
/// Without settled segments.
const VERSION_BEFORE: u8 = 1;
const HAS_FILES: u8 = 1;
const PRODUCERS_IN_FILES: u8 = 2;
const REMOVED: u8 = 4;

/// Producer snapshots above this are not kept in the key-value store but rebuilt from the segments.
pub const PRODUCER_BYTES_MAX: usize = 256 << 10;

/// State of a log as of one of its changes.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// Partition.
    pub identity: Identity,
    /// Settings, for recovery before the layers above have set them.
    pub config: LogConfig,
    /// Last change covered.
    pub sequence: FrameSequence,
    /// Last entry forgotten.
    pub purged: EntryId,
    /// Last entry.
    pub last: EntryId,
    /// Log start offset.
    pub log_start: Offset,
    /// Next offset.
    pub next_offset: Offset,
    /// Bytes of batches.
    pub size_bytes: u64,
    /// Largest timestamp of the oldest segment, for retention.
    pub oldest_timestamp: TimestampMs,
    /// Whether there is a folder.
    pub has_files: bool,
    /// Whether the log was removed; its folder may be left.
    pub removed: bool,
    /// End of the active segment.
    pub end: SegmentEnd,
    /// Epochs.
    pub epochs: EpochTable,
    /// Producers; `None` when they are to be rebuilt from files.
    pub producers: Option<ProducerStateTable>,
    /// All entries of a log without files, as an Append payload; empty if there is none.
    pub entries: Bytes,
    /// Segments without entries.
    pub settled: Settled,
}

/// Key of a log's checkpoint.
pub fn key(id: LogId) -> Bytes {
    Bytes::copy_from_slice(&id.0.to_be_bytes())
}

/// Log of a checkpoint key.
pub fn log_of(key: &[u8]) -> Option<LogId> {
    Some(LogId(u64::from_be_bytes(key.try_into().ok()?)))
}

impl Checkpoint {
    /// Value for the key-value store.
    pub fn encode(&self) -> Bytes {
        let producers = match &self.producers {
            Some(table) if !table.is_empty() => Some(table.encode()),
            Some(_) => Some(Bytes::new()),
            None => None,
        };
        let producers =
            producers.filter(|bytes| !self.has_files || bytes.len() <= PRODUCER_BYTES_MAX);
        let mut flags = if self.has_files { HAS_FILES } else { 0 };
        if producers.is_none() {
            flags |= PRODUCERS_IN_FILES;
        }
        if self.removed {
            flags |= REMOVED;
        }
        let mut out = BytesMut::with_capacity(512);
        out.put_u8(VERSION);
        out.put_u8(flags);
        out.put_u16(0);
        self.identity.encode(&mut out);
        encode_config(&self.config, &mut out);
        out.put_u64(self.sequence.0);
        put_id(&mut out, self.purged);
        put_id(&mut out, self.last);
        out.put_i64(self.log_start.0);
        out.put_i64(self.next_offset.0);
        out.put_u64(self.size_bytes);
        out.put_i64(self.oldest_timestamp.0);
        self.end.encode(&mut out);
        self.epochs.encode(&mut out);
        put_bytes(&mut out, &producers.unwrap_or_default());
        put_bytes(&mut out, &self.entries);
        self.settled.encode(&mut out);
        out.freeze()
    }

    /// Reads a value; `None` if it is damaged or of another version.
    pub fn decode(value: &Bytes) -> Option<Checkpoint> {
        let mut input = &value[..];
        let version = input.try_get_u8().ok()?;
        let flags = input.try_get_u8().ok()?;
        input.try_get_u16().ok()?;
        if !(VERSION_BEFORE..=VERSION).contains(&version) {
            return None;
        }
        let identity = Identity::decode(&mut input)?;
        let config = decode_config(&mut input)?;
        let sequence = FrameSequence(input.try_get_u64().ok()?);
        let purged = get_id(&mut input)?;
        let last = get_id(&mut input)?;
        let log_start = Offset(input.try_get_i64().ok()?);
        let next_offset = Offset(input.try_get_i64().ok()?);
        let size_bytes = input.try_get_u64().ok()?;
        let oldest_timestamp = TimestampMs(input.try_get_i64().ok()?);
        let end = SegmentEnd::decode(&mut input)?;
        let epochs = EpochTable::decode(&mut input)?;
        let producers = match get_bytes(&mut input)? {
            _ if flags & PRODUCERS_IN_FILES != 0 => None,
            [] => Some(ProducerStateTable::default()),
            bytes => Some(ProducerStateTable::decode(bytes)?),
        };
        let entries = value.slice_ref(get_bytes(&mut input)?);
        let settled = if version == VERSION_BEFORE {
            Settled::default()
        } else {
            Settled::decode(&mut input)?
        };
        Some(Checkpoint {
            identity,
            config,
            sequence,
            purged,
            last,
            log_start,
            next_offset,
            size_bytes,
            oldest_timestamp,
            has_files: flags & HAS_FILES != 0,
            removed: flags & REMOVED != 0,
            end,
            epochs,
            producers,
            entries,
            settled,
        })
    }
}

fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    out.put_u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    out.put_slice(bytes);
}

fn get_bytes<'a>(input: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(input.try_get_u32().ok()?).ok()?;
    let (bytes, rest) = input.split_at_checked(length)?;
    *input = rest;
    Some(bytes)
}

fn encode_config(config: &LogConfig, out: &mut BytesMut) {
    out.put_u32(config.segment_bytes);
    out.put_i64(config.segment_ms);
    out.put_u32(config.index_bytes_max);
    out.put_u32(config.index_interval_bytes);
    out.put_i64(config.retention_ms.unwrap_or(-1));
    out.put_i64(
        config
            .retention_bytes
            .map_or(-1, |bytes| i64::try_from(bytes).unwrap_or(-1)),
    );
    out.put_u8(u8::from(config.delete));
    out.put_u8(u8::from(config.compact));
    out.put_u8(u8::from(config.durability == Durability::Os));
    out.put_u8(0);
    out.put_i64(config.producer_id_expiration_ms);
}

fn decode_config(input: &mut &[u8]) -> Option<LogConfig> {
    let segment_bytes = input.try_get_u32().ok()?;
    let segment_ms = input.try_get_i64().ok()?;
    let index_bytes_max = input.try_get_u32().ok()?;
    let index_interval_bytes = input.try_get_u32().ok()?;
    let retention_ms = Some(input.try_get_i64().ok()?).filter(|ms| *ms >= 0);
    let retention_bytes = u64::try_from(input.try_get_i64().ok()?).ok();
    let delete = input.try_get_u8().ok()? == 1;
    let compact = input.try_get_u8().ok()? == 1;
    let durability = if input.try_get_u8().ok()? == 1 {
        Durability::Os
    } else {
        Durability::Sync
    };
    input.try_get_u8().ok()?;
    Some(LogConfig {
        segment_bytes,
        segment_ms,
        index_bytes_max,
        index_interval_bytes,
        retention_ms,
        retention_bytes,
        delete,
        compact,
        // Nothing is compacted before the layers above have given the settings in force.
        cleaning: CleaningConfig::default(),
        durability,
        producer_id_expiration_ms: input.try_get_i64().ok()?,
    })
}
