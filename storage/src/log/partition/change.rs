//! Cutting, purging, resetting and removing.
//!
//! Each is one small frame in the journal: memory changes when it is submitted, files only when it is durable, so that
//! a power loss in between leaves what was there. Runs on threads that may block.
//!
//! Nobody waits for the journal with the files locked: a full journal waits for checkpoints, which lock them. What is
//! captured meanwhile is the log after the change, with files that are longer than the checkpoint says, or too many:
//! loading it cuts or removes what lies behind. Appends cannot come between, for the change holds the turn.

use std::sync::Arc;

use tidelog_protocol::types::Offset;
use tokio::sync::OwnedSemaphorePermit;

use super::super::files::SegmentName;
use super::super::payload::{
    Cut, SegmentEnd, encode_purge, encode_remove, encode_reset, encode_truncate,
};
use super::super::segment::{OpenSegment, is_below};
use super::super::settled::{Settled, SettledSegment};
use super::super::state::State;
use super::super::{
    EntryId, EntryIndex, LogError, LogPosition, ProducerStateTable, checkpoint_key,
};
use super::{PartitionLog, Writing};
use crate::SyncPoint;
use crate::journal::{Frame, FrameKind};
use crate::kv::{KeySpace, KvError, KvWrite};

/// A cut with what memory will hold after it.
pub(super) struct PreparedCut {
    pub cut: Cut,
    pub open: OpenSegment,
    /// `None`: to be rebuilt from files later.
    pub producers: Option<ProducerStateTable>,
    /// Bytes of batches that stay; 0 where they are added up later.
    pub size_bytes: u64,
}

impl PartitionLog {
    /// Cuts off the entries after `index`. Durable when it returns.
    pub async fn truncate_after(&self, index: EntryIndex) -> Result<(), LogError> {
        let turn = self.take_turn().await?;
        self.change(turn, move |log| log.truncate_blocking(index))
            .await
    }

    /// Forgets the entries up to `index` and deletes the segments that hold nothing else. Durable when it returns.
    pub async fn purge_to(&self, index: EntryIndex) -> Result<(), LogError> {
        let turn = self.take_turn().await?;
        self.change(turn, move |log| log.purge_blocking(index))
            .await
    }

    /// Drops everything and restarts at a position. Durable when it returns.
    pub async fn reset(&self, at: LogPosition) -> Result<(), LogError> {
        let turn = self.take_turn().await?;
        self.change(turn, move |log| log.reset_blocking(at, Vec::new()))
            .await
    }

    /// Removes the log for good: checkpoint, files, journal. Once more is fine.
    pub(crate) async fn remove(&self) -> Result<(), LogError> {
        let turn = self.take_turn().await?;
        if matches!(self.check_running(), Err(LogError::Removed)) {
            return Ok(());
        }
        self.change(turn, |log| log.remove_blocking()).await
    }

    pub(super) async fn take_turn(&self) -> Result<OwnedSemaphorePermit, LogError> {
        let turn = Arc::clone(&self.turn).acquire_owned().await;
        turn.map_err(|_| LogError::Removed)
    }

