//! Bodies of requests and replies.
//!
//! Each opens as the bodies of `raft::codec` do, with a version and the writer's feature level; requests of a group
//! go on with the group, so that they find their way before the rest is read. What does not fit the version to the
//! last byte is refused: a peer's bytes must not become entries of a log by chance.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use openraft::EntryPayload;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderError,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use tidelog_protocol::batch::RecordBatch;
use tidelog_protocol::types::{PartitionIndex, TopicId};
use uuid::Uuid;

use super::frame::BodyWriter;
use super::service::{CallKind, Refusal, RefusalCode};
use crate::limits::PEER_TEXT_BYTES_MAX;
use crate::raft::codec::{
    self, CodecError, check_header, get_log_id, get_replica, put_log_id, put_replica,
};
use crate::raft::types::{
    Entry, GroupCommand, GroupId, GroupTypes, LogId, StoredMembership, Vote, epoch_of,
};

/// Tag of an entry that is a record batch; the others are those of `raft::codec::tag`.
const BATCH: u8 = 0;

/// Bytes that describe one entry: term, index, tag, length.
const ENTRY_BYTES: usize = 8 + 8 + 1 + 4;

const SUCCESS: u8 = 0;
const PARTIAL: u8 = 1;
const CONFLICT: u8 = 2;
const HIGHER_VOTE: u8 = 3;

const TRANSFERRED: u8 = 0;
const VOTE_CHANGED: u8 = 1;
const NOT_FLUSHED: u8 = 2;

/// A snapshot that is about to come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotAnnouncement {
    /// Vote of the leader that sends it.
    pub vote: Vote,
    /// Names the bytes: the same for the same bytes, and for no others.
    pub id: u128,
    /// Bytes in all.
    pub bytes: u64,
    /// Last entry in it.
    pub last: Option<LogId>,
    /// Members as of that entry.
    pub membership: StoredMembership,
}

/// A piece of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotPiece {
    /// Of which.
    pub id: u128,
    /// Position of its first byte.
    pub offset: u64,
    /// Bytes.
    pub bytes: Bytes,
}

/// Opens the body of a request of a group.
fn request_of(group: GroupId) -> BodyWriter {
    let mut body = open();
    let bytes = body.buffer();
    bytes.put_u128(group.topic.0.as_u128());
    bytes.put_i32(group.partition.0);
    body
}

/// Opens a body.
fn open() -> BodyWriter {
    let mut body = BodyWriter::new();
    body.buffer().put_slice(&codec::header());
    body
}

/// The group that a request is of; leaves what follows.
pub fn read_group(bytes: &mut Bytes) -> Result<GroupId, CodecError> {
    check_header(bytes)?;
    Ok(GroupId {
        topic: TopicId(Uuid::from_u128(bytes.try_get_u128()?)),
        partition: PartitionIndex(bytes.try_get_i32()?),
    })
}

fn end<T>(bytes: &Bytes, read: T) -> Result<T, CodecError> {
    if bytes.is_empty() {
        Ok(read)
    } else {
        Err(CodecError::Damaged("bytes behind the end"))
    }
}

/// A flag is 0 or 1.
fn get_flag(bytes: &mut Bytes) -> Result<bool, CodecError> {
    match bytes.try_get_u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(CodecError::Damaged("flag")),
    }
}

/// A vote of a term that can be a leader epoch: one beyond would stop the group that saved it.
fn get_vote(bytes: &mut Bytes) -> Result<Vote, CodecError> {
    let vote = codec::get_vote(bytes)?;
    epoch_of(vote.leader_id.term).ok_or(CodecError::Damaged("term"))?;
    Ok(vote)
}

/// Body of an append. Record bytes are spliced.
pub fn encode_append(
    group: GroupId,
    request: AppendEntriesRequest<GroupTypes>,
) -> Result<BodyWriter, CodecError> {
    let mut body = request_of(group);
    let bytes = body.buffer();
    codec::put_vote(bytes, &request.vote);
    put_log_id(bytes, request.prev_log_id.as_ref());
    put_log_id(bytes, request.leader_commit.as_ref());
    let count = u32::try_from(request.entries.len());
    bytes.put_u32(count.map_err(|_| CodecError::Damaged("number of entries"))?);
    for entry in request.entries {
        put_entry(&mut body, entry)?;
    }
    Ok(body)
}

