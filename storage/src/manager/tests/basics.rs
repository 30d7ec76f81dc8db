//! One thing at a time.

use super::*;

#[tokio::test]
async fn records_come_back_byte_for_byte_with_dense_offsets() {
    let machine = Machine::new(1);
    let (manager, report) = machine.open();
    assert!(report.clean);
    let log = make(&manager, 0, small_segments());
    let bodies = vec![
        entry(1, 1, opaque("blank")),
        entry(1, 2, EntryBody::Batch(batch_at(5, 3, b"abc"))),
        entry(1, 3, opaque("members")),
        entry(2, 4, EntryBody::Batch(batch_at(9, 2, b"de"))),
    ];
    let offsets = append(&log, bodies).await.expect("is appended");
    assert_eq!(offsets, [0, 0, 3, 3].map(Offset));
    let read = read_all(&log, Offset(0), 1);
    assert_eq!(
        read.iter()
            .map(|batch| batch.base_offset().0)
            .collect::<Vec<_>>(),
        [0, 3]
    );
    assert_eq!(read[1].leader_epoch(), LeaderEpoch(2));
    assert!(read.iter().all(|batch| batch.checksum_matches()));
    let inside = log
        .read_blocking(Offset(1), Offset(5), 1, true)
        .expect("is readable");
    assert_eq!(
        inside.next_offset,
        Offset(3),
        "an offset inside a batch returns the whole batch"
    );
    assert_eq!(log.epoch_starts().len(), 2);
    assert_eq!(
        log.end_offset_for_epoch(LeaderEpoch(1)),
        Some((LeaderEpoch(1), Offset(3)))
    );
    manager.shutdown().await;
}

#[tokio::test]
async fn reads_stop_at_the_high_watermark_and_at_the_bounds() {
    let machine = Machine::new(2);
    let (manager, _) = machine.open();
    let log = make(&manager, 0, LogConfig::default());
    append_batches(&log, vec![batch_at(1, 2, b"a"), batch_at(1, 2, b"b")]).await;
    let read = |from, upto, bytes| log.read_blocking(Offset(from), Offset(upto), bytes, true);
    assert_eq!(
        read(0, 2, 1 << 20).expect("readable").next_offset,
        Offset(2)
    );
    assert_eq!(read(2, 2, 1 << 20).expect("readable").size_bytes, 0);
    assert_eq!(read(4, 4, 1 << 20).expect("readable").size_bytes, 0);
    assert!(matches!(
        read(5, 9, 1),
        Err(LogError::OffsetOutOfRange { .. })
    ));
    let none = log
        .read_blocking(Offset(0), Offset(4), 1, false)
        .expect("readable");
    assert_eq!(none.size_bytes, 0, "the batch is larger than allowed");
    log.advance_log_start(Offset(3));
    assert!(matches!(
        read(2, 4, 1),
        Err(LogError::OffsetOutOfRange { .. })
    ));
    assert_eq!(read(3, 4, 1).expect("readable").next_offset, Offset(4));
    manager.shutdown().await;
}

#[tokio::test]
async fn entries_that_do_not_fit_are_refused_and_change_nothing() {
    let machine = Machine::new(3);
    let (manager, _) = machine.open();
    let log = make(&manager, 0, LogConfig::default());
    append_batches(&log, vec![batch_at(1, 2, b"a")]).await;
    let before = log.bounds();
    let gap = append(&log, vec![entry(1, 3, opaque("x"))]).await;
    assert!(matches!(gap, Err(LogError::Refused(_))));
    let old = append(&log, vec![entry(0, 2, opaque("x"))]).await;
    assert!(matches!(old, Err(LogError::Refused(_))));
    let mut batch = batch_at(1, 1, b"a");
    batch.stamp(Offset(7), LeaderEpoch(1));
    let entries = vec![entry(1, 2, EntryBody::Batch(batch.clone()))];
    let stamped = log
        .append(entries, Stamping::Follower, Box::new(|_| ()))
        .await;
    assert!(matches!(stamped, Err(LogError::Refused(_))));
    assert_eq!(log.bounds(), before);
    batch.stamp(Offset(2), LeaderEpoch(1));
    let entries = vec![entry(1, 2, EntryBody::Batch(batch))];
    log.append(entries, Stamping::Follower, Box::new(|_| ()))
        .await
        .expect("fits");
    manager.shutdown().await;
}

