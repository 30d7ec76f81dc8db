//! Every API in every version that the broker advertises: asked with a request that has one of everything, it answers
//! with a reply of that version, and the connection stays open. What was asked is what others make hostile frames of.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use bytes::Bytes;
use tidelog_protocol::api::{ApiKey, SERVED};
use tidelog_protocol::batch::builder::{BatchBuilder, NewRecord};
use tidelog_protocol::compression::Compression;
use tidelog_protocol::encode::encode_request;
use tidelog_protocol::frame::{RequestHeader, decode_response, read_response_header};
use tidelog_protocol::messages::*;
use tidelog_protocol::types::TimestampMs;
use tidelog_protocol::{Decodable, Encodable, StrBytes};

use crate::running_broker::RunningBroker;

const TOPIC: &str = "every-version";
const GROUP: &str = "every-version-group";

fn text(value: &str) -> StrBytes {
    StrBytes::from_string(value.to_owned())
}

fn topic() -> TopicName {
    TopicName(text(TOPIC))
}

fn group() -> GroupId {
    GroupId(text(GROUP))
}

/// A request that was answered.
#[derive(Clone, Debug)]
pub struct Asked {
    pub api: ApiKey,
    pub version: i16,
    /// Without its size prefix.
    pub frame: Vec<u8>,
}

/// One connection that asks one thing at a time.
pub struct Asker {
    stream: TcpStream,
    correlation_id: i32,
    asked: Vec<Asked>,
}

impl Asker {
    pub fn connect(address: &str) -> Asker {
        let stream = TcpStream::connect(address).expect("the broker listens");
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .expect("a read timeout");
        Asker {
            stream,
            correlation_id: 0,
            asked: Vec::new(),
        }
    }

    /// What was asked so far.
    pub fn into_asked(self) -> Vec<Asked> {
        self.asked
    }

    pub fn ask<Q: Encodable, A: Decodable>(&mut self, api: ApiKey, version: i16, request: &Q) -> A {
        self.correlation_id += 1;
        let what = format!("{api:?} version {version}");
        let header = RequestHeader {
            api_key: api,
            api_version: version,
            correlation_id: self.correlation_id,
            client_id: Some(text("every-version")),
        };
        let frame = encode_request(&header, request).expect(&what).concat();
        self.stream.write_all(&frame).expect(&what);
        self.asked.push(Asked {
            api,
            version,
            frame: frame[4..].to_vec(),
        });
        let mut size = [0; 4];
        self.stream
            .read_exact(&mut size)
            .unwrap_or_else(|error| panic!("{what}: no reply: {error}"));
        let mut frame = vec![0; u32::from_be_bytes(size) as usize];
        self.stream.read_exact(&mut frame).expect(&what);
        let mut frame = Bytes::from(frame);
        let correlation_id = read_response_header(&mut frame, api, version).expect(&what);
        assert_eq!(correlation_id, self.correlation_id, "{what}");
        decode_response(&mut frame, api, version)
            .unwrap_or_else(|error| panic!("{what}: {error:?}"))
    }
}

fn batch() -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None);
    builder
        .push(NewRecord {
            timestamp: TimestampMs(1_700_000_000_000),
            key: Some(b"key"),
            value: Some(b"value"),
            headers: &[],
        })
        .expect("one record fits");
    builder.build().expect("a batch").to_bytes()
}

fn produce(version: i16, id: uuid::Uuid) -> ProduceRequest {
    use produce_request::{PartitionProduceData, TopicProduceData};
    let data = PartitionProduceData::default().with_records(Some(batch()));
    let mut topic_data = TopicProduceData::default().with_partition_data(vec![data]);
    if version >= 13 {
        topic_data.topic_id = id;
    } else {
        topic_data.name = topic();
    }
    ProduceRequest::default()
        .with_acks(-1)
        .with_timeout_ms(10_000)
        .with_topic_data(vec![topic_data])
}

