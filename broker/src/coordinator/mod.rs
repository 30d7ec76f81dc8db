//! Coordinators: consumer groups and their offsets.
//!
//! The state machine in [`group`] decides; everything else in here carries out.

pub mod group;
