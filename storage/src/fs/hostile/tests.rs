//! The hostile file system is hostile, and only where it may be.

use super::*;
use crate::fs::SECTOR;

const FILE: &str = "/d/f";
/// Who asks for a sync makes no difference here.
const ANY: SyncPoint = SyncPoint::JournalGroup;

fn with_synced_file(seed: u64, len: usize) -> (HostileFs, Arc<dyn File>) {
    let fs = HostileFs::new(seed);
    fs.create_dir_all(Path::new("/d")).expect("make");
    fs.sync_dir(Path::new("/"), ANY).expect("sync");
    let file = fs.open(Path::new(FILE), OpenMode::CreateNew).expect("new");
    fs.sync_dir(Path::new("/d"), ANY).expect("sync");
    file.write_at(&[io::IoSlice::new(&vec![1; len])], 0)
        .expect("write");
    file.sync_data(ANY).expect("sync");
    (fs, file)
}

fn read(fs: &HostileFs) -> Vec<u8> {
    let file = fs.open(Path::new(FILE), OpenMode::Read).expect("open");
    let mut bytes = vec![0; file.len().expect("len") as usize];
    file.read_at(&mut bytes, 0).expect("read");
    bytes
}

#[test]
fn synced_data_survives_and_unsynced_sectors_go_one_by_one() {
    let mut mixed = 0;
    for seed in 0..50 {
        let (fs, file) = with_synced_file(seed, 8192);
        file.write_at(&[io::IoSlice::new(&[2; 4096])], 0)
            .expect("write");
        fs.power_loss(seed);
        assert!(file.sync_data(ANY).is_err(), "a handle from before is dead");
        let bytes = read(&fs);
        assert!(bytes[4096..].iter().all(|byte| *byte == 1));
        let sectors: Vec<u8> = bytes[..4096]
            .chunks(SECTOR)
            .map(|sector| sector[0])
            .collect();
        assert!(
            bytes[..4096]
                .chunks(SECTOR)
                .all(|sector| sector.iter().all(|byte| *byte == sector[0]))
        );
        mixed += usize::from(sectors.contains(&1) && sectors.contains(&2));
    }
    assert!(mixed > 5, "only {mixed} of 50 power losses tore the write");
}

#[test]
fn names_that_were_not_synced_may_be_lost() {
    let (mut lost, mut kept) = (0, 0);
    for seed in 0..50 {
        let (fs, _file) = with_synced_file(seed, 1);
        fs.open(Path::new("/d/new"), OpenMode::CreateNew)
            .expect("new");
        fs.rename(Path::new(FILE), Path::new("/d/moved"))
            .expect("rename");
        fs.power_loss(seed);
        let names = fs.list(Path::new("/d")).expect("list");
        assert_ne!(
            names.contains(&"f".to_owned()),
            names.contains(&"moved".to_owned()),
            "{names:?}"
        );
        lost += usize::from(!names.contains(&"new".to_owned()));
        kept += usize::from(names.contains(&"moved".to_owned()));
    }
    assert!(lost > 5 && kept > 5, "{lost} lost, {kept} kept");
}

#[test]
fn a_failed_sync_loses_what_it_was_to_write_for_good() {
    let (fs, file) = with_synced_file(3, 512);
    file.write_at(&[io::IoSlice::new(&[2; 512])], 0)
        .expect("write");
    fs.refuse(Operation::Sync, 0);
    assert!(file.sync_data(ANY).is_err());
    file.sync_data(ANY).expect("the next one lies");
    fs.power_loss(3);
    assert_eq!(read(&fs), [1; 512]);
}

#[test]
fn the_power_goes_at_the_operation_that_was_asked_for() {
    let (fs, file) = with_synced_file(3, 512);
    fs.cut_power_after(1);
    file.write_at(&[io::IoSlice::new(&[2; 512])], 0)
        .expect("before");
    assert!(file.sync_data(ANY).is_err(), "during");
    assert!(
        file.write_at(&[io::IoSlice::new(&[2; 512])], 0).is_err(),
        "after"
    );
    assert!(fs.list(Path::new("/d")).is_err());
    fs.power_loss(1);
    assert_eq!(read(&fs).len(), 512);
}

#[test]
fn space_runs_out_and_comes_back() {
    let (fs, file) = with_synced_file(3, 512);
    fs.set_space(Some(1024));
    file.write_at(&[io::IoSlice::new(&[2; 512])], 512)
        .expect("fits");
    let full = file
        .write_at(&[io::IoSlice::new(&[2; 512])], 1024)
        .expect_err("full");
    assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    file.write_at(&[io::IoSlice::new(&[3; 1024])], 0)
        .expect("overwriting needs no space");
    file.set_len(100).expect("cut");
    file.write_at(&[io::IoSlice::new(&[2; 512])], 512)
        .expect("fits again");
    fs.remove_file(Path::new(FILE)).expect("remove");
    fs.sync_dir(Path::new("/d"), ANY).expect("sync");
    drop(file);
    assert_eq!(
        fs.space(Path::new("/")).expect("space").available_bytes,
        1024
    );
}

#[test]
fn bits_flip_where_they_are_told_to() {
    let (fs, _file) = with_synced_file(3, 512);
    fs.flip_bit(Path::new(FILE), 100, 3).expect("flip");
    fs.power_loss(1);
    assert_eq!(read(&fs)[100], 1 ^ 8);
}

#[test]
fn files_run_out_and_open_ones_go_on() {
    let (fs, file) = with_synced_file(3, 512);
    fs.set_out_of_files(true);
    let refused = fs
        .open(Path::new(FILE), OpenMode::Read)
        .expect_err("no more");
    assert!(crate::fs::is_want_of_room(&refused), "{refused}");
    let mut byte = [0];
    assert_eq!(file.read_at(&mut byte, 0).expect("read"), 1);
    fs.set_out_of_files(false);
    assert_eq!(read(&fs), [1; 512]);
}

#[test]
fn a_kill_leaves_what_was_written_and_the_next_power_loss_takes_it() {
    let lost = (0..50).filter(|seed| {
        let (fs, file) = with_synced_file(*seed, 512);
        assert!(file.try_lock().expect("lock"));
        file.write_at(&[io::IoSlice::new(&[2; 512])], 0)
            .expect("write");
        fs.kill(*seed);
        assert!(file.sync_data(ANY).is_err(), "a handle from before is dead");
        assert_eq!(read(&fs), [2; 512]);
        let next = fs.open(Path::new(FILE), OpenMode::Write).expect("open");
        assert!(next.try_lock().expect("lock"), "locks end with the process");
        fs.power_loss(*seed);
        read(&fs) == [1; 512]
    });
    let lost = lost.count();
    assert!((5..45).contains(&lost), "{lost} of 50");
}

#[test]
fn the_sync_that_is_left_out_does_nothing_and_the_others_do() {
    for left_out in [None, Some(SyncPoint::SegmentRecords)] {
        let lost = (0..50).filter(|seed| {
            let (fs, file) = with_synced_file(*seed, 512);
            fs.leave_out(left_out);
            file.write_at(&[io::IoSlice::new(&[2; 512])], 0)
                .expect("write");
            file.sync_data(SyncPoint::SegmentRecords).expect("sync");
            fs.power_loss(*seed);
            read(&fs) == [1; 512]
        });
        assert_eq!(lost.count() > 0, left_out.is_some());
    }
}
