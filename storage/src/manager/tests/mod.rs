//! Logs over a hostile disk: what is acknowledged is there again, what is damaged is named.

mod basics;
mod compaction;
mod compaction_model;
mod damage;
mod every_write;
mod full_disk;
mod full_journal;
mod install;
mod left_out;
mod life;
mod many;
mod matrix;
mod model;
mod resident;
mod retention;
mod stale_files;
mod store_matrix;
mod write_behind;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use life::{Life, LifeFs, LifeKv};
use rand::RngExt;
use rand::rngs::StdRng;
use tidelog_protocol::batch::{BatchBuilder, NewRecord, RecordBatch};
use tidelog_protocol::compression::Compression;
use tidelog_protocol::types::{
    LeaderEpoch, Offset, PartitionIndex, ProducerEpoch, ProducerId, Sequence, TimestampMs, TopicId,
    TopicName,
};
use tokio::sync::oneshot;
use uuid::Uuid;

use super::*;
use crate::fs::{FileSystem, HostileFs};
use crate::journal::JournalConfig;
use crate::kv::MemoryKv;
use crate::log::{EntryBody, EntryId, EntryIndex, LogEntry, ReadData, Stamping};

/// A machine whose power can go.
struct Machine {
    fs: Arc<HostileFs>,
    kv: Arc<MemoryKv>,
    life: Mutex<Arc<Life>>,
}

impl Machine {
    fn new(seed: u64) -> Machine {
        Machine {
            fs: Arc::new(HostileFs::new(seed)),
            kv: Arc::new(MemoryKv::new().expect("a thread starts")),
            life: Mutex::default(),
        }
    }

    /// A machine on which the syncs of one point do nothing.
    fn without(seed: u64, left_out: Option<SyncPoint>) -> Machine {
        let machine = Machine::new(seed);
        machine.fs.leave_out(left_out);
        machine.kv.leave_out(left_out);
        machine
    }

    fn options(&self) -> StorageOptions {
        let directory = PathBuf::from("/data");
        let life = Arc::clone(&self.life.lock());
        let fs = Arc::new(LifeFs {
            fs: self.fs.clone(),
            life: life.clone(),
        });
        let kv = Arc::new(LifeKv {
            kv: self.kv.clone(),
            life,
        });
        let mut options = StorageOptions::new(directory, fs, kv);
        options.journal = JournalConfig {
            file_bytes: 64 << 10,
            files_min: 2,
            files_max: 4,
            queue_bytes_max: 1 << 20,
            ..JournalConfig::default()
        };
        options.cache_bytes_max = 16 << 10;
        options.write_behind_bytes_max = 64 << 10;
        options.write_behind_wait = Duration::from_millis(2);
        options.open_files_max = 16;
        options
    }

    fn open(&self) -> (Arc<LogManager>, RecoveryReport) {
        LogManager::open(self.options()).expect("the directory opens")
    }

    /// The power goes and comes back.
    fn crash(&self, manager: Arc<LogManager>, seed: u64) {
        self.end_life(manager);
        self.kv.power_loss();
        self.fs.power_loss(seed);
    }

    /// The process is killed; what it wrote is still in the page cache.
    fn kill(&self, manager: Arc<LogManager>, seed: u64) {
        self.end_life(manager);
        self.kv.kill();
        self.fs.kill(seed);
    }

    /// Its threads may run on for a moment: what they do from now on reaches nothing.
    fn end_life(&self, manager: Arc<LogManager>) {
        let life = std::mem::take(&mut *self.life.lock());
        life.end();
        drop(manager);
    }

    /// A clean stop, a kill or a power loss, then a start in which no log is found wanting.
    async fn restart(&self, manager: Arc<LogManager>, random: &mut StdRng) -> Arc<LogManager> {
        let clean = random.random_bool(0.5);
        if clean {
            manager.shutdown().await;
            drop(manager);
        } else if random.random_bool(0.3) {
            self.kill(manager, random.random());
        } else {
            self.crash(manager, random.random());
        }
        let (opened, report) = self.open();
        assert_eq!((report.clean, report.stopped), (clean, vec![]));
        opened
    }
}

fn topic_id() -> TopicId {
    TopicId(Uuid::from_u128(77))
}

fn small_segments() -> LogConfig {
    LogConfig {
        segment_bytes: 4096,
        index_interval_bytes: 256,
        ..LogConfig::default()
    }
}

