//! The file system of the machine.
//!
//! Adds nothing to what the kernel promises: short reads and writes are continued, interrupted calls repeated, and a
//! failed sync is passed on, never repeated.

use std::fs::{self, OpenOptions, TryLockError};
use std::io::{self, IoSlice};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::{File, FileSystem, OpenMode, Space};
use crate::SyncPoint;

/// Slices that one system call takes (`IOV_MAX` on Linux).
const SLICES_MAX: usize = 1024;

/// The kernel's file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealFs;

/// An open file of the kernel.
#[derive(Debug)]
struct RealFile {
    file: fs::File,
}

impl FileSystem for RealFs {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let mut options = OpenOptions::new();
        options.read(true);
        match mode {
            OpenMode::Read => &mut options,
            OpenMode::Write => options.write(true),
            OpenMode::CreateNew => options.write(true).create_new(true),
            OpenMode::CreateOrOpen => options.write(true).create(true).truncate(false),
        };
        Ok(Arc::new(RealFile {
            file: options.open(path)?,
        }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        fs::read_dir(path)?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect()
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        fs::exists(path)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn sync_dir(&self, path: &Path, _: SyncPoint) -> io::Result<()> {
        fs::File::open(path)?.sync_all()
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let stat = rustix::fs::statvfs(path)?;
        Ok(Space {
            available_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
            total_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
        })
    }
}

impl File for RealFile {
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            match self.file.read_at(&mut buf[done..], position + done as u64) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    /// Into memory that is not zeroed first, which took a sixth of the CPU of a reader that catches up.
    fn read_vec(&self, len: usize, position: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(len);
        while bytes.len() < len {
            let at = position + bytes.len() as u64;
            match rustix::io::pread(&self.file, rustix::buffer::spare_capacity(&mut bytes), at) {
                Ok(0) => break,
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        bytes.truncate(len);
        Ok(bytes)
    }

    /// `None` also where the file system cannot say, and for a file that ends too early.
    fn try_read_vec(&self, len: usize, position: u64) -> Option<Vec<u8>> {
        let mut bytes: Vec<u8> = Vec::with_capacity(len);
        while bytes.len() < len {
            let left = len - bytes.len();
            let slice = libc::iovec {
                iov_base: bytes.spare_capacity_mut()[..left].as_mut_ptr().cast(),
                iov_len: left,
            };
            let at = libc::off_t::try_from(position + bytes.len() as u64).ok()?;
            // SAFETY: the descriptor is open for as long as `self.file` lives, and the slice is memory of `bytes` that
            // nobody else uses.
            let read =
                unsafe { libc::preadv2(self.file.as_raw_fd(), &slice, 1, at, libc::RWF_NOWAIT) };
            let read = usize::try_from(read).ok().filter(|read| *read > 0)?;
            // SAFETY: the system filled so many bytes behind those that were there.
            unsafe { bytes.set_len(bytes.len() + read) };
        }
        Some(bytes)
    }

    fn write_at(&self, slices: &[IoSlice<'_>], position: u64) -> io::Result<()> {
        let mut owned = slices.to_vec();
        let mut rest = owned.as_mut_slice();
        IoSlice::advance_slices(&mut rest, 0);
        let mut at = position;
        while !rest.is_empty() {
            let batch = &rest[..rest.len().min(SLICES_MAX)];
            match rustix::io::pwritev(&self.file, batch, at) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    at += written as u64;
                    IoSlice::advance_slices(&mut rest, written);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn sync_data(&self, _: SyncPoint) -> io::Result<()> {
        self.file.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn try_lock(&self) -> io::Result<bool> {
        match self.file.try_lock() {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn start_write_back(&self, position: u64, len: u64) -> io::Result<()> {
        let (Ok(position), Ok(len)) = (position.try_into(), len.try_into()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        // SAFETY: the descriptor is open for as long as `self.file` lives; the call takes no memory.
        let status = unsafe {
            libc::sync_file_range(
                self.file.as_raw_fd(),
                position,
                len,
                libc::SYNC_FILE_RANGE_WRITE,
            )
        };
        if status == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }
}
