//! What a partition's handle, its log adapter and its state machine share.
//!
//! Invariant: the high watermark never falls, and never passes the log end.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};

use arc_swap::ArcSwapOption;
use parking_lot::{Mutex, MutexGuard};
use tidelog_protocol::types::{BrokerId, LeaderEpoch, Offset, TopicPartition};
use tidelog_storage::log::{EntryId, LogError, LogPosition, PartitionLog};
use tokio::sync::{Semaphore, oneshot};

use super::append::Appended;
use super::order::{AppendOrder, SubmissionNumber};
use super::state::{PartitionState, Role};
use super::submission::{AppendResult, InFlight};
use super::waiters::Waiters;
use crate::errors::{AppendError, NotLeader};
use crate::notices::Notices;
use crate::raft::codec::Checkpoint;
use crate::raft::log_store::GroupEvents;
use crate::raft::types::{GroupId, LogId, ReplicaId, StoredMembership, Vote, epoch_of};
use crate::throttle::ThrottledReplicas;

/// Sweeps between two elections that are asked for, at most.
const ELECTION_SWEEPS_MAX: u32 = 16;

/// See the module.
#[derive(Debug)]
pub struct PartitionShared {
    group: GroupId,
    name: TopicPartition,
    me: ReplicaId,
    log: Arc<PartitionLog>,
    had: EntryId,
    suspect: AtomicBool,
    leadership: Mutex<Leadership>,
    high_watermark: AtomicI64,
    order: Mutex<AppendOrder>,
    duplicates: Mutex<Vec<Duplicate>>,
    duplicate_count: AtomicUsize,
    waiters: Waiters,
    in_flight: Semaphore,
    broker_in_flight: Arc<Semaphore>,
    applied: Mutex<Applied>,
    snapshot_target: Mutex<Option<LogPosition>>,
    damaged: AtomicBool,
    throttled: ArcSwapOption<ThrottledReplicas>,
    notices: Arc<Notices>,
}

/// Who leads, as far as this replica knows.
#[derive(Clone, Debug)]
struct Leadership {
    role: Role,
    leader: Option<BrokerId>,
    epoch: LeaderEpoch,
    epoch_start: Offset,
    offline: Option<Arc<str>>,
    /// Sweeps that found no leader, in a row.
    leaderless_sweeps: u32,
    /// Leads only in that the metadata names it: it has the last word in nothing, and elects before it says any.
    named: bool,
}

/// What a sleeping replica hears of its partition's leader from the metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resting {
    /// The leader that is named.
    pub leader: BrokerId,
    /// Its epoch.
    pub epoch: LeaderEpoch,
}

/// What the state machine has applied.
#[derive(Debug, Default)]
struct Applied {
    last: Option<LogId>,
    /// Memberships up to `last`, in order; the older ones are needed for snapshots behind it.
    memberships: VecDeque<StoredMembership>,
    checkpointed: Option<LogId>,
    /// Whether the partition is on the list of those that have something to save.
    noted: bool,
}

/// A duplicate whose original is not committed.
#[derive(Debug)]
struct Duplicate {
    base_offset: Offset,
    next_offset: Offset,
    sender: oneshot::Sender<AppendResult>,
}

/// Byte budgets of a partition.
#[derive(Clone, Debug)]
pub struct Budgets {
    /// Bytes that may be in flight in this partition.
    pub partition: usize,
    /// What is left of the bytes that may be in flight in all partitions.
    pub broker: Arc<Semaphore>,
}

impl PartitionShared {
    /// State of a replica that starts, from its last checkpoint. `had` is the last entry that it had when it left the
    /// partition, if it did.
    pub fn new(
        group: GroupId,
        name: TopicPartition,
        me: ReplicaId,
        log: Arc<PartitionLog>,
        had: EntryId,
        budgets: Budgets,
        notices: Arc<Notices>,
    ) -> PartitionShared {
        let leadership = Leadership {
            role: Role::Follower,
            leader: None,
            epoch: LeaderEpoch(0),
            epoch_start: log.bounds().log_end,
            offline: None,
            leaderless_sweeps: 0,
            named: false,
        };
        PartitionShared {
            group,
            name,
            me,
            leadership: Mutex::new(leadership),
            high_watermark: AtomicI64::new(log.bounds().log_start.0),
            log,
            had,
            suspect: AtomicBool::new(false),
            order: Mutex::default(),
            duplicates: Mutex::default(),
            duplicate_count: AtomicUsize::new(0),
            waiters: Waiters::default(),
            in_flight: Semaphore::new(budgets.partition.min(Semaphore::MAX_PERMITS)),
            broker_in_flight: budgets.broker,
            applied: Mutex::default(),
            snapshot_target: Mutex::default(),
            damaged: AtomicBool::new(false),
            throttled: ArcSwapOption::empty(),
            notices,
        }
    }

