//! How topics come into being and change their replicas: names, placement of replicas, plans, and what carries them out.
//!
//! Owns the rules that CreateTopics, CreatePartitions, AlterPartitionReassignments and auto-creation share. Plans are pure
//! functions over the cluster's image; only [`create`], [`reassign::reassign`] and [`follow::follow`] talk to the controller. Knows no request
//! of the Kafka protocol.

pub mod create;
pub mod drain;
pub mod error;
pub mod fill;
pub mod follow;
pub mod name;
pub mod placement;
pub mod plan;
pub mod reassign;
#[cfg(test)]
pub mod test_images;

pub use create::ensure_topic;
pub use error::TopicError;
pub use plan::{NewTopic, Placement, TopicPlan};

/// Topic that Kafka keeps its cluster's metadata in: there is none here, and clients may not make one.
pub const METADATA_TOPIC: &str = "__cluster_metadata";

/// Whether a topic is the broker's own: it is not created by a client's metadata request.
pub fn is_internal(name: &str) -> bool {
    matches!(name, "__consumer_offsets" | "__transaction_state")
}
