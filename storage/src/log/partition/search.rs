//! Finding records by timestamp: ListOffsets.
//!
//! The indexes lead to a batch, the batch is decoded to find the record. Only called for questions of clients, so it
//! first brings everything into files and then knows one way to look.

use tidelog_protocol::batch::{BatchHeader, RecordBatch, Scratch};
use tidelog_protocol::types::{Offset, TimestampMs};

use super::super::files::{FileKind, SegmentName};
use super::super::records::RecordFile;
use super::super::sparse_index::lookup_time;
use super::super::{LogError, TimestampOffset};
use super::PartitionLog;

/// What to look for in the batches of a segment.
#[derive(Clone, Copy)]
struct Sought {
    at_or_after: TimestampMs,
    from: Offset,
    upto: Offset,
}

impl PartitionLog {
    /// First record below `upto` whose timestamp is not before `at_or_after`. Blocks.
    pub fn offset_for_timestamp(
        &self,
        at_or_after: TimestampMs,
        upto: Offset,
    ) -> Result<Option<TimestampOffset>, LogError> {
        self.search(|names, log_start| self.find_timestamp(names, log_start, at_or_after, upto))
    }

    fn find_timestamp(
        &self,
        names: &[SegmentName],
        log_start: Offset,
        at_or_after: TimestampMs,
        upto: Offset,
    ) -> Result<Option<TimestampOffset>, LogError> {
        let sought = Sought {
            at_or_after,
            from: log_start,
            upto,
        };
        for name in names.iter().copied() {
            let extent = self.extent(name)?;
            if extent.log_bytes == 0 || extent.max_timestamp < at_or_after {
                continue;
            }
            let start = self.lookup_timestamp(name, extent.log_bytes, at_or_after)?;
            if let Some(found) = self.search_segment(name, extent.log_bytes, start, sought)? {
                return Ok(Some(found));
            }
            if name.base >= upto {
                break;
            }
        }
        Ok(None)
    }

    /// The record below `upto` with the largest timestamp (the first of them). Blocks.
    pub fn max_timestamp(&self, upto: Offset) -> Result<Option<TimestampOffset>, LogError> {
        self.search(|names, log_start| self.find_largest(names, log_start, upto))
    }

    fn find_largest(
        &self,
        names: &[SegmentName],
        log_start: Offset,
        upto: Offset,
    ) -> Result<Option<TimestampOffset>, LogError> {
        let mut best: Option<(TimestampMs, SegmentName, u64)> = None;
        for name in names.iter().copied() {
            let extent = self.extent(name)?;
            let beaten = best.is_some_and(|(time, ..)| extent.max_timestamp <= time);
            if extent.log_bytes == 0 || beaten || name.base >= upto {
                continue;
            }
            let from = if extent.offset_of_max < upto && extent.offset_of_max >= log_start {
                extent.offset_of_max
            } else {
                // The largest one is outside of what is asked for: look at every batch.
                name.base
            };
            let Some(mut records) = RecordFile::open(&self.files, name, extent.log_bytes)? else {
                continue;
            };
            let mut found = self.find_batch(&mut records, name, from.max(log_start), None)?;
            while let Some((position, header)) = found {
                if header.next_offset() > upto {
                    break;
                }
                if best.is_none_or(|(time, ..)| header.max_timestamp() > time) {
                    best = Some((header.max_timestamp(), name, position));
                }
                if from == extent.offset_of_max && header.max_timestamp() == extent.max_timestamp {
                    break;
                }
                let next = position + header.size_bytes() as u64;
                found = records.header_at(next)?.map(|header| (next, header));
            }
        }
        let Some((at_or_after, name, position)) = best else {
            return Ok(None);
        };
        let end = self.extent(name)?.log_bytes;
        let sought = Sought {
            at_or_after,
            from: log_start,
            upto,
        };
        let Some(mut records) = RecordFile::open(&self.files, name, end)? else {
            return Ok(None);
        };
        match records.header_at(position)? {
            Some(header) => self.search_batch(&records, position, &header, sought),
            None => Ok(None),
        }
    }

