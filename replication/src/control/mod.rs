//! What brokers say to each other beside replication: who is in the cluster, commands for the controller, signs of life.
//!
//! [`message`] has the words, [`ControlClient`] asks whoever leads the controller group, [`ControlHandler`] answers for
//! this broker. A request that came to the wrong broker is answered with the right one's id, never passed on: so no
//! chain of brokers waits for one another.

mod client;
mod codec;
mod directory;
mod handler;
mod message;

pub use client::{AskError, ControlClient};
pub use directory::ClusterDirectory;
pub use handler::{ControlHandler, Heartbeat};
pub use message::{Introduction, Member, Reply, Request};

pub(crate) use codec::{decode_reply, encode_request};
