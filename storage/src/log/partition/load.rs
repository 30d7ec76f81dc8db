//! Looking at the files of a log for the first time after a start.
//!
//! Reads the folder and the side file of the active segment, nothing else. What lies behind the checkpoint is cut off:
//! the journal holds what was acknowledged of it. Invariant: afterwards memory and files agree with the checkpoint.

use bytes::Bytes;
use tidelog_protocol::types::Offset;

use super::super::envelope::Envelope;
use super::super::files::{FileKind, SegmentName};
use super::super::payload::SegmentEnd;
use super::super::segment::{OpenSegment, SIDE_HEADER_BYTES, check_side_header, is_below};
use super::super::state::{ClosedSegment, Segments};
use super::super::{EntryId, EntryIndex, LogError, ProducerStateTable};
use super::{PartitionLog, Writing};
use crate::fs::File;

/// Bytes read at once when a side file is walked.
const WALK_BYTES: usize = 256 << 10;

/// A segment as its side file describes it.
pub(super) struct Scanned {
    /// Positions and indexes.
    pub open: OpenSegment,
    /// Last entry; `None` if there is none.
    pub last: Option<EntryId>,
    /// Offset after it.
    pub next_offset: Offset,
}

impl PartitionLog {
    /// Reads the files if nobody has. Blocks. Damage stops the log.
    pub(crate) fn load_if_needed(&self) -> Result<(), LogError> {
        if !self.state.lock().needs_files() {
            return Ok(());
        }
        self.check_running()?;
        let mut writing = self.writing.lock();
        let loaded = self.load(&mut writing, false);
        drop(writing);
        loaded.map_err(|error| self.stop(error))
    }

    /// With `tolerant`, damage of the active segment is only noted: a truncation that is still to be replayed may have
    /// written over it.
    pub(super) fn load(&self, writing: &mut Writing, tolerant: bool) -> Result<(), LogError> {
        let (unloaded, bounds) = {
            let state = self.state.lock();
            (state.unloaded, state.bounds)
        };
        let Some(end) = unloaded else {
            return if tolerant {
                Ok(())
            } else {
                self.rebuild_producers(writing)
            };
        };
        let listed = self.files.list()?;
        // What a change behind the checkpoint did to the folder is not told from what a purge before it left: while such
        // changes may come, nothing below is removed.
        let purged = (!tolerant).then_some(bounds.purged.index);
        let closed = self.tidy_folder(&listed, end, purged)?;
        let scanned = self.scan_active(end).and_then(|scanned| {
            let expected = (bounds.last, bounds.log_end);
            let empty = scanned.last.is_none() && end.side_bytes <= SIDE_HEADER_BYTES as u64;
            let found = (scanned.last.unwrap_or(bounds.last), scanned.next_offset);
            if empty || found == expected {
                return Ok(scanned.open);
            }
            let reason = format!("ends with {found:?}, the checkpoint says {expected:?}");
            let position = end.side_bytes;
            Err(self
                .files
                .corrupt(end.name, FileKind::Entries, position, &reason))
        });
        let (open, suspect) = match scanned {
            Ok(open) => (open, None),
            Err(error) if tolerant && matches!(error, LogError::Corrupt { .. }) => {
                let mut open = OpenSegment::new(end.name, None);
                (open.log_end, open.side_end) = (end.log_bytes, end.side_bytes);
                (open.written.log, open.written.side) = (end.log_bytes, end.side_bytes);
                (open, Some(error))
            }
            Err(error) => return Err(error),
        };
        writing.unsynced.insert(end.name, true);
        // A folder that never held a segment that counts may be missing.
        writing.folder_known = !listed.is_empty();
        {
            let mut state = self.state.lock();
            let settled = std::mem::take(&mut state.segments.settled);
            state.segments = Segments {
                settled,
                closed,
                sealed: Default::default(),
                active: open,
            };
            state.unloaded = None;
            state.suspect = suspect;
        }
        if tolerant {
            Ok(())
        } else {
            self.check_folder()?;
            self.rebuild_producers(writing)
        }
    }