    /// Searches all segments; again, if compaction took some of them away meanwhile.
    fn search<T>(
        &self,
        find: impl Fn(&[SegmentName], Offset) -> Result<T, LogError>,
    ) -> Result<T, LogError> {
        let (mut names, log_start) = self.prepare_search()?;
        loop {
            let found = find(&names, log_start)?;
            let now: Vec<SegmentName> = self.state.lock().segments.all_names().collect();
            let gone = |name: &&SegmentName| now.binary_search(name).is_err();
            if !names.iter().any(|name| gone(&name)) {
                return Ok(found);
            }
            names = now;
        }
    }

    fn prepare_search(&self) -> Result<(Vec<SegmentName>, Offset), LogError> {
        self.check_running()?;
        self.flush()?;
        let state = self.state.lock();
        Ok((state.segments.all_names().collect(), state.bounds.log_start))
    }

    /// Offset from which to look for a timestamp in a segment.
    fn lookup_timestamp(
        &self,
        name: SegmentName,
        end: u64,
        at: TimestampMs,
    ) -> Result<Offset, LogError> {
        let open = self
            .state
            .lock()
            .segments
            .open(name)
            .map(|open| open.times.lookup(at));
        let offset = |relative| Offset(name.base.0.saturating_add_unsigned(relative));
        if let Some(relative) = open {
            return Ok(offset(relative));
        }
        let found = self.search_index(name, FileKind::TimeIndex, |read, bytes| {
            lookup_time(read, bytes, at)
        })?;
        // An entry that is not true might lead past what is looked for.
        match found.flatten() {
            Some((time, relative))
                if self.confirm(name, end, time, offset(relative))?.is_some() =>
            {
                Ok(offset(relative))
            }
            _ => Ok(name.base),
        }
    }

    fn search_segment(
        &self,
        name: SegmentName,
        end: u64,
        start: Offset,
        sought: Sought,
    ) -> Result<Option<TimestampOffset>, LogError> {
        let Some(mut records) = RecordFile::open(&self.files, name, end)? else {
            return Ok(None);
        };
        let mut found = self.find_batch(&mut records, name, start.max(sought.from), None)?;
        while let Some((position, header)) = found {
            if header.base_offset() >= sought.upto {
                return Ok(None);
            }
            if header.max_timestamp() >= sought.at_or_after
                && let Some(hit) = self.search_batch(&records, position, &header, sought)?
            {
                return Ok(Some(hit));
            }
            let next = position + header.size_bytes() as u64;
            found = records.header_at(next)?.map(|header| (next, header));
        }
        Ok(None)
    }

    fn search_batch(
        &self,
        records: &RecordFile<'_>,
        position: u64,
        header: &BatchHeader,
        sought: Sought,
    ) -> Result<Option<TimestampOffset>, LogError> {
        let batch = records.batch_at(position, header)?;
        if !batch.checksum_matches() {
            return Err(records.corrupt(position, "batch checksum does not match"));
        }
        first_record(&batch, sought).map_err(|reason| records.corrupt(position, &reason))
    }
}

/// First record of a batch at or after a timestamp.
fn first_record(batch: &RecordBatch, sought: Sought) -> Result<Option<TimestampOffset>, String> {
    let mut scratch = Scratch::new();
    let records = scratch.records(batch).map_err(|error| error.to_string())?;
    for record in records {
        let record = record.map_err(|error| error.to_string())?;
        let timestamp = batch.record_timestamp(record.timestamp_delta);
        let offset = Offset(
            batch
                .base_offset()
                .0
                .saturating_add(i64::from(record.offset_delta)),
        );
        if timestamp >= sought.at_or_after && offset >= sought.from && offset < sought.upto {
            return Ok(Some(TimestampOffset {
                timestamp,
                offset,
                epoch: batch.leader_epoch(),
            }));
        }
    }
    Ok(None)
}
