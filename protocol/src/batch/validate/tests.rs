//! The numbered Produce rules, each tested by its number.

use bytes::Bytes;

use super::*;
use crate::batch::{BatchBuilder, NewRecord};
use crate::compression::tests::CODECS;
use crate::types::{ProducerEpoch, ProducerId, Sequence};

const NOW: TimestampMs = TimestampMs(1_700_000_000_000);

fn rules() -> ProduceRules {
    ProduceRules {
        api_version: 9,
        now: NOW,
        max_message_bytes: 1_048_588,
        is_compacted: false,
        timestamp_type: TimestampType::CreateTime,
        timestamp_before_max_ms: i64::MAX,
        timestamp_after_max_ms: 3_600_000,
        compression: None,
    }
}

fn record(timestamp: i64) -> NewRecord<'static> {
    NewRecord {
        timestamp: TimestampMs(timestamp),
        key: Some(b"k"),
        value: Some(b"value"),
        headers: &[(b"h", Some(b"1")), (b"h", None)],
    }
}

fn builder(codec: Compression, count: i64) -> BatchBuilder {
    let mut builder = BatchBuilder::new(codec);
    for delta in 0..count {
        builder.push(record(NOW.0 + delta)).unwrap();
    }
    builder
}

fn batch(codec: Compression) -> RecordBatch {
    builder(codec, 3).build().unwrap()
}

fn check(batch: RecordBatch, rules: &ProduceRules) -> Result<ValidatedBatch, ProduceRejection> {
    validate_produce(batch, rules, &mut Scratch::new())
}

fn code(batch: RecordBatch, rules: &ProduceRules) -> ErrorCode {
    check(batch, rules).unwrap_err().code
}

/// Changes header bytes and repairs the checksum.
fn patched(batch: &RecordBatch, at: usize, bytes: &[u8]) -> RecordBatch {
    let mut raw = batch.to_bytes().to_vec();
    raw[at..at + bytes.len()].copy_from_slice(bytes);
    let crc = crc32c::crc32c(&raw[21..]);
    raw[17..21].copy_from_slice(&crc.to_be_bytes());
    RecordBatch::split_first(&mut Bytes::from(raw)).unwrap()
}

#[test]
fn good_batches_pass_untouched() {
    for codec in CODECS {
        let batch = batch(codec);
        let valid = check(batch.clone(), &rules()).unwrap();
        assert_eq!(valid.batch, batch);
        assert_eq!(
            valid.batch.records_bytes().as_ptr(),
            batch.records_bytes().as_ptr()
        );
        assert_eq!(valid.max_timestamp, TimestampMs(NOW.0 + 2));
        assert_eq!(valid.max_timestamp_delta, 2);
        assert_eq!(valid.log_append_time, TimestampMs::NONE);
    }
}

#[test]
fn rule_1_exactly_one_v2_batch() {
    let bytes = batch(Compression::None).to_bytes();
    assert!(single_batch(Some(bytes.clone())).is_ok());
    let twice = Bytes::from([&bytes[..], &bytes[..]].concat());
    let code = |bytes: Option<Bytes>| single_batch(bytes).unwrap_err().code;
    assert_eq!(code(Some(twice)), ErrorCode::InvalidRecord);
    assert_eq!(code(None), ErrorCode::InvalidRecord);
    assert_eq!(code(Some(Bytes::new())), ErrorCode::InvalidRecord);
    assert_eq!(
        code(Some(bytes.slice(..bytes.len() - 1))),
        ErrorCode::InvalidRecord
    );
    for (magic, expected) in [
        (0u8, ErrorCode::InvalidRecord),
        (1, ErrorCode::InvalidRecord),
        (3, ErrorCode::CorruptMessage),
    ] {
        let mut raw = bytes.to_vec();
        raw[16] = magic;
        assert_eq!(code(Some(raw.into())), expected);
    }
    let mut raw = bytes.to_vec();
    raw[8..12].copy_from_slice(&48i32.to_be_bytes());
    assert_eq!(code(Some(raw.into())), ErrorCode::CorruptMessage);
}

