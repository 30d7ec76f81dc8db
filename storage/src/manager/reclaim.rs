//! Making journal files unnecessary: the oldest file drives the syncs of segments.
//!
//! One log after the other, so that the journal's own syncs are not stalled by a hundred others at once. A log that
//! cannot be synced is named to the journal, which keeps its frames aside.

use std::sync::{Arc, Weak};

use super::{JOURNAL_FILES, LogManager, knowledge};
use crate::SyncPoint;
use crate::journal::{FileGeneration, FrameSequence, Reclaimed, Reclaimer};
use crate::kv::{KeySpace, KvError, KvWrite};
use crate::log::{Captured, EntryIndex, LogError, LogId, PartitionLog};

/// Checkpoints that go to the key-value store in one write.
const CHECKPOINTS_PER_WRITE: usize = 64;

/// The journal's way to the logs.
pub(super) struct LogReclaimer(pub Weak<LogManager>);

impl Reclaimer for LogReclaimer {
    fn reclaim(&self, generation: FileGeneration, logs: &[(LogId, EntryIndex)]) -> Reclaimed {
        let Some(manager) = self.0.upgrade() else {
            return Reclaimed::NotNow;
        };
        let mut kept = Vec::new();
        let found = logs
            .iter()
            .filter_map(|(id, _)| manager.log_by_id(*id))
            .collect::<Vec<_>>();
        for chunk in found.chunks(CHECKPOINTS_PER_WRITE) {
            match manager.checkpoint(chunk) {
                Ok(failed) => kept.extend(failed),
                Err(NotWritten::NoRoom) => return Reclaimed::NotNow,
                Err(NotWritten::Failed(error)) => return Reclaimed::Failed(error.to_string()),
            }
        }
        tracing::debug!(
            generation = generation.0,
            logs = logs.len(),
            kept = kept.len(),
            "journal file reclaimed"
        );
        Reclaimed::Except(kept)
    }

    fn note_files(
        &self,
        files: &[FileGeneration],
        side: &[(LogId, FrameSequence)],
    ) -> Result<(), String> {
        let manager = self.0.upgrade().ok_or("the logs are closed")?;
        let note = KvWrite::Put(
            KeySpace::Meta,
            JOURNAL_FILES.into(),
            knowledge::encode(files, side),
        );
        let kv = &manager.shared.kv;
        let written = kv.write_sync(vec![note], SyncPoint::JournalFilesNoted);
        written.map_err(|error| error.to_string())
    }
}

/// Why checkpoints were not written although their logs are in order.
enum NotWritten {
    /// There is no room now.
    NoRoom,
    /// The key-value store accepts nothing more.
    Failed(KvError),
}

impl LogManager {
    /// Syncs logs and writes their checkpoints; returns those that could not be done, being stopped.
    fn checkpoint(&self, logs: &[Arc<PartitionLog>]) -> Result<Vec<LogId>, NotWritten> {
        let _one_writer = self.shared.checkpoints.lock();
        let mut captured = Vec::new();
        let mut failed = Vec::new();
        let mut no_room = false;
        for log in logs {
            match log.capture() {
                Ok(Some(ready)) => captured.push(ready),
                Ok(None) | Err(LogError::Removed) => {}
                Err(LogError::NoSpace(_)) => no_room = true,
                Err(_) => failed.push(log.id()),
            }
        }
        let writes: Vec<_> = captured.iter().map(|ready| ready.write.clone()).collect();
        // On stable storage with the note of the journal's files, or of a clean stop, before a frame is given up.
        if !writes.is_empty()
            && let Err(error) = self.shared.kv.write_and_wait(writes, None)
        {
            tracing::error!(%error, "checkpoints not written");
            return Err(NotWritten::Failed(error));
        }
        for ready in captured {
            self.checkpointed(ready);
        }
        if no_room {
            return Err(NotWritten::NoRoom);
        }
        Ok(failed)
    }

    fn checkpointed(&self, ready: Captured) {
        let id = ready.log.id();
        ready.written();
        self.discard_side_file(id);
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
            complete &= self.checkpoint(chunk).is_ok_and(|failed| failed.is_empty());
        }
        complete
    }
}
