//! The image of the cluster: what all brokers agree on, as of one version.
//!
//! Immutable once published; versions share what did not change, so that keeping an old one costs little.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidelog_protocol::types::{
    BrokerId, LeaderEpoch, PartitionIndex, TopicId, TopicName, TopicPartition,
};
use uuid::Uuid;

use crate::metadata::command::ConfigResource;
use crate::metadata::sharded_map::ShardedMap;
use crate::options::Endpoint;
use crate::peers::PeerAddress;
use crate::raft::types::ReplicaId;

/// A registered broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerImage {
    /// Id.
    pub id: BrokerId,
    /// Rises with each registration of the cluster.
    pub epoch: i64,
    /// Id of its data directory.
    pub directory_id: Uuid,
    /// Id of the run that registered.
    pub incarnation: Uuid,
    /// Rack.
    pub rack: Option<String>,
    /// Advertised listeners.
    pub endpoints: Vec<Endpoint>,
    /// Where it listens for other brokers.
    pub peer_address: Option<PeerAddress>,
    /// Whether it is kept from leading because it is not heard of.
    pub fenced: bool,
    /// Highest feature level that its program knows.
    pub feature_level_max: u16,
}

impl BrokerImage {
    /// The broker with the data directory that it registered with.
    pub fn replica(&self) -> ReplicaId {
        ReplicaId {
            broker: self.id,
            directory: self.directory_id,
        }
    }
}

/// Replicas on their way to other brokers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reassignment {
    /// The replicas before; a cancellation goes back to them.
    pub from: Vec<BrokerId>,
    /// The replicas that are wanted.
    pub to: Vec<BrokerId>,
    /// Version of the image that asked for it first.
    pub since: u64,
    /// The replicas that are wanted after that: one of them lost what it had and comes back without it.
    pub then: Option<Vec<BrokerId>>,
}

impl Reassignment {
    /// Whether it was cancelled, and only takes away again what it had brought.
    pub fn is_cancelled(&self) -> bool {
        self.from == self.to
    }

    /// Whether a broker's replica, which lost what it had, goes before it comes back.
    pub fn takes_out(&self, broker: BrokerId) -> bool {
        self.then.is_some() && !self.to.contains(&broker)
    }
}

/// One partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionImage {
    /// All replicas; the first is preferred as leader. During a reassignment the wanted ones come first, then those that
    /// will go.
    pub replicas: Arc<[BrokerId]>,
    /// The reassignment in progress.
    pub reassignment: Option<Arc<Reassignment>>,
    /// Replicas in sync.
    pub isr: Arc<[BrokerId]>,
    /// Leader, once one reported.
    pub leader: Option<BrokerId>,
    /// Epoch of the last reported leader.
    pub leader_epoch: LeaderEpoch,
    /// Rises with each change of this partition's metadata.
    pub partition_epoch: i32,
}

impl PartitionImage {
    /// The reassignment in progress, as an operator sees it: one that was cancelled is over.
    pub fn moving(&self) -> Option<&Reassignment> {
        let reassignment = self.reassignment.as_deref();
        reassignment.filter(|it| !it.is_cancelled())
    }

    /// Brokers that get a replica.
    pub fn adding(&self) -> Vec<BrokerId> {
        self.moving()
            .map_or_else(Vec::new, |it| without(&it.to, &it.from))
    }

    /// Brokers that lose theirs.
    pub fn removing(&self) -> Vec<BrokerId> {
        self.moving()
            .map_or_else(Vec::new, |it| without(&it.from, &it.to))
    }

    /// The replicas that it has, or is to have once a reassignment is done.
    pub fn wanted(&self) -> &[BrokerId] {
        let reassignment = self.reassignment.as_deref();
        reassignment.map_or(&*self.replicas, |it| it.then.as_deref().unwrap_or(&it.to))
    }

    /// Since which version of the image a broker that has no part in the partition is to get a replica of it.
    pub fn added_since(&self, broker: BrokerId) -> Option<u64> {
        let reassignment = self.reassignment.as_deref();
        let added = reassignment.filter(|it| {
            it.then.is_none() && it.to.contains(&broker) && !it.from.contains(&broker)
        });
        added.map(|it| it.since)
    }
}

/// Those that are not among others.
fn without(some: &[BrokerId], others: &[BrokerId]) -> Vec<BrokerId> {
    let left = some.iter().filter(|broker| !others.contains(broker));
    left.copied().collect()
}

/// One topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicImage {
    /// Name.
    pub name: TopicName,
    /// Id.
    pub id: TopicId,
    /// Partitions by index.
    pub partitions: Vec<PartitionImage>,
    /// Configuration that differs from the default.
    pub configs: BTreeMap<String, String>,
}

impl TopicImage {
    /// One partition.
    pub fn partition(&self, index: PartitionIndex) -> Option<&PartitionImage> {
        self.partitions.get(usize::try_from(index.0).ok()?)
    }

    /// The same, to be changed.
    pub(super) fn partition_mut(&mut self, index: PartitionIndex) -> Option<&mut PartitionImage> {
        self.partitions.get_mut(usize::try_from(index.0).ok()?)
    }
}

