//! One lane to one peer, kept up: connected again after each loss, with growing pauses.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;

use super::connection::{Connection, Loss, establish};
use super::handshake::{HandshakeError, Lane, RefusedFor};
use super::identity::{LocalPeer, PeerAddress, PeerDirectory, PeerPatience};
use crate::raft::types::ReplicaId;

/// How a peer is doing, as its control lane shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerStatus {
    /// Nothing is known yet.
    Connecting,
    /// It answers.
    Connected {
        /// What its program can do.
        feature_level: u16,
    },
    /// It was connected, and is not any more. Closed: the process is gone; silent: it may come back as it was.
    Lost(Loss),
    /// It cannot be reached.
    Unreachable(String),
    /// One of both refuses the other.
    Refused(RefusedFor, String),
}

/// See the module.
#[derive(Debug)]
pub struct Link {
    peer: ReplicaId,
    lane: Lane,
    current: watch::Sender<Option<Arc<Connection>>>,
    attempts: AtomicU64,
}

/// What links need of the broker.
#[derive(Clone, Debug)]
pub struct LinkContext {
    /// This broker.
    pub local: Arc<LocalPeer>,
    /// Where the others are.
    pub directory: Arc<dyn PeerDirectory>,
    /// How long to wait.
    pub patience: PeerPatience,
}

impl Link {
    /// A lane to a peer, not connected.
    pub fn new(peer: ReplicaId, lane: Lane) -> Link {
        Link {
            peer,
            lane,
            current: watch::Sender::new(None),
            attempts: AtomicU64::new(0),
        }
    }

    /// The connection, if there is one.
    pub fn connection(&self) -> Option<Arc<Connection>> {
        self.current.borrow().clone()
    }

    /// The connection, as it comes and goes.
    pub fn watch(&self) -> watch::Receiver<Option<Arc<Connection>>> {
        self.current.subscribe()
    }

    /// Tries to connect so far.
    pub fn attempts(&self) -> u64 {
        self.attempts.load(Ordering::Relaxed)
    }

    /// Keeps the lane up, for ever. `told` hears how it is doing.
    pub async fn keep_up(&self, context: &LinkContext, told: impl Fn(PeerStatus)) {
        let mut changes = context.directory.changes();
        let mut pause = context.patience.retry_min;
        let mut complained = String::new();
        loop {
            let address = self.address(context, &mut changes).await;
            self.attempts.fetch_add(1, Ordering::Relaxed);
            let began = Instant::now();
            let status = self.connect_once(context, &address, &told).await;
            self.complain(&address, &status, &mut complained);
            told(status);
            // A connection that did not last is no better than none.
            if began.elapsed() > context.patience.retry_max {
                pause = context.patience.retry_min;
            }
            tokio::select! {
                () = tokio::time::sleep(jitter(pause)) => {}
                Ok(()) = changes.changed() => {}
            }
            pause = (pause * 2).min(context.patience.retry_max);
        }
    }

    async fn address(
        &self,
        context: &LinkContext,
        changes: &mut watch::Receiver<u64>,
    ) -> PeerAddress {
        loop {
            changes.borrow_and_update();
            if let Some(address) = context.directory.address(self.peer.broker) {
                return address;
            }
            if changes.changed().await.is_err() {
                // The directory is gone, and with it the broker.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Connects, carries requests until the connection is lost, and says how it went.
    async fn connect_once(
        &self,
        context: &LinkContext,
        address: &PeerAddress,
        told: &impl Fn(PeerStatus),
    ) -> PeerStatus {
        let (local, patience) = (&context.local, &context.patience);
        let established = establish(local, address, Some(self.peer), self.lane, patience).await;
        match established {
            Ok(established) => {
                let connection = established.connection().clone();
                self.current.send_replace(Some(connection.clone()));
                let lowered = Lowered(self, connection.clone());
                told(PeerStatus::Connected {
                    feature_level: connection.remote().feature_level,
                });
                let loss = established.drive(patience).await;
                drop(lowered);
                PeerStatus::Lost(loss)
            }
            Err(HandshakeError::Refused { reason, text, .. }) => PeerStatus::Refused(reason, text),
            Err(error) => PeerStatus::Unreachable(error.to_string()),
        }
    }

    /// Says once what a person must look at.
    fn complain(&self, address: &PeerAddress, status: &PeerStatus, complained: &mut String) {
        match status {
            PeerStatus::Refused(_, text) => {
                if text != complained {
                    tracing::warn!(peer = %self.peer, %address, "no connection: {text}");
                    text.clone_into(complained);
                }
            }
            PeerStatus::Lost(loss) => {
                complained.clear();
                tracing::debug!(peer = %self.peer, %address, lane = ?self.lane, %loss, "connection lost");
            }
            PeerStatus::Unreachable(reason) => {
                tracing::debug!(peer = %self.peer, %address, lane = ?self.lane, reason, "not reached");
            }
            PeerStatus::Connecting | PeerStatus::Connected { .. } => {}
        }
    }
}

/// Takes the connection back, also when the task that drives it is dropped.
struct Lowered<'a>(&'a Link, Arc<Connection>);

impl Drop for Lowered<'_> {
    fn drop(&mut self) {
        self.0.current.send_replace(None);
        self.1.lose();
    }
}

/// Between half of it and all of it: brokers that lost the same peer do not come back in step.
pub(crate) fn jitter(pause: Duration) -> Duration {
    let random = Uuid::new_v4().as_u128() % 1_000;
    let per_mille = u32::try_from(random).unwrap_or_default();
    pause / 2 + pause * per_mille / 2_000
}
