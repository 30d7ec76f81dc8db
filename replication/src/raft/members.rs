//! Who is in a consensus group, as its metrics show it.

use std::collections::BTreeSet;

use openraft::RaftMetrics;

use super::types::{GroupTypes, ReplicaId};

/// The members of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    /// Those that vote.
    pub voters: BTreeSet<ReplicaId>,
    /// Those that only listen.
    pub learners: BTreeSet<ReplicaId>,
    /// Those that will vote once a change that was begun is ended; meanwhile the old majority counts as well.
    pub next: Option<BTreeSet<ReplicaId>>,
}

impl Members {
    /// As far as this replica knows.
    pub fn of(metrics: &RaftMetrics<GroupTypes>) -> Members {
        let membership = metrics.membership_config.membership();
        let configs = membership.get_joint_config();
        Members {
            voters: membership.voter_ids().collect(),
            learners: membership.learner_ids().collect(),
            next: configs.get(1..).and_then(<[_]>::last).cloned(),
        }
    }

    /// The same, if all of it is committed: only then may the next change begin.
    pub fn committed(metrics: &RaftMetrics<GroupTypes>) -> Option<Members> {
        let committed = metrics.membership_config == metrics.committed_membership_config;
        committed.then(|| Members::of(metrics))
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.voters.len() + self.learners.len()
    }

    /// Whether it is one of them.
    pub fn contains(&self, replica: &ReplicaId) -> bool {
        self.voters.contains(replica) || self.learners.contains(replica)
    }
}

/// Members that lack at most so many entries, as far as the leader knows; the leader itself among them.
pub fn caught_up(metrics: &RaftMetrics<GroupTypes>, lag_max: u64) -> BTreeSet<ReplicaId> {
    near(metrics, lag_max).chain([metrics.id]).collect()
}

/// Those that replication shows to lack at most so many entries; none if this replica does not lead.
pub fn near(
    metrics: &RaftMetrics<GroupTypes>,
    lag_max: u64,
) -> impl Iterator<Item = ReplicaId> + '_ {
    let last = metrics.last_log_index.unwrap_or(0);
    let all = metrics.replication.iter().flatten();
    all.filter(move |(_, matched)| matched.is_some_and(|id| id.index + lag_max >= last))
        .map(|(replica, _)| *replica)
}
