use std::collections::BTreeSet;

use tidelog_protocol::types::LeaderEpoch;
use tidelog_replication::{CompletedReassignment, LeaderReport};
use uuid::Uuid;

use super::*;
use crate::topics::drain::DRAINING;
use crate::topics::test_images::{cluster, fenced, ids, with_broker};

fn set(image: &MetadataImage, broker: i32, property: &str, value: Option<&str>) -> MetadataImage {
    let command = Command::AlterConfigs {
        resource: ConfigResource::Broker(Some(BrokerId(broker))),
        changes: vec![(property.to_owned(), value.map(str::to_owned))],
    };
    image.after(command).expect("is taken")
}

/// The image with a broker that has joined.
fn joined(image: &MetadataImage, id: u32) -> MetadataImage {
    let image = with_broker(image, id, Vec::new());
    set(
        &image,
        i32::try_from(id).expect("small"),
        FILLING,
        Some("true"),
    )
}

/// The image with a topic whose partitions have these replicas, and are led by the first.
fn with_topic(image: &MetadataImage, name: &str, assignments: &[&[i32]]) -> MetadataImage {
    let id = TopicId(Uuid::from_u128(name.bytes().map(u128::from).sum()));
    let command = Command::CreateTopic {
        name: TopicName::from(name),
        id,
        assignments: assignments.iter().map(|it| ids(it)).collect(),
        configs: BTreeMap::new(),
    };
    let image = image.after(command).expect("created");
    let reports = (0..)
        .zip(assignments)
        .map(|(index, replicas)| LeaderReport {
            topic: id,
            partition: PartitionIndex(index),
            leader: BrokerId(replicas[0]),
            epoch: LeaderEpoch(1),
            isr: ids(replicas),
        });
    let led = Command::ReportLeaders(reports.collect());
    image.after(led).expect("is led")
}

/// Three brokers, and a topic of which each leads a third.
fn even(partitions: usize) -> MetadataImage {
    let round: [&[i32]; 3] = [&[1, 2, 3], &[2, 3, 1], &[3, 1, 2]];
    let assignments: Vec<&[i32]> = round.into_iter().cycle().take(partitions).collect();
    with_topic(&cluster(3), "t", &assignments)
}

fn begun(image: MetadataImage, plan: &FillPlan) -> MetadataImage {
    plan.moves.iter().cloned().fold(image, |image, step| {
        let command = Command::AlterReassignment {
            topic: step.topic,
            partition: step.partition,
            target: step.target,
        };
        image.after(command).expect("is taken")
    })
}

/// All moves that have begun are done.
fn done(image: MetadataImage) -> MetadataImage {
    let mut completed = Vec::new();
    for topic in image.topics() {
        for (index, partition) in (0..).map(PartitionIndex).zip(&topic.partitions) {
            if let Some(reassignment) = &partition.reassignment {
                completed.push(CompletedReassignment {
                    topic: topic.id,
                    partition: index,
                    since: reassignment.since,
                });
            }
        }
    }
    match completed.is_empty() {
        true => image,
        false => image
            .after(Command::CompleteReassignments(completed))
            .expect("is taken"),
    }
}

/// Carries out plans until the brokers are filled; returns the image then, and the replicas that moved.
fn filled(mut image: MetadataImage) -> (MetadataImage, usize) {
    let mut moved = 0;
    for _ in 0..100 {
        let plan = plan_fill(&image);
        if !plan.filled.is_empty() {
            assert_eq!(plan.moves, []);
            return (image, moved);
        }
        assert!(!plan.moves.is_empty() && plan.moves.len() <= MOVES_MAX);
        let touched: BTreeSet<_> = plan
            .moves
            .iter()
            .map(|it| (it.topic, it.partition))
            .collect();
        assert_eq!(touched.len(), plan.moves.len(), "each once");
        for step in &plan.moves {
            let known = image.partition_by_id(step.topic, step.partition);
            let before = &known.expect("is there").replicas;
            let target = step.target.as_ref().expect("moves");
            moved += target.iter().filter(|id| !before.contains(id)).count();
        }
        image = done(begun(image, &plan));
    }
    panic!("it never ends");
}

/// Replicas and preferred leaderships of each broker.
fn counts(image: &MetadataImage) -> (Vec<usize>, Vec<usize>) {
    let of = |which: fn(&[BrokerId]) -> &[BrokerId]| {
        let brokers = image.brokers().map(|broker| {
            let partitions = image.topics().flat_map(|topic| &topic.partitions);
            let holds = |replicas: &&[BrokerId]| which(replicas).contains(&broker.id);
            partitions.map(|it| it.wanted()).filter(holds).count()
        });
        brokers.collect()
    };
    (of(|all| all), of(|all| all.get(..1).unwrap_or_default()))
}

#[test]
fn a_broker_that_joins_gets_its_share_with_as_few_moves_as_that_takes() {
    let (image, moved) = filled(joined(&even(12), 4));
    assert_eq!(moved, 9);
    assert_eq!(counts(&image), (vec![9; 4], vec![3; 4]));
    // As evenly as it goes.
    let (image, moved) = filled(joined(&even(10), 4));
    let (mut replicas, mut leaders) = counts(&image);
    replicas.sort_unstable();
    leaders.sort_unstable();
    assert_eq!((replicas, leaders), (vec![7, 7, 8, 8], vec![2, 2, 3, 3]));
    assert_eq!(moved, 7);
}

