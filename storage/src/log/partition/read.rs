//! Reading batches by offset: what Fetch returns.
//!
//! Recent batches come from memory, older ones as one run of bytes from a segment, without decoding. Invariant: whole
//! batches only, and none that ends after `upto`.

use std::collections::VecDeque;

use tidelog_protocol::batch::BatchHeader;
use tidelog_protocol::types::{Offset, TimestampMs};

use super::super::files::{FileKind, SegmentName};
use super::super::records::RecordFile;
use super::super::sparse_index::{last_time, lookup_offset};
use super::super::state::{SegmentExtent, State};
use super::super::{EntryIndex, LogError, ProducerStateTable, ReadData};
use super::PartitionLog;

/// Readers whose next position is remembered: more than usually catch up on one partition at a time.
const HINTS_MAX: usize = 16;

/// Where reads of segments ended, so that the next one in a row needs no index.
#[derive(Debug, Default)]
pub(super) struct ReadHints(VecDeque<(Offset, SegmentName, u64)>);

impl ReadHints {
    pub(super) fn take(&mut self, offset: Offset, name: SegmentName) -> Option<u64> {
        let at = self
            .0
            .iter()
            .position(|(next, segment, _)| (*next, *segment) == (offset, name))?;
        self.0.remove(at).map(|(_, _, position)| position)
    }

    pub(super) fn put(&mut self, offset: Offset, name: SegmentName, position: u64) {
        if self.0.len() >= HINTS_MAX {
            self.0.pop_front();
        }
        self.0.push_back((offset, name, position));
    }
}

/// What one read asks for.
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    pub(super) from: Offset,
    pub(super) upto: Offset,
    pub(super) bytes_max: usize,
    pub(super) at_least_one: bool,
}

impl PartitionLog {
    /// Reads whole batches of `from..upto` from memory; `None` means that a disk must be read. The first batch is the
    /// one that holds `from`. Nothing at `upto` and at the end of the log.
    pub fn try_read_cached(
        &self,
        from: Offset,
        upto: Offset,
        bytes_max: usize,
        at_least_one: bool,
    ) -> Option<Result<ReadData, LogError>> {
        if let Err(error) = self.check_running() {
            return Some(Err(error));
        }
        read_memory(
            &self.state.lock(),
            Wanted {
                from,
                upto,
                bytes_max,
                at_least_one,
            },
        )
    }

    /// Reads whole batches of `from..upto`; blocks. The first batch is the one that holds `from`. Nothing at `upto` and
    /// at the end of the log.
    pub fn read_blocking(
        &self,
        from: Offset,
        upto: Offset,
        bytes_max: usize,
        at_least_one: bool,
    ) -> Result<ReadData, LogError> {
        self.check_running()?;
        self.load_if_needed()?;
        let wanted = Wanted {
            from,
            upto,
            bytes_max,
            at_least_one,
        };
        let mut name = {
            let state = self.state.lock();
            if let Some(found) = read_memory(&state, wanted) {
                return found;
            }
            state.segments.find_offset(from)
        };
        while let Some(segment) = name {
            let end = self.extent_or_stop(segment)?.log_bytes;
            let read = self.read_segment(segment, end, wanted);
            let read = read.and_then(|read| match read {
                Some(data) => Ok(Some(data)),
                // Nothing at or behind the offset in this segment: the next one begins behind it.
                None => self.check_ends_before(segment, from).map(|()| None),
            });
            if let Some(data) = self.stop_if_still_damaged(segment, end, read)? {
                return Ok(data);
            }
            name = self.state.lock().segments.find_next(segment, from);
        }
        Ok(ReadData {
            next_offset: from,
            ..ReadData::default()
        })
    }

    /// What a segment holds. Damage of one that nothing is being cut off stops the log.
    fn extent_or_stop(&self, name: SegmentName) -> Result<SegmentExtent, LogError> {
        let extent = self.extent(name);
        if extent.is_err() && !self.is_closed(name) {
            return extent;
        }
        self.stop_if_damaged(extent)
    }

    fn is_closed(&self, name: SegmentName) -> bool {
        let state = self.state.lock();
        state
            .segments
            .closed
            .iter()
            .any(|closed| closed.name == name)
    }

