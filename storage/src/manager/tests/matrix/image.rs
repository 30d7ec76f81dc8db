//! Directories to be damaged: made once, copied for each cell.

use std::collections::BTreeMap;
use std::time::Duration;

use tidelog_protocol::types::BrokerId;

use super::super::compaction::{compact, compacted, keyed};
use super::*;
use crate::fs::{DirectoryIdentity, OpenMode};
use crate::journal::tests::harness::{BEHIND_FIRST_GROUP, ends_with_seal};
use crate::kv::KeySpace;

/// Stand for places that are looked up in the image.
pub(super) const IN_FRAME: u64 = u64::MAX;
pub(super) const IN_ASIDE: u64 = u64::MAX - 1;

/// Batches of each log.
pub(super) const BATCHES: i32 = 220;

/// Timestamp of a batch.
pub(super) fn timestamp(at: i64) -> i64 {
    5_000 + at * 10
}

fn batch(producer: i64, at: i32) -> RecordBatch {
    let builder = BatchBuilder::new(Compression::None).producer(
        ProducerId(producer),
        ProducerEpoch(0),
        Sequence(at),
    );
    build(builder, timestamp(at.into()), 1, &value(at))
}

/// Everything on a disk.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Image {
    pub files: BTreeMap<PathBuf, Vec<u8>>,
    pairs: Vec<(KeySpace, Bytes, Bytes)>,
    sequence: u64,
}

/// The same directory after a clean stop and after kill -9, and one of a broker with a stopped log, after kill -9.
pub(super) struct Images {
    pub stopped: Image,
    pub killed: Image,
    pub aside: Image,
}

/// The value of a batch's record.
fn value(at: i32) -> Vec<u8> {
    format!("<{at:04}>").repeat(10).into_bytes()
}

fn config() -> LogConfig {
    LogConfig {
        segment_bytes: 8192,
        index_interval_bytes: 256,
        ..LogConfig::default()
    }
}

impl Images {
    pub(super) async fn make() -> Images {
        let mut more = 0;
        loop {
            if let Some(images) = Images::try_make(more).await {
                return images;
            }
            more += 1;
        }
    }

    /// `None` if the newest frame is the first or last of its file, where damage looks different.
    async fn try_make(more: i64) -> Option<Images> {
        let machine = identified(70);
        let (manager, _) = machine.open();
        fill(&machine, &manager, more).await;
        let killed = settled(&machine).await?;
        manager.shutdown().await;
        drop(manager);
        let stopped = Image::of(&machine);
        let machine = identified(71);
        let (manager, _) = machine.open();
        let log = make(&manager, 3, config());
        for at in 0..5 {
            append_batches(&log, vec![batch(9, at)]).await;
        }
        log.stop(LogError::Io("a test says so".into()));
        // The journal goes round, so that the frames of the stopped log are set aside.
        fill(&machine, &manager, more).await;
        let aside = settled(&machine).await?;
        manager.shutdown().await;
        Some(Images {
            stopped,
            killed,
            aside,
        })
    }
}

/// A machine whose data directory says whose it is.
fn identified(seed: u64) -> Machine {
    let machine = Machine::new(seed);
    let mut identity = DirectoryIdentity::generate("c".to_owned(), BrokerId(1));
    identity.directory_id = Uuid::nil();
    identity
        .store(&*machine.fs, Path::new("/data"))
        .expect("is stored");
    machine
}

async fn fill(machine: &Machine, manager: &Arc<LogManager>, more: i64) {
    let logs = [make(manager, 0, config()), make(manager, 1, config())];
    let cleaned = make(manager, 2, compacted());
    for at in 0..BATCHES {
        for log in &logs {
            append_batches(log, vec![batch(1, at)]).await;
        }
        let records = vec![((at % 40) as u8, Some(at.cast_unsigned()))];
        append_batches(&cleaned, vec![keyed(None, i64::from(at), &records)]).await;
    }
    compact(&cleaned, 1_000_000).await.expect("is compacted");
    for at in 0..more {
        append_batches(&cleaned, vec![keyed(None, at, &vec![(50, Some(1))])]).await;
    }
    // Until no file is reclaimed any more: the checkpoints of that could cover the newest frame.
    quiet(machine).await;
    // The newest frame of all, which the journal has not gone round since.
    append_batches(&logs[0], vec![batch(1, BATCHES)]).await;
}