    /// Runs a change, which holds its turn to its end also when nobody waits for it any more.
    pub(super) async fn change<T: Send + 'static>(
        &self,
        turn: OwnedSemaphorePermit,
        change: impl FnOnce(&PartitionLog) -> Result<T, LogError> + Send + 'static,
    ) -> Result<T, LogError> {
        let run = move |log: &PartitionLog| {
            let _turn = turn;
            change(log)
        };
        self.blocking(run).await
    }

    fn truncate_blocking(&self, index: EntryIndex) -> Result<(), LogError> {
        self.check_running()?;
        self.load_if_needed()?;
        let mut writing = self.writing.lock();
        let (bounds, has_files) = {
            let state = self.state.lock();
            (state.bounds, state.has_files)
        };
        if index == bounds.last.index {
            return Ok(());
        }
        if index < bounds.purged.index || index > bounds.last.index {
            return Err(LogError::EntryOutOfRange { index });
        }
        let journal = self.shared.journal()?;
        self.drain_to(&mut writing, bounds.last.index)
            .map_err(|error| self.stop_after(error))?;
        let prepared = if has_files {
            Some(self.prepare_cut_with_producers(index)?)
        } else {
            None
        };
        let (done, dropped, end) = {
            let mut state = self.state.lock();
            let prev_index = state.bounds.last.index;
            let dropped = match prepared {
                Some(prepared) => truncate_state(&mut state, prepared),
                None => truncate_inline(&mut state, index),
            };
            let last = state.bounds.last;
            let cut = Cut {
                last,
                next_offset: state.bounds.log_end,
                end: state.end(),
            };
            let payload = encode_truncate(&cut);
            let frame = Frame {
                log: self.id,
                kind: FrameKind::Truncate,
                prev_index,
                last_index: index,
                payload,
            };
            let (sequence, done) = self.submit_change(journal, frame);
            state.sequence = sequence;
            (done, dropped, cut.end)
        };
        drop(writing);
        self.wait(done)?;
        let cut = self.cut_files(&mut self.writing.lock(), &dropped, end);
        cut.map_err(|error| self.stop(error))
    }

    fn prepare_cut_with_producers(&self, index: EntryIndex) -> Result<PreparedCut, LogError> {
        let mut prepared = self.prepare_cut(index, self.next_offset_after(index)?)?;
        let producers = self.producers_at(index)?;
        if prepared.cut.end.side_bytes == 0 {
            prepared.open.producers_before = Some(producers.clone());
        }
        prepared.producers = Some(producers);
        let names: Vec<SegmentName> = self.state.lock().segments.names().collect();
        let mut size_bytes = prepared.cut.end.log_bytes;
        for name in names.iter().filter(|name| **name < prepared.cut.end.name) {
            size_bytes += self.extent(*name)?.log_bytes;
        }
        size_bytes += self.state.lock().segments.settled.size_bytes();
        prepared.size_bytes = size_bytes;
        Ok(prepared)
    }

    /// Finds where the log ends after a cut and what memory holds then; changes nothing. Everything is in files.
    pub(super) fn prepare_cut(
        &self,
        index: EntryIndex,
        next_offset: Offset,
    ) -> Result<PreparedCut, LogError> {
        let (last, name) = {
            let state = self.state.lock();
            let last = state
                .id_of(index)
                .ok_or(LogError::EntryOutOfRange { index })?;
            let after = EntryIndex(index.0 + 1);
            let found = state.segments.find_entry(after);
            (last, found.ok_or(LogError::EntryOutOfRange { index })?.0)
        };
        let mut end = SegmentEnd {
            name,
            log_bytes: 0,
            side_bytes: 0,
        };
        if name.first <= index {
            let side_end = self.side_end(name)?;
            self.walk_side_file(name, 0, side_end, |envelope, position| {
                if envelope.id.index > index {
                    (end.log_bytes, end.side_bytes) = (envelope.log_position, position);
                    return Ok(false);
                }
                end.log_bytes = envelope.log_position + u64::from(envelope.batch_bytes);
                end.side_bytes = position + envelope.encoded_bytes() as u64;
                Ok(true)
            })?;
        }
        self.prepare_cut_at(Cut {
            last,
            next_offset,
            end,
        })
    }

    /// Like `prepare_cut`, when it is known where the log ends.
    pub(super) fn prepare_cut_at(&self, cut: Cut) -> Result<PreparedCut, LogError> {
        let open = if cut.end.side_bytes == 0 {
            OpenSegment::new(cut.end.name, None)
        } else {
            self.scan_segment(cut.end)?.open
        };
        Ok(PreparedCut {
            cut,
            open,
            producers: None,
            size_bytes: 0,
        })
    }

    /// Removes what lies behind a cut that is durable.
    pub(super) fn cut_files(
        &self,
        writing: &mut Writing,
        dropped: &[SegmentName],
        end: SegmentEnd,
    ) -> Result<(), LogError> {
        for name in dropped {
            writing.unsynced.remove(name);
            self.files.remove_segment(*name, Some(end.name))?;
        }
        writing.epoch_written = None;
        if end.side_bytes == 0 {
            writing.unsynced.remove(&end.name);
            self.files.remove_segment(end.name, None)
        } else {
            writing.unsynced.insert(end.name, true);
            self.cut_segment(end)
        }
    }

    /// Identity of an entry up to which the log is to be purged, and the offset after it; `None` if it was already.
    pub(super) fn purge_point(
        &self,
        index: EntryIndex,
    ) -> Result<Option<(EntryId, Offset)>, LogError> {
        self.check_running()?;
        self.load_if_needed()?;
        let bounds = self.bounds();
        if index <= bounds.purged.index {
            return Ok(None);
        }
        if index > bounds.last.index {
            return Err(LogError::EntryOutOfRange { index });
        }
        let next_offset = self.next_offset_after(index)?;
        let purged = self
            .entry_id(index)
            .ok_or(LogError::EntryOutOfRange { index })?;
        Ok(Some((purged, next_offset)))
    }

    fn purge_blocking(&self, index: EntryIndex) -> Result<(), LogError> {
        match self.purge_point(index)? {
            Some((purged, next_offset)) => self.purge_at(purged, next_offset),
            None => Ok(()),
        }
    }

    pub(super) fn purge_at(&self, purged: EntryId, next_offset: Offset) -> Result<(), LogError> {
        let journal = self.shared.journal()?;
        let mut writing = self.writing.lock();
        let prepared = self.prepare_purge(&mut writing, purged.index);
        let freed = prepared
            .and_then(|()| self.bytes_below(purged.index))
            .map_err(|error| self.stop_after(error))?;
        let (done, settled, dropped, permits) = {
            let mut state = self.state.lock();
            let last_index = state.bounds.last.index;
            let settled = drop_settled(&mut state);
            let (dropped, permits) = purge_state(&mut state, purged, next_offset, freed);
            let payload = encode_purge(purged, next_offset);
            let frame = Frame {
                log: self.id,
                kind: FrameKind::Purge,
                prev_index: last_index,
                last_index,
                payload,
            };
            let (sequence, done) = self.submit_change(journal, frame);
            state.sequence = sequence;
            (done, settled, dropped, permits)
        };
        drop(writing);
        self.shared.release_write_behind(permits);
        self.wait(done)?;
        let mut writing = self.writing.lock();
        let removed = self.remove_settled(&mut writing, &settled);
        let removed = removed.and_then(|()| self.remove_purged(&mut writing, &dropped));
        removed.map_err(|error| self.stop(error))
    }

    /// Brings everything into files and begins a new segment if nothing of the active one stays.
    pub(super) fn prepare_purge(
        &self,
        writing: &mut Writing,
        index: EntryIndex,
    ) -> Result<(), LogError> {
        let last = {
            let mut state = self.state.lock();
            let last = state.bounds.last.index;
            if !state.has_files {
                return Ok(());
            }
            if index == last && !state.segments.active.is_empty() {
                state.roll();
            }
            last
        };
        self.drain_to(writing, last)
    }

    /// Bytes of batches in the segments that hold nothing above an entry.
    fn bytes_below(&self, index: EntryIndex) -> Result<u64, LogError> {
        let below = segments_below(&self.state.lock(), index);
        let mut bytes = 0;
        for (name, _) in below {
            bytes += self.extent(name)?.log_bytes;
        }
        Ok(bytes)
    }

    /// Deletes segments that were purged.
    pub(super) fn remove_purged(
        &self,
        writing: &mut Writing,
        dropped: &[(SegmentName, SegmentName)],
    ) -> Result<(), LogError> {
        for (name, next) in dropped {
            writing.unsynced.remove(name);
            self.files.remove_segment(*name, Some(*next))?;
        }
        Ok(())
    }

    /// Begins anew at a position, behind segments whose files are synced.
    pub(super) fn reset_blocking(
        &self,
        at: LogPosition,
        segments: Vec<SettledSegment>,
    ) -> Result<(), LogError> {
        self.check_running()?;
        let journal = self.shared.journal()?;
        let (done, permits) = {
            // Not in the middle of a write: what it wrote would count as written of the log that begins anew.
            let _writing = self.writing.lock();
            let mut state = self.state.lock();
            let prev_index = state.bounds.last.index;
            let settled = Settled {
                first_dirty: (segments.first()).map_or(at.next_offset, |first| first.name.base),
                segments,
                revision: state.segments.settled.revision,
            };
            let payload = encode_reset(&self.identity, &at, &settled);
            let permits = reset_state(&mut state, at, settled);
            let last_index = state.bounds.last.index;
            let frame = Frame {
                log: self.id,
                kind: FrameKind::Reset,
                prev_index,
                last_index,
                payload,
            };
            let (sequence, done) = self.submit_change(journal, frame);
            state.sequence = sequence;
            (done, permits)
        };
        self.shared.release_write_behind(permits);
        self.wait(done)?;
        let removed = self.remove_replaced(&mut self.writing.lock(), |settled, name| {
            settled.has_files(name.0, name.1)
        });
        removed.map_err(|error| self.stop(error))
    }

    /// Removes the files of a log that began anew, but for those of records below its entries that are to be kept.
    pub(super) fn remove_replaced(
        &self,
        writing: &mut Writing,
        keep: impl Fn(&Settled, (Offset, u32)) -> bool,
    ) -> Result<(), LogError> {
        let (end, settled) = {
            let segments = &self.state.lock().segments;
            (segments.settled_end(), segments.settled.clone())
        };
        if settled.segments.is_empty() {
            return self.remove_files(writing);
        }
        *writing = Writing {
            folder_known: true,
            directory_unsynced: true,
            ..Writing::default()
        };
        self.files.remove_all_but(|file| {
            let records = SegmentName::of_record_file(file);
            records.is_some_and(|name| name.0 < end && keep(&settled, name))
        })
    }

    /// Removes the folder, which no entry is in any more.
    pub(super) fn remove_files(&self, writing: &mut Writing) -> Result<(), LogError> {
        *writing = Writing::default();
        self.files.remove_all()
    }

    fn remove_blocking(&self) -> Result<(), LogError> {
        let journal = self.shared.journal()?;
        {
            // The mark first: from here on the log is gone, whatever becomes of its frames.
            let _one_writer = self.shared.checkpoints.lock();
            self.write_kv(self.removed_checkpoint(), SyncPoint::RemovalMark)?;
            self.stop(LogError::Removed);
        }
        let done = {
            let mut state = self.state.lock();
            let last_index = state.bounds.last.index;
            let frame = Frame {
                log: self.id,
                kind: FrameKind::Remove,
                prev_index: last_index,
                last_index,
                payload: encode_remove(),
            };
            let (sequence, done) = self.submit_change(journal, frame);
            state.sequence = sequence;
            done
        };
        self.remove_files(&mut self.writing.lock())?;
        // The frame is what the mark stood for: behind it no other frame of the log means anything.
        self.wait(done)?;
        self.forget_removal();
        Ok(())
    }

    /// Removes the folder of a log whose removal is durable. Blocks.
    pub(crate) fn finish_removal(&self) -> Result<(), LogError> {
        self.stop(LogError::Removed);
        self.remove_files(&mut self.writing.lock())
    }

    /// Drops the mark of a removed log that has no frames in the journal, or none that count. A power loss may bring it
    /// back; the next start drops it again.
    pub(crate) fn forget_removal(&self) {
        let unmark = KvWrite::Delete(KeySpace::Checkpoint, checkpoint_key(self.id));
        let log = self.id.0;
        let done = Box::new(move |written: Result<(), KvError>| {
            if let Err(error) = written {
                tracing::warn!(log, %error, "checkpoint of a removed log is left");
            }
        });
        self.shared.kv.write(vec![unmark], None, done);
    }

    pub(super) fn write_kv(&self, write: KvWrite, point: SyncPoint) -> Result<(), LogError> {
        let written = self.shared.kv.write_sync(vec![write], point);
        written.map_err(|error| LogError::Io(Arc::from(error.to_string())))
    }
}