    /// The group.
    pub fn group(&self) -> GroupId {
        self.group
    }

    /// Topic and index.
    pub fn name(&self) -> &TopicPartition {
        &self.name
    }

    /// The log.
    pub fn log(&self) -> &Arc<PartitionLog> {
        &self.log
    }

    /// The last entry that this replica had when it left the partition before, while it does not have it again.
    pub fn lacks(&self) -> Option<EntryId> {
        Some(self.had).filter(|had| self.log.bounds().last < *had)
    }

    /// A power loss may have taken entries from this replica; it asks its leader, if it has one, what it lacks.
    pub fn suspect(&self) {
        self.suspect.store(true, Ordering::Release);
        self.notices.behind.add(self.group);
    }

    /// It has all that is committed after all, or is to count as if it had.
    pub fn trust(&self) {
        self.suspect.store(false, Ordering::Release);
    }

    /// Whether a power loss may have taken entries from this replica.
    pub fn is_suspect(&self) -> bool {
        self.suspect.load(Ordering::Acquire)
    }

    /// Whether this replica has all that it ever had, and was told who the members are.
    pub fn is_whole(&self) -> bool {
        self.log.bounds().last.index.0 > 0 && self.lacks().is_none() && !self.is_suspect()
    }

    /// Those who wait for a move.
    pub fn waiters(&self) -> &Waiters {
        &self.waiters
    }

    /// Bytes that may still be submitted to this partition.
    pub fn in_flight(&self) -> &Semaphore {
        &self.in_flight
    }

    /// Bytes that may still be submitted to all partitions.
    pub fn broker_in_flight(&self) -> &Semaphore {
        &self.broker_in_flight
    }

    /// Gives bytes back.
    pub fn release(&self, permits: InFlight) {
        self.in_flight.add_permits(permits.partition as usize);
        self.broker_in_flight.add_permits(permits.broker as usize);
    }

    /// Role, epoch and offsets.
    pub fn state(&self) -> PartitionState {
        let leadership = self.leadership.lock();
        let (role, leader) = (leadership.role, leadership.leader);
        let (leader_epoch, epoch_start) = (leadership.epoch, leadership.epoch_start);
        drop(leadership);
        // The watermark first: the bounds read after it include it.
        let high_watermark = self.high_watermark();
        let bounds = self.log.bounds();
        let log_start = bounds.log_start.min(high_watermark);
        PartitionState {
            role,
            leader,
            leader_epoch,
            epoch_start,
            high_watermark,
            // No transaction can be open: the broker hands out no transactional producer.
            last_stable_offset: high_watermark,
            log_start,
            log_end: bounds.log_end.max(high_watermark),
        }
    }

    /// First offset that is not committed.
    pub fn high_watermark(&self) -> Offset {
        Offset(self.high_watermark.load(Ordering::Acquire))
    }

    /// First offset that is kept.
    pub fn log_start(&self) -> Offset {
        self.log.bounds().log_start
    }

    /// The answer to those who ask the wrong replica.
    pub fn not_leader(&self) -> NotLeader {
        let leadership = self.leadership.lock();
        let leader = leadership
            .leader
            .filter(|leader| *leader != self.me.broker || leadership.role == Role::Leader);
        NotLeader {
            leader,
            epoch: leadership.epoch,
        }
    }

    /// Why the replica serves nothing, if so.
    pub fn offline(&self) -> Option<Arc<str>> {
        self.leadership.lock().offline.clone()
    }

    /// Whether this replica leads.
    pub fn leads(&self) -> bool {
        self.leadership.lock().role == Role::Leader
    }

    /// The topic's replicas that are throttled while they catch up, if there are any.
    pub fn throttled(&self) -> Option<Arc<ThrottledReplicas>> {
        self.throttled.load_full()
    }

    /// Says which these are.
    pub fn set_throttled(&self, throttled: Option<Arc<ThrottledReplicas>>) {
        self.throttled.store(throttled);
    }

