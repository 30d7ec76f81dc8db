//! ListPartitionReassignments: the partitions whose replicas are on their way, of all topics or of some.

use tidelog_protocol::messages::list_partition_reassignments_response::{
    OngoingPartitionReassignment, OngoingTopicReassignment,
};
use tidelog_protocol::messages::{
    ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse,
};
use tidelog_protocol::types::{PartitionIndex, TopicName};
use tidelog_replication::TopicImage;

use crate::kafka::context::RequestContext;
use crate::kafka::handlers::HandlerError;
use crate::kafka::handlers::metadata::ids;
use crate::kafka::memory::Building;

/// What a partition takes in memory, its brokers included.
const PARTITION_BYTES: usize = 250;

/// Answers from the image. Topics and partitions that are not there, or not on their way, are left out.
pub async fn handle(
    cx: &RequestContext,
    request: ListPartitionReassignmentsRequest,
) -> Result<ListPartitionReassignmentsResponse, HandlerError> {
    let image = cx.broker.replication.image();
    let mut listing = Listing {
        building: Building::begin(cx),
        topics: Vec::new(),
    };
    match request.topics {
        None => {
            for topic in image.topics() {
                let indexes = 0..i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX);
                listing.add(topic, indexes).await?;
            }
        }
        Some(asked) => {
            for one in asked {
                if let Some(topic) = image.topic(&TopicName::from(one.name.as_str())) {
                    listing.add(topic, one.partition_indexes).await?;
                }
            }
        }
    }
    Ok(ListPartitionReassignmentsResponse::default()
        .with_error_message(None)
        .with_topics(listing.topics))
}

struct Listing<'a> {
    building: Building<'a>,
    topics: Vec<OngoingTopicReassignment>,
}

impl Listing<'_> {
    /// Adds what is on its way of a topic's partitions.
    async fn add(
        &mut self,
        topic: &TopicImage,
        indexes: impl IntoIterator<Item = i32>,
    ) -> Result<(), HandlerError> {
        // Topics without anything on its way take time too.
        self.building.add(0).await?;
        let mut partitions = Vec::new();
        for index in indexes {
            if let Some(partition) = ongoing(topic, index) {
                self.building.add(PARTITION_BYTES).await?;
                partitions.push(partition);
            }
        }
        if !partitions.is_empty() {
            let topic = OngoingTopicReassignment::default()
                .with_name((&topic.name).into())
                .with_partitions(partitions);
            self.topics.push(topic);
        }
        Ok(())
    }
}

fn ongoing(topic: &TopicImage, index: i32) -> Option<OngoingPartitionReassignment> {
    let partition = topic.partition(PartitionIndex(index))?;
    partition.moving()?;
    let ongoing = OngoingPartitionReassignment::default()
        .with_partition_index(index)
        .with_replicas(ids(&partition.replicas))
        .with_adding_replicas(ids(&partition.adding()))
        .with_removing_replicas(ids(&partition.removing()));
    Some(ongoing)
}

#[cfg(test)]
mod tests {
    use tidelog_replication::Command;

    use super::*;
    use crate::topics::test_images::{TOPIC_ID, cluster, ids as brokers, with_topic};

    fn after_reassigning(target: Option<&[i32]>, before: Option<&[i32]>) -> Option<[Vec<i32>; 3]> {
        let start = with_topic(&cluster(3), "t", 2, &[1, 2]);
        let targets = before.map(Some).into_iter().chain([target]);
        let image = targets.fold(start, |image, target| {
            let command = Command::AlterReassignment {
                topic: TOPIC_ID,
                partition: PartitionIndex(1),
                target: target.map(brokers),
            };
            image.after(command).expect("altered")
        });
        let topic = image.topic(&TopicName::from("t")).expect("there");
        assert_eq!(ongoing(topic, 0), None);
        assert_eq!(ongoing(topic, 2), None);
        let shown = ongoing(topic, 1)?;
        assert_eq!(shown.partition_index, 1);
        let numbers = |brokers: Vec<tidelog_protocol::messages::BrokerId>| {
            brokers.iter().map(|broker| broker.0).collect()
        };
        Some([
            numbers(shown.replicas),
            numbers(shown.adding_replicas),
            numbers(shown.removing_replicas),
        ])
    }

    #[test]
    fn partitions_on_their_way_say_where_from_and_where_to() {
        assert_eq!(
            after_reassigning(Some(&[3, 2]), None),
            Some([vec![3, 2, 1], vec![3], vec![1]])
        );
    }

    #[test]
    fn a_cancelled_reassignment_is_over_and_another_order_is_none() {
        assert_eq!(after_reassigning(None, Some(&[3, 2])), None);
        assert_eq!(after_reassigning(Some(&[2, 1]), None), None);
    }
}
