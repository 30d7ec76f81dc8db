use tidelog_protocol::types::PartitionIndex;

use super::*;
use crate::metadata::command::CompletedReassignment;

fn state() -> MetadataState {
    let mut state = MetadataState::default();
    apply(
        &mut state,
        Command::Bootstrap {
            cluster_id: Uuid::from_u128(9),
            feature_level: 1,
        },
    )
    .expect("bootstraps");
    for broker in 1..=3 {
        apply(&mut state, register(broker, 100 + broker as u128)).expect("registers");
    }
    state
}

fn apply(state: &mut MetadataState, command: Command) -> Result<Outcome, MetadataError> {
    let version = state.image().version() + 1;
    state.apply(command, version)
}

mod healing;

fn register(broker: i32, directory: u128) -> Command {
    Command::RegisterBroker(BrokerRegistration {
        broker: BrokerId(broker),
        directory_id: Uuid::from_u128(directory),
        incarnation: Uuid::from_u128(1),
        rack: None,
        endpoints: Vec::new(),
        peer_address: None,
        feature_level_max: 1,
        new_directory: false,
    })
}

fn id(number: u128) -> TopicId {
    TopicId(Uuid::from_u128(number))
}

fn create(name: &str, number: u128, partitions: usize) -> Command {
    Command::CreateTopic {
        name: TopicName::from(name),
        id: id(number),
        assignments: vec![vec![BrokerId(1)]; partitions],
        configs: BTreeMap::new(),
    }
}

#[test]
fn a_topic_is_found_by_name_and_id_until_deleted() {
    let mut state = state();
    assert_eq!(
        apply(&mut state, create("a", 1, 3)),
        Ok(Outcome::TopicCreated { id: id(1) })
    );
    let image = state.image();
    assert_eq!(
        image.topic(&"a".into()).map(|topic| topic.partitions.len()),
        Some(3)
    );
    assert_eq!(
        image.topic_by_id(id(1)).map(|topic| topic.name.clone()),
        Some("a".into())
    );
    assert_eq!((image.topic_count(), image.partition_count()), (1, 3));
    assert_eq!(
        apply(&mut state, Command::DeleteTopic { id: id(1) }),
        Ok(Outcome::Done)
    );
    assert!(state.image().topic(&"a".into()).is_none());
    assert!(state.image().topic_by_id(id(1)).is_none());
    assert_eq!(
        (state.image().topic_count(), state.image().partition_count()),
        (0, 0)
    );
    assert_eq!(
        apply(&mut state, Command::DeleteTopic { id: id(1) }),
        Err(MetadataError::UnknownTopic)
    );
    assert_eq!(
        apply(&mut state, create("a", 2, 1)),
        Ok(Outcome::TopicCreated { id: id(2) })
    );
    assert_eq!(state.take_delta().topics, HashSet::from([id(1), id(2)]));
    assert_eq!(state.take_delta(), MetadataDelta::default());
}

#[test]
fn refused_commands_change_nothing() {
    let mut state = state();
    apply(&mut state, create("a.b", 1, 1)).expect("creates");
    let version = state.image().version();
    let refused = [
        (
            create("a.b", 2, 1),
            MetadataError::TopicExists("a.b".into()),
        ),
        (create("x", 1, 1), MetadataError::TopicIdExists),
        (
            create("a_b", 2, 1),
            MetadataError::TopicNameCollision {
                existing: "a.b".into(),
            },
        ),
        (
            create("x", 2, 0),
            MetadataError::InvalidPartitions("a topic needs a partition".into()),
        ),
        (register(1, 77), MetadataError::BrokerIdTaken(BrokerId(1))),
        (
            Command::CreatePartitions {
                id: id(1),
                assignments: vec![vec![BrokerId(9)]],
            },
            MetadataError::UnknownBroker(BrokerId(9)),
        ),
        (
            Command::CreatePartitions {
                id: id(1),
                assignments: vec![vec![BrokerId(1), BrokerId(1)]],
            },
            MetadataError::InvalidReplicaAssignment("broker 1 twice".into()),
        ),
        (
            Command::AlterConfigs {
                resource: ConfigResource::Topic("nope".into()),
                changes: vec![],
            },
            MetadataError::UnknownTopic,
        ),
        (
            Command::AllocateProducerIds {
                broker: BrokerId(1),
                count: 0,
            },
            MetadataError::ProducerIds("count 0".into()),
        ),
        (
            Command::Bootstrap {
                cluster_id: Uuid::nil(),
                feature_level: 1,
            },
            MetadataError::AlreadyBootstrapped(Uuid::from_u128(9)),
        ),
    ];
    for (command, error) in refused {
        assert_eq!(apply(&mut state, command), Err(error));
    }
    for name in ["", ".", "..", "a b", "ä", &"x".repeat(250)] {
        assert!(
            matches!(
                apply(&mut state, create(name, 3, 1)),
                Err(MetadataError::InvalidTopicName(_))
            ),
            "{name}"
        );
    }
    assert_eq!(state.image().version(), version);
    assert_eq!(state.image().partition_count(), 1);
}

