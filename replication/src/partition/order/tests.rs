use tidelog_protocol::batch::{BatchBuilder, NewRecord};
use tidelog_protocol::compression::Compression;
use tidelog_protocol::types::{ProducerEpoch, Sequence};

use super::*;

fn batch(producer: i64, sequence: i32, records: i32) -> RecordBatch {
    let mut builder = BatchBuilder::new(Compression::None);
    if producer >= 0 {
        builder = builder.producer(ProducerId(producer), ProducerEpoch(0), Sequence(sequence));
    }
    for _ in 0..records {
        builder
            .push(NewRecord {
                timestamp: TimestampMs(1),
                key: None,
                value: Some(b"v"),
                headers: &[],
            })
            .expect("a small record");
    }
    builder.build().expect("a small batch")
}

fn leading() -> AppendOrder {
    let mut order = AppendOrder::default();
    order.begin(LeaderEpoch(3), ProducerStateTable::default(), Offset(100));
    order
}

fn placed(order: &mut AppendOrder, batch: &RecordBatch) -> (SubmissionNumber, Offset) {
    match order.place(batch) {
        Placement::Placed {
            number,
            base_offset,
            epoch,
        } => {
            assert_eq!(epoch, LeaderEpoch(3));
            (number, base_offset)
        }
        other => panic!("not placed: {other:?}"),
    }
}

#[test]
fn places_are_dense_from_the_log_end() {
    let mut order = leading();
    assert_eq!(placed(&mut order, &batch(-1, -1, 5)).1, Offset(100));
    assert_eq!(placed(&mut order, &batch(7, 0, 2)).1, Offset(105));
    assert_eq!(placed(&mut order, &batch(-1, -1, 1)).1, Offset(107));
}

#[test]
fn nothing_is_placed_without_leadership() {
    let mut order = AppendOrder::default();
    assert_eq!(order.place(&batch(-1, -1, 1)), Placement::NotLeader);
    let mut order = leading();
    let (number, _) = placed(&mut order, &batch(7, 0, 1));
    order.end();
    assert_eq!(order.place(&batch(7, 1, 1)), Placement::NotLeader);
    assert!(!order.admits(number));
}

#[test]
fn a_pipelined_producer_is_judged_by_what_it_submitted() {
    let mut order = leading();
    placed(&mut order, &batch(7, 0, 3));
    placed(&mut order, &batch(7, 3, 3));
    assert_eq!(
        order.place(&batch(7, 3, 3)),
        Placement::Duplicate {
            base_offset: Offset(103)
        }
    );
    assert!(matches!(
        order.place(&batch(7, 9, 1)),
        Placement::Refused(SequenceError::OutOfOrder { .. })
    ));
    assert_eq!(placed(&mut order, &batch(7, 6, 1)).1, Offset(106));
}

#[test]
fn a_refused_batch_takes_those_behind_it_along() {
    let mut order = leading();
    let (first, _) = placed(&mut order, &batch(7, 0, 2));
    let (second, _) = placed(&mut order, &batch(7, 2, 2));
    let (third, _) = placed(&mut order, &batch(7, 4, 2));
    assert_eq!(
        order.refused(second, ProducerStateTable::default),
        Some(Offset(102))
    );
    assert!(order.admits(first) && !order.admits(second) && !order.admits(third));
    // The third is refused in its turn and moves nothing.
    assert_eq!(order.refused(third, ProducerStateTable::default), None);
    // The producer sends both again, behind what was not refused.
    assert!(matches!(
        order.place(&batch(7, 4, 2)),
        Placement::Refused(_)
    ));
    assert_eq!(
        order.place(&batch(7, 0, 2)),
        Placement::Duplicate {
            base_offset: Offset(100)
        }
    );
    assert_eq!(placed(&mut order, &batch(7, 2, 2)).1, Offset(102));
    assert_eq!(placed(&mut order, &batch(7, 4, 2)).1, Offset(104));
    order.appended(third);
    assert!(!order.is_settled());
}

#[test]
fn a_void_batch_is_not_admitted_when_its_entry_comes() {
    let mut order = leading();
    let (first, _) = placed(&mut order, &batch(7, 0, 2));
    let (second, _) = placed(&mut order, &batch(7, 2, 2));
    order.refused(first, ProducerStateTable::default);
    let (again, offset) = placed(&mut order, &batch(7, 0, 2));
    assert_eq!(offset, Offset(100));
    assert!(!order.admits(second) && order.admits(again));
    order.appended(again);
    assert!(order.is_settled());
}

#[test]
fn a_refusal_keeps_what_the_log_knows() {
    let mut order = leading();
    let (first, base_offset) = placed(&mut order, &batch(7, 0, 2));
    let mut log = ProducerStateTable::default();
    log.record(&batch(7, 0, 2), base_offset);
    order.appended(first);
    let (second, _) = placed(&mut order, &batch(7, 2, 2));
    order.refused(second, || log.clone());
    assert_eq!(
        order.place(&batch(7, 0, 2)),
        Placement::Duplicate {
            base_offset: Offset(100)
        }
    );
    assert_eq!(placed(&mut order, &batch(7, 2, 2)).1, Offset(102));
}
