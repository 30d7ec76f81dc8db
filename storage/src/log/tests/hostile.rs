//! Every format of a log that is read back from disk, mutated.

use bytes::{Bytes, BytesMut};
use tidelog_protocol::batch::{BatchBuilder, NewRecord};
use tidelog_protocol::compression::Compression;
use tidelog_protocol::types::{
    ProducerEpoch, ProducerId, Sequence, TimestampMs, TopicId, TopicName,
};
use tidelog_tests::hostile::Codec;
use uuid::Uuid;

use crate::journal::FrameSequence;
use crate::log::envelope::Envelope;
use crate::log::files::SegmentName;
use crate::log::payload::*;
use crate::log::settled::{Settled, SettledSegment, decode_settle, encode_settle};
use crate::log::state::SegmentExtent;
use crate::log::*;

fn id(epoch: i32, index: u64) -> EntryId {
    EntryId {
        epoch: LeaderEpoch(epoch),
        index: EntryIndex(index),
    }
}

fn batch(offset: i64, sequence: i32) -> RecordBatch {
    let mut builder = BatchBuilder::new(Compression::None)
        .producer(ProducerId(7), ProducerEpoch(1), Sequence(sequence))
        .at(Offset(offset), LeaderEpoch(3));
    for _ in 0..2 {
        let record = NewRecord {
            timestamp: TimestampMs(1_700_000_000_000),
            key: Some(b"key"),
            value: Some(b"value"),
            headers: &[],
        };
        builder.push(record).expect("fits");
    }
    builder.build().expect("a batch")
}

fn entries() -> Vec<(LogEntry, Envelope)> {
    let opaque = EntryBody::Opaque {
        tag: 5,
        bytes: Bytes::from_static(b"opaque bytes"),
    };
    let bodies = [
        EntryBody::Batch(batch(10, 0)),
        opaque,
        EntryBody::Batch(batch(12, 2)),
    ];
    let entries = bodies.into_iter().zip(1..).map(|(body, index)| {
        let entry = LogEntry {
            id: id(3, index),
            origin: (index == 2).then_some(PartitionIndex(4)),
            flags: 0,
            aux: Bytes::from_static(b"aux"),
            body,
        };
        let offset = if index == 1 { 10 } else { 12 };
        let envelope = Envelope::of(&entry, Offset(offset), 100 * index);
        (entry, envelope)
    });
    entries.collect()
}

fn producers() -> ProducerStateTable {
    let mut table = ProducerStateTable::default();
    for sequence in 0..4 {
        let batch = batch(10 + 2 * i64::from(sequence), 2 * sequence);
        table.record(batch.header(), Offset(10 + 2 * i64::from(sequence)));
    }
    table
}

fn settled() -> Settled {
    let segment = |base: i64| SettledSegment {
        name: SegmentName {
            first: EntryIndex(base as u64 + 1),
            base: Offset(base),
            revision: 2,
        },
        extent: SegmentExtent {
            log_bytes: 1000,
            max_timestamp: TimestampMs(5),
            offset_of_max: Offset(base),
        },
    };
    Settled {
        segments: vec![segment(0), segment(50)],
        first_dirty: Offset(50),
        revision: 3,
    }
}

fn identity() -> Identity {
    Identity {
        topic: TopicName::from("orders"),
        topic_id: TopicId(Uuid::from_u128(77)),
        partition: PartitionIndex(3),
    }
}

fn encoded(envelope: &Envelope) -> Vec<u8> {
    let mut out = BytesMut::new();
    envelope.encode(&mut out);
    out.to_vec()
}

fn as_it_is(_: &mut Vec<u8>) {}

/// Makes length and checksum of the envelope right that `bytes` begin with.
fn reseal_envelope(bytes: &mut [u8]) {
    if let Some(rest) = bytes.get_mut(4..) {
        let crc = crc32c::crc32c(rest);
        bytes[..4].copy_from_slice(&crc.to_be_bytes());
    }
}

