//! Opening a data directory: checkpoints first, then the journal's frames behind them.
//!
//! No file of a log is touched unless the journal holds something for it, so that ten thousand logs open in seconds.
//! A log that cannot be believed is stopped; the others go on.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use parking_lot::{Mutex, RwLock};

use super::knowledge;
use super::reclaim::LogReclaimer;
use super::space::{Background, look};
use super::{
    CLEAN_STOP, LOG_ID_BLOCK, LOG_ID_LIMIT, LogIds, LogManager, Logs, take_ids, write_soon,
};
use super::{OpenError, RecoveryReport, StorageOptions};
use crate::SyncPoint;
use crate::journal::{Damage, FrameKind, FrameSequence, Journal, ReplayedFrame};
use crate::kv::{KeySpace, KvWrite};
use crate::log::{
    Checkpoint, LogConfig, LogError, LogId, PartitionLog, Replay, Shared, TOPICS, decode_reset,
    log_of_checkpoint, run_write_behind,
};

/// Folder of the journal.
pub(crate) const JOURNAL: &str = "journal";

/// Threads that move entries to segments: enough to keep one disk busy while another log's write waits.
const WRITE_THREADS: usize = 2;

/// Replayed bytes in memory above which they are written to segments.
const REPLAY_BYTES_MAX: usize = 32 << 20;

/// Logs while the journal is replayed.
struct Recovery {
    shared: Arc<Shared>,
    logs: Logs,
    replays: HashMap<LogId, Replay>,
    removed: HashMap<LogId, Removed>,
    report: RecoveryReport,
    bytes_in_memory: usize,
    /// The newest frame that a checkpoint covers.
    covered: FrameSequence,
}

/// A log whose checkpoint says that it was removed.
struct Removed {
    log: Arc<PartitionLog>,
    /// Whether the journal has frames of it, and not the one that says the same.
    frames_left: bool,
}

impl LogManager {
    /// Opens the directory and recovers it. Blocks.
    pub fn open(options: StorageOptions) -> Result<(Arc<LogManager>, RecoveryReport), OpenError> {
        let reserve = options.reserve;
        let (manager, report) = LogManager::recover(options)?;
        manager.start(reserve).map_err(|source| OpenError::Io {
            path: "cannot start a thread".to_owned(),
            source,
        })?;
        Ok((manager, report))
    }

    /// Recovers the directory; what writes to it in the background does not run yet. Blocks.
    pub(crate) fn recover(
        options: StorageOptions,
    ) -> Result<(Arc<LogManager>, RecoveryReport), OpenError> {
        let started = Instant::now();
        make_folders(&options)?;
        let sizes = options.sizes();
        let (fs, kv) = (Arc::clone(&options.fs), Arc::clone(&options.kv));
        let shared = Arc::new(Shared::new(options.directory.clone(), fs, kv, sizes));
        let clean = shared.kv.get(KeySpace::Meta, CLEAN_STOP)?.is_some();
        check_store(&options)?;
        let mut recovery = Recovery {
            shared: Arc::clone(&shared),
            logs: Logs::default(),
            replays: HashMap::new(),
            removed: HashMap::new(),
            report: RecoveryReport::default(),
            bytes_in_memory: 0,
            covered: FrameSequence::default(),
        };
        recovery.read_checkpoints()?;
        let fresh = recovery.logs.by_id.is_empty();
        let mut ids_max = recovery.logs.by_id.keys().map(|id| id.0).max().unwrap_or(0);
        let journal_directory = options.directory.join(JOURNAL);
        let mut config = options.journal;
        config.store = Some(knowledge::read(&*shared.kv, recovery.covered, clean)?);
        let (journal, replayed) = Journal::open(
            Arc::clone(&options.fs),
            journal_directory,
            config,
            &mut |frame| {
                ids_max = ids_max.max(frame.log.0);
                recovery.replay(frame);
            },
        )?;
        recovery.report.clean = clean || (fresh && replayed.frames == 0);
        recovery.discard_dead_side_files(&journal);
        recovery.report.tail_cut = replayed.tail_cut;
        recovery.stop_damaged(&replayed.damaged, clean)?;
        recovery.report.journal_damage = replayed.damaged;
        forget_clean_mark(&shared, clean);
        journal.attest(shared.kv.progress());
        recovery.finish();
        shared.set_journal(journal);
        look(&shared, options.reserve);
        let Recovery {
            logs, mut report, ..
        } = recovery;
        report.logs = logs.by_id.len();
        report.stopped = stopped(&logs);
        let manager = Arc::new(LogManager {
            ids: Mutex::new(first_ids(&shared, ids_max)?),
            shared,
            logs: RwLock::new(logs),
            background: Arc::new(Background::default()),
            threads: Mutex::default(),
        });
        report.duration = started.elapsed();
        Ok((manager, report))
    }

