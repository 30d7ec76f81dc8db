//! Looking at everything that a log has in files, which nobody does while it runs.
//!
//! Uses the readers of recovery and of compaction, and goes on behind damage to find more of it. Changes nothing in
//! the files but what waits to be written.

use std::collections::{HashMap, HashSet};

use tidelog_protocol::types::{Offset, TimestampMs};

use super::super::LogError;
use super::super::cleaner::CleanerPace;
use super::super::envelope::Envelope;
use super::super::files::{FileKind, SegmentName};
use super::super::payload::SegmentEnd;
use super::super::producer::ProducerStateTable;
use super::super::segment::OpenSegment;
use super::super::settled::SettledSegment;
use super::super::sparse_index::{OFFSET_ENTRY_BYTES, TIME_ENTRY_BYTES};
use super::PartitionLog;
use super::rewrite::{Batches, placed};

/// Batch bytes looked at together.
const CHUNK_BYTES: u64 = 4 << 20;

/// What damage does to a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Harm {
    /// The log stops.
    Stops,
    /// Reads and compaction of these records fail; the log stops when it meets them.
    Unreadable,
    /// Nothing: the file only saves work.
    None,
}

/// What was looked at.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Verified {
    pub segments: u64,
    pub entries: u64,
    pub batches: u64,
    pub bytes: u64,
}

/// Where the batches of a segment are, to hold its indexes against.
#[derive(Default)]
struct Places {
    /// Last offset of each batch, by position.
    batches: HashMap<u64, Offset>,
    /// Largest timestamp and last offset of each batch.
    times: HashSet<(i64, Offset)>,
    /// Index of each entry, by the position of its envelope.
    entries: HashMap<u64, u64>,
}

impl Places {
    fn add_batch(&mut self, position: u64, last: Offset, max_timestamp: TimestampMs) {
        self.batches.insert(position, last);
        self.times.insert((max_timestamp.0, last));
    }
}

impl PartitionLog {
    /// Checks every file of the log and tells of each damage. Blocks.
    pub(crate) fn verify(&self, tell: &mut dyn FnMut(LogError, Harm)) -> Verified {
        let mut verified = Verified::default();
        if let Err(error) = self.flush() {
            tell(error, Harm::Stops);
            return verified;
        }
        let (settled, end, names) = {
            let state = self.state.lock();
            if !state.has_files {
                return verified;
            }
            let names: Vec<SegmentName> = state.segments.names().collect();
            let segments = &state.segments;
            (segments.settled.clone(), segments.settled_end(), names)
        };
        for (segment, end) in settled.with_ends(end) {
            verified.segments += 1;
            if let Err(error) = self.verify_settled(segment, end, &mut verified, tell) {
                tell(error, Harm::Unreadable);
            }
        }
        let nexts = names.iter().skip(1).copied().map(Some).chain([None]);
        for (name, next) in names.iter().copied().zip(nexts) {
            verified.segments += 1;
            if let Err(error) = self.verify_segment(name, next, &mut verified, tell) {
                tell(error, Harm::Stops);
            }
            self.verify_snapshot(name, tell);
        }
        verified
    }

    fn verify_settled(
        &self,
        segment: &SettledSegment,
        end: Offset,
        verified: &mut Verified,
        tell: &mut dyn FnMut(LogError, Harm),
    ) -> Result<(), LogError> {
        let name = segment.name;
        let corrupt =
            |position, reason: &str| Err(self.files.corrupt(name, FileKind::Log, position, reason));
        let Some(mut batches) = Batches::of(self, segment)? else {
            return corrupt(0, "file is missing");
        };
        let pace = CleanerPace::new(0, f64::INFINITY);
        let interval = self.config().index_interval_bytes;
        let mut open = OpenSegment::new(name, None);
        let mut places = Places::default();
        let mut next_offset = name.base;
        while let Some((position, batch)) = batches.next(self, &pace)? {
            if batch.base_offset() < next_offset || batch.last_offset() >= end {
                return corrupt(position, "batch is out of the order of offsets");
            }
            next_offset = Offset(batch.last_offset().0.saturating_add(1));
            places.add_batch(position, batch.last_offset(), batch.max_timestamp());
            open.place(&placed(&batch), interval);
            verified.batches += 1;
            verified.bytes += batch.size_bytes() as u64;
        }
        open.seal();
        self.verify_batch_indexes(name, &open, &places, tell)
    }

