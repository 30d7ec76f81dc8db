//! What a log knows in memory: bounds, epochs, producers, newest entries, segments.
//!
//! Pure: decides where entries go, touches no file. Invariant: `purged <= last`, `log_start <= log_end`; the tail ends
//! with `last`; the active segment ends where the next entry goes.

use std::collections::VecDeque;

use bytes::Bytes;
use tidelog_protocol::types::{Offset, TimestampMs};

use super::envelope::{Envelope, VARIABLE_BYTES_MAX};
use super::files::SegmentName;
use super::payload::{EncodedEntry, SegmentEnd, encode_append};
use super::segment::OpenSegment;
use super::settled::Settled;
use super::tail::{Tail, TailEntry};
use super::write_queue::ROUND_BYTES;
use super::{
    EntryBody, EntryId, EntryIndex, EpochTable, LogBounds, LogConfig, LogEntry, LogError,
    LogPosition, ProducerStateTable, Stamping,
};
use crate::journal::FrameSequence;

/// Opaque bytes that a log without records keeps in its checkpoint before it gets files.
const INLINE_BYTES_MAX: usize = 16 << 10;

/// A segment whose files are complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClosedSegment {
    /// Where it begins.
    pub name: SegmentName,
    /// What its files say, once they were asked.
    pub extent: Option<SegmentExtent>,
}

/// What retention and reads need to know of a closed segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentExtent {
    /// Bytes of `.log`.
    pub log_bytes: u64,
    /// Largest timestamp.
    pub max_timestamp: TimestampMs,
    /// Offset of the last record of the batch that has it.
    pub offset_of_max: Offset,
}

/// The segments of a log, oldest first: settled, closed, sealed, active.
#[derive(Debug)]
pub struct Segments {
    /// Without entries.
    pub settled: Settled,
    /// Complete in files.
    pub closed: Vec<ClosedSegment>,
    /// No longer appended to, not yet complete in files.
    pub sealed: VecDeque<OpenSegment>,
    /// Takes the next entry.
    pub active: OpenSegment,
}

impl Segments {
    /// One empty segment.
    pub fn empty(name: SegmentName, producers: ProducerStateTable) -> Segments {
        Segments {
            settled: Settled::default(),
            closed: Vec::new(),
            sealed: VecDeque::new(),
            active: OpenSegment::new(name, Some(producers)),
        }
    }

    /// Names of all that hold records, oldest first.
    pub fn all_names(&self) -> impl Iterator<Item = SegmentName> {
        let settled = self.settled.segments.iter().map(|segment| segment.name);
        settled.chain(self.names())
    }

    /// Offset at which the segments with entries begin.
    pub fn settled_end(&self) -> Offset {
        self.names()
            .next()
            .map_or(self.active.name.base, |name| name.base)
    }

    /// Names of those with entries, oldest first.
    pub fn names(&self) -> impl DoubleEndedIterator<Item = SegmentName> {
        let closed = self.closed.iter().map(|segment| segment.name);
        closed
            .chain(self.sealed.iter().map(|open| open.name))
            .chain([self.active.name])
    }

    /// The open segment of a name.
    pub fn open_mut(&mut self, name: SegmentName) -> Option<&mut OpenSegment> {
        if self.active.name == name {
            return Some(&mut self.active);
        }
        self.sealed.iter_mut().find(|open| open.name == name)
    }

    /// The open segment of a name.
    pub fn open(&self, name: SegmentName) -> Option<&OpenSegment> {
        if self.active.name == name {
            return Some(&self.active);
        }
        self.sealed.iter().find(|open| open.name == name)
    }

    /// The segment that holds an entry, and the one after it.
    pub fn find_entry(&self, index: EntryIndex) -> Option<(SegmentName, Option<SegmentName>)> {
        let names: Vec<_> = self.names().collect();
        let after = names.partition_point(|name| name.first <= index);
        Some((
            *names.get(after.checked_sub(1)?)?,
            names.get(after).copied(),
        ))
    }

