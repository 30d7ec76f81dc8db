//! The bytes of a producer snapshot: Kafka's `.snapshot` format, which its tools read, and a section of our own
//! behind it that Kafka ignores, with the batches before the last one (Kafka's format has room for one only).
//!
//! ```text
//! i16 version = 1, u32 CRC-32C of all bytes from 6 on, i32 n,
//! n x { i64 producer id, i16 epoch, i32 last sequence, i64 last offset, i32 offset delta, i64 timestamp,
//!       i32 coordinator epoch, i64 first offset of the open transaction or -1 }
//! "TLPS", u8 version = 1, i32 m,
//! m x { i64 producer id, u8 k, k x { i32 last sequence, i64 last offset, i32 offset delta, i64 timestamp } }
//! ```
//! All big-endian. The last batch stands in the first part, older ones, oldest first, in the second.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tidelog_protocol::types::{Offset, ProducerEpoch, ProducerId, Sequence, TimestampMs};

use super::{BATCHES_MAX, BatchMark, NO_SEQUENCE, ProducerState, ProducerStateTable};

const VERSION: i16 = 1;
const CHECKSUMMED_FROM: usize = 6;
const HEAD_BYTES: usize = CHECKSUMMED_FROM + 4;
const PRODUCER_BYTES: usize = 46;
const OLDER_MAGIC: [u8; 4] = *b"TLPS";
const OLDER_VERSION: u8 = 1;
const OLDER_HEAD_BYTES: usize = 9;
const MARK_BYTES: usize = 24;

impl ProducerStateTable {
    /// Bytes of a snapshot; read back by [`ProducerStateTable::decode`] and by Kafka's tools.
    pub fn encode(&self) -> Bytes {
        let mut sorted: Vec<_> = self.iter().collect();
        sorted.sort_by_key(|(id, _)| *id);
        let mut out = BytesMut::with_capacity(
            HEAD_BYTES
                + OLDER_HEAD_BYTES
                + sorted.len() * (PRODUCER_BYTES + BATCHES_MAX * MARK_BYTES),
        );
        out.put_i16(VERSION);
        out.put_u32(0);
        out.put_i32(count(sorted.len()));
        for (id, state) in &sorted {
            put_producer(&mut out, *id, state);
        }
        sorted.retain(|(_, state)| state.marks().count() > 1);
        out.put_slice(&OLDER_MAGIC);
        out.put_u8(OLDER_VERSION);
        out.put_i32(count(sorted.len()));
        for (id, state) in &sorted {
            let older = state.marks().count() - 1;
            out.put_i64(id.0);
            out.put_u8(u8::try_from(older).unwrap_or(0));
            state
                .marks()
                .take(older)
                .for_each(|mark| put_mark(&mut out, mark));
        }
        let crc = crc32c::crc32c(&out[CHECKSUMMED_FROM..]);
        out[2..CHECKSUMMED_FROM].copy_from_slice(&crc.to_be_bytes());
        out.freeze()
    }

    /// Reads what [`ProducerStateTable::encode`] or Kafka wrote; `None` if it is damaged or of another version.
    pub fn decode(bytes: &[u8]) -> Option<ProducerStateTable> {
        let mut input = bytes;
        let version = input.try_get_i16().ok()?;
        let crc = input.try_get_u32().ok()?;
        if version != VERSION || crc != crc32c::crc32c(input) {
            return None;
        }
        let mut table = ProducerStateTable::default();
        let producers = usize::try_from(input.try_get_i32().ok()?).ok()?;
        for _ in 0..producers {
            let (id, state) = get_producer(&mut input)?;
            table.shard_mut(id).insert(id, state);
        }
        if !input.starts_with(&OLDER_MAGIC) {
            return Some(table);
        }
        input.advance(OLDER_MAGIC.len());
        if input.try_get_u8().ok()? != OLDER_VERSION {
            return Some(table);
        }
        let producers = usize::try_from(input.try_get_i32().ok()?).ok()?;
        for _ in 0..producers {
            let id = ProducerId(input.try_get_i64().ok()?);
            let older = usize::from(input.try_get_u8().ok()?);
            table.get(id)?;
            let state = table.shard_mut(id).get_mut(&id)?;
            // So far a producer has its last batch, and older ones are named once, before it.
            if state.marks().count() != 1 || older >= BATCHES_MAX {
                return None;
            }
            let last = state.batches[0].take()?;
            for _ in 0..older {
                let mark = get_mark(&mut input)?;
                state.push(mark);
            }
            state.push(last);
        }
        Some(table)
    }
}

fn count(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

fn put_producer(out: &mut BytesMut, id: ProducerId, state: &ProducerState) {
    let last = state.marks().next_back();
    out.put_i64(id.0);
    out.put_i16(state.epoch.0);
    out.put_i32(last.map_or(NO_SEQUENCE.0, |mark| mark.last_sequence.0));
    out.put_i64(last.map_or(-1, |mark| mark.last_offset.0));
    out.put_i32(last.map_or(0, |mark| mark.offset_delta));
    out.put_i64(state.last_timestamp.0);
    out.put_i32(state.coordinator_epoch);
    out.put_i64(state.transaction_start.map_or(-1, |offset| offset.0));
}

fn get_producer(input: &mut &[u8]) -> Option<(ProducerId, ProducerState)> {
    let id = ProducerId(input.try_get_i64().ok()?);
    let mut state = ProducerState::new(ProducerEpoch(input.try_get_i16().ok()?));
    let last_sequence = Sequence(input.try_get_i32().ok()?);
    let last_offset = Offset(input.try_get_i64().ok()?);
    let offset_delta = input.try_get_i32().ok()?;
    let timestamp = TimestampMs(input.try_get_i64().ok()?);
    state.last_timestamp = timestamp;
    state.coordinator_epoch = input.try_get_i32().ok()?;
    state.transaction_start =
        Some(Offset(input.try_get_i64().ok()?)).filter(|offset| offset.0 >= 0);
    if last_sequence.0 >= 0 {
        state.push(BatchMark {
            last_sequence,
            last_offset,
            offset_delta,
            timestamp,
        });
    }
    Some((id, state))
}

fn put_mark(out: &mut BytesMut, mark: &BatchMark) {
    out.put_i32(mark.last_sequence.0);
    out.put_i64(mark.last_offset.0);
    out.put_i32(mark.offset_delta);
    out.put_i64(mark.timestamp.0);
}

fn get_mark(input: &mut &[u8]) -> Option<BatchMark> {
    Some(BatchMark {
        last_sequence: Sequence(input.try_get_i32().ok()?),
        last_offset: Offset(input.try_get_i64().ok()?),
        offset_delta: input.try_get_i32().ok()?,
        timestamp: TimestampMs(input.try_get_i64().ok()?),
    })
}