#[test]
fn a_name_without_dots_collides_too() {
    let mut state = state();
    apply(&mut state, create("a_b", 1, 1)).expect("creates");
    let collision = MetadataError::TopicNameCollision {
        existing: "a_b".into(),
    };
    assert_eq!(apply(&mut state, create("a.b", 2, 1)), Err(collision));
    apply(&mut state, Command::DeleteTopic { id: id(1) }).expect("deletes");
    apply(&mut state, create("a.b", 3, 1)).expect("free again");
}

#[test]
fn the_highest_epoch_wins_among_leader_reports() {
    let mut state = state();
    apply(
        &mut state,
        Command::CreateTopic {
            name: "a".into(),
            id: id(1),
            assignments: vec![vec![BrokerId(1), BrokerId(2)]],
            configs: BTreeMap::new(),
        },
    )
    .expect("creates");
    let report = |leader: i32, epoch: i32| LeaderReport {
        topic: id(1),
        partition: PartitionIndex(0),
        leader: BrokerId(leader),
        epoch: LeaderEpoch(epoch),
        isr: vec![BrokerId(leader)],
    };
    let leader = |state: &MetadataState| {
        let topic = state.image().topic_by_id(id(1)).expect("there");
        (
            topic.partitions[0].leader,
            topic.partitions[0].leader_epoch,
            topic.partitions[0].isr.to_vec(),
        )
    };
    apply(&mut state, Command::ReportLeaders(vec![report(2, 5)])).expect("reports");
    apply(
        &mut state,
        Command::ReportLeaders(vec![report(1, 4), report(3, 9)]),
    )
    .expect("reports");
    assert_eq!(
        leader(&state),
        (Some(BrokerId(2)), LeaderEpoch(5), vec![BrokerId(2)])
    );
    apply(&mut state, Command::ReportLeaders(vec![report(1, 6)])).expect("reports");
    assert_eq!(
        leader(&state),
        (Some(BrokerId(1)), LeaderEpoch(6), vec![BrokerId(1)])
    );
    let before = state.image().topic_by_id(id(1)).expect("there").clone();
    apply(&mut state, Command::ReportLeaders(vec![report(1, 6)])).expect("reports");
    assert!(Arc::ptr_eq(
        &before,
        state.image().topic_by_id(id(1)).expect("there")
    ));
}

#[test]
fn configs_are_set_and_removed_per_resource() {
    let mut state = state();
    apply(&mut state, create("a", 1, 1)).expect("creates");
    let alter = |resource: ConfigResource, value: Option<&str>| Command::AlterConfigs {
        resource,
        changes: vec![("retention.ms".into(), value.map(str::to_string))],
    };
    let resources = [
        ConfigResource::Topic("a".into()),
        ConfigResource::Broker(None),
        ConfigResource::Broker(Some(BrokerId(1))),
        ConfigResource::Group("g".into()),
        ConfigResource::ClientMetrics("m".into()),
    ];
    for resource in resources {
        state.take_delta();
        apply(&mut state, alter(resource.clone(), Some("5"))).expect("sets");
        assert_eq!(
            state
                .image()
                .configs(&resource)
                .and_then(|c| c.get("retention.ms"))
                .map(String::as_str),
            Some("5")
        );
        assert_eq!(
            state.take_delta().broker_configs,
            matches!(resource, ConfigResource::Broker(_))
        );
        apply(&mut state, alter(resource.clone(), None)).expect("removes");
        assert_eq!(
            state
                .image()
                .configs(&resource)
                .and_then(|c| c.get("retention.ms")),
            None
        );
    }
    assert_eq!(state.image().config_resources().count(), 0);
}

