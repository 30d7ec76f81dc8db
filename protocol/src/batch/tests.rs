//! Batches as bytes: a golden one, round trips through the builder, hostile input.

mod hostile;

use proptest::prelude::*;

use super::*;
use crate::types::{ProducerEpoch, ProducerId, Sequence};

/// One record, key "k", value "v", one header "h" = "x"; checksum computed apart from this code.
const GOLDEN: &[u8] = &[
    0, 0, 0, 0, 0, 0, 0, 0, // base offset
    0, 0, 0, 62, // length
    255, 255, 255, 255, // leader epoch
    2,   // magic
    94, 147, 83, 141, // checksum
    0, 0, // attributes
    0, 0, 0, 0, // last offset delta
    0, 0, 1, 139, 207, 229, 104, 0, // base timestamp 1,700,000,000,000
    0, 0, 1, 139, 207, 229, 104, 0, // max timestamp
    255, 255, 255, 255, 255, 255, 255, 255, // producer id
    255, 255, // producer epoch
    255, 255, 255, 255, // base sequence
    0, 0, 0, 1, // count
    24, 0, 0, 0, // record: length 12, attributes, deltas
    2, b'k', 2, b'v', 2, 2, b'h', 2, b'x', // key, value, headers
];

type HeaderParts = Vec<(Vec<u8>, Option<Vec<u8>>)>;
type RecordParts = (i64, Option<Vec<u8>>, Option<Vec<u8>>, HeaderParts);

fn build(codec: Compression, records: &[RecordParts]) -> RecordBatch {
    let mut builder = BatchBuilder::new(codec);
    for (timestamp, key, value, headers) in records {
        let headers: Vec<_> = headers
            .iter()
            .map(|(key, value)| (&key[..], value.as_deref()))
            .collect();
        let record = NewRecord {
            timestamp: TimestampMs(*timestamp),
            key: key.as_deref(),
            value: value.as_deref(),
            headers: &headers,
        };
        builder.push(record).unwrap();
    }
    builder.build().unwrap()
}

#[test]
fn golden_batch_is_built() {
    let headers = vec![(b"h".to_vec(), Some(b"x".to_vec()))];
    let record = (
        1_700_000_000_000,
        Some(b"k".to_vec()),
        Some(b"v".to_vec()),
        headers,
    );
    assert_eq!(build(Compression::None, &[record]).to_bytes(), GOLDEN);
}

#[test]
fn golden_batch_is_read() {
    let mut bytes = Bytes::from_static(GOLDEN);
    let batch = RecordBatch::split_first(&mut bytes).unwrap();
    assert!(bytes.is_empty() && batch.checksum_matches());
    assert_eq!(batch.size_bytes(), GOLDEN.len());
    assert_eq!(batch.compression(), Some(Compression::None));
    assert_eq!((batch.record_count(), batch.last_offset_delta()), (1, 0));
    assert_eq!(batch.leader_epoch(), LeaderEpoch::NONE);
    assert_eq!(batch.producer_id(), ProducerId::NONE);
    assert_eq!(batch.last_sequence(), Sequence::NONE);
    assert_eq!(batch.max_timestamp(), TimestampMs(1_700_000_000_000));
    let records = batch.read_records().unwrap();
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].timestamp, TimestampMs(1_700_000_000_000));
    assert_eq!(records[0].key.as_deref(), Some(&b"k"[..]));
    assert_eq!(records[0].value.as_deref(), Some(&b"v"[..]));
    assert_eq!(&records[0].headers[0].key[..], b"h");
}

#[test]
fn header_fields_of_a_built_batch() {
    let mut builder = BatchBuilder::new(Compression::Zstd)
        .producer(ProducerId(5), ProducerEpoch(6), Sequence(i32::MAX))
        .transactional()
        .control()
        .at(Offset(100), LeaderEpoch(9));
    builder
        .push(NewRecord {
            timestamp: TimestampMs(50),
            ..NewRecord::default()
        })
        .unwrap();
    builder
        .push(NewRecord {
            timestamp: TimestampMs(40),
            ..NewRecord::default()
        })
        .unwrap();
    let batch = builder.build().unwrap();
    assert_eq!(
        (batch.base_offset(), batch.last_offset()),
        (Offset(100), Offset(101))
    );
    assert_eq!(batch.next_offset(), Offset(102));
    assert_eq!(batch.leader_epoch(), LeaderEpoch(9));
    assert_eq!(
        (batch.base_timestamp(), batch.max_timestamp()),
        (TimestampMs(50), TimestampMs(50))
    );
    assert_eq!(
        (batch.producer_id(), batch.producer_epoch()),
        (ProducerId(5), ProducerEpoch(6))
    );
    assert_eq!(
        (batch.base_sequence(), batch.last_sequence()),
        (Sequence(i32::MAX), Sequence(0))
    );
    assert!(batch.is_transactional() && batch.is_control() && !batch.is_log_append_time());
    assert_eq!(batch.attributes(), 0x34);
    assert!(BatchBuilder::new(Compression::None).build().is_err());
}

