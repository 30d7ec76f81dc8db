//! Reading records: of partitions that the caller names ([`Consumer`]), or as a member of a group
//! ([`GroupConsumer`]).
//!
//! Records are read as they were committed, aborted transactions included (`read_uncommitted`). A batch whose
//! checksum does not match is an error, never a record.

mod assignor;
mod decode;
pub(crate) mod embedded;
mod fetch;
mod group;
mod membership;
mod positions;

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use tidelog_protocol::ErrorCode;
use tidelog_protocol::types::{BrokerId, Offset, TimestampMs, TopicName, TopicPartition};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::admin::{Admin, OffsetSpec};
use crate::client::{Client, Topics};
use crate::error::Error;
use fetch::Fetched;
use positions::Positions;

pub use group::{GroupConfig, GroupConsumer};

/// Longest wait of [`Consumer::poll`] between looks at partitions that had no leader.
const IDLE_MS: u64 = 500;

/// A record that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumedRecord {
    /// The partition.
    pub partition: TopicPartition,
    /// Its offset there.
    pub offset: Offset,
    /// The producer's time, or the broker's if the topic says so.
    pub timestamp: TimestampMs,
    /// Key; `None` is null.
    pub key: Option<Bytes>,
    /// Value; `None` is null.
    pub value: Option<Bytes>,
    /// Headers in order.
    pub headers: Vec<RecordHeader>,
}

/// One header of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// Key; UTF-8 by agreement, unchecked.
    pub key: Bytes,
    /// Value; `None` is null.
    pub value: Option<Bytes>,
}

/// What to do when the offset to read from is not there (any more).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetReset {
    /// Go on with the first record that is retained.
    Earliest,
    /// Go on with what is written from now on.
    Latest,
    /// Fail.
    Error,
}

/// How a consumer reads.
#[derive(Clone, Debug)]
pub struct ConsumerConfig {
    /// How long a broker holds a request for which it has no records. Default 500 ms.
    pub fetch_wait: Duration,
    /// Most bytes of one reply. Default 8 MiB.
    pub fetch_bytes: i32,
    /// Most bytes of one partition in a reply; a larger batch comes nevertheless. Default 1 MiB.
    pub partition_fetch_bytes: i32,
    /// Default [`OffsetReset::Earliest`].
    pub offset_reset: OffsetReset,
}

impl Default for ConsumerConfig {
    fn default() -> Self {
        ConsumerConfig {
            fetch_wait: Duration::from_millis(500),
            fetch_bytes: 8 * 1024 * 1024,
            partition_fetch_bytes: 1024 * 1024,
            offset_reset: OffsetReset::Earliest,
        }
    }
}

impl OffsetReset {
    fn spec(self) -> Option<OffsetSpec> {
        match self {
            OffsetReset::Earliest => Some(OffsetSpec::Earliest),
            OffsetReset::Latest => Some(OffsetSpec::Latest),
            OffsetReset::Error => None,
        }
    }
}

/// Reads partitions from given offsets on.
#[derive(Debug)]
pub struct Consumer {
    client: Client,
    admin: Admin,
    config: ConsumerConfig,
    positions: Positions,
    fetches: JoinSet<Fetched>,
    /// Read, not handed out yet.
    ready: Vec<ConsumedRecord>,
    /// Partitions whose offset is out of range.
    resets: Vec<(TopicPartition, Offset)>,
}

impl Consumer {
    /// A consumer that reads nothing yet.
    pub fn new(client: Client, config: ConsumerConfig) -> Self {
        Consumer::over(client.with_own_connections(), config)
    }

    /// A consumer that takes this client's connections for its own.
    fn over(client: Client, config: ConsumerConfig) -> Self {
        Consumer {
            admin: Admin::new(client.clone()),
            client,
            config,
            positions: Positions::default(),
            fetches: JoinSet::new(),
            ready: Vec::new(),
            resets: Vec::new(),
        }
    }

    /// Reads these partitions from these offsets on, and no others.
    pub fn assign(&mut self, partitions: impl IntoIterator<Item = (TopicPartition, Offset)>) {
        self.positions.replace(partitions);
        self.ready.clear();
        self.resets.clear();
    }

    /// The partitions that are read, in order.
    pub fn assignment(&self) -> Vec<TopicPartition> {
        self.positions.partitions()
    }

