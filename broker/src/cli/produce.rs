//! `tidelog produce`: records from arguments, a file or lines of standard input.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use tidelog_client::{
    Acks, Compression, Delivery, PartitionIndex, Producer, ProducerConfig, ProducerRecord,
};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::failure::{Failure, about_topic, words};
use super::record_lines::{RecordLines, trim_end};
use super::{ConnectArgs, assignment};

/// Longest line that is read: as long as the largest request that a broker takes.
const LINE_BYTES_MAX: u64 = 100 * 1024 * 1024;
/// Deliveries that are waited for at one time; reading goes on meanwhile.
const DELIVERIES_MAX: usize = 10_000;

/// Arguments of `produce`.
#[derive(Debug, Args)]
pub struct ProduceArgs {
    /// Topic to write to
    topic: String,
    /// Values, one record each; without any, every line of standard input is a record
    #[arg(conflicts_with = "file")]
    values: Vec<String>,
    /// Write one record whose value is this file
    #[arg(long, value_name = "PATH")]
    file: Option<PathBuf>,
    /// Key of all records
    #[arg(long, short, value_name = "KEY", conflicts_with = "key_separator")]
    key: Option<String>,
    /// What stands between key and value in each line or argument
    #[arg(long, short = 'K', value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    key_separator: Option<String>,
    /// A header of all records; may be repeated
    #[arg(long, short = 'H', value_name = "NAME=VALUE", value_parser = assignment)]
    header: Vec<(String, String)>,
    /// Partition to write to [default: by key, or one after the other]
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,
    /// A value that means null
    #[arg(long, value_name = "TEXT")]
    null_value: Option<String>,
    /// Whose copy is waited for
    #[arg(long, value_enum, default_value = "all")]
    acks: AcksArg,
    /// Codec of the batches
    #[arg(long, short = 'z', value_enum, default_value = "none")]
    compression: CompressionArg,
    /// Whether retries write nothing twice [default: true with --acks all]
    #[arg(long, value_name = "BOOL")]
    idempotence: Option<bool>,
    /// No summary
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// Whose copy is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AcksArg {
    /// Nobody's: losses go unnoticed.
    #[value(name = "0", alias = "none")]
    None,
    /// The leader's.
    #[value(name = "1", alias = "leader")]
    Leader,
    /// All replicas' that are in sync.
    #[value(name = "all", alias = "-1")]
    All,
}

/// Codec of the batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CompressionArg {
    /// Uncompressed.
    None,
    /// Slow and small.
    Gzip,
    /// Fast.
    Snappy,
    /// Fast.
    Lz4,
    /// Fast and small.
    Zstd,
}

impl From<CompressionArg> for Compression {
    fn from(arg: CompressionArg) -> Self {
        match arg {
            CompressionArg::None => Compression::None,
            CompressionArg::Gzip => Compression::Gzip,
            CompressionArg::Snappy => Compression::Snappy,
            CompressionArg::Lz4 => Compression::Lz4,
            CompressionArg::Zstd => Compression::Zstd,
        }
    }
}

impl ProduceArgs {
    fn config(&self) -> Result<ProducerConfig, Failure> {
        let acks = match self.acks {
            AcksArg::None => Acks::None,
            AcksArg::Leader => Acks::Leader,
            AcksArg::All => Acks::All,
        };
        let idempotence = self.idempotence.unwrap_or(acks == Acks::All);
        if idempotence && acks != Acks::All {
            return Err(Failure::Usage("--idempotence needs --acks all".to_owned()));
        }
        Ok(ProducerConfig {
            acks,
            idempotence,
            compression: self.compression.into(),
            delivery_timeout: self.connect.command_timeout,
            ..ProducerConfig::default()
        })
    }

    fn lines(&self) -> RecordLines {
        RecordLines {
            topic: self.topic.as_str().into(),
            partition: self.partition.map(PartitionIndex),
            key: self.key.clone(),
            key_separator: self.key_separator.clone(),
            null_value: self.null_value.clone(),
            headers: self.header.clone(),
        }
    }
}

/// Counts records and says what is wrong with them.
struct Progress {
    topic: String,
    producer: Producer,
    /// Number of the record that is read next, from 1.
    next: u64,
    /// Records that could not even be made.
    unreadable: u64,
    deliveries: mpsc::Sender<(u64, Delivery)>,
    waiter: JoinHandle<Waited>,
}

