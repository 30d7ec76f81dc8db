//! Moving entries from memory to the segment's files, through the page cache, behind the appends.
//!
//! Many entries go out in one write. Invariant: files are written in entry order; the tail drops an entry only when its
//! bytes are in files.

use std::io::IoSlice;

use bytes::Bytes;
use tidelog_protocol::types::LeaderEpoch;

use super::super::files::{EPOCH_FILE, FileKind, SegmentName};
use super::super::segment::{OpenSegment, WrittenTo, side_header};
use super::super::state::{ClosedSegment, SegmentExtent, State};
use super::super::write_queue::WriteQueue;
use super::super::{EntryIndex, LogError, ProducerStateTable};
use super::{PartitionLog, Writing};
use crate::fs::File;

/// Bytes of batches in one write.
const WRITE_BYTES_MAX: usize = 4 << 20;
/// Entries in one write.
const WRITE_ENTRIES_MAX: usize = 1024;
/// Bytes after which write-back is started, so that a later sync finds little to do.
const HINT_BYTES: u64 = 4 << 20;

/// One write to the files of one segment.
struct Work {
    name: SegmentName,
    /// The files are new: header of the side file and producer state.
    beginning: Option<(Bytes, Option<ProducerStateTable>)>,
    from: WrittenTo,
    to: WrittenTo,
    last: EntryIndex,
    log: Vec<Bytes>,
    side: Vec<Bytes>,
    /// `.index`, `.timeindex`, `.entryindex`.
    indexes: [(FileKind, u64, Vec<u8>); 3],
    epochs: Option<(LeaderEpoch, String)>,
}

/// What is to be done about a log after a step of writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Written {
    /// The next step is worth it.
    Some,
    /// Nothing, or it waits in the queue for more.
    All,
    /// Everything waits until there is room again: what was written in part will be written once more.
    NoRoom,
}

impl PartitionLog {
    /// Writes what waits, once; called by the threads of the write queue.
    fn write_behind(&self) -> Written {
        let written = self
            .check_running()
            .and_then(|()| self.write_step(&mut self.writing.lock()));
        if let Err(error) = written {
            if let LogError::NoSpace(_) = error {
                self.shared.note_no_room(&error);
                return Written::NoRoom;
            }
            self.stop(error);
        }
        let mut state = self.state.lock();
        let stopped = self.stopped.lock().is_some();
        let left = state.has_files && !stopped && state.has_unwritten();
        let worth_it = left && state.is_round_unwritten();
        // An append that came meanwhile saw the mark and did not queue the log.
        state.queued = left;
        if left
            && !worth_it
            && let Some(me) = self.me.upgrade()
        {
            self.shared.queue_to_wait(me);
        }
        let abandoned = if stopped { state.tail.abandon() } else { 0 };
        drop(state);
        self.shared.release_write_behind(abandoned);
        if worth_it {
            Written::Some
        } else {
            Written::All
        }
    }

    /// Writes everything up to an entry. The caller holds the right to write.
    pub(super) fn drain_to(&self, writing: &mut Writing, upto: EntryIndex) -> Result<(), LogError> {
        loop {
            {
                let state = self.state.lock();
                let done = state.tail.written() >= upto && state.segments.sealed.is_empty();
                if done || !state.has_files {
                    return Ok(());
                }
            }
            if !self.write_step(writing)? {
                return Ok(());
            }
        }
    }

    fn write_step(&self, writing: &mut Writing) -> Result<bool, LogError> {
        let Some(work) = self.next_work(writing)? else {
            return Ok(false);
        };
        if let Some((header, producers)) = &work.beginning {
            self.begin_files(writing, work.name, header, producers.as_ref())?;
        }
        if work.from.log == 0 && !work.log.is_empty() {
            writing.directory_unsynced = true;
        }
        self.write_slices(work.name, FileKind::Log, &work.log, work.from.log)?;
        let side_at = work.to.side
            - work
                .side
                .iter()
                .map(|bytes| bytes.len() as u64)
                .sum::<u64>();
        self.write_slices(work.name, FileKind::Entries, &work.side, side_at)?;
        for (kind, position, bytes) in &work.indexes {
            if !bytes.is_empty() {
                let file = self.files.create(work.name, *kind)?;
                self.write(&*file, work.name, *kind, &[IoSlice::new(bytes)], *position)?;
            }
        }
        if let Some((epoch, text)) = &work.epochs {
            self.files.replace(EPOCH_FILE, text.as_bytes())?;
            writing.epoch_written = Some(*epoch);
        }
        writing.unsynced.entry(work.name).or_insert(false);
        if work.to.hinted > work.from.hinted
            && let Some(file) = self.files.open_if_exists(work.name, FileKind::Log)?
        {
            // A hint: if it fails, the sync says so.
            let _ = file.start_write_back(work.from.hinted, work.to.hinted - work.from.hinted);
        }
        Ok(self.finish_work(writing, &work))
    }

