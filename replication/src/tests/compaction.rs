//! A group forgets entries whose records stay and are compacted; everything goes on over restarts.

use std::collections::BTreeSet;

use super::*;

pub fn keyed(producer: i64, sequence: i32, keys: std::ops::Range<u8>) -> RecordBatch {
    let mut builder = BatchBuilder::new(Compression::None).producer(
        ProducerId(producer),
        ProducerEpoch(0),
        Sequence(sequence),
    );
    for key in keys {
        let record = NewRecord {
            timestamp: TimestampMs(1_000),
            key: Some(&[key]),
            value: Some(&[7; 100]),
            headers: &[],
        };
        builder.push(record).expect("a small record");
    }
    builder.build().expect("a small batch")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compacted_entries_are_forgotten_and_their_records_stay() {
    let mut broker = Broker::start().await;
    let configs = [("cleanup.policy", "compact"), ("segment.bytes", "4096")];
    let topic = broker.create_with("compacted", 1, &configs).await;
    let mut partition = broker.partition(topic, 0);
    for round in 0..3 {
        for number in 0..30 {
            let batch = keyed(4, (round * 30 + number) * 5, 0..5);
            append(&partition, batch, Acks::All)
                .await
                .expect("is appended");
        }
        let end = i64::from(round + 1) * 150;
        eventually("most is compacted away", || {
            let bounds = partition.log().bounds();
            bounds.size_bytes < 8_000 && bounds.purged.index.0 > 20
        })
        .await;
        let state = partition.state();
        assert_eq!((state.log_start, state.log_end), (Offset(0), Offset(end)));
        let stored: BTreeSet<i64> = stored_offsets_from(&partition, 0).into_iter().collect();
        assert!(
            stored.contains(&(end - 5)) && stored.len() < 20,
            "{stored:?}"
        );
        drop(partition);
        broker.restart().await;
        partition = broker.partition(topic, 0);
        assert_eq!(partition.state().log_start, Offset(0));
        eventually("the commit index is recovered", || {
            partition.state().high_watermark == Offset(end)
        })
        .await;
        let again: BTreeSet<i64> = stored_offsets_from(&partition, 0).into_iter().collect();
        assert!(again.is_subset(&stored) && again.contains(&(end - 5)));
    }
    assert_eq!(
        partition.delete_records(Some(Offset(449))).await,
        Ok(Offset(449))
    );
    eventually("what was compacted goes as well", || {
        partition.log().bounds().size_bytes < 4_096
    })
    .await;
    drop(partition);
    broker.restart().await;
    let partition = broker.partition(topic, 0);
    assert_eq!(partition.state().log_start, Offset(449));
    let next = append(&partition, keyed(4, 450, 0..1), Acks::All).await;
    assert_eq!(offset(next), Offset(450), "the sequence goes on");
    broker.stop().await;
}

/// Base offsets of all batches from an offset on, over the ends of segments.
pub fn stored_offsets_from(partition: &Partition, from: i64) -> Vec<i64> {
    let end = partition.state().high_watermark;
    let (mut next, mut offsets) = (Offset(from), Vec::new());
    while next < end {
        let data = partition.log().read_blocking(next, end, 1 << 20, true);
        let data = data.expect("reads");
        if data.size_bytes == 0 {
            break;
        }
        let batches = RecordBatch::split_all(data.pieces.concat().into()).expect("batches");
        offsets.extend(batches.iter().map(|batch| batch.base_offset().0));
        next = data.next_offset;
    }
    offsets
}
