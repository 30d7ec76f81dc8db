//! The one integration binary: what crosses crates, driven from outside.

mod tidy;
