//! The journal's files: made, used in turn, reclaimed, used again.
//!
//! Owns the files that are not being written to. Two threads work here: one has the oldest file's logs checkpointed and
//! prepares it for its next round, the other makes further files while the first is slower than the writer.
//! Invariant: generations rise in the order in which files are written, and a file's header
//! is durable before the writer gets it.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use uuid::Uuid;

use super::format::FileHeader;
use super::meters::Meters;
use super::queue::Queue;
use super::replay::Contents;
use super::round::RoundFile;
use super::side::SideFiles;
use super::{FileGeneration, JournalConfig, JournalError, Reclaimed, Reclaimer};
use crate::SyncPoint;
use crate::fs::{FileSystem, OpenMode, is_want_of_room};
use crate::log::{EntryIndex, LogId};

/// Bytes written at once while a file is filled with zeros. The page cache keeps what came in one write in one piece,
/// and looks at each block of a piece whenever it writes a part of it: pieces are no larger than groups under load.
const FILL_BYTES: usize = 64 << 10;

/// Fewer files than this, and the writer could wait for ever.
const FILES_NEEDED: usize = 2;

/// How long a file that could not be reclaimed for want of room is left alone.
const RECLAIM_RETRY: Duration = Duration::from_millis(500);

/// How long the disk is left alone after a file could not be made.
const GROW_RETRY: Duration = Duration::from_secs(5);

pub(super) const FILE_PREFIX: &str = "journal-";
pub(super) const TEMPORARY_SUFFIX: &str = ".tmp";

/// A file that is full.
#[derive(Debug)]
pub(super) struct Closed {
    pub(super) round: RoundFile,
    pub(super) contents: Contents,
}

#[derive(Debug, Default)]
pub(super) struct FilesState {
    /// Prepared files, in the order of their generations.
    pub(super) ready: VecDeque<RoundFile>,
    /// Full files, oldest first.
    pub(super) closed: VecDeque<Closed>,
    /// Generation of the file that is written to, and of the one that was until a moment ago and is not closed yet.
    pub(super) active: Option<FileGeneration>,
    pub(super) leaving: Option<FileGeneration>,
    /// All files, the one being written to included.
    pub(super) total: usize,
    pub(super) next_generation: u64,
    pub(super) next_slot: u64,
    /// The file in which a frame began that has not ended yet; it and later ones must stay.
    pub(super) pinned_from: Option<FileGeneration>,
    /// The writer will need a file soon.
    pub(super) wanted: bool,
    /// The oldest file could not be reclaimed for want of room.
    pub(super) stuck: bool,
    pub(super) grow_not_before: Option<Instant>,
    pub(super) stopping: bool,
}

/// The files.
pub(super) struct Files {
    pub(super) fs: Arc<dyn FileSystem>,
    /// The journal's directory, and its name below the data directory.
    pub(super) directory: PathBuf,
    pub(super) directory_name: String,
    pub(super) config: JournalConfig,
    pub(super) queue: Arc<Queue>,
    pub(super) side: Mutex<SideFiles>,
    pub(super) meters: Meters,
    state: Mutex<FilesState>,
    changed: Condvar,
    /// Remembers which files there are, once the threads run.
    notes: OnceLock<Arc<dyn Reclaimer>>,
    /// Held from the choice of a generation until the file is ready, so that files get ready in order.
    preparing: Mutex<()>,
}

impl FilesState {
    /// Generations of all files that hold something or soon will.
    fn generations(&self) -> Vec<FileGeneration> {
        let closed = self
            .closed
            .iter()
            .map(|closed| closed.round.header.generation);
        let ready = self.ready.iter().map(|round| round.header.generation);
        (closed.chain(self.leaving).chain(self.active))
            .chain(ready)
            .collect()
    }

    fn used(&self) -> usize {
        self.closed.len() + 1
    }

    fn may_grow(&self, config: &JournalConfig) -> bool {
        self.total < config.files_max
            && self
                .grow_not_before
                .is_none_or(|time| time <= Instant::now())
    }

    fn wants_growth(&self, config: &JournalConfig) -> bool {
        self.may_grow(config)
            && (self.total < config.files_min || (self.wanted && self.ready.is_empty()))
    }

