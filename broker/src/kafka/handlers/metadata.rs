//! Metadata: brokers, topics, leaders; and the one place where topics come into being by themselves (rule 31).

use std::collections::HashSet;

use tidelog_protocol::messages::metadata_request::MetadataRequestTopic;
use tidelog_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use tidelog_protocol::messages::{self, MetadataRequest, MetadataResponse};
use tidelog_protocol::types::{BrokerId, TopicId, TopicName};
use tidelog_protocol::{ErrorCode, StrBytes};
use tidelog_replication::{MetadataImage, PartitionImage, TopicImage};
use uuid::Uuid;

use crate::kafka::context::RequestContext;
use crate::kafka::handlers::{HandlerError, authorized_operations, auto_create, endpoints};
use crate::kafka::memory::Building;

/// What a topic and a partition take in memory.
const TOPIC_BYTES: usize = 200;
const PARTITION_BYTES: usize = 100;

/// From this version on an unknown listener has an error code of its own.
const LISTENER_ERROR_VERSION_MIN: i16 = 6;

/// Answers from the image of the cluster's metadata.
pub async fn handle(
    cx: &RequestContext,
    request: MetadataRequest,
) -> Result<MetadataResponse, HandlerError> {
    let answerer = Answerer {
        version: cx.version(),
        listener: &cx.connection.listener,
        operations: if request.include_topic_authorized_operations {
            authorized_operations::TOPIC
        } else {
            authorized_operations::NOT_ASKED
        },
    };
    let topics = match request.topics {
        // Before version 1 there is no null, and the empty list means all.
        Some(asked) if !(asked.is_empty() && cx.version() == 0) => {
            named_topics(cx, &answerer, asked, request.allow_auto_topic_creation).await?
        }
        _ => all_topics(cx, &answerer).await?,
    };
    let image = cx.broker.replication.image();
    let leader = cx.broker.replication.controller().leader();
    let controller = endpoints::controller(&image, leader, cx.broker.id);
    let brokers = endpoints::nodes(&image, &cx.connection.listener)
        .into_iter()
        .filter(|node| !node.fenced)
        .map(|node| {
            MetadataResponseBroker::default()
                .with_node_id(node.id.0.into())
                .with_host(node.host)
                .with_port(node.port)
                .with_rack(node.rack)
        })
        .collect();
    let cluster_operations = if request.include_cluster_authorized_operations {
        authorized_operations::CLUSTER
    } else {
        authorized_operations::NOT_ASKED
    };
    Ok(MetadataResponse::default()
        .with_brokers(brokers)
        .with_cluster_id(Some(StrBytes::from_string(
            cx.broker.cluster_id.to_string(),
        )))
        .with_controller_id(controller.0.into())
        .with_topics(topics)
        .with_cluster_authorized_operations(cluster_operations))
}

async fn all_topics(
    cx: &RequestContext,
    answerer: &Answerer<'_>,
) -> Result<Vec<MetadataResponseTopic>, HandlerError> {
    let image = cx.broker.replication.image();
    let mut building = Building::begin(cx);
    let mut answers = Vec::new();
    for topic in image.topics() {
        let answer = answerer.topic(&image, topic);
        building.add(size_of(&answer)).await?;
        answers.push(answer);
    }
    Ok(answers)
}

/// About as many bytes as the answer takes in memory.
fn size_of(topic: &MetadataResponseTopic) -> usize {
    TOPIC_BYTES + topic.partitions.len() * PARTITION_BYTES
}

/// The topics without repetitions, as Kafka takes them for a set.
fn distinct(mut asked: Vec<MetadataRequestTopic>) -> Vec<MetadataRequestTopic> {
    let mut seen = HashSet::with_capacity(asked.len());
    asked.retain(|topic| seen.insert((topic.topic_id, topic.name.clone())));
    asked
}

/// Topics by name or id, in the order asked for.
async fn named_topics(
    cx: &RequestContext,
    answerer: &Answerer<'_>,
    asked: Vec<MetadataRequestTopic>,
    auto_create: bool,
) -> Result<Vec<MetadataResponseTopic>, HandlerError> {
    let mut answers = Vec::new();
    let mut building = Building::begin(cx);
    for topic in distinct(asked) {
        let image = cx.broker.replication.image();
        let answer = if !topic.topic_id.is_nil() {
            answerer.topic_by_id(&image, TopicId(topic.topic_id))
        } else if let Some(name) = topic.name {
            match answerer.topic_by_name(&image, &name) {
                Some(answer) => answer,
                None => missing_topic(cx, answerer, name, auto_create).await,
            }
        } else {
            answerer.refused(None, Uuid::nil(), ErrorCode::InvalidRequest)
        };
        building.add(size_of(&answer)).await?;
        answers.push(answer);
    }
    Ok(answers)
}

