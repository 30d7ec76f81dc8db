//! A partition's replica on this broker.
//!
//! Owns the path of a batch from its place in the order to its answer, and the replica's offsets. Knows nothing of
//! requests; batches come here validated.

pub mod append;
mod compaction;
pub mod group;
mod in_sync;
mod order;
pub mod reassignment;
pub mod records;
mod retention;
pub mod shared;
mod sleep;
pub mod starter;
pub mod state;
pub mod state_machine;
pub mod submission;
mod throttled;
pub mod waiters;

use std::future::IntoFuture;
use std::io;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use futures_util::FutureExt;
use openraft::errors::{ClientWriteError, RaftError};
use tidelog_protocol::batch::RecordBatch;
use tidelog_protocol::types::{
    BrokerId, LeaderEpoch, Offset, PartitionIndex, ProducerEpoch, ProducerId, Sequence,
    TimestampMs, TopicId, TopicPartition,
};
use tidelog_storage::log::{LogError, PartitionLog, SequenceError};
use tokio::sync::{Notify, Semaphore, SemaphorePermit};

use crate::election::ElectionError;
use crate::errors::{AppendError, DeleteRecordsError, NotLeader};
use crate::limits::PARTITION_IN_FLIGHT_BATCHES_MAX;
use crate::metadata::image::PartitionImage;
use crate::partition::append::{Acks, AppendRequest, AppendTicket, Appended, MoreReplicas};
use crate::partition::group::PartitionGroup;
use crate::partition::in_sync::{InSync, Sight};
use crate::partition::order::Placement;
use crate::partition::reassignment::Step;
use crate::partition::shared::PartitionShared;
use crate::partition::state::{PartitionState, Role};
use crate::partition::submission::{InFlight, Submission};
use crate::partition::waiters::WaiterRegistration;
use crate::raft::codec::entry_index;
use crate::raft::types::{GroupCommand, GroupResponder, ReplicaId};

/// From one replica's turn to ask for the leadership to the next.
const ELECTION_STAGGER: Duration = Duration::from_millis(200);

/// How long a leadership that is handed over may take to arrive.
const TRANSFER_PATIENCE: Duration = Duration::from_secs(2);

/// How often a replica asks before it leaves it to the sweep that looks after all groups without a leader.
const ELECTION_TRIES: u32 = 10;

/// Entries that a replica may be behind and still take over.
const CLOSE_ENTRIES: u64 = 64;

/// Bytes that a new replica may be behind and be given a vote: records may have to wait for it from then on.
const CLOSE_BYTES: u64 = 4 << 20;

/// What a partition remembers of an idempotent producer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerDescription {
    /// Producer id.
    pub producer: ProducerId,
    /// Its epoch.
    pub epoch: ProducerEpoch,
    /// Last sequence appended; -1 when none is known.
    pub last_sequence: Sequence,
    /// Timestamp of its last batch.
    pub last_timestamp: TimestampMs,
    /// Epoch of the coordinator that wrote its last marker; -1 when none did.
    pub coordinator_epoch: i32,
    /// First offset of its open transaction.
    pub transaction_start: Option<Offset>,
}

/// What is the same for all partitions of a broker.
#[derive(Clone, Copy, Debug)]
pub struct PartitionLimits {
    /// Record bytes in flight in one partition.
    pub in_flight_bytes_max: usize,
    /// Record bytes in flight in all partitions.
    pub broker_in_flight_bytes_max: usize,
    /// `replica.lag.time.max.ms`.
    pub replica_lag_max: Duration,
}

/// See the module.
#[derive(Debug)]
pub struct Partition {
    shared: Arc<PartitionShared>,
    group: ArcSwapOption<PartitionGroup>,
    min_insync_replicas: AtomicUsize,
    limits: PartitionLimits,
    in_sync: parking_lot::Mutex<InSync>,
    /// Held while the log start moves or entries are dropped.
    retention: tokio::sync::Mutex<()>,
    life: tokio::sync::Mutex<Life>,
    sleeper: OnceLock<sleep::Sleeper>,
    /// Changes with `life` locked.
    asleep: AtomicBool,
    compaction: parking_lot::Mutex<compaction::Looks>,
}

/// Whether a partition may have a group. Its lock is held while one is started or ended, so that there are never two
/// on one log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Life {
    /// It may.
    #[default]
    Hosted,
    /// Its log is gone or going, or the broker ends.
    Ended,
}

