//! One error enum per operation, with facts; the broker maps them to Kafka's codes.

use tidelog_protocol::types::{BrokerId, LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence};
use uuid::Uuid;

use crate::metadata::command::MetadataError;

/// Why replication did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory belongs to another cluster.
    #[error("the data directory belongs to cluster {found}, not to {expected}")]
    ClusterIdMismatch {
        /// From the options.
        expected: Uuid,
        /// In the metadata.
        found: Uuid,
    },
    /// The metadata log cannot be read or written.
    #[error("cluster metadata: {0}")]
    Metadata(String),
    /// No controller within the time given.
    #[error(
        "no controller within {0} ms: it needs a majority of the brokers that vote for it (`tidelog cluster status` names \
         them, while it has one)"
    )]
    ControllerTimeout(u128),
    /// The id is held by another data directory.
    #[error(
        "broker id {0} belongs to another data directory of this cluster: start with an id that is free (node.id). If that \
         directory is lost, stop the broker that has it and start with an empty one and --join"
    )]
    BrokerIdTaken(BrokerId),
    /// The cluster is at a feature level that this program does not know.
    #[error("{0}")]
    FeatureLevel(String),
}

/// Why a broker cannot join a cluster.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum JoinError {
    /// The broker named in `--join` did not answer as a broker of a cluster does.
    #[error("{0} does not introduce its cluster: {1}")]
    NotReached(String, String),
    /// The cluster is at a feature level that this program does not know.
    #[error("{0}")]
    FeatureLevel(String),
}

/// Why a metadata command was not carried out.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum SubmitError {
    /// Refused by the metadata's rules.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// This broker does not lead the controller group.
    #[error("not the controller")]
    NotController {
        /// Who does, where known.
        controller: Option<BrokerId>,
    },
    /// No answer in time; the command may still take effect.
    #[error("no answer from the controller in time")]
    Timeout,
    /// The broker stops.
    #[error("shutting down")]
    ShuttingDown,
    /// The metadata log failed.
    #[error("controller unavailable: {0}")]
    Unavailable(String),
}

/// Why a topic's partitions are not led yet.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum WaitLedError {
    /// Some partition has no leader within the time given.
    #[error("not all partitions have a leader yet")]
    Timeout,
    /// The topic is not in the metadata (any more).
    #[error("unknown topic")]
    UnknownTopic,
}

/// This replica does not lead its partition.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
#[error("not the leader")]
pub struct NotLeader {
    /// Who leads, where known.
    pub leader: Option<BrokerId>,
    /// Highest leader epoch known here.
    pub epoch: LeaderEpoch,
}

/// Why records were not appended.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum AppendError {
    /// Another replica leads, or none.
    #[error("not the leader")]
    NotLeader {
        /// Who leads, where known.
        leader: Option<BrokerId>,
        /// Highest leader epoch known here.
        epoch: LeaderEpoch,
    },
    /// The request names an epoch older than the current one.
    #[error("fenced leader epoch, current is {current}")]
    FencedEpoch {
        /// Current epoch.
        current: LeaderEpoch,
    },
    /// The request names an epoch that this replica has not heard of.
    #[error("unknown leader epoch, current is {current}")]
    UnknownEpoch {
        /// Current epoch.
        current: LeaderEpoch,
    },
    /// Fewer in-sync replicas than `min.insync.replicas`; nothing was appended.
    #[error("{in_sync} of {required} in-sync replicas")]
    NotEnoughReplicas {
        /// In sync now.
        in_sync: usize,
        /// Required.
        required: usize,
    },
    /// The batch does not fit into the journal; nothing was appended.
    #[error(
        "a batch of {bytes} bytes exceeds {bytes_max}, the most that journal.file.bytes and journal.files.min allow"
    )]
    TooLarge {
        /// The batch's bytes.
        bytes: usize,
        /// The most that can be appended.
        bytes_max: usize,
    },
    /// The sequence is neither the next one nor that of a recent batch.
    #[error("out of order sequence: expected {expected:?}, got {got:?}")]
    OutOfOrderSequence {
        /// The producer.
        producer: ProducerId,
        /// The next sequence.
        expected: Sequence,
        /// The batch's first sequence.
        got: Sequence,
    },
    /// The producer was fenced by a newer epoch of itself.
    #[error("producer epoch {got:?} is older than {current:?}")]
    InvalidProducerEpoch {
        /// Current epoch.
        current: ProducerEpoch,
        /// The batch's epoch.
        got: ProducerEpoch,
    },
    /// The producer is not known here and may not begin with this batch.
    #[error("unknown producer id")]
    UnknownProducerId,
    /// The disk is full or at its reserve.
    #[error("no space: {0}")]
    NoSpace(String),
    /// The log failed; the partition is offline.
    #[error("storage: {0}")]
    Storage(String),
    /// Too much waits for its commit already.
    #[error("too many requests in flight")]
    Overloaded,
    /// The broker stops, or the topic was deleted.
    #[error("shutting down")]
    ShuttingDown,
    /// Leadership was lost after the append: the records may be committed or gone. A retry must be deduplicated.
    #[error("commit status unknown")]
    Unknown,
}

/// Why records were not deleted.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum DeleteRecordsError {
    /// The offset is beyond the high watermark.
    #[error("offset {requested} is beyond the high watermark {high_watermark}")]
    OffsetOutOfRange {
        /// Asked for.
        requested: Offset,
        /// High watermark.
        high_watermark: Offset,
    },
    /// Another replica leads, or none.
    #[error(transparent)]
    NotLeader(#[from] NotLeader),
    /// The log failed; the partition is offline.
    #[error("storage: {0}")]
    Storage(String),
    /// The broker stops, or the topic was deleted.
    #[error("shutting down")]
    ShuttingDown,
    /// Leadership was lost meanwhile: it may have taken effect.
    #[error("commit status unknown")]
    Unknown,
}
