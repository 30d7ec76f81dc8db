//! Every call that makes something durable, by name.
//!
//! Each place that syncs a file, a directory or a batch of the key-value store says which one it is, so that tests and
//! the fault build can leave out any single one and show what is lost without it. Invariant: one name, one place in
//! the code; tests check both this and that the list is complete. Production code only passes names on.

/// A call that makes something durable. What each one is for, and how its absence shows, is in `tests/README.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SyncPoint {
    /// Contents of `meta.properties`.
    IdentityContents,
    /// The name of `meta.properties`.
    IdentityName,
    /// The names of the folders in the data directory.
    DataFolders,
    /// The name of the data directory in its parent.
    DataDirectory,
    /// Names in the journal's directory that an earlier life may have left unsynced.
    JournalDirectory,
    /// Headers of files that an earlier life may have failed to sync, written once more.
    JournalFound,
    /// Which files there are, for the next start to miss them, and with it the checkpoints that take their place.
    JournalFilesNoted,
    /// The first copy of a file's header that is written.
    JournalHeader,
    /// The name of a new file of the journal.
    JournalFileMade,
    /// The end of a file's name that the journal does not need any more.
    JournalFileRemoved,
    /// A group with frames that wait for stable storage.
    JournalGroup,
    /// What is not synced of a file that the journal leaves.
    JournalFileLeft,
    /// What is not synced when the journal is closed.
    JournalClosed,
    /// The seal behind the last group of a journal that is closed.
    JournalSeal,
    /// Frames that were set aside.
    SideFrames,
    /// The seal behind frames that were set aside.
    SideSeal,
    /// The name of a side file.
    SideMade,
    /// The end of a side file's name.
    SideRemoved,
    /// Batches and entries of a log, before a checkpoint.
    SegmentRecords,
    /// Indexes and producer snapshots of a log, before a checkpoint.
    SegmentIndexes,
    /// Names of a log's files, before a checkpoint.
    SegmentNames,
    /// The name of a log's folder, before a checkpoint.
    LogFolder,
    /// Indexes of a compacted segment.
    CompactedIndexes,
    /// Batches of a compacted segment.
    CompactedRecords,
    /// Names of a compacted segment's files.
    CompactedNames,
    /// The checkpoint of a log before entries of it are settled.
    SettledCheckpoint,
    /// The mark of a log that is being removed.
    RemovalMark,
    /// The mark of a clean stop.
    CleanStop,
    /// Vote of a consensus group.
    GroupVote,
    /// Snapshot of a consensus group, with what it has applied.
    GroupSnapshot,
    /// Snapshot of a consensus group before its log begins anew where it ends.
    GroupInstalling,
    /// Note that the log of a consensus group has lost something.
    GroupDamaged,
    /// What a replica that leaves a consensus group is to remember.
    GroupLeft,
    /// Snapshot of the cluster metadata.
    ImageSnapshot,
}

impl SyncPoint {
    /// All of them.
    pub const ALL: &[SyncPoint] = &[
        SyncPoint::IdentityContents,
        SyncPoint::IdentityName,
        SyncPoint::DataFolders,
        SyncPoint::DataDirectory,
        SyncPoint::JournalDirectory,
        SyncPoint::JournalFound,
        SyncPoint::JournalFilesNoted,
        SyncPoint::JournalHeader,
        SyncPoint::JournalFileMade,
        SyncPoint::JournalFileRemoved,
        SyncPoint::JournalGroup,
        SyncPoint::JournalFileLeft,
        SyncPoint::JournalClosed,
        SyncPoint::JournalSeal,
        SyncPoint::SideFrames,
        SyncPoint::SideSeal,
        SyncPoint::SideMade,
        SyncPoint::SideRemoved,
        SyncPoint::SegmentRecords,
        SyncPoint::SegmentIndexes,
        SyncPoint::SegmentNames,
        SyncPoint::LogFolder,
        SyncPoint::CompactedIndexes,
        SyncPoint::CompactedRecords,
        SyncPoint::CompactedNames,
        SyncPoint::SettledCheckpoint,
        SyncPoint::RemovalMark,
        SyncPoint::CleanStop,
        SyncPoint::GroupVote,
        SyncPoint::GroupSnapshot,
        SyncPoint::GroupInstalling,
        SyncPoint::GroupDamaged,
        SyncPoint::GroupLeft,
        SyncPoint::ImageSnapshot,
    ];

    /// The point of this name, as `Debug` writes it.
    pub fn of_name(name: &str) -> Option<SyncPoint> {
        let mut all = SyncPoint::ALL.iter().copied();
        all.find(|point| format!("{point:?}") == name)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use super::*;

    /// Files of tests, and this one.
    const NO_CODE: [&str; 4] = ["sync_point.rs", "tests.rs", "conformance.rs", "power.rs"];

    fn workspace() -> &'static Path {
        let parent = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
        parent.expect("the crate stands in the workspace")
    }

    fn sources(below: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(below).expect("is there") {
            let path = entry.expect("is read").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if path.is_dir() && name != "tests" {
                sources(&path, found);
            } else if name.ends_with(".rs") && !NO_CODE.contains(&&*name) {
                found.push(path);
            }
        }
    }

    /// The code of the crates that sync, without their tests.
    fn code() -> String {
        let mut files = Vec::new();
        for member in ["storage", "replication", "broker"] {
            sources(&workspace().join(member).join("src"), &mut files);
        }
        let code = files.iter().map(|path| {
            let text = fs::read_to_string(path).expect("is text");
            let code = text.split("#[cfg(test)]\nmod tests {").next();
            code.unwrap_or_default().to_owned()
        });
        code.collect()
    }

    #[test]
    fn the_list_is_complete_and_each_name_is_one_place_in_the_code() {
        let text = include_str!("sync_point.rs");
        let body = text.split("pub enum SyncPoint {").nth(1);
        let body = body.and_then(|body| body.split("\n}").next());
        let lines = body.unwrap_or_default().lines().map(str::trim);
        let names: Vec<&str> = lines.filter_map(|line| line.strip_suffix(',')).collect();
        let all: Vec<String> = (SyncPoint::ALL.iter())
            .map(|point| format!("{point:?}"))
            .collect();
        assert_eq!(names, all);
        let code = code();
        for name in names {
            let place = format!("SyncPoint::{name}");
            let places = code.split(&place).skip(1);
            let places = places.filter(|rest| !rest.starts_with(char::is_alphanumeric));
            assert_eq!(places.count(), 1, "places of {name}");
        }
    }

    #[test]
    fn each_name_is_in_the_table_of_the_test_suites() {
        let path = workspace().join("tests/README.md");
        let table = fs::read_to_string(path).expect("is there");
        let known = |point: &&SyncPoint| table.contains(&format!("| `{point:?}` |"));
        let missing: Vec<_> = SyncPoint::ALL.iter().filter(|it| !known(it)).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }

    #[test]
    fn names_are_read_back() {
        for point in SyncPoint::ALL {
            assert_eq!(SyncPoint::of_name(&format!("{point:?}")), Some(*point));
        }
        assert_eq!(SyncPoint::of_name("JournalGrop"), None);
    }
}
