//! Reading entries by index: what replication and recovery of the layers above need.
//!
//! Memory first, then side file and segment. Invariant: what is returned was checked against its checksums; damage
//! stops the log.

use bytes::Bytes;

use super::super::envelope::Envelope;
use super::super::files::{FileKind, SegmentName};
use super::super::payload::entry_of;
use super::super::records::RecordFile;
use super::super::sparse_index::lookup_offset;
use super::super::{EntryHeader, EntryIndex, LogEntry, LogError, LogPosition};
use super::PartitionLog;

impl PartitionLog {
    /// Headers of `from..until`, at most `count_max`, at least one if the range holds any. May block for a read when
    /// they are not in memory.
    pub fn headers(
        &self,
        from: EntryIndex,
        until: EntryIndex,
        count_max: usize,
    ) -> Result<Vec<EntryHeader>, LogError> {
        self.prepare_range(from, until)?;
        let count = usize::try_from(until.0.saturating_sub(from.0)).unwrap_or(usize::MAX);
        let count = count.min(count_max);
        let mut headers = Vec::with_capacity(count.min(1024));
        let mut next = from;
        while headers.len() < count {
            {
                let state = self.state.lock();
                if let Some(tail) = state.tail.since_index(next) {
                    let wanted = count - headers.len();
                    headers.extend(tail.take(wanted).map(|tail| tail.envelope.to_header()));
                    break;
                }
            }
            let wanted = count - headers.len();
            let read = self.stop_if_damaged(self.read_envelopes(next, wanted, usize::MAX))?;
            let Some(last) = read.1.last() else {
                break;
            };
            next = EntryIndex(last.id.index.0 + 1);
            headers.extend(read.1.iter().map(Envelope::to_header));
        }
        Ok(headers)
    }

    /// Entries of `from..until`, at least one if the range holds any, about `bytes_max` at most. Checked against their
    /// checksums. May block for a read.
    pub fn entries(
        &self,
        from: EntryIndex,
        until: EntryIndex,
        bytes_max: usize,
    ) -> Result<Vec<LogEntry>, LogError> {
        self.prepare_range(from, until)?;
        if let Some(resident) = self.resident_entries(from, until, bytes_max) {
            return Ok(resident);
        }
        let count = usize::try_from(until.0.saturating_sub(from.0)).unwrap_or(usize::MAX);
        if count == 0 {
            return Ok(Vec::new());
        }
        let (name, envelopes) =
            self.stop_if_damaged(self.read_envelopes(from, count, bytes_max))?;
        self.stop_if_damaged(self.join_batches(name, envelopes))
    }

    /// What [`PartitionLog::entries`] would return, if that is in memory: the newest entries are, until they are in a
    /// segment. Does not block.
    pub fn resident_entries(
        &self,
        from: EntryIndex,
        until: EntryIndex,
        bytes_max: usize,
    ) -> Option<Vec<LogEntry>> {
        self.check_running().ok()?;
        let state = self.state.lock();
        let held = from > state.bounds.purged.index && until.0 <= state.bounds.last.index.0 + 1;
        if state.needs_files() || !held {
            return None;
        }
        let count = usize::try_from(until.0.saturating_sub(from.0)).ok()?;
        let mut bytes = 0_usize;
        let taken = state.tail.since_index(from)?.take(count);
        let taken = taken.take_while(|tail| {
            bytes += tail.envelope_bytes.len() + tail.envelope.batch_bytes as usize;
            bytes <= bytes_max || tail.envelope.id.index == from
        });
        Some(taken.map(|tail| tail.entry.clone()).collect())
    }

