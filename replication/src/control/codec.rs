//! Requests and answers of the control plane as bytes. `docs/PEER_PROTOCOL.md` has the layout.
//!
//! Every body opens as those of the consensus groups: version (u8), the writer's feature level (u16), big-endian. Texts
//! are a length (u16) and UTF-8. Numbers of kinds and tags stand for good.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tidelog_protocol::types::{BrokerId, Offset, PartitionIndex, ProducerId, TopicId, TopicName};
use uuid::Uuid;

use super::message::{Introduction, Member, Reply, Request};
use crate::controller::quorum::{Quorum, QuorumMember};
use crate::election::{Elected, ElectionError};
use crate::limits::CONTROL_MEMBERS_MAX;
use crate::metadata::command::{MetadataError, Outcome};
use crate::partition::records::{RecordsRead, RecordsWanted};
use crate::peers::{CallKind, PeerAddress, get_text, put_text};
use crate::raft::codec::{
    CodecError, check_header, get_entry_id, get_replica, header, put_entry_id, put_replica,
};
use crate::raft::types::{GroupId, ReplicaId};
use crate::succession::SleeperEnd;
use crate::throttle::{Pace, Paced, Place, Side};

const INTRODUCE: CallKind = CallKind(1);
const SUBMIT: CallKind = CallKind(2);
const READ_INDEX: CallKind = CallKind(3);
const HEARTBEAT: CallKind = CallKind(4);
const HAND_OVER: CallKind = CallKind(5);
const DESCRIBE_QUORUM: CallKind = CallKind(6);
const READ_RECORDS: CallKind = CallKind(7);
const TELL_COMMITTED: CallKind = CallKind(8);
const AGREE: CallKind = CallKind(9);
const TRUST: CallKind = CallKind(10);
const PACE: CallKind = CallKind(11);

const INTRODUCED: u8 = 1;
const SUBMITTED: u8 = 2;
const APPLIED: u8 = 3;
const HEARD: u8 = 4;
const NOT_CONTROLLER: u8 = 5;
const NOT_NOW: u8 = 6;
const HANDED_OVER: u8 = 7;
const QUORUM: u8 = 8;
const RECORDS: u8 = 9;
const AGREED: u8 = 10;
const PACED: u8 = 11;

/// Stands for no broker; real ids are not negative.
const NO_BROKER: i32 = -1;

/// Kind and body of a request.
pub fn encode_request(request: &Request) -> (CallKind, Bytes) {
    let mut bytes = header();
    let kind = match request {
        Request::Introduce => INTRODUCE,
        Request::Submit { record, timeout_ms } => {
            bytes.put_u32(*timeout_ms);
            bytes.put_slice(record);
            SUBMIT
        }
        Request::ReadIndex => READ_INDEX,
        Request::Heartbeat { broker, epoch } => {
            bytes.put_i32(broker.0);
            bytes.put_i64(*epoch);
            HEARTBEAT
        }
        Request::HandOver(groups) => {
            put_groups(&mut bytes, groups);
            HAND_OVER
        }
        Request::DescribeQuorum => DESCRIBE_QUORUM,
        Request::ReadRecords(wanted) => {
            put_group(&mut bytes, &wanted.group);
            bytes.put_i64(wanted.from.0);
            bytes.put_i64(wanted.upto.0);
            bytes.put_u32(wanted.skip);
            READ_RECORDS
        }
        Request::TellCommitted(groups) => {
            put_groups(&mut bytes, groups);
            TELL_COMMITTED
        }
        Request::Agree(ends) => {
            put_count(&mut bytes, ends.len());
            for end in ends {
                put_group(&mut bytes, &end.group);
                put_entry_id(&mut bytes, end.last);
            }
            AGREE
        }
        Request::Trust(groups) => {
            put_groups(&mut bytes, groups);
            TRUST
        }
        Request::Pace(pace) => {
            put_group(&mut bytes, &pace.group);
            bytes.put_u8(u8::from(pace.side == Side::Follower));
            bytes.put_u32(pace.bytes);
            bytes.put_u64(pace.place.0);
            PACE
        }
    };
    (kind, bytes.freeze())
}

