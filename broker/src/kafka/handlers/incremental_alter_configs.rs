//! IncrementalAlterConfigs: changes single settings of resources.

use tidelog_protocol::StrBytes;
use tidelog_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use tidelog_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use tidelog_protocol::messages::{IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse};

use crate::config::alter::AlterOp;
use crate::kafka::context::RequestContext;
use crate::kafka::handlers::HandlerError;
use crate::kafka::handlers::config_resource::{Refused, Wanted, alter, check_keys, duplicates};

const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

/// Takes one resource after the other.
pub async fn handle(
    cx: &RequestContext,
    request: IncrementalAlterConfigsRequest,
) -> Result<IncrementalAlterConfigsResponse, HandlerError> {
    let key = |r: &AlterConfigsResource| (r.resource_type, r.resource_name.to_string());
    let twice = duplicates(request.resources.iter().map(key));
    let mut responses = Vec::with_capacity(request.resources.len());
    for resource in request.resources {
        let outcome = if twice.contains(&key(&resource)) {
            Err(Refused::invalid_request(
                "Each resource must appear at most once.",
            ))
        } else {
            match operations(&resource.configs) {
                Ok(ops) => {
                    let (kind, name) = (resource.resource_type, resource.resource_name.as_str());
                    alter(cx, kind, name, Wanted::Changes(ops), request.validate_only).await
                }
                Err(refused) => Err(refused),
            }
        };
        responses.push(answer(resource, outcome));
    }
    Ok(IncrementalAlterConfigsResponse::default().with_responses(responses))
}

fn operations(configs: &[AlterableConfig]) -> Result<Vec<(String, AlterOp)>, Refused> {
    let lacks_value = |c: &AlterableConfig| c.config_operation != DELETE && c.value.is_none();
    check_keys(configs.iter().map(|c| (c.name.as_str(), lacks_value(c))))?;
    configs
        .iter()
        .map(|config| Ok((config.name.to_string(), operation(config)?)))
        .collect()
}

fn operation(config: &AlterableConfig) -> Result<AlterOp, Refused> {
    let value = config
        .value
        .as_ref()
        .map(|value| value.to_string())
        .unwrap_or_default();
    match config.config_operation {
        SET => Ok(AlterOp::Set(value)),
        DELETE => Ok(AlterOp::Delete),
        APPEND => Ok(AlterOp::Append(value)),
        SUBTRACT => Ok(AlterOp::Subtract(value)),
        other => Err(Refused::invalid_request(format!(
            "Unknown operation type {other} for key {}",
            config.name
        ))),
    }
}

fn answer(
    resource: AlterConfigsResource,
    outcome: Result<(), Refused>,
) -> AlterConfigsResourceResponse {
    let response = AlterConfigsResourceResponse::default()
        .with_resource_type(resource.resource_type)
        .with_resource_name(resource.resource_name);
    match outcome {
        Ok(()) => response.with_error_message(None),
        Err(refused) => response
            .with_error_code(refused.code.code())
            .with_error_message(refused.message.map(StrBytes::from_string)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(name: &'static str, operation: i8, value: Option<&'static str>) -> AlterableConfig {
        AlterableConfig::default()
            .with_name(StrBytes::from_static_str(name))
            .with_config_operation(operation)
            .with_value(value.map(StrBytes::from_static_str))
    }

    #[test]
    fn operations_by_number() {
        let ops = operations(&[
            config("a", SET, Some("1")),
            config("b", DELETE, None),
            config("c", APPEND, Some("2")),
            config("d", SUBTRACT, Some("3")),
        ]);
        let expected = [
            ("a", AlterOp::Set("1".to_owned())),
            ("b", AlterOp::Delete),
            ("c", AlterOp::Append("2".to_owned())),
            ("d", AlterOp::Subtract("3".to_owned())),
        ];
        assert_eq!(
            ops,
            Ok(expected.map(|(name, op)| (name.to_owned(), op)).to_vec())
        );
    }

    #[test]
    fn nulls_duplicates_and_unknown_operations_are_refused() {
        let message = |configs: &[AlterableConfig]| {
            operations(configs)
                .err()
                .and_then(|refused| refused.message)
        };
        assert_eq!(
            message(&[config("a", SET, Some("1")), config("a", DELETE, None)]).as_deref(),
            Some("Error due to duplicate config keys")
        );
        assert_eq!(
            message(&[config("a", SET, None)]).as_deref(),
            Some("Null value not supported for : a")
        );
        assert!(message(&[config("a", 9, Some("1"))]).is_some());
    }
}
