//! One Fetch request to one broker.

use std::collections::HashMap;

use bytes::Bytes;
use tidelog_protocol::messages::FetchRequest;
use tidelog_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use tidelog_protocol::types::{BrokerId, Offset, PartitionIndex, TopicName, TopicPartition};

use super::ConsumerConfig;
use crate::admin::by_topic;
use crate::client::{Client, Lane};
use crate::error::Error;

/// Kafka's session epoch of a request outside of any fetch session.
const NO_SESSION: i32 = -1;

/// What came of a request: for each partition what was asked, and what is there.
#[derive(Debug)]
pub(super) struct Fetched {
    pub(super) partitions: Vec<(TopicPartition, Offset, Result<Bytes, Error>)>,
}

/// Asks the leader of some partitions for what comes at their offsets and after. Every partition gets a result.
pub(super) async fn fetch(
    client: &Client,
    leader: BrokerId,
    config: &ConsumerConfig,
    partitions: Vec<(TopicPartition, Offset)>,
) -> Fetched {
    let mut results = match exchange(client, leader, config, &partitions).await {
        Ok(results) => results,
        Err(error) => partitions
            .iter()
            .map(|(of, _)| (of.clone(), Err(error.clone())))
            .collect(),
    };
    let partitions = partitions
        .into_iter()
        .map(|(of, asked)| {
            let result = results.remove(&of).unwrap_or(Ok(Bytes::new()));
            (of, asked, result)
        })
        .collect();
    Fetched { partitions }
}

async fn exchange(
    client: &Client,
    leader: BrokerId,
    config: &ConsumerConfig,
    partitions: &[(TopicPartition, Offset)],
) -> Result<HashMap<TopicPartition, Result<Bytes, Error>>, Error> {
    let connection = client.broker(leader, Lane::Fetch).await?;
    let topics = by_topic(partitions.iter().cloned())
        .into_iter()
        .map(|(topic, partitions)| {
            let partitions = partitions
                .into_iter()
                .map(|(partition, offset)| {
                    FetchPartition::default()
                        .with_partition(partition.0)
                        .with_fetch_offset(offset.0)
                        .with_partition_max_bytes(config.partition_fetch_bytes)
                })
                .collect();
            FetchTopic::default()
                .with_topic((&topic).into())
                .with_partitions(partitions)
        })
        .collect();
    let request = FetchRequest::default()
        .with_replica_id((-1).into())
        .with_max_wait_ms(i32::try_from(config.fetch_wait.as_millis()).unwrap_or(i32::MAX))
        .with_min_bytes(1)
        .with_max_bytes(config.fetch_bytes)
        .with_session_epoch(NO_SESSION)
        .with_topics(topics);
    let timeout = client.config().request_timeout + config.fetch_wait;
    let reply = connection.call(timeout, |_| request).await?;
    Error::check(reply.error_code, None)?;
    let mut results = HashMap::new();
    for topic in reply.responses {
        let name = TopicName::from(&topic.topic);
        for partition in topic.partitions {
            let of = TopicPartition {
                topic: name.clone(),
                partition: PartitionIndex(partition.partition_index),
            };
            let result = Error::check(partition.error_code, None)
                .map(|()| partition.records.unwrap_or_default());
            results.insert(of, result);
        }
    }
    Ok(results)
}
