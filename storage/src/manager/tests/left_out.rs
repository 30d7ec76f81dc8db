//! Each sync is needed: without any one of them something is lost, or not noticed, that must not be.
//!
//! A name without a scenario does not compile. Those of other crates are shown there.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use tidelog_protocol::types::BrokerId;

use super::compaction::{compact, compacted, keyed};
use super::{compaction_model, every_write, model, *};
use crate::fs::{DirectoryIdentity, OpenMode};
use crate::journal::tests::left_out as journal;

/// Lives that depend on a seed. They panic when something is lost.
type Scenario = fn(u64, Option<SyncPoint>);

/// Seeds after which a sync counts as one that nobody needs.
const SEEDS_MAX: u64 = 3000;

/// What fails without a sync, in the words of the documentation, and where that is seen; `None`: in another crate.
fn shown_by(point: SyncPoint) -> Option<Scenario> {
    use SyncPoint::*;
    Some(match point {
        IdentityContents | IdentityName => identity,
        DataFolders | DataDirectory => changes,
        JournalDirectory => journal::killed_starts,
        JournalFound => journal::refused_headers,
        JournalFilesNoted => reused_files,
        JournalHeader => journal::interrupted_starts,
        JournalFileMade | JournalGroup | JournalFileLeft | SideMade => journal::lives,
        JournalFileRemoved => journal::fewer_files,
        JournalClosed => journal::interrupted_close,
        JournalSeal => journal::damaged_end,
        SideFrames => journal::interrupted_setting_aside,
        SideSeal => journal::damaged_end_of_side_file,
        SideRemoved => removed_log_with_side_file,
        SegmentRecords | SegmentNames | LogFolder => changes,
        SegmentIndexes => indexes,
        CompactedIndexes => indexes_of_compacted,
        CompactedRecords | CompactedNames | SettledCheckpoint => compactions,
        RemovalMark => interrupted_removal,
        CleanStop => clean_stops,
        GroupVote | GroupSnapshot | GroupInstalling | GroupDamaged | GroupLeft | ImageSnapshot => {
            return None;
        }
    })
}

/// Random changes of a log, with power losses between them and in their middle.
fn changes(seed: u64, left_out: Option<SyncPoint>) {
    block_on(model::run(seed, left_out));
    block_on(model::run_cut(seed, left_out));
}

/// The same of a log that is compacted.
fn compactions(seed: u64, left_out: Option<SyncPoint>) {
    block_on(compaction_model::run(seed, left_out));
    block_on(compaction_model::run_cut(seed, left_out));
}

/// The identity of a directory is there once it was stored.
fn identity(seed: u64, left_out: Option<SyncPoint>) {
    let fs = HostileFs::new(seed);
    fs.leave_out(left_out);
    let directory = Path::new("/");
    let identity = DirectoryIdentity::generate("c".to_owned(), BrokerId(1));
    identity.store(&fs, directory).expect("is stored");
    fs.power_loss(seed);
    let found = DirectoryIdentity::load(&fs, directory).expect("is in order");
    assert_eq!(found, Some(identity));
}

/// A clean stop counts even if the power goes right after it, and no longer once there was a start.
fn clean_stops(seed: u64, left_out: Option<SyncPoint>) {
    block_on(async move {
        let machine = Machine::without(seed, left_out);
        let (manager, _) = machine.open();
        append_batches(
            &make(&manager, 0, small_segments()),
            vec![batch_at(1, 1, b"x")],
        )
        .await;
        manager.shutdown().await;
        machine.crash(manager, seed);
        let (manager, report) = machine.open();
        assert!(report.clean, "the mark is lost");
        machine.crash(manager, seed);
        assert!(!machine.open().1.clean, "the mark is back");
    });
}

/// The journal goes round, and the store knows which files there are when the power goes.
fn reused_files(seed: u64, left_out: Option<SyncPoint>) {
    block_on(async move {
        let machine = Machine::without(seed, left_out);
        let (manager, _) = machine.open();
        let log = make(&manager, 0, small_segments());
        for _ in 0..600 {
            append_batches(&log, vec![batch_at(1, 1, &[1; 400])]).await;
        }
        drop(log);
        machine.crash(manager, seed);
        let (_, report) = machine.open();
        assert_eq!(report.journal_damage, vec![]);
    });
}

/// The bytes of all indexes in the folder of partition 0, but for those of the last segment, which every start makes
/// anew.
fn index_bytes(machine: &Machine) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new("/data/topics/orders-0.1");
    let mut names = machine.fs.list(folder).expect("is there");
    names.sort();
    let last = names.iter().rfind(|name| name.ends_with(".log"));
    let last = last.expect("has a segment").replace("log", "");
    names.retain(|name| name.ends_with("index") && !name.starts_with(&last));
    let read = |name: String| {
        let file = machine.fs.open(&folder.join(&name), OpenMode::Read);
        let file = file.expect("is there");
        let bytes = file.read_vec(file.len().expect("len") as usize, 0);
        (name, bytes.expect("is read"))
    };
    names.into_iter().map(read).collect()
}

