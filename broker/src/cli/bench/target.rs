//! The topic of a run: created if it is missing, then its partitions with their leaders.

use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use tidelog_client::{
    Admin, Error, NewTopic, Offset, OffsetSpec, TopicInfo, TopicName, TopicPartition,
};
use tidelog_driver::Target;

use crate::cli::failure::{Failure, TOPIC_EXISTS, UNKNOWN_TOPIC, about_topic};
use crate::cli::topic::unique;
use crate::cli::{ConnectArgs, assignment};

/// How often a topic that was just created is asked for.
const POLL: Duration = Duration::from_millis(20);

/// Arguments about the topic.
#[derive(Debug, Args)]
pub(super) struct TopicArgs {
    /// Topic; `produce` creates it if it is missing
    #[arg(long, short)]
    topic: String,
    /// Partitions of a topic that is created [default: the broker's num.partitions]
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    partitions: Option<i32>,
    /// Replicas of each partition of a topic that is created [default: the broker's default.replication.factor]
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(i16).range(1..))]
    replication_factor: Option<i16>,
    /// A setting of a topic that is created, such as durability=os; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = assignment)]
    config: Vec<(String, String)>,
}

impl TopicArgs {
    pub(super) fn name(&self) -> TopicName {
        self.topic.as_str().into()
    }

    /// Every partition, once its leader answers, and where its records begin.
    pub(super) async fn targets(
        &self,
        connect: &ConnectArgs,
        may_create: bool,
    ) -> Result<Vec<Target>, Failure> {
        let client = connect.connect().await?;
        let admin = Admin::new(client.clone());
        let name = self.name();
        let about = |error: Error| about_topic(&error, &self.topic);
        let topic = match admin.describe_topic(&name).await {
            Err(error) if error.code() == Some(UNKNOWN_TOPIC) && may_create => {
                self.create(&admin).await?;
                self.created(&admin, connect.command_timeout).await?
            }
            found => found.map_err(about)?,
        };
        let mut starts = Vec::with_capacity(topic.partitions.len());
        for partition in &topic.partitions {
            let of = TopicPartition {
                topic: name.clone(),
                partition: partition.index,
            };
            // The call goes to the leader and is repeated until that one answers.
            let start = admin.list_offset(&of, OffsetSpec::Earliest).await;
            let start = start.map_err(about)?.offset;
            starts.push((partition.index, start.unwrap_or(Offset(0))));
        }
        let topic = admin.describe_topic(&name).await.map_err(about)?;
        let brokers = client.brokers();
        let targets = starts.into_iter().map(|(partition, start)| {
            let leader = topic.partition(partition).and_then(|found| found.leader);
            let broker = brokers.iter().find(|broker| Some(broker.id) == leader);
            let address = broker.map(|broker| broker.address.clone());
            address
                .map(|address| Target {
                    address,
                    partition,
                    start,
                })
                .ok_or_else(|| Failure::Failed(format!("partition {partition} has no leader")))
        });
        targets.collect()
    }

    /// The topic once the broker that is asked has heard of it: some learn of it after the one that created it.
    async fn created(&self, admin: &Admin, timeout: Duration) -> Result<Arc<TopicInfo>, Failure> {
        let deadline = Instant::now() + timeout;
        loop {
            match admin.describe_topic(&self.name()).await {
                Err(error) if error.code() == Some(UNKNOWN_TOPIC) && Instant::now() < deadline => {
                    tokio::time::sleep(POLL).await;
                }
                found => return found.map_err(|error| about_topic(&error, &self.topic)),
            }
        }
    }

    async fn create(&self, admin: &Admin) -> Result<(), Failure> {
        let topic = NewTopic {
            name: self.name(),
            partitions: self.partitions,
            replication_factor: self.replication_factor,
            configs: unique(self.config.clone())?,
        };
        match admin.create_topic(&topic).await {
            Err(error) if error.code() != Some(TOPIC_EXISTS) => {
                Err(about_topic(&error, &self.topic))
            }
            _ => Ok(()),
        }
    }
}
