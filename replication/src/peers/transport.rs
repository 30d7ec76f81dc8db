//! The connections to all peers: what groups send through, and who is connected.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use openraft::errors::{NetworkError, RPCError, Unreachable};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use parking_lot::RwLock;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::codec;
use super::connection::{Connection, Loss, RequestError, establish};
use super::frame::{BodyWriter, RequestKind};
use super::handshake::{HandshakeError, Lane, RemotePeer};
use super::identity::{LocalPeer, PeerAddress, PeerPatience};
use super::link::{Link, LinkContext, PeerStatus};
use super::sending::send_snapshot;
use super::service::CallKind;
use crate::limits::PEER_CONTROL_CALL_BYTES_MAX;
use crate::raft::codec::CodecError;
use crate::raft::network::{CallResult, PeerTransport, Snapshot};
use crate::raft::types::{GroupId, GroupTypes, ReplicaId, Vote};

/// How each peer is doing.
pub type PeerStatuses = BTreeMap<ReplicaId, PeerStatus>;

/// Peers that closed their connections and have not been reached since.
pub fn closed(statuses: &PeerStatuses) -> BTreeSet<ReplicaId> {
    let is_closed = |status: &PeerStatus| *status == PeerStatus::Lost(Loss::Closed);
    let closed = statuses.iter().filter(|(_, status)| is_closed(status));
    closed.map(|(replica, _)| *replica).collect()
}

/// Why a call to an address was not answered.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No connection came about.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// The call itself.
    #[error(transparent)]
    Request(#[from] RequestError),
}

/// Connections to all peers. A peer's control lane is connected from when the peer is first named, the others from
/// their first use, until the peer is forgotten. Clones are the same.
#[derive(Clone, Debug)]
pub struct PeerPool {
    inner: Arc<Pool>,
}

#[derive(Debug)]
struct Pool {
    context: LinkContext,
    peers: RwLock<HashMap<ReplicaId, Peer>>,
    statuses: watch::Sender<Arc<PeerStatuses>>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

#[derive(Debug)]
struct Peer {
    lanes: HashMap<Lane, Arc<Link>>,
    forgotten: CancellationToken,
}

impl PeerPool {
    /// No connections so far.
    pub fn new(context: LinkContext) -> PeerPool {
        PeerPool {
            inner: Arc::new(Pool {
                context,
                peers: RwLock::default(),
                statuses: watch::Sender::default(),
                stop: CancellationToken::new(),
                tasks: TaskTracker::new(),
            }),
        }
    }

    /// Keeps a connection to a peer from now on, used or not, so that its end is noticed.
    pub fn keep(&self, peer: ReplicaId) {
        drop(self.link(peer, Lane::Control));
    }

    /// Ends the connections to all other peers.
    pub fn retain(&self, peers: &HashSet<ReplicaId>) {
        let mut known = self.inner.peers.write();
        let gone: Vec<Peer> = known
            .extract_if(|peer, _| !peers.contains(peer))
            .map(|(_, peer)| peer)
            .collect();
        gone.iter().for_each(|peer| peer.forgotten.cancel());
        self.inner.statuses.send_modify(|statuses| {
            Arc::make_mut(statuses).retain(|peer, _| peers.contains(peer));
        });
    }

    /// The cluster is at this feature level: peers that know less are told nothing of its groups.
    pub fn reach_level(&self, level: u16) {
        self.inner.context.local.reach_level(level);
    }

    /// How each peer is doing, as it changes.
    pub fn statuses(&self) -> watch::Receiver<Arc<PeerStatuses>> {
        self.inner.statuses.subscribe()
    }

    /// Tries to connect to a peer so far, all lanes together.
    pub fn attempts(&self, peer: ReplicaId) -> u64 {
        let peers = self.inner.peers.read();
        let lanes = peers.get(&peer).map(|peer| peer.lanes.values());
        lanes.map_or(0, |lanes| lanes.map(|link| link.attempts()).sum())
    }

    /// Calls a peer.
    pub async fn call(
        &self,
        peer: ReplicaId,
        kind: CallKind,
        body: Bytes,
        patience: Duration,
    ) -> Result<Bytes, RequestError> {
        let lane = if body.len() <= PEER_CONTROL_CALL_BYTES_MAX {
            Lane::Control
        } else {
            Lane::Bulk
        };
        self.call_on(peer, lane, kind, body, patience).await
    }

    /// The same over a lane: calls with long answers belong into the bulk lane.
    pub async fn call_on(
        &self,
        peer: ReplicaId,
        lane: Lane,
        kind: CallKind,
        body: Bytes,
        patience: Duration,
    ) -> Result<Bytes, RequestError> {
        let link = self.link(peer, lane);
        let connection = link.connection().ok_or(RequestError::Unreachable(peer))?;
        call_over(&connection, kind, body, patience).await
    }

