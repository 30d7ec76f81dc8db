//! The key-value store on disk: RocksDB, kept small.
//!
//! Owns all of `DATA/kv/`; the only module that names `rocksdb`, and the only file access of storage beside `fs`.
//! Invariant: a batch that was done is there after any crash, or opening fails; a damaged write-ahead log is never
//! silently cut before its last batch. For that reason log files are not recycled: RocksDB cannot tell damage from
//! the end of a recycled log.
//!
//! A write without room leaves RocksDB with a log that ends in the middle of it. The database is closed then and opened
//! again once there is room (the ballast is given up for it), which makes all that was done durable in new files, and
//! the write is applied again. Until then it is open for reading.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType,
    DBRecoveryMode, Direction, ErrorKind, IteratorMode, LogLevel, Options, ReadOptions, WriteBatch,
    WriteOptions,
};

use super::ballast::Ballast;
use super::volatile::Unsynced;
use super::writer::{ApplyError, BatchWriter, Target};
use super::{KeySpace, KeyValueStore, KvCompletion, KvError, KvWrite, MemoryKv};
use crate::SyncPoint;

/// The file that names the manifest in force.
const CURRENT: &str = "CURRENT";

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
const WRITE_BUFFER_BYTES: usize = 1 << 20;
const WRITE_BUFFERS_BYTES_MAX: usize = 4 << 20;

/// Log bytes after which a key space that is rarely written is flushed, so that it pins no old log.
const LOG_BYTES_MAX: u64 = 16 << 20;

/// Free bytes without which opening the database again is not tried: its log goes to tables then.
const REOPEN_BYTES: u64 = LOG_BYTES_MAX + (8 << 20);

/// Table files held open; the process has connections and segments to keep open too.
const OPEN_FILES_MAX: i32 = 64;

const BACKGROUND_THREADS: i32 = 2;

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
    /// `None` if it could not be opened again.
    db: RwLock<Option<DB>>,
    path: PathBuf,
    ballast: Ballast,
    /// Whether a write without room has to be followed by opening the database again.
    out_of_room: AtomicBool,
    /// Sequence number of what is on stable storage.
    progress: Arc<AtomicU64>,
    /// In the fault build: what is not to outlive the process.
    unsynced: Option<Mutex<Unsynced>>,
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

/// What the system says when space, a quota or the process's files are used up.
const WANT_OF_ROOM: [&str; 3] = [
    "No space left",
    "Disk quota exceeded",
    "Too many open files",
];

fn is_want_of_room(error: &rocksdb::Error) -> bool {
    error.kind() == ErrorKind::IOError
        && (WANT_OF_ROOM.iter()).any(|text| error.as_ref().contains(text))
}

fn families() -> [ColumnFamilyDescriptor; SPACES.len()] {
    let cache = Cache::new_lru_cache(BLOCK_CACHE_BYTES);
    SPACES.map(|space| ColumnFamilyDescriptor::new(family_name(space), family_options(&cache)))
}

fn open_database(path: &Path, options: &Options) -> Result<DB, rocksdb::Error> {
    let families = families();
    DB::open_cf_descriptors(options, path, families)
}

