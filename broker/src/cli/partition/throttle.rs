//! The throttle of one move (KIP-73): set before it begins, taken back when it is done.
//!
//! Brokers have one rate each, whatever moves: of two moves that have brokers in common the one that begins last sets it for
//! both, and the one that ends first takes it back.

use std::collections::BTreeSet;

use tidelog_client::{Admin, BrokerId, ConfigChange, PartitionIndex, TopicPartition};

use crate::cli::failure::{Failure, about_broker, about_topic};

/// Settings of brokers.
const RATES: [&str; 2] = [
    "leader.replication.throttled.rate",
    "follower.replication.throttled.rate",
];
/// Settings of topics.
const LISTS: [&str; 2] = [
    "leader.replication.throttled.replicas",
    "follower.replication.throttled.replicas",
];

/// See the module.
pub(super) struct Throttle<'a> {
    admin: &'a Admin,
    of: &'a TopicPartition,
    /// Those that hold the partition, or are to.
    brokers: BTreeSet<BrokerId>,
}

impl<'a> Throttle<'a> {
    /// Sets that of the move of a partition to some brokers, in bytes per second. All that hold it, or are to, have to be up.
    pub(super) async fn set(
        admin: &'a Admin,
        of: &'a TopicPartition,
        target: &[BrokerId],
        rate: u64,
    ) -> Result<Self, Failure> {
        let topic = admin.describe_topic(&of.topic).await;
        let topic = topic.map_err(|error| about_topic(&error, of.topic.as_str()))?;
        let held = topic.partition(of.partition);
        let held = held.map_or(&[][..], |found| found.replicas.as_slice());
        let throttle = Throttle {
            admin,
            of,
            brokers: held.iter().chain(target).copied().collect(),
        };
        let set = |name: &str| ConfigChange::Set {
            name: name.to_owned(),
            value: rate.to_string(),
        };
        throttle
            .alter_brokers(&throttle.brokers, &RATES.map(set))
            .await?;
        let words = throttle.words();
        let append = |name: &str| ConfigChange::Append {
            name: name.to_owned(),
            words: words.clone(),
        };
        throttle.alter_topic(&LISTS.map(append)).await?;
        Ok(throttle)
    }

    /// Takes it back, with what earlier moves of the partition have left of theirs. What else is on the topic's lists stays.
    pub(super) async fn take_back(&self) -> Result<(), Failure> {
        let found = self.admin.topic_configs(&self.of.topic).await;
        let found = found.map_err(|error| about_topic(&error, self.of.topic.as_str()))?;
        let mut brokers = self.brokers.clone();
        let mut changes = Vec::new();
        for name in LISTS {
            let entry = found.iter().find(|entry| entry.name == name);
            let listed = entry.and_then(|entry| entry.value.as_deref());
            let listed = listed.unwrap_or_default();
            brokers.extend(brokers_of(listed, self.of.partition));
            changes.extend(without(name, listed, self.of.partition));
        }
        self.alter_topic(&changes).await?;
        let reset = |name: &str| ConfigChange::Reset {
            name: name.to_owned(),
        };
        self.alter_brokers(&brokers, &RATES.map(reset)).await
    }

    /// The partition's replicas, as the lists name them.
    fn words(&self) -> String {
        let partition = self.of.partition;
        let named = self.brokers.iter();
        let words: Vec<_> = named
            .map(|broker| format!("{partition}:{broker}"))
            .collect();
        words.join(",")
    }

    async fn alter_brokers(
        &self,
        brokers: &BTreeSet<BrokerId>,
        changes: &[ConfigChange],
    ) -> Result<(), Failure> {
        for broker in brokers {
            let altered = self.admin.alter_broker_configs(*broker, changes).await;
            altered.map_err(|error| about_broker(&error, *broker))?;
        }
        Ok(())
    }

    async fn alter_topic(&self, changes: &[ConfigChange]) -> Result<(), Failure> {
        let altered = self.admin.alter_topic_configs(&self.of.topic, changes);
        let about = |error| about_topic(&error, self.of.topic.as_str());
        altered.await.map_err(about)
    }
}

/// The brokers of a partition's replicas that are on a list.
fn brokers_of(listed: &str, partition: PartitionIndex) -> impl Iterator<Item = BrokerId> + '_ {
    let replicas = listed
        .split(',')
        .filter_map(|word| word.trim().split_once(':'));
    replicas.filter_map(move |(of, broker)| {
        let of: i32 = of.parse().ok()?;
        let broker = broker.parse().ok()?;
        (of == partition.0).then_some(BrokerId(broker))
    })
}

/// How a partition's replicas leave a list, if they are on it; a list of which nothing is left is no setting any more.
fn without(name: &str, listed: &str, partition: PartitionIndex) -> Option<ConfigChange> {
    let words = brokers_of(listed, partition).map(|broker| format!("{partition}:{broker}"));
    let words: Vec<String> = words.collect();
    let all = listed.split(',').filter(|word| !word.trim().is_empty());
    let name = name.to_owned();
    match all.count() - words.len() {
        _ if words.is_empty() => None,
        0 => Some(ConfigChange::Reset { name }),
        _ => Some(ConfigChange::Subtract {
            name,
            words: words.join(","),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_partitions_replicas_leave_a_list() {
        let without = |listed| without("list", listed, PartitionIndex(0));
        let name = || "list".to_owned();
        assert_eq!(without(""), None);
        assert_eq!(without("*"), None);
        assert_eq!(without("10:1,1:0"), None);
        let reset = ConfigChange::Reset { name: name() };
        assert_eq!(without("0:2, 0:1,"), Some(reset));
        let subtract = ConfigChange::Subtract {
            name: name(),
            words: "0:2,0:3".to_owned(),
        };
        assert_eq!(without("0:2,1:1,0:3"), Some(subtract));
    }
}
