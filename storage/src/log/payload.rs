//! Payloads of journal frames.
//!
//! Big-endian; the first byte of each is the version, 1. The journal's frame carries log, kind, previous and last index.
//! ```text
//! Append    u8 1, 3 bytes 0, u32 entries, then each: envelope, batch
//! Truncate  u8 1, 3 bytes 0, i32 epoch, u64 index (the new last entry), i64 next offset,
//!           i64 base and u64 first index of the segment that is now the last, u64 bytes of its `.log`, u64 of its side file
//! Purge     u8 1, 3 bytes 0, i32 epoch, u64 index (the last entry forgotten), i64 next offset after it
//! Reset     u8 1, u8 1 if producers follow plus 2 if settled segments do, 2 bytes 0, identity, i32 epoch, u64 index,
//!           i64 next offset, i64 log start offset, u32 length and bytes of the producer snapshot, settled.rs
//! Remove    u8 1
//! Settle    u8 1, 3 bytes 0, i32 epoch, u64 index (the last entry forgotten), i64 next offset after it, settled.rs
//! identity  u16 length and bytes of the topic name, 16 bytes topic id, i32 partition
//! ```
//! Knows nothing of state: encodes and decodes.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tidelog_protocol::batch::{BatchHeader, HEADER_BYTES, RecordBatch};
use tidelog_protocol::types::{LeaderEpoch, Offset, PartitionIndex, TopicId, TopicName};
use uuid::Uuid;

use super::envelope::Envelope;
use super::files::SegmentName;
use super::settled::Settled;
use super::{EntryBody, EntryId, EntryIndex, LogEntry, LogPosition, ProducerStateTable};

const VERSION: u8 = 1;

/// Bytes before the first envelope of an Append payload.
pub const APPEND_HEAD_BYTES: usize = 8;

/// Which partition a log belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Topic name.
    pub topic: TopicName,
    /// Topic id.
    pub topic_id: TopicId,
    /// Partition.
    pub partition: PartitionIndex,
}

impl Identity {
    /// Appends it.
    pub fn encode(&self, out: &mut BytesMut) {
        let name = self.topic.as_str().as_bytes();
        // Kafka's names have at most 249 bytes.
        out.put_u16(u16::try_from(name.len()).unwrap_or(u16::MAX));
        out.put_slice(name);
        out.put_slice(self.topic_id.0.as_bytes());
        out.put_i32(self.partition.0);
    }

    /// Reads it back.
    pub fn decode(input: &mut &[u8]) -> Option<Identity> {
        let length = usize::from(input.try_get_u16().ok()?);
        let (name, rest) = input.split_at_checked(length)?;
        *input = rest;
        let topic = TopicName::from(std::str::from_utf8(name).ok()?);
        let mut id = [0; 16];
        input.try_copy_to_slice(&mut id).ok()?;
        let partition = PartitionIndex(input.try_get_i32().ok()?);
        Some(Identity {
            topic,
            topic_id: TopicId(Uuid::from_bytes(id)),
            partition,
        })
    }
}

/// Where a segment ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SegmentEnd {
    /// The segment.
    pub name: SegmentName,
    /// Bytes of its `.log`.
    pub log_bytes: u64,
    /// Bytes of its side file.
    pub side_bytes: u64,
}

impl SegmentEnd {
    /// Appends it.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_i64(self.name.base.0);
        out.put_u64(self.name.first.0);
        out.put_u64(self.log_bytes);
        out.put_u64(self.side_bytes);
    }

    /// Reads it back.
    pub fn decode(input: &mut &[u8]) -> Option<SegmentEnd> {
        Some(SegmentEnd {
            name: SegmentName {
                base: Offset(input.try_get_i64().ok()?),
                first: EntryIndex(input.try_get_u64().ok()?),
                revision: 0,
            },
            log_bytes: input.try_get_u64().ok()?,
            side_bytes: input.try_get_u64().ok()?,
        })
    }
}

/// A cut: the entry that is now the last one and where it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// New last entry.
    pub last: EntryId,
    /// Offset after it.
    pub next_offset: Offset,
    /// Where its segment ends now.
    pub end: SegmentEnd,
}

