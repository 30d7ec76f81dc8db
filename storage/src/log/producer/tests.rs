use proptest::prelude::*;
use tidelog_protocol::batch::{BatchBuilder, NewRecord, RecordBatch};
use tidelog_protocol::compression::Compression;

use super::*;

fn batch(id: i64, epoch: i16, sequence: i32, records: i32) -> RecordBatch {
    let mut builder = BatchBuilder::new(Compression::None).producer(
        ProducerId(id),
        ProducerEpoch(epoch),
        Sequence(sequence),
    );
    for _ in 0..records {
        let record = NewRecord {
            timestamp: TimestampMs(1000),
            key: None,
            value: Some(b"v"),
            headers: &[],
        };
        builder.push(record).expect("fits");
    }
    builder.build().expect("has records")
}

fn out_of_order(got: i32, last: i32) -> SequenceCheck {
    SequenceCheck::Reject(SequenceError::OutOfOrder {
        got: Sequence(got),
        last: Sequence(last),
    })
}

#[test]
fn rule_4_last_five_batches_are_duplicates_with_their_offsets() {
    let mut table = ProducerStateTable::default();
    for n in 0..7 {
        let next = batch(1, 0, n * 2, 2);
        assert_eq!(table.check(&next), SequenceCheck::Accept);
        table.record(&next, Offset(i64::from(n) * 2 + 100));
    }
    for n in 2..7 {
        let expected = SequenceCheck::Duplicate {
            base_offset: Offset(i64::from(n) * 2 + 100),
            max_timestamp: TimestampMs(1000),
        };
        assert_eq!(table.check(&batch(1, 0, n * 2, 2)), expected);
    }
    assert_eq!(
        table.check(&batch(1, 0, 2, 2)),
        out_of_order(2, 13),
        "older than the last five"
    );
    assert_eq!(
        table.check(&batch(1, 0, 12, 1)),
        out_of_order(12, 13),
        "first equal, last not"
    );
    assert_eq!(
        table.check(&batch(1, 0, 15, 1)),
        out_of_order(15, 13),
        "a gap"
    );
}

#[test]
fn rule_4_sequences_wrap() {
    let mut table = ProducerStateTable::default();
    let last = batch(1, 0, i32::MAX - 1, 3);
    table.record(&last, Offset(0));
    assert_eq!(table.check(&batch(1, 0, 1, 1)), SequenceCheck::Accept);
    let again = SequenceCheck::Duplicate {
        base_offset: Offset(0),
        max_timestamp: TimestampMs(1000),
    };
    assert_eq!(table.check(&last), again);
    assert_eq!(table.check(&batch(1, 0, 0, 1)), out_of_order(0, 0));
}

#[test]
fn rule_5_epochs() {
    let mut table = ProducerStateTable::default();
    assert_eq!(
        table.check(&batch(1, 3, 70, 1)),
        SequenceCheck::Accept,
        "nothing is known"
    );
    table.record(&batch(1, 3, 70, 1), Offset(0));
    let stale = SequenceError::StaleEpoch {
        got: ProducerEpoch(2),
        current: ProducerEpoch(3),
    };
    assert_eq!(
        table.check(&batch(1, 2, 71, 1)),
        SequenceCheck::Reject(stale)
    );
    assert_eq!(
        table.check(&batch(1, 4, 71, 1)),
        out_of_order(71, 70),
        "a new epoch begins at 0"
    );
    assert_eq!(table.check(&batch(1, 4, 0, 1)), SequenceCheck::Accept);
    table.record(&batch(1, 4, 0, 1), Offset(1));
    assert_eq!(table.producers()[0].epoch, ProducerEpoch(4));
    assert_eq!(table.check(&batch(1, 4, 1, 1)), SequenceCheck::Accept);
}

#[test]
fn rule_5_idle_producers_are_forgotten() {
    let mut table = ProducerStateTable::default();
    table.record(&batch(1, 0, 0, 1), Offset(0));
    table.remove_expired(TimestampMs(1999), 1000);
    assert_eq!(table.len(), 1);
    table.remove_expired(TimestampMs(2000), 1000);
    assert!(table.is_empty());
    assert_eq!(table.check(&batch(1, 0, 9, 1)), SequenceCheck::Accept);
}

