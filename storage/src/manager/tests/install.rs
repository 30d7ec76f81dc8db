//! A log begins anew with records of another one.

use super::compaction::{compact, compacted, keyed, records};
use super::*;
use crate::log::{LogPosition, RecordCopy};

/// A log that was compacted, with entries behind what it has settled.
async fn source(manager: &LogManager) -> Arc<PartitionLog> {
    let log = make(manager, 0, compacted());
    for value in 0..200 {
        let some = vec![(1, Some(value)), ((value % 50) as u8, Some(value))];
        append_batches(
            &log,
            vec![keyed(Some((9, value as i32 * 2)), i64::from(value), &some)],
        )
        .await;
    }
    assert!(compact(&log, 1_000).await.expect("is compacted"));
    log
}

/// Where another log may begin, and all records below.
fn begin(source: &PartitionLog) -> (LogPosition, Vec<Bytes>) {
    let purged = source.bounds().purged.index;
    let at = source.position_at(purged).expect("held");
    let (mut next, mut pieces) = (at.log_start, Vec::new());
    while next < at.next_offset {
        let read = source.read_blocking(next, at.next_offset, 3_000, true);
        let read = read.expect("reads");
        next = read.next_offset;
        pieces.push(read.pieces.concat().into());
    }
    (at, pieces)
}

fn copied(
    target: &Arc<PartitionLog>,
    from: Offset,
    pieces: Vec<Bytes>,
) -> Result<RecordCopy, LogError> {
    let mut copy = target.begin_copy(from)?;
    for piece in pieces {
        copy.put(piece)?;
    }
    Ok(copy)
}

async fn install(target: &Arc<PartitionLog>, source: &PartitionLog) -> Result<(), LogError> {
    let (at, pieces) = begin(source);
    let copy = copied(target, at.log_start, pieces)?;
    assert_eq!(copy.next_offset(), at.next_offset);
    target.install(at, copy).await
}

/// Entries that the source still holds go on behind it.
async fn follow(target: &PartitionLog, source: &PartitionLog) {
    let (from, to) = (
        target.bounds().last.index.0 + 1,
        source.bounds().last.index.0 + 1,
    );
    let tail = source.entries(EntryIndex(from), EntryIndex(to), 1 << 20);
    let appended = target.append(tail.expect("held"), Stamping::Follower, Box::new(|_| ()));
    appended.await.expect("fits");
}

fn is_equal(target: &PartitionLog, source: &PartitionLog) {
    assert_eq!(target.bounds(), source.bounds());
    assert_eq!(records(target, 700), records(source, 700));
    let producers = |log: &PartitionLog| log.producers().expect("known");
    assert_eq!(producers(target), producers(source));
    assert_eq!(target.unlisted_files(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_takes_over_what_compaction_has_left_of_another() {
    let machine = Machine::new(70);
    let (manager, _) = machine.open();
    let source = source(&manager).await;
    assert!(source.bounds().purged.index > EntryIndex(100));
    let target = make(&manager, 1, compacted());
    install(&target, &source).await.expect("is installed");
    follow(&target, &source).await;
    is_equal(&target, &source);
    // Once more, over what is there: of old files nothing is left.
    append_batches(&target, vec![keyed(None, 1, &vec![(3, Some(1))])]).await;
    install(&target, &source).await.expect("is installed");
    follow(&target, &source).await;
    is_equal(&target, &source);
    for log in [&source, &target] {
        append_batches(log, vec![keyed(None, 1, &vec![(1, None), (3, Some(7))])]).await;
        for value in 0..40 {
            append_batches(log, vec![keyed(None, 1, &vec![(4, Some(value))])]).await;
        }
    }
    assert!(compact(&target, 1_000).await.expect("is compacted"));
    let before = records(&target, 700);
    drop((source, target));
    machine.crash(manager, 5);
    let (manager, report) = machine.open();
    assert_eq!(report.stopped, vec![]);
    let target = find(&manager, 1);
    assert_eq!(records(&target, 700), before);
    assert_eq!(target.unlisted_files(), Vec::<String>::new());
    manager.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_comes_to_nothing_leaves_nothing() {
    let machine = Machine::new(71);
    let (manager, _) = machine.open();
    let source = source(&manager).await;
    let target = make(&manager, 1, compacted());
    append_batches(&target, vec![keyed(None, 1, &vec![(3, Some(1))])]).await;
    let before = records(&target, 700);
    let (at, pieces) = begin(&source);
    let whole = pieces.clone();
    drop(copied(&target, at.log_start, pieces).expect("is copied"));
    assert_eq!(target.unlisted_files(), Vec::<String>::new());
    let mut damaged = whole.concat();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    let refused = copied(&target, at.log_start, vec![damaged.into()]);
    assert!(refused.is_err());
    let twice = vec![whole[0].clone(), whole[0].clone()];
    assert!(copied(&target, at.log_start, twice).is_err());
    assert_eq!(records(&target, 700), before);
    assert_eq!(target.unlisted_files(), Vec::<String>::new());
    manager.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wherever_the_power_goes_a_log_is_the_old_one_or_the_new_one() {
    let mut seen = [0, 0];
    for operations in 0..400 {
        let machine = Machine::new(72);
        let (manager, _) = machine.open();
        let source = source(&manager).await;
        let target = make(&manager, 1, compacted());
        for value in 0..30 {
            append_batches(&target, vec![keyed(None, 1, &vec![(3, Some(value))])]).await;
        }
        let old = records(&target, 700);
        let (at, pieces) = begin(&source);
        let new: Vec<_> = records(&source, 700)
            .into_iter()
            .filter(|(offset, ..)| *offset < at.next_offset.0)
            .collect();
        machine.fs.cut_power_after(operations);
        let installed = match copied(&target, at.log_start, pieces) {
            Ok(copy) => target.install(at, copy).await,
            Err(error) => Err(error),
        };
        drop((source, target));
        machine.crash(manager, operations);
        let (manager, report) = machine.open();
        assert_eq!(report.stopped, vec![], "after {operations}");
        let target = find(&manager, 1);
        let found = records(&target, 700);
        assert!(found == old || found == new, "after {operations}");
        assert!(installed.is_err() || found == new, "after {operations}");
        assert_eq!(target.unlisted_files(), Vec::<String>::new());
        append_batches(&target, vec![keyed(None, 1, &vec![(3, Some(1))])]).await;
        seen[usize::from(found == new)] += 1;
        manager.shutdown().await;
        if installed.is_ok() {
            assert!(seen[0] > 10 && seen[1] > 0, "{seen:?}");
            return;
        }
    }
    panic!("never installed: {seen:?}");
}
