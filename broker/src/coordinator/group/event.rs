//! What happens to a group: requests, finished appends, the passing of time.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use tidelog_protocol::types::{LeaderEpoch, Offset, TopicName, TopicPartition};

use super::charge::MemberCharge;
use super::error::GroupError;
use super::ids::{AppendId, Generation, InstanceId, MemberId, ReplyToken};
use super::member::{ClientIdentity, Protocol, Timeouts};

/// One event. Requests carry the token under which their reply is expected; each is answered exactly once.
#[derive(Clone, Debug)]
pub enum Event {
    /// JoinGroup.
    Join(Join),
    /// SyncGroup.
    Sync(Sync),
    /// Heartbeat.
    Heartbeat(Heartbeat),
    /// LeaveGroup.
    Leave(Leave),
    /// OffsetCommit.
    Commit(Commit),
    /// OffsetDelete.
    DeleteOffsets(ReplyToken, Vec<TopicPartition>),
    /// DeleteGroups.
    Delete(ReplyToken),
    /// Topics are gone; so are their offsets.
    TopicsDeleted(Arc<HashSet<TopicName>>),
    /// Time to look for expired offsets and for a group that nobody needs.
    ExpireOffsets,
    /// An append asked for by [`Effect::Append`](super::Effect::Append) is committed, or never will be.
    Appended(AppendId, Result<(), GroupError>),
    /// A moment asked for by [`Effect::WakeAt`](super::Effect::WakeAt) has come.
    Tick,
    /// The group leaves this broker: every waiting request is answered with the reason.
    Unload(GroupError),
}

/// A JoinGroup request.
#[derive(Clone, Debug)]
pub struct Join {
    /// Where the reply goes.
    pub token: ReplyToken,
    /// Id from an earlier reply; `None` from a newcomer.
    pub member: Option<MemberId>,
    /// `group.instance.id` of a static member.
    pub instance: Option<InstanceId>,
    /// Id for a newcomer, unique; made by the caller because the machine knows no randomness.
    pub fresh_id: MemberId,
    /// Who asks.
    pub client: ClientIdentity,
    /// The member's time-outs.
    pub timeouts: Timeouts,
    /// "consumer", "connect" and so on.
    pub protocol_type: Arc<str>,
    /// Assignment strategies in the member's order of preference, each with its opaque subscription.
    pub protocols: Vec<Protocol>,
    /// The memory that the member will hold.
    pub charge: MemberCharge,
    /// Whether a newcomer is sent back to join again with its id (version 4 on).
    pub requires_known_member: bool,
    /// Whether the client understands `skip_assignment` (version 9 on).
    pub knows_skip_assignment: bool,
}

/// A SyncGroup request.
#[derive(Clone, Debug)]
pub struct Sync {
    /// Where the reply goes.
    pub token: ReplyToken,
    /// Who asks.
    pub member: MemberId,
    /// `group.instance.id` of a static member.
    pub instance: Option<InstanceId>,
    /// Generation of the member's join.
    pub generation: Generation,
    /// Protocol type that the member believes in (version 5 on).
    pub protocol_type: Option<Arc<str>>,
    /// Protocol that the member believes in (version 5 on).
    pub protocol: Option<Arc<str>>,
    /// The leader's assignments; empty from all others.
    pub assignments: Vec<(MemberId, Bytes)>,
}

/// A Heartbeat request.
#[derive(Clone, Debug)]
pub struct Heartbeat {
    /// Where the reply goes.
    pub token: ReplyToken,
    /// Who asks.
    pub member: MemberId,
    /// `group.instance.id` of a static member.
    pub instance: Option<InstanceId>,
    /// Generation of the member's join.
    pub generation: Generation,
}

/// A LeaveGroup request.
#[derive(Clone, Debug)]
pub struct Leave {
    /// Where the reply goes.
    pub token: ReplyToken,
    /// Who leaves.
    pub members: Vec<Leaver>,
}

/// One member that leaves or is removed by an administrator.
#[derive(Clone, Debug)]
pub struct Leaver {
    /// Its id; an administrator who removes a static member gives none.
    pub member: Option<MemberId>,
    /// Its `group.instance.id`.
    pub instance: Option<InstanceId>,
}

/// An OffsetCommit request.
#[derive(Clone, Debug)]
pub struct Commit {
    /// Where the reply goes.
    pub token: ReplyToken,
    /// Who commits; `None` for a consumer outside group management.
    pub member: Option<MemberId>,
    /// `group.instance.id` of a static member.
    pub instance: Option<InstanceId>,
    /// Generation of the member's join; negative outside group management.
    pub generation: Generation,
    /// Whether the client knows GROUP_ID_NOT_FOUND here (version 9 on); older ones get ILLEGAL_GENERATION.
    pub knows_group_not_found: bool,
    /// Own retention time of versions 2 to 4.
    pub retention_ms: Option<i64>,
    /// What to commit.
    pub offsets: Vec<(TopicPartition, OffsetToCommit)>,
}

/// One offset to commit.
#[derive(Clone, Debug)]
pub struct OffsetToCommit {
    /// Next offset to read.
    pub offset: Offset,
    /// Epoch of the last record read, if known.
    pub leader_epoch: Option<LeaderEpoch>,
    /// The user's note.
    pub metadata: Arc<str>,
}
