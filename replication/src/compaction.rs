//! Which partition is compacted next, and by how many tasks.
//!
//! As Kafka: what is overdue first, then the log with the largest share that was not looked at. Invariant: no
//! partition is compacted by two tasks at once.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidelog_storage::log::{Cleanable, CleanerPace, LogError, LogId};

use crate::hosted::HostedPartitions;
use crate::options::CompactionOptions;
use crate::partition::Partition;
use crate::tasks::Task;

/// What the tasks share.
#[derive(Debug)]
struct Compactor {
    hosted: Arc<HostedPartitions>,
    pace: Arc<CleanerPace>,
    backoff: Duration,
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

/// The tasks that compact.
pub fn tasks(hosted: &Arc<HostedPartitions>, options: &CompactionOptions) -> Vec<Task> {
    let threads = options.threads as u64;
    let map_bytes_max = options.map_bytes_max / threads.max(1);
    let compactor = Arc::new(Compactor {
        hosted: hosted.clone(),
        pace: Arc::new(CleanerPace::new(map_bytes_max, options.bytes_per_second)),
        backoff: options.backoff.max(Duration::from_millis(1)),
        logs: Mutex::default(),
    });
    let task = |_| -> Task { Box::pin(compactor.clone().run()) };
    (0..options.threads).map(task).collect()
}

impl Compactor {
    async fn run(self: Arc<Self>) {
        loop {
            match self.pick().await {
                Some((partition, found)) => self.compact(&partition, found).await,
                None => {
                    tokio::time::sleep(self.backoff).await;
                    self.logs.lock().resting.clear();
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
        match partition.compact(found, self.pace.clone()).await {
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
