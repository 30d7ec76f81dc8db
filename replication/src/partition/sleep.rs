//! Groups that sleep: what an idle partition keeps in memory is its record, without its consensus group.
//!
//! A group may sleep when there is nothing that it could do: all of its log is committed and applied, nothing waits, and
//! where this replica leads, all voters have all of it and were told. Nothing of it changes then until it is woken, by a
//! request of this broker or a message of another replica, so that a sleeper is to the others what a process is that
//! was stopped for a while: slow for once, never wrong. Its role, its leader and its offsets stay as they were, for all
//! that asks no group: metadata, offsets, fetches.
//!
//! - A leader that wakes **goes on in its term**. The term is its own: its vote for itself is on disk, and a vote for
//!   another one would have been asked of it, and have woken it. It does not know whether the others have gone on without it
//!   meanwhile; like any idle leader it has no lease, so that whatever it does first is one round of messages that tells it.
//! - A follower that wakes follows whoever speaks to it.
//! - Nothing is asked of a sleeper's word alone that an idle leader could not say either. Who must know whether this
//!   replica still leads wakes it and asks ([`Partition::confirm_leadership`]).
//!
//! Invariant: there is one group on one log. `life` is locked while one is started or ended; a group that somebody holds
//! is not put to sleep.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tidelog_protocol::types::{BrokerId, LeaderEpoch};
use tidelog_storage::log::EntryId;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::group::PartitionGroup;
use super::in_sync::InSync;
use super::shared::Resting;
use super::starter::GroupStarter;
use super::{CLOSE_ENTRIES, Life, Partition};
use crate::errors::AppendError;
use crate::raft::codec;
use crate::raft::types::ReplicaId;

/// Longest wait for a sleeper to wake, behind all others that wake.
const WAKE_PATIENCE: Duration = Duration::from_secs(5);

/// Longest wait for what comes before a sleep: those who would end the group wait meanwhile.
const SLEEP_PATIENCE: Duration = Duration::from_secs(1);

/// Longest wait for a replica that has woken to lead.
const LEAD_PATIENCE: Duration = Duration::from_secs(2);

/// Pause between two elections that it asks for meanwhile.
const ELECTION_PAUSE: Duration = Duration::from_millis(200);

/// Longest wait for a leader that has woken to hear from the others where they stand.
const STANDING_PATIENCE: Duration = Duration::from_secs(1);

/// Why a sleeper did not wake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WakeError {
    /// It has no group, and gets none: its log failed, it is deleted, or the broker stops.
    Ended,
    /// Too many others wake.
    Busy,
}

impl From<WakeError> for AppendError {
    fn from(error: WakeError) -> Self {
        match error {
            WakeError::Ended => AppendError::ShuttingDown,
            WakeError::Busy => AppendError::Overloaded,
        }
    }
}

/// What decides whether a group may sleep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    /// The group's task runs.
    pub running: bool,
    /// A leader is known.
    pub led: bool,
    /// The replica is one of those that vote.
    pub votes: bool,
    /// The members are agreed on, none of them is to become a voter or to go.
    pub settled: bool,
    /// The last entry of the log.
    pub last: EntryId,
    /// The last one that was applied.
    pub applied: EntryId,
    /// It has all that it ever had.
    pub whole: bool,
    /// Batches or duplicates wait for their commit.
    pub awaited: bool,
    /// Where this replica leads: voters that may lack an entry.
    pub behind: usize,
}

/// Whether there is nothing left to do.
pub(crate) fn may_sleep(standing: &Standing) -> bool {
    let idle = !standing.awaited && standing.applied == standing.last;
    // The log of a group that has never been led is empty.
    let begun = standing.led && standing.last.index.0 > 0;
    let fit = standing.running && standing.whole;
    fit && begun && standing.votes && standing.settled && idle && standing.behind == 0
}

/// What a partition that can sleep needs to wake.
#[derive(Debug)]
pub(super) struct Sleeper {
    me: Weak<Partition>,
    starter: Weak<GroupStarter>,
}

impl Partition {
    /// Lets the partition sleep; it is woken by this starter.
    pub(crate) fn let_sleep(self: &Arc<Self>, starter: &Arc<GroupStarter>) {
        let sleeper = Sleeper {
            me: Arc::downgrade(self),
            starter: Arc::downgrade(starter),
        };
        // There is one for each broker.
        let _first = self.sleeper.set(sleeper);
    }

