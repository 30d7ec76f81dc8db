//! CreateTopics: new topics, each answered on its own, once its partitions are led.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::future::join_all;
use tidelog_protocol::StrBytes;
use tidelog_protocol::messages::create_topics_request::CreatableTopic;
use tidelog_protocol::messages::create_topics_response::{
    CreatableTopicConfigs, CreatableTopicResult,
};
use tidelog_protocol::messages::{CreateTopicsRequest, CreateTopicsResponse};
use tidelog_protocol::types::{BrokerId, PartitionIndex, TopicId, TopicName};
use tokio::time::Instant;
use uuid::Uuid;

use crate::config::{ConfigEntry, Layers, Overrides, TopicDefaults};
use crate::kafka::context::RequestContext;
use crate::kafka::handlers::HandlerError;
use crate::topics::create::{create, random_start, wait_led};
use crate::topics::plan::{REQUEST_PARTITIONS_MAX, plan_topic, take_room};
use crate::topics::{METADATA_TOPIC, NewTopic, Placement, TopicError, TopicPlan};

/// A topic that was planned and, unless the client only wanted to know, created.
struct Created {
    id: Option<TopicId>,
    plan: TopicPlan,
}

/// Creates all topics first, then waits for the leaders of all.
pub async fn handle(
    cx: &RequestContext,
    request: CreateTopicsRequest,
) -> Result<CreateTopicsResponse, HandlerError> {
    let deadline =
        Instant::now() + Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0));
    let layers = cx.broker.configs.layers();
    let defaults = cx.broker.config().topics.clone();
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for topic in &request.topics {
        *counts.entry(topic.name.as_str()).or_default() += 1;
    }
    let mut results = Vec::with_capacity(counts.len());
    let mut room = REQUEST_PARTITIONS_MAX;
    for topic in &request.topics {
        // A name that is asked for twice is answered once.
        let Some(count) = counts.remove(topic.name.as_str()) else {
            continue;
        };
        let outcome = match count {
            1 => {
                create_one(
                    cx,
                    &layers,
                    &defaults,
                    topic,
                    request.validate_only,
                    deadline,
                    &mut room,
                )
                .await
            }
            _ => Err(TopicError::InvalidRequest(
                "Duplicate topic name.".to_owned(),
            )),
        };
        results.push((topic.name.clone(), outcome));
    }
    let answers = results
        .into_iter()
        .map(|(name, outcome)| finish(cx, &layers, name, outcome, deadline));
    Ok(CreateTopicsResponse::default().with_topics(join_all(answers).await))
}

async fn create_one(
    cx: &RequestContext,
    layers: &Layers,
    defaults: &TopicDefaults,
    topic: &CreatableTopic,
    validate_only: bool,
    deadline: Instant,
    room: &mut usize,
) -> Result<Created, TopicError> {
    let wanted = wanted(topic)?;
    let image = cx.broker.replication.image();
    let plan = plan_topic(&image, layers, defaults, wanted, random_start())?;
    take_room(room, plan.assignments.len())?;
    if validate_only {
        return Ok(Created { id: None, plan });
    }
    let timeout = deadline.saturating_duration_since(Instant::now());
    let id = create(&cx.broker.replication, plan.clone(), timeout).await?;
    Ok(Created { id: Some(id), plan })
}

async fn finish(
    cx: &RequestContext,
    layers: &Layers,
    name: tidelog_protocol::messages::TopicName,
    outcome: Result<Created, TopicError>,
    deadline: Instant,
) -> CreatableTopicResult {
    let outcome = match outcome {
        Ok(Created { id: Some(id), plan }) => {
            let timeout = deadline.saturating_duration_since(Instant::now());
            wait_led(&cx.broker.replication, id, timeout)
                .await
                .map(|()| Created { id: Some(id), plan })
        }
        other => other,
    };
    match outcome {
        Ok(created) => success(layers, name, &created),
        Err(error) => failure(name, &error),
    }
}

/// What the request asks for one topic, as far as the request itself is consistent.
fn wanted(topic: &CreatableTopic) -> Result<NewTopic, TopicError> {
    if topic.name.as_str() == METADATA_TOPIC {
        return Err(TopicError::InvalidRequest(format!(
            "Creation of internal topic {METADATA_TOPIC} is prohibited."
        )));
    }
    let placement = if topic.assignments.is_empty() {
        Placement::Automatic {
            partitions: topic.num_partitions,
            replication_factor: topic.replication_factor,
        }
    } else {
        manual(topic)?
    };
    Ok(NewTopic {
        name: TopicName::from(topic.name.as_str()),
        placement,
        configs: configs(topic)?,
    })
}

