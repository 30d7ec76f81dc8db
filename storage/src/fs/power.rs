//! What every double of a disk must do to what was not synced; run over the one in memory and the one over real files.

use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{File, FileSystem, HostileFs, OpenMode, SECTOR, VolatileFs};
use crate::SyncPoint;

/// Who asks for a sync makes no difference here.
const ANY: SyncPoint = SyncPoint::JournalGroup;

/// A disk whose power can go.
trait Disk {
    fn fs(&self) -> &dyn FileSystem;
    fn root(&self) -> PathBuf;
    fn lose_power(&mut self, seed: u64);
}

impl Disk for HostileFs {
    fn fs(&self) -> &dyn FileSystem {
        self
    }

    fn root(&self) -> PathBuf {
        "/".into()
    }

    fn lose_power(&mut self, seed: u64) {
        self.power_loss(seed);
    }
}

/// Real files; the power goes when the memory over them does.
struct Volatile {
    directory: tempfile::TempDir,
    fs: VolatileFs,
}

impl Disk for Volatile {
    fn fs(&self) -> &dyn FileSystem {
        &self.fs
    }

    fn root(&self) -> PathBuf {
        self.directory.path().to_owned()
    }

    fn lose_power(&mut self, seed: u64) {
        self.fs = VolatileFs::new(seed, None);
    }
}

fn volatile(seed: u64) -> Volatile {
    Volatile {
        directory: tempfile::tempdir().expect("temporary directory"),
        fs: VolatileFs::new(seed, None),
    }
}

impl dyn Disk + '_ {
    /// A directory with a file of ones in it, all of it synced.
    fn with_file(&self, len: usize) -> (PathBuf, Arc<dyn File>) {
        let directory = self.root().join("d");
        self.fs().create_dir_all(&directory).expect("make");
        self.fs().sync_dir(&self.root(), ANY).expect("sync");
        let file = self.create(&directory.join("f"));
        self.fs().sync_dir(&directory, ANY).expect("sync");
        write(&*file, 0, &vec![1; len]);
        file.sync_data(ANY).expect("sync");
        (directory, file)
    }

    fn create(&self, path: &Path) -> Arc<dyn File> {
        self.fs().open(path, OpenMode::CreateNew).expect("new")
    }

    fn read(&self, path: &Path) -> Vec<u8> {
        let file = self.fs().open(path, OpenMode::Read).expect("open");
        let len = file.len().expect("len") as usize;
        file.read_vec(len, 0).expect("read")
    }

    fn has(&self, path: &Path) -> bool {
        self.fs().exists(path).expect("exists")
    }
}

fn write(file: &dyn File, position: u64, bytes: &[u8]) {
    file.write_at(&[IoSlice::new(bytes)], position)
        .expect("write");
}

/// How often `seen` was true over power losses of many seeds.
fn count(
    make: &dyn Fn(u64) -> Box<dyn Disk>,
    mut seen: impl FnMut(&mut dyn Disk, u64) -> bool,
) -> usize {
    (0..SEEDS)
        .filter(|seed| seen(&mut *make(*seed), *seed))
        .count()
}

const SEEDS: u64 = 60;

/// It may happen and it need not.
fn assert_open(what: &str, happened: usize) {
    let range = 2..SEEDS as usize - 2;
    assert!(range.contains(&happened), "{what}: {happened} of {SEEDS}");
}

fn sectors_are_lost_one_by_one(make: &dyn Fn(u64) -> Box<dyn Disk>) {
    let torn = count(make, |disk, seed| {
        let (directory, file) = disk.with_file(16 * SECTOR);
        // In several writes: what reaches the disk by itself does so when there is something to write.
        for at in 0..8 {
            write(&*file, at * SECTOR as u64, &[2; SECTOR]);
        }
        disk.lose_power(seed);
        let bytes = disk.read(&directory.join("f"));
        assert_eq!(bytes[8 * SECTOR..], [1; 8 * SECTOR], "was synced");
        let sectors: Vec<&[u8]> = bytes[..8 * SECTOR].chunks(SECTOR).collect();
        let whole = sectors
            .iter()
            .all(|sector| sector.iter().all(|byte| *byte == sector[0]));
        assert!(whole, "sectors are written whole");
        let new = sectors.iter().filter(|sector| sector[0] == 2).count();
        (1..8).contains(&new)
    });
    assert!(
        torn > 5,
        "only {torn} of {SEEDS} power losses tore the writes"
    );
}

fn what_was_synced_stays(make: &dyn Fn(u64) -> Box<dyn Disk>) {
    count(make, |disk, seed| {
        let (directory, file) = disk.with_file(700);
        write(&*file, 300, &[2; 1000]);
        file.set_len(1100).expect("cut");
        write(&*file, 1500, &[3; 10]);
        file.sync_data(ANY).expect("sync");
        let expected = disk.read(&directory.join("f"));
        assert_eq!(
            (expected.len(), expected[1099], expected[1100]),
            (1510, 2, 0)
        );
        disk.lose_power(seed);
        assert_eq!(disk.read(&directory.join("f")), expected);
        true
    });
}

