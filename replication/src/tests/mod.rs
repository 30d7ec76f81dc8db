//! A broker's consensus groups on real logs in a temporary directory.

mod adapter;
mod brokers;
mod cluster;
mod compaction;
mod damage;
mod healing;
mod hibernation;
mod hostile;
mod idle;
mod levels;
mod lifecycle;
mod moving;
mod produce;
pub mod proxy;
mod replica;
mod retention;
mod returning;
mod router;
mod simulation;
mod suspects;
mod throttled;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tempfile::TempDir;
use tidelog_protocol::batch::{BatchBuilder, NewRecord, RecordBatch};
use tidelog_protocol::compression::Compression;
use tidelog_protocol::types::{
    BrokerId, Offset, PartitionIndex, ProducerEpoch, ProducerId, Sequence, TimestampMs, TopicId,
    TopicName,
};
use tidelog_storage::fs::RealFs;
use tidelog_storage::journal::Durability;
use tidelog_storage::kv::RocksKv;
use tidelog_storage::log::LogConfig;
use tidelog_storage::manager::{LogManager, StorageOptions};
use uuid::Uuid;

use crate::{
    Acks, AppendError, AppendRequest, Appended, Command, CompactionOptions, ConfigResource,
    LogConfigSource, MetadataImage, Outcome, Partition, ReplicaList, Replication,
    ReplicationOptions, StartError, ThrottleRates, ThrottledReplicas, TopicImage,
};

/// Longest wait for anything; a loaded machine may need some of it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Reads `retention.ms`, `segment.bytes`, `durability` and throttles; `default` is the broker's `log.retention.ms`.
#[derive(Default)]
struct TestConfigs {
    default_retention_ms: Mutex<Option<i64>>,
    compaction: Mutex<CompactionOptions>,
    throttle_rates: Mutex<ThrottleRates>,
}

impl TestConfigs {
    fn new() -> TestConfigs {
        TestConfigs {
            compaction: Mutex::new(CompactionOptions {
                backoff: Duration::from_millis(50),
                follower_lag_max: 16,
                ..CompactionOptions::default()
            }),
            ..TestConfigs::default()
        }
    }
}

impl LogConfigSource for TestConfigs {
    fn log_config(&self, topic: &TopicImage) -> LogConfig {
        let number = |key: &str| {
            topic
                .configs
                .get(key)
                .and_then(|value| value.parse::<i64>().ok())
        };
        let os = topic
            .configs
            .get("durability")
            .is_some_and(|value| value == "os");
        LogConfig {
            segment_bytes: number("segment.bytes").map_or(1 << 20, |bytes| bytes as u32),
            segment_ms: i64::MAX,
            index_bytes_max: 1 << 20,
            index_interval_bytes: 4_096,
            retention_ms: number("retention.ms").or(*self.default_retention_ms.lock()),
            retention_bytes: None,
            delete: true,
            compact: topic
                .configs
                .get("cleanup.policy")
                .is_some_and(|policy| policy.contains("compact")),
            cleaning: Default::default(),
            durability: if os { Durability::Os } else { Durability::Sync },
            producer_id_expiration_ms: 86_400_000,
        }
    }

    fn min_insync_replicas(&self, _topic: &TopicImage) -> usize {
        1
    }

    fn compaction(&self) -> CompactionOptions {
        self.compaction.lock().clone()
    }

    fn throttled_replicas(&self, topic: &TopicImage) -> Option<Arc<ThrottledReplicas>> {
        let list = |side: &str| {
            let key = format!("{side}.replication.throttled.replicas");
            let value = topic.configs.get(&key).map_or("", String::as_str);
            ReplicaList::of(value.split(','))
        };
        let (leaders, followers) = (list("leader"), list("follower"));
        let throttled = ThrottledReplicas { leaders, followers };
        (!throttled.is_empty()).then(|| Arc::new(throttled))
    }

    fn throttle_rates(&self) -> ThrottleRates {
        *self.throttle_rates.lock()
    }

    fn follow(&self, image: &MetadataImage) {
        let rate = |side: &str| {
            let configs = image.configs(&ConfigResource::Broker(None))?;
            let rate = configs.get(&format!("{side}.replication.throttled.rate"))?;
            rate.parse().ok()
        };
        let (leader, follower) = (rate("leader"), rate("follower"));
        *self.throttle_rates.lock() = ThrottleRates { leader, follower };
    }
}

/// A broker that can be stopped and started on the same directory.
pub struct Broker {
    directory: TempDir,
    configs: Arc<TestConfigs>,
    retention_check: Duration,
    running: Option<(Arc<Replication>, Arc<LogManager>)>,
}

impl Broker {
    pub async fn start() -> Broker {
        Broker::start_with_retention_check(Duration::from_secs(3600)).await
    }

    async fn start_with_retention_check(retention_check: Duration) -> Broker {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut broker = Broker {
            directory,
            configs: Arc::new(TestConfigs::new()),
            retention_check,
            running: None,
        };
        broker.run().await;
        broker
    }

    async fn run(&mut self) {
        self.try_run().await.expect("starts");
    }

