//! The machine's file system for a broker whose end is a power loss.
//!
//! What was not synced is kept in this process's memory: written sectors, sizes, and names until their directory is
//! synced. So kill -9 loses it, as a power loss would; now and then some of it reaches the files by itself, by sector and
//! in any order, as a kernel writes back, so that torn and reordered writes are found afterwards. A sync of one point
//! can be left out, which must then lose something.
//!
//! It is part of every build and chosen at start, by a variable that no operator sets by mistake and that the broker
//! warns of: so the tests run the very code that is shipped, and nothing is compiled twice. Other processes must not
//! change the same files. Limits: a rename to another directory, and the file that is locked, are durable at once;
//! directories are not renamed.

mod file;
mod names;
#[cfg(test)]
mod tests;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::random::Random;
use super::{File, FileSystem, OpenMode, RealFs, Space};
use crate::SyncPoint;
use file::Handle;
use names::{Names, Node};

/// How long a sync takes at least. Without it a kill would hardly ever find one under way.
const SYNC_TAKES: Duration = Duration::from_micros(200);

/// Changes of names, in percent, after which some reach the disk by themselves.
const NAMES_WRITTEN_BACK_PERCENT: usize = 20;

/// The file system. Clones share what is in memory.
#[derive(Clone, Debug)]
pub struct VolatileFs {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    names: Mutex<Names>,
    random: Mutex<Random>,
    left_out: Option<SyncPoint>,
}

impl VolatileFs {
    /// What reaches the disk unasked follows from `seed`; the syncs of `left_out` do nothing.
    pub fn new(seed: u64, left_out: Option<SyncPoint>) -> VolatileFs {
        VolatileFs {
            shared: Arc::new(Shared {
                names: Mutex::new(Names::new()),
                random: Mutex::new(Random::new(seed)),
                left_out,
            }),
        }
    }
}

impl Shared {
    /// Runs a change of names, some of which may reach the disk then.
    fn change<T>(&self, change: impl FnOnce(&mut Names) -> io::Result<T>) -> io::Result<T> {
        let mut names = self.names.lock();
        let changed = change(&mut names)?;
        let mut random = self.random.lock();
        if random.chance(NAMES_WRITTEN_BACK_PERCENT) {
            names.write_back(&mut random)?;
        }
        Ok(changed)
    }

    /// Whether this sync is to do nothing; otherwise takes the time of one.
    fn leaves_out(&self, point: SyncPoint) -> bool {
        if self.left_out == Some(point) {
            return true;
        }
        std::thread::sleep(SYNC_TAKES);
        false
    }
}

impl FileSystem for VolatileFs {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let found = self.shared.names.lock().find(path)?;
        let node = match (found, mode) {
            (Some(Node::Dir(_)), _) => return Err(io::ErrorKind::IsADirectory.into()),
            (Some(_), OpenMode::CreateNew) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Some(Node::File(node)), _) => node,
            (None, OpenMode::Read | OpenMode::Write) => {
                return Err(io::ErrorKind::NotFound.into());
            }
            (None, OpenMode::CreateNew | OpenMode::CreateOrOpen) => {
                self.shared.change(|names| names.create(path))?
            }
        };
        let handle = Handle::open(node, &self.shared, path, mode != OpenMode::Read)?;
        Ok(Arc::new(handle))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.shared.change(|names| names.make_dirs(path))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.shared.names.lock().list(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        match self.shared.names.lock().find(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            found => Ok(found?.is_some()),
        }
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.shared.change(|names| names.remove_file(path))
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.shared.change(|names| names.remove_dir(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.shared.change(|names| names.rename(from, to))
    }

    fn sync_dir(&self, path: &Path, point: SyncPoint) -> io::Result<()> {
        if self.shared.leaves_out(point) {
            return Ok(());
        }
        self.shared.names.lock().sync(path)
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let on_disk = path.ancestors().find(|path| path.exists());
        RealFs.space(on_disk.unwrap_or(Path::new("/")))
    }
}
