//! What clients reach: the Kafka listener and its handlers, coordinators, configuration, the HTTP listener, and the
//! assembly of all of it into a broker.
//!
//! Owns sockets and the messages on them. What is durable is `storage`'s, what is agreed is `replication`'s; no file
//! is opened in here and no vote is counted.

pub mod config;
pub mod coordinator;
pub mod http;
pub mod kafka;
pub mod server;
pub mod topics;

#[cfg(test)]
#[global_allocator]
static ALLOCATOR: tidelog_tests::allocations::Counting = tidelog_tests::allocations::Counting;