    /// The position right after an entry that is held, or after the purged ones. May block for a read.
    pub fn position_at(&self, index: EntryIndex) -> Result<LogPosition, LogError> {
        self.prepare_range(EntryIndex(index.0.saturating_add(1)), EntryIndex(index.0))?;
        self.flush()?;
        let (last, log_start) = {
            let state = self.state.lock();
            let last = state
                .id_of(index)
                .ok_or(LogError::EntryOutOfRange { index })?;
            (last, state.bounds.log_start)
        };
        let next_offset = self.next_offset_after(index)?;
        let producers = self.stop_if_damaged(self.producers_at(index))?;
        Ok(LogPosition {
            last,
            next_offset,
            log_start: log_start.min(next_offset),
            producers,
        })
    }

    /// Offset of the first record after an entry that is held, or after the purged ones.
    pub(super) fn next_offset_after(
        &self,
        index: EntryIndex,
    ) -> Result<tidelog_protocol::types::Offset, LogError> {
        let next = EntryIndex(index.0.saturating_add(1));
        let bounds = self.bounds();
        if index == bounds.last.index {
            return Ok(bounds.log_end);
        }
        let header = self
            .headers(next, EntryIndex(next.0 + 1), 1)?
            .into_iter()
            .next();
        header
            .map(|header| header.base_offset)
            .ok_or(LogError::EntryOutOfRange { index })
    }

    /// Offset of the first record after an entry, where it can be told without a look at files: near the end of the log.
    pub fn resident_offset_after(
        &self,
        index: EntryIndex,
    ) -> Option<tidelog_protocol::types::Offset> {
        let state = self.state.lock();
        if index == state.bounds.last.index {
            return Some(state.bounds.log_end);
        }
        let mut tail = state
            .tail
            .since_index(EntryIndex(index.0.checked_add(1)?))?;
        tail.next().map(|next| next.envelope.base_offset)
    }

    /// Bytes of records after an entry, where that can be told without a look at files: near the end of the log.
    pub fn resident_bytes_after(&self, index: EntryIndex) -> Option<u64> {
        let state = self.state.lock();
        if index == state.bounds.last.index {
            return Some(0);
        }
        let next = EntryIndex(index.0.checked_add(1)?);
        let after = state.tail.since_index(next)?;
        Some(after.map(|it| u64::from(it.envelope.batch_bytes)).sum())
    }

    /// Checks that a range is held, and reads the files if that is necessary.
    fn prepare_range(&self, from: EntryIndex, until: EntryIndex) -> Result<(), LogError> {
        self.check_running()?;
        self.load_if_needed()?;
        let bounds = self.bounds();
        let past_end = until.0 > bounds.last.index.0.saturating_add(1);
        if from <= bounds.purged.index && from < until {
            return Err(LogError::EntryOutOfRange { index: from });
        }
        if past_end && from < until {
            return Err(LogError::EntryOutOfRange {
                index: EntryIndex(until.0 - 1),
            });
        }
        Ok(())
    }

    /// Bytes of a side file that are in the file.
    pub(super) fn side_end(&self, name: SegmentName) -> Result<u64, LogError> {
        if let Some(open) = self.state.lock().segments.open(name) {
            return Ok(open.written.side);
        }
        match self.files.open_if_exists(name, FileKind::Entries)? {
            Some(file) => file
                .len()
                .map_err(|e| self.files.failed(name, FileKind::Entries, &e)),
            None => Ok(0),
        }
    }

    /// Envelopes from `from` on, of one segment, about `bytes_max` of entries at most.
    fn read_envelopes(
        &self,
        from: EntryIndex,
        count_max: usize,
        bytes_max: usize,
    ) -> Result<(SegmentName, Vec<Envelope>), LogError> {
        let found = self.state.lock().segments.find_entry(from);
        let (name, _) = found.ok_or(LogError::EntryOutOfRange { index: from })?;
        let end = self.side_end(name)?;
        let start = self.lookup_entry(name, from)?;
        let collected = self.collect_envelopes(name, start, end, from, count_max, bytes_max);
        // The index led astray, or the damage is real: from the beginning, the side file speaks for itself.
        let is_astray = match &collected {
            Ok(envelopes) => envelopes.is_empty(),
            Err(error) => matches!(error, LogError::Corrupt { .. }),
        };
        let envelopes = if is_astray && start > 0 {
            self.collect_envelopes(name, 0, end, from, count_max, bytes_max)?
        } else {
            collected?
        };
        if envelopes.is_empty() {
            let reason = format!("entry {} is missing", from.0);
            return Err(self.files.corrupt(name, FileKind::Entries, end, &reason));
        }
        Ok((name, envelopes))
    }

