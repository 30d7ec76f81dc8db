//! What can be asked of the controller, and its answers.

use std::collections::BTreeMap;
use std::fmt;

use tidelog_protocol::types::{
    BrokerId, LeaderEpoch, PartitionIndex, ProducerId, TopicId, TopicName,
};
use uuid::Uuid;

use crate::options::Endpoint;
use crate::peers::PeerAddress;

/// What a configuration belongs to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConfigResource {
    /// A topic.
    Topic(TopicName),
    /// A broker, or with `None` the default of all brokers.
    Broker(Option<BrokerId>),
    /// A group.
    Group(String),
    /// A client metrics subscription.
    ClientMetrics(String),
}

/// A broker that announces itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerRegistration {
    /// Its id.
    pub broker: BrokerId,
    /// Id of its data directory.
    pub directory_id: Uuid,
    /// Random id of this run of the process.
    pub incarnation: Uuid,
    /// Rack.
    pub rack: Option<String>,
    /// Advertised listeners.
    pub endpoints: Vec<Endpoint>,
    /// Where it listens for other brokers; `None`: it is alone.
    pub peer_address: Option<PeerAddress>,
    /// Highest feature level that its program knows.
    pub feature_level_max: u16,
    /// Whether the data directory is empty: it may take the place of one that was lost.
    pub new_directory: bool,
}

/// Who leads a partition, as the leader itself says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaderReport {
    /// Topic.
    pub topic: TopicId,
    /// Partition.
    pub partition: PartitionIndex,
    /// The leader.
    pub leader: BrokerId,
    /// Its epoch.
    pub epoch: LeaderEpoch,
    /// Replicas in sync, as the leader sees them.
    pub isr: Vec<BrokerId>,
}

/// A partition whose replicas are the ones that a reassignment asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompletedReassignment {
    /// Topic.
    pub topic: TopicId,
    /// Partition.
    pub partition: PartitionIndex,
    /// [`Reassignment::since`](super::image::Reassignment::since): a later one is not complete by this.
    pub since: u64,
}

/// A replica that lost something of what it had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DamagedReplica {
    /// Topic.
    pub topic: TopicId,
    /// Partition.
    pub partition: PartitionIndex,
    /// The replica's broker.
    pub broker: BrokerId,
}

/// A change of the cluster's metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// The first command of a cluster.
    Bootstrap {
        /// Id of the cluster.
        cluster_id: Uuid,
        /// Level of the metadata's format from the start.
        feature_level: u16,
    },
    /// A broker starts.
    RegisterBroker(BrokerRegistration),
    /// A broker is heard of no more, or again.
    SetBrokerFenced {
        /// Its id.
        broker: BrokerId,
        /// Epoch of the registration that this is about; nothing happens if there is a later one.
        epoch: i64,
        /// Whether it may lead nothing.
        fenced: bool,
    },
    /// A topic is created. The same topic again, with the same id, is no error: the first answer may have been lost.
    CreateTopic {
        /// Name.
        name: TopicName,
        /// Random id, chosen by the caller.
        id: TopicId,
        /// Replicas of each partition; the first is preferred as leader.
        assignments: Vec<Vec<BrokerId>>,
        /// Topic configuration that differs from the default.
        configs: BTreeMap<String, String>,
    },
    /// A topic is deleted.
    DeleteTopic {
        /// Its id.
        id: TopicId,
    },
    /// Partitions are added to a topic.
    CreatePartitions {
        /// Topic.
        id: TopicId,
        /// Replicas of each new partition.
        assignments: Vec<Vec<BrokerId>>,
    },
    /// A partition gets other replicas, or those it had before its reassignment.
    AlterReassignment {
        /// Topic.
        topic: TopicId,
        /// Partition.
        partition: PartitionIndex,
        /// The replicas that it is to have, the first preferred as leader; `None`: the reassignment is cancelled.
        target: Option<Vec<BrokerId>>,
    },
    /// Leaders say that reassignments are done.
    CompleteReassignments(Vec<CompletedReassignment>),
    /// A broker that has stopped and holds no replica is forgotten.
    UnregisterBroker {
        /// Its id.
        broker: BrokerId,
    },
    /// A replica lost what it had, and so knows neither what it acknowledged nor whom it voted for. It is taken out of its
    /// group and brought back empty.
    ReportDamage(DamagedReplica),
    /// Configuration changes, all or none.
    AlterConfigs {
        /// What they belong to.
        resource: ConfigResource,
        /// Key and new value; `None` removes the key.
        changes: Vec<(String, Option<String>)>,
    },
    /// A block of producer ids.
    AllocateProducerIds {
        /// Who asks.
        broker: BrokerId,
        /// How many.
        count: i32,
    },
    /// Leaders say that they lead.
    ReportLeaders(Vec<LeaderReport>),
    /// A finalized feature level changes.
    SetFeature {
        /// Feature name, e.g. `group.version`; [`METADATA_FEATURE`](super::levels::METADATA_FEATURE) is the level of
        /// the metadata's format.
        name: String,
        /// New level; 0 removes it, but for the level of the metadata's format, which only rises.
        level: i16,
    },
}