fn fetch(version: i16, id: uuid::Uuid) -> FetchRequest {
    use fetch_request::{FetchPartition, FetchTopic};
    let partition = FetchPartition::default()
        .with_partition_max_bytes(1 << 20)
        .with_fetch_offset(0);
    let mut asked = FetchTopic::default().with_partitions(vec![partition]);
    if version >= 13 {
        asked.topic_id = id;
    } else {
        asked.topic = topic();
    }
    FetchRequest::default()
        .with_max_wait_ms(10)
        .with_min_bytes(1)
        .with_max_bytes(1 << 20)
        .with_session_epoch(if version >= 7 { 0 } else { -1 })
        .with_topics(vec![asked])
}

fn metadata(version: i16) -> MetadataRequest {
    use metadata_request::MetadataRequestTopic;
    MetadataRequest::default()
        .with_topics(Some(vec![
            MetadataRequestTopic::default().with_name(Some(topic())),
        ]))
        .with_allow_auto_topic_creation(true)
        .with_include_topic_authorized_operations(version >= 8)
        .with_include_cluster_authorized_operations((8..=10).contains(&version))
}

fn data_path(asker: &mut Asker, api: ApiKey, version: i16, id: uuid::Uuid) -> bool {
    match api {
        ApiKey::Produce => {
            let reply: ProduceResponse = asker.ask(api, version, &produce(version, id));
            assert_eq!(reply.responses[0].partition_responses[0].error_code, 0);
            let mut bad = produce(version, id);
            bad.topic_data[0].partition_data[0].index = 77;
            let reply: ProduceResponse = asker.ask(api, version, &bad);
            assert_eq!(reply.responses[0].partition_responses[0].error_code, 3);
        }
        ApiKey::Fetch => {
            let reply: FetchResponse = asker.ask(api, version, &fetch(version, id));
            let partition = &reply.responses[0].partitions[0];
            assert_eq!(partition.error_code, 0, "Fetch version {version}");
            assert!(partition.records.as_ref().is_some_and(|r| !r.is_empty()));
        }
        ApiKey::ListOffsets => {
            use list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
            for timestamp in [-1, -2, 0] {
                let asked = ListOffsetsPartition::default().with_timestamp(timestamp);
                let request = ListOffsetsRequest::default()
                    .with_replica_id(BrokerId(-1))
                    .with_topics(vec![
                        ListOffsetsTopic::default()
                            .with_name(topic())
                            .with_partitions(vec![asked]),
                    ]);
                let reply: ListOffsetsResponse = asker.ask(api, version, &request);
                assert_eq!(reply.topics[0].partitions[0].error_code, 0);
            }
        }
        ApiKey::Metadata => {
            let reply: MetadataResponse = asker.ask(api, version, &metadata(version));
            assert_eq!(reply.topics[0].error_code, 0, "Metadata version {version}");
        }
        ApiKey::OffsetForLeaderEpoch => {
            use offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};
            let request = OffsetForLeaderEpochRequest::default()
                .with_replica_id(BrokerId(if version >= 3 { -1 } else { -2 }))
                .with_topics(vec![
                    OffsetForLeaderTopic::default()
                        .with_topic(topic())
                        .with_partitions(vec![
                            OffsetForLeaderPartition::default()
                                .with_current_leader_epoch(-1)
                                .with_leader_epoch(1),
                        ]),
                ]);
            let reply: OffsetForLeaderEpochResponse = asker.ask(api, version, &request);
            assert_eq!(reply.topics[0].partitions[0].error_code, 0);
        }
        ApiKey::InitProducerId => {
            let request = InitProducerIdRequest::default()
                .with_transactional_id(None)
                .with_producer_id(ProducerId(-1))
                .with_producer_epoch(-1);
            let reply: InitProducerIdResponse = asker.ask(api, version, &request);
            assert_eq!(reply.error_code, 0);
        }
        ApiKey::DescribeProducers => {
            use describe_producers_request::TopicRequest;
            let request = DescribeProducersRequest::default().with_topics(vec![
                TopicRequest::default()
                    .with_name(topic())
                    .with_partition_indexes(vec![0]),
            ]);
            let _: DescribeProducersResponse = asker.ask(api, version, &request);
        }
        _ => return false,
    }
    true
}

