//! The partition log as openraft's log, and the group's votes.
//!
//! Entries are handed to the log in openraft's order, from its core task alone; whoever reads while that happens gets
//! whole entries. Openraft counts entries from 0, the log from 1.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds, RangeInclusive};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures_util::{Stream, StreamExt, stream};
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{EntryPayload, LogState, Membership, OptionalSend, RaftLogReader};
use parking_lot::Mutex;
use tidelog_storage::log::{
    EntryBody, EntryHeader, EntryIndex, LogEntry, LogError, LogPosition, PartitionLog,
    ProducerStateTable, Stamping,
};
use tokio::sync::Notify;

use super::codec::{self, Checkpoint, encode_opaque, entry_id, entry_index};
use super::state_store::{GroupStateStore, VOTE_MISSING, must_have_voted};
use super::types::{Entry, GroupCommand, GroupTypes, LogId, ReplicaId, Vote, epoch_of};
use crate::limits::{APPLY_HEADERS_MAX, REPLICATION_READ_BYTES_MAX};
use crate::partition::append::Acks;
use crate::partition::submission::Submission;

/// What a group's owner is told by its log. Called from openraft's core task; must not block.
pub trait GroupEvents: Debug + Send + Sync + 'static {
    /// The vote changed and is durable. A committed vote names the leader of its term.
    fn vote_changed(&self, vote: &Vote);
    /// Entries came from the leader that this vote names. Of interest to those who give up a leader that may be gone before
    /// there is another.
    fn leader_wrote(&self, _vote: &Vote) {}
    /// The log failed: the group stops.
    fn failed(&self, error: &LogError);
}

/// Log and votes of one group. Clones are the same log.
#[derive(Clone, Debug)]
pub struct GroupLog {
    inner: Arc<GroupLogInner>,
}

#[derive(Debug)]
struct GroupLogInner {
    log: Arc<PartitionLog>,
    state: GroupStateStore,
    me: ReplicaId,
    events: Arc<dyn GroupEvents>,
    vote: Mutex<Option<Vote>>,
    checkpoint: Option<Checkpoint>,
    /// Entries after this one were appended by this process and are at hand.
    opened_at: EntryIndex,
    appends: Arc<AppendsUnderWay>,
}

/// Appends that are not durable yet.
#[derive(Debug, Default)]
struct AppendsUnderWay {
    count: AtomicUsize,
    failed: AtomicBool,
    ended: Notify,
}

impl AppendsUnderWay {
    fn begin(&self) {
        self.count.fetch_add(1, Ordering::AcqRel);
    }

    fn end(&self, durable: bool) {
        if !durable {
            self.failed.store(true, Ordering::Release);
        }
        if self.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.ended.notify_waiters();
        }
    }

    /// Waits until there are none. Says whether all of them, ever, became durable.
    async fn all_durable(&self) -> bool {
        loop {
            let ended = self.ended.notified();
            if self.count.load(Ordering::Acquire) == 0 {
                return !self.failed.load(Ordering::Acquire);
            }
            ended.await;
        }
    }
}

impl GroupLog {
    /// The log of a group that starts. `checkpoint` is where its state machine starts.
    pub fn open(
        log: Arc<PartitionLog>,
        state: GroupStateStore,
        me: ReplicaId,
        events: Arc<dyn GroupEvents>,
        checkpoint: Option<Checkpoint>,
    ) -> Result<GroupLog, io::Error> {
        // The first message of a leader, not the vote of an earlier run, says that it leads: its followers hear of it by the
        // vote that is saved then.
        let vote = state.read_vote()?.map(uncommitted);
        let opened_at = log.bounds().last.index;
        if vote.is_none() && must_have_voted(opened_at) {
            return Err(invalid(VOTE_MISSING));
        }
        let vote = Mutex::new(vote);
        Ok(GroupLog {
            inner: Arc::new(GroupLogInner {
                log,
                state,
                me,
                events,
                vote,
                checkpoint,
                opened_at,
                appends: Arc::default(),
            }),
        })
    }

    /// The vote for this replica counts as committed, as it did before the group slept: this replica leads.
    pub fn lead_on(&self) {
        if let Some(vote) = self.inner.vote.lock().as_mut() {
            vote.committed |= vote.leader_id.voted_for == self.inner.me;
        }
    }

