//! One process per data directory.
//!
//! Owns `DATA/.lock`. The lock is the kernel's (`flock`), so it ends with the process however that ends; the process
//! id inside is only for the message to the next one.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{File, FileSystem, OpenMode};

const LOCK_FILE: &str = ".lock";

/// Longest content that is believed to be a process id.
const PID_BYTES_MAX: usize = 20;

/// The right to use a data directory; ends when dropped.
#[derive(Debug)]
pub struct DirectoryLock {
    _file: Arc<dyn File>,
}

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error("data directory {} is in use by {}", directory.display(), holder(*pid))]
    InUse {
        /// The directory.
        directory: PathBuf,
        /// The process, where it said who it is.
        pid: Option<u32>,
    },
    /// The system refused.
    #[error("data directory {}: {error}", directory.display())]
    Io {
        /// The directory.
        directory: PathBuf,
        /// What it said.
        error: io::Error,
    },
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(
        || "another process".to_owned(),
        |pid| format!("process {pid}"),
    )
}

impl DirectoryLock {
    /// Makes the directory if it is missing and takes its lock, without waiting.
    pub fn acquire(fs: &dyn FileSystem, directory: &Path) -> Result<DirectoryLock, LockError> {
        let failed = |error| LockError::Io {
            directory: directory.to_owned(),
            error,
        };
        fs.create_dir_all(directory).map_err(failed)?;
        let file = fs
            .open(&directory.join(LOCK_FILE), OpenMode::CreateOrOpen)
            .map_err(failed)?;
        if !file.try_lock().map_err(failed)? {
            return Err(LockError::InUse {
                directory: directory.to_owned(),
                pid: read_pid(&*file),
            });
        }
        let text = format!("{}\n", std::process::id());
        file.set_len(0).map_err(failed)?;
        file.write_at(&[IoSlice::new(text.as_bytes())], 0)
            .map_err(failed)?;
        Ok(DirectoryLock { _file: file })
    }
}

impl DirectoryLock {
    /// Takes the lock of a directory without changing anything in it; `None` if there is no lock file, so that no
    /// process has it.
    pub fn hold(fs: &dyn FileSystem, directory: &Path) -> Result<Option<DirectoryLock>, LockError> {
        let failed = |error| LockError::Io {
            directory: directory.to_owned(),
            error,
        };
        let file = match fs.open(&directory.join(LOCK_FILE), OpenMode::Read) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        if !file.try_lock().map_err(failed)? {
            return Err(LockError::InUse {
                directory: directory.to_owned(),
                pid: read_pid(&*file),
            });
        }
        Ok(Some(DirectoryLock { _file: file }))
    }
}

fn read_pid(file: &dyn File) -> Option<u32> {
    let mut bytes = [0; PID_BYTES_MAX];
    let read = file.read_at(&mut bytes, 0).ok()?;
    std::str::from_utf8(bytes.get(..read)?)
        .ok()?
        .trim()
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::{HostileFs, RealFs};

    fn check(fs: &dyn FileSystem, directory: &Path) {
        let first = DirectoryLock::acquire(fs, directory).expect("the first one gets it");
        let refused = DirectoryLock::acquire(fs, directory).expect_err("the second one does not");
        let text = refused.to_string();
        assert!(text.contains(&directory.display().to_string()), "{text}");
        assert!(text.contains(&std::process::id().to_string()), "{text}");
        let also = DirectoryLock::hold(fs, directory).expect_err("nor one that only looks");
        assert_eq!(also.to_string(), text);
        drop(first);
        assert!(DirectoryLock::hold(fs, directory).expect("free").is_some());
        DirectoryLock::acquire(fs, directory).expect("free again");
    }

    #[test]
    fn second_user_of_a_directory_is_refused_by_name() {
        let real = tempfile::tempdir().expect("temporary directory");
        check(&RealFs, &real.path().join("data"));
        check(&HostileFs::new(1), Path::new("/data"));
    }
}
