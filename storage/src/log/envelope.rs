//! The envelope of an entry: what stands beside its batch in journal frames and in the side file.
//!
//! Big-endian, 80 bytes and what varies:
//! ```text
//!  0 u32 CRC-32C of the bytes 4..length      44 i64 largest timestamp (-1: none)
//!  4 u32 length, all included                52 u64 position of the batch in `.log`
//!  8 u8  version = 1                         60 u32 bytes of the batch; 0: opaque
//!  9 u8  kind: 1 batch, 2 opaque             64 u32 bytes of aux
//! 10 u16 flags                               68 u32 bytes of the opaque body
//! 12 i32 leader epoch                        72 u8  tag of the opaque body
//! 16 u64 entry index                         73 7 bytes 0, reserved
//! 24 i64 base offset (opaque: next offset)   80 aux, then the opaque body
//! 32 u32 offsets taken
//! 36 i32 origin partition (-1: none)
//! 40 u32 CRC of the batch, as in its header
//! ```
//! Knows nothing of files. Bytes are believed only if the checksum fits.

use bytes::{BufMut, Bytes, BytesMut};
use tidelog_protocol::types::{LeaderEpoch, Offset, PartitionIndex, TimestampMs};

use super::{EntryBody, EntryHeader, EntryId, EntryIndex, LogEntry};

/// Size without aux and opaque body.
pub const ENVELOPE_BYTES_MIN: usize = 80;

/// Bound on aux and opaque body of one entry: above any metadata record, far below what would not fit a frame.
pub const VARIABLE_BYTES_MAX: usize = 16 << 20;

const VERSION: u8 = 1;
const KIND_BATCH: u8 = 1;
const KIND_OPAQUE: u8 = 2;

/// A decoded envelope. Bodies share the memory of the bytes that they were decoded from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// Epoch and index.
    pub id: EntryId,
    /// Kept as they are.
    pub flags: u16,
    /// Partition of first production.
    pub origin: Option<PartitionIndex>,
    /// Offset of the first record, or the next offset of an opaque entry.
    pub base_offset: Offset,
    /// Offsets taken.
    pub record_count: u32,
    /// Checksum field of the batch.
    pub batch_crc: u32,
    /// Largest timestamp of the batch.
    pub max_timestamp: TimestampMs,
    /// Position of the batch in its segment.
    pub log_position: u64,
    /// Size of the batch.
    pub batch_bytes: u32,
    /// Auxiliary bytes.
    pub aux: Bytes,
    /// Tag and bytes of an opaque entry.
    pub opaque: Option<(u8, Bytes)>,
}

impl Envelope {
    /// Envelope of an entry that begins at an offset and a position.
    pub fn of(entry: &LogEntry, base_offset: Offset, log_position: u64) -> Envelope {
        let mut envelope = Envelope {
            id: entry.id,
            flags: entry.flags,
            origin: entry.origin,
            base_offset,
            record_count: 0,
            batch_crc: 0,
            max_timestamp: TimestampMs::NONE,
            log_position,
            batch_bytes: 0,
            aux: entry.aux.clone(),
            opaque: None,
        };
        match &entry.body {
            EntryBody::Batch(batch) => {
                envelope.record_count = batch.last_offset_delta().cast_unsigned() + 1;
                envelope.batch_crc = batch.checksum();
                envelope.max_timestamp = batch.max_timestamp();
                envelope.batch_bytes = u32::try_from(batch.size_bytes()).unwrap_or(u32::MAX);
            }
            EntryBody::Opaque { tag, bytes } => envelope.opaque = Some((*tag, bytes.clone())),
        }
        envelope
    }

    /// Size when encoded.
    pub fn encoded_bytes(&self) -> usize {
        let opaque = self.opaque.as_ref().map_or(0, |(_, bytes)| bytes.len());
        ENVELOPE_BYTES_MIN + self.aux.len() + opaque
    }

    /// Offset after the entry.
    pub fn next_offset(&self) -> Offset {
        Offset(
            self.base_offset
                .0
                .saturating_add(i64::from(self.record_count)),
        )
    }

    /// The header as callers see it.
    pub fn to_header(&self) -> EntryHeader {
        EntryHeader {
            id: self.id,
            base_offset: self.base_offset,
            record_count: self.record_count,
            opaque: self.opaque.clone(),
        }
    }