    /// Misses side files: segments are found by them, so one that is gone would take its segment's records with it.
    pub(super) fn check_folder(&self) -> Result<(), LogError> {
        let listed = self.files.list()?;
        let state = self.state.lock();
        let names: Vec<SegmentName> = state.segments.names().collect();
        let (settled, purged) = (&state.segments.settled, state.bounds.purged.index);
        let Some(first) = names.first() else {
            return Ok(());
        };
        if !is_below(*first, purged) {
            let reason = format!("nothing is left of the entries after {}", purged.0);
            return Err(self.files.corrupt(*first, FileKind::Entries, 0, &reason));
        }
        for file in listed.iter().filter(|file| file.ends_with(".log")) {
            let Some((base, 0)) = SegmentName::of_record_file(file) else {
                continue;
            };
            let is_known = settled.has_files(base, 0) || names.iter().any(|name| name.base == base);
            if base >= first.base && base <= state.segments.active.name.base && !is_known {
                let name = SegmentName {
                    base,
                    ..SegmentName::default()
                };
                let reason = "the side file of its segment is missing";
                return Err(self.files.corrupt(name, FileKind::Log, 0, reason));
            }
        }
        Ok(())
    }

    /// Rebuilds the producer state from files if it was not in the checkpoint or a replayed cut made it void.
    fn rebuild_producers(&self, writing: &mut Writing) -> Result<(), LogError> {
        let upto = {
            let state = self.state.lock();
            if !state.producers_in_files {
                return Ok(());
            }
            state.bounds.last.index
        };
        self.drain_to(writing, upto)?;
        let producers = self.producers_at(upto)?;
        let mut state = self.state.lock();
        state.producers = producers;
        state.producers_in_files = false;
        Ok(())
    }

    /// Removes files of segments that begin after the active one (never acknowledged, or in the journal) and of those
    /// below what was purged; returns the closed segments.
    fn tidy_folder(
        &self,
        listed: &[String],
        end: SegmentEnd,
        purged: Option<EntryIndex>,
    ) -> Result<Vec<ClosedSegment>, LogError> {
        let names = listed
            .iter()
            .filter_map(|file| SegmentName::of_entries_file(file));
        let mut names: Vec<SegmentName> = names.collect();
        names.sort_unstable();
        let after = names.partition_point(|name| *name <= end.name);
        for name in names.split_off(after) {
            let keep = (name.base == end.name.base).then_some(end.name);
            self.files.remove_segment(name, keep)?;
        }
        names.retain(|name| *name != end.name);
        let nexts = names
            .iter()
            .skip(1)
            .copied()
            .chain([end.name])
            .collect::<Vec<_>>();
        let pairs = names.iter().zip(&nexts);
        let below = pairs
            .take_while(|(_, next)| purged.is_some_and(|purged| is_below(**next, purged)))
            .count();
        for (name, next) in names.drain(..below).zip(nexts) {
            self.remove_forgotten(name, next)?;
        }
        for file in listed.iter().filter(|file| file.ends_with(".tmp")) {
            self.files.remove(file)?;
        }
        self.remove_records_behind(listed, end.name.base)?;
        if purged.is_some() {
            self.remove_unlisted(listed, *names.first().unwrap_or(&end.name))?;
        }
        Ok(names
            .into_iter()
            .map(|name| ClosedSegment { name, extent: None })
            .collect())
    }

    /// Removes record files whose segment begins after the active one and whose side file never reached the disk.
    fn remove_records_behind(&self, listed: &[String], base: Offset) -> Result<(), LogError> {
        for file in listed {
            let stem = file
                .split_once('.')
                .and_then(|(stem, _)| stem.parse::<i64>().ok());
            if stem.is_some_and(|stem| stem > base.0) {
                self.files.remove(file)?;
            }
        }
        Ok(())
    }

