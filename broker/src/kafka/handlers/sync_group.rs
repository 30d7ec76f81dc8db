//! SyncGroup: the leader hands in the assignment, every member fetches its part.

use tidelog_protocol::messages::{SyncGroupRequest, SyncGroupResponse};

use crate::coordinator::group::{Event, Generation, GroupError, MemberId, Reply, Sync, Synced};
use crate::kafka::context::RequestContext;
use crate::kafka::handlers::{HandlerError, group_fields as fields};

/// From this version on, a member says which protocol it believes in, and has to.
const PROTOCOL_VERSION_MIN: i16 = 5;

/// Syncs.
pub async fn handle(
    cx: &RequestContext,
    request: SyncGroupRequest,
) -> Result<SyncGroupResponse, HandlerError> {
    Ok(match sync(cx, request).await {
        Ok(synced) => accepted(synced),
        Err(error) => SyncGroupResponse::default().with_error_code(error.code().code()),
    })
}

async fn sync(cx: &RequestContext, request: SyncGroupRequest) -> Result<Synced, GroupError> {
    let group = fields::member_group_id(&request.group_id)?;
    let names_protocol = request.protocol_type.is_some() && request.protocol_name.is_some();
    if cx.version() >= PROTOCOL_VERSION_MIN && !names_protocol {
        return Err(GroupError::InconsistentProtocol);
    }
    let member = fields::member_id(&request.member_id).ok_or(GroupError::UnknownMember)?;
    let reply = cx.broker.groups.request(group, |token| {
        Event::Sync(Sync {
            token,
            member,
            instance: fields::instance_id(request.group_instance_id.as_ref()),
            generation: Generation(request.generation_id),
            protocol_type: request.protocol_type.as_ref().map(fields::text),
            protocol: request.protocol_name.as_ref().map(fields::text),
            assignments: request
                .assignments
                .iter()
                .map(|part| {
                    (
                        MemberId::from(part.member_id.as_str()),
                        fields::bytes(&part.assignment),
                    )
                })
                .collect(),
        })
    });
    match reply.await? {
        Reply::Sync(outcome) => outcome,
        _ => Err(GroupError::StorageFailed),
    }
}

fn accepted(synced: Synced) -> SyncGroupResponse {
    SyncGroupResponse::default()
        .with_protocol_type(synced.protocol_type.map(|name| fields::wire(&name)))
        .with_protocol_name(synced.protocol.map(|name| fields::wire(&name)))
        .with_assignment(synced.assignment)
}