    fn next_work(&self, writing: &Writing) -> Result<Option<Work>, LogError> {
        let state = self.state.lock();
        if !state.has_files {
            return Ok(None);
        }
        let open = state
            .segments
            .sealed
            .front()
            .unwrap_or(&state.segments.active);
        let (mut log, mut side) = (Vec::new(), Vec::new());
        let mut to = open.written;
        let mut last = state.tail.written();
        let mut bytes = 0;
        let beginning = (open.written.side == 0 && open.side_end > 0).then(|| {
            let before = state
                .id_of(EntryIndex(open.name.first.0 - 1))
                .unwrap_or_default();
            (
                side_header(self.id, open.name, before),
                open.producers_before.clone(),
            )
        });
        for tail in state.tail.pending().take(WRITE_ENTRIES_MAX) {
            if tail.segment != open.name || bytes > WRITE_BYTES_MAX {
                break;
            }
            if !tail.head.is_empty() {
                log.push(tail.head.clone());
                log.push(tail.records());
            }
            side.push(tail.envelope_bytes.clone());
            bytes += tail.memory_bytes();
            to.log = tail.envelope.log_position + u64::from(tail.envelope.batch_bytes);
            to.side = tail.side_position + tail.envelope_bytes.len() as u64;
            last = tail.envelope.id.index;
        }
        if side.is_empty() && state.segments.sealed.is_empty() {
            return Ok(None);
        }
        // A disk that broke its word can leave such a segment: nothing that waits would ever complete it.
        if side.is_empty() && (to.log, to.side) != (open.log_end, open.side_end) {
            let reason = "what its files lack is not held either";
            return Err(self.files.corrupt(open.name, FileKind::Log, to.log, reason));
        }
        let indexes = index_bytes(open, &mut to);
        if to.log - to.hinted >= HINT_BYTES {
            to.hinted = to.log;
        }
        let epoch = state
            .epochs
            .last_epoch()
            .filter(|epoch| writing.epoch_written != Some(*epoch));
        let epochs = epoch.map(|epoch| (epoch, state.epochs.checkpoint_text()));
        let name = open.name;
        Ok(Some(Work {
            name,
            beginning,
            from: open.written,
            to,
            last,
            log,
            side,
            indexes,
            epochs,
        }))
    }

    fn begin_files(
        &self,
        writing: &mut Writing,
        name: SegmentName,
        header: &Bytes,
        producers: Option<&ProducerStateTable>,
    ) -> Result<(), LogError> {
        if !writing.folder_known {
            // A life that ended before its files were in a checkpoint may have left some.
            self.files.remove_all()?;
            self.files.create_directory()?;
            writing.folder_known = true;
        }
        writing.directory_unsynced = true;
        writing.unsynced.insert(name, true);
        let file = self.files.create(name, FileKind::Entries)?;
        self.write(&*file, name, FileKind::Entries, &[IoSlice::new(header)], 0)?;
        let snapshot = name.file_name(FileKind::Snapshot);
        match producers {
            // Also when empty, so that nobody has to look further back; not at the very beginning.
            Some(table) if !table.is_empty() || name.base.0 > 0 => {
                self.files.replace(&snapshot, &table.encode())
            }
            _ => self.files.remove(&snapshot),
        }
    }

    fn write_slices(
        &self,
        name: SegmentName,
        kind: FileKind,
        bytes: &[Bytes],
        position: u64,
    ) -> Result<(), LogError> {
        if bytes.is_empty() {
            return Ok(());
        }
        let slices: Vec<_> = bytes.iter().map(|bytes| IoSlice::new(bytes)).collect();
        self.write(
            &*self.files.create(name, kind)?,
            name,
            kind,
            &slices,
            position,
        )
    }

    fn write(
        &self,
        file: &dyn File,
        name: SegmentName,
        kind: FileKind,
        slices: &[IoSlice<'_>],
        position: u64,
    ) -> Result<(), LogError> {
        file.write_at(slices, position)
            .map_err(|error| self.files.failed(name, kind, &error))
    }

    /// Notes what was written; returns whether more waits.
    fn finish_work(&self, writing: &mut Writing, work: &Work) -> bool {
        let mut state = self.state.lock();
        if let Some(open) = state.segments.open_mut(work.name) {
            open.written = work.to;
        }
        let permits = state.tail.mark_written(work.last);
        close_sealed(&mut state, writing);
        let more = state.has_unwritten();
        drop(state);
        self.shared.release_write_behind(permits);
        more
    }
}

/// New index entries of a segment, as far as its batches will be written.
fn index_bytes(open: &OpenSegment, to: &mut WrittenTo) -> [(FileKind, u64, Vec<u8>); 3] {
    let from = open.written;
    (to.offsets, to.times, to.entries) = (open.offsets.len(), open.times.len(), open.entries.len());
    let at = |entries: usize, bytes: usize| (entries * bytes) as u64;
    use super::super::sparse_index::{OFFSET_ENTRY_BYTES, TIME_ENTRY_BYTES};
    [
        (
            FileKind::Index,
            at(from.offsets, OFFSET_ENTRY_BYTES),
            open.offsets.bytes_from(from.offsets),
        ),
        (
            FileKind::TimeIndex,
            at(from.times, TIME_ENTRY_BYTES),
            open.times.bytes_from(from.times),
        ),
        (
            FileKind::EntryIndex,
            at(from.entries, OFFSET_ENTRY_BYTES),
            open.entries.bytes_from(from.entries),
        ),
    ]
}

/// Moves sealed segments whose files are complete to the closed ones.
fn close_sealed(state: &mut State, writing: &mut Writing) {
    while state
        .segments
        .sealed
        .front()
        .is_some_and(OpenSegment::is_written)
    {
        let Some(open) = state.segments.sealed.pop_front() else {
            return;
        };
        writing.unsynced.insert(open.name, true);
        let extent = SegmentExtent {
            log_bytes: open.log_end,
            max_timestamp: open.max_timestamp,
            offset_of_max: open.offset_of_max,
        };
        state.segments.closed.push(ClosedSegment {
            name: open.name,
            extent: Some(extent),
        });
    }
}

/// Runs on each thread of the write queue until it is closed.
pub(crate) fn run_write_behind(queue: &WriteQueue) {
    while let Some(log) = queue.pop() {
        match log.write_behind() {
            Written::Some => queue.push(log),
            Written::NoRoom => queue.park(log),
            Written::All => {}
        }
    }
}
