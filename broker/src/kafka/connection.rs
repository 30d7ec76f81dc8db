//! One client connection: a task that reads requests and starts them in order, and one that writes replies in order.
//!
//! Between the two, requests run freely: a parked fetch does not hold up the produce behind it. Invariants: a
//! frame's memory is reserved before its body is read and held until its reply is written; replies leave in the
//! order of their requests; at most `limits::IN_FLIGHT_MAX` requests are between the two; whoever sends or takes
//! nothing is not waited for without end. Knows no API.

mod reader;
mod source;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, debug_span, error};

use crate::kafka::budget::MemoryPermit;
use crate::kafka::context::ConnectionInfo;
use crate::kafka::dispatch::ReplyFuture;
use crate::kafka::request_metrics::RequestTimer;
use crate::server::Broker;

/// Bounds of one connection.
pub(crate) mod limits {
    use std::time::Duration;

    use super::Pace;

    /// Requests that may be between reader and writer. Clients keep 1 to 5 in flight; librdkafka without
    /// idempotence sends as many as it has. Above this the socket's buffer holds them back.
    pub(crate) const IN_FLIGHT_MAX: usize = 128;

    /// Bytes that are read ahead of a frame: most requests arrive in one read, and of large ones little is copied.
    pub(crate) const READ_AHEAD_BYTES: usize = 2 * 1024;

    /// Replies are collected up to this many pieces for one write; below Linux's limit of 1,024.
    pub(crate) const WRITE_PIECES_MAX: usize = 256;

    /// Replies are collected up to this many bytes for one write.
    pub(crate) const WRITE_BYTES_MAX: usize = 1024 * 1024;

    /// The rest of a size prefix and the first byte of a body must arrive within this time. They hold no memory.
    pub(crate) const FRAME_TIME: Duration = Duration::from_secs(30);

    /// A body holds memory that others wait for, so it must go on arriving, by 32 KiB a second.
    pub(crate) const FRAME_PACE: Pace = Pace {
        window: Duration::from_secs(10),
        bytes_min: 10 * 32 * 1024,
    };

    /// How long the replies of a client that stopped sending are still tried.
    pub(crate) const HALF_CLOSED_TIME: Duration = Duration::from_secs(1);
}

/// Slowest sender that is waited for.
#[derive(Clone, Copy)]
pub(crate) struct Pace {
    /// In each time of this length,
    window: Duration,
    /// this many bytes must come, or what is left.
    bytes_min: usize,
}

/// A started request on its way from the reader to the writer.
struct InFlight {
    reply: ReplyFuture,
    timer: RequestTimer,
    _memory: Option<MemoryPermit>,
    _slot: OwnedSemaphorePermit,
}

/// Why the reader stopped.
#[derive(Debug, thiserror::Error)]
enum ReadEnd {
    #[error("client closed")]
    Closed,
    #[error("broker shuts down")]
    Draining,
    #[error("idle")]
    Idle,
    #[error("frame did not arrive in time")]
    Stalled,
    #[error("{0}")]
    Refused(String),
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("writer stopped")]
    WriterStopped,
}

/// Serves a connection until it ends.
pub(crate) async fn serve(broker: Arc<Broker>, info: Arc<ConnectionInfo>, socket: TcpStream) {
    let span =
        debug_span!("connection", id = info.id, peer = %info.peer, listener = %info.listener);
    serve_inner(broker, info, socket).instrument(span).await;
}

async fn serve_inner(broker: Arc<Broker>, info: Arc<ConnectionInfo>, socket: TcpStream) {
    let (read_half, write_half) = socket.into_split();
    let slots = Arc::new(Semaphore::new(limits::IN_FLIGHT_MAX));
    let (started, replies) = mpsc::channel(limits::IN_FLIGHT_MAX);
    let abort = CancellationToken::new();
    let writer = tokio::spawn({
        let abort = abort.clone();
        let patience = broker.limits.idle_max;
        async move {
            let end = tokio::select! {
                () = abort.cancelled() => Ok(()),
                end = writer::run(write_half, replies, patience) => end,
            };
            // The reader must not start requests whose replies nobody will send.
            abort.cancel();
            end
        }
        .in_current_span()
    });
    let reader = reader::Reader::new(broker, info, read_half, slots, started);
    let end = tokio::select! {
        () = abort.cancelled() => ReadEnd::WriterStopped,
        end = reader.run() => end,
    };
    debug!(reason = %end, "no more requests");
    finish(&end, writer, &abort).await;
}

/// Lets the writer send what is due, as far as anybody is there to read it.
async fn finish(
    end: &ReadEnd,
    mut writer: tokio::task::JoinHandle<Result<(), writer::WriteEnd>>,
    abort: &CancellationToken,
) {
    let patience = match end {
        ReadEnd::Io(_) | ReadEnd::WriterStopped => Duration::ZERO,
        ReadEnd::Closed => limits::HALF_CLOSED_TIME,
        // Replies to what was read before are due, as if the rest had never come. Drain has its own deadline.
        ReadEnd::Draining | ReadEnd::Refused(_) | ReadEnd::Idle | ReadEnd::Stalled => {
            Duration::from_secs(3600)
        }
    };
    let ended = match tokio::time::timeout(patience, &mut writer).await {
        Ok(ended) => ended,
        Err(_) => {
            abort.cancel();
            writer.await
        }
    };
    match ended {
        Ok(Ok(())) => {}
        Ok(Err(reason)) if reason.is_broker_fault() => {
            error!(%reason, "a request was not answered")
        }
        Ok(Err(reason)) => debug!(%reason, "connection ended"),
        Err(panic) => error!(%panic, "a request handler failed"),
    }
}
