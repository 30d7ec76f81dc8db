//! Order, sizes, files used in turn, back-pressure, ends and failures.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::harness::{DIRECTORY, World, payload, small};
use crate::fs::{FileSystem, Operation, RealFs};
use crate::journal::*;
use crate::log::{EntryIndex, LogId};

fn reopen(world: &mut World) -> Vec<ReplayedFrame> {
    let (_, report, frames) = world.open().expect("open");
    assert_eq!(report.damaged, []);
    assert_eq!(report.frames, frames.len() as u64);
    world.check(&frames).expect("replay");
    frames
}

#[test]
fn frames_come_back_in_order_with_their_numbers() {
    let mut world = World::roomy();
    let journal = world.run();
    let mut numbers = Vec::new();
    for index in 0..50 {
        let durability = if index % 3 == 0 {
            Durability::Os
        } else {
            Durability::Sync
        };
        numbers.push(world.append(&journal, index % 4, index as usize * 37, durability));
    }
    assert!(world.wait(50));
    journal.close();
    assert!(numbers.is_sorted());
    world.fs.power_loss(1);
    let replayed: Vec<FrameSequence> = reopen(&mut world)
        .iter()
        .map(|frame| frame.sequence)
        .collect();
    assert_eq!(replayed, numbers);
}

#[test]
fn numbers_are_never_used_twice() {
    let mut world = World::new(1);
    let mut last = FrameSequence(0);
    for _ in 0..3 {
        let journal = world.run();
        let number = world.append(&journal, 1, 10, Durability::Sync);
        assert!(number > last);
        last = number;
        assert!(world.wait(1));
        // Lost with the power, and yet its number is gone.
        last = last.max(world.append(&journal, 1, 10, Durability::Os));
        world.wait(1);
        journal.close();
    }
}

#[test]
fn numbers_of_frames_that_never_reached_the_disk_are_not_used_again() {
    let mut world = World::new(1);
    let mut last = FrameSequence(0);
    for _ in 0..3 {
        let (journal, ..) = world.open().expect("open");
        let number = world.append(&journal, 1, 10, Durability::Sync);
        assert!(number > last);
        last = number;
        drop(journal);
        world.fs.power_loss(1);
    }
}

#[test]
fn every_kind_is_replayed_as_it_was_submitted() {
    let mut world = World::roomy();
    let journal = world.run();
    let kinds = [
        FrameKind::Append,
        FrameKind::Truncate,
        FrameKind::Purge,
        FrameKind::Reset,
        FrameKind::Remove,
    ];
    for (index, kind) in kinds.into_iter().enumerate() {
        let frame = Frame {
            log: LogId(7),
            kind,
            prev_index: EntryIndex(100 - index as u64),
            last_index: EntryIndex(99 - index as u64),
            payload: vec![],
        };
        journal.submit(
            frame,
            Durability::Sync,
            journal.internal_permit(),
            Box::new(|done| assert!(done.is_ok())),
        );
    }
    journal.close();
    let (_, _, frames) = world.open().expect("open");
    assert_eq!(
        frames.iter().map(|frame| frame.kind).collect::<Vec<_>>(),
        kinds
    );
    assert!(
        frames
            .iter()
            .all(|frame| frame.payload.is_empty() && frame.prev_index.0 == frame.last_index.0 + 1)
    );
    assert!(
        frames
            .iter()
            .all(|frame| frame.file.starts_with("journal/journal-"))
    );
}

#[test]
fn frames_larger_than_groups_and_files_are_split_and_put_together() {
    let mut world = World::new(1);
    world.config = JournalConfig {
        files_min: 4,
        files_max: 6,
        ..small()
    };
    let journal = world.run();
    let max = usize::try_from(journal.frame_bytes_max()).expect("fits");
    assert!(max > 96 << 10, "spans more than one file");
    for len in [max, 3, 40_000, max - 1, 60_000, 8 << 10, (8 << 10) + 1, max] {
        world.append(&journal, 1, len, Durability::Sync);
        world.append(&journal, 2, 100, Durability::Sync);
        assert!(world.wait(2));
    }
    journal.close();
    let frames = reopen(&mut world);
    assert!(frames.iter().any(|frame| frame.payload.len() == max));
}

