//! Every body comes back as it was; cut, long and random bytes are refused; the bytes of version 1 stay what they are.

use std::collections::{BTreeMap, BTreeSet};

use openraft::Membership;
use proptest::prelude::*;
use tidelog_protocol::batch::{BatchBuilder, NewRecord};
use tidelog_protocol::compression::Compression;
use tidelog_protocol::types::{BrokerId, LeaderEpoch, Offset, TimestampMs};

use super::super::frame::{FrameHeader, FrameKind, HEADER_BYTES, RequestKind};
use super::*;
use crate::raft::types::ReplicaId;

/// A frame's bytes, header and body.
fn bytes_of(kind: FrameKind, body: BodyWriter) -> Bytes {
    body.finish(kind, 0x0102_0304_0506_0708)
        .into_pieces()
        .concat()
        .into()
}

/// A frame's body, after its header was checked.
fn sent(kind: FrameKind, body: BodyWriter) -> Bytes {
    let mut bytes = bytes_of(kind, body);
    let header: [u8; HEADER_BYTES] = bytes[..HEADER_BYTES].try_into().expect("a header");
    let header = FrameHeader::parse(&header).expect("is valid");
    bytes.advance(HEADER_BYTES);
    assert_eq!(
        (header.kind, header.request, header.body_bytes),
        (kind, 0x0102_0304_0506_0708, bytes.len())
    );
    bytes
}

fn replica(broker: i32) -> ReplicaId {
    ReplicaId {
        broker: BrokerId(broker),
        directory: Uuid::from_u128(0xd0 + u128::from(broker.unsigned_abs())),
    }
}

fn group() -> GroupId {
    GroupId {
        topic: TopicId(Uuid::from_u128(0xabcd)),
        partition: PartitionIndex(7),
    }
}

fn batch(records: i32, value: &[u8]) -> RecordBatch {
    let mut builder = BatchBuilder::new(Compression::None).at(Offset(5), LeaderEpoch(3));
    for _ in 0..records {
        let record = NewRecord {
            timestamp: TimestampMs(1_000),
            value: Some(value),
            ..NewRecord::default()
        };
        builder.push(record).expect("fits");
    }
    builder.build().expect("has records")
}

fn membership(voters: &[i32]) -> Membership<ReplicaId, ()> {
    let ids: BTreeSet<ReplicaId> = voters.iter().copied().map(replica).collect();
    let nodes: BTreeMap<_, _> = ids.iter().map(|id| (*id, ())).collect();
    Membership::new(vec![ids], nodes).expect("valid")
}

fn votes() -> impl Strategy<Value = Vote> {
    (0..=i32::MAX as u64, 0..9, any::<bool>()).prop_map(|(term, broker, committed)| {
        if committed {
            Vote::new_committed(term, replica(broker))
        } else {
            Vote::new(term, replica(broker))
        }
    })
}

fn log_ids() -> impl Strategy<Value = LogId> {
    (0..=i32::MAX as u64, any::<u64>()).prop_map(|(term, index)| LogId::new_term_index(term, index))
}

fn payloads() -> impl Strategy<Value = EntryPayload<GroupCommand, ReplicaId, ()>> {
    let bytes = proptest::collection::vec(any::<u8>(), 0..5_000);
    prop_oneof![
        Just(()).prop_map(|()| EntryPayload::Blank),
        (1..4i32).prop_map(|voter| EntryPayload::Membership(membership(&[voter, voter + 1]))),
        any::<i64>()
            .prop_map(|offset| EntryPayload::Normal(GroupCommand::LogStart(Offset(offset)))),
        Just(()).prop_map(|()| EntryPayload::Normal(GroupCommand::Void)),
        bytes
            .clone()
            .prop_map(|it| EntryPayload::Normal(GroupCommand::Metadata(it.into()))),
        (1..4i32, bytes).prop_map(|(records, value)| {
            EntryPayload::Normal(GroupCommand::Batch {
                batch: batch(records, &value),
                submission: None,
            })
        }),
    ]
}