/// Applies a prepared cut to memory; returns the segments that are gone.
pub(super) fn truncate_state(state: &mut State, prepared: PreparedCut) -> Vec<SegmentName> {
    let PreparedCut {
        cut,
        mut open,
        producers,
        size_bytes,
    } = prepared;
    let gone: Vec<SegmentName> = state
        .segments
        .names()
        .filter(|name| *name > cut.end.name)
        .collect();
    let before = state
        .segments
        .open(cut.end.name)
        .and_then(|old| old.producers_before.clone());
    open.producers_before = open.producers_before.or(before);
    state
        .segments
        .closed
        .retain(|closed| closed.name < cut.end.name);
    state.segments.sealed.clear();
    state.segments.active = open;
    state.producers_in_files = producers.is_none();
    state.producers = producers.unwrap_or_default();
    state.bounds.size_bytes = size_bytes;
    truncate_rest(state, cut.last, cut.next_offset);
    gone
}

/// Cuts a log without files; it holds no batches.
pub(super) fn truncate_inline(state: &mut State, index: EntryIndex) -> Vec<SegmentName> {
    let Some(last) = state.id_of(index) else {
        return Vec::new();
    };
    let log_end = state.bounds.log_end;
    truncate_rest(state, last, log_end);
    state.place_inline_anew();
    Vec::new()
}

