//! Commands as they are stored: one log entry each.
//!
//! Layout: format (u8, 1), feature level (u16), kind (u16), version (u16), all big-endian, then the fields as JSON.
//! A field that is missing takes its default, one that is unknown is skipped: a newer minor version can be read. A kind
//! or version that is unknown is refused, which stops the controller rather than letting images diverge.
//!
//! The level is that of the cluster when the record was written. A kind is not written below the level that it came with:
//! until all brokers know it, one of them may be of a program that would stop at it.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tidelog_protocol::types::{BrokerId, LeaderEpoch, PartitionIndex, TopicId, TopicName};
use uuid::Uuid;

use crate::limits::METADATA_RECORD_BYTES_MAX;
use crate::metadata::command::{
    BrokerRegistration, Command, CompletedReassignment, ConfigResource, DamagedReplica,
    LeaderReport,
};
use crate::metadata::levels::{FEATURE_LEVEL_MIN, METADATA_FEATURE, REASSIGNMENT_LEVEL};
use crate::options::{Endpoint, SecurityProtocol};
use crate::peers::PeerAddress;

/// Format byte of records.
const FORMAT: u8 = 1;
/// Version of all record kinds so far.
const VERSION: u16 = 1;
/// Bytes before the fields.
const HEADER_BYTES: usize = 7;
const BOOTSTRAP: u16 = 1;
const REGISTER_BROKER: u16 = 2;
const CREATE_TOPIC: u16 = 3;
const DELETE_TOPIC: u16 = 4;
const CREATE_PARTITIONS: u16 = 5;
const ALTER_CONFIGS: u16 = 6;
const ALLOCATE_PRODUCER_IDS: u16 = 7;
const REPORT_LEADERS: u16 = 8;
const SET_FEATURE: u16 = 9;
const SET_BROKER_FENCED: u16 = 10;
const ALTER_REASSIGNMENT: u16 = 11;
const COMPLETE_REASSIGNMENTS: u16 = 12;
const UNREGISTER_BROKER: u16 = 13;
const REPORT_DAMAGE: u16 = 14;

/// Why bytes are not a record of this version.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RecordError {
    /// Cut, or not JSON.
    #[error("damaged metadata record: {0}")]
    Damaged(String),
    /// Written by a newer program.
    #[error("metadata record kind {kind} version {version} at feature level {level} is not known")]
    Unknown {
        /// Kind.
        kind: u16,
        /// Version.
        version: u16,
        /// Feature level of the writer.
        level: u16,
    },
    /// Of a level that the cluster has not reached.
    #[error(
        "this needs feature level {needed}, and the cluster is at {level}: once all brokers run this version, raise it with \
         `tidelog cluster upgrade` (or `kafka-features upgrade --feature {METADATA_FEATURE}={needed}`)"
    )]
    LevelTooLow {
        /// Needed.
        needed: u16,
        /// The cluster's.
        level: u16,
    },
    /// Too large to be an entry.
    #[error("metadata record of {0} bytes")]
    TooLarge(usize),
}

#[derive(Serialize, Deserialize)]
struct BootstrapFields {
    cluster_id: u128,
    feature_level: u16,
}

/// An endpoint as stored; the image's snapshot holds it too.
#[derive(Serialize, Deserialize)]
pub(super) struct EndpointFields {
    listener: String,
    host: String,
    port: u16,
    security: u8,
}

#[derive(Serialize, Deserialize)]
struct RegisterBrokerFields {
    broker: i32,
    directory: u128,
    incarnation: u128,
    rack: Option<String>,
    endpoints: Vec<EndpointFields>,
    #[serde(default)]
    peer: Option<PeerFields>,
    feature_level_max: u16,
    #[serde(default)]
    new_directory: bool,
}

/// Host and port where a broker listens for others; the image's snapshot holds it too.
#[derive(Serialize, Deserialize)]
pub(super) struct PeerFields(String, u16);

#[derive(Serialize, Deserialize)]
struct SetBrokerFencedFields {
    broker: i32,
    epoch: i64,
    fenced: bool,
}