async fn missing_topic(
    cx: &RequestContext,
    answerer: &Answerer<'_>,
    name: messages::TopicName,
    auto_create: bool,
) -> MetadataResponseTopic {
    let code = auto_create::topic(cx, &name, auto_create).await;
    answerer.refused(Some(name), Uuid::nil(), code)
}

/// What does not change from one topic of a response to the next.
struct Answerer<'a> {
    version: i16,
    listener: &'a str,
    operations: i32,
}

impl Answerer<'_> {
    fn topic_by_name(&self, image: &MetadataImage, name: &str) -> Option<MetadataResponseTopic> {
        image
            .topic(&TopicName::from(name))
            .map(|topic| self.topic(image, topic))
    }

    fn topic_by_id(&self, image: &MetadataImage, id: TopicId) -> MetadataResponseTopic {
        match image.topic_by_id(id) {
            Some(topic) => self.topic(image, topic),
            None => self.refused(None, id.0, ErrorCode::UnknownTopicId),
        }
    }

    fn topic(&self, image: &MetadataImage, topic: &TopicImage) -> MetadataResponseTopic {
        let partitions = topic
            .partitions
            .iter()
            .zip(0i32..)
            .map(|(partition, index)| self.partition(image, partition, index))
            .collect();
        MetadataResponseTopic::default()
            .with_name(Some((&topic.name).into()))
            .with_topic_id(topic.id.0)
            .with_is_internal(crate::kafka::is_internal(topic.name.as_str()))
            .with_partitions(partitions)
            .with_topic_authorized_operations(self.operations)
    }

    fn partition(
        &self,
        image: &MetadataImage,
        partition: &PartitionImage,
        index: i32,
    ) -> MetadataResponsePartition {
        let leader = image.live_leader(partition);
        let code = match leader {
            None => Some(ErrorCode::LeaderNotAvailable),
            Some(leader) if endpoints::node(image, leader, self.listener).is_some() => None,
            Some(_) if self.version >= LISTENER_ERROR_VERSION_MIN => {
                Some(ErrorCode::ListenerNotFound)
            }
            Some(_) => Some(ErrorCode::LeaderNotAvailable),
        };
        MetadataResponsePartition::default()
            .with_error_code(code.map_or(0, |code| code.code()))
            .with_partition_index(index)
            .with_leader_id(leader.map_or(-1, |leader| leader.0).into())
            .with_leader_epoch(partition.leader_epoch.0)
            .with_replica_nodes(ids(&partition.replicas))
            .with_isr_nodes(ids(&partition.isr))
            .with_offline_replicas(offline(image, &partition.replicas))
    }

    fn refused(
        &self,
        name: Option<messages::TopicName>,
        id: Uuid,
        code: ErrorCode,
    ) -> MetadataResponseTopic {
        // Versions before 12 cannot say that there is no name.
        let name = if self.version < 12 {
            Some(name.unwrap_or_default())
        } else {
            name
        };
        let is_internal = name
            .as_ref()
            .is_some_and(|name| crate::kafka::is_internal(name));
        MetadataResponseTopic::default()
            .with_error_code(code.code())
            .with_name(name)
            .with_topic_id(id)
            .with_is_internal(is_internal)
            .with_topic_authorized_operations(self.operations)
    }
}

/// Brokers as messages name them.
pub fn ids(brokers: &[BrokerId]) -> Vec<messages::BrokerId> {
    brokers.iter().map(|broker| broker.0.into()).collect()
}

/// Replicas on brokers that are not heard of.
pub fn offline(image: &MetadataImage, replicas: &[BrokerId]) -> Vec<messages::BrokerId> {
    let is_offline = |id: &&BrokerId| !image.is_live(**id);
    replicas
        .iter()
        .filter(is_offline)
        .map(|broker| broker.0.into())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_that_is_named_again_and_again_is_answered_once() {
        let by_name = |name: &'static str| {
            MetadataRequestTopic::default().with_name(Some(StrBytes::from_static_str(name).into()))
        };
        let by_id = MetadataRequestTopic::default()
            .with_name(None)
            .with_topic_id(Uuid::from_u128(1));
        let asked = [
            vec![by_name("b"), by_id.clone(), by_name("a")],
            vec![by_name("b"); 100],
            vec![by_id.clone()],
        ];
        let left = distinct(asked.concat());
        assert_eq!(left, [by_name("b"), by_id, by_name("a")]);
    }
}
