//! ApiVersions: what this broker serves, and what the client says about itself (KIP-511).

use std::ops::RangeInclusive;
use std::sync::LazyLock;

use regex::Regex;
use tidelog_protocol::api::{self, ApiKey};
use tidelog_protocol::messages::api_versions_response::{FinalizedFeatureKey, SupportedFeatureKey};
use tidelog_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};
use tidelog_protocol::{ErrorCode, StrBytes};
use tidelog_replication::{METADATA_FEATURE, MetadataImage};

use crate::kafka::context::{ClientSoftware, RequestContext};
use crate::kafka::dispatch;
use crate::kafka::handlers::HandlerError;

/// What KIP-511 allows in the name and version of a client library.
static SOFTWARE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?$").expect("the pattern is well-formed")
});

/// Features are told from this version on.
const FEATURES_VERSION_MIN: i16 = 3;

/// Clients send these fields from this version on.
const SOFTWARE_VERSION_MIN: i16 = 3;

/// Answers with the APIs that are built, and the feature level. None of Kafka's own features is named: what it gates by them
/// (transactions V2, consumer groups of KIP-848, share groups) is not built, and naming them would make clients use them.
pub async fn handle(
    cx: &RequestContext,
    request: ApiVersionsRequest,
) -> Result<ApiVersionsResponse, HandlerError> {
    let mut response = ApiVersionsResponse::default();
    if cx.version() >= SOFTWARE_VERSION_MIN {
        let name = request.client_software_name.as_str();
        let version = request.client_software_version.as_str();
        if !SOFTWARE.is_match(name) || !SOFTWARE.is_match(version) {
            return Ok(response.with_error_code(ErrorCode::InvalidRequest.code()));
        }
        cx.connection.set_software(ClientSoftware {
            name: name.to_owned(),
            version: version.to_owned(),
        });
    }
    response.api_keys = api::advertised();
    response
        .api_keys
        .retain(|range| ApiKey::try_from(range.api_key).is_ok_and(dispatch::is_built));
    if cx.version() >= FEATURES_VERSION_MIN {
        let replication = &cx.broker.replication;
        name_features(
            &mut response,
            replication.feature_levels(),
            &replication.image(),
        );
    }
    Ok(response)
}

/// The levels that this broker knows, and the one that the cluster is at.
fn name_features(
    response: &mut ApiVersionsResponse,
    known: &RangeInclusive<u16>,
    image: &MetadataImage,
) {
    // As in Kafka, numbers that fit: levels are small.
    let wire = |level: u16| i16::try_from(level).unwrap_or(i16::MAX);
    let name = || StrBytes::from_static_str(METADATA_FEATURE);
    response.supported_features = vec![
        SupportedFeatureKey::default()
            .with_name(name())
            .with_min_version(wire(*known.start()))
            .with_max_version(wire(*known.end())),
    ];
    let level = wire(image.feature_level());
    response.finalized_features = vec![
        FinalizedFeatureKey::default()
            .with_name(name())
            .with_min_version_level(level)
            .with_max_version_level(level),
    ];
    // Clients keep what they heard with the highest one.
    response.finalized_features_epoch = i64::try_from(image.version()).unwrap_or(i64::MAX);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topics::test_images::cluster;

    #[test]
    fn the_level_is_told_as_a_feature() {
        let mut response = ApiVersionsResponse::default();
        let image = cluster(2);
        name_features(&mut response, &(1..=7), &image);
        let supported = &response.supported_features[0];
        assert_eq!(supported.name.as_str(), "tidelog.metadata");
        assert_eq!((supported.min_version, supported.max_version), (1, 7));
        let finalized = &response.finalized_features[0];
        let level = i16::try_from(image.feature_level()).expect("small");
        assert_eq!(finalized.max_version_level, level);
        assert_eq!(response.finalized_features_epoch, 2, "the image's version");
    }
}
