//! The handle of one partition's log.
//!
//! Owns the log's state in memory and its files; every change takes effect in memory and in the journal's order under
//! one short lock. Locks are taken in this order: turn, files, state. Invariants: a file is cut or removed only after
//! the change that asks for it is durable; nobody waits for the journal with the files locked.

mod append;
mod capture;
mod change;
mod clean;
mod cleanable;
mod entries;
mod install;
mod load;
mod read;
mod replay;
mod resident;
mod retention;
mod rewrite;
mod search;
mod settle;
mod verify;
mod write_behind;

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, RwLock};
use tidelog_protocol::batch::BatchHeader;
use tidelog_protocol::types::{LeaderEpoch, Offset, PartitionIndex, TopicId, TopicName};
use tokio::sync::Semaphore;

use super::checkpoint::Checkpoint;
use super::files::{LogFiles, SegmentName};
use super::payload::{Identity, decode_append};
use super::shared::Shared;
use super::state::State;
use super::{
    EntryId, EntryIndex, LogBounds, LogConfig, LogDescription, LogError, LogId, LogPosition,
    ProducerStateTable, SequenceCheck, Stamping,
};

pub(crate) use capture::Captured;
pub use cleanable::{Cleanable, CleaningBasis};
pub use install::RecordCopy;
pub(crate) use replay::Replay;
pub(crate) use verify::Harm;
pub(crate) use write_behind::run_write_behind;

/// One partition's log. Changes (append, truncate, purge, reset) take effect in the order of their calls.
pub struct PartitionLog {
    me: Weak<PartitionLog>,
    id: LogId,
    identity: Identity,
    config: RwLock<Arc<LogConfig>>,
    shared: Arc<Shared>,
    files: LogFiles,
    /// One change at a time, in the order of calls.
    turn: Arc<Semaphore>,
    writing: Mutex<Writing>,
    state: Mutex<State>,
    stopped: Mutex<Option<LogError>>,
    hints: Mutex<read::ReadHints>,
}

/// What is known of the files beyond their contents. Its lock is the right to write, cut and remove them.
#[derive(Debug, Default)]
struct Writing {
    /// Segments with writes that were not synced; `true`: every file of it, not only records and side file.
    unsynced: BTreeMap<SegmentName, bool>,
    /// Whether names in the folder were not synced.
    directory_unsynced: bool,
    /// Whether what is in the folder belongs to this life of the log: it was read, or made anew.
    folder_known: bool,
    /// Last epoch in the epoch file.
    epoch_written: Option<LeaderEpoch>,
}

/// Bytes of a topic's name in the name of a folder: with partition and id it fits into the 255 that file systems take.
const FOLDER_TOPIC_BYTES_MAX: usize = 200;

/// Folder of a log. The id makes it unique; the rest is for people.
fn folder_name(identity: &Identity, id: LogId) -> String {
    let topic: String = (identity.topic.as_str().chars())
        .take(FOLDER_TOPIC_BYTES_MAX)
        .collect();
    format!("{topic}-{}.{:x}", identity.partition, id.0)
}

impl std::fmt::Debug for PartitionLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PartitionLog")
            .field("id", &self.id.0)
            .field("topic", &self.identity.topic)
            .field("partition", &self.identity.partition)
            .finish_non_exhaustive()
    }
}

impl PartitionLog {
    /// A log that begins at a position.
    pub(crate) fn create(
        shared: &Arc<Shared>,
        id: LogId,
        identity: Identity,
        config: LogConfig,
        at: LogPosition,
    ) -> Arc<PartitionLog> {
        PartitionLog::with_state(shared, id, identity, config, State::at(at))
    }

