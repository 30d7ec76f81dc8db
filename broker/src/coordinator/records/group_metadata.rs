//! GroupMetadataValue, version 3.

use std::sync::Arc;

use bytes::{BufMut, Bytes};
use tidelog_protocol::types::TimestampMs;

use super::wire::{Fields, put_bytes, put_nullable_string, put_string};
use super::{FieldTooLong, RecordError};
use crate::coordinator::group::{
    ClientIdentity, Generation, GroupMetadata, InstanceId, MemberId, StoredMember, Timeouts,
};

const VERSION: i16 = 3;

pub(super) fn encode(metadata: &GroupMetadata) -> Result<Bytes, FieldTooLong> {
    let mut out = Vec::with_capacity(64 + 128 * metadata.members.len());
    out.put_i16(VERSION);
    put_string(&mut out, metadata.protocol_type.as_deref().unwrap_or(""))?;
    out.put_i32(metadata.generation.0);
    put_nullable_string(&mut out, metadata.protocol.as_deref())?;
    put_nullable_string(&mut out, metadata.leader.as_ref().map(|leader| &*leader.0))?;
    out.put_i64(metadata.state_timestamp.0);
    let count =
        i32::try_from(metadata.members.len()).map_err(|_| FieldTooLong(metadata.members.len()))?;
    out.put_i32(count);
    for member in &metadata.members {
        put_string(&mut out, &member.id.0)?;
        put_nullable_string(
            &mut out,
            member.instance.as_ref().map(|instance| &*instance.0),
        )?;
        put_string(&mut out, &member.client.id)?;
        put_string(&mut out, &member.client.host)?;
        out.put_i32(millis(member.timeouts.rebalance_ms));
        out.put_i32(millis(member.timeouts.session_ms));
        put_bytes(&mut out, &member.subscription)?;
        put_bytes(&mut out, &member.assignment)?;
    }
    Ok(Bytes::from(out))
}

pub(super) fn decode(bytes: &[u8]) -> Result<GroupMetadata, RecordError> {
    let mut fields = Fields(bytes);
    let version = fields.i16("group version")?;
    if version != VERSION {
        return Err(RecordError::Version("group", version));
    }
    let protocol_type = Some(fields.string("protocol type")?).filter(|name| !name.is_empty());
    let generation = Generation(fields.i32("generation")?);
    let protocol = fields.nullable_string("protocol")?;
    let leader = fields.nullable_string("leader")?.map(MemberId);
    let state_timestamp = TimestampMs(fields.i64("state timestamp")?);
    let count = fields.i32("member count")?;
    let mut members = Vec::new();
    for _ in 0..count.max(0) {
        members.push(decode_member(&mut fields)?);
    }
    fields.end()?;
    Ok(GroupMetadata {
        protocol_type,
        generation,
        protocol,
        leader,
        state_timestamp,
        members,
    })
}

fn decode_member(fields: &mut Fields<'_>) -> Result<StoredMember, RecordError> {
    let id = MemberId(fields.string("member id")?);
    let instance = fields.nullable_string("instance id")?.map(InstanceId);
    let client_id: Arc<str> = fields.string("client id")?;
    let host = fields.string("client host")?;
    let rebalance_ms = u32::try_from(fields.i32("rebalance timeout")?).unwrap_or(0);
    let session_ms = u32::try_from(fields.i32("session timeout")?).unwrap_or(0);
    Ok(StoredMember {
        id,
        instance,
        client: ClientIdentity {
            id: client_id,
            host,
        },
        timeouts: Timeouts {
            session_ms,
            rebalance_ms,
        },
        subscription: fields.bytes("subscription")?,
        assignment: fields.bytes("assignment")?,
    })
}

/// Time-outs come from i32 fields, so they fit back.
fn millis(ms: u32) -> i32 {
    i32::try_from(ms).unwrap_or(i32::MAX)
}
