//! Client of Tidelog, and of any broker that speaks the Kafka protocol: [`Producer`], [`Consumer`],
//! [`GroupConsumer`] and [`Admin`], all on one shared [`Client`].
//!
//! Owns connections, the picture of the cluster and retries. Shows no message of the wire protocol in its
//! interface; knows nothing of how a broker stores or agrees. Whoever links it into a program should use jemalloc
//! as the allocator: message decoding reserves what a reply's length fields claim, and untouched reservations
//! cost nothing there.
//!
//! ```no_run
//! # async fn example() -> Result<(), tidelog_client::Error> {
//! use tidelog_client::{Client, ClientConfig, Producer, ProducerConfig, ProducerRecord};
//!
//! let client = Client::connect(ClientConfig::new("127.0.0.1:9092")).await?;
//! let producer = Producer::new(client, ProducerConfig::default())?;
//! let delivery = producer.send(ProducerRecord::new("orders").key("42").value("paid")).await?;
//! println!("stored at {:?}", delivery.await?.offset);
//! # Ok(())
//! # }
//! ```

mod admin;
mod backoff;
mod client;
mod config;
mod connection;
mod consumer;
mod error;
mod metadata;
mod producer;
mod versions;

pub use admin::{
    Admin, ClusterBroker, ClusterDescription, CommittedOffset, ConfigChange, ConfigEntry,
    CreatedTopic, ElectionKind, ElectionOutcome, FeatureDescription, FeatureUpdate,
    GroupDescription, GroupMember, GroupSummary, ListedOffset, NewTopic, OffsetSpec,
    QuorumDescription, QuorumReplica, Reassignment, TopicSummary,
};
pub use client::Client;
pub use config::ClientConfig;
pub use consumer::{
    ConsumedRecord, Consumer, ConsumerConfig, GroupConfig, GroupConsumer, OffsetReset, RecordHeader,
};
pub use error::{BrokerError, Error};
pub use metadata::{BrokerInfo, PartitionInfo, TopicInfo};
pub use producer::{
    Acks, Delivered, Delivery, Producer, ProducerConfig, ProducerRecord, partition_for_key,
};
/// The codecs of record batches.
pub use tidelog_protocol::compression::Compression;
/// Names and numbers of the protocol.
pub use tidelog_protocol::types::{
    BrokerId, LeaderEpoch, Offset, PartitionIndex, TimestampMs, TopicId, TopicName, TopicPartition,
};