    /// A segment without anything at or behind an offset ends there, if it is one whose offsets have no gaps and that
    /// is still the log's: else what it held is lost, and nobody may be led past it.
    fn check_ends_before(&self, name: SegmentName, offset: Offset) -> Result<(), LogError> {
        let (is_closed, end) = {
            let state = self.state.lock();
            let mut later = state.segments.names().skip_while(|other| *other != name);
            // Settled segments have gaps; what they must hold in bytes is known.
            let Some(next) = later.next().and_then(|_| later.next()) else {
                return Ok(());
            };
            (state.segments.open(name).is_none(), next.base)
        };
        if !is_closed || end <= offset {
            return Ok(());
        }
        let bytes = self.extent(name)?.log_bytes;
        let reason = format!("nothing is left of the records from offset {offset} to {end}");
        Err(self.files.corrupt(name, FileKind::Log, bytes, &reason))
    }

    /// Whether a segment's records may still be in memory, and its file is written to.
    fn is_open(&self, name: SegmentName) -> bool {
        self.state.lock().segments.open(name).is_some()
    }

    /// Whether records of a segment are on the list of settled ones, so that its file must be there.
    fn is_settled(&self, name: SegmentName) -> bool {
        self.state.lock().segments.settled.extent(name).is_some()
    }

    /// Stops the log at damage, unless the segment was cut or replaced while it was read.
    fn stop_if_still_damaged<T>(
        &self,
        name: SegmentName,
        end: u64,
        read: Result<T, LogError>,
    ) -> Result<T, LogError> {
        let is_held = self
            .state
            .lock()
            .segments
            .all_names()
            .any(|held| held == name);
        if is_held && self.extent(name)?.log_bytes >= end {
            self.stop_if_damaged(read)
        } else {
            read
        }
    }

    fn read_segment(
        &self,
        name: SegmentName,
        end: u64,
        wanted: Wanted,
    ) -> Result<Option<ReadData>, LogError> {
        let Some(mut records) = RecordFile::open(&self.files, name, end)? else {
            return if end > 0 && (self.is_settled(name) || self.is_open(name)) {
                Err(self
                    .files
                    .corrupt(name, FileKind::Log, 0, "file is missing"))
            } else {
                Ok(None)
            };
        };
        let hint = self.hints.lock().take(wanted.from, name);
        let Some((position, first)) = self.find_batch(&mut records, name, wanted.from, hint)?
        else {
            return Ok(None);
        };
        let nothing = ReadData {
            next_offset: wanted.from,
            ..ReadData::default()
        };
        let is_dense = !self.is_settled(name);
        // Before the segment there may be settled ones, which have gaps.
        if is_dense && first.base_offset() > wanted.from.max(name.base) {
            let reason = format!("holds offset {}, not {}", first.base_offset(), wanted.from);
            return Err(records.corrupt(position, &reason));
        }
        let first_bytes = first.size_bytes();
        if first.next_offset() > wanted.upto
            || (first_bytes > wanted.bytes_max && !wanted.at_least_one)
        {
            return Ok(Some(nothing));
        }
        let left = usize::try_from(records.left(position)).unwrap_or(usize::MAX);
        let mut bytes = records.read(position, wanted.bytes_max.max(first_bytes).min(left))?;
        let (whole, next_offset) = whole_batches(&bytes, wanted, is_dense);
        bytes.truncate(whole);
        self.hints
            .lock()
            .put(next_offset, name, position + whole as u64);
        Ok(Some(ReadData {
            size_bytes: whole,
            pieces: vec![bytes],
            next_offset,
        }))
    }

