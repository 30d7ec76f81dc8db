//! Having partitions elect their leaders.

use tidelog_protocol::messages::ElectLeadersRequest;
use tidelog_protocol::messages::elect_leaders_request::TopicPartitions;
use tidelog_protocol::types::{TopicName, TopicPartition};

use super::{Admin, check, named_by_topic, partition_of};
use crate::error::Error;

/// Who is to lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElectionKind {
    /// The first replica, if it is in sync.
    Preferred,
    /// Where there is no leader, any replica that is alive. Apache Kafka may lose acknowledged records by that; Tidelog
    /// elects only replicas that have them.
    Unclean,
}

/// A partition, and what became of its election.
pub type ElectionOutcome = (TopicPartition, Result<(), Error>);

impl ElectionKind {
    fn wire(self) -> i8 {
        match self {
            ElectionKind::Preferred => 0,
            ElectionKind::Unclean => 1,
        }
    }
}

impl Admin {
    /// Has partitions elect their leaders: some of them, or (`None`) all that need it. Yields what became of each; an
    /// election that was not needed is an error too, ELECTION_NOT_NEEDED.
    pub async fn elect_leaders(
        &self,
        kind: ElectionKind,
        of: Option<&[TopicPartition]>,
    ) -> Result<Vec<ElectionOutcome>, Error> {
        let topics = named_by_topic(of, |topic, indexes| {
            TopicPartitions::default()
                .with_topic(topic)
                .with_partitions(indexes)
        });
        let request = ElectLeadersRequest::default()
            .with_election_type(kind.wire())
            .with_topic_partitions(topics)
            .with_timeout_ms(self.timeout_ms());
        self.ask_controller(request, |reply| {
            Error::check(reply.error_code, None)?;
            let mut results = Vec::new();
            for topic in &reply.replica_election_results {
                let name = TopicName::from(&topic.topic);
                results.extend(topic.partition_result.iter().map(|result| {
                    let outcome = check(result.error_code, &result.error_message);
                    (partition_of(&name, result.partition_id), outcome)
                }));
            }
            results.sort_by(|(a, _), (b, _)| a.cmp(b));
            Ok(results)
        })
        .await
    }
}
