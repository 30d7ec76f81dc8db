//! `tidelog broker`: list, drain, undrain, remove.

use clap::{Args, Subcommand};
use serde_json::json;
use tidelog_client::{Admin, BrokerId};

use super::broker_rows::{self, BrokerRow};
use super::drain::{self, DrainArgs};
use super::failure::{Failure, about_broker};
use super::output::Output;
use super::replica_sizes::{self, Sizes};
use super::table::Table;
use super::{ConnectArgs, Format, ShowArgs};

/// What to do with brokers.
#[derive(Debug, Subcommand)]
pub enum BrokerCommand {
    /// List brokers and what they carry.
    List(ShowArgs),
    /// Empty a broker: its replicas move to others, and it gets no new ones.
    Drain(DrainArgs),
    /// Use a broker again that was being emptied, or is empty.
    Undrain(BrokerArgs),
    /// Have the cluster forget a broker that is stopped for good and holds no replicas.
    Remove(BrokerArgs),
}

/// Arguments of commands about one broker.
#[derive(Debug, Args)]
pub struct BrokerArgs {
    /// Id of the broker
    #[arg(value_name = "ID", value_parser = clap::value_parser!(i32).range(0..))]
    broker: i32,
    #[command(flatten)]
    connect: ConnectArgs,
}

pub(super) async fn run(command: BrokerCommand) -> Result<(), Failure> {
    match command {
        BrokerCommand::List(args) => list(args).await,
        BrokerCommand::Drain(args) => drain::drain(args).await,
        BrokerCommand::Undrain(args) => drain::undrain(args.broker, &args.connect).await,
        BrokerCommand::Remove(args) => remove(args).await,
    }
}

async fn list(args: ShowArgs) -> Result<(), Failure> {
    let admin = Admin::new(args.connect.connect().await?);
    let cluster = admin.describe_cluster().await?;
    let rows = broker_rows::rows(&cluster, &admin.describe_topics().await?);
    let up = rows.iter().filter(|row| row.is_up());
    let sizes = replica_sizes::ask(&admin, up.map(|row| (row.id(), None))).await;
    let mut output = Output::new();
    match args.output {
        Format::Text => output.text(&list_text(&rows, &sizes)),
        Format::Json => {
            let brokers = rows.iter().map(|row| {
                let mut broker = row.json();
                broker["bytes"] = json!(bytes(row, &sizes));
                broker
            });
            output.json(&brokers.collect())
        }
    }
}

fn list_text(rows: &[BrokerRow], sizes: &Sizes) -> String {
    let mut table = Table::new(with(broker_rows::HEAD, "BYTES"));
    for row in rows {
        let bytes = bytes(row, sizes).map_or(String::new(), |bytes| bytes.to_string());
        table.row(with(row.cells(), bytes));
    }
    table.render()
}

/// Bytes of all replicas of a broker, if it said so.
fn bytes(row: &BrokerRow, sizes: &Sizes) -> Option<u64> {
    Some(sizes.get(&row.id())?.values().sum())
}

/// One more column.
fn with<T>(cells: [T; 6], last: T) -> [T; 7] {
    let [a, b, c, d, e, f] = cells;
    [a, b, c, d, e, f, last]
}

async fn remove(args: BrokerArgs) -> Result<(), Failure> {
    let admin = Admin::new(args.connect.connect().await?);
    let id = BrokerId(args.broker);
    let removed = admin.unregister_broker(id).await;
    removed.map_err(|error| about_broker(&error, id))?;
    Output::new().text(&format!("removed broker {id} from the cluster\n"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::cli::broker_rows::samples;
    use tidelog_client::{PartitionIndex, TopicPartition};

    #[test]
    fn bytes_are_summed_and_unknown_of_brokers_that_said_nothing() {
        let rows = broker_rows::rows(&samples::cluster(), &samples::topics());
        let replica = |index: i32, bytes: u64| {
            let of = TopicPartition {
                topic: "orders".into(),
                partition: PartitionIndex(index),
            };
            (of, bytes)
        };
        let replicas = BTreeMap::from([replica(0, 40), replica(1, 2)]);
        let sizes = Sizes::from([(BrokerId(1), replicas)]);
        assert_eq!(
            list_text(&rows, &sizes),
            "BROKER  ADDRESS         RACK  STATE   LEADERS  REPLICAS  BYTES\n\
             1       127.0.0.1:9091  a     up      1        1         42\n\
             2       127.0.0.1:9092  -     fenced  0        2         -\n"
        );
    }
}
