//! `tidelog topic`: create, list, describe, alter, delete.

use std::collections::BTreeMap;
use std::sync::Arc;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use tidelog_client::{Admin, ConfigChange, ConfigEntry, NewTopic, TopicInfo, TopicName};

use super::delete_names::delete_each;
use super::failure::{Failure, TOPIC_EXISTS, UNKNOWN_TOPIC, about_topic};
use super::output::{Output, ids};
use super::table::{Table, list};
use super::{ConnectArgs, Format, ShowArgs, assignment};

/// What to do with topics.
#[derive(Debug, Subcommand)]
pub enum TopicCommand {
    /// Create a topic.
    Create(CreateArgs),
    /// List topics.
    List(ListArgs),
    /// Show partitions and settings of topics.
    Describe(DescribeArgs),
    /// Add partitions, change settings.
    Alter(AlterArgs),
    /// Delete topics and all their records.
    Delete(DeleteArgs),
}

/// Arguments of `topic create`.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// Name of the topic: letters, digits, '.', '_' and '-'
    topic: String,
    /// Number of partitions [default: the broker's num.partitions]
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    partitions: Option<i32>,
    /// Replicas of each partition [default: the broker's default.replication.factor]
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(i16).range(1..))]
    replication_factor: Option<i16>,
    /// A setting of the topic, such as retention.ms=86400000; may be repeated
    #[arg(long, short, value_name = "NAME=VALUE", value_parser = assignment)]
    config: Vec<(String, String)>,
    /// Succeed if the topic exists already
    #[arg(long)]
    if_not_exists: bool,
    #[command(flatten)]
    show: ShowArgs,
}

/// Arguments of `topic list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Include the topics in which brokers keep their own state
    #[arg(long)]
    internal: bool,
    #[command(flatten)]
    show: ShowArgs,
}

/// Arguments of `topic describe`.
#[derive(Debug, Args)]
pub struct DescribeArgs {
    /// Names of the topics
    #[arg(required = true)]
    topics: Vec<String>,
    /// Show all settings, not only those that were set on the topic
    #[arg(long)]
    all_configs: bool,
    #[command(flatten)]
    show: ShowArgs,
}