    /// Appends the encoded envelope.
    pub fn encode(&self, out: &mut BytesMut) {
        let from = out.len();
        let (kind, tag, opaque) = match &self.opaque {
            None => (KIND_BATCH, 0, &[][..]),
            Some((tag, bytes)) => (KIND_OPAQUE, *tag, &bytes[..]),
        };
        out.put_u32(0);
        out.put_u32(bounded(self.encoded_bytes()));
        out.put_u8(VERSION);
        out.put_u8(kind);
        out.put_u16(self.flags);
        out.put_i32(self.id.epoch.0);
        out.put_u64(self.id.index.0);
        out.put_i64(self.base_offset.0);
        out.put_u32(self.record_count);
        out.put_i32(self.origin.map_or(-1, |origin| origin.0));
        out.put_u32(self.batch_crc);
        out.put_i64(self.max_timestamp.0);
        out.put_u64(self.log_position);
        out.put_u32(self.batch_bytes);
        out.put_u32(bounded(self.aux.len()));
        out.put_u32(bounded(opaque.len()));
        out.put_u8(tag);
        out.put_bytes(0, 7);
        out.put_slice(&self.aux);
        out.put_slice(opaque);
        let crc = crc32c::crc32c(&out[from + 4..]);
        out[from..from + 4].copy_from_slice(&crc.to_be_bytes());
    }

    /// Size of the envelope at the front of `bytes`, believed only within bounds; `None` if it cannot be one.
    pub fn peek_bytes(bytes: &[u8]) -> Option<usize> {
        let length = u32::from_be_bytes(*bytes.get(4..8)?.first_chunk()?);
        let length = usize::try_from(length).ok()?;
        (ENVELOPE_BYTES_MIN..=ENVELOPE_BYTES_MIN + 2 * VARIABLE_BYTES_MAX)
            .contains(&length)
            .then_some(length)
    }

    /// Decodes the envelope at the front of `bytes`, and its size. The error says what is wrong.
    pub fn decode(bytes: &Bytes) -> Result<(Envelope, usize), String> {
        let length = Envelope::peek_bytes(bytes).ok_or("impossible envelope length")?;
        let whole = bytes.get(..length).ok_or("envelope is cut")?;
        let field = Fields(whole);
        if field.u32(0) != crc32c::crc32c(&whole[4..]) {
            return Err("envelope checksum does not match".into());
        }
        if whole[8] != VERSION {
            return Err(format!("envelope version {} is not known", whole[8]));
        }
        let aux_end = ENVELOPE_BYTES_MIN.saturating_add(field.u32(64) as usize);
        let opaque_end = aux_end.saturating_add(field.u32(68) as usize);
        if opaque_end != length {
            return Err("envelope parts do not add up".into());
        }
        let opaque = match whole[9] {
            KIND_BATCH if aux_end == length => None,
            KIND_BATCH => return Err("envelope of a batch has opaque bytes".into()),
            KIND_OPAQUE => Some((whole[72], bytes.slice(aux_end..opaque_end))),
            kind => return Err(format!("envelope kind {kind} is not known")),
        };
        let envelope = Envelope {
            id: EntryId {
                epoch: LeaderEpoch(field.u32(12).cast_signed()),
                index: EntryIndex(field.u64(16)),
            },
            flags: u16::from_be_bytes([whole[10], whole[11]]),
            origin: Some(PartitionIndex(field.u32(36).cast_signed()))
                .filter(|origin| origin.0 >= 0),
            base_offset: Offset(field.u64(24).cast_signed()),
            record_count: field.u32(32),
            batch_crc: field.u32(40),
            max_timestamp: TimestampMs(field.u64(44).cast_signed()),
            log_position: field.u64(52),
            batch_bytes: field.u32(60),
            aux: bytes.slice(ENVELOPE_BYTES_MIN..aux_end),
            opaque,
        };
        Ok((envelope, length))
    }
}