fn put_entry(body: &mut BodyWriter, entry: Entry) -> Result<(), CodecError> {
    let length = |len: usize| u32::try_from(len).map_err(|_| CodecError::Damaged("entry size"));
    let bytes = body.buffer();
    bytes.put_u64(entry.log_id.leader_id.term);
    bytes.put_u64(entry.log_id.index);
    match entry.payload {
        EntryPayload::Normal(GroupCommand::Batch { batch, .. }) => {
            bytes.put_u8(BATCH);
            bytes.put_u32(length(batch.size_bytes())?);
            bytes.put_slice(batch.header_bytes());
            body.splice(batch.records_bytes().clone());
        }
        EntryPayload::Normal(GroupCommand::BatchHeader { .. }) => {
            return Err(CodecError::Damaged("an entry without its records"));
        }
        payload => {
            let (tag, opaque) = codec::encode_opaque(&payload);
            bytes.put_u8(tag);
            bytes.put_u32(length(opaque.len())?);
            body.splice(opaque);
        }
    }
    Ok(())
}

/// The append that [`encode_append`] wrote, behind its group. Batches are slices of `bytes`.
pub fn decode_append(mut bytes: Bytes) -> Result<AppendEntriesRequest<GroupTypes>, CodecError> {
    let vote = get_vote(&mut bytes)?;
    let prev_log_id = get_log_id(&mut bytes)?;
    let leader_commit = get_log_id(&mut bytes)?;
    let count = usize::try_from(bytes.try_get_u32()?)
        .ok()
        .filter(|count| *count <= bytes.len() / ENTRY_BYTES)
        .ok_or(CodecError::Damaged("number of entries"))?;
    let mut entries = Vec::with_capacity(count);
    let mut before = prev_log_id;
    for _ in 0..count {
        let entry = get_entry(&mut bytes)?;
        if !follows(before, entry.log_id) {
            return Err(CodecError::Damaged("order of entries"));
        }
        before = Some(entry.log_id);
        entries.push(entry);
    }
    let request = AppendEntriesRequest {
        vote,
        prev_log_id,
        entries,
        leader_commit,
    };
    end(&bytes, request)
}

fn follows(before: Option<LogId>, id: LogId) -> bool {
    match before {
        None => id.index == 0,
        Some(before) => {
            before.index.checked_add(1) == Some(id.index) && before.leader_id <= id.leader_id
        }
    }
}

fn get_entry(bytes: &mut Bytes) -> Result<Entry, CodecError> {
    let term = bytes.try_get_u64()?;
    epoch_of(term).ok_or(CodecError::Damaged("term"))?;
    let log_id = LogId::new_term_index(term, bytes.try_get_u64()?);
    let tag = bytes.try_get_u8()?;
    let len = usize::try_from(bytes.try_get_u32()?)
        .ok()
        .filter(|len| *len <= bytes.len())
        .ok_or(CodecError::Damaged("entry size"))?;
    let mut content = bytes.split_to(len);
    let payload = if tag == BATCH {
        let batch = RecordBatch::split_first(&mut content)
            .map_err(|_| CodecError::Damaged("record batch"))?;
        if !content.is_empty() || !batch.checksum_matches() {
            return Err(CodecError::Damaged("record batch"));
        }
        EntryPayload::Normal(GroupCommand::Batch {
            batch,
            submission: None,
        })
    } else {
        codec::decode_opaque(tag, content)?
    };
    Ok(Entry { log_id, payload })
}

/// Body of the answer to an append.
pub fn encode_append_reply(reply: &AppendEntriesResponse<GroupTypes>) -> BodyWriter {
    let mut body = open();
    let bytes = body.buffer();
    match reply {
        AppendEntriesResponse::Success => bytes.put_u8(SUCCESS),
        AppendEntriesResponse::PartialSuccess(matching) => {
            bytes.put_u8(PARTIAL);
            put_log_id(bytes, matching.as_ref());
        }
        AppendEntriesResponse::Conflict => bytes.put_u8(CONFLICT),
        AppendEntriesResponse::HigherVote(vote) => {
            bytes.put_u8(HIGHER_VOTE);
            codec::put_vote(bytes, vote);
        }
    }
    body
}

/// The answer that [`encode_append_reply`] wrote.
pub fn decode_append_reply(
    mut bytes: Bytes,
) -> Result<AppendEntriesResponse<GroupTypes>, CodecError> {
    check_header(&mut bytes)?;
    let reply = match bytes.try_get_u8()? {
        SUCCESS => AppendEntriesResponse::Success,
        PARTIAL => AppendEntriesResponse::PartialSuccess(get_log_id(&mut bytes)?),
        CONFLICT => AppendEntriesResponse::Conflict,
        HIGHER_VOTE => AppendEntriesResponse::HigherVote(get_vote(&mut bytes)?),
        _ => return Err(CodecError::Damaged("answer to an append")),
    };
    end(&bytes, reply)
}

