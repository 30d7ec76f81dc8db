//! Every format of the consensus layer that is read back from a store or from another broker, mutated.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use openraft::{EntryPayload, Membership};
use tidelog_protocol::batch::{BatchBuilder, NewRecord};
use tidelog_protocol::compression::Compression;
use tidelog_protocol::types::{
    BrokerId, LeaderEpoch, Offset, PartitionIndex, ProducerEpoch, ProducerId, Sequence, TopicId,
};
use tidelog_storage::log::{EntryId, EntryIndex, LogPosition, ProducerStateTable};
use tidelog_tests::hostile::Codec;
use uuid::Uuid;

use crate::metadata::state::MetadataState;
use crate::metadata::{record, snapshot};
use crate::raft::codec::*;
use crate::raft::types::{GroupCommand, LogId, ReplicaId, StoredMembership, Vote};
use crate::{BrokerRegistration, Command, ConfigResource, Endpoint, LeaderReport, SecurityProtocol};

fn as_it_is(_: &mut Vec<u8>) {}

fn shared(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

fn replica(broker: i32) -> ReplicaId {
    ReplicaId {
        broker: BrokerId(broker),
        directory: Uuid::from_u128(u128::from(broker.unsigned_abs()) << 90),
    }
}

fn membership() -> Membership<ReplicaId, ()> {
    let voters = |ids: &[i32]| ids.iter().copied().map(replica).collect::<BTreeSet<_>>();
    let nodes: BTreeMap<_, _> = (1..=5).map(|id| (replica(id), ())).collect();
    Membership::new(vec![voters(&[1, 2, 3]), voters(&[2, 3, 4])], nodes).expect("valid")
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
    let corpus: Vec<_> = payloads.iter().map(encode_opaque).map(|e| joined(&e)).collect();
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
    let mut builder = BatchBuilder::new(Compression::None).producer(
        ProducerId(7),
        ProducerEpoch(1),
        Sequence(0),
    );
    builder.push(NewRecord::default()).expect("fits");
    let mut table = ProducerStateTable::default();
    table.record(builder.build().expect("a batch").header(), Offset(5));
    table
}

type Plain = (EntryId, Offset, Offset, ProducerStateTable, StoredMembership);

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
            Some((at.last, at.next_offset, at.log_start, at.producers, membership))
        },
        encode,
        reseal: as_it_is,
    };
    codec.check(10_000, &[valid]);
}

fn commands() -> Vec<Command> {
    let id = TopicId(Uuid::from_u128(u128::MAX));
    vec![
        Command::Bootstrap {
            cluster_id: Uuid::from_u128(5),
            feature_level: 1,
        },
        Command::RegisterBroker(BrokerRegistration {
            broker: BrokerId(1),
            directory_id: Uuid::from_u128(1),
            incarnation: Uuid::from_u128(2),
            rack: Some("r".into()),
            endpoints: vec![Endpoint {
                listener: "L".into(),
                host: "h\n".into(),
                port: 1,
                security_protocol: SecurityProtocol::Ssl,
            }],
            feature_level_max: 1,
        }),
        Command::CreateTopic {
            name: "a.b".into(),
            id,
            assignments: vec![vec![BrokerId(1)]; 2],
            configs: BTreeMap::from([("k".into(), "v\n\"".into())]),
        },
        Command::AlterConfigs {
            resource: ConfigResource::Group("g".into()),
            changes: vec![("k".into(), Some("v".into()))],
        },
        Command::AllocateProducerIds {
            broker: BrokerId(1),
            count: 10,
        },
        Command::SetFeature {
            name: "group.version".into(),
            level: 1,
        },
        Command::ReportLeaders(vec![LeaderReport {
            topic: id,
            partition: PartitionIndex(1),
            leader: BrokerId(1),
            epoch: LeaderEpoch(4),
            isr: vec![BrokerId(1)],
        }]),
    ]
}

/// Commands that come out are also applied: nothing that they say may break the state that they change.
#[test]
fn mutated_records_of_the_metadata() {
    let encode = |command: &Command| record::encode(command).expect("short").to_vec();
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
