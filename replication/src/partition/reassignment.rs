//! How a group comes to consist of other replicas: a pure plan, one step at a time.
//!
//! New replicas listen until they have everything, then they vote and those that go do not, in one change; the leader
//! hands over before it goes. Whatever was begun before, by a leader that is gone or for replicas that are not wanted any
//! more, the next step follows from the members that there are. A change is proposed only if those that have everything
//! can commit it.

use std::collections::BTreeSet;

use crate::planted::{Bug, planted};
use crate::raft::members::Members;
use crate::raft::types::ReplicaId;

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A replica begins to listen.
    AddLearner(ReplicaId),
    /// Nothing, until replicas have caught up.
    Wait,
    /// Others vote from now on; those that do not are told nothing more.
    ReplaceVoters(BTreeSet<ReplicaId>),
    /// The leader gives up the leadership to one that stays.
    HandOver(ReplicaId),
    /// A listener that is not wanted any more is told nothing more.
    RemoveLearner(ReplicaId),
    /// The members are those that are wanted.
    Done,
}

/// The next step towards the wanted replicas, of which the first are rather leaders than the last. `me` leads the group,
/// `caught_up` have all but a little.
pub fn next_step(
    wanted: &[ReplicaId],
    members: &Members,
    caught_up: &BTreeSet<ReplicaId>,
    me: ReplicaId,
) -> Step {
    let goal: BTreeSet<ReplicaId> = wanted.iter().copied().collect();
    let heir = |of: &BTreeSet<ReplicaId>| {
        let fit = |replica: &&ReplicaId| {
            of.contains(replica) && members.voters.contains(replica) && caught_up.contains(replica)
        };
        let first = wanted.iter().find(fit);
        first.or_else(|| of.iter().find(fit)).copied()
    };
    if let Some(next) = &members.next {
        // Its leader was lost in the middle of a change, which is ended first.
        return match heir(next).filter(|_| !next.contains(&me)) {
            Some(heir) => Step::HandOver(heir),
            None => Step::ReplaceVoters(next.clone()),
        };
    }
    if let Some(new) = wanted.iter().find(|replica| !members.contains(replica)) {
        return Step::AddLearner(*new);
    }
    if goal == members.voters {
        let unwanted = members.learners.iter().find(|it| !goal.contains(it));
        return unwanted.map_or(Step::Done, |learner| Step::RemoveLearner(*learner));
    }
    let mut new = goal.difference(&members.voters);
    let most = |of: &BTreeSet<ReplicaId>| caught_up.intersection(of).count() > of.len() / 2;
    let ready = planted(Bug::VotersBehind) || new.all(|replica| caught_up.contains(replica));
    if !ready || !most(&goal) || !most(&members.voters) {
        return Step::Wait;
    }
    if goal.contains(&me) {
        return Step::ReplaceVoters(goal);
    }
    match heir(&goal) {
        Some(heir) => Step::HandOver(heir),
        // None of those that stay votes yet, or can lead; the leader goes once one of the new ones has taken over.
        None => Step::ReplaceVoters(goal.into_iter().chain([me]).collect()),
    }
}

#[cfg(test)]
mod tests;
