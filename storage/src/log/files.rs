//! Names and handles of a log's files.
//!
//! Owns the layout of `DATA/topics/<topic>-<partition>.<log id>/` and a bounded cache of open files over all logs.
//! A handle that a reader holds stays valid when its file is removed. Knows no contents.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use tidelog_protocol::types::Offset;

use super::{EntryIndex, LogError, LogId};
use crate::SyncPoint;
use crate::fs::{File, FileSystem, OpenMode, is_want_of_room};

/// Folder of all logs below the data directory.
pub const TOPICS: &str = "topics";

/// Where a segment begins. Segments without records share their base offset, so the entry index is part of the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SegmentName {
    /// Index of its first entry.
    pub first: EntryIndex,
    /// Offset of its first record.
    pub base: Offset,
    /// 0: as it was appended. Else the number of the compaction that made it, which no other segment of the log has.
    pub revision: u32,
}

/// The files of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// Record batches.
    Log,
    /// Offset to position.
    Index,
    /// Timestamp to offset.
    TimeIndex,
    /// Aborted transactions; made by nobody yet, removed with the rest.
    TxnIndex,
    /// Producer state at the beginning of the segment.
    Snapshot,
    /// Envelopes.
    Entries,
    /// Entry index to position in the side file.
    EntryIndex,
}

impl FileKind {
    /// All kinds, the one that makes a segment exist last: its removal comes last.
    pub const ALL: [FileKind; 7] = [
        FileKind::Log,
        FileKind::Index,
        FileKind::TimeIndex,
        FileKind::TxnIndex,
        FileKind::Snapshot,
        FileKind::EntryIndex,
        FileKind::Entries,
    ];

    /// Whether files of this kind are shared by segments of the same base offset.
    fn is_named_by_offset(self) -> bool {
        !matches!(self, FileKind::Entries | FileKind::EntryIndex)
    }
}

impl SegmentName {
    /// Name of one of the segment's files.
    pub fn file_name(self, kind: FileKind) -> String {
        let (base, first) = (self.base.0, self.first.0);
        let stem = match self.revision {
            0 => format!("{base:020}"),
            revision => format!("{base:020}.r{revision}"),
        };
        match kind {
            FileKind::Log => format!("{stem}.log"),
            FileKind::Index => format!("{stem}.index"),
            FileKind::TimeIndex => format!("{stem}.timeindex"),
            FileKind::TxnIndex => format!("{stem}.txnindex"),
            FileKind::Snapshot => format!("{stem}.snapshot"),
            FileKind::Entries => format!("{stem}.{first:020}.entries"),
            FileKind::EntryIndex => format!("{stem}.{first:020}.entryindex"),
        }
    }

    /// Base offset and revision of a file of records or one of its indexes.
    pub fn of_record_file(file_name: &str) -> Option<(Offset, u32)> {
        let (stem, kind) = file_name.rsplit_once('.')?;
        if !["log", "index", "timeindex", "txnindex", "snapshot"].contains(&kind) {
            return None;
        }
        let (base, revision) = match stem.split_once(".r") {
            Some((base, revision)) => (base, revision.parse().ok()?),
            None => (stem, 0),
        };
        Some((Offset(base.parse().ok()?), revision))
    }

    /// The segment that a side file belongs to.
    pub fn of_entries_file(file_name: &str) -> Option<SegmentName> {
        let (base, first) = file_name.strip_suffix(".entries")?.split_once('.')?;
        let name = SegmentName {
            base: Offset(base.parse().ok()?),
            first: EntryIndex(first.parse().ok()?),
            revision: 0,
        };
        (name.file_name(FileKind::Entries) == file_name).then_some(name)
    }
}

/// Kafka's file of epochs; for its tools, ours are in the checkpoint.
pub const EPOCH_FILE: &str = "leader-epoch-checkpoint";

/// Whether a folder of a log may hold a file of this name.
pub fn is_log_file(file_name: &str) -> bool {
    let stem = file_name.strip_suffix(".tmp").unwrap_or(file_name);
    let side = match stem.strip_suffix(".entryindex") {
        Some(stem) => format!("{stem}.entries"),
        None => stem.to_owned(),
    };
    stem == EPOCH_FILE
        || SegmentName::of_record_file(stem).is_some()
        || SegmentName::of_entries_file(&side).is_some()
}