    fn starter(&self) -> Option<Arc<GroupStarter>> {
        self.sleeper.get()?.starter.upgrade()
    }

    /// Whether its group sleeps.
    pub fn is_asleep(&self) -> bool {
        self.asleep.load(Ordering::Acquire)
    }

    /// Puts the group to sleep if there is nothing left to do; says whether it sleeps.
    pub(crate) async fn fall_asleep(self: Arc<Self>) -> bool {
        let Some(starter) = self.starter() else {
            return false;
        };
        let (Ok(life), Ok(_retention)) = (self.life.try_lock(), self.retention.try_lock()) else {
            return false;
        };
        let group = self.group().filter(|_| *life == Life::Hosted);
        let Some(group) = group.filter(|group| may_sleep(&self.standing(group))) else {
            return false;
        };
        // The others hear what is committed, and this replica whether it still leads.
        let leads = self.shared.leads() && self.shared.voter_count() > 1;
        if leads && !tell_all(&group).await {
            return false;
        }
        drop(group);
        let applied = self.shared.applied_last();
        match timeout(SLEEP_PATIENCE, starter.save(&self.shared)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return false,
            Err(_) => {
                self.shared.checkpoint_lost();
                return false;
            }
        }
        // From here on nobody finds it; who holds it has found it before.
        let Some(group) = self.swap_group(None) else {
            return false;
        };
        let held = Arc::strong_count(&group) > 1;
        let saved = applied == self.shared.applied_last();
        if held || !saved || !may_sleep(&self.standing(&group)) {
            self.swap_group(Some(group));
            return false;
        }
        let before = (self.log().bounds().last, self.shared.applied().0);
        group.shutdown().await;
        drop(group);
        self.shared.rest();
        self.asleep.store(true, Ordering::Release);
        starter.fell_asleep();
        if before != (self.log().bounds().last, self.shared.applied().0) {
            // Its own task did something after all.
            tracing::debug!(partition = %self.name(), "wakes at once");
            return self.start_again(&starter).await.is_none();
        }
        true
    }

    /// Starts without the group, which has nothing to do but to follow a leader elsewhere; false if it has.
    pub(crate) async fn start_asleep(&self, leader: Resting) -> bool {
        let Some(starter) = self.starter() else {
            return false;
        };
        let life = self.life.lock().await;
        let may = *life == Life::Hosted && self.group().is_none() && !self.is_asleep();
        if !may || !matches!(starter.begins_asleep(&self.shared), Ok(true)) {
            return false;
        }
        self.shared.follow_in_sleep(leader);
        self.shared.rest();
        self.asleep.store(true, Ordering::Release);
        starter.fell_asleep();
        true
    }

    fn standing(&self, group: &PartitionGroup) -> Standing {
        let state = self.shared.state();
        let last = self.log().bounds().last;
        let applied = self.shared.applied().0;
        let applied = applied.and_then(|id| codec::entry_id(&id).ok());
        let me = self.shared.me();
        let members = group.settled_members();
        Standing {
            running: group.is_running(),
            led: state.leader.is_some() && self.shared.offline().is_none(),
            votes: (members.as_ref()).is_some_and(|members| members.voters.contains(&me)),
            settled: (members.as_ref())
                .is_some_and(|members| members.learners.is_empty() && members.next.is_none()),
            last,
            applied: applied.unwrap_or_default(),
            whole: self.shared.is_whole(),
            awaited: self.shared.is_awaited(self.limits.in_flight_bytes_max),
            behind: match (state.is_leader(), &members) {
                (true, Some(members)) => {
                    let level = group.close(0);
                    let lacks = |voter: &&ReplicaId| **voter != me && !level.contains(voter);
                    members.voters.iter().filter(lacks).count()
                }
                _ => 0,
            },
        }
    }

    /// The group, woken if it slept. It leads, if this replica led; a follower hears from its leader when that speaks.
    pub(crate) async fn wake(&self) -> Result<Arc<PartitionGroup>, WakeError> {
        if let Some(group) = self.group() {
            return Ok(group);
        }
        let me = self.sleeper.get().and_then(|sleeper| sleeper.me.upgrade());
        let me = me.ok_or(WakeError::Ended)?;
        // A caller that goes away must not leave a group behind that nobody knows.
        let woken = tokio::spawn(async move { me.wake_or_wait().await });
        woken.await.unwrap_or(Err(WakeError::Ended))
    }

