//! Topics that come and go leave nothing behind: no memory, open files, threads, files or keys.
//!
//! 500 topics here, times `TIDELOG_SOAK` where that is set.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use tidelog_client::{
    Admin, Client, ClientConfig, NewTopic, Offset, PartitionIndex, Producer, ProducerConfig,
    ProducerRecord, TopicPartition,
};
use tidelog_storage::kv::{KeySpace, KeyValueStore, RocksKv};
use tokio::task::LocalSet;

use crate::running_broker::RunningBroker;

const TOPICS: usize = 500;
/// Enough to fill what is filled once: pools, caches, the journal's files.
const WARM_UP: usize = 200;
const AT_ONCE: usize = 8;
const PARTITIONS: i32 = 3;
const GROUP_PARTITIONS: usize = 2;
/// Those and the controller's.
const LOGS_LEFT: usize = GROUP_PARTITIONS + 1;
/// Caches of records are as good as off, and the journal comes round within the test.
const SETTINGS: &[&str] = &[
    "log.cache.bytes=1048576",
    "journal.file.bytes=1048576",
    "journal.bytes.max=8388608",
    "offsets.topic.num.partitions=2",
    "offsets.topic.segment.bytes=1048576",
    "log.cleaner.backoff.ms=200",
    "group.initial.rebalance.delay.ms=0",
];

/// What the process takes.
#[derive(Clone, Debug)]
struct Taken {
    allocated_bytes: f64,
    open_files: usize,
    threads: usize,
    partitions: f64,
    log_folders: usize,
}

fn taken(broker: &RunningBroker) -> Taken {
    let process = Path::new("/proc").join(broker.process_id().to_string());
    let count = |folder: &Path| fs::read_dir(folder).map_or(0, Iterator::count);
    Taken {
        allocated_bytes: broker.metric("tidelog_memory_allocated_bytes") as f64,
        open_files: count(&process.join("fd")),
        threads: count(&process.join("task")),
        partitions: broker.metric("tidelog_partitions") as f64,
        log_folders: count(&broker.data_dir().join("topics")),
    }
}

/// One topic's life: created, written to in each partition, committed for, deleted; its group goes before or after it.
async fn one_topic(client: &Client, admin: &Admin, number: usize) {
    let mut topic = NewTopic::new(&format!("passing-{number}"));
    topic.partitions = Some(PARTITIONS);
    admin.create_topic(&topic).await.expect("a new topic");
    let producer = Producer::new(client.clone(), ProducerConfig::default()).expect("a producer");
    let mut deliveries = Vec::new();
    let mut offsets = Vec::new();
    for partition in 0..PARTITIONS {
        let record = ProducerRecord::new(topic.name.clone())
            .partition(partition)
            .value(vec![b'v'; 20_000]);
        deliveries.push(producer.send(record).await.expect("sent"));
        let partition = TopicPartition {
            topic: topic.name.clone(),
            partition: PartitionIndex(partition),
        };
        offsets.push((partition, Offset(1)));
    }
    for delivery in deliveries {
        delivery.await.expect("delivered");
    }
    producer.close().await.expect("closed");
    let group = format!("passing-{number}");
    admin
        .set_group_offsets(&group, &offsets)
        .await
        .expect("committed");
    if number.is_multiple_of(2) {
        admin.delete_group(&group).await.expect("a deleted group");
        admin.delete_topic(&topic.name).await.expect("deleted");
    } else {
        admin.delete_topic(&topic.name).await.expect("deleted");
        // With its offsets gone, nothing may be left of the group.
        let _ = admin.delete_group(&group).await;
    }
}

async fn churn(client: &Client, numbers: std::ops::Range<usize>) {
    let lanes = LocalSet::new();
    for lane in 0..AT_ONCE {
        let (client, numbers) = (client.clone(), numbers.clone());
        lanes.spawn_local(async move {
            let admin = Admin::new(client.clone());
            for number in numbers.skip(lane).step_by(AT_ONCE) {
                one_topic(&client, &admin, number).await;
            }
        });
    }
    lanes.await;
}

/// Looks until what is removed in the background is gone, and returns the last look.
async fn settled(broker: &RunningBroker) -> Taken {
    let mut last = taken(broker);
    for _ in 0..60 {
        if last.log_folders <= LOGS_LEFT && last.partitions <= GROUP_PARTITIONS as f64 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        last = taken(broker);
    }
    // Memory is given back a little later than files.
    tokio::time::sleep(Duration::from_secs(3)).await;
    taken(broker)
}

/// Keys of the stopped broker, by key space.
fn keys(data_dir: &Path) -> BTreeMap<KeySpace, usize> {
    let store = RocksKv::open(&data_dir.join("kv")).expect("the key-value store");
    let spaces = [
        KeySpace::Meta,
        KeySpace::Vote,
        KeySpace::Checkpoint,
        KeySpace::Metadata,
        KeySpace::Coordinator,
    ];
    let count = |space| store.scan(space, &[]).expect("all keys").len();
    spaces.map(|space| (space, count(space))).into()
}

#[tokio::test]
async fn topics_that_come_and_go_leave_nothing_behind() {
    let factor = std::env::var("TIDELOG_SOAK").map_or(1, |factor| factor.parse().unwrap());
    let broker = RunningBroker::start_own(SETTINGS);
    let client = Client::connect(ClientConfig::new(broker.address()))
        .await
        .expect("a connection");
    churn(&client, 0..WARM_UP).await;
    let before = settled(&broker).await;
    churn(&client, WARM_UP..WARM_UP + TOPICS * factor).await;
    let after = settled(&broker).await;
    println!(
        "before {before:?}\nafter {} topics {after:?}",
        TOPICS * factor
    );

    assert_eq!(after.partitions, before.partitions);
    assert_eq!(after.log_folders, before.log_folders);
    // The groups' log keeps tombstones for a day, in segments of 1 MiB; threads for blocking calls come and go.
    assert!(after.open_files <= before.open_files + 24);
    assert!(after.threads <= before.threads + 8);
    // A kilobyte of each partition would be 1.5 MB in the short form.
    let grown = after.allocated_bytes - before.allocated_bytes;
    assert!(grown < 1_500_000.0, "{grown} bytes more than before");

    drop(client);
    let folder = broker.stop();
    let keys = keys(&folder.path().join("data"));
    println!("keys {keys:?}");
    // A group has its vote and what it has committed.
    assert!(keys[&KeySpace::Vote] <= 2 * LOGS_LEFT);
    assert!(keys[&KeySpace::Checkpoint] <= LOGS_LEFT);
    assert!(keys[&KeySpace::Coordinator] <= GROUP_PARTITIONS);
    assert!(keys[&KeySpace::Metadata] <= 2);
}
