//! Compaction: what a consumer finds, what stays of offsets, what retention lets go.

use std::time::Duration;

use tidelog_protocol::types::ProducerEpoch;

use super::*;
use crate::log::{CleanerPace, CleaningConfig};

/// Keys and values of a batch; `None` is a tombstone.
pub(super) type Records = Vec<(u8, Option<u32>)>;

pub(super) fn compacted() -> LogConfig {
    LogConfig {
        compact: true,
        delete: false,
        retention_ms: None,
        cleaning: CleaningConfig {
            min_dirty_ratio: 0.0,
            delete_retention_ms: 1_000,
            ..CleaningConfig::default()
        },
        ..small_segments()
    }
}

pub(super) fn keyed(
    producer: Option<(i64, i32)>,
    timestamp: i64,
    records: &Records,
) -> RecordBatch {
    let mut builder = BatchBuilder::new(Compression::None);
    if let Some((id, sequence)) = producer {
        builder = builder.producer(ProducerId(id), ProducerEpoch(0), Sequence(sequence));
    }
    for (key, value) in records {
        let value = value.map(|value| [value.to_be_bytes().as_slice(), &[7; 90]].concat());
        let record = NewRecord {
            timestamp: TimestampMs(timestamp),
            key: Some(&[*key]),
            value: value.as_deref(),
            ..NewRecord::default()
        };
        builder.push(record).expect("fits");
    }
    builder.build().expect("has records")
}

/// Settles and compacts everything below the active segment.
pub(super) async fn compact(log: &PartitionLog, now: i64) -> Result<bool, LogError> {
    let end = log.bounds().log_end;
    let Some(found) = log.cleanable(TimestampMs(now), end)? else {
        return Ok(false);
    };
    if let Some(boundary) = found.boundary {
        log.forget_to(boundary).await?;
    }
    let pace = Arc::new(CleanerPace::default());
    log.clean(pace, found.upto, TimestampMs(now)).await?;
    Ok(true)
}

/// Offset, key and value of everything from the log start on.
pub(super) fn records(log: &PartitionLog, bytes_max: usize) -> Vec<(i64, u8, Option<u32>)> {
    let bounds = log.bounds();
    let mut next = bounds.log_start;
    let mut found = Vec::new();
    while next < bounds.log_end {
        let data = read_both_ways(log, next, bounds.log_end, bytes_max);
        if data.size_bytes == 0 {
            break;
        }
        assert!(data.next_offset > next, "no progress at {next}");
        let bytes: Bytes = data.pieces.concat().into();
        for batch in RecordBatch::split_all(bytes).expect("whole batches") {
            assert!(batch.checksum_matches());
            assert!(batch.last_offset() >= next);
            for record in batch.read_records().expect("readable") {
                let key = record.key.expect("has a key")[0];
                let value = record
                    .value
                    .map(|value| u32::from_be_bytes(*value.first_chunk().expect("has four bytes")));
                found.push((record.offset.0, key, value));
            }
        }
        next = data.next_offset;
    }
    found.retain(|(offset, ..)| *offset >= bounds.log_start.0);
    found
}

