//! Features: what brokers know, and what the cluster uses of it.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use tidelog_protocol::messages::update_features_request::FeatureUpdateKey;
use tidelog_protocol::messages::{
    ApiVersionsRequest, ApiVersionsResponse, UpdateFeaturesRequest, UpdateFeaturesResponse,
};
use tidelog_protocol::types::BrokerId;

use super::{Admin, check, text};
use crate::client::Lane;
use crate::error::Error;

/// First version in which an update can be tried without being made, and says what it is.
const KINDS_SINCE: i16 = 1;
/// Kafka's number of an update that raises a level.
const UPGRADE: i8 = 1;

/// Features by name, as one broker says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FeatureDescription {
    /// The levels that the broker knows.
    pub supported: BTreeMap<String, RangeInclusive<i16>>,
    /// The level that the cluster is at.
    pub finalized: BTreeMap<String, i16>,
}

/// Whether an update is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeatureUpdate {
    /// It is made.
    Made,
    /// It is only said whether it could be. Brokers that cannot do that (Kafka before 3.3) refuse.
    Tried,
}

impl Admin {
    /// What each broker says, of those that answer: while brokers are being replaced they know different levels.
    pub async fn describe_features(&self) -> Result<BTreeMap<BrokerId, FeatureDescription>, Error> {
        let mut described = BTreeMap::new();
        let mut failed = None;
        let ids: Vec<BrokerId> = self.client.image().brokers.keys().copied().collect();
        for id in ids {
            match self.features_of(id).await {
                Ok(features) => drop(described.insert(id, features)),
                Err(error) => failed = Some(error),
            }
        }
        match failed {
            Some(error) if described.is_empty() => Err(error),
            _ => Ok(described),
        }
    }

    async fn features_of(&self, id: BrokerId) -> Result<FeatureDescription, Error> {
        let request = |_| {
            ApiVersionsRequest::default()
                .with_client_software_name(text("tidelog"))
                .with_client_software_version(text(env!("CARGO_PKG_VERSION")))
        };
        let connection = self.client.broker(id, Lane::General).await?;
        let reply: ApiVersionsResponse = connection.call(self.timeout(), request).await?;
        Error::check(reply.error_code, None)?;
        let supported = reply.supported_features.iter().map(|feature| {
            let levels = feature.min_version..=feature.max_version;
            (feature.name.to_string(), levels)
        });
        let finalized = reply.finalized_features.iter();
        let finalized = finalized.map(|it| (it.name.to_string(), it.max_version_level));
        Ok(FeatureDescription {
            supported: supported.collect(),
            finalized: finalized.collect(),
        })
    }

    /// Raises the level of a feature, by way of a broker that knows it.
    pub async fn upgrade_feature(
        &self,
        by: BrokerId,
        name: &str,
        level: i16,
        update: FeatureUpdate,
    ) -> Result<(), Error> {
        let broker = async || self.client.broker(by, Lane::General).await;
        let build = |version: i16| {
            let mut feature = FeatureUpdateKey::default()
                .with_feature(text(name))
                .with_max_version_level(level);
            let mut request = UpdateFeaturesRequest::default().with_timeout_ms(self.timeout_ms());
            if version >= KINDS_SINCE {
                feature = feature.with_upgrade_type(UPGRADE);
                request = request.with_validate_only(update == FeatureUpdate::Tried);
            }
            request.with_feature_updates(vec![feature])
        };
        self.ask(&[], broker, build, |reply: UpdateFeaturesResponse| {
            check(reply.error_code, &reply.error_message)?;
            let mut results = reply.results.iter();
            results.try_for_each(|result| check(result.error_code, &result.error_message))
        })
        .await
    }
}