impl Partition {
    /// A replica without its group.
    pub(crate) fn new(
        shared: Arc<PartitionShared>,
        min_insync_replicas: usize,
        limits: PartitionLimits,
    ) -> Partition {
        Partition {
            shared,
            group: ArcSwapOption::empty(),
            min_insync_replicas: AtomicUsize::new(min_insync_replicas),
            limits,
            in_sync: parking_lot::Mutex::default(),
            retention: tokio::sync::Mutex::default(),
            life: tokio::sync::Mutex::default(),
            sleeper: OnceLock::new(),
            asleep: AtomicBool::new(false),
            compaction: parking_lot::Mutex::default(),
        }
    }

    /// Topic id.
    pub fn topic_id(&self) -> TopicId {
        self.shared.group().topic
    }

    /// Topic name and index.
    pub fn name(&self) -> &TopicPartition {
        self.shared.name()
    }

    /// Index in the topic.
    pub fn index(&self) -> PartitionIndex {
        self.name().partition
    }

    /// The log, for reading.
    pub fn log(&self) -> &Arc<PartitionLog> {
        self.shared.log()
    }

    /// Role, epoch and offsets; cheap.
    pub fn state(&self) -> PartitionState {
        self.shared.state()
    }

    /// Gives a validated batch its place in the order. Waits while too many bytes are in flight. The ticket resolves as
    /// `acks` asks; a duplicate resolves when its original is committed, with the original's offset.
    pub async fn submit(&self, request: AppendRequest) -> Result<AppendTicket, AppendError> {
        let state = self.shared.state();
        self.check_leader(&state, request.epoch)?;
        self.log().check_writable().map_err(append_error)?;
        let (bytes, bytes_max) = (request.batch.size_bytes(), self.log().batch_bytes_max());
        if bytes > bytes_max {
            // Further on it would cost the partition its group.
            return Err(AppendError::TooLarge { bytes, bytes_max });
        }
        let group = self.group_to_write(&request).await?;
        let voters = self.shared.voter_count();
        if request.acks == Acks::All {
            self.check_in_sync(state.leader_epoch, voters)?;
        }
        let reserved = self.reserve(bytes).await?;
        if group.lease_is_old(voters) && !group.confirm().await {
            return Err(self.shared.not_leader().into());
        }
        let more = self.more_replicas(&group, request.acks, voters);
        self.submit_in_order(&group, request, reserved, more)
    }

    /// Registers for a wake-up whenever the high watermark, the log start or the leadership moves. Read the state after
    /// registering, then wait.
    pub fn register_waiter(&self, notify: &Arc<Notify>) -> WaiterRegistration {
        let registration = WaiterRegistration::new(self.shared.clone(), notify);
        self.shared.note_behind();
        registration
    }

    /// Where the logs of the other replicas in sync end; empty unless this one leads. One that is so far behind that it
    /// cannot be told from memory is left out.
    pub fn in_sync_ends(&self) -> Vec<(BrokerId, Offset)> {
        let state = self.state();
        let Some(group) = self.group().filter(|_| state.is_leader()) else {
            return Vec::new();
        };
        let in_sync = self.in_sync.lock();
        let in_sync = in_sync.followers(state.leader_epoch);
        let in_sync: Vec<BrokerId> = in_sync.into_iter().flatten().collect();
        let (_, followers) = group.followers();
        let ends = followers.into_iter().filter_map(|(broker, last)| {
            let end = self.log().resident_offset_after(entry_index(last?))?;
            in_sync.contains(&broker).then_some((broker, end))
        });
        ends.collect()
    }

    /// Moves the log start to `before` (`None`: the high watermark) by agreement of the group, and drops whole segments
    /// below it. Returns the new log start.
    pub async fn delete_records(
        &self,
        before: Option<Offset>,
    ) -> Result<Offset, DeleteRecordsError> {
        let state = self.shared.state();
        if let Some(reason) = self.shared.offline() {
            return Err(DeleteRecordsError::Storage(reason.to_string()));
        }
        if !state.is_leader() {
            return Err(self.shared.not_leader().into());
        }
        let target = before.unwrap_or(state.high_watermark);
        if target > state.high_watermark {
            return Err(DeleteRecordsError::OffsetOutOfRange {
                requested: target,
                high_watermark: state.high_watermark,
            });
        }
        if target > state.log_start {
            self.write_log_start(target).await?;
            self.drop_deleted().await;
        }
        Ok(self.shared.log_start())
    }

