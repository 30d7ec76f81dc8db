//! The broker's configuration as typed fields, for the code that runs.
//!
//! Owns the shape and the checks that span several properties. Knows nothing of files, flags or Kafka messages; each
//! field names the property that it comes from. Built once at start and again when a dynamic property changes; read
//! through [`super::ConfigManager::broker`].

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tidelog_protocol::types::BrokerId;

use tidelog_replication::{CompactionOptions, ThrottleRates};

use super::address::{HostPort, Listener};

/// Everything that a running broker reads from its configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct BrokerConfig {
    /// `node.id`, or its older name `broker.id`.
    pub node_id: BrokerId,
    /// `broker.rack`.
    pub rack: Option<Arc<str>>,
    /// `log.dirs`, or `log.dir`: the one data directory.
    pub data_dir: PathBuf,
    /// Listeners, connections and frames.
    pub network: NetworkConfig,
    /// What new topics get.
    pub topics: TopicDefaults,
    /// Retention and its pace.
    pub log: LogTasksConfig,
    /// Journal, memory and disk of the data directory.
    pub storage: StorageConfig,
    /// Requests to the controller.
    pub replication: ReplicationConfig,
    /// Consumer groups.
    pub groups: GroupsConfig,
    /// Committed offsets and `__consumer_offsets`.
    pub offsets: OffsetsConfig,
    /// Fetch replies and sessions.
    pub fetch: FetchConfig,
    /// The process as a whole.
    pub process: ProcessConfig,
}

/// Listeners, connections and frames.
#[derive(Clone, Debug, PartialEq)]
pub struct NetworkConfig {
    /// `listeners`, without those of `controller.listener.names`.
    pub listeners: Vec<Listener>,
    /// `advertised.listeners`; the address of each entry of `listeners`, in the same order. A port of 0 stands for the
    /// port that the listener was really bound to.
    pub advertised_listeners: Vec<Listener>,
    /// `http.listeners`.
    pub http_listeners: Vec<HostPort>,
    /// `inter.broker.listener`: where other brokers of the cluster connect to; `None` = the broker stays alone.
    pub inter_broker_listener: Option<HostPort>,
    /// `inter.broker.advertised.listener`: what they are told, if it is not that.
    pub inter_broker_advertised: Option<HostPort>,
    /// `cluster.join`: brokers of the cluster to join with an empty data directory.
    pub bootstrap_servers: Vec<HostPort>,
    /// `cluster.secret.file`.
    pub cluster_secret_file: Option<PathBuf>,
    /// `inter.broker.listener.name`: the Kafka listener whose advertised address stands for the broker where a listener
    /// has none of its own.
    pub inter_broker_listener_name: Arc<str>,
    /// `max.connections`.
    pub max_connections: usize,
    /// `max.connections.per.ip`.
    pub max_connections_per_ip: usize,
    /// `max.connections.per.ip.overrides`; host names are not resolved, only addresses are accepted.
    pub max_connections_per_ip_overrides: HashMap<IpAddr, usize>,
    /// `connections.max.idle.ms`; `None` = connections are never closed for being idle.
    pub connections_max_idle: Option<Duration>,
    /// `socket.request.max.bytes`.
    pub request_bytes_max: usize,
    /// `socket.listen.backlog.size`.
    pub listen_backlog: u32,
}

/// What new topics get when the request does not say.
#[derive(Clone, Debug, PartialEq)]
pub struct TopicDefaults {
    /// `num.partitions`.
    pub num_partitions: i32,
    /// `default.replication.factor`; `None` = as many as there are brokers, 3 at most, and an odd number.
    pub replication_factor: Option<i16>,
    /// `auto.create.topics.enable`.
    pub auto_create: bool,
    /// `delete.topic.enable`.
    pub delete: bool,
}

/// Pace of retention and compaction.
#[derive(Clone, Debug, PartialEq)]
pub struct LogTasksConfig {
    /// `log.retention.check.interval.ms`.
    pub retention_check_interval: Duration,
    /// `log.cleaner.*`.
    pub compaction: CompactionOptions,
}

