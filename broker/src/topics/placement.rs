//! Which brokers hold the replicas of new partitions.
//!
//! Owns the spread: the first replicas go round the brokers from a random start, the others follow on other racks first.
//! Pure: brokers and start are arguments.

use std::sync::Arc;

use tidelog_protocol::types::BrokerId;
use tidelog_replication::BrokerImage;

use super::error::TopicError;

/// Replicas for `partitions` new partitions, the first of each preferred as leader. `start` chooses where the round begins.
pub fn assign(
    brokers: &[Arc<BrokerImage>],
    partitions: usize,
    replicas: usize,
    start: usize,
) -> Result<Vec<Vec<BrokerId>>, TopicError> {
    let usable: Vec<&BrokerImage> = brokers
        .iter()
        .map(Arc::as_ref)
        .filter(|broker| !broker.fenced)
        .collect();
    if replicas > brokers.len() || usable.is_empty() {
        return Err(TopicError::InvalidReplicationFactor(format!(
            "Unable to replicate the partition {replicas} time(s): The target replication factor of {replicas} cannot \
             be reached because only {} broker(s) are registered.",
            brokers.len()
        )));
    }
    if replicas > usable.len() {
        return Err(TopicError::InvalidReplicationFactor(format!(
            "Unable to replicate the partition {replicas} time(s): The target replication factor of {replicas} cannot \
             be reached because only {} of {} broker(s) are unfenced.",
            usable.len(),
            brokers.len()
        )));
    }
    Ok((0..partitions)
        .map(|partition| replicas_from(&usable, start.wrapping_add(partition), replicas))
        .collect())
}

/// The leader at `turn`, then brokers of racks that have no replica yet, then any. Followers shift by one with each full
/// round, so that two partitions of the same leader differ in their followers.
fn replicas_from(usable: &[&BrokerImage], turn: usize, replicas: usize) -> Vec<BrokerId> {
    let count = usable.len();
    let shift = if count > 1 {
        turn / count % (count - 1)
    } else {
        0
    };
    let mut order: Vec<&BrokerImage> = usable
        .iter()
        .cycle()
        .skip(turn % count)
        .take(count)
        .copied()
        .collect();
    if let Some((_, followers)) = order.split_first_mut() {
        followers.rotate_left(shift);
    }
    let mut chosen: Vec<&BrokerImage> = Vec::with_capacity(replicas);
    let racks_differ = |a: &BrokerImage, b: &BrokerImage| a.rack.is_none() || a.rack != b.rack;
    for broker in &order {
        if chosen.len() < replicas && chosen.iter().all(|other| racks_differ(broker, other)) {
            chosen.push(broker);
        }
    }
    for broker in &order {
        if chosen.len() < replicas && chosen.iter().all(|other| other.id != broker.id) {
            chosen.push(broker);
        }
    }
    chosen.into_iter().map(|broker| broker.id).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use uuid::Uuid;

    use super::*;

    fn broker(id: i32, rack: Option<&str>, fenced: bool) -> Arc<BrokerImage> {
        Arc::new(BrokerImage {
            id: BrokerId(id),
            epoch: 1,
            directory_id: Uuid::nil(),
            incarnation: Uuid::nil(),
            rack: rack.map(str::to_owned),
            endpoints: Vec::new(),
            fenced,
            peer_address: None,
            feature_level_max: 1,
        })
    }

    fn plain(count: i32) -> Vec<Arc<BrokerImage>> {
        (1..=count).map(|id| broker(id, None, false)).collect()
    }

    #[test]
    fn one_broker_takes_everything() {
        let all = assign(&plain(1), 3, 1, 17).expect("possible");
        assert_eq!(all, vec![vec![BrokerId(1)]; 3]);
    }

    #[test]
    fn leaders_are_even_and_replicas_distinct() {
        let all = assign(&plain(3), 9, 2, 1).expect("possible");
        for id in 1..=3 {
            assert_eq!(
                all.iter()
                    .filter(|replicas| replicas[0] == BrokerId(id))
                    .count(),
                3
            );
        }
        for replicas in &all {
            assert_eq!(replicas.iter().collect::<BTreeSet<_>>().len(), 2);
        }
        let followers: BTreeSet<_> = all
            .iter()
            .filter(|r| r[0] == BrokerId(1))
            .map(|r| r[1])
            .collect();
        assert_eq!(followers.len(), 2, "{all:?}");
    }

    #[test]
    fn replicas_go_to_other_racks_first() {
        let racks = ["a", "a", "b", "b"];
        let brokers: Vec<_> = (1..)
            .zip(racks)
            .map(|(id, rack)| broker(id, Some(rack), false))
            .collect();
        for replicas in assign(&brokers, 8, 2, 0).expect("possible") {
            let in_a = replicas.iter().filter(|id| id.0 <= 2).count();
            assert_eq!(in_a, 1, "{replicas:?}");
        }
        for replicas in assign(&brokers, 8, 3, 0).expect("possible") {
            assert_eq!(replicas.iter().collect::<BTreeSet<_>>().len(), 3);
        }
    }

    #[test]
    fn too_many_replicas_say_how_many_brokers_there_are() {
        let error = assign(&plain(1), 1, 3, 0).expect_err("impossible");
        assert_eq!(
            error.to_string(),
            "Unable to replicate the partition 3 time(s): The target replication factor of 3 cannot be reached \
             because only 1 broker(s) are registered."
        );
        let brokers = [broker(1, None, false), broker(2, None, true)];
        assert!(
            assign(&brokers, 1, 2, 0)
                .expect_err("impossible")
                .to_string()
                .contains("only 1 of 2")
        );
        assert!(assign(&[], 1, 1, 0).is_err());
    }
}
