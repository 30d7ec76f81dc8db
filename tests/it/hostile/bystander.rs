//! A client beside an attack: it produces and consumes one record after the other, and must see all of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tidelog_protocol::StrBytes;
use tidelog_protocol::api::ApiKey;
use tidelog_protocol::batch::RecordBatch;
use tidelog_protocol::batch::builder::{BatchBuilder, NewRecord};
use tidelog_protocol::compression::Compression;
use tidelog_protocol::messages::*;
use tidelog_protocol::types::TimestampMs;

use super::PATIENCE;
use crate::every_version::Asker;

/// A topic that no hostile request names.
const TOPIC: &str = "bystander";

/// Pause between two rounds; the machine is the attack's, too.
const PAUSE: Duration = Duration::from_millis(5);

/// The running client.
pub struct Bystander {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(u64, Duration)>,
}

impl Bystander {
    /// Creates its topic and begins.
    pub fn start(address: &str) -> Bystander {
        let mut producer = Asker::connect(address);
        create_topic(&mut producer, TOPIC);
        let mut consumer = Asker::connect(address);
        let stop = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let stop = Arc::clone(&stop);
            move || {
                let (mut rounds, mut slowest) = (0, Duration::ZERO);
                while !stop.load(Ordering::Relaxed) {
                    let begun = Instant::now();
                    round(&mut producer, &mut consumer, rounds);
                    slowest = slowest.max(begun.elapsed());
                    assert!(slowest < PATIENCE, "round {rounds} took {slowest:?}");
                    rounds += 1;
                    thread::sleep(PAUSE);
                }
                (rounds, slowest)
            }
        });
        Bystander { stop, thread }
    }

    /// Ends it; says how long its slowest round took.
    pub fn finish(self) -> Duration {
        self.stop.store(true, Ordering::Relaxed);
        let (rounds, slowest) = self.thread.join().expect("the bystander was served");
        assert!(rounds > 0, "the bystander never came to its turn");
        slowest
    }
}

/// Creates a topic and waits until it has a leader.
pub fn create_topic(asker: &mut Asker, name: &str) {
    use create_topics_request::CreatableTopic;
    let wanted = CreatableTopic::default()
        .with_name(topic(name))
        .with_num_partitions(1)
        .with_replication_factor(1);
    let request = CreateTopicsRequest::default()
        .with_topics(vec![wanted])
        .with_timeout_ms(30_000);
    let reply: CreateTopicsResponse = asker.ask(ApiKey::CreateTopics, 4, &request);
    assert_eq!(reply.topics[0].error_code, 0);
}

fn topic(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

fn round(producer: &mut Asker, consumer: &mut Asker, number: u64) {
    let records = batch_of(Compression::None, &number.to_be_bytes());
    let reply: ProduceResponse = producer.ask(ApiKey::Produce, 9, &produce_of(TOPIC, records));
    let produced = &reply.responses[0].partition_responses[0];
    assert_eq!(
        (produced.error_code, produced.base_offset),
        (0, number as i64)
    );
    let reply: FetchResponse = consumer.ask(ApiKey::Fetch, 11, &fetch_of(TOPIC, number as i64));
    let fetched = &reply.responses[0].partitions[0];
    assert_eq!(fetched.error_code, 0);
    let bytes = fetched.records.clone().unwrap_or_default();
    let batches = RecordBatch::split_all(bytes).expect("batches");
    let values: Vec<_> = batches
        .iter()
        .flat_map(|batch| batch.read_records().expect("records"))
        .map(|record| (record.offset.0 as u64, record.value))
        .collect();
    let expected = Bytes::copy_from_slice(&number.to_be_bytes());
    assert_eq!(values, [(number, Some(expected))]);
}

/// A batch of one record.
pub fn batch_of(codec: Compression, value: &[u8]) -> Bytes {
    let mut builder = BatchBuilder::new(codec);
    let record = NewRecord {
        timestamp: TimestampMs(1_700_000_000_000),
        key: None,
        value: Some(value),
        headers: &[],
    };
    builder.push(record).expect("it fits");
    builder.build().expect("a batch").to_bytes()
}

/// Produces a batch to partition 0 of a topic.
pub fn produce_of(name: &str, records: Bytes) -> ProduceRequest {
    use produce_request::{PartitionProduceData, TopicProduceData};
    let data = PartitionProduceData::default().with_records(Some(records));
    let data = TopicProduceData::default()
        .with_name(topic(name))
        .with_partition_data(vec![data]);
    ProduceRequest::default()
        .with_acks(-1)
        .with_timeout_ms(30_000)
        .with_topic_data(vec![data])
}

/// Fetches partition 0 of a topic from an offset.
pub fn fetch_of(name: &str, offset: i64) -> FetchRequest {
    use fetch_request::{FetchPartition, FetchTopic};
    let partition = FetchPartition::default()
        .with_fetch_offset(offset)
        .with_current_leader_epoch(-1)
        .with_partition_max_bytes(1 << 20);
    let asked = FetchTopic::default()
        .with_topic(topic(name))
        .with_partitions(vec![partition]);
    FetchRequest::default()
        .with_max_wait_ms(1_000)
        .with_min_bytes(1)
        .with_max_bytes(8 << 20)
        .with_session_epoch(-1)
        .with_topics(vec![asked])
}
