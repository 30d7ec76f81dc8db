//! The file system as a small trait, so that tests can lose unsynced data, tear writes, run full and flip bits.
//!
//! Three implementations pass one conformance suite: `RealFs` (Linux), `HostileFs` (memory) and `VolatileFs` (Linux, but
//! what was not synced is in memory).

mod hostile;
mod identity;
mod lock;
mod overlay;
mod random;
mod real;
mod volatile;

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod power;

use std::fmt::Debug;
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

pub use hostile::{HostileFs, Operation};
pub use identity::{DirectoryIdentity, IdentityError};
pub use lock::{DirectoryLock, LockError};
pub use overlay::OverlayFs;
pub use real::RealFs;
pub use volatile::VolatileFs;

use crate::SyncPoint;

/// What a disk writes at once, bytes.
const SECTOR: usize = 512;

/// Whether an error passes by itself once space or files are given back: what failed may be tried again. Never so for
/// a sync, which may have dropped what it was to write.
pub fn is_want_of_room(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let of_files = [Errno::MFILE, Errno::NFILE].map(Errno::raw_os_error);
    error.kind() == io::ErrorKind::StorageFull
        || (error.raw_os_error()).is_some_and(|code| of_files.contains(&code))
}

/// How to open a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// Existing file, read only.
    Read,
    /// Existing file, read and write.
    Write,
    /// New file, read and write; an error if it exists.
    CreateNew,
    /// Read and write, made if missing.
    CreateOrOpen,
}

/// Free and total bytes of the file system that holds a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes available to this process.
    pub available_bytes: u64,
    /// Size of the file system.
    pub total_bytes: u64,
}

/// A directory tree. All calls block.
pub trait FileSystem: Debug + Send + Sync + 'static {
    /// Opens a file.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>>;
    /// Makes a directory and its parents.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Names in a directory, in no order.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;
    /// Whether the path exists.
    fn exists(&self, path: &Path) -> io::Result<bool>;
    /// Removes a file.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes a directory and all below it.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Renames a file atomically, replacing what is there.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Makes names in the directory durable. `point` says who asks; it changes nothing but in tests.
    fn sync_dir(&self, path: &Path, point: SyncPoint) -> io::Result<()>;
    /// Free space.
    fn space(&self, path: &Path) -> io::Result<Space>;
}

/// An open file. All calls but [`File::try_read_vec`] block.
#[allow(clippy::len_without_is_empty)] // A file's size is not a collection's; nobody asks whether it is empty.
pub trait File: Debug + Send + Sync + 'static {
    /// Reads until `buf` is full or the file ends; returns bytes read.
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize>;
    /// Reads up to `len` bytes; fewer where the file ends.
    fn read_vec(&self, len: usize, position: u64) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        let read = self.read_at(&mut bytes, position)?;
        bytes.truncate(read);
        Ok(bytes)
    }
    /// As [`Self::read_vec`], but never waits for a disk: `None` unless all `len` bytes are known to be in memory.
    fn try_read_vec(&self, _len: usize, _position: u64) -> Option<Vec<u8>> {
        None
    }
    /// Writes all slices, one after the other, from `position` on.
    fn write_at(&self, slices: &[IoSlice<'_>], position: u64) -> io::Result<()>;
    /// Makes written data (and the size) durable. `point` says who asks; it changes nothing but in tests.
    fn sync_data(&self, point: SyncPoint) -> io::Result<()>;
    /// Size in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Cuts or extends (with zeros) to `len` bytes.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Takes the exclusive lock that ends when the last handle of this `open` is dropped; `false` if another open of
    /// the file, in this or another process, holds it.
    fn try_lock(&self) -> io::Result<bool>;
    /// Starts write-back of a range without waiting (a hint).
    fn start_write_back(&self, position: u64, len: u64) -> io::Result<()>;
}
