//! All logs of a data directory, and the journal that they share.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tidelog_protocol::types::{PartitionIndex, TopicId, TopicName};

use crate::fs::{FileSystem, Space};
use crate::kv::{KeyValueStore, KvError};
use crate::log::{LogConfig, LogDescription, LogError, LogId, PartitionLog};

/// How much space stays free of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpaceReserve {
    /// Share of the file system, in thousandths. Default 20 (2 %).
    pub per_mille: u16,
    /// Upper bound in bytes. Default 1 GiB. The smaller of both counts.
    pub bytes_max: u64,
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
    /// Bytes of recent batches kept in memory, all logs together. Default 128 MiB.
    pub cache_bytes_max: usize,
    /// Bytes of appended batches that may wait for their write to a segment, all logs together. Default 64 MiB.
    pub write_behind_bytes_max: usize,
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
            cache_bytes_max: 128 << 20,
            write_behind_bytes_max: 64 << 20,
            open_files_max: 4096,
            reserve: SpaceReserve::default(),
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
    /// Something stored is not what this version understands.
    #[error("{0}")]
    Format(String),
}

/// What opening found.
#[derive(Clone, Debug, Default)]
pub struct RecoveryReport {
    /// Whether the last stop was clean.
    pub clean: bool,
    /// Logs found.
    pub logs: usize,
    /// Journal frames applied.
    pub frames_replayed: u64,
    /// Their payload bytes.
    pub bytes_replayed: u64,
    /// Logs that were stopped, with the reason.
    pub stopped: Vec<(LogId, String)>,
    /// Time taken.
    pub duration: Duration,
}

/// Every log of one data directory.
#[derive(Debug)]
pub struct LogManager {
    _private: (),
}

impl LogManager {
    /// Opens the directory and recovers it. Blocks.
    pub fn open(_options: StorageOptions) -> Result<(Arc<LogManager>, RecoveryReport), OpenError> {
        unimplemented!()
    }
    /// The key-value store of the directory.
    pub fn kv(&self) -> &Arc<dyn KeyValueStore> {
        unimplemented!()
    }
    /// Makes a log, or returns the one there is after giving it the settings. Does not wait for a disk: whatever is
    /// made durable through the log or the key-value store later implies that the log is durable too.
    pub fn create_log(
        &self,
        _topic: &TopicName,
        _topic_id: TopicId,
        _partition: PartitionIndex,
        _config: LogConfig,
    ) -> Result<Arc<PartitionLog>, LogError> {
        unimplemented!()
    }
    /// The log of a partition.
    pub fn log(&self, _topic_id: TopicId, _partition: PartitionIndex) -> Option<Arc<PartitionLog>> {
        unimplemented!()
    }
    /// All logs.
    pub fn logs(&self) -> Vec<LogDescription> {
        unimplemented!()
    }
    /// Removes a log for good.
    pub async fn remove_log(&self, _id: LogId) -> Result<(), LogError> {
        unimplemented!()
    }
    /// Syncs everything and marks the stop as clean. Appends after it fail.
    pub async fn shutdown(&self) {
        unimplemented!()
    }
    /// Free space of the data directory.
    pub fn space(&self) -> io::Result<Space> {
        unimplemented!()
    }
    /// The data directory.
    pub fn directory(&self) -> &Path {
        unimplemented!()
    }
    /// Why nothing can be written any more, if so (a failed journal).
    pub fn failure(&self) -> Option<String> {
        unimplemented!()
    }
}
