//! What time, size and log start let go, and finding records by time.

use super::*;

const DAY: i64 = 24 * 3_600_000;

/// 50 batches of two records, one a minute, about six to a segment.
async fn filled(manager: &LogManager, config: LogConfig) -> Arc<PartitionLog> {
    let log = make(manager, 0, config);
    for minute in 0..50 {
        append_batches(&log, vec![batch_at(minute * 60_000, 2, &[1; 250])]).await;
    }
    log
}

fn boundary(log: &PartitionLog, now: i64, high_watermark: i64) -> Option<i64> {
    let worth_it = log.may_let_go(TimestampMs(now));
    let found = log.retention_boundary(TimestampMs(now), Offset(high_watermark));
    assert!(worth_it || matches!(found, Ok(None)), "{found:?}");
    found
        .expect("is known")
        .map(|position| position.next_offset.0)
}

#[tokio::test]
async fn time_lets_whole_segments_go_by_their_largest_timestamp() {
    let machine = Machine::new(20);
    let (manager, _) = machine.open();
    let log = filled(
        &manager,
        LogConfig {
            retention_ms: Some(DAY),
            ..small_segments()
        },
    )
    .await;
    assert!(!log.may_let_go(TimestampMs(DAY)), "nothing to look at");
    assert_eq!(boundary(&log, DAY, 100), None);
    let half = boundary(&log, DAY + 25 * 60_000, 100).expect("some");
    assert!(half > 30 && half <= 50, "{half}");
    assert!(
        boundary(&log, DAY + 25 * 60_000, 20).expect("some") <= 20,
        "high watermark"
    );
    let position = log.retention_boundary(TimestampMs(DAY + 25 * 60_000), Offset(100));
    let position = position.expect("known").expect("some");
    log.purge_to(position.last.index).await.expect("is purged");
    assert_eq!(log.bounds().log_start, Offset(half));
    let left = read_all(&log, Offset(half), 1000);
    let bytes: usize = left.iter().map(|batch| batch.size_bytes()).sum();
    assert_eq!(log.bounds().size_bytes, bytes as u64);
    assert_eq!(
        boundary(&log, 9 * DAY, 100),
        Some(100),
        "an expired active segment is rolled"
    );
    log.purge_to(log.bounds().last.index)
        .await
        .expect("is purged");
    assert_eq!(log.bounds().size_bytes, 0);
    append_batches(&log, vec![batch_at(1, 1, b"next")]).await;
    assert_eq!(log.bounds().log_end, Offset(101));
    manager.shutdown().await;
    drop((log, manager));
    let (manager, _) = machine.open();
    assert_eq!(read_all(&find(&manager, 0), Offset(100), 1000).len(), 1);
    manager.shutdown().await;
}

#[tokio::test]
async fn size_keeps_at_least_the_configured_bytes() {
    let machine = Machine::new(21);
    let (manager, _) = machine.open();
    let config = LogConfig {
        retention_ms: None,
        retention_bytes: Some(10_000),
        ..small_segments()
    };
    let log = filled(&manager, config).await;
    let next = boundary(&log, 0, 100).expect("some");
    let left: usize = read_all(&log, Offset(next), 1000)
        .iter()
        .map(|batch| batch.size_bytes())
        .sum();
    assert!((10_000..14_096).contains(&left), "{left}");
    log.set_config(LogConfig {
        delete: false,
        ..small_segments()
    });
    assert_eq!(boundary(&log, 99 * DAY, 100), None);
    manager.shutdown().await;
}

#[tokio::test]
async fn log_start_lets_segments_below_it_go() {
    let machine = Machine::new(22);
    let (manager, _) = machine.open();
    let log = filled(
        &manager,
        LogConfig {
            retention_ms: None,
            ..small_segments()
        },
    )
    .await;
    assert_eq!(boundary(&log, 0, 100), None);
    log.advance_log_start(Offset(31));
    let next = boundary(&log, 0, 100).expect("some");
    assert!(next > 15 && next <= 31, "{next}");
    manager.shutdown().await;
}

#[tokio::test]
async fn records_are_found_by_time() {
    let machine = Machine::new(23);
    let (manager, _) = machine.open();
    let log = filled(&manager, small_segments()).await;
    for reopened in [false, true] {
        let (manager, log) = if reopened {
            manager.shutdown().await;
            let (manager, _) = machine.open();
            let log = find(&manager, 0);
            (manager, log)
        } else {
            (Arc::clone(&manager), Arc::clone(&log))
        };
        let at = |time: i64| {
            let found = log
                .offset_for_timestamp(TimestampMs(time), Offset(100))
                .expect("readable");
            found.map(|found| (found.offset.0, found.timestamp.0))
        };
        for minute in 0..50 {
            let time = minute * 60_000;
            assert_eq!(at(time), Some((minute * 2, time)));
            assert_eq!(at(time + 1), Some((minute * 2 + 1, time + 1)));
        }
        assert_eq!(at(-1), Some((0, 0)));
        assert_eq!(at(49 * 60_000 + 2), None);
        let largest = log
            .max_timestamp(Offset(100))
            .expect("readable")
            .expect("some");
        assert_eq!(
            (largest.offset.0, largest.timestamp.0),
            (99, 49 * 60_000 + 1)
        );
        let below = log
            .max_timestamp(Offset(40))
            .expect("readable")
            .expect("some");
        assert_eq!(below.offset, Offset(39));
        if reopened {
            manager.shutdown().await;
        }
    }
}
