//! `tidelog partition reassignments`: what is being moved, and how much of it is copied.

use std::collections::BTreeMap;

use clap::Args;
use serde_json::{Value, json};
use tidelog_client::{Admin, Error, Reassignment, TopicName};

use super::progress::{self, Move, Progress};
use crate::cli::failure::{Failure, about_topic};
use crate::cli::output::{Output, ids};
use crate::cli::table::{Table, list};
use crate::cli::{Format, ShowArgs};

/// Arguments of `partition reassignments`.
#[derive(Debug, Args)]
pub struct ReassignmentsArgs {
    /// Names of the topics [default: all]
    topics: Vec<String>,
    #[command(flatten)]
    show: ShowArgs,
}

pub(super) async fn run(args: ReassignmentsArgs) -> Result<(), Failure> {
    let admin = Admin::new(args.show.connect.connect().await?);
    let moves = with_leaders(&admin, listed(&admin, &args.topics).await?).await?;
    let progress = progress::ask(&admin, &moves).await;
    let moves: Vec<_> = moves.into_iter().zip(progress).collect();
    let mut output = Output::new();
    match args.show.output {
        Format::Text => output.text(&text(&moves)),
        Format::Json => output.json(&moves.iter().map(document).collect()),
    }
}

async fn listed(admin: &Admin, topics: &[String]) -> Result<Vec<Reassignment>, Failure> {
    if topics.is_empty() {
        return Ok(admin.list_reassignments(None).await?);
    }
    let mut moves = Vec::new();
    for topic in topics {
        let name = TopicName::from(topic.as_str());
        let listed = admin.list_reassignments(Some(&[name])).await;
        moves.extend(listed.map_err(|error| about_topic(&error, topic))?);
    }
    Ok(moves)
}

async fn with_leaders(admin: &Admin, moves: Vec<Reassignment>) -> Result<Vec<Move>, Error> {
    if moves.is_empty() {
        return Ok(Vec::new());
    }
    let topics = admin.describe_topics().await?;
    let topics: BTreeMap<_, _> = topics.iter().map(|topic| (&topic.name, topic)).collect();
    let with_leader = |reassignment: Reassignment| {
        let of = &reassignment.partition;
        let topic = topics.get(&of.topic);
        let partition = topic.and_then(|topic| topic.partition(of.partition));
        Move {
            leader: partition.and_then(|partition| partition.leader),
            reassignment,
        }
    };
    Ok(moves.into_iter().map(with_leader).collect())
}

fn text(moves: &[(Move, Option<Progress>)]) -> String {
    let head = [
        "TOPIC",
        "PARTITION",
        "REPLICAS",
        "ADDING",
        "REMOVING",
        "COPIED",
        "TO-COPY",
    ];
    let mut table = Table::new(head);
    let number = |bytes: Option<u64>| bytes.map_or(String::new(), |bytes| bytes.to_string());
    for (one, progress) in moves {
        let moving = &one.reassignment;
        table.row([
            moving.partition.topic.to_string(),
            moving.partition.partition.to_string(),
            list(&moving.replicas),
            list(&moving.adding),
            list(&moving.removing),
            number(progress.map(|progress| progress.copied)),
            number(progress.map(|progress| progress.to_copy)),
        ]);
    }
    table.render()
}

fn document((one, progress): &(Move, Option<Progress>)) -> Value {
    let moving = &one.reassignment;
    json!({
        "topic": moving.partition.topic.as_str(),
        "partition": moving.partition.partition.0,
        "leader": one.leader.map(|leader| leader.0),
        "replicas": ids(&moving.replicas),
        "adding": ids(&moving.adding),
        "removing": ids(&moving.removing),
        "bytes_copied": progress.map(|progress| progress.copied),
        "bytes_to_copy": progress.map(|progress| progress.to_copy),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidelog_client::{BrokerId, PartitionIndex, TopicPartition};

    #[test]
    fn moves_are_shown_with_what_is_copied_if_that_is_known() {
        let one = |index: i32, progress: Option<Progress>| {
            let partition = TopicPartition {
                topic: "orders".into(),
                partition: PartitionIndex(index),
            };
            let reassignment = Reassignment {
                partition,
                replicas: [3, 2, 1].map(BrokerId).to_vec(),
                adding: vec![BrokerId(3)],
                removing: vec![BrokerId(1)],
            };
            let leader = Some(BrokerId(1));
            let one = Move {
                reassignment,
                leader,
            };
            (one, progress)
        };
        let halfway = Progress {
            copied: 50,
            to_copy: 100,
        };
        let moves = [one(0, Some(halfway)), one(1, None)];
        assert_eq!(
            text(&moves),
            "TOPIC   PARTITION  REPLICAS  ADDING  REMOVING  COPIED  TO-COPY\n\
             orders  0          3,2,1     3       1         50      100\n\
             orders  1          3,2,1     3       1         -       -\n"
        );
        assert_eq!(document(&moves[0])["bytes_to_copy"], 100);
        assert_eq!(document(&moves[1])["bytes_copied"], Value::Null);
    }
}
