//! Which replicas are throttled, and to what: what topics and brokers say of it (KIP-73).

use std::collections::BTreeSet;

use tidelog_protocol::types::{BrokerId, PartitionIndex};

/// Replicas of one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplicaList {
    /// All that there are, and will be.
    All,
    /// These.
    Some(BTreeSet<(PartitionIndex, BrokerId)>),
}

impl Default for ReplicaList {
    fn default() -> Self {
        ReplicaList::Some(BTreeSet::new())
    }
}

impl ReplicaList {
    /// The replicas that words of a setting name: `*`, or `partition:broker` each. Others name none.
    pub fn of<'a>(words: impl IntoIterator<Item = &'a str>) -> ReplicaList {
        let mut listed = BTreeSet::new();
        for word in words {
            if word == "*" {
                return ReplicaList::All;
            }
            let replica = word.split_once(':').and_then(|(partition, broker)| {
                let partition = PartitionIndex(partition.parse().ok()?);
                Some((partition, BrokerId(broker.parse().ok()?)))
            });
            listed.extend(replica);
        }
        ReplicaList::Some(listed)
    }

    /// Whether one of them is that broker's of a partition.
    pub fn contains(&self, partition: PartitionIndex, broker: BrokerId) -> bool {
        match self {
            ReplicaList::All => true,
            ReplicaList::Some(listed) => listed.contains(&(partition, broker)),
        }
    }

    fn is_empty(&self) -> bool {
        *self == ReplicaList::default()
    }
}

/// The replicas of a topic that are throttled while they catch up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ThrottledReplicas {
    /// `leader.replication.throttled.replicas`: those whose sending is throttled while they lead.
    pub leaders: ReplicaList,
    /// `follower.replication.throttled.replicas`: those whose receiving is.
    pub followers: ReplicaList,
}

impl ThrottledReplicas {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.leaders.is_empty() && self.followers.is_empty()
    }
}

/// Bytes per second that all throttled replicas of a broker share; `None`, the default: without limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ThrottleRates {
    /// `leader.replication.throttled.rate`: sent to replicas that catch up.
    pub leader: Option<u64>,
    /// `follower.replication.throttled.rate`: received by replicas that catch up.
    pub follower: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_name_replicas() {
        let on = |list: &ReplicaList, partition, broker| {
            list.contains(PartitionIndex(partition), BrokerId(broker))
        };
        let some = ReplicaList::of(["0:1", "2:3", "", "4:99999999999"]);
        assert!(on(&some, 0, 1) && on(&some, 2, 3));
        assert!(!on(&some, 0, 3) && !on(&some, 4, 1));
        assert!(on(&ReplicaList::of(["*"]), 7, 7));
        let none = ThrottledReplicas {
            leaders: ReplicaList::of([""]),
            followers: ReplicaList::of([]),
        };
        assert!(none.is_empty() && none == ThrottledReplicas::default());
        assert!(!some.is_empty() && !ReplicaList::All.is_empty());
    }
}