/// Says in one line what a person must know.
fn explain(path: &Path, error: &rocksdb::Error) -> KvError {
    let text = error.as_ref();
    let place = path.display();
    KvError(match error.kind() {
        ErrorKind::Corruption => format!("{place} is damaged: {text}"),
        ErrorKind::IOError if text.contains("No space left") => {
            format!("{place}: no space left on the disk")
        }
        ErrorKind::IOError if text.contains("lock") => {
            format!("{place} is in use by another process")
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
        RocksKv::open_with(path, None)
    }

    /// Opens the store so that the end of the process loses what is not on stable storage, and leaves out the sync of
    /// one point. For tests of the whole broker. Blocks.
    pub fn open_volatile(path: &Path, left_out: Option<SyncPoint>) -> Result<RocksKv, KvError> {
        let kv = RocksKv::open_with(path, Some(Mutex::default()))?;
        kv.writer.leave_out(left_out);
        Ok(kv)
    }

    fn open_with(path: &Path, unsynced: Option<Mutex<Unsynced>>) -> Result<RocksKv, KvError> {
        RocksKv::open_as(path, unsynced, &database_options())
    }

    fn open_as(
        path: &Path,
        unsynced: Option<Mutex<Unsynced>>,
        options: &Options,
    ) -> Result<RocksKv, KvError> {
        std::fs::create_dir_all(path)
            .map_err(|error| KvError(format!("{}: {error}", path.display())))?;
        refuse_remains(path)?;
        let ballast = Ballast::open(path);
        let opened = match open_database(path, options) {
            Err(error) if is_want_of_room(&error) && ballast.make_room(REOPEN_BYTES) => {
                open_database(path, options)
            }
            opened => opened,
        };
        let db = opened.map_err(|error| explain(path, &error))?;
        let progress = Arc::new(AtomicU64::new(db.latest_sequence_number()));
        let rocks = Arc::new(Rocks {
            db: RwLock::new(Some(db)),
            progress,
            path: path.to_owned(),
            ballast,
            out_of_room: AtomicBool::new(false),
            unsynced,
        });
        let writer = BatchWriter::start(rocks.clone())?;
        Ok(RocksKv { writer, rocks })
    }
}

fn family(db: &DB, space: KeySpace) -> &ColumnFamily {
    db.cf_handle(family_name(space))
        .expect("all families were opened with the database")
}

/// All writes as one that RocksDB applies whole.
fn batch_of(db: &DB, writes: &[KvWrite]) -> WriteBatch {
    let mut batch = WriteBatch::default();
    for write in writes {
        match write {
            KvWrite::Put(space, key, value) => batch.put_cf(family(db, *space), key, value),
            KvWrite::Delete(space, key) => batch.delete_cf(family(db, *space), key),
            KvWrite::DeleteRange(space, from, to) if from < to => {
                batch.delete_range_cf(family(db, *space), from, to);
            }
            KvWrite::DeleteRange(..) => {}
        }
    }
    batch
}

/// All pairs whose key starts with a prefix, in key order.
fn scan(db: &DB, space: KeySpace, prefix: &[u8]) -> Result<Vec<(Bytes, Bytes)>, rocksdb::Error> {
    let mut options = ReadOptions::default();
    if let Some(end) = prefix_end(prefix) {
        options.set_iterate_upper_bound(end);
    }
    let mode = IteratorMode::From(prefix, Direction::Forward);
    db.iterator_cf_opt(family(db, space), options, mode)
        .map(|pair| pair.map(|(key, value)| (Bytes::from(key), Bytes::from(value))))
        .collect()
}

impl RocksKv {
    /// A copy of the store in `path` as a start would find it; changes nothing there. Blocks.
    pub fn copy_of(path: &Path) -> Result<MemoryKv, KvError> {
        if !path.join(CURRENT).exists() {
            let missing = format!("{} is damaged: {CURRENT} is missing", path.display());
            return Err(KvError(missing));
        }
        let mut options = database_options();
        options.create_if_missing(false);
        options.create_missing_column_families(false);
        let explained = |error: rocksdb::Error| explain(path, &error);
        let db = DB::open_cf_descriptors_read_only(&options, path, families(), false)
            .map_err(explained)?;
        let sequence = db.latest_sequence_number();
        let mut pairs = Vec::new();
        for space in SPACES {
            let found = scan(&db, space, &[]).map_err(explained)?.into_iter();
            pairs.extend(found.map(|(key, value)| (space, key, value)));
        }
        MemoryKv::of(pairs, sequence)
    }
}

impl Rocks {
    /// Runs something on the open database.
    fn run<T>(&self, work: impl FnOnce(&DB) -> Result<T, rocksdb::Error>) -> Result<T, ApplyError> {
        match &*self.db.read() {
            Some(db) => work(db).map_err(|error| self.refused(&error)),
            None => Err(self.closed()),
        }
    }

    fn read<T>(&self, work: impl FnOnce(&DB) -> Result<T, rocksdb::Error>) -> Result<T, KvError> {
        self.run(work).map_err(|error| match error {
            ApplyError::NoRoom(error) | ApplyError::Failed(error) => error,
        })
    }

    fn write(&self, writes: &[KvWrite], sync: bool) -> Result<(), ApplyError> {
        let mut options = WriteOptions::default();
        options.set_sync(sync);
        let written = self.run(|db| {
            db.write_opt(batch_of(db, writes), &options)?;
            if sync {
                let sequence = db.latest_sequence_number();
                self.progress.store(sequence, Ordering::Release);
            }
            Ok(())
        });
        if matches!(written, Err(ApplyError::NoRoom(_))) {
            self.out_of_room.store(true, Ordering::Relaxed);
        }
        written
    }

    /// Closes the database and opens it again, if there is room for that.
    fn reopen(&self) -> Result<(), ApplyError> {
        if !self.ballast.make_room(REOPEN_BYTES) {
            let place = self.path.display();
            return Err(ApplyError::NoRoom(KvError(format!(
                "{place}: no space left on the disk"
            ))));
        }
        let mut db = self.db.write();
        // Two of them cannot be open at once.
        *db = None;
        let opened = open_database(&self.path, &database_options());
        *db = Some(opened.map_err(|error| self.refused(&error))?);
        self.out_of_room.store(false, Ordering::Relaxed);
        Ok(())
    }

    fn refused(&self, error: &rocksdb::Error) -> ApplyError {
        let explained = explain(&self.path, error);
        if is_want_of_room(error) {
            ApplyError::NoRoom(explained)
        } else {
            ApplyError::Failed(explained)
        }
    }

    fn closed(&self) -> ApplyError {
        let place = self.path.display();
        ApplyError::NoRoom(KvError(format!("{place}: closed until there is room")))
    }
}

impl Rocks {
    fn scan(&self, space: KeySpace, prefix: &[u8]) -> Result<Vec<(Bytes, Bytes)>, KvError> {
        self.read(|db| scan(db, space, prefix))
    }

    /// Keys of the database in a range that is deleted.
    fn keys_in(&self, write: &KvWrite) -> Result<Vec<Bytes>, KvError> {
        let KvWrite::DeleteRange(space, from, to) = write else {
            return Ok(Vec::new());
        };
        let keys = self.scan(*space, &[])?.into_iter().map(|(key, _)| key);
        Ok(keys.filter(|key| from <= key && key < to).collect())
    }

    /// Writes, after opening the database again where it found no room before.
    fn write_or_reopen(&self, writes: &[KvWrite], sync: bool) -> Result<(), ApplyError> {
        if !self.out_of_room.load(Ordering::Relaxed) {
            match self.write(writes, sync) {
                Err(ApplyError::NoRoom(_)) => {}
                done => return done,
            }
        }
        self.reopen()?;
        self.write(writes, sync)
    }
}

impl Target for Rocks {
    fn apply(&self, writes: &[KvWrite], durably: bool) -> Result<(), ApplyError> {
        let Some(unsynced) = &self.unsynced else {
            return self.write_or_reopen(writes, durably);
        };
        let mut unsynced = unsynced.lock();
        let held = |write: &KvWrite| self.keys_in(write).unwrap_or_default();
        unsynced.add(writes, held);
        if durably {
            self.write_or_reopen(unsynced.writes(), true)?;
            unsynced.clear();
        }
        Ok(())
    }

    fn is_at_ease(&self) -> bool {
        !self.ballast.is_missing()
    }

    fn tend(&self) {
        self.ballast.restore();
    }
}

impl KeyValueStore for RocksKv {
    fn get(&self, space: KeySpace, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        let unsynced = self.rocks.unsynced.as_ref().map(Mutex::lock);
        let found = Bytes::copy_from_slice(key);
        if let Some(value) = unsynced.and_then(|unsynced| unsynced.get(space, &found)) {
            return Ok(value);
        }
        let value = (self.rocks).read(|db| db.get_cf(family(db, space), key))?;
        Ok(value.map(Bytes::from))
    }

    fn scan(&self, space: KeySpace, prefix: &[u8]) -> Result<Vec<(Bytes, Bytes)>, KvError> {
        let unsynced = self.rocks.unsynced.as_ref().map(Mutex::lock);
        let found = self.rocks.scan(space, prefix)?;
        Ok(match unsynced {
            Some(unsynced) => unsynced.overlay(space, prefix, found),
            None => found,
        })
    }

    fn write(&self, batch: Vec<KvWrite>, point: Option<SyncPoint>, done: KvCompletion) {
        self.writer.write(batch, point, done);
    }

    fn is_short_of_room(&self) -> bool {
        self.rocks.ballast.is_missing() || self.writer.waits_for_room()
    }

    fn stop_waiting(&self) {
        self.writer.stop_waiting();
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
    use rocksdb::statistics::Ticker;

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
            kv.write_sync(put("1", "a"), SyncPoint::GroupVote)
                .expect("write");
        }
    }

    /// A write-ahead log that was not synced outlives the process, so that no restart shows whether it was.
    #[test]
    fn a_batch_is_synced_when_that_was_asked_for() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let mut options = database_options();
        options.enable_statistics();
        let (kv, syncs) = {
            let kv = RocksKv::open_as(directory.path(), None, &options).expect("open");
            (kv, || options.get_ticker_count(Ticker::WalFileSynced))
        };
        let (tell, told) = std::sync::mpsc::channel();
        let done = Box::new(move |result| drop(tell.send(result)));
        let before = syncs();
        kv.write(put("1", "a"), None, done);
        told.recv().expect("is told").expect("is written");
        assert_eq!(syncs(), before, "nobody asked for it");
        for count in 1..4 {
            let written = kv.write_sync(put("1", "a"), SyncPoint::GroupVote);
            written.expect("write");
            assert_eq!(syncs(), before + count);
        }
    }

    #[test]
    fn volatile_batches_end_with_the_process_and_are_seen_until_then() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let left_out = Some(SyncPoint::GroupVote);
        let kv = RocksKv::open_volatile(directory.path(), left_out).expect("open");
        let get = |kv: &RocksKv, key: &str| kv.get(KeySpace::Vote, key.as_bytes()).expect("get");
        kv.write_sync(put("1", "a"), SyncPoint::CleanStop)
            .expect("write");
        kv.write_sync(put("2", "b"), SyncPoint::GroupVote)
            .expect("write");
        let range = KvWrite::DeleteRange(KeySpace::Vote, "0".into(), "2".into());
        kv.write_sync(vec![range], SyncPoint::GroupVote)
            .expect("write");
        let seen = kv.scan(KeySpace::Vote, b"").expect("scan");
        assert_eq!(seen, [("2".into(), "b".into())]);
        assert_eq!((get(&kv, "1"), get(&kv, "2")), (None, Some("b".into())));
        drop(kv);
        let kv = RocksKv::open_volatile(directory.path(), left_out).expect("open");
        let seen = kv.scan(KeySpace::Vote, b"").expect("scan");
        assert_eq!(seen, [("1".into(), "a".into())]);
        kv.write_sync(put("2", "b"), SyncPoint::GroupVote)
            .expect("write");
        // Whatever is synced later takes along what came before.
        kv.write_sync(put("3", "c"), SyncPoint::CleanStop)
            .expect("write");
        drop(kv);
        let kv = RocksKv::open(directory.path()).expect("open");
        assert_eq!(get(&kv, "2"), Some("b".into()));
    }

    #[test]
    fn want_of_room_is_followed_by_opening_again_with_all_that_was_done() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let kv = RocksKv::open(directory.path()).expect("open");
        kv.write_sync(put("1", "a"), SyncPoint::CleanStop)
            .expect("write");
        let tables = || {
            let count = |db: &DB| Ok(db.live_files()?.len());
            kv.rocks.read(count).expect("files are listed")
        };
        assert_eq!(tables(), 0, "everything is in the log");
        kv.rocks.out_of_room.store(true, Ordering::Relaxed);
        kv.write_sync(put("2", "b"), SyncPoint::CleanStop)
            .expect("write");
        assert_eq!(tables(), 1, "what was in the log is in a table");
        for key in [b"1", b"2"] {
            let found = kv.get(KeySpace::Vote, key).expect("get");
            assert!(found.is_some());
        }
        assert!(!kv.rocks.out_of_room.load(Ordering::Relaxed));
        assert!(!kv.is_short_of_room());
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
            let batch = put(key, "0123456789012345678901234567890123456789");
            kv.write_sync(batch, SyncPoint::GroupVote).expect("write");
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
