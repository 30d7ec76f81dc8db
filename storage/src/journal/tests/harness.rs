//! Frames whose contents follow from their place, a reclaimer that remembers, and the check of a replay against both.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::SyncPoint;
use crate::fs::{FileSystem, HostileFs};
use crate::journal::format::{BLOCK_BYTES, FIRST_GROUP};
use crate::journal::round::{Opened, RoundFile};
use crate::journal::*;
use crate::log::{EntryIndex, LogId};

/// What a completion said.
pub(super) type Done = (
    LogId,
    EntryIndex,
    Durability,
    Result<FileGeneration, JournalError>,
);

pub(super) const DIRECTORY: &str = "/data/journal";

pub(super) fn small() -> JournalConfig {
    JournalConfig {
        file_bytes: 64 << 10,
        files_min: 2,
        files_max: 4,
        queue_bytes_max: 64 << 10,
        ..Default::default()
    }
}

/// A disk with an empty, durable data directory.
pub(super) fn disk(seed: u64) -> HostileFs {
    let fs = HostileFs::new(seed);
    fs.create_dir_all(Path::new(DIRECTORY)).expect("make");
    for parent in ["/", "/data"] {
        let synced = fs.sync_dir(Path::new(parent), SyncPoint::DataFolders);
        synced.expect("sync");
    }
    fs
}

/// Bytes that name the frame they belong to.
pub(super) fn payload(log: LogId, index: u64, life: u64, len: usize) -> Bytes {
    let mut state = log.0 << 48 ^ index << 16 ^ life;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        bytes.extend_from_slice(&state.to_be_bytes());
    }
    bytes.truncate(len);
    bytes.into()
}

/// Pretends to checkpoint logs at once, but for those it refuses.
#[derive(Default)]
pub(super) struct Checkpoints {
    pub(super) through: Mutex<BTreeMap<LogId, u64>>,
    /// Where each log ends in memory: no checkpoint goes beyond, whatever a file mentions.
    pub(super) ends: Mutex<BTreeMap<LogId, u64>>,
    pub(super) refused: Mutex<BTreeSet<LogId>>,
    /// While false, reclaiming waits.
    pub(super) held: Mutex<bool>,
    pub(super) released: parking_lot::Condvar,
    pub(super) calls: Mutex<u64>,
}

impl Checkpoints {
    pub(super) fn hold(&self, held: bool) {
        *self.held.lock() = held;
        self.released.notify_all();
    }
}

impl Reclaimer for Checkpoints {
    fn reclaim(&self, _: FileGeneration, logs: &[(LogId, EntryIndex)]) -> Reclaimed {
        let mut held = self.held.lock();
        while *held {
            self.released.wait(&mut held);
        }
        *self.calls.lock() += 1;
        let refused = self.refused.lock().clone();
        let mut through = self.through.lock();
        let ends = self.ends.lock();
        for (log, last) in logs.iter().filter(|(log, _)| !refused.contains(log)) {
            let end = ends.get(log).copied().unwrap_or_default();
            let entry = through.entry(*log).or_default();
            *entry = last.0.min(end).max(*entry);
        }
        let kept = logs.iter().map(|(log, _)| *log);
        Reclaimed::Except(kept.filter(|log| refused.contains(log)).collect())
    }
}

/// A log as the test knows it.
#[derive(Default, Clone)]
pub(super) struct KnownLog {
    /// The life in which each entry was submitted, and its size; the first has index 1.
    pub(super) entries: Vec<(u64, usize)>,
    /// Highest index that was acknowledged under `Sync`.
    pub(super) acked: u64,
}

/// All logs, over several lives of one disk.
pub(super) struct World {
    pub(super) fs: HostileFs,
    pub(super) config: JournalConfig,
    pub(super) checkpoints: Arc<Checkpoints>,
    pub(super) logs: BTreeMap<LogId, KnownLog>,
    pub(super) life: u64,
    sender: Sender<Done>,
    pub(super) receiver: Receiver<Done>,
}

impl World {
    pub(super) fn new(seed: u64) -> World {
        let (sender, receiver) = channel();
        World {
            fs: disk(seed),
            config: small(),
            checkpoints: Arc::default(),
            logs: BTreeMap::new(),
            life: 0,
            sender,
            receiver,
        }
    }

    /// A world whose files hold all that a small test writes, however it is cut into groups.
    pub(super) fn roomy() -> World {
        let mut world = World::new(1);
        world.config.file_bytes = 1 << 20;
        world
    }

    /// Opens the journal without starting it.
    pub(super) fn open(
        &mut self,
    ) -> Result<(Journal, ReplayReport, Vec<ReplayedFrame>), JournalError> {
        self.life += 1;
        let mut frames = Vec::new();
        let fs: Arc<dyn FileSystem> = Arc::new(self.fs.clone());
        let mut replay = |frame| frames.push(frame);
        let (journal, report) = Journal::open(
            fs,
            PathBuf::from(DIRECTORY),
            self.config.clone(),
            &mut replay,
        )?;
        Ok((journal, report, frames))
    }

