//! Topics that come into being because a client asked for their metadata (rules 31 and 32).

use std::time::Duration;

use tidelog_protocol::ErrorCode;
use tidelog_protocol::types::TopicName;

use crate::kafka::context::RequestContext;
use crate::topics::{TopicError, ensure_topic, is_internal, name};

/// Longest wait for the controller and the leaders. The client asks again, and finds the topic.
const CREATE_TIME_MAX: Duration = Duration::from_secs(5);

/// Creates the topic if the client allows it and the broker does (`auto.create.topics.enable`).
///
/// Otherwise the code that says why it is not there. Kafka answers the first request with an error and creates the
/// topic meanwhile; here its leaders are waited for, which saves the client a round.
pub async fn topic(cx: &RequestContext, topic: &str, allowed: bool) -> Result<(), ErrorCode> {
    name::check(topic).map_err(|error| error.code())?;
    if !allowed || !cx.broker.config().topics.auto_create || is_internal(topic) {
        return Err(ErrorCode::UnknownTopicOrPartition);
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
        // Without leaders it is shown as it is.
        Ok(_) | Err(TopicError::NotLedYet) => Ok(()),
        // Whatever keeps the controller from answering: the client asks again.
        Err(TopicError::Controller(error)) => {
            tracing::warn!(topic, %error, "topic not created on first use");
            Err(ErrorCode::LeaderNotAvailable)
        }
        Err(error) => Err(error.code()),
    }
}
