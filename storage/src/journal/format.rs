//! The journal's bytes: file header, group head, directory of frames. `docs/DISK_FORMAT.md` describes them.
//!
//! Pure: no file is touched here. Invariant: what `decode` accepts is exactly what `encode` wrote for this place of
//! this round of this file; nothing in it points outside of its group.

use super::{FileGeneration, FrameKind, FrameSequence};
use crate::log::{EntryIndex, LogId};

/// Groups begin at multiples of this, so that no write ever touches a block with earlier data.
pub(super) const BLOCK_BYTES: u64 = 4096;

/// Where the first group begins: behind the two copies of the file header, each in its own block.
pub(super) const FIRST_GROUP: u64 = 2 * BLOCK_BYTES;

/// Bytes of a group's fixed head.
pub(super) const HEAD_BYTES: usize = 128;

/// Bytes of a directory entry.
pub(super) const ENTRY_BYTES: usize = 56;

/// Encoded bytes of a file header; the rest of its block is zero.
pub(super) const FILE_HEADER_BYTES: usize = 96;

/// Most entries that a reader believes in one directory.
const ENTRIES_MAX: u32 = 1024;

const FILE_MAGIC: [u8; 4] = *b"TLJF";
const GROUP_MAGIC: [u8; 4] = *b"TLJG";

/// Version of the journal's format.
const VERSION: u16 = 1;

const ENTRY_FIRST: u8 = 1;
const ENTRY_LAST: u8 = 2;
const ENTRY_LOST: u8 = 4;

/// Number of a group; rises by one, and by more at each start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct GroupSequence(pub(super) u64);

/// What a file says of itself for one round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FileHeader {
    pub(super) generation: FileGeneration,
    /// Preallocated size; `u64::MAX` for a side file, which grows.
    pub(super) file_bytes: u64,
    /// Random for each round; part of every group's checksum.
    pub(super) salt: u64,
    /// Every frame submitted since the header was written has a greater number.
    pub(super) frame_floor: FrameSequence,
    pub(super) directory_id: [u8; 16],
}

/// Why a file header was not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum HeaderError {
    /// The bytes are not a whole header.
    Damaged,
    /// A newer release wrote it.
    TooNew(u16),
}

/// One frame, or one part of one, in a group's directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) log: LogId,
    pub(super) prev_index: EntryIndex,
    pub(super) last_index: EntryIndex,
    pub(super) sequence: FrameSequence,
    pub(super) kind: FrameKind,
    /// First and last part of its frame; both for a whole one.
    pub(super) first: bool,
    pub(super) last: bool,
    /// The frame was damaged when it was copied here; only in side files.
    pub(super) lost: bool,
    /// From the group's begin.
    pub(super) payload_offset: u32,
    pub(super) payload_bytes: u32,
    pub(super) payload_crc: u32,
    /// Payload of the whole frame.
    pub(super) frame_bytes: u32,
}

/// Place of a group, as the next one remembers it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(super) struct Link {
    pub(super) sequence: GroupSequence,
    pub(super) generation: u64,
    pub(super) position: u64,
    pub(super) bytes: u32,
    pub(super) entries: Vec<Entry>,
}

/// The run of the process that wrote a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) struct Run {
    /// Its first group.
    pub(super) first: GroupSequence,
    /// The last group of the runs before it that counts; whatever lies between was a cut tail.
    pub(super) cut: GroupSequence,
}

/// Head and directories of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GroupHead {
    pub(super) generation: FileGeneration,
    pub(super) position: u64,
    /// All of it, a multiple of the block size.
    pub(super) bytes: u32,
    pub(super) sequence: GroupSequence,
    /// Everything up to this group was on stable storage before this one was written.
    pub(super) synced_through: GroupSequence,
    /// The first group of this round of the file.
    pub(super) file_first: GroupSequence,
    pub(super) run: Run,
    pub(super) previous: Link,
    /// What the key-value store had made durable before the group was written; 0: not known.
    pub(super) store_sequence: u64,
    pub(super) entries: Vec<Entry>,
}

/// Takes little-endian numbers off the front of a slice.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.0.split_first_chunk()?;
        self.0 = tail;
        Some(*head)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take::<1>().map(|bytes| bytes[0])
    }

    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }
}

/// Checksum of a group's head: the round's salt and everything but the checksum itself. `None` if it is too short.
fn head_crc(salt: u64, head: &[u8]) -> Option<u32> {
    let salted = crc32c::crc32c(&salt.to_le_bytes());
    let before = crc32c::crc32c_append(salted, head.get(..8)?);
    Some(crc32c::crc32c_append(before, head.get(12..)?))
}

