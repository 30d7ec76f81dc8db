//! What all requests share.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tidelog_protocol::types::BrokerId;
use tidelog_replication::{Replication, TopicImage};
use tidelog_storage::manager::LogManager;
use tokio_util::sync::CancellationToken;

use crate::config::{BrokerConfig, ConfigManager, TopicSettings};
use crate::coordinator::GroupCoordinator;
use crate::kafka::budget::MemoryBudget;
use crate::kafka::handlers::fetch::sessions::FetchSessions;
use crate::kafka::handlers::init_producer_id::ProducerIds;
use crate::kafka::request_metrics::RequestMetrics;

/// The state that handlers, coordinators and listeners share.
pub struct Broker {
    /// `node.id`.
    pub id: BrokerId,
    /// Id of the cluster, as Kafka writes it.
    pub cluster_id: Arc<str>,
    /// The broker's and the topics' configuration.
    pub configs: Arc<ConfigManager>,
    /// Partitions and the cluster's metadata.
    pub replication: Arc<Replication>,
    /// The logs of the data directory.
    pub logs: Arc<LogManager>,
    /// Consumer groups.
    pub groups: Arc<GroupCoordinator>,
    /// Memory of requests.
    pub memory: MemoryBudget,
    /// Bounds of connections.
    pub limits: ConnectionLimits,
    /// Sessions of consumers.
    pub fetch_sessions: FetchSessions,
    /// Ids for idempotent producers.
    pub producer_ids: ProducerIds,
    /// What requests cost.
    pub request_metrics: RequestMetrics,
    /// Cancelled when the broker begins to stop: no new requests, parked ones are answered.
    pub draining: CancellationToken,
}

/// Bounds that each connection keeps.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    /// `socket.request.max.bytes`.
    pub request_bytes_max: usize,
    /// `connections.max.idle.ms`; `None` = no connection is closed for being idle.
    pub idle_max: Option<Duration>,
}

impl Broker {
    /// The broker's configuration in force.
    pub fn config(&self) -> Arc<BrokerConfig> {
        self.configs.broker()
    }

    /// A topic's settings in force.
    pub fn topic_settings(&self, topic: &TopicImage) -> Arc<TopicSettings> {
        self.configs.topic(topic.id, &topic.configs)
    }
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker")
            .field("id", &self.id)
            .field("cluster_id", &self.cluster_id)
            .finish_non_exhaustive()
    }
}
