//! The broker's settings that the group machine obeys.

/// Settings of all groups of one broker; the defaults are Kafka's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupSettings {
    /// `group.initial.rebalance.delay.ms`, default 3,000.
    pub initial_rebalance_delay_ms: u32,
    /// `group.min.session.timeout.ms`, default 6,000.
    pub session_timeout_min_ms: u32,
    /// `group.max.session.timeout.ms`, default 1,800,000.
    pub session_timeout_max_ms: u32,
    /// `group.max.size`, default unlimited.
    pub size_max: usize,
    /// How long a new member may be parked in its first join, 300,000 as in Kafka: it has no id yet and so
    /// cannot send heartbeats.
    pub new_member_join_timeout_ms: u32,
    /// `offset.metadata.max.bytes`, default 4,096; counted in UTF-16 units as Kafka counts.
    pub offset_metadata_max: usize,
    /// `offsets.retention.minutes` in milliseconds, default seven days.
    pub offsets_retention_ms: i64,
}

impl Default for GroupSettings {
    fn default() -> Self {
        GroupSettings {
            initial_rebalance_delay_ms: 3_000,
            session_timeout_min_ms: 6_000,
            session_timeout_max_ms: 1_800_000,
            size_max: i32::MAX as usize,
            new_member_join_timeout_ms: 300_000,
            offset_metadata_max: 4_096,
            offsets_retention_ms: 7 * 24 * 60 * 60 * 1_000,
        }
    }
}
