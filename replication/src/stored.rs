//! Looking at what the consensus layer keeps in the key-value store, without a running group.
//!
//! Uses the readers of a start. Changes nothing.

use std::collections::BTreeMap;

use tidelog_storage::kv::{KeySpace, KeyValueStore, KvError};
use tidelog_storage::log::{EntryIndex, LogDescription, LogId};

use crate::controller::{METADATA_TOPIC_ID, metadata_snapshot_end};
use crate::raft::{departures, state_store};

/// Something in the store that a start cannot use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredProblem {
    /// The partition that is offline for it; `None`: the broker does not start.
    pub partition: Option<String>,
    /// What is wrong.
    pub problem: String,
}

/// Looks at votes, checkpoints and snapshots of groups, and at the metadata's snapshot, beside the logs that there are.
pub fn check_stored(
    kv: &dyn KeyValueStore,
    logs: &[LogDescription],
) -> Result<Vec<StoredProblem>, KvError> {
    let by_id: BTreeMap<LogId, &LogDescription> = logs.iter().map(|log| (log.id, log)).collect();
    let mut problems = Vec::new();
    for (key, value) in kv.scan(KeySpace::Vote, &[])? {
        if departures::is_key(&key) {
            if let Err(error) = departures::check(&key, value) {
                problems.push(StoredProblem {
                    partition: None,
                    problem: format!("what is remembered of a partition that was left: {error}"),
                });
            }
            continue;
        }
        let (log, checked) = state_store::check(&key, value);
        let known = log.and_then(|log| by_id.get(&log));
        // What is left of a log that is gone is never read.
        if let (Some(log), Err(problem)) = (known, checked) {
            problems.push(about(log, problem));
        }
    }
    for log in logs {
        let vote = kv.get(KeySpace::Vote, &state_store::vote_key(log.id))?;
        if vote.is_none() && state_store::must_have_voted(log.bounds.last.index) {
            problems.push(about(log, state_store::VOTE_MISSING.to_owned()));
        }
    }
    problems.extend(metadata(kv, logs));
    Ok(problems)
}

fn about(log: &LogDescription, problem: String) -> StoredProblem {
    let is_metadata = log.topic_id == METADATA_TOPIC_ID;
    let name = format!("{}-{}", log.topic, log.partition);
    StoredProblem {
        problem: format!("{name}: {problem}"),
        partition: (!is_metadata).then_some(name),
    }
}

fn metadata(kv: &dyn KeyValueStore, logs: &[LogDescription]) -> Option<StoredProblem> {
    let no_start = |problem: String| {
        let partition = None;
        Some(StoredProblem { partition, problem })
    };
    let end = match metadata_snapshot_end(kv) {
        Ok(end) => end,
        Err(error) => return no_start(format!("metadata snapshot: {error}")),
    };
    match logs.iter().find(|log| log.topic_id == METADATA_TOPIC_ID) {
        None if !logs.is_empty() => no_start("there are logs, but none of the metadata".to_owned()),
        Some(log) if log.bounds.purged.index > end.unwrap_or(EntryIndex(0)) => {
            no_start("the metadata snapshot is missing or older than the metadata log".to_owned())
        }
        _ => None,
    }
}
