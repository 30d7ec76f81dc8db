use proptest::prelude::*;

use super::*;
use crate::metadata::levels::FEATURE_LEVEL_MAX;

fn registration_of(broker: i32) -> BrokerRegistration {
    BrokerRegistration {
        broker: BrokerId(broker),
        directory_id: Uuid::from_u128(u128::MAX),
        incarnation: Uuid::from_u128(7),
        rack: Some("rack \"1\"".into()),
        endpoints: vec![Endpoint {
            listener: "PLAINTEXT".into(),
            host: "localhost".into(),
            port: 9092,
            security_protocol: SecurityProtocol::SaslSsl,
        }],
        peer_address: Some(crate::peers::PeerAddress {
            host: "localhost".into(),
            port: 9093,
        }),
        feature_level_max: 3,
        new_directory: false,
    }
}

fn commands() -> impl Strategy<Value = Command> {
    let name = "[a-z.]{1,9}";
    let id = any::<u128>().prop_map(|id| TopicId(Uuid::from_u128(id)));
    let replicas = prop::collection::vec(any::<i32>().prop_map(BrokerId), 0..4);
    let assignments = prop::collection::vec(replicas.clone(), 0..5);
    let index = any::<i32>().prop_map(PartitionIndex);
    let moved = (id.clone(), index, any::<u64>());
    let resource = prop_oneof![
        name.prop_map(|name| ConfigResource::Topic(TopicName::from(name.as_str()))),
        any::<i32>().prop_map(|id| ConfigResource::Broker(Some(BrokerId(id)))),
        Just(ConfigResource::Broker(None)),
        ".{0,5}".prop_map(ConfigResource::Group),
        ".{0,5}".prop_map(ConfigResource::ClientMetrics),
    ];
    prop_oneof![
        any::<u128>().prop_map(|id| Command::Bootstrap {
            cluster_id: Uuid::from_u128(id),
            feature_level: 1
        }),
        any::<i32>().prop_map(|id| Command::RegisterBroker(registration_of(id))),
        (
            name,
            id.clone(),
            assignments.clone(),
            prop::collection::btree_map(".{0,4}", ".{0,4}", 0..3)
        )
            .prop_map(|(name, id, assignments, configs)| Command::CreateTopic {
                name: TopicName::from(name.as_str()),
                id,
                assignments,
                configs
            }),
        id.clone().prop_map(|id| Command::DeleteTopic { id }),
        (id.clone(), assignments)
            .prop_map(|(id, assignments)| Command::CreatePartitions { id, assignments }),
        (
            resource,
            prop::collection::vec((".{0,4}", prop::option::of(".{0,4}")), 0..3)
        )
            .prop_map(|(resource, changes)| Command::AlterConfigs { resource, changes }),
        (any::<i32>(), any::<i32>()).prop_map(|(broker, count)| Command::AllocateProducerIds {
            broker: BrokerId(broker),
            count
        }),
        prop::collection::vec((id, any::<i32>(), any::<i32>()), 0..4).prop_map(|reports| {
            Command::ReportLeaders(
                reports
                    .into_iter()
                    .map(|(topic, partition, epoch)| LeaderReport {
                        topic,
                        partition: PartitionIndex(partition),
                        leader: BrokerId(1),
                        epoch: LeaderEpoch(epoch),
                        isr: vec![BrokerId(1), BrokerId(2)],
                    })
                    .collect(),
            )
        }),
        (".{0,9}", any::<i16>()).prop_map(|(name, level)| Command::SetFeature { name, level }),
        (moved.clone(), prop::option::of(replicas)).prop_map(|((topic, partition, _), target)| {
            Command::AlterReassignment {
                topic,
                partition,
                target,
            }
        }),
        prop::collection::vec(moved, 0..4).prop_map(|moved| {
            let completed =
                moved
                    .into_iter()
                    .map(|(topic, partition, since)| CompletedReassignment {
                        topic,
                        partition,
                        since,
                    });
            Command::CompleteReassignments(completed.collect())
        }),
        any::<i32>().prop_map(|id| Command::UnregisterBroker {
            broker: BrokerId(id)
        }),
    ]
}

proptest! {
    #[test]
    fn a_record_reads_back_as_its_command(command in commands()) {
        let bytes = encode(&command, FEATURE_LEVEL_MAX).expect("encodes");
        prop_assert_eq!(decode(&bytes), Ok(command));
    }

    #[test]
    fn damaged_bytes_are_an_error(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        prop_assert!(decode(&bytes).is_err());
    }
}

#[test]
fn a_newer_kind_is_named() {
    let command = Command::DeleteTopic {
        id: TopicId(Uuid::from_u128(1)),
    };
    let mut bytes = encode(&command, 1).expect("encodes").to_vec();
    bytes[2] = 9;
    bytes[4] = 99;
    assert_eq!(
        decode(&bytes),
        Err(RecordError::Unknown {
            kind: 99,
            version: 1,
            level: 9
        })
    );
}

#[test]
fn the_layout_of_a_record_is_fixed() {
    let command = Command::AllocateProducerIds {
        broker: BrokerId(3),
        count: 10,
    };
    let bytes = encode(&command, 1).expect("encodes");
    assert_eq!(
        &bytes[..],
        b"\x01\x00\x01\x00\x07\x00\x01{\"broker\":3,\"count\":10}"
    );
}

/// What the programs of a level know, so that none of them is sent what would stop it.
#[test]
fn a_record_is_written_at_the_level_of_the_cluster_and_from_its_own_on() {
    let (topic, partition) = (TopicId(Uuid::from_u128(1)), PartitionIndex(0));
    let alter = Command::AlterReassignment {
        topic,
        partition,
        target: None,
    };
    let unregister = Command::UnregisterBroker {
        broker: BrokerId(3),
    };
    for command in [&alter, &unregister] {
        let refused = encode(command, 1).expect_err("is refused");
        let (needed, level) = (2, 1);
        assert_eq!(refused, RecordError::LevelTooLow { needed, level });
        let text = refused.to_string();
        assert!(text.contains("tidelog cluster upgrade"), "{text}");
        let written = encode(command, 2).expect("is written");
        assert_eq!(super::level(&written), Ok(2));
    }
    // One that is under way in a cluster of the first level, begun by a program that wrote it there, can be ended.
    let complete = Command::CompleteReassignments(Vec::new());
    assert_eq!(
        super::level(&encode(&complete, 1).expect("is written")),
        Ok(1)
    );
    assert!(super::level(b"\x01\x00").is_err());
}