#[test]
fn too_large_a_frame_is_refused_and_harms_no_one() {
    let mut world = World::roomy();
    let journal = world.run();
    let max = usize::try_from(journal.frame_bytes_max()).expect("fits");
    assert!(journal.reserve_blocking(max + 1).is_err());
    world.append(&journal, 1, 10, Durability::Sync);
    world.append(&journal, 9, max + 1, Durability::Sync);
    world.append(&journal, 2, 10, Durability::Sync);
    assert!(!world.wait(3));
    world.logs.remove(&LogId(9));
    assert!(journal.failure().is_none());
    journal.close();
    assert_eq!(reopen(&mut world).len(), 2);
}

#[test]
fn files_are_used_in_turn_and_only_what_is_needed_comes_back() {
    let mut world = World::new(1);
    let journal = world.run();
    for index in 0..400 {
        world.append(&journal, index % 5, 3000, Durability::Sync);
        assert!(world.wait(1));
    }
    journal.close();
    assert!(*world.checkpoints.calls.lock() > 10);
    let names = world.fs.list(Path::new(DIRECTORY)).expect("list");
    assert!(names.len() <= 4, "{names:?}");
    let frames = reopen(&mut world);
    assert!(frames.len() < 100, "{} frames", frames.len());
}

#[test]
fn appends_wait_while_all_files_are_in_use() {
    let mut world = World::new(1);
    let journal = world.run();
    world.checkpoints.hold(true);
    let mut sent = 0;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("runtime");
    let full = loop {
        let permit = runtime.block_on(async {
            tokio::time::timeout(Duration::from_millis(300), journal.reserve(4000)).await
        });
        match permit {
            Ok(permit) => {
                world.append_with(&journal, 1, 4000, Durability::Sync, permit.expect("open"))
            }
            Err(_) => break sent,
        };
        sent += 1;
    };
    // Four files and the queue.
    assert!(
        (40..100).contains(&full),
        "{full} frames of 4000 bytes before the journal was full"
    );
    world.checkpoints.hold(false);
    for _ in 0..50 {
        let permit = journal.reserve_blocking(4000).expect("goes on");
        world.append_with(&journal, 1, 4000, Durability::Sync, permit);
    }
    assert!(world.wait(full + 50));
    journal.close();
    reopen(&mut world);
}

#[test]
fn frames_of_a_refused_log_are_set_aside_and_outlive_their_file() {
    let mut world = World::new(1);
    let journal = world.run();
    world.checkpoints.refused.lock().insert(LogId(3));
    for index in 0..200 {
        world.append(
            &journal,
            index % 4,
            3000 + (index as usize * 997) % 20_000,
            Durability::Sync,
        );
        assert!(world.wait(1));
    }
    journal.close();
    world.fs.power_loss(5);
    // All frames of log 3 are there, over two more lives.
    for _ in 0..2 {
        let (journal, report, frames) = world.open().expect("open");
        assert_eq!(report.damaged, []);
        world.check(&frames).expect("replay");
        assert_eq!(
            frames.iter().filter(|frame| frame.log == LogId(3)).count(),
            world.logs[&LogId(3)].entries.len()
        );
        assert_eq!(journal.side_files(), [LogId(3)]);
        world.start(&journal);
        for index in 0..50 {
            world.append(&journal, index % 4, 5000, Durability::Sync);
            assert!(world.wait(1));
        }
        journal.close();
    }
    let (journal, ..) = world.open().expect("open");
    journal.discard_side_file(LogId(3)).expect("discard");
    journal.close();
    world.fs.power_loss(6);
    let (journal, _, frames) = world.open().expect("open");
    assert!(journal.side_files().is_empty());
    assert!(
        frames.iter().filter(|frame| frame.log == LogId(3)).count()
            < world.logs[&LogId(3)].entries.len()
    );
}

