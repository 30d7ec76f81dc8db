//! ElectLeaders: leaderships go to the replicas that are preferred, or to any where none leads.

use std::time::Duration;

use tidelog_protocol::messages::elect_leaders_request::TopicPartitions;
use tidelog_protocol::messages::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use tidelog_protocol::messages::{ElectLeadersRequest, ElectLeadersResponse};
use tidelog_protocol::types::{PartitionIndex, TopicId, TopicName};
use tidelog_protocol::{ErrorCode, StrBytes};
use tidelog_replication::{ElectionError, ElectionKind, MetadataImage, PartitionImage};

use crate::kafka::context::RequestContext;
use crate::kafka::errors;
use crate::kafka::handlers::HandlerError;
use crate::kafka::memory::Building;
use crate::topics::name;
use crate::topics::plan::{REQUEST_PARTITIONS_MAX, TOO_MANY_PARTITIONS};

const PREFERRED: i8 = 0;
const UNCLEAN: i8 = 1;

/// The response has a code of its own from this version on.
const CODE_VERSION_MIN: i16 = 1;

/// What a topic and a partition take in memory.
const TOPIC_BYTES: usize = 200;
const PARTITION_BYTES: usize = 100;

/// A partition that is there, or why it is not.
type Found = Result<(TopicId, PartitionIndex), Refused>;

/// Why a leadership stays as it is.
type Refused = (ErrorCode, String);

/// Elects the leaders of the named partitions, or of all that need it.
pub async fn handle(
    cx: &RequestContext,
    request: ElectLeadersRequest,
) -> Result<ElectLeadersResponse, HandlerError> {
    let version = cx.version();
    let timeout = Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0));
    let Some(kind) = kind(request.election_type) else {
        let message = format!("Unknown election type {}", request.election_type);
        let topics = request.topic_partitions.unwrap_or_default();
        let message = StrBytes::from_string(message);
        return Ok(refused(version, topics, ErrorCode::InvalidRequest, message));
    };
    let image = cx.broker.replication.image();
    let all = request.topic_partitions.is_none();
    let topics = match request.topic_partitions {
        Some(topics) => topics,
        None => needing(cx, &image, kind).await?,
    };
    let count: usize = topics.iter().map(|topic| topic.partitions.len()).sum();
    if count > REQUEST_PARTITIONS_MAX {
        let message = StrBytes::from_static_str(TOO_MANY_PARTITIONS);
        return Ok(refused(
            version,
            topics,
            ErrorCode::PolicyViolation,
            message,
        ));
    }
    let found: Vec<Vec<Found>> = topics.iter().map(|topic| find(&image, topic)).collect();
    let partitions: Vec<_> = found.iter().flatten().flatten().copied().collect();
    let replication = &cx.broker.replication;
    let outcomes = replication.elect_leaders(kind, partitions, timeout).await;
    let results = results(topics, found, outcomes, all);
    Ok(ElectLeadersResponse::default().with_replica_election_results(results))
}

/// What a number asks for. Before version 1 there is none, which is the first.
fn kind(number: i8) -> Option<ElectionKind> {
    match number {
        PREFERRED => Some(ElectionKind::Preferred),
        UNCLEAN => Some(ElectionKind::Unclean),
        _ => None,
    }
}

/// All topics, each with those of its partitions that need an election.
async fn needing(
    cx: &RequestContext,
    image: &MetadataImage,
    kind: ElectionKind,
) -> Result<Vec<TopicPartitions>, HandlerError> {
    let mut building = Building::begin(cx);
    let mut topics = Vec::new();
    for topic in image.topics() {
        let partitions: Vec<i32> = (0..)
            .zip(&topic.partitions)
            .filter(|(_, partition)| needs(image, partition, kind))
            .map(|(index, _)| index)
            .collect();
        let bytes = TOPIC_BYTES + partitions.len() * PARTITION_BYTES;
        building.add(bytes).await?;
        topics.push(
            TopicPartitions::default()
                .with_topic((&topic.name).into())
                .with_partitions(partitions),
        );
    }
    Ok(topics)
}

