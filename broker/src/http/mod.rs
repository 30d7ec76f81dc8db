//! HTTP: whether the broker lives and is ready, and its metrics.
//!
//! Owns the HTTP sockets. Serves from the first moment of the start on, so that a long recovery can be told from a
//! dead process.

mod health;
mod listener;
mod metrics;
mod server;

pub use self::health::Health;
pub use self::server::HttpServer;