    /// Makes sure that no other replica has taken over: by a valid lease or one round of messages, which callers share.
    pub async fn confirm_leadership(&self) -> Result<(), NotLeader> {
        let state = self.shared.state();
        let not_leader = || Err(self.shared.not_leader());
        if !state.is_leader() {
            return not_leader();
        }
        // A sleeper cannot know whether the others have gone on without it.
        let Ok(group) = self.leading_group(1).await else {
            return not_leader();
        };
        group.note_use();
        let state = self.shared.state();
        if !state.is_leader() {
            return not_leader();
        }
        let recovered = state.high_watermark >= state.epoch_start;
        if recovered && !group.lease_is_old(self.shared.voter_count()) {
            return Ok(());
        }
        if group.confirm().await {
            Ok(())
        } else {
            not_leader()
        }
    }

    /// Idempotent producers that the partition remembers.
    pub fn describe_producers(&self) -> Result<Vec<ProducerDescription>, LogError> {
        let producers = self.log().producers()?.producers();
        let describe = |view: tidelog_storage::log::ProducerStateView| ProducerDescription {
            producer: view.producer_id,
            epoch: view.epoch,
            last_sequence: view.last_sequence,
            last_timestamp: view.last_timestamp,
            coordinator_epoch: view.coordinator_epoch,
            transaction_start: view.transaction_start,
        };
        Ok(producers.into_iter().map(describe).collect())
    }

    /// Replicas in sync as of now, if this one leads, itself among them.
    pub(crate) fn in_sync(&self, known: &PartitionImage) -> Vec<BrokerId> {
        if self.group().is_some() || !self.state().is_leader() {
            return self.in_sync_now(&known.isr);
        }
        // All of them had everything when it fell asleep, and nothing has come since. Who leads in name knows no more than
        // what the leader before it said.
        let (me, fenced) = (self.shared.me().broker, self.shared.fenced());
        let told = match self.leads_in_name() {
            true => &known.isr,
            false => &known.replicas,
        };
        let adding = known.adding();
        let is_there = |it: &&BrokerId| **it == me || !(fenced.contains(it) || adding.contains(it));
        told.iter().filter(is_there).copied().collect()
    }

    /// The same, of a group that is in memory. `before` were in sync when it began to lead.
    pub(crate) fn in_sync_now(&self, before: &[BrokerId]) -> Vec<BrokerId> {
        let state = self.state();
        let Some(group) = self.group().filter(|_| state.is_leader()) else {
            return Vec::new();
        };
        let (last, followers) = group.followers();
        let epoch = state.leader_epoch;
        let sight = Sight {
            epoch,
            last,
            followers,
        };
        let (lost, lag_max) = (self.shared.fenced(), self.limits.replica_lag_max);
        let mut in_sync = self.in_sync.lock();
        in_sync.look(&sight, before, &lost, lag_max, Instant::now());
        let followers = in_sync.followers(epoch);
        let me = self.shared.me().broker;
        [me].into_iter()
            .chain(followers.into_iter().flatten())
            .collect()
    }

    /// Asks for the leadership, after as many others as `turn` says had the chance to, until there is a leader.
    pub(crate) async fn elect_in_turn(&self, turn: usize) {
        let turn = u32::try_from(turn).unwrap_or(u32::MAX);
        tokio::time::sleep(ELECTION_STAGGER.saturating_mul(turn)).await;
        for _ in 0..ELECTION_TRIES {
            let Some(group) = self.group().filter(|_| !self.shared.is_led()) else {
                return;
            };
            group.elect().await;
            tokio::time::sleep(ELECTION_STAGGER).await;
        }
    }

    /// Gives the leadership to the replica of a broker.
    pub(crate) async fn hand_over_to(&self, broker: BrokerId) -> Result<(), ElectionError> {
        let not_available = |why: &str| {
            let text = format!("the replica of broker {broker} {why}");
            Err(ElectionError::PreferredNotAvailable(text))
        };
        if broker == self.shared.me().broker {
            return Err(ElectionError::NotNeeded);
        }
        let has_changed = || {
            let text = "the leader has changed".to_owned();
            Err(ElectionError::PreferredNotAvailable(text))
        };
        if !self.state().is_leader() {
            return has_changed();
        }
        let group = self.leading_group(usize::MAX).await;
        let Some(group) = group.ok().filter(|_| self.state().is_leader()) else {
            return has_changed();
        };
        let in_sync = group.close(CLOSE_ENTRIES);
        let Some(heir) = in_sync.into_iter().find(|it| it.broker == broker) else {
            return not_available("is not in sync with the leader");
        };
        match self.carry_out(Step::HandOver(heir)).await {
            Ok(()) => Ok(()),
            Err(error) => not_available(&format!("cannot be asked: {error}")),
        }
    }