#[test]
fn producer_ids_are_handed_out_once() {
    let mut state = state();
    let ask = Command::AllocateProducerIds {
        broker: BrokerId(1),
        count: 1000,
    };
    assert_eq!(
        apply(&mut state, ask.clone()),
        Ok(Outcome::ProducerIds {
            first: ProducerId(0),
            count: 1000
        })
    );
    assert_eq!(
        apply(&mut state, ask),
        Ok(Outcome::ProducerIds {
            first: ProducerId(1000),
            count: 1000
        })
    );
}

#[test]
fn an_old_image_does_not_see_later_changes() {
    let mut state = state();
    apply(&mut state, create("a", 1, 1)).expect("creates");
    let old = state.image().clone();
    apply(&mut state, create("b", 2, 1)).expect("creates");
    apply(&mut state, Command::DeleteTopic { id: id(1) }).expect("deletes");
    assert!(old.topic(&"a".into()).is_some() && old.topic(&"b".into()).is_none());
}

fn move_to(target: Option<&[i32]>) -> Command {
    Command::AlterReassignment {
        topic: id(1),
        partition: PartitionIndex(0),
        target: target.map(ids),
    }
}

fn ids(raw: &[i32]) -> Vec<BrokerId> {
    raw.iter().copied().map(BrokerId).collect()
}

fn first_partition(state: &MetadataState) -> &PartitionImage {
    let partition = state.image().partition_by_id(id(1), PartitionIndex(0));
    partition.expect("is there")
}

fn complete(since: u64) -> Command {
    Command::CompleteReassignments(vec![
        CompletedReassignment {
            topic: id(1),
            partition: PartitionIndex(0),
            since,
        },
        CompletedReassignment {
            topic: id(77),
            partition: PartitionIndex(0),
            since,
        },
    ])
}

#[test]
fn a_reassignment_names_all_that_may_hold_something_until_it_is_complete() {
    let mut state = state();
    apply(&mut state, create("a", 1, 1)).expect("creates");
    apply(&mut state, move_to(Some(&[2]))).expect("is taken");
    let first = state.image().version();
    assert_eq!(*first_partition(&state).replicas, *ids(&[2, 1]));
    // Another target before the first is reached: what goes back is what there was at first.
    apply(&mut state, move_to(Some(&[3]))).expect("is taken");
    let second = state.image().version();
    let moving = first_partition(&state);
    assert_eq!(*moving.replicas, *ids(&[3, 2, 1]));
    assert_eq!(
        (moving.adding(), moving.removing(), moving.wanted()),
        (ids(&[3]), ids(&[1]), &*ids(&[3]))
    );
    state.take_delta();
    apply(&mut state, complete(first)).expect("is taken");
    assert!(first_partition(&state).moving().is_some(), "a stale word");
    assert_eq!(state.take_delta(), MetadataDelta::default());
    apply(&mut state, complete(second)).expect("is taken");
    let done = first_partition(&state);
    assert_eq!((&*done.replicas, &done.reassignment), (&*ids(&[3]), &None));
    assert_eq!(state.take_delta().topics, HashSet::from([id(1)]));
}

#[test]
fn a_cancelled_reassignment_is_over_for_all_but_its_leader() {
    let mut state = state();
    apply(&mut state, create("a", 1, 1)).expect("creates");
    apply(&mut state, move_to(Some(&[2, 3]))).expect("is taken");
    apply(&mut state, move_to(None)).expect("is cancelled");
    let since = state.image().version();
    let cancelled = first_partition(&state);
    assert_eq!(*cancelled.replicas, *ids(&[1, 2, 3]));
    assert!(cancelled.moving().is_none() && cancelled.reassignment.is_some());
    assert_eq!(
        apply(&mut state, move_to(None)),
        Err(MetadataError::NoReassignment)
    );
    apply(&mut state, complete(since)).expect("is taken");
    let done = first_partition(&state);
    assert_eq!((&*done.replicas, &done.reassignment), (&*ids(&[1]), &None));
}

