//! Compaction of the settled segments of a log.
//!
//! A pass reads what it has not seen and notes the newest offset of each key, then rewrites all settled segments up
//! to there, some neighbours at a time, into new files that take their places (see `settle`). Memory: the map, one
//! read and one write buffer. Appends, reads and checkpoints go on meanwhile; when segments go under its hands the
//! pass ends. Invariant: a file of records is replaced only by one that was written whole and synced.

use std::collections::HashMap;
use std::io::IoSlice;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use metrics::{counter, histogram};
use tidelog_protocol::batch::{BatchHeader, HEADER_BYTES, RecordBatch, Scratch};
use tidelog_protocol::types::{Offset, TimestampMs};

use super::super::cleaner::{CleanStats, CleanerPace, Fate, Filter, OffsetMap};
use super::super::envelope::Envelope;
use super::super::files::{FileKind, SegmentName};
use super::super::segment::OpenSegment;
use super::super::settled::SettledSegment;
use super::super::state::SegmentExtent;
use super::super::{EntryId, LogError};
use super::PartitionLog;
use super::settle::Replacement;
use crate::fs::File;

/// Bytes read at once.
const READ_BYTES: usize = 1 << 20;
/// Bytes written at once.
const WRITE_BYTES: usize = 1 << 20;

/// A pass on its way.
struct Pass {
    filter: Filter,
    pace: Arc<CleanerPace>,
    scratch: Scratch,
    stats: CleanStats,
    /// What is left to do, in order.
    groups: std::vec::IntoIter<Vec<SettledSegment>>,
}

/// What became of some neighbours.
enum Cleaned {
    /// Nothing has to change.
    AsBefore,
    /// These files take their places.
    Replaced(Replacement),
    /// They are not there any more.
    Interrupted,
}

impl PartitionLog {
    /// Compacts what is settled below `upto`. Damage that is met stops the pass, not the log: what is stored stays as
    /// it is, and its readers check what they get.
    pub async fn clean(
        &self,
        pace: Arc<CleanerPace>,
        upto: Offset,
        now: TimestampMs,
    ) -> Result<CleanStats, LogError> {
        let began = Instant::now();
        let stats = self.run_pass(pace, upto, now).await?;
        counter!("tidelog_compaction_passes_total").increment(1);
        counter!("tidelog_compaction_bytes_read_total").increment(stats.bytes_before);
        counter!("tidelog_compaction_bytes_removed_total")
            .increment(stats.bytes_before.saturating_sub(stats.bytes_after));
        counter!("tidelog_compaction_records_removed_total")
            .increment(stats.records_read.saturating_sub(stats.records_kept));
        histogram!("tidelog_compaction_pass_seconds").record(began.elapsed().as_secs_f64());
        Ok(stats)
    }

    async fn run_pass(
        &self,
        pace: Arc<CleanerPace>,
        upto: Offset,
        now: TimestampMs,
    ) -> Result<CleanStats, LogError> {
        let begun = self
            .blocking(move |log| log.begin_pass(pace, upto, now))
            .await?;
        let Some(mut pass) = begun else {
            return Ok(CleanStats::default());
        };
        loop {
            let (mut after, cleaned) = self
                .blocking(move |log| {
                    let cleaned = match pass.groups.next() {
                        Some(group) => Some(log.clean_group(&mut pass, &group)?),
                        None => None,
                    };
                    Ok((pass, cleaned))
                })
                .await?;
            let change = match cleaned {
                Some(Cleaned::AsBefore) => {
                    pass = after;
                    continue;
                }
                Some(Cleaned::Interrupted) => return Ok(after.stats),
                Some(Cleaned::Replaced(change)) => change,
                None => {
                    after.scratch.trim();
                    let seen = Replacement {
                        sources: Vec::new(),
                        made: None,
                        first_dirty: Some(after.filter.map.end()),
                    };
                    self.replace(seen).await?;
                    return Ok(after.stats);
                }
            };
            if !self.replace(change).await? {
                return Ok(after.stats);
            }
            pass = after;
        }
    }

    fn stop_unless_full(&self, error: LogError) -> LogError {
        match error {
            LogError::NoSpace(_) => error,
            other => self.stop(other),
        }
    }

    async fn replace(&self, change: Replacement) -> Result<bool, LogError> {
        let _turn = self.turn.acquire().await.map_err(|_| LogError::Removed)?;
        self.blocking(move |log| {
            let replaced = log.replace_settled(&change)?;
            if !replaced && let Some(made) = change.made {
                log.files.remove_segment(made.name, None)?;
            }
            Ok(replaced)
        })
        .await
    }

