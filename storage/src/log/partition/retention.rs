//! Which segments with entries time, size and log start let go. Settled ones: settle.rs.
//!
//! Decides, deletes nothing: what is gone is an entry of the consensus layer, which then purges. Kafka's rules: whole
//! segments from the oldest on, by the largest record timestamp, never above the high watermark, the active one only
//! when all of it may go (it is rolled then).

use tidelog_protocol::types::{Offset, TimestampMs};

use super::super::files::SegmentName;
use super::super::state::{SegmentExtent, State};
use super::super::{EntryIndex, LogBounds, LogConfig, LogError, LogPosition};
use super::PartitionLog;

impl PartitionLog {
    /// Whether a look at the segments is worth it: false if retention lets none of them go, by what is in memory.
    /// Forgets idle producers on the way. Does not block.
    pub fn may_let_go(&self, now: TimestampMs) -> bool {
        let config = self.config();
        let settled = {
            let mut state = self.state.lock();
            forget_idle_producers(&mut state, &config, now);
            if !state.has_files {
                return false;
            }
            !state.segments.settled.segments.is_empty()
        };
        if settled {
            // The oldest go first.
            return self.settled_expired(now).is_some();
        }
        let state = self.state.lock();
        if state.unloaded.is_some() {
            return state.log_start_moved
                || may_expire(&config, &state.bounds, state.oldest_timestamp, now);
        }
        let mut names = state.segments.names();
        let (Some(oldest), next) = (names.next(), names.next()) else {
            return false;
        };
        let extent = match (state.segments.open(oldest), state.segments.closed.first()) {
            (Some(open), _) => open.extent(),
            (None, Some(closed)) => match closed.extent {
                Some(extent) => extent,
                None => return true,
            },
            (None, None) => return true,
        };
        let bounds = &state.bounds;
        let by_start =
            next.is_some_and(|next| next.base <= bounds.log_start || extent.log_bytes == 0);
        by_start || lets_go(&config, &extent, bounds.size_bytes, now)
    }

    /// End of the last segment that retention (time, bytes, log start) lets go, below the high watermark. Rolls the
    /// active segment when all of it has expired. Forgets idle producers on the way. May block.
    pub fn retention_boundary(
        &self,
        now: TimestampMs,
        high_watermark: Offset,
    ) -> Result<Option<LogPosition>, LogError> {
        self.check_running()?;
        let config = self.config();
        let bounds = {
            let mut state = self.state.lock();
            forget_idle_producers(&mut state, &config, now);
            let loaded = state.unloaded.is_none();
            let oldest = state.segments.oldest_timestamp().filter(|_| loaded);
            let oldest = oldest.unwrap_or(state.oldest_timestamp);
            let by_start = loaded || state.log_start_moved;
            if !state.has_files || !(by_start || may_expire(&config, &state.bounds, oldest, now)) {
                return Ok(None);
            }
            state.bounds
        };
        self.load_if_needed()?;
        let (names, settled_end, settled_bytes) = {
            let state = self.state.lock();
            let names: Vec<SegmentName> = state.segments.names().collect();
            let settled = &state.segments.settled;
            let end = (!settled.segments.is_empty()).then(|| state.segments.settled_end());
            (names, end, settled.size_bytes())
        };
        // The oldest go first: as long as a settled segment stays, so do all others.
        if settled_end.is_some() && self.settled_expired(now) != settled_end {
            return Ok(None);
        }
        let mut size = bounds.size_bytes.saturating_sub(settled_bytes);
        let mut boundary = None;
        for (at, name) in names.iter().enumerate() {
            let next = names.get(at + 1);
            let extent = self.placed_extent(*name)?;
            let end = next.map_or(bounds.log_end, |next| next.base);
            let last = next.map_or(bounds.last.index, |next| EntryIndex(next.first.0 - 1));
            let by_start = next.is_some() && (end <= bounds.log_start || extent.log_bytes == 0);
            if end > high_watermark || !(by_start || lets_go(&config, &extent, size, now)) {
                break;
            }
            if next.is_none() && !self.roll_expired(*name) {
                break;
            }
            size = size.saturating_sub(extent.log_bytes);
            // Entries without records go with the records before them, never for their own sake.
            if extent.log_bytes > 0 || boundary.is_some() {
                boundary = Some(last);
            }
        }
        match boundary.filter(|last| *last > bounds.purged.index) {
            Some(last) => self.position_at(last).map(Some),
            None => Ok(None),
        }
    }

    /// What a segment holds, unwritten batches included.
    pub(super) fn placed_extent(&self, name: SegmentName) -> Result<SegmentExtent, LogError> {
        if let Some(open) = self.state.lock().segments.open(name) {
            return Ok(open.extent());
        }
        self.extent(name)
    }

    /// Lets the next append begin a new segment, if the active one is still the one that was looked at and has not
    /// grown a later timestamp meanwhile. Not while the log is being changed: the next look will find it again.
    fn roll_expired(&self, name: SegmentName) -> bool {
        let Ok(_turn) = self.turn.try_acquire() else {
            return false;
        };
        let mut state = self.state.lock();
        let rolls = state.segments.active.name == name && !state.segments.active.is_empty();
        if rolls {
            state.roll();
            if let Some(me) = self.me.upgrade().filter(|_| !state.queued) {
                state.queued = true;
                self.shared.queue.push(me);
            }
        }
        rolls
    }
}

fn forget_idle_producers(state: &mut State, config: &LogConfig, now: TimestampMs) {
    if !state.producers_in_files {
        let expiration_ms = config.producer_id_expiration_ms;
        state.producers.remove_expired(now, expiration_ms);
    }
}

/// Whether it is worth looking at the segments, by what is known without them.
fn may_expire(
    config: &LogConfig,
    bounds: &LogBounds,
    oldest: TimestampMs,
    now: TimestampMs,
) -> bool {
    let by_time = config
        .retention_ms
        .is_some_and(|ms| is_expired(oldest, now, ms));
    let by_size = config
        .retention_bytes
        .is_some_and(|bytes| bounds.size_bytes > bytes);
    config.delete && (by_time || by_size)
}

/// Kafka's rules of time and size for one segment, the oldest that is left.
pub(super) fn lets_go(
    config: &LogConfig,
    extent: &SegmentExtent,
    size_bytes: u64,
    now: TimestampMs,
) -> bool {
    let by_time = config
        .retention_ms
        .is_some_and(|ms| is_expired(extent.max_timestamp, now, ms));
    let by_size = config
        .retention_bytes
        .is_some_and(|bytes| size_bytes.saturating_sub(extent.log_bytes) >= bytes);
    config.delete && extent.log_bytes > 0 && (by_time || by_size)
}

/// A segment without timestamps never expires by time: nothing says how old it is.
fn is_expired(max_timestamp: TimestampMs, now: TimestampMs, retention_ms: i64) -> bool {
    max_timestamp.0 >= 0 && now.0.saturating_sub(max_timestamp.0) > retention_ms
}
