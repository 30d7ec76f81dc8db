//! What all requests share.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::kafka::budget::MemoryBudget;

/// The state that handlers, coordinators and listeners share.
#[derive(Debug)]
pub struct Broker {
    /// Memory of requests.
    pub memory: MemoryBudget,
    /// Bounds of connections.
    pub limits: ConnectionLimits,
    /// Cancelled when the broker begins to stop: no new requests, parked fetches are answered.
    pub draining: CancellationToken,
}

/// Bounds that each connection keeps.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    /// `socket.request.max.bytes`.
    pub request_bytes_max: usize,
    /// `connections.max.idle.ms`.
    pub idle_max: Duration,
}
