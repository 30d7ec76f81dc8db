//! Where peers connect: the listener, the handshakes, and how it all ends.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::arriving::ArrivingSnapshots;
use super::connection::prepare;
use super::handshake::{self, HandshakeError, Lane, RefusedFor, RemotePeer};
use super::identity::{ListenError, LocalPeer, PeerPatience};
use super::router::GroupRouter;
use super::service::PeerService;
use super::session::Session;
use super::wire::{FrameReader, Progress};
use crate::limits::{
    PEER_CONNECTIONS_MAX, PEER_CONTROL_RECEIVE_BYTES_MAX, PEER_HANDSHAKES_MAX,
    PEER_RECEIVE_BYTES_MAX,
};
use crate::raft::types::ReplicaId;

/// Pause after the operating system gave no connection, most likely for want of file handles.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Pause between two warnings of the same.
const COMPLAINT_PAUSE: Duration = Duration::from_secs(60);

/// How a server ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// Every request that had come was answered, and every answer sent.
    Whole,
    /// Not in the time given: what was under way was cut off.
    CutOff,
}

/// The side that peers connect to.
pub struct PeerServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    tasks: TaskTracker,
}

impl fmt::Debug for PeerServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerServer")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// What all connections share.
#[derive(Debug)]
pub struct Shared {
    pub local: Arc<LocalPeer>,
    pub service: Arc<dyn PeerService>,
    pub patience: PeerPatience,
    pub snapshots: ArrivingSnapshots,
    /// Nothing new is accepted or read; what came is answered.
    pub stop: CancellationToken,
    /// At once.
    pub abort: CancellationToken,
    /// Request bodies that are in memory, by lane, so that a lane full of entries holds up no vote.
    budgets: [(Lane, Arc<Semaphore>); 3],
    handshakes: Arc<Semaphore>,
    connections: Arc<Semaphore>,
    sessions: Mutex<HashMap<(ReplicaId, Lane), (u64, CancellationToken)>>,
    next: AtomicU64,
    complained: Mutex<Option<(String, Instant)>>,
}

impl Shared {
    /// What is left for the bodies of a lane.
    pub fn budget(&self, lane: Lane) -> Arc<Semaphore> {
        let found = self.budgets.iter().find(|(other, _)| *other == lane);
        found.map_or_else(
            || Arc::new(Semaphore::new(PEER_RECEIVE_BYTES_MAX)),
            |(_, budget)| budget.clone(),
        )
    }

    /// A peer has one connection of a lane: a new one takes the place of the old, which may be half dead.
    fn register(&self, peer: &RemotePeer) -> (u64, CancellationToken) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let token = self.abort.child_token();
        let before = self
            .sessions
            .lock()
            .insert((peer.id, peer.lane), (number, token.clone()));
        if let Some((_, before)) = before {
            before.cancel();
        }
        (number, token)
    }

    /// Says what a person must look at, but not again and again: whoever is refused tries again soon.
    fn complain(&self, from: SocketAddr, text: &str) {
        let mut complained = self.complained.lock();
        let again = complained
            .as_ref()
            .is_some_and(|(said, at)| said == text && at.elapsed() < COMPLAINT_PAUSE);
        if again {
            tracing::debug!(%from, "connection of a broker refused: {text}");
        } else {
            tracing::warn!(%from, "connection of a broker refused: {text}");
            *complained = Some((text.to_owned(), Instant::now()));
        }
    }

    fn unregister(&self, peer: &RemotePeer, number: u64) {
        let mut sessions = self.sessions.lock();
        if sessions
            .get(&(peer.id, peer.lane))
            .is_some_and(|(other, _)| *other == number)
        {
            sessions.remove(&(peer.id, peer.lane));
        }
    }
}

impl PeerServer {
    /// Listens. Without a secret only on loopback: whoever can connect is a broker then.
    pub async fn bind(
        address: SocketAddr,
        local: Arc<LocalPeer>,
        router: Arc<GroupRouter>,
        patience: PeerPatience,
    ) -> Result<PeerServer, ListenError> {
        PeerServer::bind_for(address, local, router, patience).await
    }

