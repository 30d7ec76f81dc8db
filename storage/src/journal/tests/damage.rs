//! Damage inside acknowledged data is reported with its log; the others' frames come back.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::harness::{DIRECTORY, World};
use crate::fs::FileSystem;
use crate::journal::format::{BLOCK_BYTES, FIRST_GROUP, GroupHead};
use crate::journal::round::{Opened, RoundFile};
use crate::journal::*;
use crate::log::LogId;

/// Six groups of frames of logs 1 to 3 in one file, all acknowledged.
fn written() -> (World, PathBuf, Vec<GroupHead>) {
    let mut world = World::new(1);
    world.config.file_bytes = 256 << 10;
    let journal = world.run();
    for round in 0..6 {
        let (open, ..) = (0..3).fold((0, round), |(open, round), log| {
            world.append(
                &journal,
                1 + (log + round) % 3,
                2000 + 700 * log as usize,
                Durability::Sync,
            );
            (open + 1, round)
        });
        assert!(world.wait(open));
    }
    journal.close();
    let (path, heads) = heads_of(&world, "journal-0001");
    assert!(
        heads.len() > 6,
        "{} groups, the last one a seal",
        heads.len()
    );
    (world, path, heads)
}

fn heads_of(world: &World, name: &str) -> (PathBuf, Vec<GroupHead>) {
    let path = Path::new(DIRECTORY).join(name);
    let opened = RoundFile::read_header(&world.fs, &path, "f".into(), "f".into()).expect("open");
    let Opened::Round(round) = opened else {
        panic!("the file has a header")
    };
    let heads = round.heads_from(FIRST_GROUP).collect();
    (path, heads)
}

/// Replays and checks that exactly the logs reported lost something, and what else there is is right.
fn replay(world: &mut World) -> (ReplayReport, BTreeMap<LogId, u64>) {
    let (_, report, frames) = world
        .open()
        .expect("damage does not keep the journal from opening");
    let mut counts: BTreeMap<LogId, u64> = BTreeMap::new();
    for frame in &frames {
        *counts.entry(frame.log).or_default() += 1;
    }
    let named: BTreeSet<LogId> = report
        .damaged
        .iter()
        .filter_map(|damage| damage.log)
        .collect();
    for (log, known) in &world.logs {
        let whole = counts.get(log).copied().unwrap_or(0) == known.entries.len() as u64;
        assert!(
            whole
                || named.contains(log)
                || report.damaged.iter().any(|damage| damage.log.is_none()),
            "{log:?}"
        );
    }
    let whole = frames
        .into_iter()
        .filter(|frame| !named.contains(&frame.log))
        .collect::<Vec<_>>();
    if report.damaged.iter().all(|damage| damage.log.is_some()) {
        for log in named {
            world.logs.remove(&log);
        }
        world.check(&whole).expect("the other logs are whole");
    }
    (report, counts)
}

#[test]
fn a_flipped_bit_anywhere_hurts_at_most_the_log_it_is_in() {
    let (_, _, heads) = written();
    let end = heads.last().expect("groups").end();
    let mut hurt = 0;
    for position in (FIRST_GROUP..end).step_by(509) {
        let (mut world, path, heads) = written();
        world
            .fs
            .flip_bit(&path, position, (position % 8) as u8)
            .expect("flip");
        let touched = heads.iter().find_map(|head| {
            let entry = head.entries.iter().find(|entry| {
                let from = head.position + u64::from(entry.payload_offset);
                (from..from + u64::from(entry.payload_bytes)).contains(&position)
            });
            entry.map(|entry| entry.log)
        });
        let (report, _) = replay(&mut world);
        let named: Vec<Option<LogId>> = report.damaged.iter().map(|damage| damage.log).collect();
        assert_eq!(
            named,
            touched.map(Some).into_iter().collect::<Vec<_>>(),
            "bit at {position}"
        );
        hurt += named.len();
    }
    assert!(hurt > 30, "{hurt} flips hit a payload");
}

#[test]
fn a_lost_head_loses_nothing() {
    let (mut world, path, heads) = written();
    for head in heads.iter().take(heads.len() - 1).step_by(2) {
        world.fs.zero(&path, head.position, 128).expect("zero");
    }
    let (report, _) = replay(&mut world);
    assert_eq!(report.damaged, []);
}

#[test]
fn a_whole_lost_group_names_its_logs_and_place() {
    let (mut world, path, heads) = written();
    let lost = &heads[2];
    world
        .fs
        .zero(&path, lost.position, lost.bytes as usize)
        .expect("zero");
    let logs: BTreeSet<LogId> = lost.entries.iter().map(|entry| entry.log).collect();
    let (report, _) = replay(&mut world);
    assert_eq!(
        report
            .damaged
            .iter()
            .filter_map(|damage| damage.log)
            .collect::<BTreeSet<_>>(),
        logs
    );
    for damage in &report.damaged {
        assert_eq!(damage.file, "journal/journal-0001");
        assert!(
            (lost.position..lost.end()).contains(&damage.position),
            "{damage}"
        );
    }
}

#[test]
fn several_lost_groups_may_be_anyones() {
    let (mut world, path, heads) = written();
    let bytes = (heads[3].end() - heads[1].position) as usize;
    world
        .fs
        .zero(&path, heads[1].position, bytes)
        .expect("zero");
    let (report, counts) = replay(&mut world);
    assert!(
        report
            .damaged
            .iter()
            .any(|damage| damage.log.is_none() && damage.position == heads[1].position)
    );
    assert!(
        counts.values().sum::<u64>() >= 6,
        "what follows is replayed"
    );
}

