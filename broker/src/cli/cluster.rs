//! `tidelog cluster`: status, upgrade.

use std::sync::Arc;
use std::time::Duration;

use clap::Subcommand;
use serde_json::{Value, json};
use tidelog_client::{
    Admin, BrokerId, ClusterDescription, Error, QuorumDescription, Reassignment, TopicInfo,
    TopicPartition,
};
use tokio::time::timeout;

use super::broker_rows::{self, BrokerRow};
use super::failure::{Failure, words};
use super::feature_level::{self, FeatureLevel, UpgradeArgs};
use super::output::Output;
use super::table::Table;
use super::{Format, ShowArgs, quorum_rows};

/// Longest wait for what only the controller group knows.
const CONTROLLER_PATIENCE: Duration = Duration::from_secs(5);

/// What to do with the cluster.
#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// Show brokers, controllers, and how many partitions are not as they should be.
    Status(ShowArgs),
    /// Raise the feature level once all brokers run a new version, so that what is new in it can be used.
    Upgrade(UpgradeArgs),
}

pub(super) async fn run(command: ClusterCommand) -> Result<(), Failure> {
    match command {
        ClusterCommand::Status(args) => status(args).await,
        ClusterCommand::Upgrade(args) => feature_level::upgrade(args).await,
    }
}

async fn status(args: ShowArgs) -> Result<(), Failure> {
    let admin = Admin::new(args.connect.connect().await?);
    let cluster = admin.describe_cluster().await?;
    let topics = admin.describe_topics().await?;
    // Only a controller group with a leader is known: a cluster without one is where the rest is wanted most, and soon.
    let (quorum, moves, level) = tokio::join!(
        timeout(CONTROLLER_PATIENCE, admin.describe_quorum()),
        timeout(CONTROLLER_PATIENCE, admin.list_reassignments(None)),
        timeout(CONTROLLER_PATIENCE, FeatureLevel::ask(&admin)),
    );
    let quorum = quorum.unwrap_or_else(|_| Err(unanswered("DescribeQuorum")));
    let moves = moves.unwrap_or_else(|_| Err(unanswered("ListPartitionReassignments")));
    let level = level.unwrap_or_else(|_| Err(unanswered("ApiVersions")));
    let mut outcome = Ok(());
    let quorum = learned(quorum, "the controller group is not known", &mut outcome);
    let moves = learned(moves, "reassignments are not known", &mut outcome);
    let level = learned(level, "the feature level is not known", &mut outcome);
    let status = Status {
        level: level.flatten(),
        brokers: broker_rows::rows(&cluster, &topics),
        partitions: PartitionCounts::of(&topics, moves.as_deref()),
        cluster,
        quorum,
    };
    let mut output = Output::new();
    match args.output {
        Format::Text => output.text(&status.text())?,
        Format::Json => output.json(&status.json())?,
    }
    outcome
}

fn unanswered(what: &str) -> Error {
    Error::TimedOut {
        what: what.to_owned(),
        after: CONTROLLER_PATIENCE,
    }
}

/// What was asked for; if it was not learned, that is told, and the command fails in the end.
fn learned<T>(
    asked: Result<T, Error>,
    complaint: &str,
    outcome: &mut Result<(), Failure>,
) -> Option<T> {
    match asked {
        Ok(learned) => Some(learned),
        Err(error) => {
            Failure::Failed(format!("{complaint}: {}", words(&error))).report();
            *outcome = Err(Failure::Reported);
            None
        }
    }
}

/// What there is to show.
struct Status {
    cluster: ClusterDescription,
    brokers: Vec<BrokerRow>,
    quorum: Option<QuorumDescription>,
    level: Option<FeatureLevel>,
    partitions: PartitionCounts,
}

impl Status {
    fn text(&self) -> String {
        let unknown = || "unknown".to_owned();
        let controller = self.cluster.controller.map(|id| id.to_string());
        let group = self.quorum.as_ref().map(quorum_rows::line);
        let level = self.level.as_ref().map(FeatureLevel::line);
        let partitions = &self.partitions;
        let reassigning = partitions.reassigning.map(|number| number.to_string());
        let lines = [
            ("Cluster:", self.cluster.id.clone()),
            ("Controller:", controller.unwrap_or_else(unknown)),
            ("Controller group:", group.unwrap_or_else(unknown)),
            ("Feature level:", level.unwrap_or_else(unknown)),
            ("Partitions:", partitions.total.to_string()),
            ("Without a leader:", partitions.without_leader.to_string()),
            ("Under-replicated:", partitions.under_replicated.to_string()),
            ("Being reassigned:", reassigning.unwrap_or_else(unknown)),
        ];
        let mut text = String::new();
        for (label, value) in lines {
            text.push_str(&format!("{label:19}{value}\n"));
        }
        let mut table = Table::new(broker_rows::HEAD);
        for row in &self.brokers {
            table.row(row.cells());
        }
        text = text + "\n" + &table.render();
        if let Some(quorum) = &self.quorum {
            text = text + "\n" + &quorum_rows::table(quorum);
        }
        text
    }

