//! How much of a move is copied: the sizes of the new replicas against that of the leader's.
//!
//! An estimate. What the leader cuts off or compacts meanwhile need not be copied, and replicas need not be of equal
//! size when they hold the same.

use std::collections::BTreeMap;

use tidelog_client::{Admin, BrokerId, Reassignment, TopicPartition};

use crate::cli::replica_sizes::{self, Sizes};

/// A move, and who leads the partition.
pub(super) struct Move {
    pub(super) reassignment: Reassignment,
    pub(super) leader: Option<BrokerId>,
}

/// Bytes of the new replicas, all together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) copied: u64,
    pub(super) to_copy: u64,
}

/// How far each move is; `None` where a broker that is needed for that did not answer.
pub(super) async fn ask(admin: &Admin, moves: &[Move]) -> Vec<Option<Progress>> {
    let mut asked: BTreeMap<BrokerId, Vec<TopicPartition>> = BTreeMap::new();
    for one in moves {
        for broker in one.reassignment.adding.iter().chain(&one.leader) {
            let of = one.reassignment.partition.clone();
            asked.entry(*broker).or_default().push(of);
        }
    }
    let asked = asked.into_iter().map(|(broker, of)| (broker, Some(of)));
    let sizes = replica_sizes::ask(admin, asked).await;
    moves.iter().map(|one| progress(one, &sizes)).collect()
}

fn progress(one: &Move, sizes: &Sizes) -> Option<Progress> {
    let of = &one.reassignment.partition;
    // A replica without a file has nothing yet.
    let size = |broker: &BrokerId| {
        let replicas = sizes.get(broker)?;
        Some(replicas.get(of).copied().unwrap_or_default())
    };
    let whole = size(one.leader.as_ref()?)?;
    let mut progress = Progress::default();
    for broker in &one.reassignment.adding {
        progress.copied += size(broker)?.min(whole);
        progress.to_copy += whole;
    }
    Some(progress)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidelog_client::PartitionIndex;

    #[test]
    fn new_replicas_are_held_against_the_leaders() {
        let of = TopicPartition {
            topic: "orders".into(),
            partition: PartitionIndex(0),
        };
        let mut one = Move {
            reassignment: Reassignment {
                partition: of.clone(),
                replicas: [1, 2, 3, 4].map(BrokerId).to_vec(),
                adding: [3, 4].map(BrokerId).to_vec(),
                removing: vec![BrokerId(1)],
            },
            leader: Some(BrokerId(1)),
        };
        let mut sizes = Sizes::from([
            (BrokerId(1), BTreeMap::from([(of.clone(), 100)])),
            (BrokerId(3), BTreeMap::from([(of, 130)])),
        ]);
        assert_eq!(progress(&one, &sizes), None, "broker 4 did not answer");
        sizes.insert(BrokerId(4), BTreeMap::new());
        let halfway = Progress {
            copied: 100,
            to_copy: 200,
        };
        assert_eq!(progress(&one, &sizes), Some(halfway));
        one.leader = None;
        assert_eq!(progress(&one, &sizes), None);
    }
}