#[test]
fn parts_fit_together_or_not_at_all() {
    let batch = RecordBatch::split_first(&mut Bytes::from_static(GOLDEN)).unwrap();
    let records = batch.records_bytes().clone();
    assert_eq!(
        RecordBatch::from_parts(*batch.header(), records.clone()),
        Some(batch.clone())
    );
    assert_eq!(
        RecordBatch::from_parts(*batch.header(), records.slice(1..)),
        None
    );
}

#[test]
fn concatenated_batches_are_split() {
    let twice = Bytes::from([GOLDEN, GOLDEN].concat());
    assert_eq!(RecordBatch::split_all(twice.clone()).unwrap().len(), 2);
    assert_eq!(
        RecordBatch::split_all(twice.slice(..GOLDEN.len() + 30))
            .unwrap()
            .len(),
        1
    );
    let need = GOLDEN.len();
    assert_eq!(
        RecordBatch::split_all(twice.slice(..need - 1)),
        Err(BatchError::Cut {
            have: need - 1,
            need
        })
    );
    assert_eq!(RecordBatch::split_all(Bytes::new()), Ok(Vec::new()));
}

fn field() -> impl Strategy<Value = Option<Vec<u8>>> {
    proptest::option::of(proptest::collection::vec(any::<u8>(), 0..200))
}

fn records() -> impl Strategy<Value = Vec<RecordParts>> {
    // Few header keys, so that duplicates are common.
    let header = (proptest::collection::vec(b'a'..b'c', 0..2), field());
    let headers = proptest::collection::vec(header, 0..4);
    proptest::collection::vec((any::<i64>(), field(), field(), headers), 1..20)
}

fn codec() -> impl Strategy<Value = Compression> {
    (0i16..5).prop_map(|id| Compression::from_id(id).unwrap())
}

proptest! {
    #[test]
    fn built_batches_read_back(codec in codec(), records in records()) {
        let batch = build(codec, &records);
        prop_assert!(batch.checksum_matches());
        let parsed = RecordBatch::split_first(&mut batch.to_bytes()).unwrap();
        prop_assert_eq!(&parsed, &batch);
        let read = parsed.read_records().unwrap();
        prop_assert_eq!(read.len(), records.len());
        for ((at, read), (timestamp, key, value, headers)) in (0..).zip(&read).zip(&records) {
            prop_assert_eq!(read.offset, Offset(at));
            prop_assert_eq!(read.timestamp, TimestampMs(*timestamp));
            prop_assert_eq!(read.key.as_deref(), key.as_deref());
            prop_assert_eq!(read.value.as_deref(), value.as_deref());
            let got: HeaderParts = read
                .headers
                .iter()
                .map(|header| (header.key.to_vec(), header.value.as_ref().map(|value| value.to_vec())))
                .collect();
            prop_assert_eq!(&got, headers);
        }
    }

    #[test]
    fn hostile_batches_never_panic(
        codec in codec(),
        records in records(),
        flips in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..5),
        cut in any::<proptest::sample::Index>(),
        is_cut: bool,
    ) {
        let mut raw = build(codec, &records).to_bytes().to_vec();
        for (at, bits) in flips {
            let at = at.index(raw.len());
            raw[at] ^= bits;
        }
        if is_cut {
            raw.truncate(cut.index(raw.len()));
        }
        if let Ok(batch) = RecordBatch::split_first(&mut Bytes::from(raw)) {
            let _ = (batch.last_sequence(), batch.next_offset(), format!("{batch:?}"));
            let _ = batch.checksum_matches();
            let _ = batch.read_records();
        }
    }

    #[test]
    fn hostile_sections_never_panic(section in proptest::collection::vec(any::<u8>(), 0..200), count: i32) {
        let mut walked = 0;
        for record in RecordIter::new(&section, count).flatten() {
            walked += record.headers().count() + 1;
        }
        prop_assert!(walked <= section.len());
    }

    #[test]
    fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..150)) {
        let _ = RecordBatch::split_all(Bytes::from(bytes));
    }
}