fn appends() -> impl Strategy<Value = AppendEntriesRequest<GroupTypes>> {
    let start = proptest::option::of((0..1_000u64, 0..1u64 << 40));
    let entries = proptest::collection::vec((payloads(), 0..2u64), 0..6);
    let parts = (votes(), start, proptest::option::of(log_ids()), entries);
    parts.prop_map(|(vote, start, leader_commit, payloads)| {
        let prev_log_id = start.map(|(term, index)| LogId::new_term_index(term, index));
        let (mut term, mut next) = start.map_or((0, 0), |(term, index)| (term, index + 1));
        let mut entries = Vec::new();
        for (payload, later) in payloads {
            term += later;
            let log_id = LogId::new_term_index(term, next);
            entries.push(Entry { log_id, payload });
            next += 1;
        }
        AppendEntriesRequest {
            vote,
            prev_log_id,
            entries,
            leader_commit,
        }
    })
}

/// What can be compared of an append.
fn seen(request: &AppendEntriesRequest<GroupTypes>) -> String {
    let entry = |entry: &Entry| {
        let bytes = match &entry.payload {
            EntryPayload::Normal(GroupCommand::Batch { batch, .. }) => batch.to_bytes(),
            payload => codec::encode_opaque(payload).1,
        };
        format!("{} {:?} {bytes:?}", entry.log_id, entry.payload)
    };
    let entries: Vec<String> = request.entries.iter().map(entry).collect();
    let (vote, prev, commit) = (request.vote, request.prev_log_id, request.leader_commit);
    format!("{vote} {prev:?} {commit:?} {entries:?}")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn appends_come_back(request in appends()) {
        let expected = seen(&request);
        let body = encode_append(group(), request).expect("can be sent");
        let mut bytes = sent(FrameKind::Request(RequestKind::Append), body);
        prop_assert_eq!(read_group(&mut bytes), Ok(group()));
        let back = decode_append(bytes.clone()).expect("is valid");
        prop_assert_eq!(seen(&back), expected);
        for len in 0..bytes.len().min(300) {
            prop_assert!(decode_append(bytes.slice(..len)).is_err(), "cut at {}", len);
        }
        let longer = Bytes::from([&bytes[..], &[0]].concat());
        prop_assert!(decode_append(longer).is_err(), "bytes behind the end");
    }

    #[test]
    fn votes_and_transfers_come_back(
        vote in votes(), other in votes(), last in proptest::option::of(log_ids()), flag: bool,
    ) {
        let mut asked = VoteRequest::new(vote, last);
        asked.leadership_transfer = flag;
        let mut bytes = sent(FrameKind::Request(RequestKind::Vote), encode_vote(group(), &asked));
        prop_assert_eq!(read_group(&mut bytes), Ok(group()));
        prop_assert_eq!(decode_vote(bytes), Ok(asked));
        let answer = VoteResponse::new(vote, last, flag);
        let bytes = sent(FrameKind::Reply(RequestKind::Vote), encode_vote_reply(&answer));
        prop_assert_eq!(decode_vote_reply(bytes), Ok(answer));
        let transfer = TransferLeaderRequest::new(vote, replica(3), last);
        let mut bytes = sent(FrameKind::Request(RequestKind::TransferLeader), encode_transfer(group(), &transfer));
        prop_assert_eq!(read_group(&mut bytes), Ok(group()));
        prop_assert_eq!(decode_transfer(bytes), Ok(transfer));
        for answer in [
            Ok(()),
            Err(TransferLeaderError::VoteChanged { expected: vote, actual: other }),
            Err(TransferLeaderError::LogNotFlushed { expected: last, actual: None }),
        ] {
            let kind = FrameKind::Reply(RequestKind::TransferLeader);
            let bytes = sent(kind, encode_transfer_reply(&answer));
            prop_assert_eq!(decode_transfer_reply(bytes), Ok(answer));
        }
        for answer in [
            AppendEntriesResponse::Success,
            AppendEntriesResponse::PartialSuccess(last),
            AppendEntriesResponse::Conflict,
            AppendEntriesResponse::HigherVote(vote),
        ] {
            let kind = FrameKind::Reply(RequestKind::Append);
            let bytes = sent(kind, encode_append_reply(&answer));
            prop_assert_eq!(decode_append_reply(bytes), Ok(answer));
        }
    }

    #[test]
    fn snapshots_and_calls_come_back(
        vote in votes(), last in proptest::option::of(log_ids()), id: u128, size: u64,
        content in proptest::collection::vec(any::<u8>(), 0..5_000), number: u16,
    ) {
        let announced = SnapshotAnnouncement {
            vote, id, bytes: size, last,
            membership: StoredMembership::new(last, membership(&[1, 2, 3])),
        };
        let mut bytes = sent(FrameKind::Request(RequestKind::SnapshotBegin), encode_announcement(group(), &announced));
        prop_assert_eq!(read_group(&mut bytes), Ok(group()));
        prop_assert_eq!(decode_announcement(bytes), Ok(announced));
        let content = Bytes::from(content);
        let piece = SnapshotPiece { id, offset: size, bytes: content.clone() };
        let mut bytes = sent(FrameKind::Request(RequestKind::SnapshotPiece), encode_piece(group(), piece.clone()));
        prop_assert_eq!(read_group(&mut bytes), Ok(group()));
        prop_assert_eq!(decode_piece(bytes), Ok(piece));
        let mut bytes = sent(FrameKind::Request(RequestKind::SnapshotEnd), encode_snapshot_end(group(), id));
        prop_assert_eq!(read_group(&mut bytes), Ok(group()));
        prop_assert_eq!(decode_snapshot_end(bytes), Ok(id));
        let kind = FrameKind::Reply(RequestKind::SnapshotPiece);
        prop_assert_eq!(decode_received(sent(kind, encode_received(size))), Ok(size));
        let answer = SnapshotResponse::new(vote);
        let kind = FrameKind::Reply(RequestKind::SnapshotEnd);
        let bytes = sent(kind, encode_snapshot_reply(&answer));
        prop_assert_eq!(decode_snapshot_reply(bytes), Ok(answer));
        let bytes = sent(FrameKind::Request(RequestKind::Call), encode_call(CallKind(number), content.clone()));
        prop_assert_eq!(decode_call(bytes), Ok((CallKind(number), content.clone())));
        let kind = FrameKind::Reply(RequestKind::Call);
        let bytes = sent(kind, encode_call_reply(content.clone()));
        prop_assert_eq!(decode_call_reply(bytes), Ok(content));
        let refusal = Refusal::new(RefusalCode::of_number(number), "ä".repeat(size as usize % 200));
        let bytes = sent(FrameKind::Failed, encode_refusal(&refusal));
        prop_assert_eq!(decode_refusal(bytes), Ok(refusal));
    }

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let mut bytes = Bytes::from(bytes);
        let _ = read_group(&mut bytes.clone());
        for with_header in [false, true] {
            if with_header {
                bytes = [&codec::header()[..], &bytes].concat().into();
            }
            let _ = decode_append(bytes.clone());
            let _ = decode_append_reply(bytes.clone());
            let _ = decode_vote(bytes.clone());
            let _ = decode_vote_reply(bytes.clone());
            let _ = decode_transfer(bytes.clone());
            let _ = decode_transfer_reply(bytes.clone());
            let _ = decode_announcement(bytes.clone());
            let _ = decode_piece(bytes.clone());
            let _ = decode_snapshot_end(bytes.clone());
            let _ = decode_received(bytes.clone());
            let _ = decode_snapshot_reply(bytes.clone());
            let _ = decode_call(bytes.clone());
            let _ = decode_call_reply(bytes.clone());
            let _ = decode_refusal(bytes.clone());
        }
    }

    #[test]
    fn a_flipped_bit_never_panics(request in appends(), position: usize, bit in 0..8u8) {
        let body = encode_append(group(), request).expect("can be sent");
        let mut bytes = sent(FrameKind::Request(RequestKind::Append), body).to_vec();
        let position = position % bytes.len();
        bytes[position] ^= 1 << bit;
        let mut bytes = Bytes::from(bytes);
        if read_group(&mut bytes).is_ok() {
            let _ = decode_append(bytes);
        }
    }
}