/// The files of one log.
#[derive(Debug)]
pub struct LogFiles {
    fs: Arc<dyn FileSystem>,
    handles: Arc<HandleCache>,
    id: LogId,
    directory: PathBuf,
    /// Directory below the data directory, for messages.
    shown: String,
}

impl LogFiles {
    /// Files of a log whose folder is called `folder`.
    pub fn new(
        fs: Arc<dyn FileSystem>,
        handles: Arc<HandleCache>,
        data: &Path,
        id: LogId,
        folder: &str,
    ) -> LogFiles {
        let shown = format!("{TOPICS}/{folder}");
        LogFiles {
            fs,
            handles,
            id,
            directory: data.join(TOPICS).join(folder),
            shown,
        }
    }

    /// Path of a file below the data directory, for messages.
    pub fn shown(&self, name: SegmentName, kind: FileKind) -> String {
        format!("{}/{}", self.shown, name.file_name(kind))
    }

    /// An I/O error that names its file.
    pub fn failed(&self, name: SegmentName, kind: FileKind, error: &io::Error) -> LogError {
        self.failed_at(&name.file_name(kind), error)
    }

    /// An I/O error that names its file.
    pub fn failed_at(&self, file_name: &str, error: &io::Error) -> LogError {
        let text = format!("{}/{file_name}: {error}", self.shown);
        if is_want_of_room(error) {
            LogError::NoSpace(text)
        } else {
            LogError::Io(text.into())
        }
    }

    /// A sync that failed: for good, whatever the reason, since it may have dropped what it was to write.
    pub fn sync_failed(&self, file_name: &str, error: &io::Error) -> LogError {
        LogError::Io(format!("{}/{file_name}: {error}", self.shown).into())
    }

    /// Damage in a file.
    pub fn corrupt(
        &self,
        name: SegmentName,
        kind: FileKind,
        position: u64,
        reason: &str,
    ) -> LogError {
        LogError::Corrupt {
            file: self.shown(name, kind),
            position,
            reason: reason.to_owned(),
        }
    }

