//! DeleteTopics: by name, or from version 6 on by id. Internal topics can be deleted, as in Kafka.

use std::collections::HashMap;
use std::time::Duration;

use tidelog_protocol::messages::delete_topics_request::DeleteTopicState;
use tidelog_protocol::messages::delete_topics_response::DeletableTopicResult;
use tidelog_protocol::messages::{self, DeleteTopicsRequest, DeleteTopicsResponse};
use tidelog_protocol::types::{TopicId, TopicName};
use tidelog_protocol::{ErrorCode, StrBytes};
use tidelog_replication::{Command, MetadataError, MetadataImage, SubmitError};
use tokio::time::Instant;
use uuid::Uuid;

use crate::kafka::context::RequestContext;
use crate::kafka::errors;
use crate::kafka::handlers::HandlerError;

/// Clients know TOPIC_DELETION_DISABLED from this version on.
const DISABLED_VERSION_MIN: i16 = 3;
/// Topics come in `topics`, by name or id, from this version on; before, in `topic_names`.
const BY_ID_VERSION_MIN: i16 = 6;

/// Why a topic is not deleted.
type Refused = (ErrorCode, Option<String>);

/// Deletes one topic after the other.
pub async fn handle(
    cx: &RequestContext,
    request: DeleteTopicsRequest,
) -> Result<DeleteTopicsResponse, HandlerError> {
    let deadline =
        Instant::now() + Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0));
    let topics = match cx.version() {
        BY_ID_VERSION_MIN.. => request.topics,
        _ => request
            .topic_names
            .into_iter()
            .map(|name| DeleteTopicState::default().with_name(Some(name)))
            .collect(),
    };
    let enabled = cx.broker.config().topics.delete;
    let mut repeats = Repeats::of(&topics);
    let mut responses = Vec::with_capacity(topics.len());
    for topic in topics {
        let count = repeats.take(&topic);
        let outcome = match count {
            0 => continue,
            _ if !enabled => Err(disabled(cx.version())),
            _ => match find(&cx.broker.replication.image(), &topic, count) {
                Ok((name, id)) => delete(cx, &name, id, deadline).await.map(|()| (name, id)),
                Err(refused) => Err(refused),
            },
        };
        responses.push(answer(topic, outcome));
    }
    Ok(DeleteTopicsResponse::default().with_responses(responses))
}

async fn delete(
    cx: &RequestContext,
    name: &TopicName,
    id: TopicId,
    deadline: Instant,
) -> Result<(), Refused> {
    let timeout = deadline.saturating_duration_since(Instant::now());
    match cx
        .broker
        .replication
        .controller()
        .submit(Command::DeleteTopic { id }, timeout)
        .await
    {
        Ok(_) => {
            tracing::info!(topic = %name, "topic deleted");
            Ok(())
        }
        // Somebody else was first.
        Err(SubmitError::Metadata(MetadataError::UnknownTopic)) => {
            Err((ErrorCode::UnknownTopicOrPartition, None))
        }
        Err(error) => Err((errors::submit(&error), Some(error.to_string()))),
    }
}

fn disabled(version: i16) -> Refused {
    let message = "Topic deletion is disabled.".to_owned();
    match version {
        DISABLED_VERSION_MIN.. => (ErrorCode::TopicDeletionDisabled, Some(message)),
        _ => (ErrorCode::InvalidRequest, Some(message)),
    }
}

/// The topic that is meant, named `count` times in the request.
fn find(
    image: &MetadataImage,
    topic: &DeleteTopicState,
    count: usize,
) -> Result<(TopicName, TopicId), Refused> {
    let invalid = |message: &str| Err((ErrorCode::InvalidRequest, Some(message.to_owned())));
    let has_id = !topic.topic_id.is_nil();
    match &topic.name {
        Some(_) if has_id => invalid("You may not specify both topic name and topic id."),
        None if !has_id => invalid("Neither topic name nor id were specified."),
        Some(_) if count > 1 => invalid("Duplicate topic name."),
        None if count > 1 => invalid("Duplicate topic id."),
        Some(name) => {
            let topic = image.topic(&TopicName::from(name.as_str()));
            topic
                .map(|topic| (topic.name.clone(), topic.id))
                .ok_or((ErrorCode::UnknownTopicOrPartition, None))
        }
        None => {
            let topic = image.topic_by_id(TopicId(topic.topic_id));
            topic
                .map(|topic| (topic.name.clone(), topic.id))
                .ok_or((ErrorCode::UnknownTopicId, None))
        }
    }
}

fn answer(
    topic: DeleteTopicState,
    outcome: Result<(TopicName, TopicId), Refused>,
) -> DeletableTopicResult {
    match outcome {
        Ok((name, id)) => DeletableTopicResult::default()
            .with_name(Some(messages::TopicName(StrBytes::from_string(
                name.to_string(),
            ))))
            .with_topic_id(id.0),
        Err((code, message)) => DeletableTopicResult::default()
            .with_name(topic.name)
            .with_topic_id(topic.topic_id)
            .with_error_code(code.code())
            .with_error_message(message.map(StrBytes::from_string)),
    }
}

/// How often each topic is named; each is answered once.
struct Repeats(HashMap<(Option<String>, Uuid), usize>);

impl Repeats {
    fn of(topics: &[DeleteTopicState]) -> Repeats {
        let mut counts = HashMap::new();
        for topic in topics {
            *counts.entry(Repeats::key(topic)).or_default() += 1;
        }
        Repeats(counts)
    }

    /// The count at the first mention, then 0.
    fn take(&mut self, topic: &DeleteTopicState) -> usize {
        self.0.remove(&Repeats::key(topic)).unwrap_or(0)
    }

    fn key(topic: &DeleteTopicState) -> (Option<String>, Uuid) {
        (
            topic.name.as_ref().map(|name| name.to_string()),
            topic.topic_id,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &'static str) -> DeleteTopicState {
        DeleteTopicState::default()
            .with_name(Some(messages::TopicName(StrBytes::from_static_str(name))))
    }

    #[test]
    fn each_topic_is_answered_once() {
        let topics = [named("a"), named("b"), named("a")];
        let mut repeats = Repeats::of(&topics);
        assert_eq!(
            topics.each_ref().map(|topic| repeats.take(topic)),
            [2, 1, 0]
        );
    }

    #[test]
    fn requests_that_make_no_sense() {
        let image = MetadataImage::default();
        let id = Uuid::from_u128(7);
        let code =
            |topic: &DeleteTopicState, count| find(&image, topic, count).expect_err("refused").0;
        assert_eq!(
            code(&named("a").with_topic_id(id), 1),
            ErrorCode::InvalidRequest
        );
        assert_eq!(
            code(&DeleteTopicState::default().with_name(None), 1),
            ErrorCode::InvalidRequest
        );
        assert_eq!(code(&named("a"), 2), ErrorCode::InvalidRequest);
        assert_eq!(code(&named("a"), 1), ErrorCode::UnknownTopicOrPartition);
        assert_eq!(
            code(
                &DeleteTopicState::default()
                    .with_name(None)
                    .with_topic_id(id),
                1
            ),
            ErrorCode::UnknownTopicId
        );
    }

    #[test]
    fn old_clients_do_not_know_that_deletion_is_disabled() {
        assert_eq!(disabled(2).0, ErrorCode::InvalidRequest);
        assert_eq!(disabled(3).0, ErrorCode::TopicDeletionDisabled);
    }
}
