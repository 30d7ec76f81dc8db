//! Journal files as an image, mutated: what comes back was written, and what lies before the damage comes back.

use std::collections::BTreeMap;
use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rand::RngExt;
use rand::rngs::StdRng;
use tidelog_tests::allocations::measure;
use tidelog_tests::hostile::{cases, mutate};

use super::harness::{DIRECTORY, World, disk};
use crate::fs::{FileSystem, OpenMode};
use crate::journal::format::{Entry, FIRST_GROUP, GroupHead};
use crate::journal::round::{Opened, RoundFile};
use crate::journal::*;
use crate::log::{EntryIndex, LogId};

/// The journal's files, by name.
type Image = BTreeMap<String, Vec<u8>>;

/// What opening may hold: what is replayed, the group at hand, and the window of a scan. Twice, as buffers grow.
const HELD_MAX: usize = 8 << 20;

/// A journal as it was closed, and what it replays.
struct Written {
    image: Image,
    config: JournalConfig,
    frames: Vec<ReplayedFrame>,
    /// File names with what they begin and end with, oldest first.
    files: Vec<String>,
    heads: BTreeMap<String, Vec<GroupHead>>,
}

fn image_of(world: &World) -> Image {
    let names = world.fs.list(Path::new(DIRECTORY)).expect("list");
    let read = |name: &String| {
        let file = world
            .fs
            .open(&Path::new(DIRECTORY).join(name), OpenMode::Read);
        let file = file.expect("open");
        let len = file.len().expect("size") as usize;
        file.read_vec(len, 0).expect("read")
    };
    names
        .into_iter()
        .map(|name| (name.clone(), read(&name)))
        .collect()
}

/// Three logs over several files, a frame of many parts among them.
fn three_logs() -> World {
    let mut world = World::new(1);
    (world.config.files_min, world.config.files_max) = (3, 8);
    world.checkpoints.hold(true);
    let journal = world.run();
    for round in 0..7 {
        for log in 1..4 {
            let len = if (round, log) == (3, 2) {
                70_000
            } else {
                500 + 1500 * log as usize
            };
            world.append(&journal, log, len, Durability::Sync);
            if (round + log) % 2 == 0 {
                assert!(world.wait(1));
            }
        }
        let open: u64 = world
            .logs
            .values()
            .map(|log| log.entries.len() as u64 - log.acked)
            .sum();
        assert!(world.wait(open as usize));
    }
    // Closing must not wait for room.
    world.checkpoints.hold(false);
    journal.close();
    world
}

/// A log that cannot be checkpointed, so that its frames are in a side file.
fn with_side_file() -> World {
    let mut world = World::new(2);
    world.checkpoints.refused.lock().insert(LogId(1));
    let journal = world.run();
    for _ in 0..3 {
        world.append(&journal, 1, 3000, Durability::Sync);
        assert!(world.wait(1));
    }
    let has_side = |world: &World| {
        let names = world.fs.list(Path::new(DIRECTORY)).expect("list");
        names.iter().any(|name| name == "side-1")
    };
    while !has_side(&world) {
        world.append(&journal, 2, 9000, Durability::Sync);
        assert!(world.wait(1));
    }
    journal.close();
    world
}

fn open(image: &Image, config: &JournalConfig) -> (ReplayReport, Vec<ReplayedFrame>, RoundHeads) {
    let fs = disk(1);
    fs.create_dir_all(Path::new(DIRECTORY)).expect("make");
    for (name, bytes) in image {
        let path = Path::new(DIRECTORY).join(name);
        let file = fs.open(&path, OpenMode::CreateNew).expect("make");
        file.write_at(&[IoSlice::new(bytes)], 0).expect("write");
    }
    let heads = heads_of(&fs, image);
    let (opened, held) = measure(|| {
        let mut frames = Vec::new();
        let mut replay = |frame| frames.push(frame);
        let shared: Arc<dyn FileSystem> = Arc::new(fs.clone());
        let opened = Journal::open(
            shared,
            PathBuf::from(DIRECTORY),
            config.clone(),
            &mut replay,
        );
        opened.map(|(_, report)| (report, frames))
    });
    let size: usize = image.values().map(Vec::len).sum();
    assert!(held <= HELD_MAX + 3 * size, "{held} bytes of memory");
    let (report, frames) = opened.expect("damage does not keep the journal from opening");
    (report, frames, heads)
}

