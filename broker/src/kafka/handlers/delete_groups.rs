//! DeleteGroups: removes groups without members, with their offsets.

use futures_util::future::join_all;
use tidelog_protocol::messages::delete_groups_response::DeletableGroupResult;
use tidelog_protocol::messages::{DeleteGroupsRequest, DeleteGroupsResponse, GroupId};

use crate::coordinator::group::{Event, GroupError, Reply};
use crate::kafka::context::RequestContext;
use crate::kafka::handlers::{HandlerError, group_fields as fields};

/// Deletes each group that is named.
pub async fn handle(
    cx: &RequestContext,
    request: DeleteGroupsRequest,
) -> Result<DeleteGroupsResponse, HandlerError> {
    let results = join_all(
        request
            .groups_names
            .into_iter()
            .map(|group| delete(cx, group)),
    )
    .await;
    Ok(DeleteGroupsResponse::default().with_results(results))
}

async fn delete(cx: &RequestContext, id: GroupId) -> DeletableGroupResult {
    let outcome = match cx
        .broker
        .groups
        .request(fields::group_id(&id), Event::Delete)
        .await
    {
        Ok(Reply::Delete(outcome)) => outcome,
        Ok(_) => Err(GroupError::StorageFailed),
        Err(error) => Err(error),
    };
    DeletableGroupResult::default()
        .with_group_id(id)
        .with_error_code(outcome.err().map_or(0, |error| error.code().code()))
}