    /// Builds the map; `None` if there is nothing to look at.
    fn begin_pass(
        &self,
        pace: Arc<CleanerPace>,
        upto: Offset,
        now: TimestampMs,
    ) -> Result<Option<Pass>, LogError> {
        self.check_running()?;
        self.load_if_needed()?;
        let (settled, end, producers) = {
            let state = self.state.lock();
            let end = state.segments.settled_end().min(upto);
            (state.segments.settled.clone(), end, state.producers.clone())
        };
        let from = settled.first_dirty;
        if from >= end {
            return Ok(None);
        }
        let records = u64::try_from(end.0.saturating_sub(from.0)).unwrap_or(0);
        let mut map = OffsetMap::new(records, pace.map_bytes_max);
        map.advance_end(from);
        let mut scratch = Scratch::new();
        let segments = settled
            .with_ends(end)
            .take_while(|(segment, _)| segment.name.base < end);
        let segments: Vec<_> = segments.map(|(segment, end)| (*segment, end)).collect();
        for (segment, segment_end) in &segments {
            if *segment_end > from
                && !self.note_newest(segment, from, &pace, &mut map, &mut scratch)?
            {
                return Ok(None);
            }
            if map.is_full() {
                break;
            }
        }
        if !map.is_full() {
            map.advance_end(end);
        }
        let config = self.config();
        let last_of_producers: HashMap<_, _> = producers.last_offsets().collect();
        let judged = segments.into_iter().map(|(segment, _)| segment);
        let judged = judged.take_while(|segment| segment.name.base < map.end());
        let groups = groups(judged, u64::from(config.segment_bytes));
        Ok(Some(Pass {
            filter: Filter {
                map,
                last_of_producers,
                now,
                delete_retention_ms: config.cleaning.delete_retention_ms,
            },
            pace,
            scratch,
            stats: CleanStats::default(),
            groups: groups.into_iter(),
        }))
    }

    /// Takes the records of a segment from an offset on into the map, until it is full. False if the segment is gone.
    fn note_newest(
        &self,
        segment: &SettledSegment,
        from: Offset,
        pace: &CleanerPace,
        map: &mut OffsetMap,
        scratch: &mut Scratch,
    ) -> Result<bool, LogError> {
        let Some(mut batches) = self.batches_of(segment)? else {
            return Ok(false);
        };
        while let Some((position, batch)) = batches.next(self, pace)? {
            if batch.last_offset() < from {
                continue;
            }
            if !batch.is_control() {
                let records = scratch.records(&batch);
                let records =
                    records.map_err(|error| batches.damage(self, position, &error.to_string()))?;
                for record in records {
                    let record = record
                        .map_err(|error| batches.damage(self, position, &error.to_string()))?;
                    let offset = batch.base_offset().0 + i64::from(record.offset_delta);
                    let key = record.key.filter(|_| offset >= from.0);
                    if key.is_some_and(|key| !map.put(key, Offset(offset))) {
                        return Ok(true);
                    }
                }
            }
            map.advance_end(batch.next_offset());
        }
        Ok(true)
    }

    /// Rewrites neighbours into one segment.
    fn clean_group(&self, pass: &mut Pass, group: &[SettledSegment]) -> Result<Cleaned, LogError> {
        self.check_running()?;
        let Some(first) = group.first() else {
            return Ok(Cleaned::AsBefore);
        };
        let revision = {
            let settled = &mut self.state.lock().segments.settled;
            settled.revision = settled.revision.saturating_add(1);
            settled.revision
        };
        let name = SegmentName {
            revision,
            ..first.name
        };
        let mut out = Rewrite::begin(self, name)?;
        let result = self.rewrite(pass, group, &mut out);
        let keep = match &result {
            Ok(changed) => *changed == Some(true) || (group.len() > 1 && changed.is_some()),
            Err(_) => false,
        };
        let made = match (keep, result) {
            // After a sync that failed nothing in the folder is known any more.
            (true, _) => out
                .finish(self, &pass.pace)
                .map_err(|error| self.stop_unless_full(error)),
            (false, Ok(_)) => Ok(None),
            (false, Err(error)) => Err(error),
        };
        if !matches!(made, Ok(Some(_))) {
            // Also when nothing is left of them.
            self.files.remove_segment(name, None)?;
        }
        let made = made?;
        for segment in group {
            pass.stats.bytes_before += segment.extent.log_bytes;
        }
        let all_there = {
            let settled = &self.state.lock().segments.settled;
            (group.iter()).all(|segment| settled.extent(segment.name).is_some())
        };
        if !all_there {
            return Ok(Cleaned::Interrupted);
        }
        if !keep {
            pass.stats.bytes_after += group.iter().map(|it| it.extent.log_bytes).sum::<u64>();
            return Ok(Cleaned::AsBefore);
        }
        pass.stats.bytes_after += made.map_or(0, |made| made.extent.log_bytes);
        Ok(Cleaned::Replaced(Replacement {
            sources: group.iter().map(|segment| segment.name).collect(),
            made,
            first_dirty: None,
        }))
    }

