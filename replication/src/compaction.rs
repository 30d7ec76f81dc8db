//! Which partition is compacted next, and by how many tasks.
//!
//! As Kafka: what is overdue first, then the log with the largest share that was not looked at. Changed settings count
//! at once, but for a pass that runs: it ends with the map that it has. Invariant: no partition is compacted by two
//! tasks at once.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tidelog_storage::log::{Cleanable, CleanerPace, LogError, LogId};
use tokio::task::JoinSet;

use crate::hosted::HostedPartitions;
use crate::options::CompactionOptions;
use crate::partition::Partition;

/// What the tasks share.
#[derive(Debug)]
struct Compactor {
    hosted: Arc<HostedPartitions>,
    pace: Arc<CleanerPace>,
    /// Tasks that compact.
    running: AtomicUsize,
    logs: Mutex<Logs>,
}

#[derive(Debug, Default)]
struct Logs {
    /// Being compacted.
    busy: HashSet<LogId>,
    /// Not before the next pause: the last pass got nowhere.
    resting: HashSet<LogId>,
    /// Damaged: not before the next start.
    uncleanable: HashSet<LogId>,
}

/// Compacts what needs it, by as many tasks as are configured.
pub async fn compact(hosted: Arc<HostedPartitions>) {
    let mut changes = hosted.settings_changes();
    let compactor = Arc::new(Compactor {
        hosted,
        pace: Arc::default(),
        running: AtomicUsize::new(0),
        logs: Mutex::default(),
    });
    // They end with this task.
    let mut tasks = JoinSet::new();
    loop {
        let options = compactor.take_settings();
        while compactor.running.load(Ordering::Acquire) < options.threads {
            compactor.running.fetch_add(1, Ordering::AcqRel);
            tasks.spawn(compactor.clone().run());
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            Some(ended) = tasks.join_next() => if let Err(error) = ended {
                tracing::error!(%error, "a task that compacts failed; another one takes its place");
                compactor.running.fetch_sub(1, Ordering::AcqRel);
                tokio::time::sleep(options.backoff).await;
            },
        }
    }
}

impl Compactor {
    /// The settings in force, which the passes follow from here on.
    fn take_settings(&self) -> CompactionOptions {
        let mut options = self.hosted.compaction();
        options.backoff = options.backoff.max(Duration::from_millis(1));
        let map_bytes_max = options.map_bytes_max / options.threads.max(1) as u64;
        self.pace.set(map_bytes_max, options.bytes_per_second);
        options
    }

    /// Whether one task fewer is enough; it is counted out then.
    fn is_too_many(&self, threads: usize) -> bool {
        let fewer = |running: usize| running.checked_sub(1).filter(|_| running > threads);
        (self.running)
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, fewer)
            .is_ok()
    }

    async fn run(self: Arc<Self>) {
        let mut changes = self.hosted.settings_changes();
        loop {
            changes.mark_unchanged();
            let options = self.take_settings();
            if self.is_too_many(options.threads) {
                return;
            }
            match self.pick().await {
                Some((partition, found)) => self.compact(&partition, found).await,
                None => {
                    let paused = tokio::time::timeout(options.backoff, changes.changed()).await;
                    if paused.is_err() {
                        self.logs.lock().resting.clear();
                    }
                }
            }
        }
    }

    /// The partition that needs it most; it is marked as busy.
    async fn pick(&self) -> Option<(Arc<Partition>, Cleanable)> {
        let mut best: Option<(Arc<Partition>, Cleanable)> = None;
        for partition in self.hosted.compacted() {
            if self.logs.lock().leave_alone(partition.log().id()) {
                continue;
            }
            let found = match partition.cleanable().await {
                Ok(Some(found)) => found,
                Ok(None) => continue,
                Err(error) => {
                    self.failed(&partition, &error);
                    continue;
                }
            };
            let rank = |found: &Cleanable| (found.overdue, found.dirty_ratio());
            if best
                .as_ref()
                .is_none_or(|(_, best)| rank(&found) > rank(best))
            {
                best = Some((partition, found));
            }
        }
        let (partition, found) = best?;
        let mut logs = self.logs.lock();
        // Another task may have been faster; then there is more to pick from in the next round.
        let mine =
            !logs.leave_alone(partition.log().id()) && logs.busy.insert(partition.log().id());
        mine.then_some((partition, found))
    }

    async fn compact(&self, partition: &Partition, found: Cleanable) {
        let id = partition.log().id();
        let follower_lag_max = self.hosted.compaction().follower_lag_max;
        match partition
            .compact(found, self.pace.clone(), follower_lag_max)
            .await
        {
            Ok(stats) => {
                if stats.records_read == 0 {
                    self.logs.lock().resting.insert(id);
                }
                tracing::debug!(
                    partition = %partition.name(),
                    upto = found.upto.0,
                    bytes_before = stats.bytes_before,
                    bytes_after = stats.bytes_after,
                    records_read = stats.records_read,
                    records_kept = stats.records_kept,
                    "compacted"
                );
            }
            Err(error) => self.failed(partition, &error),
        }
        self.logs.lock().busy.remove(&id);
    }

    fn failed(&self, partition: &Partition, error: &LogError) {
        let mut logs = self.logs.lock();
        let id = partition.log().id();
        match error {
            LogError::Removed | LogError::Stopped(_) => {}
            LogError::Corrupt { .. } => {
                logs.uncleanable.insert(id);
                tracing::error!(partition = %partition.name(), %error, "damaged log is not compacted any more");
            }
            _ => {
                tracing::warn!(partition = %partition.name(), %error, "not compacted, tried again later")
            }
        }
        logs.resting.insert(id);
        metrics::counter!("tidelog_compaction_failures_total").increment(1);
        metrics::gauge!("tidelog_compaction_uncleanable_partitions")
            .set(logs.uncleanable.len() as f64);
    }
}

impl Drop for Compactor {
    /// A pass runs beside the runtime and would go on without its task.
    fn drop(&mut self) {
        self.pace.stop();
    }
}

impl Logs {
    fn leave_alone(&self, id: LogId) -> bool {
        self.busy.contains(&id) || self.resting.contains(&id) || self.uncleanable.contains(&id)
    }
}
