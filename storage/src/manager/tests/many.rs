//! Ten thousand logs.

use std::time::{Duration, Instant};

use super::*;

#[tokio::test]
async fn ten_thousand_logs_are_made_and_opened_without_touching_files() {
    const LOGS: i32 = 10_000;
    let machine = Machine::new(30);
    let options = || {
        let mut options = machine.options();
        options.journal.file_bytes = 16 << 20;
        options
    };
    let (manager, _) = LogManager::open(options()).expect("opens");
    let started = Instant::now();
    let logs: Vec<_> = (0..LOGS)
        .map(|at| make(&manager, at, LogConfig::default()))
        .collect();
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "{:?}",
        started.elapsed()
    );
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    for log in &logs {
        let tell = tell.clone();
        let done = Box::new(move |result: Result<(), LogError>| drop(tell.send(result)));
        let first = vec![entry(1, 1, opaque("members"))];
        log.append(first, Stamping::Leader, done)
            .await
            .expect("is appended");
    }
    for _ in 0..LOGS {
        told.recv().await.expect("told").expect("durable");
    }
    append_batches(&logs[7], vec![batch_at(1, 3, b"x")]).await;
    drop(logs);
    machine.crash(manager, 31);
    let started = Instant::now();
    let (manager, report) = LogManager::open(options()).expect("opens");
    assert!(
        started.elapsed() < Duration::from_secs(10),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(report.logs, LOGS as usize);
    assert_eq!(find(&manager, 9_999).bounds().last.index, EntryIndex(1));
    assert_eq!(find(&manager, 7).bounds().log_end, Offset(3));
    manager.shutdown().await;
    drop(manager);
    let operations = machine.fs.operations();
    let (manager, report) = LogManager::open(options()).expect("opens");
    assert_eq!((report.clean, report.frames_replayed), (true, 0));
    let made = machine.fs.operations() - operations;
    assert!(made < 100, "{made} changes of files at a clean start");
    manager.shutdown().await;
}
