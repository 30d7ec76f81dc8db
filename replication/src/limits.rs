//! Bounds of this crate, each with its reason.

/// Partitions of one topic. A topic's image and its creation record are one allocation and one log entry each.
pub const TOPIC_PARTITIONS_MAX: usize = 100_000;

/// Replicas of one partition. More than a handful only slows the commit.
pub const PARTITION_REPLICAS_MAX: usize = 32;

/// Bytes of one configuration key.
pub const CONFIG_KEY_BYTES_MAX: usize = 256;

/// Bytes of one configuration value: as Kafka's longest string.
pub const CONFIG_VALUE_BYTES_MAX: usize = 32_767;

/// Configuration keys of one resource.
pub const CONFIG_KEYS_MAX: usize = 1_000;

/// Resources with a configuration of their own, topics not counted.
pub const CONFIG_RESOURCES_MAX: usize = 100_000;

/// Bytes of a topic name: Kafka's rule.
pub const TOPIC_NAME_BYTES_MAX: usize = 249;

/// Producer ids handed out at once.
pub const PRODUCER_IDS_MAX: i32 = 1_000_000;

/// Leader reports in one record: about 100 KiB.
pub const LEADER_REPORTS_MAX: usize = 1_000;

/// Bytes of one metadata record, which is one log entry.
pub const METADATA_RECORD_BYTES_MAX: usize = 16 << 20;

/// Bytes of one piece of a metadata snapshot in the key-value store.
pub const SNAPSHOT_CHUNK_BYTES: usize = 1 << 20;

/// Batches that may wait for their commit in one partition. Below the group's mailbox, so that a submit never waits for it.
pub const PARTITION_IN_FLIGHT_BATCHES_MAX: usize = 384;

/// Mailbox of a consensus group, in messages.
pub const GROUP_MAILBOX: u64 = 512;

/// Groups that are started or stopped at the same time: enough to share the syncs of their votes.
pub const GROUPS_CHANGING_MAX: usize = 256;

/// Entries read at once for the state machine: headers only.
pub const APPLY_HEADERS_MAX: usize = 4_096;

/// Bytes of entries read at once for a peer.
pub const REPLICATION_READ_BYTES_MAX: usize = 1 << 20;
