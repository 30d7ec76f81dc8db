//! Writing groups to the end of a chain of files.
//!
//! Owns the chain: each group's number, its link to the one before and what it says about stable storage. Used by the
//! journal's writer and for side files. Invariant: `synced_through` never names a group that a returned sync did not
//! cover; a group is never written over one that was synced.

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::format::{BLOCK_BYTES, FIRST_GROUP, GroupHead, GroupSequence, Link, Run, head_bytes};
use super::group::Draft;
use super::round::RoundFile;
use super::walk::End;
use crate::SyncPoint;

/// Numbers skipped at each start: more than the groups that a cut tail can hold, so that none of them can be taken
/// for a new one.
const RUN_GAP: u64 = 1 << 20;

/// Bytes that pad a group to whole blocks.
static PADDING: [u8; BLOCK_BYTES as usize] = [0; BLOCK_BYTES as usize];

/// Bytes of unsynced groups after which the system is asked to write them.
const WRITE_BACK_BYTES: u64 = 2 << 20;

/// The end of a chain of groups.
#[derive(Debug)]
pub(super) struct Appender {
    pub(super) round: RoundFile,
    /// Where the next group goes.
    position: u64,
    /// What lies before is on its way to stable storage, or there.
    on_its_way: u64,
    file_first: GroupSequence,
    next: GroupSequence,
    last: Link,
    run: Run,
    synced_through: GroupSequence,
    /// What the key-value store has made durable so far, where somebody says so.
    store: Option<Arc<AtomicU64>>,
}

impl Appender {
    /// Goes on in `round` where a walk ended. All that the walk accepted is on stable storage.
    pub(super) fn resume(round: RoundFile, end: &End) -> Appender {
        let last = end.last.clone().unwrap_or_default();
        let next = GroupSequence(end.group_max.0.max(last.sequence.0) + RUN_GAP);
        Appender {
            round,
            position: end.place.position,
            on_its_way: end.place.position,
            file_first: if end.place.position == FIRST_GROUP {
                next
            } else {
                end.file_first
            },
            next,
            run: Run {
                first: next,
                cut: last.sequence,
            },
            synced_through: last.sequence,
            store: None,
            last,
        }
    }

    /// From now on each group says how far the key-value store was when it was written.
    pub(super) fn attest(&mut self, store: Arc<AtomicU64>) {
        self.store = Some(store);
    }

    /// Bytes left in the file.
    pub(super) fn room(&self) -> u64 {
        self.round.header.file_bytes.saturating_sub(self.position)
    }

    pub(super) fn is_half_full(&self) -> bool {
        self.position > self.round.header.file_bytes / 2
    }

    /// Whether nothing was written to the file in this round.
    pub(super) fn is_fresh(&self) -> bool {
        self.position == FIRST_GROUP
    }

    /// Entries of the last group; the next one repeats them.
    pub(super) fn previous_entries(&self) -> usize {
        self.last.entries.len()
    }

    pub(super) fn is_synced(&self) -> bool {
        self.synced_through == self.last.sequence
    }

    /// Whether the newest frames are on stable storage and no group says so yet.
    pub(super) fn wants_seal(&self) -> bool {
        self.is_synced() && !self.last.entries.is_empty()
    }

    /// Whether an empty group fits.
    pub(super) fn has_room_for_seal(&self) -> bool {
        head_bytes(0, self.previous_entries()) <= self.room()
    }

    /// Writes a group, without a sync. An empty draft makes a seal: a group that only says what is durable.
    pub(super) fn put(&mut self, draft: Draft) -> io::Result<()> {
        let Draft {
            mut entries,
            pieces,
            payload_bytes,
            ..
        } = draft;
        let head_len = head_bytes(entries.len(), self.last.entries.len());
        for entry in &mut entries {
            entry.payload_offset = entry
                .payload_offset
                .saturating_add(u32::try_from(head_len).unwrap_or(u32::MAX));
        }
        let used = head_len + payload_bytes;
        let bytes = used.next_multiple_of(BLOCK_BYTES);
        let head = GroupHead {
            generation: self.round.header.generation,
            position: self.position,
            bytes: u32::try_from(bytes).map_err(|_| io::ErrorKind::InvalidInput)?,
            sequence: self.next,
            synced_through: self.synced_through,
            file_first: self.file_first,
            run: self.run,
            previous: std::mem::take(&mut self.last),
            store_sequence: (self.store.as_ref()).map_or(0, |store| store.load(Ordering::Acquire)),
            entries,
        };
        let encoded = head.encode(self.round.header.salt);
        let padding = PADDING.get(..(bytes - used) as usize).unwrap_or_default();
        let mut slices = Vec::with_capacity(pieces.len() + 2);
        slices.push(IoSlice::new(&encoded));
        slices.extend(pieces.iter().map(|piece| IoSlice::new(piece)));
        slices.push(IoSlice::new(padding));
        self.round.file.write_at(&slices, self.position)?;
        self.position = head.end();
        self.next = GroupSequence(head.sequence.0 + 1);
        self.last = head.link();
        Ok(())
    }

    /// Makes all groups durable.
    pub(super) fn sync(&mut self, point: SyncPoint) -> io::Result<()> {
        self.round.file.sync_data(point)?;
        self.synced_through = self.last.sequence;
        self.on_its_way = self.position;
        Ok(())
    }

    /// Lets the system begin to write what nobody waits for, a stretch at a time: when the file is left all of it has to be
    /// on stable storage, and appends wait for what is not.
    pub(super) fn hurry(&mut self) {
        let len = self.position.saturating_sub(self.on_its_way);
        if len >= WRITE_BACK_BYTES {
            // A hint; the sync that counts comes later.
            let _ = self.round.file.start_write_back(self.on_its_way, len);
            self.on_its_way = self.position;
        }
    }

    /// Goes on in another file; everything in the one before must be durable. Returns that one.
    pub(super) fn switch(&mut self, round: RoundFile) -> RoundFile {
        debug_assert!(
            self.is_synced(),
            "a file is left only when all of it is durable"
        );
        self.position = FIRST_GROUP;
        self.on_its_way = FIRST_GROUP;
        self.file_first = self.next;
        std::mem::replace(&mut self.round, round)
    }
}