#[test]
fn another_order_of_the_same_replicas_needs_nobody() {
    let mut state = state();
    apply(&mut state, create("a", 1, 1)).expect("creates");
    apply(&mut state, move_to(Some(&[1, 2]))).expect("is taken");
    let since = state.image().version();
    apply(&mut state, complete(since)).expect("is taken");
    apply(&mut state, move_to(Some(&[2, 1]))).expect("is taken");
    let done = first_partition(&state);
    assert_eq!(
        (&*done.replicas, &done.reassignment),
        (&*ids(&[2, 1]), &None)
    );
}

#[test]
fn reassignments_that_make_no_sense_are_refused() {
    let mut state = state();
    apply(&mut state, create("a", 1, 1)).expect("creates");
    let refused = [
        (
            move_to(Some(&[9])),
            MetadataError::UnknownBroker(BrokerId(9)),
        ),
        (
            move_to(Some(&[])),
            MetadataError::InvalidReplicaAssignment("0 replicas".into()),
        ),
        (
            move_to(Some(&[1, 1])),
            MetadataError::InvalidReplicaAssignment("broker 1 twice".into()),
        ),
        (move_to(None), MetadataError::NoReassignment),
        (
            Command::AlterReassignment {
                topic: id(1),
                partition: PartitionIndex(1),
                target: Some(ids(&[2])),
            },
            MetadataError::UnknownPartition,
        ),
        (
            Command::AlterReassignment {
                topic: id(2),
                partition: PartitionIndex(0),
                target: Some(ids(&[2])),
            },
            MetadataError::UnknownTopic,
        ),
    ];
    for (command, error) in refused {
        assert_eq!(apply(&mut state, command), Err(error));
    }
}

#[test]
fn a_broker_is_forgotten_only_if_it_is_down_and_holds_nothing() {
    let mut state = state();
    apply(&mut state, create("a", 1, 1)).expect("creates");
    let remove = |broker| Command::UnregisterBroker {
        broker: BrokerId(broker),
    };
    let fence = |state: &MetadataState, broker| Command::SetBrokerFenced {
        broker: BrokerId(broker),
        epoch: state
            .image()
            .broker(BrokerId(broker))
            .expect("is there")
            .epoch,
        fenced: true,
    };
    let in_use = |refused| matches!(refused, Err(MetadataError::BrokerInUse(_)));
    assert!(in_use(apply(&mut state, remove(2))), "it is up");
    for broker in [1, 2] {
        let fence = fence(&state, broker);
        apply(&mut state, fence).expect("is fenced");
    }
    assert!(in_use(apply(&mut state, remove(1))), "it has a replica");
    assert_eq!(apply(&mut state, remove(2)), Ok(Outcome::Done));
    assert_eq!(state.image().brokers().count(), 2);
    assert_eq!(
        apply(&mut state, remove(2)),
        Err(MetadataError::UnknownBroker(BrokerId(2)))
    );
}

fn raise(state: &mut MetadataState, level: i16) -> Result<Outcome, MetadataError> {
    let name = METADATA_FEATURE.to_owned();
    apply(state, Command::SetFeature { name, level })
}

fn register_at(broker: i32, level: u16) -> Command {
    let Command::RegisterBroker(mut registration) = register(broker, 100 + broker as u128) else {
        unreachable!("it is a registration");
    };
    registration.feature_level_max = level;
    Command::RegisterBroker(registration)
}

fn run_again(state: &mut MetadataState, broker: i32, incarnation: u128) {
    let Command::RegisterBroker(mut registration) = register_at(broker, 3) else {
        unreachable!("it is a registration");
    };
    registration.incarnation = Uuid::from_u128(incarnation);
    let again = Command::RegisterBroker(registration);
    apply(state, again).expect("registers");
}