    fn scan_active(&self, end: SegmentEnd) -> Result<Scanned, LogError> {
        if end.side_bytes == 0 {
            // What is there under its name was cut off before, or came behind the checkpoint.
            self.files.remove_segment(end.name, None)?;
            let next_offset = end.name.base;
            return Ok(Scanned {
                open: OpenSegment::new(end.name, None),
                last: None,
                next_offset,
            });
        }
        let scanned = self.scan_segment(end)?;
        self.cut_segment(end)?;
        Ok(scanned)
    }

    /// Cuts the files of a segment to where it ends; the indexes are written anew.
    pub(super) fn cut_segment(&self, end: SegmentEnd) -> Result<(), LogError> {
        let kinds = [
            (FileKind::Log, end.log_bytes),
            (FileKind::Entries, end.side_bytes),
            (FileKind::Index, 0),
            (FileKind::TimeIndex, 0),
            (FileKind::EntryIndex, 0),
        ];
        for (kind, bytes) in kinds {
            if let Some(file) = self.files.open_if_exists(end.name, kind)? {
                let failed = |error| self.files.failed(end.name, kind, &error);
                if file.len().map_err(failed)? > bytes {
                    file.set_len(bytes).map_err(failed)?;
                }
            }
        }
        Ok(())
    }

    /// Reads the side file of a segment up to an end. What it says counts as written, but for the indexes.
    pub(super) fn scan_segment(&self, end: SegmentEnd) -> Result<Scanned, LogError> {
        let interval = self.config().index_interval_bytes;
        let mut open = OpenSegment::new(end.name, None);
        let mut last: Option<EntryId> = None;
        let mut next_offset = end.name.base;
        self.walk_side_file(end.name, 0, end.side_bytes, |envelope, position| {
            let follows = match last {
                None => envelope.id.index == end.name.first,
                Some(last) => {
                    envelope.id.index.0 == last.index.0 + 1 && envelope.id.epoch >= last.epoch
                }
            };
            let fits = envelope.base_offset == next_offset && envelope.log_position == open.log_end;
            if !follows || !fits {
                return Err("entry does not follow the one before it");
            }
            if open.place(&envelope, interval) != position {
                return Err("entry is out of place");
            }
            last = Some(envelope.id);
            next_offset = envelope.next_offset();
            Ok(true)
        })?;
        if open.log_end != end.log_bytes {
            let reason = format!(
                "entries say {} bytes, expected {}",
                open.log_end, end.log_bytes
            );
            return Err(self
                .files
                .corrupt(end.name, FileKind::Log, open.log_end, &reason));
        }
        let log = self.files.open_if_exists(end.name, FileKind::Log)?;
        let have = match log {
            Some(file) => file
                .len()
                .map_err(|e| self.files.failed(end.name, FileKind::Log, &e))?,
            None => 0,
        };
        if have < end.log_bytes {
            return Err(self
                .files
                .corrupt(end.name, FileKind::Log, have, "file is cut"));
        }
        (open.written.log, open.written.side) = (open.log_end, open.side_end);
        Ok(Scanned {
            open,
            last,
            next_offset,
        })
    }

