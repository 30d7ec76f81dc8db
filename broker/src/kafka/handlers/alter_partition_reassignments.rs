//! AlterPartitionReassignments: other replicas for partitions, or the end of such a change, each answered on its own.
//! Internal topics can be reassigned, as in Kafka.

use std::collections::HashSet;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use tidelog_protocol::messages::alter_partition_reassignments_request::{
    ReassignablePartition, ReassignableTopic,
};
use tidelog_protocol::messages::alter_partition_reassignments_response::{
    ReassignablePartitionResponse, ReassignableTopicResponse,
};
use tidelog_protocol::messages::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse,
};
use tidelog_protocol::types::{BrokerId, PartitionIndex, TopicName};
use tidelog_protocol::{ErrorCode, StrBytes};
use tidelog_replication::MetadataImage;
use tokio::time::Instant;

use crate::kafka::context::RequestContext;
use crate::kafka::handlers::HandlerError;
use crate::topics::TopicError;
use crate::topics::plan::{REQUEST_PARTITIONS_MAX, TOO_MANY_PARTITIONS};
use crate::topics::reassign::{ReassignmentPlan, Resize, plan_reassignment, reassign};

/// Changes of one request that are on their way to the controller: enough of them to share its syncs, few beside what it
/// takes from all.
const IN_FLIGHT_MAX: usize = 128;

/// What is to be done for one entry of a request; `None`: a later one for the same partition takes its place.
type Plan = Result<Option<ReassignmentPlan>, TopicError>;

/// Asks the controller for all changes, some at a time.
pub async fn handle(
    cx: &RequestContext,
    request: AlterPartitionReassignmentsRequest,
) -> Result<AlterPartitionReassignmentsResponse, HandlerError> {
    let deadline =
        Instant::now() + Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0));
    let response = AlterPartitionReassignmentsResponse::default()
        .with_allow_replication_factor_change(request.allow_replication_factor_change)
        .with_error_message(None);
    let count: usize = request.topics.iter().map(|t| t.partitions.len()).sum();
    if count > REQUEST_PARTITIONS_MAX {
        return Ok(too_many(response, request.topics));
    }
    let resize = if request.allow_replication_factor_change {
        Resize::Allowed
    } else {
        Resize::Refused
    };
    let plans = plan_all(&cx.broker.replication.image(), &request.topics, resize);
    let outcomes: Vec<Result<(), TopicError>> = stream::iter(plans)
        .map(|plan| carry_out(cx, plan, deadline))
        .buffered(IN_FLIGHT_MAX)
        .collect()
        .await;
    let altered = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    tracing::info!(altered, asked = count, "partition reassignments altered");
    let mut outcomes = outcomes.into_iter();
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().zip(outcomes.by_ref());
        ReassignableTopicResponse::default()
            .with_name(topic.name)
            .with_partitions(partitions.map(answer).collect())
    });
    Ok(response.with_responses(topics.collect()))
}

/// A plan for each partition of each topic, in order.
fn plan_all(image: &MetadataImage, topics: &[ReassignableTopic], resize: Resize) -> Vec<Plan> {
    let mut plans = Vec::new();
    for topic in topics {
        let name = TopicName::from(topic.name.as_str());
        plans.extend(topic.partitions.iter().map(|partition| {
            let index = PartitionIndex(partition.partition_index);
            let replicas = partition.replicas.as_ref();
            let target = replicas.map(|ids| ids.iter().map(|id| BrokerId(id.0)).collect());
            plan_reassignment(image, &name, index, target, resize).map(Some)
        }));
    }
    drop_superseded(&mut plans);
    plans
}

/// Of several plans for one partition the last holds, as in Kafka. The others are answered as if they had been carried out
/// before it.
fn drop_superseded(plans: &mut [Plan]) {
    let mut later = HashSet::new();
    for entry in plans.iter_mut().rev() {
        if let Ok(Some(plan)) = entry
            && !later.insert((plan.topic, plan.partition))
        {
            *entry = Ok(None);
        }
    }
}

async fn carry_out(cx: &RequestContext, plan: Plan, deadline: Instant) -> Result<(), TopicError> {
    let Some(plan) = plan? else { return Ok(()) };
    let timeout = deadline.saturating_duration_since(Instant::now());
    reassign(&cx.broker.replication, plan, timeout).await
}

