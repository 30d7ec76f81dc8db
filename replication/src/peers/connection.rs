//! A connection that was made to a peer: requests go out, answers come back in any order.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::oneshot;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::codec;
use super::frame::{BodyWriter, Frame, FrameError, FrameKind, OutgoingFrame, RequestKind};
use super::handshake::{self, HandshakeError, Lane, RemotePeer};
use super::identity::{LocalPeer, PeerAddress, PeerPatience};
use super::outbox::{Outbox, OutboxFull};
use super::service::{Refusal, RefusalCode};
use super::wire::{FrameReader, Progress, WireError, write_frames};
use crate::limits::{
    PEER_APPEND_QUEUE_BYTES_MAX, PEER_BULK_QUEUE_BYTES_MAX, PEER_CONTROL_QUEUE_BYTES_MAX,
    PEER_REQUESTS_IN_FLIGHT_MAX,
};
use crate::raft::codec::CodecError;
use crate::raft::types::ReplicaId;

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Loss {
    /// The other end closed it: its process ended or was killed.
    #[error("closed by the other end")]
    Closed,
    /// Nothing was heard for too long: the network is cut, or the process stands still.
    #[error("nothing was heard for too long")]
    Silent,
    /// What came made no sense.
    #[error("{0}")]
    Senseless(String),
    /// This side ended it.
    #[error("ended by this side")]
    Stopped,
}

impl From<WireError> for Loss {
    fn from(error: WireError) -> Self {
        match error {
            WireError::Io(error) if error.kind() == io::ErrorKind::TimedOut => Loss::Silent,
            WireError::Closed | WireError::Io(_) => Loss::Closed,
            WireError::Frame(error) => Loss::Senseless(error.to_string()),
        }
    }
}

/// Why a request was not answered as it should.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum RequestError {
    /// There is no connection, or it was lost: the request may have been carried out.
    #[error("no connection to {0}")]
    Unreachable(ReplicaId),
    /// Too much waits already. Nothing was sent.
    #[error(transparent)]
    Full(#[from] OutboxFull),
    /// No answer in time: the request may have been carried out.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The other end did not carry it out.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The request is too long for a frame, or the answer makes no sense.
    #[error("{0}")]
    Senseless(String),
}

impl From<CodecError> for RequestError {
    fn from(error: CodecError) -> Self {
        RequestError::Senseless(error.to_string())
    }
}

type Answers = HashMap<u64, (RequestKind, oneshot::Sender<Frame>)>;

/// See the module.
#[derive(Debug)]
pub struct Connection {
    remote: RemotePeer,
    outbox: Outbox,
    /// `None` once it is lost.
    pending: Mutex<Option<Answers>>,
    next: AtomicU64,
}

/// Forgets a request that nobody waits for any more.
struct Registered<'a> {
    connection: &'a Connection,
    request: u64,
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        if let Some(pending) = self.connection.pending.lock().as_mut() {
            pending.remove(&self.request);
        }
    }
}

impl Connection {
    fn new(remote: RemotePeer) -> Connection {
        let bytes_max = match remote.lane {
            Lane::Control => PEER_CONTROL_QUEUE_BYTES_MAX,
            Lane::Append => PEER_APPEND_QUEUE_BYTES_MAX,
            Lane::Bulk => PEER_BULK_QUEUE_BYTES_MAX,
        };
        Connection {
            remote,
            outbox: Outbox::new(bytes_max),
            pending: Mutex::new(Some(HashMap::new())),
            next: AtomicU64::new(1),
        }
    }

    /// The other end.
    pub fn remote(&self) -> &RemotePeer {
        &self.remote
    }

    /// Sends a request and waits for the body of its answer.
    pub async fn request(
        &self,
        kind: RequestKind,
        body: BodyWriter,
        patience: Duration,
    ) -> Result<Bytes, RequestError> {
        let request = self.next.fetch_add(1, Ordering::Relaxed);
        let frame = body.finish(FrameKind::Request(kind), request);
        if !frame.fits() {
            return Err(RequestError::Senseless(format!(
                "{kind:?} of {} bytes is too long",
                frame.bytes()
            )));
        }
        let (sender, answer) = oneshot::channel();
        let _registered = self.register(request, kind, sender)?;
        self.outbox.push(frame)?;
        let frame = timeout(patience, answer)
            .await
            .map_err(|_| RequestError::Timeout(patience))?
            .map_err(|_| RequestError::Unreachable(self.remote.id))?;
        match frame.kind {
            FrameKind::Failed => Err(codec::decode_refusal(frame.body)?.into()),
            _ => Ok(frame.body),
        }
    }

    /// Waits for a moment at which there may be room for a request that found none.
    pub async fn wait_for_room(&self, patience: Duration) {
        self.outbox.wait_for_room(patience).await;
    }

