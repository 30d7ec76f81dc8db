//! Frames from and to a socket.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;

use super::frame::{Frame, FrameError, FrameHeader, HEADER_BYTES, OutgoingFrame};
use crate::limits::{PEER_READ_AHEAD_BYTES, PEER_WRITE_PIECES_MAX};

/// Bytes of one write that show that the other end reads. Less may only have filled a buffer on the way.
const TELLING_WRITE_BYTES: usize = 4_096;

/// Room below which a read is not worth its call.
const READ_BYTES_MIN: usize = 4_096;

/// Why a connection is of no use any more.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The other end closed it, or died.
    #[error("closed by the other end")]
    Closed,
    /// It broke.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// What came is no frame, or none that belongs here.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

/// When the other end was last heard of.
#[derive(Debug)]
pub struct Progress {
    since: Instant,
    last_ms: AtomicU64,
}

impl Progress {
    /// Heard of now.
    pub fn new() -> Arc<Progress> {
        Arc::new(Progress {
            since: Instant::now(),
            last_ms: AtomicU64::new(0),
        })
    }

    fn touch(&self) {
        let now_ms = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_ms.store(now_ms, Ordering::Relaxed);
    }

    /// How long nothing has been heard.
    pub fn silence(&self) -> Duration {
        let last = Duration::from_millis(self.last_ms.load(Ordering::Relaxed));
        self.since.elapsed().saturating_sub(last)
    }
}

/// Reads frames. What is read ahead of the frame that is wanted is bounded.
#[derive(Debug)]
pub struct FrameReader<R> {
    io: R,
    buffer: BytesMut,
    progress: Arc<Progress>,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Reads from `io`.
    pub fn new(io: R, progress: Arc<Progress>) -> Self {
        FrameReader {
            io,
            buffer: BytesMut::new(),
            progress,
        }
    }

    /// The next header. Its body must be read next.
    pub async fn header(&mut self) -> Result<FrameHeader, WireError> {
        if !self.fill(HEADER_BYTES).await? {
            return Err(WireError::Closed);
        }
        let mut header = [0; HEADER_BYTES];
        self.buffer.copy_to_slice(&mut header);
        Ok(FrameHeader::parse(&header)?)
    }

    /// The body behind a header.
    pub async fn body(&mut self, header: FrameHeader) -> Result<Frame, WireError> {
        if !self.fill(header.body_bytes).await? {
            return Err(WireError::Closed);
        }
        Ok(Frame {
            kind: header.kind,
            request: header.request,
            body: self.buffer.split_to(header.body_bytes).freeze(),
        })
    }

    /// The next frame.
    pub async fn frame(&mut self) -> Result<Frame, WireError> {
        let header = self.header().await?;
        self.body(header).await
    }

    /// Makes sure that so many bytes are at hand; `false` if the stream ends before.
    async fn fill(&mut self, bytes: usize) -> Result<bool, io::Error> {
        while self.buffer.len() < bytes {
            let missing = bytes - self.buffer.len();
            let room = self.buffer.capacity() - self.buffer.len();
            // Frames before may still be in use: what they leave of their buffer is used up first.
            if room < missing.max(READ_BYTES_MIN) {
                self.buffer.reserve(missing.max(PEER_READ_AHEAD_BYTES));
            }
            if self.io.read_buf(&mut self.buffer).await? == 0 {
                return Ok(false);
            }
            self.progress.touch();
        }
        Ok(true)
    }
}

/// Writes frames, all together, without joining their pieces.
pub async fn write_frames<W: AsyncWrite + Unpin>(
    io: &mut W,
    frames: Vec<OutgoingFrame>,
    progress: &Progress,
) -> Result<(), WireError> {
    let mut pieces: VecDeque<Bytes> = frames
        .into_iter()
        .flat_map(OutgoingFrame::into_pieces)
        .collect();
    while !pieces.is_empty() {
        let slices: Vec<IoSlice<'_>> = pieces
            .iter()
            .take(PEER_WRITE_PIECES_MAX)
            .map(|piece| IoSlice::new(piece))
            .collect();
        let written = io.write_vectored(&slices).await?;
        if written == 0 {
            return Err(WireError::Closed);
        }
        if written >= TELLING_WRITE_BYTES {
            progress.touch();
        }
        advance(&mut pieces, written);
    }
    Ok(())
}

fn advance(pieces: &mut VecDeque<Bytes>, mut written: usize) {
    while let Some(front) = pieces.front_mut() {
        if written < front.len() {
            front.advance(written);
            return;
        }
        written -= front.len();
        pieces.pop_front();
    }
}
