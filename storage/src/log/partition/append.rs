//! Appending: memory, journal, write queue, in one step under the state's lock.
//!
//! Copies no record bytes. Invariant: nothing changes unless every entry was accepted.

use std::sync::Arc;

use tidelog_protocol::batch::HEADER_BYTES;
use tidelog_protocol::types::Offset;

use super::super::envelope::ENVELOPE_BYTES_MIN;
use super::super::payload::{APPEND_HEAD_BYTES, encode_reset};
use super::super::settled::Settled;
use super::super::shared::Shared;
use super::super::state::State;
use super::super::{AppendDone, EntryBody, LogEntry, LogError, LogPosition, Stamping};
use super::PartitionLog;
use crate::journal::{Completion, Durability, Frame, FrameKind, Journal, JournalPermit};

/// Entries that go into one frame, with the room they need.
struct Group {
    entries: Vec<LogEntry>,
    bytes: usize,
    has_batch: bool,
}

impl PartitionLog {
    /// Appends entries whose indexes follow the last one and returns the base offset of each (for an opaque entry the
    /// next offset). They are readable when this returns; `done` is called when they are durable, exactly once if this
    /// returned Ok and never if it did not.
    pub async fn append(
        &self,
        entries: Vec<LogEntry>,
        stamping: Stamping,
        done: AppendDone,
    ) -> Result<Vec<Offset>, LogError> {
        let _turn = self.turn.acquire().await.map_err(|_| LogError::Removed)?;
        self.check_running()?;
        if self.state.lock().needs_files() {
            self.blocking(|log| log.load_if_needed()).await?;
        }
        let journal = self.shared.journal()?;
        let mut groups = split(entries, journal.frame_bytes_max())?;
        let checked = self
            .state
            .lock()
            .check(groups.iter().flat_map(|group| &group.entries), stamping);
        checked.map_err(|reason| LogError::Refused(reason.into()))?;
        let Some(last) = groups.pop() else {
            done(Ok(()));
            return Ok(Vec::new());
        };
        let mut base_offsets = Vec::new();
        // Frames of a log complete in order, so the last one speaks for all.
        for group in groups {
            base_offsets.extend(self.append_group(journal, group, stamping, None).await?);
        }
        base_offsets.extend(
            self.append_group(journal, last, stamping, Some(done))
                .await?,
        );
        Ok(base_offsets)
    }

    /// Largest batch that an append takes, in bytes with its header, if it comes without auxiliary bytes: what fits
    /// into one frame of the journal.
    pub fn batch_bytes_max(&self) -> usize {
        let frame = self.shared.journal().map_or(0, Journal::frame_bytes_max);
        let frame = usize::try_from(frame).unwrap_or(usize::MAX);
        frame.saturating_sub(ENVELOPE_BYTES_MIN + APPEND_HEAD_BYTES)
    }

    async fn append_group(
        &self,
        journal: &Journal,
        group: Group,
        stamping: Stamping,
        done: Option<AppendDone>,
    ) -> Result<Vec<Offset>, LogError> {
        let permit = (journal.reserve(group.bytes).await)
            .map_err(|error| self.mark_stopped(Shared::journal_failed(&error)))?;
        let permits = if group.has_batch {
            self.shared.reserve_write_behind(group.bytes).await?
        } else {
            0
        };
        Ok(self.submit_group(journal, group.entries, stamping, permits, permit, done))
    }

    fn submit_group(
        &self,
        journal: &Journal,
        entries: Vec<LogEntry>,
        stamping: Stamping,
        permits: u32,
        permit: JournalPermit,
        done: Option<AppendDone>,
    ) -> Vec<Offset> {
        let config = self.config();
        // Only records may be acknowledged before they are on stable storage, never what the consensus rests on.
        let is_record = |entry: &LogEntry| matches!(entry.body, EntryBody::Batch(_));
        let durability = if entries.iter().all(is_record) {
            config.durability
        } else {
            Durability::Sync
        };
        let completion = self.completion(done);
        let appended = {
            let mut state = self.state.lock();
            let round_before = state.is_round_unwritten();
            let mut appended = state.append(entries, stamping, &config, permits);
            let frame = Frame {
                log: self.id,
                kind: FrameKind::Append,
                prev_index: appended.prev,
                last_index: appended.last,
                payload: std::mem::take(&mut appended.payload),
            };
            state.sequence = journal.submit(frame, durability, permit, completion);
            self.queue_appended(&mut state, round_before);
            appended
        };
        self.shared
            .cache
            .admit(self.me.clone(), appended.last, appended.memory_bytes);
        appended.base_offsets
    }

