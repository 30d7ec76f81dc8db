//! Who votes in the controller group: a pure plan, one step at a time.
//!
//! Every registered broker is a member, so that each has the metadata; 1, 3 or 5 of them vote. Racks are spread first,
//! then those that vote already stay. A step is proposed only if the voters that it leads to can commit without anybody
//! who is not heard of or has not caught up.

use std::collections::{BTreeMap, BTreeSet};

use crate::planted::{Bug, planted};
use crate::raft::members::Members;
use crate::raft::types::ReplicaId;

/// Most voters: more make each change slower and survive no more than two losses at once in practice.
const VOTERS_MAX: usize = 5;

/// A registered broker, as the controller's leader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its replica of the controller group.
    pub replica: ReplicaId,
    /// Its rack; brokers without one count as racks of their own.
    pub rack: Option<String>,
    /// Heard of and not leaving.
    pub live: bool,
    /// Has all but the newest entries.
    pub caught_up: bool,
}

/// A change of the members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A broker begins to listen.
    AddLearner(ReplicaId),
    /// Others vote from now on; those that voted go on listening.
    ReplaceVoters(BTreeSet<ReplicaId>),
    /// The leader is to give up the leadership to one of the voters, because it will not vote any more.
    HandOver(ReplicaId),
    /// One that is not registered any more is told nothing more.
    RemoveLearner(ReplicaId),
}

/// The next step towards the members that the brokers ask for; `None`: they are as they should be, or nothing can be
/// done now. `leader` is the replica that carries it out.
pub fn next_step(brokers: &[Candidate], members: &Members, leader: ReplicaId) -> Option<Step> {
    let known: BTreeMap<ReplicaId, &Candidate> =
        (brokers.iter().map(|broker| (broker.replica, broker))).collect();
    if let Some(next) = &members.next {
        // A leader was lost in the middle of a change: it is ended first.
        return Some(Step::ReplaceVoters(next.clone()));
    }
    if let Some(new) = known.keys().find(|replica| !members.contains(replica)) {
        return Some(Step::AddLearner(*new));
    }
    let wanted = wanted_voters(brokers, members);
    if wanted != members.voters {
        if wanted.contains(&leader) {
            return Some(Step::ReplaceVoters(wanted));
        }
        // A leader that takes its own vote away would leave the group without one for an election's time.
        let heir = wanted.iter().find(|voter| members.voters.contains(voter));
        return Some(match heir {
            Some(heir) => Step::HandOver(*heir),
            None => Step::ReplaceVoters(wanted.into_iter().chain([leader]).collect()),
        });
    }
    let gone = members
        .learners
        .iter()
        .find(|learner| !known.contains_key(learner));
    gone.map(|learner| Step::RemoveLearner(*learner))
}

/// The voters that there should be. The present ones, where the change could not be committed by brokers that are there.
fn wanted_voters(brokers: &[Candidate], members: &Members) -> BTreeSet<ReplicaId> {
    let able: Vec<&Candidate> = (brokers.iter())
        .filter(|broker| {
            (broker.live || planted(Bug::VotersAway))
                && (broker.caught_up || members.voters.contains(&broker.replica))
        })
        .collect();
    // By its id: one whose disk was lost is away until its new directory has caught up.
    let registered =
        |voter: &&ReplicaId| (brokers.iter()).any(|broker| broker.replica.broker == voter.broker);
    // A voter that is away keeps its place as long as nobody could take it.
    let away: Vec<&ReplicaId> = (members.voters.iter())
        .filter(registered)
        .filter(|voter| !able.iter().any(|broker| broker.replica == **voter))
        .collect();
    let count = odd(able.len().max(able.len() + away.len()).min(VOTERS_MAX));
    let mut wanted = spread(&able, &members.voters, count);
    for voter in away {
        if wanted.len() < count {
            wanted.insert(*voter);
        }
    }
    let able_of = |voters: &BTreeSet<ReplicaId>| {
        able.iter()
            .filter(|broker| voters.contains(&broker.replica))
            .count()
    };
    // Both majorities must agree to a change.
    let majority = |voters: &BTreeSet<ReplicaId>| able_of(voters) > voters.len() / 2;
    if majority(&wanted) && majority(&members.voters) {
        wanted
    } else {
        members.voters.clone()
    }
}