/// One envelope, its bytes and the batch header's within an Append payload.
pub struct EncodedEntry {
    /// Encoded envelope.
    pub envelope: Bytes,
    /// Batch header; empty for an opaque entry.
    pub head: Bytes,
}

/// Pieces of an Append payload, and for each entry its own slices of them. Record bytes are shared.
pub fn encode_append(entries: &[(LogEntry, Envelope)]) -> (Vec<Bytes>, Vec<EncodedEntry>) {
    let sizes = entries
        .iter()
        .map(|(_, envelope)| envelope.encoded_bytes() + HEADER_BYTES);
    let mut heads = BytesMut::with_capacity(APPEND_HEAD_BYTES + sizes.sum::<usize>());
    heads.put_u8(VERSION);
    heads.put_bytes(0, 3);
    heads.put_u32(u32::try_from(entries.len()).unwrap_or(u32::MAX));
    let mut ranges = Vec::with_capacity(entries.len());
    for (entry, envelope) in entries {
        let from = heads.len();
        envelope.encode(&mut heads);
        let head_at = heads.len();
        if let EntryBody::Batch(batch) = &entry.body {
            heads.put_slice(batch.header_bytes());
        }
        ranges.push((from, head_at, heads.len()));
    }
    let heads = heads.freeze();
    let mut pieces = Vec::with_capacity(2 * entries.len());
    let mut encoded = Vec::with_capacity(entries.len());
    let mut from = 0;
    for ((entry, _), (envelope_at, head_at, end)) in entries.iter().zip(ranges) {
        if let EntryBody::Batch(batch) = &entry.body {
            pieces.push(heads.slice(from..end));
            pieces.push(batch.records_bytes().clone());
            from = end;
        }
        encoded.push(EncodedEntry {
            envelope: heads.slice(envelope_at..head_at),
            head: heads.slice(head_at..end),
        });
    }
    if from < heads.len() {
        pieces.push(heads.slice(from..));
    }
    (pieces, encoded)
}

/// Entries of an Append payload. The journal checked its checksum; the error says what is wrong all the same.
pub fn decode_append(payload: &Bytes) -> Result<Vec<LogEntry>, String> {
    let mut rest = payload.clone();
    check_version(&mut rest)?;
    let count = rest.try_get_u32().map_err(|_| "payload is cut")?;
    let mut entries = Vec::new();
    for _ in 0..count {
        let (envelope, length) = Envelope::decode(&rest)?;
        rest.advance(length);
        let bytes = rest.split_to((envelope.batch_bytes as usize).min(rest.len()));
        entries.push(entry_of(envelope, bytes)?);
    }
    Ok(entries)
}

/// Joins an envelope and the bytes of its batch (none for an opaque entry); checks that they belong together.
pub fn entry_of(envelope: Envelope, batch: Bytes) -> Result<LogEntry, String> {
    let Envelope {
        id,
        flags,
        origin,
        base_offset,
        aux,
        ..
    } = envelope;
    let body = match envelope.opaque {
        Some((tag, bytes)) => EntryBody::Opaque { tag, bytes },
        None => {
            let header = BatchHeader::parse(&batch).map_err(|error| error.to_string())?;
            let batch = RecordBatch::from_parts(header, batch.slice(HEADER_BYTES..))
                .ok_or("batch length does not match")?;
            if batch.base_offset() != base_offset
                || batch.leader_epoch() != id.epoch
                || batch.checksum() != envelope.batch_crc
                || i64::from(batch.last_offset_delta()) + 1 != i64::from(envelope.record_count)
            {
                return Err("batch does not belong to its envelope".into());
            }
            if !batch.checksum_matches() {
                return Err("batch checksum does not match".into());
            }
            EntryBody::Batch(batch)
        }
    };
    Ok(LogEntry {
        id,
        origin,
        flags,
        aux,
        body,
    })
}

/// Payload of a Truncate frame.
pub fn encode_truncate(cut: &Cut) -> Vec<Bytes> {
    let mut out = head(0);
    put_id(&mut out, cut.last);
    out.put_i64(cut.next_offset.0);
    cut.end.encode(&mut out);
    vec![out.freeze()]
}

/// Reads a Truncate payload.
pub fn decode_truncate(payload: &Bytes) -> Option<Cut> {
    let mut input = checked(payload)?;
    let last = get_id(&mut input)?;
    let next_offset = Offset(input.try_get_i64().ok()?);
    Some(Cut {
        last,
        next_offset,
        end: SegmentEnd::decode(&mut input)?,
    })
}

