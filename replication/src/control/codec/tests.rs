use proptest::prelude::*;
use tidelog_protocol::types::LeaderEpoch;
use tidelog_storage::log::{EntryId, EntryIndex};

use super::*;

fn replica(id: i32) -> crate::raft::types::ReplicaId {
    crate::raft::types::ReplicaId {
        broker: BrokerId(id),
        directory: Uuid::from_u128(7),
    }
}

fn requests() -> Vec<Request> {
    let group = GroupId {
        topic: TopicId(Uuid::from_u128(5)),
        partition: PartitionIndex(7),
    };
    vec![
        Request::Introduce,
        Request::Submit {
            record: Bytes::from_static(b"a record"),
            timeout_ms: 5_000,
        },
        Request::ReadIndex,
        Request::Heartbeat {
            broker: BrokerId(3),
            epoch: 1 << 40,
        },
        Request::HandOver(vec![group; 2]),
        Request::DescribeQuorum,
        Request::ReadRecords(RecordsWanted {
            group,
            from: Offset(5),
            upto: Offset(1 << 40),
            skip: 3,
        }),
        Request::TellCommitted(vec![group; 2]),
        Request::Trust(vec![group; 2]),
        Request::Agree(vec![
            SleeperEnd {
                group,
                last: EntryId {
                    epoch: LeaderEpoch(3),
                    index: EntryIndex(1 << 40),
                },
            };
            2
        ]),
        Request::Pace(Pace {
            group,
            side: Side::Leader,
            bytes: 1 << 20,
            place: Place(0),
        }),
        Request::Pace(Pace {
            group,
            side: Side::Follower,
            bytes: 0,
            place: Place(1 << 40),
        }),
    ]
}

fn errors() -> Vec<MetadataError> {
    let (name, text) = (TopicName::from("orders"), || "why".to_owned());
    vec![
        MetadataError::TopicExists(name.clone()),
        MetadataError::AlreadyBootstrapped(Uuid::from_u128(9)),
        MetadataError::TopicIdExists,
        MetadataError::UnknownTopic,
        MetadataError::InvalidTopicName(text()),
        MetadataError::TopicNameCollision { existing: name },
        MetadataError::InvalidPartitions(text()),
        MetadataError::InvalidReplicaAssignment(text()),
        MetadataError::UnknownBroker(BrokerId(4)),
        MetadataError::InvalidConfig(text()),
        MetadataError::BrokerIdTaken(BrokerId(4)),
        MetadataError::ProducerIds(text()),
        MetadataError::InvalidFeature(text()),
        MetadataError::LevelTooLow(text()),
        MetadataError::Unsupported(text()),
        MetadataError::UnknownPartition,
        MetadataError::NoReassignment,
        MetadataError::BrokerInUse(text()),
    ]
}

fn replies() -> Vec<Reply> {
    let address = PeerAddress {
        host: "broker-2".into(),
        port: 9093,
    };
    let introduction = Introduction {
        cluster_id: Uuid::from_u128(99),
        feature_level: 1,
        controller: Some(BrokerId(2)),
        members: vec![
            Member {
                replica: replica(1),
                address: None,
            },
            Member {
                replica: replica(2),
                address: Some(address),
            },
        ],
    };
    let outcomes = [
        Outcome::Done,
        Outcome::BrokerRegistered { broker_epoch: 12 },
        Outcome::TopicCreated {
            id: TopicId(Uuid::from_u128(5)),
        },
        Outcome::ProducerIds {
            first: ProducerId(1 << 40),
            count: 1_000,
        },
    ];
    let results = outcomes
        .into_iter()
        .map(Ok)
        .chain(errors().into_iter().map(Err));
    let submitted = results.map(|result| Reply::Submitted {
        result,
        applied: 77,
    });
    let elected = vec![
        Ok(()),
        Err(ElectionError::UnknownPartition),
        Err(ElectionError::NotNeeded),
        Err(ElectionError::PreferredNotAvailable("why".into())),
        Err(ElectionError::NotAvailable("why not".into())),
        Err(ElectionError::Timeout),
    ];
    let quorum_member = |broker, silent| QuorumMember {
        broker: BrokerId(broker),
        directory_id: Uuid::from_u128(8),
        log_end: 1 << 40,
        silent,
    };
    let quorum = Quorum {
        leader: BrokerId(2),
        epoch: 3,
        high_watermark: 1 << 41,
        voters: vec![
            quorum_member(2, Some(Duration::ZERO)),
            quorum_member(1, None),
        ],
        observers: vec![quorum_member(3, Some(Duration::from_millis(12)))],
    };
    let records = RecordsRead {
        mark: 7,
        next: Offset(1 << 40),
        piece_bytes: 12,
        bytes: Bytes::from_static(b"batches"),
    };
    let others = [
        Reply::Records(records),
        Reply::HandedOver(elected),
        Reply::Quorum(quorum),
        Reply::Introduced(introduction),
        Reply::Applied(u64::MAX),
        Reply::Heard,
        Reply::Paced(Paced {
            place: Place(1 << 40),
            wait: Duration::from_millis(1_500),
        }),
        Reply::NotController(None),
        Reply::NotController(Some(BrokerId(0))),
        Reply::NotNow("starting".into()),
    ];
    submitted.chain(others).collect()
}