/// What a command brought about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done, nothing to tell.
    Done,
    /// The broker's epoch.
    BrokerRegistered {
        /// Rises with each registration.
        broker_epoch: i64,
    },
    /// A topic was created.
    TopicCreated {
        /// Its id.
        id: TopicId,
    },
    /// Producer ids `first .. first + count`.
    ProducerIds {
        /// First id.
        first: ProducerId,
        /// How many.
        count: i32,
    },
}

/// Why the metadata's rules refuse a command.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum MetadataError {
    /// The name is taken.
    #[error("topic {0} already exists")]
    TopicExists(TopicName),
    /// The cluster has an id already.
    #[error("the cluster has id {0} already")]
    AlreadyBootstrapped(Uuid),
    /// The id is taken.
    #[error("topic id is already in use")]
    TopicIdExists,
    /// No such topic.
    #[error("unknown topic")]
    UnknownTopic,
    /// The name is not one that Kafka allows.
    #[error("invalid topic name: {0}")]
    InvalidTopicName(String),
    /// The name differs from another one only in `.` and `_`.
    #[error("topic name collides with {existing}")]
    TopicNameCollision {
        /// The other one.
        existing: TopicName,
    },
    /// No partitions, or more than the cluster allows.
    #[error("invalid partitions: {0}")]
    InvalidPartitions(String),
    /// A replica list is empty or holds a broker twice.
    #[error("invalid replica assignment: {0}")]
    InvalidReplicaAssignment(String),
    /// A named broker is not registered.
    #[error("unknown broker {0}")]
    UnknownBroker(BrokerId),
    /// The topic has no such partition.
    #[error("unknown partition")]
    UnknownPartition,
    /// Nothing is there to cancel.
    #[error("no partition reassignment is in progress")]
    NoReassignment,
    /// A broker that is to be forgotten is needed.
    #[error("{0}")]
    BrokerInUse(String),
    /// A key or value is too long, or there are too many.
    #[error("invalid configuration: {0}")]
    InvalidConfig(String),
    /// The broker's id is held by another data directory.
    #[error("broker id {0} belongs to another data directory")]
    BrokerIdTaken(BrokerId),
    /// The count is not positive or the ids are used up.
    #[error("cannot allocate producer ids: {0}")]
    ProducerIds(String),
    /// The feature or its level is not known to all brokers.
    #[error("{0}")]
    InvalidFeature(String),
    /// The cluster's feature level does not allow it yet.
    #[error("{0}")]
    LevelTooLow(String),
    /// The command is of a kind or version that this program does not know.
    #[error("unsupported command: {0}")]
    Unsupported(String),
}

impl fmt::Display for ConfigResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigResource::Topic(name) => write!(f, "topic {name}"),
            ConfigResource::Broker(Some(id)) => write!(f, "broker {id}"),
            ConfigResource::Broker(None) => f.write_str("all brokers"),
            ConfigResource::Group(name) => write!(f, "group {name}"),
            ConfigResource::ClientMetrics(name) => write!(f, "client metrics {name}"),
        }
    }
}
