//! Settings of the coordinator, from the broker's.

use std::time::Duration;

use super::group::GroupSettings;
use super::offsets_topic::OffsetsTopicConfig;
use crate::config::BrokerConfig;

/// Settings of the coordinator.
#[derive(Clone, Debug)]
pub struct CoordinatorConfig {
    /// Rules of the groups.
    pub groups: GroupSettings,
    /// The topic that holds them.
    pub topic: OffsetsTopicConfig,
    /// `offsets.retention.check.interval.ms`, default 600,000.
    pub retention_check_interval: Duration,
}

impl CoordinatorConfig {
    /// The settings in a broker's configuration.
    pub fn of(config: &BrokerConfig) -> CoordinatorConfig {
        let (groups, offsets) = (&config.groups, &config.offsets);
        CoordinatorConfig {
            groups: GroupSettings {
                initial_rebalance_delay_ms: millis(groups.initial_rebalance_delay),
                session_timeout_min_ms: millis(groups.min_session_timeout),
                session_timeout_max_ms: millis(groups.max_session_timeout),
                size_max: groups.max_size,
                offset_metadata_max: offsets.metadata_bytes_max,
                offsets_retention_ms: i64::try_from(offsets.retention.as_millis())
                    .unwrap_or(i64::MAX),
                ..GroupSettings::default()
            },
            topic: OffsetsTopicConfig {
                partition_count: usize::try_from(offsets.topic_num_partitions)
                    .unwrap_or(1)
                    .max(1),
                replication_factor: usize::try_from(offsets.topic_replication_factor)
                    .unwrap_or(1)
                    .max(1),
                segment_bytes: u32::try_from(offsets.topic_segment_bytes).unwrap_or(u32::MAX),
            },
            retention_check_interval: offsets.retention_check_interval,
        }
    }
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}