#[test]
fn two_that_join_are_filled_together() {
    let (image, moved) = filled(joined(&joined(&even(10), 4), 5));
    assert_eq!(counts(&image), (vec![6; 5], vec![2; 5]));
    assert_eq!(moved, 12);
}

#[test]
fn every_topic_is_spread() {
    let image = cluster(1);
    let single: [&[i32]; 4] = [&[1]; 4];
    let image = with_topic(&with_topic(&image, "a", &single), "b", &single);
    let (image, _) = filled(joined(&image, 2));
    for topic in image.topics() {
        let moved = topic.partitions.iter();
        let moved = moved.filter(|it| *it.replicas == *ids(&[2])).count();
        assert_eq!(moved, 2, "{}", topic.name);
    }
}

#[test]
fn few_move_at_a_time_and_what_moves_is_left_alone() {
    let image = joined(&even(300), 4);
    let plan = plan_fill(&image);
    assert_eq!(plan.moves.len(), MOVES_MAX);
    assert_eq!(plan_fill(&image), plan, "each look finds the same");
    let image = begun(image, &plan);
    assert_eq!(plan_fill(&image), FillPlan::default());
    // One of them is done: there is room for another.
    let first = &plan.moves[0];
    let known = image.partition_by_id(first.topic, first.partition);
    let moving = known.and_then(|it| it.reassignment.clone());
    let completed = vec![CompletedReassignment {
        topic: first.topic,
        partition: first.partition,
        since: moving.expect("moves").since,
    }];
    let image = image.after(Command::CompleteReassignments(completed));
    let next = plan_fill(&image.expect("is taken"));
    assert_eq!(next.moves.len(), 1);
    assert!(
        plan.moves
            .iter()
            .all(|it| it.partition != next.moves[0].partition)
    );
}

#[test]
fn racks_keep_their_replicas() {
    let mut image = MetadataImage::default();
    for (id, rack) in [(1, "a"), (2, "b"), (3, "c")] {
        image = in_rack(&image, id, rack);
    }
    let round: [&[i32]; 3] = [&[1, 2, 3], &[2, 3, 1], &[3, 1, 2]];
    let image = with_topic(&image, "t", &round.repeat(4));
    let image = set(&in_rack(&image, 4, "a"), 4, FILLING, Some("true"));
    let (image, moved) = filled(image);
    // What is in its rack is shared with the other broker of the rack, and nothing else.
    assert_eq!((counts(&image).0, moved), (vec![6, 12, 12, 6], 6));
    assert_eq!(counts(&image).1.iter().sum::<usize>(), 12);
    assert!(
        counts(&image).1.iter().all(|leads| (2..=4).contains(leads)),
        "{:?}",
        counts(&image)
    );
}

fn in_rack(image: &MetadataImage, id: u32, rack: &str) -> MetadataImage {
    let registration = tidelog_replication::BrokerRegistration {
        broker: BrokerId(i32::try_from(id).expect("small")),
        directory_id: Uuid::from_u128(id.into()),
        incarnation: Uuid::from_u128(id.into()),
        rack: Some(rack.to_owned()),
        endpoints: Vec::new(),
        peer_address: None,
        feature_level_max: 1,
        new_directory: false,
    };
    let command = Command::RegisterBroker(registration);
    image.after(command).expect("registered")
}

#[test]
fn nothing_moves_unless_it_is_asked_for_and_only_once() {
    let image = with_broker(&even(12), 4, Vec::new());
    assert_eq!(plan_fill(&image), FillPlan::default());
    let (image, _) = filled(joined(&even(12), 4));
    let image = set(&image, 4, FILLING, None);
    // An operator wants it otherwise.
    let image = with_topic(
        &image,
        "u",
        &[&[1, 2, 3], &[1, 2, 3], &[1, 2, 3], &[1, 2, 3]],
    );
    assert_eq!(plan_fill(&image), FillPlan::default());
}

#[test]
fn it_is_not_over_while_a_broker_is_away_or_a_partition_is_not_led() {
    let image = joined(&even(12), 4);
    let away = fenced(&image, 4);
    assert_eq!(plan_fill(&away), FillPlan::default(), "it comes back");
    let drained = set(&away, 4, DRAINING, Some("true"));
    assert_eq!(
        plan_fill(&drained).filled,
        ids(&[4]),
        "it is emptied instead"
    );
    // Nothing moves that nobody leads.
    let away = fenced(&image, 1);
    let plan = plan_fill(&away);
    assert!(!plan.moves.is_empty() && plan.filled.is_empty());
    for step in &plan.moves {
        let known = away.partition_by_id(step.topic, step.partition);
        let leader = known.expect("is there").leader;
        assert_ne!(leader, Some(BrokerId(1)));
    }
    let (rest, _) = {
        let mut image = away;
        let mut rounds = 0;
        while !plan_fill(&image).moves.is_empty() {
            let plan = plan_fill(&image);
            image = done(begun(image, &plan));
            rounds += 1;
            assert!(rounds < 100);
        }
        (image, rounds)
    };
    assert_eq!(plan_fill(&rest), FillPlan::default(), "the first is away");
}

#[test]
fn a_broker_of_a_cluster_without_topics_is_filled_at_once() {
    let plan = plan_fill(&joined(&cluster(1), 2));
    assert_eq!((plan.moves, plan.filled), (Vec::new(), ids(&[2])));
}
