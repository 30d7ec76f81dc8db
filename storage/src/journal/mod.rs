//! The shared journal: every change of every log of a data directory, in one order.
//!
//! Owns `DATA/journal/`. Knows log ids, entry indexes and opaque payloads; what a payload means is `log`'s.
//! Invariant: a frame whose completion said Ok is returned by the next replay, after all frames submitted before
//! it, unless its log was checkpointed past it.

mod appender;
mod config;
mod files;
mod format;
mod group;
mod handle;
mod known;
mod meters;
mod open;
mod queue;
mod replay;
mod round;
mod side;
mod walk;
mod writer;

#[cfg(test)]
pub(crate) mod tests;

use bytes::Bytes;

use crate::log::{EntryIndex, LogId};

pub use config::JournalConfig;
pub use handle::Journal;
pub use known::StoreKnowledge;
pub(crate) use open::directory_id;
pub use queue::JournalPermit;

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
    /// Entries up to an index were forgotten while their records stay, or the files of such records changed.
    Settle = 6,
}

impl FrameKind {
    fn from_number(number: u8) -> Option<FrameKind> {
        match number {
            1 => Some(FrameKind::Append),
            2 => Some(FrameKind::Truncate),
            3 => Some(FrameKind::Purge),
            4 => Some(FrameKind::Reset),
            5 => Some(FrameKind::Remove),
            6 => Some(FrameKind::Settle),
            _ => None,
        }
    }
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

/// Number of a frame in the data directory's history; rises with each frame submitted, is never used twice and has
/// gaps after a restart. A log's checkpoint that holds the number of the last frame it covers needs nothing else to
/// know which replayed frames are new to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct FrameSequence(pub u64);

/// A frame that was found on disk at start.
#[derive(Clone, Debug)]
pub struct ReplayedFrame {
    /// The log's incarnation.
    pub log: LogId,
    /// What happened.
    pub kind: FrameKind,
    /// Index of the log's last entry before this frame.
    pub prev_index: EntryIndex,
    /// Index of the log's last entry after this frame.
    pub last_index: EntryIndex,
    /// The number that `submit` returned for it.
    pub sequence: FrameSequence,
    /// The payload, in one piece; its checksum was right.
    pub payload: Bytes,
    /// Round of the file that the frame (its last part) is in.
    pub generation: FileGeneration,
    /// That file's name below the data directory.
    pub file: String,
    /// Byte position of the payload (of its last part) in the file.
    pub position: u64,
}

/// A place where data that was on stable storage cannot be read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// File name below the data directory.
    pub file: String,
    /// Byte position.
    pub position: u64,
    /// The log that lost a frame; `None` when even that cannot be told, so that it may be any.
    pub log: Option<LogId>,
    /// The frame that was lost, where the log is known: one that the log's checkpoint covers is no loss.
    pub sequence: Option<FrameSequence>,
    /// What is wrong.
    pub reason: String,
}

impl Damage {
    /// Damage that may have hit any log.
    fn of_any(file: &str, position: u64, reason: &str) -> Damage {
        let (file, reason) = (file.to_owned(), reason.to_owned());
        Damage {
            file,
            position,
            log: None,
            sequence: None,
            reason,
        }
    }
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} at byte {}: {}",
            self.file, self.position, self.reason
        )
    }
}

/// What a replay found.
#[derive(Clone, Debug, Default)]
pub struct ReplayReport {
    /// Frames handed to the caller.
    pub frames: u64,
    /// Their payload bytes.
    pub payload_bytes: u64,
    /// Damage inside data that was on stable storage. The logs named must be stopped; all others are whole.
    pub damaged: Vec<Damage>,
    /// Where the tail was cut, if something that was never acknowledged under `Sync` followed the last good group.
    pub tail_cut: Option<(String, u64)>,
}

/// What became of a file that was to be reclaimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reclaimed {
    /// Its frames are unnecessary, but for those of these logs, which could not be done, being stopped or damaged. They
    /// are copied to a side file before the file is written anew.
    Except(Vec<LogId>),
    /// There is no room to do it now. The file is asked for again, and nothing is written over until then.
    NotNow,
    /// It can never be done.
    Failed(String),
}

/// Makes journal frames unnecessary, so that their file can be written anew.
pub trait Reclaimer: Send + Sync {
    /// Makes every frame of the file (and of all earlier ones) unnecessary: with each log, the `last_index` of the last
    /// frame that the file mentions, which may be one that a power loss left unfinished and never counted. A log is
    /// done when its segments are synced and its checkpoint is durable; one that no longer exists needs nothing. Blocks,
    /// on a thread of its own, and may submit frames through `Journal::internal_permit` (never wait for `reserve`, nor
    /// for a frame).
    fn reclaim(&self, generation: FileGeneration, logs: &[(LogId, EntryIndex)]) -> Reclaimed;

    /// Remembers which files the next start must find, and which side files with which last frame. Called before a file that is not among them is written to or
    /// written anew; one that is may be missing only if somebody removed it. Blocks.
    fn note_files(
        &self,
        _files: &[FileGeneration],
        _side: &[(LogId, FrameSequence)],
    ) -> Result<(), String> {
        Ok(())
    }
}

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
