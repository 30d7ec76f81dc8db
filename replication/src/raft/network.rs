//! How a group reaches its other replicas.
//!
//! [`PeerTransport`] is the seam: a cluster brings connections, a lone broker knows no peers. A transport never fails
//! an append before it took a request: openraft would ask again at once, for ever.

use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use futures_util::{Stream, StreamExt};
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, stream_append_sequential};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{EntryPayload, OptionalSend, RaftNetworkFactory, RaftNetworkV2};

use super::types::{Entry, GroupCommand, GroupId, GroupTypes, ReplicaId, Vote};
use crate::partition::shared::PartitionShared;
use crate::throttle::{Pacer, Side, Throttles};

/// A snapshot on its way: its description and the state machine's bytes.
pub type Snapshot = openraft::alias::SnapshotOf<GroupTypes, Bytes>;

/// Result of a call to a peer.
pub type CallResult<T> = Result<T, RPCError<GroupTypes>>;

/// Longest wait for an unreachable peer before an append is answered.
const PARK: Duration = Duration::from_secs(10);

/// Connections to other brokers.
pub trait PeerTransport: Debug + Send + Sync + 'static {
    /// Resolves when the peer may be reachable (again), or never.
    fn reachable(&self, peer: ReplicaId) -> BoxFuture<'static, ()>;
    /// Sends entries.
    fn append(
        &self,
        group: GroupId,
        peer: ReplicaId,
        request: AppendEntriesRequest<GroupTypes>,
    ) -> BoxFuture<'static, CallResult<AppendEntriesResponse<GroupTypes>>>;
    /// Asks for a vote, or whether one would be given.
    fn vote(
        &self,
        group: GroupId,
        peer: ReplicaId,
        request: VoteRequest<GroupTypes>,
        pre_vote: bool,
    ) -> BoxFuture<'static, CallResult<VoteResponse<GroupTypes>>>;
    /// Sends a snapshot.
    fn snapshot(
        &self,
        group: GroupId,
        peer: ReplicaId,
        vote: Vote,
        snapshot: Snapshot,
    ) -> BoxFuture<'static, CallResult<SnapshotResponse<GroupTypes>>>;
    /// Hands over the leadership.
    fn transfer_leader(
        &self,
        group: GroupId,
        peer: ReplicaId,
        request: TransferLeaderRequest<GroupTypes>,
    ) -> BoxFuture<'static, CallResult<TransferLeaderResponse<GroupTypes>>>;
}

/// The transport of a broker that is alone: nobody is ever reachable.
#[derive(Clone, Copy, Debug)]
pub struct NoPeers;

impl NoPeers {
    fn refuse<T: Send + 'static>(peer: ReplicaId) -> BoxFuture<'static, CallResult<T>> {
        Box::pin(std::future::ready(Err(unreachable(peer))))
    }
}

impl PeerTransport for NoPeers {
    fn reachable(&self, _peer: ReplicaId) -> BoxFuture<'static, ()> {
        Box::pin(std::future::pending())
    }

    fn append(
        &self,
        _group: GroupId,
        peer: ReplicaId,
        _request: AppendEntriesRequest<GroupTypes>,
    ) -> BoxFuture<'static, CallResult<AppendEntriesResponse<GroupTypes>>> {
        NoPeers::refuse(peer)
    }

    fn vote(
        &self,
        _group: GroupId,
        peer: ReplicaId,
        _request: VoteRequest<GroupTypes>,
        _pre_vote: bool,
    ) -> BoxFuture<'static, CallResult<VoteResponse<GroupTypes>>> {
        NoPeers::refuse(peer)
    }

    fn snapshot(
        &self,
        _group: GroupId,
        peer: ReplicaId,
        _vote: Vote,
        _snapshot: Snapshot,
    ) -> BoxFuture<'static, CallResult<SnapshotResponse<GroupTypes>>> {
        NoPeers::refuse(peer)
    }

    fn transfer_leader(
        &self,
        _group: GroupId,
        peer: ReplicaId,
        _request: TransferLeaderRequest<GroupTypes>,
    ) -> BoxFuture<'static, CallResult<TransferLeaderResponse<GroupTypes>>> {
        NoPeers::refuse(peer)
    }
}

fn unreachable(peer: ReplicaId) -> RPCError<GroupTypes> {
    RPCError::Unreachable(Unreachable::from_string(format!("no connection to {peer}")))
}