/// What became of the records that were sent.
#[derive(Clone, Copy, Debug, Default)]
struct Waited {
    written: u64,
    failed: u64,
}

pub(super) async fn run(args: ProduceArgs) -> Result<(), Failure> {
    let config = args.config()?;
    let lines = args.lines();
    let client = args.connect.connect().await?;
    let producer = Producer::new(client, config)?;
    let (deliveries, waiting) = mpsc::channel(DELIVERIES_MAX);
    let mut progress = Progress {
        topic: args.topic.clone(),
        producer,
        next: 1,
        unreadable: 0,
        deliveries,
        waiter: tokio::spawn(wait(waiting)),
    };
    let read = if let Some(path) = &args.file {
        match tokio::fs::read(path).await {
            Ok(value) => progress.send(Ok(lines.record(value))).await,
            Err(error) => Err(Failure::Failed(format!("{}: {error}", path.display()))),
        }
    } else if args.values.is_empty() {
        from_standard_input(&lines, &mut progress).await
    } else {
        from_arguments(&args.values, &lines, &mut progress).await
    };
    progress.finish(read, args.quiet).await
}

async fn from_arguments(
    values: &[String],
    lines: &RecordLines,
    progress: &mut Progress,
) -> Result<(), Failure> {
    for value in values {
        progress.send(lines.read(value.as_bytes())).await?;
    }
    Ok(())
}

async fn from_standard_input(lines: &RecordLines, progress: &mut Progress) -> Result<(), Failure> {
    use tokio::io::AsyncReadExt;
    let unreadable = |error| Failure::Failed(format!("cannot read standard input: {error}"));
    let mut input = BufReader::new(tokio::io::stdin());
    let mut line = Vec::new();
    loop {
        line.clear();
        let count = (&mut input)
            .take(LINE_BYTES_MAX)
            .read_until(b'\n', &mut line)
            .await
            .map_err(unreadable)?;
        if count == 0 {
            return Ok(());
        }
        if count as u64 == LINE_BYTES_MAX && line.last() != Some(&b'\n') {
            let message = format!("line {} is longer than 100 MiB", progress.next);
            return Err(Failure::Failed(message));
        }
        progress.send(lines.read(trim_end(&line))).await?;
    }
}

impl Progress {
    /// Sends a record, or says why there is none.
    async fn send(&mut self, record: Result<ProducerRecord, String>) -> Result<(), Failure> {
        let number = self.next;
        self.next += 1;
        match record {
            Ok(record) => {
                let delivery = self
                    .producer
                    .send(record)
                    .await
                    .map_err(|error| about_topic(&error, &self.topic))?;
                // The receiver lives until this sender is dropped.
                self.deliveries.send((number, delivery)).await.ok();
            }
            Err(reason) => {
                eprintln!("error: record {number}: {reason}");
                self.unreadable += 1;
            }
        }
        Ok(())
    }

    /// Waits for all deliveries and sums up.
    async fn finish(self, read: Result<(), Failure>, is_quiet: bool) -> Result<(), Failure> {
        drop(self.deliveries);
        let flushed = self.producer.close().await;
        let waited = self.waiter.await.unwrap_or_default();
        let failed = waited.failed + self.unreadable;
        if !is_quiet && (waited.written + failed > 0 || read.is_ok()) {
            eprintln!("{}", summary(waited.written, failed, &self.topic));
        }
        read?;
        flushed?;
        if failed > 0 {
            return Err(Failure::Reported);
        }
        Ok(())
    }
}

/// Waits for each delivery in turn and prints the ones that failed.
async fn wait(mut deliveries: mpsc::Receiver<(u64, Delivery)>) -> Waited {
    let mut waited = Waited::default();
    while let Some((number, delivery)) = deliveries.recv().await {
        match delivery.await {
            Ok(_) => waited.written += 1,
            Err(error) => {
                eprintln!("error: record {number}: {}", words(&error));
                waited.failed += 1;
            }
        }
    }
    waited
}

fn summary(written: u64, failed: u64, topic: &str) -> String {
    let records = if written == 1 { "record" } else { "records" };
    let mut text = format!("{written} {records} written to '{topic}'");
    if failed > 0 {
        text.push_str(&format!(", {failed} failed"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_counts() {
        assert_eq!(summary(1, 0, "t"), "1 record written to 't'");
        assert_eq!(summary(3, 2, "t"), "3 records written to 't', 2 failed");
    }
}
