//! The consensus group of a partition on this replica: start, stop, election, leases.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use openraft::async_runtime::WatchReceiver as _;
use openraft::errors::{ClientWriteError, RaftError};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, ClientWriteResponse, VoteRequest, VoteResponse,
};
use openraft::{ChangeMembers, Config, Instant as _, Raft, RaftMetrics, ReadPolicy, ServerState};
use tidelog_protocol::types::BrokerId;
use tidelog_storage::kv::KeyValueStore;
use tidelog_storage::log::{EntryIndex, PartitionLog};

use super::reassignment::Step;
use super::records::RecordSource;
use super::shared::PartitionShared;
use super::state_machine::{Ended, PartitionStateMachine};
use crate::raft::codec::{self, Checkpoint, PartitionSnapshot};
use crate::raft::config::PARTITION_LEASE_MS;
use crate::raft::log_store::GroupLog;
use crate::raft::members::{self, Members};
use crate::raft::network::{GroupNetwork, PeerTransport};
use crate::raft::state_store::GroupStateStore;
use crate::raft::types::{GroupCommand, GroupTypes, LogId, ReplicaId};
use crate::suspects;
use crate::throttle::{Pacer, Side, Throttles};

/// Share of the lease after which an idle leader renews it before it writes.
const RENEW_AFTER: Duration = Duration::from_millis(PARTITION_LEASE_MS * 6 / 10);

/// What all groups of a broker are started with.
#[derive(Clone)]
pub struct GroupContext {
    /// This replica.
    pub me: ReplicaId,
    /// Votes, checkpoints and snapshots.
    pub kv: Arc<dyn KeyValueStore>,
    /// Connections to other brokers.
    pub transport: Arc<dyn PeerTransport>,
    /// Where records are read that cannot be sent as entries; `None`: nowhere.
    pub records: Option<Arc<dyn RecordSource>>,
    /// What replicas that catch up may take.
    pub throttles: Arc<Throttles>,
}

impl fmt::Debug for GroupContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupContext")
            .field("me", &self.me)
            .finish_non_exhaustive()
    }
}

/// A running group.
pub struct PartitionGroup {
    raft: Raft<GroupTypes, PartitionStateMachine>,
    shared: Arc<PartitionShared>,
    state: GroupStateStore,
    /// Keeps what is left of its tasks from the log once it has ended.
    ended: Ended,
    /// When the last round that confirmed the leadership began.
    confirmed: tokio::sync::Mutex<Option<Instant>>,
    /// Whether it was used since somebody asked last.
    used: AtomicBool,
}

/// A group that has just started.
struct Opened {
    group: PartitionGroup,
    /// It was told its members just now.
    is_new: bool,
}

impl fmt::Debug for PartitionGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.raft.fmt(f)
    }
}

impl PartitionGroup {
    /// Starts the group on what log and key-value store hold. The first replica of a new one asks for the leadership, and
    /// so does one that was there before.
    pub async fn start(
        context: &GroupContext,
        shared: &Arc<PartitionShared>,
        config: Arc<Config>,
        members: &[ReplicaId],
    ) -> Result<PartitionGroup, io::Error> {
        PartitionGroup::read_producers(shared.log()).await?;
        let Opened { group, is_new } =
            PartitionGroup::open(context, shared, config, members, false).await?;
        if !is_new {
            group.elect().await;
        } else if members.first() == Some(&context.me) {
            group.elect_first().await;
        }
        Ok(group)
    }

    /// Starts a group that slept, and asks for nothing. A leader goes on leading.
    pub async fn wake(
        context: &GroupContext,
        shared: &Arc<PartitionShared>,
        config: Arc<Config>,
        leads_on: bool,
    ) -> Result<PartitionGroup, io::Error> {
        let opened = PartitionGroup::open(context, shared, config, &[], leads_on).await?;
        Ok(opened.group)
    }