/// Body of a request for a vote, or of the question whether it would be given.
pub fn encode_vote(group: GroupId, request: &VoteRequest<GroupTypes>) -> BodyWriter {
    let mut body = request_of(group);
    let bytes = body.buffer();
    codec::put_vote(bytes, &request.vote);
    put_log_id(bytes, request.last_log_id.as_ref());
    bytes.put_u8(u8::from(request.leadership_transfer));
    body
}

/// The request that [`encode_vote`] wrote, behind its group.
pub fn decode_vote(mut bytes: Bytes) -> Result<VoteRequest<GroupTypes>, CodecError> {
    let vote = get_vote(&mut bytes)?;
    let mut request = VoteRequest::new(vote, get_log_id(&mut bytes)?);
    request.leadership_transfer = get_flag(&mut bytes)?;
    end(&bytes, request)
}

/// Body of the answer to a request for a vote.
pub fn encode_vote_reply(reply: &VoteResponse<GroupTypes>) -> BodyWriter {
    let mut body = open();
    let bytes = body.buffer();
    codec::put_vote(bytes, &reply.vote);
    bytes.put_u8(u8::from(reply.vote_granted));
    put_log_id(bytes, reply.last_log_id.as_ref());
    body
}

/// The answer that [`encode_vote_reply`] wrote.
pub fn decode_vote_reply(mut bytes: Bytes) -> Result<VoteResponse<GroupTypes>, CodecError> {
    check_header(&mut bytes)?;
    let vote = get_vote(&mut bytes)?;
    let granted = get_flag(&mut bytes)?;
    let last = get_log_id(&mut bytes)?;
    end(&bytes, VoteResponse::new(vote, last, granted))
}

/// Body of a transfer of the leadership.
pub fn encode_transfer(group: GroupId, request: &TransferLeaderRequest<GroupTypes>) -> BodyWriter {
    let mut body = request_of(group);
    let bytes = body.buffer();
    codec::put_vote(bytes, request.from_leader());
    put_replica(bytes, request.to_node_id());
    put_log_id(bytes, request.last_log_id());
    body
}

/// The transfer that [`encode_transfer`] wrote, behind its group.
pub fn decode_transfer(mut bytes: Bytes) -> Result<TransferLeaderRequest<GroupTypes>, CodecError> {
    let from = get_vote(&mut bytes)?;
    let to = get_replica(&mut bytes)?;
    let last = get_log_id(&mut bytes)?;
    end(&bytes, TransferLeaderRequest::new(from, to, last))
}

/// Body of the answer to a transfer.
pub fn encode_transfer_reply(reply: &TransferLeaderResponse<GroupTypes>) -> BodyWriter {
    let mut body = open();
    let bytes = body.buffer();
    match reply {
        Ok(()) => bytes.put_u8(TRANSFERRED),
        Err(TransferLeaderError::VoteChanged { expected, actual }) => {
            bytes.put_u8(VOTE_CHANGED);
            codec::put_vote(bytes, expected);
            codec::put_vote(bytes, actual);
        }
        Err(TransferLeaderError::LogNotFlushed { expected, actual }) => {
            bytes.put_u8(NOT_FLUSHED);
            put_log_id(bytes, expected.as_ref());
            put_log_id(bytes, actual.as_ref());
        }
    }
    body
}

/// The answer that [`encode_transfer_reply`] wrote.
pub fn decode_transfer_reply(
    mut bytes: Bytes,
) -> Result<TransferLeaderResponse<GroupTypes>, CodecError> {
    check_header(&mut bytes)?;
    let reply = match bytes.try_get_u8()? {
        TRANSFERRED => Ok(()),
        VOTE_CHANGED => Err(TransferLeaderError::VoteChanged {
            expected: get_vote(&mut bytes)?,
            actual: get_vote(&mut bytes)?,
        }),
        NOT_FLUSHED => Err(TransferLeaderError::LogNotFlushed {
            expected: get_log_id(&mut bytes)?,
            actual: get_log_id(&mut bytes)?,
        }),
        _ => return Err(CodecError::Damaged("answer to a transfer")),
    };
    end(&bytes, reply)
}

/// Body that announces a snapshot.
pub fn encode_announcement(group: GroupId, snapshot: &SnapshotAnnouncement) -> BodyWriter {
    let mut body = request_of(group);
    let bytes = body.buffer();
    codec::put_vote(bytes, &snapshot.vote);
    bytes.put_u128(snapshot.id);
    bytes.put_u64(snapshot.bytes);
    put_log_id(bytes, snapshot.last.as_ref());
    codec::put_stored_membership(bytes, &snapshot.membership);
    body
}