fn needs(image: &MetadataImage, partition: &PartitionImage, kind: ElectionKind) -> bool {
    let leader = image.live_leader(partition);
    match kind {
        ElectionKind::Preferred => leader.as_ref() != partition.wanted().first(),
        ElectionKind::Unclean => leader.is_none(),
    }
}

/// Looks up the partitions of a topic, in order.
fn find(image: &MetadataImage, asked: &TopicPartitions) -> Vec<Found> {
    let name = TopicName::from(asked.topic.as_str());
    let topic = image.topic(&name);
    let look_up = |index: &i32| {
        let unknown = |message| (ErrorCode::UnknownTopicOrPartition, message);
        let Some(topic) = topic else {
            let name = name::shown(name.as_str());
            return Err(unknown(format!("No such topic as {name}")));
        };
        match topic.partition(PartitionIndex(*index)) {
            Some(_) => Ok((topic.id, PartitionIndex(*index))),
            None => Err(unknown(format!("No such partition as {name}-{index}"))),
        }
    };
    asked.partitions.iter().map(look_up).collect()
}

/// The results of each topic. `outcomes` are those of the partitions that were found, in order. Where the client named no
/// partitions, it is not told of those that needed nothing.
fn results(
    topics: Vec<TopicPartitions>,
    found: Vec<Vec<Found>>,
    outcomes: Vec<Result<(), ElectionError>>,
    all: bool,
) -> Vec<ReplicaElectionResult> {
    let mut outcomes = outcomes.into_iter();
    let mut results = Vec::with_capacity(topics.len());
    for (topic, found) in topics.into_iter().zip(found) {
        let mut partitions = Vec::with_capacity(found.len());
        for (index, found) in topic.partitions.into_iter().zip(found) {
            let outcome = found.and_then(|_| elected(outcomes.next()));
            let needed_nothing = matches!(outcome, Err((ErrorCode::ElectionNotNeeded, _)));
            if !(all && needed_nothing) {
                partitions.push(result(index, outcome));
            }
        }
        results.push(
            ReplicaElectionResult::default()
                .with_topic(topic.topic)
                .with_partition_result(partitions),
        );
    }
    results
}

/// The outcome of an election in the response's words.
fn elected(outcome: Option<Result<(), ElectionError>>) -> Result<(), Refused> {
    outcome
        .unwrap_or(Err(ElectionError::Timeout))
        .map_err(|error| (errors::election(&error), error.to_string()))
}

fn result(index: i32, outcome: Result<(), Refused>) -> PartitionResult {
    let result = PartitionResult::default()
        .with_partition_id(index)
        .with_error_message(None);
    match outcome {
        Ok(()) => result,
        Err((code, message)) => result
            .with_error_code(code.code())
            .with_error_message(Some(StrBytes::from_string(message))),
    }
}

/// The request is refused as a whole.
fn refused(
    version: i16,
    topics: Vec<TopicPartitions>,
    code: ErrorCode,
    message: StrBytes,
) -> ElectLeadersResponse {
    let partition = |index: i32| {
        PartitionResult::default()
            .with_partition_id(index)
            .with_error_code(code.code())
            .with_error_message(Some(message.clone()))
    };
    let topic = |topic: TopicPartitions| {
        ReplicaElectionResult::default()
            .with_topic(topic.topic)
            .with_partition_result(topic.partitions.into_iter().map(&partition).collect())
    };
    let response = ElectLeadersResponse::default()
        .with_replica_election_results(topics.into_iter().map(topic).collect());
    match version {
        CODE_VERSION_MIN.. => response.with_error_code(code.code()),
        _ => response,
    }
}

#[cfg(test)]
mod tests {
    use tidelog_protocol::types::LeaderEpoch;
    use tidelog_replication::{Command, LeaderReport};

    use super::*;
    use crate::topics::test_images::{TOPIC_ID, cluster, fenced, ids, with_topic};