    async fn open(
        context: &GroupContext,
        shared: &Arc<PartitionShared>,
        config: Arc<Config>,
        members: &[ReplicaId],
        leads_on: bool,
    ) -> Result<Opened, io::Error> {
        let state = GroupStateStore::new(context.kv.clone(), shared.log().id());
        end_installation(shared.log(), &state).await?;
        let snapshot = last_snapshot(shared.log(), &state).await?;
        let checkpoint = start_point(shared.log(), &state, snapshot)?;
        if let Some((checkpoint, older)) = &checkpoint {
            shared.restore(checkpoint, older.clone());
        }
        let checkpoint = checkpoint.map(|(checkpoint, _)| checkpoint);
        let log = GroupLog::open(
            shared.log().clone(),
            state.clone(),
            context.me,
            shared.clone(),
            checkpoint,
        )?;
        let is_new = log.found(members).await?;
        if leads_on {
            log.lead_on();
        }
        let ended = Ended::default();
        let records = context.records.clone();
        let throttles = &context.throttles;
        let pacer = Pacer::new(throttles.clone(), shared.clone(), Side::Follower);
        let machine = PartitionStateMachine::new(
            shared.clone(),
            state.clone(),
            records,
            pacer,
            ended.clone(),
        );
        let network = GroupNetwork::new(shared.group(), context.transport.clone());
        let network = network.paced(throttles.clone(), shared.clone());
        let raft = Raft::new(context.me, config, network, log, machine)
            .await
            .map_err(io::Error::other)?;
        let group = PartitionGroup {
            raft,
            shared: shared.clone(),
            state,
            ended,
            confirmed: tokio::sync::Mutex::default(),
            used: AtomicBool::new(true),
        };
        Ok(Opened { group, is_new })
    }

    /// Reads what a new leader needs at once from the files, away from the runtime's threads.
    pub async fn read_producers(log: &Arc<PartitionLog>) -> Result<(), io::Error> {
        if log.bounds().last.index.0 == 0 {
            return Ok(());
        }
        let log = log.clone();
        let read = tokio::task::spawn_blocking(move || log.producers().map(drop)).await;
        read.map_err(io::Error::other)?.map_err(io::Error::other)
    }

    /// Somebody uses it.
    pub fn note_use(&self) {
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
    }

    /// Whether it was used since this was asked last.
    pub fn take_used(&self) -> bool {
        self.used.swap(false, Ordering::Relaxed)
    }

