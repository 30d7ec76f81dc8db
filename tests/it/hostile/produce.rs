//! Hostile record batches inside valid Produce requests: each is answered, and what is accepted is readable.

use std::collections::HashSet;
use std::thread;

use bytes::Bytes;
use rand::RngExt;
use rand::rngs::StdRng;
use tidelog_protocol::api::ApiKey;
use tidelog_protocol::batch::builder::{BatchBuilder, NewRecord};
use tidelog_protocol::batch::{HEADER_BYTES, LENGTH_OVERHEAD_BYTES, RecordBatch};
use tidelog_protocol::compression::Compression;
use tidelog_protocol::messages::*;
use tidelog_protocol::types::TimestampMs;
use tidelog_tests::hostile::{cases, mutate};

use super::Target;
use super::bystander::{batch_of, create_topic, fetch_of, produce_of};
use crate::every_version::Asker;

const TOPIC: &str = "batches";

const CODECS: [Compression; 5] = [
    Compression::None,
    Compression::Gzip,
    Compression::Snappy,
    Compression::Lz4,
    Compression::Zstd,
];

/// Position and length of each field of a batch's header behind the checksum.
const FIELDS: [(usize, usize); 8] = [
    (21, 2),
    (23, 4),
    (27, 8),
    (35, 8),
    (43, 8),
    (51, 2),
    (53, 4),
    (57, 4),
];

fn batch(random: &mut StdRng, codec: Compression, value_bytes: usize) -> Vec<u8> {
    let mut builder = BatchBuilder::new(codec);
    let value = vec![random.random(); value_bytes];
    for _ in 0..random.random_range(1..4) {
        let record = NewRecord {
            timestamp: TimestampMs(1_700_000_000_000),
            key: Some(b"key"),
            value: Some(&value),
            headers: &[(b"header", Some(b"value"))],
        };
        builder.push(record).expect("it fits");
    }
    builder.build().expect("a batch").to_bytes().to_vec()
}

/// Makes the checksum right, so that what stands behind it is reached.
fn seal(batch: &mut [u8]) {
    if batch.len() > HEADER_BYTES {
        let crc = crc32c::crc32c(&batch[21..]);
        batch[17..21].copy_from_slice(&crc.to_be_bytes());
    }
}

/// Makes length and checksum right.
fn reseal(batch: &mut [u8]) {
    if batch.len() > HEADER_BYTES {
        let length = (batch.len() - LENGTH_OVERHEAD_BYTES) as u32;
        batch[8..12].copy_from_slice(&length.to_be_bytes());
        seal(batch);
    }
}

/// A batch whose records were changed before they were compressed.
fn with_section(valid: &[u8], codec: Compression, section: &[u8]) -> Vec<u8> {
    let mut batch = valid[..HEADER_BYTES].to_vec();
    batch[22] = batch[22] & !7 | codec as u8;
    codec.compress(section, &mut batch).expect("it compresses");
    reseal(&mut batch);
    batch
}

fn hostile_batch(random: &mut StdRng) -> Vec<u8> {
    let codec = CODECS[random.random_range(0..5)];
    let plain = batch(random, Compression::None, 50);
    match random.random_range(0..4) {
        0 => {
            // A header's field turned round, or one that lies.
            let mut hostile = batch(random, codec, 50);
            let (at, len) = FIELDS[random.random_range(0..FIELDS.len())];
            match random.random_range(0..3) {
                0 => hostile[at..at + len]
                    .iter_mut()
                    .for_each(|byte| *byte = !*byte),
                1 => hostile[at + random.random_range(0..len)] ^= 1 << random.random_range(0..8),
                _ => hostile[at..at + len].fill(if random.random() { 0x7f } else { 0xff }),
            }
            seal(&mut hostile);
            hostile
        }
        1 => {
            let mut section = plain[HEADER_BYTES..].to_vec();
            mutate(random, &mut section, &[]);
            with_section(&plain, codec, &section)
        }
        2 => {
            let mut hostile = batch(random, codec, 50);
            mutate(random, &mut hostile, &[plain]);
            reseal(&mut hostile);
            hostile
        }
        _ => {
            let mut hostile = batch(random, codec, 50);
            mutate(random, &mut hostile, &[plain]);
            hostile
        }
    }
}

/// Base offset of the batch, if it was accepted.
fn produce(asker: &mut Asker, records: Vec<u8>) -> Option<i64> {
    let request = produce_of(TOPIC, records.into());
    let reply: ProduceResponse = asker.ask(ApiKey::Produce, 9, &request);
    let produced = &reply.responses[0].partition_responses[0];
    (produced.error_code == 0).then_some(produced.base_offset)
}

/// Reads the topic from its beginning; every batch must be whole and readable, offsets without a gap.
fn read_all(asker: &mut Asker) -> usize {
    let mut next = 0;
    let mut batches = 0;
    loop {
        let reply: FetchResponse = asker.ask(ApiKey::Fetch, 11, &fetch_of(TOPIC, next));
        let partition = &reply.responses[0].partitions[0];
        assert_eq!(partition.error_code, 0);
        let records = partition.records.clone().unwrap_or_default();
        for batch in RecordBatch::split_all(records).expect("batches") {
            assert!(batch.checksum_matches(), "{batch:?}");
            assert_eq!(batch.base_offset().0, next);
            let records = batch.read_records().expect("records");
            assert_eq!(records.len() as i32, batch.record_count());
            next = batch.last_offset().0 + 1;
            batches += 1;
        }
        if next >= partition.high_watermark {
            return batches;
        }
    }
}

#[test]
fn hostile_batches_are_answered_and_what_is_accepted_is_readable() {
    let target = Target::start(&[]);
    let mut asker = Asker::connect(target.broker.address());
    create_topic(&mut asker, TOPIC);
    // What counts as a duplicate is accepted twice.
    let mut accepted = HashSet::new();
    cases("hostile batches", 6_000, |_, random| {
        accepted.extend(produce(&mut asker, hostile_batch(random)));
    });
    assert_eq!(read_all(&mut asker), accepted.len());
    eprintln!("{} hostile batches were harmless", accepted.len());
    drop(asker);
    target.finish(0).print("hostile batches");
}

/// A batch of one record that inflates to so many bytes and is below a MiB itself.
fn bomb(codec: Compression, bytes: usize) -> Bytes {
    let batch = batch_of(codec, &vec![0; bytes]);
    assert!(batch.len() < 1_000_000, "{codec:?}: {} bytes", batch.len());
    batch
}

#[test]
fn batches_that_inflate_without_end_take_no_more_than_the_budget() {
    const MIB: usize = 1024 * 1024;
    /// Clients that send bombs at the same time.
    const CLIENTS: usize = 16;
    let bombs: Vec<Bytes> = [
        (Compression::Gzip, 200),
        (Compression::Snappy, 15),
        (Compression::Lz4, 200),
        (Compression::Zstd, 200),
        (Compression::Zstd, 100),
        (Compression::Gzip, 12),
    ]
    .map(|(codec, mib)| bomb(codec, mib * MIB))
    .into();
    let target = Target::start(&[]);
    let address = target.broker.address();
    create_topic(&mut Asker::connect(address), TOPIC);
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let bombs = &bombs;
            scope.spawn(move || {
                let mut asker = Asker::connect(address);
                for round in 0..2 * bombs.len() {
                    let bomb = &bombs[(client + round) % bombs.len()];
                    produce(&mut asker, bomb.to_vec());
                }
            });
        }
    });
    target.finish(0).print("batches that inflate");
}
