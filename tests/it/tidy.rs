//! The habits of this code base as a test: file lengths, module docs, crate edges, banned calls.
//!
//! Reads the sources as text; knows nothing of what they do.

use std::fs;
use std::path::{Path, PathBuf};

/// A longer file holds more concepts than one.
const FILE_LINES_MAX: usize = 800;
/// A longer function does not fit a screen, by a wide margin.
const FUNCTION_LINES_MAX: usize = 100;

/// Each crate with the crates of ours that it may depend on.
const EDGES: &[(&str, &[&str])] = &[
    ("protocol", &[]),
    ("storage", &["protocol"]),
    ("replication", &["protocol", "storage"]),
    ("client", &["protocol"]),
    ("benches/driver", &["protocol"]),
    ("benches/micro", &["protocol", "storage"]),
    (
        "broker",
        &["protocol", "storage", "replication", "client", "driver"],
    ),
];

/// Foreign crates that one crate alone may name.
const OWNED: &[(&str, &str)] = &[
    ("openraft", "replication"),
    ("rocksdb", "storage"),
    ("axum", "broker"),
    ("kafka-protocol", "protocol"),
];

/// Text that no source may hold, outside of tests.
const BANNED: &[&str] = &["todo!(", "unimplemented!(", "dbg!("];

/// Text that may not stand in code which reads what the network sent.
const BANNED_IN_PROTOCOL: &[&str] = &[".unwrap()", "panic!("];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the tests stand in a folder of the workspace")
        .to_owned()
}

fn rust_files(below: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(below) else {
        return;
    };
    for entry in entries {
        let path = entry.expect("directory entry").path();
        if path.is_dir() {
            if !path.ends_with("target") {
                rust_files(&path, found);
            }
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// Every source of ours with its text.
fn sources() -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    for (member, _) in EDGES {
        rust_files(&root().join(member), &mut files);
    }
    rust_files(&root().join("tests"), &mut files);
    assert!(
        files.len() > 50,
        "found only {} sources: wrong folder?",
        files.len()
    );
    files
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).expect("source is UTF-8");
            (path, text)
        })
        .collect()
}

fn is_test(path: &Path) -> bool {
    let inside = path.strip_prefix(root()).unwrap_or(path);
    inside.components().any(|c| {
        let name = c.as_os_str().to_string_lossy();
        name == "tests" || name == "tests.rs" || name.ends_with("_tests.rs")
    })
}

/// The part of a source before its unit tests.
fn without_tests(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod ").next().unwrap_or(text)
}

fn report(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn no_file_is_longer_than_its_limit() {
    let complaints: Vec<_> = sources()
        .iter()
        .filter(|(_, text)| text.lines().count() > FILE_LINES_MAX)
        .map(|(path, text)| format!("{}: {} lines", path.display(), text.lines().count()))
        .collect();
    report(&complaints);
}

#[test]
fn every_module_says_what_it_owns() {
    let complaints: Vec<_> = sources()
        .iter()
        .filter(|(path, text)| !is_test(path) && !text.starts_with("//!"))
        .map(|(path, _)| format!("{}: does not open with //!", path.display()))
        .collect();
    report(&complaints);
}

/// Lines of each function, by the indentation that rustfmt gives its first and last line.
fn long_functions(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut long = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let is_function = [
            "fn ",
            "pub fn ",
            "async fn ",
            "pub async fn ",
            "pub(crate) fn ",
        ]
        .iter()
        .any(|word| code.starts_with(word));
        if !is_function {
            continue;
        }
        let end = format!("{}}}", &line[..line.len() - code.len()]);
        let length = lines[start..].iter().position(|l| *l == end);
        if let Some(length) = length.filter(|n| *n > FUNCTION_LINES_MAX) {
            long.push((code.to_owned(), length));
        }
    }
    long
}

#[test]
fn functions_fit_a_screen() {
    let mut complaints = Vec::new();
    for (path, text) in sources() {
        for (name, length) in long_functions(&text) {
            complaints.push(format!("{}: {length} lines: {name}", path.display()));
        }
    }
    report(&complaints);
}

#[test]
fn dependencies_point_one_way() {
    let mut complaints = Vec::new();
    for (member, allowed) in EDGES {
        let manifest = fs::read_to_string(root().join(member).join("Cargo.toml"))
            .expect("every member has a manifest");
        let dependencies = manifest
            .split("[dependencies]")
            .nth(1)
            .unwrap_or_default()
            .split("\n[")
            .next()
            .unwrap_or_default();
        for line in dependencies.lines() {
            let name = line.split(['.', ' ', '=']).next().unwrap_or_default();
            if let Some(ours) = name.strip_prefix("tidelog-")
                && !allowed.contains(&ours)
            {
                complaints.push(format!("{member} depends on {ours}"));
            }
            for (foreign, owner) in OWNED {
                if name == *foreign && member != owner {
                    complaints.push(format!("{member} names {foreign}, which is {owner}'s"));
                }
            }
        }
    }
    report(&complaints);
}

#[test]
fn banned_calls_are_absent() {
    let mut complaints = Vec::new();
    for (path, text) in sources() {
        if is_test(&path) {
            continue;
        }
        let in_protocol = path.starts_with(root().join("protocol"));
        for (number, line) in without_tests(&text).lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            let banned = BANNED
                .iter()
                .chain(BANNED_IN_PROTOCOL.iter().filter(|_| in_protocol));
            for word in banned.filter(|word| code.contains(**word)) {
                complaints.push(format!("{}:{}: {word}", path.display(), number + 1));
            }
        }
    }
    report(&complaints);
}
