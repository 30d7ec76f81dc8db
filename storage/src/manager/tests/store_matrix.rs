//! The damage matrix of the key-value store: its files are RocksDB's, on the machine's file system.
//!
//! The table is that of `docs/DISK_FORMAT.md`, line by line.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::*;
use crate::check::{CheckOptions, check};
use crate::fs::{DirectoryIdentity, RealFs};
use crate::kv::RocksKv;
use tidelog_protocol::types::BrokerId;

/// Which file of `kv`, by the begin or end of its name, and where a bit is flipped.
struct Victim {
    name: &'static str,
    is: fn(&str) -> bool,
    flip: Option<u64>,
}

const VICTIMS: &[Victim] = &[
    Victim {
        name: "`CURRENT`",
        is: |name| name == "CURRENT",
        flip: Some(3),
    },
    Victim {
        name: "`MANIFEST`",
        is: |name| name.starts_with("MANIFEST"),
        flip: Some(60),
    },
    Victim {
        name: "table (`.sst`)",
        is: |name| name.ends_with(".sst"),
        flip: Some(10),
    },
    Victim {
        name: "write-ahead log (`.log`)",
        is: |name| name.ends_with(".log"),
        flip: Some(30),
    },
    Victim {
        name: "`OPTIONS`",
        is: |name| name.starts_with("OPTIONS"),
        flip: Some(5),
    },
    Victim {
        name: "`IDENTITY`",
        is: |name| name == "IDENTITY",
        flip: Some(3),
    },
    Victim {
        name: "`LOCK`",
        is: |name| name == "LOCK",
        flip: None,
    },
    Victim {
        name: "all of `kv`",
        is: |_| true,
        flip: None,
    },
];

const DAMAGES: [&str; 4] = ["truncated", "bit flipped", "emptied", "deleted"];

fn inflict(victim: &Victim, damage: &str, kv: &Path) {
    let names = fs::read_dir(kv).expect("is there");
    let names = names.map(|entry| entry.expect("is listed").path());
    let of_kind =
        |path: &PathBuf| (victim.is)(&path.file_name().expect("a name").to_string_lossy());
    let mut files: Vec<PathBuf> = names.filter(of_kind).collect();
    // The newest; of logs and tables the newest that holds something.
    files.sort();
    if !victim.name.contains("kv") {
        let holds = |path: &PathBuf| fs::metadata(path).expect("is there").len() > 0;
        let full = files.iter().rev().find(|path| holds(path));
        let newest = full.or(files.last()).expect("there is one").clone();
        files = vec![newest];
    }
    for path in files {
        let mut bytes = fs::read(&path).expect("is read");
        match damage {
            "truncated" => bytes.truncate(bytes.len() / 2),
            "emptied" => bytes.clear(),
            "bit flipped" => bytes[victim.flip.expect("has a place") as usize] ^= 8,
            _ => {
                fs::remove_file(&path).expect("is removed");
                continue;
            }
        }
        fs::write(&path, bytes).expect("is written");
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("is made");
    for entry in fs::read_dir(from).expect("is there") {
        let entry = entry.expect("is listed");
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).expect("is copied");
        }
    }
}

type Tree = BTreeMap<PathBuf, (SystemTime, Vec<u8>)>;

fn tree(path: &Path, tree: &mut Tree) {
    for entry in fs::read_dir(path).expect("is there") {
        let path = entry.expect("is listed").path();
        if path.is_dir() {
            let time = fs::metadata(&path).and_then(|it| it.modified());
            tree.insert(path.clone(), (time.expect("known"), Vec::new()));
            self::tree(&path, tree);
        } else {
            let time = fs::metadata(&path).and_then(|it| it.modified());
            let bytes = fs::read(&path).expect("is read");
            tree.insert(path, (time.expect("known"), bytes));
        }
    }
}

