//! One thread that makes batches of many callers durable together.
//!
//! Owns the queue between callers and the store. Invariant: batches reach the store in the order of the calls, each
//! whole, and completions are called in that order. A batch that found no room is neither done nor failed: it is
//! written again until there is room, and all others wait behind it. Any other failure is final: what is durable
//! after it is not known, so every later batch fails with the same error.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::{KvCompletion, KvError, KvWrite};
use crate::SyncPoint;

/// Bytes that go out with one sync; bounds the time that a small batch waits for its turn.
const GROUP_BYTES_MAX: usize = 8 << 20;

/// Bytes that may wait. Votes and checkpoints are a few hundred bytes each, so only a stuck disk gets here.
const QUEUE_BYTES_MAX: usize = 64 << 20;

/// Pause between two attempts to write for which there was no room.
const ROOM_PAUSE: Duration = Duration::from_millis(250);

/// Why a group was not written.
#[derive(Clone, Debug)]
pub(super) enum ApplyError {
    /// There is no room now. Some of it may be durable, so it must be applied again, or nothing more.
    NoRoom(KvError),
    /// The store cannot be relied on any more.
    Failed(KvError),
}

/// Where batches go.
pub(super) trait Target: Send + Sync + 'static {
    /// Applies all of it, durably and with all that was applied before where that is asked for, or says why not. Blocks.
    fn apply(&self, writes: &[KvWrite], durably: bool) -> Result<(), ApplyError>;

    /// Whether the target wants nothing. While it does, `tend` is called now and then.
    fn is_at_ease(&self) -> bool {
        true
    }

    /// A chance to get back what was given up for want of room.
    fn tend(&self) {}
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
    /// Whether a batch may wait for room.
    impatient: bool,
    /// Whether one waits.
    waiting_for_room: bool,
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

    /// Whether a batch waits for room.
    pub(super) fn waits_for_room(&self) -> bool {
        self.shared.queue.lock().waiting_for_room
    }

    /// From now on a batch that finds no room fails, and all behind it.
    pub(super) fn stop_waiting(&self) {
        self.shared.queue.lock().impatient = true;
        self.shared.changed.notify_one();
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
    /// Whether there is nothing to do.
    fn is_idle(&self) -> bool {
        (self.items.is_empty() || self.held) && !self.closing
    }

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
    while wait_for_items(shared, target) {
        let writing = shared.writing.lock();
        let mut group = shared.queue.lock().take_group();
        let result = write_group(shared, target, &mut group);
        drop(writing);
        for item in group {
            (item.done)(result.clone());
        }
    }
}

