use proptest::prelude::*;
use tidelog_protocol::types::BrokerId;
use uuid::Uuid;

use super::*;

fn replica(broker: i32) -> ReplicaId {
    ReplicaId {
        broker: BrokerId(broker),
        directory: Uuid::from_u128(u128::from(broker.unsigned_abs())),
    }
}

fn replicas(ids: &[i32]) -> Vec<ReplicaId> {
    ids.iter().copied().map(replica).collect()
}

fn set(ids: &[i32]) -> BTreeSet<ReplicaId> {
    replicas(ids).into_iter().collect()
}

fn voters(ids: &[i32]) -> Members {
    Members {
        voters: set(ids),
        ..Members::default()
    }
}

/// What the group does with a step. A learner has caught up at once if its broker is there.
fn carry_out(members: &mut Members, leader: &mut ReplicaId, step: Step) {
    match step {
        Step::Wait | Step::Done => {}
        Step::AddLearner(new) => {
            members.learners.insert(new);
        }
        Step::ReplaceVoters(voters) => {
            members.learners.retain(|it| !voters.contains(it));
            members.voters = voters;
            members.next = None;
        }
        Step::HandOver(heir) => *leader = heir,
        Step::RemoveLearner(gone) => {
            members.learners.remove(&gone);
        }
    }
}

/// Carries out steps until there is nothing left to be done, or nothing that can be; returns the steps.
fn settle(
    wanted: &[ReplicaId],
    members: &mut Members,
    leader: &mut ReplicaId,
    there: &BTreeSet<ReplicaId>,
) -> Vec<Step> {
    let mut steps = Vec::new();
    for _ in 0..100 {
        let step = next_step(wanted, members, there, *leader);
        steps.push(step.clone());
        if matches!(step, Step::Wait | Step::Done) {
            return steps;
        }
        carry_out(members, leader, step);
    }
    panic!("no end: {steps:?}");
}

#[test]
fn who_stays_and_is_away_keeps_nobody_from_going() {
    let (mut members, mut leader) = (voters(&[1, 2, 3]), replica(1));
    let there = set(&[1, 3, 4, 5]);
    let wanted = replicas(&[2, 4, 5]);
    let steps = settle(&wanted, &mut members, &mut leader, &there);
    let expected = [
        Step::AddLearner(replica(4)),
        Step::AddLearner(replica(5)),
        Step::ReplaceVoters(set(&[1, 2, 4, 5])),
        Step::HandOver(replica(4)),
        Step::ReplaceVoters(set(&[2, 4, 5])),
        Step::Done,
    ];
    assert_eq!(steps, expected);
}

#[test]
fn a_replica_moves_by_listening_first() {
    let (mut members, mut leader) = (voters(&[1, 2, 3]), replica(1));
    let there = set(&[1, 2, 3, 4]);
    let steps = settle(&replicas(&[1, 2, 4]), &mut members, &mut leader, &there);
    let expected = [
        Step::AddLearner(replica(4)),
        Step::ReplaceVoters(set(&[1, 2, 4])),
        Step::Done,
    ];
    assert_eq!(steps, expected);
}

#[test]
fn a_leader_that_goes_hands_over_to_the_first_of_those_that_stay() {
    let (mut members, mut leader) = (voters(&[1, 2, 3]), replica(1));
    let there = set(&[1, 2, 3, 4]);
    let steps = settle(&replicas(&[4, 3, 2]), &mut members, &mut leader, &there);
    let expected = [
        Step::AddLearner(replica(4)),
        Step::HandOver(replica(3)),
        Step::ReplaceVoters(set(&[2, 3, 4])),
        Step::Done,
    ];
    assert_eq!(steps, expected);
}

#[test]
fn all_replicas_may_move_at_once() {
    let (mut members, mut leader) = (voters(&[1]), replica(1));
    let there = set(&[1, 2, 3, 4]);
    let steps = settle(&replicas(&[3, 2, 4]), &mut members, &mut leader, &there);
    assert_eq!(
        steps[3..],
        [
            Step::ReplaceVoters(set(&[1, 2, 3, 4])),
            Step::HandOver(replica(3)),
            Step::ReplaceVoters(set(&[2, 3, 4])),
            Step::Done,
        ]
    );
}