    /// The first batch of a segment that ends after an offset. An index that leads astray is not believed.
    pub(super) fn find_batch(
        &self,
        records: &mut RecordFile<'_>,
        name: SegmentName,
        offset: Offset,
        hint: Option<u64>,
    ) -> Result<Option<(u64, BatchHeader)>, LogError> {
        let from = match hint {
            Some(position) => position,
            None => self.lookup_position(name, offset)?,
        };
        if from > 0 {
            let fits = |header: &BatchHeader| {
                header.base_offset() <= offset && header.base_offset() >= name.base
            };
            match records.header_at(from) {
                Ok(Some(header)) if fits(&header) => return records.find(from, offset),
                Ok(_) | Err(LogError::Corrupt { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        records.find(0, offset)
    }

    fn lookup_position(&self, name: SegmentName, offset: Offset) -> Result<u64, LogError> {
        let relative = u64::try_from(offset.0.saturating_sub(name.base.0)).unwrap_or(0);
        if let Some(open) = self.state.lock().segments.open(name) {
            return Ok(open.offsets.lookup(relative));
        }
        self.search_index(name, FileKind::Index, |read, bytes| {
            lookup_offset(read, bytes, relative)
        })
        .map(|found| found.unwrap_or(0))
    }

    /// Searches an index file; `None` if it is missing.
    pub(super) fn search_index<T>(
        &self,
        name: SegmentName,
        kind: FileKind,
        search: impl FnOnce(
            &dyn Fn(&mut [u8], u64) -> std::io::Result<usize>,
            u64,
        ) -> std::io::Result<T>,
    ) -> Result<Option<T>, LogError> {
        let Some(file) = self.files.open_if_exists(name, kind)? else {
            return Ok(None);
        };
        let found = file
            .len()
            .and_then(|bytes| search(&|buf, at| file.read_at(buf, at), bytes));
        found
            .map(Some)
            .map_err(|error| self.files.failed(name, kind, &error))
    }

    /// The segment that begins after another one.
    pub(super) fn segment_after(&self, name: SegmentName) -> Option<SegmentName> {
        let state = self.state.lock();
        state.segments.names().find(|next| *next > name)
    }

    /// What the files of a segment hold by now.
    pub(super) fn extent(&self, name: SegmentName) -> Result<SegmentExtent, LogError> {
        let known = known_extent(&self.state.lock(), name);
        if let Some(extent) = known {
            return Ok(extent);
        }
        let extent = self.read_extent(name)?;
        let mut state = self.state.lock();
        let closed = state
            .segments
            .closed
            .iter_mut()
            .find(|closed| closed.name == name);
        if let Some(closed) = closed {
            closed.extent = Some(extent);
        }
        Ok(extent)
    }

    fn read_extent(&self, name: SegmentName) -> Result<SegmentExtent, LogError> {
        let Some(file) = self.files.open_if_exists(name, FileKind::Log)? else {
            return Ok(GONE);
        };
        let log_bytes = file
            .len()
            .map_err(|e| self.files.failed(name, FileKind::Log, &e))?;
        // Segments without records share the files of the next one that begins at the same offset.
        if self
            .segment_after(name)
            .is_some_and(|next| next.base == name.base)
        {
            return Ok(GONE);
        }
        let last = self.search_index(name, FileKind::TimeIndex, |read, bytes| {
            last_time(read, bytes, name.base)
        })?;
        // The index may have lost its end: what is behind its last entry is looked at, which usually is nothing.
        let from = match last.flatten() {
            Some((time, last)) => self.confirm(name, log_bytes, time, last)?,
            None => None,
        };
        self.scan_extent(name, log_bytes, from.unwrap_or(0))
    }

    /// Position of the batch that ends with an offset, if it has the largest timestamp that a time index says it has:
    /// retention would delete by a wrong one.
    pub(super) fn confirm(
        &self,
        name: SegmentName,
        end: u64,
        timestamp: TimestampMs,
        last: Offset,
    ) -> Result<Option<u64>, LogError> {
        let Some(mut records) = RecordFile::open(&self.files, name, end)? else {
            return Ok(None);
        };
        let found = self.find_batch(&mut records, name, last, None)?;
        let found = found.filter(|(_, header)| {
            header.max_timestamp() == timestamp && header.last_offset() == last
        });
        Ok(found.map(|(position, _)| position))
    }

    /// The largest timestamp from a position on, as batches say: from the beginning where the time index is missing or
    /// not true.
    fn scan_extent(
        &self,
        name: SegmentName,
        log_bytes: u64,
        from: u64,
    ) -> Result<SegmentExtent, LogError> {
        let mut extent = SegmentExtent {
            log_bytes,
            offset_of_max: name.base,
            ..GONE
        };
        let Some(mut records) = RecordFile::open(&self.files, name, log_bytes)? else {
            return Ok(GONE);
        };
        let mut position = from;
        while let Some(header) = records.header_at(position)? {
            if header.max_timestamp() > extent.max_timestamp {
                extent.max_timestamp = header.max_timestamp();
                extent.offset_of_max = header.last_offset();
            }
            position += header.size_bytes() as u64;
        }
        Ok(extent)
    }

    /// Records the producers of a segment's batches whose entries are in `(purged, upto]`.
    pub(super) fn record_producers(
        &self,
        name: SegmentName,
        upto: EntryIndex,
        purged: EntryIndex,
        table: &mut ProducerStateTable,
    ) -> Result<(), LogError> {
        let (mut first, mut end) = (None, 0);
        let side_end = self.side_end(name)?;
        self.walk_side_file(name, 0, side_end, |envelope, _| {
            if envelope.id.index <= upto && envelope.batch_bytes > 0 {
                if envelope.id.index > purged {
                    first = first.or(Some(envelope.log_position));
                }
                end = envelope.log_position + u64::from(envelope.batch_bytes);
            }
            // Not one entry further: behind a cut there may be anything.
            Ok(envelope.id.index < upto)
        })?;
        let (Some(mut position), Some(mut records)) =
            (first, RecordFile::open(&self.files, name, end)?)
        else {
            return Ok(());
        };
        while let Some(header) = records.header_at(position)? {
            table.record(&header, header.base_offset());
            position += header.size_bytes() as u64;
        }
        Ok(())
    }
}

/// Extent of a segment without records, or one that was deleted meanwhile.
const GONE: SegmentExtent = SegmentExtent {
    log_bytes: 0,
    max_timestamp: tidelog_protocol::types::TimestampMs::NONE,
    offset_of_max: Offset(0),
};

/// What the files of a segment hold by now; `None` if they were not looked at yet.
pub(super) fn known_extent(state: &State, name: SegmentName) -> Option<SegmentExtent> {
    let segments = &state.segments;
    if let Some(extent) = segments.settled.extent(name) {
        return Some(extent);
    }
    if let Some(open) = segments.open(name) {
        return Some(SegmentExtent {
            log_bytes: open.written.log,
            max_timestamp: open.max_timestamp,
            offset_of_max: open.offset_of_max,
        });
    }
    let at = (segments.closed).binary_search_by_key(&name, |closed| closed.name);
    match at.ok().and_then(|at| segments.closed.get(at)) {
        Some(closed) => closed.extent,
        None => Some(GONE),
    }
}

/// How many bytes at the front are whole batches that end before `upto`, and the offset behind them.
pub(super) fn whole_batches(bytes: &[u8], wanted: Wanted, is_dense: bool) -> (usize, Offset) {
    let (mut whole, mut next_offset) = (0, wanted.from);
    while let Ok(header) = BatchHeader::parse(&bytes[whole..]) {
        let after = whole.saturating_add(header.size_bytes());
        // Offsets are not under the batch's checksum: one that does not follow is not passed on.
        let follows = whole == 0 || header.base_offset() == next_offset;
        let follows = follows || (!is_dense && header.base_offset() > next_offset);
        if after > bytes.len() || header.next_offset() > wanted.upto || !follows {
            break;
        }
        (whole, next_offset) = (after, header.next_offset());
    }
    (whole, next_offset)
}

/// Answers from memory where that is possible.
pub(super) fn read_memory(state: &State, wanted: Wanted) -> Option<Result<ReadData, LogError>> {
    let bounds = state.bounds;
    let Wanted {
        from,
        upto,
        bytes_max,
        at_least_one,
    } = wanted;
    if from < bounds.log_start || from > bounds.log_end {
        let (offset, start, end) = (from, bounds.log_start, bounds.log_end);
        return Some(Err(LogError::OffsetOutOfRange { offset, start, end }));
    }
    let mut data = ReadData {
        next_offset: from,
        ..ReadData::default()
    };
    if from >= upto.min(bounds.log_end) {
        return Some(Ok(data));
    }
    for tail in state.tail.since_offset(from)? {
        if tail.head.is_empty() {
            continue;
        }
        let bytes = tail.envelope.batch_bytes as usize;
        let too_large =
            data.size_bytes + bytes > bytes_max && !(at_least_one && data.size_bytes == 0);
        if tail.envelope.next_offset() > upto || too_large {
            break;
        }
        data.pieces.extend([tail.head.clone(), tail.records()]);
        data.size_bytes += bytes;
        data.next_offset = tail.envelope.next_offset();
    }
    Some(Ok(data))
}