async fn put(log: &PartitionLog, timestamp: i64, records: Records) {
    append_batches(log, vec![keyed(None, timestamp, &records)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_newest_value_of_each_key_stays() {
    let machine = Machine::new(60);
    let (manager, _) = machine.open();
    let log = make(&manager, 0, compacted());
    for value in 0..200 {
        put(
            &log,
            i64::from(value),
            vec![
                (1, Some(value)),
                (2, Some(value)),
                ((value % 50) as u8, Some(value)),
            ],
        )
        .await;
    }
    let before = log.bounds();
    assert!(compact(&log, 1_000).await.expect("is compacted"));
    let after = log.bounds();
    assert_eq!(
        (after.log_start, after.log_end),
        (before.log_start, before.log_end)
    );
    assert_eq!(after.last, before.last);
    assert!(
        after.size_bytes < before.size_bytes / 3,
        "{before:?} {after:?}"
    );
    let found = records(&log, 700);
    let clean_end = 600 - 3 * 12;
    let newest = |key: u8| found.iter().filter(|(_, at, _)| *at == key).count();
    assert!(
        found
            .iter()
            .all(|(offset, _, value)| i64::from(value.expect("a value")) == offset / 3)
    );
    for key in 3..50 {
        assert_eq!(newest(key), 1 + usize::from(newest(key) > 1), "{key}");
    }
    assert!(
        found
            .iter()
            .filter(|(offset, ..)| *offset < clean_end)
            .count()
            < 110,
        "{}",
        found.len()
    );
    assert!(!compact(&log, 1_000).await.expect("nothing new"));
    let bytes: usize = read_all(&log, Offset(0), 3000)
        .iter()
        .map(|batch| batch.size_bytes())
        .sum();
    assert_eq!(after.size_bytes, bytes as u64);
    for at in [0, 77, 150, 199] {
        let hit = log
            .offset_for_timestamp(TimestampMs(at), after.log_end)
            .expect("readable");
        let hit = hit.expect("is found");
        let first = found
            .iter()
            .find(|(_, _, value)| i64::from(value.expect("a value")) >= at);
        assert_eq!(Some(hit.offset.0), first.map(|(offset, ..)| *offset));
    }
    manager.shutdown().await;
    drop((log, manager));
    let (manager, report) = machine.open();
    assert!(report.clean);
    let log = find(&manager, 0);
    assert_eq!((log.bounds(), records(&log, 5000)), (after, found));
    manager.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tombstones_go_after_their_time_and_producers_keep_their_sequence() {
    let machine = Machine::new(61);
    let (manager, _) = machine.open();
    let log = make(&manager, 0, compacted());
    append_batches(
        &log,
        vec![keyed(Some((5, 0)), 0, &vec![(1, Some(1)), (1, Some(2))])],
    )
    .await;
    put(&log, 0, vec![(1, None)]).await;
    let filler = |value: u32| {
        (0..40)
            .map(|key| (100 + key, Some(value)))
            .collect::<Records>()
    };
    for value in 0..4 {
        put(&log, 0, filler(value)).await;
    }
    assert!(compact(&log, 10_000).await.expect("is compacted"));
    let tombstone = |log: &PartitionLog| records(log, 900).contains(&(2, 1, None));
    assert!(tombstone(&log), "it stays at first");
    let first = &read_all(&log, Offset(0), 100)[0];
    assert_eq!(
        (first.producer_id(), first.record_count()),
        (ProducerId(5), 0)
    );
    assert_eq!(
        (first.last_offset(), first.last_sequence()),
        (Offset(1), Sequence(1))
    );
    put(&log, 0, filler(5)).await;
    put(&log, 0, filler(6)).await;
    assert!(compact(&log, 10_999).await.expect("is compacted"));
    assert!(tombstone(&log), "its time has not come");
    put(&log, 0, filler(7)).await;
    put(&log, 0, filler(8)).await;
    assert!(compact(&log, 11_000).await.expect("is compacted"));
    assert!(!tombstone(&log));
    assert_eq!(
        read_all(&log, Offset(0), 100)[0].record_count(),
        0,
        "the producer is remembered"
    );
    manager.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lags_ratio_and_high_watermark_decide() {
    let machine = Machine::new(62);
    let (manager, _) = machine.open();
    let log = make(&manager, 0, compacted());
    for value in 0..60 {
        put(&log, i64::from(value) * 1_000, vec![(1, Some(value)); 3]).await;
    }
    let end = log.bounds().log_end;
    let with = |change: &dyn Fn(&mut CleaningConfig), now: i64, high_watermark: Offset| {
        let mut config = compacted();
        change(&mut config.cleaning);
        log.set_config(config);
        log.cleanable(TimestampMs(now), high_watermark)
            .expect("known")
    };
    let all = with(&|_| (), 60_000, end).expect("dirty");
    assert_eq!(
        (all.clean_bytes, all.overdue, all.dirty_ratio()),
        (0, false, 1.0)
    );
    assert_eq!(
        with(&|_| (), 60_000, Offset(5)),
        None,
        "nothing is committed"
    );
    let part = with(&|_| (), 60_000, Offset(100)).expect("dirty");
    assert!(part.upto <= Offset(100) && part.upto > Offset(50));
    let old = with(&|it| it.min_lag_ms = 30_000, 60_000, end).expect("dirty");
    assert!(old.upto <= Offset(93) && old.upto > Offset(60), "{old:?}");
    assert_eq!(with(&|it| it.min_lag_ms = 90_000, 60_000, end), None);
    assert_eq!(with(&|it| it.min_dirty_ratio = 1.0, 60_000, end), None);
    let overdue = |it: &mut CleaningConfig| (it.min_dirty_ratio, it.max_lag_ms) = (1.0, 50_000);
    assert!(with(&overdue, 60_000, end).expect("overdue").overdue);
    assert_eq!(with(&overdue, 49_000, end), None);
    log.set_config(small_segments());
    assert_eq!(
        log.cleanable(TimestampMs(0), end).expect("known"),
        None,
        "not compacted"
    );
    manager.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_map_takes_several_passes() {
    let machine = Machine::new(63);
    let (manager, _) = machine.open();
    let log = make(&manager, 0, compacted());
    for value in 0..120 {
        put(&log, 0, vec![((value % 40) as u8, Some(value)); 2]).await;
    }
    let end = log.bounds().log_end;
    let found = log
        .cleanable(TimestampMs(0), end)
        .expect("known")
        .expect("dirty");
    log.forget_to(found.boundary.expect("entries"))
        .await
        .expect("is settled");
    let pace = Arc::new(CleanerPace::new(24 * 8, f64::MAX));
    let mut passes = 0;
    loop {
        let stats = log.clean(pace.clone(), found.upto, TimestampMs(0)).await;
        if stats.expect("is cleaned").records_read == 0 {
            break;
        }
        passes += 1;
    }
    assert!((5..60).contains(&passes), "{passes}");
    let left = records(&log, 1000);
    let clean = left.iter().filter(|(offset, ..)| *offset < found.upto.0);
    assert_eq!(clean.count(), 40);
    manager.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_and_log_start_let_compacted_segments_go() {
    let machine = Machine::new(64);
    let (manager, _) = machine.open();
    let config = LogConfig {
        delete: true,
        retention_ms: Some(1_000),
        ..compacted()
    };
    let log = make(&manager, 0, config);
    for value in 0..100 {
        put(&log, i64::from(value), vec![(value as u8, Some(value)); 3]).await;
    }
    assert!(compact(&log, 0).await.expect("is compacted"));
    assert_eq!(log.settled_expired(TimestampMs(900)), None);
    assert!(!log.may_let_go(TimestampMs(900)) && log.may_let_go(TimestampMs(1_050)));
    let early = log.retention_boundary(TimestampMs(9_000), Offset(10));
    assert!(early.expect("known").is_none());
    let some = log.settled_expired(TimestampMs(1_050)).expect("expired");
    assert!(some > Offset(0) && some < Offset(160), "{some}");
    log.advance_log_start(some);
    log.drop_settled_below_start().await.expect("are dropped");
    let left = records(&log, 1000);
    assert!(left[0].0 >= some.0);
    let bytes: usize = read_all(&log, some, 3000)
        .iter()
        .map(|batch| batch.size_bytes())
        .sum();
    assert_eq!(log.bounds().size_bytes, bytes as u64);
    let end = log.bounds().log_end;
    let all = log.settled_expired(TimestampMs(9_000)).expect("expired");
    let entries = log
        .retention_boundary(TimestampMs(9_000), end)
        .expect("known")
        .expect("all");
    assert!(entries.next_offset == end && all < end);
    log.advance_log_start(end);
    log.forget_to(entries.last.index).await.expect("is purged");
    assert_eq!(log.bounds().size_bytes, 0);
    manager.shutdown().await;
    drop((log, manager));
    let (manager, _) = machine.open();
    assert_eq!(records(&find(&manager, 0), 10), []);
    manager.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pass_that_retention_outruns_leaves_no_files() {
    let machine = Machine::new(66);
    let (manager, _) = machine.open();
    let log = make(&manager, 0, compacted());
    for value in 0..100 {
        put(&log, i64::from(value), vec![(1, Some(value)); 3]).await;
    }
    let end = log.bounds().log_end;
    let found = log.cleanable(TimestampMs(0), end).expect("known");
    let found = found.expect("something to compact");
    let boundary = found.boundary.expect("something to settle");
    log.forget_to(boundary).await.expect("is settled");
    // So slow that what follows happens while the first segments are rewritten.
    let pace = Arc::new(CleanerPace::new(1 << 20, 50_000.0));
    let pass = tokio::spawn({
        let (log, pace) = (log.clone(), pace.clone());
        async move { log.clean(pace, found.upto, TimestampMs(0)).await }
    });
    while log.unlisted_files().is_empty() {
        assert!(!pass.is_finished(), "nothing was rewritten");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    log.advance_log_start(found.upto);
    log.drop_settled_below_start().await.expect("are dropped");
    pass.await.expect("no panic").expect("the pass ends");
    assert_eq!(log.unlisted_files(), Vec::<String>::new());
    manager.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_batch_ends_the_pass_and_nothing_is_lost() {
    let machine = Machine::new(65);
    let (manager, _) = machine.open();
    let log = make(&manager, 0, compacted());
    for value in 0..60 {
        put(&log, 0, vec![(1, Some(value)); 3]).await;
    }
    let found = log
        .cleanable(TimestampMs(0), log.bounds().log_end)
        .expect("known")
        .expect("dirty");
    log.forget_to(found.boundary.expect("entries"))
        .await
        .expect("is settled");
    let fs: Arc<dyn FileSystem> = machine.fs.clone();
    let folder = PathBuf::from("/data/topics/orders-0.1");
    let names = fs.list(&folder).expect("listed");
    let name = names
        .iter()
        .find(|name| name.as_str() == "00000000000000000000.log");
    let file = fs
        .open(
            &folder.join(name.expect("there")),
            crate::fs::OpenMode::Write,
        )
        .expect("opens");
    file.write_at(&[std::io::IoSlice::new(b"xxxx")], 150)
        .expect("written");
    let before = (log.bounds(), fs.list(&folder).expect("listed").len());
    let cleaned = log
        .clean(Arc::new(CleanerPace::default()), found.upto, TimestampMs(0))
        .await;
    assert!(
        matches!(cleaned, Err(LogError::Corrupt { .. })),
        "{cleaned:?}"
    );
    assert_eq!(log.stopped(), None);
    assert_eq!(
        (log.bounds(), fs.list(&folder).expect("listed").len()),
        before
    );
    manager.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_to_what_is_forgotten_takes_no_records_along() {
    let machine = Machine::new(67);
    let (manager, _) = machine.open();
    let one_segment = LogConfig {
        segment_bytes: 1 << 20,
        ..compacted()
    };
    let log = make(&manager, 0, one_segment);
    for value in 0..8 {
        put(&log, i64::from(value), vec![(1, Some(value))]).await;
    }
    log.forget_to(EntryIndex(5)).await.expect("is forgotten");
    log.truncate_after(EntryIndex(5)).await.expect("is cut");
    let left = records(&log, 1000);
    assert_eq!(left.len(), 5);
    manager.shutdown().await;
    drop((log, manager));
    let (manager, _) = machine.open();
    assert_eq!(records(&find(&manager, 0), 1000), left);
    manager.shutdown().await;
}
