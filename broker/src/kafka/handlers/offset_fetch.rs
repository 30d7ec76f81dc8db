//! OffsetFetch: how far groups have read. A partition without an offset has offset -1 and no error.

use std::collections::HashSet;

use futures_util::future::join_all;
use tidelog_protocol::StrBytes;
use tidelog_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use tidelog_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use tidelog_protocol::messages::{GroupId, OffsetFetchRequest, OffsetFetchResponse};
use tidelog_protocol::types::{TopicName, TopicPartition};

use crate::coordinator::FetchedOffset;
use crate::coordinator::group::{CommittedOffset, GroupError};
use crate::kafka::context::RequestContext;
use crate::kafka::handlers::{HandlerError, group_fields as fields};
use crate::kafka::memory::Building;

/// From this version on, there is an error for the group as a whole.
const GROUP_ERROR_VERSION_MIN: i16 = 2;
/// From this version on, a request names several groups.
const BATCHED_VERSION_MIN: i16 = 8;

/// Groups that are asked for before the answers of the first are there.
const GROUPS_AT_ONCE: usize = 32;
/// What a partition takes beside its note.
const OFFSET_BYTES: usize = 100;

/// No offset, no epoch.
const NONE: i32 = -1;

/// Partitions of a topic, as asked.
type AskedTopic = (TopicName, Vec<i32>);

/// A topic's partitions with what is committed for each.
type FetchedTopic = (TopicName, Vec<(i32, Option<CommittedOffset>)>);

/// Reads committed offsets. Transactions do not hold any back yet, so all of them are stable.
pub async fn handle(
    cx: &RequestContext,
    request: OffsetFetchRequest,
) -> Result<OffsetFetchResponse, HandlerError> {
    if cx.version() >= BATCHED_VERSION_MIN {
        let groups = fetch_groups(cx, distinct(request.groups)).await?;
        return Ok(OffsetFetchResponse::default().with_groups(groups));
    }
    let asked: Option<Vec<AskedTopic>> = request.topics.map(|topics| {
        topics
            .into_iter()
            .map(|topic| (TopicName::from(&topic.name), topic.partition_indexes))
            .collect()
    });
    match fetch(cx, &request.group_id, asked.clone()).await {
        Ok(topics) => Ok(OffsetFetchResponse::default()
            .with_topics(topics.into_iter().map(|topic| single(topic, 0)).collect())),
        Err(error) if cx.version() >= GROUP_ERROR_VERSION_MIN => {
            Ok(OffsetFetchResponse::default().with_error_code(error.code().code()))
        }
        Err(error) => {
            let nothing = |(name, partitions): AskedTopic| {
                single(
                    (
                        name,
                        partitions.into_iter().map(|index| (index, None)).collect(),
                    ),
                    error.code().code(),
                )
            };
            Ok(OffsetFetchResponse::default()
                .with_topics(asked.into_iter().flatten().map(nothing).collect()))
        }
    }
}

/// The groups without those whose offsets are all asked for already.
fn distinct(mut groups: Vec<OffsetFetchRequestGroup>) -> Vec<OffsetFetchRequestGroup> {
    let mut all = HashSet::new();
    groups.retain(|group| group.topics.is_some() || all.insert(group.group_id.clone()));
    groups
}

async fn fetch_groups(
    cx: &RequestContext,
    asked: Vec<OffsetFetchRequestGroup>,
) -> Result<Vec<OffsetFetchResponseGroup>, HandlerError> {
    let mut asked = asked.into_iter();
    let mut groups = Vec::new();
    let mut building = Building::begin(cx);
    loop {
        let next = asked.by_ref().take(GROUPS_AT_ONCE);
        let fetched = join_all(next.map(|group| fetch_group(cx, group))).await;
        if fetched.is_empty() {
            return Ok(groups);
        }
        for group in fetched {
            let partitions = group.topics.iter().flat_map(|topic| &topic.partitions);
            let bytes = partitions.map(|partition| {
                let metadata = partition.metadata.as_ref();
                OFFSET_BYTES + metadata.map_or(0, |metadata| metadata.len())
            });
            building.add(bytes.sum()).await?;
            groups.push(group);
        }
    }
}

