//! Two or more ends over real sockets, with proxies that misbehave between them.

mod failures;
mod groups;
mod hostile;
mod shutdown;
mod strangers;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use parking_lot::Mutex;
use tidelog_protocol::types::{BrokerId, PartitionIndex, TopicId};
use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;

use super::*;
use crate::raft::network::{PeerTransport, Snapshot};
use crate::raft::types::{GroupId, GroupTypes, ReplicaId, Vote};
use crate::tests::proxy::{Directory, Proxy};

/// Longest wait for anything; a loaded machine may need some of it.
const PATIENCE: Duration = Duration::from_secs(60);

/// A call that is answered with its own body.
const ECHO: CallKind = CallKind(1);
/// A call that is answered when the gate is open.
const WAIT: CallKind = CallKind(2);

fn replica(broker: i32) -> ReplicaId {
    ReplicaId {
        broker: BrokerId(broker),
        directory: Uuid::from_u128(10 + u128::from(broker.unsigned_abs())),
    }
}

fn group(number: i32) -> GroupId {
    GroupId {
        topic: TopicId(Uuid::from_u128(42)),
        partition: PartitionIndex(number),
    }
}

/// Patience of tests: short, but for what a loaded machine may need.
fn patience() -> PeerPatience {
    PeerPatience {
        ping: Duration::from_millis(200),
        silence: Duration::from_secs(2),
        retry_min: Duration::from_millis(20),
        retry_max: Duration::from_millis(500),
        ..PeerPatience::default()
    }
}

/// A service that remembers what it was asked, and answers when its gates are open.
#[derive(Debug, Default)]
struct Recorder {
    /// Index of the entry before each append, by group, in the order of arrival.
    appends: Mutex<HashMap<GroupId, Vec<u64>>>,
    snapshots: Mutex<Vec<Bytes>>,
    running: AtomicU64,
    running_max: AtomicU64,
    /// The group whose appends wait, and whether calls do.
    held: watch::Sender<(Option<GroupId>, bool)>,
}

impl Recorder {
    fn hold_group(&self, group: Option<GroupId>) {
        self.held.send_modify(|held| held.0 = group);
    }

    fn hold_calls(&self, hold: bool) {
        self.held.send_modify(|held| held.1 = hold);
    }

    fn appends_of(&self, group: GroupId) -> Vec<u64> {
        self.appends.lock().get(&group).cloned().unwrap_or_default()
    }
}

/// The service of a test, shared with it.
#[derive(Clone, Debug, Default)]
struct Recording(Arc<Recorder>);

impl PeerService for Recording {
    fn append(
        &self,
        _from: ReplicaId,
        group: GroupId,
        request: AppendEntriesRequest<GroupTypes>,
    ) -> Served<AppendEntriesResponse<GroupTypes>> {
        let recorder = self.0.clone();
        Box::pin(async move {
            let running = recorder.running.fetch_add(1, Ordering::SeqCst) + 1;
            recorder.running_max.fetch_max(running, Ordering::SeqCst);
            let mut held = recorder.held.subscribe();
            let free = held.wait_for(|held| held.0 != Some(group)).await;
            drop(free.expect("the recorder is there"));
            let index = request.prev_log_id.map_or(0, |id| id.index);
            recorder
                .appends
                .lock()
                .entry(group)
                .or_default()
                .push(index);
            recorder.running.fetch_sub(1, Ordering::SeqCst);
            Ok(AppendEntriesResponse::Success)
        })
    }

    fn vote(
        &self,
        _from: ReplicaId,
        _group: GroupId,
        request: VoteRequest<GroupTypes>,
        pre_vote: bool,
    ) -> Served<VoteResponse<GroupTypes>> {
        let answer = VoteResponse::new(request.vote, request.last_log_id, pre_vote);
        Box::pin(std::future::ready(Ok(answer)))
    }

    fn transfer_leader(
        &self,
        _from: ReplicaId,
        _group: GroupId,
        _request: TransferLeaderRequest<GroupTypes>,
    ) -> Served<TransferLeaderResponse<GroupTypes>> {
        Box::pin(std::future::ready(Ok(Ok(()))))
    }

    fn snapshot(
        &self,
        _from: ReplicaId,
        _group: GroupId,
        vote: Vote,
        snapshot: Snapshot,
    ) -> Served<SnapshotResponse<GroupTypes>> {
        self.0.snapshots.lock().push(snapshot.snapshot);
        Box::pin(std::future::ready(Ok(SnapshotResponse::new(vote))))
    }