    fn verify_segment(
        &self,
        name: SegmentName,
        next: Option<SegmentName>,
        verified: &mut Verified,
        tell: &mut dyn FnMut(LogError, Harm),
    ) -> Result<(), LogError> {
        let end = SegmentEnd {
            name,
            log_bytes: self.extent(name)?.log_bytes,
            side_bytes: self.side_end(name)?,
        };
        // The end of a record file may be lost, and what is left of it be whole.
        let log_bytes = self.log_bytes_of(name, end.side_bytes)?;
        if log_bytes > end.log_bytes {
            let reason = format!("file is cut, its entries end at byte {log_bytes}");
            return Err(self
                .files
                .corrupt(name, FileKind::Log, end.log_bytes, &reason));
        }
        let mut scanned = self.scan_segment(end)?;
        let ends = (
            scanned.last.map(|last| last.index.0 + 1),
            scanned.next_offset,
        );
        if let Some(next) = next
            && ends != (Some(next.first.0), next.base)
        {
            let reason = format!(
                "ends before entry {:?} and offset {}, the next segment begins with {} and {}",
                ends.0, ends.1, next.first.0, next.base
            );
            return Err(self
                .files
                .corrupt(name, FileKind::Entries, end.side_bytes, &reason));
        }
        let places = self.verify_batches(name, end.side_bytes, verified)?;
        if next.is_some() {
            // Those of the last segment are made anew at each start.
            scanned.open.seal();
            let open = &scanned.open;
            self.verify_index(
                name,
                FileKind::EntryIndex,
                &open.entries.bytes_from(0),
                &places,
                tell,
            )?;
            if open.log_end > 0 {
                self.verify_batch_indexes(name, open, &places, tell)?;
            }
        }
        Ok(())
    }

    /// Where the batches of a segment end, as its side file says.
    fn log_bytes_of(&self, name: SegmentName, side_bytes: u64) -> Result<u64, LogError> {
        let mut log_bytes = 0;
        self.walk_side_file(name, 0, side_bytes, |envelope, _| {
            if envelope.batch_bytes > 0 {
                log_bytes = envelope
                    .log_position
                    .saturating_add(u64::from(envelope.batch_bytes));
            }
            Ok(true)
        })?;
        Ok(log_bytes)
    }

    /// Reads all batches of a segment and holds them against their envelopes.
    fn verify_batches(
        &self,
        name: SegmentName,
        side_bytes: u64,
        verified: &mut Verified,
    ) -> Result<Places, LogError> {
        let mut places = Places::default();
        let mut from = 0;
        loop {
            let mut chunk: Vec<Envelope> = Vec::new();
            let (mut bytes, mut next) = (0, None);
            self.walk_side_file(name, from, side_bytes, |envelope, position| {
                if bytes >= CHUNK_BYTES {
                    next = Some(position);
                    return Ok(false);
                }
                places.entries.insert(position, envelope.id.index.0);
                if envelope.batch_bytes > 0 {
                    let last = Offset(envelope.next_offset().0 - 1);
                    places.add_batch(envelope.log_position, last, envelope.max_timestamp);
                    verified.batches += 1;
                }
                bytes += u64::from(envelope.batch_bytes) + envelope.encoded_bytes() as u64;
                chunk.push(envelope);
                Ok(true)
            })?;
            verified.entries += chunk.len() as u64;
            verified.bytes += bytes;
            self.join_batches(name, chunk)?;
            match next {
                Some(position) => from = position,
                None => return Ok(places),
            }
        }
    }