fn open(directory: &Path) -> Result<(Arc<LogManager>, RecoveryReport), String> {
    let kv = RocksKv::open(&directory.join("kv")).map_err(|error| error.to_string())?;
    let mut options = StorageOptions::new(directory.into(), Arc::new(RealFs), Arc::new(kv));
    options.journal.file_bytes = 64 << 10;
    LogManager::open(options).map_err(|error| error.to_string())
}

/// Writes some records, and leaves `killed` as kill -9 would, and `stopped` as a clean stop does.
async fn images(stopped: &Path, killed: &Path) {
    let mut identity = DirectoryIdentity::generate("c".to_owned(), BrokerId(1));
    identity.directory_id = Uuid::nil();
    identity.store(&RealFs, stopped).expect("is stored");
    // What was in the log at a start is in tables afterwards.
    for round in 0..3 {
        let (manager, _) = open(stopped).expect("opens");
        let log = make(&manager, 0, small_segments());
        append_batches(&log, vec![batch_at(1, 10, &[7; 50])]).await;
        if round == 2 {
            for _ in 0..150 {
                append_batches(&log, vec![batch_at(1, 1, &[7; 900])]).await;
            }
            // Until the journal says that what it has is durable.
            tokio::time::sleep(Duration::from_millis(900)).await;
            copy(stopped, killed);
        }
        drop(log);
        manager.shutdown().await;
    }
}

/// What comes of a damaged directory, and what the check says about it.
fn cells(image: &Path, victim: &Victim, damage: &str) -> (String, String) {
    let folder = tempfile::tempdir().expect("temporary directory");
    let directory = folder.path().join("data");
    copy(image, &directory);
    inflict(victim, damage, &directory.join("kv"));
    let (mut before, mut after) = (Tree::new(), Tree::new());
    tree(&directory, &mut before);
    let kv =
        RocksKv::copy_of(&directory.join("kv")).map(|kv| Arc::new(kv) as Arc<dyn KeyValueStore>);
    let report = check(CheckOptions {
        directory: directory.clone(),
        fs: Arc::new(RealFs),
        kv,
    });
    tree(&directory, &mut after);
    assert!(
        before == after,
        "{} {damage}: the check changed something",
        victim.name
    );
    let mut words: Vec<&str> = report.findings.iter().map(|it| it.outcome.word()).collect();
    words.dedup();
    let came = match open(&directory) {
        Ok((manager, report)) => {
            assert_eq!(report.stopped, [], "{} {damage}", victim.name);
            assert_eq!(read_all(&find(&manager, 0), Offset(0), 9000).len(), 153);
            "whole"
        }
        Err(error) => {
            assert!(error.contains("kv"), "{} {damage}: {error}", victim.name);
            "no start"
        }
    };
    assert_eq!(
        words.contains(&"no-start"),
        came == "no start",
        "{} {damage}: {words:?}",
        victim.name
    );
    let said = if words.is_empty() {
        "nothing".to_owned()
    } else {
        words.join(", ")
    };
    (came.to_owned(), said)
}

fn document() -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/DISK_FORMAT.md");
    let document = fs::read_to_string(path).expect("the document");
    let lines = document.lines();
    let lines = lines.skip_while(|line| !line.starts_with("| File of the key-value store |"));
    let table = lines.take_while(|line| line.starts_with('|'));
    table.skip(2).map(str::to_owned).collect()
}

#[test]
fn every_damage_of_the_store_ends_as_the_document_says() {
    let folder = tempfile::tempdir().expect("temporary directory");
    let (stopped, killed) = (folder.path().join("stopped"), folder.path().join("killed"));
    block_on(images(&stopped, &killed));
    let mut lines = Vec::new();
    for victim in VICTIMS {
        for damage in DAMAGES {
            let is_possible = victim.flip.is_some() || damage == "deleted";
            if !is_possible {
                continue;
            }
            let (after_stop, said) = cells(&stopped, victim, damage);
            let (after_kill, _) = cells(&killed, victim, damage);
            lines.push(format!(
                "| {} | {damage} | {after_stop} | {after_kill} | {said} |",
                victim.name
            ));
        }
    }
    assert!(lines == document(), "the table is\n{}", lines.join("\n"));
}