/// The request that [`encode_request`] wrote; `None` for a kind of a newer version.
pub fn decode_request(kind: CallKind, mut bytes: Bytes) -> Result<Option<Request>, CodecError> {
    check_header(&mut bytes)?;
    Ok(Some(match kind {
        INTRODUCE => Request::Introduce,
        SUBMIT => Request::Submit {
            timeout_ms: bytes.try_get_u32()?,
            record: bytes,
        },
        READ_INDEX => Request::ReadIndex,
        HEARTBEAT => Request::Heartbeat {
            broker: BrokerId(bytes.try_get_i32()?),
            epoch: bytes.try_get_i64()?,
        },
        HAND_OVER => Request::HandOver(get_all(&mut bytes, get_group)?),
        DESCRIBE_QUORUM => Request::DescribeQuorum,
        READ_RECORDS => Request::ReadRecords(RecordsWanted {
            group: get_group(&mut bytes)?,
            from: Offset(bytes.try_get_i64()?),
            upto: Offset(bytes.try_get_i64()?),
            skip: bytes.try_get_u32()?,
        }),
        TELL_COMMITTED => Request::TellCommitted(get_all(&mut bytes, get_group)?),
        AGREE => Request::Agree(get_all(&mut bytes, get_end)?),
        TRUST => Request::Trust(get_all(&mut bytes, get_group)?),
        PACE => Request::Pace(Pace {
            group: get_group(&mut bytes)?,
            side: match bytes.try_get_u8()? {
                0 => Side::Leader,
                _ => Side::Follower,
            },
            bytes: bytes.try_get_u32()?,
            place: Place(bytes.try_get_u64()?),
        }),
        _ => return Ok(None),
    }))
}

/// Body of an answer.
pub fn encode_reply(reply: &Reply) -> Bytes {
    let mut bytes = header();
    match reply {
        Reply::Introduced(introduction) => {
            bytes.put_u8(INTRODUCED);
            put_introduction(&mut bytes, introduction);
        }
        Reply::Submitted { result, applied } => {
            bytes.put_u8(SUBMITTED);
            bytes.put_u64(*applied);
            match result {
                Ok(outcome) => put_outcome(&mut bytes, outcome),
                Err(error) => put_error(&mut bytes, error),
            }
        }
        Reply::Applied(index) => {
            bytes.put_u8(APPLIED);
            bytes.put_u64(*index);
        }
        Reply::Heard => bytes.put_u8(HEARD),
        Reply::NotController(controller) => {
            bytes.put_u8(NOT_CONTROLLER);
            put_broker(&mut bytes, *controller);
        }
        Reply::NotNow(text) => {
            bytes.put_u8(NOT_NOW);
            put_text(&mut bytes, text);
        }
        Reply::HandedOver(answers) => {
            bytes.put_u8(HANDED_OVER);
            put_count(&mut bytes, answers.len());
            for answer in answers {
                put_elected(&mut bytes, answer);
            }
        }
        Reply::Quorum(quorum) => {
            bytes.put_u8(QUORUM);
            bytes.put_i32(quorum.leader.0);
            bytes.put_i32(quorum.epoch);
            bytes.put_i64(quorum.high_watermark);
            for members in [&quorum.voters, &quorum.observers] {
                put_count(&mut bytes, members.len());
                for member in members {
                    put_quorum_member(&mut bytes, member);
                }
            }
        }
        Reply::Records(read) => {
            bytes.put_u8(RECORDS);
            bytes.put_u32(read.mark);
            bytes.put_i64(read.next.0);
            bytes.put_u32(read.piece_bytes);
            bytes.put_slice(&read.bytes);
        }
        Reply::Agreed(answers) => {
            bytes.put_u8(AGREED);
            put_count(&mut bytes, answers.len());
            answers
                .iter()
                .for_each(|agrees| bytes.put_u8((*agrees).into()));
        }
        Reply::Paced(paced) => {
            bytes.put_u8(PACED);
            bytes.put_u64(paced.place.0);
            // Rounded up: 0 is said of what is due.
            let wait_ms = paced.wait.as_nanos().div_ceil(1_000_000);
            bytes.put_u32(u32::try_from(wait_ms).unwrap_or(u32::MAX));
        }
    }
    bytes.freeze()
}

