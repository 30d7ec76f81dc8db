//! Starts the groups of a broker's partitions: when they open, and whenever one that slept is wanted again.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use openraft::{Config, ConfigError};
use tidelog_storage::journal::Durability;
use tokio::sync::Semaphore;

use super::group::{GroupContext, PartitionGroup};
use super::shared::PartitionShared;
use crate::limits::GROUPS_WAKING_MAX;
use crate::raft::codec;
use crate::raft::config::{self, OnStart};
use crate::raft::state_store::{self, GroupStateStore};
use crate::raft::types::{ReplicaId, epoch_of};

/// What groups of one durability are started with.
#[derive(Debug)]
struct Configs {
    ordinary: Arc<Config>,
    /// A leader that slept goes on leading.
    resuming: Arc<Config>,
}

impl Configs {
    fn of(durability: Durability) -> Result<Configs, ConfigError> {
        Ok(Configs {
            ordinary: config::partition(durability, OnStart::Follow)?,
            resuming: config::partition(durability, OnStart::Resume)?,
        })
    }
}

/// See the module.
#[derive(Debug)]
pub struct GroupStarter {
    context: GroupContext,
    sync: Configs,
    os: Configs,
    /// Sleepers that may be woken at the same time.
    wakes: Semaphore,
    asleep: AtomicUsize,
}

impl GroupStarter {
    /// A starter for the groups of a broker.
    pub fn new(context: GroupContext) -> Result<GroupStarter, ConfigError> {
        Ok(GroupStarter {
            context,
            sync: Configs::of(Durability::Sync)?,
            os: Configs::of(Durability::Os)?,
            wakes: Semaphore::new(GROUPS_WAKING_MAX),
            asleep: AtomicUsize::new(0),
        })
    }

    /// What all groups are started with.
    pub fn context(&self) -> &GroupContext {
        &self.context
    }

    /// Whoever wakes a group takes one of these before.
    pub fn wakes(&self) -> &Semaphore {
        &self.wakes
    }

    /// Groups that sleep.
    pub fn asleep(&self) -> usize {
        self.asleep.load(Ordering::Relaxed)
    }

    pub(super) fn fell_asleep(&self) {
        self.asleep.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn woke(&self) {
        self.asleep.fetch_sub(1, Ordering::Relaxed);
    }

    fn configs(&self, shared: &PartitionShared) -> &Configs {
        match shared.log().config().durability {
            Durability::Sync => &self.sync,
            Durability::Os => &self.os,
        }
    }

    /// Starts the group of a partition whose log is open.
    pub async fn start(
        &self,
        shared: &Arc<PartitionShared>,
        members: &[ReplicaId],
    ) -> Result<PartitionGroup, io::Error> {
        let config = self.configs(shared).ordinary.clone();
        PartitionGroup::start(&self.context, shared, config, members).await
    }

    /// Starts a group that slept. A leader goes on leading in its term: nobody else has been granted it, nothing of its
    /// log or its vote has changed, and what it does first tells it whether the others have gone on without it.
    pub(super) async fn wake(
        &self,
        shared: &Arc<PartitionShared>,
    ) -> Result<PartitionGroup, io::Error> {
        let configs = self.configs(shared);
        let leads_still = self.is_mine(shared)? && shared.leads_in_sleep();
        if leads_still {
            PartitionGroup::read_producers(shared.log()).await?;
            shared.lead_on();
        } else {
            shared.end_sleeping_lead();
        }
        let config = if leads_still {
            &configs.resuming
        } else {
            &configs.ordinary
        };
        PartitionGroup::wake(&self.context, shared, config.clone(), leads_still).await
    }

    /// Whether the term that this replica has seen last is one in which it leads.
    fn is_mine(&self, shared: &PartitionShared) -> Result<bool, io::Error> {
        let vote = self.state_of(shared).read_vote()?;
        Ok(vote.is_some_and(|vote| {
            vote.leader_id.voted_for == self.context.me
                && epoch_of(vote.leader_id.term) == Some(shared.state().leader_epoch)
        }))
    }

    /// Restores what a replica has, if its group has nothing to do but to follow, and may begin asleep.
    pub(super) fn begins_asleep(&self, shared: &PartitionShared) -> Result<bool, io::Error> {
        let (state, last) = (self.state_of(shared), shared.log().bounds().last);
        if state.read_vote()?.is_none() || state.read_installing()?.is_some() {
            return Ok(false);
        }
        let Some(checkpoint) = state.read_checkpoint()? else {
            return Ok(false);
        };
        let is_whole = codec::entry_id(&checkpoint.applied).is_ok_and(|applied| applied == last);
        let members = checkpoint.membership.membership();
        let settled =
            members.get_joint_config().len() == 1 && members.learner_ids().next().is_none();
        let votes = members.voter_ids().any(|voter| voter == self.context.me);
        let begins = is_whole && shared.is_whole() && settled && votes;
        if begins {
            shared.restore(&checkpoint, None);
        }
        Ok(begins)
    }

    fn state_of(&self, shared: &PartitionShared) -> GroupStateStore {
        GroupStateStore::new(self.context.kv.clone(), shared.log().id())
    }

    /// Saves how far a group has come, so that it need not apply anything again.
    pub(super) async fn save(&self, shared: &PartitionShared) -> Result<(), io::Error> {
        let Some(checkpoint) = shared.due_checkpoint() else {
            return Ok(());
        };
        let write = self.state_of(shared).checkpoint_write(&checkpoint);
        let written = state_store::write(&*self.context.kv, vec![write], None).await;
        written.map_err(|error| {
            shared.checkpoint_lost();
            io::Error::other(error)
        })
    }
}
