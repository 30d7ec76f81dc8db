//! Frames that wait to be written. Bounded in number and bytes; what waits goes out together.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::timeout;

use super::frame::OutgoingFrame;
use crate::limits::{PEER_LANE_FRAMES_MAX, PEER_WRITE_BYTES_MAX};

/// There is no room.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
#[error("too much waits to be sent")]
pub struct OutboxFull;

/// See the module. Many put in, one takes out.
#[derive(Debug)]
pub struct Outbox {
    waiting: Mutex<Waiting>,
    bytes_max: usize,
    ready: Notify,
    room: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    frames: VecDeque<OutgoingFrame>,
    /// Of the frames that wait and of those that are being written.
    bytes: usize,
    /// Frames that are being written.
    taken: usize,
}

impl Outbox {
    /// An empty one.
    pub fn new(bytes_max: usize) -> Outbox {
        Outbox {
            waiting: Mutex::default(),
            bytes_max,
            ready: Notify::new(),
            room: Notify::new(),
        }
    }

    /// Puts a frame in. One frame always has room, however long.
    pub fn push(&self, frame: OutgoingFrame) -> Result<(), OutboxFull> {
        let mut waiting = self.waiting.lock();
        let bytes = waiting.bytes.saturating_add(frame.bytes());
        if waiting.bytes > 0 && bytes > self.bytes_max
            || waiting.frames.len() >= PEER_LANE_FRAMES_MAX
        {
            return Err(OutboxFull);
        }
        waiting.bytes = bytes;
        waiting.frames.push_back(frame);
        drop(waiting);
        self.ready.notify_one();
        Ok(())
    }

    /// Waits for frames and takes all, or as many as are written at once.
    pub async fn take(&self) -> Vec<OutgoingFrame> {
        loop {
            let taken = self.try_take();
            if !taken.is_empty() {
                return taken;
            }
            self.ready.notified().await;
            // The tasks that are ready put theirs in first: one write for all of them costs hardly more than one for each.
            yield_now().await;
        }
    }

    fn try_take(&self) -> Vec<OutgoingFrame> {
        let mut waiting = self.waiting.lock();
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while bytes < PEER_WRITE_BYTES_MAX {
            let Some(frame) = waiting.frames.pop_front() else {
                break;
            };
            bytes += frame.bytes();
            taken.push(frame);
        }
        waiting.taken = taken.len();
        taken
    }

    /// What was taken last, of so many bytes, is on its way. Those who wait for room get their turn, one for each frame.
    pub fn written(&self, bytes: usize) {
        let mut waiting = self.waiting.lock();
        waiting.bytes = waiting.bytes.saturating_sub(bytes);
        let frames = std::mem::take(&mut waiting.taken);
        drop(waiting);
        (0..frames).for_each(|_| self.room.notify_one());
    }

    /// Waits for a moment at which there may be room, or for so long.
    pub async fn wait_for_room(&self, patience: Duration) {
        // Whoever is told goes on in any case.
        let _ = timeout(patience, self.room.notified()).await;
    }

    /// Whether everything has been written.
    pub fn is_empty(&self) -> bool {
        self.waiting.lock().bytes == 0
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::{FrameKind, RequestKind};
    use super::*;

    fn frame(bytes: usize) -> OutgoingFrame {
        OutgoingFrame::of(FrameKind::Request(RequestKind::Call), 1, &vec![0; bytes])
    }

    #[tokio::test]
    async fn what_waits_is_bounded_and_goes_out_together() {
        let outbox = Outbox::new(1_000);
        assert_eq!(outbox.push(frame(5_000)), Ok(()), "one always has room");
        assert_eq!(outbox.push(frame(1)), Err(OutboxFull));
        let taken = outbox.take().await;
        assert_eq!(taken.len(), 1);
        assert_eq!(
            outbox.push(frame(1)),
            Err(OutboxFull),
            "it is being written"
        );
        outbox.written(taken[0].bytes());
        assert!(outbox.is_empty());
        for _ in 0..10 {
            outbox.push(frame(50)).expect("has room");
        }
        assert_eq!(outbox.take().await.len(), 10);
    }

    #[tokio::test]
    async fn frames_are_bounded_in_number() {
        let outbox = Outbox::new(usize::MAX);
        for _ in 0..PEER_LANE_FRAMES_MAX {
            outbox.push(frame(0)).expect("has room");
        }
        assert_eq!(outbox.push(frame(0)), Err(OutboxFull));
    }

    #[tokio::test]
    async fn room_is_given_to_as_many_as_frames_were_written() {
        let outbox = std::sync::Arc::new(Outbox::new(1_000));
        outbox.push(frame(900)).expect("has room");
        let mut waiting = tokio::task::JoinSet::new();
        for _ in 0..3 {
            let outbox = outbox.clone();
            waiting.spawn(async move {
                let began = tokio::time::Instant::now();
                outbox.wait_for_room(Duration::from_secs(1)).await;
                began.elapsed() >= Duration::from_secs(1)
            });
        }
        tokio::task::yield_now().await;
        let taken = outbox.take().await;
        outbox.written(taken[0].bytes());
        let in_vain = waiting.join_all().await;
        assert_eq!(in_vain.iter().filter(|it| **it).count(), 2);
    }
}
