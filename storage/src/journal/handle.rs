//! The handle through which the rest of storage uses the journal.

use std::panic::{self, AssertUnwindSafe};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::{self, JoinHandle};

use parking_lot::Mutex;

use super::files::Files;
use super::open::open;
use super::queue::{JournalPermit, Queue};
use super::writer::Writer;
use super::{
    Completion, Durability, Frame, FrameSequence, JournalConfig, JournalError, Reclaimer,
    ReplayReport, ReplayedFrame,
};
use crate::fs::FileSystem;
use crate::log::LogId;

/// The shared journal of a data directory. Shared by `Arc`. Dropping it without `close` ends its threads once what is
/// queued is written, without waiting for them.
pub struct Journal {
    queue: Arc<Queue>,
    files: Arc<Files>,
    frame_bytes_max: u64,
    threads: Mutex<Threads>,
}

enum Threads {
    /// Until `start`.
    Waiting(Box<Writer>),
    Running {
        writer: JoinHandle<()>,
        others: Vec<JoinHandle<()>>,
    },
    Ended,
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal")
            .field("directory", &self.files.directory)
            .finish_non_exhaustive()
    }
}

impl Journal {
    /// Opens `directory` (made if missing; its name is the caller's to make durable) and hands every frame in it to `replay`: per log in the order of submission,
    /// those of side files first. Blocks.
    pub fn open(
        fs: Arc<dyn FileSystem>,
        directory: PathBuf,
        config: JournalConfig,
        replay: &mut dyn FnMut(ReplayedFrame),
    ) -> Result<(Journal, ReplayReport), JournalError> {
        let (writer, report) = open(fs, directory, config, replay)?;
        let journal = Journal {
            queue: writer.queue.clone(),
            files: writer.files.clone(),
            frame_bytes_max: writer.limits.frame_bytes,
            threads: Mutex::new(Threads::Waiting(Box::new(writer))),
        };
        Ok((journal, report))
    }

    /// From now on each group says how far the key-value store was when it was written, so that the next start can
    /// tell that the store has gone back. Has no effect once the threads run.
    pub fn attest(&self, store: Arc<AtomicU64>) {
        if let Threads::Waiting(writer) = &mut *self.threads.lock() {
            writer.appender.attest(store);
        }
    }

    /// Starts the threads that write and reclaim. Before it, what is submitted queues up. A second call does nothing.
    pub fn start(&self, reclaimer: Arc<dyn Reclaimer>) {
        let mut threads = self.threads.lock();
        let writer = match std::mem::replace(&mut *threads, Threads::Ended) {
            Threads::Waiting(writer) => writer,
            other => return *threads = other,
        };
        if let Err(error) = self.files.note_to(reclaimer.clone()) {
            self.queue.fail(&error);
        }
        let (reclaiming, growing) = (self.files.clone(), self.files.clone());
        let spawned = [
            self.spawn("journal-write", move || writer.run()),
            self.spawn("journal-reclaim", move || {
                reclaiming.run_reclaim(&*reclaimer)
            }),
            self.spawn("journal-grow", move || growing.run_grow()),
        ];
        match spawned {
            [Ok(writer), Ok(reclaim), Ok(grow)] => {
                *threads = Threads::Running {
                    writer,
                    others: vec![reclaim, grow],
                };
            }
            some => {
                let reason = some
                    .into_iter()
                    .find_map(Result::err)
                    .map(|error| error.to_string())
                    .unwrap_or_default();
                let file = self.files.directory_name.clone();
                self.queue.fail(&JournalError {
                    file,
                    reason: format!("cannot start a thread: {reason}"),
                });
                self.queue.close(true);
                self.files.stop();
            }
        }
    }

    /// Starts a thread whose panic fails the journal: without one of them the others would wait for ever.
    fn spawn(
        &self,
        name: &str,
        work: impl FnOnce() + Send + 'static,
    ) -> std::io::Result<JoinHandle<()>> {
        let (queue, files) = (self.queue.clone(), self.files.clone());
        let reason = format!("thread {name} panicked");
        let guarded = move || {
            if panic::catch_unwind(AssertUnwindSafe(work)).is_err() {
                queue.fail(&JournalError {
                    file: files.directory_name.clone(),
                    reason,
                });
                files.wake();
                queue.close(true);
            }
        };
        thread::Builder::new().name(name.to_owned()).spawn(guarded)
    }

    /// Waits for room for a frame of `bytes` payload bytes.
    pub async fn reserve(&self, bytes: usize) -> Result<JournalPermit, JournalError> {
        self.queue.reserve(bytes).await
    }

    /// Like `reserve`, for threads that may block.
    pub fn reserve_blocking(&self, bytes: usize) -> Result<JournalPermit, JournalError> {
        self.queue.reserve_blocking(bytes)
    }

    /// A permit beside the budget, for the small frames that must never wait: truncate, purge, reset, remove.
    pub fn internal_permit(&self) -> JournalPermit {
        Queue::internal_permit()
    }

    /// Largest payload of one frame.
    pub fn frame_bytes_max(&self) -> u64 {
        self.frame_bytes_max
    }

    /// Queues a frame. The order of calls is the order in the journal and of the completions of one log. Never blocks.
    /// Once the journal is closed, `done` is called at once, on the caller's thread.
    pub fn submit(
        &self,
        frame: Frame,
        durability: Durability,
        permit: JournalPermit,
        done: Completion,
    ) -> FrameSequence {
        self.queue.submit(frame, durability, permit, done)
    }

    /// Why the journal stopped, if it did. Final.
    pub fn failure(&self) -> Option<JournalError> {
        self.queue.failure()
    }

    /// Logs whose frames were set aside because they could not be checkpointed.
    pub fn side_files(&self) -> Vec<LogId> {
        self.files.side.lock().logs()
    }

    /// Forgets the side file of a log that was removed, or checkpointed past it. Blocks.
    pub fn discard_side_file(&self, log: LogId) -> Result<(), JournalError> {
        self.files.discard_side(log)
    }

    /// Writes and syncs everything that is queued, then ends the threads. What is submitted later is refused. Blocks;
    /// not for use inside a completion or a `Reclaimer`.
    pub fn close(&self) {
        let threads = std::mem::replace(&mut *self.threads.lock(), Threads::Ended);
        match threads {
            Threads::Waiting(_) => self.queue.close(true),
            Threads::Running { writer, others } => {
                self.queue.close(false);
                self.files.wake();
                join(writer);
                self.files.stop();
                others.into_iter().for_each(join);
            }
            Threads::Ended => {}
        }
    }
}

fn join(thread: JoinHandle<()>) {
    if thread.join().is_err() {
        tracing::error!("a thread of the journal panicked");
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        match std::mem::replace(self.threads.get_mut(), Threads::Ended) {
            Threads::Waiting(_) => self.queue.close(true),
            Threads::Running { writer, .. } => {
                self.queue.close(false);
                // The other threads must outlive the writer, which may be waiting for a file.
                let files = self.files.clone();
                let ended =
                    thread::Builder::new()
                        .name("journal-end".to_owned())
                        .spawn(move || {
                            join(writer);
                            files.stop();
                        });
                if ended.is_err() {
                    self.files.stop();
                }
            }
            Threads::Ended => {}
        }
    }
}