fn truncate_rest(state: &mut State, last: EntryId, next_offset: Offset) {
    state.tail.truncate_after(last.index);
    state.epochs.truncate_after(last.index);
    if last == state.bounds.purged && last.index.0 > 0 {
        state.epochs.record(last, next_offset);
        state.epochs.purge_to(last.index, next_offset);
    }
    state.bounds.last = last;
    state.bounds.log_end = next_offset;
    state.bounds.log_start = state.bounds.log_start.min(next_offset);
}

/// Forgets the settled segments, all of which are below what is purged; returns their names.
pub(super) fn drop_settled(state: &mut State) -> Vec<SegmentName> {
    let settled = &mut state.segments.settled;
    let size_bytes = settled.size_bytes();
    let gone = std::mem::take(&mut settled.segments);
    state.bounds.size_bytes = state.bounds.size_bytes.saturating_sub(size_bytes);
    gone.iter().map(|segment| segment.name).collect()
}

/// Applies a purge to memory; returns the segments that are gone, each with the next one, and permits.
pub(super) fn purge_state(
    state: &mut State,
    purged: EntryId,
    next_offset: Offset,
    freed_bytes: u64,
) -> (Vec<(SegmentName, SegmentName)>, usize) {
    let permits = state.purge(purged, next_offset);
    state.bounds.size_bytes = state.bounds.size_bytes.saturating_sub(freed_bytes);
    let gone = drop_segments_below(state, purged.index);
    if !state.has_files {
        state.place_inline_anew();
    }
    (gone, permits)
}

