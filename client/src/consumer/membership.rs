//! One member of one group, by the classic protocol: joining, syncing, committing, leaving.
//!
//! Each call is one exchange with the coordinator, whose refusals go to the caller; [`super::group`] decides what
//! they mean.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidelog_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use tidelog_protocol::messages::join_group_response::JoinGroupResponseMember;
use tidelog_protocol::messages::leave_group_request::MemberIdentity;
use tidelog_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic;
use tidelog_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use tidelog_protocol::messages::{
    GroupId, HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest, OffsetCommitRequest,
    OffsetFetchRequest, SyncGroupRequest,
};
use tidelog_protocol::types::{Offset, PartitionIndex, TopicName, TopicPartition};
use tidelog_protocol::{ErrorCode, StrBytes};

use super::assignor::{self, Strategy, Subscriber};
use super::embedded;
use super::group::GroupConfig;
use crate::admin::{by_topic, commit_topics};
use crate::client::{Client, Lane};
use crate::connection::Connection;
use crate::error::Error;

/// What the members of the group speak.
const PROTOCOL_TYPE: StrBytes = StrBytes::from_static_str("consumer");

/// Who a member is.
#[derive(Clone, Debug)]
pub(super) struct Membership {
    client: Client,
    config: Arc<GroupConfig>,
    topics: Arc<[TopicName]>,
    member_id: StrBytes,
    generation: i32,
}

/// How a join ended.
#[derive(Debug)]
pub(super) struct Joined {
    strategy: StrBytes,
    /// Every member's subscription, if this member leads the group.
    members: Vec<JoinGroupResponseMember>,
}

impl Membership {
    pub(super) fn new(client: Client, config: Arc<GroupConfig>, topics: Arc<[TopicName]>) -> Self {
        Membership {
            client,
            config,
            topics,
            member_id: StrBytes::default(),
            generation: -1,
        }
    }

    pub(super) fn is_member(&self) -> bool {
        self.generation >= 0
    }

    /// Forgets who it was, as the coordinator did.
    pub(super) fn forget(&mut self) {
        self.member_id = StrBytes::default();
        self.generation = -1;
    }

    async fn coordinator(&self, lane: Lane) -> Result<Arc<Connection>, Error> {
        let id = self.client.coordinator(&self.config.group_id).await?;
        self.client.broker(id, lane).await
    }

    fn group_id(&self) -> GroupId {
        GroupId(StrBytes::from_string(self.config.group_id.clone()))
    }

    fn instance_id(&self) -> Option<StrBytes> {
        self.config.instance_id.clone().map(StrBytes::from_string)
    }

    /// Asks to be in the next generation; waits for the others to do the same.
    pub(super) async fn join(&mut self) -> Result<Joined, Error> {
        let connection = self.coordinator(Lane::Group).await?;
        let metadata = embedded::write_subscription(&self.topics);
        let protocols = assignor::OFFERED
            .iter()
            .map(|strategy| {
                JoinGroupRequestProtocol::default()
                    .with_name(StrBytes::from_static_str(strategy.name()))
                    .with_metadata(metadata.clone())
            })
            .collect();
        let request = JoinGroupRequest::default()
            .with_group_id(self.group_id())
            .with_session_timeout_ms(millis(self.config.session_timeout))
            .with_rebalance_timeout_ms(millis(self.config.rebalance_timeout))
            .with_member_id(self.member_id.clone())
            .with_group_instance_id(self.instance_id())
            .with_protocol_type(PROTOCOL_TYPE)
            .with_protocols(protocols);
        let timeout = self.config.rebalance_timeout + self.client.config().request_timeout;
        let reply = connection.call(timeout, |_| request).await?;
        if reply.error_code == ErrorCode::MemberIdRequired.code() {
            self.member_id = reply.member_id;
            return Err(Error::broker(ErrorCode::MemberIdRequired));
        }
        Error::check(reply.error_code, None)?;
        let is_leader = reply.leader == reply.member_id;
        self.member_id = reply.member_id;
        self.generation = reply.generation_id;
        Ok(Joined {
            strategy: reply.protocol_name.unwrap_or_default(),
            members: if is_leader { reply.members } else { Vec::new() },
        })
    }

    /// Gives everybody their partitions, if this member leads, and gets its own.
    pub(super) async fn sync(&self, joined: Joined) -> Result<Vec<TopicPartition>, Error> {
        let assignments = self.assign(&joined).await?;
        let connection = self.coordinator(Lane::Group).await?;
        let request = SyncGroupRequest::default()
            .with_group_id(self.group_id())
            .with_generation_id(self.generation)
            .with_member_id(self.member_id.clone())
            .with_group_instance_id(self.instance_id())
            .with_protocol_type(Some(PROTOCOL_TYPE))
            .with_protocol_name(Some(joined.strategy))
            .with_assignments(assignments);
        let timeout = self.config.rebalance_timeout + self.client.config().request_timeout;
        let reply = connection.call(timeout, |_| request).await?;
        Error::check(reply.error_code, None)?;
        embedded::read_assignment(&reply.assignment).ok_or_else(|| Error::Malformed {
            address: connection.address().to_owned(),
            reason: "the group's leader sent a malformed assignment".to_owned(),
        })
    }

