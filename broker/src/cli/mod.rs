//! The command line's client half: topics, groups, producing and consuming, the cluster, its brokers and where
//! partitions are, all through `tidelog-client`, and load by `tidelog-driver`; and the look at a data directory that
//! no broker uses.
//!
//! Owns arguments, words and exit codes (0 done, 1 failed, 2 wrong usage). Knows nothing of the broker's inside: it
//! speaks to any Kafka broker, or reads files through `tidelog-storage`.

mod bench;
mod broker;
mod broker_rows;
mod cluster;
mod consume;
mod delete_names;
mod drain;
mod failure;
mod feature_level;
mod group;
mod output;
mod partition;
mod partitions;
mod produce;
mod quorum_rows;
mod record_format;
mod record_lines;
mod replica_sizes;
mod start_point;
mod stop;
mod storage;
mod table;
mod topic;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use tidelog_client::{Client, ClientConfig};

use failure::Failure;

/// Where to find brokers, if the command line does not say.
const BOOTSTRAP_VARIABLE: &str = "TIDELOG_BOOTSTRAP_SERVER";
/// Where `tidelog serve` listens without being told otherwise.
const BOOTSTRAP_DEFAULT: &str = "127.0.0.1:9092";

/// Commands beside the broker itself.
#[derive(Debug, Subcommand)]
pub enum ClientCommand {
    /// Create, list, describe, alter and delete topics.
    #[command(subcommand)]
    Topic(topic::TopicCommand),
    /// Write records: from arguments, a file, or lines of standard input.
    Produce(produce::ProduceArgs),
    /// Read records and print them.
    Consume(consume::ConsumeArgs),
    /// List, describe, reset and delete consumer groups.
    #[command(subcommand)]
    Group(group::GroupCommand),
    /// Show the state of the cluster.
    #[command(subcommand)]
    Cluster(cluster::ClusterCommand),
    /// List and remove brokers.
    #[command(subcommand)]
    Broker(broker::BrokerCommand),
    /// Move partitions to other brokers, have them elect their leaders.
    #[command(subcommand)]
    Partition(partition::PartitionCommand),
    /// Put load on a broker and measure it.
    #[command(subcommand)]
    Bench(bench::BenchCommand),
    /// Look at a data directory while no broker uses it.
    #[command(subcommand)]
    Storage(storage::StorageCommand),
}

/// What every command that talks to a broker takes.
#[derive(Debug, Args)]
pub struct ConnectArgs {
    /// Brokers to begin with, host:port, separated by commas [env: TIDELOG_BOOTSTRAP_SERVER] [default: 127.0.0.1:9092]
    #[arg(long, short = 'b', value_name = "ADDRESSES", value_parser = addresses)]
    bootstrap_server: Option<String>,

    /// Seconds that a request may take, retries included
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    command_timeout: Duration,
}

/// What every command takes that shows what a broker says.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// How the result is printed
    #[arg(long, value_enum, default_value = "text")]
    output: Format,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people: aligned columns, plain values.
    Text,
    /// For programs.
    Json,
}

impl ConnectArgs {
    fn config(&self) -> Result<ClientConfig, Failure> {
        let bootstrap = match &self.bootstrap_server {
            Some(given) => given.clone(),
            None => match std::env::var(BOOTSTRAP_VARIABLE) {
                Ok(set) => addresses(&set)
                    .map_err(|reason| Failure::Usage(format!("{BOOTSTRAP_VARIABLE}: {reason}")))?,
                Err(_) => BOOTSTRAP_DEFAULT.to_owned(),
            },
        };
        let mut config = ClientConfig::new(&bootstrap);
        config.client_id = "tidelog-cli".to_owned();
        config.call_timeout = self.command_timeout;
        config.request_timeout = config.request_timeout.min(self.command_timeout);
        config.connect_timeout = config.connect_timeout.min(self.command_timeout);
        Ok(config)
    }

    async fn connect(&self) -> Result<Client, Failure> {
        Ok(Client::connect(self.config()?).await?)
    }
}

/// Runs a command to its end.
pub fn run(command: ClientCommand) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return Failure::Failed(format!("cannot start: {error}")).report(),
    };
    let outcome = runtime.block_on(async {
        match command {
            ClientCommand::Topic(command) => topic::run(command).await,
            ClientCommand::Produce(args) => produce::run(args).await,
            ClientCommand::Consume(args) => consume::run(args).await,
            ClientCommand::Group(command) => group::run(command).await,
            ClientCommand::Cluster(command) => cluster::run(command).await,
            ClientCommand::Broker(command) => broker::run(command).await,
            ClientCommand::Partition(command) => partition::run(command).await,
            ClientCommand::Bench(command) => bench::run(command).await,
            // Nothing else runs on this runtime.
            ClientCommand::Storage(command) => storage::run(command),
        }
    });
    // A read of standard input that nobody waits for must not hold up the end.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

/// A list of `host:port`.
fn addresses(text: &str) -> Result<String, String> {
    let is_address = |address: &str| {
        address.rsplit_once(':').is_some_and(|(host, port)| {
            !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)
        })
    };
    let list: Vec<_> = text.split(',').map(str::trim).collect();
    match list.iter().find(|address| !is_address(address)) {
        None => Ok(list.join(",")),
        Some(wrong) => Err(format!("'{wrong}' is not host:port")),
    }
}

/// A positive number of seconds, fractions allowed.
fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text
        .parse()
        .map_err(|_| "not a number of seconds".to_owned())?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err("must be more than 0".to_owned()),
    }
}

/// `name=value`; the value may be empty and may hold further equals signs.
fn assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => {
            Ok((name.trim().to_owned(), value.to_owned()))
        }
        _ => Err("must be name=value".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_need_a_host_and_a_port() {
        assert_eq!(addresses("a:1, b:2"), Ok("a:1,b:2".to_owned()));
        assert_eq!(addresses("[::1]:9092"), Ok("[::1]:9092".to_owned()));
        for wrong in ["localhost", ":9092", "a:0", "a:70000", "", "a:1,"] {
            assert!(addresses(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn seconds_are_positive() {
        assert_eq!(seconds("1.5"), Ok(Duration::from_millis(1500)));
        for wrong in ["0", "-1", "x", "inf", "NaN"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn assignments_keep_everything_behind_the_first_equals_sign() {
        let pair = |name: &str, value: &str| Ok((name.to_owned(), value.to_owned()));
        assert_eq!(assignment("a=b=c"), pair("a", "b=c"));
        assert_eq!(assignment("a="), pair("a", ""));
        assert!(assignment("a").is_err() && assignment("=b").is_err());
    }
}
