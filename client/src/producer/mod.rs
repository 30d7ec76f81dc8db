//! Writing records: batches by partition, delivered in order, each exactly once while the producer lives.
//!
//! [`Producer::send`] chooses the partition and hands the record to one task, which owns all batches. Invariant: of
//! each partition at most one batch is on its way, so a retry can never overtake what came before it.

mod accumulator;
mod batch;
mod partitioner;
mod record;
mod sender;
mod task;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidelog_protocol::compression::Compression;
use tidelog_protocol::types::{TopicName, TopicPartition};
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::client::Client;
use crate::error::Error;
use partitioner::Partitioner;
use task::{Command, ProducerTask};

pub use partitioner::partition_for_key;
pub use record::{Delivered, Delivery, ProducerRecord};

/// Records that wait for the task. Their bytes are bounded by `buffer_bytes`.
const COMMANDS_MAX: usize = 1024;

/// Which brokers must have a record before it counts as delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acks {
    /// Nobody is asked: losses go unnoticed, offsets are not known.
    None,
    /// The leader.
    Leader,
    /// All replicas that are in sync.
    All,
}

/// How a producer works.
#[derive(Clone, Debug)]
pub struct ProducerConfig {
    /// Default [`Acks::All`].
    pub acks: Acks,
    /// Default none.
    pub compression: Compression,
    /// Retries write nothing twice; needs [`Acks::All`]. Default true.
    pub idempotence: bool,
    /// How long a batch waits for more records. Default 5 ms.
    pub linger: Duration,
    /// Size, before compression, at which a batch waits no longer; a larger record travels alone. Default 64 KiB.
    pub batch_bytes: usize,
    /// Bytes of records that are not delivered yet; beyond it `send` waits. Default 32 MiB.
    pub buffer_bytes: usize,
    /// How long a record may take from `send` to delivery, retries included. Default 2 minutes.
    pub delivery_timeout: Duration,
    /// Whether a topic that does not exist may be created by the broker, if it is set up so. Default true.
    pub auto_create_topics: bool,
}

impl Default for ProducerConfig {
    fn default() -> Self {
        ProducerConfig {
            acks: Acks::All,
            compression: Compression::None,
            idempotence: true,
            linger: Duration::from_millis(5),
            batch_bytes: 64 * 1024,
            buffer_bytes: 32 * 1024 * 1024,
            delivery_timeout: Duration::from_secs(120),
            auto_create_topics: true,
        }
    }
}

impl Acks {
    fn wire(self) -> i16 {
        match self {
            Acks::None => 0,
            Acks::Leader => 1,
            Acks::All => -1,
        }
    }
}

/// Writes records. Dropping it abandons what is not delivered; [`Producer::close`] does not.
#[derive(Debug)]
pub struct Producer {
    client: Client,
    config: Arc<ProducerConfig>,
    commands: mpsc::Sender<Command>,
    partitioner: Mutex<Partitioner>,
    buffer: Arc<Semaphore>,
}

impl Producer {
    /// Starts a producer on the runtime that it is called from.
    pub fn new(client: Client, config: ProducerConfig) -> Result<Producer, Error> {
        if config.idempotence && config.acks != Acks::All {
            return Err(Error::Invalid(
                "an idempotent producer needs acks=all".to_owned(),
            ));
        }
        let buffer_bytes = config.buffer_bytes.clamp(1, Semaphore::MAX_PERMITS);
        let config = Arc::new(config);
        let (commands, received) = mpsc::channel(COMMANDS_MAX);
        tokio::spawn(ProducerTask::new(client.clone(), config.clone(), received).run());
        Ok(Producer {
            client,
            partitioner: Mutex::new(Partitioner::new(config.batch_bytes)),
            buffer: Arc::new(Semaphore::new(buffer_bytes)),
            config,
            commands,
        })
    }

    /// Hands over a record. Waits for the topic to be known and for room in the buffer, not for the delivery:
    /// that is what the yielded future is for, which may also be dropped.
    pub async fn send(&self, record: ProducerRecord) -> Result<Delivery, Error> {
        let topic = self
            .client
            .topic(&record.topic, self.config.auto_create_topics)
            .await?;
        let size = record.size_bytes();
        let partition = match record.partition {
            Some(index) if topic.partition(index).is_some() => index,
            Some(index) => {
                return Err(no_partition(&record.topic, index.0, topic.partitions.len()));
            }
            None => self
                .partitioner
                .lock()
                .choose(&topic, record.key.as_deref(), size),
        };
        // A record larger than the buffer takes all of it.
        let permits = size.min(self.config.buffer_bytes.max(1));
        let permits = u32::try_from(permits).unwrap_or(u32::MAX);
        let room = self
            .buffer
            .clone()
            .acquire_many_owned(permits)
            .await
            .map_err(|_| Error::Closed)?;
        let (done, delivery) = oneshot::channel();
        let to = TopicPartition {
            topic: record.topic.clone(),
            partition,
        };
        let pending = batch::PendingRecord::new(record, size, done, room);
        self.commands
            .send(Command::Append(to, pending))
            .await
            .map_err(|_| Error::Closed)?;
        Ok(Delivery::new(delivery))
    }

    /// Waits until everything sent so far is delivered or has failed.
    pub async fn flush(&self) -> Result<(), Error> {
        let (done, flushed) = oneshot::channel();
        self.commands
            .send(Command::Flush(done))
            .await
            .map_err(|_| Error::Closed)?;
        flushed.await.map_err(|_| Error::Closed)
    }

    /// Flushes and ends.
    pub async fn close(self) -> Result<(), Error> {
        self.flush().await
    }
}

fn no_partition(topic: &TopicName, index: i32, count: usize) -> Error {
    Error::Invalid(format!(
        "topic '{topic}' has {count} partitions: there is no partition {index}"
    ))
}
