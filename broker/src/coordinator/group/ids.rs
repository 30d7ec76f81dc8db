//! The names, numbers and times of the group machine, as newtypes.

use std::fmt;
use std::sync::Arc;

use tidelog_protocol::types::TimestampMs;

/// Name of a consumer group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub Arc<str>);

/// Id of a member, made by the coordinator. Never empty: "no id yet" is `None` where it can occur.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId(pub Arc<str>);

/// `group.instance.id` of a static member, chosen by its user.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceId(pub Arc<str>);

/// Number of a group's generation; rises with every completed join phase. -1 on the wire means none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub i32);

/// Names a parked request; the caller keeps the way back to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplyToken(pub u64);

/// Names an append that the machine asked for, within one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AppendId(pub u64);

/// Milliseconds on a clock that never goes back; its zero means nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MonotonicMs(pub i64);

/// The time of an event: timers run on the monotonic clock, records carry the wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// For deadlines.
    pub mono: MonotonicMs,
    /// For what is stored.
    pub wall: TimestampMs,
}

impl Generation {
    /// "No generation" on the wire.
    pub const NONE: Generation = Generation(-1);

    /// The generation after this one.
    pub fn next(self) -> Generation {
        Generation(self.0.wrapping_add(1).max(0))
    }
}

impl MonotonicMs {
    /// The moment `ms` milliseconds later.
    pub fn after(self, ms: u32) -> MonotonicMs {
        MonotonicMs(self.0.saturating_add(i64::from(ms)))
    }
}

impl From<&str> for GroupId {
    fn from(name: &str) -> Self {
        GroupId(Arc::from(name))
    }
}

impl From<&str> for MemberId {
    fn from(name: &str) -> Self {
        MemberId(Arc::from(name))
    }
}

impl From<&str> for InstanceId {
    fn from(name: &str) -> Self {
        InstanceId(Arc::from(name))
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
