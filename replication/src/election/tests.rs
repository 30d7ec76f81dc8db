use tidelog_protocol::types::{LeaderEpoch, TopicName};
use uuid::Uuid;

use super::*;
use crate::metadata::command::{BrokerRegistration, Command, LeaderReport};
use crate::metadata::state::MetadataState;

const TOPIC: TopicId = TopicId(Uuid::from_u128(5));

fn group() -> GroupId {
    GroupId {
        topic: TOPIC,
        partition: PartitionIndex(0),
    }
}

/// Three brokers and a partition on all of them, which broker 2 leads. Some are fenced.
fn image(fenced: &[i32]) -> MetadataImage {
    let mut state = MetadataState::default();
    let register = |id: i32| {
        Command::RegisterBroker(BrokerRegistration {
            broker: BrokerId(id),
            directory_id: Uuid::from_u128(u128::from(id.unsigned_abs())),
            incarnation: Uuid::nil(),
            rack: None,
            endpoints: Vec::new(),
            peer_address: None,
            feature_level_max: 1,
            new_directory: false,
        })
    };
    let replicas: Vec<BrokerId> = (1..=3).map(BrokerId).collect();
    let create = Command::CreateTopic {
        name: TopicName::from("orders"),
        id: TOPIC,
        assignments: vec![replicas.clone()],
        configs: BTreeMap::new(),
    };
    let led = Command::ReportLeaders(vec![LeaderReport {
        topic: TOPIC,
        partition: PartitionIndex(0),
        leader: BrokerId(2),
        epoch: LeaderEpoch(1),
        isr: replicas,
    }]);
    let fence = fenced.iter().map(|id| Command::SetBrokerFenced {
        broker: BrokerId(*id),
        epoch: i64::from(*id),
        fenced: true,
    });
    let commands = (1..=3).map(register).chain([create, led]).chain(fence);
    for (command, version) in commands.zip(1..) {
        state.apply(command, version).expect("applies");
    }
    state.image().clone()
}

#[test]
fn the_leader_is_asked_to_hand_over_to_the_first_replica() {
    let image = image(&[]);
    let planned = plan(&image, ElectionKind::Preferred, group());
    assert_eq!(planned, Ok(Some(BrokerId(2))));
    let needless = plan(&image, ElectionKind::Unclean, group());
    assert_eq!(needless, Err(ElectionError::NotNeeded));
}

#[test]
fn a_replica_that_is_not_up_is_not_elected() {
    let planned = plan(&image(&[1]), ElectionKind::Preferred, group());
    assert!(matches!(
        planned,
        Err(ElectionError::PreferredNotAvailable(_))
    ));
}

#[test]
fn without_a_leader_one_is_waited_for() {
    let image = image(&[2]);
    let planned = plan(&image, ElectionKind::Preferred, group());
    assert!(matches!(
        planned,
        Err(ElectionError::PreferredNotAvailable(_))
    ));
    assert_eq!(plan(&image, ElectionKind::Unclean, group()), Ok(None));
}

#[test]
fn unknown_partitions_are_told() {
    let elsewhere = GroupId {
        partition: PartitionIndex(1),
        ..group()
    };
    for kind in [ElectionKind::Preferred, ElectionKind::Unclean] {
        let planned = plan(&image(&[]), kind, elsewhere);
        assert_eq!(planned, Err(ElectionError::UnknownPartition));
    }
}
