//! What the key-value store knows of the journal, held against what the journal's directory holds.
//!
//! The journal cannot miss by itself what stood at its end: a file that is gone or cut looks like one that was never
//! written. And the key-value store cannot miss its own last writes. So each remembers the other: the store lists the
//! files, and each group says how far the store was. Pure reading.

use super::format::{BLOCK_BYTES, FIRST_GROUP};
use super::round::RoundFile;
use super::walk::End;
use super::{Damage, FileGeneration, FrameSequence};
use crate::log::LogId;

/// What the key-value store knows of the journal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreKnowledge {
    /// The store's sequence number.
    pub sequence: u64,
    /// Generations of the files that must be there.
    pub files: Vec<FileGeneration>,
    /// Logs whose side files must be there, each with its last frame.
    pub side: Vec<(LogId, FrameSequence)>,
    /// The newest frame that a checkpoint covers: no later frame may have its number, even if the journal is lost.
    pub frames: FrameSequence,
    /// Whether the last stop was clean, so that nothing in the journal is needed any more.
    pub clean: bool,
}

/// How far the key-value store was when the newest group was written, and that group's file.
pub(super) fn store_sequence(rounds: &[RoundFile]) -> Option<(u64, &RoundFile)> {
    // Numbers rise from group to group, so the newest file that has any group has the highest.
    rounds.iter().rev().find_map(|round| {
        let sequences = round.heads_from(FIRST_GROUP);
        let newest = sequences.map(|head| head.store_sequence).max();
        newest.map(|sequence| (sequence, round))
    })
}

/// The files that the store knows of and that are not there.
pub(super) fn missing(
    known: &StoreKnowledge,
    rounds: &[RoundFile],
    directory: &str,
) -> Vec<Damage> {
    let is_there = |generation: &&FileGeneration| {
        !(rounds.iter()).any(|round| round.header.generation == **generation)
    };
    let missing = known.files.iter().filter(is_there);
    missing
        .map(|generation| {
            let reason = format!(
                "the file of generation {} is missing, or the key-value store (kv) has gone back",
                generation.0
            );
            Damage::of_any(directory, 0, &reason)
        })
        .collect()
}

/// Side files that the store knows of and that are gone, or lost their end. `delivered` tells the last frame found.
pub(super) fn missing_side(
    known: &StoreKnowledge,
    delivered: impl Fn(LogId) -> FrameSequence,
    directory: &str,
) -> Vec<Damage> {
    let side = known.side.iter();
    let cut = side.filter(|(log, last)| delivered(*log) < *last);
    cut.map(|(log, last)| Damage {
        log: Some(*log),
        sequence: Some(*last),
        ..Damage::of_any(
            &format!("{directory}/side-{}", log.0),
            0,
            "frames that were set aside are missing",
        )
    })
    .collect()
}

/// A file at or behind the end of the chain that is shorter than it was made.
pub(super) struct Short<'a> {
    pub(super) round: &'a RoundFile,
    pub(super) bytes: u64,
    /// Whether a group may have been there that is gone now.
    pub(super) may_have_held: bool,
}

/// The files that are too short. Those before the end of the chain need no look: what they lost, the chain misses.
pub(super) fn short<'a>(rounds: &'a [RoundFile], end: &End) -> std::io::Result<Vec<Short<'a>>> {
    let mut found = Vec::new();
    for (index, round) in rounds.iter().enumerate().skip(end.place.file) {
        let bytes = round.file.len()?;
        if bytes >= round.header.file_bytes {
            continue;
        }
        let next = if index == end.place.file {
            end.place.position
        } else {
            FIRST_GROUP
        };
        // Groups follow one another without a gap: where the next one has no head, there is none behind it either.
        let head_lost = bytes < next.saturating_add(BLOCK_BYTES) && next < round.header.file_bytes;
        let cut = round.head_at(next).is_some_and(|head| head.end() > bytes);
        found.push(Short {
            round,
            bytes,
            may_have_held: head_lost || cut,
        });
    }
    Ok(found)
}
