//! Files that are not what they were.

use std::path::Path;

use super::*;

async fn stopped_machine(seed: u64) -> Machine {
    let machine = Machine::new(seed);
    let (manager, _) = machine.open();
    for partition in 0..2 {
        let log = make(&manager, partition, small_segments());
        for at in 0..30 {
            append_batches(&log, vec![batch_of(1, at, 1, &[9; 300])]).await;
        }
    }
    manager.shutdown().await;
    machine
}

/// Path of a file of partition 0.
fn file(machine: &Machine, suffix: &str, last: bool) -> PathBuf {
    let topics = Path::new("/data/topics");
    let folders = machine.fs.list(topics).expect("is there");
    let folder = folders
        .iter()
        .find(|name| name.starts_with("orders-0."))
        .expect("has files");
    let mut names = machine.fs.list(&topics.join(folder)).expect("is there");
    names.retain(|name| name.ends_with(suffix));
    names.sort();
    let name = if last { names.last() } else { names.first() };
    topics.join(folder).join(name.expect("has such a file"))
}

#[tokio::test]
async fn a_damaged_batch_stops_its_log_and_no_other() {
    let machine = stopped_machine(40).await;
    let path = file(&machine, ".log", false);
    machine.fs.flip_bit(&path, 300, 3).expect("is there");
    let (manager, report) = machine.open();
    assert!(report.stopped.is_empty(), "nobody looked yet");
    let log = find(&manager, 0);
    assert!(
        log.read_blocking(Offset(0), Offset(30), 600, true).is_ok(),
        "fetch passes bytes on"
    );
    let error = log
        .entries(EntryIndex(1), EntryIndex(5), 1 << 20)
        .err()
        .expect("is noticed");
    let text = error.to_string();
    assert!(
        text.contains(
            path.strip_prefix("/data")
                .expect("below")
                .to_str()
                .expect("text")
        ),
        "{text}"
    );
    assert!(log.stopped().is_some());
    assert!(matches!(
        append(&log, vec![]).await,
        Err(LogError::Stopped(_))
    ));
    let other = find(&manager, 1);
    append_batches(&other, vec![batch_at(1, 1, b"x")]).await;
    assert_eq!(read_all(&other, Offset(0), 900).len(), 31);
    manager.shutdown().await;
}

#[tokio::test]
async fn a_damaged_side_file_stops_its_log_with_file_and_position() {
    let machine = stopped_machine(41).await;
    let path = file(&machine, ".entries", true);
    machine.fs.flip_bit(&path, 100, 0).expect("is there");
    let (manager, _) = machine.open();
    let error = append(&find(&manager, 0), vec![])
        .await
        .expect_err("is noticed");
    assert!(error.to_string().contains("byte 64"), "{error}");
    append_batches(&find(&manager, 1), vec![batch_at(1, 1, b"x")]).await;
    manager.shutdown().await;
}

#[tokio::test]
async fn a_cut_file_stops_its_log() {
    for suffix in [".log", ".entries"] {
        let machine = stopped_machine(42).await;
        let path = file(&machine, suffix, true);
        let open = machine
            .fs
            .open(&path, crate::fs::OpenMode::Write)
            .expect("is there");
        open.set_len(open.len().expect("known") - 1)
            .expect("is cut");
        let (manager, _) = machine.open();
        let error = append(&find(&manager, 0), vec![])
            .await
            .expect_err("is noticed");
        assert!(matches!(error, LogError::Corrupt { .. }), "{error}");
        manager.shutdown().await;
    }
}

#[tokio::test]
async fn indexes_and_snapshots_are_not_relied_on() {
    for suffix in [".index", ".timeindex", ".snapshot"] {
        for remove in [false, true] {
            let machine = stopped_machine(43).await;
            let path = file(&machine, suffix, false);
            if remove {
                machine.fs.remove_file(&path).expect("is there");
            } else {
                let open = machine
                    .fs
                    .open(&path, crate::fs::OpenMode::Write)
                    .expect("is there");
                let bytes = vec![0x5a; usize::try_from(open.len().expect("known")).expect("small")];
                open.write_at(&[io::IoSlice::new(&bytes)], 0)
                    .expect("is written");
            }
            let (manager, _) = machine.open();
            let log = find(&manager, 0);
            assert_eq!(read_all(&log, Offset(0), 700).len(), 30, "{suffix}");
            for index in 1..=30 {
                let held = log
                    .entries(EntryIndex(index), EntryIndex(index + 1), 1)
                    .expect("held");
                assert_eq!(held[0].id.index, EntryIndex(index), "{suffix}");
            }
            log.truncate_after(EntryIndex(5)).await.expect("is cut");
            let last = log.producers().expect("known").producers()[0].last_sequence;
            assert_eq!(last, Sequence(4), "{suffix}");
            manager.shutdown().await;
        }
    }
}

#[tokio::test]
async fn a_failed_write_stops_the_log_and_no_other() {
    let machine = Machine::new(44);
    let (manager, _) = machine.open();
    let (log, other) = (
        make(&manager, 0, small_segments()),
        make(&manager, 1, small_segments()),
    );
    append_batches(&log, vec![batch_at(1, 1, b"x")]).await;
    append_batches(&other, vec![batch_at(1, 1, b"x")]).await;
    log.stop(LogError::Io("a test says so".into()));
    assert!(log.check_writable().is_err());
    for _ in 0..600 {
        append_batches(&other, vec![batch_at(1, 1, &[1; 400])]).await;
    }
    drop((log, other));
    machine.crash(manager, 45);
    let (manager, report) = machine.open();
    assert!(report.stopped.is_empty(), "{:?}", report.stopped);
    assert_eq!(
        find(&manager, 0).bounds().log_end,
        Offset(1),
        "kept in the journal's side file"
    );
    assert_eq!(find(&manager, 1).bounds().log_end, Offset(601));
    manager.shutdown().await;
}

#[tokio::test]
async fn records_are_refused_at_the_reserve() {
    let machine = Machine::new(46);
    machine.fs.set_space(Some(1 << 20));
    let mut options = machine.options();
    options.reserve = SpaceReserve {
        per_mille: 900,
        bytes_max: 1 << 30,
    };
    let (manager, _) = LogManager::open(options).expect("opens");
    let log = make(&manager, 0, LogConfig::default());
    assert!(matches!(log.check_writable(), Err(LogError::NoSpace(_))));
    append(&log, vec![entry(1, 1, opaque("may use the reserve"))])
        .await
        .expect("is appended");
    machine.fs.set_space(None);
    tokio::time::sleep(std::time::Duration::from_millis(1200)).await;
    log.check_writable().expect("there is space again");
    manager.shutdown().await;
}