async fn fetch_group(
    cx: &RequestContext,
    group: OffsetFetchRequestGroup,
) -> OffsetFetchResponseGroup {
    let asked = group.topics.map(|topics| {
        topics
            .into_iter()
            .map(|topic| (TopicName::from(&topic.name), topic.partition_indexes))
            .collect()
    });
    let response = OffsetFetchResponseGroup::default();
    let response = match fetch(cx, &group.group_id, asked).await {
        Ok(topics) => response.with_topics(topics.into_iter().map(batched).collect()),
        Err(error) => response.with_error_code(error.code().code()),
    };
    response.with_group_id(group.group_id)
}

async fn fetch(
    cx: &RequestContext,
    group: &GroupId,
    asked: Option<Vec<AskedTopic>>,
) -> Result<Vec<FetchedTopic>, GroupError> {
    let partitions: Option<Vec<TopicPartition>> = asked.map(|topics| {
        let of_topic = |(name, indexes): &AskedTopic| -> Vec<TopicPartition> {
            indexes
                .iter()
                .map(|index| fields::partition(name, *index))
                .collect()
        };
        topics.iter().flat_map(of_topic).collect()
    });
    let fetched = cx
        .broker
        .groups
        .fetch_offsets(fields::group_id(group), partitions)
        .await?;
    Ok(by_topic(fetched))
}

/// Puts neighbours of one topic together; they come topic by topic.
fn by_topic(fetched: Vec<FetchedOffset>) -> Vec<FetchedTopic> {
    let mut topics: Vec<FetchedTopic> = Vec::new();
    for (partition, offset) in fetched {
        let entry = (partition.partition.0, offset);
        match topics.last_mut() {
            Some((name, partitions)) if *name == partition.topic => partitions.push(entry),
            _ => topics.push((partition.topic, vec![entry])),
        }
    }
    topics
}

/// Offset, leader epoch and note of an offset that may be missing.
fn parts(offset: Option<CommittedOffset>) -> (i64, i32, StrBytes) {
    match offset {
        Some(offset) => (
            offset.offset.0,
            offset.leader_epoch.map_or(NONE, |epoch| epoch.0),
            fields::wire(&offset.metadata),
        ),
        None => (i64::from(NONE), NONE, StrBytes::default()),
    }
}

fn single((name, partitions): FetchedTopic, error_code: i16) -> OffsetFetchResponseTopic {
    let partition = |(index, offset)| {
        let (offset, epoch, metadata) = parts(offset);
        OffsetFetchResponsePartition::default()
            .with_partition_index(index)
            .with_committed_offset(offset)
            .with_committed_leader_epoch(epoch)
            .with_metadata(Some(metadata))
            .with_error_code(error_code)
    };
    OffsetFetchResponseTopic::default()
        .with_name((&name).into())
        .with_partitions(partitions.into_iter().map(partition).collect())
}

fn batched((name, partitions): FetchedTopic) -> OffsetFetchResponseTopics {
    let partition = |(index, offset)| {
        let (offset, epoch, metadata) = parts(offset);
        OffsetFetchResponsePartitions::default()
            .with_partition_index(index)
            .with_committed_offset(offset)
            .with_committed_leader_epoch(epoch)
            .with_metadata(Some(metadata))
    };
    OffsetFetchResponseTopics::default()
        .with_name((&name).into())
        .with_partitions(partitions.into_iter().map(partition).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_whose_offsets_are_all_asked_for_twice_is_answered_once() {
        let group = |name: &'static str| {
            OffsetFetchRequestGroup::default()
                .with_group_id(StrBytes::from_static_str(name).into())
                .with_topics(None)
        };
        let some = group("a").with_topics(Some(Vec::new()));
        let asked = vec![group("b"), group("a"), group("b"), some.clone(), group("a")];
        assert_eq!(distinct(asked), [group("b"), group("a"), some]);
    }
}
