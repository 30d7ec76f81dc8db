//! Names: which directory holds which file, as programs see it and as the disk has it.
//!
//! Changes of one directory reach the disk in their order, but only as far as the power loss lets them; directories
//! are independent of each other. Invariant: applying `pending` to `durable` gives `seen`.

use std::collections::BTreeMap;
use std::io;
use std::path::{Component, Path};
use std::sync::Arc;

use super::file::FileNode;
use crate::fs::random::Random;

/// Index of a directory in `Names`; 0 is the root.
pub(super) type DirId = usize;

/// What a name stands for.
#[derive(Clone, Debug)]
pub(super) enum Node {
    File(Arc<FileNode>),
    Dir(DirId),
}

#[derive(Clone, Debug)]
enum Change {
    Put(String, Node),
    Remove(String),
    Move {
        from_dir: DirId,
        from: String,
        to: String,
        node: Node,
    },
}

#[derive(Debug, Default)]
struct Dir {
    seen: BTreeMap<String, Node>,
    durable: BTreeMap<String, Node>,
    pending: Vec<Change>,
}

#[derive(Debug)]
pub(super) struct Names {
    dirs: Vec<Dir>,
}

impl Node {
    fn is(&self, other: &Node) -> bool {
        match (self, other) {
            (Node::File(a), Node::File(b)) => Arc::ptr_eq(a, b),
            (Node::Dir(a), Node::Dir(b)) => a == b,
            _ => false,
        }
    }
}

fn not_found() -> io::Error {
    rustix::io::Errno::NOENT.into()
}

fn components(path: &Path) -> impl Iterator<Item = String> {
    path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
        _ => None,
    })
}

impl Names {
    pub(super) fn new() -> Names {
        Names {
            dirs: vec![Dir::default()],
        }
    }

    fn walk(&self, names: &[String]) -> io::Result<DirId> {
        let mut dir = 0;
        for name in names {
            match self.dirs[dir].seen.get(name) {
                Some(Node::Dir(next)) => dir = *next,
                Some(Node::File(_)) => return Err(io::ErrorKind::NotADirectory.into()),
                None => return Err(not_found()),
            }
        }
        Ok(dir)
    }

    /// The directory that holds the last name of `path`, and that name.
    pub(super) fn parent(&self, path: &Path) -> io::Result<(DirId, String)> {
        let mut names: Vec<String> = components(path).collect();
        let last = names.pop().ok_or(io::ErrorKind::InvalidInput)?;
        Ok((self.walk(&names)?, last))
    }

    pub(super) fn dir(&self, path: &Path) -> io::Result<DirId> {
        self.walk(&components(path).collect::<Vec<_>>())
    }

    pub(super) fn find(&self, path: &Path) -> io::Result<Node> {
        let (dir, name) = match self.parent(path) {
            Ok(found) => found,
            Err(_) if components(path).next().is_none() => return Ok(Node::Dir(0)),
            Err(error) => return Err(error),
        };
        self.dirs[dir]
            .seen
            .get(&name)
            .cloned()
            .ok_or_else(not_found)
    }

    pub(super) fn list(&self, dir: DirId) -> Vec<String> {
        self.dirs[dir].seen.keys().cloned().collect()
    }

    pub(super) fn put(&mut self, dir: DirId, name: &str, node: Node) {
        self.dirs[dir].seen.insert(name.to_owned(), node.clone());
        self.dirs[dir]
            .pending
            .push(Change::Put(name.to_owned(), node));
    }

    pub(super) fn make_dirs(&mut self, path: &Path) -> io::Result<()> {
        let mut dir = 0;
        for name in components(path) {
            dir = match self.dirs[dir].seen.get(&name) {
                Some(Node::Dir(next)) => *next,
                Some(Node::File(_)) => return Err(io::ErrorKind::NotADirectory.into()),
                None => {
                    self.dirs.push(Dir::default());
                    let next = self.dirs.len() - 1;
                    self.put(dir, &name, Node::Dir(next));
                    next
                }
            };
        }
        Ok(())
    }

