//! Logs with something to write to their segments, and when that is done.
//!
//! A large write costs a fraction of many small ones, and nobody waits for these: the journal has the bytes, readers
//! take them from memory. So a log waits until a round is worth it or it has waited for long enough, unless memory
//! runs short. Invariant: a log is in the queue at most once; the queue's lock is taken behind all others.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::{LogId, PartitionLog};

/// Bytes of a log that are worth a write. Per byte a write of 256 KiB costs half of one of 16 KiB, and hardly more than
/// one of 1 MiB; what waits for so little is still in the processor's cache.
pub const ROUND_BYTES: u64 = 256 << 10;

/// Share of the wait for which a thread that sleeps lets more logs end theirs.
const GATHER_SHARE: u32 = 8;

/// The queue.
#[derive(Debug)]
pub struct WriteQueue {
    /// How long less than a round waits for more.
    wait: Duration,
    inner: Mutex<Queued>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Queued {
    /// To be written now, in this order.
    due: VecDeque<Arc<PartitionLog>>,
    /// Those that wait for more, by their turn, with the end of their wait. Turns rise with time.
    waiting: BTreeMap<u64, (Instant, Arc<PartitionLog>)>,
    /// Turn of each that waits.
    turns: HashMap<LogId, u64>,
    turn: u64,
    /// Logs for which there is no room on the disk.
    parked: Vec<Arc<PartitionLog>>,
    closed: bool,
}

impl Queued {
    /// Ends the wait of the log whose turn is first.
    fn take_first(&mut self) -> Option<Arc<PartitionLog>> {
        let (_, (_, log)) = self.waiting.pop_first()?;
        self.turns.remove(&log.id());
        Some(log)
    }
}

impl WriteQueue {
    /// An empty queue in which less than a round waits for `wait`.
    pub fn new(wait: Duration) -> WriteQueue {
        WriteQueue {
            wait,
            inner: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// Adds a log that is to be written now; the caller makes sure that it is queued once.
    pub fn push(&self, log: Arc<PartitionLog>) {
        self.inner.lock().due.push_back(log);
        self.changed.notify_one();
    }

    /// Adds a log that may wait for more; the caller makes sure that it is queued once.
    pub fn wait(&self, log: Arc<PartitionLog>) {
        let mut inner = self.inner.lock();
        if inner.closed {
            return;
        }
        inner.turn += 1;
        let turn = inner.turn;
        inner.turns.insert(log.id(), turn);
        let first = inner.waiting.is_empty();
        inner
            .waiting
            .insert(turn, (Instant::now() + self.wait, log));
        drop(inner);
        // Whoever sleeps knows of the end of an earlier wait.
        if first {
            self.changed.notify_one();
        }
    }

    /// Ends the wait of a log, if it waits.
    pub fn hurry(&self, id: LogId) {
        let mut inner = self.inner.lock();
        let turn = inner.turns.remove(&id);
        if let Some((_, log)) = turn.and_then(|turn| inner.waiting.remove(&turn)) {
            inner.due.push_back(log);
            drop(inner);
            self.changed.notify_one();
        }
    }

    /// Ends the wait of all.
    pub fn hurry_all(&self) {
        let mut inner = self.inner.lock();
        if inner.waiting.is_empty() {
            return;
        }
        while let Some(log) = inner.take_first() {
            inner.due.push_back(log);
        }
        drop(inner);
        self.changed.notify_all();
    }

    /// Puts a log aside for which there was no room.
    pub fn park(&self, log: Arc<PartitionLog>) {
        self.inner.lock().parked.push(log);
    }

    /// Lets the logs that were put aside try again.
    pub fn retry_parked(&self) {
        let mut inner = self.inner.lock();
        let parked = std::mem::take(&mut inner.parked);
        if !parked.is_empty() && !inner.closed {
            inner.due.extend(parked);
            self.changed.notify_all();
        }
    }

    /// Waits for a log that is due; `None` when closed.
    pub fn pop(&self) -> Option<Arc<PartitionLog>> {
        let mut inner = self.inner.lock();
        loop {
            if inner.closed {
                return None;
            }
            if let Some(log) = inner.due.pop_front() {
                return Some(log);
            }
            let next = inner.waiting.first_key_value();
            match next.map(|(_, (until, _))| *until) {
                None => self.changed.wait(&mut inner),
                Some(until) if until <= Instant::now() => return inner.take_first(),
                // Those whose wait ends soon after are written in the same go: thousands of logs end theirs one by one.
                Some(until) => {
                    let until = until + self.wait / GATHER_SHARE;
                    self.changed.wait_until(&mut inner, until);
                }
            }
        }
    }

    /// Ends the threads that wait and forgets what is queued.
    pub fn close(&self) {
        let mut inner = self.inner.lock();
        *inner = Queued {
            closed: true,
            ..Queued::default()
        };
        self.changed.notify_all();
    }
}
