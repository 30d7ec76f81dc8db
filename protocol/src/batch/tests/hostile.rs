//! Batches of every codec, mutated with and without a right checksum: header, inflation, record walk, validation.

use rand::RngExt;
use rand::rngs::StdRng;
use tidelog_tests::allocations::measure;
use tidelog_tests::hostile::{cases, mutate};

use super::*;
use crate::batch::validate::{ProduceRules, TimestampType, single_batch, validate_produce};
use crate::compression::tests::CODECS;

/// Most that a section inflates to here.
const INFLATED_MAX: usize = 256 * 1024;

/// What validation may hold: twice the section, for a buffer that grows, again for a recompressed batch, and the
/// codecs' own windows and tables.
const HELD_MAX: usize = 4 * INFLATED_MAX + 512 * 1024;

fn random_bytes(random: &mut StdRng, most: usize) -> Option<Vec<u8>> {
    let len = random.random_range(0..most);
    // Half of it compresses well.
    let fill = random.random::<bool>().then(|| random.random::<u8>());
    let bytes: Vec<u8> = (0..len)
        .map(|_| fill.unwrap_or_else(|| random.random()))
        .collect();
    random.random_bool(0.9).then_some(bytes)
}

fn random_batch(random: &mut StdRng, codec: Compression) -> Vec<u8> {
    let mut builder = BatchBuilder::new(codec);
    if random.random_bool(0.3) {
        builder = builder.producer(ProducerId(4), ProducerEpoch(1), Sequence(9));
    }
    for _ in 0..random.random_range(1..8) {
        let (key, value) = (random_bytes(random, 20), random_bytes(random, 300));
        let header = random_bytes(random, 10);
        let headers = [(&b"name"[..], header.as_deref())];
        let record = NewRecord {
            timestamp: TimestampMs(1_700_000_000_000 + random.random_range(0..5)),
            key: key.as_deref(),
            value: value.as_deref(),
            headers: &headers[..random.random_range(0..2)],
        };
        builder.push(record).unwrap();
    }
    builder.build().unwrap().to_bytes().to_vec()
}

/// Makes length and checksum right again, so that what follows is reached.
fn reseal(batch: &mut [u8]) {
    if batch.len() < HEADER_BYTES {
        return;
    }
    let length = (batch.len() - LENGTH_OVERHEAD_BYTES) as u32;
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    let crc = crc32c::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
}

fn random_rules(random: &mut StdRng) -> ProduceRules {
    ProduceRules {
        api_version: random.random_range(3..14),
        now: TimestampMs(1_700_000_000_000),
        max_message_bytes: 1_048_588,
        is_compacted: random.random_bool(0.3),
        timestamp_type: if random.random_bool(0.3) {
            TimestampType::LogAppendTime
        } else {
            TimestampType::CreateTime
        },
        timestamp_before_max_ms: i64::MAX,
        timestamp_after_max_ms: 3_600_000,
        compression: random
            .random_bool(0.3)
            .then(|| CODECS[random.random_range(0..5)]),
    }
}

/// Validates a batch; one that is accepted is one that everybody can read.
fn validate(bytes: Vec<u8>, rules: &ProduceRules) -> bool {
    let mut scratch = Scratch::new();
    scratch.set_bytes_max(Some(INFLATED_MAX));
    let (valid, held) = measure(|| {
        let batch = single_batch(Some(Bytes::from(bytes)))?;
        validate_produce(batch, rules, &mut scratch)
    });
    assert!(held <= HELD_MAX, "{held} bytes of memory for one batch");
    let Ok(valid) = valid else { return false };
    let mut stored = valid.batch.to_bytes();
    let back = RecordBatch::split_first(&mut stored).unwrap();
    assert_eq!(back, valid.batch);
    assert!(stored.is_empty() && back.checksum_matches());
    let records = back.read_records().unwrap();
    assert_eq!(records.len() as i32, back.record_count());
    assert!(
        records
            .iter()
            .map(|r| r.offset.0)
            .eq(0..records.len() as i64)
    );
    assert_eq!(rebuilt(&back, &records), records);
    true
}

/// The records after they were written into a batch of their own and read back.
fn rebuilt(batch: &RecordBatch, records: &[Record]) -> Vec<Record> {
    let mut builder = BatchBuilder::new(Compression::None);
    for record in records {
        let headers = record.headers.iter();
        let headers: Vec<_> = headers
            .map(|header| (&header.key[..], header.value.as_deref()))
            .collect();
        let record = NewRecord {
            timestamp: record.timestamp,
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            headers: &headers,
        };
        builder.push(record).unwrap();
    }
    let again = builder.build().unwrap();
    assert_eq!(again.record_count(), batch.record_count());
    again.read_records().unwrap()
}

#[test]
fn mutated_batches_are_refused_or_readable() {
    let mut accepted = 0;
    cases("record batches", 1500, |_, random| {
        let batches: Vec<_> = CODECS.map(|codec| random_batch(random, codec)).into();
        for batch in &batches {
            let mut mutant = batch.clone();
            mutate(random, &mut mutant, &batches);
            if random.random_bool(0.8) {
                reseal(&mut mutant);
            }
            let rules = random_rules(random);
            accepted += u64::from(validate(mutant, &rules));
        }
    });
    assert!(accepted > 0, "none was accepted");
}

/// Mutates the records and then compresses them, so that the walk is reached behind every codec.
#[test]
fn mutated_sections_are_refused_or_readable_behind_every_codec() {
    cases("record sections", 1500, |_, random| {
        let plain = random_batch(random, Compression::None);
        let mut section = plain[HEADER_BYTES..].to_vec();
        mutate(random, &mut section, &[]);
        for codec in CODECS {
            let mut batch = plain[..HEADER_BYTES].to_vec();
            batch[22] = batch[22] & !7 | codec as u8;
            codec.compress(&section, &mut batch).unwrap();
            reseal(&mut batch);
            validate(batch, &random_rules(random));
        }
    });
}

#[test]
fn mutated_streams_inflate_to_no_more_than_the_bound() {
    const LIMIT: usize = 64 * 1024;
    cases("compressed streams", 1500, |_, random| {
        let plain = random_bytes(random, 100_000).unwrap_or_default();
        for codec in CODECS {
            let mut stream = Vec::new();
            codec.compress(&plain, &mut stream).unwrap();
            if codec != Compression::None {
                mutate(random, &mut stream, &[]);
            }
            let mut out = Vec::new();
            let (result, held) = measure(|| codec.decompress(&stream, LIMIT, &mut out));
            assert!(result.is_err() || out.len() <= LIMIT, "{codec:?}");
            assert!(held <= 4 * LIMIT + 512 * 1024, "{held} bytes for {codec:?}");
        }
    });
}
