//! Beginning anew with the records of another replica.
//!
//! Records of entries that compaction made their group forget cannot be replayed entry by entry. They are copied whole
//! into settled segments, beside whatever the log holds, and then one journal frame puts them in its place. Until that
//! is durable the log is as it was; what a power loss or a failure leaves of a copy is on no list and is removed.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use tidelog_protocol::batch::RecordBatch;
use tidelog_protocol::types::Offset;

use super::super::cleaner::CleanerPace;
use super::super::files::SegmentName;
use super::super::settled::SettledSegment;
use super::super::{EntryIndex, LogError, LogPosition};
use super::PartitionLog;
use super::rewrite::Rewrite;

/// Offsets that one segment may span: its indexes hold 32 bits.
const SPAN_MAX: i64 = (i32::MAX / 2) as i64;

/// Records on their way into a log. Dropped before it is installed, it leaves nothing behind.
pub struct RecordCopy {
    log: Arc<PartitionLog>,
    pace: CleanerPace,
    open: Option<Rewrite>,
    made: Vec<SettledSegment>,
    next: Offset,
}

impl fmt::Debug for RecordCopy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordCopy")
            .field("log", &self.log)
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

impl PartitionLog {
    /// Begins to take records in, from an offset on. Blocks.
    pub fn begin_copy(self: &Arc<Self>, from: Offset) -> Result<RecordCopy, LogError> {
        self.check_running()?;
        self.load_if_needed()?;
        let mut writing = self.writing.lock();
        if !writing.folder_known {
            // As when the first record is written.
            self.files.remove_all()?;
            self.files.create_directory()?;
            writing.folder_known = true;
            writing.directory_unsynced = true;
        }
        drop(writing);
        Ok(RecordCopy {
            log: self.clone(),
            pace: CleanerPace::default(),
            open: None,
            made: Vec::new(),
            next: from,
        })
    }

    /// Drops everything and restarts at a position, behind records that were copied. Durable when it returns.
    pub async fn install(&self, at: LogPosition, mut copy: RecordCopy) -> Result<(), LogError> {
        let turn = self.take_turn().await?;
        self.change(turn, move |log| {
            copy.close()?;
            log.check_running()?;
            let synced = log.files.sync_folder();
            synced.map_err(|error| log.stop(error))?;
            // A replay of what came before would tidy the folder, by a list that does not have the copy.
            log.checkpoint_now()
                .map_err(|error| log.stop_after(error))?;
            log.reset_blocking(at, std::mem::take(&mut copy.made))
        })
        .await
    }
}

impl RecordCopy {
    /// Offset from which records are missing.
    pub fn next_offset(&self) -> Offset {
        self.next
    }

    /// Whether there are any so far.
    pub fn is_empty(&self) -> bool {
        self.made.is_empty() && self.open.is_none()
    }

    /// Takes whole batches in, which follow those before. Blocks.
    pub fn put(&mut self, mut batches: Bytes) -> Result<(), LogError> {
        self.log.check_running()?;
        while !batches.is_empty() {
            let batch = RecordBatch::split_first(&mut batches);
            let batch = batch.map_err(|error| refused(&error.to_string()))?;
            if !batch.checksum_matches() {
                return Err(refused("its checksum does not match"));
            }
            if batch.last_offset() < self.next {
                return Err(refused("it does not follow the one before"));
            }
            self.put_batch(&batch)?;
            self.next = batch.next_offset();
        }
        Ok(())
    }

    fn put_batch(&mut self, batch: &RecordBatch) -> Result<(), LogError> {
        let bytes_max = u64::from(self.log.config().segment_bytes);
        let is_full = |open: &Rewrite| {
            let span = batch.last_offset().0.saturating_sub(open.name().base.0);
            open.log_bytes() + batch.size_bytes() as u64 > bytes_max || span > SPAN_MAX
        };
        if self.open.as_ref().is_some_and(is_full) {
            self.close()?;
        }
        let open = match &mut self.open {
            Some(open) => open,
            none => none.insert(Rewrite::begin(
                &self.log,
                next_name(&self.log, &self.made, batch),
            )?),
        };
        open.put(&self.log, batch, &self.pace)
    }

    /// Completes and syncs the segment that is open.
    fn close(&mut self) -> Result<(), LogError> {
        let Some(open) = self.open.take() else {
            return Ok(());
        };
        let name = open.name();
        match open.finish(&self.log, &self.pace) {
            Ok(made) => self.made.extend(made),
            Err(error) => {
                self.log.files.remove_segment(name, None)?;
                return Err(self.log.stop_unless_no_room(error));
            }
        }
        Ok(())
    }
}

/// Name of the next segment: none like it was there before.
fn next_name(log: &PartitionLog, made: &[SettledSegment], batch: &RecordBatch) -> SegmentName {
    let settled = &mut log.state.lock().segments.settled;
    settled.revision = settled.revision.saturating_add(1);
    SegmentName {
        // Entries that are forgotten have no index any more; what counts is the order.
        first: EntryIndex(made.len() as u64 + 1),
        base: batch.base_offset(),
        revision: settled.revision,
    }
}

fn refused(reason: &str) -> LogError {
    LogError::Io(Arc::from(format!(
        "a batch of another replica is refused: {reason}"
    )))
}

impl Drop for RecordCopy {
    fn drop(&mut self) {
        let open = self.open.take().map(|open| open.name());
        let names = self.made.iter().map(|segment| segment.name).chain(open);
        for name in names {
            if let Err(error) = self.log.files.remove_segment(name, None) {
                tracing::warn!(%error, "a file of a copy that came to nothing is left until the next start");
            }
        }
    }
}