    fn wants_reclaim(&self, config: &JournalConfig) -> bool {
        let free = self.closed.front().is_some_and(|closed| {
            self.pinned_from
                .is_none_or(|pinned| closed.round.header.generation < pinned)
        });
        let short = self.wanted && self.ready.is_empty() && !self.may_grow(config);
        free && (self.used() > config.files_min - 1 || short)
    }
}

impl Files {
    pub(super) fn new(
        fs: Arc<dyn FileSystem>,
        directory: PathBuf,
        config: JournalConfig,
        queue: Arc<Queue>,
        side: SideFiles,
        state: FilesState,
    ) -> Files {
        let directory_name = directory
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        let meters = Meters::new();
        meters.files.set(state.total as f64);
        meters.files_used.set(state.used() as f64);
        Files {
            fs,
            directory,
            directory_name,
            config,
            queue,
            side: Mutex::new(side),
            meters,
            state: Mutex::new(state),
            changed: Condvar::new(),
            notes: OnceLock::new(),
            preparing: Mutex::new(()),
        }
    }

    pub(super) fn error(&self, file_name: &str, error: &io::Error) -> JournalError {
        JournalError {
            file: format!("{}/{file_name}", self.directory_name),
            reason: error.to_string(),
        }
    }

    /// The next file to write to. Waits until one is ready or the journal fails.
    pub(super) fn take_ready(&self) -> Result<RoundFile, JournalError> {
        let began = Instant::now();
        let mut state = self.state.lock();
        loop {
            if let Some(round) = state.ready.pop_front() {
                state.wanted = false;
                state.leaving = state.active.replace(round.header.generation);
                self.meters.stalled(began.elapsed());
                return Ok(round);
            }
            if let Some(failure) = self.queue.failure() {
                return Err(failure);
            }
            if state.stuck && self.queue.is_closing() {
                let full = io::Error::from(io::ErrorKind::StorageFull);
                return Err(self.error("", &full));
            }
            state.wanted = true;
            self.changed.notify_all();
            self.changed.wait(&mut state);
        }
    }

    /// Whether the next file to write to is there already. Only the writer takes it.
    pub(super) fn has_ready(&self) -> bool {
        !self.state.lock().ready.is_empty()
    }

    /// The writer left a file. All of it is durable and complete but for a frame that is pinned.
    pub(super) fn add_closed(&self, closed: Closed) {
        let mut state = self.state.lock();
        state.closed.push_back(closed);
        state.leaving = None;
        self.meters.files_used.set(state.used() as f64);
        self.changed.notify_all();
    }

    /// The writer will soon need a file.
    pub(super) fn want_soon(&self) {
        self.state.lock().wanted = true;
        self.changed.notify_all();
    }

    /// A frame began in this file and has not ended; `None` once it has.
    pub(super) fn pin(&self, from: Option<FileGeneration>) {
        self.state.lock().pinned_from = from;
        self.changed.notify_all();
    }

    /// Wakes all who wait here, after the journal failed.
    pub(super) fn wake(&self) {
        // Taken so that no one is between looking and waiting.
        drop(self.state.lock());
        self.changed.notify_all();
    }

    /// Ends the threads once they are through with what they do.
    pub(super) fn stop(&self) {
        self.state.lock().stopping = true;
        self.changed.notify_all();
    }

    /// From now on `notes` remembers which files there are, beginning with those that there are now. Blocks.
    pub(super) fn note_to(&self, notes: Arc<dyn Reclaimer>) -> Result<(), JournalError> {
        let _in_order = self.preparing.lock();
        let _first_wins = self.notes.set(notes);
        self.note(None)
    }

    /// Has the files remembered, with one that is not in use yet. The caller holds `preparing`.
    fn note(&self, further: Option<FileGeneration>) -> Result<(), JournalError> {
        let Some(notes) = self.notes.get() else {
            return Ok(());
        };
        let mut files = self.state.lock().generations();
        files.extend(further);
        let side = self.side.lock().lasts();
        notes
            .note_files(&files, &side)
            .map_err(|reason| self.error("", &io::Error::other(reason)))
    }

    /// Forgets the side file of a log, if it has one. Blocks.
    pub(super) fn discard_side(&self, log: LogId) -> Result<(), JournalError> {
        let _in_order = self.preparing.lock();
        if !self.side.lock().forget(log) {
            return Ok(());
        }
        // Not asked for any more before it is gone.
        self.note(None)?;
        let removed = self.side.lock().remove(log);
        removed.map_err(|error| self.error(&SideFiles::file_name(log), &error))
    }

