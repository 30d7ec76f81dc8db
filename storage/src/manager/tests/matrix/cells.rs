//! What came of a damaged directory.

use std::fmt;

use super::*;
use crate::check::{CheckOptions, CheckReport, check};

/// What came of damage; the words of the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Came {
    Whole,
    Reported,
    Offline,
    WhenRead,
    PassedOn,
    NoStart,
}

impl Came {
    const ALL: [Came; 6] = [
        Came::Whole,
        Came::Reported,
        Came::Offline,
        Came::WhenRead,
        Came::PassedOn,
        Came::NoStart,
    ];
}

impl fmt::Display for Came {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Came::Whole => "whole",
            Came::Reported => "reported",
            Came::Offline => "offline",
            Came::WhenRead => "when read",
            Came::PassedOn => "passed on",
            Came::NoStart => "no start",
        })
    }
}

/// What a log holds, byte for byte.
type Content = Vec<u8>;

/// Everything that a consumer gets; the error is the first one met. The log of a whole directory.
fn read(log: &PartitionLog) -> Result<Content, LogError> {
    let bounds = log.bounds();
    let (mut next, mut content) = (bounds.log_start, Vec::new());
    while next < bounds.log_end {
        let data = log.read_blocking(next, bounds.log_end, 900, true)?;
        if data.size_bytes == 0 {
            break;
        }
        next = data.next_offset;
        content.extend(data.pieces.concat());
    }
    Ok(content)
}

/// Everything that recovery and replication get. What they get is checked here once more.
fn read_entries(log: &PartitionLog) -> Result<Content, LogError> {
    let bounds = log.bounds();
    let mut next = EntryIndex(bounds.purged.index.0 + 1);
    let mut content = Vec::new();
    while next <= bounds.last.index {
        let end = EntryIndex(bounds.last.index.0 + 1);
        for entry in log.entries(next, end, 900)? {
            assert_eq!(entry.id.index, next);
            let EntryBody::Batch(batch) = &entry.body else {
                panic!("there are batches only");
            };
            assert!(batch.checksum_matches(), "a damaged batch was handed out");
            content.extend_from_slice(batch.header_bytes());
            content.extend_from_slice(batch.records_bytes());
            next = EntryIndex(next.0 + 1);
        }
    }
    Ok(content)
}

/// Partitions of an image.
fn partitions(manager: &LogManager) -> Vec<i32> {
    let mut partitions: Vec<i32> = manager.logs().iter().map(|log| log.partition.0).collect();
    partitions.sort_unstable();
    partitions
}

/// What the logs hold when nothing is damaged.
fn contents(image: &Image) -> Vec<(i32, Content)> {
    let machine = image.restore();
    let (manager, _) = machine.open();
    let partitions = partitions(&manager).into_iter();
    partitions
        .map(|partition| {
            (
                partition,
                read(&find(&manager, partition)).expect("is whole"),
            )
        })
        .collect()
}

/// What comes of a case; a case that fails says why in its cell.
fn cell<T: ToString>(case: impl Future<Output = T>) -> String {
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| block_on(case)));
    match done {
        Ok(came) => came.to_string(),
        Err(panic) => match panic.downcast_ref::<String>() {
            Some(why) => format!("FAILED: {why}"),
            None => format!("FAILED: {:?}", panic.downcast_ref::<&str>()),
        },
    }
}

/// Damages a directory and opens it. Returns what came of it, and what the check says.
pub(super) fn at_start(image: &Image, path: &Path, damage: Damage) -> (String, String) {
    let came = cell(async {
        let before = contents(image);
        let machine = image.restore();
        damage.inflict(&machine.fs, path);
        match LogManager::open(machine.options()) {
            Ok((manager, report)) => {
                judge(&manager, &before, path, !report.journal_damage.is_empty()).await
            }
            Err(error) => {
                let text = error.to_string();
                assert!(text.contains("journal"), "names the file: {text}");
                let again = LogManager::open(machine.options());
                assert!(again.is_err(), "refused once and forgotten");
                Came::NoStart
            }
        }
    });
    let check = cell(async { check_says(image, path, damage, &came) });
    (came, check)
}

/// Damages a directory under an open manager that has used every log.
pub(super) fn while_running(image: &Image, path: &Path, damage: Damage) -> String {
    cell(async {
        let machine = image.restore();
        let (manager, _) = machine.open();
        let mut before = Vec::new();
        for partition in partitions(&manager) {
            let log = find(&manager, partition);
            if log.bounds().log_end > Offset(0) {
                append_batches(&log, vec![batch_at(1, 1, b"before")]).await;
                // What is to be damaged must be there.
                log.flush().expect("is written");
            }
            before.push((partition, read(&log).expect("is whole")));
        }
        damage.inflict(&machine.fs, path);
        judge(&manager, &before, path, false).await
    })
}