impl FileHeader {
    /// Of two copies, the one with the greater age was written later.
    pub(super) fn age(&self) -> (FileGeneration, FrameSequence) {
        (self.generation, self.frame_floor)
    }

    /// One block.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(BLOCK_BYTES as usize);
        out.extend_from_slice(&FILE_MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&0_u16.to_le_bytes());
        out.extend_from_slice(&[0; 8]);
        out.extend_from_slice(&self.generation.0.to_le_bytes());
        out.extend_from_slice(&self.file_bytes.to_le_bytes());
        out.extend_from_slice(&self.salt.to_le_bytes());
        out.extend_from_slice(&self.frame_floor.0.to_le_bytes());
        out.extend_from_slice(&self.directory_id);
        out.resize(FILE_HEADER_BYTES, 0);
        let crc = crc32c::crc32c(&out);
        out[8..12].copy_from_slice(&crc.to_le_bytes());
        out.resize(BLOCK_BYTES as usize, 0);
        out
    }

    /// Reads one copy.
    pub(super) fn decode(block: &[u8]) -> Result<FileHeader, HeaderError> {
        let bytes = block.get(..FILE_HEADER_BYTES).ok_or(HeaderError::Damaged)?;
        let mut zeroed = bytes.to_vec();
        zeroed[8..12].fill(0);
        let mut reader = Reader(bytes);
        Self::decode_fields(&mut reader, crc32c::crc32c(&zeroed))
            .unwrap_or(Err(HeaderError::Damaged))
    }

    fn decode_fields(reader: &mut Reader<'_>, crc: u32) -> Option<Result<FileHeader, HeaderError>> {
        let magic: [u8; 4] = reader.take()?;
        let version = reader.u16()?;
        let _features = reader.u16()?;
        if magic != FILE_MAGIC || reader.u32()? != crc {
            return None;
        }
        if version > VERSION {
            return Some(Err(HeaderError::TooNew(version)));
        }
        let _reserved = reader.u32()?;
        Some(Ok(FileHeader {
            generation: FileGeneration(reader.u64()?),
            file_bytes: reader.u64()?,
            salt: reader.u64()?,
            frame_floor: FrameSequence(reader.u64()?),
            directory_id: reader.take()?,
        }))
    }
}

impl Entry {
    fn encode(&self, out: &mut Vec<u8>) {
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        out.extend_from_slice(&self.log.0.to_le_bytes());
        out.extend_from_slice(&self.prev_index.0.to_le_bytes());
        out.extend_from_slice(&self.last_index.0.to_le_bytes());
        out.extend_from_slice(&self.sequence.0.to_le_bytes());
        out.push(self.kind as u8);
        out.push(
            flag(self.first, ENTRY_FIRST)
                | flag(self.last, ENTRY_LAST)
                | flag(self.lost, ENTRY_LOST),
        );
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&self.payload_offset.to_le_bytes());
        out.extend_from_slice(&self.payload_bytes.to_le_bytes());
        out.extend_from_slice(&self.payload_crc.to_le_bytes());
        out.extend_from_slice(&self.frame_bytes.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
    }

    fn decode(reader: &mut Reader<'_>, group_bytes: u32) -> Option<Entry> {
        let log = LogId(reader.u64()?);
        let prev_index = EntryIndex(reader.u64()?);
        let last_index = EntryIndex(reader.u64()?);
        let sequence = FrameSequence(reader.u64()?);
        let kind = FrameKind::from_number(reader.u8()?)?;
        let flags = reader.u8()?;
        reader.u16()?;
        let entry = Entry {
            log,
            prev_index,
            last_index,
            sequence,
            kind,
            first: flags & ENTRY_FIRST != 0,
            last: flags & ENTRY_LAST != 0,
            lost: flags & ENTRY_LOST != 0,
            payload_offset: reader.u32()?,
            payload_bytes: reader.u32()?,
            payload_crc: reader.u32()?,
            frame_bytes: reader.u32()?,
        };
        reader.u32()?;
        let inside = entry.payload_offset.checked_add(entry.payload_bytes)? <= group_bytes;
        (inside && entry.payload_bytes <= entry.frame_bytes).then_some(entry)
    }
}

/// Bytes of the head of a group with so many entries, before its payload.
pub(super) fn head_bytes(entries: usize, previous_entries: usize) -> u64 {
    HEAD_BYTES as u64 + (entries as u64 + previous_entries as u64) * ENTRY_BYTES as u64
}

impl GroupHead {
    pub(super) fn end(&self) -> u64 {
        self.position + u64::from(self.bytes)
    }

    /// This group, as the next one remembers it.
    pub(super) fn link(&self) -> Link {
        Link {
            sequence: self.sequence,
            generation: self.generation.0,
            position: self.position,
            bytes: self.bytes,
            entries: self.entries.clone(),
        }
    }

