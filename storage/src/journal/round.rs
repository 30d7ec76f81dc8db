//! One file of the journal in one of its rounds: reading groups back.
//!
//! Invariant: a head that is returned belongs to this round. A place that the device cannot read counts as damaged,
//! and is remembered, because it can never be a torn tail.

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::format::{BLOCK_BYTES, Entry, FIRST_GROUP, FileHeader, GroupHead, HeaderError};
use super::walk::End;
use crate::SyncPoint;
use crate::fs::{File, FileSystem, OpenMode};

/// Bytes read at once while looking for the next group.
const SCAN_BYTES: usize = 1 << 20;

/// Bytes read at once where a group may begin; holds most directories.
const HEAD_READ_BYTES: usize = BLOCK_BYTES as usize;

/// Said of a frame that the device refuses to read; it can never be a torn tail.
pub(super) const UNREADABLE: &str = "frame cannot be read";

/// An open journal file.
#[derive(Debug)]
pub(super) struct RoundFile {
    /// Name below the data directory, for messages.
    pub(super) name: String,
    /// Name in the journal's directory.
    pub(super) file_name: String,
    pub(super) file: Arc<dyn File>,
    pub(super) header: FileHeader,
    /// The copy of the header that is on stable storage for sure; the other is the first to be written over.
    whole_copy: u64,
    /// End of the last place that the device refused to read while looking for groups; 0 if there was none.
    unreadable_end: AtomicU64,
}

/// What opening a file found.
pub(super) enum Opened {
    Round(RoundFile),
    /// Neither copy of the header is whole.
    Damaged,
    TooNew(u16),
}

impl RoundFile {
    fn new(
        name: String,
        file_name: String,
        file: Arc<dyn File>,
        (header, whole_copy): (FileHeader, u64),
    ) -> RoundFile {
        RoundFile {
            name,
            file_name,
            file,
            header,
            whole_copy,
            unreadable_end: AtomicU64::new(0),
        }
    }

    /// Opens a file and makes what it holds durable, so that nothing read now can be lost later. The header is written
    /// once more in its place: a sync that failed in an earlier life may have left it in the page cache only, and what
    /// is written under its salt would go with it. The other copy is whole then, or the same bytes are on the disk.
    pub(super) fn open(
        fs: &dyn FileSystem,
        path: &Path,
        name: String,
        file_name: String,
    ) -> io::Result<Opened> {
        let opened = RoundFile::read_header(fs, path, name, file_name)?;
        if let Opened::Round(round) = &opened {
            round.write_again(round.whole_copy * BLOCK_BYTES, BLOCK_BYTES as usize)?;
            round.file.sync_data(SyncPoint::JournalFound)?;
        }
        Ok(opened)
    }

    /// Opens a file and changes nothing.
    pub(super) fn read_header(
        fs: &dyn FileSystem,
        path: &Path,
        name: String,
        file_name: String,
    ) -> io::Result<Opened> {
        let file = fs.open(path, OpenMode::Write)?;
        let mut best: Option<(FileHeader, u64)> = None;
        for copy in 0..2 {
            let Ok(block) = file.read_vec(BLOCK_BYTES as usize, copy * BLOCK_BYTES) else {
                continue;
            };
            match FileHeader::decode(&block) {
                Ok(header) if (best.as_ref()).is_none_or(|(best, _)| best.age() < header.age()) => {
                    best = Some((header, copy));
                }
                Ok(_) | Err(HeaderError::Damaged) => {}
                Err(HeaderError::TooNew(version)) => return Ok(Opened::TooNew(version)),
            }
        }
        Ok(match best {
            Some(best) => Opened::Round(RoundFile::new(name, file_name, file, best)),
            None => Opened::Damaged,
        })
    }

    /// A new file in its first round.
    pub(super) fn begin(
        name: String,
        file_name: String,
        file: Arc<dyn File>,
        header: FileHeader,
    ) -> io::Result<RoundFile> {
        let mut round = RoundFile::new(name, file_name, file, (header, 1));
        round.write_header()?;
        Ok(round)
    }

    /// Begins the next round of a file.
    pub(super) fn begin_again(mut self, header: FileHeader) -> io::Result<RoundFile> {
        self.header = header;
        self.write_header()?;
        Ok(self)
    }

    /// Writes the header of the round. The copy that is known to be whole is written over once the other one is durable,
    /// and is so itself with the file's next sync, before anything in the round is acknowledged.
    pub(super) fn write_header(&mut self) -> io::Result<()> {
        let block = self.header.encode();
        let (first, second) = (1 - self.whole_copy, self.whole_copy);
        let write = |copy| {
            let slices = [IoSlice::new(&block)];
            self.file.write_at(&slices, copy * BLOCK_BYTES)
        };
        write(first)?;
        self.file.sync_data(SyncPoint::JournalHeader)?;
        write(second)?;
        self.whole_copy = first;
        Ok(())
    }