    /// An existing file, or `None`.
    pub fn open_if_exists(
        &self,
        name: SegmentName,
        kind: FileKind,
    ) -> Result<Option<Arc<dyn File>>, LogError> {
        match self.handle(name, kind, OpenMode::Write) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.failed(name, kind, &error)),
        }
    }

    /// A file that is open already; touches no disk.
    pub fn opened(&self, name: SegmentName, kind: FileKind) -> Option<Arc<dyn File>> {
        self.handles.opened(self.key(name, kind))
    }

    /// A file, made if missing.
    pub fn create(&self, name: SegmentName, kind: FileKind) -> Result<Arc<dyn File>, LogError> {
        let opened = self.handle(name, kind, OpenMode::CreateOrOpen);
        opened.map_err(|error| self.failed(name, kind, &error))
    }

    fn handle(
        &self,
        name: SegmentName,
        kind: FileKind,
        mode: OpenMode,
    ) -> io::Result<Arc<dyn File>> {
        let path = || self.directory.join(name.file_name(kind));
        if kind == FileKind::Snapshot {
            // Replaced whole: a handle that is kept would be of the file before.
            return self.fs.open(&path(), mode);
        }
        self.handles
            .get(self.key(name, kind), || self.fs.open(&path(), mode))
    }

    /// One for each file, not for each name: a handle under another one would outlive the file.
    fn key(&self, name: SegmentName, kind: FileKind) -> HandleKey {
        let first = if kind.is_named_by_offset() {
            EntryIndex::default()
        } else {
            name.first
        };
        (self.id, SegmentName { first, ..name }, kind)
    }

    /// Makes the folder.
    pub fn create_directory(&self) -> Result<(), LogError> {
        self.fs
            .create_dir_all(&self.directory)
            .map_err(|error| self.failed_at("", &error))
    }

    /// Makes the names in the folder durable. A folder that was removed meanwhile needs no sync.
    pub fn sync_names(&self, point: SyncPoint) -> Result<(), LogError> {
        match self.fs.sync_dir(&self.directory, point) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            synced => synced.map_err(|error| self.sync_failed("", &error)),
        }
    }

    /// Makes the folder's own name durable.
    pub fn sync_folder(&self) -> Result<(), LogError> {
        let parent = self.directory.parent().unwrap_or(&self.directory);
        (self.fs.sync_dir(parent, SyncPoint::LogFolder))
            .map_err(|error| self.sync_failed("", &error))
    }

    /// Names of the files in the folder; none if there is no folder.
    pub fn list(&self) -> Result<Vec<String>, LogError> {
        match self.fs.list(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            listed => listed.map_err(|error| self.failed_at("", &error)),
        }
    }

    /// Removes a file of the folder; one that is missing is fine.
    pub fn remove(&self, file_name: &str) -> Result<(), LogError> {
        match self.fs.remove_file(&self.directory.join(file_name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(self.failed_at(file_name, &error))
            }
            _ => Ok(()),
        }
    }

    /// Removes the files of a segment, but for those that `keep`, a segment of the same base offset, uses too.
    pub fn remove_segment(
        &self,
        name: SegmentName,
        keep: Option<SegmentName>,
    ) -> Result<(), LogError> {
        let shared = keep.is_some_and(|keep| keep.base == name.base);
        for kind in FileKind::ALL {
            if !(shared && kind.is_named_by_offset()) {
                self.remove(&name.file_name(kind))?;
                self.handles.forget(self.key(name, kind));
            }
        }
        Ok(())
    }

    /// Removes what only entries need of a segment: its records and their indexes stay.
    pub fn remove_side_files(&self, name: SegmentName) -> Result<(), LogError> {
        for kind in [FileKind::EntryIndex, FileKind::Entries] {
            self.remove(&name.file_name(kind))?;
            self.handles.forget(self.key(name, kind));
        }
        Ok(())
    }

    /// Removes the files of the folder that are not to be kept. Handles are found anew.
    pub fn remove_all_but(&self, keep: impl Fn(&str) -> bool) -> Result<(), LogError> {
        let listed = self.list()?;
        let mut gone = listed.iter().filter(|file| !keep(file));
        let removed = gone.try_for_each(|file| self.remove(file));
        self.handles.forget_log(self.id);
        removed
    }

    /// Removes the folder and all in it.
    pub fn remove_all(&self) -> Result<(), LogError> {
        let removed = self.fs.remove_dir_all(&self.directory);
        self.handles.forget_log(self.id);
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(self.failed_at("", &error))
            }
            _ => Ok(()),
        }
    }

    /// Replaces a small file, which may be damaged by a power loss until it is synced. Such files are not kept open.
    pub fn replace(&self, file_name: &str, bytes: &[u8]) -> Result<(), LogError> {
        let temporary = self.directory.join(format!("{file_name}.tmp"));
        let write = || {
            let file = self.fs.open(&temporary, OpenMode::CreateOrOpen)?;
            file.set_len(0)?;
            file.write_at(&[io::IoSlice::new(bytes)], 0)?;
            self.fs.rename(&temporary, &self.directory.join(file_name))
        };
        write().map_err(|error| self.failed_at(file_name, &error))
    }
}

type HandleKey = (LogId, SegmentName, FileKind);

/// Open files of all logs, bounded.
#[derive(Debug)]
pub struct HandleCache {
    open_max: usize,
    inner: Mutex<Handles>,
}

#[derive(Debug, Default)]
struct Handles {
    open: HashMap<HandleKey, (Arc<dyn File>, u64)>,
    clock: u64,
    /// Rises when files are removed: a handle that was opened before may be of a file that is gone.
    removals: u64,
}

impl HandleCache {
    /// A cache that keeps about `open_max` files open.
    pub fn new(open_max: usize) -> HandleCache {
        HandleCache {
            open_max: open_max.max(8),
            inner: Mutex::default(),
        }
    }