/// Waits for batches; false when closed and all are written.
fn wait_for_items(shared: &Shared, target: &dyn Target) -> bool {
    loop {
        let at_ease = target.is_at_ease();
        if !at_ease {
            target.tend();
        }
        let mut queue = shared.queue.lock();
        if queue.is_idle() {
            if at_ease {
                shared.changed.wait(&mut queue);
            } else {
                shared.changed.wait_for(&mut queue, ROOM_PAUSE);
            }
        }
        if !queue.items.is_empty() && (!queue.held || queue.closing) {
            return true;
        }
        if queue.closing {
            return false;
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
    let result = failure.map_or_else(|| apply(shared, target, &writes, durably), Err);
    if let Err(error) = &result {
        shared.queue.lock().failure.get_or_insert_with(|| {
            tracing::error!(%error, "the key-value store failed; it accepts nothing more");
            error.clone()
        });
    }
    result
}

/// Applies a group, again and again while there is no room for it.
fn apply(
    shared: &Shared,
    target: &dyn Target,
    writes: &[KvWrite],
    durably: bool,
) -> Result<(), KvError> {
    let mut waited = false;
    loop {
        match target.apply(writes, durably) {
            Ok(()) => {
                if waited {
                    shared.queue.lock().waiting_for_room = false;
                    tracing::info!("the key-value store has room again and goes on");
                }
                return Ok(());
            }
            Err(ApplyError::Failed(error)) => return Err(error),
            Err(ApplyError::NoRoom(error)) => {
                if !waited {
                    tracing::error!(%error, "the key-value store has no room; its writes wait");
                    waited = true;
                }
                if !wait_for_room(shared) {
                    return Err(error);
                }
            }
        }
    }
}

/// Waits a moment; false if nobody wants to wait any more.
fn wait_for_room(shared: &Shared) -> bool {
    let until = Instant::now() + ROOM_PAUSE;
    let mut queue = shared.queue.lock();
    queue.waiting_for_room = true;
    loop {
        if queue.closing || queue.impatient {
            return false;
        }
        if shared.changed.wait_until(&mut queue, until).timed_out() {
            return true;
        }
    }
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::kv::KeySpace;

    /// Who asks makes no difference here.
    const ANY: SyncPoint = SyncPoint::CleanStop;

    /// A target that answers as told, then always takes what it is given.
    #[derive(Default)]
    struct Scripted {
        answers: Mutex<VecDeque<ApplyError>>,
        given: Mutex<Vec<usize>>,
    }

    impl Target for Scripted {
        fn apply(&self, writes: &[KvWrite], _durably: bool) -> Result<(), ApplyError> {
            self.given.lock().push(writes.len());
            self.answers.lock().pop_front().map_or(Ok(()), Err)
        }
    }

    fn no_room() -> ApplyError {
        ApplyError::NoRoom(KvError("full".to_owned()))
    }

    fn writes(count: usize) -> Vec<KvWrite> {
        vec![KvWrite::Delete(KeySpace::Meta, "k".into()); count]
    }

    fn start(answers: impl IntoIterator<Item = ApplyError>) -> (Arc<Scripted>, BatchWriter) {
        let target = Arc::new(Scripted::default());
        target.answers.lock().extend(answers);
        let writer = BatchWriter::start(target.clone()).expect("a thread starts");
        (target, writer)
    }

    fn write_sync(writer: &BatchWriter, count: usize) -> Result<(), KvError> {
        crate::kv::wait(|done| writer.write(writes(count), Some(ANY), done))
    }

    #[test]
    fn what_finds_no_room_is_applied_again_before_what_came_later() {
        let (target, writer) = start([no_room(), no_room()]);
        let (sender, receiver) = mpsc::channel();
        writer.set_held(true);
        for count in [1, 2] {
            let sender = sender.clone();
            let done = move |result: Result<(), KvError>| {
                sender
                    .send((count, result.is_ok()))
                    .expect("test is waiting");
            };
            writer.write(writes(count), Some(ANY), Box::new(done));
        }
        writer.set_held(false);
        let first = receiver.recv_timeout(ROOM_PAUSE);
        assert!(first.is_err(), "told before it was applied: {first:?}");
        assert!(writer.waits_for_room());
        write_sync(&writer, 4).expect("there is room again");
        assert_eq!(
            [receiver.recv(), receiver.recv()],
            [Ok((1, true)), Ok((2, true))]
        );
        assert_eq!(*target.given.lock(), [3, 3, 3, 4]);
        assert!(!writer.waits_for_room());
    }

    #[test]
    fn another_failure_is_final_also_while_room_is_waited_for() {
        let (target, writer) = start([no_room(), ApplyError::Failed(KvError("sync".to_owned()))]);
        for count in [1, 2] {
            let error = write_sync(&writer, count).expect_err("failed");
            assert_eq!(error.0, "sync");
        }
        assert_eq!(*target.given.lock(), [1, 1], "nothing is applied after it");
    }

    #[test]
    fn whoever_stops_does_not_wait_for_room() {
        let (target, writer) = start(std::iter::repeat_n(no_room(), 1000));
        let (sender, receiver) = mpsc::channel();
        let done = move |result: Result<(), KvError>| {
            sender.send(result.is_err()).expect("test is waiting");
        };
        writer.write(writes(1), Some(ANY), Box::new(done));
        assert!(receiver.recv_timeout(ROOM_PAUSE).is_err(), "waits");
        writer.stop_waiting();
        assert_eq!(receiver.recv(), Ok(true));
        target.answers.lock().clear();
        // What is known to have failed must not come true later.
        write_sync(&writer, 1).expect_err("the failure is final");
    }

    #[test]
    fn dropping_it_does_not_wait_for_room() {
        let (_target, writer) = start(std::iter::repeat_n(no_room(), 1000));
        let (sender, receiver) = mpsc::channel();
        let done = move |result: Result<(), KvError>| {
            sender.send(result.is_err()).expect("test is waiting");
        };
        writer.write(writes(1), Some(ANY), Box::new(done));
        drop(writer);
        assert_eq!(receiver.recv(), Ok(true));
    }
}
