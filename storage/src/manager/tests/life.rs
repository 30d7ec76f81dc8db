//! The disk as one life of the process sees it: when the power goes, threads that still run reach it no more.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use parking_lot::RwLock;

use crate::SyncPoint;
use crate::fs::{File, FileSystem, HostileFs, OpenMode, Space};
use crate::kv::{KeySpace, KeyValueStore, KvCompletion, KvError, KvWrite, MemoryKv};

/// Whether the power is gone. Operations hold the lock, so that none is under way when the life ends.
#[derive(Debug, Default)]
pub struct Life {
    ended: RwLock<bool>,
}

impl Life {
    pub fn end(&self) {
        *self.ended.write() = true;
    }

    fn run<T>(&self, operation: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let ended = self.ended.read();
        if *ended {
            return Err(io::Error::other("power is gone"));
        }
        operation()
    }
}

/// The file system of one life. Its open files die with the power by themselves.
#[derive(Debug)]
pub struct LifeFs {
    pub fs: Arc<HostileFs>,
    pub life: Arc<Life>,
}

impl FileSystem for LifeFs {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        self.life.run(|| self.fs.open(path, mode))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.life.run(|| self.fs.create_dir_all(path))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.life.run(|| self.fs.list(path))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.life.run(|| self.fs.exists(path))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.life.run(|| self.fs.remove_file(path))
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.life.run(|| self.fs.remove_dir_all(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.life.run(|| self.fs.rename(from, to))
    }

    fn sync_dir(&self, path: &Path, point: SyncPoint) -> io::Result<()> {
        self.life.run(|| self.fs.sync_dir(path, point))
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        self.life.run(|| self.fs.space(path))
    }
}

/// The key-value store of one life.
#[derive(Debug)]
pub struct LifeKv {
    pub kv: Arc<MemoryKv>,
    pub life: Arc<Life>,
}

impl KeyValueStore for LifeKv {
    fn get(&self, space: KeySpace, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        self.kv.get(space, key)
    }

    fn scan(&self, space: KeySpace, prefix: &[u8]) -> Result<Vec<(Bytes, Bytes)>, KvError> {
        self.kv.scan(space, prefix)
    }

    fn write(&self, batch: Vec<KvWrite>, point: Option<SyncPoint>, done: KvCompletion) {
        let ended = self.life.ended.read();
        if *ended {
            return done(Err(KvError("power is gone".to_owned())));
        }
        self.kv.write(batch, point, done);
    }

    fn progress(&self) -> Arc<AtomicU64> {
        self.kv.progress()
    }

    fn is_short_of_room(&self) -> bool {
        self.kv.is_short_of_room()
    }

    fn stop_waiting(&self) {
        self.kv.stop_waiting();
    }
}