    /// Verifies what leads from offsets and timestamps to batches.
    fn verify_batch_indexes(
        &self,
        name: SegmentName,
        open: &OpenSegment,
        places: &Places,
        tell: &mut dyn FnMut(LogError, Harm),
    ) -> Result<(), LogError> {
        let offsets = open.offsets.bytes_from(0);
        self.verify_index(name, FileKind::Index, &offsets, places, tell)?;
        let times = open.times.bytes_from(0);
        self.verify_index(name, FileKind::TimeIndex, &times, places, tell)
    }

    /// Holds an index against what it would be if it were made now: the same, a part of it, or one that was made with
    /// another interval and leads to the right places.
    fn verify_index(
        &self,
        name: SegmentName,
        kind: FileKind,
        expected: &[u8],
        places: &Places,
        tell: &mut dyn FnMut(LogError, Harm),
    ) -> Result<(), LogError> {
        let file = self.files.open_if_exists(name, kind)?;
        let is_missing = file.is_none();
        let bytes = match file {
            Some(file) => {
                let failed = |error| self.files.failed(name, kind, &error);
                let length = usize::try_from(file.len().map_err(failed)?).unwrap_or(usize::MAX);
                file.read_vec(length, 0).map_err(failed)?
            }
            None => Vec::new(),
        };
        if bytes == expected {
            return Ok(());
        }
        let (position, reason) = if is_missing {
            (0, "file is missing")
        } else if expected.starts_with(&bytes) {
            (bytes.len(), "file is cut")
        } else {
            match first_wrong(name, kind, &bytes, places) {
                Some(position) => (position, "entry leads to no batch or entry"),
                None => return Ok(()),
            }
        };
        tell(
            self.files.corrupt(name, kind, position as u64, reason),
            Harm::None,
        );
        Ok(())
    }

    /// One that is missing cannot be told from one that was never made.
    fn verify_snapshot(&self, name: SegmentName, tell: &mut dyn FnMut(LogError, Harm)) {
        let kind = FileKind::Snapshot;
        let Ok(Some(file)) = self.files.open_if_exists(name, kind) else {
            return;
        };
        let length = file
            .len()
            .ok()
            .and_then(|bytes| usize::try_from(bytes).ok());
        let bytes = file.read_vec(length.unwrap_or(0), 0).unwrap_or_default();
        if ProducerStateTable::decode(&bytes).is_none() {
            let reason = "snapshot is damaged";
            tell(self.files.corrupt(name, kind, 0, reason), Harm::None);
        }
    }
}

/// Position of the first entry of an index that says something wrong.
fn first_wrong(name: SegmentName, kind: FileKind, bytes: &[u8], places: &Places) -> Option<usize> {
    let size = if kind == FileKind::TimeIndex {
        TIME_ENTRY_BYTES
    } else {
        OFFSET_ENTRY_BYTES
    };
    let whole = bytes.len() - bytes.len() % size;
    let mut before = None;
    for (at, entry) in bytes.chunks_exact(size).enumerate() {
        let (key, low) = entry.split_at(size - 4);
        let number = |bytes: &[u8]| {
            bytes
                .iter()
                .fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte))
        };
        let (key, value) = (number(key), number(low));
        let offset = |relative: u64| Offset(name.base.0.saturating_add_unsigned(relative));
        let fits = match kind {
            FileKind::Index => places.batches.get(&value) == Some(&offset(key)),
            FileKind::TimeIndex => places.times.contains(&(key.cast_signed(), offset(value))),
            _ => places.entries.get(&value) == Some(&name.first.0.saturating_add(key)),
        };
        if !fits || before.is_some_and(|before| before >= key) {
            return Some(at * size);
        }
        before = Some(key);
    }
    (whole < bytes.len()).then_some(whole)
}
