//! The queue between those who submit frames and the writer.
//!
//! Owns the order of frames and the budget of bytes that wait. Invariant: frames leave in the order of their sequence
//! numbers, and each one's completion is called exactly once.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::format::Entry;
use super::{Completion, Durability, Frame, FrameSequence, JournalError};

/// Room in the journal's queue; given back when the frame is written.
#[derive(Debug)]
pub struct JournalPermit {
    _held: Option<OwnedSemaphorePermit>,
}

/// A frame on its way.
pub(super) struct Pending {
    pub(super) frame: Frame,
    pub(super) sequence: FrameSequence,
    pub(super) durability: Durability,
    /// Payload bytes, and those of them that earlier groups hold.
    pub(super) bytes: u64,
    pub(super) written: u64,
    permit: JournalPermit,
    done: Completion,
}

/// What the writer is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// Frames have come.
    Frames,
    /// Nothing has come for the time given.
    Idle,
    /// Nothing will come any more.
    Closed,
}

#[derive(Default)]
struct State {
    items: VecDeque<Pending>,
    last: FrameSequence,
    /// Nothing is accepted any more.
    closing: bool,
    /// Nobody takes frames any more.
    ended: bool,
    failure: Option<JournalError>,
}

/// The queue.
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    budget: Arc<Semaphore>,
    bytes_max: usize,
    frame_bytes_max: u64,
    directory: String,
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending")
            .field("sequence", &self.sequence)
            .field("frame", &self.frame)
            .finish()
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue")
            .field("directory", &self.directory)
            .finish_non_exhaustive()
    }
}

impl Pending {
    /// The directory entry of the part that comes next; its payload is filled in later.
    pub(super) fn entry(&self, last: bool) -> Entry {
        Entry {
            log: self.frame.log,
            prev_index: self.frame.prev_index,
            last_index: self.frame.last_index,
            sequence: self.sequence,
            kind: self.frame.kind,
            first: self.written == 0,
            last,
            lost: false,
            payload_offset: 0,
            payload_bytes: 0,
            payload_crc: 0,
            frame_bytes: u32::try_from(self.bytes).unwrap_or(u32::MAX),
        }
    }

    /// Gives back the room, then tells the submitter.
    pub(super) fn complete(self, result: Result<super::FileGeneration, JournalError>) {
        drop(self.permit);
        (self.done)(result);
    }
}

/// Wakes a blocked thread.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

/// Completes a refused item, on a thread of its own: whoever submits holds locks that the completion may want.
fn refuse(item: Pending, error: JournalError) {
    // Where no thread starts the item has to be at hand still.
    let slot = Arc::new(Mutex::new(Some((item, error))));
    let complete = move || {
        let taken = slot.lock().take();
        if let Some((item, error)) = taken {
            item.complete(Err(error));
        }
    };
    let spawned = std::thread::Builder::new()
        .name("journal-refuse".to_owned())
        .spawn(complete.clone());
    if spawned.is_err() {
        // Better a lock taken twice than a caller that waits for ever: the likely case takes none.
        complete();
    }
}

impl Queue {
    pub(super) fn new(
        directory: String,
        last: FrameSequence,
        bytes_max: usize,
        frame_bytes_max: u64,
    ) -> Queue {
        Queue {
            state: Mutex::new(State {
                last,
                ..State::default()
            }),
            changed: Condvar::new(),
            budget: Arc::new(Semaphore::new(bytes_max)),
            bytes_max,
            frame_bytes_max,
            directory,
        }
    }

    fn error(&self, reason: &str) -> JournalError {
        JournalError {
            file: self.directory.clone(),
            reason: reason.to_owned(),
        }
    }

    pub(super) fn failure(&self) -> Option<JournalError> {
        self.state.lock().failure.clone()
    }

    /// The last number given to a frame.
    pub(super) fn last_sequence(&self) -> FrameSequence {
        self.state.lock().last
    }