#[derive(Serialize, Deserialize)]
struct CreateTopicFields {
    name: String,
    id: u128,
    assignments: Vec<Vec<i32>>,
    configs: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
struct DeleteTopicFields {
    id: u128,
}

#[derive(Serialize, Deserialize)]
struct CreatePartitionsFields {
    id: u128,
    assignments: Vec<Vec<i32>>,
}

#[derive(Serialize, Deserialize)]
struct AlterReassignmentFields {
    topic: u128,
    partition: i32,
    target: Option<Vec<i32>>,
}

#[derive(Serialize, Deserialize)]
struct CompleteReassignmentsFields {
    /// Topic, partition, version of the image that asked for it.
    completed: Vec<(u128, i32, u64)>,
}

#[derive(Serialize, Deserialize)]
struct ReportDamageFields {
    topic: u128,
    partition: i32,
    broker: i32,
}

#[derive(Serialize, Deserialize)]
struct UnregisterBrokerFields {
    broker: i32,
}

/// A configuration resource as stored; the image's snapshot holds it too.
#[derive(Serialize, Deserialize)]
pub(super) struct ResourceFields {
    kind: u8,
    name: String,
}

#[derive(Serialize, Deserialize)]
struct AlterConfigsFields {
    resource: ResourceFields,
    changes: Vec<(String, Option<String>)>,
}

#[derive(Serialize, Deserialize)]
struct AllocateProducerIdsFields {
    broker: i32,
    count: i32,
}

#[derive(Serialize, Deserialize)]
struct ReportLeadersFields {
    reports: Vec<ReportFields>,
}

#[derive(Serialize, Deserialize)]
struct ReportFields {
    t: u128,
    p: i32,
    l: i32,
    e: i32,
    isr: Vec<i32>,
}

#[derive(Serialize, Deserialize)]
struct SetFeatureFields {
    name: String,
    level: i16,
}

/// The level from which on a kind is written.
fn first_level(kind: u16) -> u16 {
    match kind {
        ALTER_REASSIGNMENT | UNREGISTER_BROKER | REPORT_DAMAGE => REASSIGNMENT_LEVEL,
        // COMPLETE_REASSIGNMENTS among them: it ends what nobody can have begun who does not know it.
        _ => FEATURE_LEVEL_MIN,
    }
}

/// Bytes of a command, to be one log entry of a cluster at this level.
pub fn encode(command: &Command, level: u16) -> Result<Bytes, RecordError> {
    let (kind, json) = kind_and_fields(command);
    let needed = first_level(kind);
    if level < needed {
        return Err(RecordError::LevelTooLow { needed, level });
    }
    frame(kind, level, &json?)
}

/// What a command is written as.
fn kind_and_fields(command: &Command) -> (u16, Result<Vec<u8>, RecordError>) {
    match command {
        Command::Bootstrap {
            cluster_id,
            feature_level,
        } => (
            BOOTSTRAP,
            json(&BootstrapFields {
                cluster_id: cluster_id.as_u128(),
                feature_level: *feature_level,
            }),
        ),
        Command::RegisterBroker(registration) => {
            (REGISTER_BROKER, json(&registration_fields(registration)))
        }
        Command::SetBrokerFenced {
            broker,
            epoch,
            fenced,
        } => (
            SET_BROKER_FENCED,
            json(&SetBrokerFencedFields {
                broker: broker.0,
                epoch: *epoch,
                fenced: *fenced,
            }),
        ),
        Command::CreateTopic {
            name,
            id,
            assignments,
            configs,
        } => (
            CREATE_TOPIC,
            json(&CreateTopicFields {
                name: name.to_string(),
                id: id.0.as_u128(),
                assignments: raw_assignments(assignments),
                configs: configs.clone(),
            }),
        ),
        Command::DeleteTopic { id } => (
            DELETE_TOPIC,
            json(&DeleteTopicFields { id: id.0.as_u128() }),
        ),
        Command::CreatePartitions { id, assignments } => (
            CREATE_PARTITIONS,
            json(&CreatePartitionsFields {
                id: id.0.as_u128(),
                assignments: raw_assignments(assignments),
            }),
        ),
        Command::AlterReassignment {
            topic,
            partition,
            target,
        } => (
            ALTER_REASSIGNMENT,
            json(&AlterReassignmentFields {
                topic: topic.0.as_u128(),
                partition: partition.0,
                target: target.as_deref().map(raw_brokers),
            }),
        ),
        Command::CompleteReassignments(completed) => {
            (COMPLETE_REASSIGNMENTS, json(&completed_fields(completed)))
        }
        Command::UnregisterBroker { broker: id } => (
            UNREGISTER_BROKER,
            json(&UnregisterBrokerFields { broker: id.0 }),
        ),
        Command::ReportDamage(damaged) => (REPORT_DAMAGE, json(&damage_fields(damaged))),
        Command::AlterConfigs { resource, changes } => (
            ALTER_CONFIGS,
            json(&AlterConfigsFields {
                resource: resource.into(),
                changes: changes.clone(),
            }),
        ),
        Command::AllocateProducerIds { broker, count } => (
            ALLOCATE_PRODUCER_IDS,
            json(&AllocateProducerIdsFields {
                broker: broker.0,
                count: *count,
            }),
        ),
        Command::ReportLeaders(reports) => (REPORT_LEADERS, json(&leaders_fields(reports))),
        Command::SetFeature { name, level } => (
            SET_FEATURE,
            json(&SetFeatureFields {
                name: name.clone(),
                level: *level,
            }),
        ),
    }
}

/// A record of these fields.
fn frame(kind: u16, level: u16, json: &[u8]) -> Result<Bytes, RecordError> {
    if json.len() > METADATA_RECORD_BYTES_MAX {
        return Err(RecordError::TooLarge(json.len()));
    }
    let mut bytes = BytesMut::with_capacity(HEADER_BYTES + json.len());
    bytes.put_u8(FORMAT);
    bytes.put_u16(level);
    bytes.put_u16(kind);
    bytes.put_u16(VERSION);
    bytes.put_slice(json);
    Ok(bytes.freeze())
}

/// The level that a record was written at.
pub fn level(bytes: &[u8]) -> Result<u16, RecordError> {
    match bytes {
        [_, high, low, ..] => Ok(u16::from_be_bytes([*high, *low])),
        _ => Err(RecordError::Damaged(format!("{} bytes", bytes.len()))),
    }
}

/// The command that [`encode`] wrote.
pub fn decode(bytes: &[u8]) -> Result<Command, RecordError> {
    let (kind, fields, unknown) = unframe(bytes)?;
    let command = match kind {
        BOOTSTRAP => {
            let fields: BootstrapFields = parse(fields)?;
            Command::Bootstrap {
                cluster_id: Uuid::from_u128(fields.cluster_id),
                feature_level: fields.feature_level,
            }
        }
        REGISTER_BROKER => Command::RegisterBroker(registration(parse(fields)?)?),
        SET_BROKER_FENCED => {
            let fields: SetBrokerFencedFields = parse(fields)?;
            Command::SetBrokerFenced {
                broker: BrokerId(fields.broker),
                epoch: fields.epoch,
                fenced: fields.fenced,
            }
        }
        CREATE_TOPIC => {
            let fields: CreateTopicFields = parse(fields)?;
            Command::CreateTopic {
                name: TopicName::from(fields.name.as_str()),
                id: TopicId(Uuid::from_u128(fields.id)),
                assignments: assignments(fields.assignments),
                configs: fields.configs,
            }
        }
        DELETE_TOPIC => {
            let fields: DeleteTopicFields = parse(fields)?;
            Command::DeleteTopic {
                id: TopicId(Uuid::from_u128(fields.id)),
            }
        }
        CREATE_PARTITIONS => {
            let fields: CreatePartitionsFields = parse(fields)?;
            Command::CreatePartitions {
                id: TopicId(Uuid::from_u128(fields.id)),
                assignments: assignments(fields.assignments),
            }
        }
        ALTER_REASSIGNMENT => {
            let fields: AlterReassignmentFields = parse(fields)?;
            Command::AlterReassignment {
                topic: TopicId(Uuid::from_u128(fields.topic)),
                partition: PartitionIndex(fields.partition),
                target: fields.target.map(brokers),
            }
        }
        COMPLETE_REASSIGNMENTS => {
            let fields: CompleteReassignmentsFields = parse(fields)?;
            let completed = (fields.completed.into_iter()).map(|(topic, partition, since)| {
                CompletedReassignment {
                    topic: TopicId(Uuid::from_u128(topic)),
                    partition: PartitionIndex(partition),
                    since,
                }
            });
            Command::CompleteReassignments(completed.collect())
        }
        UNREGISTER_BROKER => {
            let fields: UnregisterBrokerFields = parse(fields)?;
            Command::UnregisterBroker {
                broker: BrokerId(fields.broker),
            }
        }
        REPORT_DAMAGE => Command::ReportDamage(damaged(parse(fields)?)),
        ALTER_CONFIGS => {
            let fields: AlterConfigsFields = parse(fields)?;
            Command::AlterConfigs {
                resource: fields.resource.try_into()?,
                changes: fields.changes,
            }
        }
        ALLOCATE_PRODUCER_IDS => {
            let fields: AllocateProducerIdsFields = parse(fields)?;
            Command::AllocateProducerIds {
                broker: BrokerId(fields.broker),
                count: fields.count,
            }
        }
        REPORT_LEADERS => {
            let fields: ReportLeadersFields = parse(fields)?;
            Command::ReportLeaders(fields.reports.into_iter().map(report).collect())
        }
        SET_FEATURE => {
            let fields: SetFeatureFields = parse(fields)?;
            Command::SetFeature {
                name: fields.name,
                level: fields.level,
            }
        }
        _ => return Err(unknown),
    };
    Ok(command)
}

/// Kind and fields of a record, and what to say if the kind is not known.
fn unframe(bytes: &[u8]) -> Result<(u16, &[u8], RecordError), RecordError> {
    let Some((
        &[
            format,
            level_high,
            level_low,
            kind_high,
            kind_low,
            version_high,
            version_low,
        ],
        fields,
    )) = bytes.split_first_chunk::<HEADER_BYTES>()
    else {
        return Err(RecordError::Damaged(format!("{} bytes", bytes.len())));
    };
    let kind = u16::from_be_bytes([kind_high, kind_low]);
    let version = u16::from_be_bytes([version_high, version_low]);
    let unknown = RecordError::Unknown {
        kind,
        version,
        level: u16::from_be_bytes([level_high, level_low]),
    };
    if format != FORMAT || version != VERSION {
        return Err(unknown);
    }
    Ok((kind, fields, unknown))
}

fn json(fields: &impl Serialize) -> Result<Vec<u8>, RecordError> {
    serde_json::to_vec(fields).map_err(|error| RecordError::Damaged(error.to_string()))
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, RecordError> {
    serde_json::from_slice(bytes).map_err(|error| RecordError::Damaged(error.to_string()))
}

pub(super) fn raw_brokers(brokers: &[BrokerId]) -> Vec<i32> {
    brokers.iter().map(|broker| broker.0).collect()
}

pub(super) fn brokers(raw: Vec<i32>) -> Vec<BrokerId> {
    raw.into_iter().map(BrokerId).collect()
}

fn raw_assignments(assignments: &[Vec<BrokerId>]) -> Vec<Vec<i32>> {
    (assignments.iter())
        .map(|replicas| raw_brokers(replicas))
        .collect()
}

fn assignments(raw: Vec<Vec<i32>>) -> Vec<Vec<BrokerId>> {
    raw.into_iter().map(brokers).collect()
}

fn registration_fields(registration: &BrokerRegistration) -> RegisterBrokerFields {
    RegisterBrokerFields {
        broker: registration.broker.0,
        directory: registration.directory_id.as_u128(),
        incarnation: registration.incarnation.as_u128(),
        rack: registration.rack.clone(),
        endpoints: registration
            .endpoints
            .iter()
            .map(EndpointFields::from)
            .collect(),
        peer: registration.peer_address.as_ref().map(PeerFields::from),
        feature_level_max: registration.feature_level_max,
        new_directory: registration.new_directory,
    }
}

fn registration(fields: RegisterBrokerFields) -> Result<BrokerRegistration, RecordError> {
    Ok(BrokerRegistration {
        broker: BrokerId(fields.broker),
        directory_id: Uuid::from_u128(fields.directory),
        incarnation: Uuid::from_u128(fields.incarnation),
        rack: fields.rack,
        endpoints: fields
            .endpoints
            .into_iter()
            .map(Endpoint::try_from)
            .collect::<Result<_, _>>()?,
        peer_address: fields.peer.map(PeerAddress::from),
        feature_level_max: fields.feature_level_max,
        new_directory: fields.new_directory,
    })
}

fn damage_fields(damaged: &DamagedReplica) -> ReportDamageFields {
    ReportDamageFields {
        topic: damaged.topic.0.as_u128(),
        partition: damaged.partition.0,
        broker: damaged.broker.0,
    }
}

fn damaged(fields: ReportDamageFields) -> DamagedReplica {
    DamagedReplica {
        topic: TopicId(Uuid::from_u128(fields.topic)),
        partition: PartitionIndex(fields.partition),
        broker: BrokerId(fields.broker),
    }
}

fn leaders_fields(reports: &[LeaderReport]) -> ReportLeadersFields {
    ReportLeadersFields {
        reports: reports.iter().map(report_fields).collect(),
    }
}

fn completed_fields(completed: &[CompletedReassignment]) -> CompleteReassignmentsFields {
    let fields = |it: &CompletedReassignment| (it.topic.0.as_u128(), it.partition.0, it.since);
    CompleteReassignmentsFields {
        completed: completed.iter().map(fields).collect(),
    }
}

fn report_fields(report: &LeaderReport) -> ReportFields {
    ReportFields {
        t: report.topic.0.as_u128(),
        p: report.partition.0,
        l: report.leader.0,
        e: report.epoch.0,
        isr: raw_brokers(&report.isr),
    }
}

fn report(fields: ReportFields) -> LeaderReport {
    LeaderReport {
        topic: TopicId(Uuid::from_u128(fields.t)),
        partition: PartitionIndex(fields.p),
        leader: BrokerId(fields.l),
        epoch: LeaderEpoch(fields.e),
        isr: brokers(fields.isr),
    }
}

impl From<&PeerAddress> for PeerFields {
    fn from(address: &PeerAddress) -> Self {
        PeerFields(address.host.clone(), address.port)
    }
}

impl From<PeerFields> for PeerAddress {
    fn from(PeerFields(host, port): PeerFields) -> Self {
        PeerAddress { host, port }
    }
}

impl From<&Endpoint> for EndpointFields {
    fn from(endpoint: &Endpoint) -> Self {
        let security = match endpoint.security_protocol {
            SecurityProtocol::Plaintext => 0,
            SecurityProtocol::Ssl => 1,
            SecurityProtocol::SaslPlaintext => 2,
            SecurityProtocol::SaslSsl => 3,
        };
        EndpointFields {
            listener: endpoint.listener.clone(),
            host: endpoint.host.clone(),
            port: endpoint.port,
            security,
        }
    }
}

impl TryFrom<EndpointFields> for Endpoint {
    type Error = RecordError;

    fn try_from(fields: EndpointFields) -> Result<Self, RecordError> {
        let security_protocol = match fields.security {
            0 => SecurityProtocol::Plaintext,
            1 => SecurityProtocol::Ssl,
            2 => SecurityProtocol::SaslPlaintext,
            3 => SecurityProtocol::SaslSsl,
            other => return Err(RecordError::Damaged(format!("security protocol {other}"))),
        };
        Ok(Endpoint {
            listener: fields.listener,
            host: fields.host,
            port: fields.port,
            security_protocol,
        })
    }
}

impl From<&ConfigResource> for ResourceFields {
    fn from(resource: &ConfigResource) -> Self {
        let (kind, name) = match resource {
            ConfigResource::Topic(name) => (1, name.to_string()),
            ConfigResource::Broker(Some(broker)) => (2, broker.0.to_string()),
            ConfigResource::Broker(None) => (2, String::new()),
            ConfigResource::Group(name) => (3, name.clone()),
            ConfigResource::ClientMetrics(name) => (4, name.clone()),
        };
        ResourceFields { kind, name }
    }
}

impl TryFrom<ResourceFields> for ConfigResource {
    type Error = RecordError;

    fn try_from(fields: ResourceFields) -> Result<Self, RecordError> {
        match fields.kind {
            1 => Ok(ConfigResource::Topic(TopicName::from(fields.name.as_str()))),
            2 if fields.name.is_empty() => Ok(ConfigResource::Broker(None)),
            2 => {
                let id = fields
                    .name
                    .parse()
                    .map_err(|_| RecordError::Damaged("broker resource".into()))?;
                Ok(ConfigResource::Broker(Some(BrokerId(id))))
            }
            3 => Ok(ConfigResource::Group(fields.name)),
            4 => Ok(ConfigResource::ClientMetrics(fields.name)),
            other => Err(RecordError::Damaged(format!(
                "config resource kind {other}"
            ))),
        }
    }
}

#[cfg(test)]
mod tests;