    /// Calls whoever listens at an address, over a connection of its own: how a broker joins that knows no peer.
    pub async fn call_at(
        local: &LocalPeer,
        address: &PeerAddress,
        kind: CallKind,
        body: Bytes,
        patience: &PeerPatience,
        answer: Duration,
    ) -> Result<(RemotePeer, Bytes), CallError> {
        let established = establish(local, address, None, Lane::Bulk, patience).await?;
        let connection = established.connection().clone();
        let remote = *connection.remote();
        tokio::select! {
            answered = call_over(&connection, kind, body, answer) => Ok((remote, answered?)),
            _loss = established.drive(patience) => {
                Err(RequestError::Unreachable(remote.id).into())
            }
        }
    }

    /// Ends all connections; whatever waits for an answer hears that its peer is unreachable. On return no task is left.
    pub async fn shutdown(&self) {
        self.inner.stop.cancel();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }

    /// The lane to a peer, which is being connected from now on if it was not.
    fn link(&self, peer: ReplicaId, lane: Lane) -> Arc<Link> {
        let known = |peers: &HashMap<ReplicaId, Peer>| {
            let peer = peers.get(&peer)?;
            peer.lanes.get(&lane).cloned()
        };
        if let Some(link) = known(&self.inner.peers.read()) {
            return link;
        }
        let mut peers = self.inner.peers.write();
        let entry = peers.entry(peer).or_insert_with(|| Peer {
            lanes: HashMap::new(),
            forgotten: self.inner.stop.child_token(),
        });
        // The end of a peer shows on its control lane.
        for lane in [Lane::Control, lane] {
            let forgotten = entry.forgotten.clone();
            entry
                .lanes
                .entry(lane)
                .or_insert_with(|| self.start(peer, lane, forgotten));
        }
        entry
            .lanes
            .get(&lane)
            .cloned()
            .unwrap_or_else(|| Arc::new(Link::new(peer, lane)))
    }

    fn start(&self, peer: ReplicaId, lane: Lane, forgotten: CancellationToken) -> Arc<Link> {
        let link = Arc::new(Link::new(peer, lane));
        let (pool, kept) = (Arc::downgrade(&self.inner), link.clone());
        let context = self.inner.context.clone();
        let told = {
            let forgotten = forgotten.clone();
            move |status| {
                let pool = pool.upgrade().filter(|_| lane == Lane::Control);
                if let Some(pool) = pool.filter(|_| !forgotten.is_cancelled()) {
                    pool.note(peer, status);
                }
            }
        };
        self.inner.tasks.spawn(async move {
            let keep_up = kept.keep_up(&context, told);
            forgotten.run_until_cancelled(keep_up).await;
        });
        link
    }

    fn connection(&self, peer: ReplicaId, lane: Lane) -> Result<Arc<Connection>, RequestError> {
        let connection = self.link(peer, lane).connection();
        connection.ok_or(RequestError::Unreachable(peer))
    }

    /// A connection for what concerns a group: none to a peer whose program does not know what is written there.
    fn group_connection(
        &self,
        peer: ReplicaId,
        lane: Lane,
    ) -> Result<Arc<Connection>, RequestError> {
        let connection = self.connection(peer, lane)?;
        if !self.admits(&connection) {
            return Err(RequestError::Unreachable(peer));
        }
        Ok(connection)
    }

    /// The same for what is short and urgent: by its own lane, or by that of the entries where only that is back. After a
    /// restart of the peer the lanes are tried at different times, and a transfer that is not sent is not sent again.
    fn urgent_connection(&self, peer: ReplicaId) -> Result<Arc<Connection>, RequestError> {
        let control = self.group_connection(peer, Lane::Control);
        control.or_else(|_| self.group_connection(peer, Lane::Append))
    }

