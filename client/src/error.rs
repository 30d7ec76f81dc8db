//! What can go wrong, in words that a person can act on.
//!
//! Errors are cloned into every record of a failed batch, so they hold text instead of sources.

use std::fmt;
use std::time::Duration;

use tidelog_protocol::ErrorCode;

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No connection could be made.
    #[error("cannot reach {address}: {reason}")]
    Unreachable {
        /// The address, or the list of them.
        address: String,
        /// What the system says.
        reason: String,
    },
    /// A connection was lost with requests on it. They may or may not have been carried out.
    #[error("connection to {address} was lost: {reason}")]
    Disconnected {
        /// The broker's address.
        address: String,
        /// What the system says.
        reason: String,
    },
    /// No reply in time. The request may or may not have been carried out.
    #[error("{what} timed out after {} s", .after.as_secs_f32())]
    TimedOut {
        /// What was asked.
        what: String,
        /// How long it was waited for.
        after: Duration,
    },
    /// What came back is not what the protocol says.
    #[error("{address} sent what is not understood: {reason}")]
    Malformed {
        /// The broker's address.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The broker does not offer the call in a version that this client speaks.
    #[error("{address} does not support {call}")]
    Unsupported {
        /// The broker's address.
        address: String,
        /// Name of the call.
        call: String,
    },
    /// The broker refused.
    #[error(transparent)]
    Broker(BrokerError),
    /// The caller asked for something that cannot be.
    #[error("{0}")]
    Invalid(String),
    /// The producer or consumer was closed.
    #[error("closed")]
    Closed,
}

/// A refusal in the broker's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerError {
    /// Kafka's error code.
    pub code: i16,
    /// Kafka's name of the code, as in `UNKNOWN_TOPIC_OR_PARTITION`.
    pub name: String,
    /// The broker's message, else the code's general description.
    pub message: String,
}

impl fmt::Display for BrokerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message.trim_end_matches('.'), self.name)
    }
}

impl std::error::Error for BrokerError {}

impl BrokerError {
    fn new(code: ErrorCode, message: Option<&str>) -> Self {
        let message = match message.map(str::trim) {
            None | Some("") => code.to_string(),
            Some(text) => text.to_owned(),
        };
        BrokerError {
            code: code.code(),
            name: upper_snake(&format!("{code:?}")),
            message,
        }
    }
}

impl Error {
    pub(crate) fn broker(code: ErrorCode) -> Self {
        Error::Broker(BrokerError::new(code, None))
    }

    /// `Ok` for code 0, else the error with the broker's message if it sent one.
    pub(crate) fn check(code: i16, message: Option<&str>) -> Result<(), Error> {
        match ErrorCode::try_from_code(code) {
            None => Ok(()),
            Some(code) => Err(Error::Broker(BrokerError::new(code, message))),
        }
    }

    /// Kafka's error code, when the broker refused.
    pub fn code(&self) -> Option<i16> {
        match self {
            Error::Broker(error) => Some(error.code),
            _ => None,
        }
    }

    pub(crate) fn is(&self, code: ErrorCode) -> bool {
        self.code() == Some(code.code())
    }

    /// Whether the same call may succeed later without anything being changed.
    pub fn is_retriable(&self) -> bool {
        match self {
            Error::Unreachable { .. } | Error::Disconnected { .. } | Error::TimedOut { .. } => true,
            Error::Broker(error) => {
                ErrorCode::try_from_code(error.code).is_some_and(|code| code.is_retriable())
            }
            _ => false,
        }
    }

    /// Whether what is known of the cluster may be out of date.
    pub(crate) fn is_stale_metadata(&self) -> bool {
        const STALE: [ErrorCode; 9] = [
            ErrorCode::UnknownTopicOrPartition,
            ErrorCode::LeaderNotAvailable,
            ErrorCode::NotLeaderOrFollower,
            ErrorCode::ReplicaNotAvailable,
            ErrorCode::FencedLeaderEpoch,
            ErrorCode::UnknownLeaderEpoch,
            ErrorCode::KafkaStorageError,
            ErrorCode::NotController,
            ErrorCode::UnknownTopicId,
        ];
        match self {
            Error::Unreachable { .. } | Error::Disconnected { .. } => true,
            Error::Broker(error) => STALE.iter().any(|code| code.code() == error.code),
            _ => false,
        }
    }

    /// Whether the request may have been carried out although it failed.
    pub(crate) fn is_in_doubt(&self) -> bool {
        match self {
            Error::Disconnected { .. } | Error::TimedOut { .. } | Error::Malformed { .. } => true,
            Error::Broker(error) => [
                ErrorCode::RequestTimedOut,
                ErrorCode::NotEnoughReplicasAfterAppend,
                ErrorCode::NetworkException,
                ErrorCode::KafkaStorageError,
                ErrorCode::UnknownServerError,
            ]
            .iter()
            .any(|code| code.code() == error.code),
            _ => false,
        }
    }
}

/// `UnknownTopicOrPartition` to `UNKNOWN_TOPIC_OR_PARTITION`.
fn upper_snake(camel: &str) -> String {
    let mut name = String::with_capacity(camel.len() + 8);
    for (at, letter) in camel.chars().enumerate() {
        if at > 0 && letter.is_ascii_uppercase() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_carry_the_brokers_words_and_kafkas_name() {
        let error = Error::check(36, Some("Topic 'orders' already exists.")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "Topic 'orders' already exists (TOPIC_ALREADY_EXISTS)"
        );
        assert_eq!(error.code(), Some(36));
        assert!(!error.is_retriable());
        assert!(Error::check(0, Some("ignored")).is_ok());
    }

    #[test]
    fn stale_metadata_is_told_from_refusals() {
        let moved = Error::check(6, None).unwrap_err();
        assert!(moved.is_retriable() && moved.is_stale_metadata() && !moved.is_in_doubt());
        let late = Error::check(7, None).unwrap_err();
        assert!(late.is_retriable() && late.is_in_doubt());
        let big = Error::check(10, None).unwrap_err();
        assert!(!big.is_retriable() && !big.is_in_doubt());
    }
}
