//! Power loss and kill at every point: what was acknowledged is there, what is there is what was written, and what a
//! start has found is found by all later ones.

use super::harness::World;
use crate::fs::Operation;
use crate::journal::*;
use crate::log::LogId;

/// Numbers for the test's own choices, from its seed.
pub(super) struct Choice(pub(super) u64);

impl Choice {
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

const LIVES: u64 = 6;

/// Lives one life: opens, checks, writes until the power goes. `Err` says what was wrong with the replay.
fn live(world: &mut World, choice: &mut Choice) -> Result<(), String> {
    // During recovery or soon after, or later.
    world.fs.cut_power_after(if choice.below(4) == 0 {
        choice.below(30)
    } else {
        30 + choice.below(150)
    });
    let Ok((journal, report, frames)) = world.open() else {
        return Ok(());
    };
    if report.damaged.is_empty() {
        world.check(&frames)?;
    } else {
        return Err(format!("{:?}", report.damaged));
    }
    // A sync may fail, and leave what it was to write to the page cache alone.
    if choice.below(6) == 0 {
        world.fs.refuse(Operation::Sync, choice.below(60));
    }
    world.start(&journal);
    let (mut open, mut alive) = (0, true);
    for _ in 0..300 {
        let len = match choice.below(8) {
            0 => 0,
            1 => choice.below(36_000),
            2 => choice.below(12_000),
            _ => choice.below(3000),
        };
        let durability = if choice.below(3) == 0 {
            Durability::Os
        } else {
            Durability::Sync
        };
        world.append(&journal, choice.below(4), len as usize, durability);
        open += 1;
        if choice.below(3) == 0 {
            alive &= world.wait(open);
            open = 0;
        }
        if !alive {
            break;
        }
    }
    world.wait(open);
    journal.close();
    Ok(())
}

pub(super) fn run(seed: u64, prepare: impl Fn(&World)) -> Result<(), String> {
    let mut choice = Choice(seed);
    let mut world = World::new(seed);
    if seed.is_multiple_of(3) {
        world.checkpoints.refused.lock().insert(LogId(2));
    }
    if seed.is_multiple_of(2) {
        world.config.files_min = 3;
    }
    prepare(&world);
    for life in 0..LIVES {
        live(&mut world, &mut choice)
            .map_err(|error| format!("seed {seed}, life {life}: {error}"))?;
        let seed = choice.below(u64::MAX >> 1);
        if choice.below(3) == 0 {
            world.fs.kill(seed);
        } else {
            world.fs.power_loss(seed);
        }
    }
    world.fs.power_loss(choice.below(u64::MAX >> 1));
    let (_, report, frames) = world.open().map_err(|error| error.to_string())?;
    if !report.damaged.is_empty() {
        return Err(format!("seed {seed}, at the end: {:?}", report.damaged));
    }
    world
        .check(&frames)
        .map_err(|error| format!("seed {seed}, at the end: {error}"))
}

#[test]
fn power_loss_takes_nothing_that_was_acknowledged() {
    for seed in 0..u64::from(crate::soak(150)) {
        if let Err(error) = run(seed, |_| ()) {
            panic!("{error}");
        }
    }
}

/// The journal's checksums cover everything, so it holds on disks that tear sectors too.
#[test]
fn torn_sectors_are_no_worse() {
    for seed in 100_000..100_000 + u64::from(crate::soak(50)) {
        if let Err(error) = run(seed, |world| world.fs.set_sectors_torn(true)) {
            panic!("{error}");
        }
    }
}

/// The check above means something: without syncs it fails.
#[test]
fn without_syncs_the_check_fails() {
    let failed = (0..20)
        .filter(|seed| run(*seed, |world| world.fs.set_syncs_ignored(true)).is_err())
        .count();
    assert!(
        failed > 10,
        "only {failed} of 20 runs noticed that nothing was synced"
    );
}

/// A sync that fails while a file is prepared for its next round leaves the new header in the page cache, where the next
/// start finds it. Nothing may be written under it before it is on the disk.
#[test]
fn a_header_that_only_the_page_cache_has_is_not_built_on() {
    for passing in 0..12 {
        let mut world = World::new(passing);
        let journal = world.run();
        world.fs.refuse(Operation::Sync, passing);
        // One file and a half, so that the first one is reclaimed; nothing but files is synced.
        let _failed = (0..40).find(|_| !world.append_and_wait(&journal, 1, 3000, Durability::Os));
        journal.close();
        world.fs.kill(passing);
        let journal = world.run();
        for _ in 0..20 {
            assert!(world.append_and_wait(&journal, 1, 3000, Durability::Sync));
        }
        journal.close();
        world.fs.power_loss(passing);
        drop(world.run());
    }
}