    async fn assign(&self, joined: &Joined) -> Result<Vec<SyncGroupRequestAssignment>, Error> {
        if joined.members.is_empty() {
            return Ok(Vec::new());
        }
        let name = joined.strategy.as_str();
        let strategy = Strategy::from_name(name)
            .ok_or_else(|| Error::Invalid(format!("the group chose '{name}', which is unknown")))?;
        let subscribers: Vec<_> = joined
            .members
            .iter()
            .map(|member| Subscriber {
                member_id: member.member_id.to_string(),
                instance_id: member.group_instance_id.as_ref().map(ToString::to_string),
                // Who cannot be understood gets nothing.
                topics: embedded::read_subscription(&member.metadata).unwrap_or_default(),
            })
            .collect();
        let mut partitions = BTreeMap::new();
        for topic in subscribers.iter().flat_map(|member| &member.topics) {
            if partitions.contains_key(topic) {
                continue;
            }
            match self.client.topic(topic, false).await {
                Ok(info) => partitions.insert(topic.clone(), info.partitions.len()),
                Err(error) if error.is(ErrorCode::UnknownTopicOrPartition) => None,
                Err(error) => return Err(error),
            };
        }
        let assignment = strategy.assign(&subscribers, &partitions);
        Ok(assignment
            .into_iter()
            .map(|(member_id, partitions)| {
                SyncGroupRequestAssignment::default()
                    .with_member_id(StrBytes::from_string(member_id))
                    .with_assignment(embedded::write_assignment(&partitions))
            })
            .collect())
    }

    pub(super) async fn heartbeat(&self) -> Result<(), Error> {
        let connection = self.coordinator(Lane::Heartbeat).await?;
        let request = HeartbeatRequest::default()
            .with_group_id(self.group_id())
            .with_generation_id(self.generation)
            .with_member_id(self.member_id.clone())
            .with_group_instance_id(self.instance_id());
        let timeout = self.client.config().request_timeout;
        let reply = connection.call(timeout, |_| request).await?;
        Error::check(reply.error_code, None)
    }

    pub(super) async fn commit(&self, offsets: &[(TopicPartition, Offset)]) -> Result<(), Error> {
        let connection = self.coordinator(Lane::Heartbeat).await?;
        let request = OffsetCommitRequest::default()
            .with_group_id(self.group_id())
            .with_generation_id_or_member_epoch(self.generation)
            .with_member_id(self.member_id.clone())
            .with_group_instance_id(self.instance_id())
            .with_topics(commit_topics(offsets));
        let timeout = self.client.config().request_timeout;
        let reply = connection.call(timeout, |_| request).await?;
        reply
            .topics
            .iter()
            .flat_map(|topic| &topic.partitions)
            .try_for_each(|partition| Error::check(partition.error_code, None))
    }

    /// What the group committed for some partitions; those without are left out.
    pub(super) async fn committed(
        &self,
        partitions: &[TopicPartition],
    ) -> Result<BTreeMap<TopicPartition, Offset>, Error> {
        let connection = self.coordinator(Lane::Group).await?;
        let topics = by_topic(partitions.iter().map(|of| (of.clone(), ())))
            .into_iter()
            .map(|(topic, partitions)| {
                OffsetFetchRequestTopic::default()
                    .with_name((&topic).into())
                    .with_partition_indexes(partitions.iter().map(|(index, ())| index.0).collect())
            })
            .collect();
        let request = OffsetFetchRequest::default()
            .with_group_id(self.group_id())
            .with_topics(Some(topics));
        let timeout = self.client.config().request_timeout;
        let reply = connection.call(timeout, |_| request).await?;
        Error::check(reply.error_code, None)?;
        let mut committed = BTreeMap::new();
        for topic in &reply.topics {
            let name = TopicName::from(&topic.name);
            for partition in &topic.partitions {
                Error::check(partition.error_code, None)?;
                let of = TopicPartition {
                    topic: name.clone(),
                    partition: PartitionIndex(partition.partition_index),
                };
                if partition.committed_offset >= 0 {
                    committed.insert(of, Offset(partition.committed_offset));
                }
            }
        }
        Ok(committed)
    }

    /// Leaves at once instead of by time-out, also amid a join. Static members stay: that is what they are for.
    pub(super) async fn leave(&self) -> Result<(), Error> {
        if self.member_id.is_empty() || self.config.instance_id.is_some() {
            return Ok(());
        }
        let connection = self.coordinator(Lane::Heartbeat).await?;
        let build = |version: i16| {
            let request = LeaveGroupRequest::default().with_group_id(self.group_id());
            if version < 3 {
                return request.with_member_id(self.member_id.clone());
            }
            let member = MemberIdentity::default().with_member_id(self.member_id.clone());
            request.with_members(vec![member])
        };
        let timeout = self.client.config().request_timeout;
        let reply = connection.call(timeout, build).await?;
        Error::check(reply.error_code, None)
    }
}

fn millis(duration: std::time::Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}
