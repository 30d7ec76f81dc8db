//! DescribeGroups: groups with their members.

use futures_util::future::join_all;
use indexmap::IndexSet;
use tidelog_protocol::ErrorCode;
use tidelog_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use tidelog_protocol::messages::{DescribeGroupsRequest, DescribeGroupsResponse, GroupId};

use crate::coordinator::group::{self, GroupState};
use crate::kafka::context::RequestContext;
use crate::kafka::handlers::{HandlerError, authorized_operations, group_fields as fields};
use crate::kafka::memory::Building;

/// From this version on, a missing group is an error with a message; before, it is a dead group.
const NOT_FOUND_VERSION_MIN: i16 = 6;
/// From this version on, there is a field for what the client may do.
const OPERATIONS_VERSION_MIN: i16 = 3;

/// Groups that are asked for before the answers of the first are there.
const GROUPS_AT_ONCE: usize = 32;
/// What a member takes beside its bytes, and a group beside its members.
const MEMBER_BYTES: usize = 400;

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
    let asked: IndexSet<GroupId> = request.groups.into_iter().collect();
    let mut asked = asked.into_iter();
    let mut groups = Vec::new();
    let mut building = Building::begin(cx);
    loop {
        let next = asked.by_ref().take(GROUPS_AT_ONCE);
        let described = join_all(next.map(|group| describe(cx, group, operations))).await;
        if described.is_empty() {
            break;
        }
        for group in described {
            building.add(size_of(&group)).await?;
            groups.push(group);
        }
    }
    Ok(DescribeGroupsResponse::default().with_groups(groups))
}

/// About as many bytes as the answer takes in memory.
fn size_of(group: &DescribedGroup) -> usize {
    let members = group
        .members
        .iter()
        .map(|member| MEMBER_BYTES + member.member_metadata.len() + member.member_assignment.len());
    MEMBER_BYTES + members.sum::<usize>()
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
