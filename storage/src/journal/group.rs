//! Choosing which frames go into the next group.
//!
//! Pure: takes frames off the front of a queue, whole or a part of a large one, until the group is full. Invariant:
//! the order of the queue is the order in the group.

use std::collections::VecDeque;

use bytes::Bytes;

use super::config::Limits;
use super::format::{Entry, head_bytes};
use super::queue::Pending;

/// Frames of a group before they have a place.
#[derive(Debug, Default)]
pub(super) struct Draft {
    /// Payload offsets count from the begin of the payload.
    pub(super) entries: Vec<Entry>,
    pub(super) pieces: Vec<Bytes>,
    pub(super) payload_bytes: u64,
    /// Frames at the front of the queue that end in this group.
    pub(super) complete: usize,
}

impl Draft {
    /// Adds a frame or part whose payload is `pieces`.
    pub(super) fn push(&mut self, mut entry: Entry, pieces: &[Bytes]) {
        let bytes: usize = pieces.iter().map(Bytes::len).sum();
        entry.payload_offset = u32::try_from(self.payload_bytes).unwrap_or(u32::MAX);
        entry.payload_bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        entry.payload_crc = pieces
            .iter()
            .fold(0, |crc, piece| crc32c::crc32c_append(crc, piece));
        self.payload_bytes += bytes as u64;
        self.entries.push(entry);
        self.pieces
            .extend(pieces.iter().filter(|piece| !piece.is_empty()).cloned());
    }

    /// Takes what fits into `room` bytes of a file behind a group with `previous_entries`. An empty draft means that
    /// the file is too full.
    pub(super) fn fill(
        pending: &mut VecDeque<Pending>,
        limits: &Limits,
        room: u64,
        previous_entries: usize,
    ) -> Draft {
        let mut draft = Draft::default();
        let space = room.min(limits.group_bytes);
        for item in pending.iter_mut() {
            // One that is too large is answered when it gets to the front.
            if draft.entries.len() == limits.group_frames || item.bytes > limits.frame_bytes {
                break;
            }
            let head = head_bytes(draft.entries.len() + 1, previous_entries);
            let Some(free) = space.checked_sub(head + draft.payload_bytes) else {
                break;
            };
            let rest = item.bytes - item.written;
            if rest <= free {
                draft.push(
                    item.entry(true),
                    &slice(&item.frame.payload, item.written, rest),
                );
                draft.complete += 1;
                continue;
            }
            if item.bytes > limits.whole_bytes && free >= limits.part_bytes {
                draft.push(
                    item.entry(false),
                    &slice(&item.frame.payload, item.written, free),
                );
                item.written += free;
            }
            break;
        }
        draft
    }
}

/// `len` bytes from `from` on of a payload in pieces.
fn slice(pieces: &[Bytes], from: u64, len: u64) -> Vec<Bytes> {
    let (mut skip, mut left) = (from, len);
    let mut out = Vec::with_capacity(pieces.len());
    for piece in pieces {
        let size = piece.len() as u64;
        if skip >= size {
            skip -= size;
            continue;
        }
        let take = (size - skip).min(left);
        // Both ends are within the piece, so they fit its index type.
        out.push(piece.slice(skip as usize..(skip + take) as usize));
        left -= take;
        skip = 0;
        if left == 0 {
            break;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces() -> Vec<Bytes> {
        vec![
            Bytes::from_static(b"ab"),
            Bytes::new(),
            Bytes::from_static(b"cdef"),
            Bytes::from_static(b"g"),
        ]
    }

    #[test]
    fn slices_cross_pieces() {
        for from in 0..=7 {
            for len in 0..=7 - from {
                let expected = &b"abcdefg"[from..from + len];
                assert_eq!(
                    slice(&pieces(), from as u64, len as u64).concat(),
                    expected,
                    "{from} {len}"
                );
            }
        }
    }
}