    fn admits(&self, connection: &Connection) -> bool {
        let level = connection.remote().feature_level;
        self.inner.context.local.admits(level)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Pool {
    fn note(&self, peer: ReplicaId, status: PeerStatus) {
        let peers = self.peers.read();
        if !peers.contains_key(&peer) {
            return;
        }
        self.statuses.send_if_modified(|statuses| {
            let known = statuses.get(&peer);
            // That a process is gone stays known while nothing else takes its place.
            let kept = matches!(known, Some(PeerStatus::Lost(_)))
                && matches!(status, PeerStatus::Unreachable(_));
            if kept || known == Some(&status) {
                return false;
            }
            Arc::make_mut(statuses).insert(peer, status);
            true
        });
    }
}

async fn call_over(
    connection: &Connection,
    kind: CallKind,
    body: Bytes,
    patience: Duration,
) -> Result<Bytes, RequestError> {
    let body = codec::encode_call(kind, body);
    let reply = connection.request(RequestKind::Call, body, patience);
    Ok(codec::decode_call_reply(reply.await?)?)
}

/// Sends a request of a group and reads its answer.
async fn ask<T>(
    connection: Result<Arc<Connection>, RequestError>,
    kind: RequestKind,
    body: Result<BodyWriter, CodecError>,
    patience: Duration,
    decode: fn(Bytes) -> Result<T, CodecError>,
) -> Result<T, RequestError> {
    let reply = connection?.request(kind, body?, patience).await?;
    Ok(decode(reply)?)
}

/// What openraft makes of it: it backs off from what is unreachable, and soon tries again otherwise.
fn rpc_error(error: &RequestError) -> RPCError<GroupTypes> {
    match error {
        RequestError::Senseless(reason) => {
            tracing::warn!(
                reason,
                "a request of a group cannot be sent, or its answer not be read"
            );
            RPCError::Unreachable(Unreachable::from_string(error))
        }
        RequestError::Unreachable(_) | RequestError::Refused(_) => {
            RPCError::Unreachable(Unreachable::from_string(error))
        }
        RequestError::Full(_) | RequestError::Timeout(_) => {
            RPCError::Network(NetworkError::from_string(error))
        }
    }
}

impl PeerTransport for PeerPool {
    fn reachable(&self, peer: ReplicaId) -> BoxFuture<'static, ()> {
        let mut connections = self.link(peer, Lane::Append).watch();
        let pool = self.clone();
        Box::pin(async move {
            let is_there = |connection: &Option<Arc<Connection>>| {
                connection.as_ref().is_some_and(|it| pool.admits(it))
            };
            if connections.wait_for(is_there).await.is_err() {
                // The peer was forgotten.
                std::future::pending::<()>().await;
            }
        })
    }

    /// Entries go by their own lane; without entries it is a heartbeat. One that finds no room is given up at once, with
    /// its entries, but the group that sent it waits for room before it hears of that.
    fn append(
        &self,
        group: GroupId,
        peer: ReplicaId,
        request: AppendEntriesRequest<GroupTypes>,
    ) -> BoxFuture<'static, CallResult<AppendEntriesResponse<GroupTypes>>> {
        let connection = if request.entries.is_empty() {
            self.urgent_connection(peer)
        } else {
            self.group_connection(peer, Lane::Append)
        };
        let patience = self.inner.context.patience.clone();
        Box::pin(async move {
            let body = codec::encode_append(group, request);
            let sent = ask(
                connection.clone(),
                RequestKind::Append,
                body,
                patience.append,
                codec::decode_append_reply,
            );
            let result = sent.await;
            if let (Err(RequestError::Full(_)), Ok(connection)) = (&result, connection) {
                connection.wait_for_room(patience.room).await;
            }
            result.map_err(|error| rpc_error(&error))
        })
    }

    fn vote(
        &self,
        group: GroupId,
        peer: ReplicaId,
        request: VoteRequest<GroupTypes>,
        pre_vote: bool,
    ) -> BoxFuture<'static, CallResult<VoteResponse<GroupTypes>>> {
        let kind = if pre_vote {
            RequestKind::PreVote
        } else {
            RequestKind::Vote
        };
        let asked = ask(
            self.urgent_connection(peer),
            kind,
            Ok(codec::encode_vote(group, &request)),
            self.inner.context.patience.vote,
            codec::decode_vote_reply,
        );
        Box::pin(async move { asked.await.map_err(|error| rpc_error(&error)) })
    }

    fn snapshot(
        &self,
        group: GroupId,
        peer: ReplicaId,
        vote: Vote,
        snapshot: Snapshot,
    ) -> BoxFuture<'static, CallResult<SnapshotResponse<GroupTypes>>> {
        let connection = self.group_connection(peer, Lane::Bulk);
        let patience = self.inner.context.patience.clone();
        Box::pin(async move {
            let sent = match connection {
                Ok(connection) => {
                    send_snapshot(&connection, group, vote, snapshot, &patience).await
                }
                Err(error) => Err(error),
            };
            sent.map_err(|error| rpc_error(&error))
        })
    }

    fn transfer_leader(
        &self,
        group: GroupId,
        peer: ReplicaId,
        request: TransferLeaderRequest<GroupTypes>,
    ) -> BoxFuture<'static, CallResult<TransferLeaderResponse<GroupTypes>>> {
        let asked = ask(
            self.urgent_connection(peer),
            RequestKind::TransferLeader,
            Ok(codec::encode_transfer(group, &request)),
            self.inner.context.patience.vote,
            codec::decode_transfer_reply,
        );
        Box::pin(async move { asked.await.map_err(|error| rpc_error(&error)) })
    }
}
