//! Topics that come into being because a client asked for their metadata (rules 31 and 32).

use std::time::Duration;

use tidelog_protocol::ErrorCode;
use tidelog_protocol::types::TopicName;

use crate::kafka::context::RequestContext;
use crate::topics::{TopicError, ensure_topic, is_internal, name};

/// Longest wait for the controller and the leaders. The client asks again, and finds the topic.
const CREATE_TIME_MAX: Duration = Duration::from_secs(5);

/// Creates the topic if the client allows it and the broker does (`auto.create.topics.enable`), and answers as Kafka
/// does to the request that caused it: with an error. The client asks again, and finds the topic, whose leaders were
/// waited for. A client that only wanted to know whether the topic exists is told that it did not.
pub async fn topic(cx: &RequestContext, topic: &str, allowed: bool) -> ErrorCode {
    if let Err(error) = name::check(topic) {
        return error.code();
    }
    if !allowed || !cx.broker.config().topics.auto_create || is_internal(topic) {
        return ErrorCode::UnknownTopicOrPartition;
    }
    let (replication, configs) = (&cx.broker.replication, &cx.broker.configs);
    match ensure_topic(
        replication,
        configs,
        &TopicName::from(topic),
        CREATE_TIME_MAX,
    )
    .await
    {
        Ok(_) => ErrorCode::UnknownTopicOrPartition,
        Err(TopicError::NotLedYet) => ErrorCode::LeaderNotAvailable,
        // Whatever keeps the controller from answering: the client asks again.
        Err(TopicError::Controller(error)) => {
            tracing::warn!(topic, %error, "topic not created on first use");
            ErrorCode::LeaderNotAvailable
        }
        Err(error) => error.code(),
    }
}