    /// The offset that is read next.
    pub fn position(&self, of: &TopicPartition) -> Option<Offset> {
        self.positions.get(of)
    }

    /// The records that came first, in the order of their offsets within each partition; none when there were
    /// none within `wait`. Moves lost leaders and connections out of the way by itself; an error is one that
    /// waiting does not mend. Nothing is lost when the future is dropped before it is done.
    pub async fn poll(&mut self, wait: Duration) -> Result<Vec<ConsumedRecord>, Error> {
        let deadline = Instant::now() + wait;
        loop {
            if !self.ready.is_empty() {
                return Ok(std::mem::take(&mut self.ready));
            }
            self.reset_positions().await?;
            self.start_fetches();
            let pause = deadline.min(Instant::now() + Duration::from_millis(IDLE_MS));
            if self.fetches.is_empty() {
                // Every partition waits for its next attempt, or there is none.
                let pause = self
                    .positions
                    .next_attempt()
                    .map_or(pause, |at| at.min(pause));
                tokio::time::sleep_until(pause).await;
            } else {
                match tokio::time::timeout_at(pause, self.fetches.join_next()).await {
                    Ok(Some(Ok(fetched))) => self.accept(fetched)?,
                    Ok(Some(Err(error))) => tracing::error!(%error, "fetch task failed"),
                    Ok(None) | Err(_) => {}
                }
            }
            self.refresh_in_trouble().await;
            if self.ready.is_empty() && Instant::now() >= deadline {
                return Ok(Vec::new());
            }
        }
    }

    /// One request to each leader of partitions that nothing is being fetched for.
    fn start_fetches(&mut self) {
        let mut by_leader: HashMap<BrokerId, Vec<(TopicPartition, Offset)>> = HashMap::new();
        for (of, offset) in self.positions.idle(Instant::now()) {
            match self.client.leader_id(&of) {
                Ok(leader) => by_leader.entry(leader).or_default().push((of, offset)),
                Err(_) => self.positions.failed(&of),
            }
        }
        for (leader, partitions) in by_leader {
            for (of, _) in &partitions {
                self.positions.requested(of);
            }
            let (client, config) = (self.client.clone(), self.config.clone());
            self.fetches
                .spawn(async move { fetch::fetch(&client, leader, &config, partitions).await });
        }
    }

    /// Learns anew where partitions are that could not be read.
    async fn refresh_in_trouble(&mut self) {
        let topics: Vec<TopicName> = self.positions.topics_in_trouble();
        if !topics.is_empty() {
            // A failure shows when the partitions are tried again.
            self.client.refresh(Topics::Some(&topics), false).await.ok();
            self.positions.refreshed();
        }
    }

    fn accept(&mut self, fetched: Fetched) -> Result<(), Error> {
        let mut outcome = Ok(());
        for (of, asked, result) in fetched.partitions {
            // Taken away or moved while the request was out.
            if !self.positions.answered(&of, asked) {
                continue;
            }
            let accepted = match result {
                Ok(batches) => {
                    let (next, read) = decode::decode(&of, asked, batches, &mut self.ready);
                    // Also past what was read before an error, or it would be handed out again.
                    self.positions.advance(&of, next);
                    read
                }
                Err(error) if error.is(ErrorCode::OffsetOutOfRange) => {
                    self.resets.push((of, asked));
                    Ok(())
                }
                Err(error) if error.is_retriable() => {
                    tracing::debug!(partition = %of, %error, "fetch is repeated");
                    self.positions.failed(&of);
                    Ok(())
                }
                Err(error) => Err(error),
            };
            outcome = outcome.and(accepted);
        }
        outcome
    }

    /// Moves partitions whose offset is out of range to where the configuration says.
    async fn reset_positions(&mut self) -> Result<(), Error> {
        while let Some((of, asked)) = self.resets.last() {
            if self.positions.get(of) == Some(*asked) {
                let Some(spec) = self.config.offset_reset.spec() else {
                    let error = format!(
                        "{of} has no offset {asked}: its records were deleted, or it never had so many"
                    );
                    return Err(Error::Invalid(error));
                };
                let offset = self.admin.start_offset(of, spec).await?;
                tracing::debug!(partition = %of, %asked, %offset, "out of range; position reset");
                self.positions.advance(of, offset);
            }
            self.resets.pop();
        }
        Ok(())
    }
}
