//! DeleteRecords: moves the log start of partitions forward (rule 25).

use std::time::Duration;

use futures_util::future::join_all;
use tidelog_protocol::ErrorCode;
use tidelog_protocol::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsTopic,
};
use tidelog_protocol::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsTopicResult,
};
use tidelog_protocol::messages::{DeleteRecordsRequest, DeleteRecordsResponse};
use tidelog_protocol::types::{Offset, PartitionIndex, TopicName};
use tidelog_replication::MetadataImage;

use crate::config::TopicSettings;
use crate::kafka::context::RequestContext;
use crate::kafka::errors;
use crate::kafka::handlers::HandlerError;
use crate::topics::is_internal;

/// "Up to the high watermark" on the wire.
const HIGH_WATERMARK: i64 = -1;
/// Low watermark of a partition that failed.
const NO_LOW_WATERMARK: i64 = -1;

/// All partitions at once: each waits for its own replicas.
pub async fn handle(
    cx: &RequestContext,
    request: DeleteRecordsRequest,
) -> Result<DeleteRecordsResponse, HandlerError> {
    let timeout = Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0));
    let image = cx.broker.replication.image();
    let topics = request
        .topics
        .iter()
        .map(|topic| delete_topic(cx, &image, topic, timeout));
    Ok(DeleteRecordsResponse::default().with_topics(join_all(topics).await))
}

async fn delete_topic(
    cx: &RequestContext,
    image: &MetadataImage,
    topic: &DeleteRecordsTopic,
    timeout: Duration,
) -> DeleteRecordsTopicResult {
    let name = TopicName::from(topic.name.as_str());
    let partitions = topic.partitions.iter().map(|partition| {
        let name = &name;
        async move {
            let result = DeleteRecordsPartitionResult::default()
                .with_partition_index(partition.partition_index);
            let deleted = tokio::time::timeout(timeout, delete(cx, image, name, partition));
            match deleted.await.unwrap_or(Err(ErrorCode::RequestTimedOut)) {
                Ok(low) => result.with_low_watermark(low.0),
                Err(code) => result
                    .with_low_watermark(NO_LOW_WATERMARK)
                    .with_error_code(code.code()),
            }
        }
    });
    DeleteRecordsTopicResult::default()
        .with_name(topic.name.clone())
        .with_partitions(join_all(partitions).await)
}

async fn delete(
    cx: &RequestContext,
    image: &MetadataImage,
    name: &TopicName,
    asked: &DeleteRecordsPartition,
) -> Result<Offset, ErrorCode> {
    let topic = image
        .topic(name)
        .ok_or(ErrorCode::UnknownTopicOrPartition)?;
    let index = PartitionIndex(asked.partition_index);
    topic
        .partition(index)
        .ok_or(ErrorCode::UnknownTopicOrPartition)?;
    if is_internal(name.as_str()) {
        return Err(ErrorCode::InvalidTopicException);
    }
    let before = check(
        &cx.broker.configs.topic(topic.id, &topic.configs),
        asked.offset,
    )?;
    let partition = cx
        .broker
        .replication
        .partition(topic.id, index)
        .ok_or(ErrorCode::NotLeaderOrFollower)?;
    partition
        .delete_records(before)
        .await
        .map_err(|error| errors::delete_records(&error))
}

/// Where to delete up to; `None` for the high watermark.
fn check(settings: &TopicSettings, offset: i64) -> Result<Option<Offset>, ErrorCode> {
    if !settings.log.delete {
        return Err(ErrorCode::PolicyViolation);
    }
    match offset {
        HIGH_WATERMARK => Ok(None),
        0.. => Ok(Some(Offset(offset))),
        _ => Err(ErrorCode::OffsetOutOfRange),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Layers, LoadArgs, Overrides, load};

    #[test]
    fn rule_25_delete_records() {
        let settings = load(&LoadArgs::default()).expect("defaults load").settings;
        let layers = Layers::new(settings, Overrides::new(), Overrides::new());
        let with_policy = |policy: &str| {
            let own = Overrides::from([("cleanup.policy".to_owned(), policy.to_owned())]);
            TopicSettings::resolve(&layers, &own)
        };
        assert_eq!(check(&with_policy("delete"), -1), Ok(None));
        assert_eq!(
            check(&with_policy("delete,compact"), 5),
            Ok(Some(Offset(5)))
        );
        assert_eq!(
            check(&with_policy("delete"), -2),
            Err(ErrorCode::OffsetOutOfRange)
        );
        assert_eq!(
            check(&with_policy("compact"), -1),
            Err(ErrorCode::PolicyViolation)
        );
    }
}
