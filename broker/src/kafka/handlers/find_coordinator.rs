//! FindCoordinator: which broker coordinates a group.

use tidelog_protocol::messages::find_coordinator_response::Coordinator;
use tidelog_protocol::messages::{self, FindCoordinatorRequest, FindCoordinatorResponse};
use tidelog_protocol::{ErrorCode, StrBytes};

use crate::kafka::context::RequestContext;
use crate::kafka::handlers::{HandlerError, endpoints, group_fields as fields};

const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;
const SHARE: i8 = 2;

/// From this version on, a request names several keys.
const BATCHED_VERSION_MIN: i16 = 4;

/// Answers with the leader of the key's partition, at the address of the listener that the client came in on.
pub async fn handle(
    cx: &RequestContext,
    request: FindCoordinatorRequest,
) -> Result<FindCoordinatorResponse, HandlerError> {
    if cx.version() >= BATCHED_VERSION_MIN {
        let find = |key| find(cx, request.key_type, key);
        return Ok(FindCoordinatorResponse::default()
            .with_coordinators(request.coordinator_keys.into_iter().map(find).collect()));
    }
    let found = find(cx, request.key_type, request.key);
    Ok(FindCoordinatorResponse::default()
        .with_error_code(found.error_code)
        .with_error_message(found.error_message)
        .with_node_id(found.node_id)
        .with_host(found.host)
        .with_port(found.port))
}

fn find(cx: &RequestContext, key_type: i8, key: StrBytes) -> Coordinator {
    match locate(cx, key_type, &key) {
        Ok(node) => Coordinator::default()
            .with_key(key)
            .with_node_id(messages::BrokerId(node.id.0))
            .with_host(node.host)
            .with_port(node.port)
            .with_error_message(None),
        Err((code, reason)) => Coordinator::default()
            .with_key(key)
            .with_node_id(messages::BrokerId(-1))
            .with_port(-1)
            .with_error_code(code.code())
            .with_error_message(Some(StrBytes::from_string(reason))),
    }
}

fn locate(
    cx: &RequestContext,
    key_type: i8,
    key: &StrBytes,
) -> Result<endpoints::Node, (ErrorCode, String)> {
    match key_type {
        GROUP => {}
        TRANSACTION => {
            return Err((
                ErrorCode::UnsupportedVersion,
                "this broker does not serve transactions".to_owned(),
            ));
        }
        SHARE => {
            return Err((
                ErrorCode::UnsupportedVersion,
                "this broker does not serve share groups".to_owned(),
            ));
        }
        other => {
            return Err((
                ErrorCode::InvalidRequest,
                format!("unknown coordinator type {other}"),
            ));
        }
    }
    let unavailable = |reason: String| (ErrorCode::CoordinatorNotAvailable, reason);
    let broker = cx
        .broker
        .groups
        .coordinator_of(&fields::group_id(key))
        .map_err(|error| unavailable(error.to_string()))?;
    endpoints::node(
        &cx.broker.replication.image(),
        broker,
        &cx.connection.listener,
    )
    .ok_or_else(|| unavailable(format!("broker {broker} does not have this listener")))
}
