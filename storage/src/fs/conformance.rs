//! What every file system must do; run over the machine's and its doubles.

use std::io::{self, IoSlice};
use std::path::Path;

use std::sync::Arc;

use super::{FileSystem, HostileFs, OpenMode, OverlayFs, RealFs, VolatileFs};
use crate::SyncPoint;

/// Who asks for a sync makes no difference here.
const ANY: SyncPoint = SyncPoint::JournalGroup;

fn read_all(fs: &dyn FileSystem, path: &Path) -> Vec<u8> {
    let file = fs.open(path, OpenMode::Read).expect("open");
    let mut bytes = vec![0; file.len().expect("len") as usize + 10];
    let read = file.read_at(&mut bytes, 0).expect("read");
    bytes.truncate(read);
    bytes
}

fn write_all(fs: &dyn FileSystem, path: &Path, bytes: &[u8]) {
    let file = fs.open(path, OpenMode::CreateOrOpen).expect("open");
    file.set_len(0).expect("cut");
    file.write_at(&[IoSlice::new(bytes)], 0).expect("write");
    file.sync_data(ANY).expect("sync");
}

fn kind<T>(result: io::Result<T>) -> Option<io::ErrorKind> {
    result.err().map(|error| error.kind())
}

fn files_are_opened_by_mode(fs: &dyn FileSystem, root: &Path) {
    let path = root.join("modes");
    assert_eq!(
        kind(fs.open(&path, OpenMode::Read)),
        Some(io::ErrorKind::NotFound)
    );
    assert_eq!(
        kind(fs.open(&path, OpenMode::Write)),
        Some(io::ErrorKind::NotFound)
    );
    assert!(!fs.exists(&path).expect("exists"));
    fs.open(&path, OpenMode::CreateNew).expect("new");
    assert_eq!(
        kind(fs.open(&path, OpenMode::CreateNew)),
        Some(io::ErrorKind::AlreadyExists)
    );
    assert!(fs.exists(&path).expect("exists"));
    let read_only = fs.open(&path, OpenMode::Read).expect("read");
    assert!(read_only.write_at(&[IoSlice::new(b"x")], 0).is_err());
    let both = fs.open(&path, OpenMode::CreateOrOpen).expect("open");
    both.write_at(&[IoSlice::new(b"x")], 0).expect("write");
    assert_eq!(read_all(fs, &path), b"x");
    assert!(
        fs.open(&root.join("none/file"), OpenMode::CreateNew)
            .is_err()
    );
    assert!(fs.open(&root.join("modes/file"), OpenMode::Read).is_err());
}

fn writes_gather_and_reads_end_with_the_file(fs: &dyn FileSystem, root: &Path) {
    let file = fs
        .open(&root.join("bytes"), OpenMode::CreateNew)
        .expect("new");
    // More slices than one system call takes, with empty ones between.
    let pieces: Vec<Vec<u8>> = (0..3000_usize)
        .map(|i| vec![(i % 251) as u8; i % 3])
        .collect();
    let slices: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
    let whole = pieces.concat();
    file.write_at(&slices, 5000).expect("write");
    let read = |len, at| file.read_vec(len, at).expect("read");
    assert_eq!(read(whole.len(), 5000), whole);
    assert_eq!(read(whole.len(), 5003), whole[3..], "the file ends");
    assert_eq!(read(7, 5003), whole[3..10], "no more than asked for");
    // What was just written is in memory, if the file system can say so at all.
    for (len, at) in [(whole.len(), 5000), (7, 5003), (5000, 0)] {
        let found = file.try_read_vec(len, at);
        assert!(found.is_none_or(|found| found == read(len, at)));
    }
    assert_eq!(
        file.try_read_vec(whole.len() + 1, 5000),
        None,
        "all or nothing"
    );
    file.write_at(&[], 0).expect("nothing");
    assert_eq!(file.len().expect("len"), 5000 + whole.len() as u64);
    let mut bytes = vec![1; 5000 + whole.len() + 7];
    assert_eq!(
        file.read_at(&mut bytes, 0).expect("read"),
        5000 + whole.len()
    );
    assert!(
        bytes[..5000].iter().all(|byte| *byte == 0),
        "a hole reads as zeros"
    );
    assert_eq!(bytes[5000..5000 + whole.len()], whole);
    assert_eq!(file.read_at(&mut bytes, 1 << 30).expect("read"), 0);
}

