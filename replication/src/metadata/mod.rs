//! The cluster's metadata: commands, the records they are stored as, the rules, and the image that follows.
//!
//! Pure: no clock, no channel, no file. Equal commands in equal order give equal images on every replica.

pub mod command;
pub mod image;
pub mod levels;
pub mod record;
mod sharded_map;
pub mod snapshot;
pub mod state;
