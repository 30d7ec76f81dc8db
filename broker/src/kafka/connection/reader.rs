//! The reading half: frame, memory, header, ordered start.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tidelog_protocol::frame::{self, Reaction};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::net::tcp::OwnedReadHalf;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tracing::debug;

use super::{InFlight, Pace, ReadEnd, limits};
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
        self.await_body().await?;
        let memory = self.broker.memory.reserve_frame(size).await;
        let frame = read_body(&mut self.socket, size, limits::FRAME_PACE).await?;
        Ok((frame, memory.into_memory()))
    }

    /// Waits for the first byte of a body: what is only announced gets no memory.
    async fn await_body(&mut self) -> Result<(), ReadEnd> {
        let first = timeout(limits::FRAME_TIME, self.socket.fill_buf()).await;
        match first.map_err(|_| ReadEnd::Stalled)?? {
            [] => Err(ReadEnd::Closed),
            _ => Ok(()),
        }
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

/// Reads into one buffer, as long as it goes on arriving. Its memory is reserved; what does not arrive is address
/// space only.
async fn read_body(
    socket: &mut (impl AsyncRead + Unpin),
    size: usize,
    pace: Pace,
) -> Result<Bytes, ReadEnd> {
    let mut frame = BytesMut::with_capacity(size);
    let mut source = socket.take(size as u64);
    while frame.len() < size {
        let due = size.min(frame.len() + pace.bytes_min);
        let window = async {
            while frame.len() < due {
                if source.read_buf(&mut frame).await? == 0 {
                    return Err(ReadEnd::Closed);
                }
            }
            Ok(())
        };
        timeout(pace.window, window)
            .await
            .map_err(|_| ReadEnd::Stalled)??;
    }
    Ok(frame.freeze())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncWriteExt, duplex};
    use tokio::time::{Instant, sleep};

    use super::*;

    const PACE: Pace = Pace {
        window: Duration::from_millis(500),
        bytes_min: 1_000,
    };

    #[tokio::test]
    async fn a_body_that_stops_arriving_is_given_up_soon_whatever_its_size() {
        let (mut client, mut server) = duplex(64);
        client.write_all(&[0; 10]).await.unwrap();
        let begun = Instant::now();
        let read = read_body(&mut server, 100 * 1024 * 1024, PACE).await;
        assert!(matches!(read, Err(ReadEnd::Stalled)));
        assert!(begun.elapsed() < 10 * PACE.window);
    }

    #[tokio::test]
    async fn a_slow_body_arrives_whole_as_long_as_it_goes_on() {
        let (mut client, mut server) = duplex(64);
        let sender = tokio::spawn(async move {
            for _ in 0..100 {
                client.write_all(&[7; 200]).await.unwrap();
                sleep(Duration::from_millis(10)).await;
            }
            client
        });
        let begun = Instant::now();
        let frame = read_body(&mut server, 100 * 200, PACE).await.unwrap();
        assert_eq!(frame.len(), 100 * 200);
        assert!(begun.elapsed() > PACE.window, "longer than any one window");
        sender.abort();
    }
}