    /// The segment that holds an offset, or the last one before it, or the first of all.
    pub fn find_offset(&self, offset: Offset) -> Option<SegmentName> {
        self.find_with_entries(offset).or_else(|| {
            let settled = &self.settled.segments;
            let after = settled.partition_point(|segment| segment.name.base <= offset);
            let found = settled.get(after.saturating_sub(1));
            found.map(|segment| segment.name).or(self.names().next())
        })
    }

    /// The segment to read after one in which nothing at or behind an offset was found. One that is no longer there
    /// was replaced meanwhile: what it held is looked for again.
    pub fn find_next(&self, name: SegmentName, offset: Offset) -> Option<SegmentName> {
        let mut names = self.all_names().skip_while(|other| *other < name);
        if names.next() == Some(name) {
            names.next()
        } else {
            self.find_offset(offset)
        }
    }

    fn find_with_entries(&self, offset: Offset) -> Option<SegmentName> {
        let closed = self
            .closed
            .partition_point(|segment| segment.name.base <= offset);
        let open = self.sealed.iter().chain([&self.active]);
        let last_open = open.take_while(|open| open.name.base <= offset).last();
        last_open
            .map(|open| open.name)
            .or_else(|| Some(self.closed.get(closed.checked_sub(1)?)?.name))
    }

    /// Largest timestamp of the oldest segment, where it is known.
    pub fn oldest_timestamp(&self) -> Option<TimestampMs> {
        if let Some(settled) = self.settled.segments.first() {
            return Some(settled.extent.max_timestamp);
        }
        match self.closed.first() {
            Some(first) => first.extent.map(|extent| extent.max_timestamp),
            None => Some(self.sealed.front().unwrap_or(&self.active).max_timestamp),
        }
    }
}

/// State of one log in memory.
#[derive(Debug)]
pub struct State {
    /// Extent.
    pub bounds: LogBounds,
    /// Where epochs begin.
    pub epochs: EpochTable,
    /// Producers, everything appended included.
    pub producers: ProducerStateTable,
    /// Newest entries.
    pub tail: Tail,
    /// Segments; of an unloaded log only an empty one.
    pub segments: Segments,
    /// Whether entries go to files.
    pub has_files: bool,
    /// Where the files end, while nobody has looked at them.
    pub unloaded: Option<SegmentEnd>,
    /// Whether `producers` has to be rebuilt from files before it is used.
    pub producers_in_files: bool,
    /// Damage behind the checkpoint that a change still to be replayed may make void.
    pub suspect: Option<LogError>,
    /// Journal frame of the last change.
    pub sequence: FrameSequence,
    /// Journal frame up to which the durable checkpoint covers the log.
    pub covered: FrameSequence,
    /// Largest timestamp of the oldest segment, as last known.
    pub oldest_timestamp: TimestampMs,
    /// Whether the log waits in the write queue.
    pub queued: bool,
    /// Whether the log start offset rose since the start.
    pub log_start_moved: bool,
    /// Opaque bytes held while there are no files.
    inline_bytes: usize,
}

/// An append as it goes to the journal.
pub struct Appended {
    /// Offset at which each entry begins.
    pub base_offsets: Vec<Offset>,
    /// Payload of the frame.
    pub payload: Vec<Bytes>,
    /// Last entry before it.
    pub prev: EntryIndex,
    /// Last entry after it.
    pub last: EntryIndex,
    /// Memory taken by the tail.
    pub memory_bytes: usize,
}

impl State {
    /// An empty log that begins at a position.
    pub fn at(position: LogPosition) -> State {
        let first = EntryIndex(position.last.index.0.saturating_add(1));
        let name = SegmentName {
            base: position.next_offset,
            first,
            revision: 0,
        };
        let bounds = LogBounds {
            purged: position.last,
            last: position.last,
            log_start: position.log_start.min(position.next_offset),
            log_end: position.next_offset,
            size_bytes: 0,
        };
        let mut epochs = EpochTable::default();
        if position.last.index.0 > 0 {
            epochs.record(position.last, position.next_offset);
            epochs.purge_to(position.last.index, position.next_offset);
        }
        State {
            bounds,
            epochs,
            producers: position.producers.clone(),
            tail: Tail::behind(position.last.index),
            segments: Segments::empty(name, position.producers),
            has_files: false,
            unloaded: None,
            producers_in_files: false,
            suspect: None,
            sequence: FrameSequence(0),
            covered: FrameSequence(0),
            oldest_timestamp: TimestampMs::NONE,
            queued: false,
            log_start_moved: false,
            inline_bytes: 0,
        }
    }

