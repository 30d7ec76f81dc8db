//! A file system in memory that does its worst.
//!
//! What was not synced may be lost at `power_loss`: file contents by sector, each for itself and in any order, names
//! unless their directory was synced. It can run full or out of files, refuse a write or a sync, forget what a failed sync was to
//! write, flip bits and ignore syncs. Everything follows from seeds. Only for tests; it promises nothing that `RealFs`
//! would not, and one conformance suite runs over both.

mod faults;
mod file;
mod names;
#[cfg(test)]
mod tests;

use std::io;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use super::random::Random;
use super::{File, FileSystem, OpenMode, Space};
use crate::SyncPoint;
pub use faults::Operation;
use faults::{Faults, Verdict, device_error, power_is_gone};
use file::{FileNode, Handle};
use names::{Names, Node};

/// Reported size of the disk where no budget was set.
const DISK_BYTES: u64 = 1 << 40;

/// The hostile file system. Clones share the disk. The root directory exists from the start.
#[derive(Clone, Debug)]
pub struct HostileFs {
    names: Arc<Mutex<Names>>,
    faults: Arc<Mutex<Faults>>,
}

impl HostileFs {
    /// An empty disk.
    pub fn new(seed: u64) -> HostileFs {
        HostileFs {
            names: Arc::new(Mutex::new(Names::new())),
            faults: Arc::new(Mutex::new(Faults::new(seed))),
        }
    }

    /// The power goes and comes back: what is left is some state that the disk may have had. Open handles are dead, armed
    /// failures are disarmed, the space budget stays.
    pub fn power_loss(&self, seed: u64) {
        let mut random = Random::new(seed);
        let torn = {
            let mut faults = self.faults.lock();
            faults.begin_life(seed);
            faults.sectors_torn
        };
        let mut names = self.names.lock();
        for file in names.lose_power(&mut random) {
            let mut content = file.content.lock();
            let before = content.len();
            content.lose_power(&mut random, torn);
            let after = content.len();
            drop(content);
            let mut faults = self.faults.lock();
            faults.shrink(before);
            faults.bytes_used += after;
        }
    }

    /// The process is killed and another one starts: what was written is there, synced or not. Open handles are dead,
    /// armed failures are disarmed.
    pub fn kill(&self, seed: u64) {
        self.faults.lock().begin_life(seed);
        self.names.lock().unlock();
    }

    /// The power goes during the operation after `operations` more: its effect may reach the disk or not, and it and
    /// all later ones fail until `power_loss`.
    pub fn cut_power_after(&self, operations: u64) {
        self.faults.lock().cut_power_after(operations);
    }

    /// Changing operations (writes, syncs, changes of names) so far.
    pub fn operations(&self) -> u64 {
        self.faults.lock().operations
    }

    /// Refuses one operation with EIO, after `passing` more of its kind. A refused sync forgets what it was to write:
    /// it stays readable, and later syncs succeed without writing it.
    pub fn refuse(&self, operation: Operation, passing: u64) {
        self.faults.lock().refuse(operation, passing);
    }

    /// Bytes that all files together may have; beyond it, growing fails with ENOSPC.
    pub fn set_space(&self, bytes_max: Option<u64>) {
        self.faults.lock().bytes_max = bytes_max;
    }

    /// From now on no file can be opened, or again.
    pub fn set_out_of_files(&self, out: bool) {
        self.faults.lock().out_of_files = out;
    }

    /// Makes every sync succeed without doing anything.
    pub fn set_syncs_ignored(&self, ignored: bool) {
        self.faults.lock().syncs_ignored = ignored;
    }

    /// Makes the syncs of one point succeed without doing anything, as if the call were not there.
    pub fn leave_out(&self, point: Option<SyncPoint>) {
        self.faults.lock().left_out = point;
    }

    /// Lets a power loss leave sectors half written. (Disks write sectors whole; what rests on that should say so.)
    pub fn set_sectors_torn(&self, torn: bool) {
        self.faults.lock().sectors_torn = torn;
    }

    /// Flips one bit of a file, on the disk and in memory.
    pub fn flip_bit(&self, path: &Path, position: u64, bit: u8) -> io::Result<()> {
        let position = usize::try_from(position).map_err(|_| io::ErrorKind::InvalidInput)?;
        self.file(path)?.content.lock().flip_bit(position, bit);
        Ok(())
    }

