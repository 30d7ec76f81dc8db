//! Want of room: another process fills the disk in one step, or no more files can be opened, and later it passes.

use std::time::Duration;

use super::*;

/// Longer than an append takes when there is room.
const SOON: Duration = Duration::from_millis(300);

/// Longer than it takes to find out that there is room again.
const LATE: Duration = Duration::from_secs(20);

/// Appends a batch and tells whether it became durable in time.
async fn append_within(time: Duration, log: &Arc<PartitionLog>, at: i32) -> bool {
    let (log, next) = (Arc::clone(log), log.bounds().last.index.0 + 1);
    let batch = EntryBody::Batch(batch_of(1, at, 1, &[at as u8; 3000]));
    let appended = tokio::spawn(async move { append(&log, vec![entry(1, next, batch)]).await });
    match tokio::time::timeout(time, appended).await {
        Ok(appended) => {
            appended.expect("ends").expect("is appended");
            true
        }
        Err(_) => false,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_holds_writes_up_and_costs_nothing() {
    let machine = Machine::new(60);
    let (manager, _) = machine.open();
    let log = make(&manager, 0, small_segments());
    let mut sent = 0;
    for _ in 0..20 {
        assert!(append_within(LATE, &log, sent).await, "there is room");
        sent += 1;
    }
    machine.fs.set_space(Some(0));
    // The journal's files were made before: it takes what it has room for, then waits for segments to be written.
    while append_within(SOON, &log, sent).await {
        sent += 1;
        assert!(sent < 1000, "segments are written to a full disk");
    }
    // The one that waits is appended when there is room.
    sent += 1;
    assert!(log.stopped().is_none(), "{:?}", log.stopped());
    let noticed = async {
        while !matches!(log.check_writable(), Err(LogError::NoSpace(_))) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let noticed = tokio::time::timeout(LATE, noticed).await;
    noticed.expect("a write found no room");
    assert_eq!(manager.failure(), None);
    machine.fs.set_space(None);
    tokio::time::timeout(LATE, async {
        while log.bounds().log_end < Offset(i64::from(sent)) || log.check_writable().is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("goes on");
    assert!(append_within(LATE, &log, sent).await);
    sent += 1;
    drop(log);
    machine.crash(manager, 61);
    let (manager, report) = machine.open();
    assert_eq!(report.stopped, vec![]);
    let log = find(&manager, 0);
    assert_eq!(read_all(&log, Offset(0), 9000).len(), sent as usize);
    manager.shutdown().await;
}

/// Every now and then no file can be opened, in the middle of whatever goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn want_of_open_files_holds_writes_up_and_costs_nothing() {
    for seed in 70..75 {
        let machine = Machine::new(seed);
        let (manager, _) = machine.open();
        let log = make(&manager, 0, small_segments());
        let mut sent = 0;
        for round in 0..12 {
            for _ in 0..6 {
                assert!(append_within(LATE, &log, sent).await, "there are files");
                sent += 1;
            }
            machine.fs.set_out_of_files(true);
            for _ in 0..2 + round {
                sent += 1;
                if !append_within(SOON, &log, sent - 1).await {
                    break;
                }
            }
            machine.fs.set_out_of_files(false);
            let appended = async {
                while log.bounds().log_end < Offset(i64::from(sent)) {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            let appended = tokio::time::timeout(LATE, appended).await;
            appended.expect("goes on");
        }
        append_batches(
            &log,
            vec![batch_of(1, sent, 1, b"durable, and all before it")],
        )
        .await;
        assert!(log.stopped().is_none(), "{:?}", log.stopped());
        drop(log);
        machine.crash(manager, seed);
        let (manager, report) = machine.open();
        assert_eq!(report.stopped, vec![]);
        let read = read_all(&find(&manager, 0), Offset(0), 9000);
        assert_eq!(read.len(), sent as usize + 1);
        manager.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_on_a_full_disk_ends_and_loses_nothing() {
    let machine = Machine::new(62);
    let (manager, _) = machine.open();
    let log = make(&manager, 0, small_segments());
    machine.fs.set_space(Some(0));
    let mut sent = 0;
    while append_within(SOON, &log, sent).await {
        sent += 1;
    }
    drop(log);
    let stopped = tokio::time::timeout(LATE, manager.shutdown()).await;
    assert!(stopped.is_ok(), "waits for room");
    drop(manager);
    machine.fs.set_space(None);
    let (manager, report) = machine.open();
    assert_eq!((report.clean, report.stopped), (false, vec![]));
    let log = find(&manager, 0);
    let read = read_all(&log, Offset(0), 9000).len();
    assert!(read >= sent as usize, "{read} of {sent}");
    manager.shutdown().await;
}

/// The files have room, the key-value store has not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_key_value_store_holds_removals_up_and_records_off() {
    let machine = Machine::new(63);
    let (manager, _) = machine.open();
    let (kept, removed) = (
        make(&manager, 0, small_segments()),
        make(&manager, 1, small_segments()),
    );
    assert!(append_within(LATE, &kept, 0).await);
    machine.kv.set_full(true);
    let removal = tokio::spawn({
        let (manager, id) = (Arc::clone(&manager), removed.id());
        async move { manager.remove_log(id).await }
    });
    let noticed = async {
        while !matches!(kept.check_writable(), Err(LogError::NoSpace(_))) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let noticed = tokio::time::timeout(LATE, noticed).await;
    noticed.expect("records are refused");
    assert!(!removal.is_finished(), "it is not written yet");
    // What was accepted before goes on, and so do reads and lookups.
    assert!(append_within(LATE, &kept, 1).await);
    assert_eq!(read_all(&find(&manager, 0), Offset(0), 9000).len(), 2);
    machine.kv.set_full(false);
    let removal = tokio::time::timeout(LATE, removal).await;
    removal
        .expect("goes on")
        .expect("ends")
        .expect("is removed");
    let writable = async {
        while kept.check_writable().is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let writable = tokio::time::timeout(LATE, writable).await;
    writable.expect("records are taken again");
    assert_eq!((manager.failure(), kept.stopped()), (None, None));
    machine.kv.set_full(true);
    let stopped = tokio::time::timeout(LATE, manager.shutdown()).await;
    assert!(stopped.is_ok(), "the stop waits for room");
}
