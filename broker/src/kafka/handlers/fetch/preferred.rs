//! Which replica a consumer is to read from (KIP-392): one in its rack, where there is one that has what it wants.
//!
//! As Kafka's `RackAwareReplicaSelector`: the leader if it is in the rack, else the replica of the rack whose log is the
//! longest, of those that are up, in sync with the leader, and reach to the offset that is asked for.

use tidelog_protocol::types::{BrokerId, Offset};
use tidelog_replication::{MetadataImage, Partition, PartitionState};

use super::read::{ReadRules, Reader};
use super::session::{PartitionKey, Wanted};
use crate::kafka::context::RequestContext;
use crate::kafka::handlers::endpoints;

/// The replica that a consumer is to ask in place of this one, which leads; `None`: it is served here.
pub(super) fn replica(
    cx: &RequestContext,
    image: &MetadataImage,
    (topic, index): &PartitionKey,
    partition: &Partition,
    state: &PartitionState,
    wanted: &Wanted,
    rules: &ReadRules,
) -> Option<BrokerId> {
    let Reader::InRack(rack) = &rules.reader else {
        return None;
    };
    // What is out of range is the leader's to say.
    let is_in_range = (state.log_start..=state.log_end).contains(&wanted.offset);
    if !state.is_leader() || !is_in_range || is_in_rack(image, cx.broker.id, rack) {
        return None;
    }
    let replicas = &topic.find(image).ok()?.partition(*index)?.replicas;
    let listener = &cx.connection.listener;
    let can_serve = |id: BrokerId| {
        image.is_live(id)
            && is_in_rack(image, id, rack)
            && endpoints::node(image, id, listener).is_some()
    };
    if !replicas.iter().any(|id| can_serve(*id)) {
        return None;
    }
    let ends = partition.in_sync_ends().into_iter();
    longest(ends.filter(|(id, _)| can_serve(*id)), wanted.offset)
}

fn is_in_rack(image: &MetadataImage, broker: BrokerId, rack: &str) -> bool {
    let broker = image.broker(broker);
    broker.is_some_and(|broker| broker.rack.as_deref() == Some(rack))
}

/// The replica whose log ends last, of those that reach to an offset. Of equal ones always the same: the one of the highest
/// id, as in Kafka.
fn longest(ends: impl Iterator<Item = (BrokerId, Offset)>, wanted: Offset) -> Option<BrokerId> {
    let reaching = ends.filter(|(_, end)| *end >= wanted);
    let longest = reaching.max_by_key(|(id, end)| (*end, *id));
    longest.map(|(id, _)| id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_log_that_reaches_to_the_offset_is_preferred() {
        let ends = [(1, 40), (2, 50), (3, 50), (4, 10)];
        let choose = |wanted| {
            let ends = ends.iter().map(|(id, end)| (BrokerId(*id), Offset(*end)));
            longest(ends, Offset(wanted)).map(|id| id.0)
        };
        assert_eq!(choose(0), Some(3));
        // A consumer at the end waits there for what comes.
        assert_eq!(choose(50), Some(3));
        assert_eq!(choose(51), None);
        assert_eq!(longest(std::iter::empty(), Offset(0)), None);
    }
}
