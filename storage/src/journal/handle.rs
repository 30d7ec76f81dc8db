//! The handle through which the rest of storage uses the journal.

use std::path::PathBuf;
use std::sync::Arc;

use super::{
    Completion, Durability, Frame, FrameSequence, JournalConfig, JournalError, Reclaimer, ReplayReport, ReplayedFrame,
};
use crate::fs::FileSystem;

/// Room in the journal's queue; given back when the frame is written.
#[derive(Debug)]
pub struct JournalPermit {
    _private: (),
}

/// The shared journal of a data directory. Shared by `Arc`.
#[derive(Debug)]
pub struct Journal {
    _private: (),
}

#[allow(clippy::unimplemented, unused_variables)]
impl Journal {
    /// Opens `dir` (made if missing) and hands every frame in it to `replay`, oldest first. Blocks.
    pub fn open(
        fs: Arc<dyn FileSystem>,
        dir: PathBuf,
        config: JournalConfig,
        replay: &mut dyn FnMut(ReplayedFrame),
    ) -> Result<(Journal, ReplayReport), JournalError> {
        unimplemented!()
    }

    /// Starts the threads that write and reclaim. Before it, what is submitted queues up. A second call does nothing.
    pub fn start(&self, reclaimer: Arc<dyn Reclaimer>) {
        unimplemented!()
    }

    /// Waits for room for a frame of `bytes` payload bytes.
    pub async fn reserve(&self, bytes: usize) -> Result<JournalPermit, JournalError> {
        unimplemented!()
    }

    /// Like `reserve`, for threads that may block.
    pub fn reserve_blocking(&self, bytes: usize) -> Result<JournalPermit, JournalError> {
        unimplemented!()
    }

    /// A permit beside the budget, for the small frames that must never wait: truncate, purge, reset, remove.
    pub fn internal_permit(&self) -> JournalPermit {
        unimplemented!()
    }

    /// Largest payload of one frame.
    pub fn frame_bytes_max(&self) -> usize {
        unimplemented!()
    }

    /// Queues a frame. The order of calls is the order in the journal and of the completions of one log. Never blocks.
    pub fn submit(
        &self,
        frame: Frame,
        durability: Durability,
        permit: JournalPermit,
        done: Completion,
    ) -> FrameSequence {
        unimplemented!()
    }

    /// Why the journal stopped, if it did. Final.
    pub fn failure(&self) -> Option<JournalError> {
        unimplemented!()
    }

    /// Forgets the side file of a log that was removed, or recovered past it. Blocks.
    pub fn discard_side_file(&self, log: crate::log::LogId) -> Result<(), JournalError> {
        unimplemented!()
    }

    /// Writes and syncs everything that is queued, then ends the threads. Blocks; not for use inside a completion or
    /// a `Reclaimer`.
    pub fn close(&self) {
        unimplemented!()
    }
}
