//! One member of a group.

use std::sync::Arc;

use bytes::Bytes;

use super::charge::MemberCharge;
use super::ids::{InstanceId, MemberId, MonotonicMs, ReplyToken};

/// An assignment strategy that a member supports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protocol {
    /// Its name: "range", "cooperative-sticky", ...
    pub name: Arc<str>,
    /// The member's subscription in that strategy's format; opaque.
    pub metadata: Bytes,
}

/// Who is behind a member, for tools that describe the group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientIdentity {
    /// `client.id` of the request.
    pub id: Arc<str>,
    /// Address, with Java's leading slash.
    pub host: Arc<str>,
}

/// A member's time-outs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Silence after which the member is removed.
    pub session_ms: u32,
    /// Time to rejoin when the group rebalances.
    pub rebalance_ms: u32,
}

/// A member. At most one join and one sync of it are parked.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its id.
    pub id: MemberId,
    /// Its `group.instance.id`; such a member is static and stays when it misses a rebalance.
    pub instance: Option<InstanceId>,
    /// Who it is.
    pub client: ClientIdentity,
    /// Its time-outs.
    pub timeouts: Timeouts,
    /// What it supports, most wanted first; each name once.
    pub protocols: Vec<Protocol>,
    /// The memory that it holds.
    pub(super) charge: MemberCharge,
    /// What the leader gave it; empty before the first sync.
    pub assignment: Bytes,
    /// Whether its first join is still parked: it does not know its id and cannot send heartbeats.
    pub(super) is_new: bool,
    /// The parked join.
    pub(super) awaiting_join: Option<ReplyToken>,
    /// The parked sync.
    pub(super) awaiting_sync: Option<ReplyToken>,
    /// When it is removed if nothing is heard; `None` while a parked request proves that it lives.
    pub(super) deadline: Option<MonotonicMs>,
}

/// A newcomer that was told to join again with its id.
#[derive(Debug)]
pub(super) struct PendingMember {
    /// Until when it is waited for.
    pub(super) until: MonotonicMs,
    pub(super) _charge: MemberCharge,
}

impl Member {
    /// Whether the member stays in the group when it misses a rebalance.
    pub fn is_static(&self) -> bool {
        self.instance.is_some()
    }

    /// Subscription for the named protocol; empty if the member does not support it.
    pub fn metadata(&self, protocol: &str) -> Bytes {
        self.protocols
            .iter()
            .find(|p| *p.name == *protocol)
            .map(|p| p.metadata.clone())
            .unwrap_or_default()
    }

    /// Whether an expired session is excused by a request that waits for the group.
    pub(super) fn is_excused(&self) -> bool {
        !self.is_new && (self.awaiting_join.is_some() || self.awaiting_sync.is_some())
    }
}