    /// Tells a group that has no entry yet its members; says whether it did. All of them write the same, whether they have
    /// voted or not, and no vote is saved before it: were it left to the leader, those that voted for one that is gone
    /// before it told them could neither elect another nor begin anew.
    pub async fn found(&self, members: &[ReplicaId]) -> Result<bool, io::Error> {
        if members.is_empty() || self.inner.log.bounds().last.index.0 > 0 {
            return Ok(false);
        }
        let members: BTreeMap<ReplicaId, ()> = members.iter().map(|it| (*it, ())).collect();
        let first = Entry {
            log_id: LogId::new_term_index(0, 0),
            payload: EntryPayload::Membership(Membership::from(members)),
        };
        self.clone().append([first], IOFlushed::noop()).await?;
        Ok(true)
    }

    /// Whether the group has neither voted nor written: it must be told its members.
    pub fn is_pristine(&self) -> bool {
        self.inner.vote.lock().is_none() && self.inner.log.bounds().last.index.0 == 0
    }

    fn fail(&self, error: LogError) -> io::Error {
        self.inner.events.failed(&error);
        io::Error::other(error)
    }

    fn leads(&self) -> bool {
        self.inner
            .vote
            .lock()
            .as_ref()
            .is_some_and(|vote| vote.leader_id.voted_for == self.inner.me)
    }

    /// The vote for the leader that this replica follows.
    fn followed(&self) -> Option<Vote> {
        let vote = *self.inner.vote.lock();
        vote.filter(|vote| vote.committed && vote.leader_id.voted_for != self.inner.me)
    }

    async fn headers(&self, from: u64, until: u64) -> Result<Vec<Entry>, io::Error> {
        let (from, until) = (entry_index(from), entry_index(until));
        let headers = if from > self.inner.opened_at {
            self.inner.log.headers(from, until, APPLY_HEADERS_MAX)
        } else {
            let log = self.inner.log.clone();
            blocking(move || log.headers(from, until, APPLY_HEADERS_MAX)).await
        };
        let headers = headers.map_err(|error| self.fail(error))?;
        headers.into_iter().map(header_entry).collect()
    }
}

/// Runs a read that may touch the disk away from the runtime's threads.
pub async fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, LogError> + Send + 'static,
) -> Result<T, LogError> {
    tokio::task::spawn_blocking(read)
        .await
        .unwrap_or_else(|error| Err(LogError::Io(Arc::from(format!("read task: {error}")))))
}

fn header_entry(header: EntryHeader) -> Result<Entry, io::Error> {
    let log_id = codec::log_id(header.id).ok_or_else(|| invalid("entry 0"))?;
    let payload = match header.opaque {
        Some((tag, bytes)) => codec::decode_opaque(tag, bytes).map_err(invalid)?,
        None => {
            let next_offset = header.base_offset.0 + i64::from(header.record_count);
            EntryPayload::Normal(GroupCommand::BatchHeader {
                next_offset: tidelog_protocol::types::Offset(next_offset),
            })
        }
    };
    Ok(Entry { log_id, payload })
}

fn full_entry(entry: LogEntry) -> Result<Entry, io::Error> {
    let log_id = codec::log_id(entry.id).ok_or_else(|| invalid("entry 0"))?;
    let payload = match entry.body {
        EntryBody::Batch(batch) => EntryPayload::Normal(GroupCommand::Batch {
            batch,
            submission: None,
        }),
        EntryBody::Opaque { tag, bytes } => codec::decode_opaque(tag, bytes).map_err(invalid)?,
    };
    Ok(Entry { log_id, payload })
}

