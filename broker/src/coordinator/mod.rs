//! Coordinators: consumer groups and their offsets.
//!
//! Owns the state behind `__consumer_offsets`: [`group`] decides (pure), [`records`] is the format, `shard` is one
//! partition's task that carries out what its groups decide, [`GroupCoordinator`] finds the shard of a group. The
//! leader of a partition coordinates the groups whose names hash to it. Never knows requests or sockets.

mod config;
mod group_coordinator;
mod offsets_log;
mod offsets_topic;
mod placement;
mod shard;
mod topic_registry;

pub mod group;
pub mod records;

pub use config::CoordinatorConfig;
pub use group_coordinator::{CoordinatorError, GroupCoordinator};
pub use offsets_topic::{OFFSETS_TOPIC, OffsetsTopicConfig};
pub use shard::{FetchedOffset, ListedGroup};
