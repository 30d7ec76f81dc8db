//! Bugs that are planted, and found.

use super::{FIRST_SEED, MISTAKE_SCHEDULES, run};
use crate::planted::{Bug, with_planted};

/// The first schedule that finds a bug, and what it says.
fn found(bug: Bug) -> Option<(u64, String)> {
    (FIRST_SEED..FIRST_SEED + MISTAKE_SCHEDULES).find_map(|seed| {
        let failure = with_planted(bug, || run(seed, false)).err();
        failure.map(|(why, _)| (seed, why))
    })
}

#[test]
fn every_planted_bug_is_found() {
    let mut missed = Vec::new();
    for bug in Bug::ALL {
        match found(*bug) {
            Some((seed, why)) => println!("{bug:?}: seed {seed}: {why}"),
            None => missed.push(bug),
        }
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
}
