//! The `tidelog` command: argument parsing and what to run.

mod cli;
mod serve;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Freed memory goes back to the system at a bounded pace, and large reservations that nobody touches cost nothing:
/// message decoding relies on that.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// A log service that every Kafka client can use.
#[derive(Debug, Parser)]
#[command(name = "tidelog", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a broker in the foreground.
    Serve(serve::ServeArgs),
    #[command(flatten)]
    Client(cli::ClientCommand),
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Serve(args) => serve::run(args),
        Command::Client(command) => cli::run(command),
    }
}
