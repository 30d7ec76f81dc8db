//! What the group machine wants done: answers, appends, a wake-up.

use std::sync::Arc;

use bytes::Bytes;
use tidelog_protocol::types::TopicPartition;

use super::error::GroupError;
use super::ids::{AppendId, Generation, InstanceId, MemberId, MonotonicMs, ReplyToken};
use super::offset::CommittedOffset;
use super::record::GroupMetadata;

/// One thing to do, in the order given.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Answer a request.
    Reply(ReplyToken, Reply),
    /// Append the records in one batch and report back with the id.
    Append(AppendId, Vec<GroupRecord>),
    /// Send [`Event::Tick`](super::Event::Tick) at this moment, or later. Earlier wishes stay.
    WakeAt(MonotonicMs),
}

/// One record of the group in the offsets topic; `None` is a tombstone.
#[derive(Clone, Debug, PartialEq)]
pub enum GroupRecord {
    /// The group's generation with its members.
    Metadata(Option<GroupMetadata>),
    /// A committed offset.
    Offset(TopicPartition, Option<CommittedOffset>),
}

/// An answer; the variant is that of the request.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// To JoinGroup.
    Join(JoinReply),
    /// To SyncGroup.
    Sync(Result<Synced, GroupError>),
    /// To Heartbeat.
    Heartbeat(Result<(), GroupError>),
    /// To LeaveGroup: one result for each leaver, in the order asked.
    Leave(Result<Vec<Result<(), GroupError>>, GroupError>),
    /// To OffsetCommit: one result for each offset, in the order asked.
    Commit(Result<Vec<Result<(), GroupError>>, GroupError>),
    /// To OffsetDelete: one result for each partition, in the order asked.
    DeleteOffsets(Result<Vec<Result<(), GroupError>>, GroupError>),
    /// To DeleteGroups.
    Delete(Result<(), GroupError>),
}

/// Answer to JoinGroup.
#[derive(Clone, Debug, PartialEq)]
pub enum JoinReply {
    /// The member is in the new generation.
    Joined(Box<Joined>),
    /// It is not.
    Refused {
        /// Why.
        error: GroupError,
        /// The id to answer with: the request's own, a new one for MEMBER_ID_REQUIRED, or none.
        member: Option<MemberId>,
    },
}

/// A member's view of the generation that it joined.
#[derive(Clone, Debug, PartialEq)]
pub struct Joined {
    /// The generation.
    pub generation: Generation,
    /// The group's protocol type.
    pub protocol_type: Option<Arc<str>>,
    /// The protocol that the members voted for.
    pub protocol: Option<Arc<str>>,
    /// Who assigns.
    pub leader: Option<MemberId>,
    /// Whether the leader must not assign, because the old assignment stays.
    pub skip_assignment: bool,
    /// The member's own id.
    pub member: MemberId,
    /// All members for the leader, nobody for the others.
    pub members: Vec<JoinedMember>,
}

/// A member as the leader sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct JoinedMember {
    /// Its id.
    pub member: MemberId,
    /// Its `group.instance.id`.
    pub instance: Option<InstanceId>,
    /// Its subscription for the chosen protocol.
    pub metadata: Bytes,
}

/// A member's assignment.
#[derive(Clone, Debug, PartialEq)]
pub struct Synced {
    /// The group's protocol type.
    pub protocol_type: Option<Arc<str>>,
    /// The group's protocol.
    pub protocol: Option<Arc<str>>,
    /// The assignment as the leader wrote it.
    pub assignment: Bytes,
}
