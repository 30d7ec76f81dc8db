//! When what was appended gets into segments.

use std::path::Path;
use std::time::Instant;

use super::*;

/// Longer than any test.
const NEVER: Duration = Duration::from_secs(3_600);

fn open(machine: &Machine, wait: Duration, bytes_max: usize) -> Arc<LogManager> {
    let mut options = machine.options();
    options.journal.file_bytes = 16 << 20;
    options.journal.queue_bytes_max = 8 << 20;
    options.write_behind_bytes_max = bytes_max;
    options.write_behind_wait = wait;
    LogManager::open(options).expect("opens").0
}

fn has_segments(machine: &Machine) -> bool {
    let topics = machine.fs.list(Path::new("/data/topics"));
    topics.is_ok_and(|folders| !folders.is_empty())
}

async fn until_written(machine: &Machine) {
    let begun = Instant::now();
    while !has_segments(machine) {
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "nothing is written"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn append_bytes(log: &PartitionLog, batches: i32, bytes: usize) {
    for _ in 0..batches {
        append_batches(log, vec![batch_at(1, 1, &vec![7; bytes])]).await;
    }
}

#[tokio::test]
async fn little_waits_for_more_and_a_round_does_not() {
    let machine = Machine::new(60);
    let manager = open(&machine, NEVER, 64 << 20);
    let log = make(&manager, 0, LogConfig::default());
    append_bytes(&log, 12, 16 << 10).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!has_segments(&machine));
    assert_eq!(read_all(&log, Offset(0), 100_000).len(), 12);
    let operations = machine.fs.operations();
    append_bytes(&log, 20, 16 << 10).await;
    until_written(&machine).await;
    let journal = 20 * 2;
    let made = machine.fs.operations() - operations;
    assert!(made < journal + 30, "{made} operations");
    manager.shutdown().await;
}

#[tokio::test]
async fn little_is_written_when_nothing_more_comes() {
    let machine = Machine::new(61);
    let manager = open(&machine, Duration::from_millis(30), 64 << 20);
    let log = make(&manager, 0, LogConfig::default());
    append_bytes(&log, 3, 100).await;
    until_written(&machine).await;
    // What is left behind a round waits again.
    append_bytes(&log, 1, 100).await;
    let last = log.bounds().last.index;
    let begun = Instant::now();
    while log.written_to() < last {
        assert!(begun.elapsed() < Duration::from_secs(20), "not written");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    manager.shutdown().await;
}

#[tokio::test]
async fn nobody_waits_for_memory_that_waits_for_more() {
    let machine = Machine::new(62);
    let manager = open(&machine, NEVER, 128 << 10);
    let logs: Vec<_> = (0..6)
        .map(|at| make(&manager, at, LogConfig::default()))
        .collect();
    let all = async {
        for _ in 0..10 {
            for log in &logs {
                append_bytes(log, 1, 50 << 10).await;
            }
        }
    };
    let ended = tokio::time::timeout(Duration::from_secs(60), all).await;
    ended.expect("appends go on");
    manager.shutdown().await;
}