    /// Notes in the journal that the log exists, without waiting.
    pub(crate) fn submit_creation(&self) -> Result<(), LogError> {
        let journal = self.shared.journal()?;
        let mut state = self.state.lock();
        let at = LogPosition::default();
        let frame = Frame {
            log: self.id,
            kind: FrameKind::Reset,
            prev_index: state.bounds.last.index,
            last_index: state.bounds.last.index,
            payload: encode_reset(&self.identity, &at, &Settled::default()),
        };
        let done = self.completion(None);
        state.sequence = journal.submit(frame, Durability::Sync, journal.internal_permit(), done);
        Ok(())
    }

    /// Sees to it that what was appended gets into files.
    fn queue_appended(&self, state: &mut State, round_before: bool) {
        if !state.has_files {
            return;
        }
        let round = state.is_round_unwritten();
        if state.queued {
            if round && !round_before {
                self.shared.queue.hurry(self.id);
            }
        } else if let Some(me) = self.me.upgrade() {
            state.queued = true;
            if round {
                self.shared.queue.push(me);
            } else {
                self.shared.queue_to_wait(me);
            }
        }
    }

    /// Hands what a replay left in memory to the write queue.
    pub(crate) fn queue_replayed(&self) {
        let mut state = self.state.lock();
        if state.has_files
            && !state.queued
            && state.has_unwritten()
            && let Some(me) = self.me.upgrade()
        {
            state.queued = true;
            self.shared.queue.push(me);
        }
    }

    /// May run on the journal's thread or, when that has ended, under the state's lock: takes no lock of the log but
    /// that of the stop reason.
    fn completion(&self, done: Option<AppendDone>) -> Completion {
        let me = self.me.clone();
        Box::new(move |result| {
            let result = result
                .map(|_| ())
                .map_err(|error| Shared::journal_failed(&error));
            if let Err(error) = &result
                && let Some(log) = me.upgrade()
            {
                log.mark_stopped(error.clone());
            }
            if let Some(done) = done {
                done(result);
            }
        })
    }

    /// Runs what blocks on a thread that may.
    pub(super) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&PartitionLog) -> Result<T, LogError> + Send + 'static,
    ) -> Result<T, LogError> {
        let me = self.me.upgrade().ok_or(LogError::Removed)?;
        let run = tokio::task::spawn_blocking(move || work(&me));
        run.await
            .map_err(|error| LogError::Io(format!("a task of the log ended: {error}").into()))?
    }

    /// Submits a small frame that changes the log, with `durability=sync`, and returns what tells its end.
    pub(super) fn submit_change(
        &self,
        journal: &Journal,
        frame: Frame,
    ) -> (crate::journal::FrameSequence, ChangeDone) {
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        let completion: Completion = Box::new(move |result| {
            // The receiver lives until it is told, unless its thread is gone.
            let _receiver_gone = tell.send(result.map(|_| ()));
        });
        let permit = journal.internal_permit();
        (
            journal.submit(frame, Durability::Sync, permit, completion),
            ChangeDone(told),
        )
    }

    /// Waits until a change is durable. Blocks.
    pub(super) fn wait(&self, done: ChangeDone) -> Result<(), LogError> {
        match done.0.recv() {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.stop(Shared::journal_failed(&error))),
            Err(_) => Err(self.stop(LogError::Stopped(Arc::from("the journal dropped a frame")))),
        }
    }
}

/// Tells when a change is durable.
pub(super) struct ChangeDone(std::sync::mpsc::Receiver<Result<(), crate::journal::JournalError>>);

/// Distributes entries over frames that the journal takes.
fn split(entries: Vec<LogEntry>, frame_bytes_max: u64) -> Result<Vec<Group>, LogError> {
    let frame_bytes_max = usize::try_from(frame_bytes_max).unwrap_or(usize::MAX);
    let mut groups: Vec<Group> = Vec::new();
    for entry in entries {
        let (body, has_batch) = match &entry.body {
            EntryBody::Batch(batch) => (HEADER_BYTES + batch.records_bytes().len(), true),
            EntryBody::Opaque { bytes, .. } => (bytes.len(), false),
        };
        let bytes = ENVELOPE_BYTES_MIN + entry.aux.len() + body;
        if bytes + APPEND_HEAD_BYTES > frame_bytes_max {
            let text = format!("an entry of {bytes} bytes exceeds the journal's {frame_bytes_max}");
            return Err(LogError::Refused(text.into()));
        }
        match groups.last_mut() {
            Some(group) if group.bytes + bytes <= frame_bytes_max => {
                group.entries.push(entry);
                group.bytes += bytes;
                group.has_batch |= has_batch;
            }
            _ => groups.push(Group {
                entries: vec![entry],
                bytes: APPEND_HEAD_BYTES + bytes,
                has_batch,
            }),
        }
    }
    Ok(groups)
}
