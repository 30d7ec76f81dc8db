//! Brokers that are being emptied (`broker.draining`): they get no new replicas, and those that they have go to others.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidelog_protocol::types::{BrokerId, PartitionIndex};
use tidelog_replication::{BrokerImage, ConfigResource, MetadataImage, Reassignment};

use super::reassign::ReassignmentPlan;

/// The property that says so, of one broker.
pub const DRAINING: &str = "broker.draining";

/// Replicas that are on their way by themselves, all together: the brokers have work of their own.
pub const MOVES_MAX: usize = 32;

/// Whether a broker is being emptied.
pub fn is_draining(image: &MetadataImage, broker: BrokerId) -> bool {
    is_set(image, broker, DRAINING)
}

/// Whether a property of one broker is true.
pub fn is_set(image: &MetadataImage, broker: BrokerId, property: &str) -> bool {
    let configs = image.configs(&ConfigResource::Broker(Some(broker)));
    let set = configs.and_then(|configs| configs.get(property));
    // As a boolean is read everywhere else.
    set.is_some_and(|value| value.trim().eq_ignore_ascii_case("true"))
}

/// Brokers that may get new replicas, fenced ones among them.
pub fn open_brokers(image: &MetadataImage) -> Vec<Arc<BrokerImage>> {
    let open = image
        .brokers()
        .filter(|broker| !is_draining(image, broker.id));
    open.cloned().collect()
}

/// Those of them that are not fenced.
pub fn live_brokers(image: &MetadataImage) -> Vec<Arc<BrokerImage>> {
    let mut live = open_brokers(image);
    live.retain(|broker| !broker.fenced);
    live
}

/// Those of the live ones that suit a further replica best come first: on another rack than the replicas that there are,
/// then the ones that hold least.
pub fn best_for(
    image: &MetadataImage,
    live: &[Arc<BrokerImage>],
    replicas: &[BrokerId],
    held: &BTreeMap<BrokerId, usize>,
) -> Option<BrokerId> {
    let shares_rack = |broker: &BrokerImage| {
        let of_replicas = replicas.iter().filter_map(|id| image.broker(*id));
        let same = |other: &&Arc<BrokerImage>| broker.rack.is_some() && broker.rack == other.rack;
        of_replicas.filter(same).count()
    };
    let others = live.iter().filter(|broker| !replicas.contains(&broker.id));
    let best = others.min_by_key(|broker| {
        let count = held.get(&broker.id).copied().unwrap_or_default();
        (shares_rack(broker), count, broker.id)
    });
    best.map(|broker| broker.id)
}

/// The next replicas to be moved off brokers that are being emptied. A partition for which there is no other broker stays.
pub fn plan_drain(image: &MetadataImage) -> Vec<ReassignmentPlan> {
    let leaving: Vec<BrokerId> = (image.brokers())
        .map(|broker| broker.id)
        .filter(|id| is_draining(image, *id))
        .collect();
    if leaving.is_empty() {
        return Vec::new();
    }
    let live = live_brokers(image);
    let partitions = || image.topics().flat_map(|topic| &topic.partitions);
    let mut held: BTreeMap<BrokerId, usize> = BTreeMap::new();
    for broker in partitions().flat_map(|it| it.wanted()) {
        *held.entry(*broker).or_default() += 1;
    }
    // Where a new replica is on a broker that is not there either, another one is chosen, and no room is taken meanwhile.
    let is_stuck = |reassignment: &Reassignment| {
        let mut new = (reassignment.to.iter()).filter(|id| !reassignment.from.contains(id));
        new.any(|id| live.iter().all(|broker| broker.id != *id))
    };
    let on_their_way = partitions()
        .filter_map(|it| it.reassignment.as_deref())
        .filter(|reassignment| !is_stuck(reassignment))
        .count();
    let room = MOVES_MAX.saturating_sub(on_their_way);
    let mut plans = Vec::new();
    for topic in image.topics() {
        for (index, partition) in (0..).map(PartitionIndex).zip(&topic.partitions) {
            if plans.len() >= room {
                return plans;
            }
            let replicas = match &partition.reassignment {
                None => &*partition.replicas,
                Some(reassignment) if is_stuck(reassignment) => &*reassignment.from,
                Some(_) => continue,
            };
            if let Some(target) = without(image, &live, replicas, &leaving, &mut held) {
                plans.push(ReassignmentPlan {
                    topic: topic.id,
                    partition: index,
                    target: Some(target),
                });
            }
        }
    }
    plans
}

