//! Entries without records, votes, checkpoints and snapshots as bytes.
//!
//! Every body opens with a version (u8) and the feature level that the version came with (u16). All numbers are big-endian.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Buf, BufMut, Bytes, BytesMut, TryGetError};
use openraft::{EntryPayload, Membership};
use tidelog_protocol::types::{BrokerId, LeaderEpoch, Offset};
use tidelog_storage::log::{EntryId, EntryIndex, LogPosition, ProducerStateTable};
use uuid::Uuid;

use super::types::{GroupCommand, LogId, ReplicaId, StoredMembership, Vote};
use crate::metadata::levels::FEATURE_LEVEL_MIN;

/// Version of all bodies so far.
const VERSION: u8 = 1;

/// Tags of opaque log entries. On disk: never change one.
pub mod tag {
    /// Written by a new leader to commit what came before it.
    pub const BLANK: u8 = 1;
    /// Who votes.
    pub const MEMBERSHIP: u8 = 2;
    /// The log start moves.
    pub const LOG_START: u8 = 3;
    /// A batch that lost its place.
    pub const VOID: u8 = 4;
    /// A record of the cluster metadata.
    pub const METADATA: u8 = 5;
}

/// A payload as openraft knows it.
pub type Payload = EntryPayload<GroupCommand, ReplicaId, ()>;

/// Why stored bytes cannot be used.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum CodecError {
    /// Cut or senseless.
    #[error("damaged: {0}")]
    Damaged(&'static str),
    /// Written by a newer program.
    #[error("version {version}, written at feature level {level}, is not known")]
    Version {
        /// Version found.
        version: u8,
        /// Level of the writer.
        level: u16,
    },
}

impl From<TryGetError> for CodecError {
    fn from(_: TryGetError) -> Self {
        CodecError::Damaged("cut")
    }
}

/// What a group remembers of its progress, so that a start need not read the log from its beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Last entry applied.
    pub applied: LogId,
    /// High watermark after it.
    pub high_watermark: Offset,
    /// Log start after it.
    pub log_start: Offset,
    /// Last membership up to it.
    pub membership: StoredMembership,
}

/// A snapshot of a partition group: where the log begins, and nothing of what it holds.
#[derive(Clone, Debug)]
pub struct PartitionSnapshot {
    /// Boundary.
    pub position: LogPosition,
    /// Membership at the boundary.
    pub membership: StoredMembership,
}

impl PartitionSnapshot {
    /// Whether compaction has left records before the boundary, which a log that begins there needs too.
    pub fn needs_records(&self) -> bool {
        self.position.log_start < self.position.next_offset
    }

    /// Progress of a group whose log begins at the boundary.
    pub fn checkpoint(&self) -> Result<Checkpoint, CodecError> {
        Ok(Checkpoint {
            applied: log_id(self.position.last)
                .ok_or(CodecError::Damaged("a snapshot of nothing"))?,
            high_watermark: self.position.next_offset,
            log_start: self.position.log_start,
            membership: self.membership.clone(),
        })
    }
}

/// Index of an entry in the log: openraft counts from 0, the log from 1.
pub fn entry_index(raft_index: u64) -> EntryIndex {
    EntryIndex(raft_index.saturating_add(1))
}

/// Identity of an entry in the log.
pub fn entry_id(id: &LogId) -> Result<EntryId, CodecError> {
    let epoch = super::types::epoch_of(id.leader_id.term).ok_or(CodecError::Damaged("term"))?;
    Ok(EntryId {
        epoch,
        index: entry_index(id.index),
    })
}

/// Identity of an entry for openraft; `None` for the place before the first entry.
pub fn log_id(id: EntryId) -> Option<LogId> {
    let index = id.index.0.checked_sub(1)?;
    Some(LogId::new_term_index(
        u64::try_from(id.epoch.0).unwrap_or_default(),
        index,
    ))
}