    /// A topic with three partitions: one led by the preferred replica, one by the other, one by none.
    fn image() -> MetadataImage {
        let report = |(partition, leader)| LeaderReport {
            topic: TOPIC_ID,
            partition: PartitionIndex(partition),
            leader,
            epoch: LeaderEpoch(1),
            isr: ids(&[1, 2]),
        };
        let leaders = (0..).zip(ids(&[1, 2])).map(report);
        with_topic(&cluster(2), "t", 3, &[1, 2])
            .after(Command::ReportLeaders(leaders.collect()))
            .expect("reported")
    }

    fn asked(topic: &'static str, partitions: &[i32]) -> TopicPartitions {
        TopicPartitions::default()
            .with_topic(StrBytes::from_static_str(topic).into())
            .with_partitions(partitions.to_vec())
    }

    fn shown(results: &[ReplicaElectionResult]) -> Vec<(&str, Vec<(i32, i16)>)> {
        let code = |result: &PartitionResult| (result.partition_id, result.error_code);
        results
            .iter()
            .map(|r| {
                (
                    r.topic.as_str(),
                    r.partition_result.iter().map(code).collect(),
                )
            })
            .collect()
    }

    #[test]
    fn partitions_that_need_an_election() {
        let needing = |image: &MetadataImage, kind| {
            let topic = image.topic(&TopicName::from("t")).expect("there");
            let needs = (topic.partitions.iter()).map(|it| needs(image, it, kind));
            needs.collect::<Vec<_>>()
        };
        let image = image();
        assert_eq!(
            needing(&image, ElectionKind::Preferred),
            [false, true, true]
        );
        assert_eq!(needing(&image, ElectionKind::Unclean), [false, false, true]);
        let image = fenced(&image, 2);
        assert_eq!(needing(&image, ElectionKind::Unclean), [false, true, true]);
    }

    #[test]
    fn unknown_partitions_are_said_in_kafkas_words() {
        let unknown = |message: &str| Err((ErrorCode::UnknownTopicOrPartition, message.to_owned()));
        assert_eq!(
            find(&image(), &asked("t", &[2, 3, -1])),
            [
                Ok((TOPIC_ID, PartitionIndex(2))),
                unknown("No such partition as t-3"),
                unknown("No such partition as t--1"),
            ]
        );
        assert_eq!(
            find(&image(), &asked("x", &[0])),
            [unknown("No such topic as x")]
        );
    }

    #[test]
    fn results_stand_where_they_were_asked_for() {
        let topics = vec![asked("t", &[0, 7, 1]), asked("x", &[0]), asked("t", &[2])];
        let image = image();
        let found: Vec<_> = topics.iter().map(|topic| find(&image, topic)).collect();
        let outcomes = vec![
            Ok(()),
            Err(ElectionError::NotNeeded),
            Err(ElectionError::PreferredNotAvailable(
                "it is down".to_owned(),
            )),
        ];
        let named = results(topics.clone(), found.clone(), outcomes.clone(), false);
        assert_eq!(
            shown(&named),
            [
                ("t", vec![(0, 0), (7, 3), (1, 84)]),
                ("x", vec![(0, 3)]),
                ("t", vec![(2, 80)]),
            ]
        );
        let message = named[2].partition_result[0].error_message.as_deref();
        assert_eq!(message, Some("it is down"));
        assert_eq!(named[0].partition_result[0].error_message, None);
        let all = results(topics, found, outcomes, true);
        assert_eq!(shown(&all)[0], ("t", vec![(0, 0), (7, 3)]));
    }

    #[test]
    fn unknown_types_are_refused_for_each_partition() {
        assert_eq!(kind(0), Some(ElectionKind::Preferred));
        assert_eq!(kind(1), Some(ElectionKind::Unclean));
        assert_eq!((kind(2), kind(-1)), (None, None));
        let code = ErrorCode::InvalidRequest;
        let refuse = |version| {
            let message = StrBytes::from_static_str("Unknown election type 2");
            refused(version, vec![asked("t", &[0, 1])], code, message)
        };
        let response = refuse(2);
        assert_eq!(response.error_code, 42);
        assert_eq!(
            shown(&response.replica_election_results),
            [("t", vec![(0, 42), (1, 42)])]
        );
        assert_eq!(refuse(0).error_code, 0, "which version 0 cannot say");
    }
}
