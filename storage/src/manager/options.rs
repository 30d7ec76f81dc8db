//! Where and how logs are kept, and what opening them says.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::fs::FileSystem;
use crate::journal::{JournalConfig, JournalError};
use crate::kv::{KeyValueStore, KvError};
use crate::log::{LogId, SharedSizes};

/// How much space stays free of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpaceReserve {
    /// Share of the file system, in thousandths. Default 20 (2 %).
    pub per_mille: u16,
    /// Upper bound in bytes. Default 1 GiB. The smaller of both counts.
    pub bytes_max: u64,
}

impl SpaceReserve {
    /// Bytes of a file system of `total_bytes`.
    pub fn bytes(&self, total_bytes: u64) -> u64 {
        let share = u128::from(total_bytes) * u128::from(self.per_mille) / 1000;
        u64::try_from(share).unwrap_or(u64::MAX).min(self.bytes_max)
    }
}

impl Default for SpaceReserve {
    fn default() -> Self {
        SpaceReserve {
            per_mille: 20,
            bytes_max: 1 << 30,
        }
    }
}

/// Where and how logs are kept.
#[derive(Clone, Debug)]
pub struct StorageOptions {
    /// Data directory.
    pub directory: PathBuf,
    /// File system that holds it.
    pub fs: Arc<dyn FileSystem>,
    /// Key-value store of the same directory.
    pub kv: Arc<dyn KeyValueStore>,
    /// Sizes of the journal.
    pub journal: JournalConfig,
    /// Bytes of recent batches kept in memory, all logs together. Default 128 MiB.
    pub cache_bytes_max: usize,
    /// Bytes of appended batches that may wait for their write to a segment, all logs together. Default 64 MiB.
    pub write_behind_bytes_max: usize,
    /// How long less than 256 KiB of a log waits for more, so that segments are written in few large writes. Default
    /// 500 ms. Once half of the bytes that may wait do, nothing waits.
    pub write_behind_wait: Duration,
    /// Segment files held open. Default 4096.
    pub open_files_max: usize,
    /// Space that records may not take.
    pub reserve: SpaceReserve,
}

impl StorageOptions {
    /// Defaults for a directory.
    pub fn new(
        directory: PathBuf,
        fs: Arc<dyn FileSystem>,
        kv: Arc<dyn KeyValueStore>,
    ) -> StorageOptions {
        StorageOptions {
            directory,
            fs,
            kv,
            journal: JournalConfig::default(),
            cache_bytes_max: 128 << 20,
            write_behind_bytes_max: 64 << 20,
            write_behind_wait: Duration::from_millis(500),
            open_files_max: 4096,
            reserve: SpaceReserve::default(),
        }
    }

    pub(super) fn sizes(&self) -> SharedSizes {
        SharedSizes {
            cache_bytes_max: self.cache_bytes_max,
            write_behind_bytes_max: self.write_behind_bytes_max,
            write_behind_wait: self.write_behind_wait,
            open_files_max: self.open_files_max,
        }
    }
}

/// Why a data directory could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The system refused.
    #[error("{path}: {source}")]
    Io {
        /// What was touched.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// The key-value store failed.
    #[error(transparent)]
    Kv(#[from] KvError),
    /// The journal cannot be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Something stored is not what this version understands.
    #[error("{0}")]
    Format(String),
}

/// What opening found.
#[derive(Clone, Debug, Default)]
pub struct RecoveryReport {
    /// Whether the last stop was clean (or there was none).
    pub clean: bool,
    /// Logs found.
    pub logs: usize,
    /// Journal frames applied.
    pub frames_replayed: u64,
    /// Their payload bytes.
    pub bytes_replayed: u64,
    /// Logs that were stopped, with the reason.
    pub stopped: Vec<(LogId, String)>,
    /// Where the journal's tail was cut: what followed was never acknowledged under `sync`.
    pub tail_cut: Option<(String, u64)>,
    /// Time taken.
    pub duration: Duration,
}
