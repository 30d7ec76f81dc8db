//! Every format of the consensus layer that is read back from a store or from another broker, mutated.

use bytes::Bytes;
use openraft::EntryPayload;
use tidelog_protocol::batch::{BatchBuilder, NewRecord};
use tidelog_protocol::compression::Compression;
use tidelog_protocol::types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence};
use tidelog_storage::log::{EntryId, EntryIndex, LogPosition, ProducerStateTable};
use tidelog_tests::hostile::Codec;

use crate::Command;
use crate::metadata::levels::FEATURE_LEVEL_MAX;
use crate::metadata::snapshot::tests::commands;
use crate::metadata::state::MetadataState;
use crate::metadata::{record, snapshot};
use crate::raft::codec::tests::{membership, replica};
use crate::raft::codec::*;
use crate::raft::types::{GroupCommand, LogId, StoredMembership, Vote};

fn as_it_is(_: &mut Vec<u8>) {}

fn shared(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

fn stored() -> StoredMembership {
    StoredMembership::new(Some(LogId::new_term_index(2, 7)), membership())
}

#[test]
fn mutated_entries() {
    let payloads = [
        EntryPayload::Blank,
        EntryPayload::Membership(membership()),
        EntryPayload::Normal(GroupCommand::LogStart(Offset(1 << 40))),
        EntryPayload::Normal(GroupCommand::Metadata(Bytes::from_static(b"abc"))),
        EntryPayload::Normal(GroupCommand::Void),
    ];
    let joined = |(tag, bytes): &(u8, Bytes)| [&[*tag], &bytes[..]].concat();
    let corpus: Vec<_> = payloads
        .iter()
        .map(encode_opaque)
        .map(|e| joined(&e))
        .collect();
    let codec = Codec {
        name: "entry without records",
        decode: |bytes: &[u8]| {
            let (tag, body) = bytes.split_first()?;
            let payload = decode_opaque(*tag, shared(body)).ok()?;
            Some(encode_opaque(&payload))
        },
        encode: joined,
        reseal: as_it_is,
    };
    codec.check(5_000, &corpus);
}

#[test]
fn mutated_votes_and_checkpoints() {
    let votes = [
        Vote::new(7, replica(3)),
        Vote::new_committed(u64::MAX, replica(-1)),
    ];
    let codec = Codec {
        name: "vote",
        decode: |bytes: &[u8]| decode_vote(shared(bytes)).ok(),
        encode: |vote: &Vote| encode_vote(vote).to_vec(),
        reseal: as_it_is,
    };
    codec.check(10_000, &votes.map(|vote| encode_vote(&vote).to_vec()));
    let checkpoint = Checkpoint {
        applied: LogId::new_term_index(3, 99),
        high_watermark: Offset(1000),
        log_start: Offset(10),
        membership: stored(),
    };
    let codec = Codec {
        name: "checkpoint of a group",
        decode: |bytes: &[u8]| decode_checkpoint(shared(bytes)).ok(),
        encode: |checkpoint: &Checkpoint| encode_checkpoint(checkpoint).to_vec(),
        reseal: as_it_is,
    };
    codec.check(10_000, &[encode_checkpoint(&checkpoint).to_vec()]);
}

fn producers() -> ProducerStateTable {
    let mut builder =
        BatchBuilder::new(Compression::None).producer(ProducerId(7), ProducerEpoch(1), Sequence(0));
    builder.push(NewRecord::default()).expect("fits");
    let mut table = ProducerStateTable::default();
    table.record(builder.build().expect("a batch").header(), Offset(5));
    table
}

type Plain = (
    EntryId,
    Offset,
    Offset,
    ProducerStateTable,
    StoredMembership,
);

#[test]
fn mutated_snapshots_of_a_partition() {
    let encode = |(last, next_offset, log_start, producers, membership): &Plain| {
        let position = LogPosition {
            last: *last,
            next_offset: *next_offset,
            log_start: *log_start,
            producers: producers.clone(),
        };
        let membership = membership.clone();
        encode_snapshot(&PartitionSnapshot {
            position,
            membership,
        })
        .to_vec()
    };
    let last = EntryId {
        epoch: LeaderEpoch(3),
        index: EntryIndex(9),
    };
    let valid = encode(&(last, Offset(20), Offset(5), producers(), stored()));
    let codec = Codec {
        name: "snapshot of a partition",
        decode: |bytes: &[u8]| {
            let PartitionSnapshot {
                position: at,
                membership,
            } = decode_snapshot(shared(bytes)).ok()?;
            Some((
                at.last,
                at.next_offset,
                at.log_start,
                at.producers,
                membership,
            ))
        },
        encode,
        reseal: as_it_is,
    };
    codec.check(10_000, &[valid]);
}

/// Commands that come out are also applied: nothing that they say may break the state that they change.
#[test]
fn mutated_records_of_the_metadata() {
    let encode = |command: &Command| {
        record::encode(command, FEATURE_LEVEL_MAX)
            .expect("short")
            .to_vec()
    };
    let corpus: Vec<_> = commands().iter().map(encode).collect();
    let codec = Codec {
        name: "metadata record",
        decode: |bytes: &[u8]| record::decode(bytes).ok(),
        encode: |command: &Command| {
            let mut state = state();
            let _ = state.apply(command.clone(), 100);
            encode(command)
        },
        reseal: as_it_is,
    };
    codec.check(5_000, &corpus);
}

fn state() -> MetadataState {
    let mut state = MetadataState::default();
    for (command, index) in commands().into_iter().zip(1..) {
        state.apply(command, index).expect("applies");
    }
    state
}

#[test]
fn mutated_images_of_the_metadata() {
    let valid = snapshot::encode(state().image()).expect("encodes");
    let codec = Codec {
        name: "metadata image",
        decode: |bytes: &[u8]| {
            let image = snapshot::decode(bytes).ok()?;
            Some(snapshot::encode(&image).expect("encodes"))
        },
        encode: Vec::clone,
        reseal: as_it_is,
    };
    codec.check(10_000, &[valid]);
}