fn lengths_cut_and_extend(fs: &dyn FileSystem, root: &Path) {
    let path = root.join("len");
    write_all(fs, &path, &[7; 2000]);
    let file = fs.open(&path, OpenMode::Write).expect("open");
    file.set_len(700).expect("cut");
    file.set_len(1500).expect("extend");
    file.sync_data(ANY).expect("sync");
    file.start_write_back(0, 1500).expect("hint");
    let bytes = read_all(fs, &path);
    assert_eq!(bytes.len(), 1500);
    assert!(bytes[..700].iter().all(|byte| *byte == 7));
    assert!(
        bytes[700..].iter().all(|byte| *byte == 0),
        "what was cut off does not come back"
    );
}

fn names_move_and_go(fs: &dyn FileSystem, root: &Path) {
    let dir = root.join("a/b/c");
    fs.create_dir_all(&dir).expect("make");
    fs.create_dir_all(&dir).expect("again");
    write_all(fs, &dir.join("one"), b"1");
    write_all(fs, &dir.join("two"), b"2");
    let open = fs.open(&dir.join("two"), OpenMode::Read).expect("open");
    fs.rename(&dir.join("one"), &dir.join("two"))
        .expect("replace");
    assert_eq!(read_all(fs, &dir.join("two")), b"1");
    let mut byte = [0];
    assert_eq!(
        open.read_at(&mut byte, 0)
            .expect("an open file outlives its name"),
        1
    );
    assert_eq!(&byte, b"2");
    assert_eq!(fs.list(&dir).expect("list"), ["two"]);
    fs.sync_dir(&dir, ANY).expect("sync");
    fs.rename(&dir.join("two"), &root.join("a/three"))
        .expect("to another directory");
    assert!(fs.list(&dir).expect("list").is_empty());
    assert_eq!(read_all(fs, &root.join("a/three")), b"1");
    fs.remove_file(&root.join("a/three")).expect("remove");
    assert_eq!(
        kind(fs.remove_file(&root.join("a/three"))),
        Some(io::ErrorKind::NotFound)
    );
    assert_eq!(
        kind(fs.rename(&root.join("a/three"), &dir.join("x"))),
        Some(io::ErrorKind::NotFound)
    );
    fs.remove_dir_all(&root.join("a")).expect("remove all");
    assert!(!fs.exists(&dir).expect("exists"));
    assert_eq!(kind(fs.list(&dir)), Some(io::ErrorKind::NotFound));
    assert!(fs.space(root).expect("space").available_bytes > 0);
}

fn locks_are_of_one_open(fs: &dyn FileSystem, root: &Path) {
    let path = root.join("lock");
    let first = fs.open(&path, OpenMode::CreateOrOpen).expect("open");
    let second = fs.open(&path, OpenMode::CreateOrOpen).expect("open");
    assert!(first.try_lock().expect("lock"));
    assert!(first.try_lock().expect("lock"), "has it already");
    assert!(!second.try_lock().expect("lock"), "another open has it");
    drop(first);
    assert!(second.try_lock().expect("lock"), "it ended with its open");
    second
        .write_at(&[IoSlice::new(b"mine")], 0)
        .expect("a lock keeps nobody from writing");
    assert_eq!(read_all(fs, &path), b"mine");
}

