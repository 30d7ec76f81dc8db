//! Whether compaction is worth it, and how far it may go.
//!
//! Decides, changes nothing. Kafka's rules: never the active segment, nothing above the high watermark, nothing
//! younger than `min.compaction.lag.ms`; when the share that was not looked at is large enough, or the oldest record
//! of it is older than `max.compaction.lag.ms`.

use std::sync::Arc;

use tidelog_protocol::types::{Offset, TimestampMs};

use super::super::files::SegmentName;
use super::super::records::RecordFile;
use super::super::state::SegmentExtent;
use super::super::{EntryIndex, LogConfig, LogError};
use super::PartitionLog;
use crate::journal::FrameSequence;

/// What the answer to "is there anything to compact?" depends on, but for the time.
#[derive(Clone, Debug, PartialEq)]
pub struct CleaningBasis {
    sequence: FrameSequence,
    active: SegmentName,
    high_watermark: Offset,
    config: Arc<LogConfig>,
}

/// What compaction would look at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cleanable {
    /// Last entry that has to be forgotten for it; `None` if all that is needed is settled.
    pub boundary: Option<EntryIndex>,
    /// Offset at which it ends.
    pub upto: Offset,
    /// Bytes of batches that it has not seen.
    pub dirty_bytes: u64,
    /// Bytes that it has seen.
    pub clean_bytes: u64,
    /// Whether a record is older than `max.compaction.lag.ms`.
    pub overdue: bool,
}

impl Cleanable {
    /// Share of what was not looked at.
    pub fn dirty_ratio(&self) -> f64 {
        self.dirty_bytes as f64 / (self.dirty_bytes + self.clean_bytes).max(1) as f64
    }
}

/// A segment that is not appended to.
struct Ended {
    name: SegmentName,
    extent: SegmentExtent,
    end: Offset,
    /// Its last entry, if it has entries.
    last: Option<EntryIndex>,
}

impl PartitionLog {
    /// As long as this is the same, [`PartitionLog::cleanable`] finds what it found before; `None` if it may find
    /// something else because time has passed.
    pub fn cleaning_basis(&self, high_watermark: Offset) -> Option<CleaningBasis> {
        let config = self.config();
        if config.cleaning.min_lag_ms > 0 || config.cleaning.max_lag_ms != i64::MAX {
            return None;
        }
        let state = self.state.lock();
        Some(CleaningBasis {
            sequence: state.sequence,
            active: state.segments.active.name,
            high_watermark,
            config,
        })
    }

    /// What compaction should do now, if anything. May block for a read.
    pub fn cleanable(
        &self,
        now: TimestampMs,
        high_watermark: Offset,
    ) -> Result<Option<Cleanable>, LogError> {
        self.check_running()?;
        let config = self.config();
        if !config.compact || !self.may_be_dirty() {
            return Ok(None);
        }
        self.load_if_needed()?;
        let (first_dirty, clean_bytes) = {
            let settled = &self.state.lock().segments.settled;
            (settled.first_dirty, settled.clean_bytes())
        };
        let mut found = Cleanable {
            boundary: None,
            upto: first_dirty,
            dirty_bytes: 0,
            clean_bytes,
            overdue: false,
        };
        for segment in self.ended()? {
            if segment.last.is_none() && segment.end <= first_dirty {
                continue;
            }
            if segment.end > high_watermark || is_young(&config, &segment.extent, now) {
                break;
            }
            if segment.extent.log_bytes > 0 {
                if segment.name.base >= first_dirty {
                    found.dirty_bytes += segment.extent.log_bytes;
                }
                found.overdue |= self.is_overdue(&config, &segment, now)?;
            }
            found.upto = segment.end;
            found.boundary = segment.last.or(found.boundary);
        }
        let worth = found.overdue || found.dirty_ratio() > config.cleaning.min_dirty_ratio;
        Ok((found.upto > first_dirty && worth).then_some(found))
    }

    /// Whether an unloaded log, by what is known without its files, holds more than the active segment and what was
    /// seen.
    fn may_be_dirty(&self) -> bool {
        let state = self.state.lock();
        match state.unloaded {
            None => state.has_files,
            Some(end) => {
                let seen = state.segments.settled.clean_bytes() + end.log_bytes;
                state.bounds.size_bytes > seen
            }
        }
    }

    /// All segments but the active one.
    fn ended(&self) -> Result<Vec<Ended>, LogError> {
        let (mut ended, names) = {
            let state = self.state.lock();
            let end = state.segments.settled_end();
            let settled = state.segments.settled.with_ends(end);
            let settled = settled.map(|(segment, end)| Ended {
                name: segment.name,
                extent: segment.extent,
                end,
                last: None,
            });
            let names: Vec<SegmentName> = state.segments.names().collect();
            (settled.collect::<Vec<_>>(), names)
        };
        for (name, next) in names.iter().zip(names.iter().skip(1)) {
            ended.push(Ended {
                name: *name,
                extent: self.placed_extent(*name)?,
                end: next.base,
                last: Some(EntryIndex(next.first.0 - 1)),
            });
        }
        Ok(ended)
    }

    fn is_overdue(
        &self,
        config: &LogConfig,
        segment: &Ended,
        now: TimestampMs,
    ) -> Result<bool, LogError> {
        let oldest = now.0.saturating_sub(config.cleaning.max_lag_ms);
        if config.cleaning.max_lag_ms == i64::MAX {
            return Ok(false);
        }
        let end = self.extent(segment.name)?.log_bytes;
        let first = match RecordFile::open(&self.files, segment.name, end)? {
            Some(mut records) => records.header_at(0)?,
            None => None,
        };
        Ok(first.is_some_and(|first| {
            let timestamp = first.max_timestamp().0;
            timestamp >= 0 && timestamp < oldest
        }))
    }
}

fn is_young(config: &LogConfig, extent: &SegmentExtent, now: TimestampMs) -> bool {
    let min_lag_ms = config.cleaning.min_lag_ms;
    min_lag_ms > 0 && extent.max_timestamp.0 > now.0.saturating_sub(min_lag_ms)
}