    fn start(self: &Arc<Self>, reserve: super::SpaceReserve) -> std::io::Result<()> {
        let mut threads = Vec::new();
        for _ in 0..WRITE_THREADS {
            let shared = Arc::clone(&self.shared);
            let run = move || run_write_behind(&shared.queue);
            threads.push(
                thread::Builder::new()
                    .name("log-write".to_owned())
                    .spawn(run)?,
            );
        }
        let (shared, background) = (Arc::clone(&self.shared), Arc::clone(&self.background));
        let run = move || background.run(&shared, reserve);
        threads.push(
            thread::Builder::new()
                .name("log-space".to_owned())
                .spawn(run)?,
        );
        *self.threads.lock() = threads;
        for log in self.all() {
            log.queue_replayed();
        }
        if let Ok(journal) = self.shared.journal() {
            journal.start(Arc::new(LogReclaimer(Arc::downgrade(self))));
        }
        Ok(())
    }
}

impl Recovery {
    fn read_checkpoints(&mut self) -> Result<(), OpenError> {
        for (key, value) in self.shared.kv.scan(KeySpace::Checkpoint, &[])? {
            let format = |what: &str| OpenError::Format(format!("checkpoint {key:?}: {what}"));
            let id = log_of_checkpoint(&key).ok_or_else(|| format("key is malformed"))?;
            let checkpoint = Checkpoint::decode(&value)
                .ok_or_else(|| format("value is damaged or of a newer version"))?;
            let removed = checkpoint.removed;
            self.covered = self.covered.max(checkpoint.sequence);
            let log = PartitionLog::from_checkpoint(&self.shared, id, checkpoint)
                .map_err(|reason| format(&reason))?;
            if removed {
                self.note_removed(log);
            } else {
                self.logs.insert(log);
            }
        }
        Ok(())
    }

    /// Ends the removal of a log, none of whose frames mean anything from here on.
    fn note_removed(&mut self, log: Arc<PartitionLog>) {
        let id = log.id();
        if let Err(error) = log.finish_removal() {
            tracing::warn!(log = id.0, %error, "files of a removed log are left");
        }
        let frames_left = false;
        self.removed.insert(id, Removed { log, frames_left });
    }

    /// Applies a frame. What goes wrong stops its log.
    fn replay(&mut self, frame: ReplayedFrame) {
        let id = frame.log;
        if let Some(removed) = self.removed.get_mut(&id) {
            removed.frames_left = frame.kind != FrameKind::Remove;
            return;
        }
        if frame.kind == FrameKind::Remove {
            self.replays.remove(&id);
            if let Some(log) = self.logs.remove(id) {
                self.note_removed(log);
            }
            return;
        }
        if !self.logs.by_id.contains_key(&id) {
            // The log's frames begin with the one that made it; without it the log was removed.
            let Some((identity, at)) = made_by(&frame) else {
                return;
            };
            let config = LogConfig::default();
            self.logs
                .insert(PartitionLog::create(&self.shared, id, identity, config, at));
        }
        let Some(log) = self.logs.by_id.get(&id) else {
            return;
        };
        let bytes = frame.payload.len();
        let replay = self.replays.entry(id).or_insert_with(|| Replay::of(log));
        if let Ok(true) = log.replay(replay, frame) {
            self.report.frames_replayed += 1;
            self.report.bytes_replayed += bytes as u64;
            self.bytes_in_memory += bytes;
        }
        if self.bytes_in_memory > REPLAY_BYTES_MAX {
            self.flush();
        }
    }

    /// Writes what was replayed so far. A failure has stopped its log.
    fn flush(&mut self) {
        self.bytes_in_memory = 0;
        for id in self.replays.keys() {
            if let Some(log) = self.logs.by_id.get(id) {
                let _stopped = log.flush_replayed();
            }
        }
    }

