//! Frames, order, versions, bounds: what a connection does whatever the API.

use std::time::{Duration, Instant};

use tidelog_protocol::api::{self, ApiKey};
use tidelog_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use tidelog_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic;
use tidelog_protocol::messages::{
    ApiVersionsRequest, ApiVersionsResponse, FetchRequest, FetchResponse, FindCoordinatorRequest,
    FindCoordinatorResponse, MetadataRequest, MetadataResponse, OffsetCommitRequest,
    OffsetCommitResponse, OffsetFetchRequest, OffsetFetchResponse, ProduceRequest, ProduceResponse,
};
use tidelog_protocol::{Decodable, StrBytes};
use tokio::io::AsyncWriteExt;

use crate::harness::{
    TestBroker, batch, fetch_of, frame_of, frame_start, http_get, metadata_of, metrics, name_of,
    produce_of, produced,
};

fn api_versions() -> ApiVersionsRequest {
    ApiVersionsRequest::default()
        .with_client_software_name(StrBytes::from_static_str("raw-frames"))
        .with_client_software_version(StrBytes::from_static_str("1.0"))
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_26_replies_leave_in_order_and_a_parked_fetch_does_not_stop_a_produce() {
    let broker = TestBroker::start().await;
    broker.create_topic("t").await;
    let mut client = broker.connect().await;
    let begun = Instant::now();
    let fetch = client.send(11, &fetch_of("t", 0, 15_000, 1)).await;
    let produce = client.send(9, &produce_of("t", -1, batch(&["a"]))).await;
    let versions = client.send(3, &api_versions()).await;
    let fetched: FetchResponse = client.receive::<FetchRequest, _>(11, fetch).await;
    let acknowledged: ProduceResponse = client.receive::<ProduceRequest, _>(9, produce).await;
    let _: ApiVersionsResponse = client.receive::<ApiVersionsRequest, _>(3, versions).await;
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "the produce woke the fetch before it"
    );
    assert_eq!(produced(&acknowledged), (0, 0));
    let partition = &fetched.responses[0].partitions[0];
    assert_eq!((partition.error_code, partition.high_watermark), (0, 1));
    assert!(!partition.records.as_ref().expect("records").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_produces_are_appended_in_order() {
    let broker = TestBroker::start().await;
    broker.create_topic("t").await;
    let mut client = broker.connect().await;
    let mut ids = Vec::new();
    for number in 0..300 {
        ids.push(
            client
                .send(9, &produce_of("t", -1, batch(&[&format!("v{number}")])))
                .await,
        );
    }
    for (id, offset) in ids.into_iter().zip(0..) {
        let response: ProduceResponse = client.receive::<ProduceRequest, _>(9, id).await;
        assert_eq!(produced(&response), (0, offset));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_oversized_frame_ends_the_connection_after_the_replies_that_were_due() {
    let broker = TestBroker::with(&["socket.request.max.bytes=100000"]).await;
    for size in [100_001, i32::MAX, -1, i32::MIN, 0, 7] {
        let mut client = broker.connect().await;
        let id = client.send(3, &api_versions()).await;
        client.send_raw(&frame_start(size, 3, 9)).await;
        let _: ApiVersionsResponse = client.receive::<ApiVersionsRequest, _>(3, id).await;
        assert!(client.is_closed().await, "size {size}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_sender_is_served_and_holds_up_nobody() {
    let broker = TestBroker::start().await;
    broker.create_topic("t").await;
    let mut slow = broker.connect().await;
    let frame = frame_of(9, 1, &produce_of("t", -1, batch(&["slow"])));
    for (number, byte) in frame.iter().enumerate() {
        slow.send_raw(&[*byte]).await;
        if number % 10 == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
            let mut quick = broker.connect().await;
            let _: MetadataResponse = quick.call(5, &metadata_of("t")).await;
        }
    }
    let response: ProduceResponse = slow.receive::<ProduceRequest, _>(9, 1).await;
    assert_eq!(produced(&response), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn negotiation_rule_2_a_newer_api_versions_is_answered_with_the_range() {
    let broker = TestBroker::start().await;
    let mut client = broker.connect().await;
    client.send_raw(&frame_start(20, 18, 99)).await;
    // A body that no version has.
    client.send_raw(&[0xff; 10]).await;
    let mut reply = client.frame().await.expect("a reply");
    let id = tidelog_protocol::frame::read_response_header(&mut reply, ApiKey::ApiVersions, 0)
        .expect("header");
    let body = ApiVersionsResponse::decode(&mut reply, 0).expect("body of version 0");
    assert_eq!((id, body.error_code), (77, 35));
    let ranges: Vec<_> = body
        .api_keys
        .iter()
        .map(|range| (range.api_key, range.min_version))
        .collect();
    assert_eq!(ranges, [(18, 0)]);
    let response: ApiVersionsResponse = client.call(3, &api_versions()).await;
    assert_eq!(response.error_code, 0, "the connection goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn negotiation_rule_3_other_unknown_keys_and_versions_close() {
    let broker = TestBroker::start().await;
    for (key, version) in [
        (0, 2),
        (0, 99),
        (3, -1),
        (3, 99),
        (4, 0),
        (9999, 0),
        (-1, 0),
    ] {
        let mut client = broker.connect().await;
        client.send_raw(&frame_start(10, key, version)).await;
        assert!(client.is_closed().await, "key {key} version {version}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn negotiation_rule_7_software_names_are_checked() {
    let broker = TestBroker::start().await;
    let mut client = broker.connect().await;
    for (name, version, code) in [
        ("librdkafka", "2.15.0", 0),
        ("a b", "1", 42),
        ("x", "-1", 42),
        ("", "", 42),
    ] {
        let request = ApiVersionsRequest::default()
            .with_client_software_name(StrBytes::from_string(name.to_owned()))
            .with_client_software_version(StrBytes::from_string(version.to_owned()));
        let response: ApiVersionsResponse = client.call(3, &request).await;
        assert_eq!(response.error_code, code, "{name} {version}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_advertised_is_served_and_produce_begins_at_0() {
    let broker = TestBroker::start().await;
    let mut client = broker.connect().await;
    let response: ApiVersionsResponse = client.call(4, &api_versions()).await;
    for range in &response.api_keys {
        let served = api::served(range.api_key).expect("served");
        assert_eq!(
            (range.min_version, range.max_version),
            (served.advertised_min, served.max)
        );
    }
    let produce = response
        .api_keys
        .iter()
        .find(|range| range.api_key == 0)
        .expect("Produce");
    assert_eq!(produce.min_version, 0);
    let features = response.finalized_features.iter();
    let features: Vec<_> = features
        .map(|feature| (feature.name.as_str(), feature.max_version_level))
        .collect();
    assert_eq!(
        features,
        [("tidelog.metadata", 3)],
        "nothing is built that a feature of Kafka's would switch on, and a new cluster is at the highest level"
    );
    let known = &response.supported_features[0];
    assert_eq!((known.min_version, known.max_version), (1, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_bodies_of_every_api_close_and_cost_nothing() {
    let broker = TestBroker::start().await;
    for range in api::SERVED {
        for version in range.min..=range.max {
            for fill in [0xffu8, 0x7f, 0x80] {
                let mut client = broker.connect().await;
                let mut frame = frame_start(10 + 40, range.key as i16, version);
                frame.extend(vec![fill; 40]);
                client.send_raw(&frame).await;
                // Some of these are messages; none may do harm.
                let _ = client.socket.shutdown().await;
                while client.frame().await.is_some() {}
            }
        }
    }
    assert_eq!(http_get(&broker, "/health/ready").await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_of_many_connections_share_a_small_budget() {
    let broker = TestBroker::with(&[
        "queued.max.request.bytes=200000",
        "socket.request.max.bytes=150000",
    ])
    .await;
    broker.create_topic("t").await;
    let value = "x".repeat(100_000);
    let mut tasks = Vec::new();
    for _ in 0..16 {
        let mut client = broker.connect().await;
        let records = batch(&[&value]);
        tasks.push(tokio::spawn(async move {
            for _ in 0..4 {
                let response: ProduceResponse =
                    client.call(9, &produce_of("t", -1, records.clone())).await;
                assert_eq!(produced(&response).0, 0);
            }
        }));
    }
    for task in tasks {
        task.await.expect("client");
    }
    // A reply is with its client a moment before its memory is given back.
    let begun = Instant::now();
    while broker.server.broker().memory.used_bytes() > 0 {
        assert!(begun.elapsed() < Duration::from_secs(10), "memory stays");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_are_closed_and_waiting_ones_are_not() {
    let broker = TestBroker::with(&["connections.max.idle.ms=300"]).await;
    broker.create_topic("t").await;
    let mut waiting = broker.connect().await;
    let begun = Instant::now();
    let mut idle = broker.connect().await;
    let response: FetchResponse = waiting.call(11, &fetch_of("t", 0, 1_000, 1)).await;
    assert_eq!(response.error_code, 0);
    assert!(begun.elapsed() >= Duration::from_millis(900));
    assert!(idle.is_closed().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_bounded_by_address() {
    let broker = TestBroker::with(&["max.connections.per.ip=2"]).await;
    let (mut first, mut second) = (broker.connect().await, broker.connect().await);
    let _: ApiVersionsResponse = first.call(3, &api_versions()).await;
    let _: ApiVersionsResponse = second.call(3, &api_versions()).await;
    let mut third = broker.connect().await;
    assert!(third.is_closed().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_answers_parked_fetches_and_takes_nothing_new() {
    let broker = TestBroker::start().await;
    broker.create_topic("t").await;
    let mut client = broker.connect().await;
    let id = client.send(11, &fetch_of("t", 0, 60_000, 1)).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let begun = Instant::now();
    let TestBroker {
        server,
        directory: _directory,
    } = broker;
    assert!(server.shutdown().await, "everything was answered");
    assert!(begun.elapsed() < Duration::from_secs(5));
    let response: FetchResponse = client.receive::<FetchRequest, _>(11, id).await;
    assert_eq!(response.error_code, 0);
    assert!(client.is_closed().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_metrics() {
    let broker = TestBroker::start().await;
    let mut client = broker.connect().await;
    let _: MetadataResponse = client
        .call(1, &MetadataRequest::default().with_topics(None))
        .await;
    assert_eq!(
        http_get(&broker, "/health/live").await,
        (200, "live\n".to_owned())
    );
    assert_eq!(
        http_get(&broker, "/health/ready").await,
        (200, "ready\n".to_owned())
    );
    assert_eq!(http_get(&broker, "/nothing").await.0, 404);
    let metrics = metrics(&broker).await;
    assert!(metrics["tidelog_kafka_requests_total{api=\"Metadata\"}"] >= 1.0);
    // The brokers of all tests of this process set the same gauge.
    assert!(metrics.contains_key("tidelog_kafka_connections"));
    assert!(
        metrics["tidelog_memory_resident_bytes"] > 0.0
            || metrics["tidelog_request_memory_total_bytes"] > 0.0
    );
}

/// Commits without a group generation, as clients that assign partitions themselves do.
fn commit_of(group: &str, topic: &str, offset: i64) -> OffsetCommitRequest {
    let partition = OffsetCommitRequestPartition::default()
        .with_partition_index(0)
        .with_committed_offset(offset);
    let topic = OffsetCommitRequestTopic::default()
        .with_name(name_of(topic))
        .with_partitions(vec![partition]);
    OffsetCommitRequest::default()
        .with_group_id(StrBytes::from_string(group.to_owned()).into())
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![topic])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_is_seen_by_the_read_behind_it() {
    let broker = TestBroker::with(&["offsets.topic.num.partitions=1"]).await;
    broker.create_topic("t").await;
    let mut client = broker.connect().await;
    let group = || StrBytes::from_static_str("g").into();
    for _ in 0..200 {
        let find = FindCoordinatorRequest::default().with_key(StrBytes::from_static_str("g"));
        let found: FindCoordinatorResponse = client.call(1, &find).await;
        let committed: OffsetCommitResponse = client.call(3, &commit_of("g", "t", 0)).await;
        if found.error_code == 0 && committed.topics[0].partitions[0].error_code == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let topic = OffsetFetchRequestTopic::default()
        .with_name(name_of("t"))
        .with_partition_indexes(vec![0]);
    let read = OffsetFetchRequest::default()
        .with_group_id(group())
        .with_topics(Some(vec![topic]));
    for offset in 1..50 {
        let commit = client.send(3, &commit_of("g", "t", offset)).await;
        let fetch = client.send(3, &read).await;
        let committed: OffsetCommitResponse =
            client.receive::<OffsetCommitRequest, _>(3, commit).await;
        assert_eq!(committed.topics[0].partitions[0].error_code, 0);
        let fetched: OffsetFetchResponse = client.receive::<OffsetFetchRequest, _>(3, fetch).await;
        assert_eq!(fetched.topics[0].partitions[0].committed_offset, offset);
    }
}
