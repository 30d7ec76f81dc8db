//! The types that parametrise openraft, shared by partition groups and the controller group.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use openraft::alias::{LogIdOf, StoredMembershipOf};
use openraft::raft::ClientWriteResult;
use openraft::raft::responder::Responder;
use openraft::{EntryPayload, OptionalSend, RaftTypeConfig};
use tidelog_protocol::batch::RecordBatch;
use tidelog_protocol::types::{BrokerId, LeaderEpoch, Offset, PartitionIndex, TopicId};
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::metadata::command::{MetadataError, Outcome};
use crate::partition::submission::Submission;

/// A replica: a broker and its data directory. A broker that lost its disk lost its votes, and is another replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaId {
    /// Broker.
    pub broker: BrokerId,
    /// Its data directory.
    pub directory: Uuid,
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.broker, self.directory.simple())
    }
}

/// A consensus group, named by the partition that it replicates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId {
    /// Topic.
    pub topic: TopicId,
    /// Partition.
    pub partition: PartitionIndex,
}

/// What an application entry carries.
pub enum GroupCommand {
    /// A record batch; the submission is there on the replica where it was submitted.
    Batch {
        /// The records.
        batch: RecordBatch,
        /// Who waits for it.
        submission: Option<Arc<Submission>>,
    },
    /// A record batch of which only the offsets were read back.
    BatchHeader {
        /// First offset after it.
        next_offset: Offset,
    },
    /// The log start moves.
    LogStart(Offset),
    /// A batch that lost its place before it was written; nothing.
    Void,
    /// A record of the cluster metadata.
    Metadata(Bytes),
}

impl fmt::Debug for GroupCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for GroupCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GroupCommand::Batch { batch, .. } => write!(f, "batch of {} bytes", batch.size_bytes()),
            GroupCommand::BatchHeader { next_offset } => write!(f, "batch up to {next_offset}"),
            GroupCommand::LogStart(offset) => write!(f, "log start {offset}"),
            GroupCommand::Void => f.write_str("void"),
            GroupCommand::Metadata(bytes) => write!(f, "metadata record of {} bytes", bytes.len()),
        }
    }
}

/// What applying an entry answers.
#[derive(Clone, Debug)]
pub enum GroupReply {
    /// Applied.
    Done,
    /// The entry was void: nothing was appended.
    Void,
    /// The controller's answer.
    Metadata(Result<Outcome, MetadataError>),
}

/// The openraft configuration of all groups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct GroupTypes;

impl RaftTypeConfig for GroupTypes {
    type D = GroupCommand;
    type R = GroupReply;
    type NodeId = ReplicaId;
    type Node = ();
    type Term = u64;
    type LeaderId = openraft::impls::leader_id_std::LeaderId<u64, ReplicaId>;
    type Vote = openraft::impls::Vote<Self::LeaderId>;
    type Payload = EntryPayload<GroupCommand, ReplicaId, ()>;
    type Entry = openraft::Entry<openraft::alias::CommittedLeaderIdOf<Self>, Self::Payload>;
    type AsyncRuntime = openraft::impls::TokioRuntime;
    type Responder<T>
        = GroupResponder<T>
    where
        T: OptionalSend + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: OptionalSend + 'static;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}

/// Id of an entry.
pub type LogId = LogIdOf<GroupTypes>;
/// A membership and the entry that holds it.
pub type StoredMembership = StoredMembershipOf<GroupTypes>;
/// An entry.
pub type Entry = openraft::alias::EntryOf<GroupTypes>;
/// A vote.
pub type Vote = openraft::alias::VoteOf<GroupTypes>;

/// Who is told of a write's fate.
pub enum GroupResponder<T> {
    /// A caller that waits for the answer.
    Caller(oneshot::Sender<T>),
    /// A produce request, told at the commit, before the state machine runs.
    Submission {
        /// The request.
        submission: Arc<Submission>,
        /// How the final result reads for it.
        finish: fn(&Submission, T),
    },
}

impl GroupResponder<ClientWriteResult<GroupTypes>> {
    /// The responder of a submitted batch.
    pub fn of(submission: Arc<Submission>) -> Self {
        GroupResponder::Submission {
            submission,
            finish: Submission::finished,
        }
    }
}

impl<T: OptionalSend + 'static> Responder<GroupTypes, T> for GroupResponder<T> {
    fn on_commit(&mut self, _log_id: LogId) {
        if let GroupResponder::Submission { submission, .. } = self {
            submission.committed();
        }
    }

    fn on_complete(self, result: T) {
        match self {
            // A caller that went away does not want to know.
            GroupResponder::Caller(sender) => drop(sender.send(result)),
            GroupResponder::Submission { submission, finish } => finish(&submission, result),
        }
    }
}

/// The leader epoch that a term is. Terms beyond are refused before they are saved.
pub fn epoch_of(term: u64) -> Option<LeaderEpoch> {
    i32::try_from(term).ok().map(LeaderEpoch)
}
