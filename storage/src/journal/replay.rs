//! Turning what a walk finds into frames for the caller.
//!
//! Puts the parts of split frames together, skips frames that a side file had already given, and notes which logs each
//! file holds frames of. Invariant: the frames of one log go out in the order of their sequence numbers, each once.

use std::collections::{BTreeMap, HashMap};

use bytes::{Bytes, BytesMut};

use super::format::Entry;
use super::round::RoundFile;
use super::walk::Visitor;
use super::{Damage, FileGeneration, FrameSequence, ReplayReport, ReplayedFrame};
use crate::log::{EntryIndex, LogId};

/// The last index of each log in a file.
pub(super) type Contents = BTreeMap<LogId, EntryIndex>;

/// State over several walks: side files first, then the journal.
pub(super) struct Replay<'a> {
    deliver: &'a mut dyn FnMut(ReplayedFrame),
    report: ReplayReport,
    parts: HashMap<LogId, Parts>,
    /// The last whole frame of each log that went out; copies of it and of earlier ones are skipped.
    delivered: HashMap<LogId, FrameSequence>,
    contents: BTreeMap<FileGeneration, Contents>,
}

/// The parts of a frame that have been read.
struct Parts {
    sequence: FrameSequence,
    bytes: BytesMut,
    /// A part was lost; the frame cannot be whole any more.
    broken: bool,
}

impl<'a> Replay<'a> {
    pub(super) fn new(deliver: &'a mut dyn FnMut(ReplayedFrame)) -> Replay<'a> {
        Replay {
            deliver,
            report: ReplayReport::default(),
            parts: HashMap::new(),
            delivered: HashMap::new(),
            contents: BTreeMap::new(),
        }
    }

    pub(super) fn finish(self) -> (ReplayReport, BTreeMap<FileGeneration, Contents>) {
        (self.report, self.contents)
    }

    /// Whether something is lost and nobody can tell of which log.
    pub(super) fn has_unnamed_damage(&self) -> bool {
        self.report
            .damaged
            .iter()
            .any(|damage| damage.log.is_none())
    }

    /// The last frame of a log that went out.
    pub(super) fn delivered(&self, log: LogId) -> FrameSequence {
        self.delivered.get(&log).copied().unwrap_or_default()
    }

    fn part(&mut self, file: &RoundFile, position: u64, entry: &Entry, payload: Bytes) {
        if entry.first && entry.last {
            return self.whole(file, position, entry, payload);
        }
        if entry.first {
            let parts = Parts {
                sequence: entry.sequence,
                bytes: BytesMut::new(),
                broken: false,
            };
            self.parts.insert(entry.log, parts);
        }
        // Without a first part the frame began in a file that was reclaimed.
        let Some(parts) = self.parts.get_mut(&entry.log) else {
            return;
        };
        if parts.sequence != entry.sequence || parts.broken {
            return;
        }
        parts.bytes.extend_from_slice(&payload);
        if !entry.last {
            return;
        }
        let whole = std::mem::take(&mut parts.bytes).freeze();
        if whole.len() == entry.frame_bytes as usize {
            self.whole(file, position, entry, whole);
        } else {
            self.damage(damage_of(
                file,
                position,
                entry,
                "a part of the frame is missing",
            ));
        }
    }

    fn whole(&mut self, file: &RoundFile, position: u64, entry: &Entry, payload: Bytes) {
        self.delivered.insert(entry.log, entry.sequence);
        self.report.frames += 1;
        self.report.payload_bytes += payload.len() as u64;
        (self.deliver)(ReplayedFrame {
            log: entry.log,
            kind: entry.kind,
            prev_index: entry.prev_index,
            last_index: entry.last_index,
            sequence: entry.sequence,
            payload,
            generation: file.header.generation,
            file: file.name.clone(),
            position,
        });
    }
}

impl Visitor for Replay<'_> {
    fn entry(
        &mut self,
        round: &RoundFile,
        group_position: u64,
        entry: &Entry,
        payload: Result<Bytes, &'static str>,
    ) {
        let contents = self.contents.entry(round.header.generation).or_default();
        contents.insert(entry.log, entry.last_index);
        if self
            .delivered
            .get(&entry.log)
            .is_some_and(|last| *last >= entry.sequence)
        {
            return;
        }
        let position = group_position + u64::from(entry.payload_offset);
        match if entry.lost {
            Err("frame was damaged before it was copied here")
        } else {
            payload
        } {
            Ok(payload) => self.part(round, position, entry, payload),
            Err(reason) => {
                self.damage(damage_of(round, position, entry, reason));
                let parts = Parts {
                    sequence: entry.sequence,
                    bytes: BytesMut::new(),
                    broken: true,
                };
                self.parts.insert(entry.log, parts);
            }
        }
        if entry.last {
            self.parts.remove(&entry.log);
        }
    }

    fn damage(&mut self, damage: Damage) {
        tracing::error!(%damage, log = damage.log.map(|log| log.0), "journal damage");
        self.report.damaged.push(damage);
    }

    fn tail_cut(&mut self, file: &str, position: u64) {
        self.report.tail_cut = Some((file.to_owned(), position));
    }
}

fn damage_of(round: &RoundFile, position: u64, entry: &Entry, reason: &str) -> Damage {
    let (log, sequence) = (Some(entry.log), Some(entry.sequence));
    Damage {
        log,
        sequence,
        ..Damage::of_any(&round.name, position, reason)
    }
}
