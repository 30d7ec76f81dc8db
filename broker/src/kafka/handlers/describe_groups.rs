//! DescribeGroups: groups with their members.

use futures_util::future::join_all;
use tidelog_protocol::ErrorCode;
use tidelog_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use tidelog_protocol::messages::{DescribeGroupsRequest, DescribeGroupsResponse, GroupId};

use crate::coordinator::group::{self, GroupState};
use crate::kafka::context::RequestContext;
use crate::kafka::handlers::{HandlerError, authorized_operations, group_fields as fields};

/// From this version on, a missing group is an error with a message; before, it is a dead group.
const NOT_FOUND_VERSION_MIN: i16 = 6;
/// From this version on, there is a field for what the client may do.
const OPERATIONS_VERSION_MIN: i16 = 3;

/// Describes each group that is asked for.
pub async fn handle(
    cx: &RequestContext,
    request: DescribeGroupsRequest,
) -> Result<DescribeGroupsResponse, HandlerError> {
    let operations =
        if request.include_authorized_operations && cx.version() >= OPERATIONS_VERSION_MIN {
            authorized_operations::GROUP
        } else {
            authorized_operations::NOT_ASKED
        };
    let groups = join_all(
        request
            .groups
            .into_iter()
            .map(|group| describe(cx, group, operations)),
    )
    .await;
    Ok(DescribeGroupsResponse::default().with_groups(groups))
}

async fn describe(cx: &RequestContext, id: GroupId, operations: i32) -> DescribedGroup {
    let described = match cx.broker.groups.describe(fields::group_id(&id)).await {
        Ok(Some(group)) => found(group).with_authorized_operations(operations),
        Ok(None) => missing(cx, &id),
        Err(error) => {
            let message =
                (cx.version() >= NOT_FOUND_VERSION_MIN).then(|| fields::wire(&error.to_string()));
            DescribedGroup::default()
                .with_error_code(error.code().code())
                .with_error_message(message)
        }
    };
    described.with_group_id(id)
}

fn found(group: group::DescribedGroup) -> DescribedGroup {
    let member = |member: group::DescribedMember| {
        DescribedGroupMember::default()
            .with_member_id(fields::wire(&member.member.0))
            .with_group_instance_id(member.instance.map(|instance| fields::wire(&instance.0)))
            .with_client_id(fields::wire(&member.client.id))
            .with_client_host(fields::wire(&member.client.host))
            .with_member_metadata(member.metadata)
            .with_member_assignment(member.assignment)
    };
    DescribedGroup::default()
        .with_group_state(fields::wire(group.state.name()))
        .with_protocol_type(fields::wire(&group.protocol_type))
        .with_protocol_data(fields::wire(&group.protocol))
        .with_members(group.members.into_iter().map(member).collect())
        .with_error_message(None)
}

fn missing(cx: &RequestContext, id: &GroupId) -> DescribedGroup {
    let dead = DescribedGroup::default()
        .with_group_state(fields::wire(GroupState::Dead.name()))
        .with_error_message(None);
    if cx.version() < NOT_FOUND_VERSION_MIN {
        return dead;
    }
    dead.with_error_code(ErrorCode::GroupIdNotFound.code())
        .with_error_message(Some(fields::wire(&format!(
            "Group {} not found.",
            id.as_str()
        ))))
}
