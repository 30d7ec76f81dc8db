//! DescribeProducers: the idempotent producers that a partition remembers.

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

/// No transaction has been coordinated for the producer.
const NO_COORDINATOR_EPOCH: i32 = -1;
/// The producer has no open transaction.
const NO_TRANSACTION: i64 = -1;

/// Answered by the partitions' leaders.
pub async fn handle(
    cx: &RequestContext,
    request: DescribeProducersRequest,
) -> Result<DescribeProducersResponse, HandlerError> {
    let image = cx.broker.replication.image();
    let topics = request.topics.into_iter().map(|topic| {
        let name = TopicName::from(topic.name.as_str());
        let partitions = topic.partition_indexes.iter().map(|index| {
            let response = PartitionResponse::default().with_partition_index(*index);
            match producers(cx, &image, &name, PartitionIndex(*index)) {
                Ok(producers) => {
                    response.with_active_producers(producers.iter().map(describe).collect())
                }
                Err(code) => response
                    .with_error_code(code.code())
                    .with_error_message(Some(StrBytes::from_string(code.to_string()))),
            }
        });
        let partitions = partitions.collect();
        TopicResponse::default()
            .with_name(topic.name)
            .with_partitions(partitions)
    });
    Ok(DescribeProducersResponse::default().with_topics(topics.collect()))
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
