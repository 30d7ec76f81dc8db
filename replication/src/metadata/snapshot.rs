//! The image as bytes: what a snapshot of the controller group holds.
//!
//! Layout: format (u8, 1), feature level (u16 big-endian), then one JSON document a line: the header, brokers,
//! configurations, topics. Written and read line by line, so that no second copy of a large image is built.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tidelog_protocol::types::{BrokerId, LeaderEpoch, TopicId, TopicName};
use uuid::Uuid;

use crate::metadata::command::ConfigResource;
use crate::metadata::image::{
    BrokerImage, MetadataImage, PartitionImage, Reassignment, TopicImage, fold_name,
};
use crate::metadata::levels::{FEATURE_LEVEL_MAX, METADATA_FEATURE};
use crate::metadata::record::{
    EndpointFields, PeerFields, RecordError, ResourceFields, brokers, raw_brokers,
};
use crate::options::Endpoint;

const FORMAT: u8 = 1;
const HEADER_BYTES: usize = 3;

#[derive(Serialize, Deserialize)]
enum Line {
    Header {
        version: u64,
        cluster_id: u128,
        feature_level: u16,
        features: BTreeMap<String, i16>,
        next_producer_id: i64,
        next_broker_epoch: i64,
    },
    Broker {
        id: i32,
        epoch: i64,
        directory: u128,
        incarnation: u128,
        rack: Option<String>,
        endpoints: Vec<EndpointFields>,
        #[serde(default)]
        peer: Option<PeerFields>,
        fenced: bool,
        feature_level_max: u16,
    },
    Config {
        resource: ResourceFields,
        configs: BTreeMap<String, String>,
    },
    Topic {
        name: String,
        id: u128,
        configs: BTreeMap<String, String>,
        partitions: Vec<PartitionFields>,
    },
}

/// Replicas, replicas in sync (empty: all), leader (-1: none), leader epoch, partition epoch, reassignment.
#[derive(Serialize, Deserialize)]
struct PartitionFields(
    Vec<i32>,
    Vec<i32>,
    i32,
    i32,
    i32,
    #[serde(default, skip_serializing_if = "Option::is_none")] Option<ReassignmentFields>,
);

/// Replicas before, replicas that are wanted, version of the image that asked for them, replicas that are wanted next.
#[derive(Serialize, Deserialize)]
struct ReassignmentFields(
    Vec<i32>,
    Vec<i32>,
    u64,
    #[serde(default, skip_serializing_if = "Option::is_none")] Option<Vec<i32>>,
);

/// Bytes of an image.
pub fn encode(image: &MetadataImage) -> Result<Vec<u8>, RecordError> {
    let mut bytes = vec![FORMAT];
    bytes.extend_from_slice(&image.feature_level.to_be_bytes());
    write_line(
        &mut bytes,
        &Line::Header {
            version: image.version,
            cluster_id: image.cluster_id.as_u128(),
            feature_level: image.feature_level,
            features: image.features.clone(),
            next_producer_id: image.next_producer_id,
            next_broker_epoch: image.next_broker_epoch,
        },
    )?;
    for broker in image.brokers() {
        write_line(&mut bytes, &broker_line(broker))?;
    }
    for (resource, configs) in image.configs.iter() {
        let configs = BTreeMap::clone(configs);
        write_line(
            &mut bytes,
            &Line::Config {
                resource: resource.into(),
                configs,
            },
        )?;
    }
    for topic in image.topics() {
        write_line(&mut bytes, &topic_line(topic))?;
    }
    Ok(bytes)
}

/// The image that [`encode`] wrote.
pub fn decode(bytes: &[u8]) -> Result<MetadataImage, RecordError> {
    let Some((&[format, level_high, level_low], lines)) = bytes.split_first_chunk::<HEADER_BYTES>()
    else {
        return Err(RecordError::Damaged(format!(
            "snapshot of {} bytes",
            bytes.len()
        )));
    };
    let level = u16::from_be_bytes([level_high, level_low]);
    if format != FORMAT {
        return Err(RecordError::Unknown {
            kind: 0,
            version: u16::from(format),
            level,
        });
    }
    let mut image = MetadataImage::default();
    for line in lines
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
    {
        let line = serde_json::from_slice(line)
            .map_err(|error| RecordError::Damaged(error.to_string()))?;
        read_line(&mut image, line)?;
    }
    if image.feature_level > FEATURE_LEVEL_MAX {
        return Err(RecordError::Unknown {
            kind: 0,
            version: u16::from(format),
            level: image.feature_level,
        });
    }
    Ok(image)
}

