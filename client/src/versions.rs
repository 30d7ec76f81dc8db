//! Which version of a call is sent: the highest that broker, codec and this client's own code know.

use tidelog_protocol::api::ApiKey;

/// Highest version that this client fills in, where that is less than what the codec encodes.
pub(crate) fn highest_filled(key: i16) -> i16 {
    match ApiKey::try_from(key) {
        // Later ones name topics by id alone.
        Ok(ApiKey::Produce | ApiKey::Fetch) => 12,
        Ok(ApiKey::DeleteTopics) => 5,
        // Later ones ask for several groups at once.
        Ok(ApiKey::FindCoordinator) => 3,
        Ok(ApiKey::OffsetFetch) => 7,
        // Later ones have times that only tiered storage knows.
        Ok(ApiKey::ListOffsets) => 7,
        // Later ones are for two-phase commit.
        Ok(ApiKey::InitProducerId) => 4,
        // The first flexible one; its own negotiation is by trial.
        Ok(ApiKey::ApiVersions) => 3,
        _ => i16::MAX,
    }
}
