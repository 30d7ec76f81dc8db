//! Snapshots of a shard, so that loading it does not read the whole log.
//!
//! In the key space of coordinators, under the log's id: a header, then chunks of records in the format of
//! [`records`](crate::coordinator::records). A snapshot holds exactly what the log says up to its offset. It is
//! written in one batch, over the one before; it is an aid, so one that cannot be read is left aside.

use bytes::{BufMut, Bytes};
use tidelog_protocol::types::Offset;
use tidelog_storage::kv::{KeySpace, KeyValueStore, KvError, KvWrite};
use tidelog_storage::log::LogId;

use super::groups::Groups;
use crate::coordinator::group::{GroupId, GroupRecord};
use crate::coordinator::records::{self, RecordError};

const FORMAT_VERSION: u16 = 1;

/// Size at which a chunk ends; a value of the store should stay small.
const CHUNK_BYTES: usize = 512 * 1024;

/// Why a snapshot cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum SnapshotError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] KvError),
    /// A record in it cannot be read.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// It is not what it says it is.
    #[error("{0}")]
    Damaged(&'static str),
}

/// A snapshot, read back.
#[derive(Debug)]
pub(super) struct Snapshot {
    /// The first offset that is not in it.
    pub(super) next_offset: Offset,
    /// What is in it.
    pub(super) records: Vec<(GroupId, GroupRecord)>,
}

/// The writes that replace the log's snapshot by one of these groups. Also says how many records it holds.
pub(super) fn write(log: LogId, next_offset: Offset, groups: &Groups) -> (Vec<KvWrite>, usize) {
    let mut chunks: Vec<Bytes> = Vec::new();
    let mut chunk: Vec<u8> = Vec::new();
    let mut count = 0usize;
    for (group, record) in groups.stored_records() {
        // What is stored was encoded before, so it fits its fields.
        let Ok(record) = records::encode(group, &record) else {
            continue;
        };
        count += 1;
        put(&mut chunk, &record.key);
        put(&mut chunk, record.value.as_deref().unwrap_or_default());
        if chunk.len() >= CHUNK_BYTES {
            chunks.push(Bytes::from(std::mem::take(&mut chunk)));
        }
    }
    if !chunk.is_empty() {
        chunks.push(Bytes::from(chunk));
    }
    let mut header = Vec::with_capacity(18);
    header.put_u16(FORMAT_VERSION);
    header.put_i64(next_offset.0);
    header.put_u32(chunks.len() as u32);
    header.put_u64(count as u64);
    let mut writes = vec![
        delete(log),
        KvWrite::Put(KeySpace::Coordinator, key(log, 0), Bytes::from(header)),
    ];
    for (chunk, number) in chunks.into_iter().zip(1u32..) {
        writes.push(KvWrite::Put(KeySpace::Coordinator, key(log, number), chunk));
    }
    (writes, count)
}

/// The write that removes the log's snapshot.
pub(super) fn delete(log: LogId) -> KvWrite {
    let end = Bytes::copy_from_slice(&log.0.wrapping_add(1).to_be_bytes());
    KvWrite::DeleteRange(KeySpace::Coordinator, key(log, 0), end)
}

/// Reads the log's snapshot; `None` if there is none. Blocks.
pub(super) fn read_blocking(
    store: &dyn KeyValueStore,
    log: LogId,
) -> Result<Option<Snapshot>, SnapshotError> {
    let pairs = store.scan(KeySpace::Coordinator, &log.0.to_be_bytes())?;
    let Some(((_, header), chunks)) = pairs.split_first() else {
        return Ok(None);
    };
    let (next_offset, chunk_count, record_count) = read_header(header)?;
    if chunks.len() as u64 != u64::from(chunk_count) {
        return Err(SnapshotError::Damaged("a chunk is missing"));
    }
    let mut records = Vec::new();
    for (_, chunk) in chunks {
        let mut rest = &chunk[..];
        while !rest.is_empty() {
            let (key, value) = take(&mut rest)
                .zip(take(&mut rest))
                .ok_or(SnapshotError::Damaged("a record is cut"))?;
            let record = records::decode(key, Some(value))?;
            records.push(record.ok_or(SnapshotError::Damaged("a key has an unknown version"))?);
        }
    }
    if records.len() as u64 != record_count {
        return Err(SnapshotError::Damaged("records are missing"));
    }
    Ok(Some(Snapshot {
        next_offset,
        records,
    }))
}

fn read_header(header: &[u8]) -> Result<(Offset, u32, u64), SnapshotError> {
    let cut = SnapshotError::Damaged("the header is cut");
    let fields = || {
        let (version, rest) = header.split_first_chunk::<2>()?;
        let (offset, rest) = rest.split_first_chunk::<8>()?;
        let (chunks, rest) = rest.split_first_chunk::<4>()?;
        let (count, rest) = rest.split_first_chunk::<8>()?;
        rest.is_empty().then_some((version, offset, chunks, count))
    };
    let (version, offset, chunks, count) = fields().ok_or(cut)?;
    if u16::from_be_bytes(*version) != FORMAT_VERSION {
        return Err(SnapshotError::Damaged("the format version is not known"));
    }
    Ok((
        Offset(i64::from_be_bytes(*offset)),
        u32::from_be_bytes(*chunks),
        u64::from_be_bytes(*count),
    ))
}

/// Log id, then the chunk's number; 0 is the header. Big-endian, so that they come back in order.
fn key(log: LogId, number: u32) -> Bytes {
    let mut key = Vec::with_capacity(12);
    key.put_u64(log.0);
    key.put_u32(number);
    Bytes::from(key)
}

fn put(chunk: &mut Vec<u8>, field: &[u8]) {
    // A change is bounded far below 4 GiB.
    chunk.put_u32(field.len() as u32);
    chunk.put_slice(field);
}

fn take<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (len, after) = rest.split_first_chunk::<4>()?;
    let (field, after) = after.split_at_checked(usize::try_from(u32::from_be_bytes(*len)).ok()?)?;
    *rest = after;
    Some(field)
}