    /// Whether somebody leads of whom the controller hears. A leader that is fenced may lead on, but nobody would say when
    /// it is gone.
    pub fn is_led(&self) -> bool {
        let leader = self.leadership.lock().leader;
        leader.is_some_and(|it| it == self.me.broker || !self.fenced().contains(&it))
    }

    /// Brokers that are not heard of.
    pub fn fenced(&self) -> Arc<BTreeSet<BrokerId>> {
        self.notices.fenced.load_full()
    }

    /// The replicas in sync may have changed: the controller is to know, if this replica leads.
    pub fn note_in_sync(&self) {
        let leadership = self.leadership.lock();
        if leadership.role == Role::Leader {
            self.notices.leading.report(self.group, leadership.epoch);
        }
    }

    /// A sweep found no leader. Whether it is time to ask for an election: one that is under way needs a moment, and
    /// one that cannot succeed is asked for less and less often.
    pub fn election_due(&self) -> bool {
        let mut leadership = self.leadership.lock();
        leadership.leaderless_sweeps = leadership.leaderless_sweeps.saturating_add(1);
        is_election_due(leadership.leaderless_sweeps)
    }

    /// Whether this replica follows, and has records of which it does not know that they are committed.
    pub fn is_behind(&self) -> bool {
        self.log.bounds().log_end > self.high_watermark() && !self.leads()
    }

    /// Somebody waits for records here: if there are some that may be committed, a look is taken in a moment.
    pub fn note_behind(&self) {
        if self.is_behind() {
            self.notices.behind.add(self.group);
        }
    }

    /// Raises the high watermark and wakes those who waited for it.
    pub fn advance_high_watermark(&self, to: Offset) {
        if self.high_watermark.fetch_max(to.0, Ordering::AcqRel) >= to.0 {
            return;
        }
        self.waiters.notify();
        if self.duplicate_count.load(Ordering::Acquire) > 0 {
            self.answer_duplicates();
        }
    }

    /// The log start moved.
    pub fn move_log_start(&self, to: Offset) {
        self.log.advance_log_start(to.min(self.high_watermark()));
        self.waiters.notify();
    }

