//! Files of a log that are not of the history that counts: left by what was cut, or written behind the checkpoint.

use std::path::Path;

use super::*;
use crate::fs::OpenMode;

fn folder(machine: &Machine) -> PathBuf {
    let topics = Path::new("/data/topics");
    let names = machine.fs.list(topics).expect("is there");
    topics.join(names.first().expect("has files"))
}

/// Makes all that was written to the log's files durable, as a kernel may at any time.
fn write_back(machine: &Machine) {
    let folder = folder(machine);
    for name in machine.fs.list(&folder).expect("is there") {
        let file = machine.fs.open(&folder.join(name), OpenMode::Write);
        file.expect("opens")
            .sync_data(SyncPoint::SegmentRecords)
            .expect("syncs");
    }
    let synced = machine.fs.sync_dir(&folder, SyncPoint::SegmentNames);
    synced.expect("syncs");
}

async fn append_numbered(log: &PartitionLog, count: i32, bytes: usize) {
    for _ in 0..count {
        let at = log.bounds().last.index.0.to_be_bytes();
        append_batches(log, vec![batch_at(1, 1, &at.repeat(bytes / 8))]).await;
    }
}

#[tokio::test]
async fn a_segment_from_behind_a_cut_does_not_make_purged_the_one_before_it() {
    let machine = Machine::new(50);
    let (manager, _) = machine.open();
    let log = make(&manager, 0, small_segments());
    append_numbered(&log, 30, 304).await;
    log.purge_to(EntryIndex(5)).await.expect("is done");
    manager.shutdown().await;
    let (manager, _) = machine.open();
    let log = find(&manager, 0);
    // The cut ends where the purge did, and what is appended begins a segment right behind it.
    log.truncate_after(EntryIndex(5)).await.expect("is done");
    append_numbered(&log, 1, 4000).await;
    append_numbered(&log, 3, 304).await;
    log.flush().expect("is written");
    write_back(&machine);
    let bounds = log.bounds();
    drop(log);
    machine.crash(manager, 51);
    let (manager, report) = machine.open();
    assert_eq!(report.stopped, vec![]);
    let log = find(&manager, 0);
    assert_eq!(log.bounds().last, bounds.last);
    assert_eq!(read_all(&log, Offset(5), 9000).len(), 4);
    let position = log.position_at(EntryIndex(5)).expect("is held");
    assert_eq!(position.next_offset, Offset(5));
    manager.shutdown().await;
}

#[tokio::test]
async fn what_was_left_under_the_name_of_an_empty_segment_is_not_read() {
    let machine = Machine::new(52);
    let (manager, _) = machine.open();
    let log = make(&manager, 0, small_segments());
    append_numbered(&log, 11, 304).await;
    log.purge_to(EntryIndex(11)).await.expect("is done");
    manager.shutdown().await;
    let name = format!("{:020}.{:020}.entries", 11, 12);
    let left = machine
        .fs
        .open(&folder(&machine).join(name), OpenMode::CreateNew);
    let left = left.expect("the active segment has no files");
    let rubbish = vec![0xaa; 9000];
    left.write_at(&[std::io::IoSlice::new(&rubbish)], 0)
        .expect("is written");
    let (manager, _) = machine.open();
    let log = find(&manager, 0);
    append_numbered(&log, 30, 304).await;
    manager.shutdown().await;
    let (manager, report) = machine.open();
    assert_eq!(report.stopped, vec![]);
    let log = find(&manager, 0);
    let mut next = 12;
    while next <= 41 {
        let entries = log.entries(EntryIndex(next), EntryIndex(42), 1 << 20);
        next += entries.expect("are held").len() as u64;
    }
    manager.shutdown().await;
}

/// A segment that was purged is back after a power loss, with records that were never synced. The next purge, which the
/// journal alone holds, drops it as it is.
#[tokio::test]
async fn what_an_earlier_purge_left_is_not_read_by_a_later_one() {
    let machine = Machine::new(53);
    let (manager, _) = machine.open();
    let log = make(&manager, 0, small_segments());
    append_numbered(&log, 5, 304).await;
    log.flush().expect("is written");
    let files = ["entries", "log"].map(|kind| {
        let names = machine.fs.list(&folder(&machine)).expect("is there");
        let name = names.into_iter().find(|name| name.ends_with(kind));
        let path = folder(&machine).join(name.expect("is written"));
        let file = machine.fs.open(&path, OpenMode::Read).expect("opens");
        let bytes = file.len().expect("is known") as usize;
        (path, file.read_vec(bytes, 0).expect("is read"))
    });
    log.purge_to(EntryIndex(5)).await.expect("is done");
    manager.shutdown().await;
    let (manager, _) = machine.open();
    let log = find(&manager, 0);
    append_numbered(&log, 3, 304).await;
    log.purge_to(EntryIndex(7)).await.expect("is done");
    drop(log);
    machine.kill(manager, 54);
    let [entries, (records, bytes)] = files;
    for (path, bytes) in [entries, (records, vec![0xaa; bytes.len()])] {
        let left = machine.fs.open(&path, OpenMode::CreateNew);
        let written = left
            .expect("was removed")
            .write_at(&[std::io::IoSlice::new(&bytes)], 0);
        written.expect("is written");
    }
    let (manager, report) = machine.open();
    assert_eq!(report.stopped, vec![]);
    assert_eq!(find(&manager, 0).bounds().last.index, EntryIndex(8));
    manager.shutdown().await;
}