    /// Stops the logs that lost something that only the journal had.
    fn stop_damaged(&self, damaged: &[Damage], clean: bool) -> Result<(), OpenError> {
        for damage in damaged {
            let error = LogError::Corrupt {
                file: damage.file.clone(),
                position: damage.position,
                reason: damage.reason.clone(),
            };
            let named = damage.log.map(|id| self.logs.by_id.get(&id));
            match (named, damage.sequence) {
                (Some(Some(log)), Some(sequence)) if log.is_covered(sequence) => {}
                (Some(Some(log)), _) => drop(log.stop(error)),
                (Some(None), _) => {}
                // After a clean stop checkpoints cover everything.
                (None, _) if clean => {}
                // It may be any log's last acknowledged entry that is lost.
                (None, _) => return Err(OpenError::Damaged(damage.clone())),
            }
        }
        Ok(())
    }

    /// Forgets frames that were set aside for logs that are no more.
    fn discard_dead_side_files(&self, journal: &Journal) {
        let side_files = journal.side_files().into_iter();
        for id in side_files.filter(|id| !self.logs.by_id.contains_key(id)) {
            if let Err(error) = journal.discard_side_file(id) {
                tracing::warn!(log = id.0, %error, "side file of the journal not removed");
            }
        }
    }

    fn finish(&mut self) {
        for (id, replay) in &self.replays {
            if let Some(log) = self.logs.by_id.get(id) {
                // A failure has stopped the log, which is reported with the others.
                let _stopped = log.finish_replay(replay);
            }
        }
        // Where frames are left the mark stays, so that they mean nothing at the next start either.
        for removed in self.removed.values().filter(|it| !it.frames_left) {
            removed.log.forget_removal();
        }
    }
}

/// Makes the folders of the data directory, durably, before anything in them counts as durable.
fn make_folders(options: &StorageOptions) -> Result<(), OpenError> {
    let data = &options.directory;
    let parent = data
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let make = || {
        options.fs.create_dir_all(&data.join(TOPICS))?;
        options.fs.create_dir_all(&data.join(JOURNAL))?;
        options.fs.sync_dir(data, SyncPoint::DataFolders)?;
        let parent = parent.unwrap_or(Path::new("."));
        options.fs.sync_dir(parent, SyncPoint::DataDirectory)
    };
    make().map_err(|source| OpenError::Io {
        path: data.display().to_string(),
        source,
    })
}

/// Identity and position of a log that a frame makes.
fn made_by(frame: &ReplayedFrame) -> Option<(crate::log::Identity, crate::log::LogPosition)> {
    let (identity, at, _) =
        (frame.kind == FrameKind::Reset).then(|| decode_reset(&frame.payload))??;
    Some((identity, at))
}

fn stopped(logs: &Logs) -> Vec<(LogId, String)> {
    let stopped = logs
        .by_id
        .values()
        .filter_map(|log| Some((log.id(), log.stopped()?.to_string())));
    stopped.collect()
}

/// Refuses data whose key-value store is empty: the ids of logs are taken there before there is any log.
fn check_store(options: &StorageOptions) -> Result<(), OpenError> {
    if options.kv.get(KeySpace::Meta, LOG_ID_LIMIT)?.is_some() {
        return Ok(());
    }
    let path = options.directory.join(TOPICS);
    let listed = options.fs.list(&path).map_err(|source| OpenError::Io {
        path: path.display().to_string(),
        source,
    })?;
    match listed.first() {
        Some(folder) => Err(OpenError::StoreLost(format!("{TOPICS}/{folder}"))),
        None => Ok(()),
    }
}

/// From now on the last stop no longer counts as clean. On stable storage with the note of the journal's files, before
/// which the journal takes no frame.
fn forget_clean_mark(shared: &Shared, clean: bool) {
    if clean {
        let unmark = KvWrite::Delete(KeySpace::Meta, CLEAN_STOP.into());
        write_soon(
            &*shared.kv,
            unmark,
            "the mark of the last clean stop is left",
        );
    }
}

/// Ids behind all that were ever taken.
fn first_ids(shared: &Shared, ids_max: u64) -> Result<LogIds, OpenError> {
    let taken = match shared.kv.get(KeySpace::Meta, LOG_ID_LIMIT)? {
        None => 1,
        Some(value) => {
            let bytes = value[..].try_into();
            let bytes =
                bytes.map_err(|_| OpenError::Format("log-id-limit is malformed".to_owned()))?;
            u64::from_be_bytes(bytes)
        }
    };
    let next = taken.max(ids_max.saturating_add(1));
    let limit = next.saturating_add(LOG_ID_BLOCK);
    take_ids(&*shared.kv, limit);
    Ok(LogIds { next, limit })
}
