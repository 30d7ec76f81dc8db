//! UpdateFeatures: the cluster's feature level is raised (KIP-584).

use std::time::Duration;

use tidelog_protocol::messages::update_features_request::FeatureUpdateKey;
use tidelog_protocol::messages::update_features_response::UpdatableFeatureResult;
use tidelog_protocol::messages::{UpdateFeaturesRequest, UpdateFeaturesResponse};
use tidelog_protocol::{ErrorCode, StrBytes};
use tidelog_replication::{Command, METADATA_FEATURE, SubmitError};

use crate::kafka::context::RequestContext;
use crate::kafka::errors;
use crate::kafka::handlers::HandlerError;

/// From this version on an answer is about the request as a whole.
const WHOLE_SINCE: i16 = 2;

/// Kafka's numbers of what an update may be: an upgrade, a downgrade that loses nothing, any downgrade.
const UPDATE_TYPES: std::ops::RangeInclusive<i8> = 1..=3;

/// Error code and what a person is told.
type Refused = (ErrorCode, String);

/// Raises the level, or says why not. There is one feature, and a request that names any other changes nothing.
pub async fn handle(
    cx: &RequestContext,
    request: UpdateFeaturesRequest,
) -> Result<UpdateFeaturesResponse, HandlerError> {
    let updates = &request.feature_updates;
    let outcome = match plan(cx.version(), updates) {
        Ok(Some(level)) => raise(cx, level, &request).await,
        Ok(None) => Ok(()),
        Err(refused) => Err(refused),
    };
    Ok(answer(cx.version(), updates, outcome))
}

/// The level that is asked for, if any is.
fn plan(version: i16, updates: &[FeatureUpdateKey]) -> Result<Option<i16>, Refused> {
    let mut asked = None;
    for update in updates {
        let level = update.max_version_level;
        let refuse = |why: &str| Err(invalid(level, update.feature.as_str(), why));
        if update.feature.as_str() != METADATA_FEATURE {
            return refuse(&format!(
                "No broker supports this feature; there is one, {METADATA_FEATURE}."
            ));
        }
        if version > 0 && !UPDATE_TYPES.contains(&update.upgrade_type) {
            return refuse("The controller does not support the given upgrade type.");
        }
        if asked.replace(level).is_some() {
            let text = format!("{METADATA_FEATURE} appears more than once.");
            return Err((ErrorCode::InvalidRequest, text));
        }
    }
    Ok(asked)
}

fn invalid(level: i16, feature: &str, why: &str) -> Refused {
    let text = format!("Invalid update version {level} for feature {feature}. {why}");
    (ErrorCode::InvalidUpdateVersion, text)
}

async fn raise(
    cx: &RequestContext,
    level: i16,
    request: &UpdateFeaturesRequest,
) -> Result<(), Refused> {
    let replication = &cx.broker.replication;
    let command = Command::SetFeature {
        name: METADATA_FEATURE.to_owned(),
        level,
    };
    // What the image refuses is not worth a record in the log.
    let image = replication.image();
    let checked = image.after(command.clone()).map_err(SubmitError::from);
    let outcome = match checked {
        Ok(_) if request.validate_only => return Ok(()),
        Ok(_) => {
            let timeout_ms = u64::try_from(request.timeout_ms).unwrap_or(0);
            let timeout = Duration::from_millis(timeout_ms);
            replication.controller().submit(command, timeout).await
        }
        Err(refused) => Err(refused),
    };
    match outcome {
        Ok(_) => {
            tracing::info!(level, "the cluster's feature level is raised");
            Ok(())
        }
        Err(error) => Err(match errors::submit(&error) {
            ErrorCode::InvalidUpdateVersion => {
                invalid(level, METADATA_FEATURE, &format!("{error}."))
            }
            code => (code, error.to_string()),
        }),
    }
}

fn answer(
    version: i16,
    updates: &[FeatureUpdateKey],
    outcome: Result<(), Refused>,
) -> UpdateFeaturesResponse {
    let (code, message) = match outcome {
        Ok(()) => (0, None),
        Err((code, text)) => (code.code(), Some(StrBytes::from_string(text))),
    };
    let response = UpdateFeaturesResponse::default()
        .with_error_code(code)
        .with_error_message(message.clone());
    if version >= WHOLE_SINCE {
        return response;
    }
    let results = updates.iter().map(|update| {
        UpdatableFeatureResult::default()
            .with_feature(update.feature.clone())
            .with_error_code(code)
            .with_error_message(message.clone())
    });
    response.with_results(results.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn update(feature: &'static str, level: i16, upgrade_type: i8) -> FeatureUpdateKey {
        FeatureUpdateKey::default()
            .with_feature(StrBytes::from_static_str(feature))
            .with_max_version_level(level)
            .with_upgrade_type(upgrade_type)
    }

    #[test]
    fn one_feature_can_be_updated() {
        let level = |version, updates: &[FeatureUpdateKey]| plan(version, updates);
        assert_eq!(level(1, &[]), Ok(None));
        assert_eq!(level(1, &[update(METADATA_FEATURE, 2, 1)]), Ok(Some(2)));
        // Before version 1 there are no types.
        assert_eq!(level(0, &[update(METADATA_FEATURE, 2, 0)]), Ok(Some(2)));
        let code = |updates: &[FeatureUpdateKey]| plan(1, updates).expect_err("is refused").0;
        let twice = [
            update(METADATA_FEATURE, 2, 1),
            update(METADATA_FEATURE, 1, 1),
        ];
        assert_eq!(code(&twice), ErrorCode::InvalidRequest);
        for upgrade_type in [0, 4, -1] {
            let asked = [update(METADATA_FEATURE, 2, upgrade_type)];
            assert_eq!(code(&asked), ErrorCode::InvalidUpdateVersion);
        }
        let mixed = [
            update(METADATA_FEATURE, 2, 1),
            update("metadata.version", 30, 1),
        ];
        let (code, text) = plan(2, &mixed).expect_err("is refused");
        assert_eq!(code, ErrorCode::InvalidUpdateVersion);
        assert_eq!(
            text,
            "Invalid update version 30 for feature metadata.version. No broker supports this feature; there is one, \
             tidelog.metadata."
        );
    }

    #[test]
    fn newer_answers_are_about_the_whole_request() {
        let updates = [update("a", 2, 1), update("b", 2, 1)];
        let refused = || Err((ErrorCode::InvalidUpdateVersion, "why".to_owned()));
        let response = answer(2, &updates, refused());
        assert_eq!((response.error_code, response.results.len()), (95, 0));
        assert_eq!(response.error_message.as_deref(), Some("why"));
        let response = answer(1, &updates, refused());
        let codes: Vec<i16> = response.results.iter().map(|it| it.error_code).collect();
        assert_eq!((response.error_code, codes), (95, vec![95, 95]));
        let response = answer(0, &updates, Ok(()));
        assert_eq!((response.error_code, response.results.len()), (0, 2));
        assert_eq!(response.error_message, None);
    }
}
