//! A journal that is always full: every change waits for checkpoints, which must wait for no change.

use std::time::Duration;

use super::*;
use crate::log::{LogPosition, ProducerStateTable};

const LOGS: i32 = 6;
const ROUNDS: u64 = 40;

/// Appends until the journal has turned over, then changes the log in one of the ways there are.
async fn churn(manager: &LogManager, partition: i32) {
    for round in 0..ROUNDS {
        let log = make(manager, partition, small_segments());
        let value = vec![7; 9000];
        append_batches(&log, vec![batch_at(1, 1, &value), batch_at(2, 1, &value)]).await;
        let bounds = log.bounds();
        let changed = match (round + u64::from(partition.unsigned_abs())) % 4 {
            0 => {
                log.truncate_after(EntryIndex(bounds.last.index.0 - 1))
                    .await
            }
            1 => log.purge_to(EntryIndex(bounds.last.index.0 - 1)).await,
            2 => {
                let producers = ProducerStateTable::default();
                let at = LogPosition {
                    last: bounds.last,
                    next_offset: bounds.log_end,
                    log_start: bounds.log_end,
                    producers,
                };
                log.reset(at).await
            }
            _ => manager.remove_log(log.id()).await,
        };
        changed.expect("is done");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn changes_go_on_while_the_journal_is_full() {
    let machine = Machine::new(40);
    let (manager, _) = machine.open();
    let mut tasks = tokio::task::JoinSet::new();
    for partition in 0..LOGS {
        let manager = Arc::clone(&manager);
        tasks.spawn(async move { churn(&manager, partition).await });
    }
    let all = tokio::time::timeout(Duration::from_secs(120), tasks.join_all()).await;
    assert!(all.is_ok(), "changes and checkpoints wait for each other");
    let described = manager.logs();
    machine.crash(manager, 41);
    let (manager, report) = machine.open();
    assert_eq!(report.stopped, vec![]);
    for before in described {
        let log = manager.log_by_id(before.id).expect("is there again");
        assert_eq!(log.bounds().last, before.bounds.last);
        assert_eq!(read_all(&log, log.bounds().log_start, 4000).len() as i64, {
            let bounds = log.bounds();
            bounds.log_end.0 - bounds.log_start.0
        });
    }
    manager.shutdown().await;
}
