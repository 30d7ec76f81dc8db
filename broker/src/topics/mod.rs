//! How topics come into being: names, placement of replicas, the plan for a new topic, and its creation.
//!
//! Owns the rules that CreateTopics, CreatePartitions, auto-creation and the coordinators share. Plans are pure functions
//! over the cluster's image; only [`create`] talks to the controller. Knows no request of the Kafka protocol.

pub mod create;
pub mod error;
pub mod name;
pub mod placement;
pub mod plan;

pub use create::ensure_topic;
pub use error::TopicError;
pub use plan::{NewTopic, Placement, TopicPlan};

/// Topics that the broker itself keeps: they may be compacted, and clients do not create them by accident.
pub const INTERNAL_TOPICS: &[&str] = &[OFFSETS_TOPIC, "__transaction_state"];

/// The topic that holds committed offsets and groups.
pub const OFFSETS_TOPIC: &str = "__consumer_offsets";

/// Whether the topic is one of [`INTERNAL_TOPICS`].
pub fn is_internal(name: &str) -> bool {
    INTERNAL_TOPICS.contains(&name)
}