fn cluster(asker: &mut Asker, api: ApiKey, version: i16) -> bool {
    match api {
        ApiKey::ApiVersions => {
            let request = ApiVersionsRequest::default()
                .with_client_software_name(text("every"))
                .with_client_software_version(text("1.0"));
            let reply: ApiVersionsResponse = asker.ask(api, version, &request);
            assert_eq!(reply.error_code, 0);
            assert_eq!(reply.api_keys.len(), SERVED.len());
        }
        ApiKey::DescribeCluster => {
            let request = DescribeClusterRequest::default()
                .with_include_cluster_authorized_operations(true)
                .with_endpoint_type(1);
            let reply: DescribeClusterResponse = asker.ask(api, version, &request);
            assert_eq!((reply.error_code, reply.brokers.len()), (0, 1));
        }
        ApiKey::DescribeTopicPartitions => {
            use describe_topic_partitions_request::TopicRequest;
            let request = DescribeTopicPartitionsRequest::default()
                .with_topics(vec![TopicRequest::default().with_name(topic())])
                .with_response_partition_limit(10);
            let reply: DescribeTopicPartitionsResponse = asker.ask(api, version, &request);
            assert_eq!(reply.topics[0].error_code, 0);
        }
        ApiKey::DescribeLogDirs => {
            let request = DescribeLogDirsRequest::default().with_topics(None);
            let reply: DescribeLogDirsResponse = asker.ask(api, version, &request);
            assert_eq!(reply.results[0].error_code, 0);
        }
        ApiKey::ListConfigResources => {
            let _: ListConfigResourcesResponse =
                asker.ask(api, version, &ListConfigResourcesRequest::default());
        }
        _ => return false,
    }
    true
}

