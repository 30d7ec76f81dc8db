//! Creation of topics: from a plan to led partitions.

use std::sync::Arc;
use std::time::Duration;

use tidelog_protocol::types::{TopicId, TopicName};
use tidelog_replication::{Command, Replication, TopicImage, WaitLedError};
use tokio::time::Instant;
use uuid::Uuid;

use super::error::TopicError;
use super::plan::{self, NewTopic, Placement, TopicPlan};
use crate::config::{ConfigManager, Overrides};

/// Carries out a plan. Returns the id once the controller has agreed; see [`wait_led`] for the rest.
pub async fn create(
    replication: &Replication,
    plan: TopicPlan,
    timeout: Duration,
) -> Result<TopicId, TopicError> {
    let id = TopicId(Uuid::new_v4());
    let TopicPlan {
        name,
        assignments,
        configs,
    } = plan;
    let partitions = assignments.len();
    let command = Command::CreateTopic {
        name: name.clone(),
        id,
        assignments,
        configs,
    };
    replication.controller().submit(command, timeout).await?;
    tracing::info!(topic = %name, partitions, "topic created");
    Ok(id)
}

/// Waits until every partition of a topic has a leader.
pub async fn wait_led(
    replication: &Replication,
    id: TopicId,
    timeout: Duration,
) -> Result<(), TopicError> {
    match replication.wait_led(id, timeout).await {
        Ok(()) => Ok(()),
        Err(WaitLedError::Timeout) => Err(TopicError::NotLedYet),
        Err(WaitLedError::UnknownTopic) => Err(TopicError::Unknown),
    }
}

/// The topic of this name, created with the broker's defaults if it is not there, with every partition led. Whether it may
/// be created is the caller's question. Callers that race get the same topic.
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
            let wanted = NewTopic {
                name: name.clone(),
                placement: Placement::Automatic {
                    partitions: -1,
                    replication_factor: -1,
                },
                configs: Overrides::new(),
            };
            let plan = plan::plan_topic(
                &image,
                &configs.layers(),
                &broker.topics,
                wanted,
                random_start(),
            )?;
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
    wait_led(
        replication,
        id,
        deadline.saturating_duration_since(Instant::now()),
    )
    .await?;
    replication
        .image()
        .topic_by_id(id)
        .cloned()
        .ok_or(TopicError::Unknown)
}

/// Where the next round of brokers begins: anywhere, so that the first broker does not lead all small topics.
pub fn random_start() -> usize {
    rand::random_range(0..usize::from(u16::MAX))
}
