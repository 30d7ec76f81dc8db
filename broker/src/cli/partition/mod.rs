//! `tidelog partition`: reassign, reassignments, elect.
//!
//! Owns arguments and words. What is moved where is the controller's to decide.

mod elect;
mod progress;
mod reassign;
mod reassignments;
mod throttle;

use clap::Subcommand;

use super::failure::Failure;

/// What to do with partitions.
#[derive(Debug, Subcommand)]
pub enum PartitionCommand {
    /// Have other brokers hold a partition, or cancel that.
    Reassign(reassign::ReassignArgs),
    /// List the partitions that are being moved, and how much is copied.
    Reassignments(reassignments::ReassignmentsArgs),
    /// Have partitions elect their leaders.
    Elect(elect::ElectArgs),
}

pub(super) async fn run(command: PartitionCommand) -> Result<(), Failure> {
    match command {
        PartitionCommand::Reassign(args) => reassign::run(args).await,
        PartitionCommand::Reassignments(args) => reassignments::run(args).await,
        PartitionCommand::Elect(args) => elect::run(args).await,
    }
}
