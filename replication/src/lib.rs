//! What is agreed: one consensus group per partition and one for the cluster metadata.
//!
//! Owns the replicas hosted by this broker, the controller's state machine and the image of the cluster that
//! follows from it. Speaks Kafka's words at its surface (leader epoch, high watermark); Raft's words and every type
//! of the consensus library stay inside. Knows no client connection and no request of the Kafka protocol.

mod behind;
mod cluster;
mod compaction;
mod control;
mod controller;
mod election;
mod errors;
mod healing;
mod hibernation;
mod hosted;
mod limits;
mod metadata;
mod notices;
mod options;
mod partition;
mod peers;
mod planted;
mod raft;
mod reassign;
mod replication;
mod reporter;
mod stored;
mod succession;
mod suspects;
mod tasks;
mod throttle;

#[cfg(test)]
mod tests;

pub use cluster::{Peers, introduce};
pub use control::{ClusterDirectory, Introduction, Member};
pub use controller::Controller;
pub use controller::quorum::{Quorum, QuorumMember};
pub use election::{ElectionError, ElectionKind};
pub use errors::{
    AppendError, DeleteRecordsError, JoinError, NotLeader, StartError, SubmitError, WaitLedError,
};
pub use metadata::command::{
    BrokerRegistration, Command, CompletedReassignment, ConfigResource, LeaderReport,
    MetadataError, Outcome,
};
pub use metadata::image::{BrokerImage, MetadataImage, PartitionImage, Reassignment, TopicImage};
pub use metadata::levels::{FEATURE_LEVELS, METADATA_FEATURE, REASSIGNMENT_LEVEL};
pub use options::{
    CompactionOptions, Endpoint, LogConfigSource, ReplicationOptions, SecurityProtocol,
};
pub use partition::append::{Acks, AppendRequest, AppendTicket, Appended};
pub use partition::state::{PartitionState, Role};
pub use partition::waiters::WaiterRegistration;
pub use partition::{Partition, ProducerDescription};
pub use peers::{
    CallError, CallHandler, CallKind, ClusterSecret, Drained, GroupRouter, HandshakeError, Lane,
    LinkContext, ListenError, LocalPeer, Loss, PeerAddress, PeerDirectory, PeerPatience, PeerPool,
    PeerServer, PeerStatus, PeerStatuses, Refusal, RefusalCode, RefusedFor, RemotePeer,
    RequestError, Served, ShortSecret,
};
pub use raft::types::ReplicaId;
pub use replication::Replication;
pub use stored::{StoredProblem, check_stored};
pub use throttle::{ReplicaList, ThrottleRates, ThrottledReplicas};

#[cfg(test)]
#[global_allocator]
static ALLOCATOR: tidelog_tests::allocations::Counting = tidelog_tests::allocations::Counting;
