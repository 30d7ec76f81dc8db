//! The consensus library's side of a group: types, log, votes, network.
//!
//! The only place, with the two state machines, that names openraft. Knows logs and key-value pairs; does not know
//! what a topic is or who produces.

pub mod codec;
pub mod config;
pub mod departures;
pub mod log_store;
pub mod members;
pub mod network;
pub mod state_store;
pub mod types;
