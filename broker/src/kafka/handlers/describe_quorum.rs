//! DescribeQuorum: the controller group, as its leader knows it (KIP-595, KIP-836, KIP-853).

use std::time::{SystemTime, UNIX_EPOCH};

use tidelog_protocol::messages::describe_quorum_request::TopicData as AskedTopic;
use tidelog_protocol::messages::describe_quorum_response::{
    Listener, Node, PartitionData, ReplicaState, TopicData,
};
use tidelog_protocol::messages::{self, DescribeQuorumRequest, DescribeQuorumResponse};
use tidelog_protocol::types::{BrokerId, TimestampMs};
use tidelog_protocol::{ErrorCode, StrBytes};
use tidelog_replication::{MetadataImage, Quorum, QuorumMember};

use crate::kafka::context::RequestContext;
use crate::kafka::errors;
use crate::kafka::handlers::HandlerError;
use crate::topics::METADATA_TOPIC;

/// The one partition of the metadata.
const METADATA_PARTITION: i32 = 0;

/// Replicas have directories, and the response names the voters' addresses, from this version on.
const DIRECTORY_VERSION_MIN: i16 = 2;

/// What Kafka's tools expect a controller's listener to be called. Here a broker's own listeners lead to the controller.
const LISTENER: &str = "CONTROLLER";

/// Asks the leader of the group, whichever broker that is.
pub async fn handle(
    cx: &RequestContext,
    request: DescribeQuorumRequest,
) -> Result<DescribeQuorumResponse, HandlerError> {
    if !asks_for_metadata(&request.topics) {
        return Ok(unknown(request.topics));
    }
    let timeout = cx.broker.config().replication.request_timeout;
    match cx.broker.replication.describe_quorum(timeout).await {
        Ok(quorum) => {
            let image = cx.broker.replication.image();
            Ok(described(cx.version(), &image, &quorum, now()))
        }
        Err(error) => Ok(DescribeQuorumResponse::default()
            .with_error_code(errors::submit(&error).code())
            .with_error_message(Some(StrBytes::from_string(error.to_string())))),
    }
}

/// Whether the metadata is asked for, and nothing else.
fn asks_for_metadata(topics: &[AskedTopic]) -> bool {
    let [topic] = topics else { return false };
    let [partition] = topic.partitions.as_slice() else {
        return false;
    };
    topic.topic_name.as_str() == METADATA_TOPIC && partition.partition_index == METADATA_PARTITION
}

fn unknown(topics: Vec<AskedTopic>) -> DescribeQuorumResponse {
    let message = StrBytes::from_static_str("This server does not host this topic-partition.");
    let topics = topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            PartitionData::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(ErrorCode::UnknownTopicOrPartition.code())
                .with_error_message(Some(message.clone()))
        });
        TopicData::default()
            .with_partitions(partitions.collect())
            .with_topic_name(topic.topic_name)
    });
    DescribeQuorumResponse::default().with_topics(topics.collect())
}

fn described(
    version: i16,
    image: &MetadataImage,
    quorum: &Quorum,
    now: TimestampMs,
) -> DescribeQuorumResponse {
    let replicas = |members: &[QuorumMember]| {
        let replicas = members.iter().map(|member| {
            let caught_up = member.log_end >= quorum.high_watermark;
            replica(version, member, caught_up, now)
        });
        replicas.collect()
    };
    let partition = PartitionData::default()
        .with_partition_index(METADATA_PARTITION)
        .with_leader_id(quorum.leader.0.into())
        .with_leader_epoch(quorum.epoch)
        .with_high_watermark(quorum.high_watermark)
        .with_current_voters(replicas(&quorum.voters))
        .with_observers(replicas(&quorum.observers));
    let topic = TopicData::default()
        .with_topic_name(StrBytes::from_static_str(METADATA_TOPIC).into())
        .with_partitions(vec![partition]);
    let nodes = match version {
        DIRECTORY_VERSION_MIN.. => {
            let voters = quorum.voters.iter();
            voters.map(|voter| node(image, voter.broker)).collect()
        }
        _ => Vec::new(),
    };
    DescribeQuorumResponse::default()
        .with_topics(vec![topic])
        .with_nodes(nodes)
}

/// When a member that lacks something last lacked nothing is not known, which the response can say.
fn replica(version: i16, member: &QuorumMember, caught_up: bool, now: TimestampMs) -> ReplicaState {
    let heard = member.silent.map_or(TimestampMs::NONE, |silent| {
        let silent_ms = i64::try_from(silent.as_millis()).unwrap_or(i64::MAX);
        TimestampMs(now.0.saturating_sub(silent_ms).max(0))
    });
    let replica = ReplicaState::default()
        .with_replica_id(member.broker.0.into())
        .with_log_end_offset(member.log_end)
        .with_last_fetch_timestamp(heard.0)
        .with_last_caught_up_timestamp(if caught_up { heard.0 } else { -1 });
    match version {
        DIRECTORY_VERSION_MIN.. => replica.with_replica_directory_id(member.directory_id),
        _ => replica,
    }
}

