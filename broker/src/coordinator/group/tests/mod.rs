//! Tests of the group machine, by Kafka rule, on a clock that the test owns.

mod fixture;
mod joining;
mod offsets;
mod persistence;
mod retiring;
mod simulation;
mod static_members;
mod syncing;
