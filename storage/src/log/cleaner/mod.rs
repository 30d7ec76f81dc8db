//! What compaction is made of: the map of newest offsets, the judgement of records, the pace.
//!
//! Knows batches, no logs; what it decides is carried out by `partition::clean`.

mod filter;
mod offset_map;
mod pace;

pub use pace::CleanerPace;

pub(crate) use filter::{Fate, Filter};
pub(crate) use offset_map::OffsetMap;

/// What one pass over a log did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CleanStats {
    /// Bytes of batches before.
    pub bytes_before: u64,
    /// Bytes of batches after.
    pub bytes_after: u64,
    /// Records read.
    pub records_read: u64,
    /// Records left.
    pub records_kept: u64,
}
