//! A shard: the groups of one partition of `__consumer_offsets`, and the one task that owns them.
//!
//! Owns their order: events of a group happen as they arrive, appends commit as they were decided. Loads its state
//! before it serves, answers what it cannot keep, stores a snapshot now and then. Knows no requests of the wire.

mod batch;
mod clock;
mod groups;
mod handle;
mod load;
mod request;
mod snapshot;
mod task;

#[cfg(test)]
mod tests;

pub(super) use handle::{ShardHandle, ShardSender, ShardStart};
pub(super) use request::ShardRequest;
pub use request::{FetchedOffset, ListedGroup};
