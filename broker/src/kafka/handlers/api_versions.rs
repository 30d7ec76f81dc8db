//! ApiVersions: what this broker serves, and what the client says about itself (KIP-511).

use std::sync::LazyLock;

use regex::Regex;
use tidelog_protocol::ErrorCode;
use tidelog_protocol::api::{self, ApiKey};
use tidelog_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};

use crate::kafka::context::{ClientSoftware, RequestContext};
use crate::kafka::dispatch;
use crate::kafka::handlers::HandlerError;

/// What KIP-511 allows in the name and version of a client library.
static SOFTWARE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?$").expect("the pattern is well-formed")
});

/// Clients send these fields from this version on.
const SOFTWARE_VERSION_MIN: i16 = 3;

/// Answers with the APIs that are built. Features are not named: none of those that Kafka gates by them
/// (transactions V2, consumer groups of KIP-848, share groups) is built, and naming them would make clients use them.
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
    // The epoch of "no finalized features yet".
    response.finalized_features_epoch = -1;
    Ok(response)
}