#[test]
fn mutated_envelopes() {
    let corpus: Vec<_> = entries().iter().map(|(_, e)| encoded(e)).collect();
    let codec = Codec {
        name: "envelope",
        decode: |bytes: &[u8]| Envelope::decode(&Bytes::copy_from_slice(bytes)).ok(),
        encode: |(envelope, _): &(Envelope, usize)| encoded(envelope),
        reseal: |bytes: &mut Vec<u8>| {
            if bytes.len() >= 8 {
                let length = bytes.len() as u32;
                bytes[4..8].copy_from_slice(&length.to_be_bytes());
            }
            reseal_envelope(bytes);
        },
    };
    codec.check(20_000, &corpus);
}

/// An entry in a form that can be compared.
type Plain = (
    EntryId,
    Option<PartitionIndex>,
    u16,
    Bytes,
    Option<u8>,
    Bytes,
);

fn plain(entry: &LogEntry) -> Plain {
    let (tag, bytes) = match &entry.body {
        EntryBody::Batch(batch) => (None, batch.to_bytes()),
        EntryBody::Opaque { tag, bytes } => (Some(*tag), bytes.clone()),
    };
    let aux = entry.aux.clone();
    (entry.id, entry.origin, entry.flags, aux, tag, bytes)
}

fn entry_from((id, origin, flags, aux, tag, bytes): &Plain) -> (LogEntry, Envelope) {
    let mut bytes = bytes.clone();
    let body = match tag {
        Some(tag) => EntryBody::Opaque { tag: *tag, bytes },
        None => EntryBody::Batch(RecordBatch::split_first(&mut bytes).expect("a batch")),
    };
    let base = match &body {
        EntryBody::Batch(batch) => batch.base_offset(),
        EntryBody::Opaque { .. } => Offset(0),
    };
    let entry = LogEntry {
        id: *id,
        origin: *origin,
        flags: *flags,
        aux: aux.clone(),
        body,
    };
    let envelope = Envelope::of(&entry, base, 0);
    (entry, envelope)
}

#[test]
fn mutated_append_payloads() {
    let all = entries();
    let corpus = [&all[..], &all[..1], &all[1..2]].map(|some| encode_append(some).0.concat());
    let codec = Codec {
        name: "Append payload",
        decode: |bytes: &[u8]| {
            let entries = decode_append(&Bytes::copy_from_slice(bytes)).ok()?;
            Some(entries.iter().map(plain).collect::<Vec<_>>())
        },
        encode: |entries: &Vec<Plain>| {
            let entries: Vec<_> = entries.iter().map(entry_from).collect();
            encode_append(&entries).0.concat()
        },
        reseal: |bytes: &mut Vec<u8>| {
            // The checksum of the first envelope.
            if let Some(length) = bytes.get(8..).and_then(Envelope::peek_bytes)
                && bytes.len() >= 8 + length
            {
                reseal_envelope(&mut bytes[8..8 + length]);
            }
        },
    };
    codec.check(10_000, &corpus);
}

#[test]
fn mutated_changes_of_a_log() {
    let cut = Cut {
        last: id(3, 9),
        next_offset: Offset(20),
        end: SegmentEnd {
            name: SegmentName::default(),
            log_bytes: 900,
            side_bytes: 300,
        },
    };
    let read = |bytes: &[u8]| Bytes::copy_from_slice(bytes);
    let truncate = Codec {
        name: "Truncate payload",
        decode: |bytes: &[u8]| decode_truncate(&read(bytes)),
        encode: |cut: &Cut| encode_truncate(cut).concat(),
        reseal: as_it_is,
    };
    truncate.check(5_000, &[encode_truncate(&cut).concat()]);
    let purge = Codec {
        name: "Purge payload",
        decode: |bytes: &[u8]| decode_purge(&read(bytes)),
        encode: |(id, next): &(EntryId, Offset)| encode_purge(*id, *next).concat(),
        reseal: as_it_is,
    };
    purge.check(5_000, &[encode_purge(id(3, 9), Offset(20)).concat()]);
    let settle = Codec {
        name: "Settle payload",
        decode: |bytes: &[u8]| decode_settle(&read(bytes)),
        encode: |(id, next, list): &(EntryId, Offset, Settled)| {
            encode_settle(*id, *next, list).concat()
        },
        reseal: as_it_is,
    };
    let payload = encode_settle(id(3, 9), Offset(20), &settled()).concat();
    settle.check(5_000, &[payload]);
}

