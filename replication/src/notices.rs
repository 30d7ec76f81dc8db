//! What partitions say to the tasks behind the requests. A task looks at partitions that said something, and at no
//! others: ten thousand idle ones cost it nothing.

use std::collections::{BTreeSet, HashSet};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tidelog_protocol::types::BrokerId;
use tokio::sync::Notify;

use crate::raft::types::GroupId;
use crate::reporter::LeaderReporter;

/// The lists that the partitions of a broker share.
#[derive(Debug, Default)]
pub struct Notices {
    /// Those that began to lead.
    pub leading: LeaderReporter,
    /// Those without a leader, the ones that are offline among them.
    pub leaderless: Noted,
    /// Those that have applied something since their last checkpoint.
    pub unsaved: Noted,
    /// Those whose replicas are being moved, or that began to lead meanwhile.
    pub moving: Noted,
    /// Those that have lost something that they had.
    pub damaged: Noted,
    /// Those that are assigned to this broker no more, and whose logs are still here.
    pub left: Noted,
    /// Said to partitions: the brokers that are not heard of. Their replicas are not in sync.
    pub fenced: ArcSwap<BTreeSet<BrokerId>>,
    /// Those that follow, have records of which they do not know that they are committed, and are waited for.
    pub behind: Noted,
    /// Those whose group is in memory.
    pub awake: Noted,
    /// Those whose leader's broker is gone while they sleep, and that this broker's replica has to look after.
    pub orphaned: Noted,
}

/// Partitions that are to be looked at, each once.
#[derive(Debug, Default)]
pub struct Noted {
    groups: Mutex<HashSet<GroupId>>,
    added: Notify,
}

impl Noted {
    /// Adds a partition.
    pub fn add(&self, group: GroupId) {
        self.groups.lock().insert(group);
        self.added.notify_one();
    }

    /// Takes all of them.
    pub fn take(&self) -> HashSet<GroupId> {
        std::mem::take(&mut *self.groups.lock())
    }

    /// Takes one out.
    pub fn remove(&self, group: GroupId) {
        self.groups.lock().remove(&group);
    }

    /// All of them, which stay.
    pub fn list(&self) -> HashSet<GroupId> {
        self.groups.lock().clone()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.groups.lock().is_empty()
    }

    /// Waits until there is one. For one task.
    pub async fn wait(&self) {
        while self.is_empty() {
            self.added.notified().await;
        }
    }
}
