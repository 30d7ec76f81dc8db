//! Why a command did not succeed, in one line, and its exit code.

use std::process::ExitCode;

use tidelog_client::{BrokerId, Error, TopicPartition};

use super::partitions::words_of;

/// Kafka's code of a topic or partition that does not exist.
pub(super) const UNKNOWN_TOPIC: i16 = 3;
/// Kafka's code of a topic that exists already.
pub(super) const TOPIC_EXISTS: i16 = 36;
/// Kafka's code of a group that does not exist.
pub(super) const UNKNOWN_GROUP: i16 = 69;
/// Kafka's code of a group that still has members.
const GROUP_NOT_EMPTY: i16 = 68;
/// Kafka's code of an election that would change nothing.
pub(super) const ELECTION_NOT_NEEDED: i16 = 84;
/// Kafka's code of a partition that stays where it is.
const NO_REASSIGNMENT: i16 = 85;
/// Kafka's code of brokers that cannot hold a partition.
const INVALID_REPLICAS: i16 = 39;
/// Kafka's code of a broker that is not of the cluster.
const UNKNOWN_BROKER: i16 = 102;

/// How a command ends without success.
#[derive(Debug)]
pub(super) enum Failure {
    /// The arguments make no sense together.
    Usage(String),
    /// What was to be looked at cannot be read.
    Unreadable(String),
    /// It did not work.
    Failed(String),
    /// It did not work, and the reasons are printed already.
    Reported,
    /// Nobody reads the output any more, which is the reader's right.
    OutputClosed,
}

impl Failure {
    /// Prints what there is to say and yields the exit code.
    pub(super) fn report(self) -> ExitCode {
        match self {
            Failure::Usage(message) | Failure::Unreadable(message) => {
                eprintln!("error: {message}");
                ExitCode::from(2)
            }
            Failure::Failed(message) => {
                eprintln!("error: {message}");
                ExitCode::FAILURE
            }
            Failure::Reported => ExitCode::FAILURE,
            Failure::OutputClosed => ExitCode::SUCCESS,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Failed(words(&error))
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            Failure::OutputClosed
        } else {
            Failure::Failed(format!("cannot write the output: {error}"))
        }
    }
}

/// An error as a person wants to read it.
pub(super) fn words(error: &Error) -> String {
    match error {
        Error::Unreachable { .. } => format!("{error}; is `tidelog serve` running?"),
        _ => error.to_string(),
    }
}

/// As [`words`], where it is known which topic the call was about.
pub(super) fn about_topic(error: &Error, topic: &str) -> Failure {
    Failure::Failed(match error.code() {
        Some(UNKNOWN_TOPIC) => format!("topic '{topic}' does not exist"),
        Some(TOPIC_EXISTS) => format!("topic '{topic}' already exists"),
        _ => words(error),
    })
}

/// As [`words`], where it is known which group the call was about.
pub(super) fn about_group(error: &Error, group: &str) -> Failure {
    Failure::Failed(match error.code() {
        Some(UNKNOWN_GROUP) => format!("group '{group}' does not exist"),
        Some(GROUP_NOT_EMPTY) => format!("group '{group}' has members: stop them first"),
        _ => words(error),
    })
}

/// As [`words`], where it is known which broker the call was about.
pub(super) fn about_broker(error: &Error, broker: BrokerId) -> Failure {
    Failure::Failed(match error.code() {
        Some(UNKNOWN_BROKER) => {
            format!("broker {broker} is not in the cluster: `tidelog broker list` shows what is")
        }
        _ => words(error),
    })
}

/// As [`words`], where it is known which partition was to be moved.
pub(super) fn about_move(error: &Error, of: &TopicPartition) -> Failure {
    Failure::Failed(match error.code() {
        Some(NO_REASSIGNMENT) => format!(
            "{} is not being moved: `tidelog partition reassignments` shows what is",
            words_of(of)
        ),
        Some(INVALID_REPLICAS) => format!("{}: see `tidelog broker list`", words(error)),
        _ => return about_topic(error, of.topic.as_str()),
    })
}
