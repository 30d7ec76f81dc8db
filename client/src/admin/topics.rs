//! Creating, listing, describing, growing and deleting topics, and cutting their records.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidelog_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use tidelog_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use tidelog_protocol::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsTopic,
};
use tidelog_protocol::messages::{
    CreatePartitionsRequest, CreateTopicsRequest, DeleteRecordsRequest, DeleteTopicsRequest,
};
use tidelog_protocol::types::{Offset, TopicId, TopicName, TopicPartition};

use super::{Admin, check, final_unless_moved, only, text};
use crate::client::Topics;
use crate::error::Error;
use crate::metadata::TopicInfo;

/// A topic to be created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTopic {
    /// Its name.
    pub name: TopicName,
    /// Number of partitions; `None` is the broker's `num.partitions`.
    pub partitions: Option<i32>,
    /// Replicas of each partition; `None` is the broker's `default.replication.factor`.
    pub replication_factor: Option<i16>,
    /// Settings that differ from the broker's defaults.
    pub configs: BTreeMap<String, String>,
}

impl NewTopic {
    /// A topic with the broker's defaults.
    pub fn new(name: &str) -> Self {
        NewTopic {
            name: name.into(),
            partitions: None,
            replication_factor: None,
            configs: BTreeMap::new(),
        }
    }
}

/// What was created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatedTopic {
    /// Its id.
    pub id: TopicId,
    /// Number of partitions; -1 from brokers that do not say.
    pub partitions: i32,
    /// Replicas of each partition; -1 from brokers that do not say.
    pub replication_factor: i16,
}

/// A topic in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSummary {
    /// Its name.
    pub name: TopicName,
    /// Its id.
    pub id: TopicId,
    /// Whether brokers keep their own state in it.
    pub is_internal: bool,
    /// Number of partitions.
    pub partitions: usize,
    /// Replicas of its first partition.
    pub replication_factor: usize,
}

impl Admin {
    /// Creates a topic.
    pub async fn create_topic(&self, topic: &NewTopic) -> Result<CreatedTopic, Error> {
        let wire = CreatableTopic::default()
            .with_name((&topic.name).into())
            .with_num_partitions(topic.partitions.unwrap_or(-1))
            .with_replication_factor(topic.replication_factor.unwrap_or(-1))
            .with_configs(
                topic
                    .configs
                    .iter()
                    .map(|(name, value)| {
                        CreatableTopicConfig::default()
                            .with_name(text(name))
                            .with_value(Some(text(value)))
                    })
                    .collect(),
            );
        let request = CreateTopicsRequest::default()
            .with_topics(vec![wire])
            .with_timeout_ms(self.timeout_ms());
        self.ask_controller(request, |reply| {
            let result = only(reply.topics)?;
            check(result.error_code, &result.error_message)?;
            Ok(CreatedTopic {
                id: TopicId(result.topic_id),
                partitions: result.num_partitions,
                replication_factor: result.replication_factor,
            })
        })
        .await
    }

    /// Deletes a topic and all its records.
    pub async fn delete_topic(&self, name: &TopicName) -> Result<(), Error> {
        let request = DeleteTopicsRequest::default()
            .with_topic_names(vec![name.into()])
            .with_timeout_ms(self.timeout_ms());
        self.ask_controller(request, |reply| {
            let result = only(reply.responses)?;
            final_unless_moved(check(result.error_code, &result.error_message))
        })
        .await?
    }

    /// All topics, by name.
    pub async fn list_topics(&self) -> Result<Vec<TopicSummary>, Error> {
        let topics = self.describe_topics().await?;
        let summaries = topics.iter().map(|topic| TopicSummary {
            name: topic.name.clone(),
            id: topic.id,
            is_internal: topic.is_internal,
            partitions: topic.partitions.len(),
            replication_factor: topic
                .partitions
                .first()
                .map_or(0, |partition| partition.replicas.len()),
        });
        Ok(summaries.collect())
    }

    /// All topics with their partitions as the brokers know them now, by name.
    pub async fn describe_topics(&self) -> Result<Vec<Arc<TopicInfo>>, Error> {
        self.client
            .retry(&[], async || self.client.refresh(Topics::All, false).await)
            .await?;
        let mut topics: Vec<_> = self.client.image().topics().cloned().collect();
        topics.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(topics)
    }

    /// A topic as the brokers know it now; never creates it.
    pub async fn describe_topic(&self, name: &TopicName) -> Result<Arc<TopicInfo>, Error> {
        let mut errors = self
            .client
            .refresh(Topics::Some(std::slice::from_ref(name)), false)
            .await?;
        if errors.remove(name).is_none()
            && let Some((_, topic)) = self.client.image().topic(name)
        {
            return Ok(topic);
        }
        self.client.topic(name, false).await
    }

    /// Raises the number of partitions to `total`.
    pub async fn create_partitions(&self, name: &TopicName, total: i32) -> Result<(), Error> {
        let topic = CreatePartitionsTopic::default()
            .with_name(name.into())
            .with_count(total)
            .with_assignments(None);
        let request = CreatePartitionsRequest::default()
            .with_topics(vec![topic])
            .with_timeout_ms(self.timeout_ms());
        self.ask_controller(request, |reply| {
            let result = only(reply.results)?;
            final_unless_moved(check(result.error_code, &result.error_message))
        })
        .await?
    }

    /// Deletes the records of a partition before `before` (`None`: all that there are). Yields the partition's
    /// new first offset.
    pub async fn delete_records(
        &self,
        of: &TopicPartition,
        before: Option<Offset>,
    ) -> Result<Offset, Error> {
        let partition = DeleteRecordsPartition::default()
            .with_partition_index(of.partition.0)
            .with_offset(before.unwrap_or(Offset::NONE).0);
        let topic = DeleteRecordsTopic::default()
            .with_name((&of.topic).into())
            .with_partitions(vec![partition]);
        let request = DeleteRecordsRequest::default()
            .with_topics(vec![topic])
            .with_timeout_ms(self.timeout_ms());
        self.ask_leader(of, request, |reply| {
            let result = only(only(reply.topics)?.partitions)?;
            Error::check(result.error_code, None)?;
            Ok(Offset(result.low_watermark))
        })
        .await
    }
}