    /// A log as its checkpoint describes it; touches no file.
    pub(crate) fn from_checkpoint(
        shared: &Arc<Shared>,
        id: LogId,
        checkpoint: Checkpoint,
    ) -> Result<Arc<PartitionLog>, String> {
        let config = checkpoint.config.clone();
        let mut state = State::at(LogPosition {
            last: checkpoint.purged,
            next_offset: if checkpoint.has_files {
                checkpoint.end.name.base
            } else {
                checkpoint.log_start
            },
            log_start: checkpoint.log_start,
            producers: ProducerStateTable::default(),
        });
        if checkpoint.has_files {
            state.has_files = true;
            state.unloaded = Some(checkpoint.end);
            state.tail = super::tail::Tail::behind(checkpoint.last.index);
        } else if !checkpoint.entries.is_empty() {
            let entries = decode_append(&checkpoint.entries)?;
            state.bounds.log_end = checkpoint.next_offset;
            state.segments.active.name.base = checkpoint.next_offset;
            state.check(&entries, Stamping::Follower)?;
            state.append(entries, Stamping::Follower, &config, 0);
        }
        state.bounds = LogBounds {
            purged: checkpoint.purged,
            last: checkpoint.last,
            log_start: checkpoint.log_start,
            log_end: checkpoint.next_offset,
            size_bytes: checkpoint.size_bytes,
        };
        state.epochs = checkpoint.epochs;
        state.segments.settled = checkpoint.settled;
        state.oldest_timestamp = checkpoint.oldest_timestamp;
        state.sequence = checkpoint.sequence;
        state.covered = checkpoint.sequence;
        state.producers_in_files = checkpoint.producers.is_none();
        state.producers = checkpoint.producers.unwrap_or_default();
        if !state.has_files {
            let active = &mut state.segments.active;
            active.name.base = state.bounds.log_end;
            active.producers_before = Some(state.producers.clone());
        }
        Ok(PartitionLog::with_state(
            shared,
            id,
            checkpoint.identity,
            config,
            state,
        ))
    }

    fn with_state(
        shared: &Arc<Shared>,
        id: LogId,
        identity: Identity,
        config: LogConfig,
        state: State,
    ) -> Arc<PartitionLog> {
        let folder = folder_name(&identity, id);
        let (fs, handles) = (Arc::clone(&shared.fs), Arc::clone(&shared.handles));
        let files = LogFiles::new(fs, handles, &shared.directory, id, &folder);
        Arc::new_cyclic(|me| PartitionLog {
            me: me.clone(),
            id,
            identity,
            config: RwLock::new(Arc::new(config)),
            shared: Arc::clone(shared),
            files,
            turn: Arc::new(Semaphore::new(1)),
            writing: Mutex::default(),
            state: Mutex::new(state),
            stopped: Mutex::new(None),
            hints: Mutex::default(),
        })
    }

    /// Incarnation.
    pub fn id(&self) -> LogId {
        self.id
    }

    /// Topic name.
    pub fn topic(&self) -> &TopicName {
        &self.identity.topic
    }

    /// Topic id.
    pub fn topic_id(&self) -> TopicId {
        self.identity.topic_id
    }

    /// Partition.
    pub fn partition(&self) -> PartitionIndex {
        self.identity.partition
    }

    /// Settings in force.
    pub fn config(&self) -> Arc<LogConfig> {
        Arc::clone(&self.config.read())
    }

    /// Replaces the settings; they count from the next append on.
    pub fn set_config(&self, config: LogConfig) {
        *self.config.write() = Arc::new(config);
    }

    /// Extent.
    pub fn bounds(&self) -> LogBounds {
        self.state.lock().bounds
    }

    /// Extent and identity.
    pub fn describe(&self) -> LogDescription {
        LogDescription {
            id: self.id,
            topic: self.identity.topic.clone(),
            topic_id: self.identity.topic_id,
            partition: self.identity.partition,
            bounds: self.bounds(),
            stopped: self.stopped(),
        }
    }

    /// Why the log is stopped, if it is.
    pub fn stopped(&self) -> Option<Arc<str>> {
        match &*self.stopped.lock() {
            None => None,
            Some(LogError::Stopped(reason)) => Some(Arc::clone(reason)),
            Some(error) => Some(error.to_string().into()),
        }
    }

    /// Whether it is stopped because a file of it is damaged.
    pub fn is_damaged(&self) -> bool {
        matches!(&*self.stopped.lock(), Some(LogError::Corrupt { .. }))
    }

    /// Why the log is stopped, as it was found.
    pub(crate) fn failure(&self) -> Option<LogError> {
        self.stopped.lock().clone()
    }

    /// Name of its folder.
    pub(crate) fn folder(&self) -> String {
        folder_name(&self.identity, self.id)
    }

    /// Whether records may be appended now: not stopped and more space than the reserve. Ask before an append is
    /// proposed; the append itself may use the reserve.
    pub fn check_writable(&self) -> Result<(), LogError> {
        self.check_running()?;
        self.shared.check_space()
    }

    /// First entry of each epoch that has entries, with the next offset before it, in order.
    pub fn epoch_starts(&self) -> Vec<(EntryId, Offset)> {
        let state = self.state.lock();
        let starts = state.epochs.starts();
        let next = starts.iter().skip(1).map(|(first, _)| first.index);
        let next = next.chain([EntryIndex(state.bounds.last.index.0.saturating_add(1))]);
        let held = starts
            .iter()
            .zip(next)
            .filter(|((first, _), next)| first.index < *next);
        held.map(|(start, _)| *start).collect()
    }

