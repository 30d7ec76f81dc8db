//! The reading half: frame, memory, header, ordered start.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tidelog_protocol::frame::{self, Reaction};
use tokio::io::{AsyncReadExt, BufReader};
use tokio::net::tcp::OwnedReadHalf;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tracing::debug;

use super::{InFlight, ReadEnd, limits};
use crate::kafka::budget::MemoryPermit;
use crate::kafka::context::{ConnectionInfo, RequestContext};
use crate::kafka::dispatch::{self, ReplyFuture};
use crate::kafka::request_metrics::RequestTimer;
use crate::server::Broker;

pub(super) struct Reader {
    broker: Arc<Broker>,
    info: Arc<ConnectionInfo>,
    socket: BufReader<OwnedReadHalf>,
    slots: Arc<Semaphore>,
    started: mpsc::Sender<InFlight>,
}

impl Reader {
    pub(super) fn new(
        broker: Arc<Broker>,
        info: Arc<ConnectionInfo>,
        socket: OwnedReadHalf,
        slots: Arc<Semaphore>,
        started: mpsc::Sender<InFlight>,
    ) -> Reader {
        let socket = BufReader::with_capacity(limits::READ_AHEAD_BYTES, socket);
        Reader {
            broker,
            info,
            socket,
            slots,
            started,
        }
    }

    /// Reads and starts requests until the client, the protocol or the broker ends it.
    pub(super) async fn run(mut self) -> ReadEnd {
        loop {
            if let Err(end) = self.next().await {
                return end;
            }
        }
    }

    async fn next(&mut self) -> Result<(), ReadEnd> {
        let slot = Arc::clone(&self.slots)
            .acquire_owned()
            .await
            .map_err(|_| ReadEnd::WriterStopped)?;
        // Only between requests and inside a frame may a drain interrupt; never between start and hand-over.
        let broker = Arc::clone(&self.broker);
        let (frame, memory) = tokio::select! {
            biased;
            () = broker.draining.cancelled() => return Err(ReadEnd::Draining),
            read = self.read_frame() => read?,
        };
        metrics::counter!("tidelog_kafka_received_bytes_total").increment(frame.len() as u64 + 4);
        let (reply, timer) = self.start(frame).await?;
        self.hand_over(InFlight {
            reply,
            timer,
            _memory: memory,
            _slot: slot,
        })
    }

    async fn read_frame(&mut self) -> Result<(Bytes, MemoryPermit), ReadEnd> {
        let prefix = self.read_prefix().await?;
        let bytes_max = self.broker.limits.request_bytes_max;
        let size = frame::frame_size(prefix, bytes_max)
            .map_err(|error| ReadEnd::Refused(error.to_string()))?;
        let memory = self.broker.memory.reserve(size).await;
        let seconds = size as u64 / limits::FRAME_BYTES_PER_SECOND_MIN;
        let patience = limits::FRAME_TIME + Duration::from_secs(seconds);
        let frame = timeout(patience, self.read_body(size))
            .await
            .map_err(|_| ReadEnd::Stalled)??;
        Ok((frame, memory))
    }

    /// The size prefix of the next frame. A connection with requests in flight is not idle.
    async fn read_prefix(&mut self) -> Result<[u8; 4], ReadEnd> {
        let mut prefix = [0u8; 4];
        loop {
            match self.first_byte(&mut prefix).await {
                Some(Ok(0)) => return Err(ReadEnd::Closed),
                Some(Ok(_)) => break,
                Some(Err(error)) => return Err(error.into()),
                None if self.slots.available_permits() + 1 < limits::IN_FLIGHT_MAX => {}
                None => return Err(ReadEnd::Idle),
            }
        }
        let rest = self.socket.read_exact(&mut prefix[1..]);
        timeout(limits::FRAME_TIME, rest)
            .await
            .map_err(|_| ReadEnd::Stalled)??;
        Ok(prefix)
    }

    /// Bytes read; `None` if nothing came for as long as a connection may be idle.
    async fn first_byte(&mut self, prefix: &mut [u8; 4]) -> Option<std::io::Result<usize>> {
        let first = self.socket.read(&mut prefix[..1]);
        match self.broker.limits.idle_max {
            Some(idle_max) => timeout(idle_max, first).await.ok(),
            None => Some(first.await),
        }
    }

    /// Reads into one buffer. Its memory is reserved; what does not arrive is address space only.
    async fn read_body(&mut self, size: usize) -> Result<Bytes, ReadEnd> {
        let mut frame = BytesMut::with_capacity(size);
        let mut source = (&mut self.socket).take(size as u64);
        while frame.len() < size {
            if source.read_buf(&mut frame).await? == 0 {
                return Err(ReadEnd::Closed);
            }
        }
        Ok(frame.freeze())
    }

    /// Starts the request: what must happen in order has happened when this returns.
    async fn start(&self, mut frame: Bytes) -> Result<(ReplyFuture, RequestTimer), ReadEnd> {
        match frame::read_request_header(&mut frame) {
            Ok(header) => {
                let timer = self.broker.request_metrics.begin(header.api_key);
                let cx = RequestContext {
                    broker: Arc::clone(&self.broker),
                    connection: Arc::clone(&self.info),
                    header,
                };
                Ok((dispatch::start(cx, frame).await, timer))
            }
            Err(error) => match error.reaction() {
                Reaction::ReplyApiVersionsUnsupported { correlation_id } => {
                    debug!(%error, "answered with the served range");
                    let reply = dispatch::api_versions_unsupported(correlation_id);
                    Ok((dispatch::ready(reply), RequestTimer::none()))
                }
                Reaction::Close => Err(ReadEnd::Refused(error.to_string())),
            },
        }
    }

    fn hand_over(&self, request: InFlight) -> Result<(), ReadEnd> {
        // There are as many places in the channel as slots.
        self.started
            .try_send(request)
            .map_err(|_| ReadEnd::WriterStopped)
    }
}