    /// The members, unless a change is not committed.
    pub fn settled_members(&self) -> Option<Members> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        Members::committed(&metrics)
    }

    /// Waits until all voters have answered something that was sent since then; false if they do not in time.
    pub async fn wait_heard_by_all(&self, since: Instant, timeout: Duration) -> bool {
        let heard = |metrics: &RaftMetrics<GroupTypes>| {
            let answers = metrics.heartbeat.as_ref();
            let answered = |voter: ReplicaId| {
                let at = answers.and_then(|answers| answers.get(&voter)?.as_ref());
                voter == metrics.id || at.is_some_and(|at| at.elapsed() <= since.elapsed())
            };
            let membership = metrics.membership_config.membership();
            membership.voter_ids().all(answered)
        };
        let wait = self.raft.wait(Some(timeout));
        wait.metrics(heard, "heard by all").await.is_ok()
    }

    /// Waits until so many voters are known to lack little, or for so long.
    pub async fn wait_close(&self, lag_max: u64, count: usize, timeout: Duration) {
        let enough = |metrics: &RaftMetrics<GroupTypes>| {
            let near = members::caught_up(metrics, lag_max);
            let membership = metrics.membership_config.membership();
            let voters = membership.voter_ids();
            voters.filter(|voter| near.contains(voter)).count() >= count
        };
        let wait = self.raft.wait(Some(timeout));
        if let Err(error) = wait.metrics(enough, "close behind").await {
            tracing::debug!(%error, "too few replicas are close behind");
        }
    }

    /// Answers one that asks for the leadership. While this replica lacks what it once had, it counts as if it had it.
    pub async fn vote(
        &self,
        request: VoteRequest<GroupTypes>,
        pre_vote: bool,
    ) -> Result<VoteResponse<GroupTypes>, RaftError<GroupTypes>> {
        let last = request.last_log_id.as_ref();
        let last = last.and_then(|id| codec::entry_id(id).ok());
        let had = self.shared.lacks();
        let had = had.filter(|had| last.unwrap_or_default() < *had);
        if had.is_some() || self.shared.is_suspect() {
            let mine = self.raft.metrics().borrow_watched().vote;
            let last = had.unwrap_or(self.shared.log().bounds().last);
            return Ok(VoteResponse::new(mine, codec::log_id(last), false));
        }
        if pre_vote {
            self.raft.pre_vote(request).await
        } else {
            self.raft.vote(request).await
        }
    }

    /// Takes entries of a leader. One that thereby has all that this leader knows to be committed is no suspect any more.
    pub async fn append(
        &self,
        request: AppendEntriesRequest<GroupTypes>,
    ) -> Result<AppendEntriesResponse<GroupTypes>, RaftError<GroupTypes>> {
        let heals = self.shared.is_suspect() && suspects::brings_up(&request);
        let answer = self.raft.append_entries(request).await?;
        if heals && matches!(answer, AppendEntriesResponse::Success) {
            suspects::clear(&self.state, &self.shared).await;
        }
        Ok(answer)
    }

    /// Whether it needs no vote but its own.
    fn is_alone(&self) -> bool {
        let alone = BTreeSet::from([self.shared.me()]);
        let members = self.settled_members();
        members.is_some_and(|members| members.voters == alone && members.next.is_none())
    }

    /// Gives the leadership to another replica.
    pub async fn hand_over(&self, to: ReplicaId) {
        if let Err(error) = self.raft.trigger().transfer_leader(to).await {
            tracing::debug!(%error, "not handed over");
        }
    }

    /// The group's handle for submissions.
    pub fn raft(&self) -> &Raft<GroupTypes, PartitionStateMachine> {
        &self.raft
    }

    /// Asks the other replicas for the leadership, unless there is a leader.
    pub async fn elect(&self) {
        self.note_use();
        if !self.shared.is_whole() && !self.is_alone() {
            return;
        }
        self.ask_for_votes(true).await;
    }

    /// Asks for the leadership of a group that is new: there is no leader that a pre-vote would spare, and the others have until
    /// the vote is saved to open it as well.
    async fn elect_first(&self) {
        self.ask_for_votes(false).await;
    }

    async fn ask_for_votes(&self, pre_vote: bool) {
        if let Err(error) = self.raft.trigger().elect(pre_vote).await {
            tracing::debug!(%error, "no election");
        }
    }

    /// Writes a command and waits until it is applied. A lapsed lease is renewed once.
    pub async fn write(
        &self,
        command: impl Fn() -> GroupCommand,
    ) -> Result<ClientWriteResponse<GroupTypes>, RaftError<GroupTypes, ClientWriteError<GroupTypes>>>
    {
        match self.raft.client_write(command()).await {
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward)))
                if forward.leader_id.is_none() =>
            {
                if self.confirm().await {
                    self.raft.client_write(command()).await
                } else {
                    Err(RaftError::APIError(ClientWriteError::ForwardToLeader(
                        forward,
                    )))
                }
            }
            result => result,
        }
    }

    /// Makes sure, by one round of messages, that this replica still leads and knows all that is committed. Callers
    /// that come while a round runs share the next one.
    pub async fn confirm(&self) -> bool {
        self.note_use();
        let asked_at = Instant::now();
        let mut confirmed = self.confirmed.lock().await;
        if confirmed.is_some_and(|began| began >= asked_at) {
            return true;
        }
        let began = Instant::now();
        let leads = self
            .raft
            .ensure_linearizable(ReadPolicy::ReadIndex)
            .await
            .is_ok();
        if leads {
            *confirmed = Some(began);
        }
        leads
    }

    /// Whether a write may find the lease lapsed. Never with one voter.
    pub fn lease_is_old(&self, voters: usize) -> bool {
        if voters <= 1 {
            return false;
        }
        let acked = self.raft.metrics().borrow_watched().last_quorum_acked;
        acked.is_none_or(|at| at.elapsed() > RENEW_AFTER)
    }

    /// Takes a snapshot, which the state machine makes at the boundary that it was told, and forgets the log up to it.
    pub async fn purge_to(&self, boundary: LogId, timeout: Duration) -> Result<(), io::Error> {
        self.raft
            .trigger()
            .snapshot()
            .await
            .map_err(io::Error::other)?;
        self.raft
            .wait(Some(timeout))
            .metrics(
                |metrics| metrics.snapshot.is_some_and(|last| last >= boundary),
                "snapshot at the boundary",
            )
            .await
            .map_err(io::Error::other)?;
        self.raft
            .trigger()
            .purge_log(boundary.index)
            .await
            .map_err(io::Error::other)
    }

    /// Waits until the log up to an entry is forgotten, or for so long.
    pub async fn wait_purged(&self, id: LogId, timeout: Duration) {
        let purged = self
            .raft
            .wait(Some(timeout))
            .metrics(
                |metrics| metrics.purged.is_some_and(|purged| purged >= id),
                "entries are forgotten",
            )
            .await;
        if let Err(error) = purged {
            tracing::debug!(%error, "entries stay until the next round");
        }
    }

    /// Voters that have everything but a little; only a leader knows.
    pub fn close(&self, lag_max: u64) -> Vec<ReplicaId> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let configs = metrics.membership_config.membership().get_joint_config();
        let votes = |replica: &ReplicaId| configs.iter().any(|config| config.contains(replica));
        members::near(&metrics, lag_max).filter(votes).collect()
    }

    /// The brokers that vote; while they change, those of before and those of after, each of which has to agree.
    pub fn voters(&self) -> Vec<BTreeSet<BrokerId>> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let configs = metrics.membership_config.membership().get_joint_config();
        let brokers = |config: &BTreeSet<ReplicaId>| config.iter().map(|it| it.broker).collect();
        configs.iter().map(brokers).collect()
    }

    /// Tells the other replicas what is committed, whether there is anything to send or not.
    pub async fn tell_committed(&self) {
        if let Err(error) = self.raft.trigger().heartbeat().await {
            tracing::debug!(%error, "not told");
        }
    }

    /// Index of the last entry, and the other voters, each with the last entry that it is known to have.
    pub fn followers(&self) -> (u64, Vec<(BrokerId, Option<u64>)>) {
        followers(&self.raft.metrics().borrow_watched())
    }

    /// Index of the last entry that a replica is known to have. Only a leader knows.
    pub fn last_of(&self, replica: &ReplicaId) -> Option<u64> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let matched = metrics.replication.as_ref()?;
        matched.get(replica)?.map(|id| id.index)
    }

    /// Waits until so many voters, this one among them, have an entry; false if this one leads no more, or not in time.
    pub async fn wait_held(&self, entry: EntryIndex, replicas: usize, timeout: Duration) -> bool {
        let leads = |metrics: &RaftMetrics<GroupTypes>| metrics.state == ServerState::Leader;
        let held = |metrics: &RaftMetrics<GroupTypes>| {
            let (_, followers) = followers(metrics);
            let has_it = |(_, matched): &(BrokerId, Option<u64>)| {
                matched.is_some_and(|at| codec::entry_index(at) >= entry)
            };
            followers.iter().filter(|it| has_it(it)).count() + 1 >= replicas
        };
        let wait = self.raft.wait(Some(timeout));
        let ended = |metrics: &RaftMetrics<GroupTypes>| !leads(metrics) || held(metrics);
        let metrics = wait.metrics(ended, "held by more replicas").await;
        metrics.is_ok_and(|metrics| leads(&metrics))
    }

    /// The last entry that all followers have which do not lack more than so many; of a follower the last of all.
    pub fn held_by_all(&self, lag_max: u64) -> EntryIndex {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let last = metrics.last_log_index.unwrap_or(0);
        let matched = metrics.replication.iter().flatten();
        let matched = matched.filter_map(|(_, id)| Some((*id)?.index));
        let near = matched.filter(|index| index.saturating_add(lag_max) >= last);
        codec::entry_index(near.min().unwrap_or(last))
    }

    /// The members, and those of them that have everything but a little; `None` while a change is not committed. Only a
    /// leader knows.
    pub fn standing(&self, lag_max: u64) -> Option<(Members, BTreeSet<ReplicaId>)> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let members = Members::committed(&metrics)?;
        Some((members, members::caught_up(&metrics, lag_max)))
    }

    /// Carries out a step of a reassignment and waits until it is committed.
    pub async fn carry_out(&self, step: Step) -> Result<(), io::Error> {
        let changed = match step {
            Step::Wait | Step::Done => return Ok(()),
            Step::HandOver(heir) => {
                self.hand_over(heir).await;
                return Ok(());
            }
            Step::AddLearner(replica) => self.raft.add_learner(replica, (), false).await,
            Step::ReplaceVoters(voters) => {
                let change = ChangeMembers::ReplaceAllVoters(voters);
                self.raft.change_membership(change, false).await
            }
            Step::RemoveLearner(replica) => {
                let change = ChangeMembers::RemoveNodes(BTreeSet::from([replica]));
                self.raft.change_membership(change, false).await
            }
        };
        changed.map(drop).map_err(io::Error::other)
    }

    /// Whether the group's task runs.
    pub fn is_running(&self) -> bool {
        self.raft.metrics().borrow_watched().running_state.is_ok()
    }

    /// Stops the group. Its state machine's task may outlive it, but leaves the log alone.
    pub async fn shutdown(&self) {
        *self.ended.lock().await = true;
        if let Err(error) = self.raft.shutdown().await {
            tracing::debug!(%error, "group task did not end by itself");
        }
    }
}

