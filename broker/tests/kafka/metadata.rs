//! What Metadata, DescribeCluster and DescribeTopicPartitions answer, over the wire; and what a restart keeps.

use tidelog_protocol::messages::describe_topic_partitions_request::TopicRequest;
use tidelog_protocol::messages::metadata_request::MetadataRequestTopic;
use tidelog_protocol::messages::{
    DescribeClusterRequest, DescribeClusterResponse, DescribeTopicPartitionsRequest,
    DescribeTopicPartitionsResponse, FetchResponse, MetadataRequest, MetadataResponse,
    ProduceResponse,
};

use crate::harness::{TestBroker, batch, fetch_of, metadata_of, name_of, produce_of, produced};

#[tokio::test(flavor = "multi_thread")]
async fn every_version_names_the_broker_and_the_topic() {
    let broker = TestBroker::start().await;
    broker.create_topic("t").await;
    let mut client = broker.connect().await;
    let port = i32::from(broker.server.endpoints()[0].port);
    for version in 0..=13 {
        let mut request = metadata_of("t");
        request.allow_auto_topic_creation = true;
        let response: MetadataResponse = client.call(version, &request).await;
        assert_eq!(response.brokers.len(), 1);
        assert_eq!(response.brokers[0].port, port);
        let topic = &response.topics[0];
        assert_eq!(topic.error_code, 0);
        assert_eq!(topic.partitions[0].leader_id, response.brokers[0].node_id);
        assert_eq!(topic.topic_id.is_nil(), version < 10);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_topics_and_none() {
    let broker = TestBroker::start().await;
    broker.create_topic("t").await;
    let mut client = broker.connect().await;
    let count = |response: MetadataResponse| response.topics.len();
    assert_eq!(
        count(
            client
                .call(0, &MetadataRequest::default().with_topics(Some(vec![])))
                .await
        ),
        1
    );
    assert_eq!(
        count(
            client
                .call(1, &MetadataRequest::default().with_topics(Some(vec![])))
                .await
        ),
        0
    );
    assert_eq!(
        count(
            client
                .call(1, &MetadataRequest::default().with_topics(None))
                .await
        ),
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_31_to_33_creation_names_and_ids() {
    let broker = TestBroker::start().await;
    let mut client = broker.connect().await;
    let mut quiet = metadata_of("a.b");
    quiet.allow_auto_topic_creation = false;
    let response: MetadataResponse = client.call(5, &quiet).await;
    assert_eq!(response.topics[0].error_code, 3);
    broker.create_topic("a.b").await;
    for name in ["a_b", "", "..", "x/y", &"n".repeat(250)] {
        let response: MetadataResponse = client.call(5, &metadata_of(name)).await;
        assert_eq!(response.topics[0].error_code, 17, "{name:?}");
    }
    let by_id = MetadataRequestTopic::default()
        .with_name(None)
        .with_topic_id(uuid::Uuid::new_v4());
    let response: MetadataResponse = client
        .call(
            12,
            &MetadataRequest::default().with_topics(Some(vec![by_id])),
        )
        .await;
    assert_eq!(
        (
            response.topics[0].error_code,
            response.topics[0].name.clone()
        ),
        (100, None)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn no_creation_where_the_broker_forbids_it() {
    let broker = TestBroker::with(&["auto.create.topics.enable=false"]).await;
    let mut client = broker.connect().await;
    let response: MetadataResponse = client.call(5, &metadata_of("t")).await;
    assert_eq!(response.topics[0].error_code, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_30_each_listener_has_its_own_address() {
    let broker = TestBroker::with(&[
        "listeners=ONE://127.0.0.1:0,TWO://127.0.0.1:0",
        "listener.security.protocol.map=ONE:PLAINTEXT,TWO:PLAINTEXT",
        "advertised.listeners=ONE://one.example:1111,TWO://two.example:2222",
    ])
    .await;
    let image = broker.server.broker().replication.image();
    let advertised: Vec<_> = image
        .brokers()
        .flat_map(|broker| broker.endpoints.clone())
        .collect();
    let names: Vec<_> = advertised
        .iter()
        .map(|e| (e.listener.as_str(), e.host.as_str(), e.port))
        .collect();
    assert_eq!(
        names,
        [("ONE", "one.example", 1111), ("TWO", "two.example", 2222)]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn describe_cluster() {
    let broker = TestBroker::start().await;
    let mut client = broker.connect().await;
    for version in 0..=2 {
        let mut request =
            DescribeClusterRequest::default().with_include_cluster_authorized_operations(true);
        request.endpoint_type = 1;
        let response: DescribeClusterResponse = client.call(version, &request).await;
        assert_eq!((response.error_code, response.brokers.len()), (0, 1));
        assert_eq!(response.cluster_id.len(), 22);
        assert_eq!(response.controller_id, response.brokers[0].broker_id);
        assert_eq!(response.cluster_authorized_operations, 8096);
    }
    let controllers = DescribeClusterRequest::default().with_endpoint_type(2);
    let response: DescribeClusterResponse = client.call(1, &controllers).await;
    assert_eq!(response.error_code, 114);
}

#[tokio::test(flavor = "multi_thread")]
async fn describe_topic_partitions_in_pages() {
    let broker = TestBroker::with(&["num.partitions=3"]).await;
    for name in ["a", "b"] {
        broker.create_topic(name).await;
    }
    let mut client = broker.connect().await;
    let mut seen = Vec::new();
    let mut request = DescribeTopicPartitionsRequest::default().with_response_partition_limit(2);
    for name in ["b", "a", "missing"] {
        request
            .topics
            .push(TopicRequest::default().with_name(name_of(name)));
    }
    loop {
        let response: DescribeTopicPartitionsResponse = client.call(0, &request).await;
        for topic in &response.topics {
            let name = topic
                .name
                .clone()
                .map_or(String::new(), |name| name.to_string());
            if topic.error_code != 0 {
                seen.push((name, -1));
                continue;
            }
            seen.extend(
                topic
                    .partitions
                    .iter()
                    .map(|partition| (name.clone(), partition.partition_index)),
            );
        }
        let Some(next) = response.next_cursor else {
            break;
        };
        request.cursor = Some(
            tidelog_protocol::messages::describe_topic_partitions_request::Cursor::default()
                .with_topic_name(next.topic_name)
                .with_partition_index(next.partition_index),
        );
    }
    let expected: Vec<(String, i32)> = [
        ("a", 0),
        ("a", 1),
        ("a", 2),
        ("b", 0),
        ("b", 1),
        ("b", 2),
        ("missing", -1),
    ]
    .map(|(name, index)| (name.to_owned(), index))
    .to_vec();
    assert_eq!(seen, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_keeps_topics_records_and_the_cluster() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let broker = TestBroker::at(directory.path(), &[]).await;
    broker.create_topic("t").await;
    let mut client = broker.connect().await;
    let response: ProduceResponse = client.call(9, &produce_of("t", -1, batch(&["a"]))).await;
    assert_eq!(produced(&response), (0, 0));
    let before: MetadataResponse = client.call(10, &metadata_of("t")).await;
    assert!(broker.server.shutdown().await);
    let broker = TestBroker::at(directory.path(), &[]).await;
    let mut client = broker.connect().await;
    let after: MetadataResponse = client.call(10, &metadata_of("t")).await;
    assert_eq!(after.cluster_id, before.cluster_id);
    assert_eq!(after.topics[0].topic_id, before.topics[0].topic_id);
    assert!(
        after.topics[0].partitions[0].leader_epoch > before.topics[0].partitions[0].leader_epoch,
        "rule 23"
    );
    let response: FetchResponse = client.call(11, &fetch_of("t", 0, 0, 1)).await;
    let records = response.responses[0].partitions[0]
        .records
        .clone()
        .unwrap_or_default();
    assert!(!records.is_empty());
}
