//! The Produce response, from what became of each batch.

use tidelog_protocol::api::ApiKey;
use tidelog_protocol::batch::validate::{ProduceRejection, RecordError};
use tidelog_protocol::messages::ProduceResponse;
use tidelog_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse,
    TopicProduceResponse,
};
use tidelog_protocol::types::{BrokerId, LeaderEpoch, Offset, TimestampMs};
use tidelog_protocol::{ErrorCode, StrBytes};

use crate::kafka::context::RequestContext;
use crate::kafka::handlers::endpoints;
use crate::kafka::handlers::partitions::{Refusal, TopicKey};
use crate::kafka::request_metrics::count_partition_error;

/// Versions that have the fields of rule 9.
const RECORD_ERRORS_VERSION_MIN: i16 = 8;

/// Versions that have the leader hints of rule 11.
const LEADER_HINT_VERSION_MIN: i16 = 10;

/// What became of a partition's batch.
pub(super) struct PartitionAnswer {
    pub(super) index: i32,
    pub(super) code: Option<ErrorCode>,
    message: Option<String>,
    base_offset: Offset,
    log_append_time: TimestampMs,
    log_start: Offset,
    record_errors: Vec<RecordError>,
    leader: Option<(BrokerId, LeaderEpoch)>,
}

/// What became of a topic's batches.
pub(super) struct TopicAnswer {
    pub(super) key: TopicKey,
    pub(super) partitions: Vec<PartitionAnswer>,
}

impl PartitionAnswer {
    pub(super) fn refused(index: i32, refusal: Refusal) -> PartitionAnswer {
        count_partition_error(ApiKey::Produce, refusal.code);
        PartitionAnswer {
            index,
            code: Some(refusal.code),
            message: None,
            base_offset: Offset::NONE,
            log_append_time: TimestampMs::NONE,
            log_start: Offset::NONE,
            record_errors: Vec::new(),
            leader: refusal.leader,
        }
    }

    pub(super) fn with_message(mut self, message: String) -> PartitionAnswer {
        self.message = Some(message);
        self
    }

    pub(super) fn rejected(index: i32, rejection: ProduceRejection) -> PartitionAnswer {
        PartitionAnswer {
            message: Some(rejection.message),
            record_errors: rejection.record_errors,
            ..PartitionAnswer::refused(index, rejection.code.into())
        }
    }

    pub(super) fn appended(
        index: i32,
        base_offset: Offset,
        log_append_time: TimestampMs,
        log_start: Offset,
    ) -> PartitionAnswer {
        PartitionAnswer {
            index,
            code: None,
            message: None,
            base_offset,
            log_append_time,
            log_start,
            record_errors: Vec::new(),
            leader: None,
        }
    }

    fn into_response(self, version: i16) -> PartitionProduceResponse {
        let mut response = PartitionProduceResponse::default()
            .with_index(self.index)
            .with_error_code(self.code.map_or(0, |code| code.code()))
            .with_base_offset(self.base_offset.0)
            .with_log_append_time_ms(self.log_append_time.0)
            .with_log_start_offset(self.log_start.0);
        if version >= RECORD_ERRORS_VERSION_MIN {
            response.error_message = self.message.map(StrBytes::from_string);
            response.record_errors = self.record_errors.into_iter().map(record_error).collect();
        }
        if let (true, Some((leader, epoch))) = (version >= LEADER_HINT_VERSION_MIN, self.leader) {
            response.current_leader = LeaderIdAndEpoch::default()
                .with_leader_id(leader.0.into())
                .with_leader_epoch(epoch.0);
        }
        response
    }
}

fn record_error(error: RecordError) -> BatchIndexAndErrorMessage {
    BatchIndexAndErrorMessage::default()
        .with_batch_index(error.index)
        .with_batch_index_error_message(Some(StrBytes::from_string(error.message)))
}

/// The response to all of them.
pub(super) fn build(cx: &RequestContext, answers: Vec<TopicAnswer>) -> ProduceResponse {
    let version = cx.version();
    let mut hinted: Vec<BrokerId> = answers
        .iter()
        .flat_map(|topic| &topic.partitions)
        .filter_map(|p| p.leader.map(|(id, _)| id))
        .collect();
    hinted.sort_unstable();
    hinted.dedup();
    let responses = answers
        .into_iter()
        .map(|topic| topic_response(topic, version))
        .collect();
    let mut response = ProduceResponse::default().with_responses(responses);
    if version >= LEADER_HINT_VERSION_MIN && !hinted.is_empty() {
        let image = cx.broker.replication.image();
        let nodes = hinted
            .into_iter()
            .filter_map(|id| endpoints::node(&image, id, &cx.connection.listener));
        response.node_endpoints = nodes.map(node_endpoint).collect();
    }
    response
}

fn topic_response(topic: TopicAnswer, version: i16) -> TopicProduceResponse {
    let partitions = topic
        .partitions
        .into_iter()
        .map(|partition| partition.into_response(version))
        .collect();
    let response = TopicProduceResponse::default().with_partition_responses(partitions);
    match topic.key {
        TopicKey::Id(id) => response.with_topic_id(id.0),
        TopicKey::Name(name) => response.with_name((&name).into()),
    }
}

fn node_endpoint(node: endpoints::Node) -> NodeEndpoint {
    NodeEndpoint::default()
        .with_node_id(node.id.0.into())
        .with_host(node.host)
        .with_port(node.port)
        .with_rack(node.rack)
}
