//! Side files: the journal's frames of logs that could not be checkpointed.
//!
//! Owns `side-<log>` in the journal's directory. A side file has the journal's own format with one log's frames, and
//! grows. Invariant: when `copy` returns, the frames are on stable storage and something behind them says so; copying
//! the same file twice is harmless, because readers skip what they had.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use super::appender::Appender;
use super::files::TEMPORARY_SUFFIX;
use super::format::{Entry, FIRST_GROUP, FileHeader, GroupSequence, Run};
use super::group::Draft;
use super::round::{Opened, RoundFile};
use super::walk::{End, Place, Visitor, walk};
use super::{Damage, FileGeneration, FrameKind, FrameSequence};
use crate::SyncPoint;
use crate::fs::{FileSystem, OpenMode};
use crate::log::{EntryIndex, LogId};

pub(super) const SIDE_PREFIX: &str = "side-";

/// The side files of a journal.
#[derive(Debug)]
pub(super) struct SideFiles {
    fs: Arc<dyn FileSystem>,
    directory: PathBuf,
    directory_name: String,
    directory_id: [u8; 16],
    open: BTreeMap<LogId, SideFile>,
}

#[derive(Debug)]
struct SideFile {
    appender: Appender,
    /// The last frame that is in it to its end.
    last: FrameSequence,
}

/// Picks one log's frames out of a journal file.
struct Picker<'a> {
    log: LogId,
    after: FrameSequence,
    groups: &'a mut Vec<Draft>,
    last: FrameSequence,
    /// Where the log ends, going by what was found.
    last_index: Option<EntryIndex>,
    damaged: bool,
}

/// Frames gathered before they are written as one group.
const GROUP_BYTES: u64 = 4 << 20;
const GROUP_FRAMES: usize = 512;

impl Visitor for Picker<'_> {
    fn entry(
        &mut self,
        _: &RoundFile,
        _: u64,
        entry: &Entry,
        payload: Result<Bytes, &'static str>,
    ) {
        if entry.log != self.log {
            return;
        }
        self.last_index = Some(entry.last_index);
        if entry.sequence <= self.after {
            return;
        }
        let full = |draft: &Draft| {
            draft.payload_bytes >= GROUP_BYTES || draft.entries.len() >= GROUP_FRAMES
        };
        if self.groups.last().is_none_or(full) {
            self.groups.push(Draft::default());
        }
        let Some(draft) = self.groups.last_mut() else {
            return;
        };
        match payload {
            Ok(payload) => draft.push(*entry, &[payload]),
            Err(_) => draft.push(
                Entry {
                    lost: true,
                    ..*entry
                },
                &[],
            ),
        }
        if entry.last {
            self.last = entry.sequence;
        }
    }

    fn damage(&mut self, _: Damage) {
        self.damaged = true;
    }

    // A tail that an earlier start cut may be left behind the last group. What is really missing shows in the index.
    fn tail_cut(&mut self, _: &str, _: u64) {}
}

impl SideFiles {
    pub(super) fn new(
        fs: Arc<dyn FileSystem>,
        directory: PathBuf,
        directory_name: String,
        directory_id: [u8; 16],
    ) -> SideFiles {
        SideFiles {
            fs,
            directory,
            directory_name,
            directory_id,
            open: BTreeMap::new(),
        }
    }

    /// The log whose side file has this name.
    pub(super) fn log_of(file_name: &str) -> Option<LogId> {
        file_name.strip_prefix(SIDE_PREFIX)?.parse().ok().map(LogId)
    }

    pub(super) fn file_name(log: LogId) -> String {
        format!("{SIDE_PREFIX}{}", log.0)
    }

    /// Takes over a side file that was found and read at start.
    pub(super) fn add(
        &mut self,
        log: LogId,
        round: RoundFile,
        end: &End,
        last: FrameSequence,
    ) -> io::Result<()> {
        let appender = resume(round, end)?;
        self.open.insert(log, SideFile { appender, last });
        Ok(())
    }

    /// Copies the frames of some logs, each with its last index in the file, out of a full journal file. Blocks.
    pub(super) fn copy(
        &mut self,
        from: &RoundFile,
        logs: &[(LogId, EntryIndex)],
    ) -> io::Result<()> {
        for (log, last_index) in logs {
            self.copy_log(from, *log, *last_index)?;
        }
        Ok(())
    }

    fn copy_log(&mut self, from: &RoundFile, log: LogId, last_index: EntryIndex) -> io::Result<()> {
        // Taken out: what a write that failed left is read again before the file is believed.
        let mut side = match self.open.remove(&log) {
            Some(side) => side,
            None => self.open_or_make(log)?,
        };
        copy_frames(&mut side, from, log, last_index)?;
        self.open.insert(log, side);
        Ok(())
    }

