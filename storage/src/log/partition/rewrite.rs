//! Reading a settled segment batch by batch, and writing another one.
//!
//! In large pieces, at the pace of compaction. Invariant: a batch that is handed out was checked against its checksum;
//! a segment that is finished is synced, with its indexes and its names.

use std::io::IoSlice;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tidelog_protocol::batch::{BatchHeader, HEADER_BYTES, RecordBatch};

use super::super::cleaner::CleanerPace;
use super::super::envelope::Envelope;
use super::super::files::{FileKind, SegmentName};
use super::super::segment::OpenSegment;
use super::super::settled::SettledSegment;
use super::super::state::SegmentExtent;
use super::super::{EntryId, LogError};
use super::PartitionLog;
use crate::SyncPoint;
use crate::fs::File;

/// Bytes read at once.
const READ_BYTES: usize = 1 << 20;
/// Bytes written at once.
const WRITE_BYTES: usize = 1 << 20;

/// Reads the batches of a segment one after the other, in large pieces, and checks them.
pub(super) struct Batches {
    file: Arc<dyn File>,
    name: SegmentName,
    end: u64,
    read_to: u64,
    position: u64,
    window: Bytes,
}

impl Batches {
    /// The batches of a settled segment; `None` if its file is gone.
    pub fn of(log: &PartitionLog, segment: &SettledSegment) -> Result<Option<Batches>, LogError> {
        let file = log.files.open_if_exists(segment.name, FileKind::Log)?;
        Ok(file.map(|file| Batches {
            file,
            name: segment.name,
            end: segment.extent.log_bytes,
            read_to: 0,
            position: 0,
            window: Bytes::new(),
        }))
    }

    /// The next batch with its position.
    pub fn next(
        &mut self,
        log: &PartitionLog,
        pace: &CleanerPace,
    ) -> Result<Option<(u64, RecordBatch)>, LogError> {
        if pace.is_stopped() {
            return Err(LogError::Stopped(Arc::from("compaction is stopped")));
        }
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

    /// Damage at a position.
    pub fn damage(&self, log: &PartitionLog, position: u64, reason: &str) -> LogError {
        log.files
            .corrupt(self.name, FileKind::Log, position, reason)
    }
}

/// A segment in the making.
pub(super) struct Rewrite {
    file: Arc<dyn File>,
    /// Positions and indexes; it never has an entry.
    open: OpenSegment,
    buffer: Vec<u8>,
    written: u64,
    interval: u32,
}

impl Rewrite {
    /// Begins the files of a segment anew.
    pub fn begin(log: &PartitionLog, name: SegmentName) -> Result<Rewrite, LogError> {
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

    /// Its name.
    pub fn name(&self) -> SegmentName {
        self.open.name
    }

    /// Bytes of batches so far.
    pub fn log_bytes(&self) -> u64 {
        self.open.log_end
    }

    /// Adds a batch.
    pub fn put(
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
    pub fn finish(
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
            file.sync_data(SyncPoint::CompactedIndexes)
                .map_err(|error| failed(kind, error))?;
        }
        let synced = self.file.sync_data(SyncPoint::CompactedRecords);
        synced.map_err(|error| failed(FileKind::Log, error))?;
        log.files.sync_names(SyncPoint::CompactedNames)?;
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
pub(super) fn placed(batch: &RecordBatch) -> Envelope {
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
