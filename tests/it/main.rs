//! The one integration binary: what crosses crates, driven from outside.

mod client_library;
mod command_line;
mod every_version;
mod hostile;
mod kafka_apis;
mod running_broker;
mod tidy;
mod topic_churn;
