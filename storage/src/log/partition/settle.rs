//! Forgetting entries while their records stay, and changing the files of such records.
//!
//! Each change is one journal frame that holds the whole list of settled segments from then on. Files that it names
//! are synced before it is submitted, files that it no longer names are removed once it is durable; what a power loss
//! leaves of either is found by not being on the list. Invariant: entries are settled only behind a checkpoint that
//! covers them, so that a replay never lays out a settled segment anew.

use bytes::BytesMut;
use tidelog_protocol::types::{Offset, TimestampMs};

use super::super::files::SegmentName;
use super::super::segment::is_below;
use super::super::settled::{Settled, SettledSegment, encode_settle};
use super::super::state::State;
use super::super::{EntryId, EntryIndex, LogError};
use super::append::ChangeDone;
use super::change::{drop_segments_below, segments_below};
use super::retention::lets_go;
use super::{PartitionLog, Writing};
use crate::journal::{Frame, FrameKind, FrameSequence, Journal};

/// Neighbouring settled segments that give way to one, or to none.
#[derive(Debug)]
pub(super) struct Replacement {
    pub sources: Vec<SegmentName>,
    pub made: Option<SettledSegment>,
    /// Everything below has been seen by compaction then.
    pub first_dirty: Option<Offset>,
}

impl PartitionLog {
    /// Forgets the entries up to `index`. Records from the log start on stay readable; when there are none among what
    /// is forgotten this is [`PartitionLog::purge_to`], else it forgets whole segments only, up to the last one that
    /// ends there or before. Durable when it returns.
    pub async fn forget_to(&self, index: EntryIndex) -> Result<(), LogError> {
        let turn = self.take_turn().await?;
        self.change(turn, move |log| {
            let Some((purged, next_offset)) = log.purge_point(index)? else {
                return Ok(());
            };
            if next_offset <= log.bounds().log_start || !log.state.lock().has_files {
                log.purge_at(purged, next_offset)
            } else {
                log.settle_to(index)
            }
        })
        .await
    }

    fn settle_to(&self, index: EntryIndex) -> Result<(), LogError> {
        let journal = self.shared.journal()?;
        {
            let mut writing = self.writing.lock();
            let prepared = self.prepare_purge(&mut writing, index);
            prepared.map_err(|error| self.stop_after(error))?;
        }
        let Some((purged, next_offset)) = self.segment_end(index) else {
            return Ok(());
        };
        let index = purged.index;
        self.checkpoint_now()
            .map_err(|error| self.stop_after(error))?;
        let (settled, gone_bytes) = self.newly_settled(index)?;
        let (done, dropped, permits) = {
            let mut state = self.state.lock();
            let permits = state.forget(purged, next_offset);
            let dropped = drop_segments_below(&mut state, index);
            let list = &mut state.segments.settled;
            if list.segments.is_empty() {
                let first = settled.first().map_or(next_offset, |first| first.name.base);
                list.first_dirty = list.first_dirty.max(first);
            }
            list.segments.extend(settled);
            state.bounds.size_bytes = state.bounds.size_bytes.saturating_sub(gone_bytes);
            let done = self.submit_settled(journal, &mut state, next_offset);
            (done, dropped, permits)
        };
        self.shared.release_write_behind(permits);
        self.wait(done)?;
        let mut writing = self.writing.lock();
        let removed = dropped.into_iter().try_for_each(|(name, next)| {
            writing.unsynced.remove(&name);
            self.remove_forgotten(name, next)
        });
        removed.map_err(|error| self.stop(error))
    }

    /// Last entry of the last segment that ends at `index` or before, and the offset behind it; `None` if it is
    /// forgotten already. A segment that was forgotten in part could lose the rest to a cut, and would be on no list then.
    fn segment_end(&self, index: EntryIndex) -> Option<(EntryId, Offset)> {
        let state = self.state.lock();
        let (_, next) = *segments_below(&state, index).last()?;
        let last = EntryIndex(next.first.0.saturating_sub(1));
        if last <= state.bounds.purged.index {
            return None;
        }
        Some((state.id_of(last)?, next.base))
    }

