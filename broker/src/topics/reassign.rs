//! Other replicas for a partition that is there: checked against the image, then asked of the controller.

use std::time::Duration;

use tidelog_protocol::types::{BrokerId, PartitionIndex, TopicId, TopicName};
use tidelog_replication::{Command, MetadataImage, Replication};

use super::error::TopicError;
use super::name;
use super::plan::check_named;

/// A partition whose replicas are to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReassignmentPlan {
    /// Its topic.
    pub topic: TopicId,
    /// The partition.
    pub partition: PartitionIndex,
    /// The replicas that it is to have, the first preferred as leader; `None`: its reassignment is cancelled.
    pub target: Option<Vec<BrokerId>>,
}

/// Whether a reassignment may change how many replicas there are (KIP-860).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resize {
    /// It may.
    Allowed,
    /// It may not.
    Refused,
}

/// Checks other replicas of a partition. Whether there is a reassignment to cancel is the controller's to say: this
/// broker's image may lack the newest.
pub fn plan_reassignment(
    image: &MetadataImage,
    name: &TopicName,
    partition: PartitionIndex,
    target: Option<Vec<BrokerId>>,
    resize: Resize,
) -> Result<ReassignmentPlan, TopicError> {
    let topic = image.topic(name).ok_or_else(|| {
        let name = name::shown(name.as_str());
        TopicError::NotFound(format!("Unable to find a topic named {name}."))
    })?;
    let found = topic.partition(partition).ok_or_else(|| {
        TopicError::NotFound(format!("Unable to find partition {name}:{partition}."))
    })?;
    if let Some(replicas) = &target {
        check_named(image, replicas)?;
        let (before, after) = (found.wanted().len(), replicas.len());
        if resize == Resize::Refused && before != after {
            return Err(TopicError::InvalidReplicationFactor(format!(
                "The replication factor is changed from {before} to {after}"
            )));
        }
    }
    Ok(ReassignmentPlan {
        topic: topic.id,
        partition,
        target,
    })
}

/// Carries out a plan. Returns once the controller has agreed; the replicas are on their way then.
pub async fn reassign(
    replication: &Replication,
    plan: ReassignmentPlan,
    timeout: Duration,
) -> Result<(), TopicError> {
    let command = Command::AlterReassignment {
        topic: plan.topic,
        partition: plan.partition,
        target: plan.target,
    };
    replication.controller().submit(command, timeout).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use tidelog_protocol::ErrorCode;

    use super::*;
    use crate::topics::test_images::{TOPIC_ID, cluster, ids, with_topic};

    /// Topic and partition.
    type Named = (&'static str, i32);

    fn plan(
        image: &MetadataImage,
        (name, partition): Named,
        target: Option<&[i32]>,
        resize: Resize,
    ) -> Result<ReassignmentPlan, TopicError> {
        let (name, index) = (TopicName::from(name), PartitionIndex(partition));
        plan_reassignment(image, &name, index, target.map(ids), resize)
    }

    #[test]
    fn replicas_may_go_to_any_registered_brokers_or_back() {
        let image = with_topic(&cluster(3), "t", 2, &[1, 2]);
        for target in [Some(&[3, 1][..]), Some(&[3][..]), None] {
            assert_eq!(
                plan(&image, ("t", 1), target, Resize::Allowed),
                Ok(ReassignmentPlan {
                    topic: TOPIC_ID,
                    partition: PartitionIndex(1),
                    target: target.map(ids),
                })
            );
        }
        assert!(plan(&image, ("t", 0), Some(&[2, 3]), Resize::Refused).is_ok());
        assert!(plan(&image, ("t", 0), None, Resize::Refused).is_ok());
    }

    #[test]
    fn reassignments_that_cannot_be() {
        let image = with_topic(&cluster(3), "t", 2, &[1, 2]);
        let table: [(Named, &[i32], ErrorCode, &str); 7] = [
            (
                ("x", 0),
                &[1],
                ErrorCode::UnknownTopicOrPartition,
                "Unable to find a topic named x.",
            ),
            (
                ("t", 2),
                &[1],
                ErrorCode::UnknownTopicOrPartition,
                "Unable to find partition t:2.",
            ),
            (
                ("t", -1),
                &[1],
                ErrorCode::UnknownTopicOrPartition,
                "Unable to find partition t:-1.",
            ),
            (
                ("t", 0),
                &[],
                ErrorCode::InvalidReplicaAssignment,
                "The manual partition assignment includes an empty replica list.",
            ),
            (
                ("t", 0),
                &[1, 3, 1],
                ErrorCode::InvalidReplicaAssignment,
                "The manual partition assignment includes the broker 1 more than once.",
            ),
            (
                ("t", 0),
                &[1, 9, 9],
                ErrorCode::InvalidReplicaAssignment,
                "The manual partition assignment includes broker 9, but no such broker is registered.",
            ),
            (
                ("t", 0),
                &[1, 2, 3],
                ErrorCode::InvalidReplicationFactor,
                "The replication factor is changed from 2 to 3",
            ),
        ];
        for (partition, target, code, message) in table {
            let error = plan(&image, partition, Some(target), Resize::Refused).expect_err(message);
            assert_eq!((error.code(), error.to_string().as_str()), (code, message));
        }
    }

    #[test]
    fn the_count_is_that_of_the_reassignment_in_progress() {
        let image = with_topic(&cluster(3), "t", 1, &[1, 2]);
        let image = image
            .after(Command::AlterReassignment {
                topic: TOPIC_ID,
                partition: PartitionIndex(0),
                target: Some(ids(&[3])),
            })
            .expect("reassigned");
        assert!(plan(&image, ("t", 0), Some(&[2]), Resize::Refused).is_ok());
        let error = plan(&image, ("t", 0), Some(&[1, 2]), Resize::Refused).expect_err("refused");
        assert_eq!(error.code(), ErrorCode::InvalidReplicationFactor);
    }
}
