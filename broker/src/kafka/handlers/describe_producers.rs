//! DescribeProducers: the idempotent producers that a partition remembers.

use std::collections::HashSet;

use tidelog_protocol::messages::describe_producers_response::{
    PartitionResponse, ProducerState, TopicResponse,
};
use tidelog_protocol::messages::{self, DescribeProducersRequest, DescribeProducersResponse};
use tidelog_protocol::types::{PartitionIndex, TopicName};
use tidelog_protocol::{ErrorCode, StrBytes};
use tidelog_replication::{MetadataImage, ProducerDescription};

use crate::kafka::context::RequestContext;
use crate::kafka::errors;
use crate::kafka::handlers::HandlerError;
use crate::kafka::memory::Building;

/// No transaction has been coordinated for the producer.
const NO_COORDINATOR_EPOCH: i32 = -1;
/// The producer has no open transaction.
const NO_TRANSACTION: i64 = -1;

/// What a producer takes in memory, and a partition beside its producers.
const PRODUCER_BYTES: usize = 100;

/// Answered by the partitions' leaders, each partition once.
pub async fn handle(
    cx: &RequestContext,
    request: DescribeProducersRequest,
) -> Result<DescribeProducersResponse, HandlerError> {
    let image = cx.broker.replication.image();
    let mut seen = HashSet::new();
    let mut building = Building::begin(cx);
    let mut topics = Vec::new();
    for topic in request.topics {
        let name = TopicName::from(topic.name.as_str());
        let mut partitions = Vec::new();
        for index in topic.partition_indexes {
            if !seen.insert((name.clone(), index)) {
                continue;
            }
            let response = partition(cx, &image, &name, index);
            let producers = response.active_producers.len();
            building.add((producers + 1) * PRODUCER_BYTES).await?;
            partitions.push(response);
        }
        topics.push(
            TopicResponse::default()
                .with_name(topic.name)
                .with_partitions(partitions),
        );
    }
    Ok(DescribeProducersResponse::default().with_topics(topics))
}

fn partition(
    cx: &RequestContext,
    image: &MetadataImage,
    name: &TopicName,
    index: i32,
) -> PartitionResponse {
    let response = PartitionResponse::default().with_partition_index(index);
    match producers(cx, image, name, PartitionIndex(index)) {
        Ok(producers) => response.with_active_producers(producers.iter().map(describe).collect()),
        Err(code) => response
            .with_error_code(code.code())
            .with_error_message(Some(StrBytes::from_string(code.to_string()))),
    }
}

fn producers(
    cx: &RequestContext,
    image: &MetadataImage,
    name: &TopicName,
    index: PartitionIndex,
) -> Result<Vec<ProducerDescription>, ErrorCode> {
    let topic = image
        .topic(name)
        .ok_or(ErrorCode::UnknownTopicOrPartition)?;
    topic
        .partition(index)
        .ok_or(ErrorCode::UnknownTopicOrPartition)?;
    let partition = cx
        .broker
        .replication
        .partition(topic.id, index)
        .ok_or(ErrorCode::NotLeaderOrFollower)?;
    if !partition.state().is_leader() {
        return Err(ErrorCode::NotLeaderOrFollower);
    }
    partition
        .describe_producers()
        .map_err(|error| errors::read(&error))
}

fn describe(producer: &ProducerDescription) -> ProducerState {
    ProducerState::default()
        .with_producer_id(messages::ProducerId(producer.producer.0))
        .with_producer_epoch(i32::from(producer.epoch.0))
        .with_last_sequence(producer.last_sequence.0)
        .with_last_timestamp(producer.last_timestamp.0)
        .with_coordinator_epoch(NO_COORDINATOR_EPOCH)
        .with_current_txn_start_offset(
            producer
                .transaction_start
                .map_or(NO_TRANSACTION, |offset| offset.0),
        )
}