    /// Turns bytes of a file into zeros, on the disk and in memory.
    pub fn zero(&self, path: &Path, position: u64, len: usize) -> io::Result<()> {
        let position = usize::try_from(position).map_err(|_| io::ErrorKind::InvalidInput)?;
        self.file(path)?.content.lock().zero(position, len);
        Ok(())
    }

    fn file(&self, path: &Path) -> io::Result<Arc<FileNode>> {
        match self.names.lock().find(path)? {
            Node::File(file) => Ok(file),
            Node::Dir(_) => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    /// Runs a change of names, whole or interrupted by the loss of power.
    fn change<T>(
        &self,
        operation: Operation,
        change: impl FnOnce(&mut Names) -> io::Result<T>,
    ) -> io::Result<T> {
        let verdict = self.faults.lock().begin(operation)?;
        match verdict {
            Verdict::Refused => Err(device_error()),
            Verdict::Proceed => change(&mut self.names.lock()),
            Verdict::Interrupted => {
                change(&mut self.names.lock()).and_then(|_| Err(power_is_gone()))
            }
        }
    }

    fn create(&self, path: &Path, exclusive: bool) -> io::Result<Arc<FileNode>> {
        match self.names.lock().find(path) {
            Ok(Node::File(_)) if exclusive => return Err(io::ErrorKind::AlreadyExists.into()),
            Ok(Node::File(file)) => return Ok(file),
            Ok(Node::Dir(_)) => return Err(io::ErrorKind::IsADirectory.into()),
            Err(_) => {}
        }
        self.change(Operation::Change, |names| {
            let (dir, name) = names.parent(path)?;
            let file = Arc::new(FileNode::new(self.faults.clone()));
            names.put(dir, &name, Node::File(file.clone()));
            Ok(file)
        })
    }
}

impl FileSystem for HostileFs {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        {
            let faults = self.faults.lock();
            faults.check_power()?;
            if faults.out_of_files {
                return Err(rustix::io::Errno::MFILE.into());
            }
        }
        let node = match mode {
            OpenMode::Read | OpenMode::Write => self.file(path)?,
            OpenMode::CreateNew => self.create(path, true)?,
            OpenMode::CreateOrOpen => self.create(path, false)?,
        };
        let mut faults = self.faults.lock();
        let number = faults.random.next();
        Ok(Arc::new(Handle::new(
            node,
            faults.life,
            number,
            mode != OpenMode::Read,
        )))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        if matches!(self.names.lock().find(path), Ok(Node::Dir(_))) {
            return Ok(());
        }
        self.change(Operation::Change, |names| names.make_dirs(path))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.faults.lock().check_power()?;
        let names = self.names.lock();
        Ok(names.list(names.dir(path)?))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.faults.lock().check_power()?;
        Ok(self.names.lock().find(path).is_ok())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.file(path)?;
        self.change(Operation::Change, |names| {
            let (dir, name) = names.parent(path)?;
            names.remove(dir, &name);
            Ok(())
        })
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.change(Operation::Change, |names| {
            names.dir(path)?;
            let (parent, name) = names.parent(path)?;
            names.remove(parent, &name);
            Ok(())
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change(Operation::Change, |names| names.rename(from, to))
    }

    fn sync_dir(&self, path: &Path, point: SyncPoint) -> io::Result<()> {
        let dir = self.names.lock().dir(path)?;
        let verdict = {
            let mut faults = self.faults.lock();
            if faults.leaves_out(point) {
                return faults.check_power();
            }
            faults.begin(Operation::SyncDirectory)?
        };
        match verdict {
            Verdict::Refused => Err(device_error()),
            Verdict::Interrupted => Err(power_is_gone()),
            Verdict::Proceed => {
                self.names.lock().sync(dir);
                Ok(())
            }
        }
    }

    fn space(&self, _path: &Path) -> io::Result<Space> {
        let faults = self.faults.lock();
        faults.check_power()?;
        let total_bytes = faults.bytes_max.unwrap_or(DISK_BYTES);
        Ok(Space {
            available_bytes: total_bytes.saturating_sub(faults.bytes_used),
            total_bytes,
        })
    }
}