fn append_of(entries: Vec<Entry>) -> AppendEntriesRequest<GroupTypes> {
    AppendEntriesRequest {
        vote: Vote::new_committed(3, replica(1)),
        prev_log_id: Some(LogId::new_term_index(2, 8)),
        entries,
        leader_commit: Some(LogId::new_term_index(2, 8)),
    }
}

fn entry(term: u64, index: u64) -> Entry {
    Entry {
        log_id: LogId::new_term_index(term, index),
        payload: EntryPayload::Blank,
    }
}

fn reread(
    request: AppendEntriesRequest<GroupTypes>,
) -> Result<AppendEntriesRequest<GroupTypes>, CodecError> {
    let body = encode_append(group(), request).expect("can be sent");
    let mut bytes = sent(FrameKind::Request(RequestKind::Append), body);
    read_group(&mut bytes).expect("a group");
    decode_append(bytes)
}

#[test]
fn entries_that_do_not_follow_one_another_are_refused() {
    assert!(reread(append_of(vec![entry(3, 9), entry(3, 10)])).is_ok());
    let order = CodecError::Damaged("order of entries");
    for entries in [
        vec![entry(3, 10)],
        vec![entry(3, 9), entry(3, 9)],
        vec![entry(3, 9), entry(3, 11)],
        vec![entry(1, 9)],
        vec![entry(3, 9), entry(2, 10)],
    ] {
        assert_eq!(reread(append_of(entries)).err(), Some(order.clone()));
    }
    let mut first = append_of(vec![entry(3, 1)]);
    first.prev_log_id = None;
    assert_eq!(reread(first).err(), Some(order));
}