fn followers(metrics: &RaftMetrics<GroupTypes>) -> (u64, Vec<(BrokerId, Option<u64>)>) {
    let matched = metrics.replication.as_ref();
    let known = |replica: &ReplicaId| matched?.get(replica)?.map(|id| id.index);
    let voters = metrics.membership_config.voter_ids();
    let followers = voters
        .filter(|replica| *replica != metrics.id)
        .map(|replica| (replica.broker, known(&replica)));
    (metrics.last_log_index.unwrap_or(0), followers.collect())
}

/// Ends what a process that died had begun: either its log begins where the snapshot ends, and all that is missing is the
/// snapshot's place in the store, or it is as it was before.
async fn end_installation(log: &PartitionLog, state: &GroupStateStore) -> Result<(), io::Error> {
    let Some(bytes) = state.read_installing()? else {
        return Ok(());
    };
    let snapshot = codec::decode_snapshot(bytes.clone()).map_err(io::Error::other)?;
    if log.bounds().purged == snapshot.position.last {
        let checkpoint = snapshot.checkpoint().map_err(io::Error::other)?;
        return state.write_snapshot(bytes, Some(&checkpoint)).await;
    }
    state.forget_installing().await
}

/// The last snapshot, if it is of use. Under `os` a power loss may have taken the end of the log, and left a snapshot of
/// it. With what the log still has the group goes on; with the snapshot it would need records before anyone can give them.
async fn last_snapshot(
    log: &PartitionLog,
    state: &GroupStateStore,
) -> Result<Option<PartitionSnapshot>, io::Error> {
    let Some(bytes) = state.read_snapshot()? else {
        return Ok(None);
    };
    let snapshot = codec::decode_snapshot(bytes).map_err(io::Error::other)?;
    if snapshot.needs_records() && snapshot.position.last.index > log.bounds().last.index {
        state.forget_snapshot().await?;
        return Ok(None);
    }
    Ok(Some(snapshot))
}