    fn fail(&self, error: &JournalError) {
        self.queue.fail(error);
        self.wake();
    }

    fn next_header(&self, generation: FileGeneration) -> FileHeader {
        FileHeader {
            generation,
            file_bytes: self.config.file_bytes,
            salt: Uuid::new_v4().as_u64_pair().0,
            frame_floor: self.queue.last_sequence(),
            directory_id: self.config.directory_id,
        }
    }

    fn take_generation(&self) -> FileGeneration {
        let mut state = self.state.lock();
        state.next_generation += 1;
        FileGeneration(state.next_generation)
    }

    /// Thread: reclaims the oldest file whenever too many are in use.
    pub(super) fn run_reclaim(&self, reclaimer: &dyn Reclaimer) {
        loop {
            let closed = {
                let mut state = self.state.lock();
                while !state.stopping && !state.wants_reclaim(&self.config) {
                    match state.grow_not_before {
                        // Growth may become possible or needed without anyone calling.
                        Some(_) => drop(self.changed.wait_for(&mut state, GROW_RETRY)),
                        None => self.changed.wait(&mut state),
                    }
                }
                if state.stopping {
                    return;
                }
                state.closed.pop_front()
            };
            let Some(closed) = closed else {
                continue;
            };
            match self.make_unnecessary(&closed, reclaimer) {
                Ok(true) => {
                    if let Err(error) = self.reuse(closed.round) {
                        return self.fail(&error);
                    }
                }
                Ok(false) => {
                    let mut state = self.state.lock();
                    state.closed.push_front(closed);
                    state.stuck = true;
                    self.changed.notify_all();
                    if !state.stopping {
                        self.changed.wait_for(&mut state, RECLAIM_RETRY);
                    }
                }
                Err(error) => return self.fail(&error),
            }
        }
    }

    /// Whether all frames of a file are unnecessary now; false if there is no room to make them so.
    fn make_unnecessary(
        &self,
        closed: &Closed,
        reclaimer: &dyn Reclaimer,
    ) -> Result<bool, JournalError> {
        let Closed { round, contents } = closed;
        let logs: Vec<(LogId, EntryIndex)> =
            contents.iter().map(|(log, last)| (*log, *last)).collect();
        let refused = match reclaimer.reclaim(round.header.generation, &logs) {
            Reclaimed::Except(refused) => refused,
            Reclaimed::NotNow => return Ok(false),
            Reclaimed::Failed(reason) => {
                return Err(self.error(&round.file_name, &io::Error::other(reason)));
            }
        };
        let refused: Vec<(LogId, EntryIndex)> = logs
            .into_iter()
            .filter(|(log, _)| refused.contains(log))
            .collect();
        if refused.is_empty() {
            return Ok(true);
        }
        match self.side.lock().copy(round, &refused) {
            Ok(()) => Ok(true),
            Err(error) if is_want_of_room(&error) => {
                tracing::warn!(file = %round.name, %error, "journal frames not set aside yet");
                Ok(false)
            }
            Err(error) => Err(self.error(&round.file_name, &error)),
        }
    }

    /// Prepares a file whose frames are unnecessary for its next round.
    fn reuse(&self, round: RoundFile) -> Result<(), JournalError> {
        self.state.lock().stuck = false;
        self.meters.reclaims.increment(1);
        tracing::debug!(file = %round.name, generation = round.header.generation.0, "journal file reclaimed");
        let too_many = self.state.lock().total > self.config.files_max;
        if round.header.file_bytes == self.config.file_bytes && !too_many {
            self.prepare_again(round)?;
        } else {
            self.remove(&round)?;
        }
        self.meters.files_used.set(self.state.lock().used() as f64);
        Ok(())
    }

    /// Begins a reclaimed file's next round.
    fn prepare_again(&self, round: RoundFile) -> Result<(), JournalError> {
        let _in_order = self.preparing.lock();
        // Without the old round before it is gone, with the new one before it is used.
        self.note(None)?;
        let header = self.next_header(self.take_generation());
        let file_name = round.file_name.clone();
        let generation = header.generation;
        let round = round.begin_again(header);
        let round = round.map_err(|error| self.error(&file_name, &error))?;
        self.note(Some(generation))?;
        self.state.lock().ready.push_back(round);
        self.changed.notify_all();
        Ok(())
    }