/// Uses all logs. The damaged one may fail, with the place of the damage; the others must not.
async fn judge(
    manager: &LogManager,
    before: &[(i32, Content)],
    path: &Path,
    reported: bool,
) -> Came {
    let mut came = if reported {
        Came::Reported
    } else {
        Came::Whole
    };
    for (partition, content) in before {
        let log = find(manager, *partition);
        let found = use_log(&log, content).await;
        if matches!(found, Came::Whole) {
            continue;
        }
        let folder = format!("/orders-{partition}.");
        let is_victim =
            path.to_string_lossy().contains(&folder) || path.starts_with("/data/journal");
        assert!(is_victim, "{}: {partition} is {found}", path.display());
        assert!(
            matches!(came, Came::Whole | Came::Reported),
            "two logs are hurt"
        );
        came = found;
    }
    came
}

async fn use_log(log: &PartitionLog, content: &Content) -> Came {
    if log.stopped().is_none() {
        let kept = read_when_damaged(log, content);
        let appended = append(log, vec![])
            .await
            .err()
            .map(|error| error.to_string());
        let stopped = log.stopped().map(|reason| reason.to_string()).or(appended);
        let Some(reason) = stopped else {
            return kept;
        };
        assert!(reason.contains(" at byte "), "{reason}");
        return if kept == Came::Whole {
            Came::Offline
        } else {
            kept
        };
    }
    let reason = log.stopped().expect("it is").to_string();
    assert!(reason.contains(" at byte "), "{reason}");
    let empty = log.bounds().log_start == log.bounds().log_end;
    assert!(
        empty || matches!(read(log), Err(LogError::Stopped(_))),
        "a stopped log serves"
    );
    assert!(matches!(
        append(log, vec![]).await,
        Err(LogError::Stopped(_))
    ));
    Came::Offline
}

/// Records of partitions 0 and 1 have their offset in their timestamp.
fn look_up_times(log: &PartitionLog) {
    if log.partition().0 > 1 {
        return;
    }
    for offset in 0..i64::from(image::BATCHES) {
        let time = TimestampMs(image::timestamp(offset));
        let found = log.offset_for_timestamp(time, log.bounds().log_end);
        let found = found.expect("can be read").expect("is there");
        assert_eq!((found.offset, found.timestamp), (Offset(offset), time));
    }
}

/// Looks at the files first, then as a consumer, then as replication and compaction do.
fn read_when_damaged(log: &PartitionLog, content: &Content) -> Came {
    let loaded = log.producers().is_ok() && log.stopped().is_none();
    if !loaded {
        return Came::Offline;
    }
    let consumed = read(log);
    if let Ok(consumed) = &consumed
        && consumed == content
    {
        return match read_entries(log) {
            Ok(entries) => {
                assert!(content.ends_with(&entries), "replication gets other bytes");
                look_up_times(log);
                Came::Whole
            }
            Err(_) => Came::WhenRead,
        };
    }
    match consumed {
        // Whoever checks what it gets refuses it.
        Ok(consumed) => {
            assert_eq!(consumed.len(), content.len(), "bytes are missing");
            let differ = consumed.iter().zip(content).filter(|(a, b)| a != b);
            assert_eq!(differ.count(), 1, "more than the damage is different");
            let settled = log.bounds().purged.index.0 > 0;
            assert!(
                settled || read_entries(log).is_err(),
                "damage was handed out"
            );
            Came::PassedOn
        }
        Err(_) => Came::WhenRead,
    }
}

pub(super) fn check_machine(machine: &Machine) -> CheckReport {
    let kv = Image::of(machine).restore().kv;
    check(CheckOptions {
        directory: "/data".into(),
        fs: machine.fs.clone(),
        kv: Ok(kv),
    })
}

/// What the check says about a damaged directory, which must fit what comes of it.
fn check_says(image: &Image, path: &Path, damage: Damage, came: &str) -> String {
    let machine = image.restore();
    damage.inflict(&machine.fs, path);
    let before = Image::of(&machine);
    let report = check_machine(&machine);
    assert_eq!(Image::of(&machine), before, "the check changed something");
    let findings = report.findings.iter();
    let mut words: Vec<&str> = findings.map(|finding| finding.outcome.word()).collect();
    words.sort_unstable();
    words.dedup();
    let has = |word: &str| words.contains(&word);
    let fits = match Came::ALL.into_iter().find(|it| it.to_string() == came) {
        None => false,
        Some(Came::Whole) => words.iter().all(|word| *word == "not-needed"),
        Some(Came::Reported) => has("reported"),
        Some(Came::Offline) => has("offline"),
        Some(Came::WhenRead | Came::PassedOn) => has("offline") || has("unreadable"),
        Some(Came::NoStart) => has("no-start"),
    };
    assert!(
        fits,
        "{} {damage:?}: {came} but {:?}",
        path.display(),
        report.findings
    );
    if words.is_empty() {
        return "nothing".to_owned();
    }
    words.join(", ")
}
