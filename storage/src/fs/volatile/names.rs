//! Names: as the process sees them, and on their way to the disk.
//!
//! Changes of one directory reach the disk in their order; directories are independent of each other. A directory whose
//! own name is not on the disk keeps what was synced of it until it is. Invariant: the names on the disk, with `waiting`
//! and `pending` applied, are those that are seen.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use super::file::FileNode;
use crate::fs::random::Random;

/// Index of a directory in `Names`; 0 is the root of the machine.
pub(super) type DirId = usize;

/// What a name stands for.
#[derive(Clone, Debug)]
pub(super) enum Node {
    File(Arc<FileNode>),
    Dir(DirId),
}

#[derive(Debug)]
enum Change {
    Put(String, Node),
    Remove(String),
    Move(String, String, Arc<FileNode>),
}

#[derive(Debug, Default)]
struct Dir {
    /// Where it is on the disk; `None` while its name is not there.
    place: Option<PathBuf>,
    /// Names that were looked at or changed; `None` where there is nothing.
    seen: BTreeMap<String, Option<Node>>,
    /// Changes that were not synced.
    pending: Vec<Change>,
    /// Changes that were synced before the directory's own name.
    waiting: Vec<Change>,
}

#[derive(Debug)]
pub(super) struct Names {
    dirs: Vec<Dir>,
    /// The directory that was changed last.
    changed: DirId,
}

fn components(path: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for part in std::path::absolute(path)?.components() {
        match part {
            Component::Normal(name) => names.push(name.to_string_lossy().into_owned()),
            Component::ParentDir => drop(names.pop()),
            _ => {}
        }
    }
    Ok(names)
}

impl Names {
    pub(super) fn new() -> Names {
        let root = Dir {
            place: Some("/".into()),
            ..Dir::default()
        };
        Names {
            dirs: vec![root],
            changed: 0,
        }
    }

    fn add_dir(&mut self, place: Option<PathBuf>) -> DirId {
        self.dirs.push(Dir {
            place,
            ..Dir::default()
        });
        self.dirs.len() - 1
    }

