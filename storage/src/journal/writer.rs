//! The thread that writes the journal.
//!
//! Group commit: all that has come while the last group was synced goes out with the next, in one write and at most one
//! sync. Invariant: a completion under `Sync` is called after a sync that covers the frame to its end; completions of
//! one log come in the order of its frames. A failed write or sync ends it: nothing is written over what may or may
//! not be on the disk.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::appender::Appender;
use super::config::Limits;
use super::files::{Closed, Files};
use super::group::Draft;
use super::queue::{Pending, Queue, Taken};
use super::replay::Contents;
use super::{Durability, FileGeneration, JournalError};
use crate::SyncPoint;
use crate::log::LogId;

/// After so much silence a group is written that says that those before it are durable, so that damage to the last
/// one cannot be taken for a torn tail.
const SEAL_AFTER: Duration = Duration::from_millis(500);

/// State of the thread.
pub(super) struct Writer {
    pub(super) queue: Arc<Queue>,
    pub(super) files: Arc<Files>,
    pub(super) limits: Limits,
    pub(super) appender: Appender,
    /// Last index of each log in the file being written to.
    pub(super) contents: Contents,
    pub(super) pending: VecDeque<Pending>,
    /// Whether the next file was asked for.
    pub(super) asked: bool,
    /// The file in which the frame at the front of `pending` began.
    pub(super) pinned: Option<FileGeneration>,
}

impl Writer {
    /// Runs until the queue is closed.
    pub(super) fn run(mut self) {
        if let Err(error) = self.serve() {
            self.queue.fail(&error);
            self.files.wake();
            self.refuse_all(&error);
        }
    }

    fn serve(&mut self) -> Result<(), JournalError> {
        loop {
            let seal_after = self.can_seal().then_some(SEAL_AFTER);
            match self.queue.take(&mut self.pending, seal_after) {
                Taken::Frames => self.write_pending()?,
                Taken::Idle => self.seal()?,
                Taken::Closed => return self.finish(),
            }
            // A failure elsewhere (a file that could not be prepared) ends the journal as a whole.
            if let Some(failure) = self.queue.failure() {
                return Err(failure);
            }
        }
    }

    /// Answers everything with the error, until the queue is closed.
    fn refuse_all(&mut self, error: &JournalError) {
        loop {
            for item in self.pending.drain(..) {
                item.complete(Err(error.clone()));
            }
            if self.queue.take(&mut self.pending, None) == Taken::Closed {
                return;
            }
        }
    }

    fn error(&self, error: &io::Error) -> JournalError {
        JournalError {
            file: self.appender.round.name.clone(),
            reason: error.to_string(),
        }
    }

    fn write_pending(&mut self) -> Result<(), JournalError> {
        while !self.pending.is_empty() {
            self.refuse_too_large();
            self.write_group()?;
            self.queue.take_now(&mut self.pending);
        }
        Ok(())
    }

    /// Answers frames at the front that no group could hold.
    fn refuse_too_large(&mut self) {
        while let Some(error) = self
            .pending
            .front()
            .and_then(|item| self.queue.is_too_large(item))
        {
            if let Some(item) = self.pending.pop_front() {
                item.complete(Err(error));
            }
        }
    }

    fn write_group(&mut self) -> Result<(), JournalError> {
        let previous = self.appender.previous_entries();
        let draft = Draft::fill(
            &mut self.pending,
            &self.limits,
            self.appender.room(),
            previous,
        );
        if draft.entries.is_empty() {
            return if self.pending.is_empty() {
                Ok(())
            } else {
                self.switch()
            };
        }
        self.note(&draft);
        let complete = draft.complete;
        let generation = self.appender.round.header.generation;
        self.appender
            .put(draft)
            .map_err(|error| self.error(&error))?;
        let mut done: Vec<Pending> = self.pending.drain(..complete).collect();
        if done.iter().any(|item| item.durability == Durability::Sync) {
            done = complete_unsynced(done, generation);
            if let Err(error) = self.sync(SyncPoint::JournalGroup) {
                // They are answered with all others, once the failure is known.
                done.into_iter()
                    .rev()
                    .for_each(|item| self.pending.push_front(item));
                return Err(error);
            }
        }
        for item in done {
            item.complete(Ok(generation));
        }
        self.appender.hurry();
        self.update_pin(complete > 0);
        if !self.asked && self.appender.is_half_full() {
            self.asked = true;
            self.files.want_soon();
        }
        Ok(())
    }