fn write_line(bytes: &mut Vec<u8>, line: &Line) -> Result<(), RecordError> {
    serde_json::to_writer(&mut *bytes, line)
        .map_err(|error| RecordError::Damaged(error.to_string()))?;
    bytes.push(b'\n');
    Ok(())
}

fn broker_line(broker: &BrokerImage) -> Line {
    Line::Broker {
        id: broker.id.0,
        epoch: broker.epoch,
        directory: broker.directory_id.as_u128(),
        incarnation: broker.incarnation.as_u128(),
        rack: broker.rack.clone(),
        endpoints: broker.endpoints.iter().map(EndpointFields::from).collect(),
        peer: broker.peer_address.as_ref().map(PeerFields::from),
        fenced: broker.fenced,
        feature_level_max: broker.feature_level_max,
    }
}

fn topic_line(topic: &TopicImage) -> Line {
    Line::Topic {
        name: topic.name.to_string(),
        id: topic.id.0.as_u128(),
        configs: topic.configs.clone(),
        partitions: topic.partitions.iter().map(partition_fields).collect(),
    }
}

fn partition_fields(partition: &PartitionImage) -> PartitionFields {
    let isr = if partition.isr == partition.replicas {
        Vec::new()
    } else {
        raw_brokers(&partition.isr)
    };
    let reassignment = partition.reassignment.as_deref();
    let reassignment = reassignment.map(|it| {
        let then = it.then.as_deref().map(raw_brokers);
        ReassignmentFields(raw_brokers(&it.from), raw_brokers(&it.to), it.since, then)
    });
    PartitionFields(
        raw_brokers(&partition.replicas),
        isr,
        partition.leader.map_or(-1, |leader| leader.0),
        partition.leader_epoch.0,
        partition.partition_epoch,
        reassignment,
    )
}

fn read_line(image: &mut MetadataImage, line: Line) -> Result<(), RecordError> {
    match line {
        Line::Header {
            version,
            cluster_id,
            feature_level,
            features,
            next_producer_id,
            next_broker_epoch,
        } => {
            image.version = version;
            image.cluster_id = Uuid::from_u128(cluster_id);
            image.feature_level = feature_level;
            image.features = features;
            // A program from before the level was a feature takes it for one of the others.
            image.features.remove(METADATA_FEATURE);
            image.next_producer_id = next_producer_id;
            image.next_broker_epoch = next_broker_epoch;
        }
        Line::Broker {
            id,
            epoch,
            directory,
            incarnation,
            rack,
            endpoints,
            peer,
            fenced,
            feature_level_max,
        } => {
            let broker = BrokerImage {
                id: BrokerId(id),
                epoch,
                directory_id: Uuid::from_u128(directory),
                incarnation: Uuid::from_u128(incarnation),
                rack,
                endpoints: endpoints
                    .into_iter()
                    .map(Endpoint::try_from)
                    .collect::<Result<_, _>>()?,
                peer_address: peer.map(Into::into),
                fenced,
                feature_level_max,
            };
            Arc::make_mut(&mut image.brokers).insert(broker.id, Arc::new(broker));
        }
        Line::Config { resource, configs } => {
            let resource = ConfigResource::try_from(resource)?;
            Arc::make_mut(&mut image.configs).insert(resource, Arc::new(configs));
        }
        Line::Topic {
            name,
            id,
            configs,
            partitions,
        } => {
            let name = TopicName::from(name.as_str());
            let id = TopicId(Uuid::from_u128(id));
            let partitions: Vec<_> = partitions.into_iter().map(partition_image).collect();
            image.partition_count += partitions.len();
            image.topic_names.insert(id, name.clone());
            image
                .folded_names
                .insert(fold_name(name.as_str()), name.clone());
            image.topics.insert(
                name.clone(),
                Arc::new(TopicImage {
                    name,
                    id,
                    partitions,
                    configs,
                }),
            );
        }
    }
    Ok(())
}