#[test]
fn the_first_group_of_the_oldest_file_is_missed_too() {
    let (mut world, path, heads) = written();
    world
        .fs
        .zero(&path, heads[0].position, heads[0].bytes as usize)
        .expect("zero");
    let (report, _) = replay(&mut world);
    assert!(!report.damaged.is_empty());
    assert!(report.damaged.iter().all(|damage| damage.log.is_some()));
}

#[test]
fn a_lost_tail_that_was_never_synced_is_cut_silently() {
    let (mut world, path, heads) = written();
    let journal = world.run();
    for log in 1..3 {
        world.append(&journal, log, 3000, Durability::Os);
        assert!(world.wait(1));
    }
    // The process dies here: no close, and the last but one group is torn.
    let position = heads.last().expect("groups").end() + 200;
    world.fs.zero(&path, position, 512).expect("zero");
    std::mem::forget(journal);
    let (_, report, frames) = world.open().expect("open");
    assert_eq!(report.damaged, []);
    assert!(report.tail_cut.is_some());
    assert_eq!(frames.len(), 18);
    world.check(&frames).expect("all that was acknowledged");
}

#[test]
fn one_copy_of_a_file_header_is_enough_and_none_is_damage() {
    let (mut world, path, _) = written();
    world.fs.zero(&path, 0, 4096).expect("zero");
    let (report, _) = replay(&mut world);
    assert_eq!(report.damaged, []);
    // Opening made both whole again.
    world.fs.zero(&path, 0, 8192).expect("zero");
    let (report, _) = replay(&mut world);
    assert!(
        report
            .damaged
            .iter()
            .any(|damage| damage.log.is_none() && damage.file == "journal/journal-0001")
    );
}

#[test]
fn damage_of_a_refused_log_is_remembered_in_its_side_file() {
    let mut world = World::new(1);
    world.checkpoints.refused.lock().insert(LogId(1));
    let journal = world.run();
    for _ in 0..2 {
        world.append(&journal, 1, 3000, Durability::Sync);
        assert!(world.wait(1));
    }
    // Behind the directory of the first group, in the frame itself.
    world
        .fs
        .flip_bit(
            &Path::new(DIRECTORY).join("journal-0001"),
            FIRST_GROUP + 1000,
            0,
        )
        .expect("flip");
    while world
        .fs
        .list(Path::new(DIRECTORY))
        .expect("list")
        .iter()
        .all(|name| name != "side-1")
    {
        world.append(&journal, 2, 9000, Durability::Sync);
        assert!(world.wait(1));
    }
    for _ in 0..50 {
        world.append(&journal, 2, 9000, Durability::Sync);
        assert!(world.wait(1));
    }
    journal.close();
    world.fs.power_loss(1);
    for _ in 0..2 {
        let (_, report, frames) = world.open().expect("open");
        assert_eq!(report.damaged.len(), 1, "{:?}", report.damaged);
        assert_eq!(report.damaged[0].log, Some(LogId(1)));
        assert_eq!(report.damaged[0].file, "journal/side-1");
        assert_eq!(
            frames.iter().filter(|frame| frame.log == LogId(1)).count(),
            1
        );
    }
    // The side file itself is covered too.
    world
        .fs
        .flip_bit(&Path::new(DIRECTORY).join("side-1"), FIRST_GROUP + 1000, 0)
        .expect("flip");
    let (_, report, _) = world.open().expect("open");
    assert_eq!(report.damaged.len(), 2, "{:?}", report.damaged);
    assert!(
        report
            .damaged
            .iter()
            .all(|damage| damage.log == Some(LogId(1)))
    );
}

#[test]
fn a_full_file_that_lost_its_last_group_is_not_set_aside_as_if_it_were_whole() {
    let mut world = World::new(1);
    world.checkpoints.refused.lock().insert(LogId(1));
    world.checkpoints.hold(true);
    let journal = world.run();
    for _ in 0..20 {
        world.append(&journal, 1, 5000, Durability::Sync);
        assert!(world.wait(1));
    }
    let (path, heads) = heads_of(&world, "journal-0001");
    let last = heads.last().expect("groups");
    world
        .fs
        .zero(&path, last.position, last.bytes as usize)
        .expect("zero");
    world.checkpoints.hold(false);
    for _ in 0..40 {
        world.append(&journal, 2, 5000, Durability::Sync);
        assert!(world.wait(1));
    }
    journal.close();
    let (_, report, _) = world.open().expect("open");
    let logs: Vec<Option<LogId>> = report.damaged.iter().map(|damage| damage.log).collect();
    assert_eq!(logs, [Some(LogId(1))]);
}

/// A file that ends with the last group has no room to say that this one was synced; the next one says it.
#[test]
fn the_last_group_of_a_full_file_is_sealed_in_the_next() {
    let mut world = World::new(1);
    // The full file is not reclaimed at once.
    world.config.files_min = 3;
    let journal = world.run();
    let blocks = (world.config.file_bytes - FIRST_GROUP) / BLOCK_BYTES;
    for _ in 0..blocks {
        assert!(world.append_and_wait(&journal, 1, 3000, Durability::Sync));
    }
    journal.close();
    let (path, heads) = heads_of(&world, "journal-0001");
    let last = heads.last().expect("is full");
    assert_eq!(last.end(), world.config.file_bytes);
    let flipped = world.fs.flip_bit(&path, last.position + 1000, 1);
    flipped.expect("is there");
    let (_, report, _) = world.open().expect("opens");
    let named: Vec<_> = (report.damaged.iter()).map(|damage| damage.log).collect();
    assert_eq!(named, [Some(LogId(1))], "{:?}", report.damaged);
}
