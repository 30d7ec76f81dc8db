//! Why a topic cannot be created or changed, in Kafka's words, and the one place where that becomes an error code.

use tidelog_protocol::ErrorCode;
use tidelog_protocol::types::{BrokerId, PartitionIndex, TopicName};
use tidelog_replication::{MetadataError, SubmitError};

use crate::kafka::errors;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// The name is not one that Kafka allows.
    #[error("Topic name is invalid: {0}")]
    InvalidName(String),
    /// The name differs from that of another topic only in `.` and `_`.
    #[error("Topic '{name}' collides with existing topic: {existing}")]
    NameCollision {
        /// The new name.
        name: TopicName,
        /// The other topic.
        existing: TopicName,
    },
    /// The name is taken.
    #[error("Topic '{0}' already exists.")]
    Exists(TopicName),
    /// There is no such topic.
    #[error("This server does not host this topic-partition.")]
    Unknown,
    /// A topic or partition that a change names is not there.
    #[error("{0}")]
    NotFound(String),
    /// No reassignment is there to be cancelled.
    #[error("No partition reassignment is in progress.")]
    NoReassignment,
    /// The number of partitions makes no sense.
    #[error("{0}")]
    InvalidPartitions(String),
    /// The number of replicas makes no sense, or is more than there are brokers.
    #[error("{0}")]
    InvalidReplicationFactor(String),
    /// The replicas that the client names make no sense.
    #[error("{0}")]
    InvalidAssignment(String),
    /// A setting is unknown, ill-formed or not supported.
    #[error("{0}")]
    InvalidConfig(String),
    /// The request asks for more than this broker lets one request bring about.
    #[error("{0}")]
    PolicyViolation(String),
    /// The request contradicts itself.
    #[error("{0}")]
    InvalidRequest(String),
    /// The controller refused or did not answer.
    #[error("{0}")]
    Controller(SubmitError),
    /// The topic is there, but not all its partitions have a leader yet.
    #[error("The topic was created, but not all of its partitions have a leader yet.")]
    NotLedYet,
}

impl TopicError {
    /// Kafka's error code.
    pub fn code(&self) -> ErrorCode {
        match self {
            TopicError::InvalidName(_) | TopicError::NameCollision { .. } => {
                ErrorCode::InvalidTopicException
            }
            TopicError::Exists(_) => ErrorCode::TopicAlreadyExists,
            TopicError::Unknown | TopicError::NotFound(_) => ErrorCode::UnknownTopicOrPartition,
            TopicError::NoReassignment => ErrorCode::NoReassignmentInProgress,
            TopicError::InvalidPartitions(_) => ErrorCode::InvalidPartitions,
            TopicError::InvalidReplicationFactor(_) => ErrorCode::InvalidReplicationFactor,
            TopicError::InvalidAssignment(_) => ErrorCode::InvalidReplicaAssignment,
            TopicError::InvalidConfig(_) => ErrorCode::InvalidConfig,
            TopicError::PolicyViolation(_) => ErrorCode::PolicyViolation,
            TopicError::InvalidRequest(_) => ErrorCode::InvalidRequest,
            TopicError::Controller(error) => errors::submit(error),
            TopicError::NotLedYet => ErrorCode::RequestTimedOut,
        }
    }
}

impl From<SubmitError> for TopicError {
    /// What the controller's own checks refuse reads like what the plan refuses: it was a race.
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::Metadata(MetadataError::TopicExists(name)) => TopicError::Exists(name),
            SubmitError::Metadata(
                MetadataError::UnknownTopic | MetadataError::UnknownPartition,
            ) => TopicError::Unknown,
            SubmitError::Metadata(MetadataError::NoReassignment) => TopicError::NoReassignment,
            other => TopicError::Controller(other),
        }
    }
}

/// A broker named in a manual assignment is not registered.
pub fn unregistered(broker: BrokerId) -> TopicError {
    TopicError::InvalidAssignment(format!(
        "The manual partition assignment includes broker {broker}, but no such broker is registered."
    ))
}

/// All brokers of a manual assignment are fenced.
pub fn all_fenced(partition: PartitionIndex) -> TopicError {
    TopicError::InvalidAssignment(format!(
        "All brokers specified in the manual partition assignment for partition {partition} are fenced or in controlled shutdown."
    ))
}
