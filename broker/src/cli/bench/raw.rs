//! `tidelog bench raw produce` and `consume`: arguments into plans, outcomes into reports.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::json;
use tidelog_driver::{
    Acks, ConsumePlan, DriverError, Extent, Outcome, PreparedBatch, ProducePlan, Shape,
};

use super::report::Report;
use super::target::TopicArgs;
use crate::cli::failure::Failure;
use crate::cli::output::Output;
use crate::cli::produce::{AcksArg, CompressionArg};
use crate::cli::{ConnectArgs, Format, seconds};

/// Most connections of one run: each has a thread.
const CONNECTIONS_MAX: i64 = 1024;
/// Most requests in flight on a connection.
const IN_FLIGHT_MAX: i64 = 65_536;
/// Largest batch: no broker takes a larger frame by default.
const BATCH_BYTES_MAX: i64 = 100 * 1024 * 1024;

/// What is done.
#[derive(Debug, Subcommand)]
pub enum RawCommand {
    /// Write one prepared batch again and again.
    Produce(ProduceArgs),
    /// Read a topic, again from its start when its end is reached.
    Consume(ConsumeArgs),
}

/// Arguments of `bench raw produce`.
#[derive(Debug, Args)]
pub struct ProduceArgs {
    #[command(flatten)]
    run: RunArgs,
    /// Bytes of each record's value
    #[arg(long, value_name = "BYTES", default_value = "1024", value_parser = clap::value_parser!(u32).range(0..=BATCH_BYTES_MAX))]
    record_size: u32,
    /// Bytes of a batch before compression; as many records as fit, but at least one
    #[arg(long, value_name = "BYTES", default_value = "16384", value_parser = clap::value_parser!(u32).range(1..=BATCH_BYTES_MAX))]
    batch_bytes: u32,
    /// Whose copy is waited for
    #[arg(long, value_enum, default_value = "all")]
    acks: AcksArg,
    /// Codec of the batches
    #[arg(long, short = 'z', value_enum, default_value = "none")]
    compression: CompressionArg,
    /// Batches per second over all connections, sent whether replies come or not; latency counts from the moment at
    /// which a batch was to be sent [default: as fast as replies come]
    #[arg(long, value_name = "BATCHES", value_parser = rate)]
    rate: Option<f64>,
}

/// Arguments of `bench raw consume`.
#[derive(Debug, Args)]
pub struct ConsumeArgs {
    #[command(flatten)]
    run: RunArgs,
    /// Most bytes of one reply; a request reads one partition
    #[arg(long, value_name = "BYTES", default_value = "1048576", value_parser = clap::value_parser!(i32).range(1..=BATCH_BYTES_MAX))]
    fetch_bytes: i32,
}

/// What both take.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("extent").required(true).multiple(true).args(["bytes", "seconds"]))]
struct RunArgs {
    #[command(flatten)]
    topic: TopicArgs,
    /// Connections, each with a thread; at least one for each broker
    #[arg(long, short = 'c', value_name = "N", default_value = "4", value_parser = clap::value_parser!(u32).range(1..=CONNECTIONS_MAX))]
    connections: u32,
    /// Requests without a reply on each connection
    #[arg(long, value_name = "N", default_value = "64", value_parser = clap::value_parser!(u32).range(1..=IN_FLIGHT_MAX))]
    in_flight: u32,
    /// End after so many bytes of batches; K, M and G stand for KiB, MiB and GiB
    #[arg(long, value_name = "BYTES", value_parser = size)]
    bytes: Option<u64>,
    /// End after so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    seconds: Option<Duration>,
    /// Process id of the broker, on this machine: its processor time and memory are shown
    #[arg(long, value_name = "PID")]
    pid: Option<u32>,
    /// How the result is printed
    #[arg(long, value_enum, default_value = "text")]
    output: Format,
    /// The same as --output json
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: ConnectArgs,
}

