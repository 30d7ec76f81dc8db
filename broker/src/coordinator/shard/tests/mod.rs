//! A shard on a log in memory: loading, batching, snapshots, failures, load.

mod fixture;
mod loading;
mod scale;
mod serving;
