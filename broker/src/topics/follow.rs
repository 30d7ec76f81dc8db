//! What the controller's broker does for replicas by itself: internal topics get more of them as brokers join, up to what their
//! settings ask for, so that a cluster that began as one broker survives the loss of it later; brokers are emptied, and filled.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tidelog_protocol::types::{BrokerId, PartitionIndex, TopicName};
use tidelog_replication::{MetadataImage, REASSIGNMENT_LEVEL, Replication, TopicImage};
use tokio::time::sleep;

use super::drain::{best_for, live_brokers, plan_drain};
use super::fill::{FillPlan, plan_fill, set_filling};
use super::reassign::{ReassignmentPlan, reassign};

/// Pause after a look, so that a storm of changes is looked at once a second.
const PAUSE: Duration = Duration::from_secs(1);

/// Longest wait for the controller, which is this broker.
const SUBMIT_TIMEOUT: Duration = Duration::from_secs(10);

/// Looks after a topic's replicas and after brokers that are being emptied or filled, for ever.
pub async fn follow(replication: Arc<Replication>, topic: TopicName, replication_factor: usize) {
    let mut versions = replication.controller().watch();
    loop {
        if replication.controller().leads() {
            let image = replication.image();
            let mut plans = plans(&image, &topic, replication_factor);
            // What has to move comes first.
            let filling = match plans.is_empty() {
                true => plan_filling(image).await,
                false => FillPlan::default(),
            };
            plans.extend(filling.moves);
            for plan in plans {
                let partition = plan.partition;
                if let Err(error) = reassign(&replication, plan, SUBMIT_TIMEOUT).await {
                    tracing::debug!(%partition, %error, "replicas move later");
                }
            }
            for broker in filling.filled {
                match set_filling(&replication, broker, false, SUBMIT_TIMEOUT).await {
                    Ok(()) => tracing::info!(%broker, "a broker that joined holds its share"),
                    Err(error) => tracing::debug!(%broker, %error, "that is noted later"),
                }
            }
        }
        sleep(PAUSE).await;
        if versions.changed().await.is_err() {
            return;
        }
    }
}

/// All that is to be moved now.
fn plans(
    image: &MetadataImage,
    topic: &TopicName,
    replication_factor: usize,
) -> Vec<ReassignmentPlan> {
    if image.feature_level() < REASSIGNMENT_LEVEL {
        // It would be refused until the level is raised, which changes the image.
        return Vec::new();
    }
    let found = image.topic(topic);
    let mut plans = found.map_or_else(Vec::new, |topic| {
        plan_growth(image, topic, replication_factor)
    });
    plans.extend(plan_drain(image));
    plans
}

/// Beside the runtime: it looks at all partitions for each of its moves.
async fn plan_filling(image: Arc<MetadataImage>) -> FillPlan {
    if image.feature_level() < REASSIGNMENT_LEVEL {
        return FillPlan::default();
    }
    let planned = tokio::task::spawn_blocking(move || plan_fill(&image)).await;
    planned.unwrap_or_else(|error| {
        tracing::error!(%error, "no plan for a broker that joined");
        FillPlan::default()
    })
}

/// More replicas for partitions that have fewer than there can be: those that there are, then brokers on other racks first,
/// of these the ones that hold least of the topic. What is on its way is left alone.
fn plan_growth(
    image: &MetadataImage,
    topic: &TopicImage,
    replication_factor: usize,
) -> Vec<ReassignmentPlan> {
    let live = live_brokers(image);
    let count = possible(replication_factor, live.len());
    let mut held: BTreeMap<BrokerId, usize> = BTreeMap::new();
    for broker in topic.partitions.iter().flat_map(|it| it.wanted()) {
        *held.entry(*broker).or_default() += 1;
    }
    let mut plans = Vec::new();
    for (index, partition) in (0..).map(PartitionIndex).zip(&topic.partitions) {
        if partition.reassignment.is_some() || partition.replicas.len() >= count {
            continue;
        }
        let mut replicas = partition.replicas.to_vec();
        while replicas.len() < count {
            let Some(next) = best_for(image, &live, &replicas, &held) else {
                break;
            };
            *held.entry(next).or_default() += 1;
            replicas.push(next);
        }
        plans.push(ReassignmentPlan {
            topic: topic.id,
            partition: index,
            target: Some(replicas),
        });
    }
    plans
}

/// As many replicas as are asked for; with fewer brokers an odd number, for a second one of two would only cost.
fn possible(replication_factor: usize, brokers: usize) -> usize {
    if brokers >= replication_factor {
        replication_factor
    } else {
        brokers - usize::from(brokers > 0 && brokers.is_multiple_of(2))
    }
}

#[cfg(test)]
mod tests {
    use tidelog_replication::Command;

    use super::*;
    use crate::topics::test_images::{TOPIC_ID, cluster, ids, with_topic};

    fn targets(image: &MetadataImage, replication_factor: usize) -> Vec<Vec<BrokerId>> {
        let topic = image.topic_by_id(TOPIC_ID).expect("is there");
        let plans = plan_growth(image, topic, replication_factor);
        plans.into_iter().filter_map(|plan| plan.target).collect()
    }

    #[test]
    fn replicas_follow_the_brokers_to_an_odd_number() {
        for (brokers, expected) in [(1, None), (2, None), (3, Some([1, 2, 3]))] {
            let image = with_topic(&cluster(brokers), "t", 1, &[1]);
            let expected: Vec<_> = expected.iter().map(|it| ids(it)).collect();
            assert_eq!(targets(&image, 3), expected, "{brokers} brokers");
        }
        let image = with_topic(&cluster(2), "t", 1, &[1]);
        assert_eq!(targets(&image, 2), [ids(&[1, 2])], "as it was asked for");
    }

    #[test]
    fn new_replicas_are_spread() {
        let image = with_topic(&cluster(5), "t", 4, &[1]);
        let targets = targets(&image, 3);
        let mut held: BTreeMap<BrokerId, usize> = BTreeMap::new();
        for target in &targets {
            assert_eq!((target.len(), target[0]), (3, BrokerId(1)));
            target
                .iter()
                .for_each(|it| *held.entry(*it).or_default() += 1);
        }
        assert_eq!(held.into_values().collect::<Vec<_>>(), [4, 2, 2, 2, 2]);
    }

    #[test]
    fn what_is_on_its_way_or_has_enough_is_left_alone() {
        let image = with_topic(&cluster(4), "t", 2, &[1, 2, 3]);
        assert_eq!(targets(&image, 3), Vec::<Vec<BrokerId>>::new());
        let image = with_topic(&cluster(4), "t", 2, &[1]);
        let command = Command::AlterReassignment {
            topic: TOPIC_ID,
            partition: PartitionIndex(0),
            target: Some(ids(&[4])),
        };
        let image = image.after(command).expect("is taken");
        assert_eq!(targets(&image, 3).len(), 1);
    }
}
