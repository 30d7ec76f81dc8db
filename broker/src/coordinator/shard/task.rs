//! The task of a shard: load, then serve until it is told to stop.
//!
//! One append is on its way at a time; what comes meanwhile goes out together with the next. Sleeps until the next
//! deadline of any group: nothing polls.

use std::sync::Arc;
use std::time::Duration;

use tidelog_protocol::limits;
use tidelog_protocol::types::Offset;
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until};

use super::batch::{self, GatheredBatch};
use super::clock::Clock;
use super::groups::Groups;
use super::handle::{ShardStart, ShardStatus, StatusCell};
use super::load::{Loaded, load_blocking};
use super::request::ShardRequest;
use super::snapshot;
use crate::coordinator::group::{AppendId, Event, GroupError, GroupId};
use crate::coordinator::offsets_log::{AppendFailure, LogFuture, ReadFailure};

/// Records after which a snapshot is worth writing, if they are also more than it would hold: writing snapshots
/// then costs as much as writing the log, at most.
const SNAPSHOT_RECORDS_MIN: usize = 10_000;

/// Pause before a shard whose append has an unknown fate reads its log again.
const RELOAD_PAUSE: Duration = Duration::from_millis(100);

/// See the module.
pub(super) struct ShardTask {
    start: ShardStart,
    mailbox: mpsc::Receiver<ShardRequest>,
    stopped: oneshot::Receiver<GroupError>,
    status: Arc<StatusCell>,
    clock: Clock,
}

/// Why serving ended.
enum End {
    Stop(GroupError),
    Reload,
}

/// A shard that serves.
struct Serving {
    groups: Groups,
    next_offset: Offset,
    /// The append that is on its way, and whose changes are in it.
    append: Option<LogFuture<Result<Offset, AppendFailure>>>,
    changes: Vec<(GroupId, AppendId)>,
    /// Records in the log that the last snapshot does not hold.
    unsaved: usize,
    /// Records that the last snapshot holds.
    saved: usize,
    next_expiry: Instant,
}

impl ShardTask {
    pub(super) fn new(
        start: ShardStart,
        mailbox: mpsc::Receiver<ShardRequest>,
        stopped: oneshot::Receiver<GroupError>,
        status: Arc<StatusCell>,
    ) -> ShardTask {
        ShardTask {
            start,
            mailbox,
            stopped,
            status,
            clock: Clock::start(),
        }
    }

    pub(super) async fn run(mut self) {
        loop {
            self.status.set(ShardStatus::Loading);
            let loaded = tokio::select! {
                _ = &mut self.stopped => return self.status.set(ShardStatus::Stopped),
                loaded = load(&self.start) => loaded,
            };
            match loaded {
                Ok(loaded) => {
                    let mut serving = self.begin(loaded);
                    match self.serve(&mut serving).await {
                        End::Stop(reason) => return self.end(serving, reason).await,
                        End::Reload => serving
                            .groups
                            .unload(GroupError::NotCoordinator, self.clock.now()),
                    }
                    tokio::time::sleep(RELOAD_PAUSE).await;
                }
                Err(ReadFailure::NotLeader) => return self.status.set(ShardStatus::Stopped),
                Err(ReadFailure::Failed(reason)) => {
                    tracing::error!(partition = %self.start.name, %reason, "groups cannot be loaded");
                    return self.status.set(ShardStatus::Failed);
                }
            }
        }
    }

    fn begin(&self, loaded: Loaded) -> Serving {
        let Loaded {
            mut groups,
            next_offset,
            replayed,
        } = loaded;
        let now = self.clock.now();
        groups.loaded(now);
        let missing = self.start.topics.note(groups.topics().into_iter());
        if !missing.is_empty() {
            groups.handle(ShardRequest::TopicsDeleted(Arc::new(missing)), now);
        }
        tracing::debug!(partition = %self.start.name, offset = next_offset.0, replayed, "groups loaded");
        self.status.set(ShardStatus::Serving);
        Serving {
            groups,
            next_offset,
            append: None,
            changes: Vec::new(),
            unsaved: replayed,
            saved: 0,
            next_expiry: Instant::now() + self.start.retention_check_interval,
        }
    }

    async fn serve(&mut self, serving: &mut Serving) -> End {
        loop {
            self.begin_append(serving);
            self.maybe_save(serving);
            let wake = serving
                .groups
                .next_wake()
                .map_or(serving.next_expiry, |at| self.clock.instant(at));
            tokio::select! {
                biased;
                reason = &mut self.stopped => {
                    return End::Stop(reason.unwrap_or(GroupError::CoordinatorNotAvailable));
                }
                outcome = arrival(&mut serving.append) => {
                    if let Some(end) = self.arrived(serving, outcome) {
                        return end;
                    }
                }
                () = sleep_until(wake.min(serving.next_expiry)) => self.wake(serving),
                request = self.mailbox.recv() => match request {
                    Some(request) => self.handle(serving, request),
                    None => return End::Stop(GroupError::CoordinatorNotAvailable),
                },
            }
        }
    }