    fn call(&self, _from: ReplicaId, _joined: bool, kind: CallKind, body: Bytes) -> Served<Bytes> {
        let recorder = self.0.clone();
        Box::pin(async move {
            match kind {
                ECHO => Ok(body),
                WAIT => {
                    let mut held = recorder.held.subscribe();
                    drop(held.wait_for(|held| !held.1).await);
                    Ok(body)
                }
                _ => Err(Refusal::new(RefusalCode::UnknownCall, "not here")),
            }
        })
    }
}

/// One broker's ends: what it asks with and what it is asked by.
struct Ends {
    me: ReplicaId,
    local: Arc<LocalPeer>,
    directory: Arc<Directory>,
    pool: PeerPool,
    server: PeerServer,
    recorder: Arc<Recorder>,
}

fn secret(text: &str) -> Option<ClusterSecret> {
    Some(ClusterSecret::new(text.as_bytes()).expect("long enough"))
}

fn local(me: ReplicaId) -> Arc<LocalPeer> {
    LocalPeer::new(me, Uuid::from_u128(99), secret("correct horse battery"))
}

impl Ends {
    async fn start(broker: i32) -> Ends {
        Ends::start_as(local(replica(broker)), patience()).await
    }

    async fn start_as(local: Arc<LocalPeer>, patience: PeerPatience) -> Ends {
        let recording = Recording::default();
        let recorder = recording.0.clone();
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let service = Arc::new(recording);
        let server = PeerServer::bind_for(address, local.clone(), service, patience.clone());
        let server = server.await.expect("binds");
        let directory = Arc::new(Directory::default());
        let pool = PeerPool::new(LinkContext {
            local: local.clone(),
            directory: directory.clone(),
            patience,
        });
        Ends {
            me: local.me(),
            local,
            directory,
            pool,
            server,
            recorder,
        }
    }

    /// Makes the way to another known, through a proxy.
    async fn proxy_to(&self, other: &Ends) -> Proxy {
        let proxy = Proxy::to(other.server.address()).await;
        self.directory.set(other.me.broker, proxy.address());
        proxy
    }

    /// Two brokers, the first of which is connected to the second.
    async fn pair() -> (Ends, Ends) {
        let (one, other) = (Ends::start(1).await, Ends::start(2).await);
        one.know(&other);
        one.connect(other.me).await;
        (one, other)
    }

    /// The same with a proxy between them.
    async fn proxied() -> (Ends, Proxy, Ends) {
        let (one, other) = (Ends::start(1).await, Ends::start(2).await);
        let proxy = one.proxy_to(&other).await;
        one.connect(other.me).await;
        (one, proxy, other)
    }

    /// Makes the way to another known.
    fn know(&self, other: &Ends) {
        self.directory.set(other.me.broker, other.server.address());
    }

    /// Connects the lanes of votes and entries.
    async fn connect(&self, peer: ReplicaId) {
        self.status(peer, |status| {
            matches!(status, PeerStatus::Connected { .. })
        })
        .await;
        let reachable = self.pool.reachable(peer);
        tokio::time::timeout(PATIENCE, reachable)
            .await
            .expect("is reachable");
    }

    /// Waits until a peer is seen to do so.
    async fn status(&self, peer: ReplicaId, is: impl Fn(&PeerStatus) -> bool) -> PeerStatus {
        self.pool.keep(peer);
        let mut statuses = self.pool.statuses();
        let seen = statuses.wait_for(|statuses| statuses.get(&peer).is_some_and(&is));
        let seen = tokio::time::timeout(PATIENCE, seen).await;
        let seen = seen.unwrap_or_else(|_| panic!("{:?}", self.pool.statuses().borrow()));
        seen.expect("the pool is there")[&peer].clone()
    }

    async fn call(&self, peer: ReplicaId, kind: CallKind) -> Result<Bytes, RequestError> {
        let body = Bytes::from_static(b"hello");
        self.pool.call(peer, kind, body, PATIENCE).await
    }

    async fn stop(self) {
        self.pool.shutdown().await;
        self.server.shutdown(Duration::ZERO).await;
    }
}

fn append_after(index: u64) -> AppendEntriesRequest<GroupTypes> {
    AppendEntriesRequest {
        vote: Vote::new_committed(1, replica(1)),
        prev_log_id: Some(crate::raft::types::LogId::new_term_index(1, index)),
        entries: Vec::new(),
        leader_commit: None,
    }
}

/// An append with one entry of so many bytes.
fn long_append(index: u64, bytes: usize) -> AppendEntriesRequest<GroupTypes> {
    let record = Bytes::from(vec![7; bytes]);
    let payload =
        openraft::EntryPayload::Normal(crate::raft::types::GroupCommand::Metadata(record));
    let log_id = crate::raft::types::LogId::new_term_index(1, index + 1);
    AppendEntriesRequest {
        entries: vec![crate::raft::types::Entry { log_id, payload }],
        ..append_after(index)
    }
}

/// Polls until it holds. For what no event tells.
async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