    /// The segments below an entry that hold records from the log start on, and the bytes of those that do not.
    fn newly_settled(&self, index: EntryIndex) -> Result<(Vec<SettledSegment>, u64), LogError> {
        let (below, log_start) = {
            let state = self.state.lock();
            (segments_below(&state, index), state.bounds.log_start)
        };
        let (mut settled, mut gone_bytes) = (Vec::new(), 0);
        for (name, next) in below {
            let extent = self.extent(name)?;
            if next.base <= log_start {
                gone_bytes += extent.log_bytes;
            } else if extent.log_bytes > 0 {
                settled.push(SettledSegment { name, extent });
            }
        }
        Ok((settled, gone_bytes))
    }

    /// Submits the list of settled segments as it is now.
    fn submit_settled(
        &self,
        journal: &Journal,
        state: &mut State,
        next_offset: Offset,
    ) -> ChangeDone {
        let last_index = state.bounds.last.index;
        let payload = encode_settle(state.bounds.purged, next_offset, &state.segments.settled);
        let frame = Frame {
            log: self.id,
            kind: FrameKind::Settle,
            prev_index: last_index,
            last_index,
            payload,
        };
        let (sequence, done): (FrameSequence, ChangeDone) = self.submit_change(journal, frame);
        state.sequence = sequence;
        done
    }

    /// Lets settled segments give way to what compaction made of them, whose files are synced. False, and nothing
    /// changes, if they are not all there any more. The caller holds the turn.
    pub(super) fn replace_settled(&self, change: &Replacement) -> Result<bool, LogError> {
        self.check_running()?;
        let journal = self.shared.journal()?;
        let done = {
            let mut state = self.state.lock();
            if !replace(&mut state, change) {
                return Ok(false);
            }
            let end = state.segments.settled_end();
            self.submit_settled(journal, &mut state, end)
        };
        self.wait(done)?;
        let removed = self.remove_settled(&mut self.writing.lock(), &change.sources);
        removed.map_err(|error| self.stop(error))?;
        Ok(true)
    }

    /// Names what compaction has left: another value, and records that were read before and after it do not belong
    /// together.
    pub fn settled_mark(&self) -> u32 {
        let mut list = BytesMut::new();
        self.state.lock().segments.settled.encode(&mut list);
        crc32c::crc32c(&list)
    }

    /// Offset up to which retention (time, bytes, log start) lets settled segments go.
    pub fn settled_expired(&self, now: TimestampMs) -> Option<Offset> {
        let config = self.config();
        let state = self.state.lock();
        let mut size = state.bounds.size_bytes;
        let mut expired = None;
        let settled = &state.segments.settled;
        for (segment, end) in settled.with_ends(state.segments.settled_end()) {
            let by_start = end <= state.bounds.log_start;
            if !by_start && !lets_go(&config, &segment.extent, size, now) {
                break;
            }
            size = size.saturating_sub(segment.extent.log_bytes);
            expired = Some(end);
        }
        expired
    }

    /// Deletes the settled segments below the log start. Durable when it returns.
    pub async fn drop_settled_below_start(&self) -> Result<(), LogError> {
        let turn = self.take_turn().await?;
        self.change(turn, |log| {
            let sources: Vec<SegmentName> = {
                let state = log.state.lock();
                let end = state.segments.settled_end();
                let below = (state.segments.settled.with_ends(end))
                    .take_while(|(_, end)| *end <= state.bounds.log_start);
                below.map(|(segment, _)| segment.name).collect()
            };
            if sources.is_empty() {
                return Ok(());
            }
            log.load_if_needed()?;
            let change = Replacement {
                sources,
                made: None,
                first_dirty: None,
            };
            log.replace_settled(&change).map(drop)
        })
        .await
    }