/// Indexes behind a checkpoint stay: without them a log is read from the beginning of its segments, for good.
fn indexes(seed: u64, left_out: Option<SyncPoint>) {
    block_on(async move {
        let machine = Machine::without(seed, left_out);
        let (manager, _) = machine.open();
        let log = make(&manager, 0, small_segments());
        for at in 0..60 {
            append_batches(&log, vec![batch_of(1, at, 1, &[9; 300])]).await;
        }
        manager.shutdown().await;
        let before = index_bytes(&machine);
        assert!(before.len() > 6, "{before:?}");
        machine.crash(manager, seed);
        assert_eq!(index_bytes(&machine), before);
    });
}

fn indexes_of_compacted(seed: u64, left_out: Option<SyncPoint>) {
    block_on(async move {
        let machine = Machine::without(seed, left_out);
        let (manager, _) = machine.open();
        let log = make(&manager, 0, compacted());
        for value in 0..120 {
            let records = vec![(1, Some(value)), ((value % 30) as u8, Some(value))];
            append_batches(&log, vec![keyed(None, i64::from(value), &records)]).await;
        }
        assert!(compact(&log, 1_000).await.expect("is compacted"));
        let of_revision = |machine: &Machine| {
            let mut found = index_bytes(machine);
            found.retain(|(name, _)| name.contains(".r"));
            found
        };
        let before = of_revision(&machine);
        assert!(
            before.iter().any(|(_, bytes)| bytes.len() > 16),
            "{before:?}"
        );
        machine.crash(manager, seed);
        assert_eq!(of_revision(&machine), before);
    });
}

/// A log is removed, and the power goes meanwhile: it is there as it was, or it is gone.
fn interrupted_removal(seed: u64, left_out: Option<SyncPoint>) {
    block_on(async move {
        for operations in 0..12 {
            let machine = Machine::without(seed, left_out);
            let (manager, _) = machine.open();
            let log = make(&manager, 0, small_segments());
            for at in 0..30 {
                append_batches(&log, vec![batch_of(1, at, 1, &[9; 300])]).await;
            }
            manager.shutdown().await;
            drop(manager);
            let (manager, _) = machine.open();
            let log = find(&manager, 0);
            append_batches(&log, vec![batch_of(1, 30, 1, &[9; 300])]).await;
            machine.fs.cut_power_after(operations);
            let _cut = manager.remove_log(log.id()).await;
            drop(log);
            machine.crash(manager, seed + operations);
            let (manager, report) = machine.open();
            assert_eq!(report.stopped, vec![]);
            if let Some(log) = manager.log(topic_id(), PartitionIndex(0)) {
                assert_eq!(read_all(&log, Offset(0), 1000).len(), 31);
            }
        }
    });
}

/// A log that could not be written was removed. Its frames had been set aside.
fn removed_log_with_side_file(seed: u64, left_out: Option<SyncPoint>) {
    block_on(async move {
        let machine = Machine::without(seed, left_out);
        let (manager, _) = machine.open();
        let (log, other) = (
            make(&manager, 0, small_segments()),
            make(&manager, 1, small_segments()),
        );
        append_batches(&log, vec![batch_at(1, 1, b"x")]).await;
        log.stop(LogError::Io("a test says so".into()));
        let fill = async || {
            for _ in 0..600 {
                append_batches(&other, vec![batch_at(1, 1, &[1; 400])]).await;
            }
        };
        fill().await;
        let side = Path::new("/data/journal/side-1");
        assert!(machine.fs.exists(side).expect("is told"));
        manager.remove_log(log.id()).await.expect("is removed");
        assert!(!machine.fs.exists(side).expect("is told"));
        // Until the journal knows nothing of it any more.
        fill().await;
        drop((log, other));
        machine.crash(manager, seed);
        let (manager, report) = machine.open();
        assert_eq!(report.stopped, vec![]);
        let found = manager.log(topic_id(), PartitionIndex(0));
        assert!(found.is_none(), "a removed log is back");
    });
}

fn holds(scenario: Scenario, seed: u64, left_out: Option<SyncPoint>) -> bool {
    catch_unwind(AssertUnwindSafe(|| scenario(seed, left_out))).is_ok()
}

#[test]
fn without_any_one_sync_something_is_lost() {
    let mut unneeded = Vec::new();
    for point in SyncPoint::ALL {
        let Some(scenario) = shown_by(*point) else {
            continue;
        };
        match (0..SEEDS_MAX).find(|seed| !holds(scenario, *seed, Some(*point))) {
            Some(seed) => assert!(holds(scenario, seed, None), "{point:?}, seed {seed}"),
            None => unneeded.push(*point),
        }
    }
    assert_eq!(unneeded, []);
}

#[test]
fn with_all_syncs_nothing_is_lost() {
    let scenarios = SyncPoint::ALL.iter().filter_map(|point| shown_by(*point));
    let others: [Scenario; 2] = [every_write::at_some_writes, journal::refused_setting_aside];
    let mut seen = BTreeSet::new();
    for scenario in scenarios.chain(others) {
        if seen.insert(scenario as usize) {
            (0..u64::from(crate::soak(8))).for_each(|seed| scenario(seed, None));
        }
    }
}