pub(super) async fn run(command: RawCommand) -> Result<(), Failure> {
    match command {
        RawCommand::Produce(args) => produce(args).await,
        RawCommand::Consume(args) => consume(args).await,
    }
}

async fn produce(args: ProduceArgs) -> Result<(), Failure> {
    let batch = PreparedBatch::new(
        args.record_size as usize,
        args.batch_bytes as usize,
        args.compression.into(),
    )
    .map_err(failed)?;
    let plan = ProducePlan {
        shape: args.run.shape(true).await?,
        acks: match args.acks {
            AcksArg::None => Acks::None,
            AcksArg::Leader => Acks::One,
            AcksArg::All => Acks::All,
        },
        batches_per_s: args.rate,
        batch,
    };
    let load = json!({
        "load": "produce",
        "record_bytes": args.record_size,
        "batch_bytes": plan.batch.wire_bytes(),
        "batch_bytes_uncompressed": plan.batch.plain_bytes,
        "records_per_batch": plan.batch.records,
        "batches_per_s_intended": args.rate,
    });
    let outcome = blocking(move || tidelog_driver::produce(&plan)).await?;
    args.run.print(load, &outcome)
}

async fn consume(args: ConsumeArgs) -> Result<(), Failure> {
    let plan = ConsumePlan {
        shape: args.run.shape(false).await?,
        fetch_bytes: args.fetch_bytes,
    };
    let load = json!({ "load": "consume", "fetch_bytes": args.fetch_bytes });
    let outcome = blocking(move || tidelog_driver::consume(&plan)).await?;
    args.run.print(load, &outcome)
}

impl RunArgs {
    async fn shape(&self, may_create: bool) -> Result<Shape, Failure> {
        Ok(Shape {
            topic: self.topic.name(),
            targets: self.topic.targets(&self.connect, may_create).await?,
            connections: self.connections as usize,
            in_flight: self.in_flight as usize,
            extent: Extent {
                bytes: self.bytes,
                time: self.seconds,
            },
            timeout: self.connect.command_timeout,
            pid: self.pid,
        })
    }

    fn print(&self, load: serde_json::Value, outcome: &Outcome) -> Result<(), Failure> {
        let report = Report::new(load, self.in_flight, outcome);
        let mut output = Output::new();
        if self.json || self.output == Format::Json {
            output.json(&report.json())
        } else {
            output.text(&report.text())
        }
    }
}

/// The driver has threads of its own; the runtime's must not wait for them.
async fn blocking(
    run: impl FnOnce() -> Result<Outcome, DriverError> + Send + 'static,
) -> Result<Outcome, Failure> {
    tokio::task::spawn_blocking(run)
        .await
        .map_err(|error| Failure::Failed(error.to_string()))?
        .map_err(failed)
}

fn failed(error: DriverError) -> Failure {
    Failure::Failed(error.to_string())
}

/// A positive number of bytes.
fn size(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'K' | b'k') => (&text[..text.len() - 1], 10),
        Some(b'M' | b'm') => (&text[..text.len() - 1], 20),
        Some(b'G' | b'g') => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    digits
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(1 << shift))
        .filter(|bytes| *bytes > 0)
        .ok_or_else(|| "not a number of bytes, such as 512M or 4G".to_owned())
}

/// A positive number per second.
fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate.is_finite() && (0.001..=1e9).contains(&rate) => Ok(rate),
        _ => Err("not a number per second".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_take_binary_units() {
        assert_eq!(size("17"), Ok(17));
        assert_eq!(size("2K"), Ok(2048));
        assert_eq!(size("3m"), Ok(3 << 20));
        assert_eq!(size("4G"), Ok(4 << 30));
        for wrong in ["", "G", "0", "-1", "1.5G", "99999999999G", "4GB"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn rates_are_positive() {
        assert_eq!(rate("0.5"), Ok(0.5));
        for wrong in ["0", "-3", "inf", "NaN", "x"] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
    }
}