    /// Removes settled segments that are no longer on the list.
    pub(super) fn remove_settled(
        &self,
        writing: &mut Writing,
        names: &[SegmentName],
    ) -> Result<(), LogError> {
        for name in names {
            writing.unsynced.remove(name);
            self.files.remove_segment(*name, None)?;
        }
        Ok(())
    }

    /// Removes what a segment whose entries were forgotten does not need any more.
    pub(super) fn remove_forgotten(
        &self,
        name: SegmentName,
        next: SegmentName,
    ) -> Result<(), LogError> {
        let settled = (self.state.lock().segments.settled).has_files(name.base, 0);
        if settled {
            self.files.remove_side_files(name)
        } else {
            self.files.remove_segment(name, Some(next))
        }
    }

    /// Removes what changes that are durable by now have left in the folder.
    pub(super) fn remove_leftovers(&self) -> Result<(), LogError> {
        let first = {
            let state = self.state.lock();
            state.segments.names().next()
        };
        let Some(first) = first else {
            return Ok(());
        };
        let listed = self.files.list()?;
        let entries = listed
            .iter()
            .filter_map(|file| SegmentName::of_entries_file(file));
        for name in entries.filter(|name| *name < first) {
            self.files.remove_side_files(name)?;
        }
        self.remove_unlisted(&listed, first)
    }

    /// Files of the folder that belong to no segment.
    #[cfg(test)]
    pub(crate) fn unlisted_files(&self) -> Vec<String> {
        let listed = self.files.list().unwrap_or_default();
        let state = self.state.lock();
        let settled = &state.segments.settled;
        let counts = |file: &String| match SegmentName::of_record_file(file) {
            Some((base, revision)) => {
                settled.has_files(base, revision)
                    || (revision == 0 && state.segments.names().any(|name| name.base == base))
            }
            None => match SegmentName::of_entries_file(file) {
                Some(name) => state.segments.names().any(|other| other == name),
                None => true,
            },
        };
        listed.into_iter().filter(|file| !counts(file)).collect()
    }

    /// Removes files of records below the first segment with entries that are not on the list.
    pub(super) fn remove_unlisted(
        &self,
        listed: &[String],
        first: SegmentName,
    ) -> Result<(), LogError> {
        let (settled, purged): (Settled, EntryIndex) = {
            let state = self.state.lock();
            (state.segments.settled.clone(), state.bounds.purged.index)
        };
        if !is_below(first, purged) {
            // Something that counts is missing: nothing is removed by what remains.
            return Ok(());
        }
        for file in listed {
            let Some((base, revision)) = SegmentName::of_record_file(file) else {
                continue;
            };
            let counts = settled.has_files(base, revision) && !file.ends_with(".snapshot");
            if base < first.base && !counts {
                self.files.remove(file)?;
            }
        }
        Ok(())
    }
}

/// Applies a replacement to memory; false if its sources are not neighbours on the list.
fn replace(state: &mut State, change: &Replacement) -> bool {
    let list = &mut state.segments.settled;
    let before = list.size_bytes();
    if let Some(first) = change.sources.first() {
        let at = (list.segments).binary_search_by_key(first, |segment| segment.name);
        let Ok(at) = at else {
            return false;
        };
        let end = at + change.sources.len();
        let found = list.segments.get(at..end).unwrap_or_default();
        let found = found.iter().map(|segment| segment.name);
        if !found.eq(change.sources.iter().copied()) {
            return false;
        }
        list.segments.splice(at..end, change.made);
    }
    if let Some(first_dirty) = change.first_dirty {
        list.first_dirty = list.first_dirty.max(first_dirty);
    }
    let after = list.size_bytes();
    state.bounds.size_bytes =
        (state.bounds.size_bytes.saturating_sub(before)).saturating_add(after);
    true
}