/// A voter with the first address that it advertises, if it is registered.
fn node(image: &MetadataImage, broker: BrokerId) -> Node {
    let endpoint = image
        .broker(broker)
        .and_then(|broker| broker.endpoints.first());
    let listener = endpoint.map(|endpoint| {
        Listener::default()
            .with_name(StrBytes::from_static_str(LISTENER))
            .with_host(StrBytes::from_string(endpoint.host.clone()))
            .with_port(endpoint.port)
    });
    Node::default()
        .with_node_id(messages::BrokerId(broker.0))
        .with_listeners(listener.into_iter().collect())
}

fn now() -> TimestampMs {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
    let millis = since_epoch.unwrap_or_default().as_millis();
    TimestampMs(i64::try_from(millis).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tidelog_protocol::messages::describe_quorum_request;
    use tidelog_replication::{Endpoint, SecurityProtocol};
    use uuid::Uuid;

    use super::*;
    use crate::topics::test_images::with_broker;

    const NOW: TimestampMs = TimestampMs(1_700_000_000_000);

    fn asked(topic: &'static str, partitions: &[i32]) -> AskedTopic {
        let partition = |index: &i32| {
            describe_quorum_request::PartitionData::default().with_partition_index(*index)
        };
        AskedTopic::default()
            .with_topic_name(StrBytes::from_static_str(topic).into())
            .with_partitions(partitions.iter().map(partition).collect())
    }

    fn member(broker: i32, log_end: i64, silent: Option<Duration>) -> QuorumMember {
        QuorumMember {
            broker: BrokerId(broker),
            directory_id: Uuid::from_u128(5),
            log_end,
            silent,
        }
    }

    fn quorum() -> Quorum {
        Quorum {
            leader: BrokerId(1),
            epoch: 3,
            high_watermark: 40,
            voters: vec![
                member(1, 42, Some(Duration::ZERO)),
                member(2, 40, Some(Duration::from_millis(250))),
                member(4, 39, Some(Duration::from_millis(5))),
            ],
            observers: vec![member(3, -1, None)],
        }
    }

    /// Broker 1 is registered, broker 2 is not.
    fn image() -> MetadataImage {
        let endpoint = |listener: &str, port| Endpoint {
            listener: listener.to_owned(),
            host: "host".to_owned(),
            port,
            security_protocol: SecurityProtocol::Plaintext,
        };
        let endpoints = vec![endpoint("PLAINTEXT", 9092), endpoint("OUTSIDE", 9094)];
        with_broker(&MetadataImage::default(), 1, endpoints)
    }

    #[test]
    fn only_the_metadata_is_described() {
        assert!(asks_for_metadata(&[asked("__cluster_metadata", &[0])]));
        for topics in [
            vec![],
            vec![asked("__cluster_metadata", &[])],
            vec![asked("__cluster_metadata", &[1])],
            vec![asked("__cluster_metadata", &[0, 0])],
            vec![asked("orders", &[0])],
            vec![asked("__cluster_metadata", &[0]), asked("orders", &[0])],
        ] {
            assert!(!asks_for_metadata(&topics), "{topics:?}");
        }
        let response = unknown(vec![asked("orders", &[3, 4])]);
        assert_eq!(response.error_code, 0);
        let partitions = &response.topics[0].partitions;
        let codes = partitions.iter().map(|p| (p.partition_index, p.error_code));
        assert_eq!(codes.collect::<Vec<_>>(), [(3, 3), (4, 3)]);
    }

    #[test]
    fn members_are_shown_with_the_times_when_they_were_heard_of() {
        let response = described(2, &image(), &quorum(), NOW);
        let partition = &response.topics[0].partitions[0];
        assert_eq!(partition.leader_id.0, 1);
        assert_eq!((partition.leader_epoch, partition.high_watermark), (3, 40));
        let shown = |replica: &ReplicaState| {
            assert_eq!(replica.replica_directory_id, Uuid::from_u128(5));
            let times = (
                replica.last_fetch_timestamp,
                replica.last_caught_up_timestamp,
            );
            (replica.replica_id.0, replica.log_end_offset, times)
        };
        let voters: Vec<_> = partition.current_voters.iter().map(shown).collect();
        let heard = NOW.0 - 250;
        assert_eq!(
            voters,
            [
                (1, 42, (NOW.0, NOW.0)),
                (2, 40, (heard, heard)),
                (4, 39, (NOW.0 - 5, -1)),
            ]
        );
        let observers: Vec<_> = partition.observers.iter().map(shown).collect();
        assert_eq!(observers, [(3, -1, (-1, -1))]);
        let nodes: Vec<_> = response
            .nodes
            .iter()
            .map(|node| (node.node_id.0, node.listeners.first().map(|l| l.port)))
            .collect();
        assert_eq!(nodes, [(1, Some(9092)), (2, None), (4, None)]);
    }

    #[test]
    fn older_versions_have_neither_directories_nor_nodes() {
        for version in 0..DIRECTORY_VERSION_MIN {
            let response = described(version, &image(), &quorum(), NOW);
            assert!(response.nodes.is_empty());
            let voters = &response.topics[0].partitions[0].current_voters;
            let nil = |voter: &ReplicaState| voter.replica_directory_id.is_nil();
            assert!(voters.iter().all(nil));
        }
    }
}
