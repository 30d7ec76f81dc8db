//! The writing half: awaits replies in the order of their requests and sends them, several in one write.
//!
//! Replies hold memory until they are written, so a client that takes nothing for as long as a connection may be idle
//! is given up.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesOrdered, StreamExt};
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{InFlight, limits};
use crate::kafka::budget::MemoryPermit;
use crate::kafka::dispatch::Reply;
use crate::kafka::handlers::HandlerError;

/// Why the connection is closed from this side.
#[derive(Debug, thiserror::Error)]
pub(super) enum WriteEnd {
    #[error("{0}")]
    Handler(#[from] HandlerError),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("client takes no replies")]
    Stalled,
}

impl WriteEnd {
    /// Whether a person should look at it: clients end connections all the time.
    pub(super) fn is_broker_fault(&self) -> bool {
        matches!(self, WriteEnd::Handler(error) if error.is_broker_fault())
    }
}

/// A finished request; its memory and slot are given back when this is dropped.
type Finished = (Result<Reply, HandlerError>, InFlight);

/// Pieces that wait for the next write, and the requests that they answer.
#[derive(Default)]
struct Outgoing {
    pieces: VecDeque<Bytes>,
    bytes: usize,
    answered: Vec<InFlight>,
    memory: Option<MemoryPermit>,
    failed: Option<HandlerError>,
}

/// Sends replies until the reader is gone and all are sent, or the first failure. A write that gets on by no byte for
/// `patience` is one; `None` = it never is.
pub(super) async fn run(
    mut socket: OwnedWriteHalf,
    mut started: mpsc::Receiver<InFlight>,
    patience: Option<Duration>,
) -> Result<(), WriteEnd> {
    let mut running: FuturesOrdered<BoxFuture<'static, Finished>> = FuturesOrdered::new();
    let mut open = true;
    while open || !running.is_empty() {
        let first = tokio::select! {
            next = started.recv(), if open => {
                match next {
                    Some(request) => running.push_back(finish(request)),
                    None => open = false,
                }
                continue;
            }
            Some(finished) = running.next(), if !running.is_empty() => finished,
        };
        let mut outgoing = Outgoing::default();
        outgoing.add(first);
        while outgoing.has_room() {
            match running.next().now_or_never() {
                Some(Some(finished)) => outgoing.add(finished),
                _ => break,
            }
        }
        outgoing.send(&mut socket, patience).await?;
    }
    socket.shutdown().await?;
    Ok(())
}

fn finish(mut request: InFlight) -> BoxFuture<'static, Finished> {
    Box::pin(async move {
        let reply = (&mut request.reply).await;
        request.timer.end(reply.is_err());
        (reply, request)
    })
}

impl Outgoing {
    fn add(&mut self, (reply, request): Finished) {
        match reply {
            Ok(Reply::Frame { pieces, memory }) => {
                MemoryPermit::join(&mut self.memory, memory);
                for piece in pieces.into_iter().filter(|piece| !piece.is_empty()) {
                    self.bytes += piece.len();
                    self.pieces.push_back(piece);
                }
            }
            Ok(Reply::Silence) => {}
            Err(error) => self.failed = Some(error),
        }
        self.answered.push(request);
    }

    fn has_room(&self) -> bool {
        self.failed.is_none()
            && self.pieces.len() < limits::WRITE_PIECES_MAX
            && self.bytes < limits::WRITE_BYTES_MAX
    }

    async fn send(
        mut self,
        socket: &mut OwnedWriteHalf,
        patience: Option<Duration>,
    ) -> Result<(), WriteEnd> {
        metrics::counter!("tidelog_kafka_sent_bytes_total").increment(self.bytes as u64);
        write_all(socket, &mut self.pieces, patience).await?;
        drop((self.answered, self.memory));
        match self.failed {
            Some(error) => {
                socket.shutdown().await?;
                Err(error.into())
            }
            None => Ok(()),
        }
    }
}

/// Writes all pieces without joining them.
async fn write_all(
    socket: &mut OwnedWriteHalf,
    pieces: &mut VecDeque<Bytes>,
    patience: Option<Duration>,
) -> Result<(), WriteEnd> {
    while !pieces.is_empty() {
        let slices: Vec<IoSlice<'_>> = pieces
            .iter()
            .take(limits::WRITE_PIECES_MAX)
            .map(|piece| IoSlice::new(piece))
            .collect();
        let write = socket.write_vectored(&slices);
        let mut written = match patience {
            Some(patience) => timeout(patience, write)
                .await
                .map_err(|_| WriteEnd::Stalled)??,
            None => write.await?,
        };
        if written == 0 {
            return Err(io::Error::from(io::ErrorKind::WriteZero).into());
        }
        while let Some(front) = pieces.front_mut() {
            if written < front.len() {
                front.advance(written);
                break;
            }
            written -= front.len();
            pieces.pop_front();
        }
    }
    Ok(())
}