#[test]
fn terms_beyond_any_epoch_are_refused() {
    let beyond = 1 << 31;
    let mut request = append_of(Vec::new());
    request.vote = Vote::new_committed(beyond, replica(1));
    assert_eq!(reread(request).err(), Some(CodecError::Damaged("term")));
    let entries = vec![entry(beyond, 9)];
    assert_eq!(
        reread(append_of(entries)).err(),
        Some(CodecError::Damaged("term"))
    );
    let asked = VoteRequest::new(Vote::new(beyond, replica(1)), None);
    let mut bytes = sent(
        FrameKind::Request(RequestKind::Vote),
        encode_vote(group(), &asked),
    );
    read_group(&mut bytes).expect("a group");
    assert_eq!(decode_vote(bytes), Err(CodecError::Damaged("term")));
}

#[test]
fn records_are_not_copied_and_damaged_ones_refused() {
    let long = batch(1, &[7; 10_000]);
    let payload = EntryPayload::Normal(GroupCommand::Batch {
        batch: long.clone(),
        submission: None,
    });
    let log_id = LogId::new_term_index(3, 9);
    let request = append_of(vec![Entry { log_id, payload }]);
    let body = encode_append(group(), request).expect("can be sent");
    let pieces = body
        .finish(FrameKind::Request(RequestKind::Append), 1)
        .into_pieces();
    let shared = pieces
        .iter()
        .any(|piece| piece.as_ptr() == long.records_bytes().as_ptr());
    assert!(shared, "the records are not spliced");
    let bytes: Bytes = pieces.concat().into();
    let mut body = bytes.slice(HEADER_BYTES..);
    read_group(&mut body).expect("a group");
    let back = decode_append(body.clone()).expect("is valid");
    let EntryPayload::Normal(GroupCommand::Batch { batch, .. }) = &back.entries[0].payload else {
        panic!("not a batch");
    };
    let inside = bytes
        .as_ptr_range()
        .contains(&batch.records_bytes().as_ptr());
    assert!(inside, "the records are not a slice of the frame");
    let mut damaged = body.to_vec();
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    assert_eq!(
        decode_append(damaged.into()).err(),
        Some(CodecError::Damaged("record batch"))
    );
}

#[test]
fn an_entry_without_its_records_is_not_sent() {
    let payload = EntryPayload::Normal(GroupCommand::BatchHeader {
        next_offset: Offset(5),
    });
    let log_id = LogId::new_term_index(3, 9);
    let request = append_of(vec![Entry { log_id, payload }]);
    assert!(encode_append(group(), request).is_err());
}

#[test]
fn texts_are_cut_between_characters() {
    let refusal = Refusal::new(RefusalCode::Failed, "€".repeat(1_000));
    let bytes = sent(FrameKind::Failed, encode_refusal(&refusal));
    let back = decode_refusal(bytes).expect("is valid");
    assert_eq!(back.text, "€".repeat(PEER_TEXT_BYTES_MAX / 3));
}