    /// Head and directories. The counts are bounded by the writer's limits.
    pub(super) fn encode(&self, salt: u64) -> Vec<u8> {
        let total = head_bytes(self.entries.len(), self.previous.entries.len());
        let mut out = Vec::with_capacity(usize::try_from(total).unwrap_or(HEAD_BYTES));
        let mut put = |bytes: &[u8]| out.extend_from_slice(bytes);
        put(&GROUP_MAGIC);
        put(&VERSION.to_le_bytes());
        put(&[0; 2]);
        put(&[0; 4]);
        put(&u32::try_from(self.entries.len())
            .unwrap_or(u32::MAX)
            .to_le_bytes());
        put(&u32::try_from(self.previous.entries.len())
            .unwrap_or(u32::MAX)
            .to_le_bytes());
        put(&self.bytes.to_le_bytes());
        put(&self.generation.0.to_le_bytes());
        put(&self.position.to_le_bytes());
        put(&self.sequence.0.to_le_bytes());
        put(&self.synced_through.0.to_le_bytes());
        put(&self.file_first.0.to_le_bytes());
        put(&self.run.first.0.to_le_bytes());
        put(&self.run.cut.0.to_le_bytes());
        put(&self.previous.sequence.0.to_le_bytes());
        put(&self.previous.generation.to_le_bytes());
        put(&self.previous.position.to_le_bytes());
        put(&self.previous.bytes.to_le_bytes());
        put(&self.store_sequence.to_le_bytes());
        out.resize(HEAD_BYTES, 0);
        for entry in self.entries.iter().chain(&self.previous.entries) {
            entry.encode(&mut out);
        }
        let crc = head_crc(salt, &out).unwrap_or_default();
        out[8..12].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Bytes that `decode` needs, told from the first ones; `None` if no group begins here.
    pub(super) fn encoded_bytes(start: &[u8]) -> Option<usize> {
        let mut reader = Reader(start);
        let magic: [u8; 4] = reader.take()?;
        let version = reader.u16()?;
        reader.u16()?;
        reader.u32()?;
        let (entries, previous) = (reader.u32()?, reader.u32()?);
        if magic != GROUP_MAGIC
            || version != VERSION
            || entries > ENTRIES_MAX
            || previous > ENTRIES_MAX
        {
            return None;
        }
        usize::try_from(head_bytes(entries as usize, previous as usize)).ok()
    }

    /// Reads the group that begins at `position` of a file; `None` if there is none.
    pub(super) fn decode(bytes: &[u8], header: &FileHeader, position: u64) -> Option<GroupHead> {
        let bytes = bytes.get(..Self::encoded_bytes(bytes)?)?;
        let mut reader = Reader(bytes.get(8..)?);
        if reader.u32()? != head_crc(header.salt, bytes)? {
            return None;
        }
        let (entry_count, previous_count) = (reader.u32()?, reader.u32()?);
        let group_bytes = reader.u32()?;
        let mut head = GroupHead {
            generation: FileGeneration(reader.u64()?),
            position: reader.u64()?,
            bytes: group_bytes,
            sequence: GroupSequence(reader.u64()?),
            synced_through: GroupSequence(reader.u64()?),
            file_first: GroupSequence(reader.u64()?),
            run: Run {
                first: GroupSequence(reader.u64()?),
                cut: GroupSequence(reader.u64()?),
            },
            previous: Link {
                sequence: GroupSequence(reader.u64()?),
                generation: reader.u64()?,
                position: reader.u64()?,
                bytes: reader.u32()?,
                entries: Vec::new(),
            },
            store_sequence: reader.u64()?,
            entries: Vec::new(),
        };
        let mut directory = Reader(bytes.get(HEAD_BYTES..)?);
        for _ in 0..entry_count {
            head.entries
                .push(Entry::decode(&mut directory, head.bytes)?);
        }
        for _ in 0..previous_count {
            let entry = Entry::decode(&mut directory, head.previous.bytes)?;
            head.previous.entries.push(entry);
        }
        head.is_sound(header, position, bytes.len()).then_some(head)
    }

    fn is_sound(&self, header: &FileHeader, position: u64, encoded_bytes: usize) -> bool {
        let ends = self.position.checked_add(u64::from(self.bytes));
        self.generation == header.generation
            && self.position == position
            && u64::from(self.bytes).is_multiple_of(BLOCK_BYTES)
            && self.bytes as usize >= encoded_bytes
            && ends.is_some_and(|end| end <= header.file_bytes)
            && self.sequence > self.previous.sequence
            && self.sequence > self.synced_through
    }
}

#[cfg(test)]
#[path = "tests/format.rs"]
mod tests;
