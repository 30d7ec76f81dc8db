//! What the key-value store remembers of the journal, so that files that are gone are missed.
//!
//! Value of `journal-files`, big-endian: u8 version = 1, 3 bytes 0, u32 n, n x u64 generation of a file that must be
//! there, u32 m, m x { u64 log id, u64 sequence number of the last frame in its side file }.

use std::sync::atomic::Ordering;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{JOURNAL_FILES, OpenError};
use crate::journal::{FileGeneration, FrameSequence, StoreKnowledge};
use crate::kv::{KeySpace, KeyValueStore};
use crate::log::LogId;

const VERSION: u8 = 1;

/// The value of a note.
pub(super) fn encode(files: &[FileGeneration], side: &[(LogId, FrameSequence)]) -> Bytes {
    let count = |len: usize| u32::try_from(len).unwrap_or(u32::MAX);
    let mut out = BytesMut::new();
    out.put_u8(VERSION);
    out.put_bytes(0, 3);
    out.put_u32(count(files.len()));
    files.iter().for_each(|file| out.put_u64(file.0));
    out.put_u32(count(side.len()));
    for (log, last) in side {
        out.put_u64(log.0);
        out.put_u64(last.0);
    }
    out.freeze()
}

type Note = (Vec<FileGeneration>, Vec<(LogId, FrameSequence)>);

fn decode(mut input: &[u8]) -> Option<Note> {
    let (mut files, mut side) = (Vec::new(), Vec::new());
    if input.try_get_u8().ok()? != VERSION {
        return None;
    }
    input = input.get(3..)?;
    for _ in 0..input.try_get_u32().ok()? {
        files.push(FileGeneration(input.try_get_u64().ok()?));
    }
    for _ in 0..input.try_get_u32().ok()? {
        let log = LogId(input.try_get_u64().ok()?);
        side.push((log, FrameSequence(input.try_get_u64().ok()?)));
    }
    Some((files, side))
}

/// What the store knows.
pub(super) fn read(
    kv: &dyn KeyValueStore,
    frames: FrameSequence,
    clean: bool,
) -> Result<StoreKnowledge, OpenError> {
    let noted = kv.get(KeySpace::Meta, JOURNAL_FILES)?;
    let malformed =
        || OpenError::Format("journal-files is damaged or of a newer version".to_owned());
    let (files, side) = match noted {
        Some(value) => decode(&value).ok_or_else(malformed)?,
        None => Note::default(),
    };
    Ok(StoreKnowledge {
        sequence: kv.progress().load(Ordering::Acquire),
        files,
        side,
        frames,
        clean,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_read_back_and_cut_ones_refused() {
        let files = [FileGeneration(7), FileGeneration(9)];
        let side = [(LogId(3), FrameSequence(1 << 40))];
        let value = encode(&files, &side);
        assert_eq!(decode(&value), Some((files.to_vec(), side.to_vec())));
        for cut in 0..value.len() {
            assert_eq!(decode(&value[..cut]), None, "{cut}");
        }
    }
}
