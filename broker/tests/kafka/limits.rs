//! What clients may make a broker hold, over the wire.

use std::time::{Duration, Instant};

use tidelog_protocol::StrBytes;
use tidelog_protocol::messages::describe_configs_request::DescribeConfigsResource;
use tidelog_protocol::messages::fetch_request::FetchPartition;
use tidelog_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use tidelog_protocol::messages::*;
use tokio::time::sleep;

use crate::harness::{
    Client, TestBroker, batch, fetch_of, frame_start, metadata_of, name_of, produce_of, produced,
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
    let broker = TestBroker::with(&["num.partitions=2"]).await;
    broker.create_topic("t").await;
    let mut client = broker.connect().await;
    let value = "x".repeat(2_000);
    for _ in 0..3 {
        let response: ProduceResponse =
            client.call(9, &produce_of("t", -1, batch(&[&value]))).await;
        assert_eq!(produced(&response).0, 0);
    }
    let _: MetadataResponse = client.call(10, &metadata_of("t")).await;
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
    for (index, offset, waits) in [(9, 0, true), (1, 99, false)] {
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

#[tokio::test(flavor = "multi_thread")]
async fn names_that_repeat_are_answered_once() {
    const TIMES: usize = 500;
    let broker = TestBroker::with(&["offsets.topic.num.partitions=1"]).await;
    broker.create_topic("t").await;
    let mut client = broker.connect().await;
    let topic = metadata_of("t").topics.expect("one").remove(0);
    let request = MetadataRequest::default().with_topics(Some(vec![topic; TIMES]));
    let metadata: MetadataResponse = client.call(5, &request).await;
    assert_eq!(metadata.topics.len(), 1);
    let resource = DescribeConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(StrBytes::from_static_str("t"))
        .with_configuration_keys(None);
    let request = DescribeConfigsRequest::default().with_resources(vec![resource; TIMES]);
    let configs: DescribeConfigsResponse = client.call(4, &request).await;
    assert_eq!(
        (configs.results.len(), configs.results[0].error_code),
        (1, 0)
    );
    let request = ListConfigResourcesRequest::default().with_resource_types(vec![2; TIMES]);
    let listed: ListConfigResourcesResponse = client.call(1, &request).await;
    let named = listed.config_resources.iter();
    assert_eq!(
        named
            .filter(|one| one.resource_name.as_str() == "t")
            .count(),
        1
    );
    let topic = describe_producers_request::TopicRequest::default()
        .with_name(name_of("t"))
        .with_partition_indexes(vec![0; TIMES]);
    let request = DescribeProducersRequest::default().with_topics(vec![topic]);
    let producers: DescribeProducersResponse = client.call(0, &request).await;
    assert_eq!(producers.topics[0].partitions.len(), 1);
    let group = GroupId(StrBytes::from_static_str("g"));
    let request = DescribeGroupsRequest::default().with_groups(vec![group.clone(); TIMES]);
    let groups: DescribeGroupsResponse = client.call(5, &request).await;
    assert_eq!(groups.groups.len(), 1);
    let group = OffsetFetchRequestGroup::default()
        .with_group_id(group)
        .with_topics(None);
    let request = OffsetFetchRequest::default().with_groups(vec![group; TIMES]);
    let offsets: OffsetFetchResponse = client.call(8, &request).await;
    assert_eq!(offsets.groups.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn decoded_arrays_and_long_answers_count_against_the_budget() {
    let broker = TestBroker::with(&[
        "queued.max.request.bytes=8000000",
        "socket.request.max.bytes=2000000",
    ])
    .await;
    broker.create_topic("t").await;
    let memory = &broker.server.broker().memory;
    let mut client = broker.connect().await;
    let mut request = fetch_of("t", 0, 700, 1);
    let unknown = request.topics[0].partitions[0].clone().with_partition(9);
    request.topics[0].partitions.extend(vec![unknown; 10_000]);
    let id = client.send(11, &request).await;
    sleep(Duration::from_millis(300)).await;
    assert!(memory.used_bytes() > 10_000 * 128);
    receive(&mut client, id).await;
    sleep(Duration::from_millis(50)).await;
    assert_eq!(memory.used_bytes(), 0);
    // Every setting of the broker is a long answer. It waits for its memory.
    let resource = DescribeConfigsResource::default()
        .with_resource_type(4)
        .with_resource_name(StrBytes::from_static_str("1"))
        .with_configuration_keys(None);
    let request = DescribeConfigsRequest::default()
        .with_resources(vec![resource])
        .with_include_documentation(true);
    let held = memory.reserve(memory.total_bytes() - 2_000).await;
    let id = client.send(4, &request).await;
    let mut byte = [0u8; 1];
    let waiting = tokio::time::timeout(Duration::from_millis(300), client.socket.peek(&mut byte));
    assert!(waiting.await.is_err(), "it was answered without memory");
    drop(held);
    let response: DescribeConfigsResponse =
        client.receive::<DescribeConfigsRequest, _>(4, id).await;
    assert_eq!(response.results[0].error_code, 0);
}
