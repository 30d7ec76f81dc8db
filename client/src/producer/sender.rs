//! One Produce request to one broker, and what became of each of its batches.

use std::collections::HashMap;

use tidelog_protocol::batch::RecordBatch;
use tidelog_protocol::encode::ReplyBuffer;
use tidelog_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use tidelog_protocol::messages::produce_response::PartitionProduceResponse;
use tidelog_protocol::messages::{ProduceRequest, ProduceResponse};
use tidelog_protocol::types::{BrokerId, Offset, PartitionIndex, TopicName, TopicPartition};
use tidelog_protocol::{ErrorCode, StrBytes};

use super::{Acks, ProducerConfig};
use crate::admin::by_topic;
use crate::client::{Client, Lane, Topics};
use crate::error::Error;

/// What became of one batch.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It is stored, at this offset if that is known.
    Stored(Option<Offset>),
    /// It failed; single records may have reasons of their own.
    Failed(Error, Vec<(usize, Error)>),
}

/// Sends batches to the broker that leads their partitions. Every batch gets an outcome.
pub(super) async fn send(
    client: Client,
    leader: Result<BrokerId, Error>,
    config: &ProducerConfig,
    batches: Vec<(TopicPartition, RecordBatch)>,
) -> HashMap<TopicPartition, Outcome> {
    let partitions: Vec<_> = batches.iter().map(|(to, _)| to.clone()).collect();
    let sent = match leader {
        Ok(leader) => exchange(&client, leader, config, batches).await,
        Err(error) => Err(error),
    };
    let outcomes = match sent {
        Ok(outcomes) => outcomes,
        Err(error) => partitions
            .iter()
            .map(|to| (to.clone(), Outcome::Failed(error.clone(), Vec::new())))
            .collect(),
    };
    let is_stale = |outcome: &Outcome| match outcome {
        Outcome::Failed(error, _) => error.is_stale_metadata(),
        Outcome::Stored(_) => false,
    };
    if outcomes.values().any(is_stale) {
        let topics: Vec<TopicName> = partitions.into_iter().map(|to| to.topic).collect();
        // A failure shows in the next attempt.
        client.refresh(Topics::Some(&topics), false).await.ok();
    }
    outcomes
}

async fn exchange(
    client: &Client,
    leader: BrokerId,
    config: &ProducerConfig,
    batches: Vec<(TopicPartition, RecordBatch)>,
) -> Result<HashMap<TopicPartition, Outcome>, Error> {
    let connection = client.broker(leader, Lane::Produce).await?;
    let timeout = client.config().request_timeout;
    let partitions: Vec<_> = batches.iter().map(|(to, _)| to.clone()).collect();
    let mut records = ReplyBuffer::new();
    let mut topics = Vec::new();
    for (topic, batches) in by_topic(batches) {
        let mut data = Vec::with_capacity(batches.len());
        for (PartitionIndex(index), batch) in batches {
            let bytes = records
                .register_batches(vec![batch])
                .map_err(|error| Error::Invalid(error.to_string()))?;
            data.push(
                PartitionProduceData::default()
                    .with_index(index)
                    .with_records(Some(bytes)),
            );
        }
        topics.push(
            TopicProduceData::default()
                .with_name((&topic).into())
                .with_partition_data(data),
        );
    }
    let request = ProduceRequest::default()
        .with_acks(config.acks.wire())
        .with_timeout_ms(i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX))
        .with_topic_data(topics);
    if config.acks == Acks::None {
        connection.send_with(&records, |_| request).await?;
        let stored = partitions.into_iter().map(|to| (to, Outcome::Stored(None)));
        return Ok(stored.collect());
    }
    let reply = connection.call_with(&records, timeout, |_| request).await?;
    let mut outcomes = read_outcomes(reply);
    for to in partitions {
        outcomes.entry(to).or_insert_with(|| {
            let error = Error::Malformed {
                address: connection.address().to_owned(),
                reason: "the answer leaves out a partition".to_owned(),
            };
            Outcome::Failed(error, Vec::new())
        });
    }
    Ok(outcomes)
}

fn read_outcomes(reply: ProduceResponse) -> HashMap<TopicPartition, Outcome> {
    let mut outcomes = HashMap::new();
    for topic in &reply.responses {
        let name = TopicName::from(&topic.name);
        for partition in &topic.partition_responses {
            let to = TopicPartition {
                topic: name.clone(),
                partition: PartitionIndex(partition.index),
            };
            outcomes.insert(to, read_outcome(partition));
        }
    }
    outcomes
}

fn read_outcome(partition: &PartitionProduceResponse) -> Outcome {
    // A retry of a batch that is stored and no longer remembered in detail.
    if partition.error_code == ErrorCode::DuplicateSequenceNumber.code() {
        return Outcome::Stored(None);
    }
    let message = partition.error_message.as_ref().map(StrBytes::as_str);
    match Error::check(partition.error_code, message) {
        Ok(()) => {
            Outcome::Stored((partition.base_offset >= 0).then_some(Offset(partition.base_offset)))
        }
        Err(error) => {
            let of_records = partition
                .record_errors
                .iter()
                .filter_map(|record| {
                    let index = usize::try_from(record.batch_index).ok()?;
                    let message = record
                        .batch_index_error_message
                        .as_ref()
                        .map(StrBytes::as_str);
                    let own = Error::check(partition.error_code, message).err()?;
                    Some((index, own))
                })
                .collect();
            Outcome::Failed(error, of_records)
        }
    }
}
