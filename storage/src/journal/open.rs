//! Opening a journal: which files there are, what is in them, where writing goes on.
//!
//! Invariant: whatever is handed to the caller is on stable storage by then, so that no later power loss can take back
//! what recovery built on.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::appender::Appender;
use super::files::{Closed, FILE_PREFIX, Files, FilesState, TEMPORARY_SUFFIX};
use super::format::BLOCK_BYTES;
use super::known;
use super::queue::Queue;
use super::replay::{Contents, Replay};
use super::round::{Opened, RoundFile};
use super::side::SideFiles;
use super::walk::{End, Unreadable, Visitor, walk};
use super::writer::Writer;
use super::{
    Damage, FileGeneration, FrameSequence, JournalConfig, JournalError, ReplayReport, ReplayedFrame,
};
use crate::SyncPoint;
use crate::fs::FileSystem;
use crate::log::LogId;

/// Numbers skipped at each start: more than the frames that can have been submitted and lost.
const RUN_GAP: u64 = 1 << 32;

/// What the journal's directory holds.
#[derive(Default)]
struct Found {
    rounds: Vec<RoundFile>,
    side: BTreeMap<LogId, RoundFile>,
    damaged: Vec<(String, Option<LogId>)>,
    slot_max: u64,
}

struct Opener {
    fs: Arc<dyn FileSystem>,
    directory: PathBuf,
    directory_name: String,
    config: JournalConfig,
    /// Whether the end of the last file is left as it is, because it shows damage.
    keeps_end: bool,
}

impl Opener {
    fn error(&self, file_name: &str, reason: impl ToString) -> JournalError {
        let file = if file_name.is_empty() {
            self.directory_name.clone()
        } else {
            format!("{}/{file_name}", self.directory_name)
        };
        JournalError {
            file,
            reason: reason.to_string(),
        }
    }

    fn find(&self) -> Result<Found, JournalError> {
        let here = |error: io::Error| self.error("", error);
        // A file whose name an earlier life left unsynced may be the next one that is written to.
        let made = self.fs.create_dir_all(&self.directory).and_then(|()| {
            self.fs
                .sync_dir(&self.directory, SyncPoint::JournalDirectory)
        });
        made.map_err(here)?;
        let mut found = Found::default();
        for file_name in self.fs.list(&self.directory).map_err(here)? {
            let path = self.directory.join(&file_name);
            if file_name.ends_with(TEMPORARY_SUFFIX) {
                self.fs
                    .remove_file(&path)
                    .map_err(|error| self.error(&file_name, error))?;
            } else if let Some(slot) = file_name
                .strip_prefix(FILE_PREFIX)
                .and_then(|slot| slot.parse::<u64>().ok())
            {
                found.slot_max = found.slot_max.max(slot);
                self.open_file(&path, file_name, None, &mut found)?;
            } else if let Some(log) = SideFiles::log_of(&file_name) {
                self.open_file(&path, file_name, Some(log), &mut found)?;
            }
        }
        found.rounds.sort_by_key(|round| round.header.generation);
        Ok(found)
    }

    fn open_file(
        &self,
        path: &Path,
        file_name: String,
        log: Option<LogId>,
        found: &mut Found,
    ) -> Result<(), JournalError> {
        let name = format!("{}/{file_name}", self.directory_name);
        let opened = RoundFile::open(&*self.fs, path, name.clone(), file_name.clone());
        match opened.map_err(|error| self.error(&file_name, error))? {
            Opened::TooNew(version) => Err(self.error(
                &file_name,
                format!("has format version {version}, which is newer than this release"),
            )),
            Opened::Damaged => {
                found.damaged.push((name, log));
                Ok(())
            }
            Opened::Round(round) if round.header.directory_id != self.config.directory_id => {
                Err(self.error(&file_name, "belongs to another data directory"))
            }
            Opened::Round(round) => {
                match log {
                    Some(log) => drop(found.side.insert(log, round)),
                    None => found.rounds.push(round),
                }
                Ok(())
            }
        }
    }

    fn unreadable(place: Unreadable) -> JournalError {
        let reason = format!(
            "cannot be read at or after byte {}, and nothing tells whether acknowledged data was there",
            place.position
        );
        JournalError {
            file: place.file,
            reason,
        }
    }

