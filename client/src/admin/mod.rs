//! Administration: topics, their settings and records, offsets, groups; brokers, and which of them hold and lead what.
//!
//! Every call retries what may pass (moved leaders, loading coordinators, lost connections) until the client's
//! `call_timeout`. Knows nothing of how its answers are shown.

mod cluster;
mod configs;
mod elections;
mod features;
mod groups;
mod log_dirs;
mod offsets;
mod reassignments;
mod topics;

pub use cluster::{ClusterBroker, ClusterDescription, QuorumDescription, QuorumReplica};
pub use configs::{ConfigChange, ConfigEntry};
pub use elections::{ElectionKind, ElectionOutcome};
pub use features::{FeatureDescription, FeatureUpdate};
pub(crate) use groups::commit_topics;
pub use groups::{CommittedOffset, GroupDescription, GroupMember, GroupSummary};
pub use offsets::{ListedOffset, OffsetSpec};
pub use reassignments::Reassignment;
pub use topics::{CreatedTopic, NewTopic, TopicSummary};

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tidelog_protocol::types::{BrokerId, PartitionIndex, TopicName, TopicPartition};
use tidelog_protocol::{ErrorCode, Request, StrBytes, messages};

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
        self.ask(&[], controller, |_| request.clone(), read).await
    }

    /// Asks one broker, again as long as that may help.
    async fn ask_broker<R: Request + Clone, T>(
        &self,
        id: BrokerId,
        request: R,
        read: impl Fn(R::Response) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let broker = async || self.client.broker(id, Lane::General).await;
        self.ask(&[], broker, |_| request.clone(), read).await
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
        self.ask(&[], coordinator, |_| request.clone(), read).await
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
        self.ask(topics, leader, |_| request.clone(), read).await
    }

    /// Asks whom `connect` reaches, which is found anew each time; the request is built for the version that it speaks.
    async fn ask<R: Request, T>(
        &self,
        topics: &[TopicName],
        connect: impl AsyncFn() -> Result<Arc<Connection>, Error>,
        build: impl Fn(i16) -> R,
        read: impl Fn(R::Response) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let ask = async || {
            let connection = connect().await?;
            read(connection.call(self.timeout(), &build).await?)
        };
        self.client.retry(topics, ask).await
    }

    /// How long a broker may take, as the wire has it: a tenth less than is waited for its answer, which says more than
    /// a time-out here does.
    fn timeout_ms(&self) -> i32 {
        let waited_ms = i32::try_from(self.timeout().as_millis()).unwrap_or(i32::MAX);
        waited_ms - waited_ms / 10
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

/// An unknown topic is retriable where metadata lags; to a controller it is an answer.
fn final_unless_moved(result: Result<(), Error>) -> Result<Result<(), Error>, Error> {
    match result {
        Err(error) if error.is(ErrorCode::UnknownTopicOrPartition) => Ok(Err(error)),
        Err(error) => Err(error),
        Ok(()) => Ok(Ok(())),
    }
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// A partition as replies name it, below its topic.
fn partition_of(topic: &TopicName, index: i32) -> TopicPartition {
    TopicPartition {
        topic: topic.clone(),
        partition: PartitionIndex(index),
    }
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

/// Partitions by topic, for requests that say nothing else about them; `None`, which stands for all, stays what it is.
fn named_by_topic<T>(
    of: Option<&[TopicPartition]>,
    named: impl Fn(messages::TopicName, Vec<i32>) -> T,
) -> Option<Vec<T>> {
    let topics = by_topic(of?.iter().map(|of| (of.clone(), ())));
    let topics = topics.into_iter().map(|(topic, partitions)| {
        let indexes = partitions.into_iter().map(|(index, ())| index.0);
        named((&topic).into(), indexes.collect())
    });
    Some(topics.collect())
}
