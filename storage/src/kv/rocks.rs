//! The key-value store on disk: RocksDB, kept small.
//!
//! Owns all of `DATA/kv/`; the only module that names `rocksdb`, and the only file access of storage beside `fs`.
//! Invariant: a batch that was done is there after any crash, or opening fails; a damaged write-ahead log is never
//! silently cut before its last batch. For that reason log files are not recycled: RocksDB cannot tell damage from
//! the end of a recycled log.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType,
    DBRecoveryMode, Direction, ErrorKind, IteratorMode, LogLevel, Options, ReadOptions, WriteBatch,
    WriteOptions,
};

use super::writer::{BatchWriter, Target};
use super::{KeySpace, KeyValueStore, KvCompletion, KvError, KvWrite, MemoryKv};

const SPACES: [KeySpace; 6] = [
    KeySpace::Meta,
    KeySpace::Vote,
    KeySpace::Checkpoint,
    KeySpace::Metadata,
    KeySpace::Coordinator,
    KeySpace::Delay,
];

/// Memory for blocks read from tables, over all key spaces.
const BLOCK_CACHE_BYTES: usize = 16 << 20;

/// Memory for writes not yet in tables, per key space and over all.
const WRITE_BUFFER_BYTES: usize = 4 << 20;
const WRITE_BUFFERS_BYTES_MAX: usize = 16 << 20;

/// Log bytes after which a key space that is rarely written is flushed, so that it pins no old log.
const LOG_BYTES_MAX: u64 = 32 << 20;

/// Table files held open; the process has connections and segments to keep open too.
const OPEN_FILES_MAX: i32 = 64;

const BACKGROUND_THREADS: i32 = 2;

/// The file that names the manifest in force.
const CURRENT: &str = "CURRENT";

/// RocksDB's own text log: its size and the number kept.
const TEXT_LOG_BYTES_MAX: usize = 1 << 20;
const TEXT_LOGS_KEPT: usize = 2;

/// The store on disk. Dropping it writes what is queued and closes it.
pub struct RocksKv {
    // Before `rocks`: its thread ends first.
    writer: BatchWriter,
    rocks: Arc<Rocks>,
}

struct Rocks {
    db: DB,
    path: PathBuf,
    progress: Arc<AtomicU64>,
}

fn family_name(space: KeySpace) -> &'static str {
    match space {
        KeySpace::Meta => "meta",
        KeySpace::Vote => "vote",
        KeySpace::Checkpoint => "checkpoint",
        KeySpace::Metadata => "metadata",
        KeySpace::Coordinator => "coordinator",
        KeySpace::Delay => "delay",
    }
}

fn database_options() -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_paranoid_checks(true);
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    options.set_track_and_verify_wals_in_manifest(true);
    options.set_max_open_files(OPEN_FILES_MAX);
    options.set_max_background_jobs(BACKGROUND_THREADS);
    options.set_db_write_buffer_size(WRITE_BUFFERS_BYTES_MAX);
    options.set_max_total_wal_size(LOG_BYTES_MAX);
    options.set_log_level(LogLevel::Warn);
    options.set_max_log_file_size(TEXT_LOG_BYTES_MAX);
    options.set_keep_log_file_num(TEXT_LOGS_KEPT);
    options.set_stats_dump_period_sec(0);
    options
}

fn family_options(cache: &Cache) -> Options {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(cache);
    blocks.set_cache_index_and_filter_blocks(true);
    let mut options = Options::default();
    options.set_block_based_table_factory(&blocks);
    options.set_write_buffer_size(WRITE_BUFFER_BYTES);
    options.set_compression_type(DBCompressionType::None);
    options
}

/// Says in one line what a person must know.
fn explain(path: &Path, error: &rocksdb::Error) -> KvError {
    let text = error.as_ref();
    let place = path.display();
    KvError(match error.kind() {
        ErrorKind::Corruption => format!("{place} is damaged: {text}"),
        ErrorKind::IOError if text.contains("lock") => {
            format!("{place} is in use by another process")
        }
        ErrorKind::IOError if text.contains("No space left") => {
            format!("{place}: no space left on the disk")
        }
        _ => format!("{place}: {text}"),
    })
}

