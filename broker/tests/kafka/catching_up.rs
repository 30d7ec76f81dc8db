//! Readers of what is no longer in memory: all bytes arrive as they were written, whatever goes on beside them.

use std::time::Duration;

use tidelog_protocol::batch::RecordBatch;
use tidelog_protocol::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsTopic,
};
use tidelog_protocol::messages::*;
use tokio::io::AsyncReadExt;
use tokio::time::sleep;

use crate::harness::{
    Client, TestBroker, batch, fetch_of, frame_of, name_of, produce_of, produced,
};

const OFFSET_OUT_OF_RANGE: i16 = 1;

/// About eight batches fill a segment, and none stays in memory.
const SMALL: [&str; 2] = ["log.cache.bytes=0", "log.segment.bytes=1048576"];

/// The value of the record with an offset.
fn value(offset: i64) -> String {
    format!("{offset:010}").repeat(12_000)
}

async fn append(client: &mut Client, offsets: std::ops::Range<i64>) {
    for offset in offsets {
        let request = produce_of("t", -1, batch(&[&value(offset)]));
        let response: ProduceResponse = client.call(9, &request).await;
        assert_eq!(produced(&response), (0, offset));
    }
}

async fn filled(batches: i64) -> TestBroker {
    let broker = TestBroker::with(&SMALL).await;
    broker.create_topic("t").await;
    append(&mut broker.connect().await, 0..batches).await;
    broker
}

/// Checks that a reply holds the records from `from` on, and yields the offset behind them.
fn next_offset(response: &FetchResponse, from: i64) -> i64 {
    let partition = &response.responses[0].partitions[0];
    assert_eq!(partition.error_code, 0);
    let records = partition.records.clone().unwrap_or_default();
    let mut next = from;
    for batch in RecordBatch::split_all(records).expect("whole batches") {
        assert!(batch.checksum_matches());
        for record in batch.read_records().expect("readable") {
            assert_eq!(record.offset.0, next);
            assert!(record.value.expect("has a value") == value(next));
            next += 1;
        }
    }
    next
}

async fn read_to(client: &mut Client, mut from: i64, end: i64) {
    while from < end {
        let response: FetchResponse = client.call(11, &fetch_of("t", from, 5_000, 1)).await;
        from = next_offset(&response, from);
    }
}

async fn delete_before(broker: &TestBroker, offset: i64) {
    let partition = DeleteRecordsPartition::default()
        .with_partition_index(0)
        .with_offset(offset);
    let topic = DeleteRecordsTopic::default()
        .with_name(name_of("t"))
        .with_partitions(vec![partition]);
    let request = DeleteRecordsRequest::default()
        .with_timeout_ms(10_000)
        .with_topics(vec![topic]);
    let response: DeleteRecordsResponse = broker.connect().await.call(2, &request).await;
    assert_eq!(response.topics[0].partitions[0].error_code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_pass_segments_and_reach_the_end_while_it_moves() {
    let broker = filled(30).await;
    let mut writer = broker.connect().await;
    let mut readers = Vec::new();
    for from in [0, 0, 7] {
        let mut client = broker.connect().await;
        readers.push(tokio::spawn(async move {
            read_to(&mut client, from, 60).await;
        }));
    }
    append(&mut writer, 30..60).await;
    for reader in readers {
        reader.await.expect("read all");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_reply_can_hold_many_segments_of_many_requests() {
    let broker = filled(40).await;
    let mut client = broker.connect().await;
    let mut request = fetch_of("t", 0, 0, 1);
    request.topics[0].partitions[0].partition_max_bytes = 50 << 20;
    let mut ids = Vec::new();
    for _ in 0..8 {
        ids.push(client.send(11, &request).await);
    }
    for id in ids {
        let response = client.receive::<FetchRequest, FetchResponse>(11, id).await;
        assert!(next_offset(&response, 0) >= 8, "to the end of the segment");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_slow_reader_was_promised_outlives_its_deletion() {
    let broker = filled(30).await;
    let mut slow = broker.connect().await;
    let mut ids = Vec::new();
    // More than the sockets take.
    for _ in 0..30 {
        ids.push(slow.send(11, &fetch_of("t", 0, 0, 1)).await);
    }
    sleep(Duration::from_millis(300)).await;
    delete_before(&broker, 25).await;
    let mut codes = Vec::new();
    for id in ids {
        let response = slow.receive::<FetchRequest, FetchResponse>(11, id).await;
        let code = response.responses[0].partitions[0].error_code;
        if code == 0 {
            assert!(next_offset(&response, 0) > 0);
        }
        codes.push(code);
    }
    assert_eq!(codes[0], 0);
    assert!([0, OFFSET_OUT_OF_RANGE].contains(&codes[29]), "{codes:?}");
    let response: FetchResponse = slow.call(11, &fetch_of("t", 0, 0, 1)).await;
    let code = response.responses[0].partitions[0].error_code;
    assert_eq!(code, OFFSET_OUT_OF_RANGE);
    read_to(&mut slow, 25, 30).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_that_hang_up_midway_cost_the_others_nothing() {
    let broker = filled(20).await;
    let mut patient = broker.connect().await;
    for round in 0..10 {
        let mut client = broker.connect().await;
        for id in 0..20 {
            client
                .send_raw(&frame_of(11, id, &fetch_of("t", 0, 0, 1)))
                .await;
        }
        let mut some = vec![0; 100_000 * round + 1];
        client
            .socket
            .read_exact(&mut some)
            .await
            .expect("some bytes");
        drop(client);
        read_to(&mut patient, 0, 20).await;
    }
    for _ in 0..100 {
        if broker.server.broker().memory.used_bytes() == 0 {
            return;
        }
        sleep(Duration::from_millis(20)).await;
    }
    panic!("the memory of their replies was not given back");
}