    pub(super) fn start(&self, journal: &Journal) {
        journal.start(self.checkpoints.clone());
    }

    /// Opens and starts a journal that is expected to be in order.
    pub(super) fn run(&mut self) -> Journal {
        let (journal, report, frames) = self.open().expect("open");
        assert_eq!(report.damaged, []);
        self.check(&frames).expect("replay");
        self.start(&journal);
        journal
    }

    /// Submits the next entry of a log.
    pub(super) fn append(
        &mut self,
        journal: &Journal,
        log: u64,
        len: usize,
        durability: Durability,
    ) -> FrameSequence {
        let permit = journal.internal_permit();
        self.append_with(journal, log, len, durability, permit)
    }

    pub(super) fn append_with(
        &mut self,
        journal: &Journal,
        log: u64,
        len: usize,
        durability: Durability,
        permit: JournalPermit,
    ) -> FrameSequence {
        let log = LogId(log);
        let known = self.logs.entry(log).or_default();
        known.entries.push((self.life, len));
        let index = known.entries.len() as u64;
        self.checkpoints.ends.lock().insert(log, index);
        let whole = payload(log, index, self.life, len);
        let frame = Frame {
            log,
            kind: FrameKind::Append,
            prev_index: EntryIndex(index - 1),
            last_index: EntryIndex(index),
            payload: vec![whole.slice(..len / 3), whole.slice(len / 3..)],
        };
        let sender = self.sender.clone();
        let done = move |result| drop(sender.send((log, EntryIndex(index), durability, result)));
        journal.submit(frame, durability, permit, Box::new(done))
    }

    /// Submits the next entry of a log and waits for it; whether it was acknowledged.
    pub(super) fn append_and_wait(
        &mut self,
        journal: &Journal,
        log: u64,
        len: usize,
        durability: Durability,
    ) -> bool {
        self.append(journal, log, len, durability);
        self.wait(1)
    }

    /// Waits for `count` completions; false if one of them was an error.
    pub(super) fn wait(&mut self, count: usize) -> bool {
        let mut good = true;
        for _ in 0..count {
            let done = self.receiver.recv().expect("the test holds a sender");
            good &= self.note(done);
        }
        good
    }

    fn note(&mut self, (log, index, durability, result): Done) -> bool {
        let known = self.logs.get_mut(&log).expect("only known logs complete");
        if result.is_ok() && durability == Durability::Sync {
            assert!(index.0 > known.acked, "completions of a log come in order");
            known.acked = index.0;
        }
        result.is_ok()
    }

    /// Compares a replay with what is known, then takes it for the truth, as recovery would.
    pub(super) fn check(&mut self, frames: &[ReplayedFrame]) -> Result<(), String> {
        let mut last: BTreeMap<LogId, u64> = BTreeMap::new();
        for frame in frames {
            let log = frame.log;
            let known = self
                .logs
                .get(&log)
                .ok_or(format!("{log:?} was never written"))?;
            let index = frame.last_index.0;
            let (life, len) = known
                .entries
                .get(index as usize - 1)
                .ok_or(format!("{log:?} {index} was never written"))?;
            if frame.payload != payload(log, index, *life, *len) || frame.prev_index.0 + 1 != index
            {
                return Err(format!("{log:?} {index} is not what was written"));
            }
            let checkpoint = self.checkpoint(log);
            let before = last.get(&log).copied().unwrap_or(0);
            // What a checkpoint covers is passed over: of it the journal may have any part, in order.
            let follows = if index > checkpoint {
                index == before.max(checkpoint) + 1
            } else {
                index > before
            };
            if !follows {
                return Err(format!(
                    "{log:?} goes on at {index} after {before}; checkpoint is {checkpoint}"
                ));
            }
            last.insert(log, index);
        }
        let through = self.checkpoints.through.lock();
        for (log, known) in &mut self.logs {
            let checkpoint = through.get(log).copied().unwrap_or(0);
            let end = last.get(log).copied().unwrap_or(0).max(checkpoint);
            if end < known.acked {
                return Err(format!(
                    "{log:?} ends at {end}, but {} was acknowledged",
                    known.acked
                ));
            }
            known.entries.truncate(end as usize);
            // What a start has found can no longer be lost.
            known.acked = end;
            self.checkpoints.ends.lock().insert(*log, end);
        }
        Ok(())
    }

    fn checkpoint(&self, log: LogId) -> u64 {
        let through = self.checkpoints.through.lock();
        through.get(&log).copied().unwrap_or(0)
    }
}

/// Where the second group of a file begins at the earliest.
pub(crate) const BEHIND_FIRST_GROUP: u64 = FIRST_GROUP + BLOCK_BYTES;

/// Whether a file of the journal ends with a seal, so that all before it count as synced.
pub(crate) fn ends_with_seal(fs: &HostileFs, path: &Path) -> bool {
    let opened = RoundFile::read_header(fs, path, String::new(), String::new());
    let Ok(Opened::Round(round)) = opened else {
        return false;
    };
    let last = round.heads_from(FIRST_GROUP).last();
    last.is_some_and(|head| head.entries.is_empty())
}