    fn open_or_make(&self, log: LogId) -> io::Result<SideFile> {
        let file_name = Self::file_name(log);
        let path = self.directory.join(&file_name);
        if !self.fs.exists(&path)? {
            return self.make(log);
        }
        let name = format!("{}/{file_name}", self.directory_name);
        let round = match RoundFile::open(&*self.fs, &path, name, file_name)? {
            Opened::Round(round) => round,
            Opened::Damaged => {
                // One log's loss is not to stop the journal of all; it is remembered in the new file.
                let mut side = self.make(log)?;
                let nothing = (FrameSequence::default(), EntryIndex::default());
                side.appender.put(lost_frame(log, nothing.0, nothing.1))?;
                return Ok(side);
            }
            Opened::TooNew(version) => {
                let reason = format!("the side file has format version {version}");
                return Err(io::Error::other(reason));
            }
        };
        let mut last = LastFrame::default();
        let end = walk(std::slice::from_ref(&round), &mut last)
            .map_err(|_| io::Error::other("the side file cannot be read"))?;
        Ok(SideFile {
            appender: resume(round, &end)?,
            last: last.0,
        })
    }
}

/// Goes on behind what was found in a side file. What an earlier life failed to sync of it is made durable by the sync of
/// the next copy, which is that of the same journal file once more: until then that has the frames.
fn resume(round: RoundFile, end: &End) -> io::Result<Appender> {
    round.rewrite(end)?;
    Ok(Appender::resume(round, end))
}

/// Finds the last frame that is whole.
#[derive(Default)]
struct LastFrame(FrameSequence);

impl Visitor for LastFrame {
    fn entry(&mut self, _: &RoundFile, _: u64, entry: &Entry, _: Result<Bytes, &'static str>) {
        if entry.last {
            self.0 = self.0.max(entry.sequence);
        }
    }

    fn damage(&mut self, _: Damage) {}

    fn tail_cut(&mut self, _: &str, _: u64) {}
}

/// Copies a log's frames out of a journal file.
fn copy_frames(
    side: &mut SideFile,
    from: &RoundFile,
    log: LogId,
    last_index: EntryIndex,
) -> io::Result<()> {
    let mut groups = Vec::new();
    let mut picker = Picker {
        log,
        after: side.last,
        groups: &mut groups,
        last: side.last,
        last_index: None,
        damaged: false,
    };
    let walked = walk(std::slice::from_ref(from), &mut picker);
    let complete = walked.is_ok() && !picker.damaged && picker.last_index == Some(last_index);
    let last = picker.last;
    if !complete {
        tracing::error!(file = %from.name, log = log.0, "frames in a damaged journal file cannot be set aside");
        groups.push(lost_frame(log, last, last_index));
    }
    for draft in groups {
        side.appender.put(draft)?;
    }
    side.appender.sync(SyncPoint::SideFrames)?;
    // Says that what is before it was durable, so that damage to the last group is not taken for a torn tail.
    side.appender.put(Draft::default())?;
    side.appender.sync(SyncPoint::SideSeal)?;
    side.last = last;
    tracing::warn!(file = %side.appender.round.name, log = log.0, from = %from.name, "journal frames set aside");
    Ok(())
}

impl SideFiles {
    fn make(&self, log: LogId) -> io::Result<SideFile> {
        let file_name = Self::file_name(log);
        let temporary = self
            .directory
            .join(format!("{file_name}{TEMPORARY_SUFFIX}"));
        let file = self.fs.open(&temporary, OpenMode::CreateOrOpen)?;
        let header = FileHeader {
            generation: FileGeneration(0),
            file_bytes: u64::MAX,
            salt: Uuid::new_v4().as_u64_pair().0,
            frame_floor: FrameSequence::default(),
            directory_id: self.directory_id,
        };
        let name = format!("{}/{file_name}", self.directory_name);
        let round = RoundFile::begin(name, file_name.clone(), file, header)?;
        self.fs
            .rename(&temporary, &self.directory.join(&file_name))?;
        self.fs.sync_dir(&self.directory, SyncPoint::SideMade)?;
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
        let appender = Appender::resume(round, &end);
        Ok(SideFile {
            appender,
            last: FrameSequence::default(),
        })
    }

    /// Forgets a log's side file; whether it had one.
    pub(super) fn forget(&mut self, log: LogId) -> bool {
        self.open.remove(&log).is_some()
    }

    /// Logs that have a side file, each with its last frame.
    pub(super) fn lasts(&self) -> Vec<(LogId, FrameSequence)> {
        let open = self.open.iter();
        open.map(|(log, side)| (*log, side.last)).collect()
    }

    /// Removes a log's side file. Blocks.
    pub(super) fn remove(&self, log: LogId) -> io::Result<()> {
        self.fs
            .remove_file(&self.directory.join(Self::file_name(log)))?;
        self.fs.sync_dir(&self.directory, SyncPoint::SideRemoved)
    }

    /// Logs that have a side file.
    pub(super) fn logs(&self) -> Vec<LogId> {
        self.open.keys().copied().collect()
    }
}

/// Stands for frames behind `after` that could not be read, so that every start reports them.
fn lost_frame(log: LogId, after: FrameSequence, last_index: EntryIndex) -> Draft {
    let mut draft = Draft::default();
    let entry = Entry {
        log,
        prev_index: last_index,
        last_index,
        sequence: FrameSequence(after.0.saturating_add(1)),
        kind: FrameKind::Append,
        first: true,
        last: true,
        lost: true,
        payload_offset: 0,
        payload_bytes: 0,
        payload_crc: 0,
        frame_bytes: 0,
    };
    draft.push(entry, &[]);
    draft
}
