//! Administration: topics, their settings and records, offsets, groups.
//!
//! Every call retries what may pass (moved leaders, loading coordinators, lost connections) until the client's
//! `call_timeout`. Knows nothing of how its answers are shown.

mod configs;
mod groups;
mod offsets;
mod topics;

pub use configs::{ConfigChange, ConfigEntry};
pub(crate) use groups::commit_topics;
pub use groups::{CommittedOffset, GroupDescription, GroupMember, GroupSummary};
pub use offsets::{ListedOffset, OffsetSpec};
pub use topics::{CreatedTopic, NewTopic, TopicSummary};

use std::collections::BTreeMap;
use std::time::Duration;

use tidelog_protocol::StrBytes;
use tidelog_protocol::types::{PartitionIndex, TopicName, TopicPartition};

use crate::client::Client;

/// Administration of one cluster.
#[derive(Clone, Debug)]
pub struct Admin {
    client: Client,
}

impl Admin {
    /// Works on the client's cluster.
    pub fn new(client: Client) -> Self {
        Admin { client }
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    fn timeout(&self) -> Duration {
        self.client.config().request_timeout
    }

    /// The request time-out as the wire has it.
    fn timeout_ms(&self) -> i32 {
        i32::try_from(self.timeout().as_millis()).unwrap_or(i32::MAX)
    }
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// Things about partitions, gathered by topic, as most requests want them.
pub(crate) fn by_topic<T>(
    items: impl IntoIterator<Item = (TopicPartition, T)>,
) -> BTreeMap<TopicName, Vec<(PartitionIndex, T)>> {
    let mut topics: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (of, item) in items {
        topics
            .entry(of.topic)
            .or_default()
            .push((of.partition, item));
    }
    topics
}
