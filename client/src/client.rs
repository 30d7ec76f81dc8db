//! The cluster as one thing: connections by broker, metadata, coordinators, retries.
//!
//! Connections are made when first needed, one per broker and [`Lane`]. Cloning shares everything; consumers, whose
//! requests wait for records and for other members, have connections of their own.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tidelog_protocol::messages::metadata_request::MetadataRequestTopic;
use tidelog_protocol::messages::{FindCoordinatorRequest, MetadataRequest};
use tidelog_protocol::types::{BrokerId, TopicName, TopicPartition};
use tidelog_protocol::{ErrorCode, StrBytes};
use tokio::sync::OnceCell;
use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::config::ClientConfig;
use crate::connection::Connection;
use crate::error::Error;
use crate::metadata::{BrokerInfo, Image, TopicInfo};

/// A broker answers a connection's requests in order, so what may wait long gets a connection of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Lane {
    /// Metadata and administration.
    General,
    Produce,
    Fetch,
    /// Joins wait for the other members.
    Group,
    Heartbeat,
}

/// How long a topic that the broker was asked to create may stay unknown before it is clear that it will not be
/// created. Brokers say UNKNOWN_TOPIC_OR_PARTITION in both cases.
const CREATION_WAIT: Duration = Duration::from_secs(10);

/// Which topics a refresh asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Topics<'a> {
    None,
    All,
    Some(&'a [TopicName]),
}

type Slot = Arc<OnceCell<Arc<Connection>>>;

/// A cluster; cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: ClientConfig,
    image: Arc<RwLock<Arc<Image>>>,
    connections: Mutex<HashMap<(String, Lane), Slot>>,
}

impl Client {
    /// Reaches one of the bootstrap addresses and learns the brokers. Does not wait for a broker to come up.
    pub async fn connect(config: ClientConfig) -> Result<Client, Error> {
        if config.bootstrap.is_empty() {
            return Err(Error::Invalid("no bootstrap address is given".to_owned()));
        }
        let client = Client {
            inner: Arc::new(Inner {
                config,
                image: Arc::default(),
                connections: Mutex::default(),
            }),
        };
        client.refresh(Topics::None, false).await?;
        Ok(client)
    }

    /// The same cluster over connections of its own, for whoever keeps connections waiting: a broker would let the
    /// requests of others wait behind.
    pub(crate) fn with_own_connections(&self) -> Client {
        Client {
            inner: Arc::new(Inner {
                config: self.inner.config.clone(),
                image: self.inner.image.clone(),
                connections: Mutex::default(),
            }),
        }
    }

    /// The brokers, by id.
    pub fn brokers(&self) -> Vec<BrokerInfo> {
        self.image().brokers.values().cloned().collect()
    }

    pub(crate) fn config(&self) -> &ClientConfig {
        &self.inner.config
    }

    pub(crate) fn image(&self) -> Arc<Image> {
        self.inner.image.read().clone()
    }