#[test]
fn rule_1_header_fields() {
    let good = batch(Compression::None);
    for (at, bytes) in [
        (0, &7i64.to_be_bytes()[..]),  // base offset
        (23, &5i32.to_be_bytes()),     // last offset delta
        (23, &(-1i32).to_be_bytes()),  // last offset delta
        (57, &2i32.to_be_bytes()),     // count
        (57, &0i32.to_be_bytes()),     // count
        (57, &i32::MIN.to_be_bytes()), // count
        (21, &0x20i16.to_be_bytes()),  // control
        (43, &9i64.to_be_bytes()),     // producer id without sequence
    ] {
        assert_eq!(
            code(patched(&good, at, bytes), &rules()),
            ErrorCode::InvalidRecord,
            "{at}"
        );
    }
    let idempotent = builder(Compression::None, 1)
        .producer(ProducerId(9), ProducerEpoch(0), Sequence(0))
        .build()
        .unwrap();
    assert!(check(idempotent, &rules()).is_ok());
}

#[test]
fn rule_1_count_must_be_the_records() {
    let three = batch(Compression::None);
    for count in [2i32, 4] {
        let lie = patched(&three, 23, &(count - 1).to_be_bytes());
        let lie = patched(&lie, 57, &count.to_be_bytes());
        assert_eq!(code(lie, &rules()), ErrorCode::InvalidRecord);
    }
}

#[test]
fn rule_2_checksum_covers_attributes_onward() {
    let good = batch(Compression::Lz4);
    let mut stamped = good.clone();
    stamped.stamp(Offset(77), crate::types::LeaderEpoch(5));
    assert!(stamped.checksum_matches());
    assert_eq!(stamped.base_offset(), Offset(77));
    let size = good.size_bytes();
    for at in [21, 30, 61, size - 1] {
        let mut raw = good.to_bytes().to_vec();
        raw[at] ^= 0x80;
        let bad = RecordBatch::split_first(&mut raw.into()).unwrap();
        assert!(!bad.checksum_matches());
        assert_eq!(code(bad, &rules()), ErrorCode::CorruptMessage);
    }
}

#[test]
fn rule_3_records_are_walked() {
    let good = batch(Compression::None);
    // The second record's offset delta: length, attributes, timestamp delta come before it.
    let mut raw = good.to_bytes().to_vec();
    let second = 61 + 1 + usize::from(raw[61] >> 1);
    assert_eq!(raw[second + 3], 2);
    raw[second + 3] = 4;
    let bad = RecordBatch::split_first(&mut raw.into()).unwrap();
    assert_eq!(
        code(patched(&bad, 0, &[]), &rules()),
        ErrorCode::InvalidRecord
    );
    for codec in [
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ] {
        let garbled = patched(&batch(codec), 61, &[0xaa; 8]);
        assert_eq!(
            code(garbled, &rules()),
            ErrorCode::InvalidRecord,
            "{codec:?}"
        );
    }
}

#[test]
fn rule_3_recompresses_only_when_the_topic_asks() {
    for from in CODECS {
        for to in CODECS {
            let rules = ProduceRules {
                compression: Some(to),
                ..rules()
            };
            let sent = batch(from);
            let stored = check(sent.clone(), &rules).unwrap().batch;
            assert_eq!(stored.compression(), Some(to));
            assert!(stored.checksum_matches());
            assert_eq!(stored.read_records().unwrap(), sent.read_records().unwrap());
            assert_eq!(stored == sent, from == to);
        }
    }
}

#[test]
fn rule_8_size_as_sent() {
    let batch = batch(Compression::None);
    let fits = ProduceRules {
        max_message_bytes: batch.size_bytes(),
        ..rules()
    };
    assert!(check(batch.clone(), &fits).is_ok());
    let small = ProduceRules {
        max_message_bytes: batch.size_bytes() - 1,
        ..rules()
    };
    assert_eq!(code(batch, &small), ErrorCode::MessageTooLarge);
}

