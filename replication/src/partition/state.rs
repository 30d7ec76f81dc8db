//! What a partition looks like at one moment.

use tidelog_protocol::types::{BrokerId, LeaderEpoch, Offset};

/// Part that a replica plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Serves reads and writes.
    Leader,
    /// Copies the leader, or waits for one.
    Follower,
    /// Its log failed; it serves nothing until a person acts or the broker restarts.
    Offline,
}

/// Role, epoch and offsets of a replica, read together.
///
/// `log_start <= last_stable_offset <= high_watermark <= log_end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionState {
    /// Part that it plays.
    pub role: Role,
    /// Leader, where known.
    pub leader: Option<BrokerId>,
    /// Epoch of that leader.
    pub leader_epoch: LeaderEpoch,
    /// Offset at which this epoch began; until the high watermark reaches it, the latest offset is not known.
    pub epoch_start: Offset,
    /// First offset that is not committed.
    pub high_watermark: Offset,
    /// First offset of the oldest open transaction, or the high watermark.
    pub last_stable_offset: Offset,
    /// First offset that is kept.
    pub log_start: Offset,
    /// First offset that is not written.
    pub log_end: Offset,
}

impl PartitionState {
    /// Whether this replica leads.
    pub fn is_leader(&self) -> bool {
        self.role == Role::Leader
    }
}
