//! The newest entries of a log, whole, in memory.
//!
//! Pure. Invariant: a contiguous run that ends with the log's last entry and holds every entry that is not yet in a
//! file. What is older is dropped when the cache over all logs asks for it.

use std::collections::VecDeque;

use bytes::Bytes;
use tidelog_protocol::types::Offset;

use super::envelope::Envelope;
use super::files::SegmentName;
use super::{EntryBody, EntryIndex, LogEntry};

/// Memory that an entry takes beside its bytes.
pub const ENTRY_OVERHEAD_BYTES: usize = 512;

/// One entry with the bytes that go to files.
#[derive(Clone)]
pub struct TailEntry {
    /// The entry.
    pub entry: LogEntry,
    /// Decoded envelope.
    pub envelope: Envelope,
    /// Encoded envelope.
    pub envelope_bytes: Bytes,
    /// Header of the batch; empty for an opaque entry.
    pub head: Bytes,
    /// Segment it was placed in.
    pub segment: SegmentName,
    /// Position of the envelope in the side file.
    pub side_position: u64,
    /// Write-behind permits to give back when it is written.
    pub permits: u32,
}

impl TailEntry {
    /// The records section; empty for an opaque entry.
    pub fn records(&self) -> Bytes {
        match &self.entry.body {
            EntryBody::Batch(batch) => batch.records_bytes().clone(),
            EntryBody::Opaque { .. } => Bytes::new(),
        }
    }

    /// Memory it accounts for.
    pub fn memory_bytes(&self) -> usize {
        ENTRY_OVERHEAD_BYTES + self.envelope_bytes.len() + self.envelope.batch_bytes as usize
    }
}

/// The newest entries.
#[derive(Default)]
pub struct Tail {
    entries: VecDeque<TailEntry>,
    /// Last entry that is in a file (or purged).
    written: EntryIndex,
    /// Last entry that the cache wants dropped.
    evict_to: EntryIndex,
}

impl Tail {
    /// A tail behind an entry that is in a file, or behind none.
    pub fn behind(last: EntryIndex) -> Tail {
        Tail {
            entries: VecDeque::new(),
            written: last,
            evict_to: EntryIndex(0),
        }
    }

    /// Last entry that is in a file.
    pub fn written(&self) -> EntryIndex {
        self.written
    }

    /// Entries that are not in a file yet, oldest first.
    pub fn pending(&self) -> impl Iterator<Item = &TailEntry> {
        self.entries.range(self.count_to(self.written)..)
    }

    /// Number of entries up to an index. Their indexes are dense, so none is looked at but the first.
    fn count_to(&self, index: EntryIndex) -> usize {
        let first = self.entries.front().map(|tail| tail.envelope.id.index);
        let count = first.map_or(0, |first| index.0.saturating_add(1).saturating_sub(first.0));
        usize::try_from(count).map_or(self.entries.len(), |count| count.min(self.entries.len()))
    }

    /// Whether an entry is not in a file yet.
    pub fn has_pending(&self) -> bool {
        self.entries
            .back()
            .is_some_and(|tail| tail.envelope.id.index > self.written)
    }

    /// Adds the log's new last entry.
    pub fn push(&mut self, entry: TailEntry) {
        self.entries.push_back(entry);
    }

    /// Entries from an index on; `None` if that is before the tail.
    pub fn since_index(&self, index: EntryIndex) -> Option<impl Iterator<Item = &TailEntry>> {
        let first = self.entries.front()?.envelope.id.index;
        let skip = usize::try_from(index.0.checked_sub(first.0)?).ok()?;
        Some(self.entries.range(skip.min(self.entries.len())..))
    }

    /// Entries from the one that holds an offset on; `None` if that is before the tail.
    pub fn since_offset(&self, offset: Offset) -> Option<impl Iterator<Item = &TailEntry>> {
        if self.entries.front()?.envelope.base_offset > offset {
            return None;
        }
        let skip = self
            .entries
            .partition_point(|tail| tail.envelope.next_offset() <= offset);
        Some(self.entries.range(skip..))
    }

    /// All entries.
    pub fn iter(&self) -> impl Iterator<Item = &TailEntry> {
        self.entries.iter()
    }

    /// All entries.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut TailEntry> {
        self.entries.iter_mut()
    }

    /// Notes that entries up to `index` are in files, drops what the cache wanted dropped, and returns the permits.
    pub fn mark_written(&mut self, index: EntryIndex) -> usize {
        let (from, to) = (self.count_to(self.written), self.count_to(index));
        self.written = self.written.max(index);
        let permits = self.take_permits(from, to);
        self.drop_evicted();
        permits
    }

    /// Drops entries up to `index`, now or as soon as they are in files.
    pub fn evict_to(&mut self, index: EntryIndex) {
        self.evict_to = self.evict_to.max(index);
        self.drop_evicted();
    }

    /// Drops entries up to `index`, which are gone from the log; returns the permits.
    pub fn purge_to(&mut self, index: EntryIndex) -> usize {
        let count = self.count_to(index);
        let permits = self.take_permits(0, count);
        self.entries.drain(..count);
        self.written = self.written.max(index);
        permits
    }

    /// Drops entries after `index`; returns the permits.
    pub fn truncate_after(&mut self, index: EntryIndex) -> usize {
        let keep = self.count_to(index);
        let permits = self.take_permits(keep, self.entries.len());
        self.entries.truncate(keep);
        self.written = self.written.min(index);
        self.evict_to = self.evict_to.min(index);
        permits
    }

    /// Gives up the permits of what will never be written.
    pub fn abandon(&mut self) -> usize {
        self.take_permits(0, self.entries.len())
    }

    fn take_permits(&mut self, from: usize, to: usize) -> usize {
        if from >= to {
            return 0;
        }
        let taken = self
            .entries
            .range_mut(from..to)
            .map(|tail| std::mem::take(&mut tail.permits));
        taken.map(|permits| permits as usize).sum()
    }

    fn drop_evicted(&mut self) {
        let upto = self.evict_to.min(self.written);
        let count = self.count_to(upto);
        self.entries.drain(..count);
    }
}

impl std::fmt::Debug for Tail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tail")
            .field("first", &self.entries.front().map(|tail| tail.envelope.id))
            .field("count", &self.entries.len())
            .field("written", &self.written)
            .finish()
    }
}
