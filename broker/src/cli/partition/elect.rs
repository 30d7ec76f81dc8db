//! `tidelog partition elect`: leaders anew.

use clap::Args;
use serde_json::{Value, json};
use tidelog_client::{Admin, ElectionKind, ElectionOutcome, Error};

use crate::cli::failure::{ELECTION_NOT_NEEDED, Failure, words};
use crate::cli::output::Output;
use crate::cli::partitions::{find, words_of};
use crate::cli::table::Table;
use crate::cli::{Format, ShowArgs};

/// Arguments of `partition elect`.
#[derive(Debug, Args)]
pub struct ElectArgs {
    /// Name of the topic [default: all partitions that need an election]
    topic: Option<String>,
    /// Index of the partition [default: all of the topic]
    #[arg(value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,
    /// The first replica is to lead, if it is in sync; the default
    #[arg(long, conflicts_with = "unclean")]
    preferred: bool,
    /// Where there is no leader, replicas that a power loss may have left shorter (durability=os) may lead: what it took
    /// from them is lost where no other replica has it
    #[arg(long)]
    unclean: bool,
    #[command(flatten)]
    show: ShowArgs,
}

impl ElectArgs {
    fn kind(&self) -> ElectionKind {
        match (self.preferred, self.unclean) {
            (false, true) => ElectionKind::Unclean,
            _ => ElectionKind::Preferred,
        }
    }
}

pub(super) async fn run(args: ElectArgs) -> Result<(), Failure> {
    let admin = Admin::new(args.show.connect.connect().await?);
    let named = match &args.topic {
        Some(topic) => Some(find(&admin, topic, args.partition.as_slice()).await?),
        None => None,
    };
    let elected = admin.elect_leaders(args.kind(), named.as_deref()).await?;
    let mut output = Output::new();
    match args.show.output {
        Format::Text => output.text(&text(&elected))?,
        Format::Json => output.json(&elected.iter().map(document).collect())?,
    }
    let mut outcome = Ok(());
    for (of, result) in &elected {
        if let Some(error) = failure(result) {
            Failure::Failed(format!("{}: {}", words_of(of), words(error))).report();
            outcome = Err(Failure::Reported);
        }
    }
    outcome
}

/// Why an election failed; that it was not needed is no failure.
fn failure(result: &Result<(), Error>) -> Option<&Error> {
    let error = result.as_ref().err()?;
    (error.code() != Some(ELECTION_NOT_NEEDED)).then_some(error)
}

fn outcome(result: &Result<(), Error>) -> &'static str {
    match (result, failure(result)) {
        (Ok(()), _) => "elected",
        (Err(_), None) => "not-needed",
        (Err(_), Some(_)) => "failed",
    }
}

fn text(elected: &[ElectionOutcome]) -> String {
    let mut table = Table::new(["TOPIC", "PARTITION", "OUTCOME"]);
    for (of, result) in elected {
        table.row([
            of.topic.to_string(),
            of.partition.to_string(),
            outcome(result).to_owned(),
        ]);
    }
    table.render()
}

fn document((of, result): &ElectionOutcome) -> Value {
    json!({
        "topic": of.topic.as_str(),
        "partition": of.partition.0,
        "outcome": outcome(result),
        "error": failure(result).map(words),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidelog_client::{BrokerError, PartitionIndex, TopicPartition};

    #[test]
    fn an_election_that_was_not_needed_is_no_failure() {
        let result = |code: i16| {
            let name = "NAME".to_owned();
            let message = "why".to_owned();
            Err(Error::Broker(BrokerError {
                code,
                name,
                message,
            }))
        };
        let results = [Ok(()), result(ELECTION_NOT_NEEDED), result(80)];
        let elected: Vec<ElectionOutcome> = (0..)
            .zip(results)
            .map(|(index, result)| {
                let of = TopicPartition {
                    topic: "orders".into(),
                    partition: PartitionIndex(index),
                };
                (of, result)
            })
            .collect();
        assert_eq!(
            text(&elected),
            "TOPIC   PARTITION  OUTCOME\n\
             orders  0          elected\n\
             orders  1          not-needed\n\
             orders  2          failed\n"
        );
        let failed = elected.iter().filter(|one| failure(&one.1).is_some());
        assert_eq!(failed.count(), 1);
        assert_eq!(document(&elected[2])["error"], "why (NAME)");
        assert_eq!(document(&elected[1])["error"], Value::Null);
    }
}