    fn json(&self) -> Value {
        let brokers: Vec<_> = self.brokers.iter().map(BrokerRow::json).collect();
        json!({
            "cluster": self.cluster.id,
            "controller": self.cluster.controller.map(|id| id.0),
            "controller_group": self.quorum.as_ref().map(quorum_rows::json),
            "feature_level": self.level.as_ref().map(FeatureLevel::json),
            "brokers": brokers,
            "partitions": {
                "total": self.partitions.total,
                "without_leader": self.partitions.without_leader,
                "under_replicated": self.partitions.under_replicated,
                "being_reassigned": self.partitions.reassigning,
            },
        })
    }
}

/// How many partitions there are, and how many are not as they should be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct PartitionCounts {
    total: usize,
    without_leader: usize,
    /// Lacking a replica in sync. Replicas that a reassignment only brings do not count.
    under_replicated: usize,
    /// `None` where the controller did not say.
    reassigning: Option<usize>,
}

impl PartitionCounts {
    fn of(topics: &[Arc<TopicInfo>], moves: Option<&[Reassignment]>) -> PartitionCounts {
        let mut counts = PartitionCounts {
            reassigning: moves.map(<[_]>::len),
            ..PartitionCounts::default()
        };
        for topic in topics {
            for partition in &topic.partitions {
                let of = TopicPartition {
                    topic: topic.name.clone(),
                    partition: partition.index,
                };
                let is_missing = |broker: &BrokerId| !partition.in_sync.contains(broker);
                let adding = adding(moves.unwrap_or_default(), &of);
                let mut held = partition.replicas.iter().filter(|it| !adding.contains(it));
                counts.total += 1;
                counts.without_leader += usize::from(partition.leader.is_none());
                counts.under_replicated += usize::from(held.any(is_missing));
            }
        }
        counts
    }
}

/// The brokers that a partition is on its way to; moves are sorted by partition.
fn adding<'a>(moves: &'a [Reassignment], of: &TopicPartition) -> &'a [BrokerId] {
    match moves.binary_search_by(|moving| moving.partition.cmp(of)) {
        Ok(at) => &moves[at].adding,
        Err(_) => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::broker_rows::samples;
    use tidelog_client::PartitionIndex;

    fn moving(index: i32, adding: i32) -> Reassignment {
        Reassignment {
            partition: TopicPartition {
                topic: "orders".into(),
                partition: PartitionIndex(index),
            },
            replicas: vec![BrokerId(1), BrokerId(2)],
            adding: vec![BrokerId(adding)],
            removing: Vec::new(),
        }
    }

    #[test]
    fn replicas_that_are_on_their_way_are_not_missed() {
        let counts = PartitionCounts::of(&samples::topics(), Some(&[]));
        let all_known = PartitionCounts {
            total: 2,
            without_leader: 1,
            under_replicated: 2,
            reassigning: Some(0),
        };
        assert_eq!(counts, all_known);
        let counts = PartitionCounts::of(&samples::topics(), Some(&[moving(0, 2)]));
        assert_eq!((counts.under_replicated, counts.reassigning), (1, Some(1)));
        let counts = PartitionCounts::of(&samples::topics(), None);
        assert_eq!((counts.under_replicated, counts.reassigning), (2, None));
    }

    #[test]
    fn what_the_controller_does_not_say_is_shown_as_unknown() {
        let status = Status {
            cluster: samples::cluster(),
            brokers: broker_rows::rows(&samples::cluster(), &samples::topics()),
            quorum: None,
            level: None,
            partitions: PartitionCounts::of(&samples::topics(), None),
        };
        assert_eq!(
            status.text(),
            "Cluster:           c\n\
             Controller:        1\n\
             Controller group:  unknown\n\
             Feature level:     unknown\n\
             Partitions:        2\n\
             Without a leader:  1\n\
             Under-replicated:  2\n\
             Being reassigned:  unknown\n\n\
             BROKER  ADDRESS         RACK  STATE   LEADERS  REPLICAS\n\
             1       127.0.0.1:9091  a     up      1        1\n\
             2       127.0.0.1:9092  -     fenced  0        2\n"
        );
        assert_eq!(status.json()["controller_group"], Value::Null);
        assert_eq!(status.json()["partitions"]["without_leader"], 1);
    }
}