/// One frame of each kind, as version 1 writes it.
fn examples() -> Vec<(&'static str, FrameKind, BodyWriter)> {
    let vote = Vote::new_committed(3, replica(1));
    let last = Some(LogId::new_term_index(2, 8));
    let asked = VoteRequest::new(vote, last);
    let announced = SnapshotAnnouncement {
        vote,
        id: 0x11,
        bytes: 0x22,
        last,
        membership: StoredMembership::new(last, membership(&[1, 2])),
    };
    let piece = SnapshotPiece {
        id: 0x11,
        offset: 0x20,
        bytes: Bytes::from_static(b"xy"),
    };
    let transfer = TransferLeaderRequest::new(vote, replica(2), last);
    let batch_entry = Entry {
        log_id: LogId::new_term_index(3, 9),
        payload: EntryPayload::Normal(GroupCommand::Batch {
            batch: batch(1, b"v"),
            submission: None,
        }),
    };
    let append = append_of(vec![batch_entry, entry(3, 10)]);
    let refusal = Refusal::new(RefusalCode::UnknownGroup, "no");
    use FrameKind::Reply;
    vec![
        (
            "ping",
            FrameKind::Request(RequestKind::Ping),
            BodyWriter::new(),
        ),
        ("pong", Reply(RequestKind::Ping), BodyWriter::new()),
        (
            "append",
            FrameKind::Request(RequestKind::Append),
            encode_append(group(), append).expect("can be sent"),
        ),
        (
            "append reply",
            Reply(RequestKind::Append),
            encode_append_reply(&AppendEntriesResponse::HigherVote(vote)),
        ),
        (
            "vote",
            FrameKind::Request(RequestKind::Vote),
            encode_vote(group(), &asked),
        ),
        (
            "pre-vote",
            FrameKind::Request(RequestKind::PreVote),
            encode_vote(group(), &asked),
        ),
        (
            "vote reply",
            Reply(RequestKind::Vote),
            encode_vote_reply(&VoteResponse::new(vote, last, true)),
        ),
        (
            "pre-vote reply",
            Reply(RequestKind::PreVote),
            encode_vote_reply(&VoteResponse::new(vote, None, false)),
        ),
        (
            "transfer",
            FrameKind::Request(RequestKind::TransferLeader),
            encode_transfer(group(), &transfer),
        ),
        (
            "transfer reply",
            Reply(RequestKind::TransferLeader),
            encode_transfer_reply(&Err(TransferLeaderError::LogNotFlushed {
                expected: last,
                actual: None,
            })),
        ),
        (
            "snapshot",
            FrameKind::Request(RequestKind::SnapshotBegin),
            encode_announcement(group(), &announced),
        ),
        (
            "snapshot reply",
            Reply(RequestKind::SnapshotBegin),
            encode_received(5),
        ),
        (
            "piece",
            FrameKind::Request(RequestKind::SnapshotPiece),
            encode_piece(group(), piece),
        ),
        (
            "piece reply",
            Reply(RequestKind::SnapshotPiece),
            encode_received(0x22),
        ),
        (
            "end",
            FrameKind::Request(RequestKind::SnapshotEnd),
            encode_snapshot_end(group(), 0x11),
        ),
        (
            "end reply",
            Reply(RequestKind::SnapshotEnd),
            encode_snapshot_reply(&SnapshotResponse::new(vote)),
        ),
        (
            "call",
            FrameKind::Request(RequestKind::Call),
            encode_call(CallKind(9), Bytes::from_static(b"abc")),
        ),
        (
            "call reply",
            Reply(RequestKind::Call),
            encode_call_reply(Bytes::from_static(b"abc")),
        ),
        ("failed", FrameKind::Failed, encode_refusal(&refusal)),
    ]
}

#[test]
fn bytes_are_those_of_version_1() {
    let golden = include_str!("golden.txt");
    let mut lines = golden.lines().filter(|line| !line.starts_with('#'));
    for (name, kind, body) in examples() {
        let bytes = bytes_of(kind, body);
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(Some(format!("{name}: {hex}").as_str()), lines.next());
    }
    assert_eq!(lines.next(), None);
}