    /// The order of submissions.
    pub fn order(&self) -> MutexGuard<'_, AppendOrder> {
        self.order.lock()
    }

    /// Whether a batch may be appended where it was placed.
    pub fn admits(&self, number: SubmissionNumber) -> bool {
        self.order.lock().admits(number)
    }

    /// All batches up to this one are in the log, or void.
    pub fn appended(&self, last: SubmissionNumber) {
        self.order.lock().appended(last);
    }

    /// A batch was refused after it had its place.
    pub fn refused(&self, number: SubmissionNumber) {
        let void_from = self
            .order
            .lock()
            .refused(number, || self.log.producers().unwrap_or_default());
        if let Some(void_from) = void_from {
            self.refuse_duplicates(void_from);
        }
    }

    /// Waits for the commit of a duplicate's original.
    pub fn await_original(
        &self,
        base_offset: Offset,
        next_offset: Offset,
    ) -> oneshot::Receiver<AppendResult> {
        let (sender, receiver) = oneshot::channel();
        let mut duplicates = self.duplicates.lock();
        duplicates.push(Duplicate {
            base_offset,
            next_offset,
            sender,
        });
        self.duplicate_count
            .store(duplicates.len(), Ordering::Release);
        drop(duplicates);
        self.answer_duplicates();
        receiver
    }

    fn answer_duplicates(&self) {
        let (high_watermark, log_start) = (self.high_watermark(), self.log_start());
        for duplicate in self.take_duplicates(|duplicate| duplicate.next_offset <= high_watermark) {
            drop(duplicate.sender.send(Ok(Appended {
                base_offset: duplicate.base_offset,
                log_start,
            })));
        }
    }

    fn refuse_duplicates(&self, from: Offset) {
        let error = AppendError::from(self.not_leader());
        for duplicate in self.take_duplicates(|duplicate| duplicate.base_offset >= from) {
            drop(duplicate.sender.send(Err(error.clone())));
        }
    }

    fn take_duplicates(&self, which: impl Fn(&Duplicate) -> bool) -> Vec<Duplicate> {
        let mut duplicates = self.duplicates.lock();
        let taken = duplicates
            .extract_if(.., |duplicate| which(duplicate))
            .collect();
        self.duplicate_count
            .store(duplicates.len(), Ordering::Release);
        taken
    }

    /// Takes the replica offline, for good, and says so once.
    pub fn go_offline(&self, reason: &str) {
        let mut leadership = self.leadership.lock();
        if leadership.offline.is_some() {
            return;
        }
        leadership.offline = Some(Arc::from(reason));
        leadership.role = Role::Offline;
        leadership.leader = None;
        drop(leadership);
        tracing::error!(topic = %self.name.topic, partition = self.name.partition.0, reason, "partition is offline");
        self.note_leaderless();
        self.stop_leading();
    }

    /// Takes the replica offline, for good, as it has lost something that it had.
    pub fn lose_records(&self, reason: &str) {
        self.damaged.store(true, Ordering::Release);
        self.go_offline(reason);
        self.notices.damaged.add(self.group);
    }

    /// Its group could not be started on what there is.
    pub fn not_started(&self, error: &io::Error) {
        if error.kind() == io::ErrorKind::InvalidData || self.log.is_damaged() {
            self.lose_records(&error.to_string());
        } else {
            self.go_offline(&error.to_string());
        }
    }

    /// Whether it has lost something. Its group is not started again.
    pub fn is_damaged(&self) -> bool {
        self.damaged.load(Ordering::Acquire)
    }

    /// The replica is being stopped, by a person's will: it serves nothing more, and that is no error.
    pub fn retire(&self) {
        let mut leadership = self.leadership.lock();
        leadership.role = Role::Follower;
        leadership.leader = None;
        drop(leadership);
        self.stop_leading();
    }

    /// A stopped replica is started again.
    pub fn come_back(&self) {
        let mut leadership = self.leadership.lock();
        leadership.offline = None;
        leadership.role = Role::Follower;
        leadership.leader = None;
        drop(leadership);
        self.note_leaderless();
    }

    /// The group is in memory, or is not.
    pub fn note_awake(&self, awake: bool) {
        match awake {
            true => self.notices.awake.add(self.group),
            false => self.notices.awake.remove(self.group),
        }
    }

    /// The replica has no leader, or none yet: somebody has to look after it.
    pub fn note_leaderless(&self) {
        self.notices.leaderless.add(self.group);
    }

    /// A leader is gone: until there is another there is none.
    pub fn lose_leader(&self, lost: BrokerId) {
        let mut leadership = self.leadership.lock();
        if leadership.role != Role::Follower || leadership.leader != Some(lost) {
            return;
        }
        leadership.leader = None;
        drop(leadership);
        self.note_leaderless();
        self.waiters.notify();
    }

    /// This replica.
    pub fn me(&self) -> ReplicaId {
        self.me
    }

    /// Leads no more: everything that waits here for its commit learns that it may have been lost.
    pub fn stop_leading(&self) {
        self.order.lock().end();
        self.refuse_duplicates(Offset(0));
        self.waiters.notify();
    }

    fn lead(&self, epoch: LeaderEpoch) {
        let producers = match self.log.producers() {
            Ok(producers) => producers,
            Err(error) => return self.failed(&error),
        };
        let log_end = self.log.bounds().log_end;
        let mut leadership = self.leadership.lock();
        if leadership.role == Role::Offline {
            return;
        }
        *leadership = Leadership {
            role: Role::Leader,
            leader: Some(self.me.broker),
            epoch,
            epoch_start: log_end,
            offline: None,
            leaderless_sweeps: 0,
            named: false,
        };
        drop(leadership);
        self.order.lock().begin(epoch, producers, log_end);
        self.waiters.notify();
        self.notices.leading.report(self.group, epoch);
        self.notices.moving.add(self.group);
    }

    fn follow(&self, leader: Option<BrokerId>, epoch: Option<LeaderEpoch>) {
        let mut leadership = self.leadership.lock();
        let led = leadership.role == Role::Leader;
        if leadership.role != Role::Offline {
            leadership.role = Role::Follower;
        }
        leadership.leader = leader;
        leadership.named = false;
        if leader.is_some() {
            leadership.leaderless_sweeps = 0;
        }
        leadership.epoch = epoch.unwrap_or(leadership.epoch);
        drop(leadership);
        if !self.is_led() {
            self.note_leaderless();
        }
        if led {
            self.stop_leading();
        } else {
            self.waiters.notify();
        }
    }

    /// The group sleeps: what only a group needs is let go.
    pub fn rest(&self) {
        self.order.lock().rest();
        self.applied.lock().memberships = VecDeque::new();
    }

    /// Whether this replica leads, asleep or awake, in more than name.
    pub fn leads_in_sleep(&self) -> bool {
        let leadership = self.leadership.lock();
        leadership.role == Role::Leader && !leadership.named
    }

    /// A replica that starts asleep follows the leader that the metadata names.
    pub fn follow_in_sleep(&self, named: Resting) {
        self.follow(Some(named.leader), Some(named.epoch));
    }

    /// Whether this replica leads in name only.
    pub fn leads_in_name(&self) -> bool {
        self.leadership.lock().named
    }

    /// This replica sleeps, and is to follow a leader that is gone; false if it knows of another one.
    pub fn lead_in_name(&self, gone: Option<BrokerId>, epoch: LeaderEpoch) -> bool {
        let log_end = self.log.bounds().log_end;
        let mut leadership = self.leadership.lock();
        let follows = leadership.role == Role::Follower && leadership.leader == gone;
        if epoch < leadership.epoch || !follows {
            return false;
        }
        leadership.role = Role::Leader;
        leadership.leader = Some(self.me.broker);
        leadership.epoch = epoch;
        leadership.epoch_start = log_end;
        leadership.named = true;
        drop(leadership);
        self.waiters.notify();
        self.notices.leading.report(self.group, epoch);
        true
    }

    /// A leader that slept is about to go on.
    pub fn lead_on(&self) {
        let producers = match self.log.producers() {
            Ok(producers) => producers,
            Err(error) => return self.failed(&error),
        };
        let log_end = self.log.bounds().log_end;
        let epoch = self.leadership.lock().epoch;
        self.order.lock().begin(epoch, producers, log_end);
    }

    /// One that slept is about to wake and leads no more, or led only in name: it waits to hear who does.
    pub fn end_sleeping_lead(&self) {
        if self.leads() {
            self.follow(None, None);
        }
    }

    /// A sleeping replica hears who leads. What it knows from its group is newer than an older epoch.
    pub fn hear_in_sleep(&self, heard: Resting) {
        let mut leadership = self.leadership.lock();
        let news = heard.epoch >= leadership.epoch && leadership.leader != Some(heard.leader);
        if leadership.role == Role::Offline || !news {
            return;
        }
        if heard.leader == self.me.broker {
            // Clients come here, and this replica knows nothing of it: it has to wake and ask for the leadership.
            leadership.leader = None;
            drop(leadership);
            self.note_leaderless();
            return;
        }
        leadership.role = Role::Follower;
        leadership.leader = Some(heard.leader);
        leadership.epoch = heard.epoch;
        leadership.named = false;
        drop(leadership);
        self.waiters.notify();
    }

    /// Whether somebody waits for a commit. `in_flight_max`: the bytes that may be in flight.
    pub fn is_awaited(&self, in_flight_max: usize) -> bool {
        let in_flight_max = in_flight_max.min(Semaphore::MAX_PERMITS);
        self.in_flight.available_permits() < in_flight_max
            || self.order.lock().is_pending()
            || self.duplicate_count.load(Ordering::Acquire) > 0
    }

    /// Continues from a checkpoint: nothing up to it is applied again.
    pub fn restore(&self, checkpoint: &Checkpoint, older: Option<StoredMembership>) {
        let mut applied = self.applied.lock();
        applied.last = Some(checkpoint.applied);
        applied.checkpointed = Some(checkpoint.applied);
        applied.memberships = older
            .into_iter()
            .chain([checkpoint.membership.clone()])
            .collect();
        drop(applied);
        let log_end = self.log.bounds().log_end;
        self.log
            .advance_log_start(checkpoint.log_start.min(log_end));
        self.advance_high_watermark(checkpoint.high_watermark.min(log_end));
    }

    /// The last entry applied and the last membership up to it.
    pub fn applied(&self) -> (Option<LogId>, StoredMembership) {
        let applied = self.applied.lock();
        (
            applied.last,
            applied.memberships.back().cloned().unwrap_or_default(),
        )
    }

    /// The last entry applied.
    pub fn applied_last(&self) -> Option<LogId> {
        self.applied.lock().last
    }

    /// A membership was applied.
    pub fn apply_membership(&self, membership: StoredMembership) {
        self.applied.lock().memberships.push_back(membership);
    }

    /// Everything up to this entry was applied.
    pub fn set_applied(&self, last: LogId) {
        let mut applied = self.applied.lock();
        applied.last = Some(last);
        if !std::mem::replace(&mut applied.noted, true) {
            self.notices.unsaved.add(self.group);
        }
    }

    /// The membership as of an entry, and forgets those before it.
    pub fn membership_at(&self, index: u64) -> Option<StoredMembership> {
        let mut applied = self.applied.lock();
        let is_at =
            |membership: &StoredMembership| membership.log_id().is_none_or(|id| id.index <= index);
        while applied.memberships.get(1).is_some_and(is_at) {
            applied.memberships.pop_front();
        }
        applied
            .memberships
            .front()
            .filter(|membership| is_at(membership))
            .cloned()
    }

    /// Number of voters of the last membership applied.
    pub fn voter_count(&self) -> usize {
        self.applied
            .lock()
            .memberships
            .back()
            .map_or(0, |membership| membership.voter_ids().count())
    }

    /// What to save so that a start need not apply from the beginning; `None` before anything was applied.
    pub fn checkpoint(&self) -> Option<Checkpoint> {
        let (applied, membership) = {
            let applied = self.applied.lock();
            (applied.last?, applied.memberships.back().cloned()?)
        };
        // Read after it: a high watermark from before it would hide what was applied in between for good.
        Some(Checkpoint {
            applied,
            high_watermark: self.high_watermark(),
            log_start: self.log_start(),
            membership,
        })
    }

    /// A checkpoint, if more was applied since the last one.
    pub fn due_checkpoint(&self) -> Option<Checkpoint> {
        // First: what is applied from here on is noted again.
        self.applied.lock().noted = false;
        let checkpoint = self.checkpoint()?;
        let mut applied = self.applied.lock();
        let due = applied.checkpointed != Some(checkpoint.applied);
        applied.checkpointed = Some(checkpoint.applied);
        due.then_some(checkpoint)
    }

    /// The last checkpoint that was due was not saved.
    pub fn checkpoint_lost(&self) {
        let mut applied = self.applied.lock();
        applied.checkpointed = None;
        applied.noted = true;
        self.notices.unsaved.add(self.group);
    }

    /// Where the next snapshot is to be made.
    pub fn set_snapshot_target(&self, target: LogPosition) {
        *self.snapshot_target.lock() = Some(target);
    }

    /// Takes what [`PartitionShared::set_snapshot_target`] left.
    pub fn take_snapshot_target(&self) -> Option<LogPosition> {
        self.snapshot_target.lock().take()
    }
}