    pub(super) async fn reserve(&self, bytes: usize) -> Result<JournalPermit, JournalError> {
        if bytes as u64 > self.frame_bytes_max {
            return Err(self.error(&format!(
                "a frame of {bytes} bytes is larger than {}",
                self.frame_bytes_max
            )));
        }
        // A frame larger than the whole budget takes all of it.
        let permits = u32::try_from(bytes.clamp(1, self.bytes_max)).unwrap_or(u32::MAX);
        match self.budget.clone().acquire_many_owned(permits).await {
            Ok(held) => Ok(JournalPermit { _held: Some(held) }),
            Err(_) => Err(self.failure().unwrap_or_else(|| self.error("closed"))),
        }
    }

    pub(super) fn reserve_blocking(&self, bytes: usize) -> Result<JournalPermit, JournalError> {
        block_on(self.reserve(bytes))
    }

    pub(super) fn internal_permit() -> JournalPermit {
        JournalPermit { _held: None }
    }

    pub(super) fn submit(
        &self,
        frame: Frame,
        durability: Durability,
        permit: JournalPermit,
        done: Completion,
    ) -> FrameSequence {
        let bytes = frame.payload.iter().map(|piece| piece.len() as u64).sum();
        let mut state = self.state.lock();
        state.last = FrameSequence(state.last.0 + 1);
        let sequence = state.last;
        let item = Pending {
            frame,
            sequence,
            durability,
            bytes,
            written: 0,
            permit,
            done,
        };
        if state.closing || state.ended {
            let error = state
                .failure
                .clone()
                .unwrap_or_else(|| self.error("closed"));
            drop(state);
            refuse(item, error);
        } else {
            state.items.push_back(item);
            drop(state);
            self.changed.notify_one();
        }
        sequence
    }

    /// Moves what has come to the end of `into`, without waiting.
    pub(super) fn take_now(&self, into: &mut VecDeque<Pending>) {
        into.append(&mut self.state.lock().items);
    }

    /// Like `take_now`, and waits for something to come; not longer than `idle`, if given.
    pub(super) fn take(&self, into: &mut VecDeque<Pending>, idle: Option<Duration>) -> Taken {
        let mut state = self.state.lock();
        loop {
            if !state.items.is_empty() {
                into.append(&mut state.items);
                return Taken::Frames;
            }
            if state.closing {
                state.ended = true;
                return Taken::Closed;
            }
            match idle {
                Some(idle)
                    if self.changed.wait_for(&mut state, idle).timed_out()
                        && state.items.is_empty() =>
                {
                    return if state.closing { continue } else { Taken::Idle };
                }
                Some(_) => {}
                None => self.changed.wait(&mut state),
            }
        }
    }

    /// Whether nothing more is accepted.
    pub(super) fn is_closing(&self) -> bool {
        self.state.lock().closing
    }

    /// Remembers the first failure and turns away those who wait for room.
    pub(super) fn fail(&self, error: &JournalError) {
        self.state.lock().failure.get_or_insert_with(|| {
            tracing::error!(%error, "the journal failed; it accepts nothing more");
            error.clone()
        });
        self.budget.close();
        self.changed.notify_all();
    }

    /// Accepts nothing more. With `ended`, nobody will take what is queued, so it is answered here.
    pub(super) fn close(&self, ended: bool) {
        let items = {
            let mut state = self.state.lock();
            state.closing = true;
            state.ended |= ended;
            if state.ended {
                std::mem::take(&mut state.items)
            } else {
                VecDeque::new()
            }
        };
        self.budget.close();
        self.changed.notify_all();
        for item in items {
            item.complete(Err(self.failure().unwrap_or_else(|| self.error("closed"))));
        }
    }

    /// Whether the frame is larger than any that can be written.
    pub(super) fn is_too_large(&self, item: &Pending) -> Option<JournalError> {
        (item.bytes > self.frame_bytes_max).then(|| {
            self.error(&format!(
                "a frame of {} bytes is larger than {}",
                item.bytes, self.frame_bytes_max
            ))
        })
    }
}
