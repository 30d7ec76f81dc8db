//! The topic `__consumer_offsets`: its settings, and its creation when the first group asks for a coordinator.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tidelog_protocol::types::{BrokerId, TopicId, TopicName};
use tidelog_replication::{Command, MetadataError, MetadataImage, Replication, SubmitError};
use uuid::Uuid;

use crate::topics::drain::live_brokers;

/// Name of the topic.
pub const OFFSETS_TOPIC: &str = "__consumer_offsets";

/// How long its creation may take before it is tried again at the next request.
const CREATE_TIMEOUT: Duration = Duration::from_secs(30);

/// Settings of the topic, used when it is created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetsTopicConfig {
    /// `offsets.topic.num.partitions`, default 50. Never changes afterwards: it decides where groups are.
    pub partition_count: usize,
    /// `offsets.topic.replication.factor`, default 3; never more than there are brokers.
    pub replication_factor: usize,
    /// `offsets.topic.segment.bytes`, default 100 MiB.
    pub segment_bytes: u32,
}

impl Default for OffsetsTopicConfig {
    fn default() -> Self {
        OffsetsTopicConfig {
            partition_count: 50,
            replication_factor: 3,
            segment_bytes: 100 * 1024 * 1024,
        }
    }
}

/// Creates the topic, once at a time.
#[derive(Debug, Default)]
pub(super) struct TopicCreator {
    running: AtomicBool,
}

impl TopicCreator {
    /// Creates the topic unless somebody is about it already.
    pub(super) async fn create(&self, replication: &Replication, config: &OffsetsTopicConfig) {
        if self.running.swap(true, Ordering::AcqRel) {
            return;
        }
        let command = creation(&replication.image(), config);
        let outcome = match command {
            Some(command) => replication
                .controller()
                .submit(command, CREATE_TIMEOUT)
                .await
                .map(drop),
            None => Ok(()),
        };
        self.running.store(false, Ordering::Release);
        match outcome {
            Ok(()) | Err(SubmitError::Metadata(MetadataError::TopicExists(_))) => {}
            Err(error) => {
                tracing::warn!(topic = OFFSETS_TOPIC, %error, "the topic was not created")
            }
        }
    }
}

/// The command that creates the topic; `None` while no broker can hold it.
fn creation(image: &MetadataImage, config: &OffsetsTopicConfig) -> Option<Command> {
    let live = live_brokers(image).into_iter();
    let brokers: Vec<BrokerId> = live.map(|broker| broker.id).collect();
    if brokers.is_empty() {
        return None;
    }
    Some(Command::CreateTopic {
        name: TopicName::from(OFFSETS_TOPIC),
        id: TopicId(Uuid::new_v4()),
        assignments: assignments(&brokers, config),
        configs: BTreeMap::from([
            ("cleanup.policy".to_owned(), "compact".to_owned()),
            ("compression.type".to_owned(), "producer".to_owned()),
            ("segment.bytes".to_owned(), config.segment_bytes.to_string()),
        ]),
    })
}

/// Replicas of each partition: leaders in turn, followers next to them.
fn assignments(brokers: &[BrokerId], config: &OffsetsTopicConfig) -> Vec<Vec<BrokerId>> {
    let replicas = config.replication_factor.clamp(1, brokers.len().max(1));
    let replica = |partition: usize| {
        brokers
            .iter()
            .cycle()
            .skip(partition % brokers.len().max(1))
            .take(replicas)
            .copied()
            .collect()
    };
    (0..config.partition_count).map(replica).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_spread_and_replicas_differ() {
        let brokers = [BrokerId(1), BrokerId(2)];
        let config = OffsetsTopicConfig {
            partition_count: 3,
            ..OffsetsTopicConfig::default()
        };
        let (a, b) = (BrokerId(1), BrokerId(2));
        assert_eq!(
            assignments(&brokers, &config),
            [vec![a, b], vec![b, a], vec![a, b]]
        );
        assert_eq!(assignments(&brokers[..1], &config), [[a], [a], [a]]);
    }
}
