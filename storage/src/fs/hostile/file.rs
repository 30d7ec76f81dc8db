//! Contents of one file: what programs see, what the disk has, and what is on its way between the two.
//!
//! Invariant: outside of `dirty` sectors, `seen` and `durable` agree up to the shorter length.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::sync::Arc;

use parking_lot::Mutex;

use super::faults::{Faults, Operation, Verdict, device_error, power_is_gone};
use crate::SyncPoint;
use crate::fs::random::Random;
use crate::fs::{File, SECTOR};

/// Versions of one sector that may be on their way; older ones are forgotten.
const VERSIONS_MAX: usize = 4;

type Sector = Box<[u8; SECTOR]>;

/// Versions of one sector written since the last sync, oldest first.
#[derive(Debug, Default)]
struct Dirty {
    versions: Vec<Sector>,
    /// A failed sync dropped it: programs still see it, no later sync writes it.
    dropped: bool,
}

#[derive(Debug, Default)]
pub(super) struct Content {
    seen: Vec<u8>,
    durable: Vec<u8>,
    dirty: BTreeMap<usize, Dirty>,
    locked_by: Option<u64>,
}

/// A file, with or without a name.
#[derive(Debug)]
pub(super) struct FileNode {
    pub(super) content: Mutex<Content>,
    faults: Arc<Mutex<Faults>>,
}

/// One open of a file.
#[derive(Debug)]
pub(super) struct Handle {
    node: Arc<FileNode>,
    life: u64,
    number: u64,
    writable: bool,
}

impl FileNode {
    pub(super) fn new(faults: Arc<Mutex<Faults>>) -> FileNode {
        FileNode {
            content: Mutex::default(),
            faults,
        }
    }
}

impl Drop for FileNode {
    fn drop(&mut self) {
        self.faults
            .lock()
            .shrink(self.content.get_mut().seen.len() as u64);
    }
}

impl Content {
    fn sector(&self, index: usize) -> Sector {
        let mut sector = Box::new([0; SECTOR]);
        let tail = self.seen.get(index * SECTOR..).unwrap_or_default();
        let len = tail.len().min(SECTOR);
        sector[..len].copy_from_slice(&tail[..len]);
        sector
    }

    fn mark_dirty(&mut self, from: usize, to: usize) {
        for index in from / SECTOR..to.div_ceil(SECTOR) {
            let sector = self.sector(index);
            let dirty = self.dirty.entry(index).or_default();
            dirty.dropped = false;
            if dirty.versions.len() == VERSIONS_MAX {
                dirty.versions.remove(0);
            }
            dirty.versions.push(sector);
        }
    }

    fn write(&mut self, slices: &[IoSlice<'_>], position: usize) {
        let mut at = position;
        for slice in slices {
            let end = at + slice.len();
            if self.seen.len() < end {
                self.seen.resize(end, 0);
            }
            self.seen[at..end].copy_from_slice(slice);
            at = end;
        }
        self.mark_dirty(position, at);
    }

    fn set_len(&mut self, len: usize) {
        let old = self.seen.len();
        self.seen.resize(len, 0);
        if len < old {
            // What is cut off reads as zeros if the file grows again.
            self.mark_dirty(len, old);
        }
    }

    fn sync(&mut self) {
        self.durable.resize(self.seen.len(), 0);
        for (index, _) in std::mem::take(&mut self.dirty)
            .into_iter()
            .filter(|(_, dirty)| !dirty.dropped)
        {
            let from = index * SECTOR;
            let to = (from + SECTOR).min(self.seen.len());
            if from < to {
                self.durable[from..to].copy_from_slice(&self.seen[from..to]);
            }
        }
    }

    pub(super) fn unlock(&mut self) {
        self.locked_by = None;
    }

    fn drop_dirty(&mut self) {
        for dirty in self.dirty.values_mut() {
            dirty.dropped = true;
        }
    }

    pub(super) fn flip_bit(&mut self, position: usize, bit: u8) {
        for side in [&mut self.seen, &mut self.durable] {
            if let Some(byte) = side.get_mut(position) {
                *byte ^= 1 << (bit % 8);
            }
        }
    }

    pub(super) fn zero(&mut self, position: usize, len: usize) {
        for side in [&mut self.seen, &mut self.durable] {
            let end = (position + len).min(side.len());
            if position < end {
                side[position..end].fill(0);
            }
        }
    }

    pub(super) fn len(&self) -> u64 {
        self.seen.len() as u64
    }

    /// Leaves what the disk has after a power loss: each unsynced sector is there or not, for itself.
    pub(super) fn lose_power(&mut self, random: &mut Random, sectors_torn: bool) {
        let (short, long) = (
            self.durable.len().min(self.seen.len()),
            self.durable.len().max(self.seen.len()),
        );
        let len = match random.below(4) {
            0 => self.durable.len(),
            1 | 2 => self.seen.len(),
            _ => short + random.below(long - short + 1),
        };
        let percent_kept = [0, 30, 70, 95, 100][random.below(5)];
        self.durable.resize(len, 0);
        for (index, dirty) in std::mem::take(&mut self.dirty) {
            let from = index * SECTOR;
            if dirty.dropped || from >= len || !random.chance(percent_kept) {
                continue;
            }
            let kept = if random.chance(80) {
                dirty.versions.len() - 1
            } else {
                random.below(dirty.versions.len())
            };
            let bytes = if sectors_torn && random.chance(20) {
                random.below(SECTOR)
            } else {
                SECTOR
            };
            let bytes = bytes.min(len - from);
            self.durable[from..from + bytes].copy_from_slice(&dirty.versions[kept][..bytes]);
        }
        self.seen = self.durable.clone();
        self.unlock();
    }
}

impl Handle {
    pub(super) fn new(node: Arc<FileNode>, life: u64, number: u64, writable: bool) -> Handle {
        Handle {
            node,
            life,
            number,
            writable,
        }
    }

