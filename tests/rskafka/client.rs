//! rskafka, a client in Rust that is not ours, against a running broker.
//!
//! It has no groups; what it has is driven here: codecs, records, offsets, administration, errors.

#![cfg(test)]

#[path = "../it/running_broker.rs"]
#[allow(dead_code, reason = "made for tests that ask more of a broker")]
mod running_broker;

use std::collections::BTreeMap;
use std::time::Duration;

use rskafka::BackoffConfig;
use rskafka::chrono::{DateTime, Utc};
use rskafka::client::error::{Error, ProtocolError};
use rskafka::client::partition::{Compression, OffsetAt, PartitionClient, UnknownTopicHandling};
use rskafka::client::{Client, ClientBuilder};
use rskafka::record::{Record, RecordAndOffset};

use crate::running_broker::RunningBroker;

const TIMEOUT_MS: i32 = 10_000;
const CODECS: [Compression; 5] = [
    Compression::NoCompression,
    Compression::Gzip,
    Compression::Lz4,
    Compression::Snappy,
    Compression::Zstd,
];

async fn connect(broker: &RunningBroker) -> Client {
    // Errors that a retry could mend must show within the test's patience.
    let backoff = BackoffConfig {
        deadline: Some(Duration::from_secs(15)),
        ..BackoffConfig::default()
    };
    ClientBuilder::new(vec![broker.address().to_owned()])
        .backoff_config(backoff)
        .build()
        .await
        .expect("a connection to the broker")
}

async fn create(client: &Client, topic: &str, partitions: i32) -> Result<(), Error> {
    let controller = client.controller_client()?;
    controller
        .create_topic(topic, partitions, 1, TIMEOUT_MS)
        .await
}

async fn partition(client: &Client, topic: &str, partition: i32) -> PartitionClient {
    client
        .partition_client(topic, partition, UnknownTopicHandling::Retry)
        .await
        .expect("a client of the partition")
}

fn time(millis: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(millis).expect("a time within range")
}

fn record(key: Option<&[u8]>, value: Option<&[u8]>, millis: i64) -> Record {
    Record {
        key: key.map(<[u8]>::to_vec),
        value: value.map(<[u8]>::to_vec),
        headers: BTreeMap::from([
            ("a".to_owned(), b"1".to_vec()),
            ("empty".to_owned(), Vec::new()),
        ]),
        timestamp: time(millis),
    }
}

async fn read(client: &PartitionClient, from: i64) -> Vec<RecordAndOffset> {
    let (records, _) = client
        .fetch_records(from, 1..4 << 20, 1_000)
        .await
        .expect("records");
    records
}

fn told(result: Result<impl std::fmt::Debug, Error>) -> ProtocolError {
    match result {
        Err(Error::ServerError { protocol_error, .. }) => protocol_error,
        other => panic!("the broker should have refused: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rskafka_drives_a_broker() {
    let broker = RunningBroker::start();
    let client = connect(&broker).await;
    records_come_back_in_every_codec(&client).await;
    offsets_are_found(&client).await;
    topics_are_listed_and_removed(&client).await;
    refusals_say_why(&client).await;
}

async fn records_come_back_in_every_codec(client: &Client) {
    create(client, "rskafka-codecs", CODECS.len() as i32)
        .await
        .expect("a topic");
    for (index, codec) in CODECS.into_iter().enumerate() {
        let partition = partition(client, "rskafka-codecs", index as i32).await;
        let sent = vec![
            record(Some(b"key"), Some(b"value"), 1_000),
            record(None, Some(b""), 2_000),
            record(Some(b"tombstone"), None, 3_000),
            record(None, Some(&[7; 100_000]), 4_000),
        ];
        let offsets = partition
            .produce(sent.clone(), codec)
            .await
            .expect("acknowledged");
        assert_eq!(offsets, [0, 1, 2, 3], "{codec:?}");
        let back = read(&partition, 0).await;
        assert_eq!(back.iter().map(|r| r.offset).collect::<Vec<_>>(), offsets);
        assert_eq!(
            back.into_iter().map(|r| r.record).collect::<Vec<_>>(),
            sent,
            "{codec:?}"
        );
        // From the middle of the batch.
        assert_eq!(read(&partition, 2).await.first().map(|r| r.offset), Some(2));
    }
}

async fn offsets_are_found(client: &Client) {
    create(client, "rskafka-offsets", 1).await.expect("a topic");
    let partition = partition(client, "rskafka-offsets", 0).await;
    for millis in [1_000, 2_000, 3_000] {
        let one = vec![record(None, Some(b"x"), millis)];
        partition
            .produce(one, Compression::NoCompression)
            .await
            .expect("acknowledged");
    }
    let offset = async |at| partition.get_offset(at).await.expect("an offset");
    assert_eq!(offset(OffsetAt::Earliest).await, 0);
    assert_eq!(offset(OffsetAt::Latest).await, 3);
    assert_eq!(offset(OffsetAt::Timestamp(time(1_500))).await, 1);
    partition
        .delete_records(2, TIMEOUT_MS)
        .await
        .expect("deleted");
    assert_eq!(offset(OffsetAt::Earliest).await, 2);
    let (nothing, high_watermark) = partition
        .fetch_records(3, 1..1_000, 50)
        .await
        .expect("an empty fetch");
    assert!(nothing.is_empty());
    assert_eq!(high_watermark, 3);
}

async fn topics_are_listed_and_removed(client: &Client) {
    create(client, "rskafka-gone", 3).await.expect("a topic");
    let listed = async || client.list_topics().await.expect("topics");
    let found = listed()
        .await
        .into_iter()
        .find(|t| t.name == "rskafka-gone");
    assert_eq!(found.map(|t| t.partitions.len()), Some(3));
    let controller = client.controller_client().expect("a controller");
    controller
        .delete_topic("rskafka-gone", TIMEOUT_MS)
        .await
        .expect("deleted");
    assert!(listed().await.iter().all(|t| t.name != "rskafka-gone"));
}

async fn refusals_say_why(client: &Client) {
    create(client, "rskafka-errors", 1).await.expect("a topic");
    assert_eq!(
        told(create(client, "rskafka-errors", 1).await),
        ProtocolError::TopicAlreadyExists
    );
    assert_eq!(
        told(create(client, "not a name", 1).await),
        ProtocolError::InvalidTopicException
    );
    assert_eq!(
        told(create(client, "rskafka-none", 0).await),
        ProtocolError::InvalidPartitions
    );
    let controller = client.controller_client().expect("a controller");
    let three_replicas = controller
        .create_topic("rskafka-none", 1, 3, TIMEOUT_MS)
        .await;
    assert_eq!(
        told(three_replicas),
        ProtocolError::InvalidReplicationFactor
    );
    let partition = partition(client, "rskafka-errors", 0).await;
    let big = vec![record(None, Some(&vec![0; 1_048_588]), 1_000)];
    assert_eq!(
        told(partition.produce(big, Compression::NoCompression).await),
        ProtocolError::MessageTooLarge
    );
    assert_eq!(
        told(partition.fetch_records(99, 1..1_000, 50).await),
        ProtocolError::OffsetOutOfRange
    );
    let missing = client
        .partition_client("rskafka-missing", 0, UnknownTopicHandling::Error)
        .await
        .err();
    assert!(
        missing.is_some(),
        "an unknown topic has no partition to talk to"
    );
}