    async fn try_run(&mut self) -> Result<(), StartError> {
        let logs = open_logs(self.directory.path()).await;
        let mut options = ReplicationOptions::new(
            BrokerId(1),
            Uuid::from_u128(11),
            Uuid::from_u128(99),
            self.configs.clone(),
        );
        options.retention_check_interval = self.retention_check;
        sleep_early(&mut options);
        match Replication::start(options, logs.clone(), None).await {
            Ok(replication) => {
                self.running = Some((replication, logs));
                Ok(())
            }
            Err(error) => {
                logs.shutdown().await;
                Err(error)
            }
        }
    }

    pub async fn stop(&mut self) {
        let (replication, logs) = self.running.take().expect("runs");
        replication.shutdown().await;
        drop(replication);
        logs.shutdown().await;
    }

    async fn restart(&mut self) {
        self.stop().await;
        self.run().await;
    }

    fn replication(&self) -> &Arc<Replication> {
        &self.running.as_ref().expect("runs").0
    }

    fn image(&self) -> Arc<MetadataImage> {
        self.replication().image()
    }

    async fn submit(&self, command: Command) -> Outcome {
        self.replication()
            .controller()
            .submit(command, PATIENCE)
            .await
            .expect("is carried out")
    }

    pub async fn create(&self, name: &str, partitions: usize) -> TopicId {
        self.create_with(name, partitions, &[]).await
    }

    async fn create_with(
        &self,
        name: &str,
        partitions: usize,
        configs: &[(&str, &str)],
    ) -> TopicId {
        let id = TopicId(Uuid::new_v4());
        let configs: BTreeMap<String, String> = configs
            .iter()
            .map(|(key, value)| (key.to_string(), value.to_string()))
            .collect();
        let assignments = vec![vec![BrokerId(1)]; partitions];
        let name = TopicName::from(name);
        self.submit(Command::CreateTopic {
            name,
            id,
            assignments,
            configs,
        })
        .await;
        self.replication()
            .wait_led(id, PATIENCE)
            .await
            .expect("is led");
        id
    }

    pub fn partition(&self, topic: TopicId, index: i32) -> Arc<Partition> {
        self.replication()
            .partition(topic, PartitionIndex(index))
            .expect("is hosted")
    }
}

/// All tests may be run with groups that sleep whenever they are idle.
fn sleep_early(options: &mut ReplicationOptions) {
    let idle = std::env::var("TIDELOG_TEST_HIBERNATION_MS").ok();
    if let Some(idle) = idle.and_then(|idle| idle.parse().ok()) {
        options.hibernation_idle = Some(Duration::from_millis(idle));
    }
}

pub async fn open_logs(directory: &Path) -> Arc<LogManager> {
    let directory = directory.to_owned();
    let open = move || {
        let began = std::time::Instant::now();
        // A pass of compaction that was told to stop may hold the one before for a moment.
        let kv = loop {
            match RocksKv::open(&directory.join("kv")) {
                Err(error) if began.elapsed() < PATIENCE && error.0.contains("in use") => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                opened => break Arc::new(opened.expect("opens")),
            }
        };
        LogManager::open(StorageOptions::new(directory, Arc::new(RealFs), kv))
            .expect("opens")
            .0
    };
    tokio::task::spawn_blocking(open).await.expect("no panic")
}

/// A batch without a producer.
pub fn batch(records: i32) -> RecordBatch {
    build(BatchBuilder::new(Compression::None), records)
}

/// A batch of an idempotent producer.
pub fn batch_of(producer: i64, sequence: i32, records: i32) -> RecordBatch {
    let builder = BatchBuilder::new(Compression::None).producer(
        ProducerId(producer),
        ProducerEpoch(0),
        Sequence(sequence),
    );
    build(builder, records)
}

fn build(mut builder: BatchBuilder, records: i32) -> RecordBatch {
    for _ in 0..records {
        let record = NewRecord {
            timestamp: TimestampMs(1_000),
            key: None,
            value: Some(&[7; 100]),
            headers: &[],
        };
        builder.push(record).expect("a small record");
    }
    builder.build().expect("a small batch")
}

async fn append(
    partition: &Partition,
    batch: RecordBatch,
    acks: Acks,
) -> Result<Appended, AppendError> {
    let ticket = partition
        .submit(AppendRequest {
            batch,
            acks,
            epoch: None,
        })
        .await?;
    tokio::time::timeout(PATIENCE, ticket)
        .await
        .expect("is answered")
}

/// Base offsets of all batches that a consumer would get.
fn stored_offsets(partition: &Partition) -> Vec<i64> {
    let state = partition.state();
    let mut offsets = Vec::new();
    let mut from = state.log_start;
    // A read ends where the next records are in another place.
    while from < state.high_watermark {
        let data = partition
            .log()
            .read_blocking(from, state.high_watermark, usize::MAX >> 1, true)
            .expect("reads");
        assert!(data.next_offset > from, "nothing at {from}");
        from = data.next_offset;
        let mut bytes = bytes::Bytes::from(data.pieces.concat());
        while !bytes.is_empty() {
            let batch = RecordBatch::split_first(&mut bytes).expect("a batch");
            offsets.push(batch.base_offset().0);
        }
    }
    offsets
}

/// Polls until it holds. For what no event tells.
async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn offset(result: Result<Appended, AppendError>) -> Offset {
    result.expect("is appended").base_offset
}
