//! Applying journal frames at start.
//!
//! Frames are applied in order, as the live changes were, but for the journal. The files may be ahead of the checkpoint:
//! a truncation that was made durable after it may have cut and overwritten what the checkpoint describes. Such a log is
//! held back until that truncation comes; if none does, the damage is real. Invariant: no byte behind a cut that is
//! still to come is believed.

use super::super::files::SegmentName;
use super::super::payload::{decode_append, decode_purge, decode_reset, decode_truncate};
use super::super::{EntryIndex, LogError, Stamping};
use super::PartitionLog;
use super::change::{purge_state, reset_state, truncate_inline, truncate_state};
use crate::journal::{FrameKind, ReplayedFrame};

/// Progress of one log's replay.
#[derive(Debug)]
pub(crate) struct Replay {
    /// Up to here the segments are as the checkpoint knows them; behind it they are as the replay laid them out.
    floor: EntryIndex,
    /// Frames held back while the files behind the checkpoint cannot be believed.
    deferred: Vec<ReplayedFrame>,
    /// Whether segments went, so that sizes have to be added up anew.
    recount: bool,
}

impl Replay {
    /// Before the first frame.
    pub fn of(log: &PartitionLog) -> Replay {
        Replay {
            floor: log.bounds().last.index,
            deferred: Vec::new(),
            recount: false,
        }
    }
}

impl PartitionLog {
    /// Applies a frame unless the checkpoint covers it; returns whether it did. Blocks. `Remove` is the manager's.
    pub(crate) fn replay(
        &self,
        replay: &mut Replay,
        frame: ReplayedFrame,
    ) -> Result<bool, LogError> {
        self.check_running()?;
        if frame.sequence <= self.state.lock().sequence {
            return Ok(false);
        }
        self.replay_inner(replay, frame)
            .map(|()| true)
            .map_err(|error| self.stop(error))
    }

    fn replay_inner(&self, replay: &mut Replay, frame: ReplayedFrame) -> Result<(), LogError> {
        if frame.kind == FrameKind::Reset {
            replay.deferred.clear();
            return self.replay_reset(replay, &frame);
        }
        {
            let mut writing = self.writing.lock();
            if self.state.lock().needs_files() {
                self.load(&mut writing, true)?;
            }
        }
        if self.state.lock().suspect.is_some() && !self.voids_suspicion(replay, &frame)? {
            replay.deferred.push(frame);
            return Ok(());
        }
        if replay.deferred.is_empty() {
            return self.apply(replay, &frame);
        }
        // What was held back is behind the cut, but for purges.
        for held in std::mem::take(&mut replay.deferred) {
            if held.kind == FrameKind::Purge {
                self.apply(replay, &held)?;
            }
        }
        self.apply(replay, &frame)
    }

    /// Whether a frame cuts off everything that cannot be believed.
    fn voids_suspicion(&self, replay: &Replay, frame: &ReplayedFrame) -> Result<bool, LogError> {
        if frame.kind != FrameKind::Truncate {
            return Ok(false);
        }
        let cut = decode_truncate(&frame.payload).ok_or_else(|| malformed(frame))?;
        Ok(cut.last.index < replay.floor)
    }

    fn apply(&self, replay: &mut Replay, frame: &ReplayedFrame) -> Result<(), LogError> {
        let last = self.bounds().last.index;
        let cuts_held_back = self.state.lock().suspect.is_some();
        if frame.prev_index != last && !cuts_held_back {
            let reason = format!(
                "frame follows entry {}, the log ends at {}",
                frame.prev_index.0, last.0
            );
            return Err(damage(frame, reason));
        }
        match frame.kind {
            FrameKind::Append => self.replay_append(frame)?,
            FrameKind::Truncate => self.replay_truncate(replay, frame)?,
            FrameKind::Purge => self.replay_purge(replay, frame)?,
            FrameKind::Reset | FrameKind::Remove => {}
        }
        self.state.lock().sequence = frame.sequence;
        Ok(())
    }

