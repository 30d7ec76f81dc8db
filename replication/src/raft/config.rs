//! openraft's settings, for partition groups and for the controller group.

use std::sync::Arc;

use openraft::{Config, ConfigError, SnapshotPolicy};
use tidelog_storage::journal::Durability;

use crate::limits::GROUP_MAILBOX;

/// Write and vote lease of partition groups in milliseconds. It bounds failover from below.
pub const PARTITION_LEASE_MS: u64 = 400;

/// Metadata entries between two snapshots of the image.
const CONTROLLER_SNAPSHOT_ENTRIES: u64 = 4_096;

/// Metadata entries kept behind a snapshot, for replicas that are a little behind.
const CONTROLLER_ENTRIES_KEPT: u64 = 1_024;

/// What a group makes of a vote for itself that it finds when it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnStart {
    /// It follows, and may ask for the leadership again.
    Follow,
    /// It leads, if the vote is committed. For groups that slept: what was committed is known then, all of it.
    Resume,
}

/// Settings of the groups of partitions. They neither tick nor beat nor elect by themselves: who is alive is decided
/// once for each broker, and an idle group costs nothing.
pub fn partition(durability: Durability, start: OnStart) -> Result<Arc<Config>, ConfigError> {
    let config = Config {
        cluster_name: "partition".into(),
        enable_tick: false,
        enable_heartbeat: false,
        enable_elect: false,
        heartbeat_interval: 100,
        election_timeout_min: 200,
        election_timeout_max: PARTITION_LEASE_MS,
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: 0,
        replication_lag_threshold: 64,
        max_payload_entries: 256,
        max_append_entries: Some(512),
        api_channel_size: Some(GROUP_MAILBOX),
        notification_channel_size: Some(4_096),
        state_machine_channel_size: Some(128),
        api_batch_capacity: 256,
        backoff: "50ms 100ms 200ms ...5s".into(),
        // A replica that answered from the page cache may come back shorter than it said.
        allow_log_reversion: Some(durability == Durability::Os),
        // The commit index is not saved with each commit: a restart elects.
        enable_leader_restore: Some(start == OnStart::Resume),
        install_snapshot_timeout: 10_000,
        ..Config::default()
    };
    config.validate().map(Arc::new)
}

/// Settings of the controller group, which keeps itself alive.
pub fn controller() -> Result<Arc<Config>, ConfigError> {
    let config = Config {
        cluster_name: "controller".into(),
        heartbeat_interval: 100,
        election_timeout_min: 300,
        election_timeout_max: 600,
        enable_pre_vote: Some(true),
        quorum_loss_probe_interval: Some(1_200),
        snapshot_policy: SnapshotPolicy::LogsSinceLast(CONTROLLER_SNAPSHOT_ENTRIES),
        max_in_snapshot_log_to_keep: CONTROLLER_ENTRIES_KEPT,
        max_payload_entries: 256,
        max_append_entries: Some(512),
        api_channel_size: Some(4_096),
        notification_channel_size: Some(4_096),
        state_machine_channel_size: Some(128),
        api_batch_capacity: 256,
        backoff: "50ms 100ms 200ms ...5s".into(),
        allow_log_reversion: Some(false),
        enable_leader_restore: Some(false),
        install_snapshot_timeout: 10_000,
        ..Config::default()
    };
    config.validate().map(Arc::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_valid() {
        for durability in [Durability::Sync, Durability::Os] {
            let config = partition(durability, OnStart::Follow).expect("valid");
            assert!(!config.enable_tick && !config.enable_elect && !config.enable_heartbeat);
        }
        assert!(controller().expect("valid").enable_tick);
    }
}