/// Payload of a Purge frame.
pub fn encode_purge(purged: EntryId, next_offset: Offset) -> Vec<Bytes> {
    let mut out = head(0);
    put_id(&mut out, purged);
    out.put_i64(next_offset.0);
    vec![out.freeze()]
}

/// Reads a Purge payload.
pub fn decode_purge(payload: &Bytes) -> Option<(EntryId, Offset)> {
    let mut input = checked(payload)?;
    Some((get_id(&mut input)?, Offset(input.try_get_i64().ok()?)))
}

/// In a Reset payload: producers follow.
const WITH_PRODUCERS: u8 = 1;
/// In a Reset payload: settled segments follow.
const WITH_SETTLED: u8 = 2;

/// Payload of a Reset frame.
pub fn encode_reset(identity: &Identity, at: &LogPosition, settled: &Settled) -> Vec<Bytes> {
    let (with_producers, with_settled) = (!at.producers.is_empty(), !settled.segments.is_empty());
    let flag = |set: bool, flag: u8| if set { flag } else { 0 };
    let mut out = head(flag(with_producers, WITH_PRODUCERS) | flag(with_settled, WITH_SETTLED));
    identity.encode(&mut out);
    put_id(&mut out, at.last);
    out.put_i64(at.next_offset.0);
    out.put_i64(at.log_start.0);
    let mut payload = Vec::with_capacity(3);
    if with_producers {
        let producers = at.producers.encode();
        out.put_u32(u32::try_from(producers.len()).unwrap_or(u32::MAX));
        payload.extend([out.split().freeze(), producers]);
    }
    if with_settled {
        settled.encode(&mut out);
    }
    payload.push(out.freeze());
    payload
}

/// Reads a Reset payload.
pub fn decode_reset(payload: &Bytes) -> Option<(Identity, LogPosition, Settled)> {
    let flags = *payload.get(1)?;
    let mut input = checked(payload)?;
    let identity = Identity::decode(&mut input)?;
    let mut at = LogPosition {
        last: get_id(&mut input)?,
        next_offset: Offset(input.try_get_i64().ok()?),
        log_start: Offset(input.try_get_i64().ok()?),
        producers: ProducerStateTable::default(),
    };
    if flags & WITH_PRODUCERS != 0 {
        let length = usize::try_from(input.try_get_u32().ok()?).ok()?;
        let (producers, rest) = input.split_at_checked(length)?;
        at.producers = ProducerStateTable::decode(producers)?;
        input = rest;
    }
    let settled = match flags & WITH_SETTLED {
        0 => Settled::default(),
        _ => Settled::decode(&mut input).filter(|list| !list.segments.is_empty())?,
    };
    Some((identity, at, settled))
}

/// Payload of a Remove frame.
pub fn encode_remove() -> Vec<Bytes> {
    vec![head(0).freeze()]
}

/// Begins a payload.
pub fn head(flags: u8) -> BytesMut {
    let mut out = BytesMut::with_capacity(128);
    out.put_u8(VERSION);
    out.put_u8(flags);
    out.put_bytes(0, 2);
    out
}

fn check_version(payload: &mut Bytes) -> Result<(), String> {
    let version = payload.first().copied().ok_or("payload is empty")?;
    if version != VERSION {
        return Err(format!("payload version {version} is not known"));
    }
    if payload.len() < 4 {
        return Err("payload is cut".into());
    }
    payload.advance(4);
    Ok(())
}

/// What follows the first four bytes of a payload of a version that is known.
pub fn checked(payload: &Bytes) -> Option<&[u8]> {
    (*payload.first()? == VERSION).then_some(payload.get(4..)?)
}

/// Appends an entry id.
pub fn put_id(out: &mut BytesMut, id: EntryId) {
    out.put_i32(id.epoch.0);
    out.put_u64(id.index.0);
}

/// Reads an entry id.
pub fn get_id(input: &mut &[u8]) -> Option<EntryId> {
    Some(EntryId {
        epoch: LeaderEpoch(input.try_get_i32().ok()?),
        index: EntryIndex(input.try_get_u64().ok()?),
    })
}
