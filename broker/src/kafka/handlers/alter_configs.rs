//! AlterConfigs: replaces all settings of a resource. Deprecated in Kafka, and the only way of older clients.

use tidelog_protocol::StrBytes;
use tidelog_protocol::messages::alter_configs_request::AlterConfigsResource;
use tidelog_protocol::messages::alter_configs_response::AlterConfigsResourceResponse;
use tidelog_protocol::messages::{AlterConfigsRequest, AlterConfigsResponse};

use crate::kafka::context::RequestContext;
use crate::kafka::handlers::HandlerError;
use crate::kafka::handlers::config_resource::{Refused, Wanted, alter, check_keys, duplicates};

/// Takes one resource after the other.
pub async fn handle(
    cx: &RequestContext,
    request: AlterConfigsRequest,
) -> Result<AlterConfigsResponse, HandlerError> {
    let key = |r: &AlterConfigsResource| (r.resource_type, r.resource_name.to_string());
    let twice = duplicates(request.resources.iter().map(key));
    let mut responses = Vec::with_capacity(request.resources.len());
    for resource in request.resources {
        let outcome = if twice.contains(&key(&resource)) {
            Err(Refused::invalid_request(
                "Each resource must appear at most once.",
            ))
        } else {
            match wanted(&resource) {
                Ok(wanted) => {
                    let name = resource.resource_name.as_str();
                    alter(
                        cx,
                        resource.resource_type,
                        name,
                        wanted,
                        request.validate_only,
                    )
                    .await
                }
                Err(refused) => Err(refused),
            }
        };
        responses.push(answer(resource, outcome));
    }
    Ok(AlterConfigsResponse::default().with_responses(responses))
}

fn wanted(resource: &AlterConfigsResource) -> Result<Wanted, Refused> {
    check_keys(
        resource
            .configs
            .iter()
            .map(|c| (c.name.as_str(), c.value.is_none())),
    )?;
    let pairs = resource
        .configs
        .iter()
        .filter_map(|c| Some((c.name.to_string(), c.value.as_ref()?.to_string())));
    Ok(Wanted::Replacement(pairs.collect()))
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
    use tidelog_protocol::messages::alter_configs_request::AlterableConfig;

    use super::*;

    fn config(name: &'static str, value: Option<&'static str>) -> AlterableConfig {
        AlterableConfig::default()
            .with_name(StrBytes::from_static_str(name))
            .with_value(value.map(StrBytes::from_static_str))
    }

    #[test]
    fn nulls_and_duplicates_are_refused() {
        let resource = |configs| AlterConfigsResource::default().with_configs(configs);
        let message = |configs| {
            wanted(&resource(configs))
                .err()
                .and_then(|refused| refused.message)
        };
        assert_eq!(
            message(vec![config("a", Some("1")), config("b", Some("1"))]),
            None
        );
        assert_eq!(
            message(vec![config("a", Some("1")), config("a", Some("2"))]).as_deref(),
            Some("Error due to duplicate config keys")
        );
        assert_eq!(
            message(vec![config("a", None)]).as_deref(),
            Some("Null value not supported for : a")
        );
    }
}