/// The answer that [`encode_reply`] wrote.
pub fn decode_reply(mut bytes: Bytes) -> Result<Reply, CodecError> {
    check_header(&mut bytes)?;
    Ok(match bytes.try_get_u8()? {
        INTRODUCED => Reply::Introduced(get_introduction(&mut bytes)?),
        SUBMITTED => {
            let applied = bytes.try_get_u64()?;
            let result = get_result(&mut bytes)?;
            Reply::Submitted { result, applied }
        }
        APPLIED => Reply::Applied(bytes.try_get_u64()?),
        HEARD => Reply::Heard,
        NOT_CONTROLLER => Reply::NotController(get_broker(&mut bytes)?),
        NOT_NOW => Reply::NotNow(get_text(&mut bytes)?),
        RECORDS => Reply::Records(RecordsRead {
            mark: bytes.try_get_u32()?,
            next: Offset(bytes.try_get_i64()?),
            piece_bytes: bytes.try_get_u32()?,
            bytes,
        }),
        AGREED => Reply::Agreed(get_all(&mut bytes, |bytes| Ok(bytes.try_get_u8()? == 1))?),
        PACED => Reply::Paced(Paced {
            place: Place(bytes.try_get_u64()?),
            wait: Duration::from_millis(bytes.try_get_u32()?.into()),
        }),
        HANDED_OVER => Reply::HandedOver(get_all(&mut bytes, get_elected)?),
        QUORUM => Reply::Quorum(Quorum {
            leader: BrokerId(bytes.try_get_i32()?),
            epoch: bytes.try_get_i32()?,
            high_watermark: bytes.try_get_i64()?,
            voters: get_all(&mut bytes, get_quorum_member)?,
            observers: get_all(&mut bytes, get_quorum_member)?,
        }),
        _ => return Err(CodecError::Damaged("answer tag")),
    })
}

fn put_count(bytes: &mut BytesMut, count: usize) {
    bytes.put_u32(u32::try_from(count).unwrap_or(u32::MAX));
}

/// So many things as the count says; nothing is allocated for what is not there.
fn get_all<T>(
    bytes: &mut Bytes,
    get: impl Fn(&mut Bytes) -> Result<T, CodecError>,
) -> Result<Vec<T>, CodecError> {
    let count = bytes.try_get_u32()?;
    (0..count).map(|_| get(bytes)).collect()
}

fn put_groups(bytes: &mut BytesMut, groups: &[GroupId]) {
    put_count(bytes, groups.len());
    groups.iter().for_each(|group| put_group(bytes, group));
}

fn put_group(bytes: &mut BytesMut, group: &GroupId) {
    bytes.put_u128(group.topic.0.as_u128());
    bytes.put_i32(group.partition.0);
}

fn get_group(bytes: &mut Bytes) -> Result<GroupId, CodecError> {
    Ok(GroupId {
        topic: TopicId(Uuid::from_u128(bytes.try_get_u128()?)),
        partition: PartitionIndex(bytes.try_get_i32()?),
    })
}

fn get_end(bytes: &mut Bytes) -> Result<SleeperEnd, CodecError> {
    Ok(SleeperEnd {
        group: get_group(bytes)?,
        last: get_entry_id(bytes)?,
    })
}

fn put_elected(bytes: &mut BytesMut, answer: &Elected) {
    let (tag, text) = match answer {
        Ok(()) => (0, ""),
        Err(ElectionError::UnknownPartition) => (1, ""),
        Err(ElectionError::NotNeeded) => (2, ""),
        Err(ElectionError::PreferredNotAvailable(text)) => (3, text.as_str()),
        Err(ElectionError::NotAvailable(text)) => (4, text.as_str()),
        Err(ElectionError::Timeout) => (5, ""),
    };
    bytes.put_u8(tag);
    put_text(bytes, text);
}

