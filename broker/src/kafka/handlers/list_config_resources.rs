//! ListConfigResources: what has a configuration. Version 0 lists client metrics subscriptions only.

use indexmap::IndexSet;
use tidelog_protocol::messages::list_config_resources_response::ConfigResource as Listed;
use tidelog_protocol::messages::{ListConfigResourcesRequest, ListConfigResourcesResponse};
use tidelog_protocol::{ErrorCode, StrBytes};
use tidelog_replication::{ConfigResource, MetadataImage};

use crate::kafka::context::RequestContext;
use crate::kafka::handlers::HandlerError;
use crate::kafka::handlers::config_resource::ResourceType;

/// Clients name the types from this version on.
const TYPES_VERSION_MIN: i16 = 1;

const ALL: [ResourceType; 5] = [
    ResourceType::Topic,
    ResourceType::Broker,
    ResourceType::BrokerLogger,
    ResourceType::ClientMetrics,
    ResourceType::Group,
];

/// Answers from the image.
pub async fn handle(
    cx: &RequestContext,
    request: ListConfigResourcesRequest,
) -> Result<ListConfigResourcesResponse, HandlerError> {
    let response = ListConfigResourcesResponse::default();
    let Some(types) = types(cx.version(), &request.resource_types) else {
        return Ok(response.with_error_code(ErrorCode::UnsupportedVersion.code()));
    };
    let image = cx.broker.replication.image();
    let listed = types.into_iter().flat_map(|kind| {
        let names = names(&image, kind).into_iter();
        names.map(move |name| {
            Listed::default()
                .with_resource_name(StrBytes::from_string(name))
                .with_resource_type(kind as i8)
        })
    });
    Ok(response.with_config_resources(listed.collect()))
}

/// The types that are asked for; `None` if one of them is unknown.
fn types(version: i16, asked: &[i8]) -> Option<Vec<ResourceType>> {
    match version {
        TYPES_VERSION_MIN.. if asked.is_empty() => Some(ALL.to_vec()),
        TYPES_VERSION_MIN.. => {
            let distinct: IndexSet<i8> = asked.iter().copied().collect();
            distinct.into_iter().map(ResourceType::of).collect()
        }
        _ => Some(vec![ResourceType::ClientMetrics]),
    }
}

fn names(image: &MetadataImage, kind: ResourceType) -> Vec<String> {
    match kind {
        ResourceType::Topic => {
            let mut names: Vec<String> =
                image.topics().map(|topic| topic.name.to_string()).collect();
            names.sort_unstable();
            names
        }
        ResourceType::Broker | ResourceType::BrokerLogger => image
            .brokers()
            .map(|broker| broker.id.to_string())
            .collect(),
        ResourceType::ClientMetrics => image
            .config_resources()
            .filter_map(|resource| match resource {
                ConfigResource::ClientMetrics(name) => Some(name.clone()),
                _ => None,
            })
            .collect(),
        ResourceType::Group => image
            .config_resources()
            .filter_map(|resource| match resource {
                ConfigResource::Group(name) => Some(name.clone()),
                _ => None,
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_0_knows_client_metrics_only() {
        assert_eq!(types(0, &[]), Some(vec![ResourceType::ClientMetrics]));
        assert_eq!(types(1, &[]).map(|types| types.len()), Some(5));
        assert_eq!(
            types(1, &[2, 32]),
            Some(vec![ResourceType::Topic, ResourceType::Group])
        );
        assert_eq!(types(1, &[3]), None);
        assert_eq!(
            types(1, &[32, 2, 32, 32, 2]),
            Some(vec![ResourceType::Group, ResourceType::Topic]),
            "each once"
        );
    }
}
