//! Brokers and what they carry, as rows of a table and as JSON.

use std::sync::Arc;

use serde_json::{Value, json};
use tidelog_client::{BrokerId, ClusterBroker, ClusterDescription, TopicInfo};

/// Heads of the columns of [`BrokerRow::cells`].
pub(super) const HEAD: [&str; 6] = ["BROKER", "ADDRESS", "RACK", "STATE", "LEADERS", "REPLICAS"];

/// A broker, and how many partitions it leads and holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BrokerRow {
    broker: ClusterBroker,
    leaders: usize,
    replicas: usize,
}

/// A row for each broker, by id.
pub(super) fn rows(cluster: &ClusterDescription, topics: &[Arc<TopicInfo>]) -> Vec<BrokerRow> {
    let row = |broker: &ClusterBroker| {
        let id = broker.info.id;
        let partitions = || topics.iter().flat_map(|topic| &topic.partitions);
        BrokerRow {
            broker: broker.clone(),
            leaders: partitions().filter(|it| it.leader == Some(id)).count(),
            replicas: partitions().filter(|it| it.replicas.contains(&id)).count(),
        }
    };
    cluster.brokers.iter().map(row).collect()
}

impl BrokerRow {
    pub(super) fn id(&self) -> BrokerId {
        self.broker.info.id
    }

    /// Whether it is fit to be asked.
    pub(super) fn is_up(&self) -> bool {
        !self.broker.is_fenced
    }

    fn state(&self) -> &'static str {
        if self.is_up() { "up" } else { "fenced" }
    }

    pub(super) fn cells(&self) -> [String; 6] {
        let info = &self.broker.info;
        [
            info.id.to_string(),
            info.address.clone(),
            info.rack.clone().unwrap_or_default(),
            self.state().to_owned(),
            self.leaders.to_string(),
            self.replicas.to_string(),
        ]
    }

    pub(super) fn json(&self) -> Value {
        let info = &self.broker.info;
        json!({
            "broker": info.id.0,
            "address": info.address,
            "rack": info.rack,
            "state": self.state(),
            "leaders": self.leaders,
            "replicas": self.replicas,
        })
    }
}

#[cfg(test)]
pub(super) mod samples {
    //! A cluster of two brokers, one of them fenced, and a topic of two partitions, one without a leader.

    use tidelog_client::{BrokerInfo, LeaderEpoch, PartitionIndex, PartitionInfo, TopicId};

    use super::*;

    pub(crate) fn cluster() -> ClusterDescription {
        let broker = |id: i32, is_fenced: bool| ClusterBroker {
            info: BrokerInfo {
                id: BrokerId(id),
                address: format!("127.0.0.1:909{id}"),
                rack: (id == 1).then(|| "a".to_owned()),
            },
            is_fenced,
        };
        ClusterDescription {
            id: "c".to_owned(),
            controller: Some(BrokerId(1)),
            brokers: vec![broker(1, false), broker(2, true)],
        }
    }

    pub(crate) fn topics() -> Vec<Arc<TopicInfo>> {
        let partition = |index: i32, leader: Option<i32>, replicas: &[i32]| PartitionInfo {
            index: PartitionIndex(index),
            leader: leader.map(BrokerId),
            leader_epoch: LeaderEpoch(1),
            replicas: replicas.iter().copied().map(BrokerId).collect(),
            in_sync: leader.map(BrokerId).into_iter().collect(),
        };
        vec![Arc::new(TopicInfo {
            name: "orders".into(),
            id: TopicId::NONE,
            is_internal: false,
            partitions: vec![partition(0, Some(1), &[1, 2]), partition(1, None, &[2])],
        })]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brokers_are_shown_with_what_they_lead_and_hold() {
        let rows = rows(&samples::cluster(), &samples::topics());
        let cells: Vec<_> = rows.iter().map(BrokerRow::cells).collect();
        assert_eq!(
            cells,
            [
                ["1", "127.0.0.1:9091", "a", "up", "1", "1"],
                ["2", "127.0.0.1:9092", "", "fenced", "0", "2"],
            ]
        );
    }
}