/// Waits until nothing is written for a while.
async fn quiet(machine: &Machine) -> Image {
    let mut last = Image::of(machine);
    loop {
        tokio::time::sleep(Duration::from_millis(700)).await;
        let now = Image::of(machine);
        if now == last {
            return now;
        }
        last = now;
    }
}

/// Looks at the disk before the newest frame counts as one that will never be followed by a seal in its file.
const LOOKS: usize = 10;

/// The disk as kill -9 would leave it now: everything acknowledged, said to be durable, and written to segments.
async fn settled(machine: &Machine) -> Option<Image> {
    for _ in 0..LOOKS {
        let now = quiet(machine).await;
        let newest = now.newest_journal_file().expect("has the newest frame");
        let place = last_place(&now.files[&newest]).expect("is there");
        let is_first = place < BEHIND_FIRST_GROUP;
        if !is_first && ends_with_seal(&now.restore().fs, &newest) {
            return Some(now);
        }
    }
    None
}

fn read_files(fs: &HostileFs, path: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for name in fs.list(path).expect("is a directory") {
        let path = path.join(name);
        match fs.open(&path, OpenMode::Read) {
            Ok(file) => {
                let bytes = usize::try_from(file.len().expect("known")).expect("small");
                files.insert(path, file.read_vec(bytes, 0).expect("is read"));
            }
            Err(_) => read_files(fs, &path, files),
        }
    }
}

impl Image {
    pub(super) fn of(machine: &Machine) -> Image {
        let mut files = BTreeMap::new();
        read_files(&machine.fs, Path::new("/data"), &mut files);
        let spaces = [KeySpace::Meta, KeySpace::Checkpoint];
        let pairs = spaces.into_iter().flat_map(|space| {
            let pairs = machine.kv.scan(space, &[]).expect("is read").into_iter();
            pairs.map(move |(key, value)| (space, key, value))
        });
        let sequence = machine
            .kv
            .progress()
            .load(std::sync::atomic::Ordering::Relaxed);
        Image {
            files,
            pairs: pairs.collect(),
            sequence,
        }
    }

    pub(super) fn restore(&self) -> Machine {
        let mut machine = Machine::new(72);
        for (path, bytes) in &self.files {
            let fs = &machine.fs;
            fs.create_dir_all(path.parent().expect("has one"))
                .expect("is made");
            let file = fs.open(path, OpenMode::CreateNew).expect("is made");
            file.write_at(&[io::IoSlice::new(bytes)], 0)
                .expect("is written");
        }
        let kv = MemoryKv::of(self.pairs.clone(), self.sequence);
        machine.kv = Arc::new(kv.expect("a thread starts"));
        machine
    }

    /// The journal file with the last batch of partition 0.
    pub(super) fn newest_journal_file(&self) -> Option<PathBuf> {
        let files = self.files.iter();
        let mut files = files.filter(|(path, _)| path.starts_with("/data/journal"));
        let found = files.find(|(_, bytes)| last_place(bytes).is_some());
        found.map(|(path, _)| path.clone())
    }

    /// Path and damage of a row, in this image.
    pub(super) fn place(&self, victim: Victim, damage: Damage) -> (PathBuf, Damage) {
        let path = victim.path(self);
        let bytes = &self.files[&path];
        let damage = match damage {
            // The first of the two logs is the victim.
            Damage::CutTo(IN_FRAME) => Damage::CutTo(last_place(bytes).expect("has the batch")),
            Damage::Flip(IN_FRAME) => Damage::Flip(last_place(bytes).expect("has the batch")),
            Damage::Flip(IN_ASIDE) => {
                Damage::Flip(place_of(bytes, &value(1)).expect("has the batch"))
            }
            other => other,
        };
        (path, damage)
    }
}

fn place_of(bytes: &[u8], sought: &[u8]) -> Option<u64> {
    let at = bytes
        .windows(sought.len())
        .position(|window| window == sought)?;
    Some(at as u64)
}

fn last_place(bytes: &[u8]) -> Option<u64> {
    place_of(bytes, &value(BATCHES))
}
