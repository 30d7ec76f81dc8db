//! The cluster as a whole: its brokers, and the group that keeps its metadata.

use tidelog_protocol::StrBytes;
use tidelog_protocol::messages::describe_quorum_request::{PartitionData, TopicData};
use tidelog_protocol::messages::describe_quorum_response::ReplicaState;
use tidelog_protocol::messages::{
    self, DescribeClusterRequest, DescribeQuorumRequest, UnregisterBrokerRequest,
    UnregisterBrokerResponse,
};
use tidelog_protocol::types::{BrokerId, LeaderEpoch, Offset, TimestampMs};

use super::{Admin, check, only};
use crate::error::Error;
use crate::metadata::{BrokerInfo, broker_if_any, host_port};

/// Kafka's name of the log of the cluster's metadata; it has one partition.
const METADATA_TOPIC: &str = "__cluster_metadata";
/// First version in which fenced brokers can be asked for.
const FENCED_SINCE: i16 = 2;

/// The cluster and its brokers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterDescription {
    /// The cluster's id.
    pub id: String,
    /// The broker that is to be asked as the controller.
    pub controller: Option<BrokerId>,
    /// Its brokers, by id. Kafka before 4.0 leaves out those that are fenced.
    pub brokers: Vec<ClusterBroker>,
}

/// One broker of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterBroker {
    /// Its id, address and rack.
    pub info: BrokerInfo,
    /// Whether it is kept from leading, because it is not heard of or only just starts.
    pub is_fenced: bool,
}

/// The group that keeps the cluster's metadata, as its leader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuorumDescription {
    /// Its leader.
    pub leader: Option<BrokerId>,
    /// The leader's epoch.
    pub leader_epoch: LeaderEpoch,
    /// End of what is committed.
    pub high_watermark: Offset,
    /// Those that elect the leader and commit, by id.
    pub voters: Vec<QuorumReplica>,
    /// Those that follow only, by id.
    pub observers: Vec<QuorumReplica>,
}

/// One member of that group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuorumReplica {
    /// Its id.
    pub id: BrokerId,
    /// End of its log; `None` where the leader does not know it.
    pub log_end: Option<Offset>,
    /// When it was last heard of; `None` where the leader does not say.
    pub last_fetch: Option<TimestampMs>,
    /// When it last had everything that the leader had; `None` where the leader does not say. Tidelog says it of those that
    /// lack nothing that is committed.
    pub last_caught_up: Option<TimestampMs>,
}

impl QuorumDescription {
    /// How much of the leader's log a member does not have, as far as known.
    pub fn lag(&self, of: &QuorumReplica) -> Option<i64> {
        let mut members = self.voters.iter().chain(&self.observers);
        let leader = members.find(|member| Some(member.id) == self.leader)?;
        Some((leader.log_end?.0 - of.log_end?.0).max(0))
    }
}

impl Admin {
    /// The cluster's id, controller and brokers, the fenced ones included.
    pub async fn describe_cluster(&self) -> Result<ClusterDescription, Error> {
        let controller = async || self.client.controller().await;
        let build = |version: i16| {
            DescribeClusterRequest::default().with_include_fenced_brokers(version >= FENCED_SINCE)
        };
        self.ask(&[], controller, build, |reply| {
            check(reply.error_code, &reply.error_message)?;
            let brokers = reply.brokers.iter().map(|broker| {
                let address = host_port(broker.host.as_str(), broker.port);
                ClusterBroker {
                    info: BrokerInfo::read(broker.broker_id, address, &broker.rack),
                    is_fenced: broker.is_fenced,
                }
            });
            let mut brokers: Vec<_> = brokers.collect();
            brokers.sort_by_key(|broker| broker.info.id);
            Ok(ClusterDescription {
                id: reply.cluster_id.to_string(),
                controller: broker_if_any(reply.controller_id),
                brokers,
            })
        })
        .await
    }

    /// The group that keeps the cluster's metadata.
    pub async fn describe_quorum(&self) -> Result<QuorumDescription, Error> {
        let topic = messages::TopicName(StrBytes::from_static_str(METADATA_TOPIC));
        let topic = TopicData::default()
            .with_topic_name(topic)
            .with_partitions(vec![PartitionData::default().with_partition_index(0)]);
        let request = DescribeQuorumRequest::default().with_topics(vec![topic]);
        self.ask_controller(request, |reply| {
            check(reply.error_code, &reply.error_message)?;
            let group = only(only(reply.topics)?.partitions)?;
            check(group.error_code, &group.error_message)?;
            Ok(QuorumDescription {
                leader: broker_if_any(group.leader_id),
                leader_epoch: LeaderEpoch(group.leader_epoch),
                high_watermark: Offset(group.high_watermark),
                voters: quorum_replicas(&group.current_voters),
                observers: quorum_replicas(&group.observers),
            })
        })
        .await
    }

    /// Has the cluster forget a broker that is gone for good.
    pub async fn unregister_broker(&self, id: BrokerId) -> Result<(), Error> {
        let request = UnregisterBrokerRequest::default().with_broker_id(messages::BrokerId(id.0));
        let read = |reply: UnregisterBrokerResponse| check(reply.error_code, &reply.error_message);
        self.ask_controller(request, read).await
    }
}

fn quorum_replicas(replicas: &[ReplicaState]) -> Vec<QuorumReplica> {
    let some = |number: i64| (number >= 0).then_some(number);
    let mut replicas: Vec<_> = replicas
        .iter()
        .map(|replica| QuorumReplica {
            id: BrokerId(replica.replica_id.0),
            log_end: some(replica.log_end_offset).map(Offset),
            last_fetch: some(replica.last_fetch_timestamp).map(TimestampMs),
            last_caught_up: some(replica.last_caught_up_timestamp).map(TimestampMs),
        })
        .collect();
    replicas.sort_by_key(|replica| replica.id);
    replicas
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lag_is_what_the_leader_has_more() {
        let states = [(2, 7), (1, 10), (3, -1)].map(|(id, end)| {
            ReplicaState::default()
                .with_replica_id(messages::BrokerId(id))
                .with_log_end_offset(end)
        });
        let mut quorum = QuorumDescription {
            leader: Some(BrokerId(1)),
            leader_epoch: LeaderEpoch(4),
            high_watermark: Offset(7),
            voters: quorum_replicas(&states),
            observers: Vec::new(),
        };
        let lags = |quorum: &QuorumDescription| {
            let lag = |of: &QuorumReplica| (of.id.0, quorum.lag(of));
            quorum.voters.iter().map(lag).collect::<Vec<_>>()
        };
        assert_eq!(lags(&quorum), [(1, Some(0)), (2, Some(3)), (3, None)]);
        assert_eq!(quorum.voters[0].last_caught_up, None);
        quorum.leader = None;
        assert_eq!(lags(&quorum), [(1, None), (2, None), (3, None)]);
    }
}