/// Arguments of `topic alter`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("change").required(true).multiple(true))]
pub struct AlterArgs {
    /// Name of the topic
    topic: String,
    /// New number of partitions; more than now. Records with keys may change their partition
    #[arg(long, short, value_name = "N", group = "change", value_parser = clap::value_parser!(i32).range(1..))]
    partitions: Option<i32>,
    /// A setting and its new value; may be repeated
    #[arg(long, short, value_name = "NAME=VALUE", group = "change", value_parser = assignment)]
    config: Vec<(String, String)>,
    /// A setting that goes back to the broker's default; may be repeated
    #[arg(long, value_name = "NAME", group = "change")]
    delete_config: Vec<String>,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// Arguments of `topic delete`.
#[derive(Debug, Args)]
pub struct DeleteArgs {
    /// Names of the topics
    #[arg(required = true)]
    topics: Vec<String>,
    /// Succeed if a topic does not exist
    #[arg(long)]
    if_exists: bool,
    #[command(flatten)]
    connect: ConnectArgs,
}

pub(super) async fn run(command: TopicCommand) -> Result<(), Failure> {
    match command {
        TopicCommand::Create(args) => create(args).await,
        TopicCommand::List(args) => list_topics(args).await,
        TopicCommand::Describe(args) => describe(args).await,
        TopicCommand::Alter(args) => alter(args).await,
        TopicCommand::Delete(args) => delete(args).await,
    }
}

async fn create(args: CreateArgs) -> Result<(), Failure> {
    let topic = NewTopic {
        name: args.topic.as_str().into(),
        partitions: args.partitions,
        replication_factor: args.replication_factor,
        configs: unique(args.config)?,
    };
    let admin = Admin::new(args.show.connect.connect().await?);
    let mut output = Output::new();
    match admin.create_topic(&topic).await {
        Ok(created) => match args.show.output {
            Format::Text => output.text(&format!(
                "created topic '{}' with {}\n",
                args.topic,
                count(created.partitions, "partition")
            )),
            Format::Json => output.json(&json!({
                "topic": args.topic,
                "created": true,
                "id": created.id.to_string(),
                "partitions": created.partitions,
                "replication_factor": created.replication_factor,
            })),
        },
        Err(error) if args.if_not_exists && error.code() == Some(TOPIC_EXISTS) => {
            match args.show.output {
                Format::Text => output.text(&format!("topic '{}' exists already\n", args.topic)),
                Format::Json => output.json(&json!({ "topic": args.topic, "created": false })),
            }
        }
        Err(error) => Err(about_topic(&error, &args.topic)),
    }
}

async fn list_topics(args: ListArgs) -> Result<(), Failure> {
    let admin = Admin::new(args.show.connect.connect().await?);
    let mut topics = admin.list_topics().await?;
    topics.retain(|topic| args.internal || !topic.is_internal);
    let mut output = Output::new();
    match args.show.output {
        Format::Text => {
            let mut table = Table::new(["TOPIC", "PARTITIONS", "REPLICAS"]);
            for topic in &topics {
                table.row([
                    topic.name.to_string(),
                    topic.partitions.to_string(),
                    topic.replication_factor.to_string(),
                ]);
            }
            output.text(&table.render())
        }
        Format::Json => {
            let topics = topics.iter().map(|topic| {
                json!({
                    "topic": topic.name.as_str(),
                    "id": topic.id.to_string(),
                    "internal": topic.is_internal,
                    "partitions": topic.partitions,
                    "replication_factor": topic.replication_factor,
                })
            });
            output.json(&topics.collect())
        }
    }
}

async fn describe(args: DescribeArgs) -> Result<(), Failure> {
    let admin = Admin::new(args.show.connect.connect().await?);
    let mut output = Output::new();
    let mut described = Vec::new();
    let mut outcome = Ok(());
    for name in &args.topics {
        let shown = async {
            let topic = admin.describe_topic(&name.as_str().into()).await?;
            let configs = admin.topic_configs(&topic.name).await?;
            Ok::<_, tidelog_client::Error>((topic, configs))
        };
        match shown.await {
            Ok((topic, mut configs)) => {
                configs.retain(|config| args.all_configs || config.is_set_here);
                described.push((topic, configs));
            }
            Err(error) => {
                about_topic(&error, name).report();
                outcome = Err(Failure::Reported);
            }
        }
    }
    match args.show.output {
        Format::Text => {
            let texts: Vec<_> = described
                .iter()
                .map(|(topic, configs)| describe_text(topic, configs))
                .collect();
            output.text(&texts.join("\n"))?;
        }
        Format::Json => output.json(
            &described
                .iter()
                .map(|(topic, configs)| describe_json(topic, configs))
                .collect(),
        )?,
    }
    outcome
}

fn describe_text(topic: &Arc<TopicInfo>, configs: &[ConfigEntry]) -> String {
    let mut text = format!("Topic:       {}\nId:          {}\n", topic.name, topic.id);
    text.push_str(&format!("Partitions:  {}\n", topic.partitions.len()));
    for (at, config) in configs.iter().enumerate() {
        let label = if at == 0 { "Configs:" } else { "" };
        let value = match &config.value {
            Some(value) => value.as_str(),
            None if config.is_sensitive => "(secret)",
            None => "",
        };
        text.push_str(&format!("{label:13}{}={value}\n", config.name));
    }
    let mut table = Table::new(["PARTITION", "LEADER", "EPOCH", "REPLICAS", "IN-SYNC"]);
    for partition in &topic.partitions {
        table.row([
            partition.index.to_string(),
            partition
                .leader
                .map_or("none".to_owned(), |leader| leader.to_string()),
            partition.leader_epoch.to_string(),
            list(&partition.replicas),
            list(&partition.in_sync),
        ]);
    }
    text + "\n" + &table.render()
}

fn describe_json(topic: &TopicInfo, configs: &[ConfigEntry]) -> Value {
    let partitions: Vec<_> = topic
        .partitions
        .iter()
        .map(|partition| {
            json!({
                "partition": partition.index.0,
                "leader": partition.leader.map(|leader| leader.0),
                "leader_epoch": partition.leader_epoch.0,
                "replicas": ids(&partition.replicas),
                "in_sync": ids(&partition.in_sync),
            })
        })
        .collect();
    let configs: serde_json::Map<_, _> = configs
        .iter()
        .map(|config| (config.name.clone(), json!(config.value)))
        .collect();
    json!({
        "topic": topic.name.as_str(),
        "id": topic.id.to_string(),
        "internal": topic.is_internal,
        "partitions": partitions,
        "configs": configs,
    })
}

async fn alter(args: AlterArgs) -> Result<(), Failure> {
    let name = TopicName::from(args.topic.as_str());
    let set = unique(args.config)?;
    if let Some(both) = args
        .delete_config
        .iter()
        .find(|name| set.contains_key(*name))
    {
        let message = format!("'{both}' is both given and deleted");
        return Err(Failure::Usage(message));
    }
    let set = set
        .into_iter()
        .map(|(name, value)| ConfigChange::Set { name, value });
    let reset = args
        .delete_config
        .into_iter()
        .map(|name| ConfigChange::Reset { name });
    let changes: Vec<_> = set.chain(reset).collect();
    let admin = Admin::new(args.connect.connect().await?);
    let mut output = Output::new();
    if !changes.is_empty() {
        admin
            .alter_topic_configs(&name, &changes)
            .await
            .map_err(|error| about_topic(&error, &args.topic))?;
        output.text(&format!("changed settings of topic '{name}'\n"))?;
    }
    if let Some(total) = args.partitions {
        admin
            .create_partitions(&name, total)
            .await
            .map_err(|error| about_topic(&error, &args.topic))?;
        let partitions = count(total, "partition");
        output.text(&format!("topic '{name}' has {partitions} now\n"))?;
    }
    Ok(())
}

async fn delete(args: DeleteArgs) -> Result<(), Failure> {
    let admin = Admin::new(args.connect.connect().await?);
    let mut output = Output::new();
    delete_each(&args.topics, async |name| {
        match admin.delete_topic(&name.into()).await {
            Ok(()) => output.text(&format!("deleted topic '{name}'\n")),
            Err(error) if args.if_exists && error.code() == Some(UNKNOWN_TOPIC) => Ok(()),
            Err(error) => Err(about_topic(&error, name)),
        }
    })
    .await
}

/// Settings by name; one that is given twice is a mistake.
pub(super) fn unique(configs: Vec<(String, String)>) -> Result<BTreeMap<String, String>, Failure> {
    let mut unique = BTreeMap::new();
    for (name, value) in configs {
        if let Some(earlier) = unique.insert(name.clone(), value) {
            let message = format!("'{name}' is given twice (first as '{earlier}')");
            return Err(Failure::Usage(message));
        }
    }
    Ok(unique)
}

/// "1 partition", "3 partitions"; brokers that do not say how many say -1.
pub(super) fn count(number: i32, of: &str) -> String {
    match number {
        1 => format!("1 {of}"),
        0.. => format!("{number} {of}s"),
        _ => format!("the default number of {of}s"),
    }
}