    /// A leader that has begun to hand over takes no more writes, and goes on like that if nobody takes over. Then its
    /// group is started again, which asks for the leadership.
    fn watch_transfer(&self) {
        let (shared, before) = (self.shared.clone(), self.state());
        tokio::spawn(async move {
            tokio::time::sleep(TRANSFER_PATIENCE).await;
            let state = shared.state();
            if before.is_leader() && state.is_leader() && state.leader_epoch == before.leader_epoch
            {
                shared.go_offline("its leadership was handed over, and nobody took it");
            }
        });
    }

    /// What is to be done next for the group to consist of these replicas; only a leader knows. `is_there` says of which
    /// something is heard: what a dead one had is on record until it lacks something.
    pub(crate) fn reassignment_step(
        &self,
        wanted: &[ReplicaId],
        is_there: impl Fn(&ReplicaId) -> bool,
    ) -> Option<Step> {
        let group = self.group().filter(|_| self.state().is_leader())?;
        let me = self.shared.me();
        let Some((members, mut caught_up)) = group.standing(CLOSE_ENTRIES) else {
            return Some(Step::Wait);
        };
        let lacks_little = |replica: &ReplicaId| {
            let last = group.last_of(replica)?;
            self.log().resident_bytes_after(entry_index(last))
        };
        caught_up.retain(|replica| {
            let votes = members.voters.contains(replica);
            let close = votes || lacks_little(replica).is_some_and(|bytes| bytes <= CLOSE_BYTES);
            *replica == me || close && is_there(replica)
        });
        Some(reassignment::next_step(wanted, &members, &caught_up, me))
    }

    /// Carries it out.
    pub(crate) async fn carry_out(&self, step: Step) -> Result<(), io::Error> {
        let group = self.leading_group(1).await;
        let group = group.map_err(|_| io::Error::other("the group does not run"))?;
        // An idle leader has to renew its lease before it may change anything, and what is not confirmed may be somebody
        // else's already.
        if !group.confirm().await {
            return Err(io::Error::other("most replicas do not answer"));
        }
        let hands_over = matches!(step, Step::HandOver(_));
        let carried_out = group.carry_out(step).await;
        if hands_over {
            self.watch_transfer();
        }
        carried_out
    }

    /// Gives the leadership to another replica in sync; false if this one does not lead or there is none.
    pub(crate) async fn hand_over(&self) -> bool {
        let Some(group) = self.group().filter(|_| self.state().is_leader()) else {
            return false;
        };
        let me = self.shared.me();
        let heir = group
            .close(CLOSE_ENTRIES)
            .into_iter()
            .find(|replica| *replica != me);
        match heir {
            Some(heir) => {
                group.hand_over(heir).await;
                true
            }
            None => false,
        }
    }

    pub(crate) fn shared(&self) -> &Arc<PartitionShared> {
        &self.shared
    }

    pub(crate) fn group(&self) -> Option<Arc<PartitionGroup>> {
        self.group.load_full()
    }

    /// Whether it may have a group.
    pub(crate) fn life(&self) -> &tokio::sync::Mutex<Life> {
        &self.life
    }

    /// Puts the running group in, or takes it out; returns the one before.
    pub(crate) fn swap_group(
        &self,
        group: Option<Arc<PartitionGroup>>,
    ) -> Option<Arc<PartitionGroup>> {
        self.shared.note_awake(group.is_some());
        self.group.swap(group)
    }

    pub(crate) fn set_min_insync_replicas(&self, replicas: usize) {
        self.min_insync_replicas.store(replicas, Ordering::Relaxed);
    }

    fn check_leader(
        &self,
        state: &PartitionState,
        epoch: Option<LeaderEpoch>,
    ) -> Result<(), AppendError> {
        match state.role {
            Role::Leader => {}
            Role::Follower => return Err(self.shared.not_leader().into()),
            Role::Offline => {
                let reason = self
                    .shared
                    .offline()
                    .map_or_else(String::new, |reason| reason.to_string());
                return Err(AppendError::Storage(reason));
            }
        }
        let current = state.leader_epoch;
        match epoch {
            Some(epoch) if epoch < current => Err(AppendError::FencedEpoch { current }),
            Some(epoch) if epoch > current => Err(AppendError::UnknownEpoch { current }),
            _ => Ok(()),
        }
    }