    /// Handles a request and those that wait behind it, so that their appends go out together.
    fn handle(&mut self, serving: &mut Serving, first: ShardRequest) {
        let now = self.clock.now();
        serving.groups.handle(first, now);
        for _ in 1..limits::COORDINATOR_TURN_MAX {
            match self.mailbox.try_recv() {
                Ok(request) => serving.groups.handle(request, now),
                Err(_) => return,
            }
        }
    }

    fn wake(&self, serving: &mut Serving) {
        let now = self.clock.now();
        serving.groups.wake(now);
        if serving.next_expiry <= Instant::now() {
            serving.next_expiry = Instant::now() + self.start.retention_check_interval;
            serving.groups.step_all(&Event::ExpireOffsets, now);
        }
    }

    fn begin_append(&self, serving: &mut Serving) {
        while serving.append.is_none() {
            let now = self.clock.now();
            let Some(GatheredBatch { batch, changes }) =
                batch::gather(serving.groups.changes_mut(), now.wall)
            else {
                return;
            };
            match batch {
                Ok(batch) => {
                    serving.unsaved += usize::try_from(batch.record_count()).unwrap_or(0);
                    serving.append = Some(self.start.log.append(batch));
                    serving.changes = changes;
                }
                Err(error) => {
                    tracing::error!(partition = %self.start.name, %error, "a batch of groups cannot be built");
                    for (group, append) in changes {
                        serving.groups.appended(
                            &group,
                            append,
                            Err(GroupError::StorageFailed),
                            now,
                        );
                    }
                }
            }
        }
    }

    /// The append on its way has arrived.
    fn arrived(
        &self,
        serving: &mut Serving,
        outcome: Result<Offset, AppendFailure>,
    ) -> Option<End> {
        serving.append = None;
        let outcome = match outcome {
            Ok(next_offset) => {
                serving.next_offset = next_offset;
                Ok(())
            }
            Err(AppendFailure::Refused(error)) => Err(error),
            Err(AppendFailure::Unknown) => return Some(End::Reload),
        };
        let now = self.clock.now();
        for (group, append) in std::mem::take(&mut serving.changes) {
            serving.groups.appended(&group, append, outcome, now);
        }
        None
    }

    fn maybe_save(&self, serving: &mut Serving) {
        if serving.unsaved >= SNAPSHOT_RECORDS_MIN.max(serving.saved) {
            self.save(serving, None);
        }
    }

    /// Writes a snapshot; the sender is dropped once it is stored, or could not be.
    fn save(&self, serving: &mut Serving, done: Option<oneshot::Sender<()>>) {
        let (writes, count) =
            snapshot::write(self.start.log.id(), serving.next_offset, &serving.groups);
        serving.unsaved = 0;
        serving.saved = count;
        let partition = self.start.name.clone();
        // A coordinator that finds an older one reads more of the log.
        self.start.store.write(
            writes,
            None,
            Box::new(move |outcome| {
                if let Err(error) = outcome {
                    tracing::warn!(%partition, %error, "coordinator snapshot was not written");
                }
                drop(done);
            }),
        );
    }

    /// What was decided is in the log or answered with the reason; the next coordinator goes on from there.
    async fn end(self, mut serving: Serving, reason: GroupError) {
        self.status.set(ShardStatus::Stopped);
        let arrived = match serving.append.take() {
            Some(append) => {
                let outcome = append.await;
                self.arrived(&mut serving, outcome).is_none()
            }
            None => true,
        };
        if arrived && serving.unsaved > 0 {
            let (done, stored) = oneshot::channel();
            self.save(&mut serving, Some(done));
            // The sender is dropped, never used.
            drop(stored.await);
        }
        let now = self.clock.now();
        serving.groups.unload(reason, now);
    }
}

async fn load(start: &ShardStart) -> Result<Loaded, ReadFailure> {
    let range = start.log.ready().await?;
    let ShardStart {
        log,
        store,
        settings,
        ..
    } = start.clone();
    let loaded = spawn_blocking(move || load_blocking(&*log, &*store, &settings, range)).await;
    loaded.unwrap_or_else(|error| Err(ReadFailure::Failed(error.to_string())))
}

/// Resolves when the append on its way does; never if none is.
async fn arrival(
    append: &mut Option<LogFuture<Result<Offset, AppendFailure>>>,
) -> Result<Offset, AppendFailure> {
    match append {
        Some(append) => append.await,
        None => std::future::pending().await,
    }
}