/// Tag and bytes of an entry without records.
pub fn encode_opaque(payload: &Payload) -> (u8, Bytes) {
    let mut bytes = header();
    let tag = match payload {
        EntryPayload::Blank => tag::BLANK,
        EntryPayload::Membership(membership) => {
            put_membership(&mut bytes, membership);
            tag::MEMBERSHIP
        }
        EntryPayload::Normal(GroupCommand::LogStart(offset)) => {
            bytes.put_i64(offset.0);
            tag::LOG_START
        }
        EntryPayload::Normal(GroupCommand::Metadata(record)) => {
            bytes.put_slice(record);
            tag::METADATA
        }
        // Batches take the other way, unless they lost their place.
        EntryPayload::Normal(_) => tag::VOID,
    };
    (tag, bytes.freeze())
}

/// The payload that [`encode_opaque`] wrote.
pub fn decode_opaque(tag: u8, mut bytes: Bytes) -> Result<Payload, CodecError> {
    check_header(&mut bytes)?;
    let payload = match tag {
        tag::BLANK => EntryPayload::Blank,
        tag::MEMBERSHIP => EntryPayload::Membership(get_membership(&mut bytes)?),
        tag::LOG_START => {
            EntryPayload::Normal(GroupCommand::LogStart(Offset(bytes.try_get_i64()?)))
        }
        tag::VOID => EntryPayload::Normal(GroupCommand::Void),
        tag::METADATA => EntryPayload::Normal(GroupCommand::Metadata(bytes)),
        _ => return Err(CodecError::Damaged("entry tag")),
    };
    Ok(payload)
}

/// Bytes of a vote.
pub fn encode_vote(vote: &Vote) -> Bytes {
    let mut bytes = header();
    put_vote(&mut bytes, vote);
    bytes.freeze()
}

/// The vote that [`encode_vote`] wrote.
pub fn decode_vote(mut bytes: Bytes) -> Result<Vote, CodecError> {
    check_header(&mut bytes)?;
    get_vote(&mut bytes)
}

/// Bytes of a checkpoint.
pub fn encode_checkpoint(checkpoint: &Checkpoint) -> Bytes {
    let mut bytes = header();
    put_log_id(&mut bytes, Some(&checkpoint.applied));
    bytes.put_i64(checkpoint.high_watermark.0);
    bytes.put_i64(checkpoint.log_start.0);
    put_stored_membership(&mut bytes, &checkpoint.membership);
    bytes.freeze()
}

/// The checkpoint that [`encode_checkpoint`] wrote.
pub fn decode_checkpoint(mut bytes: Bytes) -> Result<Checkpoint, CodecError> {
    check_header(&mut bytes)?;
    Ok(Checkpoint {
        applied: get_log_id(&mut bytes)?.ok_or(CodecError::Damaged("applied entry"))?,
        high_watermark: Offset(bytes.try_get_i64()?),
        log_start: Offset(bytes.try_get_i64()?),
        membership: get_stored_membership(&mut bytes)?,
    })
}

/// Bytes of a partition's snapshot.
pub fn encode_snapshot(snapshot: &PartitionSnapshot) -> Bytes {
    let mut bytes = header();
    put_entry_id(&mut bytes, snapshot.position.last);
    bytes.put_i64(snapshot.position.next_offset.0);
    bytes.put_i64(snapshot.position.log_start.0);
    put_stored_membership(&mut bytes, &snapshot.membership);
    bytes.put_slice(&snapshot.position.producers.encode());
    bytes.freeze()
}

/// The snapshot that [`encode_snapshot`] wrote.
pub fn decode_snapshot(mut bytes: Bytes) -> Result<PartitionSnapshot, CodecError> {
    check_header(&mut bytes)?;
    let last = get_entry_id(&mut bytes)?;
    let next_offset = Offset(bytes.try_get_i64()?);
    let log_start = Offset(bytes.try_get_i64()?);
    let membership = get_stored_membership(&mut bytes)?;
    let producers =
        ProducerStateTable::decode(&bytes).ok_or(CodecError::Damaged("producer state"))?;
    Ok(PartitionSnapshot {
        position: LogPosition {
            last,
            next_offset,
            log_start,
            producers,
        },
        membership,
    })
}

/// Bytes of a stored membership, without a header of their own.
pub fn put_stored_membership(bytes: &mut BytesMut, membership: &StoredMembership) {
    put_log_id(bytes, membership.log_id().as_ref());
    put_membership(bytes, membership.membership());
}