#[tokio::test]
async fn a_clean_stop_replays_nothing() {
    let machine = Machine::new(4);
    let (manager, _) = machine.open();
    let log = make(&manager, 0, small_segments());
    for at in 0..40 {
        append_batches(&log, vec![batch_of(5, at * 2, 2, &[7; 200])]).await;
    }
    let before = (
        log.bounds(),
        log.producers().expect("known"),
        log.epoch_starts(),
    );
    manager.shutdown().await;
    drop((log, manager));
    let (manager, report) = machine.open();
    assert!(report.clean);
    assert_eq!(report.frames_replayed, 0);
    let log = find(&manager, 0);
    assert_eq!(
        (
            log.bounds(),
            log.producers().expect("known"),
            log.epoch_starts()
        ),
        before
    );
    assert_eq!(read_all(&log, Offset(0), 700).len(), 40);
    append_batches(&log, vec![batch_of(5, 80, 2, b"more")]).await;
    manager.shutdown().await;
}

#[tokio::test]
async fn the_last_unsynced_moment_is_lost_and_nothing_else() {
    let machine = Machine::new(5);
    let (manager, _) = machine.open();
    let log = make(&manager, 0, small_segments());
    for at in 0..100 {
        append_batches(&log, vec![batch_of(5, at, 1, &[1; 300])]).await;
    }
    let before = (log.bounds(), log.producers().expect("known"));
    drop(log);
    machine.crash(manager, 9);
    let (manager, report) = machine.open();
    // How many frames are replayed depends on what the journal had reclaimed by then; none is possible.
    assert!(!report.clean);
    let log = find(&manager, 0);
    assert_eq!((log.bounds(), log.producers().expect("known")), before);
    assert_eq!(read_all(&log, Offset(0), 5000).len(), 100);
    manager.shutdown().await;
}

#[tokio::test]
async fn logs_without_records_have_no_files() {
    let machine = Machine::new(6);
    let (manager, _) = machine.open();
    let log = make(&manager, 0, LogConfig::default());
    append(
        &log,
        vec![entry(1, 1, opaque("members")), entry(1, 2, opaque("blank"))],
    )
    .await
    .expect("ok");
    manager.shutdown().await;
    let folders = machine
        .fs
        .list(std::path::Path::new("/data/topics"))
        .expect("is there");
    assert!(folders.is_empty(), "{folders:?}");
    drop((log, manager));
    let (manager, _) = machine.open();
    let log = find(&manager, 0);
    let headers = log.headers(EntryIndex(1), EntryIndex(3), 9).expect("held");
    assert_eq!(headers[0].opaque, Some((9, Bytes::from_static(b"members"))));
    log.truncate_after(EntryIndex(1)).await.expect("is cut");
    append_batches(&log, vec![batch_at(1, 2, b"a")]).await;
    manager.shutdown().await;
    drop((log, manager));
    let (manager, _) = machine.open();
    let entries = find(&manager, 0)
        .entries(EntryIndex(1), EntryIndex(3), 1 << 20)
        .expect("held");
    assert_eq!(entries.len(), 2);
    manager.shutdown().await;
}