/// The cluster as of one version.
#[derive(Clone, Debug)]
pub struct MetadataImage {
    /// Rises with each change.
    pub(crate) version: u64,
    pub(crate) cluster_id: Uuid,
    pub(crate) feature_level: u16,
    pub(crate) features: BTreeMap<String, i16>,
    pub(crate) brokers: Arc<BTreeMap<BrokerId, Arc<BrokerImage>>>,
    pub(crate) topics: ShardedMap<TopicName, Arc<TopicImage>>,
    pub(crate) topic_names: ShardedMap<TopicId, TopicName>,
    /// Names with `.` or `_`, by their form with `_` only.
    pub(crate) folded_names: ShardedMap<String, TopicName>,
    pub(crate) configs: Arc<BTreeMap<ConfigResource, Arc<BTreeMap<String, String>>>>,
    pub(crate) controller: Option<BrokerId>,
    pub(crate) next_producer_id: i64,
    pub(crate) next_broker_epoch: i64,
    pub(crate) partition_count: usize,
}

impl Default for MetadataImage {
    fn default() -> Self {
        MetadataImage {
            version: 0,
            cluster_id: Uuid::nil(),
            feature_level: 0,
            features: BTreeMap::new(),
            brokers: Arc::default(),
            topics: ShardedMap::default(),
            topic_names: ShardedMap::default(),
            folded_names: ShardedMap::default(),
            configs: Arc::default(),
            controller: None,
            next_producer_id: 0,
            next_broker_epoch: 1,
            partition_count: 0,
        }
    }
}

impl MetadataImage {
    /// Rises with each change.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Id of the cluster.
    pub fn cluster_id(&self) -> Uuid {
        self.cluster_id
    }

    /// The broker that leads the controller group, where known.
    pub fn controller(&self) -> Option<BrokerId> {
        self.controller
    }

    /// All registered brokers, by id.
    pub fn brokers(&self) -> impl Iterator<Item = &Arc<BrokerImage>> {
        self.brokers.values()
    }

    /// A broker.
    pub fn broker(&self, id: BrokerId) -> Option<&Arc<BrokerImage>> {
        self.brokers.get(&id)
    }

    /// Whether a broker is registered and not fenced.
    pub fn is_live(&self, id: BrokerId) -> bool {
        self.broker(id).is_some_and(|broker| !broker.fenced)
    }

    /// The leader of a partition, if its broker is live. One that died is on record until another is elected, which takes
    /// most of the replicas.
    pub fn live_leader(&self, partition: &PartitionImage) -> Option<BrokerId> {
        partition.leader.filter(|leader| self.is_live(*leader))
    }

    /// Whether no more than one broker is registered.
    pub fn is_alone(&self) -> bool {
        self.brokers.len() <= 1
    }

    /// All topics, in no order.
    pub fn topics(&self) -> impl Iterator<Item = &Arc<TopicImage>> {
        self.topics.values()
    }

    /// Number of topics.
    pub fn topic_count(&self) -> usize {
        self.topics.len()
    }

    /// Number of partitions of all topics.
    pub fn partition_count(&self) -> usize {
        self.partition_count
    }

    /// A topic by name.
    pub fn topic(&self, name: &TopicName) -> Option<&Arc<TopicImage>> {
        self.topics.get(name)
    }

    /// A topic by id.
    pub fn topic_by_id(&self, id: TopicId) -> Option<&Arc<TopicImage>> {
        self.topics.get(self.topic_names.get(&id)?)
    }

    /// A partition by name and index.
    pub fn partition(&self, partition: &TopicPartition) -> Option<&PartitionImage> {
        self.topic(&partition.topic)?.partition(partition.partition)
    }

    /// A partition by the id of its topic and index.
    pub fn partition_by_id(
        &self,
        topic: TopicId,
        index: PartitionIndex,
    ) -> Option<&PartitionImage> {
        self.topic_by_id(topic)?.partition(index)
    }

    /// The partitions of which a broker has, or is to have, a replica.
    pub fn partitions_of(&self, broker: BrokerId) -> Vec<TopicPartition> {
        let of_topic = |topic: &'_ Arc<TopicImage>| {
            let indexes = (0..).map(PartitionIndex).zip(&topic.partitions);
            let held = indexes.filter(|(_, partition)| partition.replicas.contains(&broker));
            let named = held.map(|(partition, _)| TopicPartition {
                topic: topic.name.clone(),
                partition,
            });
            named.collect::<Vec<_>>()
        };
        self.topics().flat_map(of_topic).collect()
    }

    /// Configuration of a resource that differs from the default.
    pub fn configs(&self, resource: &ConfigResource) -> Option<&BTreeMap<String, String>> {
        match resource {
            ConfigResource::Topic(name) => self.topics.get(name).map(|topic| &topic.configs),
            other => self.configs.get(other).map(Arc::as_ref),
        }
    }

    /// Resources other than topics that have a configuration.
    pub fn config_resources(&self) -> impl Iterator<Item = &ConfigResource> {
        self.configs.keys()
    }

    /// The topic whose name differs from `name` only in `.` and `_`, if any.
    pub fn colliding_topic(&self, name: &TopicName) -> Option<&TopicName> {
        self.folded_names
            .get(&fold_name(name.as_str()))
            .filter(|existing| *existing != name)
    }

    /// Level of the metadata's format; all brokers know it.
    pub fn feature_level(&self) -> u16 {
        self.feature_level
    }

    /// Finalized features and their levels.
    pub fn features(&self) -> &BTreeMap<String, i16> {
        &self.features
    }
}

/// The form that colliding names share.
pub(crate) fn fold_name(name: &str) -> String {
    name.replace('.', "_")
}
