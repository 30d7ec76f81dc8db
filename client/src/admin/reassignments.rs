//! Moving partitions to other brokers.

use tidelog_protocol::messages::alter_partition_reassignments_request::{
    ReassignablePartition, ReassignableTopic,
};
use tidelog_protocol::messages::list_partition_reassignments_request::ListPartitionReassignmentsTopics;
use tidelog_protocol::messages::{
    self, AlterPartitionReassignmentsRequest, ListPartitionReassignmentsRequest,
};
use tidelog_protocol::types::{BrokerId, TopicName, TopicPartition};

use super::{Admin, check, final_unless_moved, only, partition_of};
use crate::error::Error;
use crate::metadata::broker_ids;

/// A partition that is on its way to other brokers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reassignment {
    /// The partition.
    pub partition: TopicPartition,
    /// All brokers that hold it, or are to.
    pub replicas: Vec<BrokerId>,
    /// Those of them that get it.
    pub adding: Vec<BrokerId>,
    /// Those of them that lose it.
    pub removing: Vec<BrokerId>,
}

impl Admin {
    /// Has other brokers hold a partition, the first of them preferred as its leader; `None` cancels a move that is
    /// under way. Done when the controller has noted it, which is before the records are copied.
    pub async fn reassign(
        &self,
        of: &TopicPartition,
        replicas: Option<&[BrokerId]>,
    ) -> Result<(), Error> {
        let wire = |ids: &[BrokerId]| ids.iter().map(|id| messages::BrokerId(id.0)).collect();
        let partition = ReassignablePartition::default()
            .with_partition_index(of.partition.0)
            .with_replicas(replicas.map(wire));
        let topic = ReassignableTopic::default()
            .with_name((&of.topic).into())
            .with_partitions(vec![partition]);
        let request = AlterPartitionReassignmentsRequest::default()
            .with_topics(vec![topic])
            .with_timeout_ms(self.timeout_ms());
        self.ask_controller(request, |reply| {
            check(reply.error_code, &reply.error_message)?;
            let result = only(only(reply.responses)?.partitions)?;
            final_unless_moved(check(result.error_code, &result.error_message))
        })
        .await?
    }

    /// The partitions that are on their way to other brokers, of some topics or of all, by name.
    pub async fn list_reassignments(
        &self,
        topics: Option<&[TopicName]>,
    ) -> Result<Vec<Reassignment>, Error> {
        let asked = match topics {
            Some(topics) => Some(self.all_partitions(topics).await?),
            None => None,
        };
        let request = ListPartitionReassignmentsRequest::default()
            .with_topics(asked)
            .with_timeout_ms(self.timeout_ms());
        self.ask_controller(request, |reply| {
            check(reply.error_code, &reply.error_message)?;
            let mut moves = Vec::new();
            for topic in &reply.topics {
                let name = TopicName::from(&topic.name);
                moves.extend(topic.partitions.iter().map(|partition| Reassignment {
                    partition: partition_of(&name, partition.partition_index),
                    replicas: broker_ids(&partition.replicas),
                    adding: broker_ids(&partition.adding_replicas),
                    removing: broker_ids(&partition.removing_replicas),
                }));
            }
            moves.sort_by(|a, b| a.partition.cmp(&b.partition));
            Ok(moves)
        })
        .await
    }

    /// The request has no word for "all partitions of a topic".
    async fn all_partitions(
        &self,
        topics: &[TopicName],
    ) -> Result<Vec<ListPartitionReassignmentsTopics>, Error> {
        let mut asked = Vec::with_capacity(topics.len());
        for name in topics {
            let topic = self.describe_topic(name).await?;
            let indexes = topic.partitions.iter().map(|it| it.index.0).collect();
            asked.push(
                ListPartitionReassignmentsTopics::default()
                    .with_name(name.into())
                    .with_partition_indexes(indexes),
            );
        }
        Ok(asked)
    }
}