fn get_elected(bytes: &mut Bytes) -> Result<Elected, CodecError> {
    let (tag, text) = (bytes.try_get_u8()?, get_text(bytes)?);
    Ok(Err(match tag {
        0 => return Ok(Ok(())),
        1 => ElectionError::UnknownPartition,
        2 => ElectionError::NotNeeded,
        3 => ElectionError::PreferredNotAvailable(text),
        5 => ElectionError::Timeout,
        // Also a reason of a newer version: what it says is all that is known.
        _ => ElectionError::NotAvailable(text),
    }))
}

fn put_quorum_member(bytes: &mut BytesMut, member: &QuorumMember) {
    put_replica(bytes, &member.replica());
    bytes.put_i64(member.log_end);
    let silent_ms = |silent: Duration| i64::try_from(silent.as_millis()).unwrap_or(i64::MAX);
    bytes.put_i64(member.silent.map_or(-1, silent_ms));
}

fn get_quorum_member(bytes: &mut Bytes) -> Result<QuorumMember, CodecError> {
    let ReplicaId { broker, directory } = get_replica(bytes)?;
    Ok(QuorumMember {
        broker,
        directory_id: directory,
        log_end: bytes.try_get_i64()?,
        silent: u64::try_from(bytes.try_get_i64()?)
            .ok()
            .map(Duration::from_millis),
    })
}

fn put_broker(bytes: &mut BytesMut, broker: Option<BrokerId>) {
    bytes.put_i32(broker.map_or(NO_BROKER, |broker| broker.0));
}

fn get_broker(bytes: &mut Bytes) -> Result<Option<BrokerId>, CodecError> {
    let raw = bytes.try_get_i32()?;
    Ok((raw >= 0).then_some(BrokerId(raw)))
}

fn put_introduction(bytes: &mut BytesMut, introduction: &Introduction) {
    bytes.put_u128(introduction.cluster_id.as_u128());
    bytes.put_u16(introduction.feature_level);
    put_broker(bytes, introduction.controller);
    let members = introduction.members.iter().take(CONTROL_MEMBERS_MAX);
    bytes.put_u16(u16::try_from(members.len()).unwrap_or_default());
    for member in members {
        put_replica(bytes, &member.replica);
        bytes.put_u8(u8::from(member.address.is_some()));
        if let Some(address) = &member.address {
            put_text(bytes, &address.host);
            bytes.put_u16(address.port);
        }
    }
}

fn get_introduction(bytes: &mut Bytes) -> Result<Introduction, CodecError> {
    let cluster_id = Uuid::from_u128(bytes.try_get_u128()?);
    let feature_level = bytes.try_get_u16()?;
    let controller = get_broker(bytes)?;
    let count = usize::from(bytes.try_get_u16()?);
    if count > CONTROL_MEMBERS_MAX {
        return Err(CodecError::Damaged("members"));
    }
    let members = (0..count)
        .map(|_| get_member(bytes))
        .collect::<Result<_, _>>()?;
    Ok(Introduction {
        cluster_id,
        feature_level,
        controller,
        members,
    })
}

fn get_member(bytes: &mut Bytes) -> Result<Member, CodecError> {
    let replica = get_replica(bytes)?;
    let address = if bytes.try_get_u8()? == 0 {
        None
    } else {
        let host = get_text(bytes)?;
        let port = bytes.try_get_u16()?;
        Some(PeerAddress { host, port })
    };
    Ok(Member { replica, address })
}

/// Tags of outcomes; those of errors follow from [`ERROR`] on.
const DONE: u8 = 0;
const BROKER_REGISTERED: u8 = 1;
const TOPIC_CREATED: u8 = 2;
const PRODUCER_IDS: u8 = 3;
const ERROR: u8 = 64;

fn put_outcome(bytes: &mut BytesMut, outcome: &Outcome) {
    match outcome {
        Outcome::Done => bytes.put_u8(DONE),
        Outcome::BrokerRegistered { broker_epoch } => {
            bytes.put_u8(BROKER_REGISTERED);
            bytes.put_i64(*broker_epoch);
        }
        Outcome::TopicCreated { id } => {
            bytes.put_u8(TOPIC_CREATED);
            bytes.put_u128(id.0.as_u128());
        }
        Outcome::ProducerIds { first, count } => {
            bytes.put_u8(PRODUCER_IDS);
            bytes.put_i64(first.0);
            bytes.put_i32(*count);
        }
    }
}

