//! The Kafka side of the broker: connections, the order of their requests, and one handler for each API.
//!
//! A request passes `connection` (frame, memory, order) -> `dispatch` (decode, handler, encode) -> `handlers`.
//! Handlers know messages and the broker's state; they never see a socket, and no file is opened in here.

pub mod budget;
pub mod connection;
pub mod context;
pub mod dispatch;
pub mod errors;
pub mod handlers;
pub mod memory;
pub mod request_metrics;

pub use crate::topics::is_internal;
pub use context::{ClientSoftware, ConnectionInfo, RequestContext};
