//! What a check found.

use std::fmt;

use crate::log::{LogDescription, PartitionLog};

/// What a broker does about a finding at its next start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It does not start.
    NoStart,
    /// The partition is offline, the others go on.
    Offline {
        /// Topic and partition.
        partition: String,
    },
    /// The partition goes on until somebody reads there; then it is offline.
    Unreadable {
        /// Topic and partition.
        partition: String,
    },
    /// It says so in its log and goes on: nothing that counts is lost.
    Reported,
    /// It does without the file, or makes it anew.
    NotNeeded,
    /// It leaves the file alone.
    Ignored,
}

impl Outcome {
    pub(super) fn offline(log: &PartitionLog) -> Outcome {
        let partition = format!("{}-{}", log.topic(), log.partition());
        Outcome::Offline { partition }
    }

    pub(super) fn unreadable(log: &PartitionLog) -> Outcome {
        let partition = format!("{}-{}", log.topic(), log.partition());
        Outcome::Unreadable { partition }
    }

    /// One word for programs.
    pub fn word(&self) -> &'static str {
        match self {
            Outcome::NoStart => "no-start",
            Outcome::Offline { .. } => "offline",
            Outcome::Unreadable { .. } => "unreadable",
            Outcome::Reported => "reported",
            Outcome::NotNeeded => "not-needed",
            Outcome::Ignored => "ignored",
        }
    }

    /// The partition that it is about.
    pub fn partition(&self) -> Option<&str> {
        match self {
            Outcome::Offline { partition } | Outcome::Unreadable { partition } => Some(partition),
            _ => None,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::NoStart => f.write_str("the broker does not start"),
            Outcome::Offline { partition } => {
                write!(
                    f,
                    "{partition} is offline once its files are used, the others go on"
                )
            }
            Outcome::Unreadable { partition } => {
                write!(
                    f,
                    "{partition} is offline once somebody reads there, the others go on"
                )
            }
            Outcome::Reported => f.write_str("reported at the start, nothing that counts is lost"),
            Outcome::NotNeeded => f.write_str("the broker does without it or makes it anew"),
            Outcome::Ignored => f.write_str("left alone"),
        }
    }
}

/// One thing that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// File below the data directory.
    pub file: String,
    /// Byte position, where there is one.
    pub position: Option<u64>,
    /// What is wrong.
    pub problem: String,
    /// What a broker does about it.
    pub outcome: Outcome,
}

/// What was looked at and what was found.
#[derive(Clone, Debug, Default)]
pub struct CheckReport {
    /// What is not as it should be.
    pub findings: Vec<Finding>,
    /// Whether the last stop was clean.
    pub clean_stop: bool,
    /// Logs, as the next start finds them.
    pub logs: Vec<LogDescription>,
    /// Segments of logs.
    pub segments: u64,
    /// Entries, those of settled segments aside.
    pub entries: u64,
    /// Record batches.
    pub batches: u64,
    /// Their bytes and those of their entries.
    pub bytes: u64,
    /// Journal frames that the next start applies.
    pub frames_replayed: u64,
    /// Where the journal ends in something that was never acknowledged, which is no damage.
    pub tail_cut: Option<(String, u64)>,
}

impl CheckReport {
    /// Adds a finding, once.
    pub fn add(&mut self, finding: Finding) {
        let same = |other: &Finding| {
            (&other.file, other.position) == (&finding.file, finding.position)
                && other.problem == finding.problem
        };
        if !self.findings.iter().any(same) {
            self.findings.push(finding);
        }
    }

    /// By file and position.
    pub fn sort(&mut self) {
        self.findings
            .sort_by(|a, b| (&a.file, a.position).cmp(&(&b.file, b.position)));
    }
}