    /// End of a call that begins now.
    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.inner.config.call_timeout
    }

    /// A connection to a broker by id.
    pub(crate) async fn broker(&self, id: BrokerId, lane: Lane) -> Result<Arc<Connection>, Error> {
        let address = self
            .image()
            .brokers
            .get(&id)
            .map(|broker| broker.address.clone());
        match address {
            Some(address) => self.at(&address, lane).await,
            None => Err(Error::broker(ErrorCode::LeaderNotAvailable)),
        }
    }

    /// A connection to the controller if it is known, else to any broker.
    pub(crate) async fn controller(&self) -> Result<Arc<Connection>, Error> {
        let controller = self.image().controller;
        if let Some(id) = controller
            && let Ok(connection) = self.broker(id, Lane::General).await
        {
            return Ok(connection);
        }
        self.any().await
    }

    /// A connection to the partition's leader.
    pub(crate) async fn leader(
        &self,
        of: &TopicPartition,
        lane: Lane,
    ) -> Result<Arc<Connection>, Error> {
        let leader = self.leader_id(of)?;
        self.broker(leader, lane).await
    }

    /// The partition's leader as far as known.
    pub(crate) fn leader_id(&self, of: &TopicPartition) -> Result<BrokerId, Error> {
        let image = self.image();
        let (_, topic) = image
            .topic(&of.topic)
            .ok_or_else(|| Error::broker(ErrorCode::UnknownTopicOrPartition))?;
        topic
            .partition(of.partition)
            .ok_or_else(|| Error::broker(ErrorCode::UnknownTopicOrPartition))?
            .leader
            .ok_or_else(|| Error::broker(ErrorCode::LeaderNotAvailable))
    }

    /// A connection to whatever broker can be reached: known ones first, then the bootstrap addresses.
    async fn any(&self) -> Result<Arc<Connection>, Error> {
        let mut addresses: Vec<String> = self
            .image()
            .brokers
            .values()
            .map(|broker| broker.address.clone())
            .collect();
        if addresses.len() > 1 {
            let first = rand::random_range(0..addresses.len());
            addresses.rotate_left(first);
        }
        for address in &self.inner.config.bootstrap {
            if !addresses.contains(address) {
                addresses.push(address.clone());
            }
        }
        let mut last = Error::Invalid("no bootstrap address is given".to_owned());
        for address in &addresses {
            match self.at(address, Lane::General).await {
                Ok(connection) => return Ok(connection),
                Err(error) => last = error,
            }
        }
        match last {
            Error::Unreachable { reason, .. } => Err(Error::Unreachable {
                address: addresses.join(", "),
                reason,
            }),
            other => Err(other),
        }
    }

    /// The connection of a slot, made if there is none or it has ended. Callers at the same time share one attempt.
    async fn at(&self, address: &str, lane: Lane) -> Result<Arc<Connection>, Error> {
        let slot = {
            let mut connections = self.inner.connections.lock();
            let slot = connections.entry((address.to_owned(), lane)).or_default();
            if slot.get().is_some_and(|connection| connection.is_ended()) {
                *slot = Slot::default();
            }
            slot.clone()
        };
        slot.get_or_try_init(async || {
            let connection = Connection::open(address, &self.inner.config).await?;
            Ok(Arc::new(connection))
        })
        .await
        .cloned()
    }

    /// Asks any broker for the cluster as it is now. Yields what is wrong with each topic asked for.
    pub(crate) async fn refresh(
        &self,
        topics: Topics<'_>,
        auto_create: bool,
    ) -> Result<HashMap<TopicName, Error>, Error> {
        let connection = self.any().await?;
        let request = |_| {
            MetadataRequest::default()
                .with_allow_auto_topic_creation(auto_create)
                .with_topics(match topics {
                    Topics::All => None,
                    Topics::None => Some(Vec::new()),
                    Topics::Some(names) => Some(names.iter().map(named).collect()),
                })
        };
        let reply = connection
            .call(self.inner.config.request_timeout, request)
            .await?;
        Error::check(reply.error_code, None)?;
        let mut image = self.inner.image.write();
        let (updated, errors) = image.updated(reply, matches!(topics, Topics::All));
        *image = Arc::new(updated);
        Ok(errors)
    }

    /// A topic, from memory while it is fresh. Waits for one that is being created, if it was asked to create it.
    pub(crate) async fn topic(
        &self,
        name: &TopicName,
        auto_create: bool,
    ) -> Result<Arc<TopicInfo>, Error> {
        if let Some((learned, topic)) = self.image().topic(name)
            && learned.elapsed() < self.inner.config.metadata_age_max
        {
            return Ok(topic);
        }
        let mut backoff = Backoff::until(self.deadline());
        let created_by = Instant::now() + CREATION_WAIT;
        loop {
            let asked = self
                .refresh(Topics::Some(std::slice::from_ref(name)), auto_create)
                .await;
            let error = match asked {
                Ok(mut errors) => match self.image().topic(name) {
                    Some((_, topic)) => return Ok(topic),
                    None => errors
                        .remove(name)
                        .unwrap_or_else(|| Error::broker(ErrorCode::UnknownTopicOrPartition)),
                },
                Err(error) => error,
            };
            let is_missing = error.is(ErrorCode::UnknownTopicOrPartition)
                && !(auto_create && Instant::now() < created_by);
            if is_missing || !error.is_retriable() || !backoff.wait().await {
                return Err(unknown_topic(name, error));
            }
        }
    }

    /// The broker that coordinates a group.
    pub(crate) async fn coordinator(&self, group: &str) -> Result<BrokerId, Error> {
        let connection = self.any().await?;
        let request =
            |_| FindCoordinatorRequest::default().with_key(StrBytes::from_string(group.to_owned()));
        let reply = connection
            .call(self.inner.config.request_timeout, request)
            .await?;
        Error::check(
            reply.error_code,
            reply.error_message.as_ref().map(StrBytes::as_str),
        )?;
        let id = BrokerId(reply.node_id.0);
        if !self.image().brokers.contains_key(&id) {
            self.refresh(Topics::None, false).await?;
        }
        Ok(id)
    }

    /// Repeats a call while its error may pass and there is time; learns the cluster anew in between.
    pub(crate) async fn retry<T>(
        &self,
        topics: &[TopicName],
        mut attempt: impl AsyncFnMut() -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut backoff = Backoff::until(self.deadline());
        loop {
            let error = match attempt().await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            if !error.is_retriable() || !backoff.wait().await {
                return Err(error);
            }
            tracing::debug!(%error, "call is repeated");
            if error.is_stale_metadata() {
                // A failure shows in the next attempt, which is better placed to report it.
                self.refresh(Topics::Some(topics), false).await.ok();
            }
        }
    }
}

/// The broker's description of this error speaks of any topic; a person wants to know which.
fn unknown_topic(name: &TopicName, error: Error) -> Error {
    match error {
        Error::Broker(mut error) if error.code == ErrorCode::UnknownTopicOrPartition.code() => {
            error.message = format!("topic '{name}' does not exist");
            Error::Broker(error)
        }
        Error::Broker(mut error) if error.code == ErrorCode::InvalidTopicException.code() => {
            error.message = format!("'{name}' is not a valid topic name");
            Error::Broker(error)
        }
        other => other,
    }
}

fn named(name: &TopicName) -> MetadataRequestTopic {
    MetadataRequestTopic::default().with_name(Some(name.into()))
}
