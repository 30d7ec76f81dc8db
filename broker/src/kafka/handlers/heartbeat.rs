//! Heartbeat: a member lives, and learns whether its group rebalances.

use tidelog_protocol::messages::{HeartbeatRequest, HeartbeatResponse};

use crate::coordinator::group::{Event, Generation, GroupError, Heartbeat, Reply};
use crate::kafka::context::RequestContext;
use crate::kafka::handlers::{HandlerError, group_fields as fields};

/// Beats.
pub async fn handle(
    cx: &RequestContext,
    request: HeartbeatRequest,
) -> Result<HeartbeatResponse, HandlerError> {
    Ok(match beat(cx, request).await {
        Ok(()) => HeartbeatResponse::default(),
        // A coordinator that loads has not forgotten the member: Kafka answers so that it goes on.
        Err(GroupError::LoadInProgress) => HeartbeatResponse::default(),
        Err(error) => HeartbeatResponse::default().with_error_code(error.code().code()),
    })
}

async fn beat(cx: &RequestContext, request: HeartbeatRequest) -> Result<(), GroupError> {
    let group = fields::member_group_id(&request.group_id)?;
    let member = fields::member_id(&request.member_id).ok_or(GroupError::UnknownMember)?;
    let reply = cx.broker.groups.request(group, |token| {
        Event::Heartbeat(Heartbeat {
            token,
            member,
            instance: fields::instance_id(request.group_instance_id.as_ref()),
            generation: Generation(request.generation_id),
        })
    });
    match reply.await? {
        Reply::Heartbeat(outcome) => outcome,
        _ => Err(GroupError::StorageFailed),
    }
}