    /// A store that has gone back has forgotten votes, and checkpoints that took the place of frames.
    fn check_store(&self, rounds: &[RoundFile]) -> Result<(), JournalError> {
        let Some(store) = &self.config.store else {
            return Ok(());
        };
        match known::store_sequence(rounds) {
            Some((seen, round)) if seen > store.sequence => Err(self.error(
                &round.file_name,
                format!(
                    "was written when the key-value store (kv) had made {seen} changes durable, and now it holds {}: \
                     votes or checkpoints are lost. Restore the whole data directory from a copy",
                    store.sequence
                ),
            )),
            _ => Ok(()),
        }
    }

    /// Reports files that were cut, and makes those whole that lost nothing. Returns whether one is left as it is, as
    /// evidence for the next start.
    fn look_at_lengths(
        &self,
        rounds: &[RoundFile],
        end: &End,
        replay: &mut Replay<'_>,
    ) -> Result<bool, JournalError> {
        let mut evidence = false;
        for short in known::short(rounds, end).map_err(|error| self.error("", error))? {
            let known::Short { round, bytes, .. } = short;
            if short.may_have_held {
                replay.damage(Damage::of_any(&round.name, bytes, "file is cut"));
                evidence = true;
                continue;
            }
            tracing::warn!(file = %round.name, bytes, "journal file was cut behind its last group");
            // Durable with the first sync of a group in it; until then a power loss makes it short again, no more.
            let whole = round.file.set_len(round.header.file_bytes);
            whole.map_err(|error| self.error(&round.file_name, error))?;
        }
        Ok(evidence)
    }

    /// Removes all files but the side files: after a clean stop nothing in them is needed, and what is damaged would be
    /// taken for a loss after the next one that is not clean. Durable with the names of the files that are made next.
    fn start_over(&self) -> io::Result<()> {
        for file_name in self.fs.list(&self.directory)? {
            if file_name.starts_with(FILE_PREFIX) {
                self.fs.remove_file(&self.directory.join(file_name))?;
            }
        }
        Ok(())
    }

    fn read_side(
        &self,
        found: BTreeMap<LogId, RoundFile>,
        replay: &mut Replay<'_>,
    ) -> Result<(SideFiles, FrameSequence), JournalError> {
        let directory_id = self.config.directory_id;
        let mut side = SideFiles::new(
            self.fs.clone(),
            self.directory.clone(),
            self.directory_name.clone(),
            directory_id,
        );
        let mut frame_max = FrameSequence::default();
        for (log, round) in found {
            let end = walk(std::slice::from_ref(&round), replay).map_err(Self::unreadable)?;
            frame_max = frame_max.max(end.frame_max);
            side.add(log, round, &end, replay.delivered(log))
                .map_err(|error| self.error(&SideFiles::file_name(log), error))?;
        }
        Ok((side, frame_max))
    }
}

/// The data directory that the journal's files say they belong to, if one of them is whole.
pub(crate) fn directory_id(fs: &dyn FileSystem, directory: &Path) -> io::Result<Option<[u8; 16]>> {
    for file_name in fs.list(directory)? {
        let path = directory.join(&file_name);
        if file_name.starts_with(FILE_PREFIX)
            && let Opened::Round(round) =
                RoundFile::read_header(fs, &path, String::new(), file_name)?
        {
            return Ok(Some(round.header.directory_id));
        }
    }
    Ok(None)
}