/// Lengths were bounded when the entry was accepted.
fn bounded(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// Fixed-size fields of an envelope that is long enough.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn u32(&self, at: usize) -> u32 {
        self.0
            .get(at..)
            .and_then(|rest| rest.first_chunk())
            .map_or(0, |f| u32::from_be_bytes(*f))
    }

    fn u64(&self, at: usize) -> u64 {
        self.0
            .get(at..)
            .and_then(|rest| rest.first_chunk())
            .map_or(0, |f| u64::from_be_bytes(*f))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn envelopes() -> impl Strategy<Value = Envelope> {
        let ids = (
            0..i32::MAX,
            any::<u64>(),
            any::<u16>(),
            prop::option::of(0..i32::MAX),
        );
        let numbers = (
            any::<i64>(),
            any::<u32>(),
            any::<u32>(),
            any::<i64>(),
            any::<u64>(),
            any::<u32>(),
        );
        let bytes = prop::collection::vec(any::<u8>(), 0..50);
        let opaque = prop::option::of((any::<u8>(), prop::collection::vec(any::<u8>(), 0..50)));
        (ids, numbers, bytes, opaque).prop_map(|(ids, numbers, aux, opaque)| Envelope {
            id: EntryId {
                epoch: LeaderEpoch(ids.0),
                index: EntryIndex(ids.1),
            },
            flags: ids.2,
            origin: ids.3.map(PartitionIndex),
            base_offset: Offset(numbers.0),
            record_count: numbers.1,
            batch_crc: numbers.2,
            max_timestamp: TimestampMs(numbers.3),
            log_position: numbers.4,
            batch_bytes: numbers.5,
            aux: aux.into(),
            opaque: opaque.map(|(tag, bytes)| (tag, bytes.into())),
        })
    }

    proptest! {
        #[test]
        fn round_trip(envelope in envelopes(), tail in prop::collection::vec(any::<u8>(), 0..9)) {
            let mut out = BytesMut::new();
            envelope.encode(&mut out);
            let length = out.len();
            prop_assert_eq!(length, envelope.encoded_bytes());
            out.put_slice(&tail);
            prop_assert_eq!(Envelope::decode(&out.freeze()), Ok((envelope, length)));
        }

        #[test]
        fn a_flipped_bit_is_noticed(envelope in envelopes(), at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let mut out = BytesMut::new();
            envelope.encode(&mut out);
            let at = at.index(out.len());
            out[at] ^= 1 << bit;
            prop_assert!(Envelope::decode(&out.freeze()).is_err());
        }

        #[test]
        fn hostile_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Envelope::decode(&bytes.into()).is_err());
        }
    }

    #[test]
    fn the_envelope_of_a_batch_has_no_opaque_bytes() {
        let opaque = Envelope {
            id: EntryId::default(),
            flags: 0,
            origin: None,
            base_offset: Offset(0),
            record_count: 0,
            batch_crc: 0,
            max_timestamp: TimestampMs(0),
            log_position: 0,
            batch_bytes: 0,
            aux: Bytes::new(),
            opaque: Some((1, Bytes::from_static(b"bytes"))),
        };
        let mut out = BytesMut::new();
        opaque.encode(&mut out);
        out[9] = KIND_BATCH;
        let crc = crc32c::crc32c(&out[4..]);
        out[..4].copy_from_slice(&crc.to_be_bytes());
        assert!(Envelope::decode(&out.freeze()).is_err());
    }

    #[test]
    fn layout_is_as_documented() {
        let envelope = Envelope {
            id: EntryId {
                epoch: LeaderEpoch(7),
                index: EntryIndex(9),
            },
            flags: 3,
            origin: None,
            base_offset: Offset(11),
            record_count: 2,
            batch_crc: 0xaabb_ccdd,
            max_timestamp: TimestampMs(13),
            log_position: 17,
            batch_bytes: 99,
            aux: Bytes::from_static(b"ax"),
            opaque: None,
        };
        let mut out = BytesMut::new();
        envelope.encode(&mut out);
        let expected = [
            &82u32.to_be_bytes()[..],
            &[1, 1, 0, 3],
            &7u32.to_be_bytes(),
            &9u64.to_be_bytes(),
            &11u64.to_be_bytes(),
            &2u32.to_be_bytes(),
            &[0xff; 4],
            &[0xaa, 0xbb, 0xcc, 0xdd],
            &13u64.to_be_bytes(),
            &17u64.to_be_bytes(),
            &99u32.to_be_bytes(),
            &2u32.to_be_bytes(),
            &0u32.to_be_bytes(),
            &[0; 8],
            b"ax",
        ]
        .concat();
        assert_eq!(out[4..], expected[..]);
    }
}
