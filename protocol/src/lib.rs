//! What travels between Tidelog and its clients: Kafka frames, record batches, error codes.
//!
//! Owns the wire formats and their bounds. Does no I/O, holds no clock and no state; knows nothing of
//! disks, replicas or sockets. Nothing in here may panic on bytes that came from the network.

pub mod api;
pub mod batch;
pub mod compression;
pub mod encode;
pub mod frame;
pub mod limits;
mod schema;
pub mod types;
pub mod varint;

/// Kafka's error codes.
pub use kafka_protocol::error::ResponseError as ErrorCode;
/// Kafka's request and response structs, one pair per API.
pub use kafka_protocol::messages;
/// The traits and the string type of [`messages`].
pub use kafka_protocol::protocol::{Decodable, Encodable, Message, Request, StrBytes};

#[cfg(test)]
#[global_allocator]
static ALLOCATOR: tidelog_tests::allocations::Counting = tidelog_tests::allocations::Counting;