    fn collect_envelopes(
        &self,
        name: SegmentName,
        start: u64,
        end: u64,
        from: EntryIndex,
        count_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Envelope>, LogError> {
        let mut envelopes: Vec<Envelope> = Vec::new();
        let mut bytes = 0_usize;
        self.walk_side_file(name, start, end, |envelope, _| {
            if envelope.id.index < from {
                return Ok(true);
            }
            if envelope.id.index.0 != from.0 + envelopes.len() as u64 {
                return Err("entry is not the expected one");
            }
            bytes = bytes
                .saturating_add(envelope.encoded_bytes())
                .saturating_add(envelope.batch_bytes as usize);
            if bytes > bytes_max && !envelopes.is_empty() {
                return Ok(false);
            }
            envelopes.push(envelope);
            Ok(envelopes.len() < count_max)
        })?;
        Ok(envelopes)
    }

    fn lookup_entry(&self, name: SegmentName, index: EntryIndex) -> Result<u64, LogError> {
        let relative = index.0.saturating_sub(name.first.0);
        if let Some(open) = self.state.lock().segments.open(name) {
            return Ok(open.entries.lookup(relative));
        }
        let search = |read: &dyn Fn(&mut [u8], u64) -> std::io::Result<usize>, bytes| {
            lookup_offset(read, bytes, relative)
        };
        Ok(self
            .search_index(name, FileKind::EntryIndex, search)?
            .unwrap_or(0))
    }

    /// Reads the batches of consecutive envelopes of one segment in one go.
    pub(super) fn join_batches(
        &self,
        name: SegmentName,
        envelopes: Vec<Envelope>,
    ) -> Result<Vec<LogEntry>, LogError> {
        let batches = || envelopes.iter().filter(|envelope| envelope.batch_bytes > 0);
        let from = batches().next().map_or(0, |first| first.log_position);
        let to = batches()
            .next_back()
            .map_or(0, |last| last.log_position + u64::from(last.batch_bytes));
        let bytes = if to > from {
            let file = RecordFile::open(&self.files, name, to)?;
            let file = file.ok_or_else(|| {
                self.files
                    .corrupt(name, FileKind::Log, 0, "file is missing")
            })?;
            file.read(from, usize::try_from(to - from).unwrap_or(usize::MAX))?
        } else {
            Bytes::new()
        };
        let mut entries = Vec::with_capacity(envelopes.len());
        for envelope in envelopes {
            let position = envelope.log_position;
            let batch = if envelope.batch_bytes > 0 {
                let at = usize::try_from(position.saturating_sub(from)).unwrap_or(usize::MAX);
                let end = at.saturating_add(envelope.batch_bytes as usize);
                (end <= bytes.len()).then(|| bytes.slice(at..end))
            } else {
                Some(Bytes::new())
            };
            let joined = batch.ok_or("entries are not in order".to_owned());
            let joined = joined.and_then(|batch| entry_of(envelope, batch));
            let entry = joined
                .map_err(|reason| self.files.corrupt(name, FileKind::Log, position, &reason))?;
            entries.push(entry);
        }
        Ok(entries)
    }

    /// Writes everything that was appended before the call to files.
    pub(crate) fn flush(&self) -> Result<(), LogError> {
        self.load_if_needed()?;
        let flushed = {
            let mut writing = self.writing.lock();
            let last = self.state.lock().bounds.last.index;
            self.drain_to(&mut writing, last)
        };
        flushed.map_err(|error| self.stop_unless_no_room(error))
    }
}
