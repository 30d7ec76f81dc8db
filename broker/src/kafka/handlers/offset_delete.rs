//! OffsetDelete: removes offsets of topics that no member of the group reads.

use tidelog_protocol::ErrorCode;
use tidelog_protocol::messages::offset_delete_response::{
    OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use tidelog_protocol::messages::{OffsetDeleteRequest, OffsetDeleteResponse};
use tidelog_protocol::types::{TopicName, TopicPartition};

use crate::coordinator::group::{Event, GroupError, Reply};
use crate::kafka::context::RequestContext;
use crate::kafka::handlers::{HandlerError, group_fields as fields};

/// Deletes offsets of the partitions that exist; each partition gets its own error.
pub async fn handle(
    cx: &RequestContext,
    request: OffsetDeleteRequest,
) -> Result<OffsetDeleteResponse, HandlerError> {
    let image = cx.broker.replication.image();
    let mut partitions = Vec::new();
    // Whether each partition is among `partitions`, in the order of the request.
    let mut known = Vec::new();
    for topic in &request.topics {
        let name = TopicName::from(&topic.name);
        for asked in &topic.partitions {
            let partition = fields::partition(&name, asked.partition_index);
            let exists = image.partition(&partition).is_some();
            known.push(exists);
            if exists {
                partitions.push(partition);
            }
        }
    }
    drop(image);
    let outcomes = match delete(cx, &request, partitions).await {
        Ok(outcomes) => outcomes,
        Err(error) => {
            return Ok(OffsetDeleteResponse::default().with_error_code(error.code().code()));
        }
    };
    let mut known = known.into_iter();
    let mut outcomes = outcomes.into_iter();
    let mut code = || match known.next() {
        Some(true) => outcomes
            .next()
            .and_then(Result::err)
            .map_or(0, |error| error.code().code()),
        _ => ErrorCode::UnknownTopicOrPartition.code(),
    };
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            OffsetDeleteResponsePartition::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(code())
        });
        OffsetDeleteResponseTopic::default()
            .with_partitions(partitions.collect())
            .with_name(topic.name)
    });
    Ok(OffsetDeleteResponse::default().with_topics(topics.collect()))
}

async fn delete(
    cx: &RequestContext,
    request: &OffsetDeleteRequest,
    partitions: Vec<TopicPartition>,
) -> Result<Vec<Result<(), GroupError>>, GroupError> {
    let group = fields::group_id(&request.group_id);
    match cx
        .broker
        .groups
        .request(group, |token| Event::DeleteOffsets(token, partitions))
        .await?
    {
        Reply::DeleteOffsets(outcome) => outcome,
        _ => Err(GroupError::StorageFailed),
    }
}