    /// Writes what stays of a group; says whether that is less than there was, or `None` if segments are gone.
    fn rewrite(
        &self,
        pass: &mut Pass,
        group: &[SettledSegment],
        out: &mut Rewrite,
    ) -> Result<Option<bool>, LogError> {
        let mut changed = false;
        for segment in group {
            let Some(mut batches) = self.batches_of(segment)? else {
                return Ok(None);
            };
            while let Some((position, batch)) = batches.next(self, &pass.pace)? {
                let fate = pass
                    .filter
                    .judge(&batch, &mut pass.scratch, &mut pass.stats)
                    .map_err(|reason| batches.damage(self, position, &reason))?;
                match fate {
                    Fate::Kept => out.put(self, &batch, &pass.pace)?,
                    Fate::Changed(batch) => {
                        changed = true;
                        out.put(self, &batch, &pass.pace)?;
                    }
                    Fate::Gone => changed = true,
                }
            }
        }
        Ok(Some(changed))
    }

    /// The batches of a settled segment; `None` if its file is gone.
    fn batches_of(&self, segment: &SettledSegment) -> Result<Option<Batches>, LogError> {
        let file = self.files.open_if_exists(segment.name, FileKind::Log)?;
        Ok(file.map(|file| Batches {
            file,
            name: segment.name,
            end: segment.extent.log_bytes,
            read_to: 0,
            position: 0,
            window: Bytes::new(),
        }))
    }
}

/// Neighbours that together fit one segment.
fn groups(
    segments: impl Iterator<Item = SettledSegment>,
    bytes_max: u64,
) -> Vec<Vec<SettledSegment>> {
    let mut groups: Vec<Vec<SettledSegment>> = Vec::new();
    let mut bytes = 0;
    for segment in segments {
        let size = segment.extent.log_bytes;
        let fits = groups
            .last()
            .and_then(|group| group.first())
            .is_some_and(|first| {
                // Of a segment only its beginning is known: its own offsets span less than half the range, as it was
                // appended, or as much as was checked here.
                let span = segment.name.base.0.saturating_sub(first.name.base.0);
                bytes + size <= bytes_max && span < i64::from(i32::MAX / 2)
            });
        match groups.last_mut() {
            Some(group) if fits => {
                group.push(segment);
                bytes += size;
            }
            _ => {
                groups.push(vec![segment]);
                bytes = size;
            }
        }
    }
    groups
}

/// Reads the batches of a segment one after the other, in large pieces, and checks them.
struct Batches {
    file: Arc<dyn File>,
    name: SegmentName,
    end: u64,
    read_to: u64,
    position: u64,
    window: Bytes,
}

impl Batches {
    fn next(
        &mut self,
        log: &PartitionLog,
        pace: &CleanerPace,
    ) -> Result<Option<(u64, RecordBatch)>, LogError> {
        if self.position >= self.end {
            return Ok(None);
        }
        if self.window.len() < HEADER_BYTES {
            self.fill(log, pace, HEADER_BYTES)?;
        }
        let header = BatchHeader::parse(&self.window)
            .map_err(|error| self.damage(log, self.position, &error.to_string()))?;
        if self.window.len() < header.size_bytes() {
            self.fill(log, pace, header.size_bytes())?;
        }
        let batch = RecordBatch::split_first(&mut self.window)
            .map_err(|error| self.damage(log, self.position, &error.to_string()))?;
        if !batch.checksum_matches() {
            return Err(self.damage(log, self.position, "batch checksum does not match"));
        }
        let position = self.position;
        self.position += batch.size_bytes() as u64;
        Ok(Some((position, batch)))
    }

