//! What a shard is asked.

use std::collections::HashSet;
use std::sync::Arc;

use tidelog_protocol::types::{TopicName, TopicPartition};
use tokio::sync::oneshot;

use crate::coordinator::group::{
    CommittedOffset, DescribedGroup, Event, GroupId, GroupState, Reply, ReplyToken,
};

/// A partition and what is committed for it, if anything.
pub type FetchedOffset = (TopicPartition, Option<CommittedOffset>);

/// A group, as listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedGroup {
    /// Its name.
    pub group: GroupId,
    /// Its protocol type; empty for a group of offsets alone.
    pub protocol_type: Arc<str>,
    /// Its state.
    pub state: GroupState,
}

/// One thing asked of a shard. A receiver that is gone is no longer answered, and nothing else happens.
#[derive(Debug)]
pub(in crate::coordinator) enum ShardRequest {
    /// An event for a group, answered by the group.
    Group {
        /// The group.
        group: GroupId,
        /// The token in the event.
        token: ReplyToken,
        /// The event.
        event: Event,
        /// Where the answer goes.
        reply: oneshot::Sender<Reply>,
    },
    /// Committed offsets: of these partitions, or all.
    Fetch {
        /// The group.
        group: GroupId,
        /// `None` = all that it has.
        partitions: Option<Vec<TopicPartition>>,
        /// Where the answer goes.
        reply: oneshot::Sender<Vec<FetchedOffset>>,
    },
    /// A group with its members.
    Describe {
        /// The group.
        group: GroupId,
        /// Where the answer goes; `None` = no such group.
        reply: oneshot::Sender<Option<DescribedGroup>>,
    },
    /// All groups.
    List {
        /// Where the answer goes.
        reply: oneshot::Sender<Vec<ListedGroup>>,
    },
    /// Topics are gone.
    TopicsDeleted(Arc<HashSet<TopicName>>),
}
