//! What all logs of a data directory share: file system, journal, caches, the budget of unwritten bytes.
//!
//! Invariant: permits taken from the budget are given back when the bytes are in files or will never be.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::task::Poll;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::files::HandleCache;
use super::write_queue::WriteQueue;
use super::{EntryIndex, LogError, PartitionLog};
use crate::fs::FileSystem;
use crate::journal::{Journal, JournalError};
use crate::kv::KeyValueStore;

/// Bytes that one write-behind permit stands for.
const PERMIT_BYTES: usize = 1024;

/// Sizes that follow from the options of the manager.
#[derive(Clone, Copy, Debug)]
pub struct SharedSizes {
    /// Bytes of recent batches kept in memory.
    pub cache_bytes_max: usize,
    /// Bytes that may wait to be written.
    pub write_behind_bytes_max: usize,
    /// How long little waits for more to be written with it.
    pub write_behind_wait: Duration,
    /// Files kept open.
    pub open_files_max: usize,
}

/// What all logs share.
#[derive(Debug)]
pub struct Shared {
    /// Data directory.
    pub directory: PathBuf,
    /// Its file system.
    pub fs: Arc<dyn FileSystem>,
    /// Its key-value store.
    pub kv: Arc<dyn KeyValueStore>,
    /// Open segment files.
    pub handles: Arc<HandleCache>,
    /// Recent batches.
    pub cache: BatchCache,
    /// Logs with something to write.
    pub queue: WriteQueue,
    /// Whether records are refused for want of space.
    pub space_low: AtomicBool,
    /// One writer of checkpoints at a time, so that none is written after its log was removed.
    pub checkpoints: Mutex<()>,
    journal: OnceLock<Journal>,
    budget: Semaphore,
    budget_permits: usize,
}

impl Shared {
    /// Shared parts, the journal still missing.
    pub fn new(
        directory: PathBuf,
        fs: Arc<dyn FileSystem>,
        kv: Arc<dyn KeyValueStore>,
        sizes: SharedSizes,
    ) -> Shared {
        let most = (u32::MAX as usize).min(Semaphore::MAX_PERMITS);
        let budget_permits = (sizes.write_behind_bytes_max / PERMIT_BYTES).clamp(1, most);
        Shared {
            directory,
            fs,
            kv,
            handles: Arc::new(HandleCache::new(sizes.open_files_max)),
            cache: BatchCache::new(sizes.cache_bytes_max),
            queue: WriteQueue::new(sizes.write_behind_wait),
            space_low: AtomicBool::new(false),
            checkpoints: Mutex::new(()),
            journal: OnceLock::new(),
            budget: Semaphore::new(budget_permits),
            budget_permits,
        }
    }

    /// Sets the journal once it is open. A second one is ignored.
    pub fn set_journal(&self, journal: Journal) {
        let _first_wins = self.journal.set(journal);
    }

    /// The journal.
    pub fn journal(&self) -> Result<&Journal, LogError> {
        self.journal
            .get()
            .ok_or_else(|| LogError::Io("the journal is not open".into()))
    }

    /// Waits until `bytes` more may wait to be written; returns the permits to give back.
    pub async fn reserve_write_behind(&self, bytes: usize) -> Result<u32, LogError> {
        let permits = bytes.div_ceil(PERMIT_BYTES).clamp(1, self.budget_permits);
        let permits = u32::try_from(permits).unwrap_or(u32::MAX);
        let mut acquired = pin!(self.budget.acquire_many(permits));
        // In line before the others are hurried: whoever queues a log from here on finds the budget short.
        let at_once = poll_fn(|context| Poll::Ready(acquired.as_mut().poll(context))).await;
        if at_once.is_pending() || self.is_short() {
            self.queue.hurry_all();
        }
        let permit = match at_once {
            Poll::Ready(permit) => permit,
            Poll::Pending => acquired.await,
        };
        permit
            .map_err(|_| LogError::Io("shut down".into()))?
            .forget();
        Ok(permits)
    }

    /// Queues a log that was not queued and has less to write than a round. It waits for more if there is memory for
    /// that.
    pub fn queue_to_wait(&self, log: Arc<PartitionLog>) {
        let id = log.id();
        self.queue.wait(log);
        if self.is_short() {
            self.queue.hurry(id);
        }
    }

    /// Whether more than half of the bytes that may wait do.
    fn is_short(&self) -> bool {
        self.budget.available_permits() < self.budget_permits / 2
    }

    /// Gives permits back.
    pub fn release_write_behind(&self, permits: usize) {
        if permits > 0 {
            self.budget.add_permits(permits);
        }
    }

    /// The error of a log whose journal failed.
    pub fn journal_failed(error: &JournalError) -> LogError {
        LogError::Stopped(error.to_string().into())
    }

    /// A write found no room: records are refused until the next look at the disk says better.
    pub fn note_no_room(&self, error: &LogError) {
        if !self.space_low.swap(true, Ordering::Relaxed) {
            tracing::error!(%error, "no room: records are refused");
        }
    }

    /// Refuses records at the reserve.
    pub fn check_space(&self) -> Result<(), LogError> {
        if self.space_low.load(Ordering::Relaxed) {
            return Err(LogError::NoSpace("free space is at the reserve".into()));
        }
        Ok(())
    }
}

/// One bound over the newest batches of all logs: the oldest append goes first, whatever its log. What readers take
/// from segments never enters, so that catching up does not push the tail out.
#[derive(Debug)]
pub struct BatchCache {
    bytes_max: usize,
    queue: Mutex<CacheQueue>,
}

#[derive(Debug, Default)]
struct CacheQueue {
    appends: VecDeque<(Weak<PartitionLog>, EntryIndex, usize)>,
    bytes: usize,
}

impl BatchCache {
    fn new(bytes_max: usize) -> BatchCache {
        BatchCache {
            bytes_max,
            queue: Mutex::default(),
        }
    }

    /// Notes that a log's entries up to `last` take `bytes` more, and drops what is oldest. Holds no lock of a log
    /// but that of the one it drops from.
    pub fn admit(&self, log: Weak<PartitionLog>, last: EntryIndex, bytes: usize) {
        let mut victims = Vec::new();
        {
            let mut queue = self.queue.lock();
            queue.bytes += bytes;
            queue.appends.push_back((log, last, bytes));
            while queue.bytes > self.bytes_max
                && let Some((log, upto, bytes)) = queue.appends.pop_front()
            {
                queue.bytes -= bytes;
                victims.push((log, upto));
            }
        }
        for (log, upto) in victims {
            if let Some(log) = log.upgrade() {
                log.evict_to(upto);
            }
        }
    }
}