    /// Removes a file of another size than the configured one, or one too many.
    fn remove(&self, round: &RoundFile) -> Result<(), JournalError> {
        let in_order = self.preparing.lock();
        self.note(None)?;
        drop(in_order);
        let removed = self.fs.remove_file(&self.directory.join(&round.file_name));
        removed
            .and_then(|()| {
                self.fs
                    .sync_dir(&self.directory, SyncPoint::JournalFileRemoved)
            })
            .map_err(|error| self.error(&round.file_name, &error))?;
        self.state.lock().total -= 1;
        self.changed.notify_all();
        Ok(())
    }

    /// Makes the files without which nothing can be written: one to write to and one to go on in. Blocks.
    pub(super) fn make_first(&self) -> Result<(), JournalError> {
        loop {
            if self.state.lock().total >= FILES_NEEDED {
                return Ok(());
            }
            self.grow()?;
        }
    }

    /// Thread: makes files while there are too few.
    pub(super) fn run_grow(&self) {
        loop {
            {
                let mut state = self.state.lock();
                while !state.stopping && !state.wants_growth(&self.config) {
                    match state.grow_not_before {
                        Some(_) => drop(self.changed.wait_for(&mut state, GROW_RETRY)),
                        None => self.changed.wait(&mut state),
                    }
                }
                if state.stopping {
                    return;
                }
            }
            match self.grow() {
                Ok(()) => self.state.lock().grow_not_before = None,
                Err(error) => {
                    tracing::warn!(%error, "no further journal file can be made; going on with those that exist");
                    self.state.lock().grow_not_before = Some(Instant::now() + GROW_RETRY);
                    self.changed.notify_all();
                }
            }
        }
    }

    /// Makes a file: zero-filled, durable and with its header before it gets its name. Blocks.
    pub(super) fn grow(&self) -> Result<(), JournalError> {
        let slot = {
            let mut state = self.state.lock();
            state.next_slot += 1;
            state.next_slot
        };
        let file_name = format!("{FILE_PREFIX}{slot:04}");
        let made = self.make(&file_name);
        if made.is_err() {
            // Best effort: what is left of it is removed at the next start.
            let _ = self.fs.remove_file(
                &self
                    .directory
                    .join(format!("{file_name}{TEMPORARY_SUFFIX}")),
            );
        }
        made.map_err(|error| self.error(&file_name, &error))
    }

    fn make(&self, file_name: &str) -> io::Result<()> {
        // Beyond what it must have, the journal does not take the last space on the disk.
        let needed = self.config.file_bytes.saturating_mul(2);
        if self.state.lock().total >= self.config.files_min
            && self.fs.space(&self.directory)?.available_bytes < needed
        {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let path = self.directory.join(file_name);
        let temporary = self
            .directory
            .join(format!("{file_name}{TEMPORARY_SUFFIX}"));
        let file = self.fs.open(&temporary, OpenMode::CreateNew)?;
        let zeros = vec![0; FILL_BYTES];
        let mut position = 0;
        while position < self.config.file_bytes {
            let len = (self.config.file_bytes - position).min(FILL_BYTES as u64);
            let piece = zeros
                .get(..usize::try_from(len).unwrap_or(FILL_BYTES))
                .unwrap_or(&zeros);
            file.write_at(&[IoSlice::new(piece)], position)?;
            // So that the sync of the header, which covers all of it, finds little left to do.
            file.start_write_back(position, len)?;
            position += len;
        }
        let _in_order = self.preparing.lock();
        let header = self.next_header(self.take_generation());
        let name = format!("{}/{file_name}", self.directory_name);
        let generation = header.generation;
        let round = RoundFile::begin(name, file_name.to_owned(), file, header)?;
        self.fs.rename(&temporary, &path)?;
        self.fs
            .sync_dir(&self.directory, SyncPoint::JournalFileMade)?;
        (self.note(Some(generation))).map_err(|error| io::Error::other(error.reason))?;
        let mut state = self.state.lock();
        state.ready.push_back(round);
        state.total += 1;
        self.meters.files.set(state.total as f64);
        self.changed.notify_all();
        Ok(())
    }
}