    fn register(
        &self,
        request: u64,
        kind: RequestKind,
        sender: oneshot::Sender<Frame>,
    ) -> Result<Registered<'_>, RequestError> {
        let mut pending = self.pending.lock();
        let answers = pending
            .as_mut()
            .ok_or(RequestError::Unreachable(self.remote.id))?;
        if answers.len() >= PEER_REQUESTS_IN_FLIGHT_MAX {
            return Err(OutboxFull.into());
        }
        answers.insert(request, (kind, sender));
        Ok(Registered {
            connection: self,
            request,
        })
    }

    /// Hands an answer to the one who waits for it. One that comes too late is dropped.
    fn answer(&self, frame: Frame) -> Result<(), FrameError> {
        if !matches!(frame.kind, FrameKind::Reply(_) | FrameKind::Failed) {
            return Err(FrameError::Unexpected(frame.kind));
        }
        let mut pending = self.pending.lock();
        let waiting = pending.as_mut().and_then(|it| it.remove(&frame.request));
        drop(pending);
        let Some((kind, sender)) = waiting else {
            return Ok(());
        };
        if frame.kind != FrameKind::Reply(kind) && frame.kind != FrameKind::Failed {
            return Err(FrameError::Unexpected(frame.kind));
        }
        // Who waited may have given up just now.
        let _ = sender.send(frame);
        Ok(())
    }

    /// All who wait learn that nothing will come.
    pub fn lose(&self) {
        *self.pending.lock() = None;
    }
}

/// A connection whose handshake is made, with what drives it.
#[derive(Debug)]
pub struct Established<R = OwnedReadHalf, W = OwnedWriteHalf> {
    connection: Arc<Connection>,
    reader: FrameReader<R>,
    writer: W,
    progress: Arc<Progress>,
}

/// Makes a connection of a lane. `expected`: the only replica that will do.
pub async fn establish(
    local: &LocalPeer,
    address: &PeerAddress,
    expected: Option<ReplicaId>,
    lane: Lane,
    patience: &PeerPatience,
) -> Result<Established, HandshakeError> {
    let connect = TcpStream::connect((address.host.as_str(), address.port));
    let stream = timeout(patience.connect, connect)
        .await
        .map_err(|_| HandshakeError::Timeout(patience.connect))??;
    prepare(&stream, patience.silence)?;
    let (reader, mut writer) = stream.into_split();
    let progress = Progress::new();
    let mut reader = FrameReader::new(reader, progress.clone());
    let remote = handshake::connect(
        local,
        expected,
        lane,
        &mut reader,
        &mut writer,
        patience.handshake,
    )
    .await?;
    Ok(Established {
        connection: Arc::new(Connection::new(remote)),
        reader,
        writer,
        progress,
    })
}

/// Sends at once, and lets the kernel give up what is not acknowledged for too long.
pub fn prepare(stream: &TcpStream, silence: Duration) -> io::Result<()> {
    stream.set_nodelay(true)?;
    socket2::SockRef::from(stream).set_tcp_user_timeout(Some(silence))
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Established<R, W> {
    /// The connection, for requests.
    pub fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// Carries requests and answers until the connection is lost.
    pub async fn drive(mut self, patience: &PeerPatience) -> Loss {
        let connection = &*self.connection;
        let loss = tokio::select! {
            loss = read(&mut self.reader, connection) => loss,
            loss = write(&mut self.writer, &connection.outbox, &self.progress) => loss,
            loss = keep_alive(connection, &self.progress, patience) => loss,
        };
        connection.lose();
        loss
    }
}

async fn read<R: AsyncRead + Unpin>(reader: &mut FrameReader<R>, connection: &Connection) -> Loss {
    loop {
        let answered = match reader.frame().await {
            Ok(frame) => connection.answer(frame).map_err(WireError::from),
            Err(error) => Err(error),
        };
        if let Err(error) = answered {
            return error.into();
        }
    }
}

/// Writes what waits, for ever.
pub async fn write<W: AsyncWrite + Unpin>(
    writer: &mut W,
    outbox: &Outbox,
    progress: &Progress,
) -> Loss {
    loop {
        let frames = outbox.take().await;
        let bytes = frames.iter().map(OutgoingFrame::bytes).sum();
        if let Err(error) = write_frames(writer, frames, progress).await {
            return error.into();
        }
        outbox.written(bytes);
    }
}

/// Asks the other end whether it is there when it says nothing, and ends when it stays silent.
async fn keep_alive(connection: &Connection, progress: &Progress, patience: &PeerPatience) -> Loss {
    let mut ticks = interval(patience.ping.max(Duration::from_millis(1)) / 2);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut asked = Duration::ZERO;
    loop {
        ticks.tick().await;
        let silence = progress.silence();
        if silence >= patience.silence {
            return Loss::Silent;
        }
        if silence < patience.ping {
            asked = Duration::ZERO;
        } else if silence >= asked + patience.ping {
            asked = silence;
            let request = connection.next.fetch_add(1, Ordering::Relaxed);
            // Where there is no room for it, there is enough to be answered.
            let ping = FrameKind::Request(RequestKind::Ping);
            let _ = connection
                .outbox
                .push(OutgoingFrame::of(ping, request, &[]));
        }
    }
}

impl RequestError {
    /// Whether the same request may be sent again with another outcome.
    pub fn may_be_repeated(&self) -> bool {
        match self {
            RequestError::Unreachable(_) | RequestError::Full(_) | RequestError::Timeout(_) => true,
            RequestError::Refused(refusal) => matches!(
                refusal.code,
                RefusalCode::UnknownGroup
                    | RefusalCode::GroupStopped
                    | RefusalCode::Busy
                    | RefusalCode::ShuttingDown
            ),
            RequestError::Senseless(_) => false,
        }
    }
}