    fn fill(
        &mut self,
        log: &PartitionLog,
        pace: &CleanerPace,
        need: usize,
    ) -> Result<(), LogError> {
        let left = usize::try_from(self.end - self.read_to).unwrap_or(usize::MAX);
        let wanted = need.saturating_sub(self.window.len());
        if wanted > left {
            return Err(self.damage(log, self.position, "batch is longer than its segment"));
        }
        let bytes = wanted.max(READ_BYTES).min(left);
        let mut buffer = BytesMut::with_capacity(self.window.len() + bytes);
        buffer.extend_from_slice(&self.window);
        let held = buffer.len();
        buffer.resize(held + bytes, 0);
        let read = (self.file.read_at(&mut buffer[held..], self.read_to))
            .map_err(|error| log.files.failed(self.name, FileKind::Log, &error))?;
        if read < bytes {
            return Err(self.damage(log, self.read_to + read as u64, "file is cut"));
        }
        self.read_to += bytes as u64;
        self.window = buffer.freeze();
        pace.spend(bytes);
        Ok(())
    }

    fn damage(&self, log: &PartitionLog, position: u64, reason: &str) -> LogError {
        log.files
            .corrupt(self.name, FileKind::Log, position, reason)
    }
}

/// A segment in the making.
struct Rewrite {
    file: Arc<dyn File>,
    /// Positions and indexes; it never has an entry.
    open: OpenSegment,
    buffer: Vec<u8>,
    written: u64,
    interval: u32,
}

impl Rewrite {
    fn begin(log: &PartitionLog, name: SegmentName) -> Result<Rewrite, LogError> {
        let file = log.files.create(name, FileKind::Log)?;
        let cut = file.set_len(0);
        cut.map_err(|error| log.files.failed(name, FileKind::Log, &error))?;
        Ok(Rewrite {
            file,
            open: OpenSegment::new(name, None),
            buffer: Vec::new(),
            written: 0,
            interval: log.config().index_interval_bytes,
        })
    }

    fn put(
        &mut self,
        log: &PartitionLog,
        batch: &RecordBatch,
        pace: &CleanerPace,
    ) -> Result<(), LogError> {
        self.open.place(&placed(batch), self.interval);
        self.buffer.extend_from_slice(batch.header_bytes());
        self.buffer.extend_from_slice(batch.records_bytes());
        if self.buffer.len() >= WRITE_BYTES {
            self.flush(log, pace)?;
        }
        Ok(())
    }

    fn flush(&mut self, log: &PartitionLog, pace: &CleanerPace) -> Result<(), LogError> {
        let slices = [IoSlice::new(&self.buffer)];
        let written = self.file.write_at(&slices, self.written);
        written.map_err(|error| log.files.failed(self.open.name, FileKind::Log, &error))?;
        pace.spend(self.buffer.len());
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Completes and syncs the files; `None` if nothing is left.
    fn finish(
        mut self,
        log: &PartitionLog,
        pace: &CleanerPace,
    ) -> Result<Option<SettledSegment>, LogError> {
        if self.open.log_end == 0 {
            return Ok(None);
        }
        self.flush(log, pace)?;
        self.open.seal();
        let name = self.open.name;
        let indexes = [
            (FileKind::Index, self.open.offsets.bytes_from(0)),
            (FileKind::TimeIndex, self.open.times.bytes_from(0)),
        ];
        let failed = |kind, error| log.files.failed(name, kind, &error);
        for (kind, bytes) in indexes {
            let file = log.files.create(name, kind)?;
            file.set_len(0).map_err(|error| failed(kind, error))?;
            let slices = [IoSlice::new(&bytes)];
            let written = file.write_at(&slices, 0);
            written.map_err(|error| failed(kind, error))?;
            file.sync_data().map_err(|error| failed(kind, error))?;
        }
        let synced = self.file.sync_data();
        synced.map_err(|error| failed(FileKind::Log, error))?;
        log.files.sync_directory()?;
        Ok(Some(SettledSegment {
            name,
            extent: SegmentExtent {
                log_bytes: self.open.log_end,
                max_timestamp: self.open.max_timestamp,
                offset_of_max: self.open.offset_of_max,
            },
        }))
    }
}

/// A batch as the indexes of a segment see it.
fn placed(batch: &RecordBatch) -> Envelope {
    Envelope {
        id: EntryId::default(),
        flags: 0,
        origin: None,
        base_offset: batch.base_offset(),
        record_count: batch.last_offset_delta().cast_unsigned().saturating_add(1),
        batch_crc: batch.checksum(),
        max_timestamp: batch.max_timestamp(),
        log_position: 0,
        batch_bytes: u32::try_from(batch.size_bytes()).unwrap_or(u32::MAX),
        aux: Bytes::new(),
        opaque: None,
    }
}