/// The announcement that [`encode_announcement`] wrote, behind its group.
pub fn decode_announcement(mut bytes: Bytes) -> Result<SnapshotAnnouncement, CodecError> {
    let snapshot = SnapshotAnnouncement {
        vote: get_vote(&mut bytes)?,
        id: bytes.try_get_u128()?,
        bytes: bytes.try_get_u64()?,
        last: get_log_id(&mut bytes)?,
        membership: codec::get_stored_membership(&mut bytes)?,
    };
    end(&bytes, snapshot)
}

/// Body of a piece.
pub fn encode_piece(group: GroupId, piece: SnapshotPiece) -> BodyWriter {
    let mut body = request_of(group);
    body.buffer().put_u128(piece.id);
    body.buffer().put_u64(piece.offset);
    body.splice(piece.bytes);
    body
}

/// The piece that [`encode_piece`] wrote, behind its group.
pub fn decode_piece(mut bytes: Bytes) -> Result<SnapshotPiece, CodecError> {
    Ok(SnapshotPiece {
        id: bytes.try_get_u128()?,
        offset: bytes.try_get_u64()?,
        bytes,
    })
}

/// Body that ends a snapshot.
pub fn encode_snapshot_end(group: GroupId, id: u128) -> BodyWriter {
    let mut body = request_of(group);
    body.buffer().put_u128(id);
    body
}

/// Which snapshot ends; behind its group.
pub fn decode_snapshot_end(mut bytes: Bytes) -> Result<u128, CodecError> {
    let id = bytes.try_get_u128()?;
    end(&bytes, id)
}

/// Body that says how many bytes of a snapshot are there.
pub fn encode_received(bytes: u64) -> BodyWriter {
    let mut body = open();
    body.buffer().put_u64(bytes);
    body
}

/// The number that [`encode_received`] wrote.
pub fn decode_received(mut bytes: Bytes) -> Result<u64, CodecError> {
    check_header(&mut bytes)?;
    let received = bytes.try_get_u64()?;
    end(&bytes, received)
}

/// Body of the answer to a whole snapshot.
pub fn encode_snapshot_reply(reply: &SnapshotResponse<GroupTypes>) -> BodyWriter {
    let mut body = open();
    codec::put_vote(body.buffer(), &reply.vote);
    body
}

/// The answer that [`encode_snapshot_reply`] wrote.
pub fn decode_snapshot_reply(mut bytes: Bytes) -> Result<SnapshotResponse<GroupTypes>, CodecError> {
    check_header(&mut bytes)?;
    let vote = get_vote(&mut bytes)?;
    end(&bytes, SnapshotResponse::new(vote))
}

/// Body of a call. What it holds is the business of those who call and answer.
pub fn encode_call(kind: CallKind, content: Bytes) -> BodyWriter {
    let mut body = open();
    body.buffer().put_u16(kind.0);
    body.splice(content);
    body
}

/// The call that [`encode_call`] wrote.
pub fn decode_call(mut bytes: Bytes) -> Result<(CallKind, Bytes), CodecError> {
    check_header(&mut bytes)?;
    let kind = CallKind(bytes.try_get_u16()?);
    Ok((kind, bytes))
}

/// Body of the answer to a call.
pub fn encode_call_reply(content: Bytes) -> BodyWriter {
    let mut body = open();
    body.splice(content);
    body
}

/// The answer that [`encode_call_reply`] wrote.
pub fn decode_call_reply(mut bytes: Bytes) -> Result<Bytes, CodecError> {
    check_header(&mut bytes)?;
    Ok(bytes)
}

/// Body that says why a request was not carried out.
pub fn encode_refusal(refusal: &Refusal) -> BodyWriter {
    let mut body = open();
    body.buffer().put_u16(refusal.code.number());
    put_text(body.buffer(), &refusal.text);
    body
}

/// The reason that [`encode_refusal`] wrote.
pub fn decode_refusal(mut bytes: Bytes) -> Result<Refusal, CodecError> {
    check_header(&mut bytes)?;
    let code = RefusalCode::of_number(bytes.try_get_u16()?);
    let text = get_text(&mut bytes)?;
    end(&bytes, Refusal { code, text })
}

/// Text, cut to what is allowed.
pub fn put_text(bytes: &mut BytesMut, text: &str) {
    let text = &text[..text.floor_char_boundary(PEER_TEXT_BYTES_MAX)];
    bytes.put_u16(u16::try_from(text.len()).unwrap_or_default());
    bytes.put_slice(text.as_bytes());
}

/// What [`put_text`] wrote.
pub fn get_text(bytes: &mut Bytes) -> Result<String, CodecError> {
    let len = usize::from(bytes.try_get_u16()?);
    if len > bytes.len() || len > PEER_TEXT_BYTES_MAX {
        return Err(CodecError::Damaged("text"));
    }
    let text = bytes.split_to(len);
    let text = std::str::from_utf8(&text).map_err(|_| CodecError::Damaged("text"))?;
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests;