fn manual(topic: &CreatableTopic) -> Result<Placement, TopicError> {
    let given = |what: &str| {
        Err(TopicError::InvalidRequest(format!(
            "A manual partition assignment was specified, but {what} was not set to -1."
        )))
    };
    if topic.replication_factor != -1 {
        return given("replication factor");
    }
    if topic.num_partitions != -1 {
        return given("numPartitions");
    }
    let replicas = topic.assignments.iter().map(|assignment| {
        let brokers = assignment
            .broker_ids
            .iter()
            .map(|id| BrokerId(id.0))
            .collect();
        (PartitionIndex(assignment.partition_index), brokers)
    });
    Ok(Placement::Manual(replicas.collect()))
}

fn configs(topic: &CreatableTopic) -> Result<Overrides, TopicError> {
    let nulls: Vec<&str> = topic
        .configs
        .iter()
        .filter(|c| c.value.is_none())
        .map(|c| c.name.as_str())
        .collect();
    if !nulls.is_empty() {
        let message = format!(
            "Null value not supported for topic configs: {}",
            nulls.join(",")
        );
        return Err(TopicError::InvalidConfig(message));
    }
    let pairs = topic
        .configs
        .iter()
        .filter_map(|c| Some((c.name.to_string(), c.value.as_ref()?.to_string())));
    Ok(pairs.collect())
}

fn success(
    layers: &Layers,
    name: tidelog_protocol::messages::TopicName,
    created: &Created,
) -> CreatableTopicResult {
    let configs = layers
        .describe_topic(&created.plan.configs)
        .into_iter()
        .map(config)
        .collect();
    CreatableTopicResult::default()
        .with_name(name)
        .with_topic_id(created.id.map_or(Uuid::nil(), |id| id.0))
        .with_num_partitions(i32::try_from(created.plan.assignments.len()).unwrap_or(i32::MAX))
        .with_replication_factor(
            i16::try_from(created.plan.replication_factor()).unwrap_or(i16::MAX),
        )
        .with_configs(Some(configs))
}

fn config(entry: ConfigEntry) -> CreatableTopicConfigs {
    CreatableTopicConfigs::default()
        .with_name(StrBytes::from_static_str(entry.definition.name))
        .with_value(entry.value.map(StrBytes::from_string))
        .with_read_only(entry.read_only)
        .with_config_source(entry.source as i8)
        .with_is_sensitive(entry.definition.is_secret())
}

fn failure(
    name: tidelog_protocol::messages::TopicName,
    error: &TopicError,
) -> CreatableTopicResult {
    CreatableTopicResult::default()
        .with_name(name)
        .with_error_code(error.code().code())
        .with_error_message(Some(StrBytes::from_string(error.to_string())))
        .with_num_partitions(-1)
        .with_replication_factor(-1)
        .with_configs(Some(Vec::new()))
}

#[cfg(test)]
mod tests {
    use tidelog_protocol::ErrorCode;
    use tidelog_protocol::messages;
    use tidelog_protocol::messages::create_topics_request::{
        CreatableReplicaAssignment, CreatableTopicConfig,
    };

    use super::*;

    fn topic(name: &'static str) -> CreatableTopic {
        CreatableTopic::default()
            .with_name(messages::TopicName(StrBytes::from_static_str(name)))
            .with_num_partitions(-1)
            .with_replication_factor(-1)
    }

    fn refused(topic: &CreatableTopic) -> (ErrorCode, String) {
        let error = wanted(topic).expect_err("refused");
        (error.code(), error.to_string())
    }

    #[test]
    fn manual_assignments_exclude_counts() {
        let assignment =
            CreatableReplicaAssignment::default().with_broker_ids(vec![messages::BrokerId(1)]);
        let manual = topic("t").with_assignments(vec![assignment]);
        assert_eq!(
            wanted(&manual).expect("consistent").placement,
            Placement::Manual(vec![(PartitionIndex(0), vec![BrokerId(1)])])
        );
        let (code, message) = refused(&manual.clone().with_num_partitions(3));
        assert_eq!(code, ErrorCode::InvalidRequest);
        assert_eq!(
            message,
            "A manual partition assignment was specified, but numPartitions was not set to -1."
        );
        let (_, message) = refused(&manual.with_replication_factor(1));
        assert!(
            message.contains("replication factor was not set to -1"),
            "{message}"
        );
    }

    #[test]
    fn null_configs_are_refused() {
        let config = CreatableTopicConfig::default()
            .with_name(StrBytes::from_static_str("retention.ms"))
            .with_value(None);
        let (code, message) = refused(&topic("t").with_configs(vec![config]));
        assert_eq!(code, ErrorCode::InvalidConfig);
        assert_eq!(
            message,
            "Null value not supported for topic configs: retention.ms"
        );
    }

    #[test]
    fn metadata_topic_is_kafkas() {
        assert_eq!(refused(&topic(METADATA_TOPIC)).0, ErrorCode::InvalidRequest);
    }
}