fn what_is_not_there_is_said(fs: &dyn FileSystem, root: &Path) {
    let nothing = root.join("nothing");
    let missing = Some(io::ErrorKind::NotFound);
    assert_eq!(kind(fs.list(&nothing)), missing);
    assert_eq!(kind(fs.sync_dir(&nothing, ANY)), missing);
    assert_eq!(kind(fs.remove_dir_all(&nothing)), missing);
    assert_eq!(
        kind(fs.open(&nothing.join("f"), OpenMode::CreateOrOpen)),
        missing
    );
    assert!(!fs.exists(&nothing.join("f")).expect("exists"));
    write_all(fs, &nothing, b"now");
    assert_eq!(
        kind(fs.open(&nothing, OpenMode::CreateNew)),
        Some(io::ErrorKind::AlreadyExists)
    );
    assert!(
        fs.create_dir_all(&nothing).is_err(),
        "a file is no directory"
    );
    assert!(fs.create_dir_all(&nothing.join("below")).is_err());
}

fn removed_files_are_new_when_they_are_made_again(fs: &dyn FileSystem, root: &Path) {
    let directory = root.join("again");
    for round in 0..3_u8 {
        fs.create_dir_all(&directory).expect("make");
        let path = directory.join("f");
        write_all(fs, &path, &[round; 100]);
        fs.remove_file(&path).expect("remove");
        let file = fs.open(&path, OpenMode::CreateNew).expect("new");
        assert_eq!(file.len().expect("len"), 0);
        file.write_at(&[IoSlice::new(&[round])], 0).expect("write");
        file.sync_data(ANY).expect("sync");
        fs.sync_dir(&directory, ANY).expect("sync");
        assert_eq!(read_all(fs, &path), [round]);
        fs.remove_dir_all(&directory).expect("remove all");
        assert!(!fs.exists(&path).expect("exists"));
    }
}

fn check(fs: &dyn FileSystem, root: &Path) {
    fs.create_dir_all(root).expect("root");
    files_are_opened_by_mode(fs, root);
    writes_gather_and_reads_end_with_the_file(fs, root);
    lengths_cut_and_extend(fs, root);
    names_move_and_go(fs, root);
    locks_are_of_one_open(fs, root);
    what_is_not_there_is_said(fs, root);
    removed_files_are_new_when_they_are_made_again(fs, root);
}

#[test]
fn real_file_system_conforms() {
    let directory = tempfile::tempdir().expect("temporary directory");
    check(&RealFs, directory.path());
}

#[test]
fn volatile_file_system_conforms() {
    for seed in 0..10 {
        let directory = tempfile::tempdir().expect("temporary directory");
        check(&VolatileFs::new(seed, None), &directory.path().join("a/b"));
    }
}

#[test]
fn overlay_conforms_and_changes_nothing() {
    let (below, root) = (Arc::new(HostileFs::new(1)), Path::new("/root"));
    check(&OverlayFs::new(below.clone()), root);
    assert!(!below.exists(root).expect("exists"));
    // Over what is there already, too.
    below.create_dir_all(&root.join("old/deep")).expect("make");
    write_all(&*below, &root.join("old/file"), &[7; 10_000]);
    let before = below.operations();
    let fs = OverlayFs::new(below.clone());
    check(&fs, root);
    let file = fs
        .open(&root.join("old/file"), OpenMode::Write)
        .expect("open");
    file.write_at(&[IoSlice::new(&[1; 10])], 4090)
        .expect("write");
    file.set_len(5000).expect("cut");
    file.set_len(9000).expect("extend");
    let expected = [vec![7; 4090], vec![1; 10], vec![7; 900], vec![0; 4000]].concat();
    assert_eq!(read_all(&fs, &root.join("old/file")), expected);
    fs.remove_dir_all(&root.join("old")).expect("remove");
    fs.create_dir_all(&root.join("old")).expect("make");
    assert!(fs.list(&root.join("old")).expect("list").is_empty());
    assert_eq!(below.operations(), before);
    assert_eq!(read_all(&*below, &root.join("old/file")), [7; 10_000]);
}

#[test]
fn hostile_file_system_conforms() {
    check(&HostileFs::new(1), Path::new("/root"));
}