    /// The group that a batch goes to. One that slept leads again first; its epoch may be another one then.
    async fn group_to_write(
        &self,
        request: &AppendRequest,
    ) -> Result<Arc<PartitionGroup>, AppendError> {
        if let Some(group) = self.group() {
            group.note_use();
            return Ok(group);
        }
        let group = self.leading_group(1).await?;
        self.check_leader(&self.shared.state(), request.epoch)?;
        Ok(group)
    }

    /// How many replicas are to have what is acknowledged with `acks=all`. Kafka never asks for more than there are.
    fn required(&self, voters: usize) -> usize {
        self.min_insync_replicas.load(Ordering::Relaxed).min(voters)
    }

    fn check_in_sync(&self, epoch: LeaderEpoch, voters: usize) -> Result<(), AppendError> {
        let required = self.required(voters);
        // A leader is in sync with itself, also before its first membership is applied.
        if required <= 1 {
            return Ok(());
        }
        let known = || {
            let in_sync = self.in_sync.lock();
            in_sync.followers(epoch).map(|it| it.count() + 1)
        };
        // One that nobody has looked at yet leads for a moment only.
        if known().is_none_or(|in_sync| in_sync >= required) {
            return Ok(());
        }
        // Some may have caught up since.
        let in_sync = self.in_sync_now(&[]).len();
        if in_sync < required {
            Err(AppendError::NotEnoughReplicas { in_sync, required })
        } else {
            Ok(())
        }
    }

    /// What is waited for after the commit, where more replicas are asked for than a majority.
    fn more_replicas(
        &self,
        group: &Arc<PartitionGroup>,
        acks: Acks,
        voters: usize,
    ) -> Option<MoreReplicas> {
        let required = self.required(voters);
        (acks == Acks::All && required > voters / 2 + 1).then(|| MoreReplicas {
            group: group.clone(),
            required,
            patience: self.limits.replica_lag_max,
        })
    }

