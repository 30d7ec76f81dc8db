//! What the broker tells replication at start.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use tidelog_protocol::types::BrokerId;
use tidelog_storage::log::LogConfig;
use uuid::Uuid;

use crate::metadata::image::{MetadataImage, TopicImage};
use crate::metadata::levels::FEATURE_LEVELS;
use crate::peers::PeerAddress;
use crate::throttle::{ThrottleRates, ThrottledReplicas};

/// How a listener protects its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SecurityProtocol {
    /// No encryption, no authentication.
    Plaintext,
    /// TLS.
    Ssl,
    /// SASL without encryption.
    SaslPlaintext,
    /// SASL over TLS.
    SaslSsl,
}

/// One listener of a broker, with the address that it advertises.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// Listener name, e.g. `PLAINTEXT`.
    pub listener: String,
    /// Advertised host.
    pub host: String,
    /// Advertised port.
    pub port: u16,
    /// Protection of the listener.
    pub security_protocol: SecurityProtocol,
}

/// Resolves a topic's log settings from its own and the brokers' configuration.
///
/// Called when a partition is opened and after each configuration change, on a runtime thread: must not block.
pub trait LogConfigSource: Send + Sync + 'static {
    /// Settings of the topic's logs. Must be a pure function of the topic and the brokers' current configuration.
    fn log_config(&self, topic: &TopicImage) -> LogConfig;
    /// `min.insync.replicas` of the topic.
    fn min_insync_replicas(&self, topic: &TopicImage) -> usize;
    /// How compacted logs are looked after, by the brokers' current configuration.
    fn compaction(&self) -> CompactionOptions {
        CompactionOptions::default()
    }
    /// The topic's replicas that are throttled while they catch up; `None`: none.
    fn throttled_replicas(&self, _topic: &TopicImage) -> Option<Arc<ThrottledReplicas>> {
        None
    }
    /// What all throttled replicas of this broker share, by the brokers' current configuration.
    fn throttle_rates(&self) -> ThrottleRates {
        ThrottleRates::default()
    }
    /// Called with each image before settings are asked for under it: the place to take over the brokers' configuration.
    fn follow(&self, _image: &MetadataImage) {}
}

/// How compacted logs are looked after.
#[derive(Clone, Debug, PartialEq)]
pub struct CompactionOptions {
    /// `log.cleaner.threads`: passes that run at once. Default 1; 0: nothing is compacted.
    pub threads: usize,
    /// `log.cleaner.backoff.ms`: pause when there is nothing to do. Default 15 s.
    pub backoff: Duration,
    /// `log.cleaner.dedupe.buffer.size`: memory for the newest offsets of keys, all passes together. Default 128 MiB.
    pub map_bytes_max: u64,
    /// `log.cleaner.io.max.bytes.per.second`: read and written, all passes together. Default without limit.
    pub bytes_per_second: f64,
    /// Entries that a follower may lack and still be waited for before they are compacted. One that lacks more, as while
    /// its broker is away, copies what is left if need be. Default 65,536.
    pub follower_lag_max: u64,
}

impl Default for CompactionOptions {
    fn default() -> Self {
        CompactionOptions {
            threads: 1,
            backoff: Duration::from_secs(15),
            map_bytes_max: 128 << 20,
            bytes_per_second: f64::MAX,
            follower_lag_max: 65_536,
        }
    }
}

/// Settings of [`Replication`](crate::Replication).
#[derive(Clone)]
pub struct ReplicationOptions {
    /// This broker's id.
    pub broker: BrokerId,
    /// Random id of the data directory. A broker whose disk was lost comes back as another replica.
    pub directory_id: Uuid,
    /// Whether that directory is of a broker that joins a cluster, and empty. Default false.
    pub new_directory: bool,
    /// Id of the cluster; must equal what the metadata says, unless this is the first start.
    pub cluster_id: Uuid,
    /// `broker.rack`.
    pub rack: Option<String>,
    /// Advertised listeners.
    pub endpoints: Vec<Endpoint>,
    /// Resolver of log settings.
    pub log_configs: Arc<dyn LogConfigSource>,
    /// Record bytes that may wait for their commit in one partition. Default 16 MiB.
    pub partition_in_flight_bytes_max: usize,
    /// Record bytes that may wait for their commit in all partitions. Default 256 MiB.
    pub broker_in_flight_bytes_max: usize,
    /// `log.retention.check.interval.ms`. Default 5 minutes.
    pub retention_check_interval: Duration,
    /// Where this broker listens for others; `None`: it is alone.
    pub peer_address: Option<PeerAddress>,
    /// `broker.session.timeout.ms`: silence after which a broker counts as dead. Default 3 s.
    pub session_timeout: Duration,
    /// `replica.lag.time.max.ms`: how long a replica may lack something and still be in sync. Default 30 s.
    pub replica_lag_max: Duration,
    /// `leader.imbalance.check.interval.seconds`: how often leaderships are given back to preferred replicas; `None`
    /// (`auto.leader.rebalance.enable=false`): never. Default 5 minutes.
    pub leader_rebalance_interval: Option<Duration>,
    /// `partition.hibernation.idle.ms`: after so long without use a partition's group leaves memory; `None`, the
    /// default: never.
    pub hibernation_idle: Option<Duration>,
    /// Whether the last run on the data directory stopped cleanly. Default true.
    pub stopped_cleanly: bool,
    /// Id of the machine's present run: another one after an unclean stop may mean that the power was lost.
    pub boot_id: String,
    /// Longest wait for the controller and the local partitions to be led at start. Default 60 s.
    pub start_timeout: Duration,
    /// Feature levels that this broker reads and writes. Default [`FEATURE_LEVELS`]; tests let a broker act as one of another
    /// version.
    pub feature_levels: RangeInclusive<u16>,
}

impl ReplicationOptions {
    /// Options with defaults for everything that is not named.
    pub fn new(
        broker: BrokerId,
        directory_id: Uuid,
        cluster_id: Uuid,
        log_configs: Arc<dyn LogConfigSource>,
    ) -> Self {
        ReplicationOptions {
            broker,
            directory_id,
            new_directory: false,
            cluster_id,
            rack: None,
            endpoints: Vec::new(),
            log_configs,
            partition_in_flight_bytes_max: 16 << 20,
            broker_in_flight_bytes_max: 256 << 20,
            retention_check_interval: Duration::from_secs(300),
            peer_address: None,
            session_timeout: Duration::from_secs(3),
            replica_lag_max: Duration::from_secs(30),
            leader_rebalance_interval: Some(Duration::from_secs(300)),
            hibernation_idle: None,
            stopped_cleanly: true,
            boot_id: String::new(),
            start_timeout: Duration::from_secs(60),
            feature_levels: FEATURE_LEVELS,
        }
    }
}

impl fmt::Debug for ReplicationOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplicationOptions")
            .field("broker", &self.broker)
            .field("directory_id", &self.directory_id)
            .field("cluster_id", &self.cluster_id)
            .field("rack", &self.rack)
            .field("endpoints", &self.endpoints)
            .finish_non_exhaustive()
    }
}
