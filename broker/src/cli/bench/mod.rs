//! `tidelog bench`: load on a broker, and what the broker spends on it.
//!
//! Owns arguments and words. The load itself is `tidelog-driver`'s.

mod raw;
mod report;
mod target;

use clap::Subcommand;

use super::failure::Failure;

/// How load is made.
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Prepared requests, many in flight, at almost no cost of their own.
    #[command(subcommand)]
    Raw(raw::RawCommand),
}

pub(super) async fn run(command: BenchCommand) -> Result<(), Failure> {
    match command {
        BenchCommand::Raw(command) => raw::run(command).await,
    }
}
