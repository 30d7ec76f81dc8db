//! OffsetForLeaderEpoch: where an epoch ended, for consumers that look for truncation (rule 24).

use tidelog_protocol::ErrorCode;
use tidelog_protocol::messages::offset_for_leader_epoch_request::OffsetForLeaderPartition;
use tidelog_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use tidelog_protocol::messages::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};
use tidelog_protocol::types::{LeaderEpoch, Offset, PartitionIndex};
use tidelog_replication::MetadataImage;

use crate::kafka::context::RequestContext;
use crate::kafka::handlers::HandlerError;
use crate::kafka::handlers::partitions::{TopicKey, check_epoch, led_here};

/// Answers from the epoch tables of the logs.
pub async fn handle(
    cx: &RequestContext,
    request: OffsetForLeaderEpochRequest,
) -> Result<OffsetForLeaderEpochResponse, HandlerError> {
    let image = cx.broker.replication.image();
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let key = TopicKey::of(false, &topic.topic, uuid::Uuid::nil());
        let partitions = topic
            .partitions
            .iter()
            .map(|asked| answer(cx, &image, &key, asked))
            .collect();
        topics.push(
            OffsetForLeaderTopicResult::default()
                .with_topic(topic.topic)
                .with_partitions(partitions),
        );
    }
    Ok(OffsetForLeaderEpochResponse::default().with_topics(topics))
}

fn answer(
    cx: &RequestContext,
    image: &MetadataImage,
    topic: &TopicKey,
    asked: &OffsetForLeaderPartition,
) -> EpochEndOffset {
    let response = EpochEndOffset::default()
        .with_partition(asked.partition)
        .with_leader_epoch(LeaderEpoch::NONE.0)
        .with_end_offset(Offset::NONE.0);
    match epoch_end(cx, image, topic, asked) {
        Ok(Some((epoch, end))) => response.with_leader_epoch(epoch.0).with_end_offset(end.0),
        Ok(None) => response,
        Err(code) => response.with_error_code(code.code()),
    }
}

fn epoch_end(
    cx: &RequestContext,
    image: &MetadataImage,
    topic: &TopicKey,
    asked: &OffsetForLeaderPartition,
) -> Result<Option<(LeaderEpoch, Offset)>, ErrorCode> {
    let topic = topic.find(image)?;
    let (partition, state) =
        led_here(cx, topic, PartitionIndex(asked.partition)).map_err(|refusal| refusal.code)?;
    check_epoch(asked.current_leader_epoch, &state).map_err(|refusal| refusal.code)?;
    Ok(partition
        .log()
        .end_offset_for_epoch(LeaderEpoch(asked.leader_epoch)))
}
