//! ListGroups: the groups that this broker coordinates.

use tidelog_protocol::StrBytes;
use tidelog_protocol::messages::list_groups_response::ListedGroup;
use tidelog_protocol::messages::{ListGroupsRequest, ListGroupsResponse};

use crate::kafka::context::RequestContext;
use crate::kafka::handlers::{HandlerError, group_fields as fields};

/// Kafka's name for the groups that are built.
const CLASSIC: &str = "classic";

/// Lists the groups that pass the filters; a filter without entries lets all pass.
pub async fn handle(
    cx: &RequestContext,
    request: ListGroupsRequest,
) -> Result<ListGroupsResponse, HandlerError> {
    let listed = match cx.broker.groups.list().await {
        Ok(listed) => listed,
        Err(error) => return Ok(ListGroupsResponse::default().with_error_code(error.code().code())),
    };
    let passes = |filter: &[StrBytes], name: &str| {
        filter.is_empty()
            || filter
                .iter()
                .any(|wanted| wanted.eq_ignore_ascii_case(name))
    };
    let groups = listed
        .into_iter()
        .filter(|group| passes(&request.states_filter, group.state.name()))
        .filter(|_| passes(&request.types_filter, CLASSIC))
        .map(|group| {
            ListedGroup::default()
                .with_group_id(fields::wire(&group.group.0).into())
                .with_protocol_type(fields::wire(&group.protocol_type))
                .with_group_state(fields::wire(group.state.name()))
                .with_group_type(StrBytes::from_static_str(CLASSIC))
        })
        .collect();
    Ok(ListGroupsResponse::default().with_groups(groups))
}
