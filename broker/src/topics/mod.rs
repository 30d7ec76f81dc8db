//! How topics come into being: names, placement of replicas, the plan for a new topic, and its creation.
//!
//! Owns the rules that CreateTopics, CreatePartitions and auto-creation share. Plans are pure functions
//! over the cluster's image; only [`create`] talks to the controller. Knows no request of the Kafka protocol.

pub mod create;
pub mod error;
pub mod name;
pub mod placement;
pub mod plan;

pub use create::ensure_topic;
pub use error::TopicError;
pub use plan::{NewTopic, Placement, TopicPlan};

/// Whether a topic is the broker's own: it is not created by a client's metadata request.
pub fn is_internal(name: &str) -> bool {
    matches!(name, "__consumer_offsets" | "__transaction_state")
}
