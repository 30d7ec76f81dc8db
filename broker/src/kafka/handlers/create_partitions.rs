//! CreatePartitions: more partitions for topics, each answered on its own, once they are led.

use std::collections::HashMap;
use std::time::Duration;

use tidelog_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use tidelog_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use tidelog_protocol::messages::{CreatePartitionsRequest, CreatePartitionsResponse};
use tidelog_protocol::types::{BrokerId, TopicName};
use tidelog_protocol::{ErrorCode, StrBytes};
use tidelog_replication::Command;
use tokio::time::Instant;

use crate::kafka::context::RequestContext;
use crate::kafka::handlers::HandlerError;
use crate::topics::TopicError;
use crate::topics::create::{random_start, wait_led};
use crate::topics::plan::{REQUEST_PARTITIONS_MAX, plan_partitions, take_room};

/// Takes one topic after the other.
pub async fn handle(
    cx: &RequestContext,
    request: CreatePartitionsRequest,
) -> Result<CreatePartitionsResponse, HandlerError> {
    let deadline =
        Instant::now() + Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0));
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for topic in &request.topics {
        *counts.entry(topic.name.as_str()).or_default() += 1;
    }
    let mut results = Vec::with_capacity(counts.len());
    let mut room = REQUEST_PARTITIONS_MAX;
    for topic in &request.topics {
        let Some(count) = counts.remove(topic.name.as_str()) else {
            continue;
        };
        let outcome = match count {
            1 => extend(cx, topic, request.validate_only, deadline, &mut room).await,
            _ => Err(TopicError::InvalidRequest(
                "Duplicate topic name.".to_owned(),
            )),
        };
        results.push(answer(topic, outcome));
    }
    Ok(CreatePartitionsResponse::default().with_results(results))
}

async fn extend(
    cx: &RequestContext,
    topic: &CreatePartitionsTopic,
    validate_only: bool,
    deadline: Instant,
    room: &mut usize,
) -> Result<(), TopicError> {
    let replication = &cx.broker.replication;
    let image = replication.image();
    let found = image
        .topic(&TopicName::from(topic.name.as_str()))
        .ok_or(TopicError::Unknown)?;
    let manual = topic.assignments.as_ref().map(|assignments| {
        let brokers = |ids: &[tidelog_protocol::messages::BrokerId]| {
            ids.iter().map(|id| BrokerId(id.0)).collect()
        };
        assignments
            .iter()
            .map(|assignment| brokers(&assignment.broker_ids))
            .collect()
    });
    let assignments = plan_partitions(&image, found, topic.count, manual, random_start())?;
    take_room(room, assignments.len())?;
    if validate_only {
        return Ok(());
    }
    let timeout = deadline.saturating_duration_since(Instant::now());
    replication
        .controller()
        .submit(
            Command::CreatePartitions {
                id: found.id,
                assignments,
            },
            timeout,
        )
        .await?;
    tracing::info!(topic = %found.name, partitions = topic.count, "partitions added");
    wait_led(
        replication,
        found.id,
        deadline.saturating_duration_since(Instant::now()),
    )
    .await
}

fn answer(
    topic: &CreatePartitionsTopic,
    outcome: Result<(), TopicError>,
) -> CreatePartitionsTopicResult {
    let result = CreatePartitionsTopicResult::default().with_name(topic.name.clone());
    match outcome {
        Ok(()) => result.with_error_code(0),
        Err(error) => {
            let code: ErrorCode = error.code();
            result
                .with_error_code(code.code())
                .with_error_message(Some(StrBytes::from_string(error.to_string())))
        }
    }
}
