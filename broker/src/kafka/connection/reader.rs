//! The reading half: frame, memory, header, ordered start.

use std::sync::Arc;

use bytes::Bytes;
use tidelog_protocol::frame::{self, Reaction};
use tokio::net::tcp::OwnedReadHalf;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tracing::debug;

use super::source::Source;
use super::{InFlight, ReadEnd, limits};
use crate::kafka::budget::MemoryPermit;
use crate::kafka::context::{ConnectionInfo, RequestContext};
use crate::kafka::dispatch::{self, ReplyFuture};
use crate::kafka::request_metrics::RequestTimer;
use crate::server::Broker;

pub(super) struct Reader {
    broker: Arc<Broker>,
    info: Arc<ConnectionInfo>,
    source: Source<OwnedReadHalf>,
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
        Reader {
            broker,
            info,
            source: Source::new(socket),
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
        if broker.draining.is_cancelled() {
            return Err(ReadEnd::Draining);
        }
        let (frame, memory) = tokio::select! {
            biased;
            read = self.read_frame() => read?,
            () = broker.draining.cancelled() => return Err(ReadEnd::Draining),
        };
        let traffic = broker.request_metrics.traffic();
        traffic.received_bytes.increment(frame.len() as u64 + 4);
        let (reply, timer, more) = self.start(frame).await?;
        let mut memory = Some(memory);
        MemoryPermit::join(&mut memory, more);
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
        // What is only announced gets no memory.
        self.source.fill(1, limits::FRAME_TIME).await?;
        let memory = self.broker.memory.reserve_frame(size).await;
        let frame = self.source.take_body(size, limits::FRAME_PACE).await?;
        Ok((frame, memory.into_memory()))
    }

    /// The size prefix of the next frame. A connection with requests in flight is not idle.
    async fn read_prefix(&mut self) -> Result<[u8; 4], ReadEnd> {
        while !self.first_byte().await? {
            if self.slots.available_permits() + 1 >= limits::IN_FLIGHT_MAX {
                return Err(ReadEnd::Idle);
            }
        }
        self.source.fill(4, limits::FRAME_TIME).await?;
        self.source.take_prefix().ok_or(ReadEnd::Closed)
    }

    /// False if nothing came for as long as a connection may be idle.
    async fn first_byte(&mut self) -> Result<bool, ReadEnd> {
        let first = self.source.fill_unhurried(1);
        match self.broker.limits.idle_max {
            Some(idle_max) => timeout(idle_max, first).await.unwrap_or(Ok(false)),
            None => first.await,
        }
    }

    /// Starts the request: what must happen in order has happened when this returns.
    async fn start(
        &self,
        mut frame: Bytes,
    ) -> Result<(ReplyFuture, RequestTimer, Option<MemoryPermit>), ReadEnd> {
        match frame::read_request_header(&mut frame) {
            Ok(header) => {
                let timer = self.broker.request_metrics.begin(header.api_key);
                let cx = RequestContext {
                    broker: Arc::clone(&self.broker),
                    connection: Arc::clone(&self.info),
                    header,
                };
                let (reply, memory) = dispatch::start(cx, frame).await;
                Ok((reply, timer, memory))
            }
            Err(error) => match error.reaction() {
                Reaction::ReplyApiVersionsUnsupported { correlation_id } => {
                    debug!(%error, "answered with the served range");
                    let reply = dispatch::api_versions_unsupported(correlation_id);
                    Ok((dispatch::ready(reply), RequestTimer::none(), None))
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
