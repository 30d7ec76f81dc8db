//! Another process fills the disk in one step, and gives the space back later.

use std::time::Duration;

use super::*;

/// Appends a batch and tells whether it became durable in time.
async fn append_in_time(log: &Arc<PartitionLog>, at: i32) -> bool {
    let (log, next) = (Arc::clone(log), log.bounds().last.index.0 + 1);
    let batch = EntryBody::Batch(batch_of(1, at, 1, &[at as u8; 3000]));
    let appended = tokio::spawn(async move { append(&log, vec![entry(1, next, batch)]).await });
    match tokio::time::timeout(Duration::from_millis(300), appended).await {
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
        assert!(append_in_time(&log, sent).await, "there is room");
        sent += 1;
    }
    machine.fs.set_space(Some(0));
    // The journal's files were made before: it takes what it has room for, then waits for segments to be written.
    while append_in_time(&log, sent).await {
        sent += 1;
        assert!(sent < 1000, "segments are written to a full disk");
    }
    // The one that waits is appended when there is room.
    sent += 1;
    assert!(log.stopped().is_none(), "{:?}", log.stopped());
    assert!(matches!(log.check_writable(), Err(LogError::NoSpace(_))));
    assert_eq!(manager.failure(), None);
    machine.fs.set_space(None);
    tokio::time::timeout(Duration::from_secs(20), async {
        while log.bounds().log_end < Offset(i64::from(sent)) || log.check_writable().is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("goes on");
    assert!(append_in_time(&log, sent).await);
    sent += 1;
    drop(log);
    machine.crash(manager, 61);
    let (manager, report) = machine.open();
    assert_eq!(report.stopped, vec![]);
    let log = find(&manager, 0);
    assert_eq!(read_all(&log, Offset(0), 9000).len(), sent as usize);
    manager.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_on_a_full_disk_ends_and_loses_nothing() {
    let machine = Machine::new(62);
    let (manager, _) = machine.open();
    let log = make(&manager, 0, small_segments());
    machine.fs.set_space(Some(0));
    let mut sent = 0;
    while append_in_time(&log, sent).await {
        sent += 1;
    }
    drop(log);
    let stopped = tokio::time::timeout(Duration::from_secs(20), manager.shutdown()).await;
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