    fn lookup(&mut self, dir: DirId, name: &str) -> io::Result<Option<Node>> {
        if let Some(known) = self.dirs[dir].seen.get(name) {
            return Ok(known.clone());
        }
        let Some(path) = self.dirs[dir].place.as_ref().map(|place| place.join(name)) else {
            return Ok(None);
        };
        let node = match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
            Ok(found) if found.is_dir() => Node::Dir(self.add_dir(Some(path))),
            Ok(_) => Node::File(Arc::new(FileNode::on_disk(path))),
        };
        self.dirs[dir]
            .seen
            .insert(name.to_owned(), Some(node.clone()));
        Ok(Some(node))
    }

    fn walk(&mut self, names: &[String]) -> io::Result<DirId> {
        let mut dir = 0;
        for name in names {
            match self.lookup(dir, name)? {
                Some(Node::Dir(next)) => dir = next,
                Some(Node::File(_)) => return Err(io::ErrorKind::NotADirectory.into()),
                None => return Err(io::ErrorKind::NotFound.into()),
            }
        }
        Ok(dir)
    }

    /// The directory that holds the last name of `path`, and that name.
    fn parent(&mut self, path: &Path) -> io::Result<(DirId, String)> {
        let mut names = components(path)?;
        let last = names.pop().ok_or(io::ErrorKind::InvalidInput)?;
        Ok((self.walk(&names)?, last))
    }

    /// What is at `path`; an error if there is not even its directory.
    pub(super) fn find(&mut self, path: &Path) -> io::Result<Option<Node>> {
        let (dir, name) = self.parent(path)?;
        self.lookup(dir, &name)
    }

    pub(super) fn list(&mut self, path: &Path) -> io::Result<Vec<String>> {
        let dir = self.walk(&components(path)?)?;
        let dir = &self.dirs[dir];
        let mut names: BTreeMap<String, bool> = BTreeMap::new();
        if let Some(place) = &dir.place {
            for entry in fs::read_dir(place)? {
                names.insert(entry?.file_name().to_string_lossy().into_owned(), true);
            }
        }
        let seen = dir.seen.iter();
        names.extend(seen.map(|(name, node)| (name.clone(), node.is_some())));
        let there = names.into_iter().filter(|(_, there)| *there);
        Ok(there.map(|(name, _)| name).collect())
    }

    fn note(&mut self, dir: DirId, name: &str, node: Option<Node>, change: Change) {
        self.dirs[dir].seen.insert(name.to_owned(), node);
        self.dirs[dir].pending.push(change);
        self.changed = dir;
    }

    pub(super) fn create(&mut self, path: &Path) -> io::Result<Arc<FileNode>> {
        let (dir, name) = self.parent(path)?;
        let file = Arc::new(FileNode::in_memory());
        let node = Node::File(file.clone());
        self.note(
            dir,
            &name,
            Some(node.clone()),
            Change::Put(name.clone(), node),
        );
        Ok(file)
    }

    pub(super) fn make_dirs(&mut self, path: &Path) -> io::Result<()> {
        let mut dir = 0;
        for name in components(path)? {
            dir = match self.lookup(dir, &name)? {
                Some(Node::Dir(next)) => next,
                Some(Node::File(_)) => return Err(io::ErrorKind::NotADirectory.into()),
                None => {
                    let next = self.add_dir(None);
                    let node = Node::Dir(next);
                    self.note(
                        dir,
                        &name,
                        Some(node.clone()),
                        Change::Put(name.clone(), node),
                    );
                    next
                }
            };
        }
        Ok(())
    }

    pub(super) fn remove_file(&mut self, path: &Path) -> io::Result<()> {
        let (dir, name) = self.parent(path)?;
        match self.lookup(dir, &name)? {
            Some(Node::File(_)) => {
                self.note(dir, &name, None, Change::Remove(name.clone()));
                Ok(())
            }
            Some(Node::Dir(_)) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn remove_dir(&mut self, path: &Path) -> io::Result<()> {
        let (dir, name) = self.parent(path)?;
        match self.lookup(dir, &name)? {
            Some(Node::Dir(id)) => {
                self.forget(id);
                self.note(dir, &name, None, Change::Remove(name.clone()));
                Ok(())
            }
            Some(Node::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Drops what memory has of a directory that nothing leads to.
    fn forget(&mut self, dir: DirId) {
        let gone = std::mem::take(&mut self.dirs[dir]);
        for node in gone.seen.into_values().flatten() {
            if let Node::Dir(below) = node {
                self.forget(below);
            }
        }
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let (dir, name) = self.parent(from)?;
        let (to_dir, to_name) = self.parent(to)?;
        let node = match self.lookup(dir, &name)? {
            Some(Node::File(node)) => node,
            Some(Node::Dir(_)) => return Err(io::ErrorKind::Unsupported.into()),
            None => return Err(io::ErrorKind::NotFound.into()),
        };
        if let Some(Node::Dir(_)) = self.lookup(to_dir, &to_name)? {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        if dir != to_dir {
            self.sync_all_above(from)?;
            self.sync_all_above(to)?;
            fs::rename(from, to)?;
            node.moved(std::path::absolute(to)?);
            self.dirs[dir].seen.insert(name, None);
            self.dirs[to_dir]
                .seen
                .insert(to_name, Some(Node::File(node)));
            return Ok(());
        }
        if name != to_name {
            let change = Change::Move(name.clone(), to_name.clone(), node.clone());
            self.dirs[dir].seen.insert(name, None);
            self.note(dir, &to_name, Some(Node::File(node)), change);
        }
        Ok(())
    }

    pub(super) fn sync(&mut self, path: &Path) -> io::Result<()> {
        let dir = self.walk(&components(path)?)?;
        self.apply_all(dir)
    }

    /// Makes the name of `path` and of all directories above it durable.
    pub(super) fn sync_all_above(&mut self, path: &Path) -> io::Result<()> {
        let names = components(path)?;
        for depth in 0..names.len() {
            let dir = self.walk(&names[..depth])?;
            self.apply_all(dir)?;
        }
        Ok(())
    }

    /// Lets some of the last changes reach the disk.
    pub(super) fn write_back(&mut self, random: &mut Random) -> io::Result<()> {
        let dir = self.changed;
        if self.dirs[dir].place.is_none() {
            return Ok(());
        }
        let some = random.below(self.dirs[dir].pending.len() + 1);
        let changes: Vec<Change> = self.dirs[dir].pending.drain(..some).collect();
        changes
            .into_iter()
            .try_for_each(|change| self.apply(dir, change))
    }

    fn apply_all(&mut self, dir: DirId) -> io::Result<()> {
        let changes = std::mem::take(&mut self.dirs[dir].pending);
        changes
            .into_iter()
            .try_for_each(|change| self.apply(dir, change))
    }

    fn apply(&mut self, dir: DirId, change: Change) -> io::Result<()> {
        let Some(place) = self.dirs[dir].place.clone() else {
            self.dirs[dir].waiting.push(change);
            return Ok(());
        };
        match change {
            Change::Put(name, Node::File(file)) => file.arrive(place.join(name)),
            Change::Put(name, Node::Dir(id)) => {
                let path = place.join(name);
                fs::create_dir(&path)?;
                self.dirs[id].place = Some(path);
                let waiting = std::mem::take(&mut self.dirs[id].waiting);
                waiting
                    .into_iter()
                    .try_for_each(|change| self.apply(id, change))
            }
            Change::Remove(name) => {
                let path = place.join(name);
                if path.is_dir() {
                    fs::remove_dir_all(path)
                } else {
                    fs::remove_file(path)
                }
            }
            Change::Move(from, to, file) => {
                let to = place.join(to);
                fs::rename(place.join(from), &to)?;
                file.moved(to);
                Ok(())
            }
        }
    }
}