/// Generation and groups of each file that has a header.
type RoundHeads = BTreeMap<String, (FileGeneration, Vec<GroupHead>)>;

fn heads_of(fs: &dyn FileSystem, image: &Image) -> RoundHeads {
    let mut found = BTreeMap::new();
    for name in image.keys() {
        let path = Path::new(DIRECTORY).join(name);
        let opened = RoundFile::read_header(fs, &path, name.clone(), name.clone());
        let Opened::Round(round) = opened.expect("open") else {
            continue;
        };
        let heads = round.heads_from(FIRST_GROUP).collect();
        found.insert(name.clone(), (round.header.generation, heads));
    }
    found
}

fn written(world: &World) -> Written {
    let image = image_of(world);
    let config = world.config.clone();
    let (report, frames, heads) = open(&image, &config);
    assert_eq!(report.damaged, []);
    assert!(frames.len() >= 3, "{} frames", frames.len());
    let mut files: Vec<_> = heads
        .keys()
        .filter(|name| name.starts_with("journal-"))
        .collect();
    files.sort_by_key(|name| heads[*name].0);
    Written {
        image,
        config,
        frames,
        files: files.into_iter().cloned().collect(),
        heads: heads
            .into_iter()
            .map(|(name, (_, heads))| (name, heads))
            .collect(),
    }
}

/// Damages a file; says where the first byte is that is not what it was.
fn damage(random: &mut StdRng, bytes: &mut Vec<u8>, heads: &[GroupHead]) -> u64 {
    let before = bytes.clone();
    // Most of a file's end was never written: damage goes where something is.
    let used = heads.last().map_or(FIRST_GROUP, GroupHead::end) as usize;
    let mut at = random.random_range(0..used.min(bytes.len()));
    if let (true, false) = (random.random_bool(0.4), heads.is_empty()) {
        let head = &heads[random.random_range(0..heads.len())];
        at = head.position as usize + random.random_range(0..200);
    }
    match random.random_range(0..10) {
        0 => bytes.truncate(at),
        1 => {
            let end = (at + random.random_range(1..20_000)).min(bytes.len());
            bytes[at..end].fill(0);
        }
        2 => {
            // A write that went astray.
            let (from, to) = (at & !4095, random.random_range(0..used) & !4095);
            let len = 4096.min(bytes.len() - from.max(to));
            bytes.copy_within(from..from + len, to);
        }
        _ => {
            let end = (at + 300).min(bytes.len());
            let mut window = bytes[at..end].to_vec();
            mutate(random, &mut window, &[]);
            window.resize(end - at, 0);
            bytes[at..end].copy_from_slice(&window);
        }
    }
    let same = before.iter().zip(&*bytes).take_while(|(a, b)| a == b);
    same.count() as u64
}

/// End of the group that holds the last part of a frame.
fn group_end(written: &Written, frame: &ReplayedFrame) -> (String, u64) {
    let name = frame.file.rsplit('/').next().expect("a name").to_owned();
    let holds = |head: &&GroupHead| (head.position..head.end()).contains(&frame.position);
    let head = written.heads[&name].iter().find(holds).expect("its group");
    (name, head.end())
}

/// Checks a replay of an image in which `file` is damaged from `position` on.
fn check(written: &Written, frames: &[ReplayedFrame], file: &str, position: u64) {
    let mut last: BTreeMap<LogId, EntryIndex> = BTreeMap::new();
    for frame in frames {
        let original = written
            .frames
            .iter()
            .find(|original| (original.log, original.last_index) == (frame.log, frame.last_index));
        let original = original.unwrap_or_else(|| panic!("{frame:?} was never written"));
        assert!(
            original.payload == frame.payload
                && original.kind == frame.kind
                && original.prev_index == frame.prev_index
                && original.sequence == frame.sequence,
            "{:?} {:?} is not what was written",
            frame.log,
            frame.last_index
        );
        let before = last.insert(frame.log, frame.last_index);
        assert!(before < Some(frame.last_index), "{:?} goes back", frame.log);
    }
    let place = |name: &str| written.files.iter().position(|other| other == name);
    for original in &written.frames {
        let (name, end) = group_end(written, original);
        let is_before = match (place(&name), place(file)) {
            (Some(here), Some(there)) if here != there => here < there,
            _ if name == file => end <= position,
            // A side file is by itself.
            _ => true,
        };
        let came_back = frames
            .iter()
            .any(|frame| frame.sequence == original.sequence);
        assert!(
            came_back || !is_before,
            "{:?} {:?}, which ends at {end} of {name}, was lost to damage at {position} of {file}",
            original.log,
            original.last_index
        );
    }
}

