//! Golden bytes as Kafka writes them, round trips, hostile input.

use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use tidelog_protocol::types::{
    LeaderEpoch, Offset, PartitionIndex, TimestampMs, TopicName, TopicPartition,
};
use tidelog_tests::hostile::Codec;

use super::*;
use crate::coordinator::group::{
    ClientIdentity, CommittedOffset, Generation, GroupMetadata, InstanceId, MemberId, StoredMember,
    Timeouts,
};

fn partition() -> TopicPartition {
    TopicPartition {
        topic: TopicName::from("t"),
        partition: PartitionIndex(7),
    }
}

fn committed() -> CommittedOffset {
    CommittedOffset {
        offset: Offset(42),
        leader_epoch: Some(LeaderEpoch(5)),
        metadata: Arc::from("hi"),
        commit_timestamp: TimestampMs(1_000),
        expire_timestamp: None,
    }
}

fn metadata() -> GroupMetadata {
    GroupMetadata {
        protocol_type: Some(Arc::from("consumer")),
        generation: Generation(3),
        protocol: Some(Arc::from("range")),
        leader: Some(MemberId::from("m")),
        state_timestamp: TimestampMs(9),
        members: vec![StoredMember {
            id: MemberId::from("m"),
            instance: Some(InstanceId::from("i")),
            client: ClientIdentity {
                id: Arc::from("c"),
                host: Arc::from("/h"),
            },
            timeouts: Timeouts {
                session_ms: 10,
                rebalance_ms: 20,
            },
            subscription: Bytes::from_static(b"s"),
            assignment: Bytes::from_static(b"as"),
        }],
    }
}

#[test]
fn offset_record_is_kafkas_byte_for_byte() {
    let record = GroupRecord::Offset(partition(), Some(committed()));
    let encoded = encode(&GroupId::from("g"), &record).expect("short");
    assert_eq!(&encoded.key[..], b"\0\x01\0\x01g\0\x01t\0\0\0\x07");
    let value = b"\0\x03\0\0\0\0\0\0\0\x2a\0\0\0\x05\0\x02hi\0\0\0\0\0\0\x03\xe8";
    assert_eq!(encoded.value.as_deref(), Some(&value[..]));
}

#[test]
fn offset_with_its_own_expiry_is_of_version_1() {
    let offset = CommittedOffset {
        leader_epoch: None,
        expire_timestamp: Some(TimestampMs(2_000)),
        ..committed()
    };
    let record = GroupRecord::Offset(partition(), Some(offset));
    let encoded = encode(&GroupId::from("g"), &record).expect("short");
    let value = b"\0\x01\0\0\0\0\0\0\0\x2a\0\x02hi\0\0\0\0\0\0\x03\xe8\0\0\0\0\0\0\x07\xd0";
    assert_eq!(encoded.value.as_deref(), Some(&value[..]));
    assert_eq!(
        decode(&encoded.key, encoded.value.as_deref()),
        Ok(Some((GroupId::from("g"), record)))
    );
}

#[test]
fn group_record_is_kafkas_byte_for_byte() {
    let record = GroupRecord::Metadata(Some(metadata()));
    let encoded = encode(&GroupId::from("g"), &record).expect("short");
    assert_eq!(&encoded.key[..], b"\0\x02\0\x01g");
    let value: Vec<u8> = [
        &b"\0\x03\0\x08consumer\0\0\0\x03\0\x05range\0\x01m\0\0\0\0\0\0\0\x09\0\0\0\x01"[..],
        b"\0\x01m\0\x01i\0\x01c\0\x02/h\0\0\0\x14\0\0\0\x0a\0\0\0\x01s\0\0\0\x02as",
    ]
    .concat();
    assert_eq!(encoded.value.as_deref(), Some(&value[..]));
}

#[test]
fn records_come_back_as_they_were() {
    let group = GroupId::from("g");
    for record in [
        GroupRecord::Offset(partition(), Some(committed())),
        GroupRecord::Offset(partition(), None),
        GroupRecord::Metadata(Some(metadata())),
        GroupRecord::Metadata(None),
    ] {
        let encoded = encode(&group, &record).expect("short");
        assert_eq!(
            decode(&encoded.key, encoded.value.as_deref()),
            Ok(Some((group.clone(), record)))
        );
    }
}

#[test]
fn keys_of_other_versions_are_passed_over() {
    for version in [3i16, 8, 99, -1] {
        assert_eq!(decode(&version.to_be_bytes(), Some(b"whatever")), Ok(None));
    }
}

#[test]
fn names_that_do_not_fit_are_refused() {
    let group = GroupId::from("x".repeat(40_000).as_str());
    assert_eq!(
        encode(&group, &GroupRecord::Metadata(None)),
        Err(FieldTooLong(40_000))
    );
}

#[test]
fn every_cut_is_noticed() {
    for record in [
        GroupRecord::Offset(partition(), Some(committed())),
        GroupRecord::Metadata(Some(metadata())),
    ] {
        let encoded = encode(&GroupId::from("g"), &record).expect("short");
        let value = encoded.value.expect("no tombstone");
        for cut in 0..value.len() {
            assert!(
                decode(&encoded.key, Some(&value[..cut])).is_err(),
                "value cut at {cut}"
            );
        }
        for cut in 0..encoded.key.len() {
            assert!(
                decode(&encoded.key[..cut], Some(&value)).is_err(),
                "key cut at {cut}"
            );
        }
        let longer = [&value[..], b"x"].concat();
        assert_eq!(
            decode(&encoded.key, Some(&longer)),
            Err(RecordError::Trailing(1))
        );
    }
}

proptest! {
    #[test]
    fn hostile_bytes_do_no_harm(key in prop::collection::vec(any::<u8>(), 0..40), value in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode(&key, Some(&value));
        for version in [1u8, 2] {
            let mut key = key.clone();
            key.splice(..2.min(key.len()), [0, version]);
            let mut value = value.clone();
            value.splice(..2.min(value.len()), [0, 3]);
            let _ = decode(&key, Some(&value));
        }
    }
}

/// A record as one string of bytes: length of the key, key, value.
fn joined(group: &GroupId, record: &GroupRecord) -> Vec<u8> {
    let encoded = encode(group, record).expect("short");
    let length = u16::try_from(encoded.key.len()).expect("short");
    let value = encoded.value.expect("no tombstone");
    [&length.to_be_bytes(), &encoded.key[..], &value[..]].concat()
}

#[test]
fn mutated_records() {
    let expiring = CommittedOffset {
        leader_epoch: None,
        expire_timestamp: Some(TimestampMs(2_000)),
        ..committed()
    };
    let corpus = [
        GroupRecord::Offset(partition(), Some(committed())),
        GroupRecord::Offset(partition(), Some(expiring)),
        GroupRecord::Metadata(Some(metadata())),
    ]
    .map(|record| joined(&GroupId::from("g"), &record));
    let codec = Codec {
        name: "record of the offsets topic",
        decode: |bytes: &[u8]| {
            let (length, rest) = bytes.split_first_chunk()?;
            let (key, value) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
            decode(key, Some(value)).ok().flatten()
        },
        encode: |(group, record): &(GroupId, GroupRecord)| joined(group, record),
        reseal: |_: &mut Vec<u8>| {},
    };
    codec.check(20_000, &corpus);
}
