//! DescribeTopicPartitions: topics in pages, in the order of their names (KIP-966).

use tidelog_protocol::messages::describe_topic_partitions_request;
use tidelog_protocol::messages::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use tidelog_protocol::messages::{
    self, DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse,
};
use tidelog_protocol::types::TopicName;
use tidelog_protocol::{ErrorCode, StrBytes};
use tidelog_replication::{MetadataImage, PartitionImage, TopicImage};

use crate::kafka::context::RequestContext;
use crate::kafka::handlers::metadata::{ids, offline};
use crate::kafka::handlers::{HandlerError, authorized_operations};

/// Answers from the image of the cluster's metadata, beginning at the cursor.
pub async fn handle(
    cx: &RequestContext,
    request: DescribeTopicPartitionsRequest,
) -> Result<DescribeTopicPartitionsResponse, HandlerError> {
    let image = cx.broker.replication.image();
    let limit_max = cx.broker.config().fetch.describe_partitions_max.max(1);
    let limit = usize::try_from(request.response_partition_limit)
        .unwrap_or(1)
        .clamp(1, limit_max);
    if request
        .cursor
        .as_ref()
        .is_some_and(|cursor| cursor.partition_index < 0)
    {
        return Err(HandlerError::InvalidRequest(
            "cursor with a negative partition".to_owned(),
        ));
    }
    let names = page_names(&image, &request);
    let mut page = Page {
        image: &image,
        left: limit,
        topics: Vec::new(),
        next: None,
    };
    for name in names {
        let first = match &request.cursor {
            Some(cursor) if cursor.topic_name.as_str() == name => {
                usize::try_from(cursor.partition_index).unwrap_or(0)
            }
            _ => 0,
        };
        if !page.add(&name, first) {
            break;
        }
    }
    Ok(DescribeTopicPartitionsResponse::default()
        .with_topics(page.topics)
        .with_next_cursor(page.next))
}

/// The names asked for (all, if none is), sorted, from the cursor on.
fn page_names(image: &MetadataImage, request: &DescribeTopicPartitionsRequest) -> Vec<String> {
    let mut names: Vec<String> = if request.topics.is_empty() {
        image
            .topics()
            .map(|topic| topic.name.as_str().to_owned())
            .collect()
    } else {
        request
            .topics
            .iter()
            .map(|topic| topic.name.to_string())
            .collect()
    };
    if let Some(describe_topic_partitions_request::Cursor { topic_name, .. }) = &request.cursor {
        names.retain(|name| name.as_str() >= topic_name.as_str());
    }
    names.sort_unstable();
    names.dedup();
    names
}

struct Page<'a> {
    image: &'a MetadataImage,
    left: usize,
    topics: Vec<DescribeTopicPartitionsResponseTopic>,
    next: Option<Cursor>,
}

impl Page<'_> {
    /// Adds a topic from a partition on; false when the page is full.
    fn add(&mut self, name: &str, first: usize) -> bool {
        if self.left == 0 {
            self.next = Some(cursor(name, first));
            return false;
        }
        let Some(topic) = self.image.topic(&TopicName::from(name)) else {
            self.topics.push(unknown(name));
            return true;
        };
        let end = topic.partitions.len().min(first.saturating_add(self.left));
        let partitions = topic.partitions.get(first..end).unwrap_or_default();
        self.left -= partitions.len();
        let answers = partitions
            .iter()
            .zip(first..)
            .map(|(partition, index)| self.partition(partition, index));
        self.topics.push(described(topic, answers.collect()));
        if end < topic.partitions.len() {
            self.next = Some(cursor(name, end));
            return false;
        }
        true
    }

    fn partition(
        &self,
        partition: &PartitionImage,
        index: usize,
    ) -> DescribeTopicPartitionsResponsePartition {
        let leader = self.image.live_leader(partition);
        let code = match leader {
            Some(_) => 0,
            None => ErrorCode::LeaderNotAvailable.code(),
        };
        DescribeTopicPartitionsResponsePartition::default()
            .with_error_code(code)
            .with_partition_index(i32::try_from(index).unwrap_or(i32::MAX))
            .with_leader_id(leader.map_or(-1, |leader| leader.0).into())
            .with_leader_epoch(partition.leader_epoch.0)
            .with_replica_nodes(ids(&partition.replicas))
            .with_isr_nodes(ids(&partition.isr))
            .with_eligible_leader_replicas(Some(Vec::new()))
            .with_last_known_elr(Some(Vec::new()))
            .with_offline_replicas(offline(self.image, &partition.replicas))
    }
}

fn described(
    topic: &TopicImage,
    partitions: Vec<DescribeTopicPartitionsResponsePartition>,
) -> DescribeTopicPartitionsResponseTopic {
    DescribeTopicPartitionsResponseTopic::default()
        .with_name(Some(name_of(topic.name.as_str())))
        .with_topic_id(topic.id.0)
        .with_is_internal(crate::kafka::is_internal(topic.name.as_str()))
        .with_partitions(partitions)
        .with_topic_authorized_operations(authorized_operations::TOPIC)
}

fn unknown(name: &str) -> DescribeTopicPartitionsResponseTopic {
    DescribeTopicPartitionsResponseTopic::default()
        .with_error_code(ErrorCode::UnknownTopicOrPartition.code())
        .with_name(Some(name_of(name)))
        .with_is_internal(crate::kafka::is_internal(name))
        .with_topic_authorized_operations(authorized_operations::NOT_ASKED)
}

fn cursor(topic: &str, partition: usize) -> Cursor {
    let index = i32::try_from(partition).unwrap_or(i32::MAX);
    Cursor::default()
        .with_topic_name(name_of(topic))
        .with_partition_index(index)
}

fn name_of(name: &str) -> messages::TopicName {
    StrBytes::from_string(name.to_owned()).into()
}