#[test]
fn rule_9_keyless_records_are_named() {
    for codec in CODECS {
        let mut builder = builder(codec, 2);
        builder
            .push(NewRecord {
                key: None,
                ..record(NOW.0)
            })
            .unwrap();
        let batch = builder.build().unwrap();
        assert!(check(batch.clone(), &rules()).is_ok());
        let compacted = ProduceRules {
            is_compacted: true,
            ..rules()
        };
        let rejection = check(batch, &compacted).unwrap_err();
        assert_eq!(rejection.code, ErrorCode::InvalidRecord);
        assert_eq!(rejection.record_errors.len(), 1);
        assert_eq!(rejection.record_errors[0].index, 2);
    }
}

#[test]
fn rule_10_timestamps() {
    let bounded = ProduceRules {
        timestamp_before_max_ms: 1000,
        timestamp_after_max_ms: 1000,
        ..rules()
    };
    let at = |timestamp: i64| {
        let mut builder = BatchBuilder::new(Compression::None);
        builder.push(record(timestamp)).unwrap();
        builder.build().unwrap()
    };
    for ok in [NOW.0, NOW.0 - 1000, NOW.0 + 1000, -1] {
        assert!(check(at(ok), &bounded).is_ok(), "{ok}");
    }
    for bad in [NOW.0 - 1001, NOW.0 + 1001, i64::MIN, i64::MAX] {
        let rejection = check(at(bad), &bounded).unwrap_err();
        assert_eq!(rejection.code, ErrorCode::InvalidTimestamp);
        assert_eq!(rejection.record_errors[0].index, 0);
    }
    let log_append = ProduceRules {
        timestamp_type: TimestampType::LogAppendTime,
        ..bounded
    };
    let valid = check(at(5), &log_append).unwrap();
    assert_eq!((valid.max_timestamp, valid.log_append_time), (NOW, NOW));
    assert!(valid.batch.is_log_append_time() && valid.batch.checksum_matches());
    assert_eq!(valid.batch.read_records().unwrap()[0].timestamp, NOW);
    assert_eq!(
        code(valid.batch.clone(), &rules()),
        ErrorCode::InvalidTimestamp
    );
    assert_eq!(code(valid.batch, &log_append), ErrorCode::InvalidTimestamp);
}

#[test]
fn rule_10_a_wrong_max_timestamp_is_corrected() {
    let good = batch(Compression::Zstd);
    let lie = patched(&good, 35, &1i64.to_be_bytes());
    let valid = check(lie, &rules()).unwrap();
    assert_eq!(valid.batch, good);
}

#[test]
fn rule_12_codecs() {
    let old = ProduceRules {
        api_version: 6,
        ..rules()
    };
    assert_eq!(
        code(batch(Compression::Zstd), &old),
        ErrorCode::UnsupportedCompressionType
    );
    assert!(check(batch(Compression::Lz4), &old).is_ok());
    for id in 5i16..=7 {
        let unknown = patched(&batch(Compression::None), 21, &id.to_be_bytes());
        assert_eq!(
            code(unknown, &rules()),
            ErrorCode::UnsupportedCompressionType
        );
    }
}

#[test]
fn a_decompression_bomb_stops_at_the_bound() {
    let mut builder = BatchBuilder::new(Compression::Gzip);
    let zeros = vec![0u8; limits::DECOMPRESSED_BYTES_MAX];
    builder
        .push(NewRecord {
            value: Some(&zeros),
            ..record(NOW.0)
        })
        .unwrap();
    let bomb = builder.build().unwrap();
    assert!(bomb.size_bytes() < 1_048_588);
    let mut scratch = Scratch::new();
    let rejection = validate_produce(bomb, &rules(), &mut scratch).unwrap_err();
    assert_eq!(rejection.code, ErrorCode::InvalidRecord);
    assert!(rejection.message.contains("inflates to more than"));
}
