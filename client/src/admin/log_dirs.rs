//! What replicas take of the disks.

use std::collections::BTreeMap;

use tidelog_protocol::messages::DescribeLogDirsRequest;
use tidelog_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;
use tidelog_protocol::types::{BrokerId, TopicName, TopicPartition};

use super::{Admin, named_by_topic, partition_of};
use crate::error::Error;

impl Admin {
    /// Bytes of the replicas that a broker has, of some partitions or of all. Those that it does not have are absent,
    /// and so may be those on a disk that failed.
    pub async fn replica_sizes(
        &self,
        broker: BrokerId,
        of: Option<&[TopicPartition]>,
    ) -> Result<BTreeMap<TopicPartition, u64>, Error> {
        let topics = named_by_topic(of, |topic, indexes| {
            DescribableLogDirTopic::default()
                .with_topic(topic)
                .with_partitions(indexes)
        });
        let request = DescribeLogDirsRequest::default().with_topics(topics);
        self.ask_broker(broker, request, |reply| {
            Error::check(reply.error_code, None)?;
            let mut sizes = BTreeMap::new();
            for topic in reply.results.iter().flat_map(|disk| &disk.topics) {
                let name = TopicName::from(&topic.name);
                // A copy that is to take the place of one on another disk of the same broker is not counted.
                for partition in topic.partitions.iter().filter(|it| !it.is_future_key) {
                    let bytes = u64::try_from(partition.partition_size).unwrap_or_default();
                    sizes.insert(partition_of(&name, partition.partition_index), bytes);
                }
            }
            Ok(sizes)
        })
        .await
    }
}
