//! Old records go by agreement, and stay gone.

use super::*;
use crate::DeleteRecordsError;

async fn fill(partition: &Partition, batches: i32) {
    for _ in 0..batches {
        append(partition, batch(10), Acks::All)
            .await
            .expect("is appended");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_records_stay_deleted() {
    let mut broker = Broker::start().await;
    let topic = broker
        .create_with("delete", 1, &[("segment.bytes", "4096")])
        .await;
    let partition = broker.partition(topic, 0);
    fill(&partition, 20).await;
    let beyond = partition.delete_records(Some(Offset(201))).await;
    assert!(
        matches!(beyond, Err(DeleteRecordsError::OffsetOutOfRange { .. })),
        "{beyond:?}"
    );
    assert_eq!(
        partition.delete_records(Some(Offset(95))).await,
        Ok(Offset(95))
    );
    assert_eq!(
        partition.delete_records(Some(Offset(5))).await,
        Ok(Offset(95)),
        "never back"
    );
    assert_eq!(partition.state().log_start, Offset(95));
    eventually("whole segments are dropped", || {
        partition.log().bounds().purged.index.0 > 1
    })
    .await;
    drop(partition);
    broker.restart().await;
    let partition = broker.partition(topic, 0);
    assert_eq!(partition.state().log_start, Offset(95));
    assert_eq!(
        stored_offsets(&partition).first(),
        Some(&90),
        "the batch that holds it"
    );
    fill(&partition, 1).await;
    assert_eq!(partition.delete_records(None).await, Ok(Offset(210)));
    assert_eq!(stored_offsets(&partition), [0i64; 0]);
    drop(partition);
    broker.restart().await;
    let partition = broker.partition(topic, 0);
    assert_eq!(partition.state().log_start, Offset(210));
    assert_eq!(
        offset(append(&partition, batch(1), Acks::All).await),
        Offset(210)
    );
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expired_segments_are_dropped_and_producers_remembered() {
    let mut broker = Broker::start_with_retention_check(Duration::from_millis(50)).await;
    let topic = broker
        .create_with("retain", 1, &[("segment.bytes", "4096")])
        .await;
    let partition = broker.partition(topic, 0);
    append(&partition, batch_of(3, 0, 5), Acks::All)
        .await
        .expect("is appended");
    fill(&partition, 20).await;
    let resource = crate::ConfigResource::Topic("retain".into());
    broker
        .submit(Command::AlterConfigs {
            resource,
            changes: vec![("retention.ms".into(), Some("0".into()))],
        })
        .await;
    eventually("all has expired", || {
        partition.state().log_start == Offset(205)
    })
    .await;
    eventually("segments are dropped", || {
        partition.log().bounds().purged.index.0 >= 20
    })
    .await;
    drop(partition);
    broker.restart().await;
    let partition = broker.partition(topic, 0);
    assert_eq!(partition.state().log_start, Offset(205));
    assert_eq!(
        offset(append(&partition, batch_of(3, 5, 1), Acks::All).await),
        Offset(205),
        "the sequence goes on"
    );
    broker.stop().await;
}
