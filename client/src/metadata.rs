//! What is known of the cluster: brokers, and the topics that somebody asked for.
//!
//! An image is immutable; a refresh makes a new one. What it says may be out of date: brokers correct whoever
//! believes it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tidelog_protocol::messages::MetadataResponse;
use tidelog_protocol::messages::metadata_response::MetadataResponseTopic;
use tidelog_protocol::types::{BrokerId, LeaderEpoch, PartitionIndex, TopicId, TopicName};
use tidelog_protocol::{ErrorCode, StrBytes, messages};
use tokio::time::Instant;

use crate::error::Error;

/// One broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerInfo {
    /// Its id.
    pub id: BrokerId,
    /// `host:port` for clients.
    pub address: String,
    /// Its rack, if it has one.
    pub rack: Option<String>,
}

/// One topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicInfo {
    /// Its name.
    pub name: TopicName,
    /// Its id; [`TopicId::NONE`] from brokers that have none.
    pub id: TopicId,
    /// Whether brokers keep their own state in it.
    pub is_internal: bool,
    /// Its partitions, by index.
    pub partitions: Vec<PartitionInfo>,
}

/// One partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionInfo {
    /// Its index.
    pub index: PartitionIndex,
    /// The broker that leads it; `None` during elections.
    pub leader: Option<BrokerId>,
    /// The leader's epoch.
    pub leader_epoch: LeaderEpoch,
    /// Brokers that hold it.
    pub replicas: Vec<BrokerId>,
    /// Those of them that are caught up.
    pub in_sync: Vec<BrokerId>,
}

/// The cluster at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Image {
    pub(crate) brokers: BTreeMap<BrokerId, BrokerInfo>,
    pub(crate) controller: Option<BrokerId>,
    topics: HashMap<TopicName, (Instant, Arc<TopicInfo>)>,
}

impl Image {
    /// This image with what a reply says laid over it; also what is wrong with each topic that it names.
    /// A reply to "all topics" also says which ones are gone.
    pub(crate) fn updated(
        &self,
        reply: MetadataResponse,
        names_all: bool,
    ) -> (Image, HashMap<TopicName, Error>) {
        let now = Instant::now();
        let mut errors = HashMap::new();
        let brokers = reply.brokers.iter().map(|broker| {
            let address = host_port(broker.host.as_str(), broker.port);
            let info = BrokerInfo::read(broker.node_id, address, &broker.rack);
            (info.id, info)
        });
        let mut image = Image {
            brokers: brokers.collect(),
            controller: broker_if_any(reply.controller_id),
            topics: if names_all {
                HashMap::new()
            } else {
                self.topics.clone()
            },
        };
        for topic in reply.topics {
            let Some(name) = topic.name.as_ref().map(TopicName::from) else {
                continue;
            };
            match ErrorCode::try_from_code(topic.error_code) {
                // Some partitions have no leader: the others can be used.
                None | Some(ErrorCode::LeaderNotAvailable) if !topic.partitions.is_empty() => {
                    let info = Arc::new(TopicInfo::read(name.clone(), &topic));
                    image.topics.insert(name, (now, info));
                }
                code => {
                    image.topics.remove(&name);
                    let code = code.unwrap_or(ErrorCode::LeaderNotAvailable);
                    errors.insert(name, Error::broker(code));
                }
            }
        }
        (image, errors)
    }

    /// A topic and when it was learned of.
    pub(crate) fn topic(&self, name: &TopicName) -> Option<(Instant, Arc<TopicInfo>)> {
        self.topics.get(name).cloned()
    }

    /// All topics that are known.
    pub(crate) fn topics(&self) -> impl Iterator<Item = &Arc<TopicInfo>> {
        self.topics.values().map(|(_, topic)| topic)
    }
}

impl BrokerInfo {
    pub(crate) fn read(id: messages::BrokerId, address: String, rack: &Option<StrBytes>) -> Self {
        BrokerInfo {
            id: BrokerId(id.0),
            address,
            rack: rack.as_ref().map(ToString::to_string),
        }
    }
}

impl TopicInfo {
    fn read(name: TopicName, topic: &MetadataResponseTopic) -> TopicInfo {
        let mut partitions: Vec<_> = topic
            .partitions
            .iter()
            .map(|partition| PartitionInfo {
                index: PartitionIndex(partition.partition_index),
                leader: broker_if_any(partition.leader_id),
                leader_epoch: LeaderEpoch(partition.leader_epoch),
                replicas: broker_ids(&partition.replica_nodes),
                in_sync: broker_ids(&partition.isr_nodes),
            })
            .collect();
        partitions.sort_by_key(|partition| partition.index);
        TopicInfo {
            name,
            id: TopicId(topic.topic_id),
            is_internal: topic.is_internal,
            partitions,
        }
    }

    /// One of its partitions.
    pub fn partition(&self, index: PartitionIndex) -> Option<&PartitionInfo> {
        self.partitions
            .iter()
            .find(|partition| partition.index == index)
    }
}

/// A broker where the wire may also say that there is none, by a negative id.
pub(crate) fn broker_if_any(id: messages::BrokerId) -> Option<BrokerId> {
    (id.0 >= 0).then_some(BrokerId(id.0))
}

/// Brokers as a reply lists them.
pub(crate) fn broker_ids(ids: &[messages::BrokerId]) -> Vec<BrokerId> {
    ids.iter().map(|id| BrokerId(id.0)).collect()
}

/// An IPv6 address gets its brackets.
pub(crate) fn host_port(host: &str, port: i32) -> String {
    if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_ipv6_get_brackets() {
        assert_eq!(host_port("::1", 9092), "[::1]:9092");
        assert_eq!(host_port("[::1]", 9092), "[::1]:9092");
        assert_eq!(host_port("broker", 1), "broker:1");
    }
}
