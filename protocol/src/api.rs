//! The Kafka APIs that the broker serves, and in which versions.
//!
//! The ranges are those of Kafka 4.4 as far as the message codec encodes them. An API that is not in
//! [`SERVED`] is neither advertised nor answered: Kafka closes the connection on it, and so does the broker.

use kafka_protocol::messages::ApiVersionsResponse;
use kafka_protocol::messages::api_versions_response::ApiVersion;

use crate::ErrorCode;

/// Numbers of Kafka's APIs.
pub use kafka_protocol::messages::ApiKey;

/// One API and its versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApiRange {
    /// The API.
    pub key: ApiKey,
    /// Oldest version that is answered.
    pub min: i16,
    /// Newest version that is answered.
    pub max: i16,
    /// Oldest version that ApiVersions names. Lower than `min` where clients test the range before they look
    /// at it: librdkafka before 2.11 switches features off unless Produce begins at 0.
    pub advertised_min: i16,
}

const fn api(key: ApiKey, min: i16, max: i16) -> ApiRange {
    ApiRange {
        key,
        min,
        max,
        advertised_min: min,
    }
}

/// What the broker serves, by API key. Kafka 4.4 has OffsetCommit and OffsetFetch 10; the codec's own table says 10
/// too, but its requests stop at 9.
pub const SERVED: &[ApiRange] = &[
    ApiRange {
        key: ApiKey::Produce,
        min: 3,
        max: 13,
        advertised_min: 0,
    },
    api(ApiKey::Fetch, 4, 18),
    api(ApiKey::ListOffsets, 1, 10),
    api(ApiKey::Metadata, 0, 13),
    api(ApiKey::OffsetCommit, 2, 9),
    api(ApiKey::OffsetFetch, 1, 9),
    api(ApiKey::FindCoordinator, 0, 6),
    api(ApiKey::JoinGroup, 0, 9),
    api(ApiKey::Heartbeat, 0, 4),
    api(ApiKey::LeaveGroup, 0, 5),
    api(ApiKey::SyncGroup, 0, 5),
    api(ApiKey::DescribeGroups, 0, 6),
    api(ApiKey::ListGroups, 0, 5),
    api(ApiKey::ApiVersions, 0, 4),
    api(ApiKey::CreateTopics, 2, 7),
    api(ApiKey::DeleteTopics, 1, 6),
    api(ApiKey::DeleteRecords, 0, 2),
    api(ApiKey::InitProducerId, 0, 5),
    api(ApiKey::OffsetForLeaderEpoch, 2, 4),
    api(ApiKey::DescribeConfigs, 1, 4),
    api(ApiKey::AlterConfigs, 0, 2),
    api(ApiKey::DescribeLogDirs, 1, 4),
    api(ApiKey::CreatePartitions, 0, 3),
    api(ApiKey::DeleteGroups, 0, 2),
    api(ApiKey::ElectLeaders, 0, 2),
    api(ApiKey::IncrementalAlterConfigs, 0, 1),
    api(ApiKey::AlterPartitionReassignments, 0, 1),
    api(ApiKey::ListPartitionReassignments, 0, 0),
    api(ApiKey::OffsetDelete, 0, 0),
    api(ApiKey::DescribeQuorum, 0, 2),
    api(ApiKey::UpdateFeatures, 0, 2),
    api(ApiKey::DescribeCluster, 0, 2),
    api(ApiKey::DescribeProducers, 0, 0),
    api(ApiKey::UnregisterBroker, 0, 0),
    api(ApiKey::ListConfigResources, 0, 1),
    api(ApiKey::DescribeTopicPartitions, 0, 0),
];

/// The served range of an API key as it stands on the wire.
pub fn served(key: i16) -> Option<&'static ApiRange> {
    SERVED
        .binary_search_by_key(&key, |range| range.key as i16)
        .ok()
        .and_then(|at| SERVED.get(at))
}

impl ApiRange {
    /// Whether requests of this version are answered.
    pub fn serves(&self, version: i16) -> bool {
        (self.min..=self.max).contains(&version)
    }

    fn advertised(&self) -> ApiVersion {
        ApiVersion::default()
            .with_api_key(self.key as i16)
            .with_min_version(self.advertised_min)
            .with_max_version(self.max)
    }
}

/// The list that ApiVersions answers with.
pub fn advertised() -> Vec<ApiVersion> {
    SERVED.iter().map(ApiRange::advertised).collect()
}

/// The body, to be encoded as version 0, that answers an ApiVersions request of a version that is not served:
/// the client reads the range of ApiVersions itself out of it and asks again.
pub fn api_versions_unsupported() -> ApiVersionsResponse {
    ApiVersionsResponse::default()
        .with_error_code(ErrorCode::UnsupportedVersion.code())
        .with_api_keys(
            served(ApiKey::ApiVersions as i16)
                .map(ApiRange::advertised)
                .into_iter()
                .collect(),
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_sorted_and_inside_what_the_codec_encodes() {
        assert!(SERVED.is_sorted_by(|a, b| (a.key as i16) < (b.key as i16)));
        for range in SERVED {
            let codec = range.key.valid_versions();
            assert!(
                codec.min <= range.min && range.max <= codec.max,
                "{range:?} vs {codec}"
            );
            assert!(
                range.advertised_min <= range.min && range.min <= range.max,
                "{range:?}"
            );
            assert_eq!(served(range.key as i16), Some(range));
        }
    }

    /// The minima of Kafka 4.3, which clients that stopped at old versions rely on.
    #[test]
    fn rule_negotiation_4_and_5_minima_are_not_raised() {
        let min = |key: ApiKey| served(key as i16).map(|range| range.advertised_min);
        assert_eq!(min(ApiKey::Produce), Some(0));
        assert_eq!(min(ApiKey::JoinGroup), Some(0));
        assert_eq!(min(ApiKey::Fetch), Some(4));
        assert_eq!(min(ApiKey::ListOffsets), Some(1));
        assert_eq!(min(ApiKey::OffsetCommit), Some(2));
        assert_eq!(min(ApiKey::OffsetFetch), Some(1));
        assert_eq!(min(ApiKey::Metadata), Some(0));
        assert_eq!(min(ApiKey::CreateTopics), Some(2));
        assert_eq!(min(ApiKey::DeleteTopics), Some(1));
        assert_eq!(min(ApiKey::InitProducerId), Some(0));
    }

    #[test]
    fn unserved_keys_are_unknown() {
        for key in [-1, 4, 7, 17, 24, 26, 68, 93, 1000, i16::MIN, i16::MAX] {
            assert_eq!(served(key), None);
        }
        let produce = served(0).unwrap();
        assert!(
            !produce.serves(2) && produce.serves(3) && produce.serves(13) && !produce.serves(14)
        );
    }

    #[test]
    fn unsupported_api_versions_names_its_own_range() {
        let body = api_versions_unsupported();
        assert_eq!(body.error_code, 35);
        assert_eq!(body.api_keys.len(), 1);
        assert_eq!(
            (body.api_keys[0].api_key, body.api_keys[0].max_version),
            (18, 4)
        );
        assert_eq!(advertised().len(), SERVED.len());
    }
}
