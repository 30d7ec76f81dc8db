//! Contents of one file: what is on the disk, and over it the sectors that were written since.
//!
//! A file whose name is not on the disk has its disk in memory, until its directory is synced. Invariant: what is seen is
//! the disk's first `valid` bytes, zeros up to `len`, and `dirty` over both; a file that nobody has open and that has
//! nothing to lose holds no descriptor.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::Shared;
use crate::SyncPoint;
use crate::fs::random::Random;
use crate::fs::{File, FileSystem, OpenMode, RealFs, SECTOR};

/// Writes, in percent, after which some sectors reach the disk by themselves; and hints that they should.
const WRITTEN_BACK_PERCENT: usize = 15;
const HINTED_BACK_PERCENT: usize = 60;

/// How many sectors, in percent, reach the disk then.
const SECTORS_PERCENT: [usize; 3] = [10, 50, 90];

const SECTOR_BYTES: u64 = SECTOR as u64;

#[derive(Debug)]
enum Disk {
    /// There is no name for it yet.
    Memory(Vec<u8>),
    File(Arc<dyn File>),
    /// Nobody has it open.
    Closed,
}

#[derive(Debug)]
struct Content {
    place: Option<PathBuf>,
    disk: Disk,
    /// Bytes on the disk, and how many of them still count; the others were cut off.
    on_disk: u64,
    valid: u64,
    len: u64,
    dirty: BTreeMap<u64, Box<[u8; SECTOR]>>,
    handles: usize,
}

/// A file, with or without a name.
#[derive(Debug)]
pub(super) struct FileNode(Mutex<Content>);

/// One open of a file.
#[derive(Debug)]
pub(super) struct Handle {
    node: Arc<FileNode>,
    shared: Arc<Shared>,
    path: PathBuf,
    writable: bool,
    /// An open of its own: the kernel's locks belong to opens.
    locked: Mutex<Option<Arc<dyn File>>>,
}

impl FileNode {
    pub(super) fn in_memory() -> FileNode {
        FileNode(Mutex::new(Content::new(None, Disk::Memory(Vec::new()))))
    }

    pub(super) fn on_disk(place: PathBuf) -> FileNode {
        FileNode(Mutex::new(Content::new(Some(place), Disk::Closed)))
    }

    /// The name reaches the disk, and with it what was synced of the file.
    pub(super) fn arrive(&self, place: PathBuf) -> io::Result<()> {
        let mut content = self.0.lock();
        let Disk::Memory(bytes) = &content.disk else {
            return Err(io::Error::other("a file got its first name twice"));
        };
        let file = RealFs.open(&place, OpenMode::CreateNew)?;
        file.write_at(&[IoSlice::new(bytes)], 0)?;
        content.disk = Disk::File(file);
        content.place = Some(place);
        content.close_if_idle();
        Ok(())
    }

    /// The file has another name on the disk.
    pub(super) fn moved(&self, place: PathBuf) {
        self.0.lock().place = Some(place);
    }
}

impl Disk {
    fn read(&self, buf: &mut [u8], position: u64) -> io::Result<()> {
        let read = match self {
            Disk::Memory(bytes) => {
                let tail = usize::try_from(position)
                    .ok()
                    .and_then(|at| bytes.get(at..));
                let tail = tail.unwrap_or_default();
                let len = tail.len().min(buf.len());
                buf[..len].copy_from_slice(&tail[..len]);
                len
            }
            Disk::File(file) => file.read_at(buf, position)?,
            Disk::Closed => return Err(closed()),
        };
        buf[read..].fill(0);
        Ok(())
    }

    fn write(&mut self, bytes: &[u8], position: u64) -> io::Result<()> {
        match self {
            Disk::Memory(disk) => {
                let from = usize::try_from(position).map_err(|_| io::ErrorKind::InvalidInput)?;
                let end = from + bytes.len();
                disk.resize(disk.len().max(end), 0);
                disk[from..end].copy_from_slice(bytes);
                Ok(())
            }
            Disk::File(file) => file.write_at(&[IoSlice::new(bytes)], position),
            Disk::Closed => Err(closed()),
        }
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        match self {
            Disk::Memory(disk) => {
                disk.resize(
                    usize::try_from(len).map_err(|_| io::ErrorKind::InvalidInput)?,
                    0,
                );
                Ok(())
            }
            Disk::File(file) => file.set_len(len),
            Disk::Closed => Err(closed()),
        }
    }
}

fn closed() -> io::Error {
    io::Error::other("the file is not open")
}

impl Content {
    fn new(place: Option<PathBuf>, disk: Disk) -> Content {
        Content {
            place,
            disk,
            on_disk: 0,
            valid: 0,
            len: 0,
            dirty: BTreeMap::new(),
            handles: 0,
        }
    }

    fn open(&mut self) -> io::Result<()> {
        if let (Disk::Closed, Some(place)) = (&self.disk, &self.place) {
            let file = RealFs.open(place, OpenMode::Write)?;
            let len = file.len()?;
            (self.on_disk, self.valid, self.len) = (len, len, len);
            self.disk = Disk::File(file);
        }
        self.handles += 1;
        Ok(())
    }

    fn close_if_idle(&mut self) {
        let clean = self.dirty.is_empty() && self.valid == self.on_disk && self.len == self.on_disk;
        if self.handles == 0 && clean && matches!(self.disk, Disk::File(_)) {
            self.disk = Disk::Closed;
        }
    }