#[test]
fn another_run_leads_nothing_of_what_the_one_before_led() {
    let mut state = state();
    for broker in 1..=3 {
        apply(&mut state, register_at(broker, 3)).expect("registers");
    }
    let alone = vec![BrokerId(1)];
    let three = vec![BrokerId(1), BrokerId(2), BrokerId(3)];
    let created = Command::CreateTopic {
        name: TopicName::from("orders"),
        id: id(1),
        assignments: vec![three.clone(), three, alone],
        configs: BTreeMap::new(),
    };
    apply(&mut state, created).expect("creates");
    let report = |partition: i32, leader: i32| LeaderReport {
        topic: id(1),
        partition: PartitionIndex(partition),
        leader: BrokerId(leader),
        epoch: LeaderEpoch(4),
        isr: vec![BrokerId(leader)],
    };
    let reports = vec![report(0, 1), report(1, 2), report(2, 1)];
    apply(&mut state, Command::ReportLeaders(reports)).expect("is taken");
    let leaders = |state: &MetadataState| {
        let topic = state.image().topic_by_id(id(1)).expect("there");
        let leaders = topic.partitions.iter().map(|it| it.leader.map(|it| it.0));
        leaders.collect::<Vec<_>>()
    };
    let before = vec![Some(1), Some(2), Some(1)];
    // Versions that know no such rule may take part.
    run_again(&mut state, 1, 2);
    assert_eq!(leaders(&state), before);
    assert_eq!(raise(&mut state, 3), Ok(Outcome::Done));
    // The answer to a registration was lost: it is the same run.
    run_again(&mut state, 1, 2);
    assert_eq!(leaders(&state), before);
    drop(state.take_delta());
    run_again(&mut state, 1, 3);
    assert_eq!(leaders(&state), [None, Some(2), Some(1)]);
    assert!(state.take_delta().topics.contains(&id(1)));
    // It leads again under the same epoch: no older news.
    apply(&mut state, Command::ReportLeaders(vec![report(0, 1)])).expect("is taken");
    assert_eq!(leaders(&state), before);
}

#[test]
fn the_level_rises_when_all_brokers_know_it_and_never_falls() {
    let mut state = state();
    let text = raise(&mut state, 2).expect_err("is refused").to_string();
    assert!(
        text.contains("broker 1 knows 1, broker 2 knows 1, broker 3 knows 1"),
        "{text}"
    );
    assert_eq!(state.image().feature_level(), 1);
    for broker in 1..=3 {
        apply(&mut state, register_at(broker, 5)).expect("registers");
    }
    // Judged by what brokers say they know, not by what this program does.
    assert_eq!(raise(&mut state, 5), Ok(Outcome::Done));
    assert_eq!(state.image().feature_level(), 5);
    assert!(state.image().features().is_empty());
    for level in [-1, 0, 4] {
        let refused = raise(&mut state, level).expect_err("is refused");
        assert!(refused.to_string().contains("never lowered"), "{refused}");
    }
    let refused = apply(&mut state, register_at(2, 4)).expect_err("is refused");
    assert_eq!(
        refused.to_string(),
        "broker 2 knows feature level 4, and the cluster is at 5: start it with the version that the other brokers run"
    );
}

#[test]
fn many_brokers_that_hold_a_level_back_are_counted() {
    let mut state = state();
    for broker in 4..=9 {
        apply(&mut state, register(broker, 100 + broker as u128)).expect("registers");
    }
    let text = raise(&mut state, 2).expect_err("is refused").to_string();
    assert!(
        text.contains("broker 5 knows 1, 4 more know less"),
        "{text}"
    );
    assert!(text.len() < 512, "it fits into an answer");
}

#[test]
fn a_record_of_a_later_level_is_refused_by_every_replica() {
    let mut state = state();
    assert_eq!(state.image().check_level(1), Ok(()));
    let refused = state.image().check_level(2);
    assert!(
        matches!(refused, Err(MetadataError::LevelTooLow(_))),
        "{refused:?}"
    );
    for broker in 1..=3 {
        apply(&mut state, register_at(broker, 2)).expect("registers");
    }
    raise(&mut state, 2).expect("is raised");
    assert_eq!(state.image().check_level(2), Ok(()));
    // The first record of a cluster says at which level it begins.
    assert_eq!(MetadataState::default().image().check_level(2), Ok(()));
}

#[test]
fn a_broker_that_is_heard_of_again_is_news_as_one_that_is_lost() {
    let mut state = state();
    let broker = BrokerId(2);
    let epoch = state.image().broker(broker).expect("is there").epoch;
    let mut set = |fenced| {
        state.take_delta();
        let command = Command::SetBrokerFenced {
            broker,
            epoch,
            fenced,
        };
        apply(&mut state, command).expect("is taken");
        state.take_delta()
    };
    let lost = set(true);
    assert!(lost.lost.contains(&broker) && lost.brokers);
    let found = set(false);
    assert!(found.lost.is_empty() && found.brokers);
    assert_eq!(set(false), MetadataDelta::default());
}
