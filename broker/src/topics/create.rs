//! Creation of topics: from a plan to led partitions.

use std::sync::Arc;
use std::time::Duration;

use tidelog_protocol::types::{TopicId, TopicName};
use tidelog_replication::{Command, MetadataImage, Replication, TopicImage, WaitLedError};
use tokio::time::Instant;
use uuid::Uuid;

use super::error::TopicError;
use super::plan::{self, NewTopic, TopicPlan};
use super::{OFFSETS_TOPIC, Placement};
use crate::config::{ConfigManager, Overrides};

/// Carries out a plan. Returns the id once the controller has agreed; see [`wait_led`] for the rest.
pub async fn create(replication: &Replication, plan: TopicPlan, timeout: Duration) -> Result<TopicId, TopicError> {
    let id = TopicId(Uuid::new_v4());
    let TopicPlan { name, assignments, configs } = plan;
    let partitions = assignments.len();
    let command = Command::CreateTopic { name: name.clone(), id, assignments, configs };
    replication.controller().submit(command, timeout).await?;
    tracing::info!(topic = %name, partitions, "topic created");
    Ok(id)
}

/// Waits until every partition of a topic has a leader.
pub async fn wait_led(replication: &Replication, id: TopicId, timeout: Duration) -> Result<(), TopicError> {
    match replication.wait_led(id, timeout).await {
        Ok(()) => Ok(()),
        Err(WaitLedError::Timeout) => Err(TopicError::NotLedYet),
        Err(WaitLedError::UnknownTopic) => Err(TopicError::Unknown),
    }
}

/// The topic of this name, created with the broker's defaults (the offsets topic: with its own) if it is not there, with
/// every partition led. Whether it may be created is the caller's question. Callers that race get the same topic.
pub async fn ensure_topic(
    replication: &Replication,
    configs: &ConfigManager,
    name: &TopicName,
    timeout: Duration,
) -> Result<Arc<TopicImage>, TopicError> {
    let deadline = Instant::now() + timeout;
    let image = replication.image();
    let id = match image.topic(name) {
        Some(topic) => topic.id,
        None => {
            let broker = configs.broker();
            let wanted = match name.as_str() {
                OFFSETS_TOPIC => offsets_topic(configs, &image),
                _ => NewTopic {
                    name: name.clone(),
                    placement: Placement::Automatic { partitions: -1, replication_factor: -1 },
                    configs: Overrides::new(),
                },
            };
            let plan = plan::plan_topic(&image, &configs.layers(), &broker.topics, wanted, random_start())?;
            match create(replication, plan, timeout).await {
                Ok(id) => id,
                // Somebody else was first.
                Err(TopicError::Exists(_)) => {
                    let image = replication.image();
                    image.topic(name).ok_or(TopicError::NotLedYet)?.id
                }
                Err(error) => return Err(error),
            }
        }
    };
    wait_led(replication, id, deadline.saturating_duration_since(Instant::now())).await?;
    replication.image().topic_by_id(id).cloned().ok_or(TopicError::Unknown)
}

/// Where the next round of brokers begins: anywhere, so that the first broker does not lead all small topics.
pub fn random_start() -> usize {
    rand::random_range(0..usize::from(u16::MAX))
}

/// What `__consumer_offsets` looks like. Its replicas are as many as configured, or as there are brokers where those are
/// fewer: a cluster of one must be able to keep offsets.
pub fn offsets_topic(configs: &ConfigManager, image: &MetadataImage) -> NewTopic {
    let offsets = &configs.broker().offsets;
    let live = image.brokers().filter(|broker| !broker.fenced).count();
    let replicas = offsets.topic_replication_factor.min(i16::try_from(live).unwrap_or(i16::MAX)).max(1);
    let own = [
        ("cleanup.policy", "compact".to_owned()),
        ("compression.type", "producer".to_owned()),
        ("segment.bytes", offsets.topic_segment_bytes.to_string()),
    ];
    NewTopic {
        name: TopicName::from(OFFSETS_TOPIC),
        placement: Placement::Automatic {
            partitions: offsets.topic_num_partitions,
            replication_factor: replicas,
        },
        configs: own.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
    }
}