/// Whether the so manieth sweep in a row that finds no leader asks for an election.
pub fn is_election_due(sweeps: u32) -> bool {
    sweeps > 1 && (sweeps.is_power_of_two() || sweeps.is_multiple_of(ELECTION_SWEEPS_MAX))
}

impl GroupEvents for PartitionShared {
    fn vote_changed(&self, vote: &Vote) {
        let epoch = epoch_of(vote.leader_id.term).unwrap_or(LeaderEpoch(i32::MAX));
        let leader = vote.leader_id.voted_for;
        match (vote.committed, leader == self.me) {
            (true, true) => self.lead(epoch),
            (true, false) => self.follow(Some(leader.broker), Some(epoch)),
            (false, _) => self.follow(None, None),
        }
    }

    /// One that was given up goes on, as nobody took over: it has to be known when it is lost again.
    fn leader_wrote(&self, vote: &Vote) {
        let leadership = self.leadership.lock();
        let given_up = leadership.role == Role::Follower && leadership.leader.is_none();
        drop(leadership);
        if given_up {
            self.vote_changed(vote);
        }
    }

    fn failed(&self, error: &LogError) {
        // A topic that is deleted takes its groups down by way of their logs.
        match error {
            LogError::Removed => {}
            error if self.log.is_damaged() || matches!(error, LogError::Corrupt { .. }) => {
                self.lose_records(&error.to_string());
            }
            error => self.go_offline(&error.to_string()),
        }
    }
}

impl From<NotLeader> for AppendError {
    fn from(error: NotLeader) -> Self {
        AppendError::NotLeader {
            leader: error.leader,
            epoch: error.epoch,
        }
    }
}

#[cfg(test)]
mod tests;
