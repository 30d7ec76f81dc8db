//! What carries the messages between the replicas of a test: memory, or sockets with proxies on every way.

use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use openraft::Raft;
use openraft::errors::{NetworkError, RPCError, Unreachable};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use uuid::Uuid;

use crate::partition::state_machine::PartitionStateMachine;
use crate::peers::{
    CallKind, ClusterSecret, LinkContext, LocalPeer, PeerPatience, PeerPool, PeerServer,
    PeerService, Refusal, RefusalCode, Served,
};
use crate::raft::network::{CallResult, PeerTransport, Snapshot};
use crate::raft::types::{GroupId, GroupTypes, ReplicaId, Vote};
use crate::tests::proxy::{Directory, Proxy};

pub type GroupRaft = Raft<GroupTypes, PartitionStateMachine>;

/// See the module.
pub trait Net: Debug + Send + Sync {
    /// A replica's end.
    fn transport(&self, me: ReplicaId) -> Arc<dyn PeerTransport>;
    /// A replica's group runs.
    fn serve(&self, me: ReplicaId, raft: GroupRaft);
    /// Cuts a replica off from the others, or connects it again.
    fn set_cut(&self, replica: ReplicaId, cut: bool);
    /// Messages and tries to connect so far.
    fn calls(&self) -> u64;
    /// Ends what runs.
    fn end(&self) -> BoxFuture<'_, ()>;
}

/// All replicas by id, and those that are cut off.
#[derive(Debug, Default)]
pub struct Wire {
    replicas: Mutex<HashMap<ReplicaId, GroupRaft>>,
    cut: Mutex<HashSet<ReplicaId>>,
    deaf: Mutex<HashSet<ReplicaId>>,
    changed: Notify,
    calls: AtomicU64,
}

/// Messages as function calls.
#[derive(Clone, Debug, Default)]
pub struct InMemory(Arc<Wire>);

impl InMemory {
    /// Loses the messages to a replica that carry no entries, which say what is committed, or no more.
    pub fn set_deaf(&self, replica: ReplicaId, deaf: bool) {
        let mut all = self.0.deaf.lock();
        if deaf {
            all.insert(replica);
        } else {
            all.remove(&replica);
        }
    }
}

impl Net for InMemory {
    fn transport(&self, me: ReplicaId) -> Arc<dyn PeerTransport> {
        Arc::new(WireEnd {
            wire: self.0.clone(),
            me,
        })
    }

    fn serve(&self, me: ReplicaId, raft: GroupRaft) {
        self.0.replicas.lock().insert(me, raft);
    }

    fn set_cut(&self, replica: ReplicaId, cut: bool) {
        if cut {
            self.0.cut.lock().insert(replica);
        } else {
            self.0.cut.lock().remove(&replica);
        }
        self.0.changed.notify_waiters();
    }

    fn calls(&self) -> u64 {
        self.0.calls.load(Ordering::Relaxed)
    }

