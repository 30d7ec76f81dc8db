//! What stays: partition logs, the journal, their indexes, the key-value store.
//!
//! Owns every file below the data directory. Blocking calls are marked so in their docs and must not be
//! made on a runtime thread. Knows Kafka's batches and offsets; knows no sockets, no replicas, no votes:
//! what the consensus layer stores here is opaque to it.

pub mod check;
pub mod fs;
pub mod journal;
pub mod kv;
pub mod log;
pub mod manager;
mod sync_point;

pub use sync_point::SyncPoint;

#[cfg(test)]
#[global_allocator]
static ALLOCATOR: tidelog_tests::allocations::Counting = tidelog_tests::allocations::Counting;

/// Cases of a property in a test run: so many, times `TIDELOG_SOAK` where that is set.
#[cfg(test)]
fn soak(cases: u32) -> u32 {
    let factor = std::env::var("TIDELOG_SOAK").ok();
    cases
        * factor.map_or(1, |factor| {
            factor.parse().expect("TIDELOG_SOAK is a number")
        })
}