/// The largest odd number up to `count`, but at least 1: an even number of voters survives no more losses than one less.
fn odd(count: usize) -> usize {
    if count.is_multiple_of(2) && !planted(Bug::EvenVoters) {
        count.saturating_sub(1).max(1)
    } else {
        count
    }
}

/// `count` of the brokers: each from the rack that has fewest so far, among equals one that votes already.
fn spread(able: &[&Candidate], voters: &BTreeSet<ReplicaId>, count: usize) -> BTreeSet<ReplicaId> {
    let mut chosen: Vec<&Candidate> = Vec::new();
    let same_rack = |a: &Candidate, b: &Candidate| {
        a.rack.is_some() && a.rack == b.rack && !planted(Bug::VotersOfOneRack)
    };
    while chosen.len() < count {
        let next = (able.iter())
            .filter(|broker| chosen.iter().all(|other| other.replica != broker.replica))
            .min_by_key(|broker| {
                let in_rack = chosen
                    .iter()
                    .filter(|other| same_rack(other, broker))
                    .count();
                (in_rack, !voters.contains(&broker.replica), broker.replica)
            });
        let Some(next) = next else { break };
        chosen.push(next);
    }
    chosen.into_iter().map(|broker| broker.replica).collect()
}

#[cfg(test)]
mod tests {
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

    fn broker(id: i32, rack: Option<&str>) -> Candidate {
        Candidate {
            replica: replica(id),
            rack: rack.map(str::to_owned),
            live: true,
            caught_up: true,
        }
    }

    fn set(ids: &[i32]) -> BTreeSet<ReplicaId> {
        ids.iter().copied().map(replica).collect()
    }

    /// What the group does with a step.
    fn carry_out(members: &mut Members, leader: &mut ReplicaId, step: Step) {
        match step {
            Step::AddLearner(new) => {
                members.learners.insert(new);
            }
            Step::ReplaceVoters(voters) => {
                let old = std::mem::replace(&mut members.voters, voters);
                members.learners.extend(old);
                members
                    .learners
                    .retain(|learner| !members.voters.contains(learner));
            }
            Step::HandOver(to) => *leader = to,
            Step::RemoveLearner(gone) => {
                members.learners.remove(&gone);
            }
        }
    }

    /// Carries out steps until there are none; returns how many there were.
    fn settle(brokers: &[Candidate], members: &mut Members, leader: &mut ReplicaId) -> usize {
        for count in 0..100 {
            match next_step(brokers, members, *leader) {
                Some(step) => carry_out(members, leader, step),
                None => return count,
            }
        }
        panic!("no end: {members:?}");
    }

    fn alone() -> (Members, ReplicaId) {
        let voters = set(&[1]);
        (
            Members {
                voters,
                ..Members::default()
            },
            replica(1),
        )
    }

    #[test]
    fn the_group_grows_to_3_and_5_voters_as_brokers_join() {
        let (mut members, mut leader) = alone();
        let mut brokers = vec![broker(1, None)];
        for (id, voters) in [(2, 1), (3, 3), (4, 3), (5, 5), (6, 5), (7, 5)] {
            brokers.push(broker(id, None));
            settle(&brokers, &mut members, &mut leader);
            assert_eq!(members.voters.len(), voters, "{id} brokers");
            assert_eq!(members.count(), brokers.len());
            assert!(members.voters.contains(&replica(1)), "those that vote stay");
        }
    }

    #[test]
    fn voters_stand_in_different_racks() {
        let (mut members, mut leader) = alone();
        let racks = ["a", "a", "a", "b", "c"];
        let mut brokers = Vec::new();
        for (id, rack) in (1..).zip(racks) {
            brokers.push(broker(id, Some(rack)));
            settle(&brokers, &mut members, &mut leader);
        }
        // Five brokers, five voters; with three, one of each rack.
        assert_eq!(members.voters.len(), 5);
        brokers.truncate(4);
        settle(&brokers, &mut members, &mut leader);
        let in_b = members.voters.contains(&replica(4));
        assert!(in_b && members.voters.len() == 3, "{members:?}");
    }

