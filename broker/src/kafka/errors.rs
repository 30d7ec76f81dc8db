//! The one place where the errors of the layers below become Kafka's error codes.
//!
//! A function for each operation; handlers call them and decide nothing themselves.

use tidelog_protocol::ErrorCode;
use tidelog_replication::{
    AppendError, DeleteRecordsError, ElectionError, MetadataError, SubmitError,
};
use tidelog_storage::log::LogError;

/// Produce: the append of a batch.
pub fn append(error: &AppendError) -> ErrorCode {
    match error {
        AppendError::NotLeader { .. } => ErrorCode::NotLeaderOrFollower,
        AppendError::FencedEpoch { .. } => ErrorCode::FencedLeaderEpoch,
        AppendError::UnknownEpoch { .. } => ErrorCode::UnknownLeaderEpoch,
        AppendError::NotEnoughReplicas { .. } => ErrorCode::NotEnoughReplicas,
        AppendError::TooLarge { .. } => ErrorCode::MessageTooLarge,
        AppendError::OutOfOrderSequence { .. } => ErrorCode::OutOfOrderSequenceNumber,
        AppendError::InvalidProducerEpoch { .. } => ErrorCode::InvalidProducerEpoch,
        AppendError::UnknownProducerId => ErrorCode::UnknownProducerId,
        AppendError::NoSpace(_) | AppendError::Storage(_) => ErrorCode::KafkaStorageError,
        // The client waits and tries again; nothing was appended.
        AppendError::Overloaded => ErrorCode::NotEnoughReplicas,
        AppendError::ShuttingDown => ErrorCode::NotLeaderOrFollower,
        AppendError::Unknown => ErrorCode::NotEnoughReplicasAfterAppend,
    }
}

/// DeleteRecords: one partition.
pub fn delete_records(error: &DeleteRecordsError) -> ErrorCode {
    match error {
        DeleteRecordsError::OffsetOutOfRange { .. } => ErrorCode::OffsetOutOfRange,
        DeleteRecordsError::NotLeader(_) | DeleteRecordsError::ShuttingDown => {
            ErrorCode::NotLeaderOrFollower
        }
        DeleteRecordsError::Storage(_) => ErrorCode::KafkaStorageError,
        DeleteRecordsError::Unknown => ErrorCode::RequestTimedOut,
    }
}

/// Reads of a log: Fetch, ListOffsets, OffsetForLeaderEpoch.
pub fn read(error: &LogError) -> ErrorCode {
    match error {
        LogError::OffsetOutOfRange { .. } => ErrorCode::OffsetOutOfRange,
        // Not what a read by offset meets.
        LogError::Refused(_) | LogError::EntryOutOfRange { .. } => ErrorCode::UnknownServerError,
        LogError::Removed => ErrorCode::UnknownTopicOrPartition,
        // The log stops: the first reader hears what all later ones hear.
        LogError::Corrupt { .. }
        | LogError::Stopped(_)
        | LogError::NoSpace(_)
        | LogError::Io(_) => ErrorCode::KafkaStorageError,
    }
}

/// ElectLeaders: one partition.
pub fn election(error: &ElectionError) -> ErrorCode {
    match error {
        ElectionError::UnknownPartition => ErrorCode::UnknownTopicOrPartition,
        ElectionError::NotNeeded => ErrorCode::ElectionNotNeeded,
        ElectionError::PreferredNotAvailable(_) => ErrorCode::PreferredLeaderNotAvailable,
        ElectionError::NotAvailable(_) => ErrorCode::EligibleLeadersNotAvailable,
        ElectionError::Timeout => ErrorCode::RequestTimedOut,
    }
}

/// UnregisterBroker, whose broker is the one that may be unknown.
pub fn unregister_broker(error: &SubmitError) -> ErrorCode {
    match error {
        SubmitError::Metadata(MetadataError::UnknownBroker(_)) => ErrorCode::BrokerIdNotRegistered,
        other => submit(other),
    }
}

/// Changes of the cluster's metadata.
pub fn submit(error: &SubmitError) -> ErrorCode {
    match error {
        SubmitError::Metadata(refused) => metadata(refused),
        SubmitError::NotController { .. } => ErrorCode::NotController,
        SubmitError::Timeout => ErrorCode::RequestTimedOut,
        SubmitError::ShuttingDown => ErrorCode::BrokerNotAvailable,
        SubmitError::Unavailable(_) => ErrorCode::KafkaStorageError,
    }
}

/// What the metadata's own rules refuse.
pub fn metadata(error: &MetadataError) -> ErrorCode {
    match error {
        MetadataError::TopicExists(_) => ErrorCode::TopicAlreadyExists,
        MetadataError::TopicIdExists => ErrorCode::UnknownServerError,
        MetadataError::UnknownTopic | MetadataError::UnknownPartition => {
            ErrorCode::UnknownTopicOrPartition
        }
        MetadataError::NoReassignment => ErrorCode::NoReassignmentInProgress,
        MetadataError::BrokerInUse(_) => ErrorCode::InvalidRequest,
        MetadataError::InvalidTopicName(_) | MetadataError::TopicNameCollision { .. } => {
            ErrorCode::InvalidTopicException
        }
        MetadataError::InvalidPartitions(_) => ErrorCode::InvalidPartitions,
        MetadataError::InvalidReplicaAssignment(_) | MetadataError::UnknownBroker(_) => {
            ErrorCode::InvalidReplicaAssignment
        }
        MetadataError::InvalidConfig(_) => ErrorCode::InvalidConfig,
        MetadataError::BrokerIdTaken(_) => ErrorCode::DuplicateBrokerRegistration,
        MetadataError::ProducerIds(_) | MetadataError::AlreadyBootstrapped(_) => {
            ErrorCode::UnknownServerError
        }
        MetadataError::InvalidFeature(_) => ErrorCode::InvalidUpdateVersion,
        MetadataError::LevelTooLow(_) | MetadataError::Unsupported(_) => {
            ErrorCode::UnsupportedVersion
        }
    }
}