    /// Takes bytes from both budgets. A small batch takes a minimal share, so that batches are bounded as well.
    async fn reserve(&self, size_bytes: usize) -> Result<Reserved<'_>, AppendError> {
        let limits = &self.limits;
        let floor = limits
            .in_flight_bytes_max
            .div_ceil(PARTITION_IN_FLIGHT_BATCHES_MAX);
        let partition = share(size_bytes.max(floor).min(limits.in_flight_bytes_max));
        let broker = share(size_bytes.min(limits.broker_in_flight_bytes_max));
        Ok(Reserved {
            partition: acquire(self.shared.in_flight(), partition).await?,
            broker: acquire(self.shared.broker_in_flight(), broker).await?,
        })
    }

    fn submit_in_order(
        &self,
        group: &PartitionGroup,
        request: AppendRequest,
        reserved: Reserved<'_>,
        more: Option<MoreReplicas>,
    ) -> Result<AppendTicket, AppendError> {
        let AppendRequest { batch, acks, .. } = request;
        let mut order = self.shared.order();
        let (number, base_offset, epoch) = match order.place(&batch) {
            Placement::Placed {
                number,
                base_offset,
                epoch,
            } => (number, base_offset, epoch),
            // With the order locked, so that a loss of the original between the two is told to the duplicate.
            other => return self.answer_unplaced(other, &batch, acks, more),
        };
        let next_offset = Offset(base_offset.0 + i64::from(batch.record_count()));
        let (submission, answer) = Submission::new(
            self.shared.clone(),
            number,
            base_offset..next_offset,
            acks,
            reserved.keep(),
        );
        let term = u64::try_from(epoch.0).unwrap_or_default();
        let write = group
            .raft()
            .write(GroupCommand::Batch {
                batch,
                submission: Some(submission.clone()),
            })
            .responder(GroupResponder::of(submission))
            .with_leader(term);
        // The mailbox has room for all that the budget lets through, so this ends at once. The lock is held so that
        // places and mailbox have the same order.
        let sent = tokio::task::unconstrained(write.into_future()).now_or_never();
        if !matches!(sent, Some(Ok(()))) {
            order.refused(number, || self.log().producers().unwrap_or_default());
            drop(order);
            return Err(self.refusal(sent.is_none()));
        }
        drop(order);
        Ok(match acks {
            Acks::None => AppendTicket::answered(Ok(Appended {
                base_offset,
                log_start: self.shared.log_start(),
            })),
            Acks::Leader | Acks::All => AppendTicket::waiting(answer, self.shared.clone(), more),
        })
    }

    fn answer_unplaced(
        &self,
        placement: Placement,
        batch: &RecordBatch,
        acks: Acks,
        more: Option<MoreReplicas>,
    ) -> Result<AppendTicket, AppendError> {
        match placement {
            Placement::Duplicate { base_offset } if acks == Acks::None => {
                Ok(AppendTicket::answered(Ok(Appended {
                    base_offset,
                    log_start: self.shared.log_start(),
                })))
            }
            Placement::Duplicate { base_offset } => {
                let next_offset = Offset(base_offset.0 + i64::from(batch.record_count()));
                let answer = self.shared.await_original(base_offset, next_offset);
                Ok(AppendTicket::waiting(answer, self.shared.clone(), more))
            }
            Placement::Refused(error) => Err(sequence_error(batch, error)),
            Placement::NotLeader | Placement::Placed { .. } => Err(self.shared.not_leader().into()),
        }
    }

    /// Why the group did not take a batch.
    fn refusal(&self, mailbox_full: bool) -> AppendError {
        match self.shared.offline() {
            Some(reason) => AppendError::Storage(reason.to_string()),
            None if self.group.load().is_none() => AppendError::ShuttingDown,
            None if mailbox_full => AppendError::Overloaded,
            None => self.shared.not_leader().into(),
        }
    }

    async fn write_log_start(&self, to: Offset) -> Result<(), DeleteRecordsError> {
        let group = self.leading_group(1).await;
        let group = group.map_err(|_| DeleteRecordsError::ShuttingDown)?;
        group.note_use();
        let written = group.write(|| GroupCommand::LogStart(to)).await;
        written.map(drop).map_err(|error| match error {
            RaftError::APIError(ClientWriteError::ForwardToLeader(_)) => {
                self.shared.not_leader().into()
            }
            RaftError::APIError(_) => DeleteRecordsError::Unknown,
            RaftError::Fatal(fatal) => match self.shared.offline() {
                Some(reason) => DeleteRecordsError::Storage(reason.to_string()),
                None => {
                    tracing::debug!(%fatal, "group stopped");
                    DeleteRecordsError::ShuttingDown
                }
            },
        })
    }
}

fn share(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// Bytes taken from both budgets. Dropping it gives them back, so that a request that is dropped while it waits keeps
/// nothing.
struct Reserved<'a> {
    partition: SemaphorePermit<'a>,
    broker: SemaphorePermit<'a>,
}

impl Reserved<'_> {
    /// From now on they are given back by hand, from whichever thread drops the submission.
    fn keep(self) -> InFlight {
        let count = |permit: &SemaphorePermit<'_>| share(permit.num_permits());
        let kept = InFlight {
            partition: count(&self.partition),
            broker: count(&self.broker),
        };
        self.partition.forget();
        self.broker.forget();
        kept
    }
}

async fn acquire(budget: &Semaphore, permits: u32) -> Result<SemaphorePermit<'_>, AppendError> {
    if let Ok(permit) = budget.try_acquire_many(permits) {
        return Ok(permit);
    }
    let permit = budget.acquire_many(permits).await;
    permit.map_err(|_| AppendError::ShuttingDown)
}

fn append_error(error: LogError) -> AppendError {
    match error {
        LogError::NoSpace(reason) => AppendError::NoSpace(reason),
        LogError::Removed => AppendError::ShuttingDown,
        other => AppendError::Storage(other.to_string()),
    }
}

fn sequence_error(batch: &RecordBatch, error: SequenceError) -> AppendError {
    match error {
        SequenceError::OutOfOrder { got, last } => {
            // Nothing known means that the producer has to begin at 0.
            let expected = if last.0 < 0 {
                Sequence(0)
            } else {
                last.plus(1)
            };
            AppendError::OutOfOrderSequence {
                producer: batch.producer_id(),
                expected,
                got,
            }
        }
        SequenceError::StaleEpoch { got, current } => {
            AppendError::InvalidProducerEpoch { current, got }
        }
    }
}
