//! Batches by partition: when they go, in which order, under which identity.

use std::sync::Arc;
use std::time::Duration;

use tidelog_protocol::compression::Compression;
use tidelog_protocol::types::{
    Offset, PartitionIndex, ProducerEpoch, ProducerId, Sequence, TopicPartition,
};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::Instant;

use super::accumulator::{Accumulator, Identification, Policy};
use super::batch::{Batch, PendingRecord};
use super::{Delivered, ProducerRecord};
use crate::error::Error;

const POLICY: Policy = Policy {
    linger: Duration::from_millis(10),
    batch_bytes: 100,
    delivery_timeout: Duration::from_secs(5),
    is_flushing: false,
};
const KNOWN: Identification = Identification::As(ProducerId(7), ProducerEpoch(1));

type Outcome = oneshot::Receiver<Result<Delivered, Error>>;

fn to(index: i32) -> TopicPartition {
    TopicPartition {
        topic: "t".into(),
        partition: PartitionIndex(index),
    }
}

fn record(size: usize) -> (PendingRecord, Outcome) {
    let room = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
    let (done, outcome) = oneshot::channel();
    let record = ProducerRecord::new("t").value("v");
    (PendingRecord::new(record, size, done, room), outcome)
}

fn filled(sizes: &[usize], now: Instant) -> (Accumulator, Vec<Outcome>) {
    let mut accumulator = Accumulator::default();
    let mut outcomes = Vec::new();
    for size in sizes {
        let (record, outcome) = record(*size);
        accumulator.append(to(0), record, &POLICY, now);
        outcomes.push(outcome);
    }
    (accumulator, outcomes)
}

fn take(accumulator: &mut Accumulator, now: Instant) -> Option<Batch> {
    let mut ready = accumulator.take_ready(&POLICY, KNOWN, now);
    assert!(ready.len() < 2);
    ready.pop().map(|(_, batch)| batch)
}

fn sequence(batch: &Batch) -> i32 {
    batch.identity.map_or(-1, |identity| identity.sequence.0)
}

#[test]
fn a_batch_goes_when_it_lingered_or_is_full_or_somebody_flushes() {
    let now = Instant::now();
    let (mut accumulator, _outcomes) = filled(&[40], now);
    assert!(take(&mut accumulator, now).is_none());
    assert_eq!(
        accumulator.next_moment(&POLICY, KNOWN),
        Some(now + POLICY.linger)
    );
    assert_eq!(
        take(&mut accumulator, now + POLICY.linger).unwrap().count(),
        1
    );

    let (mut full, _outcomes) = filled(&[40, 40, 40], now);
    assert_eq!(take(&mut full, now).unwrap().count(), 2);

    let (mut flushed, _outcomes) = filled(&[40], now);
    let policy = Policy {
        is_flushing: true,
        ..POLICY
    };
    assert_eq!(flushed.take_ready(&policy, KNOWN, now).len(), 1);
}

#[test]
fn one_batch_of_a_partition_is_out_at_a_time_and_sequences_follow_what_is_stored() {
    let now = Instant::now();
    let (mut accumulator, _outcomes) = filled(&[60, 60, 60], now);
    let first = take(&mut accumulator, now).unwrap();
    assert_eq!(sequence(&first), 0);
    assert!(take(&mut accumulator, now + POLICY.linger).is_none());
    assert!(!accumulator.is_empty() && !accumulator.is_unidentified());

    // Sent again: the same place in the order.
    accumulator.put_back(&to(0), first);
    let first = take(&mut accumulator, now).unwrap();
    assert_eq!(sequence(&first), 0);
    accumulator.settle(&to(0), Some(&first));
    let second = take(&mut accumulator, now).unwrap();
    assert_eq!(sequence(&second), 1);

    // Refused for good: its numbers are free again.
    accumulator.settle(&to(0), None);
    let third = take(&mut accumulator, now + POLICY.linger).unwrap();
    assert_eq!(sequence(&third), 1);
    accumulator.settle(&to(0), Some(&third));
    assert!(accumulator.is_empty() && accumulator.is_unidentified());
}

#[test]
fn without_an_identity_only_batches_that_have_theirs_may_go() {
    let now = Instant::now() + POLICY.linger;
    let (mut accumulator, _outcomes) = filled(&[100, 100], now);
    let pending = Identification::Pending;
    assert!(accumulator.take_ready(&POLICY, pending, now).is_empty());
    let first = take(&mut accumulator, now).unwrap();
    accumulator.put_back(&to(0), first);
    let mut again = accumulator.take_ready(&POLICY, pending, now);
    let (_, first) = again.pop().unwrap();
    accumulator.settle(&to(0), Some(&first));
    assert!(accumulator.take_ready(&POLICY, pending, now).is_empty());
    assert!(accumulator.is_unidentified());
    accumulator.restart_sequences();
    assert_eq!(sequence(&take(&mut accumulator, now).unwrap()), 0);
}

#[test]
fn batches_whose_time_is_up_are_taken_out() {
    let now = Instant::now();
    let (mut accumulator, _outcomes) = filled(&[100, 100], now);
    let late = now + POLICY.delivery_timeout;
    let out = take(&mut accumulator, now).unwrap();
    assert!(accumulator.take_expired(&POLICY, late).is_empty());
    accumulator.put_back(&to(0), out);
    assert_eq!(accumulator.take_expired(&POLICY, late).len(), 2);
    assert!(accumulator.is_empty());
}

#[test]
fn a_batch_that_is_too_large_is_halved_and_closed() {
    let now = Instant::now();
    let mut batch = Batch::new(now);
    let mut outcomes = Vec::new();
    for _ in 0..3 {
        let (record, outcome) = record(10);
        batch.push(record);
        outcomes.push(outcome);
    }
    let (first, second) = batch.split().unwrap();
    assert_eq!((first.count(), second.count()), (1, 2));
    assert!(!second.has_room_for(&record(1).0, 1000));
    assert_eq!(first.split().unwrap_err().count(), 1);
}

#[test]
fn every_record_learns_its_own_outcome() {
    let now = Instant::now();
    let (mut accumulator, mut outcomes) = filled(&[10, 10], now);
    let mut batch = take(&mut accumulator, now + POLICY.linger).unwrap();
    let encoded = batch.encoded(Compression::Zstd).unwrap();
    assert_eq!(encoded.producer_id(), ProducerId(7));
    assert_eq!(encoded.base_sequence(), Sequence(0));
    assert_eq!(encoded.record_count(), 2);
    assert!(encoded.checksum_matches());
    batch.deliver(&to(0), Some(Offset(40)));
    let delivered = |offset| {
        Ok(Delivered {
            partition: to(0),
            offset: Some(Offset(offset)),
        })
    };
    assert_eq!(outcomes.remove(0).try_recv(), Ok(delivered(40)));
    assert_eq!(outcomes.remove(0).try_recv(), Ok(delivered(41)));

    let (mut accumulator, mut outcomes) = filled(&[10, 10], now);
    let batch = take(&mut accumulator, now + POLICY.linger).unwrap();
    let own = Error::Invalid("own".to_owned());
    batch.fail(&Error::Closed, &[(1, own.clone())]);
    assert_eq!(outcomes.remove(0).try_recv(), Ok(Err(Error::Closed)));
    assert_eq!(outcomes.remove(0).try_recv(), Ok(Err(own)));
}
