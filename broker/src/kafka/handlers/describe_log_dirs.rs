//! DescribeLogDirs: the data directory, its space, and what each partition takes of it.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use tidelog_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;
use tidelog_protocol::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use tidelog_protocol::messages::{self, DescribeLogDirsRequest, DescribeLogDirsResponse};
use tidelog_protocol::types::{PartitionIndex, TopicName};
use tidelog_protocol::{ErrorCode, StrBytes};
use tidelog_storage::log::LogDescription;

use crate::kafka::context::RequestContext;
use crate::kafka::handlers::HandlerError;

/// The space of the file system could not be asked for.
const UNKNOWN_BYTES: i64 = -1;

/// One directory, because a broker has one.
pub async fn handle(
    cx: &RequestContext,
    request: DescribeLogDirsRequest,
) -> Result<DescribeLogDirsResponse, HandlerError> {
    let image = cx.broker.replication.image();
    let asked = request.topics.as_deref().map(Asked::of);
    let mut logs = cx.broker.logs.logs();
    // A log whose topic was deleted lives on for a moment.
    logs.retain(|log| image.topic_by_id(log.topic_id).is_some());
    let space = cx.broker.logs.space().ok();
    let bytes = |count: Option<u64>| {
        count
            .and_then(|n| i64::try_from(n).ok())
            .unwrap_or(UNKNOWN_BYTES)
    };
    let error = cx
        .broker
        .logs
        .failure()
        .map_or(0, |_| ErrorCode::KafkaStorageError.code());
    let directory = DescribeLogDirsResult::default()
        .with_error_code(error)
        .with_log_dir(StrBytes::from_string(path(cx.broker.logs.directory())))
        .with_topics(topics(logs, asked.as_ref()))
        .with_total_bytes(bytes(space.as_ref().map(|space| space.total_bytes)))
        .with_usable_bytes(bytes(space.as_ref().map(|space| space.available_bytes)));
    Ok(DescribeLogDirsResponse::default().with_results(vec![directory]))
}

/// The directory as Kafka's tools show it, whatever the broker was told.
fn path(directory: &Path) -> String {
    let absolute = std::path::absolute(directory);
    let shown = absolute.as_deref().unwrap_or(directory);
    shown.display().to_string()
}

/// The partitions that a request names.
struct Asked<'a>(HashSet<(&'a str, i32)>);

impl<'a> Asked<'a> {
    fn of(topics: &'a [DescribableLogDirTopic]) -> Asked<'a> {
        let pairs = topics.iter().flat_map(|topic| {
            topic
                .partitions
                .iter()
                .map(|index| (topic.topic.as_str(), *index))
        });
        Asked(pairs.collect())
    }

    fn names(&self, topic: &TopicName, partition: PartitionIndex) -> bool {
        self.0.contains(&(topic.as_str(), partition.0))
    }
}

fn topics(logs: Vec<LogDescription>, asked: Option<&Asked<'_>>) -> Vec<DescribeLogDirsTopic> {
    let mut by_topic: BTreeMap<TopicName, Vec<DescribeLogDirsPartition>> = BTreeMap::new();
    for log in logs {
        if asked.is_none_or(|asked| asked.names(&log.topic, log.partition)) {
            let size = i64::try_from(log.bounds.size_bytes).unwrap_or(i64::MAX);
            let partition = DescribeLogDirsPartition::default()
                .with_partition_index(log.partition.0)
                .with_partition_size(size)
                .with_offset_lag(0)
                .with_is_future_key(false);
            by_topic.entry(log.topic).or_default().push(partition);
        }
    }
    let topic = |(name, mut partitions): (TopicName, Vec<DescribeLogDirsPartition>)| {
        partitions.sort_by_key(|partition| partition.partition_index);
        DescribeLogDirsTopic::default()
            .with_name(messages::TopicName(StrBytes::from_string(name.to_string())))
            .with_partitions(partitions)
    };
    by_topic.into_iter().map(topic).collect()
}

#[cfg(test)]
mod tests {
    use tidelog_protocol::types::TopicId;
    use tidelog_storage::log::{LogBounds, LogId};
    use uuid::Uuid;

    use super::*;

    fn log(topic: &str, partition: i32, size_bytes: u64) -> LogDescription {
        LogDescription {
            id: LogId(1),
            topic: TopicName::from(topic),
            topic_id: TopicId(Uuid::nil()),
            partition: PartitionIndex(partition),
            bounds: LogBounds {
                size_bytes,
                ..LogBounds::default()
            },
            stopped: None,
        }
    }

    fn shown(topics: Vec<DescribeLogDirsTopic>) -> Vec<(String, Vec<(i32, i64)>)> {
        let sizes = |topic: &DescribeLogDirsTopic| {
            topic
                .partitions
                .iter()
                .map(|p| (p.partition_index, p.partition_size))
                .collect()
        };
        topics
            .iter()
            .map(|topic| (topic.name.to_string(), sizes(topic)))
            .collect()
    }

    #[test]
    fn all_or_only_what_is_asked_for() {
        let logs = || vec![log("b", 1, 7), log("a", 0, 5), log("b", 0, 6)];
        let all = [
            ("a".to_owned(), vec![(0, 5)]),
            ("b".to_owned(), vec![(0, 6), (1, 7)]),
        ];
        assert_eq!(shown(topics(logs(), None)), all);
        let request = [DescribableLogDirTopic::default()
            .with_topic(messages::TopicName(StrBytes::from_static_str("b")))
            .with_partitions(vec![1, 9])];
        assert_eq!(
            shown(topics(logs(), Some(&Asked::of(&request)))),
            [("b".to_owned(), vec![(1, 7)])]
        );
        assert_eq!(shown(topics(logs(), Some(&Asked::of(&[])))), []);
    }
}
