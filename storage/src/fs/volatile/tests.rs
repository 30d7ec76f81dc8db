//! What is seen over the disk is what a disk without memory over it would show.

use std::io::IoSlice;

use super::*;

const ANY: SyncPoint = SyncPoint::JournalGroup;

/// A file as it must be.
struct Twin {
    path: std::path::PathBuf,
    bytes: Vec<u8>,
    synced: Vec<u8>,
}

impl Twin {
    fn step(&mut self, file: &dyn File, random: &mut Random) {
        let at = random.below(5000);
        match random.below(10) {
            0..6 => {
                let bytes = vec![random.next() as u8; random.below(1500)];
                let (begin, end) = bytes.split_at(bytes.len() / 3);
                let slices = [IoSlice::new(begin), IoSlice::new(end)];
                file.write_at(&slices, at as u64).expect("write");
                if !bytes.is_empty() {
                    self.bytes.resize(self.bytes.len().max(at + bytes.len()), 0);
                    self.bytes[at..at + bytes.len()].copy_from_slice(&bytes);
                }
            }
            6 => {
                file.set_len(at as u64).expect("cut or extend");
                self.bytes.resize(at, 0);
            }
            7 => file.start_write_back(0, 5000).expect("hint"),
            8 => {
                let len = random.below(2000);
                let found = file.read_vec(len, at as u64).expect("read");
                let tail = self.bytes.get(at..).unwrap_or_default();
                assert_eq!(found, tail[..len.min(tail.len())]);
            }
            _ => {
                file.sync_data(ANY).expect("sync");
                self.synced = self.bytes.clone();
            }
        }
    }
}

fn contents(fs: &VolatileFs, path: &Path) -> Vec<u8> {
    let file = fs.open(path, OpenMode::Read).expect("open");
    let len = file.len().expect("len") as usize;
    file.read_vec(len, 0).expect("read")
}

#[test]
fn what_was_written_is_seen_however_much_of_it_is_on_the_disk() {
    let directory = tempfile::tempdir().expect("temporary directory");
    for seed in 0..40 {
        let mut random = Random::new(seed);
        let path = directory.path().join(format!("{seed}"));
        let mut fs = VolatileFs::new(seed, None);
        let mut twin = Twin {
            path,
            bytes: Vec::new(),
            synced: Vec::new(),
        };
        for life in 0..4 {
            let file = fs.open(&twin.path, OpenMode::CreateOrOpen).expect("open");
            for step in 0..60 {
                twin.step(&*file, &mut random);
                if step == 30 {
                    fs.sync_dir(directory.path(), ANY).expect("sync");
                }
            }
            assert_eq!(
                contents(&fs, &twin.path),
                twin.bytes,
                "seed {seed}, life {life}"
            );
            file.sync_data(ANY).expect("sync");
            drop(file);
            fs = VolatileFs::new(seed, None);
            assert_eq!(
                contents(&fs, &twin.path),
                twin.bytes,
                "seed {seed}, life {life}"
            );
        }
    }
}

#[test]
fn the_sync_that_is_left_out_does_nothing_and_the_others_do() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let left_out = SyncPoint::SegmentRecords;
    // A seed whose write-back leaves these few operations alone would be luck: what was not synced must be able to go.
    let lost = (0..20).filter(|seed| {
        let path = directory.path().join(format!("{seed}"));
        let fs = VolatileFs::new(*seed, Some(left_out));
        let file = fs.open(&path, OpenMode::CreateNew).expect("new");
        fs.sync_dir(directory.path(), ANY).expect("sync");
        file.write_at(&[IoSlice::new(&[1; 10])], 0).expect("write");
        file.sync_data(ANY).expect("sync");
        file.write_at(&[IoSlice::new(&[2; 10])], 0).expect("write");
        file.sync_data(left_out).expect("is left out");
        let found = contents(&VolatileFs::new(0, None), &path);
        assert!(found == [1; 10] || found == [2; 10]);
        found == [1; 10]
    });
    assert!(lost.count() > 10);
}

#[test]
fn files_that_nobody_has_open_hold_no_descriptors() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let fs = VolatileFs::new(1, None);
    let held = || std::fs::read_dir("/proc/self/fd").expect("list").count();
    let before = held();
    for number in 0..200 {
        let path = directory.path().join(format!("{number}"));
        let file = fs.open(&path, OpenMode::CreateNew).expect("new");
        file.write_at(&[IoSlice::new(b"x")], 0).expect("write");
        file.sync_data(ANY).expect("sync");
    }
    fs.sync_dir(directory.path(), ANY).expect("sync");
    // Other tests of this process open files, too.
    assert!(held() < before + 100, "{} after {before}", held());
}
