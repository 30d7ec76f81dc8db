//! The shared journal: every change of every log of a data directory, in one order.
//!
//! Owns `DATA/journal/`. Knows log ids, entry indexes and opaque payloads; what a payload means is `log`'s.
//! Invariant: a frame whose completion said Ok is returned by the next replay, after all frames submitted before
//! it, unless its log was checkpointed past it.

use bytes::Bytes;

use crate::log::{EntryIndex, LogId};

/// What a frame does to its log. The numbers are on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameKind {
    /// Entries were appended.
    Append = 1,
    /// Entries after an index were cut off.
    Truncate = 2,
    /// Entries up to an index were dropped.
    Purge = 3,
    /// The log was emptied and restarts at a position.
    Reset = 4,
    /// The log was removed for good.
    Remove = 5,
}

/// One change of one log.
#[derive(Clone, Debug)]
pub struct Frame {
    /// The log's incarnation.
    pub log: LogId,
    /// What happens.
    pub kind: FrameKind,
    /// Index of the log's last entry before this frame.
    pub prev_index: EntryIndex,
    /// Index of the log's last entry after this frame.
    pub last_index: EntryIndex,
    /// The payload, in pieces that are written one after the other.
    pub payload: Vec<Bytes>,
}

/// Whether a completion waits for stable storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// After the journal's sync.
    Sync,
    /// After the write to the page cache.
    Os,
}

/// Number of a journal file's round; rises by one with each file that is (re)used. Totally ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileGeneration(pub u64);

/// Called on the journal's thread once the frame is as durable as asked, with the file that it went to. Must not block.
pub type Completion = Box<dyn FnOnce(Result<FileGeneration, JournalError>) + Send>;

/// Why a frame was not written. Final: the journal accepts nothing after it.
#[derive(Clone, Debug, thiserror::Error)]
#[error("journal {file}: {reason}")]
pub struct JournalError {
    /// File that failed.
    pub file: String,
    /// What the system said.
    pub reason: String,
}