/// The first key after all keys with this prefix; `None` if there is none.
fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if let Some(next) = last.checked_add(1) {
            end.push(next);
            return Some(end);
        }
    }
    None
}

/// Refuses to begin a new store over what is left of one: RocksDB would, and would delete the rest.
fn refuse_remains(path: &Path) -> Result<(), KvError> {
    let failed = |error| KvError(format!("{}: {error}", path.display()));
    if path.join(CURRENT).try_exists().map_err(failed)? {
        return Ok(());
    }
    for entry in std::fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let bytes = entry.metadata().map_err(failed)?.len();
        let holds_data = |name: &Path| {
            name.extension()
                .is_some_and(|it| it == "sst" || it == "log")
        };
        // A first start that was interrupted leaves neither.
        if bytes > 0 && holds_data(Path::new(&entry.file_name())) {
            return Err(KvError(format!(
                "{} is damaged: {CURRENT} is missing, but {} is there. Restore the whole data directory from a copy",
                path.display(),
                entry.file_name().to_string_lossy()
            )));
        }
    }
    Ok(())
}

impl RocksKv {
    /// Opens the store in `path`, made if missing. Blocks.
    pub fn open(path: &Path) -> Result<RocksKv, KvError> {
        std::fs::create_dir_all(path)
            .map_err(|error| KvError(format!("{}: {error}", path.display())))?;
        refuse_remains(path)?;
        let cache = Cache::new_lru_cache(BLOCK_CACHE_BYTES);
        let families = SPACES
            .map(|space| ColumnFamilyDescriptor::new(family_name(space), family_options(&cache)));
        let db = DB::open_cf_descriptors(&database_options(), path, families)
            .map_err(|error| explain(path, &error))?;
        let progress = Arc::new(AtomicU64::new(db.latest_sequence_number()));
        let rocks = Arc::new(Rocks {
            db,
            path: path.to_owned(),
            progress,
        });
        let writer = BatchWriter::start(rocks.clone())?;
        Ok(RocksKv { writer, rocks })
    }
}

impl RocksKv {
    /// A copy of the store in `path` as a start would find it; changes nothing there. Blocks.
    pub fn copy_of(path: &Path) -> Result<MemoryKv, KvError> {
        if !path.join(CURRENT).exists() {
            let missing = format!("{} is damaged: {CURRENT} is missing", path.display());
            return Err(KvError(missing));
        }
        let cache = Cache::new_lru_cache(BLOCK_CACHE_BYTES);
        let mut options = database_options();
        options.create_if_missing(false);
        options.create_missing_column_families(false);
        let families = SPACES
            .map(|space| ColumnFamilyDescriptor::new(family_name(space), family_options(&cache)));
        let db = DB::open_cf_descriptors_read_only(&options, path, families, false)
            .map_err(|error| explain(path, &error))?;
        let sequence = db.latest_sequence_number();
        let rocks = Rocks {
            db,
            path: path.to_owned(),
            progress: Arc::default(),
        };
        let mut pairs = Vec::new();
        for space in SPACES {
            let found = rocks.scan(space, &[])?.into_iter();
            pairs.extend(found.map(|(key, value)| (space, key, value)));
        }
        MemoryKv::of(pairs, sequence)
    }
}

impl Rocks {
    fn scan(&self, space: KeySpace, prefix: &[u8]) -> Result<Vec<(Bytes, Bytes)>, KvError> {
        let mut options = ReadOptions::default();
        if let Some(end) = prefix_end(prefix) {
            options.set_iterate_upper_bound(end);
        }
        let mode = IteratorMode::From(prefix, Direction::Forward);
        let pairs = self.db.iterator_cf_opt(self.family(space), options, mode);
        let owned =
            pairs.map(|pair| pair.map(|(key, value)| (Bytes::from(key), Bytes::from(value))));
        owned
            .collect::<Result<_, _>>()
            .map_err(|error| self.error(&error))
    }

