//! LeaveGroup: members that go, or that an administrator removes.

use tidelog_protocol::messages::leave_group_request::MemberIdentity;
use tidelog_protocol::messages::leave_group_response::MemberResponse;
use tidelog_protocol::messages::{LeaveGroupRequest, LeaveGroupResponse};

use crate::coordinator::group::{Event, GroupError, Leave, Leaver, Reply};
use crate::kafka::context::RequestContext;
use crate::kafka::handlers::{HandlerError, group_fields as fields};

/// From this version on, a request names several members and each gets its own error.
const BATCHED_VERSION_MIN: i16 = 3;

/// Leaves.
pub async fn handle(
    cx: &RequestContext,
    request: LeaveGroupRequest,
) -> Result<LeaveGroupResponse, HandlerError> {
    let batched = cx.version() >= BATCHED_VERSION_MIN;
    let members = if batched {
        request.members.clone()
    } else {
        vec![
            MemberIdentity::default()
                .with_member_id(request.member_id.clone())
                .with_group_instance_id(None),
        ]
    };
    let outcomes = match leave(cx, &request, &members).await {
        Ok(outcomes) => outcomes,
        Err(error) => return Ok(LeaveGroupResponse::default().with_error_code(error.code().code())),
    };
    let code =
        |outcome: &Result<(), GroupError>| outcome.err().map_or(0, |error| error.code().code());
    if !batched {
        return Ok(LeaveGroupResponse::default().with_error_code(outcomes.first().map_or(0, code)));
    }
    let responses = members.into_iter().zip(&outcomes).map(|(member, outcome)| {
        MemberResponse::default()
            .with_member_id(member.member_id)
            .with_group_instance_id(member.group_instance_id)
            .with_error_code(code(outcome))
    });
    Ok(LeaveGroupResponse::default().with_members(responses.collect()))
}

async fn leave(
    cx: &RequestContext,
    request: &LeaveGroupRequest,
    members: &[MemberIdentity],
) -> Result<Vec<Result<(), GroupError>>, GroupError> {
    let group = fields::member_group_id(&request.group_id)?;
    let leaver = |member: &MemberIdentity| Leaver {
        member: fields::member_id(&member.member_id),
        instance: fields::instance_id(member.group_instance_id.as_ref()),
    };
    let members = members.iter().map(leaver).collect();
    match cx
        .broker
        .groups
        .request(group, |token| Event::Leave(Leave { token, members }))
        .await?
    {
        Reply::Leave(outcome) => outcome,
        _ => Err(GroupError::StorageFailed),
    }
}
