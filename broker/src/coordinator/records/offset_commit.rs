//! OffsetCommitValue: version 3, or version 1 where the client chose its own retention, which later versions cannot
//! say.

use bytes::{BufMut, Bytes};
use tidelog_protocol::types::{LeaderEpoch, Offset, TimestampMs};

use super::wire::{Fields, put_string};
use super::{FieldTooLong, RecordError};
use crate::coordinator::group::CommittedOffset;

const WITH_EXPIRY: i16 = 1;
const WITH_EPOCH: i16 = 3;
const NO_EPOCH: i32 = -1;

pub(super) fn encode(offset: &CommittedOffset) -> Result<Bytes, FieldTooLong> {
    let mut out = Vec::with_capacity(24 + offset.metadata.len());
    match offset.expire_timestamp {
        None => {
            out.put_i16(WITH_EPOCH);
            out.put_i64(offset.offset.0);
            out.put_i32(offset.leader_epoch.map_or(NO_EPOCH, |epoch| epoch.0));
            put_string(&mut out, &offset.metadata)?;
            out.put_i64(offset.commit_timestamp.0);
        }
        Some(expires) => {
            out.put_i16(WITH_EXPIRY);
            out.put_i64(offset.offset.0);
            put_string(&mut out, &offset.metadata)?;
            out.put_i64(offset.commit_timestamp.0);
            out.put_i64(expires.0);
        }
    }
    Ok(Bytes::from(out))
}

pub(super) fn decode(bytes: &[u8]) -> Result<CommittedOffset, RecordError> {
    let mut fields = Fields(bytes);
    let version = fields.i16("offset version")?;
    if version != WITH_EPOCH && version != WITH_EXPIRY {
        return Err(RecordError::Version("committed offset", version));
    }
    let offset = Offset(fields.i64("offset")?);
    let epoch = if version == WITH_EPOCH {
        fields.i32("leader epoch")?
    } else {
        NO_EPOCH
    };
    let metadata = fields.string("offset metadata")?;
    let commit_timestamp = TimestampMs(fields.i64("commit timestamp")?);
    let expire_timestamp = match version {
        WITH_EXPIRY => {
            Some(TimestampMs(fields.i64("expire timestamp")?)).filter(|at| *at != TimestampMs::NONE)
        }
        _ => None,
    };
    fields.end()?;
    let leader_epoch = (epoch >= 0).then_some(LeaderEpoch(epoch));
    Ok(CommittedOffset {
        offset,
        leader_epoch,
        metadata,
        commit_timestamp,
        expire_timestamp,
    })
}