#[tokio::test]
async fn opaque_logs_roll_and_are_purged() {
    let machine = Machine::new(7);
    let (manager, _) = machine.open();
    let log = make(&manager, 0, small_segments());
    let text = "m".repeat(10_000);
    for index in 1..=300 {
        append(&log, vec![entry(1, index, opaque(&text))])
            .await
            .expect("is appended");
    }
    log.purge_to(EntryIndex(250)).await.expect("is purged");
    assert_eq!(log.bounds().purged.index, EntryIndex(250));
    assert!(log.headers(EntryIndex(250), EntryIndex(251), 1).is_err());
    manager.shutdown().await;
    drop((log, manager));
    let (manager, _) = machine.open();
    let log = find(&manager, 0);
    let headers = log
        .headers(EntryIndex(251), EntryIndex(301), 99)
        .expect("held");
    assert_eq!(headers.len(), 50);
    let entries = log
        .entries(EntryIndex(251), EntryIndex(301), 25_000)
        .expect("held");
    assert!(!entries.is_empty() && entries.len() < 5, "bounded by bytes");
    manager.shutdown().await;
}

#[tokio::test]
async fn removed_logs_stay_removed() {
    let machine = Machine::new(8);
    let (manager, _) = machine.open();
    let log = make(&manager, 0, small_segments());
    append_batches(&log, vec![batch_at(1, 2, b"a")]).await;
    manager.remove_log(log.id()).await.expect("is removed");
    assert!(matches!(append(&log, vec![]).await, Err(LogError::Removed)));
    let again = make(&manager, 0, small_segments());
    assert_ne!(again.id(), log.id());
    assert_eq!(again.bounds().log_end, Offset(0));
    append_batches(&again, vec![batch_at(1, 1, b"new")]).await;
    drop((log, again));
    machine.crash(manager, 3);
    let (manager, _) = machine.open();
    assert_eq!(manager.logs().len(), 1);
    assert_eq!(find(&manager, 0).bounds().log_end, Offset(1));
    manager.shutdown().await;
    let folders = machine
        .fs
        .list(std::path::Path::new("/data/topics"))
        .expect("is there");
    assert_eq!(folders.len(), 1);
}

#[tokio::test]
async fn reset_restarts_at_a_position() {
    let machine = Machine::new(9);
    let (manager, _) = machine.open();
    let source = make(&manager, 0, small_segments());
    for at in 0..30 {
        append_batches(&source, vec![batch_of(3, at, 1, &[2; 500])]).await;
    }
    let position = source.position_at(EntryIndex(20)).expect("held");
    assert_eq!(position.next_offset, Offset(20));
    let target = make(&manager, 1, small_segments());
    append_batches(&target, vec![batch_at(1, 9, b"other")]).await;
    target.reset(position.clone()).await.expect("is reset");
    assert_eq!(target.bounds().log_end, Offset(20));
    let tail = source
        .entries(EntryIndex(21), EntryIndex(31), 1 << 20)
        .expect("held");
    target
        .append(tail, Stamping::Follower, Box::new(|_| ()))
        .await
        .expect("fits");
    append_batches(&target, vec![batch_at(1, 1, b"last")]).await;
    drop((source, target));
    machine.crash(manager, 4);
    let (manager, _) = machine.open();
    let (source, target) = (find(&manager, 0), find(&manager, 1));
    assert_eq!(target.bounds().purged.index, EntryIndex(20));
    assert_eq!(
        target.producers().expect("known"),
        source.producers().expect("known")
    );
    assert_eq!(read_all(&target, Offset(20), 900).len(), 11);
    manager.shutdown().await;
}

#[tokio::test]
async fn catching_up_does_not_evict_the_tail() {
    let machine = Machine::new(10);
    let (manager, _) = machine.open();
    let log = make(&manager, 0, small_segments());
    for _ in 0..200 {
        append_batches(&log, vec![batch_at(1, 1, &[3; 400])]).await;
    }
    assert!(
        log.try_read_cached(Offset(0), Offset(200), 1000, true)
            .is_none(),
        "evicted"
    );
    assert_eq!(read_all(&log, Offset(0), 3000).len(), 200);
    let tail = log.try_read_cached(Offset(199), Offset(200), 1000, true);
    assert!(tail.expect("in memory").expect("readable").size_bytes > 0);
    assert!(log.files_open() <= 16, "handles are bounded");
    manager.shutdown().await;
}
