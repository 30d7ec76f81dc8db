//! Topics that come into being because a client asked for their metadata (rules 31 and 32).

use std::collections::BTreeMap;
use std::time::Duration;

use tidelog_protocol::ErrorCode;
use tidelog_protocol::types::{BrokerId, TopicId, TopicName};
use tidelog_replication::{Command, MetadataError, MetadataImage, SubmitError};
use tracing::{info, warn};
use uuid::Uuid;

use crate::kafka::context::RequestContext;
use crate::kafka::errors;

/// Longest wait for the controller. The client asks again, and finds the topic.
const CREATE_TIME_MAX: Duration = Duration::from_secs(5);

/// Longest wait for leaders of a topic that was just created.
const LEADERS_TIME_MAX: Duration = Duration::from_secs(2);

/// Creates the topic if the client allows it and the broker does (`auto.create.topics.enable`).
///
/// Otherwise the code that says why it is not there. Kafka answers the first request with an error and creates the
/// topic meanwhile; here its leaders are waited for, which saves the client a round.
pub async fn topic(cx: &RequestContext, name: &str, allowed: bool) -> Result<(), ErrorCode> {
    if !is_legal(name) {
        return Err(ErrorCode::InvalidTopicException);
    }
    let defaults = cx.broker.config().topics.clone();
    if !allowed || !defaults.auto_create || crate::kafka::is_internal(name) {
        return Err(ErrorCode::UnknownTopicOrPartition);
    }
    let image = cx.broker.replication.image();
    let assignments = assign(&image, defaults.num_partitions, defaults.replication_factor)?;
    let id = TopicId(Uuid::new_v4());
    let command = Command::CreateTopic {
        name: TopicName::from(name),
        id,
        assignments,
        configs: BTreeMap::new(),
    };
    match cx
        .broker
        .replication
        .controller()
        .submit(command, CREATE_TIME_MAX)
        .await
    {
        Ok(_) => info!(
            topic = name,
            partitions = defaults.num_partitions,
            "created on first use"
        ),
        Err(SubmitError::Metadata(MetadataError::TopicExists(_))) => {}
        Err(error) => {
            warn!(topic = name, %error, "not created on first use");
            return Err(match error {
                SubmitError::Metadata(_) => errors::submit(&error),
                _ => ErrorCode::LeaderNotAvailable,
            });
        }
    }
    let waited = cx.broker.replication.wait_led(id, LEADERS_TIME_MAX).await;
    // Somebody else's topic of this name has another id: the image shows it with or without leaders.
    waited.or(Ok(()))
}

/// Rule 32: 1 to 249 of `[a-zA-Z0-9._-]`, neither `.` nor `..`.
pub fn is_legal(name: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=249).contains(&name.len()) && name != "." && name != ".." && name.bytes().all(legal)
}

/// Replicas for each partition, round the live brokers.
fn assign(
    image: &MetadataImage,
    partitions: i32,
    replicas: i16,
) -> Result<Vec<Vec<BrokerId>>, ErrorCode> {
    let brokers: Vec<BrokerId> = image
        .brokers()
        .filter(|broker| !broker.fenced)
        .map(|broker| broker.id)
        .collect();
    let replicas = usize::try_from(replicas).map_err(|_| ErrorCode::InvalidReplicationFactor)?;
    if replicas == 0 || replicas > brokers.len() {
        return Err(ErrorCode::InvalidReplicationFactor);
    }
    let partitions = usize::try_from(partitions).map_err(|_| ErrorCode::InvalidPartitions)?;
    let first = rand::random_range(0..brokers.len());
    let replicas_of = |partition: usize| {
        brokers
            .iter()
            .cycle()
            .skip((first + partition) % brokers.len())
            .take(replicas)
            .copied()
            .collect()
    };
    Ok((0..partitions).map(replicas_of).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_32_topic_names() {
        for good in ["a", "A.b_c-9", &"x".repeat(249), "...", "__x"] {
            assert!(is_legal(good), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            "a b",
            "ä",
            "a/b",
            "a:b",
            &"x".repeat(250),
            "a\0",
        ] {
            assert!(!is_legal(bad), "{bad}");
        }
    }
}