    fn check_life(&self, faults: &Faults) -> io::Result<()> {
        if faults.life == self.life {
            Ok(())
        } else {
            Err(power_is_gone())
        }
    }

    fn begin(
        &self,
        operation: Operation,
    ) -> io::Result<(Verdict, parking_lot::MutexGuard<'_, Faults>)> {
        let mut faults = self.node.faults.lock();
        self.check_life(&faults)?;
        if !self.writable && operation != Operation::Sync {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        Ok((faults.begin(operation)?, faults))
    }

    /// Reserves space for a file that will end at `end`, if that is past its end.
    fn grow_to(content: &Content, end: u64, faults: &mut Faults) -> io::Result<()> {
        faults.grow(end.saturating_sub(content.len()))
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let mut content = self.node.content.lock();
        if content.locked_by == Some(self.number) {
            content.locked_by = None;
        }
    }
}

impl File for Handle {
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        let faults = self.node.faults.lock();
        self.check_life(&faults)?;
        faults.check_power()?;
        drop(faults);
        let content = self.node.content.lock();
        let tail = usize::try_from(position)
            .ok()
            .and_then(|from| content.seen.get(from..))
            .unwrap_or_default();
        let len = tail.len().min(buf.len());
        buf[..len].copy_from_slice(&tail[..len]);
        Ok(len)
    }

    fn try_read_vec(&self, len: usize, position: u64) -> Option<Vec<u8>> {
        let bytes = self.read_vec(len, position).ok()?;
        (bytes.len() == len).then_some(bytes)
    }

    fn write_at(&self, slices: &[IoSlice<'_>], position: u64) -> io::Result<()> {
        let (verdict, mut faults) = self.begin(Operation::Write)?;
        if verdict == Verdict::Refused {
            return Err(device_error());
        }
        let start = usize::try_from(position).map_err(|_| io::ErrorKind::InvalidInput)?;
        let bytes: usize = slices.iter().map(|slice| slice.len()).sum();
        let mut content = self.node.content.lock();
        Self::grow_to(&content, position + bytes as u64, &mut faults)?;
        drop(faults);
        content.write(slices, start);
        if verdict == Verdict::Interrupted {
            Err(power_is_gone())
        } else {
            Ok(())
        }
    }

    fn sync_data(&self, point: SyncPoint) -> io::Result<()> {
        let left_out = {
            let faults = self.node.faults.lock();
            self.check_life(&faults)?;
            faults.check_power()?;
            faults.leaves_out(point)
        };
        if left_out {
            return Ok(());
        }
        let (verdict, faults) = self.begin(Operation::Sync)?;
        drop(faults);
        let mut content = self.node.content.lock();
        match verdict {
            Verdict::Proceed => {
                content.sync();
                Ok(())
            }
            Verdict::Interrupted => Err(power_is_gone()),
            Verdict::Refused => {
                content.drop_dirty();
                Err(device_error())
            }
        }
    }

    fn len(&self) -> io::Result<u64> {
        let faults = self.node.faults.lock();
        self.check_life(&faults)?;
        faults.check_power()?;
        drop(faults);
        Ok(self.node.content.lock().len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let (verdict, mut faults) = self.begin(Operation::Change)?;
        if verdict == Verdict::Refused {
            return Err(device_error());
        }
        let new = usize::try_from(len).map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut content = self.node.content.lock();
        Self::grow_to(&content, len, &mut faults)?;
        faults.shrink(content.len().saturating_sub(len));
        drop(faults);
        content.set_len(new);
        if verdict == Verdict::Interrupted {
            Err(power_is_gone())
        } else {
            Ok(())
        }
    }

    fn try_lock(&self) -> io::Result<bool> {
        let faults = self.node.faults.lock();
        self.check_life(&faults)?;
        drop(faults);
        let mut content = self.node.content.lock();
        let free = content.locked_by.is_none_or(|holder| holder == self.number);
        if free {
            content.locked_by = Some(self.number);
        }
        Ok(free)
    }

    fn start_write_back(&self, _position: u64, _len: u64) -> io::Result<()> {
        let faults = self.node.faults.lock();
        self.check_life(&faults)
    }
}