type PlainReset = (
    Identity,
    EntryId,
    Offset,
    Offset,
    ProducerStateTable,
    Settled,
);

#[test]
fn mutated_resets() {
    let payload = |producers, settled: &Settled| {
        let at = LogPosition {
            last: id(3, 9),
            next_offset: Offset(20),
            log_start: Offset(5),
            producers,
        };
        encode_reset(&identity(), &at, settled).concat()
    };
    let codec = Codec {
        name: "Reset payload",
        decode: |bytes: &[u8]| {
            let (identity, at, settled) = decode_reset(&Bytes::copy_from_slice(bytes))?;
            let LogPosition {
                last,
                next_offset,
                log_start,
                producers,
            } = at;
            Some((identity, last, next_offset, log_start, producers, settled))
        },
        encode: |(identity, last, next_offset, log_start, producers, settled): &PlainReset| {
            let at = LogPosition {
                last: *last,
                next_offset: *next_offset,
                log_start: *log_start,
                producers: producers.clone(),
            };
            encode_reset(identity, &at, settled).concat()
        },
        reseal: as_it_is,
    };
    let corpus = [
        payload(producers(), &settled()),
        payload(producers(), &Settled::default()),
        payload(ProducerStateTable::default(), &settled()),
        payload(ProducerStateTable::default(), &Settled::default()),
    ];
    codec.check(5_000, &corpus);
}

#[test]
fn mutated_producer_snapshots() {
    let codec = Codec {
        name: "producer snapshot",
        decode: ProducerStateTable::decode,
        encode: |table: &ProducerStateTable| table.encode().to_vec(),
        reseal: |bytes: &mut Vec<u8>| {
            if let Some(rest) = bytes.get(6..) {
                let crc = crc32c::crc32c(rest);
                bytes[2..6].copy_from_slice(&crc.to_be_bytes());
            }
        },
    };
    let corpus = [
        producers().encode().to_vec(),
        ProducerStateTable::default().encode().to_vec(),
    ];
    codec.check(20_000, &corpus);
}

#[test]
fn mutated_checkpoints() {
    let mut epochs = EpochTable::default();
    epochs.record(id(1, 1), Offset(0));
    epochs.record(id(3, 5), Offset(10));
    let checkpoint = |producers, has_files| Checkpoint {
        identity: identity(),
        config: LogConfig::default(),
        sequence: FrameSequence(88),
        purged: id(1, 2),
        last: id(3, 9),
        log_start: Offset(5),
        next_offset: Offset(20),
        size_bytes: 1234,
        oldest_timestamp: TimestampMs(1_700_000_000_000),
        has_files,
        removed: false,
        end: SegmentEnd::default(),
        epochs: epochs.clone(),
        producers,
        entries: Bytes::from_static(b"entries"),
        settled: settled(),
    };
    let corpus = [
        checkpoint(Some(producers()), true).encode().to_vec(),
        checkpoint(None, true).encode().to_vec(),
        checkpoint(Some(ProducerStateTable::default()), false)
            .encode()
            .to_vec(),
    ];
    let codec = Codec {
        name: "checkpoint",
        decode: |bytes: &[u8]| Checkpoint::decode(&Bytes::copy_from_slice(bytes)),
        encode: |checkpoint: &Checkpoint| checkpoint.encode().to_vec(),
        reseal: as_it_is,
    };
    codec.check(10_000, &corpus);
}
