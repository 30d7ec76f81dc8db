//! One thread that makes batches of many callers durable together.
//!
//! Owns the queue between callers and the store. Invariant: batches reach the store in the order of the calls, each
//! whole, and completions are called in that order. The first failure is final: what is durable after it is not
//! known, so every later batch fails with the same error.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use parking_lot::{Condvar, Mutex};

use super::{KvCompletion, KvError, KvWrite};
use crate::SyncPoint;

/// Bytes that go out with one sync; bounds the time that a small batch waits for its turn.
const GROUP_BYTES_MAX: usize = 8 << 20;

/// Bytes that may wait. Votes and checkpoints are a few hundred bytes each, so only a stuck disk gets here.
const QUEUE_BYTES_MAX: usize = 64 << 20;

/// Where batches go.
pub(super) trait Target: Send + Sync + 'static {
    /// Applies all of it or none; durably, with all that was applied before, where that is asked for. Blocks.
    fn apply(&self, writes: &[KvWrite], durably: bool) -> Result<(), KvError>;
}

struct Item {
    writes: Vec<KvWrite>,
    durably: bool,
    bytes: usize,
    done: KvCompletion,
}

#[derive(Default)]
struct Queue {
    items: VecDeque<Item>,
    bytes: usize,
    closing: bool,
    held: bool,
    left_out: Option<SyncPoint>,
    failure: Option<KvError>,
}

struct Shared {
    /// Held while a group is on its way to the target, so that nothing arrives there after it was discarded. Before
    /// `queue`.
    writing: Mutex<()>,
    queue: Mutex<Queue>,
    changed: Condvar,
}

/// The queue and its thread. Dropping it writes what is queued.
pub(super) struct BatchWriter {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

fn bytes_of(writes: &[KvWrite]) -> usize {
    let each = writes.iter().map(|write| match write {
        KvWrite::Put(_, key, value) => key.len() + value.len(),
        KvWrite::Delete(_, key) => key.len(),
        KvWrite::DeleteRange(_, from, to) => from.len() + to.len(),
    });
    each.sum()
}

impl BatchWriter {
    pub(super) fn start(target: Arc<dyn Target>) -> Result<BatchWriter, KvError> {
        let shared = Arc::new(Shared {
            writing: Mutex::default(),
            queue: Mutex::default(),
            changed: Condvar::new(),
        });
        let for_thread = shared.clone();
        let thread = thread::Builder::new()
            .name("kv-write".to_owned())
            .spawn(move || run(&for_thread, &*target))
            .map_err(|error| KvError(format!("cannot start a thread: {error}")))?;
        Ok(BatchWriter {
            shared,
            thread: Mutex::new(Some(thread)),
        })
    }

    pub(super) fn write(&self, writes: Vec<KvWrite>, point: Option<SyncPoint>, done: KvCompletion) {
        let bytes = bytes_of(&writes);
        let mut queue = self.shared.queue.lock();
        if let Err(error) = queue.check(bytes) {
            drop(queue);
            return done(Err(error));
        }
        queue.bytes += bytes;
        let durably = point.is_some() && point != queue.left_out;
        queue.items.push_back(Item {
            writes,
            durably,
            bytes,
            done,
        });
        drop(queue);
        self.shared.changed.notify_one();
    }

    pub(super) fn write_sync(&self, writes: Vec<KvWrite>, point: SyncPoint) -> Result<(), KvError> {
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        self.write(
            writes,
            Some(point),
            Box::new(move |result| {
                // The receiver waits below for as long as the sender lives.
                let _ = sender.send(result);
            }),
        );
        receiver
            .recv()
            .unwrap_or_else(|_| Err(KvError("closed".to_owned())))
    }

    /// While held, batches only queue up.
    pub(super) fn set_held(&self, held: bool) {
        self.shared.queue.lock().held = held;
        self.shared.changed.notify_one();
    }

    /// From now on batches of this point are done without a sync, as if the point asked for none.
    pub(super) fn leave_out(&self, point: Option<SyncPoint>) {
        self.shared.queue.lock().left_out = point;
    }

    /// Forgets what is queued; its completions hear of it.
    pub(super) fn discard(&self, why: &KvError) {
        let items = {
            let _nothing_under_way = self.shared.writing.lock();
            let mut queue = self.shared.queue.lock();
            queue.bytes = 0;
            std::mem::take(&mut queue.items)
        };
        for item in items {
            (item.done)(Err(why.clone()));
        }
    }
}

impl Queue {
    fn check(&self, bytes: usize) -> Result<(), KvError> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        if self.closing {
            return Err(KvError("closed".to_owned()));
        }
        if !self.items.is_empty() && self.bytes + bytes > QUEUE_BYTES_MAX {
            return Err(KvError(format!(
                "{} bytes of writes are waiting for the disk",
                self.bytes
            )));
        }
        Ok(())
    }

    fn take_group(&mut self) -> Vec<Item> {
        let mut group = Vec::new();
        let mut bytes = 0;
        while let Some(item) = self
            .items
            .pop_front_if(|item| bytes == 0 || bytes + item.bytes <= GROUP_BYTES_MAX)
        {
            bytes += item.bytes.max(1);
            self.bytes -= item.bytes;
            group.push(item);
        }
        group
    }
}

fn run(shared: &Shared, target: &dyn Target) {
    loop {
        {
            let mut queue = shared.queue.lock();
            while (queue.items.is_empty() || queue.held) && !queue.closing {
                shared.changed.wait(&mut queue);
            }
            if queue.items.is_empty() {
                return;
            }
        }
        let writing = shared.writing.lock();
        let mut group = shared.queue.lock().take_group();
        let result = write_group(shared, target, &mut group);
        drop(writing);
        for item in group {
            (item.done)(result.clone());
        }
    }
}

fn write_group(shared: &Shared, target: &dyn Target, group: &mut [Item]) -> Result<(), KvError> {
    let failure = shared.queue.lock().failure.clone();
    let writes: Vec<KvWrite> = group
        .iter_mut()
        .flat_map(|item| std::mem::take(&mut item.writes))
        .collect();
    let durably = group.iter().any(|item| item.durably);
    let result = failure.map_or_else(|| target.apply(&writes, durably), Err);
    if let Err(error) = &result {
        shared.queue.lock().failure.get_or_insert_with(|| {
            tracing::error!(%error, "the key-value store failed; it accepts nothing more");
            error.clone()
        });
    }
    result
}

impl Drop for BatchWriter {
    fn drop(&mut self) {
        self.shared.queue.lock().closing = true;
        self.shared.changed.notify_one();
        let Some(thread) = self.thread.get_mut().take() else {
            return;
        };
        // The last owner may be a completion, which runs on the thread itself.
        if thread.thread().id() != thread::current().id() && thread.join().is_err() {
            tracing::error!("the key-value store's thread panicked");
        }
    }
}
