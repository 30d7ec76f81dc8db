//! Which followers may be kept waiting.

use std::collections::BTreeSet;

use tidelog_protocol::types::BrokerId;

use super::Partition;

impl Partition {
    /// Whether a follower is not in sync and records are acknowledged without it, so that what it lacks may come as slowly as
    /// an operator wants. Only the leader knows: false elsewhere.
    pub(crate) fn does_without(&self, follower: BrokerId) -> bool {
        let state = self.state();
        let Some(group) = self.group().filter(|_| state.is_leader()) else {
            return false;
        };
        let voters = group.voters();
        if !voters.iter().any(|them| them.contains(&follower)) {
            return true;
        }
        let in_sync = self.in_sync.lock();
        // A new leader has not looked yet.
        let Some(followers) = in_sync.followers(state.leader_epoch) else {
            return false;
        };
        let me = self.shared.me().broker;
        let in_sync: BTreeSet<BrokerId> = followers.chain([me]).collect();
        let agree = |them: &BTreeSet<BrokerId>| {
            let agreeing = them.intersection(&in_sync).count();
            agreeing > them.len() / 2
        };
        let required = self.required(self.shared.voter_count());
        !in_sync.contains(&follower) && in_sync.len() >= required && voters.iter().all(agree)
    }
}