/// What [`put_stored_membership`] wrote.
pub fn get_stored_membership(bytes: &mut Bytes) -> Result<StoredMembership, CodecError> {
    let log_id = get_log_id(bytes)?;
    Ok(StoredMembership::new(log_id, get_membership(bytes)?))
}

/// Opens a body.
pub fn header() -> BytesMut {
    let mut bytes = BytesMut::with_capacity(64);
    bytes.put_u8(VERSION);
    // The level that bodies of this version came with.
    bytes.put_u16(FEATURE_LEVEL_MIN);
    bytes
}

/// Reads what [`header`] wrote.
pub fn check_header(bytes: &mut Bytes) -> Result<(), CodecError> {
    let version = bytes.try_get_u8()?;
    let level = bytes.try_get_u16()?;
    if version == VERSION {
        Ok(())
    } else {
        Err(CodecError::Version { version, level })
    }
}

/// Term, replica and whether it is committed.
pub fn put_vote(bytes: &mut BytesMut, vote: &Vote) {
    bytes.put_u64(vote.leader_id.term);
    put_replica(bytes, &vote.leader_id.voted_for);
    bytes.put_u8(u8::from(vote.committed));
}

/// What [`put_vote`] wrote.
pub fn get_vote(bytes: &mut Bytes) -> Result<Vote, CodecError> {
    let term = bytes.try_get_u64()?;
    let replica = get_replica(bytes)?;
    let committed = bytes.try_get_u8()? != 0;
    Ok(if committed {
        Vote::new_committed(term, replica)
    } else {
        Vote::new(term, replica)
    })
}

/// Term and index, or a mark that there is none.
pub fn put_log_id(bytes: &mut BytesMut, id: Option<&LogId>) {
    bytes.put_u8(u8::from(id.is_some()));
    if let Some(id) = id {
        bytes.put_u64(id.leader_id.term);
        bytes.put_u64(id.index);
    }
}

/// What [`put_log_id`] wrote.
pub fn get_log_id(bytes: &mut Bytes) -> Result<Option<LogId>, CodecError> {
    if bytes.try_get_u8()? == 0 {
        return Ok(None);
    }
    let term = bytes.try_get_u64()?;
    Ok(Some(LogId::new_term_index(term, bytes.try_get_u64()?)))
}

/// Epoch and index of an entry as the log counts them.
pub fn put_entry_id(bytes: &mut BytesMut, id: EntryId) {
    bytes.put_i32(id.epoch.0);
    bytes.put_u64(id.index.0);
}

/// What [`put_entry_id`] wrote.
pub fn get_entry_id(bytes: &mut Bytes) -> Result<EntryId, CodecError> {
    Ok(EntryId {
        epoch: LeaderEpoch(bytes.try_get_i32()?),
        index: EntryIndex(bytes.try_get_u64()?),
    })
}

/// Broker and directory.
pub fn put_replica(bytes: &mut BytesMut, replica: &ReplicaId) {
    bytes.put_i32(replica.broker.0);
    bytes.put_u128(replica.directory.as_u128());
}

/// What [`put_replica`] wrote.
pub fn get_replica(bytes: &mut Bytes) -> Result<ReplicaId, CodecError> {
    let broker = BrokerId(bytes.try_get_i32()?);
    Ok(ReplicaId {
        broker,
        directory: Uuid::from_u128(bytes.try_get_u128()?),
    })
}

/// Sets of voters (two while voters change), then all members.
fn put_membership(bytes: &mut BytesMut, membership: &Membership<ReplicaId, ()>) {
    let count = |len: usize| u16::try_from(len).expect("a group has a handful of members");
    let configs = membership.get_joint_config();
    bytes.put_u16(count(configs.len()));
    for voters in configs {
        bytes.put_u16(count(voters.len()));
        voters.iter().for_each(|voter| put_replica(bytes, voter));
    }
    bytes.put_u16(count(membership.nodes().count()));
    membership
        .nodes()
        .for_each(|(member, ())| put_replica(bytes, member));
}

fn get_membership(bytes: &mut Bytes) -> Result<Membership<ReplicaId, ()>, CodecError> {
    let mut configs = Vec::new();
    for _ in 0..bytes.try_get_u16()? {
        configs.push(get_replicas(bytes)?);
    }
    let nodes: BTreeMap<ReplicaId, ()> = get_replicas(bytes)?
        .into_iter()
        .map(|member| (member, ()))
        .collect();
    if configs.is_empty() && nodes.is_empty() {
        return Ok(Membership::default());
    }
    Membership::new(configs, nodes).map_err(|_| CodecError::Damaged("membership"))
}