/// Where the state machine of a group starts, and the membership before that if it may be needed. Under `os` a power
/// loss may have taken entries that were applied: what is left counts.
fn start_point(
    log: &PartitionLog,
    state: &GroupStateStore,
    snapshot: Option<PartitionSnapshot>,
) -> Result<Option<(Checkpoint, Option<crate::raft::types::StoredMembership>)>, io::Error> {
    let Some(mut checkpoint) = state.read_checkpoint()? else {
        return Ok(None);
    };
    if log.bounds().last.index == EntryIndex(0) {
        return Ok(None);
    }
    // A checkpoint that was saved later may be from before the snapshot; openraft would take the log for one that
    // lacks what the snapshot has, and reset it.
    if let Some(snapshot) = &snapshot
        && let Some(last) = codec::log_id(snapshot.position.last)
        && last.index > checkpoint.applied.index
        && log.entry_id(snapshot.position.last.index) == Some(snapshot.position.last)
    {
        checkpoint.applied = last;
        let next_offset = snapshot.position.next_offset;
        checkpoint.high_watermark = checkpoint.high_watermark.max(next_offset);
    }
    clip(log, &mut checkpoint)?;
    Ok(Some((checkpoint, snapshot.map(|it| it.membership))))
}

/// Takes a checkpoint back to the last entry of its history that the log still holds. Entries of a later term may stand
/// in the place of those that were lost, so that indexes alone say nothing.
fn clip(log: &PartitionLog, checkpoint: &mut Checkpoint) -> Result<(), io::Error> {
    let applied = codec::entry_id(&checkpoint.applied).map_err(io::Error::other)?;
    if log.entry_id(applied.index) == Some(applied) {
        return Ok(());
    }
    let bounds = log.bounds();
    if applied.index < bounds.purged.index {
        // A snapshot holds what was purged.
        return Ok(());
    }
    let starts = log.epoch_starts();
    let later = starts.iter().find(|(first, _)| first.epoch > applied.epoch);
    let (end, next_offset) = match later {
        Some((first, offset)) => (EntryIndex(first.index.0.saturating_sub(1)), *offset),
        None => (bounds.last.index, bounds.log_end),
    };
    let end = end.min(applied.index);
    let last = log.entry_id(end).and_then(codec::log_id);
    let last = last.ok_or_else(|| io::Error::other("the log holds nothing of what was applied"))?;
    checkpoint.applied = last;
    checkpoint.high_watermark = checkpoint.high_watermark.min(next_offset);
    Ok(())
}

#[cfg(test)]
mod tests;
