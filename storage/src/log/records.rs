//! Walking the batches of a `.log` file by their headers.
//!
//! Reads little and decodes nothing but headers. Invariant: no position it returns lies behind the given end.

use std::sync::Arc;

use bytes::Bytes;
use tidelog_protocol::batch::{BatchHeader, HEADER_BYTES, RecordBatch};
use tidelog_protocol::types::Offset;

use super::LogError;
use super::files::{FileKind, LogFiles, SegmentName};
use crate::fs::File;

/// Bytes read at once while looking for a batch: about one index interval.
const WINDOW_BYTES: u64 = 8 << 10;

/// The batches of one segment, up to an end.
pub struct RecordFile<'a> {
    files: &'a LogFiles,
    name: SegmentName,
    file: Arc<dyn File>,
    end: u64,
    window: Bytes,
    window_at: u64,
}

impl<'a> RecordFile<'a> {
    /// Opens the records of a segment; `None` if it has none.
    pub fn open(
        files: &'a LogFiles,
        name: SegmentName,
        end: u64,
    ) -> Result<Option<RecordFile<'a>>, LogError> {
        let file = files.open_if_exists(name, FileKind::Log)?;
        Ok(file.map(|file| RecordFile {
            files,
            name,
            file,
            end,
            window: Bytes::new(),
            window_at: 0,
        }))
    }

    /// Header of the batch at a position; `None` at the end.
    pub fn header_at(&mut self, position: u64) -> Result<Option<BatchHeader>, LogError> {
        if position >= self.end {
            return Ok(None);
        }
        let held = position >= self.window_at
            && position + HEADER_BYTES as u64 <= self.window_at + self.window.len() as u64;
        if !held {
            let bytes = (self.end - position).min(WINDOW_BYTES);
            self.window = self.read(position, usize::try_from(bytes).unwrap_or(0))?;
            self.window_at = position;
        }
        let skip = usize::try_from(position - self.window_at).unwrap_or(usize::MAX);
        let bytes = self.window.get(skip..).unwrap_or_default();
        let header =
            BatchHeader::parse(bytes).map_err(|e| self.corrupt(position, &e.to_string()))?;
        if position + header.size_bytes() as u64 > self.end {
            return Err(self.corrupt(position, "batch is longer than its segment"));
        }
        Ok(Some(header))
    }

    /// Position and header of the first batch from `position` on that ends after `offset`.
    pub fn find(
        &mut self,
        mut position: u64,
        offset: Offset,
    ) -> Result<Option<(u64, BatchHeader)>, LogError> {
        while let Some(header) = self.header_at(position)? {
            if header.next_offset() > offset {
                return Ok(Some((position, header)));
            }
            position += header.size_bytes() as u64;
        }
        Ok(None)
    }

    /// The batch at a position, whole.
    pub fn batch_at(&self, position: u64, header: &BatchHeader) -> Result<RecordBatch, LogError> {
        let mut bytes = self.read(position, header.size_bytes())?;
        let batch = RecordBatch::split_first(&mut bytes);
        batch.map_err(|error| self.corrupt(position, &error.to_string()))
    }

    /// Exactly `bytes` bytes.
    pub fn read(&self, position: u64, bytes: usize) -> Result<Bytes, LogError> {
        let read = self.file.read_vec(bytes, position);
        let read = read.map_err(|error| self.files.failed(self.name, FileKind::Log, &error))?;
        if read.len() < bytes {
            return Err(self.corrupt(position + read.len() as u64, "file is cut"));
        }
        Ok(read.into())
    }

    /// Bytes up to the end from a position on.
    pub fn left(&self, position: u64) -> u64 {
        self.end.saturating_sub(position)
    }

    /// Damage at a position.
    pub fn corrupt(&self, position: u64, reason: &str) -> LogError {
        self.files
            .corrupt(self.name, FileKind::Log, position, reason)
    }
}
