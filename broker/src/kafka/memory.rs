//! What a request takes of the memory budget beside its frame: decoded arrays, long answers.
//!
//! Whoever asks here holds memory already, so nobody waits in line: it is asked for again and again for a while, and
//! then the request ends its connection. Invariant: small requests with small answers take nothing.

use std::time::Duration;

use tidelog_protocol::{frame, limits};
use tokio::time::{Instant, sleep};

use crate::kafka::budget::MemoryPermit;
use crate::kafka::context::RequestContext;
use crate::kafka::dispatch::Reply;
use crate::kafka::handlers::HandlerError;

/// How long a request waits for memory.
const PATIENCE: Duration = Duration::from_secs(10);

/// Pause between two attempts.
const PAUSE: Duration = Duration::from_millis(20);

/// Records may inflate to so many bytes however small the budget is.
const INFLATED_BYTES_MIN: usize = 1024 * 1024;

/// Answers are charged in steps of this size while they are built.
const STEP_BYTES: usize = 1024 * 1024;

/// Items of an answer that are built before others get the thread.
const ITEMS_PER_TURN: usize = 64;

/// Memory of the arrays that decoding the body will take.
pub async fn of_elements(
    cx: &RequestContext,
    body: &[u8],
) -> Result<Option<MemoryPermit>, HandlerError> {
    if body.len() < limits::UNCOUNTED_BYTES_MAX {
        return Ok(None);
    }
    let elements = frame::count_elements(cx.header.api_key, cx.version(), body)?;
    let bytes = elements.saturating_mul(limits::REQUEST_ELEMENT_BYTES);
    if bytes < limits::UNCOUNTED_BYTES_MAX {
        return Ok(None);
    }
    let budget = &cx.broker.memory;
    let memory = persist(cx, || budget.try_reserve_decoded(bytes)).await?;
    Ok(Some(memory))
}

/// Memory that records take while they are inflated, or compressed anew.
pub async fn of_records(cx: &RequestContext, bytes: usize) -> Result<MemoryPermit, HandlerError> {
    reserve(cx, bytes).await
}

/// The most that the records of a batch may inflate to: half of the budget holds twice as much.
pub fn inflated_bytes_max(cx: &RequestContext) -> usize {
    let share = cx.broker.memory.total_bytes() / 4;
    limits::DECOMPRESSED_BYTES_MAX.min(share.max(INFLATED_BYTES_MIN))
}

/// The reply with its memory.
pub async fn of_reply(cx: &RequestContext, reply: Reply) -> Result<Reply, HandlerError> {
    let Reply::Frame { pieces, mut memory } = reply else {
        return Ok(reply);
    };
    let bytes: usize = pieces.iter().map(|piece| piece.len()).sum();
    if bytes > limits::REPLY_BYTES_MAX {
        return Err(HandlerError::ReplyTooLarge);
    }
    if bytes >= limits::UNCOUNTED_BYTES_MAX {
        MemoryPermit::join(&mut memory, Some(reserve(cx, bytes).await?));
    }
    Ok(Reply::Frame { pieces, memory })
}

/// Memory of an answer that is being built, item by item. Gives the thread to others now and then.
pub struct Building<'a> {
    cx: &'a RequestContext,
    items: usize,
    bytes: usize,
    memory: Option<MemoryPermit>,
}

impl<'a> Building<'a> {
    /// Nothing is built yet.
    pub fn begin(cx: &'a RequestContext) -> Building<'a> {
        Building {
            cx,
            items: 0,
            bytes: 0,
            memory: None,
        }
    }

    /// An item of about this size was built.
    pub async fn add(&mut self, bytes: usize) -> Result<(), HandlerError> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > limits::REPLY_BYTES_MAX {
            return Err(HandlerError::ReplyTooLarge);
        }
        let held = self.memory.as_ref().map_or(0, MemoryPermit::size_bytes);
        // The first step is as good as free, as in most answers nothing follows it.
        if self.bytes > held + STEP_BYTES {
            let more = reserve(self.cx, self.bytes - held).await?;
            MemoryPermit::join(&mut self.memory, Some(more));
        }
        self.items += 1;
        if self.items.is_multiple_of(ITEMS_PER_TURN) {
            tokio::task::yield_now().await;
        }
        Ok(())
    }
}

/// Never more than half of the budget: with a small one such a request takes what there is.
async fn reserve(cx: &RequestContext, bytes: usize) -> Result<MemoryPermit, HandlerError> {
    let budget = &cx.broker.memory;
    let bytes = bytes.min(budget.total_bytes() / 2);
    persist(cx, || budget.try_reserve(bytes)).await
}

/// Attempts it until it succeeds or patience ends.
async fn persist(
    cx: &RequestContext,
    attempt: impl Fn() -> Option<MemoryPermit>,
) -> Result<MemoryPermit, HandlerError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(memory) = attempt() {
            return Ok(memory);
        }
        if Instant::now() >= deadline || cx.broker.draining.is_cancelled() {
            return Err(HandlerError::NoMemory);
        }
        sleep(PAUSE).await;
    }
}
