//! The broker as a whole: the state that its parts share, their order at start and at the end.

mod broker;

pub use broker::{Broker, ConnectionLimits};