    fn get(
        &self,
        key: HandleKey,
        open: impl FnOnce() -> io::Result<Arc<dyn File>>,
    ) -> io::Result<Arc<dyn File>> {
        let removals = {
            let mut inner = self.inner.lock();
            if let Some(file) = inner.opened(&key) {
                return Ok(file);
            }
            inner.removals
        };
        let file = open()?;
        let mut inner = self.inner.lock();
        if inner.removals != removals {
            return Ok(file);
        }
        if inner.open.len() >= self.open_max {
            inner.evict(self.open_max - self.open_max / 8);
        }
        let now = inner.clock;
        inner.open.insert(key, (Arc::clone(&file), now));
        Ok(file)
    }

    fn opened(&self, key: HandleKey) -> Option<Arc<dyn File>> {
        self.inner.lock().opened(&key)
    }

    fn forget(&self, key: HandleKey) {
        let mut inner = self.inner.lock();
        inner.removals += 1;
        inner.open.remove(&key);
    }

    fn forget_log(&self, id: LogId) {
        let mut inner = self.inner.lock();
        inner.removals += 1;
        inner.open.retain(|(log, ..), _| *log != id);
    }

    /// Files held open.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.inner.lock().open.len()
    }
}

impl Handles {
    fn opened(&mut self, key: &HandleKey) -> Option<Arc<dyn File>> {
        self.clock += 1;
        let (file, used) = self.open.get_mut(key)?;
        *used = self.clock;
        Some(Arc::clone(file))
    }

    /// Closes the files that were not used for the longest time, until `keep` are left.
    fn evict(&mut self, keep: usize) {
        let mut used: Vec<u64> = self.open.values().map(|(_, used)| *used).collect();
        used.sort_unstable();
        if let Some(oldest_kept) = used.len().checked_sub(keep).and_then(|at| used.get(at)) {
            let oldest_kept = *oldest_kept;
            self.open.retain(|_, (_, used)| *used >= oldest_kept);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A handle that was opened under the name of one is of no use once the file was removed under that of the other.
    #[test]
    fn segments_of_one_base_offset_share_handles_as_they_share_files() {
        let fs = crate::fs::HostileFs::new(1);
        let (cache, log) = (Arc::new(HandleCache::new(8)), LogId(1));
        let files = LogFiles::new(
            Arc::new(fs.clone()),
            cache,
            Path::new("/data"),
            log,
            "t-0.1",
        );
        fs.create_dir_all(&files.directory).expect("make");
        let [empty, later] = [5, 9].map(|first| SegmentName {
            first: EntryIndex(first),
            ..SegmentName::default()
        });
        for records in [[1; 4], [2; 4]] {
            let file = files.create(later, FileKind::Log).expect("open");
            file.write_at(&[io::IoSlice::new(&records)], 0)
                .expect("write");
            let path = files.directory.join(later.file_name(FileKind::Log));
            let written = fs.open(&path, OpenMode::Read).expect("is there");
            assert_eq!(written.read_vec(4, 0).expect("read"), records);
            files.remove_segment(later, Some(empty)).expect("remove");
            files.remove_segment(empty, None).expect("remove");
        }
    }

    #[test]
    fn names_are_kafkas_and_round_trip() {
        let name = SegmentName {
            base: Offset(4711),
            first: EntryIndex(12),
            revision: 0,
        };
        assert_eq!(name.file_name(FileKind::Log), "00000000000000004711.log");
        let cleaned = SegmentName {
            revision: 3,
            ..name
        };
        let file = cleaned.file_name(FileKind::Index);
        assert_eq!(file, "00000000000000004711.r3.index");
        assert_eq!(SegmentName::of_record_file(&file), Some((Offset(4711), 3)));
        let file = name.file_name(FileKind::Log);
        assert_eq!(SegmentName::of_record_file(&file), Some((Offset(4711), 0)));
        assert_eq!(SegmentName::of_record_file("leader-epoch-checkpoint"), None);
        let entries = name.file_name(FileKind::Entries);
        assert_eq!(SegmentName::of_entries_file(&entries), Some(name));
        for foreign in [
            "x.entries",
            "1.2.entries",
            "00000000000000004711.entries",
            "a.log",
        ] {
            assert_eq!(SegmentName::of_entries_file(foreign), None, "{foreign}");
        }
    }
}
