//! Loading from log and snapshot.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tidelog_protocol::batch::{BatchBuilder, NewRecord, RecordBatch};
use tidelog_protocol::compression::Compression;
use tidelog_protocol::types::{LeaderEpoch, Offset, TimestampMs};
use tidelog_storage::SyncPoint;
use tidelog_storage::kv::{KeySpace, KeyValueStore, KvWrite, MemoryKv};

use super::fixture::{Fixture, MemoryLog};
use crate::coordinator::group::{GroupError, GroupSettings};

#[tokio::test]
async fn groups_and_offsets_survive_a_restart_by_log_alone() {
    let fixture = Fixture::start().await;
    let client = fixture.client();
    let joined = client.enter("g").await;
    client
        .commit_as("g", Some(&joined.member), joined.generation, "t", 3, 42)
        .await
        .expect("commits");
    client.commit("simple", "t", 0, 1).await.expect("commits");
    client.commit("simple", "t", 0, 2).await.expect("commits");
    let (log, _, settings) = fixture.stop().await;
    let fixture = Fixture::start_on(log, Arc::new(MemoryKv::new().expect("starts")), settings);
    fixture.serving().await;
    let client = fixture.client();
    assert_eq!(client.offset("g", "t", 3).await, Some(42));
    assert_eq!(client.offset("simple", "t", 0).await, Some(2));
    assert_eq!(
        client
            .heartbeat("g", &joined.member, joined.generation)
            .await,
        Ok(())
    );
    fixture.stop().await;
}

#[tokio::test]
async fn snapshot_saves_reading_the_log_and_the_log_goes_on_from_it() {
    let fixture = Fixture::start().await;
    let client = fixture.client();
    for i in 0..50 {
        client
            .commit(&format!("g{i}"), "t", 0, i)
            .await
            .expect("commits");
    }
    let fixture = fixture.restart().await;
    assert_eq!(
        fixture.log.reads.swap(0, Ordering::Relaxed),
        0,
        "stopping left a snapshot"
    );
    let client = fixture.client();
    assert_eq!(client.offset("g49", "t", 0).await, Some(49));
    client.commit("g49", "t", 0, 50).await.expect("commits");
    // The broker dies: no snapshot of this commit.
    let (log, store, settings) = (
        fixture.log.clone(),
        fixture.store.clone(),
        GroupSettings::default(),
    );
    drop(fixture);
    let fixture = Fixture::start_on(log, store, settings);
    fixture.serving().await;
    assert_eq!(fixture.client().offset("g49", "t", 0).await, Some(50));
    assert_eq!(fixture.client().offset("g48", "t", 0).await, Some(48));
    fixture.stop().await;
}

#[tokio::test]
async fn damaged_snapshot_is_left_aside() {
    let fixture = Fixture::start().await;
    for i in 0..20 {
        fixture
            .client()
            .commit(&format!("g{i}"), "t", 0, i)
            .await
            .expect("commits");
    }
    let (log, store, settings) = fixture.stop().await;
    let pairs = store.scan(KeySpace::Coordinator, b"").expect("reads");
    assert_eq!(pairs.len(), 2, "a header and a chunk");
    let cut = pairs[1].1.slice(..pairs[1].1.len() - 3);
    store
        .write_sync(
            vec![KvWrite::Put(KeySpace::Coordinator, pairs[1].0.clone(), cut)],
            SyncPoint::CleanStop,
        )
        .expect("writes");
    let fixture = Fixture::start_on(log, store, settings);
    fixture.serving().await;
    assert_eq!(fixture.list().await, Ok(20));
    fixture.stop().await;
}

#[tokio::test]
async fn snapshot_beyond_the_end_of_the_log_is_left_aside() {
    let fixture = Fixture::start().await;
    fixture
        .client()
        .commit("g", "t", 0, 1)
        .await
        .expect("commits");
    fixture
        .client()
        .commit("h", "t", 0, 1)
        .await
        .expect("commits");
    let (log, store, settings) = fixture.stop().await;
    log.batches.lock().pop();
    let fixture = Fixture::start_on(log, store, settings);
    fixture.serving().await;
    assert_eq!(fixture.list().await, Ok(1));
    fixture.stop().await;
}

fn batch(key: &'static [u8], value: &'static [u8]) -> RecordBatch {
    let mut builder = BatchBuilder::new(Compression::None).at(Offset(0), LeaderEpoch(1));
    let record = NewRecord {
        timestamp: TimestampMs(1),
        key: Some(key),
        value: Some(value),
        headers: &[],
    };
    builder.push(record).expect("short");
    builder.build().expect("builds")
}

async fn load(batch: RecordBatch) -> Result<usize, GroupError> {
    let log = MemoryLog::new();
    log.batches.lock().push(batch);
    let fixture = Fixture::start_on(
        log,
        Arc::new(MemoryKv::new().expect("starts")),
        GroupSettings::default(),
    );
    fixture.serving().await;
    fixture.list().await
}

#[tokio::test]
async fn damaged_logs_are_not_served() {
    let mut damaged = batch(b"\0\x02\0\x01g", b"x").to_bytes().to_vec();
    *damaged.last_mut().expect("not empty") ^= 1;
    let damaged = RecordBatch::split_first(&mut Bytes::from(damaged)).expect("framed");
    assert_eq!(
        load(damaged).await,
        Err(GroupError::CoordinatorNotAvailable),
        "checksum"
    );
    let unreadable = batch(b"\0\x02\0\x01g", b"\0\x03cut");
    assert_eq!(
        load(unreadable).await,
        Err(GroupError::CoordinatorNotAvailable),
        "record"
    );
    let newer = batch(b"\0\x02\0\x01g", b"\0\x63");
    assert_eq!(
        load(newer).await,
        Err(GroupError::CoordinatorNotAvailable),
        "value version"
    );
}

#[tokio::test]
async fn records_of_others_in_the_topic_are_passed_over() {
    assert_eq!(load(batch(b"\0\x63whatever", b"x")).await, Ok(0));
}

#[tokio::test]
async fn offsets_of_topics_that_went_meanwhile_are_dropped_at_load() {
    let fixture = Fixture::start().await;
    fixture
        .client()
        .commit("g", "gone", 0, 1)
        .await
        .expect("commits");
    fixture
        .client()
        .commit("g", "t", 0, 1)
        .await
        .expect("commits");
    let fixture = fixture.restart().await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(fixture.client().offset("g", "gone", 0).await, None);
    assert_eq!(fixture.client().offset("g", "t", 0).await, Some(1));
    fixture.stop().await;
}

#[tokio::test]
async fn shard_of_a_partition_led_elsewhere_ends() {
    let log = MemoryLog::new();
    log.leads.store(false, Ordering::Relaxed);
    let fixture = Fixture::start_on(
        log,
        Arc::new(MemoryKv::new().expect("starts")),
        GroupSettings::default(),
    );
    fixture.serving().await;
    assert_eq!(fixture.list().await, Err(GroupError::NotCoordinator));
    fixture.stop().await;
}
