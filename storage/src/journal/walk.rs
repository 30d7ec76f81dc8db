//! Walking the journal's groups from the oldest to the newest.
//!
//! Each group names the one before it, so the walk knows at every step whether something is missing. What follows the
//! last good group is a torn tail, and cut silently, unless a later group says that it had been on stable storage
//! before that group was written: then it is damage, and the logs that lost a frame are named from the copy of the
//! directory that the next group holds. Pure reading: no file is changed here.

use bytes::Bytes;

use super::format::{Entry, FIRST_GROUP, GroupHead, GroupSequence, Link, Run};
use super::round::{RoundFile, UNREADABLE};
use super::{Damage, FrameSequence};

/// Sees what a walk finds, in order.
pub(super) trait Visitor {
    /// A frame, or a part of one, with its payload or what is wrong with it.
    fn entry(
        &mut self,
        round: &RoundFile,
        group_position: u64,
        entry: &Entry,
        payload: Result<Bytes, &'static str>,
    );
    /// Data that was on stable storage cannot be read back.
    fn damage(&mut self, damage: Damage);
    /// Something that was never acknowledged under `Sync` begins here.
    fn tail_cut(&mut self, file: &str, position: u64);
}

/// A place where a group may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Index of the file in the walk.
    pub(super) file: usize,
    pub(super) position: u64,
}

/// Why a walk cannot be trusted to have found the end.
#[derive(Debug)]
pub(super) struct Unreadable {
    pub(super) file: String,
    pub(super) position: u64,
}

/// Place of a group that no later one says to be on stable storage.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unattested {
    pub(super) position: u64,
    pub(super) bytes: u32,
    sequence: GroupSequence,
}

/// Where the walk ended.
#[derive(Debug)]
pub(super) struct End {
    /// Where the next group goes.
    pub(super) place: Place,
    pub(super) last: Option<Link>,
    /// The last good group's run, and the first group of its file.
    pub(super) run: Run,
    pub(super) file_first: GroupSequence,
    /// Good groups that no later one says to be on stable storage; all are in the last file that has any.
    pub(super) unattested: Vec<Unattested>,
    /// Highest numbers seen, in cut tails too.
    pub(super) group_max: GroupSequence,
    pub(super) frame_max: FrameSequence,
}

/// What the rest of the files says about a place where the chain breaks.
struct Lookahead {
    /// The first later group that counts.
    first: Option<(usize, GroupHead)>,
    synced_through: GroupSequence,
    group_max: GroupSequence,
    frame_max: FrameSequence,
}

struct Walk<'a> {
    files: &'a [RoundFile],
    visitor: &'a mut dyn Visitor,
    end: End,
}

/// Walks files that form one chain, oldest first.
pub(super) fn walk(files: &[RoundFile], visitor: &mut dyn Visitor) -> Result<End, Unreadable> {
    let end = End {
        place: Place {
            file: 0,
            position: FIRST_GROUP,
        },
        last: None,
        run: Run::default(),
        file_first: GroupSequence::default(),
        unattested: Vec::new(),
        group_max: GroupSequence::default(),
        frame_max: FrameSequence::default(),
    };
    Walk {
        files,
        visitor,
        end,
    }
    .run()
}

