//! Lives of the journal, each made so that it loses something without one particular sync. They panic when it does.

use std::path::Path;

use super::harness::{DIRECTORY, World};
use super::power::{self, Choice};
use crate::SyncPoint;
use crate::fs::{FileSystem, Operation};
use crate::journal::*;
use crate::log::LogId;

fn world(seed: u64, left_out: Option<SyncPoint>) -> World {
    let world = World::new(seed);
    world.fs.leave_out(left_out);
    world
}

/// Opens a journal that must be in order.
fn open(world: &mut World) -> (Journal, Vec<ReplayedFrame>) {
    let (journal, report, frames) = world.open().expect("opens");
    assert_eq!(report.damaged, []);
    world.check(&frames).expect("is what was written");
    (journal, frames)
}

/// Appends and waits, frame by frame.
fn append(world: &mut World, journal: &Journal, log: u64, len: usize, durability: Durability) {
    assert!(world.append_and_wait(journal, log, len, durability));
}

/// A journal with one frame, on a disk that tears sectors.
fn torn_world(seed: u64, left_out: Option<SyncPoint>) -> World {
    let mut world = world(seed, left_out);
    world.fs.set_sectors_torn(true);
    let journal = world.run();
    append(&mut world, &journal, 1, 1000, Durability::Sync);
    journal.close();
    world
}

/// Anything, with power losses, kills and failed syncs.
pub(crate) fn lives(seed: u64, left_out: Option<SyncPoint>) {
    if let Err(error) = power::run(seed, |world| world.fs.leave_out(left_out)) {
        panic!("{error}");
    }
}

/// The power goes again and again while the journal is opened, on a disk that tears sectors.
pub(crate) fn interrupted_starts(seed: u64, left_out: Option<SyncPoint>) {
    let mut choice = Choice(seed);
    let mut world = torn_world(seed, left_out);
    for _ in 0..150 {
        world.fs.cut_power_after(choice.below(8));
        if let Ok((_, report, frames)) = world.open() {
            assert_eq!(report.damaged, []);
            world.check(&frames).expect("is what was written");
        }
        world.fs.power_loss(choice.below(u64::MAX >> 1));
    }
    open(&mut world);
}

/// A sync of a start fails and its process is killed; the next one finds the page cache as it was, and the power goes
/// while it starts, on a disk that tears sectors. Again and again.
pub(crate) fn refused_headers(seed: u64, left_out: Option<SyncPoint>) {
    let mut choice = Choice(seed);
    let mut world = torn_world(seed, left_out);
    for _ in 0..60 {
        world.fs.refuse(Operation::Sync, choice.below(6));
        drop(world.open());
        world.fs.kill(choice.below(u64::MAX >> 1));
        world.fs.cut_power_after(choice.below(10));
        drop(world.open());
        world.fs.power_loss(choice.below(u64::MAX >> 1));
        open(&mut world);
    }
}

/// The process is killed while the journal makes its files; with those that there are by then it goes on, until the
/// power goes.
pub(crate) fn killed_starts(seed: u64, left_out: Option<SyncPoint>) {
    for operations in 0..30 {
        let mut world = world(seed, left_out);
        world.fs.cut_power_after(operations);
        drop(world.open());
        world.fs.kill(seed);
        let (journal, _) = open(&mut world);
        world.start(&journal);
        for _ in 0..3 {
            append(&mut world, &journal, 1, 30_000, Durability::Sync);
        }
        journal.close();
        world.fs.power_loss(seed + operations);
        open(&mut world);
    }
}

/// The power goes while a journal is closed that ends with frames nobody had synced.
pub(crate) fn interrupted_close(seed: u64, left_out: Option<SyncPoint>) {
    for operations in 0..6 {
        let mut world = world(seed, left_out);
        let journal = world.run();
        append(&mut world, &journal, 1, 1000, Durability::Sync);
        for _ in 0..3 {
            append(&mut world, &journal, 2, 3000, Durability::Os);
        }
        world.fs.cut_power_after(operations);
        journal.close();
        world.fs.power_loss(seed + operations);
        open(&mut world);
    }
}

fn flip_last(world: &World, frames: &[ReplayedFrame], of_file: &str) {
    let inside = frames
        .iter()
        .filter(|frame| frame.file.starts_with(of_file));
    let last = inside.last().expect("has frames");
    let path = Path::new(DIRECTORY).with_file_name("").join(&last.file);
    world
        .fs
        .flip_bit(&path, last.position + 7, 3)
        .expect("is there");
}

