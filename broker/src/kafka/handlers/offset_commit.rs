//! OffsetCommit: how far a group has read.

use tidelog_protocol::ErrorCode;
use tidelog_protocol::messages::offset_commit_request::OffsetCommitRequestPartition;
use tidelog_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use tidelog_protocol::messages::{OffsetCommitRequest, OffsetCommitResponse};
use tidelog_protocol::types::{LeaderEpoch, Offset, TopicName, TopicPartition};

use crate::coordinator::group::{Commit, Event, Generation, GroupError, OffsetToCommit, Reply};
use crate::kafka::context::RequestContext;
use crate::kafka::handlers::{HandlerError, group_fields as fields};

/// From this version on, clients know GROUP_ID_NOT_FOUND.
const GROUP_NOT_FOUND_VERSION_MIN: i16 = 9;

/// Commits for the partitions that exist; each partition gets its own error.
pub async fn handle(
    cx: &RequestContext,
    request: OffsetCommitRequest,
) -> Result<OffsetCommitResponse, HandlerError> {
    let image = cx.broker.replication.image();
    let mut offsets = Vec::new();
    // Whether each partition is among `offsets`, in the order of the request.
    let mut known = Vec::new();
    for topic in &request.topics {
        let name = TopicName::from(&topic.name);
        for asked in &topic.partitions {
            let partition = fields::partition(&name, asked.partition_index);
            let exists = image.partition(&partition).is_some();
            known.push(exists);
            if exists {
                offsets.push((partition, to_commit(asked)));
            }
        }
    }
    drop(image);
    let mut codes = if offsets.is_empty() {
        Vec::new()
    } else {
        commit(cx, &request, offsets).await
    }
    .into_iter();
    let mut known = known.into_iter();
    let mut code = || match known.next() {
        Some(true) => codes.next().unwrap_or(ErrorCode::UnknownServerError.code()),
        _ => ErrorCode::UnknownTopicOrPartition.code(),
    };
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            OffsetCommitResponsePartition::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(code())
        });
        OffsetCommitResponseTopic::default()
            .with_partitions(partitions.collect())
            .with_name(topic.name)
    });
    Ok(OffsetCommitResponse::default().with_topics(topics.collect()))
}

fn to_commit(asked: &OffsetCommitRequestPartition) -> OffsetToCommit {
    OffsetToCommit {
        offset: Offset(asked.committed_offset),
        leader_epoch: (asked.committed_leader_epoch >= 0)
            .then_some(LeaderEpoch(asked.committed_leader_epoch)),
        metadata: asked
            .committed_metadata
            .as_ref()
            .map(fields::text)
            .unwrap_or_default(),
    }
}

/// An error code for each offset.
async fn commit(
    cx: &RequestContext,
    request: &OffsetCommitRequest,
    offsets: Vec<(TopicPartition, OffsetToCommit)>,
) -> Vec<i16> {
    let count = offsets.len();
    cx.broker
        .groups
        .note_topics(offsets.iter().map(|(partition, _)| &partition.topic));
    let retention_ms = (request.retention_time_ms >= 0).then_some(request.retention_time_ms);
    let reply = cx
        .broker
        .groups
        .request(fields::group_id(&request.group_id), |token| {
            Event::Commit(Commit {
                token,
                member: fields::member_id(&request.member_id),
                instance: fields::instance_id(request.group_instance_id.as_ref()),
                generation: Generation(request.generation_id_or_member_epoch),
                knows_group_not_found: cx.version() >= GROUP_NOT_FOUND_VERSION_MIN,
                retention_ms,
                offsets,
            })
        });
    let outcome = match reply.await {
        Ok(Reply::Commit(outcome)) => outcome,
        Ok(_) => Err(GroupError::StorageFailed),
        Err(error) => Err(error),
    };
    match outcome {
        Ok(outcomes) => outcomes
            .into_iter()
            .map(|outcome| outcome.err().map_or(0, |error| error.code().code()))
            .collect(),
        Err(error) => vec![error.code().code(); count],
    }
}