fn uncommitted(vote: Vote) -> Vote {
    Vote {
        committed: false,
        ..vote
    }
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// The half-open form of a range of indexes; an open end is `end`.
fn half_open(range: &impl RangeBounds<u64>, end: u64) -> (u64, u64) {
    let from = match range.start_bound() {
        Bound::Included(from) => *from,
        Bound::Excluded(before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let until = match range.end_bound() {
        Bound::Included(last) => last.saturating_add(1),
        Bound::Excluded(until) => *until,
        Bound::Unbounded => end,
    };
    (from, until.min(end))
}

/// A run of entries on its way into the log.
struct Run {
    entries: Vec<LogEntry>,
    submissions: Vec<(usize, Arc<Submission>)>,
    /// The last submission of the run, void or not.
    last: Option<Arc<Submission>>,
}

impl Run {
    fn of(entries: impl IntoIterator<Item = Entry>) -> Result<Run, io::Error> {
        let mut run = Run {
            entries: Vec::new(),
            submissions: Vec::new(),
            last: None,
        };
        for entry in entries {
            run.push(entry)?;
        }
        Ok(run)
    }

    fn push(&mut self, entry: Entry) -> Result<(), io::Error> {
        let id = entry_id(&entry.log_id).map_err(invalid)?;
        let body = match entry.payload {
            EntryPayload::Normal(GroupCommand::Batch { batch, submission }) => match submission {
                // A batch behind one that was refused would leave a gap in its producer's sequence.
                Some(submission) if !submission.admit() => {
                    self.last = Some(submission);
                    let (tag, bytes) = encode_opaque(&EntryPayload::Normal(GroupCommand::Void));
                    EntryBody::Opaque { tag, bytes }
                }
                submission => {
                    let position = self.entries.len();
                    self.last = submission.clone().or(self.last.take());
                    self.submissions
                        .extend(submission.map(|submission| (position, submission)));
                    EntryBody::Batch(batch)
                }
            },
            payload => {
                let (tag, bytes) = encode_opaque(&payload);
                EntryBody::Opaque { tag, bytes }
            }
        };
        self.entries.push(LogEntry {
            id,
            origin: None,
            flags: 0,
            aux: bytes::Bytes::new(),
            body,
        });
        Ok(())
    }
}

impl RaftLogReader<GroupTypes> for GroupLog {
    /// Headers only: what is read this way is applied, and applying needs no records.
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let (mut from, until) = half_open(&range, self.inner.log.bounds().last.index.0);
        let mut entries = Vec::new();
        while from < until {
            let read = self.headers(from, until).await?;
            if read.is_empty() {
                break;
            }
            from += read.len() as u64;
            entries.extend(read);
        }
        Ok(entries)
    }

    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = Result<Entry, io::Error>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (from, until) = half_open(&range, self.inner.log.bounds().last.index.0);
        let log = self.clone();
        let chunks = stream::unfold(from, move |from| {
            let log = log.clone();
            async move {
                if from >= until {
                    return None;
                }
                let (items, next) = match log.headers(from, until).await {
                    Ok(entries) if entries.is_empty() => return None,
                    Ok(entries) => {
                        let next = from + entries.len() as u64;
                        (entries.into_iter().map(Ok).collect(), next)
                    }
                    Err(error) => (vec![Err(error)], until),
                };
                Some((stream::iter(items), next))
            }
        });
        Box::pin(chunks.flatten())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(*self.inner.vote.lock())
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, io::Error> {
        let log = self.inner.log.clone();
        let (from, until) = (entry_index(start), entry_index(end));
        // A follower that keeps up takes what was just appended: another thread would cost more than all the rest.
        let entries = match log.resident_entries(from, until, REPLICATION_READ_BYTES_MAX) {
            Some(resident) => Ok(resident),
            None => blocking(move || log.entries(from, until, REPLICATION_READ_BYTES_MAX)).await,
        };
        entries
            .map_err(|error| self.fail(error))?
            .into_iter()
            .map(full_entry)
            .collect()
    }

    /// The last entry of each term within the range: openraft's index of terms.
    async fn get_key_log_ids(
        &mut self,
        range: RangeInclusive<LogId>,
    ) -> Result<Vec<LogId>, io::Error> {
        let (first, last) = range.into_inner();
        let starts: Vec<LogId> = self
            .inner
            .log
            .epoch_starts()
            .into_iter()
            .filter_map(|(id, _)| codec::log_id(id))
            .collect();
        Ok(last_of_each_term(&starts, first, last))
    }
}

/// From the first entry of each term to the last entry of each term within `first..=last`.
fn last_of_each_term(starts: &[LogId], first: LogId, last: LogId) -> Vec<LogId> {
    let mut ids: Vec<LogId> = starts
        .iter()
        .zip(starts.iter().skip(1))
        .filter_map(|(term, next)| {
            Some(LogId::new_term_index(
                term.leader_id.term,
                next.index.checked_sub(1)?,
            ))
        })
        .filter(|id| {
            id.index >= first.index && id.index < last.index && id.leader_id < last.leader_id
        })
        .collect();
    ids.push(last);
    ids
}

impl RaftLogStorage<GroupTypes> for GroupLog {
    type LogReader = GroupLog;

    async fn get_log_state(&mut self) -> Result<LogState<GroupTypes>, io::Error> {
        let bounds = self.inner.log.bounds();
        Ok(LogState {
            last_purged_log_id: codec::log_id(bounds.purged),
            last_log_id: codec::log_id(bounds.last),
        })
    }

    async fn get_log_reader(&mut self) -> GroupLog {
        self.clone()
    }

    /// Durable after every entry that was appended before it: a new group's vote without its first membership would be
    /// a group that can neither elect nor be told its members.
    ///
    /// A committed vote whose uncommitted form is saved is not saved again: after a restart it counts as uncommitted
    /// in any case.
    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        if epoch_of(vote.leader_id.term).is_none() {
            let error = LogError::Io(Arc::from(format!(
                "term {} is beyond any leader epoch",
                vote.leader_id.term
            )));
            return Err(self.fail(error));
        }
        let saved = *self.inner.vote.lock();
        let known = saved.is_some_and(|saved| saved.leader_id == vote.leader_id);
        if !known {
            if !self.inner.appends.all_durable().await {
                return Err(invalid("entries before the vote were not stored"));
            }
            let written = self.inner.state.write_vote(vote).await;
            written.map_err(|error| self.fail(LogError::Io(Arc::from(error.to_string()))))?;
        }
        *self.inner.vote.lock() = Some(*vote);
        self.inner.events.vote_changed(vote);
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self
            .inner
            .checkpoint
            .as_ref()
            .map(|checkpoint| checkpoint.applied))
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: IOFlushed<GroupTypes>,
    ) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let Run {
            entries,
            submissions,
            last,
        } = Run::of(entries)?;
        let stamping = if self.leads() {
            Stamping::Leader
        } else {
            Stamping::Follower
        };
        let waiting: Vec<Arc<Submission>> = submissions
            .iter()
            .filter(|(_, submission)| submission.acks() == Acks::Leader)
            .map(|(_, submission)| submission.clone())
            .collect();
        let events = self.inner.events.clone();
        let appends = self.inner.appends.clone();
        let done = Box::new(move |result: Result<(), LogError>| {
            appends.end(result.is_ok());
            match &result {
                Ok(()) => waiting.iter().for_each(|submission| submission.durable()),
                Err(error) => events.failed(error),
            }
            callback.io_completed(result.map_err(io::Error::other));
        });
        self.inner.appends.begin();
        let appended = self.inner.log.append(entries, stamping, done).await;
        let offsets = appended.map_err(|error| {
            // What was not taken is not told to be done.
            self.inner.appends.end(false);
            self.fail(error)
        })?;
        for (position, submission) in &submissions {
            if offsets.get(*position) != Some(&submission.base_offset()) {
                return Err(self.fail(LogError::Io(Arc::from(
                    "a batch was not appended where it was placed",
                ))));
            }
        }
        if let Some(last) = last {
            last.appended();
        }
        if let Some(vote) = self.followed() {
            self.inner.events.leader_wrote(&vote);
        }
        Ok(())
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        let last = last_log_id.map_or(EntryIndex(0), |id| entry_index(id.index));
        self.inner
            .log
            .truncate_after(last)
            .await
            .map_err(|error| self.fail(error))
    }

    /// Beyond the log's end, as after a snapshot that brought more than the log holds, it begins anew there.
    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        let log = &self.inner.log;
        let bounds = log.bounds();
        let purged = if entry_index(log_id.index) > bounds.last.index {
            let last = entry_id(&log_id).map_err(io::Error::other)?;
            log.reset(LogPosition {
                last,
                next_offset: bounds.log_end,
                log_start: bounds.log_end,
                producers: ProducerStateTable::default(),
            })
            .await
        } else {
            log.forget_to(entry_index(log_id.index)).await
        };
        purged.map_err(|error| self.fail(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(term: u64, index: u64) -> LogId {
        LogId::new_term_index(term, index)
    }

    #[test]
    fn the_last_entry_of_each_term_is_named() {
        let starts = [id(0, 0), id(1, 1), id(4, 10), id(6, 11)];
        let all = last_of_each_term(&starts, id(0, 0), id(6, 30));
        assert_eq!(all, [id(0, 0), id(1, 9), id(4, 10), id(6, 30)]);
        assert_eq!(
            last_of_each_term(&starts, id(1, 5), id(4, 10)),
            [id(1, 9), id(4, 10)]
        );
        assert_eq!(
            last_of_each_term(&starts, id(6, 20), id(6, 30)),
            [id(6, 30)]
        );
        assert_eq!(
            last_of_each_term(&starts[..1], id(0, 0), id(0, 0)),
            [id(0, 0)]
        );
    }

    #[test]
    fn ranges_become_half_open_and_end_with_the_log() {
        assert_eq!(half_open(&(3..7), 100), (3, 7));
        assert_eq!(half_open(&(3..=7), 100), (3, 8));
        assert_eq!(half_open(&(3..), 5), (3, 5));
        assert_eq!(half_open(&(..), 5), (0, 5));
        assert_eq!(half_open(&(3..9), 5), (3, 5));
    }
}