fn make(manager: &LogManager, partition: i32, config: LogConfig) -> Arc<PartitionLog> {
    let topic = TopicName::from("orders");
    manager
        .create_log(&topic, topic_id(), PartitionIndex(partition), config)
        .expect("is made")
}

fn find(manager: &LogManager, partition: i32) -> Arc<PartitionLog> {
    manager
        .log(topic_id(), PartitionIndex(partition))
        .expect("is there")
}

fn batch_at(timestamp: i64, records: i32, value: &[u8]) -> RecordBatch {
    build(
        BatchBuilder::new(Compression::None),
        timestamp,
        records,
        value,
    )
}

fn batch_of(producer: i64, sequence: i32, records: i32, value: &[u8]) -> RecordBatch {
    let builder = BatchBuilder::new(Compression::None).producer(
        ProducerId(producer),
        ProducerEpoch(0),
        Sequence(sequence),
    );
    build(builder, 1_000, records, value)
}

fn build(mut builder: BatchBuilder, timestamp: i64, records: i32, value: &[u8]) -> RecordBatch {
    for at in 0..records {
        let timestamp = TimestampMs(timestamp + i64::from(at));
        let record = NewRecord {
            timestamp,
            value: Some(value),
            ..NewRecord::default()
        };
        builder.push(record).expect("fits");
    }
    builder.build().expect("has records")
}

fn entry(epoch: i32, index: u64, body: EntryBody) -> LogEntry {
    let id = EntryId {
        epoch: LeaderEpoch(epoch),
        index: EntryIndex(index),
    };
    LogEntry {
        id,
        origin: None,
        flags: 0,
        aux: Bytes::new(),
        body,
    }
}

fn opaque(text: &str) -> EntryBody {
    EntryBody::Opaque {
        tag: 9,
        bytes: Bytes::copy_from_slice(text.as_bytes()),
    }
}

/// Appends and waits until it is durable.
async fn append(log: &PartitionLog, entries: Vec<LogEntry>) -> Result<Vec<Offset>, LogError> {
    let (tell, told) = oneshot::channel();
    let done = Box::new(move |result| drop(tell.send(result)));
    let offsets = log.append(entries, Stamping::Leader, done).await?;
    told.await.expect("done is called")?;
    Ok(offsets)
}

/// Appends batches, one entry each, in epoch 1.
async fn append_batches(log: &PartitionLog, batches: Vec<RecordBatch>) -> Vec<Offset> {
    let next = log.bounds().last.index.0 + 1;
    let entries = batches.into_iter().enumerate();
    let entries = entries.map(|(at, batch)| entry(1, next + at as u64, EntryBody::Batch(batch)));
    append(log, entries.collect()).await.expect("is appended")
}

/// Runs a case of a property.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build();
    runtime.expect("a runtime starts").block_on(future)
}

/// One read, both ways where both can: they see the same bytes. (How many may differ, as segments are written meanwhile.)
fn read_both_ways(log: &PartitionLog, from: Offset, end: Offset, bytes_max: usize) -> ReadData {
    let resident = log.try_read_resident(from, end, bytes_max, true);
    let data = log.read_blocking(from, end, bytes_max, true);
    let data = data.expect("is readable");
    if let Some(resident) = resident {
        let (here, there) = (resident.expect("is readable").pieces, &data.pieces);
        let (here, there) = (here.concat(), there.concat());
        let both = here.len().min(there.len());
        assert!(both > 0 || data.size_bytes == 0, "nothing at {from}");
        assert_eq!(here[..both], there[..both]);
    }
    data
}

/// Everything from `from` to the end, in pieces of about `bytes_max`.
fn read_all(log: &PartitionLog, from: Offset, bytes_max: usize) -> Vec<RecordBatch> {
    let end = log.bounds().log_end;
    let mut next = from;
    let mut batches = Vec::new();
    while next < end {
        let data = read_both_ways(log, next, end, bytes_max);
        assert!(data.next_offset > next, "no progress at {next}");
        assert_eq!(
            data.pieces.iter().map(Bytes::len).sum::<usize>(),
            data.size_bytes
        );
        next = data.next_offset;
        let bytes: Bytes = data.pieces.concat().into();
        batches.extend(RecordBatch::split_all(bytes).expect("whole batches"));
    }
    batches
}