fn damage_is_reported(world: &mut World, log: u64) {
    let (_, report, _) = world.open().expect("opens");
    let named = report.damaged.iter().map(|damage| damage.log);
    assert_eq!(named.collect::<Vec<_>>(), [Some(LogId(log))]);
}

/// The last frame of a journal that was closed is damaged: it is not a tail that nobody was promised.
pub(crate) fn damaged_end(seed: u64, left_out: Option<SyncPoint>) {
    let mut world = world(seed, left_out);
    let journal = world.run();
    for log in 1..4 {
        append(&mut world, &journal, log, 2000, Durability::Sync);
    }
    journal.close();
    world.fs.power_loss(seed);
    let (_, frames) = open(&mut world);
    flip_last(&world, &frames, "journal/journal-");
    damage_is_reported(&mut world, 3);
}

/// A journal whose frames of log 2 are in a side file alone.
fn set_aside(world: &mut World) -> Journal {
    world.checkpoints.refused.lock().insert(LogId(2));
    let journal = world.run();
    for _ in 0..3 {
        append(world, &journal, 2, 2000, Durability::Sync);
    }
    for _ in 0..60 {
        append(world, &journal, 1, 6000, Durability::Sync);
    }
    journal
}

/// The last frame that was set aside is damaged.
pub(crate) fn damaged_end_of_side_file(seed: u64, left_out: Option<SyncPoint>) {
    let mut world = world(seed, left_out);
    set_aside(&mut world).close();
    world.fs.power_loss(seed);
    let (_, frames) = open(&mut world);
    flip_last(&world, &frames, "journal/side-");
    damage_is_reported(&mut world, 2);
}

/// The power goes while frames are set aside.
pub(crate) fn interrupted_setting_aside(seed: u64, left_out: Option<SyncPoint>) {
    setting_aside(seed, left_out, |world, choice| {
        world.fs.cut_power_after(choice.below(70));
        false
    });
}

/// A sync fails while frames are set aside, and the process is killed; or the power goes.
pub(crate) fn refused_setting_aside(seed: u64, left_out: Option<SyncPoint>) {
    setting_aside(seed, left_out, |world, choice| {
        let refused = choice.below(2) == 0;
        if refused {
            world.fs.refuse(Operation::Sync, choice.below(40));
        } else {
            world.fs.cut_power_after(choice.below(70));
        }
        refused
    });
}

/// Lives in which frames are set aside and something goes wrong. `arm` says what, and whether the page cache survives.
fn setting_aside(
    seed: u64,
    left_out: Option<SyncPoint>,
    arm: impl Fn(&World, &mut Choice) -> bool,
) {
    let mut choice = Choice(seed);
    let mut world = world(seed, left_out);
    world.checkpoints.refused.lock().insert(LogId(2));
    for _ in 0..12 {
        let (journal, _) = open(&mut world);
        world.start(&journal);
        let killed = arm(&world, &mut choice);
        for number in 0..40 {
            let log = if number % 8 == 0 { 2 } else { 1 };
            world.append(&journal, log, 6000, Durability::Sync);
            if !world.wait(1) {
                break;
            }
        }
        journal.close();
        let seed = choice.below(u64::MAX >> 1);
        if killed {
            world.fs.kill(seed);
        } else {
            world.fs.power_loss(seed);
        }
    }
    open(&mut world);
}

/// There may be fewer files than there are, so that some are removed and none is made.
pub(crate) fn fewer_files(seed: u64, left_out: Option<SyncPoint>) {
    let mut world = world(seed, left_out);
    world.checkpoints.hold(true);
    let journal = world.run();
    for _ in 0..25 {
        append(&mut world, &journal, 1, 6000, Durability::Sync);
    }
    world.checkpoints.hold(false);
    journal.close();
    assert_eq!(files(&world), 4);
    world.config.files_max = 2;
    let (journal, _) = open(&mut world);
    world.start(&journal);
    for number in 0..200 {
        append(&mut world, &journal, 1 + number % 2, 6000, Durability::Sync);
    }
    journal.close();
    assert_eq!(files(&world), 2);
    world.fs.power_loss(seed);
    open(&mut world);
}

fn files(world: &World) -> usize {
    let names = world.fs.list(Path::new(DIRECTORY)).expect("is there");
    let files = names.iter().filter(|name| name.starts_with("journal-"));
    files.count()
}
