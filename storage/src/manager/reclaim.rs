//! Making journal files unnecessary: the oldest file drives the syncs of segments.
//!
//! One log after the other, so that the journal's own syncs are not stalled by a hundred others at once. A log that
//! cannot be synced is named to the journal, which keeps its frames aside.

use std::sync::{Arc, Weak};

use super::LogManager;
use crate::journal::{FileGeneration, Reclaimer};
use crate::log::{Captured, EntryIndex, LogError, LogId, PartitionLog};

/// Checkpoints that go to the key-value store in one write.
const CHECKPOINTS_PER_WRITE: usize = 64;

/// The journal's way to the logs.
pub(super) struct LogReclaimer(pub Weak<LogManager>);

impl Reclaimer for LogReclaimer {
    fn reclaim(&self, generation: FileGeneration, logs: &[(LogId, EntryIndex)]) -> Vec<LogId> {
        let Some(manager) = self.0.upgrade() else {
            return logs.iter().map(|(id, _)| *id).collect();
        };
        let mut kept = Vec::new();
        let found = logs
            .iter()
            .filter_map(|(id, _)| manager.log_by_id(*id))
            .collect::<Vec<_>>();
        for chunk in found.chunks(CHECKPOINTS_PER_WRITE) {
            kept.extend(manager.checkpoint(chunk));
        }
        tracing::debug!(
            generation = generation.0,
            logs = logs.len(),
            kept = kept.len(),
            "journal file reclaimed"
        );
        kept
    }
}

impl LogManager {
    /// Syncs logs and writes their checkpoints; returns those that could not be done.
    fn checkpoint(&self, logs: &[Arc<PartitionLog>]) -> Vec<LogId> {
        let _one_writer = self.shared.checkpoints.lock();
        let mut captured = Vec::new();
        let mut failed = Vec::new();
        for log in logs {
            match log.capture() {
                Ok(Some(ready)) => captured.push(ready),
                Ok(None) | Err(LogError::Removed) => {}
                Err(_) => failed.push(log.id()),
            }
        }
        let writes: Vec<_> = captured.iter().map(|ready| ready.write.clone()).collect();
        if writes.is_empty() {
            return failed;
        }
        if let Err(error) = self.shared.kv.write_sync(writes) {
            tracing::error!(%error, "checkpoints not written");
            failed.extend(captured.iter().map(|ready| ready.log.id()));
            return failed;
        }
        for ready in captured {
            self.checkpointed(ready);
        }
        failed
    }

    fn checkpointed(&self, ready: Captured) {
        let id = ready.log.id();
        ready.written();
        if self.side_files.lock().remove(&id) {
            self.discard_side_file(id);
        }
    }

    /// Checkpoints every log; returns whether all could be done.
    pub(super) fn checkpoint_all(&self) -> bool {
        let ahead: Vec<_> = self
            .all()
            .into_iter()
            .filter(|log| log.is_ahead_of_checkpoint())
            .collect();
        let mut complete = true;
        for chunk in ahead.chunks(CHECKPOINTS_PER_WRITE) {
            complete &= self.checkpoint(chunk).is_empty();
        }
        complete
    }
}