/// The replicas with others in the places of those that leave; `None` if that is not possible, or nothing has to change.
fn without(
    image: &MetadataImage,
    live: &[Arc<BrokerImage>],
    replicas: &[BrokerId],
    leaving: &[BrokerId],
    held: &mut BTreeMap<BrokerId, usize>,
) -> Option<Vec<BrokerId>> {
    if !replicas.iter().any(|broker| leaving.contains(broker)) {
        return None;
    }
    let mut target = replicas.to_vec();
    for at in 0..target.len() {
        if target
            .get(at)
            .is_some_and(|broker| leaving.contains(broker))
        {
            let stays: Vec<BrokerId> = (target.iter())
                .filter(|broker| !leaving.contains(broker))
                .copied()
                .collect();
            let next = best_for(image, live, &stays, held)?;
            *held.entry(next).or_default() += 1;
            *target.get_mut(at)? = next;
        }
    }
    Some(target)
}

#[cfg(test)]
mod tests {
    use tidelog_replication::Command;

    use super::*;
    use crate::topics::test_images::{TOPIC_ID, cluster, fenced, ids, with_topic};

    fn draining(image: &MetadataImage, broker: i32) -> MetadataImage {
        draining_if(image, broker, "true")
    }

    fn draining_if(image: &MetadataImage, broker: i32, value: &str) -> MetadataImage {
        let command = Command::AlterConfigs {
            resource: ConfigResource::Broker(Some(BrokerId(broker))),
            changes: vec![(DRAINING.to_owned(), Some(value.to_owned()))],
        };
        image.after(command).expect("is taken")
    }

    #[test]
    fn another_broker_is_chosen_in_the_place_of_one_that_died() {
        let image = draining(&with_topic(&cluster(5), "t", MOVES_MAX, &[1, 2, 3]), 1);
        let image = plan_drain(&image).into_iter().fold(image, |image, plan| {
            let command = Command::AlterReassignment {
                topic: plan.topic,
                partition: plan.partition,
                target: plan.target,
            };
            image.after(command).expect("is taken")
        });
        assert_eq!(targets(&image), Vec::<Vec<BrokerId>>::new());
        let image = fenced(&image, 4);
        let expected = vec![ids(&[5, 2, 3]); MOVES_MAX / 2];
        assert_eq!(targets(&image), expected);
    }

    #[test]
    fn booleans_are_spelled_as_everywhere() {
        let image = cluster(3);
        let drains = |value| is_draining(&draining_if(&image, 3, value), BrokerId(3));
        assert!(["true", "TRUE", " True "].into_iter().all(drains));
        assert!(!drains("false"));
        assert!(!is_draining(&image, BrokerId(3)));
    }

    fn targets(image: &MetadataImage) -> Vec<Vec<BrokerId>> {
        let plans = plan_drain(image).into_iter();
        plans.filter_map(|plan| plan.target).collect()
    }

    #[test]
    fn replicas_leave_for_brokers_that_hold_least() {
        let image = with_topic(&cluster(5), "t", 4, &[1, 2, 3]);
        assert_eq!(targets(&image), Vec::<Vec<BrokerId>>::new());
        let image = draining(&image, 2);
        let expected = [[1, 4, 3], [1, 5, 3], [1, 4, 3], [1, 5, 3]];
        assert_eq!(targets(&image), expected.map(|it| ids(&it)));
        assert_eq!(open_brokers(&image).len(), 4);
    }

    #[test]
    fn where_there_is_no_other_broker_replicas_stay() {
        let image = draining(&with_topic(&cluster(3), "t", 1, &[1, 2, 3]), 3);
        assert_eq!(targets(&image), Vec::<Vec<BrokerId>>::new());
        let image = draining(&with_topic(&cluster(3), "t", 1, &[3]), 3);
        assert_eq!(targets(&image), [ids(&[1])]);
    }

    #[test]
    fn few_move_at_a_time_and_what_moves_is_left_alone() {
        let image = draining(&with_topic(&cluster(3), "t", 100, &[1]), 1);
        assert_eq!(targets(&image).len(), MOVES_MAX);
        let image = image
            .after(Command::AlterReassignment {
                topic: TOPIC_ID,
                partition: PartitionIndex(0),
                target: Some(ids(&[2])),
            })
            .expect("is taken");
        let plans = plan_drain(&image);
        assert_eq!(plans.len(), MOVES_MAX - 1);
        assert!(plans.iter().all(|plan| plan.partition != PartitionIndex(0)));
    }
}