fn partition_image(fields: PartitionFields) -> PartitionImage {
    let PartitionFields(replicas, isr, leader, leader_epoch, partition_epoch, reassignment) =
        fields;
    let replicas: Arc<[BrokerId]> = Arc::from(brokers(replicas));
    let isr = if isr.is_empty() {
        replicas.clone()
    } else {
        Arc::from(brokers(isr))
    };
    let reassignment = reassignment.map(|ReassignmentFields(from, to, since, then)| {
        Arc::new(Reassignment {
            from: brokers(from),
            to: brokers(to),
            since,
            then: then.map(brokers),
        })
    });
    PartitionImage {
        replicas,
        reassignment,
        isr,
        leader: (leader >= 0).then_some(BrokerId(leader)),
        leader_epoch: LeaderEpoch(leader_epoch),
        partition_epoch,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::metadata::command::{BrokerRegistration, Command, LeaderReport};
    use crate::metadata::state::MetadataState;
    use crate::options::SecurityProtocol;
    use tidelog_protocol::types::PartitionIndex;

    /// Commands of every kind but those that take something away; one after the other they apply.
    pub(crate) fn commands() -> Vec<Command> {
        let id = TopicId(Uuid::from_u128(u128::MAX));
        vec![
            Command::Bootstrap {
                cluster_id: Uuid::from_u128(5),
                feature_level: 1,
            },
            Command::RegisterBroker(BrokerRegistration {
                broker: BrokerId(1),
                directory_id: Uuid::from_u128(1),
                incarnation: Uuid::from_u128(2),
                rack: Some("r".into()),
                endpoints: vec![Endpoint {
                    listener: "L".into(),
                    host: "h\n".into(),
                    port: 1,
                    security_protocol: SecurityProtocol::Ssl,
                }],
                peer_address: Some(crate::peers::PeerAddress {
                    host: "b".into(),
                    port: 9093,
                }),
                feature_level_max: 1,
                new_directory: false,
            }),
            Command::CreateTopic {
                name: "a.b".into(),
                id,
                assignments: vec![vec![BrokerId(1)]; 2],
                configs: BTreeMap::from([("k".into(), "v\n\"".into())]),
            },
            Command::AlterConfigs {
                resource: ConfigResource::Group("g".into()),
                changes: vec![("k".into(), Some("v".into()))],
            },
            Command::AllocateProducerIds {
                broker: BrokerId(1),
                count: 10,
            },
            Command::SetFeature {
                name: "group.version".into(),
                level: 1,
            },
            Command::ReportLeaders(vec![LeaderReport {
                topic: id,
                partition: PartitionIndex(1),
                leader: BrokerId(1),
                epoch: LeaderEpoch(4),
                isr: vec![BrokerId(1)],
            }]),
            Command::RegisterBroker(BrokerRegistration {
                broker: BrokerId(2),
                directory_id: Uuid::from_u128(3),
                incarnation: Uuid::from_u128(4),
                rack: None,
                endpoints: Vec::new(),
                peer_address: None,
                feature_level_max: 1,
                new_directory: false,
            }),
            Command::AlterReassignment {
                topic: id,
                partition: PartitionIndex(0),
                target: Some(vec![BrokerId(2)]),
            },
        ]
    }

    fn image() -> MetadataImage {
        let mut state = MetadataState::default();
        for (index, command) in commands().into_iter().enumerate() {
            state.apply(command, index as u64 + 1).expect("applies");
        }
        state.image().clone()
    }

    #[test]
    fn an_image_reads_back_equal() {
        let image = image();
        let bytes = encode(&image).expect("encodes");
        let back = decode(&bytes).expect("decodes");
        assert_eq!(back.version, image.version);
        assert_eq!(back.cluster_id, image.cluster_id);
        assert_eq!(back.features, image.features);
        assert_eq!(back.brokers, image.brokers);
        assert_eq!(back.configs, image.configs);
        assert_eq!(back.next_producer_id, 10);
        assert_eq!(back.next_broker_epoch, 3);
        assert_eq!(back.partition_count, 2);
        assert_eq!(back.topic(&"a.b".into()), image.topic(&"a.b".into()));
        assert_eq!(back.colliding_topic(&"a_b".into()), Some(&"a.b".into()));
        assert_eq!(encode(&back), Ok(bytes));
    }

    #[test]
    fn the_level_is_kept_and_is_none_of_the_features() {
        let mut image = image();
        image.feature_level = 2;
        // As a program leaves it that took the level for one of the features.
        image.features.insert(METADATA_FEATURE.to_owned(), 2);
        let bytes = encode(&image).expect("encodes");
        assert_eq!(bytes[..3], [1, 0, 2]);
        let back = decode(&bytes).expect("decodes");
        assert_eq!(back.feature_level, 2);
        assert!(!back.features.contains_key(METADATA_FEATURE));
        image.feature_level = FEATURE_LEVEL_MAX + 1;
        let newer = decode(&encode(&image).expect("encodes"));
        assert!(
            matches!(newer, Err(RecordError::Unknown { .. })),
            "{newer:?}"
        );
    }

    #[test]
    fn cut_bytes_are_an_error() {
        let bytes = encode(&image()).expect("encodes");
        assert!(decode(&bytes[..bytes.len() - 2]).is_err());
        assert!(decode(&bytes[..2]).is_err());
        assert!(decode(b"\x02\x00\x01").is_err());
    }
}
