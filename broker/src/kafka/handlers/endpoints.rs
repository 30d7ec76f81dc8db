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

/// The broker that clients are to ask as the controller: the one that leads the controller group, while it is known and up.
/// Otherwise the one that is asked, for each takes every request, and librdkafka waits a minute where there is none.
pub fn controller(image: &MetadataImage, leader: Option<BrokerId>, asked: BrokerId) -> BrokerId {
    leader.filter(|id| image.is_live(*id)).unwrap_or(asked)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topics::test_images::{cluster, fenced};

    #[test]
    fn there_is_always_somebody_to_ask_as_the_controller() {
        let image = cluster(3);
        let asked = |image, leader: Option<i32>| {
            let leader = leader.map(BrokerId);
            controller(image, leader, BrokerId(2)).0
        };
        assert_eq!(asked(&image, Some(3)), 3);
        // Not known, not of the cluster any more, not heard of.
        assert_eq!(asked(&image, None), 2);
        assert_eq!(asked(&image, Some(7)), 2);
        assert_eq!(asked(&fenced(&image, 3), Some(3)), 2);
    }
}