/// Makes clients for the peers of one group.
#[derive(Clone, Debug)]
pub struct GroupNetwork {
    group: GroupId,
    transport: Arc<dyn PeerTransport>,
    paced: Option<(Arc<Throttles>, Arc<PartitionShared>)>,
}

impl GroupNetwork {
    /// Network of a group.
    pub fn new(group: GroupId, transport: Arc<dyn PeerTransport>) -> Self {
        GroupNetwork {
            group,
            transport,
            paced: None,
        }
    }

    /// The same for a partition, whose followers catch up as its topic's throttles allow.
    pub fn paced(self, throttles: Arc<Throttles>, partition: Arc<PartitionShared>) -> Self {
        let paced = Some((throttles, partition));
        GroupNetwork { paced, ..self }
    }
}

impl RaftNetworkFactory<GroupTypes> for GroupNetwork {
    type Network = PeerClient;

    async fn new_client(&mut self, target: ReplicaId, (): &()) -> PeerClient {
        let pacer = self
            .paced
            .clone()
            .map(|(throttles, partition)| Arc::new(Pacer::new(throttles, partition, Side::Leader)));
        PeerClient {
            group: self.group,
            peer: target,
            transport: self.transport.clone(),
            pacer,
        }
    }
}

/// Calls one peer on behalf of one group.
#[derive(Debug)]
pub struct PeerClient {
    group: GroupId,
    peer: ReplicaId,
    transport: Arc<dyn PeerTransport>,
    pacer: Option<Arc<Pacer>>,
}

/// Requests as they are read from the log, none before its bytes may be sent.
fn paced(
    requests: impl Stream<Item = AppendEntriesRequest<GroupTypes>> + Unpin + Send + 'static,
    pacer: Arc<Pacer>,
    to: ReplicaId,
) -> BoxStream<'static, AppendEntriesRequest<GroupTypes>> {
    let paced = stream::unfold((requests, pacer), move |(mut requests, pacer)| async move {
        pacer.before(to.broker).await;
        let request = requests.next().await?;
        pacer.after(batch_bytes(&request));
        Some((request, (requests, pacer)))
    });
    Box::pin(paced)
}

fn batch_bytes(request: &AppendEntriesRequest<GroupTypes>) -> usize {
    let bytes = |entry: &Entry| match &entry.payload {
        EntryPayload::Normal(GroupCommand::Batch { batch, .. }) => batch.size_bytes(),
        _ => 0,
    };
    request.entries.iter().map(bytes).sum()
}

impl RaftNetworkV2<GroupTypes> for PeerClient {
    type SnapshotData = Bytes;

    /// Called for each request of the stream after it was taken; an unreachable peer is waited for before the error,
    /// so that a dead one costs nothing.
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<GroupTypes>,
        _option: RPCOption,
    ) -> CallResult<AppendEntriesResponse<GroupTypes>> {
        let result = self.transport.append(self.group, self.peer, rpc).await;
        if matches!(result, Err(RPCError::Unreachable(_))) {
            // Either way the caller asks again.
            let _ = tokio::time::timeout(PARK, self.transport.reachable(self.peer)).await;
        }
        result
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, CallResult<BoxStream<'s, CallResult<StreamAppendResult<GroupTypes>>>>>
    where
        S: Stream<Item = AppendEntriesRequest<GroupTypes>> + OptionalSend + Unpin + 'static,
    {
        match self.pacer.clone() {
            Some(pacer) => {
                let input = paced(input, pacer, self.peer);
                stream_append_sequential(self, input, option)
            }
            None => stream_append_sequential(self, input, option),
        }
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<GroupTypes>,
        _option: RPCOption,
    ) -> CallResult<VoteResponse<GroupTypes>> {
        self.transport.vote(self.group, self.peer, rpc, false).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<GroupTypes>,
        _option: RPCOption,
    ) -> CallResult<VoteResponse<GroupTypes>> {
        self.transport.vote(self.group, self.peer, rpc, true).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<GroupTypes>, StreamingError<GroupTypes>> {
        let sent = self
            .transport
            .snapshot(self.group, self.peer, vote, snapshot);
        tokio::select! {
            result = sent => result.map_err(StreamingError::from),
            closed = cancel => Err(closed.into()),
        }
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<GroupTypes>,
        _option: RPCOption,
    ) -> CallResult<TransferLeaderResponse<GroupTypes>> {
        self.transport
            .transfer_leader(self.group, self.peer, req)
            .await
    }
}
