//! UnregisterBroker: a broker that will not come back is forgotten.

use tidelog_protocol::StrBytes;
use tidelog_protocol::messages::{UnregisterBrokerRequest, UnregisterBrokerResponse};
use tidelog_protocol::types::BrokerId;
use tidelog_replication::{Command, MetadataError, SubmitError};

use crate::kafka::context::RequestContext;
use crate::kafka::errors;
use crate::kafka::handlers::HandlerError;

/// The controller refuses it for a broker that is up, or that holds replicas.
pub async fn handle(
    cx: &RequestContext,
    request: UnregisterBrokerRequest,
) -> Result<UnregisterBrokerResponse, HandlerError> {
    let broker = BrokerId(request.broker_id.0);
    let timeout = cx.broker.config().replication.request_timeout;
    let command = Command::UnregisterBroker { broker };
    let controller = cx.broker.replication.controller();
    match controller.submit(command, timeout).await {
        Ok(_) => {
            tracing::info!(%broker, "broker unregistered");
            Ok(UnregisterBrokerResponse::default())
        }
        Err(error) => Ok(refused(&error)),
    }
}

fn refused(error: &SubmitError) -> UnregisterBrokerResponse {
    let message = match error {
        SubmitError::Metadata(MetadataError::UnknownBroker(broker)) => {
            format!("Broker ID {broker} is not currently registered")
        }
        other => other.to_string(),
    };
    UnregisterBrokerResponse::default()
        .with_error_code(errors::unregister_broker(error).code())
        .with_error_message(Some(StrBytes::from_string(message)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_say_why() {
        let table = [
            (
                SubmitError::Metadata(MetadataError::UnknownBroker(BrokerId(7))),
                102,
                "Broker ID 7 is not currently registered",
            ),
            (
                SubmitError::Metadata(MetadataError::BrokerInUse("broker 1 is up".to_owned())),
                42,
                "broker 1 is up",
            ),
            (
                SubmitError::NotController { controller: None },
                41,
                "not the controller",
            ),
        ];
        for (error, code, message) in table {
            let response = refused(&error);
            assert_eq!(response.error_code, code);
            assert_eq!(response.error_message.as_deref(), Some(message));
        }
    }
}
