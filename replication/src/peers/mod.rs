//! Connections between brokers: one transport for all groups, bounded, with its lengths checked.
//!
//! Each broker connects to each other one by three lanes (votes and calls, entries, bulk), so that long bodies hold up no
//! short ones; a lane carries all groups at once. Every queue is bounded, every wait has an end: a slow peer slows nobody
//! but itself. [`PeerPool`] is the side that connects and asks, [`PeerServer`] the one that is asked; between the server
//! and the groups stands [`PeerService`]. Knows groups by their id and nothing of what they do with what it carries.
//!
//! `docs/PEER_PROTOCOL.md` has the bytes.

mod arriving;
mod codec;
mod connection;
mod frame;
mod handshake;
mod identity;
mod link;
mod outbox;
mod router;
mod sending;
mod server;
mod service;
mod session;
mod transport;
mod wire;

#[cfg(test)]
pub use service::PeerService;

#[cfg(test)]
mod tests;

pub(crate) use codec::{get_text, put_text};
pub use connection::{Loss, RequestError};
pub use handshake::{HandshakeError, Lane, RefusedFor, RemotePeer};
pub use identity::{
    ClusterSecret, ListenError, LocalPeer, PeerAddress, PeerDirectory, PeerPatience, ShortSecret,
};
pub(crate) use link::jitter;
pub use link::{LinkContext, PeerStatus};
pub use router::{CallHandler, GroupRouter};
pub use server::{Drained, PeerServer};
pub use service::{CallKind, Refusal, RefusalCode, Served};
pub(crate) use transport::closed;
pub use transport::{CallError, PeerPool, PeerStatuses};