fn throw_damage_at(name: &'static str, world: &World, cases_min: u64) {
    let written = written(world);
    let names: Vec<&String> = written.heads.keys().collect();
    let mut lossy = 0;
    cases(name, cases_min, |_, random| {
        let file = names[random.random_range(0..names.len())];
        let mut image = written.image.clone();
        let bytes = image.get_mut(file).expect("a file");
        let position = damage(random, bytes, &written.heads[file]);
        let (_, frames, _) = open(&image, &written.config);
        check(&written, &frames, file, position);
        lossy += u64::from(frames.len() < written.frames.len());
    });
    assert!(lossy > 0, "no case did any harm");
}

#[test]
fn a_damaged_image_yields_only_what_was_written_and_all_that_lies_before() {
    throw_damage_at("journal image", &three_logs(), 400);
}

#[test]
fn a_damaged_image_with_a_side_file_does_too() {
    throw_damage_at("journal image with side file", &with_side_file(), 300);
}

/// Changes a field to something that it may not be.
fn lie(random: &mut StdRng, head: &mut GroupHead) {
    let mut number = || match random.random_range(0..4) {
        0 => u64::MAX,
        1 => u64::from(u32::MAX) - random.random_range(0..8192),
        2 => random.random_range(0..300_000),
        _ => random.random_range(0..5),
    };
    let (wide, narrow) = (number(), number() as u32);
    let entry_lie = |entry: &mut Entry, which: u32| match which {
        0 => entry.payload_offset = narrow,
        1 => entry.payload_bytes = narrow,
        2 => entry.frame_bytes = narrow,
        3 => entry.first = !entry.first,
        4 => entry.last = !entry.last,
        5 => entry.lost = !entry.lost,
        6 => entry.sequence = FrameSequence(wide),
        7 => entry.last_index = EntryIndex(wide),
        _ => entry.log = LogId(wide),
    };
    let which = random.random_range(0..9);
    match random.random_range(0..12) {
        0 => head.bytes = narrow & !4095,
        1 => head.sequence.0 = wide,
        2 => head.synced_through.0 = wide,
        3 => head.file_first.0 = wide,
        4 => head.run.first.0 = wide,
        5 => head.run.cut.0 = wide,
        6 => head.previous.sequence.0 = wide,
        7 => head.previous.bytes = narrow,
        8 => head.previous.position = wide,
        9 => head
            .entries
            .iter_mut()
            .for_each(|entry| entry_lie(entry, which)),
        10 => {
            let entries = head.entries.iter_mut().chain(&mut head.previous.entries);
            entries.take(1).for_each(|entry| entry_lie(entry, which));
        }
        _ => head.entries.truncate(which as usize / 4),
    }
}

/// Heads that lie under a right checksum, which no damage brings about: nothing panics or takes memory for them.
#[test]
fn heads_that_lie_do_no_harm() {
    let worlds = [written(&three_logs()), written(&with_side_file())];
    cases("lying journal heads", 600, |case, random| {
        let written = &worlds[case as usize % 2];
        let mut image = written.image.clone();
        let used: Vec<_> = (written.heads.iter())
            .filter(|(_, heads)| !heads.is_empty())
            .collect();
        let (name, heads) = used[random.random_range(0..used.len())];
        let mut head = heads[random.random_range(0..heads.len())].clone();
        let at = head.position as usize;
        lie(random, &mut head);
        let bytes = image.get_mut(name).expect("a file");
        let salt = u64::from_le_bytes(*bytes[32..].first_chunk().expect("a header"));
        let encoded = head.encode(salt);
        let end = (at + encoded.len()).min(bytes.len());
        bytes[at..end].copy_from_slice(&encoded[..end - at]);
        open(&image, &written.config);
    });
}