#[test]
fn requests_and_answers_read_back() {
    for request in requests() {
        let (kind, body) = encode_request(&request);
        assert_eq!(decode_request(kind, body), Ok(Some(request)));
    }
    for reply in replies() {
        assert_eq!(decode_reply(encode_reply(&reply)), Ok(reply));
    }
}

#[test]
fn bytes_stay_as_they_are() {
    let (kind, body) = encode_request(&Request::Heartbeat {
        broker: BrokerId(3),
        epoch: 9,
    });
    assert_eq!(
        (kind, &body[..]),
        (
            CallKind(4),
            &b"\x01\x00\x01\0\0\0\x03\0\0\0\0\0\0\0\x09"[..]
        )
    );
    let taken = Reply::Submitted {
        result: Err(MetadataError::BrokerIdTaken(BrokerId(2))),
        applied: 5,
    };
    assert_eq!(
        &encode_reply(&taken)[..],
        b"\x01\x00\x01\x02\0\0\0\0\0\0\0\x05\x4a\0\x012"
    );
}

#[test]
fn what_is_due_within_a_millisecond_is_not_due() {
    let wait = |wait| {
        let place = Place(7);
        let read = decode_reply(encode_reply(&Reply::Paced(Paced { place, wait })));
        match read {
            Ok(Reply::Paced(paced)) => paced.wait,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(wait(Duration::ZERO), Duration::ZERO);
    assert_eq!(wait(Duration::from_nanos(1)), Duration::from_millis(1));
    assert_eq!(wait(Duration::MAX), Duration::from_millis(u32::MAX.into()));
}

#[test]
fn what_a_newer_broker_says_is_no_error_where_it_need_not_be() {
    let (_, body) = encode_request(&Request::ReadIndex);
    assert_eq!(decode_request(CallKind(99), body), Ok(None));
    let mut reply = BytesMut::from(
        &encode_reply(&Reply::Submitted {
            result: Err(MetadataError::Unsupported("new rule".into())),
            applied: 1,
        })[..],
    );
    reply[12] = u8::MAX;
    let read = decode_reply(reply.freeze()).expect("is read");
    assert!(
        matches!(read, Reply::Submitted { result: Err(MetadataError::Unsupported(text)), .. } if text == "new rule")
    );
}

#[test]
fn cut_bytes_are_refused_or_mean_less() {
    for reply in replies() {
        let body = encode_reply(&reply);
        for len in 0..body.len() {
            assert_ne!(
                decode_reply(body.slice(..len)),
                Ok(reply.clone()),
                "{len} of {reply:?}"
            );
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(kind in 0_u16..12, bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let body = [b"\x01\x00\x01", &bytes[..]].concat();
        let _ = decode_request(CallKind(kind), Bytes::from(body.clone()));
        let _ = decode_reply(Bytes::from(body));
    }
}
