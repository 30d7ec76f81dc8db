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
use std::sync::Arc;
use std::time::Duration;

use tidelog_protocol::types::{PartitionIndex, TopicName, TopicPartition};
use tidelog_protocol::{Request, StrBytes};

use crate::client::{Client, Lane};
use crate::connection::Connection;
use crate::error::Error;

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

    /// Asks the controller, again as long as that may help.
    async fn ask_controller<R: Request + Clone, T>(
        &self,
        request: R,
        read: impl Fn(R::Response) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let controller = async || self.client.controller().await;
        self.ask(&[], controller, request, read).await
    }

    /// Asks the coordinator of a group, again as long as that may help.
    async fn ask_coordinator<R: Request + Clone, T>(
        &self,
        group: &str,
        request: R,
        read: impl Fn(R::Response) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let coordinator = async || {
            let broker = self.client.coordinator(group).await?;
            self.client.broker(broker, Lane::General).await
        };
        self.ask(&[], coordinator, request, read).await
    }

    /// Asks the leader of a partition, again as long as that may help.
    async fn ask_leader<R: Request + Clone, T>(
        &self,
        of: &TopicPartition,
        request: R,
        read: impl Fn(R::Response) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.client.topic(&of.topic, false).await?;
        let leader = async || self.client.leader(of, Lane::General).await;
        let topics = std::slice::from_ref(&of.topic);
        self.ask(topics, leader, request, read).await
    }

    /// Asks whom `connect` reaches, which is found anew each time.
    async fn ask<R: Request + Clone, T>(
        &self,
        topics: &[TopicName],
        connect: impl AsyncFn() -> Result<Arc<Connection>, Error>,
        request: R,
        read: impl Fn(R::Response) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let ask = async || {
            let connection = connect().await?;
            read(connection.call(self.timeout(), |_| request.clone()).await?)
        };
        self.client.retry(topics, ask).await
    }

    /// The request time-out as the wire has it.
    fn timeout_ms(&self) -> i32 {
        i32::try_from(self.timeout().as_millis()).unwrap_or(i32::MAX)
    }
}

/// What the broker says about the one thing that it was asked about.
fn only<T>(items: impl IntoIterator<Item = T>) -> Result<T, Error> {
    items.into_iter().next().ok_or_else(|| Error::Malformed {
        address: "the broker".to_owned(),
        reason: "the answer names nothing".to_owned(),
    })
}

fn check(code: i16, message: &Option<StrBytes>) -> Result<(), Error> {
    Error::check(code, message.as_ref().map(StrBytes::as_str))
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
