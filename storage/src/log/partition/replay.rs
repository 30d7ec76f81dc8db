//! Applying journal frames at start.
//!
//! Frames are applied in order, as the live changes were, but for the journal. The files may be ahead of the checkpoint:
//! a truncation or purge that was made durable after it may have cut, overwritten or deleted what the checkpoint
//! describes. Such a log is held back until that change comes; if none does, the damage is real. Invariant: no byte behind a cut that is
//! still to come is believed.

use bytes::Bytes;

use super::super::files::SegmentName;
use super::super::payload::{Cut, decode_append, decode_purge, decode_reset, decode_truncate};
use super::super::segment::OpenSegment;
use super::super::settled::decode_settle;
use super::super::state::Segments;
use super::super::{EntryIndex, LogError, Stamping};
use super::PartitionLog;
use super::change::{
    PreparedCut, drop_segments_below, drop_settled, purge_state, reset_state, truncate_inline,
    truncate_state,
};
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

/// What a frame leaves of the files behind it.
enum Behind {
    /// Everything stays.
    Nothing,
    /// A truncation cuts below what the checkpoint describes.
    Cut,
    /// A purge drops all that the checkpoint describes.
    Purged,
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
            if self.state.lock().unloaded.is_some() {
                self.load(&mut writing, true)?;
            }
        }
        if self.state.lock().suspect.is_none() {
            return self.apply(replay, &frame);
        }
        match self.look_behind(replay, &frame)? {
            Behind::Nothing => {
                replay.deferred.push(frame);
                return Ok(());
            }
            Behind::Cut => {
                // What was held back is behind the cut, but for purges, which are below it.
                replay.deferred.retain(|held| is_below_cuts(held.kind));
                self.apply(replay, &frame)?;
                if self.state.lock().suspect.is_some() {
                    if !self.holds_purge_of_all(replay)? {
                        return Ok(());
                    }
                    self.begin_behind_checkpoint()?;
                }
                return self.apply_held(replay);
            }
            Behind::Purged => self.begin_behind_checkpoint()?,
        }
        self.apply_held(replay)?;
        self.apply(replay, &frame)
    }

    /// Whether a purge that is held back drops everything up to the floor.
    fn holds_purge_of_all(&self, replay: &Replay) -> Result<bool, LogError> {
        for held in &replay.deferred {
            if matches!(self.look_behind(replay, held)?, Behind::Purged) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn apply_held(&self, replay: &mut Replay) -> Result<(), LogError> {
        for held in std::mem::take(&mut replay.deferred) {
            let sequence = self.state.lock().sequence;
            self.apply(replay, &held)?;
            let mut state = self.state.lock();
            state.sequence = state.sequence.max(sequence);
        }
        Ok(())
    }

    /// Whether a frame makes void everything that cannot be believed.
    fn look_behind(&self, replay: &Replay, frame: &ReplayedFrame) -> Result<Behind, LogError> {
        match frame.kind {
            FrameKind::Truncate => {
                let cut = decode_truncate(&frame.payload).ok_or_else(|| malformed(frame))?;
                let below = cut.last.index < replay.floor;
                Ok(if below { Behind::Cut } else { Behind::Nothing })
            }
            FrameKind::Purge => {
                let (purged, _) = decode_purge(&frame.payload).ok_or_else(|| malformed(frame))?;
                let below = purged.index >= replay.floor;
                Ok(if below {
                    Behind::Purged
                } else {
                    Behind::Nothing
                })
            }
            _ => Ok(Behind::Nothing),
        }
    }

    /// Drops everything that the checkpoint describes, which a purge is about to drop, and begins behind it.
    fn begin_behind_checkpoint(&self) -> Result<(), LogError> {
        let mut writing = self.writing.lock();
        {
            let mut state = self.state.lock();
            let bounds = state.bounds;
            let first = EntryIndex(bounds.last.index.0.saturating_add(1));
            let name = SegmentName {
                base: bounds.log_end,
                first,
                revision: 0,
            };
            state.segments = Segments::empty(name, state.producers.clone());
            // Better to know no producer than one of entries that were cut.
            state.producers_in_files = false;
            state.suspect = None;
            state.bounds.size_bytes = 0;
            state.purge(bounds.last, bounds.log_end);
        }
        self.remove_files(&mut writing)
    }

    fn apply(&self, replay: &mut Replay, frame: &ReplayedFrame) -> Result<(), LogError> {
        let last = self.bounds().last.index;
        // Purges that were held back, and cuts that void what was, do not follow what is there.
        let follows = frame.prev_index == last
            || is_below_cuts(frame.kind)
            || self.state.lock().suspect.is_some();
        if !follows {
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
            FrameKind::Settle => self.replay_settle(replay, frame)?,
            FrameKind::Reset | FrameKind::Remove => {}
        }
        self.state.lock().sequence = frame.sequence;
        Ok(())
    }

    fn replay_append(&self, frame: &ReplayedFrame) -> Result<(), LogError> {
        // Copied, for a slice would keep the whole read of the journal that it was cut from.
        let payload = Bytes::copy_from_slice(&frame.payload);
        let entries = decode_append(&payload).map_err(|reason| damage(frame, reason))?;
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
            match self.prepare_cut_at(cut) {
                // A later, lower cut may have written over this one as well.
                Err(error @ LogError::Corrupt { .. }) => {
                    return self.doubt(replay, cut, error);
                }
                prepared => prepared?,
            }
        } else if cut.last.index == bounds.last.index {
            return Ok(());
        } else {
            self.drain_to(&mut writing, bounds.last.index)?;
            self.prepare_cut(cut.last.index, cut.next_offset)?
        };
        let (dropped, end) = {
            let mut state = self.state.lock();
            let dropped = truncate_state(&mut state, prepared);
            state.suspect = None;
            (dropped, state.end())
        };
        replay.floor = replay.floor.min(cut.last.index);
        replay.recount = true;
        self.cut_files(&mut writing, &dropped, end)
    }

    /// Takes a cut over without its files, which are believed no more than those of the checkpoint before it.
    fn doubt(&self, replay: &mut Replay, cut: Cut, error: LogError) -> Result<(), LogError> {
        replay.floor = cut.last.index;
        replay.recount = true;
        let mut open = OpenSegment::new(cut.end.name, None);
        (open.log_end, open.side_end) = (cut.end.log_bytes, cut.end.side_bytes);
        (open.written.log, open.written.side) = (cut.end.log_bytes, cut.end.side_bytes);
        let prepared = PreparedCut {
            cut,
            open,
            producers: None,
            size_bytes: 0,
        };
        let dropped = {
            let mut state = self.state.lock();
            let dropped = truncate_state(&mut state, prepared);
            state.suspect = Some(error);
            dropped
        };
        for name in dropped {
            self.files.remove_segment(name, Some(cut.end.name))?;
        }
        Ok(())
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
        // What is dropped is not looked at: of a segment that an earlier purge left there may be anything.
        self.prepare_purge(&mut writing, purged.index)?;
        let (settled, dropped, permits) = {
            let mut state = self.state.lock();
            let settled = drop_settled(&mut state);
            let (dropped, permits) = purge_state(&mut state, purged, next_offset, 0);
            (settled, dropped, permits)
        };
        self.shared.release_write_behind(permits);
        self.remove_settled(&mut writing, &settled)?;
        self.remove_purged(&mut writing, &dropped)
    }

    /// Takes over which segments are settled. Their files are as the checkpoint before the frame left them, or were
    /// synced before it; leftovers are removed at the end.
    fn replay_settle(&self, replay: &mut Replay, frame: &ReplayedFrame) -> Result<(), LogError> {
        let settle = decode_settle(&frame.payload).ok_or_else(|| malformed(frame))?;
        let (purged, next_offset, settled) = settle;
        let bounds = self.bounds();
        if purged.index > bounds.last.index {
            return Err(damage(
                frame,
                format!("settled to {purged:?}, which is outside of {bounds:?}"),
            ));
        }
        replay.recount = true;
        if purged.index > bounds.purged.index {
            let mut state = self.state.lock();
            let permits = state.forget(purged, next_offset);
            drop_segments_below(&mut state, purged.index);
            drop(state);
            self.shared.release_write_behind(permits);
        }
        self.state.lock().segments.settled = settled;
        Ok(())
    }

    fn replay_reset(&self, replay: &mut Replay, frame: &ReplayedFrame) -> Result<(), LogError> {
        let (_, at, settled) = decode_reset(&frame.payload).ok_or_else(|| malformed(frame))?;
        let mut writing = self.writing.lock();
        {
            let mut state = self.state.lock();
            replay.recount |= !settled.segments.is_empty();
            reset_state(&mut state, at, settled);
            state.sequence = frame.sequence;
            replay.floor = state.bounds.last.index;
        }
        // Compaction may have put others in the places of those that it began with.
        self.remove_replaced(&mut writing, |_, (_, revision)| revision > 0)
    }

    /// Ends the replay: writes what waits, and stops the log if it cannot be believed. Blocks.
    pub(crate) fn finish_replay(&self, replay: &Replay) -> Result<(), LogError> {
        let suspect = self.state.lock().suspect.take();
        if let Some(error) = suspect {
            return Err(self.stop(error));
        }
        self.remove_purged_before()
            .map_err(|error| self.stop_unless_no_room(error))?;
        if self.state.lock().producers_in_files {
            self.flush()?;
        }
        if replay.recount {
            self.flush()?;
            let names: Vec<SegmentName> = self.state.lock().segments.names().collect();
            let mut size_bytes = self.state.lock().segments.settled.size_bytes();
            for name in names {
                // Damage is for those to find who read there.
                size_bytes += match self.extent(name) {
                    Err(LogError::Corrupt { .. }) => 0,
                    extent => extent?.log_bytes,
                };
            }
            self.state.lock().bounds.size_bytes = size_bytes;
        }
        self.evict_replayed();
        Ok(())
    }

    /// Lets go of what the replay left in memory as soon as it is in files: nobody asked for it.
    fn evict_replayed(&self) {
        let mut state = self.state.lock();
        if state.has_files {
            let last = state.bounds.last.index;
            state.tail.evict_to(last);
        }
    }

    /// Removes the segments that a purge before the checkpoint left, which only now can be told from others.
    fn remove_purged_before(&self) -> Result<(), LogError> {
        let mut writing = self.writing.lock();
        let dropped = {
            let mut state = self.state.lock();
            if !state.has_files || state.unloaded.is_some() {
                return Ok(());
            }
            let purged = state.bounds.purged.index;
            drop_segments_below(&mut state, purged)
        };
        for (name, next) in dropped {
            writing.unsynced.remove(&name);
            self.remove_forgotten(name, next)?;
        }
        self.remove_leftovers()?;
        drop(writing);
        self.check_folder()
    }

    /// Writes what the replay left in memory so far. Blocks.
    pub(crate) fn flush_replayed(&self) -> Result<(), LogError> {
        self.check_running()?;
        let drained = {
            let mut writing = self.writing.lock();
            let last = self.state.lock().bounds.last.index;
            self.drain_to(&mut writing, last)
        };
        self.evict_replayed();
        drained.map_err(|error| self.stop_unless_no_room(error))
    }
}

/// Whether a frame is about entries below every cut that may come: they are committed.
fn is_below_cuts(kind: FrameKind) -> bool {
    matches!(kind, FrameKind::Purge | FrameKind::Settle)
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
