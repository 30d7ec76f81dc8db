//! The Kafka listener of a whole broker, driven with raw frames over real sockets.

#[path = "kafka/catching_up.rs"]
mod catching_up;
#[path = "kafka/connections.rs"]
mod connections;
#[path = "kafka/fetching.rs"]
mod fetching;
#[path = "kafka/groups.rs"]
mod groups;
#[path = "kafka/harness.rs"]
mod harness;
#[path = "kafka/limits.rs"]
mod limits;
#[path = "kafka/metadata.rs"]
mod metadata;
#[path = "kafka/producing.rs"]
mod producing;
