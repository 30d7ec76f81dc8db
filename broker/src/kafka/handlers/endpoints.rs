//! The brokers' addresses as one listener's clients must see them (rule 30).

use tidelog_protocol::StrBytes;
use tidelog_protocol::types::BrokerId;
use tidelog_replication::{BrokerImage, MetadataImage};

/// Address of a broker, as a client can use it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// The broker.
    pub id: BrokerId,
    /// Host as it is advertised.
    pub host: StrBytes,
    /// Port as it is advertised.
    pub port: i32,
    /// Rack, if it has one.
    pub rack: Option<StrBytes>,
    /// Whether it is kept from leading.
    pub fenced: bool,
}

/// Addresses of all brokers that have the listener, by id.
pub fn nodes(image: &MetadataImage, listener: &str) -> Vec<Node> {
    image
        .brokers()
        .filter_map(|broker| node_of(broker, listener))
        .collect()
}

/// Address of one broker.
pub fn node(image: &MetadataImage, id: BrokerId, listener: &str) -> Option<Node> {
    node_of(image.broker(id)?, listener)
}

fn node_of(broker: &BrokerImage, listener: &str) -> Option<Node> {
    let endpoint = broker
        .endpoints
        .iter()
        .find(|endpoint| endpoint.listener == listener)?;
    Some(Node {
        id: broker.id,
        host: StrBytes::from_string(endpoint.host.clone()),
        port: i32::from(endpoint.port),
        rack: broker.rack.clone().map(StrBytes::from_string),
        fenced: broker.fenced,
    })
}
