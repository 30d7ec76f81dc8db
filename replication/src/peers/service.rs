//! What a broker does for its peers, seen from the connections.

use std::fmt::Debug;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};

use crate::raft::network::Snapshot;
use crate::raft::types::{GroupId, GroupTypes, ReplicaId, Vote};

/// What a call is about. The transport knows none of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CallKind(pub u16);

/// Why a request was not carried out, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalCode {
    /// The group is not hosted here, or not yet. May be asked again.
    UnknownGroup,
    /// The group runs no more: its log failed, or it is being started anew. May be asked again.
    GroupStopped,
    /// Too much at once. May be asked again.
    Busy,
    /// Nobody here answers such a call.
    UnknownCall,
    /// The body makes no sense.
    Malformed,
    /// The broker that asks has not joined the cluster.
    NotJoined,
    /// The broker stops.
    ShuttingDown,
    /// What was asked for did not work out.
    Failed,
    /// A code of a newer version.
    Other(u16),
}

/// Numbers of the codes. On the wire: never change one.
const CODES: [(RefusalCode, u16); 8] = [
    (RefusalCode::UnknownGroup, 1),
    (RefusalCode::GroupStopped, 2),
    (RefusalCode::Busy, 3),
    (RefusalCode::UnknownCall, 4),
    (RefusalCode::Malformed, 5),
    (RefusalCode::NotJoined, 6),
    (RefusalCode::ShuttingDown, 7),
    (RefusalCode::Failed, 8),
];

impl RefusalCode {
    /// The code's number.
    pub fn number(self) -> u16 {
        if let RefusalCode::Other(number) = self {
            return number;
        }
        let found = CODES.iter().find(|(code, _)| *code == self);
        found.map_or(0, |(_, number)| *number)
    }

    /// The code of a number.
    pub fn of_number(number: u16) -> RefusalCode {
        let found = CODES.iter().find(|(_, other)| *other == number);
        found.map_or(RefusalCode::Other(number), |(code, _)| *code)
    }
}

/// Why a request was not carried out.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{text}")]
pub struct Refusal {
    /// For programs.
    pub code: RefusalCode,
    /// For people.
    pub text: String,
}

impl Refusal {
    /// A refusal.
    pub fn new(code: RefusalCode, text: impl Into<String>) -> Refusal {
        Refusal {
            code,
            text: text.into(),
        }
    }
}

/// Answer to a peer.
pub type Served<T> = BoxFuture<'static, Result<T, Refusal>>;

/// Carries out the requests of peers. Requests of one group come one after the other, those of different groups at the
/// same time. The peer is the one that the handshake was made with.
pub trait PeerService: Debug + Send + Sync + 'static {
    /// Entries.
    fn append(
        &self,
        from: ReplicaId,
        group: GroupId,
        request: AppendEntriesRequest<GroupTypes>,
    ) -> Served<AppendEntriesResponse<GroupTypes>>;
    /// A vote is asked for, or whether one would be given.
    fn vote(
        &self,
        from: ReplicaId,
        group: GroupId,
        request: VoteRequest<GroupTypes>,
        pre_vote: bool,
    ) -> Served<VoteResponse<GroupTypes>>;
    /// The leadership is handed over.
    fn transfer_leader(
        &self,
        from: ReplicaId,
        group: GroupId,
        request: TransferLeaderRequest<GroupTypes>,
    ) -> Served<TransferLeaderResponse<GroupTypes>>;
    /// A snapshot has arrived, whole.
    fn snapshot(
        &self,
        from: ReplicaId,
        group: GroupId,
        vote: Vote,
        snapshot: Snapshot,
    ) -> Served<SnapshotResponse<GroupTypes>>;
    /// Something for the broker itself. `joined`: both ends know that they are of the same cluster.
    fn call(&self, from: ReplicaId, joined: bool, kind: CallKind, body: Bytes) -> Served<Bytes>;
}
