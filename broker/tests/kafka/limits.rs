//! What clients may make a broker hold, over the wire.

use std::time::{Duration, Instant};

use tidelog_protocol::messages::fetch_request::FetchPartition;
use tidelog_protocol::messages::{FetchRequest, FetchResponse, ProduceResponse};
use tokio::time::sleep;

use crate::harness::{
    Client, TestBroker, batch, fetch_of, frame_start, metadata_of, produce_of, produced,
};

const MIB: usize = 1024 * 1024;

/// A broker whose topic "t" is on disk only.
async fn on_disk(directory: &tempfile::TempDir, batches: usize, sets: &[&str]) -> TestBroker {
    let broker = TestBroker::at(directory.path(), &[]).await;
    broker.create_topic("t").await;
    let mut client = broker.connect().await;
    let value = "x".repeat(100_000);
    for _ in 0..batches {
        let response: ProduceResponse =
            client.call(9, &produce_of("t", -1, batch(&[&value]))).await;
        assert_eq!(produced(&response).0, 0);
    }
    drop(client);
    let TestBroker { server, .. } = broker;
    server.shutdown().await;
    // Recent batches are in memory until the next start.
    TestBroker::at(directory.path(), sets).await
}

fn record_bytes(response: &FetchResponse) -> usize {
    let partitions = response
        .responses
        .iter()
        .flat_map(|topic| &topic.partitions);
    partitions
        .map(|partition| {
            partition
                .records
                .as_ref()
                .map_or(0, |records| records.len())
        })
        .sum()
}

async fn receive(client: &mut Client, id: i32) -> FetchResponse {
    client.receive::<FetchRequest, _>(11, id).await
}

#[tokio::test(flavor = "multi_thread")]
async fn large_frames_that_are_only_announced_or_begun_stop_nobody() {
    let broker = TestBroker::with(&["queued.max.request.bytes=134217728"]).await;
    let mut silent = Vec::new();
    for number in 0..6 {
        let mut client = broker.connect().await;
        let start = frame_start(100 * MIB as i32, 0, 9);
        let sent = if number == 5 { start.len() } else { 4 };
        client.send_raw(&start[..sent]).await;
        silent.push(client);
    }
    sleep(Duration::from_millis(200)).await;
    assert!(broker.server.broker().memory.used_bytes() <= 100 * MIB);
    let begun = Instant::now();
    broker.create_topic("t").await;
    let mut quick = broker.connect().await;
    let _: ProduceResponse = quick.call(9, &produce_of("t", -1, batch(&["a"]))).await;
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_fetches_from_disk_hold_no_more_than_the_budget() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let sets = [
        "queued.max.request.bytes=4194304",
        "socket.request.max.bytes=1048576",
    ];
    let broker = on_disk(&directory, 20, &sets).await;
    let mut client = broker.connect().await;
    let mut ids = Vec::new();
    for _ in 0..64 {
        ids.push(client.send(11, &fetch_of("t", 0, 0, 1)).await);
    }
    sleep(Duration::from_millis(500)).await;
    let mut replies = Vec::new();
    for id in ids {
        replies.push(record_bytes(&receive(&mut client, id).await));
    }
    let all: usize = replies.iter().sum();
    assert!(all < 20 * MIB, "{all} bytes were held for one client");
    assert!(replies[0] > 900_000, "the first one got what it asked for");
    sleep(Duration::from_millis(50)).await;
    assert_eq!(broker.server.broker().memory.used_bytes(), 0);
    // One after the other they get all of the log.
    let mut offset = 0;
    while offset < 20 {
        let response: FetchResponse = client.call(11, &fetch_of("t", offset, 1_000, 1)).await;
        offset += (record_bytes(&response) / 100_000) as i64;
    }
    broker.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_no_replies_is_closed() {
    let broker = TestBroker::with(&["connections.max.idle.ms=500"]).await;
    broker.create_topic("t").await;
    let mut client = broker.connect().await;
    let value = "x".repeat(900_000);
    let response: ProduceResponse = client.call(9, &produce_of("t", -1, batch(&[&value]))).await;
    assert_eq!(produced(&response).0, 0);
    for _ in 0..60 {
        client.send(11, &fetch_of("t", 0, 0, 1)).await;
    }
    sleep(Duration::from_millis(2_500)).await;
    let mut frames = 0;
    while client.frame().await.is_some() {
        frames += 1;
    }
    assert!(frames < 60, "all replies were kept for it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_fetch_holds_no_records() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let broker = on_disk(&directory, 10, &[]).await;
    let mut client = broker.connect().await;
    let mut request = fetch_of("t", 0, 20_000, 1_200_000);
    request.topics[0].partitions[0].partition_max_bytes = 8 << 20;
    let id = client.send(11, &request).await;
    sleep(Duration::from_millis(500)).await;
    assert!(broker.server.broker().memory.used_bytes() < 10_000);
    let mut producer = broker.connect().await;
    let value = "x".repeat(100_000);
    for _ in 0..2 {
        let response: ProduceResponse = producer
            .call(9, &produce_of("t", -1, batch(&[&value])))
            .await;
        assert_eq!(produced(&response).0, 0);
    }
    let begun = Instant::now();
    let response = receive(&mut client, id).await;
    assert!(begun.elapsed() < Duration::from_secs(10), "it had enough");
    assert!(record_bytes(&response) >= 1_000_000);
    broker.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_15_what_ends_a_wait() {
    let broker = TestBroker::start().await;
    broker.create_topic("t").await;
    let mut client = broker.connect().await;
    let value = "x".repeat(2_000);
    for _ in 0..3 {
        let response: ProduceResponse =
            client.call(9, &produce_of("t", -1, batch(&[&value]))).await;
        assert_eq!(produced(&response).0, 0);
    }
    let _: tidelog_protocol::messages::MetadataResponse = client.call(10, &metadata_of("t")).await;
    let begun = Instant::now();
    // More than the reply may hold is not waited for, whether by the request or the partition.
    let mut request = fetch_of("t", 0, 15_000, 1_000_000);
    request.max_bytes = 5_000;
    let response: FetchResponse = client.call(11, &request).await;
    assert!(record_bytes(&response) > 4_000);
    let mut request = fetch_of("t", 0, 15_000, 5_000);
    request.topics[0].partitions[0].partition_max_bytes = 5_000;
    let response: FetchResponse = client.call(11, &request).await;
    assert!(record_bytes(&response) > 4_000);
    assert!(begun.elapsed() < Duration::from_secs(5));
    // An unknown partition does not end the wait of the one beside it; an offset out of range does.
    for (index, offset, waits) in [(9, 0, true), (0, 99, false)] {
        let begun = Instant::now();
        let mut request = fetch_of("t", 3, 600, 1);
        let beside = FetchPartition::default()
            .with_partition(index)
            .with_fetch_offset(offset)
            .with_current_leader_epoch(-1)
            .with_last_fetched_epoch(-1)
            .with_partition_max_bytes(1 << 20);
        request.topics[0].partitions.push(beside);
        let response: FetchResponse = client.call(11, &request).await;
        let codes: Vec<i16> = response.responses[0]
            .partitions
            .iter()
            .map(|p| p.error_code)
            .collect();
        assert_eq!(codes, [0, if waits { 3 } else { 1 }]);
        assert_eq!(
            begun.elapsed() > Duration::from_millis(550),
            waits,
            "partition {index}"
        );
    }
}