    #[test]
    fn who_has_not_caught_up_does_not_vote_yet() {
        let (mut members, mut leader) = alone();
        let mut brokers = vec![broker(1, None), broker(2, None), broker(3, None)];
        brokers[2].caught_up = false;
        settle(&brokers, &mut members, &mut leader);
        assert_eq!(members.voters, set(&[1]));
        brokers[2].caught_up = true;
        settle(&brokers, &mut members, &mut leader);
        assert_eq!(members.voters, set(&[1, 2, 3]));
    }

    #[test]
    fn a_voter_that_is_away_is_replaced_only_by_somebody() {
        let voters = set(&[1, 2, 3]);
        let mut members = Members {
            voters: voters.clone(),
            ..Members::default()
        };
        let mut leader = replica(1);
        let mut brokers = vec![broker(1, None), broker(2, None), broker(3, None)];
        brokers[1].live = false;
        assert_eq!(
            settle(&brokers, &mut members, &mut leader),
            0,
            "it may come back"
        );
        brokers.push(broker(4, None));
        settle(&brokers, &mut members, &mut leader);
        assert_eq!(members.voters, set(&[1, 3, 4]));
        assert_eq!(members.learners, set(&[2]));
    }

    #[test]
    fn a_broker_that_was_removed_is_forgotten() {
        let voters = set(&[1, 2, 3]);
        let mut members = Members {
            voters,
            ..Members::default()
        };
        let mut leader = replica(1);
        let brokers = [broker(2, None), broker(3, None)];
        settle(&brokers, &mut members, &mut leader);
        assert_eq!((members.voters.len(), members.learners.len()), (1, 1));
        assert!(leader != replica(1) && members.voters.contains(&leader));
    }

    #[test]
    fn a_change_that_lost_its_leader_is_ended() {
        let members = Members {
            voters: set(&[1, 2, 3]),
            learners: BTreeSet::new(),
            next: Some(set(&[2, 3])),
        };
        let brokers = [broker(2, None), broker(3, None)];
        assert_eq!(
            next_step(&brokers, &members, replica(2)),
            Some(Step::ReplaceVoters(set(&[2, 3])))
        );
    }

    #[test]
    fn nothing_is_proposed_that_those_who_are_there_cannot_commit() {
        let mut members = Members {
            voters: set(&[1, 2, 3]),
            learners: set(&[4, 5]),
            next: None,
        };
        let mut brokers: Vec<Candidate> = (1..=5).map(|id| broker(id, None)).collect();
        brokers[1].live = false;
        brokers[2].live = false;
        let mut leader = replica(1);
        assert_eq!(settle(&brokers, &mut members, &mut leader), 0);
    }

    proptest! {
        #[test]
        fn steps_come_to_an_end_and_each_can_be_committed(
            raw in prop::collection::vec((0_u8..3, any::<bool>(), any::<bool>()), 1..9),
            first in 0_usize..4,
        ) {
            let brokers: Vec<Candidate> = (1..).zip(&raw).map(|(id, (rack, live, caught_up))| Candidate {
                replica: replica(id),
                rack: (*rack > 0).then(|| rack.to_string()),
                live: *live,
                caught_up: *caught_up,
            }).collect();
            let voters: BTreeSet<ReplicaId> = (brokers.iter())
                .take(2 * (first / 2) + 1).map(|broker| broker.replica).collect();
            let able = |voters: &BTreeSet<ReplicaId>| {
                let there = brokers.iter().filter(|it| it.live && voters.contains(&it.replica));
                there.count() > voters.len() / 2
            };
            let mut members = Members { voters, ..Members::default() };
            let mut leader = *members.voters.first().expect("one at least");
            for _ in 0..100 {
                let Some(step) = next_step(&brokers, &members, leader) else { break };
                if let Step::ReplaceVoters(wanted) = &step {
                    prop_assert!(able(wanted) && able(&members.voters), "{step:?} of {members:?}");
                    prop_assert!(wanted.len() <= VOTERS_MAX + 1);
                }
                carry_out(&mut members, &mut leader, step);
            }
            prop_assert_eq!(next_step(&brokers, &members, leader), None, "no end: {:?}", members);
        }
    }
}
