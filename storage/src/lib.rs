//! What stays: partition logs, the journal, their indexes, the key-value store.
//!
//! Owns every file below the data directory. Blocking calls are marked so in their docs and must not be
//! made on a runtime thread. Knows Kafka's batches and offsets; knows no sockets, no replicas, no votes:
//! what the consensus layer stores here is opaque to it.

pub mod fs;
pub mod journal;
pub mod kv;
pub mod log;
pub mod manager;
