//! A committed offset.

use std::sync::Arc;

use tidelog_protocol::types::{LeaderEpoch, Offset, TimestampMs};

/// Where a group stands in one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedOffset {
    /// Next offset to read.
    pub offset: Offset,
    /// Epoch of the last record read, if the client told it.
    pub leader_epoch: Option<LeaderEpoch>,
    /// The user's note.
    pub metadata: Arc<str>,
    /// When it was committed.
    pub commit_timestamp: TimestampMs,
    /// When it expires, if the client chose its own retention.
    pub expire_timestamp: Option<TimestampMs>,
}