    fn end(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

impl Wire {
    fn connected(&self, one: ReplicaId, other: ReplicaId) -> bool {
        let cut = self.cut.lock();
        !cut.contains(&one) && !cut.contains(&other)
    }
}

/// One replica's end of the wire.
#[derive(Clone, Debug)]
struct WireEnd {
    wire: Arc<Wire>,
    me: ReplicaId,
}

impl WireEnd {
    fn call<T, F>(
        &self,
        peer: ReplicaId,
        call: impl FnOnce(GroupRaft) -> F + Send + 'static,
    ) -> BoxFuture<'static, CallResult<T>>
    where
        F: Future<Output = Result<T, String>> + Send,
        T: Send + 'static,
    {
        let end = self.clone();
        Box::pin(async move {
            end.wire.calls.fetch_add(1, Ordering::Relaxed);
            let raft = end.wire.replicas.lock().get(&peer).cloned();
            let Some(raft) = raft.filter(|_| end.wire.connected(end.me, peer)) else {
                return Err(RPCError::Unreachable(Unreachable::from_string("cut")));
            };
            let answer = call(raft).await;
            if !end.wire.connected(end.me, peer) {
                return Err(RPCError::Unreachable(Unreachable::from_string("cut")));
            }
            answer.map_err(|error| RPCError::Network(NetworkError::from_string(error)))
        })
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

impl PeerTransport for WireEnd {
    fn reachable(&self, peer: ReplicaId) -> BoxFuture<'static, ()> {
        let end = self.clone();
        Box::pin(async move {
            loop {
                let changed = end.wire.changed.notified();
                if end.wire.connected(end.me, peer) {
                    return;
                }
                changed.await;
            }
        })
    }

    fn append(
        &self,
        _group: GroupId,
        peer: ReplicaId,
        request: AppendEntriesRequest<GroupTypes>,
    ) -> BoxFuture<'static, CallResult<AppendEntriesResponse<GroupTypes>>> {
        if request.entries.is_empty() && self.wire.deaf.lock().contains(&peer) {
            let lost = NetworkError::from_string("lost");
            return Box::pin(std::future::ready(Err(RPCError::Network(lost))));
        }
        self.call(peer, |raft| async move {
            raft.append_entries(request).await.map_err(text)
        })
    }

    fn vote(
        &self,
        _group: GroupId,
        peer: ReplicaId,
        request: VoteRequest<GroupTypes>,
        pre_vote: bool,
    ) -> BoxFuture<'static, CallResult<VoteResponse<GroupTypes>>> {
        self.call(peer, move |raft| async move {
            let answer = if pre_vote {
                raft.pre_vote(request).await
            } else {
                raft.vote(request).await
            };
            answer.map_err(text)
        })
    }

    fn snapshot(
        &self,
        _group: GroupId,
        peer: ReplicaId,
        vote: Vote,
        snapshot: Snapshot,
    ) -> BoxFuture<'static, CallResult<SnapshotResponse<GroupTypes>>> {
        self.call(peer, move |raft| async move {
            raft.install_full_snapshot(vote, snapshot)
                .await
                .map_err(text)
        })
    }

    fn transfer_leader(
        &self,
        _group: GroupId,
        peer: ReplicaId,
        request: TransferLeaderRequest<GroupTypes>,
    ) -> BoxFuture<'static, CallResult<TransferLeaderResponse<GroupTypes>>> {
        self.call(peer, move |raft| async move {
            raft.handle_transfer_leader(request).await.map_err(text)
        })
    }
}

/// Messages over sockets on loopback.
#[derive(Debug)]
pub struct Tcp {
    sides: HashMap<ReplicaId, Side>,
    /// By the replica that connects and the one that it connects to.
    proxies: HashMap<(ReplicaId, ReplicaId), Proxy>,
    cut: Mutex<HashSet<ReplicaId>>,
}

#[derive(Debug)]
struct Side {
    pool: PeerPool,
    server: PeerServer,
    service: Serving,
    ways: Arc<Directory>,
}

/// The group of one replica, for its peers.
#[derive(Clone, Debug, Default)]
struct Serving {
    raft: watch::Sender<Option<GroupRaft>>,
    calls: Arc<AtomicU64>,
}

impl Tcp {
    /// Listeners of all replicas, and the ways between them.
    pub async fn start(ids: &[ReplicaId]) -> Tcp {
        let mut sides = HashMap::new();
        for me in ids {
            sides.insert(*me, Side::start(*me).await);
        }
        let mut proxies = HashMap::new();
        for (from, side) in &sides {
            for (to, other) in sides.iter().filter(|(to, _)| *to != from) {
                let proxy = Proxy::to(other.server.address()).await;
                side.ways.set(to.broker, proxy.address());
                proxies.insert((*from, *to), proxy);
            }
        }
        Tcp {
            sides,
            proxies,
            cut: Mutex::default(),
        }
    }

    /// The way from one replica to another, for what it asks; answers come back by it.
    pub fn way(&self, from: ReplicaId, to: ReplicaId) -> &Proxy {
        &self.proxies[&(from, to)]
    }

    /// Closes all connections; they are made anew.
    pub fn kill_connections(&self) {
        self.proxies.values().for_each(Proxy::kill_connections);
    }
}