    /// Whether files have to be read before the log can change.
    pub fn needs_files(&self) -> bool {
        self.unloaded.is_some() || self.producers_in_files
    }

    /// Checks entries without changing anything; the error says what is wrong with them.
    pub fn check<'a>(
        &self,
        entries: impl IntoIterator<Item = &'a LogEntry>,
        stamping: Stamping,
    ) -> Result<(), String> {
        let mut last = self.bounds.last;
        let mut next_offset = self.bounds.log_end;
        for entry in entries {
            if entry.id.index.0 != last.index.0.saturating_add(1) || entry.id.epoch < last.epoch {
                return Err(format!("entry {:?} does not follow {last:?}", entry.id));
            }
            if entry.aux.len() > VARIABLE_BYTES_MAX {
                return Err(format!(
                    "{} bytes beside an entry are too many",
                    entry.aux.len()
                ));
            }
            match &entry.body {
                EntryBody::Opaque { bytes, .. } if bytes.len() > VARIABLE_BYTES_MAX => {
                    return Err(format!(
                        "an opaque entry of {} bytes is too large",
                        bytes.len()
                    ));
                }
                EntryBody::Opaque { .. } => {}
                EntryBody::Batch(batch) => {
                    let stamped = (batch.base_offset(), batch.leader_epoch());
                    if stamping == Stamping::Follower && stamped != (next_offset, entry.id.epoch) {
                        return Err(format!(
                            "batch of entry {:?} is stamped {stamped:?}, its place here is {next_offset}",
                            entry.id
                        ));
                    }
                    let records = i64::from(batch.last_offset_delta()) + 1;
                    let next = next_offset.0.checked_add(records).filter(|_| records > 0);
                    next_offset = Offset(next.ok_or("a batch without records, or no offset left")?);
                }
            }
            last = entry.id;
        }
        Ok(())
    }

    /// Takes checked entries in: stamps them, finds their places, and makes the journal's payload. `permits` are
    /// given back when the last of them is written.
    pub fn append(
        &mut self,
        entries: Vec<LogEntry>,
        stamping: Stamping,
        config: &LogConfig,
        permits: u32,
    ) -> Appended {
        let prev = self.bounds.last.index;
        let mut placed = Vec::with_capacity(entries.len());
        let mut places = Vec::with_capacity(entries.len());
        for mut entry in entries {
            let base_offset = self.bounds.log_end;
            if let EntryBody::Batch(batch) = &mut entry.body
                && stamping == Stamping::Leader
            {
                batch.stamp(base_offset, entry.id.epoch);
            }
            let mut envelope = Envelope::of(&entry, base_offset, 0);
            places.push(self.place(&entry, &mut envelope, config));
            placed.push((entry, envelope));
        }
        let (payload, encoded) = encode_append(&placed);
        let base_offsets = placed
            .iter()
            .map(|(_, envelope)| envelope.base_offset)
            .collect();
        let mut memory_bytes = 0;
        let count = placed.len();
        for (at, (((entry, envelope), bytes), (segment, side_position))) in
            placed.into_iter().zip(encoded).zip(places).enumerate()
        {
            let EncodedEntry {
                envelope: envelope_bytes,
                head,
            } = bytes;
            let permits = if at + 1 == count { permits } else { 0 };
            let tail = TailEntry {
                entry,
                envelope,
                envelope_bytes,
                head,
                segment,
                side_position,
                permits,
            };
            memory_bytes += tail.memory_bytes();
            self.tail.push(tail);
        }
        Appended {
            base_offsets,
            payload,
            prev,
            last: self.bounds.last.index,
            memory_bytes,
        }
    }

    fn place(
        &mut self,
        entry: &LogEntry,
        envelope: &mut Envelope,
        config: &LogConfig,
    ) -> (SegmentName, u64) {
        if self.segments.active.must_roll(config, envelope) {
            self.roll();
        }
        let active = &mut self.segments.active;
        envelope.log_position = active.log_end;
        let side_position = active.place(envelope, config.index_interval_bytes);
        let name = active.name;
        self.epochs.record(entry.id, envelope.base_offset);
        match &entry.body {
            EntryBody::Batch(batch) => {
                self.producers.record(batch, envelope.base_offset);
                self.has_files = true;
            }
            EntryBody::Opaque { .. } => {
                self.inline_bytes += envelope.encoded_bytes();
                self.has_files |= self.inline_bytes > INLINE_BYTES_MAX;
            }
        }
        self.bounds.last = entry.id;
        self.bounds.log_end = envelope.next_offset();
        self.bounds.size_bytes += u64::from(envelope.batch_bytes);
        (name, side_position)
    }

    /// Seals the active segment and begins a new one.
    pub fn roll(&mut self) {
        let first = EntryIndex(self.bounds.last.index.0 + 1);
        let name = SegmentName {
            base: self.bounds.log_end,
            first,
            revision: 0,
        };
        let before = (!self.producers_in_files).then(|| self.producers.clone());
        let next = OpenSegment::new(name, before);
        let mut sealed = std::mem::replace(&mut self.segments.active, next);
        sealed.seal();
        self.segments.sealed.push_back(sealed);
    }

    /// Finds new places for the entries of a log without files, after some of them are gone.
    pub fn place_inline_anew(&mut self) {
        let first = EntryIndex(self.bounds.purged.index.0 + 1);
        let name = SegmentName {
            base: self.bounds.log_end,
            first,
            revision: 0,
        };
        let mut open = OpenSegment::new(name, Some(self.producers.clone()));
        self.inline_bytes = 0;
        for tail in self.tail.iter_mut() {
            tail.segment = name;
            tail.side_position = open.place(&tail.envelope, 0);
            self.inline_bytes += tail.envelope_bytes.len();
        }
        self.segments.active = open;
    }

    /// Whether files lack something.
    pub fn has_unwritten(&self) -> bool {
        self.tail.has_pending() || !self.segments.sealed.is_empty()
    }

    /// Whether so much is not in files that it should not wait for more.
    pub fn is_round_unwritten(&self) -> bool {
        !self.segments.sealed.is_empty() || self.unwritten_bytes() >= ROUND_BYTES
    }

    /// Bytes of records and envelopes that are not in files.
    fn unwritten_bytes(&self) -> u64 {
        let open = self.segments.sealed.iter().chain([&self.segments.active]);
        open.map(OpenSegment::unwritten_bytes).sum()
    }

    /// Epoch and index of an entry that is held, or of the purged boundary.
    pub fn id_of(&self, index: EntryIndex) -> Option<EntryId> {
        if index == self.bounds.purged.index {
            return Some(self.bounds.purged);
        }
        if index < self.bounds.purged.index || index > self.bounds.last.index {
            return None;
        }
        Some(EntryId {
            epoch: self.epochs.epoch_of(index)?,
            index,
        })
    }

    /// Where the active segment ends.
    pub fn end(&self) -> SegmentEnd {
        let active = &self.segments.active;
        SegmentEnd {
            name: active.name,
            log_bytes: active.log_end,
            side_bytes: active.side_end,
        }
    }

    /// Forgets entries up to one that is held, and their records; returns the permits of what was never written.
    pub fn purge(&mut self, purged: EntryId, next_offset: Offset) -> usize {
        self.bounds.log_start = self.bounds.log_start.max(next_offset);
        self.forget(purged, next_offset)
    }

    /// Forgets entries up to one that is held; returns the permits of what was never written.
    pub fn forget(&mut self, purged: EntryId, next_offset: Offset) -> usize {
        self.bounds.purged = purged;
        self.epochs.purge_to(purged.index, next_offset);
        self.tail.purge_to(purged.index)
    }
}