/// Opens the journal; its threads are not running yet.
pub(super) fn open(
    fs: Arc<dyn FileSystem>,
    directory: PathBuf,
    config: JournalConfig,
    deliver: &mut dyn FnMut(ReplayedFrame),
) -> Result<(Writer, ReplayReport), JournalError> {
    let directory_name = directory
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    let mut opener = Opener {
        fs,
        directory,
        directory_name,
        config,
        keeps_end: false,
    };
    opener
        .config
        .check()
        .map_err(|reason| opener.error("", reason))?;
    let found = opener.find()?;
    opener.check_store(&found.rounds)?;
    let mut replay = Replay::new(deliver);
    for (file, log) in &found.damaged {
        let damage = Damage::of_any(file, 0, "neither copy of the file's header is whole");
        replay.damage(Damage {
            log: *log,
            ..damage
        });
    }
    if let Some(store) = &opener.config.store {
        let missing = known::missing(store, &found.rounds, &opener.directory_name);
        missing.into_iter().for_each(|damage| replay.damage(damage));
    }
    let (side, side_frame_max) = opener.read_side(found.side, &mut replay)?;
    if let Some(store) = &opener.config.store {
        let delivered = |log| replay.delivered(log);
        let missing = known::missing_side(store, delivered, &opener.directory_name);
        missing.into_iter().for_each(|damage| replay.damage(damage));
    }
    let mut end = walk(&found.rounds, &mut replay).map_err(Opener::unreadable)?;
    opener.keeps_end = opener.look_at_lengths(&found.rounds, &end, &mut replay)?;
    let floors = found
        .rounds
        .iter()
        .map(|round| round.header.frame_floor)
        .max()
        .unwrap_or_default();
    let store = opener.config.store.clone().unwrap_or_default();
    let frame_last = (end.frame_max.max(side_frame_max)).max(floors.max(store.frames));
    let mut rounds = found.rounds;
    if store.clean && replay.has_unnamed_damage() {
        tracing::warn!("the journal begins anew: it is damaged, and the last stop was clean");
        rounds.clear();
        end = walk(&rounds, &mut replay).map_err(Opener::unreadable)?;
        opener.keeps_end = false;
        opener
            .start_over()
            .map_err(|error| opener.error("", error))?;
    }
    let (report, contents) = replay.finish();
    let writer = opener.assemble(rounds, found.slot_max, contents, side, &end, frame_last)?;
    Ok((writer, report))
}

impl Opener {
    /// Puts the files where they belong and makes what is missing of them.
    fn assemble(
        self,
        rounds: Vec<RoundFile>,
        slot_max: u64,
        mut contents: BTreeMap<FileGeneration, Contents>,
        side: SideFiles,
        end: &End,
        frame_last: FrameSequence,
    ) -> Result<Writer, JournalError> {
        let limits = self.config.limits();
        let keeps_end = self.keeps_end;
        let known = self.config.store.iter().flat_map(|store| &store.files);
        let generations = rounds.iter().map(|round| round.header.generation);
        let generations = generations.chain(known.copied());
        let mut state = FilesState {
            total: rounds.len(),
            next_generation: generations.max().map_or(0, |generation| generation.0),
            next_slot: slot_max,
            ..FilesState::default()
        };
        let mut active = None;
        for (index, round) in rounds.into_iter().enumerate() {
            let contents = contents
                .remove(&round.header.generation)
                .unwrap_or_default();
            match index.cmp(&end.place.file) {
                std::cmp::Ordering::Less => state.closed.push_back(Closed { round, contents }),
                std::cmp::Ordering::Equal => {
                    state.active = Some(round.header.generation);
                    active = Some((round, contents));
                }
                std::cmp::Ordering::Greater => state.ready.push_back(round),
            }
        }
        let first = FrameSequence(frame_last.0.saturating_add(RUN_GAP));
        let (bytes_max, frame_bytes) = (self.config.queue_bytes_max, limits.frame_bytes);
        let queue = Arc::new(Queue::new(
            self.directory_name.clone(),
            first,
            bytes_max,
            frame_bytes,
        ));
        let files = Arc::new(Files::new(
            self.fs,
            self.directory,
            self.config,
            queue.clone(),
            side,
            state,
        ));
        files.make_first()?;
        let (mut round, contents) = match active {
            Some(active) => active,
            None => (files.take_ready()?, Contents::new()),
        };
        // Numbers given out from now on are used, even if no frame with one of them ever reaches the disk.
        round.header.frame_floor = first;
        // All in the files before was on stable storage before this one was written to.
        let mut prepared = round.rewrite(end);
        if !keeps_end {
            prepared = prepared.and_then(|()| erase_cut_tail(&round, end));
        }
        prepared
            .and_then(|()| round.write_header())
            .map_err(|error| files.error(&round.file_name, &error))?;
        let appender = Appender::resume(round, end);
        Ok(Writer {
            queue,
            files,
            limits,
            appender,
            contents,
            pending: VecDeque::new(),
            asked: false,
            pinned: None,
        })
    }
}

/// Makes the first group of a cut tail unreadable, with the file's next sync. If the next group goes to another file, nothing is written over it
/// here, and later starts, which find groups behind it, could take it for damage.
fn erase_cut_tail(round: &RoundFile, end: &End) -> io::Result<()> {
    let position = end.place.position;
    if position >= round.header.file_bytes {
        return Ok(());
    }
    let zeros = [0; BLOCK_BYTES as usize];
    round.file.write_at(&[IoSlice::new(&zeros)], position)
}