    fn note(&mut self, draft: &Draft) {
        for entry in &draft.entries {
            self.contents.insert(entry.log, entry.last_index);
        }
        let meters = &self.files.meters;
        meters.frames.increment(draft.complete as u64);
        meters.groups.increment(1);
        meters.bytes.increment(draft.payload_bytes);
    }

    /// Keeps the files of a frame that has begun and not ended.
    fn update_pin(&mut self, frame_ended: bool) {
        let under_way = self.pending.front().is_some_and(|item| item.written > 0);
        let before = self.pinned;
        if frame_ended || !under_way {
            self.pinned = None;
        }
        if under_way && self.pinned.is_none() {
            self.pinned = Some(self.appender.round.header.generation);
        }
        if self.pinned != before {
            self.files.pin(self.pinned);
        }
    }

    fn sync(&mut self, point: SyncPoint) -> Result<(), JournalError> {
        let began = Instant::now();
        self.appender
            .sync(point)
            .map_err(|error| self.error(&error))?;
        self.files.meters.synced(began.elapsed());
        Ok(())
    }

    /// Goes on in the next file.
    fn switch(&mut self) -> Result<(), JournalError> {
        if self.appender.is_fresh() {
            let reason = "a frame does not fit into an empty file".to_owned();
            return Err(JournalError {
                file: self.appender.round.name.clone(),
                reason,
            });
        }
        if !self.appender.is_synced() {
            self.sync(SyncPoint::JournalFileLeft)?;
        }
        let round = self.files.take_ready()?;
        tracing::debug!(file = %round.name, generation = round.header.generation.0, "journal goes on in the next file");
        let full = self.appender.switch(round);
        let contents = std::mem::take(&mut self.contents);
        self.asked = false;
        self.files.add_closed(Closed {
            round: full,
            contents,
        });
        Ok(())
    }

    /// Leaves everything durable, and says so.
    fn finish(&mut self) -> Result<(), JournalError> {
        if !self.appender.is_synced() {
            self.sync(SyncPoint::JournalClosed)?;
        }
        if self.can_seal() {
            self.seal()?;
            self.sync(SyncPoint::JournalSeal)?;
        }
        Ok(())
    }

    /// Whether a seal is needed and has a place. It waits for no file: it is no more than a precaution.
    fn can_seal(&self) -> bool {
        self.appender.wants_seal() && (self.appender.has_room_for_seal() || self.files.has_ready())
    }

    /// Writes a group that says that those before it are durable.
    fn seal(&mut self) -> Result<(), JournalError> {
        if !self.appender.has_room_for_seal() {
            self.switch()?;
        }
        self.appender
            .put(Draft::default())
            .map_err(|error| self.error(&error))
    }
}

/// Completes the `Os` frames that need not wait for a sync, and returns the others. One behind a `Sync` frame of its
/// own log waits with it.
fn complete_unsynced(items: Vec<Pending>, generation: FileGeneration) -> Vec<Pending> {
    let mut syncing: BTreeSet<LogId> = BTreeSet::new();
    let mut waiting = Vec::with_capacity(items.len());
    for item in items {
        if item.durability == Durability::Sync || syncing.contains(&item.frame.log) {
            syncing.insert(item.frame.log);
            waiting.push(item);
        } else {
            item.complete(Ok(generation));
        }
    }
    waiting
}
