//! Names in a data directory that belong to nothing.

use std::collections::BTreeSet;
use std::path::Path;

use super::report::{Finding, Outcome};
use crate::fs::FileSystem;
use crate::log::{TOPICS, is_log_file};
use crate::manager::JOURNAL;

/// What a data directory holds.
const DIRECTORY: [&str; 6] = [
    ".lock",
    "meta.properties",
    "meta.properties.tmp",
    JOURNAL,
    "kv",
    TOPICS,
];

fn stranger(file: String) -> Finding {
    Finding {
        file,
        position: None,
        problem: "belongs to nothing that a broker knows".to_owned(),
        outcome: Outcome::Ignored,
    }
}

fn list(fs: &dyn FileSystem, path: &Path) -> Vec<String> {
    // What cannot be listed is told by those who need it.
    let mut names = fs.list(path).unwrap_or_default();
    names.sort_unstable();
    names
}

/// Names that no part of the format has.
pub(super) fn unknown(fs: &dyn FileSystem, directory: &Path) -> Vec<Finding> {
    let mut found = Vec::new();
    let top = list(fs, directory).into_iter();
    found.extend(
        top.filter(|name| !DIRECTORY.contains(&name.as_str()))
            .map(stranger),
    );
    let journal = list(fs, &directory.join(JOURNAL)).into_iter();
    let journal = journal.filter(|name| !is_journal_file(name));
    found.extend(journal.map(|name| stranger(format!("{JOURNAL}/{name}"))));
    for folder in list(fs, &directory.join(TOPICS)) {
        let files = list(fs, &directory.join(TOPICS).join(&folder)).into_iter();
        let files = files.filter(|name| !is_log_file(name));
        found.extend(files.map(|name| stranger(format!("{TOPICS}/{folder}/{name}"))));
    }
    found
}

fn is_journal_file(name: &str) -> bool {
    let stem = name.strip_suffix(".tmp").unwrap_or(name);
    let number = stem
        .strip_prefix("journal-")
        .or_else(|| stem.strip_prefix("side-"));
    number.is_some_and(|number| {
        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// Folders of logs that recovery neither knows nor removed.
pub(super) fn orphans(
    fs: &dyn FileSystem,
    after: &dyn FileSystem,
    directory: &Path,
    known: &BTreeSet<String>,
) -> Vec<Finding> {
    let path = directory.join(TOPICS);
    let left: BTreeSet<String> = list(after, &path).into_iter().collect();
    let orphans = list(fs, &path).into_iter();
    orphans
        .filter(|folder| left.contains(folder) && !known.contains(folder))
        .map(|folder| stranger(format!("{TOPICS}/{folder}")))
        .collect()
}
