//! What Produce answers (rules 1 to 12), over the wire.

use bytes::Bytes;
use tidelog_protocol::StrBytes;
use tidelog_protocol::messages::{
    ApiVersionsRequest, ApiVersionsResponse, FetchResponse, InitProducerIdRequest,
    InitProducerIdResponse, MetadataResponse, ProduceRequest, ProduceResponse,
};

use crate::harness::{TestBroker, batch, fetch_of, metadata_of, produce_of, produced};

#[tokio::test(flavor = "multi_thread")]
async fn every_version_appends() {
    let broker = TestBroker::start().await;
    broker.create_topic("t").await;
    let mut client = broker.connect().await;
    let metadata: MetadataResponse = client.call(10, &metadata_of("t")).await;
    for (version, offset) in (3..=13).zip(0..) {
        let mut request = produce_of("t", -1, batch(&["v"]));
        if version >= 13 {
            request.topic_data[0].name = Default::default();
            request.topic_data[0].topic_id = metadata.topics[0].topic_id;
        }
        let response: ProduceResponse = client.call(version, &request).await;
        assert_eq!(produced(&response), (0, offset), "version {version}");
        let partition = &response.responses[0].partition_responses[0];
        assert_eq!(partition.log_append_time_ms, -1, "rule 10");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_6_acks_0_is_silent_and_an_error_closes() {
    let broker = TestBroker::start().await;
    broker.create_topic("t").await;
    let mut client = broker.connect().await;
    client.send(9, &produce_of("t", 0, batch(&["a"]))).await;
    let next = client.send(0, &ApiVersionsRequest::default()).await;
    let _: ApiVersionsResponse = client.receive::<ApiVersionsRequest, _>(0, next).await;
    client
        .send(9, &produce_of("nowhere", 0, batch(&["a"])))
        .await;
    assert!(client.is_closed().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_6_other_acks_are_refused() {
    let broker = TestBroker::start().await;
    broker.create_topic("t").await;
    let mut client = broker.connect().await;
    for acks in [2, -2, i16::MAX] {
        let response: ProduceResponse = client.call(9, &produce_of("t", acks, batch(&["a"]))).await;
        assert_eq!(produced(&response), (21, -1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_1_2_and_8_bad_batches_are_refused_by_partition() {
    let broker = TestBroker::with(&["message.max.bytes=1000"]).await;
    broker.create_topic("t").await;
    let mut client = broker.connect().await;
    let good = batch(&["a"]);
    let mut torn = good.to_vec();
    *torn.last_mut().expect("bytes") ^= 1;
    let two = Bytes::from([&good[..], &good[..]].concat());
    let cases = [
        (Bytes::from(torn), 2),
        (two, 87),
        (Bytes::new(), 87),
        (good.slice(..30), 87),
        (batch(&[&"x".repeat(2000)]), 10),
    ];
    for (records, code) in cases {
        let response: ProduceResponse = client.call(9, &produce_of("t", -1, records)).await;
        assert_eq!(produced(&response), (code, -1));
        assert!(
            response.responses[0].partition_responses[0]
                .error_message
                .is_some()
        );
    }
    let response: ProduceResponse = client.call(9, &produce_of("t", -1, good)).await;
    assert_eq!(
        produced(&response),
        (0, 0),
        "nothing of the above was appended"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_topics_and_partitions() {
    let broker = TestBroker::start().await;
    broker.create_topic("t").await;
    let mut client = broker.connect().await;
    let response: ProduceResponse = client
        .call(9, &produce_of("nowhere", -1, batch(&["a"])))
        .await;
    assert_eq!(produced(&response), (3, -1));
    let mut request = produce_of("t", -1, batch(&["a"]));
    for index in [1, -1, i32::MAX] {
        request.topic_data[0].partition_data[0].index = index;
        let response: ProduceResponse = client.call(9, &request).await;
        assert_eq!(produced(&response), (3, -1));
    }
    let response: ProduceResponse = client
        .call(13, &ProduceRequest::clone(&produce_by_unknown_id()))
        .await;
    assert_eq!(produced(&response), (100, -1));
}

fn produce_by_unknown_id() -> ProduceRequest {
    let mut request = produce_of("", -1, batch(&["a"]));
    request.topic_data[0].topic_id = uuid::Uuid::new_v4();
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_are_refused_clearly() {
    let broker = TestBroker::start().await;
    broker.create_topic("t").await;
    let mut client = broker.connect().await;
    let id = || Some(StrBytes::from_static_str("tx").into());
    let init = InitProducerIdRequest::default()
        .with_transactional_id(id())
        .with_transaction_timeout_ms(1000);
    let response: InitProducerIdResponse = client.call(4, &init).await;
    assert_eq!((response.error_code, response.producer_id.0), (35, -1));
    let produce = produce_of("t", -1, batch(&["a"])).with_transactional_id(id());
    let response: ProduceResponse = client.call(9, &produce).await;
    assert_eq!(produced(&response), (48, -1));
}

#[tokio::test(flavor = "multi_thread")]
async fn producer_ids_are_unique() {
    let broker = TestBroker::start().await;
    let mut seen = std::collections::HashSet::new();
    for version in 0..=5 {
        let mut client = broker.connect().await;
        for _ in 0..300 {
            let request = InitProducerIdRequest::default().with_transactional_id(None);
            let response: InitProducerIdResponse = client.call(version, &request).await;
            assert_eq!((response.error_code, response.producer_epoch), (0, 0));
            assert!(seen.insert(response.producer_id.0));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_lone_replica_acknowledged_can_be_read_at_once() {
    let broker = TestBroker::start().await;
    broker.create_topic("t").await;
    let (mut producer, mut consumer) = (broker.connect().await, broker.connect().await);
    for acks in [1, -1] {
        for _ in 0..100 {
            let response: ProduceResponse = producer
                .call(9, &produce_of("t", acks, batch(&["a"])))
                .await;
            let (code, offset) = produced(&response);
            assert_eq!(code, 0);
            let response: FetchResponse = consumer.call(11, &fetch_of("t", offset, 0, 1)).await;
            assert_eq!(
                response.responses[0].partitions[0].high_watermark,
                offset + 1,
                "acks={acks}"
            );
        }
    }
}
