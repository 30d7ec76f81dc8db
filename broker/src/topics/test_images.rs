//! Images of clusters for the tests of what is planned over them.

use std::collections::BTreeMap;

use tidelog_protocol::types::{BrokerId, TopicId, TopicName};
use tidelog_replication::{BrokerRegistration, Command, Endpoint, MetadataImage};
use uuid::Uuid;

/// Id of the topic that [`with_topic`] makes.
pub const TOPIC_ID: TopicId = TopicId(Uuid::from_u128(77));

/// A cluster of brokers 1 to `brokers`.
pub fn cluster(brokers: u32) -> MetadataImage {
    (1..=brokers).fold(MetadataImage::default(), |image, id| {
        with_broker(&image, id, Vec::new())
    })
}

/// The image with one more broker.
pub fn with_broker(image: &MetadataImage, id: u32, endpoints: Vec<Endpoint>) -> MetadataImage {
    let registration = BrokerRegistration {
        broker: BrokerId(i32::try_from(id).expect("small")),
        directory_id: Uuid::from_u128(id.into()),
        incarnation: Uuid::from_u128(id.into()),
        rack: None,
        endpoints,
        peer_address: None,
        feature_level_max: 1,
        new_directory: false,
    };
    image
        .after(Command::RegisterBroker(registration))
        .expect("registered")
}

/// The image with a broker that was not heard of for too long.
pub fn fenced(image: &MetadataImage, id: i32) -> MetadataImage {
    let broker = BrokerId(id);
    let epoch = image.broker(broker).expect("registered").epoch;
    let command = Command::SetBrokerFenced {
        broker,
        epoch,
        fenced: true,
    };
    image.after(command).expect("fenced")
}

/// The image with a topic whose partitions all have these replicas.
pub fn with_topic(
    image: &MetadataImage,
    name: &str,
    partitions: usize,
    replicas: &[i32],
) -> MetadataImage {
    let command = Command::CreateTopic {
        name: TopicName::from(name),
        id: TOPIC_ID,
        assignments: vec![ids(replicas); partitions],
        configs: BTreeMap::new(),
    };
    image.after(command).expect("created")
}

/// Brokers of these numbers.
pub fn ids(brokers: &[i32]) -> Vec<BrokerId> {
    brokers.iter().map(|id| BrokerId(*id)).collect()
}