    fn read(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        let left = usize::try_from(self.len.saturating_sub(position)).unwrap_or(usize::MAX);
        let wanted = buf.len().min(left);
        let buf = &mut buf[..wanted];
        let of_disk = usize::try_from(self.valid.saturating_sub(position)).unwrap_or(usize::MAX);
        let (of_disk, zeros) = buf.split_at_mut(of_disk.min(wanted));
        if !of_disk.is_empty() {
            self.disk.read(of_disk, position)?;
        }
        zeros.fill(0);
        let end = position + wanted as u64;
        let touched = position / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES);
        for (index, sector) in self.dirty.range(touched) {
            let begin = index * SECTOR_BYTES;
            let (from, to) = (begin.max(position), (begin + SECTOR_BYTES).min(end));
            buf[(from - position) as usize..(to - position) as usize]
                .copy_from_slice(&sector[(from - begin) as usize..(to - begin) as usize]);
        }
        Ok(wanted)
    }

    fn write(&mut self, bytes: &[u8], position: u64) -> io::Result<()> {
        let end = position + bytes.len() as u64;
        for index in position / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES) {
            let begin = index * SECTOR_BYTES;
            let (from, to) = (begin.max(position), (begin + SECTOR_BYTES).min(end));
            if to - from < SECTOR_BYTES && !self.dirty.contains_key(&index) {
                let mut sector = Box::new([0; SECTOR]);
                self.read(&mut sector[..], begin)?;
                self.dirty.insert(index, sector);
            }
            let sector = self
                .dirty
                .entry(index)
                .or_insert_with(|| Box::new([0; SECTOR]));
            sector[(from - begin) as usize..(to - begin) as usize]
                .copy_from_slice(&bytes[(from - position) as usize..(to - position) as usize]);
        }
        self.len = self.len.max(end);
        Ok(())
    }

    fn set_len(&mut self, len: u64) {
        if len < self.len {
            self.dirty.split_off(&len.div_ceil(SECTOR_BYTES));
            if let Some(last) = self.dirty.get_mut(&(len / SECTOR_BYTES)) {
                last[(len % SECTOR_BYTES) as usize..].fill(0);
            }
            self.valid = self.valid.min(len);
        }
        self.len = len;
    }

    /// Writes some sectors to the disk, in any order.
    fn write_back(&mut self, mut sectors: Vec<u64>, random: &Mutex<Random>) -> io::Result<()> {
        if self.valid < self.on_disk {
            self.disk.set_len(self.valid)?;
            self.on_disk = self.valid;
        }
        random.lock().shuffle(&mut sectors);
        for index in sectors {
            let begin = index * SECTOR_BYTES;
            let bytes = self.len.saturating_sub(begin).min(SECTOR_BYTES) as usize;
            if let Some(sector) = self.dirty.get(&index) {
                self.disk.write(&sector[..bytes], begin)?;
                self.dirty.remove(&index);
            }
            self.on_disk = self.on_disk.max(begin + bytes as u64);
            self.valid = self.on_disk;
        }
        Ok(())
    }

    /// Lets some sectors reach the disk, every now and then.
    fn write_some_back(&mut self, percent: usize, random: &Mutex<Random>) -> io::Result<()> {
        let some = {
            let mut random = random.lock();
            if !random.chance(percent) {
                return Ok(());
            }
            let share = SECTORS_PERCENT[random.below(SECTORS_PERCENT.len())];
            let chosen = self.dirty.keys().filter(|_| random.chance(share));
            chosen.copied().collect()
        };
        self.write_back(some, random)
    }

    fn sync(&mut self, random: &Mutex<Random>) -> io::Result<()> {
        self.write_back(self.dirty.keys().copied().collect(), random)?;
        if self.on_disk != self.len {
            self.disk.set_len(self.len)?;
        }
        (self.on_disk, self.valid) = (self.len, self.len);
        Ok(())
    }
}

impl Handle {
    pub(super) fn open(
        node: Arc<FileNode>,
        shared: &Arc<Shared>,
        path: &Path,
        writable: bool,
    ) -> io::Result<Handle> {
        node.0.lock().open()?;
        Ok(Handle {
            node,
            shared: Arc::clone(shared),
            path: path.to_owned(),
            writable,
            locked: Mutex::default(),
        })
    }

    fn check_writable(&self) -> io::Result<()> {
        if self.writable {
            Ok(())
        } else {
            Err(io::ErrorKind::PermissionDenied.into())
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let mut content = self.node.0.lock();
        content.handles -= 1;
        content.close_if_idle();
    }
}

impl File for Handle {
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        self.node.0.lock().read(buf, position)
    }

    fn write_at(&self, slices: &[IoSlice<'_>], position: u64) -> io::Result<()> {
        self.check_writable()?;
        let mut bytes = Vec::with_capacity(slices.iter().map(|slice| slice.len()).sum());
        slices
            .iter()
            .for_each(|slice| bytes.extend_from_slice(slice));
        if bytes.is_empty() {
            return Ok(());
        }
        let mut content = self.node.0.lock();
        content.write(&bytes, position)?;
        content.write_some_back(WRITTEN_BACK_PERCENT, &self.shared.random)
    }

    fn sync_data(&self, point: SyncPoint) -> io::Result<()> {
        if self.shared.leaves_out(point) {
            return Ok(());
        }
        self.node.0.lock().sync(&self.shared.random)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.node.0.lock().len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check_writable()?;
        self.node.0.lock().set_len(len);
        Ok(())
    }

    fn try_lock(&self) -> io::Result<bool> {
        let mut locked = self.locked.lock();
        if locked.is_some() {
            return Ok(true);
        }
        // Other processes must find the file.
        self.shared.names.lock().sync_all_above(&self.path)?;
        let file = RealFs.open(&self.path, OpenMode::Write)?;
        let free = file.try_lock()?;
        *locked = free.then_some(file);
        Ok(free)
    }

    fn start_write_back(&self, _position: u64, _len: u64) -> io::Result<()> {
        let mut content = self.node.0.lock();
        content.write_some_back(HINTED_BACK_PERCENT, &self.shared.random)
    }
}