impl Walk<'_> {
    fn run(mut self) -> Result<End, Unreadable> {
        while self.end.place.file < self.files.len() {
            if let Some((file, head)) = self.linked() {
                if !self.group(file, head)? {
                    break;
                }
                continue;
            }
            let ahead = self.look_ahead(self.end.place);
            self.note(&ahead);
            if self.is_unused(&ahead) {
                self.end.place = Place {
                    file: self.end.place.file + 1,
                    position: FIRST_GROUP,
                };
                continue;
            }
            match &ahead.first {
                Some((file, head)) if self.is_attested(*file, head, ahead.synced_through) => {
                    self.lost(*file, head);
                }
                _ => {
                    self.cut(&ahead);
                    break;
                }
            }
        }
        self.check_readable()?;
        Ok(self.end)
    }

    /// Whether the first file was made and never used, which happens when making it failed at the end. Files are
    /// reclaimed in their order, so a group that remembers another file says that this one held nothing needed.
    fn is_unused(&self, ahead: &Lookahead) -> bool {
        let Place { file, position } = self.end.place;
        let generation = self.files.get(file).map(|round| round.header.generation.0);
        self.end.last.is_none()
            && position == FIRST_GROUP
            && ahead.first.as_ref().is_some_and(|(index, head)| {
                *index > file && Some(head.previous.generation) != generation
            })
    }

    /// The next group, if nothing is missing before it.
    fn linked(&self) -> Option<(usize, GroupHead)> {
        let Place { file, position } = self.end.place;
        let here = self
            .files
            .get(file)
            .and_then(|round| Some((file, round.head_at(position)?)));
        let follows = |found: &(usize, GroupHead)| match &self.end.last {
            Some(last) => found.1.previous.sequence == last.sequence,
            None => found.1.sequence == found.1.file_first && found.1.position == FIRST_GROUP,
        };
        here.filter(follows).or_else(|| {
            self.end.last.as_ref()?;
            // A file that was made but never used may lie between.
            let later = self.files.iter().enumerate().skip(file + 1);
            later
                .filter_map(|(index, round)| Some((index, round.head_at(FIRST_GROUP)?)))
                .find(follows)
        })
    }

    /// Goes over a group whose head is whole; `false` if it is part of the torn tail.
    fn group(&mut self, file: usize, head: GroupHead) -> Result<bool, Unreadable> {
        let Some(round) = self.files.get(file) else {
            return Ok(false);
        };
        let payloads = round.payloads(head.position, head.bytes, &head.entries);
        if payloads.iter().any(Result::is_err) {
            let ahead = self.look_ahead(Place {
                file,
                position: head.end(),
            });
            self.note(&ahead);
            if ahead.synced_through < head.sequence {
                if payloads.contains(&Err(UNREADABLE)) {
                    return Err(Unreadable {
                        file: round.name.clone(),
                        position: head.position,
                    });
                }
                self.visitor.tail_cut(&round.name, head.position);
                self.end.place = Place {
                    file,
                    position: head.position,
                };
                self.end.group_max = self.end.group_max.max(head.sequence);
                self.note_frames(&head.entries);
                return Ok(false);
            }
        }
        for (entry, payload) in head.entries.iter().zip(payloads) {
            self.visitor.entry(round, head.position, entry, payload);
        }
        self.pass(file, &head);
        Ok(true)
    }

    fn pass(&mut self, file: usize, head: &GroupHead) {
        self.note_frames(&head.entries);
        self.end.group_max = self.end.group_max.max(head.sequence);
        self.end.place = Place {
            file,
            position: head.end(),
        };
        self.end.run = head.run;
        self.end.file_first = head.file_first;
        self.end.last = Some(head.link());
        self.end
            .unattested
            .retain(|group| group.sequence > head.synced_through);
        let (position, bytes, sequence) = (head.position, head.bytes, head.sequence);
        self.end.unattested.push(Unattested {
            position,
            bytes,
            sequence,
        });
    }

    fn note_frames(&mut self, entries: &[Entry]) {
        let max = entries.iter().map(|entry| entry.sequence).max();
        self.end.frame_max = self.end.frame_max.max(max.unwrap_or_default());
    }

    fn note(&mut self, ahead: &Lookahead) {
        self.end.group_max = self.end.group_max.max(ahead.group_max);
        self.end.frame_max = self.end.frame_max.max(ahead.frame_max);
    }

    /// Reads all heads after a place. Groups of cut tails do not count.
    fn look_ahead(&self, from: Place) -> Lookahead {
        let mut ahead = Lookahead {
            first: None,
            synced_through: GroupSequence::default(),
            group_max: GroupSequence::default(),
            frame_max: FrameSequence::default(),
        };
        let passed = self
            .end
            .last
            .as_ref()
            .map(|last| last.sequence)
            .unwrap_or_default();
        let (mut found, mut runs) = (Vec::new(), Vec::new());
        for (index, round) in self.files.iter().enumerate().skip(from.file) {
            let position = if index == from.file {
                from.position
            } else {
                FIRST_GROUP
            };
            // Only the file after the last used one may have lost its first group.
            if index > from.file + 1 && round.head_at(FIRST_GROUP).is_none() {
                continue;
            }
            for head in round.heads_from(position) {
                ahead.group_max = ahead.group_max.max(head.sequence);
                let frames = head.entries.iter().map(|entry| entry.sequence).max();
                ahead.frame_max = ahead.frame_max.max(frames.unwrap_or_default());
                if head.sequence > passed {
                    ahead.synced_through = ahead.synced_through.max(head.synced_through);
                    found.push((index, head.position, head.sequence));
                    runs.push(head.run);
                }
            }
        }
        runs.dedup();
        let stale = |sequence: GroupSequence| {
            runs.iter()
                .any(|run| run.cut < sequence && sequence < run.first)
        };
        let first = found.into_iter().find(|(_, _, sequence)| !stale(*sequence));
        ahead.first = first.and_then(|(index, position, _)| {
            Some((index, self.files.get(index)?.head_at(position)?))
        });
        ahead
    }

    /// Whether something that is missing before a later group had been on stable storage.
    fn is_attested(&self, file: usize, head: &GroupHead, synced_through: GroupSequence) -> bool {
        let passed = match &self.end.last {
            Some(last) => last.sequence.0,
            None if file == self.end.place.file => head.file_first.0.saturating_sub(1),
            None => head.previous.sequence.0.saturating_sub(1),
        };
        synced_through.0 > passed
    }

    /// Reports what is missing before `head`, which is damage, and goes on there.
    fn lost(&mut self, file: usize, head: &GroupHead) {
        let Place { file: at, position } = self.end.place;
        let Some(round) = self.files.get(at) else {
            return;
        };
        let previous = &head.previous;
        let here = (round.header.generation.0, position);
        let passed = self.end.last.as_ref().map(|last| last.sequence.0);
        let only_one = (previous.generation, previous.position) == here
            || passed.is_some_and(|passed| passed + 1 == previous.sequence.0);
        if !only_one {
            self.visitor.damage(Damage::of_any(
                &round.name,
                position,
                "several groups are lost",
            ));
        }
        // The directory of the last lost group is known, and its frames may be whole.
        if let Some(holder) = self
            .files
            .iter()
            .find(|round| round.header.generation.0 == previous.generation)
        {
            tracing::warn!(file = %holder.name, position = previous.position, "journal group's head is damaged");
            let payloads = holder.payloads(previous.position, previous.bytes, &previous.entries);
            for (entry, payload) in previous.entries.iter().zip(payloads) {
                self.visitor
                    .entry(holder, previous.position, entry, payload);
            }
        }
        self.end.last = Some(previous.clone());
        self.end.place = Place {
            file,
            position: head.position,
        };
    }

    fn cut(&mut self, ahead: &Lookahead) {
        let Some(round) = self.files.get(self.end.place.file) else {
            return;
        };
        if ahead.first.is_some() {
            self.visitor.tail_cut(&round.name, self.end.place.position);
        }
    }

    /// A place that the device refuses to read cannot be told from data that was acknowledged.
    fn check_readable(&self) -> Result<(), Unreadable> {
        for (index, round) in self.files.iter().enumerate().skip(self.end.place.file) {
            let position = if index == self.end.place.file {
                self.end.place.position
            } else {
                0
            };
            if round.was_unreadable_after(position) {
                return Err(Unreadable {
                    file: round.name.clone(),
                    position,
                });
            }
        }
        Ok(())
    }
}