#[test]
fn batches_without_producer_are_not_tracked() {
    let mut table = ProducerStateTable::default();
    let plain = batch(-1, -1, -1, 1);
    table.record(&plain, Offset(0));
    assert!(table.is_empty());
    assert_eq!(table.check(&plain), SequenceCheck::Accept);
}

#[test]
fn a_layer_begins_with_what_is_below() {
    let mut below = ProducerStateTable::default();
    below.record(&batch(1, 0, 0, 2), Offset(0));
    let mut layer = ProducerStateTable::default();
    layer.record_over(&below, &batch(1, 0, 2, 1), Offset(2));
    assert_eq!(
        layer.check_over(&below, &batch(1, 0, 3, 1)),
        SequenceCheck::Accept
    );
    assert!(matches!(
        layer.check_over(&below, &batch(1, 0, 0, 2)),
        SequenceCheck::Duplicate { .. }
    ));
    layer.remove(ProducerId(1));
    assert_eq!(
        layer.check_over(&below, &batch(1, 0, 2, 1)),
        SequenceCheck::Accept
    );
    assert_eq!(
        below.producers()[0].last_sequence,
        Sequence(1),
        "the layer below is as it was"
    );
}

#[test]
fn snapshot_begins_as_kafkas() {
    let mut table = ProducerStateTable::default();
    table.record(&batch(7, 2, 5, 3), Offset(40));
    let bytes = table.encode();
    let expected = [
        &1i32.to_be_bytes()[..],
        &7i64.to_be_bytes(),
        &2i16.to_be_bytes(),
        &7i32.to_be_bytes(),
        &42i64.to_be_bytes(),
        &2i32.to_be_bytes(),
        &1000i64.to_be_bytes(),
        &(-1i32).to_be_bytes(),
        &(-1i64).to_be_bytes(),
    ]
    .concat();
    assert_eq!(bytes[..2], 1i16.to_be_bytes());
    assert_eq!(bytes[2..6], crc32c::crc32c(&bytes[6..]).to_be_bytes());
    assert_eq!(bytes[6..6 + expected.len()], expected[..]);
}

#[test]
fn older_batches_are_only_those_of_a_producer_with_a_last_one() {
    let mut table = ProducerStateTable::default();
    for sequence in [5, 8, 11] {
        table.record(&batch(7, 2, sequence, 3), Offset(40 + i64::from(sequence)));
    }
    let sealed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = table.encode().to_vec();
        change(&mut bytes);
        let crc = crc32c::crc32c(&bytes[6..]);
        bytes[2..6].copy_from_slice(&crc.to_be_bytes());
        ProducerStateTable::decode(&bytes)
    };
    assert_eq!(sealed(&|_| {}).as_ref(), Some(&table));
    // The last sequence says that there is no batch.
    assert_eq!(sealed(&|bytes| bytes[20..24].fill(0xff)), None);
    // The older ones are named twice.
    let twice = |bytes: &mut Vec<u8>| {
        let older = bytes[10 + 46 + 9..].to_vec();
        bytes.extend(older);
        bytes[10 + 46 + 8] = 2;
    };
    assert_eq!(sealed(&twice), None);
}

proptest! {
    #[test]
    fn snapshot_round_trip(batches in prop::collection::vec((0i64..9, 0i16..3, 0i32..100, 1i32..4), 0..60)) {
        let mut table = ProducerStateTable::default();
        for (at, (id, epoch, sequence, records)) in batches.into_iter().enumerate() {
            table.record(&batch(id, epoch, sequence, records), Offset(at as i64 * 4));
        }
        prop_assert_eq!(ProducerStateTable::decode(&table.encode()), Some(table));
    }

    #[test]
    fn damaged_snapshots_are_refused(at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let mut table = ProducerStateTable::default();
        table.record(&batch(7, 2, 5, 3), Offset(40));
        table.record(&batch(7, 2, 8, 3), Offset(43));
        let mut bytes = table.encode().to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert_eq!(ProducerStateTable::decode(&bytes), None);
    }

    #[test]
    fn hostile_snapshots_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut sealed = vec![0, 1];
        sealed.extend(crc32c::crc32c(&bytes).to_be_bytes());
        sealed.extend(&bytes);
        let _any = ProducerStateTable::decode(&sealed);
    }
}