    /// Listens on behalf of any service.
    pub(crate) async fn bind_for(
        address: SocketAddr,
        local: Arc<LocalPeer>,
        service: Arc<dyn PeerService>,
        patience: PeerPatience,
    ) -> Result<PeerServer, ListenError> {
        if !local.has_secret() && !address.ip().is_loopback() {
            return Err(ListenError::NoSecret(address));
        }
        let bind = |error| ListenError::Bind(address, error);
        let listener = TcpListener::bind(address).await.map_err(bind)?;
        let address = listener.local_addr().map_err(bind)?;
        let budget = |bytes| Arc::new(Semaphore::new(bytes));
        let shared = Arc::new(Shared {
            local,
            service,
            snapshots: ArrivingSnapshots::new(patience.snapshot_kept),
            patience,
            stop: CancellationToken::new(),
            abort: CancellationToken::new(),
            budgets: [
                (Lane::Control, budget(PEER_CONTROL_RECEIVE_BYTES_MAX)),
                (Lane::Append, budget(PEER_RECEIVE_BYTES_MAX)),
                (Lane::Bulk, budget(PEER_RECEIVE_BYTES_MAX)),
            ],
            handshakes: Arc::new(Semaphore::new(PEER_HANDSHAKES_MAX)),
            connections: Arc::new(Semaphore::new(PEER_CONNECTIONS_MAX)),
            sessions: Mutex::default(),
            next: AtomicU64::new(0),
            complained: Mutex::default(),
        });
        let tasks = TaskTracker::new();
        tasks.spawn(accept(listener, shared.clone(), tasks.clone()));
        Ok(PeerServer {
            address,
            shared,
            tasks,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections that peers have made, by peer and lane.
    pub fn connections(&self) -> Vec<(ReplicaId, Lane)> {
        self.shared.sessions.lock().keys().copied().collect()
    }

    /// Stops accepting and reading, answers what has come, and ends. After `patience` it cuts off. On return no task is
    /// left.
    pub async fn shutdown(&self, patience: Duration) -> Drained {
        self.shared.stop.cancel();
        self.tasks.close();
        let whole = timeout(patience, self.tasks.wait()).await.is_ok();
        self.shared.abort.cancel();
        self.tasks.wait().await;
        if whole {
            Drained::Whole
        } else {
            Drained::CutOff
        }
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, tasks: TaskTracker) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shared.stop.cancelled() => return,
        };
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "no connection from a broker accepted");
                sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        // Strangers are bounded in number and time; nobody else waits for them.
        let Ok(permit) = shared.handshakes.clone().try_acquire_owned() else {
            continue;
        };
        let (shared, tasks_of_session) = (shared.clone(), tasks.clone());
        tasks.spawn(async move {
            let serve = serve(stream, from, &shared, tasks_of_session, permit);
            shared.abort.clone().run_until_cancelled(serve).await;
        });
    }
}

async fn serve(
    stream: TcpStream,
    from: SocketAddr,
    shared: &Arc<Shared>,
    tasks: TaskTracker,
    handshaking: tokio::sync::OwnedSemaphorePermit,
) {
    if let Err(error) = prepare(&stream, shared.patience.silence) {
        tracing::debug!(%from, %error, "connection from a broker is of no use");
        return;
    }
    let (reader, mut writer) = stream.into_split();
    let progress = Progress::new();
    let mut reader = FrameReader::new(reader, progress.clone());
    let patience = shared.patience.handshake;
    let handshake = handshake::accept(&shared.local, &mut reader, &mut writer, patience);
    let handshake = shared.stop.run_until_cancelled(handshake).await;
    drop(handshaking);
    let remote = match handshake {
        Some(Ok(remote)) => remote,
        Some(Err(HandshakeError::Refused {
            text,
            by_peer: false,
            ..
        })) => {
            shared.complain(from, &text);
            return;
        }
        Some(Err(error)) => {
            tracing::debug!(%from, %error, "no handshake");
            return;
        }
        None => return,
    };
    let Ok(_permit) = shared.connections.clone().try_acquire_owned() else {
        let text = "too many connections of brokers";
        // It is being closed in any case.
        let _ = handshake::tell_refusal(&mut writer, RefusedFor::Busy, text).await;
        return;
    };
    let (number, ended) = shared.register(&remote);
    let session = Session::new(shared.clone(), remote, ended, tasks);
    let end = session.run(reader, writer, &progress).await;
    shared.unregister(&remote, number);
    tracing::debug!(%from, peer = %remote.id, lane = ?remote.lane, %end, "connection of a broker ended");
}
