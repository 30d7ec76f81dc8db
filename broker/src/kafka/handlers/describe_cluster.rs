//! DescribeCluster: the brokers, and who stands for the controller.

use tidelog_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use tidelog_protocol::messages::{DescribeClusterRequest, DescribeClusterResponse};
use tidelog_protocol::{ErrorCode, StrBytes};

use crate::kafka::context::RequestContext;
use crate::kafka::handlers::{HandlerError, authorized_operations, endpoints};

const ENDPOINT_BROKERS: i8 = 1;
const ENDPOINT_CONTROLLERS: i8 = 2;

/// Answers from the image of the cluster's metadata.
pub async fn handle(
    cx: &RequestContext,
    request: DescribeClusterRequest,
) -> Result<DescribeClusterResponse, HandlerError> {
    let response = DescribeClusterResponse::default().with_endpoint_type(ENDPOINT_BROKERS);
    match request.endpoint_type {
        ENDPOINT_BROKERS => {}
        ENDPOINT_CONTROLLERS => return Ok(mismatch(response)),
        other => {
            let message = format!("Unsupported endpoint type {other}");
            return Ok(response
                .with_error_code(ErrorCode::UnsupportedEndpointType.code())
                .with_error_message(Some(StrBytes::from_string(message))));
        }
    }
    let image = cx.broker.replication.image();
    let leader = cx.broker.replication.controller().leader();
    let controller = endpoints::controller(&image, leader, cx.broker.id);
    let brokers = endpoints::nodes(&image, &cx.connection.listener)
        .into_iter()
        .filter(|node| request.include_fenced_brokers || !node.fenced)
        .map(|node| {
            DescribeClusterBroker::default()
                .with_broker_id(node.id.0.into())
                .with_host(node.host)
                .with_port(node.port)
                .with_rack(node.rack)
                .with_is_fenced(node.fenced)
        })
        .collect();
    let operations = if request.include_cluster_authorized_operations {
        authorized_operations::CLUSTER
    } else {
        authorized_operations::NOT_ASKED
    };
    Ok(response
        .with_cluster_id(StrBytes::from_string(cx.broker.cluster_id.to_string()))
        .with_controller_id(controller.0.into())
        .with_brokers(brokers)
        .with_cluster_authorized_operations(operations))
}

fn mismatch(response: DescribeClusterResponse) -> DescribeClusterResponse {
    let message = "The request was sent to an endpoint of type BROKER, but we wanted an endpoint of type CONTROLLER";
    response
        .with_error_code(ErrorCode::MismatchedEndpointType.code())
        .with_error_message(Some(StrBytes::from_static_str(message)))
}
