//! What Fetch, ListOffsets and OffsetForLeaderEpoch answer (rules 13 to 24), over the wire.

use std::time::{Duration, Instant};

use tidelog_protocol::batch::RecordBatch;
use tidelog_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use tidelog_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use tidelog_protocol::messages::{
    FetchRequest, FetchResponse, ListOffsetsRequest, ListOffsetsResponse, MetadataResponse,
    OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse, ProduceResponse,
};

use crate::harness::{
    Client, TestBroker, batch, fetch_of, metadata_of, name_of, produce_of, produced,
};

async fn filled(sets: &[&str], batches: &[&[&str]]) -> (TestBroker, Client) {
    let broker = TestBroker::with(sets).await;
    broker.create_topic("t").await;
    let mut client = broker.connect().await;
    for values in batches {
        let response: ProduceResponse = client.call(9, &produce_of("t", -1, batch(values))).await;
        assert_eq!(produced(&response).0, 0);
    }
    (broker, client)
}

fn base_offsets(response: &FetchResponse) -> Vec<i64> {
    let records = response.responses[0].partitions[0]
        .records
        .clone()
        .unwrap_or_default();
    let batches = RecordBatch::split_all(records).expect("whole batches");
    assert!(batches.iter().all(RecordBatch::checksum_matches));
    batches.iter().map(|batch| batch.base_offset().0).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_version_reads() {
    let (_broker, mut client) = filled(&[], &[&["a", "b"], &["c"]]).await;
    let metadata: MetadataResponse = client.call(10, &metadata_of("t")).await;
    for version in 4..=18 {
        let mut request = fetch_of("t", 0, 0, 1);
        if version >= 13 {
            request.topics[0].topic = Default::default();
            request.topics[0].topic_id = metadata.topics[0].topic_id;
        }
        if version < 12 {
            request.topics[0].partitions[0].last_fetched_epoch = -1;
        }
        let response: FetchResponse = client.call(version, &request).await;
        assert_eq!(base_offsets(&response), [0, 2], "version {version}");
        let partition = &response.responses[0].partitions[0];
        assert_eq!(
            (partition.high_watermark, partition.last_stable_offset),
            (3, 3),
            "rule 17"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_13_and_14_whole_batches() {
    let (_broker, mut client) = filled(&[], &[&["a", "b", "c"], &["d"]]).await;
    let mut request = fetch_of("t", 1, 0, 1);
    request.topics[0].partitions[0].partition_max_bytes = 1;
    request.max_bytes = 1;
    let response: FetchResponse = client.call(11, &request).await;
    assert_eq!(
        base_offsets(&response),
        [0],
        "the batch that holds the offset, whatever its size"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_15_a_fetch_waits_for_its_bytes_or_its_time() {
    let (broker, mut client) = filled(&[], &[&["a"]]).await;
    let begun = Instant::now();
    let response: FetchResponse = client.call(11, &fetch_of("t", 1, 300, 1)).await;
    assert!(base_offsets(&response).is_empty());
    assert!(begun.elapsed() >= Duration::from_millis(290));
    let waiting = client.send(11, &fetch_of("t", 1, 15_000, 100)).await;
    let mut producer = broker.connect().await;
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_millis(30)).await;
        let response: ProduceResponse = producer.call(9, &produce_of("t", -1, batch(&["b"]))).await;
        assert_eq!(produced(&response).0, 0);
    }
    let response: FetchResponse = client.receive::<FetchRequest, _>(11, waiting).await;
    assert_eq!(
        base_offsets(&response),
        [1, 2],
        "one batch alone is less than was asked for"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_16_offsets_outside_the_log() {
    let (_broker, mut client) = filled(&[], &[&["a"]]).await;
    for offset in [2, -1, i64::MAX, i64::MIN] {
        let response: FetchResponse = client.call(11, &fetch_of("t", offset, 5_000, 1)).await;
        assert_eq!(
            response.responses[0].partitions[0].error_code, 1,
            "offset {offset}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_18_sessions() {
    let (_broker, mut client) = filled(&[], &[&["a"]]).await;
    let mut request = fetch_of("t", 1, 0, 1);
    request.session_epoch = 0;
    let opened: FetchResponse = client.call(12, &request).await;
    assert!(opened.session_id > 0);
    assert_eq!(opened.responses.len(), 1);
    let mut next = request
        .clone()
        .with_session_id(opened.session_id)
        .with_session_epoch(1);
    next.topics.clear();
    let quiet: FetchResponse = client.call(12, &next).await;
    assert_eq!((quiet.error_code, quiet.session_id), (0, opened.session_id));
    assert!(quiet.responses.is_empty(), "nothing changed");
    let _: ProduceResponse = client.call(9, &produce_of("t", -1, batch(&["b"]))).await;
    next.session_epoch = 2;
    let news: FetchResponse = client.call(12, &next).await;
    assert_eq!(base_offsets(&news), [1]);
    next.session_epoch = 9;
    let wrong: FetchResponse = client.call(12, &next).await;
    assert_eq!(wrong.error_code, 71);
    next.session_id = opened.session_id.wrapping_add(1).max(1);
    let unknown: FetchResponse = client.call(12, &next).await;
    assert_eq!(unknown.error_code, 70);
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_23_leader_epochs_are_checked() {
    let (_broker, mut client) = filled(&[], &[&["a"]]).await;
    let metadata: MetadataResponse = client.call(10, &metadata_of("t")).await;
    let epoch = metadata.topics[0].partitions[0].leader_epoch;
    assert!(epoch >= 0);
    for (asked, code) in [
        (epoch, 0),
        (-1, 0),
        (epoch - 1, if epoch > 0 { 74 } else { 0 }),
        (epoch + 1, 75),
    ] {
        let mut request = fetch_of("t", 0, 0, 1);
        request.topics[0].partitions[0].current_leader_epoch = asked;
        let response: FetchResponse = client.call(11, &request).await;
        assert_eq!(
            response.responses[0].partitions[0].error_code, code,
            "epoch {asked} of {epoch}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_22_list_offsets() {
    let (_broker, mut client) = filled(&[], &[&["a", "b"], &["c"]]).await;
    for version in 1..=7 {
        for (timestamp, offset) in [(-2, 0), (-1, 3), (i64::MAX, -1)] {
            let partition = ListOffsetsPartition::default()
                .with_partition_index(0)
                .with_current_leader_epoch(-1)
                .with_timestamp(timestamp);
            let topic = ListOffsetsTopic::default()
                .with_name(name_of("t"))
                .with_partitions(vec![partition]);
            let request = ListOffsetsRequest::default()
                .with_replica_id((-1).into())
                .with_topics(vec![topic]);
            let response: ListOffsetsResponse = client.call(version, &request).await;
            let found = &response.topics[0].partitions[0];
            assert_eq!(
                (found.error_code, found.offset),
                (0, offset),
                "version {version} timestamp {timestamp}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_24_epoch_ends() {
    let (_broker, mut client) = filled(&[], &[&["a", "b"]]).await;
    let metadata: MetadataResponse = client.call(10, &metadata_of("t")).await;
    let epoch = metadata.topics[0].partitions[0].leader_epoch;
    let partition = OffsetForLeaderPartition::default()
        .with_partition(0)
        .with_current_leader_epoch(-1)
        .with_leader_epoch(epoch);
    let topic = OffsetForLeaderTopic::default()
        .with_topic(name_of("t"))
        .with_partitions(vec![partition]);
    let request = OffsetForLeaderEpochRequest::default()
        .with_replica_id((-2).into())
        .with_topics(vec![topic]);
    let response: OffsetForLeaderEpochResponse = client.call(3, &request).await;
    let end = &response.topics[0].partitions[0];
    assert_eq!(
        (end.error_code, end.leader_epoch, end.end_offset),
        (0, epoch, 2)
    );
}
