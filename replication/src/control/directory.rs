//! Where the brokers of the cluster listen for one another, as the image says.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tidelog_protocol::types::BrokerId;
use tokio::sync::watch;

use super::message::Member;
use crate::metadata::image::MetadataImage;
use crate::peers::{PeerAddress, PeerDirectory};

type Addresses = BTreeMap<BrokerId, PeerAddress>;

/// See the module. Before this broker has an image of its own it knows those that it was introduced to.
#[derive(Debug)]
pub struct ClusterDirectory {
    addresses: ArcSwap<Addresses>,
    changes: watch::Sender<u64>,
}

impl ClusterDirectory {
    /// Knows these brokers.
    pub fn new(members: &[Member]) -> ClusterDirectory {
        let address = |member: &Member| Some((member.replica.broker, member.address.clone()?));
        ClusterDirectory {
            addresses: ArcSwap::from_pointee(members.iter().filter_map(address).collect()),
            changes: watch::Sender::new(0),
        }
    }

    /// Knows these brokers as well, but for those that it knows already.
    pub fn know(&self, members: &[Member]) {
        let mut addresses = Addresses::clone(&self.addresses.load());
        for member in members {
            if let Some(address) = &member.address {
                let known = addresses.entry(member.replica.broker);
                known.or_insert_with(|| address.clone());
            }
        }
        self.set(addresses);
    }

    /// Takes over what the image says. Brokers that it does not name yet stay known.
    pub fn follow(&self, image: &MetadataImage) {
        let known = self.addresses.load();
        let mut addresses = Addresses::clone(&known);
        for broker in image.brokers() {
            addresses.extend(
                broker
                    .peer_address
                    .clone()
                    .map(|address| (broker.id, address)),
            );
        }
        self.set(addresses);
    }

    fn set(&self, addresses: Addresses) {
        if addresses != **self.addresses.load() {
            self.addresses.store(Arc::new(addresses));
            self.changes.send_modify(|version| *version += 1);
        }
    }
}

impl PeerDirectory for ClusterDirectory {
    fn address(&self, broker: BrokerId) -> Option<PeerAddress> {
        self.addresses.load().get(&broker).cloned()
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}