fn groups(asker: &mut Asker, api: ApiKey, version: i16) -> bool {
    let member = text("nobody");
    match api {
        ApiKey::FindCoordinator => {
            let request = if version >= 4 {
                FindCoordinatorRequest::default().with_coordinator_keys(vec![text(GROUP)])
            } else {
                FindCoordinatorRequest::default().with_key(text(GROUP))
            };
            // The offsets topic comes into being on the first request.
            for _ in 0..200 {
                let reply: FindCoordinatorResponse = asker.ask(api, version, &request);
                let code = reply
                    .coordinators
                    .first()
                    .map_or(reply.error_code, |found| found.error_code);
                if code == 0 {
                    return true;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            panic!("no coordinator, FindCoordinator version {version}");
        }
        ApiKey::JoinGroup => join(asker, version),
        ApiKey::Heartbeat => {
            let request = HeartbeatRequest::default()
                .with_group_id(group())
                .with_member_id(member);
            let reply: HeartbeatResponse = asker.ask(api, version, &request);
            assert_ne!(reply.error_code, 0);
        }
        ApiKey::LeaveGroup => {
            use leave_group_request::MemberIdentity;
            let request = if version >= 3 {
                LeaveGroupRequest::default()
                    .with_members(vec![MemberIdentity::default().with_member_id(member)])
            } else {
                LeaveGroupRequest::default().with_member_id(member)
            };
            let _: LeaveGroupResponse = asker.ask(api, version, &request.with_group_id(group()));
        }
        ApiKey::SyncGroup => {
            let request = SyncGroupRequest::default()
                .with_group_id(group())
                .with_member_id(member);
            let _: SyncGroupResponse = asker.ask(api, version, &request);
        }
        ApiKey::OffsetCommit => {
            use offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
            let partition = OffsetCommitRequestPartition::default()
                .with_committed_offset(1)
                .with_committed_metadata(Some(text("note")));
            let request = OffsetCommitRequest::default()
                .with_group_id(group())
                .with_generation_id_or_member_epoch(-1)
                .with_topics(vec![
                    OffsetCommitRequestTopic::default()
                        .with_name(topic())
                        .with_partitions(vec![partition]),
                ]);
            let _: OffsetCommitResponse = asker.ask(api, version, &request);
        }
        ApiKey::OffsetFetch => offset_fetch(asker, version),
        ApiKey::DescribeGroups => {
            let request = DescribeGroupsRequest::default()
                .with_groups(vec![group(), GroupId(text("unknown"))]);
            let reply: DescribeGroupsResponse = asker.ask(api, version, &request);
            assert_eq!(reply.groups.len(), 2);
        }
        ApiKey::ListGroups => {
            let reply: ListGroupsResponse = asker.ask(api, version, &ListGroupsRequest::default());
            assert_eq!(reply.error_code, 0);
        }
        ApiKey::DeleteGroups => {
            let request =
                DeleteGroupsRequest::default().with_groups_names(vec![GroupId(text("unknown"))]);
            let reply: DeleteGroupsResponse = asker.ask(api, version, &request);
            assert_eq!(reply.results.len(), 1);
        }
        ApiKey::OffsetDelete => {
            let request = OffsetDeleteRequest::default().with_group_id(GroupId(text("unknown")));
            let _: OffsetDeleteResponse = asker.ask(api, version, &request);
        }
        _ => return false,
    }
    true
}

/// Joins a group of its own and stays alone in it. Its partition may still be loading.
fn join(asker: &mut Asker, version: i16) {
    const COORDINATOR_LOAD_IN_PROGRESS: i16 = 14;
    use join_group_request::JoinGroupRequestProtocol;
    let mut request = JoinGroupRequest::default()
        .with_group_id(GroupId(text(&format!("join-{version}"))))
        .with_session_timeout_ms(6_000)
        .with_rebalance_timeout_ms(if version >= 1 { 6_000 } else { -1 })
        .with_protocol_type(text("every"))
        .with_protocols(vec![
            JoinGroupRequestProtocol::default()
                .with_name(text("one"))
                .with_metadata(Bytes::from_static(b"m")),
        ]);
    let mut reply: JoinGroupResponse = asker.ask(ApiKey::JoinGroup, version, &request);
    while reply.error_code == COORDINATOR_LOAD_IN_PROGRESS {
        std::thread::sleep(Duration::from_millis(50));
        reply = asker.ask(ApiKey::JoinGroup, version, &request);
    }
    if reply.error_code == 79 {
        request.member_id = reply.member_id.clone();
        reply = asker.ask(ApiKey::JoinGroup, version, &request);
    }
    assert_eq!(reply.error_code, 0, "JoinGroup version {version}");
    assert_eq!(reply.members.len(), 1, "JoinGroup version {version}");
}

fn offset_fetch(asker: &mut Asker, version: i16) {
    use offset_fetch_request::{
        OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
    };
    let request = if version >= 8 {
        let topics = OffsetFetchRequestTopics::default()
            .with_name(topic())
            .with_partition_indexes(vec![0]);
        let asked = OffsetFetchRequestGroup::default()
            .with_group_id(group())
            .with_topics(Some(vec![topics]));
        OffsetFetchRequest::default().with_groups(vec![asked])
    } else {
        let topics = OffsetFetchRequestTopic::default()
            .with_name(topic())
            .with_partition_indexes(vec![0]);
        OffsetFetchRequest::default()
            .with_group_id(group())
            .with_topics(Some(vec![topics]))
    };
    let _: OffsetFetchResponse = asker.ask(ApiKey::OffsetFetch, version, &request);
}

fn administration(asker: &mut Asker, api: ApiKey, version: i16) -> bool {
    let scratch = TopicName(text(&format!("scratch-{version}")));
    match api {
        ApiKey::CreateTopics => {
            use create_topics_request::CreatableTopic;
            let wanted = CreatableTopic::default()
                .with_name(scratch)
                .with_num_partitions(1)
                .with_replication_factor(1);
            let request = CreateTopicsRequest::default()
                .with_topics(vec![wanted])
                .with_timeout_ms(10_000);
            let reply: CreateTopicsResponse = asker.ask(api, version, &request);
            assert_eq!(reply.topics[0].error_code, 0);
            let reply: CreateTopicsResponse = asker.ask(api, version, &request);
            assert_eq!(reply.topics[0].error_code, 36);
        }
        ApiKey::DeleteTopics => {
            use delete_topics_request::DeleteTopicState;
            let request = if version >= 6 {
                DeleteTopicsRequest::default()
                    .with_topics(vec![DeleteTopicState::default().with_name(Some(scratch))])
            } else {
                DeleteTopicsRequest::default().with_topic_names(vec![scratch])
            };
            let _: DeleteTopicsResponse = asker.ask(api, version, &request.with_timeout_ms(10_000));
        }
        ApiKey::DeleteRecords => {
            use delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
            let topics = DeleteRecordsTopic::default()
                .with_name(topic())
                .with_partitions(vec![DeleteRecordsPartition::default().with_offset(0)]);
            let request = DeleteRecordsRequest::default()
                .with_topics(vec![topics])
                .with_timeout_ms(10_000);
            let reply: DeleteRecordsResponse = asker.ask(api, version, &request);
            assert_eq!(reply.topics[0].partitions[0].error_code, 0);
        }
        ApiKey::CreatePartitions => {
            use create_partitions_request::CreatePartitionsTopic;
            let wanted = CreatePartitionsTopic::default()
                .with_name(topic())
                .with_count(1)
                .with_assignments(None);
            let request = CreatePartitionsRequest::default()
                .with_topics(vec![wanted])
                .with_timeout_ms(10_000);
            let reply: CreatePartitionsResponse = asker.ask(api, version, &request);
            assert_eq!(reply.results[0].error_code, 37);
        }
        _ => return false,
    }
    true
}

/// Leaders, replicas, brokers and the controllers of a cluster in which nothing moves.
fn placement(asker: &mut Asker, api: ApiKey, version: i16) -> bool {
    match api {
        ApiKey::ElectLeaders => {
            use elect_leaders_request::TopicPartitions;
            let asked = TopicPartitions::default()
                .with_topic(topic())
                .with_partitions(vec![0]);
            let request = ElectLeadersRequest::default()
                .with_topic_partitions(Some(vec![asked]))
                .with_timeout_ms(10_000);
            let reply: ElectLeadersResponse = asker.ask(api, version, &request);
            let result = &reply.replica_election_results[0].partition_result[0];
            assert_eq!(result.error_code, 84);
        }
        ApiKey::AlterPartitionReassignments => {
            use alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic};
            let partitions = vec![ReassignablePartition::default().with_replicas(None)];
            let asked = ReassignableTopic::default()
                .with_name(topic())
                .with_partitions(partitions);
            let request = AlterPartitionReassignmentsRequest::default()
                .with_topics(vec![asked])
                .with_timeout_ms(10_000);
            let reply: AlterPartitionReassignmentsResponse = asker.ask(api, version, &request);
            assert_eq!(reply.responses[0].partitions[0].error_code, 85);
        }
        ApiKey::ListPartitionReassignments => {
            let request = ListPartitionReassignmentsRequest::default().with_topics(None);
            let reply: ListPartitionReassignmentsResponse = asker.ask(api, version, &request);
            assert_eq!((reply.error_code, reply.topics.len()), (0, 0));
        }
        ApiKey::DescribeQuorum => {
            use describe_quorum_request::{PartitionData, TopicData};
            let asked = TopicData::default()
                .with_topic_name(TopicName(text("__cluster_metadata")))
                .with_partitions(vec![PartitionData::default()]);
            let request = DescribeQuorumRequest::default().with_topics(vec![asked]);
            let reply: DescribeQuorumResponse = asker.ask(api, version, &request);
            let partition = &reply.topics[0].partitions[0];
            assert_eq!((reply.error_code, partition.error_code), (0, 0));
            assert_eq!(partition.current_voters.len(), 1);
        }
        ApiKey::UpdateFeatures => {
            let update = update_features_request::FeatureUpdateKey::default()
                .with_feature(text("metadata.version"))
                .with_max_version_level(30);
            let update = if version > 0 {
                update.with_upgrade_type(1)
            } else {
                update
            };
            let request = UpdateFeaturesRequest::default()
                .with_feature_updates(vec![update])
                .with_timeout_ms(10_000);
            let reply: UpdateFeaturesResponse = asker.ask(api, version, &request);
            assert_eq!(reply.error_code, 95);
            assert_eq!(reply.results.len(), usize::from(version < 2));
        }
        ApiKey::UnregisterBroker => {
            let request = UnregisterBrokerRequest::default().with_broker_id(BrokerId(77));
            let reply: UnregisterBrokerResponse = asker.ask(api, version, &request);
            assert_eq!(reply.error_code, 102);
        }
        _ => return false,
    }
    true
}

fn configurations(asker: &mut Asker, api: ApiKey, version: i16) -> bool {
    const TOPIC_RESOURCE: i8 = 2;
    match api {
        ApiKey::DescribeConfigs => {
            use describe_configs_request::DescribeConfigsResource;
            let resource = DescribeConfigsResource::default()
                .with_resource_type(TOPIC_RESOURCE)
                .with_resource_name(text(TOPIC))
                .with_configuration_keys(None);
            let request = DescribeConfigsRequest::default()
                .with_resources(vec![resource])
                .with_include_synonyms(true)
                .with_include_documentation(version >= 3);
            let reply: DescribeConfigsResponse = asker.ask(api, version, &request);
            assert!(reply.results[0].configs.len() > 20);
        }
        ApiKey::AlterConfigs => {
            use alter_configs_request::{AlterConfigsResource, AlterableConfig};
            let config = AlterableConfig::default()
                .with_name(text("retention.ms"))
                .with_value(Some(text("86400000")));
            let resource = AlterConfigsResource::default()
                .with_resource_type(TOPIC_RESOURCE)
                .with_resource_name(text(TOPIC))
                .with_configs(vec![config]);
            let request = AlterConfigsRequest::default().with_resources(vec![resource]);
            let reply: AlterConfigsResponse = asker.ask(api, version, &request);
            assert_eq!(reply.responses[0].error_code, 0);
        }
        ApiKey::IncrementalAlterConfigs => {
            use incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
            let config = AlterableConfig::default()
                .with_name(text("no.such.key"))
                .with_value(Some(text("1")));
            let resource = AlterConfigsResource::default()
                .with_resource_type(TOPIC_RESOURCE)
                .with_resource_name(text(TOPIC))
                .with_configs(vec![config]);
            let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
            let reply: IncrementalAlterConfigsResponse = asker.ask(api, version, &request);
            assert_eq!(reply.responses[0].error_code, 40);
        }
        _ => return false,
    }
    true
}

/// Asks a broker everything; a request that is not answered as it should be is a failure.
pub fn ask_everything(address: &str) -> Asker {
    let mut asker = Asker::connect(address);
    let newest: MetadataResponse = loop {
        let reply: MetadataResponse = asker.ask(ApiKey::Metadata, 13, &metadata(13));
        if reply.topics[0].error_code == 0 {
            break reply;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    let id = newest.topics[0].topic_id;
    let _: ProduceResponse = asker.ask(ApiKey::Produce, 13, &produce(13, id));
    for range in SERVED {
        for version in range.min..=range.max {
            let asked = data_path(&mut asker, range.key, version, id)
                || cluster(&mut asker, range.key, version)
                || groups(&mut asker, range.key, version)
                || administration(&mut asker, range.key, version)
                || placement(&mut asker, range.key, version)
                || configurations(&mut asker, range.key, version);
            assert!(asked, "no request for {:?} here", range.key);
        }
    }
    asker
}

#[test]
fn every_api_answers_in_every_version() {
    let broker = RunningBroker::start();
    ask_everything(broker.address());
}