#[test]
fn one_that_is_not_there_is_waited_for_and_a_cancellation_takes_it_away() {
    let (mut members, mut leader) = (voters(&[1, 2, 3]), replica(1));
    let there = set(&[1, 2, 3]);
    let steps = settle(&replicas(&[1, 2, 4]), &mut members, &mut leader, &there);
    assert_eq!(steps, [Step::AddLearner(replica(4)), Step::Wait]);
    let steps = settle(&replicas(&[1, 2, 3]), &mut members, &mut leader, &there);
    assert_eq!(steps, [Step::RemoveLearner(replica(4)), Step::Done]);
}

#[test]
fn a_voter_that_is_away_is_replaced() {
    let (mut members, mut leader) = (voters(&[1, 2, 3]), replica(1));
    let there = set(&[1, 2, 4]);
    settle(&replicas(&[1, 2, 4]), &mut members, &mut leader, &there);
    assert_eq!(members, voters(&[1, 2, 4]));
}

#[test]
fn a_change_that_lost_its_leader_is_ended_before_the_next() {
    let mut members = Members {
        voters: set(&[1, 2, 3, 4]),
        learners: BTreeSet::new(),
        next: Some(set(&[2, 3, 4])),
    };
    let mut leader = replica(1);
    let there = set(&[1, 2, 3, 4]);
    let steps = settle(&replicas(&[1, 2, 3]), &mut members, &mut leader, &there);
    let expected = [
        Step::HandOver(replica(2)),
        Step::ReplaceVoters(set(&[2, 3, 4])),
        Step::AddLearner(replica(1)),
        Step::ReplaceVoters(set(&[1, 2, 3])),
        Step::Done,
    ];
    assert_eq!(steps, expected);
}

proptest! {
    #[test]
    fn steps_come_to_an_end_and_each_can_be_committed(
        targets in prop::collection::vec(prop::collection::btree_set(1_i32..7, 1..5), 1..5),
        first in prop::collection::btree_set(1_i32..7, 1..5),
        away in prop::collection::btree_set(1_i32..7, 0..2),
    ) {
        let ids = |set: &BTreeSet<i32>| set.iter().copied().collect::<Vec<_>>();
        let there: BTreeSet<ReplicaId> = (1..7).filter(|id| !away.contains(id)).map(replica).collect();
        let mut members = voters(&ids(&first));
        let Some(mut leader) = members.voters.intersection(&there).next().copied() else {
            return Ok(());
        };
        let most = |of: &BTreeSet<ReplicaId>| there.intersection(of).count() > of.len() / 2;
        for target in &targets {
            let wanted = replicas(&ids(target));
            for _ in 0..100 {
                let step = next_step(&wanted, &members, &there, leader);
                match &step {
                    Step::Wait | Step::Done => break,
                    Step::ReplaceVoters(voters) => {
                        prop_assert!(most(voters) && most(&members.voters), "{members:?}: {step:?}");
                        prop_assert!(voters.contains(&leader), "{members:?}: {step:?}");
                        prop_assert!(voters.iter().all(|it| members.contains(it)));
                    }
                    Step::HandOver(heir) => {
                        prop_assert!(members.voters.contains(heir) && there.contains(heir));
                    }
                    Step::AddLearner(_) | Step::RemoveLearner(_) => {}
                }
                carry_out(&mut members, &mut leader, step);
            }
            let last = next_step(&wanted, &members, &there, leader);
            prop_assert!(matches!(last, Step::Wait | Step::Done), "no end: {members:?}");
            let goal: BTreeSet<ReplicaId> = wanted.iter().copied().collect();
            if goal.is_subset(&there) && most(&members.voters) {
                prop_assert_eq!(last, Step::Done);
            }
        }
    }
}