    /// Hands the envelopes of a side file to `visit`, with their positions, until it says false or `upto` is reached.
    /// `from` is a position from the index, or 0.
    pub(super) fn walk_side_file(
        &self,
        name: SegmentName,
        from: u64,
        upto: u64,
        mut visit: impl FnMut(Envelope, u64) -> Result<bool, &'static str>,
    ) -> Result<(), LogError> {
        let corrupt = |position, reason: &str| {
            self.files
                .corrupt(name, FileKind::Entries, position, reason)
        };
        if upto == 0 {
            return Ok(());
        }
        let file = match self.files.open_if_exists(name, FileKind::Entries)? {
            Some(file) => file,
            None => return Err(corrupt(0, "file is missing")),
        };
        let read =
            |position, bytes| self.read_exact(&*file, name, FileKind::Entries, position, bytes);
        let mut position = from;
        if from == 0 {
            let header = read(0, SIDE_HEADER_BYTES)?;
            check_side_header(&header, self.id, name).map_err(|reason| corrupt(0, reason))?;
            position = SIDE_HEADER_BYTES as u64;
        }
        let mut window = Bytes::new();
        while position < upto {
            let left = usize::try_from(upto - position).unwrap_or(usize::MAX);
            let need =
                Envelope::peek_bytes(&window).unwrap_or(super::super::envelope::ENVELOPE_BYTES_MIN);
            if window.len() < need {
                if need > left {
                    return Err(corrupt(position, "entry is cut"));
                }
                // What comes after a cut may be missing, so that less than a window is fine.
                window = self.read_upto(&*file, name, position, left.min(WALK_BYTES.max(need)))?;
                if window.len() < need {
                    return Err(corrupt(position + window.len() as u64, "file is cut"));
                }
                if Envelope::peek_bytes(&window).is_none() {
                    return Err(corrupt(position, "impossible envelope length"));
                }
                continue;
            }
            let (envelope, length) =
                Envelope::decode(&window).map_err(|reason| corrupt(position, &reason))?;
            if !visit(envelope, position).map_err(|reason| corrupt(position, reason))? {
                return Ok(());
            }
            window = window.slice(length..);
            position += length as u64;
        }
        Ok(())
    }

    /// Reads up to `bytes` bytes of a side file.
    fn read_upto(
        &self,
        file: &dyn File,
        name: SegmentName,
        position: u64,
        bytes: usize,
    ) -> Result<Bytes, LogError> {
        let read = file.read_vec(bytes, position);
        let read = read.map_err(|error| self.files.failed(name, FileKind::Entries, &error))?;
        Ok(read.into())
    }

    /// Reads exactly `bytes` bytes; fewer are damage.
    pub(super) fn read_exact(
        &self,
        file: &dyn File,
        name: SegmentName,
        kind: FileKind,
        position: u64,
        bytes: usize,
    ) -> Result<Bytes, LogError> {
        let read = file.read_vec(bytes, position);
        let read = read.map_err(|error| self.files.failed(name, kind, &error))?;
        if read.len() < bytes {
            let end = position + read.len() as u64;
            return Err(self.files.corrupt(name, kind, end, "file is cut"));
        }
        Ok(read.into())
    }

    /// Producer state right after an entry: from the nearest snapshot before it and the batch headers in between.
    pub(super) fn producers_at(&self, index: EntryIndex) -> Result<ProducerStateTable, LogError> {
        let (mut names, purged) = {
            let state = self.state.lock();
            let names: Vec<SegmentName> = state.segments.names().collect();
            (names, state.bounds.purged.index)
        };
        names.retain(|name| name.first <= index);
        let (mut table, mut from) = (ProducerStateTable::default(), names.len());
        while let Some(at) = from.checked_sub(1) {
            from = at;
            if let Some(before) = self.producers_before(names[at])? {
                table = before;
                break;
            }
        }
        for name in names.drain(from.min(names.len())..) {
            self.record_producers(name, index, purged, &mut table)?;
        }
        Ok(table)
    }

    /// Producer state at the beginning of a segment, from memory or its snapshot file; `None` if there is none.
    fn producers_before(&self, name: SegmentName) -> Result<Option<ProducerStateTable>, LogError> {
        if let Some(open) = self.state.lock().segments.open(name)
            && let Some(table) = &open.producers_before
        {
            return Ok(Some(table.clone()));
        }
        let Some(file) = self.files.open_if_exists(name, FileKind::Snapshot)? else {
            return Ok(None);
        };
        let length = file
            .len()
            .map_err(|e| self.files.failed(name, FileKind::Snapshot, &e))?;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let bytes = self.read_exact(&*file, name, FileKind::Snapshot, 0, length)?;
        let table = ProducerStateTable::decode(&bytes);
        if table.is_none() {
            let (topic, partition) = (self.topic(), self.partition());
            tracing::warn!(%topic, %partition, file = self.files.shown(name, FileKind::Snapshot),
                "producer snapshot is damaged, going back to an earlier one");
        }
        Ok(table)
    }
}
