//! Consumer groups: who is in them, what they have committed, and removing them.

use tidelog_protocol::StrBytes;
use tidelog_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use tidelog_protocol::messages::{
    DeleteGroupsRequest, DescribeGroupsRequest, GroupId, ListGroupsRequest, OffsetCommitRequest,
    OffsetFetchRequest,
};
use tidelog_protocol::types::{Offset, TopicName, TopicPartition};

use super::{Admin, by_topic, check, only, partition_of, text};
use crate::client::Topics;
use crate::consumer::embedded;
use crate::error::Error;

/// Kafka's generation of commits that come from outside of the group.
const NO_GENERATION: i32 = -1;

/// A group in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupSummary {
    /// Its id.
    pub id: String,
    /// What its members speak: `consumer`, `connect`; empty for groups that only commit.
    pub protocol_type: String,
    /// Its state in Kafka's words; empty from brokers that do not say.
    pub state: String,
}

/// A group in full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupDescription {
    /// Its id.
    pub id: String,
    /// Its state in Kafka's words: `Stable`, `Empty`, `PreparingRebalance`, ...
    pub state: String,
    /// What its members speak.
    pub protocol_type: String,
    /// The assignor that its members agreed on.
    pub protocol: String,
    /// Its members, by id.
    pub members: Vec<GroupMember>,
}

/// One member of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMember {
    /// The id that the coordinator gave it.
    pub id: String,
    /// The name that a static member gave itself.
    pub instance_id: Option<String>,
    /// What its client calls itself.
    pub client_id: String,
    /// Where it connects from.
    pub host: String,
    /// The partitions that it reads; empty also where the members' protocol is not the consumers'.
    pub assignment: Vec<TopicPartition>,
}

/// What a group committed for one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedOffset {
    /// The partition.
    pub partition: TopicPartition,
    /// Next offset to be read.
    pub offset: Offset,
    /// What the committer noted.
    pub metadata: String,
}

impl Admin {
    /// All groups of all brokers, by id.
    pub async fn list_groups(&self) -> Result<Vec<GroupSummary>, Error> {
        self.client.refresh(Topics::None, false).await?;
        let mut groups = Vec::new();
        for broker in self.client.brokers() {
            let listed = self
                .ask_broker(broker.id, ListGroupsRequest::default(), |reply| {
                    Error::check(reply.error_code, None)?;
                    Ok(reply.groups)
                })
                .await?;
            groups.extend(listed.into_iter().map(|group| GroupSummary {
                id: group.group_id.0.to_string(),
                protocol_type: group.protocol_type.to_string(),
                state: group.group_state.to_string(),
            }));
        }
        groups.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(groups)
    }

    /// A group in full. One that does not exist is in state `Dead`, as Kafka says it, or an error.
    pub async fn describe_group(&self, id: &str) -> Result<GroupDescription, Error> {
        let request = DescribeGroupsRequest::default().with_groups(vec![GroupId(text(id))]);
        self.ask_coordinator(id, request, |reply| {
            let group = only(reply.groups)?;
            check(group.error_code, &group.error_message)?;
            let members = group.members.iter().map(|member| GroupMember {
                id: member.member_id.to_string(),
                instance_id: member.group_instance_id.as_ref().map(ToString::to_string),
                client_id: member.client_id.to_string(),
                host: member.client_host.trim_start_matches('/').to_owned(),
                assignment: embedded::read_assignment(&member.member_assignment)
                    .unwrap_or_default(),
            });
            let mut members: Vec<_> = members.collect();
            members.sort_by(|a, b| a.id.cmp(&b.id));
            Ok(GroupDescription {
                id: id.to_owned(),
                state: group.group_state.to_string(),
                protocol_type: group.protocol_type.to_string(),
                protocol: group.protocol_data.to_string(),
                members,
            })
        })
        .await
    }

    /// What a group has committed, by partition.
    pub async fn group_offsets(&self, id: &str) -> Result<Vec<CommittedOffset>, Error> {
        let request = OffsetFetchRequest::default()
            .with_group_id(GroupId(text(id)))
            .with_topics(None);
        self.ask_coordinator(id, request, |reply| {
            Error::check(reply.error_code, None)?;
            let mut offsets = Vec::new();
            for topic in &reply.topics {
                let name = TopicName::from(&topic.name);
                for partition in &topic.partitions {
                    Error::check(partition.error_code, None)?;
                    if partition.committed_offset >= 0 {
                        let metadata = partition.metadata.as_ref().map(ToString::to_string);
                        offsets.push(CommittedOffset {
                            partition: partition_of(&name, partition.partition_index),
                            offset: Offset(partition.committed_offset),
                            metadata: metadata.unwrap_or_default(),
                        });
                    }
                }
            }
            offsets.sort_by(|a, b| a.partition.cmp(&b.partition));
            Ok(offsets)
        })
        .await
    }

    /// Sets what a group without members has committed.
    pub async fn set_group_offsets(
        &self,
        id: &str,
        offsets: &[(TopicPartition, Offset)],
    ) -> Result<(), Error> {
        let request = OffsetCommitRequest::default()
            .with_group_id(GroupId(text(id)))
            .with_generation_id_or_member_epoch(NO_GENERATION)
            .with_topics(commit_topics(offsets));
        self.ask_coordinator(id, request, |reply| {
            let partitions = reply.topics.iter().flat_map(|topic| &topic.partitions);
            partitions
                .into_iter()
                .try_for_each(|partition| Error::check(partition.error_code, None))
        })
        .await
    }

    /// Removes a group without members, and what it has committed.
    pub async fn delete_group(&self, id: &str) -> Result<(), Error> {
        let request = DeleteGroupsRequest::default().with_groups_names(vec![GroupId(text(id))]);
        self.ask_coordinator(id, request, |reply| {
            Error::check(only(reply.results)?.error_code, None)
        })
        .await
    }
}

/// Offsets as a commit carries them.
pub(crate) fn commit_topics(offsets: &[(TopicPartition, Offset)]) -> Vec<OffsetCommitRequestTopic> {
    by_topic(offsets.iter().cloned())
        .into_iter()
        .map(|(topic, partitions)| {
            let partitions = partitions
                .into_iter()
                .map(|(partition, offset)| {
                    OffsetCommitRequestPartition::default()
                        .with_partition_index(partition.0)
                        .with_committed_offset(offset.0)
                        .with_committed_metadata(Some(StrBytes::default()))
                })
                .collect();
            OffsetCommitRequestTopic::default()
                .with_name((&topic).into())
                .with_partitions(partitions)
        })
        .collect()
}