#[test]
fn submitted_before_start_is_written_after_it() {
    let mut world = World::roomy();
    let (journal, ..) = world.open().expect("open");
    for _ in 0..10 {
        world.append(&journal, 1, 100, Durability::Sync);
    }
    std::thread::sleep(Duration::from_millis(20));
    assert!(world.receiver.try_recv().is_err());
    world.start(&journal);
    world.start(&journal);
    assert!(world.wait(10));
    journal.close();
    assert_eq!(reopen(&mut world).len(), 10);
}

#[test]
fn closing_answers_everyone() {
    let mut world = World::roomy();
    let (journal, ..) = world.open().expect("open");
    world.append(&journal, 1, 100, Durability::Sync);
    journal.close();
    assert!(!world.wait(1), "never started");
    world.append(&journal, 1, 100, Durability::Sync);
    assert!(!world.wait(1), "closed");
    assert!(journal.reserve_blocking(1).is_err());
    world.logs.clear();

    let journal = world.run();
    for _ in 0..100 {
        world.append(&journal, 1, 100, Durability::Os);
    }
    journal.close();
    assert!(world.wait(100), "what was queued is written");
    world.fs.power_loss(3);
    assert_eq!(reopen(&mut world).len(), 100, "and durable");
}

#[test]
fn dropping_ends_the_threads_and_loses_nothing() {
    let mut world = World::roomy();
    let journal = world.run();
    for _ in 0..100 {
        world.append(&journal, 1, 100, Durability::Sync);
    }
    drop(journal);
    assert!(world.wait(100));
    // What the threads still do concerns no one any more.
    world.fs.power_loss(1);
    assert_eq!(reopen(&mut world).len(), 100);
}

#[test]
fn a_failed_sync_or_write_is_final() {
    for operation in [Operation::Sync, Operation::Write] {
        let mut world = World::roomy();
        let journal = world.run();
        world.append(&journal, 1, 100, Durability::Sync);
        assert!(world.wait(1));
        world.fs.refuse(operation, 0);
        world.append(&journal, 1, 100, Durability::Sync);
        assert!(!world.wait(1));
        world.append(&journal, 1, 100, Durability::Sync);
        world.append(&journal, 2, 100, Durability::Os);
        assert!(!world.wait(2), "never tried again");
        let failure = journal.failure().expect("failed").to_string();
        assert!(failure.contains("journal/journal-0001"), "{failure}");
        assert!(journal.reserve_blocking(1).is_err());
        journal.close();
        reopen(&mut world);
    }
}

#[test]
fn os_frames_are_written_without_a_sync() {
    let mut world = World::roomy();
    let journal = world.run();
    world.append(&journal, 1, 100, Durability::Sync);
    assert!(world.wait(1));
    let before = world.fs.operations();
    for _ in 0..20 {
        world.append(&journal, 2, 100, Durability::Os);
        assert!(world.wait(1));
    }
    assert_eq!(world.fs.operations() - before, 20, "one write each");
    journal.close();
    assert_eq!(reopen(&mut world).len(), 21);
}

#[test]
fn a_full_disk_leaves_the_journal_with_fewer_files() {
    let mut world = World::new(1);
    world.config = JournalConfig {
        files_min: 2,
        files_max: 8,
        ..small()
    };
    world.fs.set_space(Some(140 << 10));
    let journal = world.run();
    for _ in 0..200 {
        world.append(&journal, 1, 5000, Durability::Sync);
        assert!(world.wait(1));
    }
    journal.close();
    let files = world.fs.list(Path::new(DIRECTORY)).expect("list");
    assert_eq!(files.len(), 2, "{files:?}");
    reopen(&mut world);

    let mut none = World::new(1);
    none.fs.set_space(Some(10 << 10));
    let error = none.open().expect_err("no space for two files").to_string();
    assert!(error.contains("journal/journal-0001"), "{error}");
}