    fn replay_append(&self, frame: &ReplayedFrame) -> Result<(), LogError> {
        let entries = decode_append(&frame.payload).map_err(|reason| damage(frame, reason))?;
        let config = self.config();
        let mut state = self.state.lock();
        state
            .check(&entries, Stamping::Follower)
            .map_err(|reason| damage(frame, reason))?;
        state.append(entries, Stamping::Follower, &config, 0);
        Ok(())
    }

    fn replay_truncate(&self, replay: &mut Replay, frame: &ReplayedFrame) -> Result<(), LogError> {
        let cut = decode_truncate(&frame.payload).ok_or_else(|| malformed(frame))?;
        let bounds = self.bounds();
        if cut.last.index < bounds.purged.index || cut.last.index > bounds.last.index {
            return Err(damage(
                frame,
                format!("cut after {:?} is outside of {bounds:?}", cut.last),
            ));
        }
        let mut writing = self.writing.lock();
        if !self.state.lock().has_files {
            truncate_inline(&mut self.state.lock(), cut.last.index);
            replay.floor = replay.floor.min(cut.last.index);
            return Ok(());
        }
        let prepared = if cut.last.index < replay.floor {
            self.prepare_cut_at(cut)?
        } else if cut.last.index == bounds.last.index {
            return Ok(());
        } else {
            self.drain_to(&mut writing, bounds.last.index)?;
            self.prepare_cut(cut.last.index)?
        };
        let (dropped, end) = {
            let mut state = self.state.lock();
            let dropped = truncate_state(&mut state, prepared);
            state.suspect = None;
            (dropped, state.end())
        };
        replay.floor = replay.floor.min(cut.last.index);
        self.cut_files(&mut writing, &dropped, end)
    }

    fn replay_purge(&self, replay: &mut Replay, frame: &ReplayedFrame) -> Result<(), LogError> {
        let (purged, next_offset) = decode_purge(&frame.payload).ok_or_else(|| malformed(frame))?;
        let bounds = self.bounds();
        if purged.index <= bounds.purged.index {
            return Ok(());
        }
        if purged.index > bounds.last.index {
            return Err(damage(
                frame,
                format!("purge to {purged:?} is outside of {bounds:?}"),
            ));
        }
        replay.recount = true;
        let mut writing = self.writing.lock();
        self.prepare_purge(&mut writing, purged.index)?;
        let (dropped, permits) = purge_state(&mut self.state.lock(), purged, next_offset, 0);
        self.shared.release_write_behind(permits);
        self.remove_purged(&mut writing, &dropped)
    }

    fn replay_reset(&self, replay: &mut Replay, frame: &ReplayedFrame) -> Result<(), LogError> {
        let (_, at) = decode_reset(&frame.payload).ok_or_else(|| malformed(frame))?;
        let mut writing = self.writing.lock();
        {
            let mut state = self.state.lock();
            reset_state(&mut state, at);
            state.sequence = frame.sequence;
            replay.floor = state.bounds.last.index;
        }
        self.remove_files(&mut writing)
    }

    /// Ends the replay: writes what waits, and stops the log if it cannot be believed. Blocks.
    pub(crate) fn finish_replay(&self, replay: &Replay) -> Result<(), LogError> {
        let suspect = self.state.lock().suspect.take();
        if let Some(error) = suspect {
            return Err(self.stop(error));
        }
        if replay.recount {
            self.flush()?;
            let names: Vec<SegmentName> = self.state.lock().segments.names().collect();
            let mut size_bytes = 0;
            for name in names {
                size_bytes += self.extent(name)?.log_bytes;
            }
            self.state.lock().bounds.size_bytes = size_bytes;
        }
        Ok(())
    }

    /// Writes what the replay left in memory. Blocks.
    pub(crate) fn flush_replayed(&self) -> Result<(), LogError> {
        self.check_running()?;
        self.flush()
    }
}

fn damage(frame: &ReplayedFrame, reason: String) -> LogError {
    LogError::Corrupt {
        file: frame.file.clone(),
        position: frame.position,
        reason,
    }
}

fn malformed(frame: &ReplayedFrame) -> LogError {
    damage(frame, "payload is malformed".to_owned())
}