    /// Kafka's OffsetForLeaderEpoch: the largest epoch that is not above the asked one, and its end offset.
    pub fn end_offset_for_epoch(&self, epoch: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        let state = self.state.lock();
        state.epochs.end_offset_for(epoch, state.bounds.log_end)
    }

    /// Epoch and index of an entry that is held or of the purged boundary; `None` outside.
    pub fn entry_id(&self, index: EntryIndex) -> Option<EntryId> {
        self.state.lock().id_of(index)
    }

    /// Raises the log start offset; an older one is ignored. Persisted with the next checkpoint.
    pub fn advance_log_start(&self, to: Offset) {
        let mut state = self.state.lock();
        let to = to.min(state.bounds.log_end);
        if to > state.bounds.log_start {
            state.bounds.log_start = to;
            state.log_start_moved = true;
        }
    }

    /// Producer state of everything appended. Cheap to clone, but a clone that lives makes the next append copy what
    /// it changes. Blocks for a read on the first use after a start.
    pub fn producers(&self) -> Result<ProducerStateTable, LogError> {
        self.load_if_needed()?;
        Ok(self.state.lock().producers.clone())
    }

    /// Judges a batch by its sequence numbers: by a layer of batches under way where that knows the producer, else by
    /// everything appended. Blocks for a read on the first use after a start.
    pub fn check_sequence(
        &self,
        under_way: &ProducerStateTable,
        batch: &BatchHeader,
    ) -> Result<SequenceCheck, LogError> {
        self.load_if_needed()?;
        Ok(under_way.check_over(&self.state.lock().producers, batch))
    }

    /// Notes a batch that is under way in a layer over everything appended.
    pub fn record_under_way(
        &self,
        under_way: &mut ProducerStateTable,
        batch: &BatchHeader,
        base_offset: Offset,
    ) {
        under_way.record_over(&self.state.lock().producers, batch, base_offset);
    }

    fn check_running(&self) -> Result<(), LogError> {
        match &*self.stopped.lock() {
            None => Ok(()),
            Some(LogError::Removed) => Err(LogError::Removed),
            Some(LogError::Stopped(reason)) => Err(LogError::Stopped(Arc::clone(reason))),
            Some(error) => Err(LogError::Stopped(error.to_string().into())),
        }
    }

    /// Stops the log for good; the first reason stays. Returns the error for the caller. Takes no lock but its own.
    pub(crate) fn mark_stopped(&self, error: LogError) -> LogError {
        let mut stopped = self.stopped.lock();
        if stopped.is_none() {
            if !matches!(error, LogError::Removed) {
                let (topic, partition) = (self.topic(), self.partition());
                tracing::error!(%topic, %partition, log = self.id.0, %error, "log stopped");
            }
            *stopped = Some(error.clone());
        }
        error
    }

    /// Stops the log and gives up what was not written. Must not be called with the state locked.
    pub(crate) fn stop(&self, error: LogError) -> LogError {
        let error = self.mark_stopped(error);
        let permits = self.state.lock().tail.abandon();
        self.shared.release_write_behind(permits);
        error
    }

    /// `stop`, but where what failed can be tried again.
    fn stop_unless_no_room(&self, error: LogError) -> LogError {
        match error {
            LogError::NoSpace(_) => {
                self.shared.note_no_room(&error);
                error
            }
            other => self.stop(other),
        }
    }

    /// `stop` for callers that pass on errors of a log that may be stopped already.
    fn stop_after(&self, error: LogError) -> LogError {
        match error {
            LogError::EntryOutOfRange { .. } | LogError::Refused(_) => error,
            other => self.stop_unless_no_room(other),
        }
    }

    /// Stops the log if the error says that what it keeps cannot be relied on.
    fn stop_if_damaged<T>(&self, result: Result<T, LogError>) -> Result<T, LogError> {
        result.map_err(|error| match error {
            LogError::Corrupt { .. } => self.stop(error),
            other => other,
        })
    }

    /// Drops entries up to `index` from memory, now or when they are in files.
    pub(crate) fn evict_to(&self, index: EntryIndex) {
        self.state.lock().tail.evict_to(index);
    }

    /// Last entry that is in files.
    #[cfg(test)]
    pub(crate) fn written_to(&self) -> EntryIndex {
        self.state.lock().tail.written()
    }

    /// Files of all logs that are held open.
    #[cfg(test)]
    pub(crate) fn files_open(&self) -> usize {
        self.shared.handles.len()
    }
}
