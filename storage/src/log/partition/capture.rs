//! Making the log's files durable and saying so in a checkpoint.
//!
//! Appends go on meanwhile. Invariant: a checkpoint covers a change only when all bytes up to it are synced.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use super::super::checkpoint::Checkpoint;
use super::super::files::{FileKind, SegmentName};
use super::super::state::State;
use super::super::{LogError, checkpoint_key};
use super::PartitionLog;
use crate::SyncPoint;
use crate::journal::FrameSequence;
use crate::kv::{KeySpace, KvWrite};

/// A checkpoint that is ready to be written.
pub(crate) struct Captured {
    /// The log.
    pub log: Arc<PartitionLog>,
    /// The write.
    pub write: KvWrite,
    sequence: FrameSequence,
}

impl Captured {
    /// Notes that the checkpoint is written, and durable before a frame that it covers is given up.
    pub fn written(self) {
        let mut state = self.log.state.lock();
        state.covered = state.covered.max(self.sequence);
    }
}

impl PartitionLog {
    /// Whether the journal holds changes that the checkpoint does not cover.
    pub(crate) fn is_ahead_of_checkpoint(&self) -> bool {
        let state = self.state.lock();
        state.sequence > state.covered
    }

    /// Whether the checkpoint holds what this frame of the journal did.
    pub(crate) fn is_covered(&self, frame: FrameSequence) -> bool {
        frame <= self.state.lock().covered
    }

    /// Writes and syncs everything that was appended before the call and returns the checkpoint that says so; `None`
    /// if the last one still holds. Blocks. The caller holds the lock of checkpoints until it is written.
    pub(crate) fn capture(&self) -> Result<Option<Captured>, LogError> {
        self.check_running()?;
        let Some(me) = self.me.upgrade().filter(|_| self.is_ahead_of_checkpoint()) else {
            return Ok(None);
        };
        self.capture_now(me).map(Some)
    }

    /// Writes a checkpoint of everything that was appended before the call, even if the last one holds. Blocks.
    pub(super) fn checkpoint_now(&self) -> Result<(), LogError> {
        let me = self.me.upgrade().ok_or(LogError::Removed)?;
        let _one_writer = self.shared.checkpoints.lock();
        self.check_running()?;
        let captured = self.capture_now(me)?;
        self.write_kv(captured.write.clone(), SyncPoint::SettledCheckpoint)?;
        captured.written();
        Ok(())
    }

    /// A failure stops the log before the lock of checkpoints is given back: what was not synced is not known any more.
    fn capture_now(&self, me: Arc<PartitionLog>) -> Result<Captured, LogError> {
        self.capture_inner(me)
            .map_err(|error| self.stop_unless_no_room(error))
    }

    fn capture_inner(&self, me: Arc<PartitionLog>) -> Result<Captured, LogError> {
        let (checkpoint, unsynced, sync_directory) = {
            let mut writing = self.writing.lock();
            let (checkpoint, last) = {
                let mut state = self.state.lock();
                (self.checkpoint_of(&mut state), state.bounds.last.index)
            };
            if checkpoint.has_files {
                self.drain_to(&mut writing, last)?;
            }
            let sync_directory = std::mem::take(&mut writing.directory_unsynced);
            (
                checkpoint,
                std::mem::take(&mut writing.unsynced),
                sync_directory,
            )
        };
        let mut synced = self.sync(&unsynced);
        if sync_directory {
            let files = &self.files;
            synced = synced
                .and_then(|()| files.sync_names(SyncPoint::SegmentNames))
                .and_then(|()| files.sync_folder());
        }
        if let Err(error) = synced {
            // If it passes, it was not synced all the same.
            let mut writing = self.writing.lock();
            for (name, all) in unsynced {
                *writing.unsynced.entry(name).or_default() |= all;
            }
            writing.directory_unsynced |= sync_directory;
            return Err(error);
        }
        let write = KvWrite::Put(
            KeySpace::Checkpoint,
            checkpoint_key(self.id),
            checkpoint.encode(),
        );
        Ok(Captured {
            log: me,
            write,
            sequence: checkpoint.sequence,
        })
    }

    /// The checkpoint of a new log, to be written without waiting.
    pub(crate) fn first_checkpoint(&self) -> KvWrite {
        let checkpoint = self.checkpoint_of(&mut self.state.lock());
        KvWrite::Put(
            KeySpace::Checkpoint,
            checkpoint_key(self.id),
            checkpoint.encode(),
        )
    }

    /// The checkpoint of a log whose removal is durable in the journal.
    pub(super) fn removed_checkpoint(&self) -> KvWrite {
        let mut checkpoint = self.checkpoint_of(&mut self.state.lock());
        checkpoint.removed = true;
        KvWrite::Put(
            KeySpace::Checkpoint,
            checkpoint_key(self.id),
            checkpoint.encode(),
        )
    }

    fn checkpoint_of(&self, state: &mut State) -> Checkpoint {
        if let Some(oldest) = state
            .segments
            .oldest_timestamp()
            .filter(|_| state.unloaded.is_none())
        {
            state.oldest_timestamp = oldest;
        }
        let entries = if state.has_files {
            Bytes::new()
        } else {
            inline_entries(state)
        };
        Checkpoint {
            identity: self.identity.clone(),
            config: (*self.config()).clone(),
            sequence: state.sequence,
            purged: state.bounds.purged,
            last: state.bounds.last,
            log_start: state.bounds.log_start,
            next_offset: state.bounds.log_end,
            size_bytes: state.bounds.size_bytes,
            oldest_timestamp: state.oldest_timestamp,
            has_files: state.has_files,
            removed: false,
            end: state.unloaded.unwrap_or_else(|| state.end()),
            epochs: state.epochs.clone(),
            producers: (!state.producers_in_files).then(|| state.producers.clone()),
            entries,
            settled: state.segments.settled.clone(),
        }
    }

    fn sync(&self, unsynced: &BTreeMap<SegmentName, bool>) -> Result<(), LogError> {
        const RECORDS: [FileKind; 2] = [FileKind::Log, FileKind::Entries];
        for (name, all) in unsynced {
            let kinds = if *all {
                &FileKind::ALL[..]
            } else {
                &RECORDS[..]
            };
            for kind in kinds {
                // A segment that was deleted meanwhile needs no sync.
                if let Some(file) = self.files.open_if_exists(*name, *kind)? {
                    let failed = |error| self.files.sync_failed(&name.file_name(*kind), &error);
                    let point = if RECORDS.contains(kind) {
                        SyncPoint::SegmentRecords
                    } else {
                        SyncPoint::SegmentIndexes
                    };
                    file.sync_data(point).map_err(failed)?;
                }
            }
        }
        Ok(())
    }
}

/// All entries of a log without files, as an Append payload.
fn inline_entries(state: &State) -> Bytes {
    let count = state.tail.iter().count();
    if count == 0 {
        return Bytes::new();
    }
    let mut out = BytesMut::new();
    out.put_u8(1);
    out.put_bytes(0, 3);
    out.put_u32(u32::try_from(count).unwrap_or(u32::MAX));
    state
        .tail
        .iter()
        .for_each(|tail| out.put_slice(&tail.envelope_bytes));
    out.freeze()
}