fn answer(
    (partition, outcome): (&ReassignablePartition, Result<(), TopicError>),
) -> ReassignablePartitionResponse {
    let response = ReassignablePartitionResponse::default()
        .with_partition_index(partition.partition_index)
        .with_error_message(None);
    match outcome {
        Ok(()) => response,
        Err(error) => response
            .with_error_code(error.code().code())
            .with_error_message(Some(StrBytes::from_string(error.to_string()))),
    }
}

/// The request is refused as a whole; clients look at its partitions nevertheless.
fn too_many(
    response: AlterPartitionReassignmentsResponse,
    topics: Vec<ReassignableTopic>,
) -> AlterPartitionReassignmentsResponse {
    let code = ErrorCode::PolicyViolation.code();
    let message = StrBytes::from_static_str(TOO_MANY_PARTITIONS);
    let partition = |partition: ReassignablePartition| {
        ReassignablePartitionResponse::default()
            .with_partition_index(partition.partition_index)
            .with_error_code(code)
            .with_error_message(Some(message.clone()))
    };
    let topics = topics.into_iter().map(|topic| {
        ReassignableTopicResponse::default()
            .with_name(topic.name)
            .with_partitions(topic.partitions.into_iter().map(partition).collect())
    });
    let topics = topics.collect();
    response
        .with_error_code(code)
        .with_error_message(Some(message.clone()))
        .with_responses(topics)
}

#[cfg(test)]
mod tests {
    use tidelog_protocol::messages;

    use super::*;
    use crate::topics::test_images::{cluster, ids, with_topic};

    fn topic(name: &'static str, partitions: &[(i32, Option<&[i32]>)]) -> ReassignableTopic {
        let partition = |(index, replicas): &(i32, Option<&[i32]>)| {
            let ids = |ids: &[i32]| ids.iter().map(|id| messages::BrokerId(*id)).collect();
            ReassignablePartition::default()
                .with_partition_index(*index)
                .with_replicas(replicas.map(ids))
        };
        ReassignableTopic::default()
            .with_name(StrBytes::from_static_str(name).into())
            .with_partitions(partitions.iter().map(partition).collect())
    }

    #[test]
    fn each_partition_has_a_plan_and_the_last_of_several_holds() {
        let image = with_topic(&cluster(3), "t", 2, &[1, 2]);
        let asked = [
            topic("t", &[(0, Some(&[1, 3])), (1, None), (0, Some(&[2, 3]))]),
            topic("x", &[(0, Some(&[1]))]),
            topic("t", &[(1, Some(&[9])), (0, Some(&[]))]),
        ];
        let plans = plan_all(&image, &asked, Resize::Allowed);
        let shown: Vec<_> = plans
            .into_iter()
            .map(|plan| plan.map(|plan| plan.map(|plan| (plan.partition.0, plan.target))))
            .map(|plan| plan.map_err(|error| error.code()))
            .collect();
        assert_eq!(
            shown,
            [
                Ok(None),
                Ok(Some((1, None))),
                Ok(Some((0, Some(ids(&[2, 3]))))),
                Err(ErrorCode::UnknownTopicOrPartition),
                Err(ErrorCode::InvalidReplicaAssignment),
                Err(ErrorCode::InvalidReplicaAssignment),
            ],
            "a plan that is refused takes no other's place"
        );
    }

    #[test]
    fn outcomes_are_said_in_kafkas_words() {
        let partition = ReassignablePartition::default().with_partition_index(4);
        let done = answer((&partition, Ok(())));
        assert_eq!(
            (done.partition_index, done.error_code, done.error_message),
            (4, 0, None)
        );
        let refused = answer((&partition, Err(TopicError::NoReassignment)));
        assert_eq!(refused.error_code, 85);
        assert_eq!(
            refused.error_message.as_deref(),
            Some("No partition reassignment is in progress.")
        );
    }

    #[test]
    fn a_request_for_too_many_is_refused_as_a_whole() {
        let asked = vec![
            topic("a", &[(0, None), (1, None)]),
            topic("b", &[(7, None)]),
        ];
        let response = too_many(AlterPartitionReassignmentsResponse::default(), asked);
        assert_eq!(response.error_code, ErrorCode::PolicyViolation.code());
        let answered: Vec<_> = response
            .responses
            .iter()
            .flat_map(|topic| &topic.partitions)
            .map(|partition| (partition.partition_index, partition.error_code))
            .collect();
        let code = response.error_code;
        assert_eq!(answered, [(0, code), (1, code), (7, code)]);
    }
}
