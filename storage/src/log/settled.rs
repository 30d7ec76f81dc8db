//! Segments that hold records and nothing else.
//!
//! A settled segment is committed and forgotten by the consensus layer: its entries have no index any more, so that
//! compaction may take records out of it and join it with its neighbours. Which files count is said by the list in
//! here, which is in the checkpoint and, whole, in the journal frame of each change; a file that is not on it is a
//! leftover. Pure. Invariant: segments are in the order of their offsets and hold no record at or above the first
//! offset of the segments with entries.
//!
//! ```text
//! i64 first dirty offset, u32 last revision given, u32 n, n x { i64 base, u64 first entry, u32 revision, u32 0,
//! u64 bytes of .log, i64 largest timestamp, i64 last offset of the batch that has it }
//! ```

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tidelog_protocol::types::{Offset, TimestampMs};

use super::files::SegmentName;
use super::payload::{checked, get_id, head, put_id};
use super::state::SegmentExtent;
use super::{EntryId, EntryIndex};

/// One settled segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SettledSegment {
    /// Names its files.
    pub name: SegmentName,
    /// What they hold.
    pub extent: SegmentExtent,
}

/// The settled segments of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// Oldest first.
    pub segments: Vec<SettledSegment>,
    /// Compaction has seen everything below.
    pub first_dirty: Offset,
    /// The last revision that was given to a segment.
    pub revision: u32,
}

impl Settled {
    /// Bytes of batches.
    pub fn size_bytes(&self) -> u64 {
        let sizes = self.segments.iter().map(|segment| segment.extent.log_bytes);
        sizes.sum()
    }

    /// Bytes of the segments that compaction has seen.
    pub fn clean_bytes(&self) -> u64 {
        let clean = self.segments.iter();
        let clean = clean.take_while(|segment| segment.name.base < self.first_dirty);
        clean.map(|segment| segment.extent.log_bytes).sum()
    }

    /// What a segment holds, if it is on the list.
    pub fn extent(&self, name: SegmentName) -> Option<SegmentExtent> {
        let at = self
            .segments
            .binary_search_by_key(&name, |segment| segment.name);
        at.ok().map(|at| self.segments[at].extent)
    }

    /// Whether files of this base offset and revision count.
    pub fn has_files(&self, base: Offset, revision: u32) -> bool {
        let found = (self.segments)
            .iter()
            .find(|segment| segment.name.base == base);
        found.is_some_and(|segment| segment.name.revision == revision)
    }

    /// Each segment with the offset at which it ends; `end` is that of the last.
    pub fn with_ends(&self, end: Offset) -> impl Iterator<Item = (&SettledSegment, Offset)> {
        let nexts = self.segments.iter().skip(1).map(|next| next.name.base);
        self.segments.iter().zip(nexts.chain([end]))
    }

    /// Appends it.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_i64(self.first_dirty.0);
        out.put_u32(self.revision);
        out.put_u32(u32::try_from(self.segments.len()).unwrap_or(u32::MAX));
        for SettledSegment { name, extent } in &self.segments {
            out.put_i64(name.base.0);
            out.put_u64(name.first.0);
            out.put_u32(name.revision);
            out.put_u32(0);
            out.put_u64(extent.log_bytes);
            out.put_i64(extent.max_timestamp.0);
            out.put_i64(extent.offset_of_max.0);
        }
    }

    /// Reads it back.
    pub fn decode(input: &mut &[u8]) -> Option<Settled> {
        let mut settled = Settled {
            segments: Vec::new(),
            first_dirty: Offset(input.try_get_i64().ok()?),
            revision: input.try_get_u32().ok()?,
        };
        for _ in 0..input.try_get_u32().ok()? {
            let base = Offset(input.try_get_i64().ok()?);
            let first = EntryIndex(input.try_get_u64().ok()?);
            let revision = input.try_get_u32().ok()?;
            input.try_get_u32().ok()?;
            settled.segments.push(SettledSegment {
                name: SegmentName {
                    first,
                    base,
                    revision,
                },
                extent: SegmentExtent {
                    log_bytes: input.try_get_u64().ok()?,
                    max_timestamp: TimestampMs(input.try_get_i64().ok()?),
                    offset_of_max: Offset(input.try_get_i64().ok()?),
                },
            });
        }
        Some(settled)
    }
}

/// Payload of a Settle frame: the last entry forgotten and the list as it is from then on.
pub fn encode_settle(purged: EntryId, next_offset: Offset, settled: &Settled) -> Vec<Bytes> {
    let mut out = head(0);
    put_id(&mut out, purged);
    out.put_i64(next_offset.0);
    settled.encode(&mut out);
    vec![out.freeze()]
}

/// Reads a Settle payload.
pub fn decode_settle(payload: &Bytes) -> Option<(EntryId, Offset, Settled)> {
    let mut input = checked(payload)?;
    let purged = get_id(&mut input)?;
    let next_offset = Offset(input.try_get_i64().ok()?);
    Some((purged, next_offset, Settled::decode(&mut input)?))
}

#[cfg(test)]
mod tests {
    use tidelog_protocol::types::LeaderEpoch;

    use super::*;

    #[test]
    fn a_list_round_trips_and_a_cut_one_is_refused() {
        let segment = |base: i64, first, revision| SettledSegment {
            name: SegmentName {
                first: EntryIndex(first),
                base: Offset(base),
                revision,
            },
            extent: SegmentExtent {
                log_bytes: 77,
                max_timestamp: TimestampMs(5),
                offset_of_max: Offset(base + 1),
            },
        };
        let settled = Settled {
            segments: vec![segment(0, 1, 3), segment(50, 20, 0)],
            first_dirty: Offset(50),
            revision: 9,
        };
        let id = EntryId {
            epoch: LeaderEpoch(2),
            index: EntryIndex(40),
        };
        let payload = encode_settle(id, Offset(90), &settled).concat();
        let payload = Bytes::from(payload);
        let expected = Some((id, Offset(90), settled.clone()));
        assert_eq!(decode_settle(&payload), expected);
        for cut in 0..payload.len() {
            assert_eq!(decode_settle(&payload.slice(..cut)), None);
        }
        assert_eq!((settled.size_bytes(), settled.clean_bytes()), (154, 77));
        assert!(settled.has_files(Offset(0), 3) && !settled.has_files(Offset(0), 0));
    }
}
