use tidelog_protocol::ErrorCode;

use super::*;
use crate::config::{LoadArgs, load};
use crate::topics::test_images::{cluster, ids, with_topic};

fn automatic(name: &str, partitions: i32, replication_factor: i16) -> NewTopic {
    NewTopic {
        name: TopicName::from(name),
        placement: Placement::Automatic {
            partitions,
            replication_factor,
        },
        configs: Overrides::new(),
    }
}

fn manual_topic(replicas: &[(i32, &[i32])]) -> NewTopic {
    let replicas = replicas
        .iter()
        .map(|(partition, brokers)| (PartitionIndex(*partition), ids(brokers)))
        .collect();
    NewTopic {
        placement: Placement::Manual(replicas),
        ..automatic("t", -1, -1)
    }
}

fn plan(image: &MetadataImage, topic: NewTopic) -> Result<TopicPlan, TopicError> {
    let loaded = load(&LoadArgs::default()).expect("defaults load");
    let layers = Layers::new(loaded.settings, Overrides::new(), Overrides::new());
    plan_topic(image, &layers, &loaded.config.topics, topic, 0)
}

#[test]
fn numbers_default_to_the_brokers() {
    let made = plan(&cluster(1), automatic("t", -1, -1)).expect("possible");
    assert_eq!(made.assignments, vec![vec![BrokerId(1)]]);
    let made = plan(&cluster(3), automatic("t", 6, 2)).expect("possible");
    assert_eq!((made.assignments.len(), made.replication_factor()), (6, 2));
}

#[test]
fn topics_that_cannot_be_created() {
    let one = with_topic(&cluster(1), "a.b", 1, &[1]);
    let mut bad_config = automatic("t", 1, 1);
    bad_config
        .configs
        .insert("cleanup.policy".to_owned(), "compacted".to_owned());
    let table: Vec<(NewTopic, ErrorCode, &str)> = vec![
        (
            automatic("a b", 1, 1),
            ErrorCode::InvalidTopicException,
            "Topic name is invalid: 'a b' contains",
        ),
        (
            automatic("a.b", 1, 1),
            ErrorCode::TopicAlreadyExists,
            "Topic 'a.b' already exists.",
        ),
        (
            automatic("a_b", 1, 1),
            ErrorCode::InvalidTopicException,
            "Topic 'a_b' collides with existing topic: a.b",
        ),
        (
            automatic("t", 0, 1),
            ErrorCode::InvalidPartitions,
            "Number of partitions was set to an invalid non-positive value.",
        ),
        (
            automatic("t", -2, 1),
            ErrorCode::InvalidPartitions,
            "Number of partitions",
        ),
        (
            automatic("t", i32::MAX, 1),
            ErrorCode::InvalidPartitions,
            "A topic can have at most",
        ),
        (
            automatic("t", 1, 0),
            ErrorCode::InvalidReplicationFactor,
            "Replication factor must be larger than 0, or -1",
        ),
        (
            automatic("t", 1, 3),
            ErrorCode::InvalidReplicationFactor,
            "Unable to replicate the partition 3 time(s)",
        ),
        (
            bad_config,
            ErrorCode::InvalidConfig,
            "Invalid value compacted for configuration cleanup.policy",
        ),
        (
            manual_topic(&[(0, &[7])]),
            ErrorCode::InvalidReplicaAssignment,
            "The manual partition assignment includes broker 7, but no such",
        ),
        (
            manual_topic(&[(0, &[1, 1])]),
            ErrorCode::InvalidReplicaAssignment,
            "The manual partition assignment includes the broker 1 more than once.",
        ),
        (
            manual_topic(&[(0, &[])]),
            ErrorCode::InvalidReplicaAssignment,
            "The manual partition assignment includes an empty replica list.",
        ),
        (
            manual_topic(&[(1, &[1])]),
            ErrorCode::InvalidReplicaAssignment,
            "partitions should be a consecutive 0-based integer sequence",
        ),
        (
            manual_topic(&[(0, &[1]), (0, &[1])]),
            ErrorCode::InvalidReplicaAssignment,
            "Found multiple manual partition assignments for partition 0",
        ),
    ];
    for (topic, code, message) in table {
        let name = format!("{topic:?}");
        let error = plan(&one, topic).expect_err(&name);
        assert_eq!(error.code(), code, "{name}");
        assert!(error.to_string().starts_with(message), "{name}: {error}");
    }
}

#[test]
fn manual_assignments_are_kept_in_partition_order() {
    let image = cluster(2);
    let made = plan(&image, manual_topic(&[(1, &[2, 1]), (0, &[1, 2])])).expect("possible");
    assert_eq!(
        made.assignments,
        [[BrokerId(1), BrokerId(2)], [BrokerId(2), BrokerId(1)]]
    );
    let uneven = plan(&image, manual_topic(&[(0, &[1]), (1, &[1, 2])])).expect_err("uneven");
    assert!(
        uneven.to_string().contains("which have 1 replica(s)"),
        "{uneven}"
    );
}

#[test]
fn internal_topics_may_be_compacted() {
    let mut offsets = automatic("__consumer_offsets", 50, 1);
    offsets
        .configs
        .insert("cleanup.policy".to_owned(), "compact".to_owned());
    assert_eq!(
        plan(&cluster(1), offsets)
            .expect("possible")
            .assignments
            .len(),
        50
    );
}

#[test]
fn partitions_only_grow() {
    let image = with_topic(&cluster(1), "t", 3, &[1]);
    let topic = image.topic(&TopicName::from("t")).expect("there");
    let grow = |count, manual| plan_partitions(&image, topic, count, manual, 0);
    assert_eq!(grow(5, None), Ok(vec![vec![BrokerId(1)]; 2]));
    assert_eq!(
        grow(4, Some(vec![vec![BrokerId(1)]])),
        Ok(vec![vec![BrokerId(1)]])
    );
    let message = |count, manual| grow(count, manual).expect_err("refused").to_string();
    assert_eq!(message(3, None), "Topic already has 3 partition(s).");
    assert_eq!(
        message(2, None),
        "The topic t currently has 3 partition(s); 2 would not be an increase."
    );
    assert_eq!(
        message(-1, None),
        "The topic t currently has 3 partition(s); -1 would not be an increase."
    );
    assert_eq!(
        message(5, Some(vec![vec![BrokerId(1)]])),
        "Attempted to add 2 additional partition(s), but only 1 assignment(s) were specified."
    );
    assert_eq!(
        message(4, Some(vec![vec![BrokerId(9)]])),
        "The manual partition assignment includes broker 9, but no such broker is registered."
    );
}
