//! Appends to one log: one after the other, and many in flight, with and without the journal's sync.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use tidelog_protocol::batch::RecordBatch;
use tidelog_protocol::compression::Compression;
use tidelog_protocol::types::{LeaderEpoch, PartitionIndex, TopicId, TopicName};
use tidelog_storage::fs::RealFs;
use tidelog_storage::journal::Durability;
use tidelog_storage::kv::RocksKv;
use tidelog_storage::log::{
    EntryBody, EntryId, EntryIndex, LogConfig, LogEntry, PartitionLog, Stamping,
};
use tidelog_storage::manager::{LogManager, StorageOptions};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::batches::{SIZES, batch};
use crate::timing::show;

/// Appends that nobody has waited for yet.
const IN_FLIGHT: usize = 64;

/// Open logs, and what keeps them open.
pub struct Logs {
    pub runtime: Runtime,
    pub manager: Arc<LogManager>,
    /// A log that holds more than the cache, in batches of 16 KiB.
    pub long: Arc<PartitionLog>,
}

/// Measures, and leaves logs that can be read.
pub fn run(folder: &Path) -> Logs {
    let runtime = Runtime::new().expect("a runtime");
    let kv = Arc::new(RocksKv::open(&folder.join("kv")).expect("a key-value store"));
    let options = StorageOptions::new(folder.to_owned(), Arc::new(RealFs), kv);
    let (manager, _) = runtime
        .block_on(async { LogManager::open(options) })
        .expect("an empty folder opens");
    let mut number = 0;
    let mut make = |durability| {
        number += 1;
        let config = LogConfig {
            durability,
            ..LogConfig::default()
        };
        let id = TopicId(Uuid::from_u128(number));
        let log = manager.create_log(&TopicName::from("micro"), id, PartitionIndex(0), config);
        log.expect("a log is made")
    };
    for (durability, word) in [(Durability::Os, "os"), (Durability::Sync, "sync")] {
        for (name, size) in SIZES {
            let batch = batch(size, Compression::None);
            for (in_flight, bytes) in [(1, 4 << 20), (IN_FLIGHT, 64 << 20)] {
                let steps = (bytes >> size.ilog2()) as u32;
                let log = make(durability);
                let what = format!("append {name}, {word}, {in_flight} in flight");
                show(&what, steps, size, || {
                    runtime.block_on(append(&log, &batch, steps, in_flight));
                });
            }
        }
    }
    let long = make(Durability::Os);
    let small = batch(16 << 10, Compression::None);
    runtime.block_on(append(&long, &small, 1 << 15, IN_FLIGHT));
    Logs {
        runtime,
        manager,
        long,
    }
}

/// Appends a batch again and again, each an entry of its own.
async fn append(log: &PartitionLog, batch: &RecordBatch, count: u32, in_flight: usize) {
    let mut waiting = std::collections::VecDeque::with_capacity(in_flight);
    for _ in 0..count {
        if waiting.len() == in_flight
            && let Some(told) = waiting.pop_front()
        {
            durable(told).await;
        }
        let next = log.bounds().last.index.0 + 1;
        let entry = LogEntry {
            id: EntryId {
                epoch: LeaderEpoch(1),
                index: EntryIndex(next),
            },
            origin: None,
            flags: 0,
            aux: Bytes::new(),
            body: EntryBody::Batch(batch.clone()),
        };
        let (tell, told) = oneshot::channel();
        let done = Box::new(move |result| drop(tell.send(result)));
        log.append(vec![entry], Stamping::Leader, done)
            .await
            .expect("is appended");
        waiting.push_back(told);
    }
    for told in waiting {
        durable(told).await;
    }
}

async fn durable<E: std::fmt::Debug>(told: oneshot::Receiver<Result<(), E>>) {
    told.await.expect("is told").expect("becomes durable");
}