fn get_replicas(bytes: &mut Bytes) -> Result<BTreeSet<ReplicaId>, CodecError> {
    (0..bytes.try_get_u16()?)
        .map(|_| get_replica(bytes))
        .collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn replica(broker: i32) -> ReplicaId {
        ReplicaId {
            broker: BrokerId(broker),
            directory: Uuid::from_u128(u128::from(broker.unsigned_abs()) << 90),
        }
    }

    pub(crate) fn membership() -> Membership<ReplicaId, ()> {
        let voters = |ids: &[i32]| ids.iter().copied().map(replica).collect::<BTreeSet<_>>();
        let nodes: BTreeMap<_, _> = (1..=5).map(|id| (replica(id), ())).collect();
        Membership::new(vec![voters(&[1, 2, 3]), voters(&[2, 3, 4])], nodes).expect("valid")
    }

    fn round_trip(payload: &Payload) -> Payload {
        let (tag, bytes) = encode_opaque(payload);
        decode_opaque(tag, bytes).expect("decodes")
    }

    #[test]
    fn entries_without_records_read_back() {
        assert!(matches!(
            round_trip(&EntryPayload::Blank),
            EntryPayload::Blank
        ));
        let EntryPayload::Membership(back) = round_trip(&EntryPayload::Membership(membership()))
        else {
            panic!("not a membership");
        };
        assert_eq!(back, membership());
        let start = EntryPayload::Normal(GroupCommand::LogStart(Offset(1 << 40)));
        assert!(
            matches!(round_trip(&start), EntryPayload::Normal(GroupCommand::LogStart(Offset(o))) if o == 1 << 40)
        );
        let record = EntryPayload::Normal(GroupCommand::Metadata(Bytes::from_static(b"abc")));
        assert!(
            matches!(round_trip(&record), EntryPayload::Normal(GroupCommand::Metadata(b)) if b == "abc")
        );
        let void = EntryPayload::Normal(GroupCommand::Void);
        assert!(matches!(
            round_trip(&void),
            EntryPayload::Normal(GroupCommand::Void)
        ));
    }

    #[test]
    fn votes_and_checkpoints_read_back() {
        for vote in [
            Vote::new(7, replica(3)),
            Vote::new_committed(u64::MAX, replica(-1)),
        ] {
            assert_eq!(decode_vote(encode_vote(&vote)), Ok(vote));
        }
        let checkpoint = Checkpoint {
            applied: LogId::new_term_index(3, 99),
            high_watermark: Offset(1000),
            log_start: Offset(10),
            membership: StoredMembership::new(Some(LogId::new_term_index(0, 0)), membership()),
        };
        assert_eq!(
            decode_checkpoint(encode_checkpoint(&checkpoint)),
            Ok(checkpoint)
        );
    }

    #[test]
    fn cut_and_newer_bytes_are_refused() {
        let bytes = encode_vote(&Vote::new(7, replica(3)));
        for len in 0..bytes.len() {
            assert!(decode_vote(bytes.slice(..len)).is_err(), "{len}");
        }
        let newer = Bytes::from_static(b"\x02\x00\x05rest");
        assert_eq!(
            decode_vote(newer.clone()),
            Err(CodecError::Version {
                version: 2,
                level: 5
            })
        );
        assert!(decode_opaque(tag::BLANK, newer).is_err());
        assert!(decode_opaque(99, header().freeze()).is_err());
    }

    #[test]
    fn indexes_are_shifted_by_one() {
        assert_eq!(log_id(EntryId::default()), None);
        let id = LogId::new_term_index(4, 0);
        let entry = entry_id(&id).expect("small term");
        assert_eq!(
            entry,
            EntryId {
                epoch: LeaderEpoch(4),
                index: EntryIndex(1)
            }
        );
        assert_eq!(log_id(entry), Some(id));
        assert!(entry_id(&LogId::new_term_index(1 << 31, 0)).is_err());
    }
}