impl Side {
    async fn start(me: ReplicaId) -> Side {
        let secret = ClusterSecret::new(b"correct horse battery").expect("long enough");
        let local = LocalPeer::new(me, Uuid::from_u128(99), Some(secret));
        let patience = PeerPatience {
            silence: Duration::from_secs(3),
            ping: Duration::from_millis(500),
            append: Duration::from_secs(3),
            ..PeerPatience::default()
        };
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let service = Serving::default();
        let serving = Arc::new(service.clone());
        let server = PeerServer::bind_for(address, local.clone(), serving, patience.clone());
        let server = server.await.expect("binds");
        let ways = Arc::new(Directory::default());
        let pool = PeerPool::new(LinkContext {
            local,
            directory: ways.clone(),
            patience,
        });
        Side {
            pool,
            server,
            service,
            ways,
        }
    }
}

impl Net for Tcp {
    fn transport(&self, me: ReplicaId) -> Arc<dyn PeerTransport> {
        Arc::new(self.sides[&me].pool.clone())
    }

    fn serve(&self, me: ReplicaId, raft: GroupRaft) {
        self.sides[&me].service.raft.send_replace(Some(raft));
    }

    fn set_cut(&self, replica: ReplicaId, cut: bool) {
        let mut all = self.cut.lock();
        if cut {
            all.insert(replica);
        } else {
            all.remove(&replica);
        }
        for ((from, to), proxy) in &self.proxies {
            proxy.change(|mode| mode.refuse = all.contains(from) || all.contains(to));
        }
    }

    fn calls(&self) -> u64 {
        let served = |side: &Side| side.service.calls.load(Ordering::Relaxed);
        let accepted: u64 = self.proxies.values().map(Proxy::accepted).sum();
        accepted + self.sides.values().map(served).sum::<u64>()
    }

    fn end(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            for side in self.sides.values() {
                side.pool.shutdown().await;
                side.server.shutdown(Duration::from_secs(5)).await;
            }
        })
    }
}

impl Serving {
    fn call<T, F>(&self, call: impl FnOnce(GroupRaft) -> F + Send + 'static) -> Served<T>
    where
        F: Future<Output = Result<T, String>> + Send,
        T: Send + 'static,
    {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let raft = self.raft.borrow().clone();
        Box::pin(async move {
            let unknown = || Refusal::new(RefusalCode::UnknownGroup, "not yet");
            let answer = call(raft.ok_or_else(unknown)?).await;
            answer.map_err(|error| Refusal::new(RefusalCode::GroupStopped, error))
        })
    }
}

impl PeerService for Serving {
    fn append(
        &self,
        _from: ReplicaId,
        _group: GroupId,
        request: AppendEntriesRequest<GroupTypes>,
    ) -> Served<AppendEntriesResponse<GroupTypes>> {
        self.call(|raft| async move { raft.append_entries(request).await.map_err(text) })
    }

    fn vote(
        &self,
        _from: ReplicaId,
        _group: GroupId,
        request: VoteRequest<GroupTypes>,
        pre_vote: bool,
    ) -> Served<VoteResponse<GroupTypes>> {
        self.call(move |raft| async move {
            let answer = if pre_vote {
                raft.pre_vote(request).await
            } else {
                raft.vote(request).await
            };
            answer.map_err(text)
        })
    }

    fn transfer_leader(
        &self,
        _from: ReplicaId,
        _group: GroupId,
        request: TransferLeaderRequest<GroupTypes>,
    ) -> Served<TransferLeaderResponse<GroupTypes>> {
        self.call(|raft| async move { raft.handle_transfer_leader(request).await.map_err(text) })
    }

    fn snapshot(
        &self,
        _from: ReplicaId,
        _group: GroupId,
        vote: Vote,
        snapshot: Snapshot,
    ) -> Served<SnapshotResponse<GroupTypes>> {
        self.call(move |raft| async move {
            raft.install_full_snapshot(vote, snapshot)
                .await
                .map_err(text)
        })
    }

    fn call(
        &self,
        _from: ReplicaId,
        _joined: bool,
        _kind: CallKind,
        _body: bytes::Bytes,
    ) -> Served<bytes::Bytes> {
        let refusal = Refusal::new(RefusalCode::UnknownCall, "not here");
        Box::pin(std::future::ready(Err(refusal)))
    }
}
