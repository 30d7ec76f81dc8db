//! Whether a reply is one to the frame that was sent.

use bytes::Bytes;
use tidelog_protocol::Decodable;
use tidelog_protocol::api::{self, ApiKey};
use tidelog_protocol::frame::{decode_response, read_response_header};
use tidelog_protocol::messages::*;

/// Decodes a reply of a version to its last byte.
fn reads<A: Decodable>(body: &mut Bytes, api: ApiKey, version: i16) -> Result<(), String> {
    decode_response::<A>(body, api, version).map_err(|error| error.to_string())?;
    match body.len() {
        0 => Ok(()),
        left => Err(format!("{left} bytes are left")),
    }
}

/// Number of the reply that a frame asks for, and what is wrong with `reply` as that.
pub fn check(frame: &[u8], reply: Bytes) -> Result<(), String> {
    let field = |at: usize| Some(i16::from_be_bytes(*frame.get(at..)?.first_chunk()?));
    let (key, version) = field(0)
        .zip(field(2))
        .ok_or("a reply to a frame without header")?;
    let range = api::served(key).ok_or_else(|| format!("a reply of API {key}"))?;
    // An ApiVersions request of an unknown version is answered in version 0.
    let version = match range.key {
        ApiKey::ApiVersions if !range.serves(version) => 0,
        _ => version,
    };
    let mut body = reply;
    let number = read_response_header(&mut body, range.key, version).map_err(|e| e.to_string())?;
    let asked = frame.get(4..8).ok_or("a reply to a frame without number")?;
    if number.to_be_bytes() != asked {
        return Err(format!("reply {number} to request {asked:?}"));
    }
    decode(&mut body, range.key, version).map_err(|e| format!("{:?} v{version}: {e}", range.key))
}

fn decode(body: &mut Bytes, api: ApiKey, version: i16) -> Result<(), String> {
    let read = match api {
        ApiKey::Produce => reads::<ProduceResponse>,
        ApiKey::Fetch => reads::<FetchResponse>,
        ApiKey::ListOffsets => reads::<ListOffsetsResponse>,
        ApiKey::Metadata => reads::<MetadataResponse>,
        ApiKey::OffsetCommit => reads::<OffsetCommitResponse>,
        ApiKey::OffsetFetch => reads::<OffsetFetchResponse>,
        ApiKey::FindCoordinator => reads::<FindCoordinatorResponse>,
        ApiKey::JoinGroup => reads::<JoinGroupResponse>,
        ApiKey::Heartbeat => reads::<HeartbeatResponse>,
        ApiKey::LeaveGroup => reads::<LeaveGroupResponse>,
        ApiKey::SyncGroup => reads::<SyncGroupResponse>,
        ApiKey::DescribeGroups => reads::<DescribeGroupsResponse>,
        ApiKey::ListGroups => reads::<ListGroupsResponse>,
        ApiKey::ApiVersions => reads::<ApiVersionsResponse>,
        ApiKey::CreateTopics => reads::<CreateTopicsResponse>,
        ApiKey::DeleteTopics => reads::<DeleteTopicsResponse>,
        ApiKey::DeleteRecords => reads::<DeleteRecordsResponse>,
        ApiKey::InitProducerId => reads::<InitProducerIdResponse>,
        ApiKey::OffsetForLeaderEpoch => reads::<OffsetForLeaderEpochResponse>,
        ApiKey::DescribeConfigs => reads::<DescribeConfigsResponse>,
        ApiKey::AlterConfigs => reads::<AlterConfigsResponse>,
        ApiKey::DescribeLogDirs => reads::<DescribeLogDirsResponse>,
        ApiKey::CreatePartitions => reads::<CreatePartitionsResponse>,
        ApiKey::DeleteGroups => reads::<DeleteGroupsResponse>,
        ApiKey::ElectLeaders => reads::<ElectLeadersResponse>,
        ApiKey::IncrementalAlterConfigs => reads::<IncrementalAlterConfigsResponse>,
        ApiKey::AlterPartitionReassignments => reads::<AlterPartitionReassignmentsResponse>,
        ApiKey::ListPartitionReassignments => reads::<ListPartitionReassignmentsResponse>,
        ApiKey::OffsetDelete => reads::<OffsetDeleteResponse>,
        ApiKey::DescribeQuorum => reads::<DescribeQuorumResponse>,
        ApiKey::UpdateFeatures => reads::<UpdateFeaturesResponse>,
        ApiKey::DescribeCluster => reads::<DescribeClusterResponse>,
        ApiKey::DescribeProducers => reads::<DescribeProducersResponse>,
        ApiKey::UnregisterBroker => reads::<UnregisterBrokerResponse>,
        ApiKey::ListConfigResources => reads::<ListConfigResourcesResponse>,
        ApiKey::DescribeTopicPartitions => reads::<DescribeTopicPartitionsResponse>,
        other => return Err(format!("a reply of {other:?}")),
    };
    read(body, api, version)
}