fn put_error(bytes: &mut BytesMut, error: &MetadataError) {
    let (tag, text) = match error {
        MetadataError::TopicExists(name) => (0, name.to_string()),
        MetadataError::AlreadyBootstrapped(id) => (1, id.to_string()),
        MetadataError::TopicIdExists => (2, String::new()),
        MetadataError::UnknownTopic => (3, String::new()),
        MetadataError::InvalidTopicName(text) => (4, text.clone()),
        MetadataError::TopicNameCollision { existing } => (5, existing.to_string()),
        MetadataError::InvalidPartitions(text) => (6, text.clone()),
        MetadataError::InvalidReplicaAssignment(text) => (7, text.clone()),
        MetadataError::UnknownBroker(id) => (8, id.to_string()),
        MetadataError::InvalidConfig(text) => (9, text.clone()),
        MetadataError::BrokerIdTaken(id) => (10, id.to_string()),
        MetadataError::ProducerIds(text) => (11, text.clone()),
        MetadataError::InvalidFeature(text) => (12, text.clone()),
        MetadataError::LevelTooLow(text) => (17, text.clone()),
        MetadataError::Unsupported(text) => (13, text.clone()),
        MetadataError::UnknownPartition => (14, String::new()),
        MetadataError::NoReassignment => (15, String::new()),
        MetadataError::BrokerInUse(text) => (16, text.clone()),
    };
    bytes.put_u8(ERROR + tag);
    put_text(bytes, &text);
}

fn get_result(bytes: &mut Bytes) -> Result<Result<Outcome, MetadataError>, CodecError> {
    let tag = bytes.try_get_u8()?;
    if let Some(tag) = tag.checked_sub(ERROR) {
        let text = get_text(bytes)?;
        return get_error(tag, text).map(Err);
    }
    Ok(Ok(match tag {
        DONE => Outcome::Done,
        BROKER_REGISTERED => Outcome::BrokerRegistered {
            broker_epoch: bytes.try_get_i64()?,
        },
        TOPIC_CREATED => Outcome::TopicCreated {
            id: TopicId(Uuid::from_u128(bytes.try_get_u128()?)),
        },
        PRODUCER_IDS => Outcome::ProducerIds {
            first: ProducerId(bytes.try_get_i64()?),
            count: bytes.try_get_i32()?,
        },
        _ => return Err(CodecError::Damaged("outcome tag")),
    }))
}

fn get_error(tag: u8, text: String) -> Result<MetadataError, CodecError> {
    let broker = |text: &str| -> Result<BrokerId, CodecError> {
        let id = text.parse().map_err(|_| CodecError::Damaged("broker id"))?;
        Ok(BrokerId(id))
    };
    let topic = |text: &str| TopicName::from(text);
    Ok(match tag {
        0 => MetadataError::TopicExists(topic(&text)),
        1 => {
            let id = Uuid::parse_str(&text).map_err(|_| CodecError::Damaged("cluster id"))?;
            MetadataError::AlreadyBootstrapped(id)
        }
        2 => MetadataError::TopicIdExists,
        3 => MetadataError::UnknownTopic,
        4 => MetadataError::InvalidTopicName(text),
        5 => MetadataError::TopicNameCollision {
            existing: topic(&text),
        },
        6 => MetadataError::InvalidPartitions(text),
        7 => MetadataError::InvalidReplicaAssignment(text),
        8 => MetadataError::UnknownBroker(broker(&text)?),
        9 => MetadataError::InvalidConfig(text),
        10 => MetadataError::BrokerIdTaken(broker(&text)?),
        11 => MetadataError::ProducerIds(text),
        12 => MetadataError::InvalidFeature(text),
        13 => MetadataError::Unsupported(text),
        14 => MetadataError::UnknownPartition,
        15 => MetadataError::NoReassignment,
        16 => MetadataError::BrokerInUse(text),
        17 => MetadataError::LevelTooLow(text),
        // A rule of a newer version: what it says is all that is known.
        _ => MetadataError::Unsupported(text),
    })
}

#[cfg(test)]
mod tests;