    pub(super) fn remove(&mut self, dir: DirId, name: &str) {
        self.dirs[dir].seen.remove(name);
        self.dirs[dir].pending.push(Change::Remove(name.to_owned()));
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let (from_dir, from) = self.parent(from)?;
        let (to_dir, to) = self.parent(to)?;
        let node = self.dirs[from_dir]
            .seen
            .get(&from)
            .cloned()
            .ok_or_else(not_found)?;
        if let Some(Node::Dir(target)) = self.dirs[to_dir].seen.get(&to)
            && !self.dirs[*target].seen.is_empty()
        {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        self.dirs[from_dir].seen.remove(&from);
        self.dirs[to_dir].seen.insert(to.clone(), node.clone());
        self.dirs[to_dir].pending.push(Change::Move {
            from_dir,
            from,
            to,
            node,
        });
        Ok(())
    }

    fn apply(&mut self, dir: DirId, change: Change) {
        match change {
            Change::Put(name, node) => {
                self.dirs[dir].durable.insert(name, node);
            }
            Change::Remove(name) => {
                self.dirs[dir].durable.remove(&name);
            }
            Change::Move {
                from_dir,
                from,
                to,
                node,
            } => {
                if self.dirs[from_dir]
                    .durable
                    .get(&from)
                    .is_some_and(|held| held.is(&node))
                {
                    self.dirs[from_dir].durable.remove(&from);
                }
                self.dirs[dir].durable.insert(to, node);
            }
        }
    }

    pub(super) fn sync(&mut self, dir: DirId) {
        for change in std::mem::take(&mut self.dirs[dir].pending) {
            self.apply(dir, change);
        }
        self.forget_unreachable();
    }

    /// Ends the locks of all files.
    pub(super) fn unlock(&self) {
        for node in self.dirs.iter().flat_map(|dir| dir.seen.values()) {
            if let Node::File(file) = node {
                file.content.lock().unlock();
            }
        }
    }

    /// Leaves the names that the disk has after a power loss, and returns the files that still have one.
    pub(super) fn lose_power(&mut self, random: &mut Random) -> Vec<Arc<FileNode>> {
        for dir in 0..self.dirs.len() {
            let pending = std::mem::take(&mut self.dirs[dir].pending);
            let kept = if random.chance(30) {
                0
            } else {
                random.below(pending.len() + 1)
            };
            for change in pending.into_iter().take(kept) {
                self.apply(dir, change);
            }
        }
        for dir in &mut self.dirs {
            dir.seen = dir.durable.clone();
        }
        self.forget_unreachable();
        let nodes = self.dirs.iter().flat_map(|dir| dir.seen.values());
        nodes
            .filter_map(|node| {
                if let Node::File(file) = node {
                    Some(file.clone())
                } else {
                    None
                }
            })
            .collect()
    }

    /// Empties directories that nothing leads to, so that their files give back their space.
    fn forget_unreachable(&mut self) {
        let mut reached = vec![false; self.dirs.len()];
        let mut next = vec![0];
        while let Some(dir) = next.pop() {
            if std::mem::replace(&mut reached[dir], true) {
                continue;
            }
            let dir = &self.dirs[dir];
            let changed = dir.pending.iter().filter_map(|change| match change {
                Change::Put(_, node) | Change::Move { node, .. } => Some(node),
                Change::Remove(_) => None,
            });
            for node in dir.seen.values().chain(dir.durable.values()).chain(changed) {
                if let Node::Dir(id) = node {
                    next.push(*id);
                }
            }
        }
        for (dir, _) in self
            .dirs
            .iter_mut()
            .zip(reached)
            .filter(|(_, reached)| !reached)
        {
            *dir = Dir::default();
        }
    }
}
