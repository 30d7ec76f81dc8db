//! Files of the overlay: what is below, and the pages that were written over it.
//!
//! Invariant: a byte is the page's where there is one, else that of the file below up to `visible`, else zero.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::SyncPoint;
use crate::fs::{File, FileSystem, OpenMode};

const PAGE_BYTES: usize = 4096;

type Page = Box<[u8; PAGE_BYTES]>;

/// A file below. It is opened anew with each handle, so that files nobody uses are not held open.
#[derive(Debug)]
pub(super) struct Below {
    fs: Arc<dyn FileSystem>,
    path: PathBuf,
    bytes: u64,
}

impl Below {
    pub(super) fn new(fs: Arc<dyn FileSystem>, path: &Path) -> io::Result<Below> {
        let bytes = fs.open(path, OpenMode::Read)?.len()?;
        let path = path.to_owned();
        Ok(Below { fs, path, bytes })
    }
}

/// A file.
#[derive(Debug)]
pub(super) struct Node {
    below: Option<Below>,
    content: Mutex<Content>,
    /// Whether an open of it has the lock.
    locked: AtomicBool,
}

#[derive(Debug, Default)]
struct Content {
    bytes: u64,
    /// How much of the file below still counts.
    visible: u64,
    pages: BTreeMap<u64, Page>,
}

impl Node {
    pub(super) fn empty() -> Node {
        Node {
            below: None,
            content: Mutex::default(),
            locked: AtomicBool::default(),
        }
    }

    pub(super) fn over(below: Below) -> Node {
        let (bytes, visible) = (below.bytes, below.bytes);
        let content = Content {
            bytes,
            visible,
            pages: BTreeMap::new(),
        };
        Node {
            below: Some(below),
            content: Mutex::new(content),
            locked: AtomicBool::default(),
        }
    }
}

/// An open file.
#[derive(Debug)]
pub(super) struct Handle {
    node: Arc<Node>,
    below: Option<Arc<dyn File>>,
    writable: bool,
    has_lock: AtomicBool,
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.has_lock.load(Ordering::Acquire) {
            self.node.locked.store(false, Ordering::Release);
        }
    }
}

impl Handle {
    pub(super) fn new(node: Arc<Node>, writable: bool) -> io::Result<Handle> {
        let below = node.below.as_ref();
        let below = below.map(|below| below.fs.open(&below.path, OpenMode::Read));
        Ok(Handle {
            below: below.transpose()?,
            node,
            writable,
            has_lock: AtomicBool::default(),
        })
    }

    fn check_writable(&self) -> io::Result<()> {
        if self.writable {
            return Ok(());
        }
        Err(rustix::io::Errno::BADF.into())
    }

    /// Fills `buf` with what is below; zeros behind it.
    fn read_below(&self, content: &Content, buf: &mut [u8], position: u64) -> io::Result<()> {
        buf.fill(0);
        let left = content.visible.saturating_sub(position);
        let bytes = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
        match (&self.below, buf.get_mut(..bytes)) {
            (Some(below), Some(buf)) if bytes > 0 => below.read_at(buf, position).map(drop),
            _ => Ok(()),
        }
    }

    fn write(&self, content: &mut Content, bytes: &[u8], position: u64) -> io::Result<()> {
        let mut done = 0;
        while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
            let at = position + done as u64;
            let (number, skip) = split(at);
            let piece = rest
                .get(..rest.len().min(PAGE_BYTES - skip))
                .unwrap_or(rest);
            done += piece.len();
            let zeros = at >= content.visible && piece.iter().all(|byte| *byte == 0);
            if zeros && !content.pages.contains_key(&number) {
                continue;
            }
            let mut page = match content.pages.remove(&number) {
                Some(page) => page,
                None => {
                    let mut page = Page::new([0; PAGE_BYTES]);
                    self.read_below(content, &mut page[..], at - skip as u64)?;
                    page
                }
            };
            if let Some(part) = page.get_mut(skip..skip + piece.len()) {
                part.copy_from_slice(piece);
            }
            content.pages.insert(number, page);
        }
        content.bytes = content.bytes.max(position + bytes.len() as u64);
        Ok(())
    }
}

/// Number of a page, and the place in it.
fn split(position: u64) -> (u64, usize) {
    let page = PAGE_BYTES as u64;
    // Below a page's size, so it fits.
    (position / page, (position % page) as usize)
}

impl File for Handle {
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        let content = self.node.content.lock();
        let left = content.bytes.saturating_sub(position);
        let bytes = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
        let Some(buf) = buf.get_mut(..bytes).filter(|buf| !buf.is_empty()) else {
            return Ok(0);
        };
        self.read_below(&content, buf, position)?;
        let (first, last) = (split(position).0, split(position + bytes as u64 - 1).0);
        for (number, page) in content.pages.range(first..=last) {
            let begin = number * PAGE_BYTES as u64;
            let (from, to) = (
                begin.max(position),
                (begin + PAGE_BYTES as u64).min(position + bytes as u64),
            );
            // All four lie within the page or the buffer.
            let source = page.get((from - begin) as usize..(to - begin) as usize);
            let target = buf.get_mut((from - position) as usize..(to - position) as usize);
            if let (Some(source), Some(target)) = (source, target) {
                target.copy_from_slice(source);
            }
        }
        Ok(bytes)
    }

    fn write_at(&self, slices: &[IoSlice<'_>], position: u64) -> io::Result<()> {
        self.check_writable()?;
        let mut content = self.node.content.lock();
        let mut at = position;
        for slice in slices {
            self.write(&mut content, slice, at)?;
            at += slice.len() as u64;
        }
        Ok(())
    }

    fn sync_data(&self, _: SyncPoint) -> io::Result<()> {
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.node.content.lock().bytes)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check_writable()?;
        let mut content = self.node.content.lock();
        content.visible = content.visible.min(len);
        let (number, keep) = split(len);
        content.pages.split_off(&(number + 1));
        if let Some(part) = (content.pages.get_mut(&number)).and_then(|page| page.get_mut(keep..)) {
            part.fill(0);
        }
        content.bytes = len;
        Ok(())
    }

    fn try_lock(&self) -> io::Result<bool> {
        if self.has_lock.load(Ordering::Acquire) {
            return Ok(true);
        }
        let taken = !self.node.locked.swap(true, Ordering::AcqRel);
        self.has_lock.store(taken, Ordering::Release);
        Ok(taken)
    }

    fn start_write_back(&self, _position: u64, _len: u64) -> io::Result<()> {
        Ok(())
    }
}