#[test]
fn a_file_that_was_made_in_vain_does_not_disturb() {
    let mut world = World::new(1);
    world.config.files_min = 3;
    // The names of the journal's directory and of the first two files are synced, that of the third is not.
    world.fs.refuse(Operation::SyncDirectory, 3);
    for _ in 0..2 {
        let journal = world.run();
        for _ in 0..100 {
            world.append(&journal, 1, 5000, Durability::Sync);
            assert!(world.wait(1));
        }
        journal.close();
    }
    assert!(
        world
            .fs
            .exists(&Path::new(DIRECTORY).join("journal-0003"))
            .expect("exists")
    );
    reopen(&mut world);
}

#[test]
fn sizes_may_change_between_lives() {
    let mut world = World::new(1);
    for (file_bytes, files_max) in [(64 << 10, 4), (128 << 10, 6), (64 << 10, 2), (64 << 10, 2)] {
        world.config = JournalConfig {
            file_bytes,
            files_max,
            ..small()
        };
        let journal = world.run();
        for _ in 0..100 {
            world.append(&journal, 1, 5000, Durability::Sync);
            assert!(world.wait(1));
        }
        journal.close();
    }
    reopen(&mut world);
}

#[test]
fn a_journal_of_another_directory_is_refused() {
    let mut world = World::new(1);
    world.run().close();
    world.config.directory_id = [1; 16];
    let error = world.open().expect_err("refused").to_string();
    assert!(error.contains("another data directory"), "{error}");
}

#[test]
fn a_real_disk_gives_back_what_it_was_given() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let path = directory.path().join("journal");
    for life in 0..3_u64 {
        let mut frames = Vec::new();
        let fs: Arc<dyn FileSystem> = Arc::new(RealFs);
        let (journal, report) = Journal::open(fs, PathBuf::from(&path), small(), &mut |frame| {
            frames.push(frame)
        })
        .expect("open");
        assert_eq!(report.damaged, []);
        assert_eq!(frames.len() as u64, life * 4);
        for (index, frame) in frames.iter().enumerate() {
            assert_eq!(frame.payload, payload(LogId(1), index as u64 + 1, 0, 2000));
        }
        journal.start(Arc::<super::harness::Checkpoints>::default());
        for index in life * 4..life * 4 + 4 {
            let frame = Frame {
                log: LogId(1),
                kind: FrameKind::Append,
                prev_index: EntryIndex(index),
                last_index: EntryIndex(index + 1),
                payload: vec![payload(LogId(1), index + 1, 0, 2000)],
            };
            let permit = journal.reserve_blocking(2000).expect("room");
            journal.submit(
                frame,
                Durability::Sync,
                permit,
                Box::new(|done| assert!(done.is_ok())),
            );
        }
        journal.close();
    }
}

struct Panics;

impl Reclaimer for Panics {
    fn reclaim(&self, _: FileGeneration, _: &[(LogId, EntryIndex)]) -> Reclaimed {
        panic!("on purpose")
    }
}

#[test]
fn a_reclaimer_that_panics_fails_the_journal_instead_of_stalling_it() {
    let mut world = World::new(1);
    let (journal, ..) = world.open().expect("open");
    journal.start(Arc::new(Panics));
    let mut sent = 0;
    while let Ok(permit) = journal.reserve_blocking(5000) {
        world.append_with(&journal, 1, 5000, Durability::Sync, permit);
        sent += 1;
        assert!(sent < 1000, "goes on without reclaiming");
    }
    world.wait(sent);
    assert!(
        journal
            .failure()
            .is_some_and(|failure| failure.reason.contains("journal-reclaim"))
    );
    journal.close();
    reopen(&mut world);
}
