//! What of a group is stored beside its offsets: its last generation.

use std::sync::Arc;

use bytes::Bytes;
use tidelog_protocol::types::TimestampMs;

use super::ids::{Generation, InstanceId, MemberId};
use super::member::{ClientIdentity, Timeouts};

/// One generation of a group, as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMetadata {
    /// Protocol type; `None` for a group that never had members.
    pub protocol_type: Option<Arc<str>>,
    /// The generation.
    pub generation: Generation,
    /// The protocol voted for; `None` without members.
    pub protocol: Option<Arc<str>>,
    /// Who assigned.
    pub leader: Option<MemberId>,
    /// When the group came into its state; [`TimestampMs::NONE`] in records of old brokers.
    pub state_timestamp: TimestampMs,
    /// The members; none when the group is empty.
    pub members: Vec<StoredMember>,
}

/// A member, as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredMember {
    /// Its id.
    pub id: MemberId,
    /// Its `group.instance.id`.
    pub instance: Option<InstanceId>,
    /// Who it is.
    pub client: ClientIdentity,
    /// Its time-outs.
    pub timeouts: Timeouts,
    /// Its subscription for the generation's protocol.
    pub subscription: Bytes,
    /// Its assignment.
    pub assignment: Bytes,
}
