//! A file system that changes nothing: it shows another one, and keeps in memory whatever is changed.
//!
//! For programs that want to see what a start would do without doing it. The file system below is only ever opened for
//! reading. Takes memory for what is written, by pages; zeros behind the end of a file take none.

mod file;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::{File, FileSystem, OpenMode, Space};
use crate::SyncPoint;
use file::{Below, Handle, Node};

/// See the module.
#[derive(Debug)]
pub struct OverlayFs {
    below: Arc<dyn FileSystem>,
    names: Mutex<Names>,
}

/// What became of names; a name that is not here is as it is below.
type Names = BTreeMap<PathBuf, Name>;

#[derive(Clone, Debug)]
enum Name {
    /// A file that was opened for writing, made, or moved here.
    File(Arc<Node>),
    /// A directory that was made: what is below under its name does not count.
    Dir,
    Gone,
}

/// What a path stands for.
enum Found {
    File(Arc<Node>),
    /// A directory of this file system alone.
    Dir,
    /// Whatever it is below.
    Below,
    Nothing,
}

fn not_found() -> io::Error {
    io::ErrorKind::NotFound.into()
}

fn find(names: &Names, path: &Path) -> Found {
    match names.get(path) {
        Some(Name::File(node)) => return Found::File(Arc::clone(node)),
        Some(Name::Dir) => return Found::Dir,
        Some(Name::Gone) => return Found::Nothing,
        None => {}
    }
    // Inside of something that is not as below, only names that are here count.
    if path
        .ancestors()
        .skip(1)
        .any(|above| names.contains_key(above))
    {
        Found::Nothing
    } else {
        Found::Below
    }
}

impl OverlayFs {
    /// Shows `below`, unchanged so far.
    pub fn new(below: Arc<dyn FileSystem>) -> OverlayFs {
        let names = Mutex::default();
        OverlayFs { below, names }
    }

    fn is_dir(&self, names: &Names, path: &Path) -> io::Result<bool> {
        Ok(match find(names, path) {
            Found::Dir => true,
            Found::File(_) | Found::Nothing => false,
            Found::Below => self.below.exists(path)? && self.below.list(path).is_ok(),
        })
    }

    /// The file of a path, from now on one of this file system.
    fn take_over(&self, names: &mut Names, path: &Path) -> io::Result<Arc<Node>> {
        match find(names, path) {
            Found::File(node) => Ok(node),
            Found::Dir => Err(io::ErrorKind::IsADirectory.into()),
            Found::Nothing => Err(not_found()),
            Found::Below => {
                let below = Below::new(Arc::clone(&self.below), path)?;
                let node = Arc::new(Node::over(below));
                names.insert(path.to_owned(), Name::File(Arc::clone(&node)));
                Ok(node)
            }
        }
    }

    fn create(&self, names: &mut Names, path: &Path, exclusive: bool) -> io::Result<Arc<Node>> {
        match self.take_over(names, path) {
            Ok(_) if exclusive => Err(io::ErrorKind::AlreadyExists.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if !self.is_dir(names, path.parent().unwrap_or(path))? {
                    return Err(not_found());
                }
                let node = Arc::new(Node::empty());
                names.insert(path.to_owned(), Name::File(Arc::clone(&node)));
                Ok(node)
            }
            taken => taken,
        }
    }

    /// Forgets what is here inside of a directory.
    fn clear(names: &mut Names, path: &Path) {
        names.retain(|name, _| name == path || !name.starts_with(path));
    }
}

impl FileSystem for OverlayFs {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let mut names = self.names.lock();
        let node = match mode {
            OpenMode::Read => match find(&names, path) {
                Found::Below => return self.below.open(path, OpenMode::Read),
                _ => self.take_over(&mut names, path)?,
            },
            OpenMode::Write => self.take_over(&mut names, path)?,
            OpenMode::CreateNew => self.create(&mut names, path, true)?,
            OpenMode::CreateOrOpen => self.create(&mut names, path, false)?,
        };
        Ok(Arc::new(Handle::new(node, mode != OpenMode::Read)?))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut names = self.names.lock();
        let mut missing = Vec::new();
        for above in path.ancestors() {
            if above.as_os_str().is_empty() || self.is_dir(&names, above)? {
                break;
            }
            if !matches!(find(&names, above), Found::Nothing) && self.exists_in(&names, above)? {
                return Err(io::ErrorKind::NotADirectory.into());
            }
            missing.push(above.to_owned());
        }
        names.extend(missing.into_iter().map(|path| (path, Name::Dir)));
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let names = self.names.lock();
        let mut listed = match find(&names, path) {
            Found::Nothing => return Err(not_found()),
            Found::File(_) => return Err(io::ErrorKind::NotADirectory.into()),
            Found::Dir => Vec::new(),
            Found::Below => self.below.list(path)?,
        };
        for (name, what) in names.iter().filter(|(name, _)| name.parent() == Some(path)) {
            let name = name.file_name().unwrap_or_default().to_string_lossy();
            listed.retain(|listed| *listed != name);
            if !matches!(what, Name::Gone) {
                listed.push(name.into_owned());
            }
        }
        Ok(listed)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.exists_in(&self.names.lock(), path)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut names = self.names.lock();
        self.take_over(&mut names, path)?;
        names.insert(path.to_owned(), Name::Gone);
        Ok(())
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut names = self.names.lock();
        if !self.is_dir(&names, path)? {
            return Err(not_found());
        }
        OverlayFs::clear(&mut names, path);
        names.insert(path.to_owned(), Name::Gone);
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut names = self.names.lock();
        let node = self.take_over(&mut names, from)?;
        if !self.is_dir(&names, to.parent().unwrap_or(to))? {
            return Err(not_found());
        }
        names.insert(from.to_owned(), Name::Gone);
        names.insert(to.to_owned(), Name::File(node));
        Ok(())
    }

    fn sync_dir(&self, path: &Path, _: SyncPoint) -> io::Result<()> {
        if self.is_dir(&self.names.lock(), path)? {
            Ok(())
        } else {
            Err(not_found())
        }
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        self.below.space(path)
    }
}

impl OverlayFs {
    fn exists_in(&self, names: &Names, path: &Path) -> io::Result<bool> {
        match find(names, path) {
            Found::File(_) | Found::Dir => Ok(true),
            Found::Nothing => Ok(false),
            Found::Below => self.below.exists(path),
        }
    }
}