    fn family(&self, space: KeySpace) -> &ColumnFamily {
        self.db
            .cf_handle(family_name(space))
            .expect("all families were opened with the database")
    }

    fn error(&self, error: &rocksdb::Error) -> KvError {
        explain(&self.path, error)
    }
}

impl Target for Rocks {
    fn apply(&self, writes: &[KvWrite]) -> Result<(), KvError> {
        let mut batch = WriteBatch::default();
        for write in writes {
            match write {
                KvWrite::Put(space, key, value) => batch.put_cf(self.family(*space), key, value),
                KvWrite::Delete(space, key) => batch.delete_cf(self.family(*space), key),
                KvWrite::DeleteRange(space, from, to) if from < to => {
                    batch.delete_range_cf(self.family(*space), from, to);
                }
                KvWrite::DeleteRange(..) => {}
            }
        }
        let mut options = WriteOptions::default();
        options.set_sync(true);
        self.db
            .write_opt(batch, &options)
            .map_err(|error| self.error(&error))?;
        let sequence = self.db.latest_sequence_number();
        self.progress.store(sequence, Ordering::Release);
        Ok(())
    }
}

impl KeyValueStore for RocksKv {
    fn get(&self, space: KeySpace, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        let rocks = &self.rocks;
        let value = rocks
            .db
            .get_cf(rocks.family(space), key)
            .map_err(|error| rocks.error(&error))?;
        Ok(value.map(Bytes::from))
    }

    fn scan(&self, space: KeySpace, prefix: &[u8]) -> Result<Vec<(Bytes, Bytes)>, KvError> {
        self.rocks.scan(space, prefix)
    }

    fn write(&self, batch: Vec<KvWrite>, done: KvCompletion) {
        self.writer.write(batch, done);
    }

    fn write_sync(&self, batch: Vec<KvWrite>) -> Result<(), KvError> {
        self.writer.write_sync(batch)
    }

    fn progress(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.rocks.progress)
    }
}

impl fmt::Debug for RocksKv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RocksKv")
            .field("path", &self.rocks.path)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &'static str, value: &'static str) -> Vec<KvWrite> {
        vec![KvWrite::Put(KeySpace::Vote, key.into(), value.into())]
    }

    #[test]
    fn what_was_done_is_there_after_reopening() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("kv");
        for round in 0..3 {
            let kv = RocksKv::open(&path).expect("open");
            assert_eq!(
                kv.get(KeySpace::Vote, b"1").expect("get").is_some(),
                round > 0
            );
            kv.write_sync(put("1", "a")).expect("write");
        }
    }

    #[test]
    fn second_opener_hears_that_it_is_in_use() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let _first = RocksKv::open(directory.path()).expect("open");
        let error = RocksKv::open(directory.path())
            .expect_err("locked")
            .to_string();
        assert!(error.contains("in use by another process"), "{error}");
        assert!(
            error.contains(&directory.path().display().to_string()),
            "{error}"
        );
    }

    #[test]
    fn damage_before_the_last_batch_is_an_error_that_says_so() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let kv = RocksKv::open(directory.path()).expect("open");
        for key in ["1", "2", "3"] {
            kv.write_sync(put(key, "0123456789012345678901234567890123456789"))
                .expect("write");
        }
        drop(kv);
        let names = std::fs::read_dir(directory.path())
            .expect("list")
            .map(|entry| entry.expect("entry").path());
        let logs: Vec<PathBuf> = names
            .filter(|path| path.extension().is_some_and(|end| end == "log"))
            .collect();
        let mut damaged = 0;
        for log in logs {
            let mut bytes = std::fs::read(&log).expect("read");
            if let Some(byte) = bytes.get_mut(40) {
                *byte ^= 1;
                damaged += 1;
                std::fs::write(&log, bytes).expect("write");
            }
        }
        assert!(damaged > 0, "there is a log to damage");
        let error = RocksKv::open(directory.path())
            .expect_err("damaged")
            .to_string();
        assert!(error.contains("is damaged"), "{error}");
    }
}
