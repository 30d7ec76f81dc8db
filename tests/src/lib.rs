//! What the tests of several crates share: hostile bytes, and a count of the memory that code asks for.
//!
//! Depends on none of the other crates, so that the unit tests of each may use it.

pub mod allocations;
pub mod hostile;