fn sizes_may_be_lost(make: &dyn Fn(u64) -> Box<dyn Disk>) {
    let cut = count(make, |disk, seed| {
        let (directory, file) = disk.with_file(8 * SECTOR);
        file.set_len(SECTOR as u64).expect("cut");
        file.start_write_back(0, SECTOR as u64).expect("hint");
        disk.lose_power(seed);
        let bytes = disk.read(&directory.join("f"));
        assert_eq!(bytes[..SECTOR], [1; SECTOR]);
        bytes.len() == SECTOR
    });
    assert_open("a file stays cut", cut);
    let grown = count(make, |disk, seed| {
        let (directory, file) = disk.with_file(SECTOR);
        for at in 1..9 {
            write(&*file, at * SECTOR as u64, &[2; SECTOR]);
        }
        disk.lose_power(seed);
        disk.read(&directory.join("f")).len() == 9 * SECTOR
    });
    assert_open("a file stays grown", grown);
}

fn names_may_be_lost(make: &dyn Fn(u64) -> Box<dyn Disk>) {
    let mut kept = [0; 4];
    for seed in 0..SEEDS {
        let disk = &mut *make(seed);
        let (directory, _) = disk.with_file(1);
        let at = |name: &str| directory.join(name);
        drop(disk.create(&at("other")));
        disk.fs().sync_dir(&directory, ANY).expect("sync");
        disk.fs().remove_file(&at("other")).expect("remove");
        disk.create(&at("new")).sync_data(ANY).expect("sync");
        disk.fs().rename(&at("f"), &at("moved")).expect("rename");
        disk.fs().create_dir_all(&at("below")).expect("make");
        disk.lose_power(seed);
        assert_ne!(disk.has(&at("f")), disk.has(&at("moved")), "atomic");
        let found = ["other", "new", "moved", "below"].map(|name| disk.has(&at(name)));
        (kept.iter_mut().zip(found)).for_each(|(kept, found)| *kept += usize::from(found));
    }
    let [other, new, moved, below] = kept;
    assert_open("a removed file is back", other);
    assert_open("the sync of a file keeps no name", new);
    assert_open("a file is moved", moved);
    assert_open("a directory is kept", below);
}

fn synced_names_stay(make: &dyn Fn(u64) -> Box<dyn Disk>) {
    count(make, |disk, seed| {
        let (directory, _) = disk.with_file(10);
        let below = directory.join("a/b");
        disk.fs().create_dir_all(&below).expect("make");
        write(&*disk.create(&below.join("x")), 0, &[7; 10]);
        let file = disk.create(&below.join("y"));
        write(&*file, 0, &[7; 10]);
        file.sync_data(ANY).expect("sync");
        // From below, as a tree is made that counts once its root does.
        for path in [&*below, &directory.join("a"), &*directory] {
            disk.fs().sync_dir(path, ANY).expect("sync");
        }
        disk.fs().remove_file(&below.join("x")).expect("remove");
        disk.fs()
            .rename(&directory.join("f"), &directory.join("g"))
            .expect("rename");
        disk.fs().sync_dir(&below, ANY).expect("sync");
        disk.fs().sync_dir(&directory, ANY).expect("sync");
        disk.lose_power(seed);
        assert_eq!(disk.fs().list(&below).expect("list"), ["y"]);
        assert_eq!(disk.read(&below.join("y")), [7; 10]);
        assert_eq!(disk.read(&directory.join("g")), [1; 10]);
        assert!(!disk.has(&directory.join("f")));
        true
    });
}

fn a_file_without_a_synced_name_has_no_contents(make: &dyn Fn(u64) -> Box<dyn Disk>) {
    count(make, |disk, seed| {
        let (directory, _) = disk.with_file(1);
        let path = directory.join("late");
        let file = disk.create(&path);
        write(&*file, 0, &[4; SECTOR]);
        file.sync_data(ANY).expect("sync");
        disk.fs().sync_dir(&directory, ANY).expect("sync");
        drop(file);
        disk.lose_power(seed);
        assert_eq!(disk.read(&path), [4; SECTOR]);
        true
    });
}

fn check(make: &dyn Fn(u64) -> Box<dyn Disk>) {
    what_was_synced_stays(make);
    sectors_are_lost_one_by_one(make);
    sizes_may_be_lost(make);
    names_may_be_lost(make);
    synced_names_stay(make);
    a_file_without_a_synced_name_has_no_contents(make);
}

#[test]
fn hostile_file_system_loses_what_was_not_synced() {
    check(&|seed| Box::new(HostileFs::new(seed)));
}

#[test]
fn volatile_file_system_loses_what_was_not_synced() {
    check(&|seed| Box::new(volatile(seed)));
}
