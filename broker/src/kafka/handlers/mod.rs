//! One file for each Kafka API: `handle(cx, request) -> Result<response, HandlerError>`.
//!
//! A handler answers every fault that Kafka has a code for inside its response; [`HandlerError`] is for the rest,
//! where Kafka closes the connection. Whatever a handler does before its first `.await` happens in the order in
//! which the requests of its connection arrived (see `dispatch::Order`). Adding an API: a file here, a line in
//! `dispatch::APIS`.

pub mod alter_configs;
pub mod alter_partition_reassignments;
pub mod api_versions;
pub mod authorized_operations;
mod auto_create;
pub mod config_resource;
pub mod create_partitions;
pub mod create_topics;
pub mod delete_groups;
pub mod delete_records;
pub mod delete_topics;
pub mod describe_cluster;
pub mod describe_configs;
pub mod describe_groups;
pub mod describe_log_dirs;
pub mod describe_producers;
pub mod describe_quorum;
pub mod describe_topic_partitions;
pub mod elect_leaders;
pub mod endpoints;
pub mod fetch;
pub mod find_coordinator;
mod group_fields;
pub mod heartbeat;
pub mod incremental_alter_configs;
pub mod init_producer_id;
pub mod join_group;
pub mod leave_group;
pub mod list_config_resources;
pub mod list_groups;
pub mod list_offsets;
pub mod list_partition_reassignments;
pub mod metadata;
pub mod offset_commit;
pub mod offset_delete;
pub mod offset_fetch;
pub mod offset_for_leader_epoch;
pub mod partitions;
pub mod produce;
pub mod sync_group;
pub mod unregister_broker;
pub mod update_features;

use tidelog_protocol::encode::EncodeError;
use tidelog_protocol::frame::DecodeError;

/// Why a request gets no reply and its connection is closed.
#[derive(Debug, thiserror::Error)]
pub enum HandlerError {
    /// The body is not a message of its API and version.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The response cannot be encoded: a fault of the broker.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The request contradicts itself in a way that has no error code.
    #[error("invalid request: {0}")]
    InvalidRequest(String),
    /// The answer is larger than any that is given.
    #[error("the reply would be too large")]
    ReplyTooLarge,
    /// All memory for requests stayed in use.
    #[error("no memory for the request")]
    NoMemory,
    /// The broker stops before the request can be answered.
    #[error("the broker stops")]
    ShuttingDown,
    /// A produce with `acks=0` failed; closing is how its client learns of it.
    #[error("acks=0 produce failed: {0}")]
    UnacknowledgedProduce(String),
}

impl HandlerError {
    /// Whether a person should look at it, and not only at the client.
    pub fn is_broker_fault(&self) -> bool {
        matches!(self, HandlerError::Encode(_))
    }
}
