//! Replicas that lost what they had.

use super::*;
use crate::metadata::command::DamagedReplica;

/// A topic with one partition on three brokers, led by the first.
fn three() -> MetadataState {
    let mut state = state();
    apply(&mut state, create("a", 1, 1)).expect("creates");
    apply(&mut state, move_to(Some(&[1, 2, 3]))).expect("is taken");
    let since = state.image().version();
    apply(&mut state, complete(since)).expect("is taken");
    let report = LeaderReport {
        topic: id(1),
        partition: PartitionIndex(0),
        leader: BrokerId(1),
        epoch: LeaderEpoch(4),
        isr: ids(&[1, 2, 3]),
    };
    apply(&mut state, Command::ReportLeaders(vec![report])).expect("is taken");
    state.image.feature_level = 2;
    state
}

fn damage(broker: i32) -> Command {
    Command::ReportDamage(DamagedReplica {
        topic: id(1),
        partition: PartitionIndex(0),
        broker: BrokerId(broker),
    })
}

fn fence(state: &mut MetadataState, broker: i32) {
    let epoch = state
        .image()
        .broker(BrokerId(broker))
        .expect("is there")
        .epoch;
    let command = Command::SetBrokerFenced {
        broker: BrokerId(broker),
        epoch,
        fenced: true,
    };
    apply(state, command).expect("is taken");
}

fn new_disk(broker: i32, new_directory: bool) -> Command {
    let Command::RegisterBroker(registration) = register(broker, 4_711) else {
        unreachable!("it is one");
    };
    Command::RegisterBroker(BrokerRegistration {
        new_directory,
        feature_level_max: 2,
        ..registration
    })
}

#[test]
fn a_damaged_replica_goes_before_it_comes_back() {
    let mut state = three();
    apply(&mut state, damage(1)).expect("is taken");
    let out = first_partition(&state);
    assert_eq!((&*out.isr, out.leader), (&*ids(&[2, 3]), None));
    assert_eq!(
        (&*out.replicas, out.wanted()),
        (&*ids(&[2, 3, 1]), &*ids(&[1, 2, 3]))
    );
    assert_eq!(out.added_since(BrokerId(1)), None, "it is in the group yet");
    let since = state.image().version();
    state.take_delta();
    apply(&mut state, damage(1)).expect("is taken");
    assert_eq!(state.take_delta(), MetadataDelta::default(), "it is known");
    // What an operator asks for meanwhile is done with the damaged replica gone.
    apply(&mut state, move_to(Some(&[3, 1]))).expect("is taken");
    apply(&mut state, complete(since)).expect("is taken");
    let back = first_partition(&state);
    assert_eq!(&*back.replicas, &*ids(&[3, 1, 2]));
    let second = back
        .added_since(BrokerId(1))
        .expect("it is out of the group");
    assert!(second > since);
    apply(&mut state, complete(second)).expect("is taken");
    assert_eq!(&*first_partition(&state).replicas, &*ids(&[3, 1]));
    assert!(first_partition(&state).reassignment.is_none());
}

#[test]
fn damage_while_it_comes_back_begins_it_anew() {
    let mut state = three();
    apply(&mut state, damage(2)).expect("is taken");
    let first = state.image().version();
    apply(&mut state, complete(first)).expect("is taken");
    let second = first_partition(&state)
        .added_since(BrokerId(2))
        .expect("comes");
    apply(&mut state, damage(2)).expect("is taken");
    let third = state.image().version();
    assert_eq!(first_partition(&state).added_since(BrokerId(2)), None);
    apply(&mut state, complete(second)).expect("is taken");
    assert_eq!(
        first_partition(&state).added_since(BrokerId(2)),
        None,
        "a stale word"
    );
    apply(&mut state, complete(third)).expect("is taken");
    assert!(first_partition(&state).added_since(BrokerId(2)) > Some(second));
}

#[test]
fn the_only_replica_has_nothing_to_come_back_from() {
    let mut state = state();
    apply(&mut state, create("a", 1, 1)).expect("creates");
    state.take_delta();
    apply(&mut state, damage(1)).expect("is taken");
    assert_eq!(state.take_delta(), MetadataDelta::default());
    assert!(first_partition(&state).reassignment.is_none());
    state.image.feature_level = 2;
    // With its disk gone nobody may begin the partition anew, and nobody can go back.
    fence(&mut state, 1);
    apply(&mut state, new_disk(1, true)).expect("takes its place");
    let lost = first_partition(&state);
    assert_eq!(
        lost.reassignment.as_deref().map(|it| &*it.from),
        Some(&[][..])
    );
    let refused = apply(&mut state, move_to(None));
    assert_eq!(refused, Err(MetadataError::NoReassignment));
}

#[test]
fn a_new_directory_takes_the_place_of_one_whose_broker_is_dead() {
    let mut state = three();
    let taken = || Err(MetadataError::BrokerIdTaken(BrokerId(2)));
    assert_eq!(apply(&mut state, new_disk(2, true)), taken(), "it is alive");
    fence(&mut state, 2);
    assert_eq!(
        apply(&mut state, new_disk(2, false)),
        taken(),
        "it is not empty"
    );
    state.take_delta();
    apply(&mut state, new_disk(2, true)).expect("takes its place");
    let since = state.image().version();
    let delta = state.take_delta();
    assert!(delta.brokers && delta.lost.contains(&BrokerId(2)));
    assert_eq!(delta.topics, HashSet::from([id(1)]));
    let healing = first_partition(&state);
    assert_eq!(
        (&*healing.replicas, &*healing.isr),
        (&*ids(&[1, 2, 3]), &*ids(&[1, 3]))
    );
    assert_eq!(
        (healing.adding(), healing.added_since(BrokerId(2))),
        (ids(&[2]), Some(since))
    );
    // The one before is not let in again.
    fence(&mut state, 2);
    let before = apply(&mut state, register(2, 102));
    assert_eq!(before, taken());
    apply(&mut state, complete(since)).expect("is taken");
    assert!(first_partition(&state).reassignment.is_none());
}

#[test]
fn below_the_level_of_reassignments_no_directory_is_replaced() {
    let mut state = three();
    state.image.feature_level = 1;
    fence(&mut state, 2);
    let refused = apply(&mut state, new_disk(2, true));
    assert_eq!(refused, Err(MetadataError::BrokerIdTaken(BrokerId(2))));
}