/// Journal, memory and disk of the data directory.
#[derive(Clone, Debug, PartialEq)]
pub struct StorageConfig {
    /// `journal.file.bytes`: size of one preallocated journal file.
    pub journal_file_bytes: u64,
    /// `journal.files.min`: files kept ready for reuse.
    pub journal_files_min: u32,
    /// `journal.bytes.max`: appends wait for segment syncs beyond this much journal.
    pub journal_bytes_max: u64,
    /// `cache.bytes`: recent batches kept in memory for tailing readers.
    pub cache_bytes: u64,
    /// `open.segment.files.max`: segment file handles kept open; `None` = a share of the process's open-file limit.
    pub open_segment_files_max: Option<u32>,
    /// `disk.reserve.bytes`: produce is refused below this much free space ...
    pub disk_reserve_bytes: u64,
    /// `disk.reserve.percent`: ... or below this share of the file system, whichever is less.
    pub disk_reserve_percent: f64,
}

/// Requests to the controller, and what it expects of brokers.
#[derive(Clone, Debug, PartialEq)]
pub struct ReplicationConfig {
    /// `broker.session.timeout.ms`.
    pub session_timeout: Duration,
    /// `replica.lag.time.max.ms`.
    pub replica_lag_max: Duration,
    /// `leader.replication.throttled.rate` and `follower.replication.throttled.rate`.
    pub throttle_rates: ThrottleRates,
    /// `leader.imbalance.check.interval.seconds`; `None`: `auto.leader.rebalance.enable` is false.
    pub leader_rebalance_interval: Option<Duration>,
    /// `auto.rebalance` is `on_join`.
    pub rebalance_on_join: bool,
    /// `partition.hibernation.idle.ms`; `None`: never.
    pub hibernation_idle: Option<Duration>,
    /// `request.timeout.ms`.
    pub request_timeout: Duration,
}

/// Classic consumer groups.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupsConfig {
    /// `group.initial.rebalance.delay.ms`.
    pub initial_rebalance_delay: Duration,
    /// `group.min.session.timeout.ms`.
    pub min_session_timeout: Duration,
    /// `group.max.session.timeout.ms`.
    pub max_session_timeout: Duration,
    /// `group.max.size`.
    pub max_size: usize,
}

/// Committed offsets and the topic that holds them.
#[derive(Clone, Debug, PartialEq)]
pub struct OffsetsConfig {
    /// `offset.metadata.max.bytes`.
    pub metadata_bytes_max: usize,
    /// `offsets.retention.minutes`.
    pub retention: Duration,
    /// `offsets.retention.check.interval.ms`.
    pub retention_check_interval: Duration,
    /// `offsets.topic.num.partitions`.
    pub topic_num_partitions: i32,
    /// `offsets.topic.replication.factor`; never more than there are brokers when the topic is created.
    pub topic_replication_factor: i16,
    /// `offsets.topic.segment.bytes`.
    pub topic_segment_bytes: i32,
}

/// Fetch replies and sessions.
#[derive(Clone, Debug, PartialEq)]
pub struct FetchConfig {
    /// `fetch.max.bytes`.
    pub response_bytes_max: usize,
    /// `max.incremental.fetch.session.cache.slots`; 0 = no sessions.
    pub session_slots: usize,
    /// `replica.selector.class`.
    pub replica_selector: ReplicaSelector,
    /// `max.request.partition.size.limit`: partitions in one DescribeTopicPartitions reply.
    pub describe_partitions_max: usize,
}

/// Where leaders send consumers to read (KIP-392).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicaSelector {
    /// Nowhere: they read from the leader.
    Leader,
    /// To a replica in their rack.
    RackAware,
}

/// How the broker writes its own log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text for a person, coloured on a terminal.
    Plain,
    /// One JSON object a line.
    Json,
}

/// The process as a whole.
#[derive(Clone, Debug, PartialEq)]
pub struct ProcessConfig {
    /// `log.format`.
    pub log_format: LogFormat,
    /// `log.level`: a level, or directives `target=level` separated by commas.
    pub log_level: String,
    /// `shutdown.timeout.ms`: the drain ends after this at the latest.
    pub shutdown_timeout: Duration,
    /// `queued.max.request.bytes`: frames being read or answered, all connections together.
    pub request_memory_bytes: usize,
}