    async fn wake_or_wait(&self) -> Result<Arc<PartitionGroup>, WakeError> {
        let deadline = Instant::now() + WAKE_PATIENCE;
        let life = timeout_at(deadline, self.life.lock()).await;
        let life = life.map_err(|_| WakeError::Busy)?;
        if let Some(group) = self.group() {
            return Ok(group);
        }
        let starter = self.starter().ok_or(WakeError::Ended)?;
        if *life == Life::Ended || !self.is_asleep() {
            return Err(WakeError::Ended);
        }
        let permit = timeout_at(deadline, starter.wakes().acquire()).await;
        let _permit = permit.map_err(|_| WakeError::Busy)?;
        self.start_again(&starter).await.ok_or(WakeError::Ended)
    }

    /// With `life` locked.
    async fn start_again(&self, starter: &GroupStarter) -> Option<Arc<PartitionGroup>> {
        // What was seen before says nothing of now.
        *self.in_sync.lock() = InSync::default();
        let started = starter.wake(&self.shared).await;
        self.forget_sleep();
        match started {
            Ok(group) => {
                let group = Arc::new(group);
                self.swap_group(Some(group.clone()));
                Some(group)
            }
            Err(error) => {
                self.shared.not_started(&error);
                None
            }
        }
    }

    /// It sleeps no more: it wakes, or is ended. With `life` locked.
    pub(crate) fn forget_sleep(&self) {
        if self.asleep.swap(false, Ordering::AcqRel)
            && let Some(starter) = self.starter()
        {
            starter.woke();
        }
    }

    /// The group of a replica that leads, or that is to lead where no other does; woken if it slept, and then only once it
    /// leads and knows of so many replicas, itself among them, that they are close behind, for which it waits a moment.
    pub(crate) async fn leading_group(
        &self,
        close: usize,
    ) -> Result<Arc<PartitionGroup>, WakeError> {
        if let Some(group) = self.group() {
            return Ok(group);
        }
        let group = self.wake().await?;
        self.lead_again(&group).await;
        let close = close.min(self.shared.voter_count());
        if close > 1 && self.shared.leads() {
            group
                .wait_close(CLOSE_ENTRIES, close, STANDING_PATIENCE)
                .await;
        }
        Ok(group)
    }

    /// Waits until a replica that has woken leads, or follows another one, and asks for elections until then.
    async fn lead_again(&self, group: &PartitionGroup) {
        let deadline = Instant::now() + LEAD_PATIENCE;
        let mut asked: Option<Instant> = None;
        while self.shared.state().leader.is_none() && Instant::now() < deadline {
            if asked.is_none_or(|at| at.elapsed() > ELECTION_PAUSE) {
                group.elect().await;
                asked = Some(Instant::now());
            }
            sleep(Duration::from_millis(1)).await;
        }
    }

    /// A sleeping replica leads in name, as the successor of a leader whose broker is gone; false if it does not sleep.
    pub(crate) fn be_named(&self, gone: Option<BrokerId>, epoch: LeaderEpoch) -> bool {
        let Ok(_life) = self.life.try_lock() else {
            return false;
        };
        self.is_asleep() && self.shared.lead_in_name(gone, epoch)
    }

    /// Whether it leads in name only.
    pub fn leads_in_name(&self) -> bool {
        self.shared.leads_in_name()
    }

    /// What a sleeping replica may take over from the metadata: who leads, where it has not heard of it.
    pub(crate) fn hear_in_sleep(&self, heard: Resting) {
        // Whoever holds the lock starts or ends the group, which knows better.
        if let Ok(_life) = self.life.try_lock()
            && self.is_asleep()
        {
            self.shared.hear_in_sleep(heard);
        }
    }
}

/// Tells all voters what is committed; false if one does not answer, or if another replica leads.
async fn tell_all(group: &PartitionGroup) -> bool {
    let since = std::time::Instant::now();
    matches!(timeout(SLEEP_PATIENCE, group.confirm()).await, Ok(true))
        && group.wait_heard_by_all(since, SLEEP_PATIENCE).await
}

#[cfg(test)]
mod tests;