    /// Writes the last groups once more, to be made durable by the next sync: one that failed in an earlier life may
    /// have left them in the page cache only, where they look as good as on the disk. `end` is that of a walk in which
    /// this file was the last.
    pub(super) fn rewrite(&self, end: &End) -> io::Result<()> {
        (end.unattested.iter())
            .try_for_each(|group| self.write_again(group.position, group.bytes as usize))
    }

    /// Writes what is there once more, as far as the file goes.
    fn write_again(&self, position: u64, len: usize) -> io::Result<()> {
        let bytes = self.file.read_vec(self.at_most(position, len), position)?;
        self.file.write_at(&[IoSlice::new(&bytes)], position)
    }

    /// Whether the device refused to read a place behind `position` where a group might be.
    pub(super) fn was_unreadable_after(&self, position: u64) -> bool {
        self.unreadable_end.load(Ordering::Relaxed) > position
    }

    /// `len`, or what the file has from `position` on: a head that lies may claim gigabytes.
    pub(super) fn at_most(&self, position: u64, len: usize) -> usize {
        if len <= SCAN_BYTES {
            return len;
        }
        let end = self.file.len().unwrap_or(u64::MAX);
        usize::try_from(end.saturating_sub(position)).map_or(len, |left| left.min(len))
    }

    /// Reads up to `len` bytes, fewer where the file ends; `None` if the device refuses.
    fn read(&self, position: u64, len: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; self.at_most(position, len)];
        match self.file.read_at(&mut bytes, position) {
            Ok(read) => bytes.truncate(read),
            Err(error) => {
                tracing::warn!(file = %self.name, position, %error, "journal file cannot be read");
                return None;
            }
        }
        Some(bytes)
    }

    fn read_head(&self, position: u64, len: usize) -> Option<Vec<u8>> {
        let bytes = self.read(position, len);
        if bytes.is_none() {
            self.unreadable_end
                .fetch_max(position + len as u64, Ordering::Relaxed);
        }
        bytes
    }

    /// The group that begins at `position`.
    pub(super) fn head_at(&self, position: u64) -> Option<GroupHead> {
        let start = self.read_head(position, HEAD_READ_BYTES)?;
        let needed = GroupHead::encoded_bytes(&start)?;
        if needed <= start.len() {
            return GroupHead::decode(&start, &self.header, position);
        }
        GroupHead::decode(&self.read_head(position, needed)?, &self.header, position)
    }

    /// The first group that begins at or after `position`, which is a multiple of the block size.
    pub(super) fn next_head(&self, position: u64) -> Option<GroupHead> {
        let mut at = position.max(FIRST_GROUP);
        if let Some(head) = self.head_at(at) {
            return Some(head);
        }
        loop {
            // One bad sector refuses the whole window: go on by blocks.
            let window = self
                .read(at, SCAN_BYTES)
                .or_else(|| self.read_head(at, HEAD_READ_BYTES));
            let window = window.unwrap_or_else(|| vec![0; HEAD_READ_BYTES]);
            for (index, block) in window.chunks(HEAD_READ_BYTES).enumerate() {
                if GroupHead::encoded_bytes(block).is_some()
                    && let Some(head) = self.head_at(at + index as u64 * BLOCK_BYTES)
                {
                    return Some(head);
                }
            }
            at += window.len() as u64;
            if window.is_empty() || !at.is_multiple_of(BLOCK_BYTES) || at >= self.header.file_bytes
            {
                return None;
            }
        }
    }

    /// The groups that begin at or after `position`, in their order.
    pub(super) fn heads_from(&self, mut position: u64) -> impl Iterator<Item = GroupHead> {
        std::iter::from_fn(move || {
            let head = self.next_head(position)?;
            position = head.end();
            Some(head)
        })
    }

    /// The payload of an entry of the group at `position`, or what is wrong with it.
    pub(super) fn payload(&self, position: u64, entry: &Entry) -> Result<Bytes, &'static str> {
        let from = position + u64::from(entry.payload_offset);
        let bytes = self
            .read(from, entry.payload_bytes as usize)
            .ok_or(UNREADABLE)?;
        check_payload(Bytes::from(bytes), entry)
    }

    /// The payloads of all entries of a group, in one read.
    pub(super) fn payloads(
        &self,
        position: u64,
        bytes: u32,
        entries: &[Entry],
    ) -> Vec<Result<Bytes, &'static str>> {
        let Some(group) = self.read(position, bytes as usize).map(Bytes::from) else {
            return entries
                .iter()
                .map(|entry| self.payload(position, entry))
                .collect();
        };
        let slices = entries.iter().map(|entry| {
            let from = entry.payload_offset as usize;
            let to = from + entry.payload_bytes as usize;
            let inside = to <= group.len();
            if inside {
                check_payload(group.slice(from..to), entry)
            } else {
                Err("frame ends behind its file")
            }
        });
        slices.collect()
    }
}

fn check_payload(payload: Bytes, entry: &Entry) -> Result<Bytes, &'static str> {
    if payload.len() != entry.payload_bytes as usize {
        Err("frame ends behind its file")
    } else if crc32c::crc32c(&payload) != entry.payload_crc {
        Err("frame's checksum is wrong")
    } else {
        Ok(payload)
    }
}
