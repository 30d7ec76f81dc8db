//! Reading batches that are in the page cache, on the thread that asks.
//!
//! A reader that catches up goes on where its last read ended: neither an index nor another file is needed. Handing such
//! a read to another thread costs more than the read, as its bytes then travel from one processor's cache to another's.
//! Invariants: never waits for a disk; returns what `read_blocking` would, or leaves it to that: whatever is unusual,
//! damage included, is found out and reported there.

use bytes::Bytes;
use tidelog_protocol::batch::BatchHeader;
use tidelog_protocol::types::Offset;

use super::super::files::{FileKind, SegmentName};
use super::super::{LogError, ReadData};
use super::PartitionLog;
use super::read::{Wanted, known_extent, read_memory, whole_batches};

impl PartitionLog {
    /// As [`Self::read_blocking`], where that needs no wait for a disk; `None` if it may.
    pub fn try_read_resident(
        &self,
        from: Offset,
        upto: Offset,
        bytes_max: usize,
        at_least_one: bool,
    ) -> Option<Result<ReadData, LogError>> {
        if let Err(error) = self.check_running() {
            return Some(Err(error));
        }
        let wanted = Wanted {
            from,
            upto,
            bytes_max,
            at_least_one,
        };
        let (name, end) = {
            let state = self.state.lock();
            if let Some(found) = read_memory(&state, wanted) {
                return Some(found);
            }
            let name = state.segments.find_offset(from)?;
            (name, known_extent(&state, name)?.log_bytes)
        };
        let position = self.hints.lock().take(from, name)?;
        let found = self.read_run(name, position, end, wanted);
        let (next, position) = match &found {
            Some(data) => (data.next_offset, position + data.size_bytes as u64),
            None => (from, position),
        };
        self.hints.lock().put(next, name, position);
        found.map(Ok)
    }

    fn read_run(
        &self,
        name: SegmentName,
        position: u64,
        end: u64,
        wanted: Wanted,
    ) -> Option<ReadData> {
        let file = self.files.opened(name, FileKind::Log)?;
        let left = usize::try_from(end.checked_sub(position)?).unwrap_or(usize::MAX);
        let mut bytes = Bytes::from(file.try_read_vec(wanted.bytes_max.min(left), position)?);
        let first = BatchHeader::parse(&bytes).ok()?;
        let is_asked_for = first.base_offset() <= wanted.from && wanted.from < first.next_offset();
        let (whole, next_offset) = whole_batches(&bytes, wanted, true);
        if !is_asked_for || whole == 0 {
            return None;
        }
        bytes.truncate(whole);
        Some(ReadData {
            pieces: vec![bytes],
            size_bytes: whole,
            next_offset,
        })
    }
}