/// The segments that hold nothing above an entry, oldest first, each with the next one.
pub(super) fn segments_below(state: &State, index: EntryIndex) -> Vec<(SegmentName, SegmentName)> {
    let segments = &state.segments;
    let pairs = segments.names().zip(segments.names().skip(1));
    let below = pairs.take_while(|(_, next)| is_below(*next, index));
    below.collect()
}

/// Drops the segments that hold nothing above an entry; returns each with the next one.
pub(super) fn drop_segments_below(
    state: &mut State,
    purged: EntryIndex,
) -> Vec<(SegmentName, SegmentName)> {
    let gone = segments_below(state, purged);
    (state.segments.closed).retain(|closed| !gone.iter().any(|(name, _)| *name == closed.name));
    gone
}

/// Empties memory but for settled segments; returns permits.
pub(super) fn reset_state(state: &mut State, at: LogPosition, settled: Settled) -> usize {
    let permits = state.tail.abandon();
    let mut fresh = State::at(at);
    if !settled.segments.is_empty() {
        fresh.has_files = true;
        fresh.bounds.size_bytes = settled.size_bytes();
        fresh.segments.settled = settled;
    }
    let old = std::mem::replace(state, fresh);
    (state.sequence, state.covered, state.queued) = (old.sequence, old.covered, old.queued);
    permits
}
