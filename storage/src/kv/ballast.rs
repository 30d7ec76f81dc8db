//! Room that the key-value store can get back when the disk is full.
//!
//! Owns one file beside RocksDB's. RocksDB cannot go on after a write without room before it has written tables and a
//! log anew, and what gives room back (the deletion of a topic) has to be written first. Whoever fills the disk, this
//! much is left for it. Invariant: the file is whole or counts as missing.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::io::Errno;

/// Size of the file: all that the store's log may hold, written to tables, and a new log.
const BYTES: u64 = 32 << 20;

/// What stays free when the file is made again, so that it does not fill the disk itself.
const FREE_BYTES_MIN: u64 = 8 << 20;

const NAME: &str = "BALLAST";

/// Unit of the block count that the system tells.
const BLOCK_BYTES: u64 = 512;

/// See the module.
#[derive(Debug)]
pub(super) struct Ballast {
    path: PathBuf,
    missing: AtomicBool,
}

impl Ballast {
    /// The ballast of a store's folder, made if it is not there and there is room.
    pub(super) fn open(folder: &Path) -> Ballast {
        let path = folder.join(NAME);
        let whole = fs::metadata(&path)
            .is_ok_and(|found| found.len() == BYTES && found.blocks() * BLOCK_BYTES >= BYTES);
        let ballast = Ballast {
            path,
            missing: AtomicBool::new(!whole),
        };
        ballast.restore();
        ballast
    }

    /// Whether it was given up and not made again.
    pub(super) fn is_missing(&self) -> bool {
        self.missing.load(Ordering::Relaxed)
    }

    /// Makes sure that `bytes` are free, or as much as there is: gives the file up where they are not.
    pub(super) fn make_room(&self, bytes: u64) -> bool {
        if self.available_bytes() >= bytes {
            return true;
        }
        if !self.missing.swap(true, Ordering::Relaxed)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "not removed");
        }
        self.available_bytes() >= bytes
    }

    /// Makes the file again if there is room for it.
    pub(super) fn restore(&self) {
        if !self.is_missing() || self.available_bytes() < BYTES + FREE_BYTES_MIN {
            return;
        }
        match self.allocate() {
            Ok(()) => self.missing.store(false, Ordering::Relaxed),
            // Filled in between; the next look will tell.
            Err(error) => {
                tracing::debug!(path = %self.path.display(), %error, "no ballast");
                // Half of it would only take room away.
                drop(fs::remove_file(&self.path));
            }
        }
    }

    fn allocate(&self) -> io::Result<()> {
        let file = File::create(&self.path)?;
        match fallocate(&file, FallocateFlags::empty(), 0, BYTES) {
            // Such a file system gives no promise that could be kept: there is nothing to be missing.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            other => Ok(other?),
        }
    }

    fn available_bytes(&self) -> u64 {
        let folder = self.path.parent().unwrap_or(&self.path);
        statvfs(folder).map_or(0, |stat| stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_given_up_for_want_of_room_only_and_made_again() {
        let folder = tempfile::tempdir().expect("temporary directory");
        let file = folder.path().join(NAME);
        let ballast = Ballast::open(folder.path());
        assert!(!ballast.is_missing());
        assert_eq!(fs::metadata(&file).expect("is there").len(), BYTES);
        assert!(ballast.make_room(1));
        assert!(!ballast.is_missing() && file.exists());
        // More than any disk has.
        assert!(!ballast.make_room(u64::MAX));
        assert!(ballast.is_missing() && !file.exists());
        ballast.restore();
        assert!(!ballast.is_missing() && file.exists());
    }

    #[test]
    fn a_file_cut_short_counts_as_missing_and_is_made_again() {
        let folder = tempfile::tempdir().expect("temporary directory");
        let file = folder.path().join(NAME);
        fs::write(&file, b"short").expect("write");
        let ballast = Ballast::open(folder.path());
        assert!(!ballast.is_missing());
        assert_eq!(fs::metadata(&file).expect("is there").len(), BYTES);
    }
}
