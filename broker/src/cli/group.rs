//! `tidelog group`: list, describe, reset offsets, delete.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use tidelog_client::{
    Admin, CommittedOffset, Error, GroupDescription, GroupMember, Offset, OffsetSpec, TopicName,
    TopicPartition,
};

use super::delete_names::delete_each;
use super::failure::{Failure, about_group, about_topic};
use super::output::Output;
use super::start_point::StartPoint;
use super::table::Table;
use super::{ConnectArgs, Format, ShowArgs};

/// Kafka's state of a group that does not exist.
const DEAD: &str = "Dead";

/// What to do with groups.
#[derive(Debug, Subcommand)]
pub enum GroupCommand {
    /// List groups.
    List(ShowArgs),
    /// Show a group's members, offsets and lag.
    Describe(DescribeArgs),
    /// Set what a group without members has committed for a topic.
    ResetOffsets(ResetArgs),
    /// Delete groups without members, and what they have committed.
    Delete(DeleteArgs),
}

/// Arguments of `group describe`.
#[derive(Debug, Args)]
pub struct DescribeArgs {
    /// Name of the group
    group: String,
    #[command(flatten)]
    show: ShowArgs,
}

/// Arguments of `group reset-offsets`.
#[derive(Debug, Args)]
pub struct ResetArgs {
    /// Name of the group
    group: String,
    /// Topic whose offsets are set
    #[arg(long, short)]
    topic: String,
    /// Partition whose offset is set; may be repeated [default: all]
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    partition: Vec<i32>,
    /// Where to: earliest, latest, an offset, or timestamp:MILLISECONDS
    #[arg(long, value_name = "WHERE")]
    to: StartPoint,
    /// Show what would be set, and set nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// Arguments of `group delete`.
#[derive(Debug, Args)]
pub struct DeleteArgs {
    /// Names of the groups
    #[arg(required = true)]
    groups: Vec<String>,
    #[command(flatten)]
    connect: ConnectArgs,
}

pub(super) async fn run(command: GroupCommand) -> Result<(), Failure> {
    match command {
        GroupCommand::List(args) => list(args).await,
        GroupCommand::Describe(args) => describe(args).await,
        GroupCommand::ResetOffsets(args) => reset(args).await,
        GroupCommand::Delete(args) => delete(args).await,
    }
}

async fn list(args: ShowArgs) -> Result<(), Failure> {
    let admin = Admin::new(args.connect.connect().await?);
    let groups = admin.list_groups().await?;
    let mut output = Output::new();
    match args.output {
        Format::Text => {
            let mut table = Table::new(["GROUP", "STATE", "PROTOCOL"]);
            for group in groups {
                table.row([group.id, group.state, group.protocol_type]);
            }
            output.text(&table.render())
        }
        Format::Json => {
            let groups = groups.iter().map(|group| {
                json!({
                    "group": group.id,
                    "state": group.state,
                    "protocol_type": group.protocol_type,
                })
            });
            output.json(&groups.collect())
        }
    }
}

/// One partition of a group: read by a member, or committed, or both.
#[derive(Debug, Default, PartialEq, Eq)]
struct Progress {
    committed: Option<Offset>,
    end: Option<Offset>,
    member: Option<GroupMember>,
}

impl Progress {
    /// Records that are there and not committed as read.
    fn lag(&self) -> Option<i64> {
        Some((self.end?.0 - self.committed?.0).max(0))
    }
}

type Partitions = BTreeMap<TopicPartition, Progress>;

async fn describe(args: DescribeArgs) -> Result<(), Failure> {
    let admin = Admin::new(args.show.connect.connect().await?);
    let about = |error: Error| about_group(&error, &args.group);
    let group = admin.describe_group(&args.group).await.map_err(about)?;
    if group.state == DEAD {
        let message = format!("group '{}' does not exist", args.group);
        return Err(Failure::Failed(message));
    }
    let committed = admin.group_offsets(&args.group).await.map_err(about)?;
    let mut partitions = gather(&group, &committed);
    for (of, progress) in &mut partitions {
        // A topic may be gone while its offsets are still there.
        progress.end = admin
            .list_offset(of, OffsetSpec::Latest)
            .await
            .ok()
            .and_then(|end| end.offset);
    }
    let mut output = Output::new();
    match args.show.output {
        Format::Text => output.text(&describe_text(&group, &partitions)),
        Format::Json => output.json(&describe_json(&group, &partitions)),
    }
}

fn gather(group: &GroupDescription, committed: &[CommittedOffset]) -> Partitions {
    let mut partitions = Partitions::new();
    for commit in committed {
        let progress = partitions.entry(commit.partition.clone()).or_default();
        progress.committed = Some(commit.offset);
    }
    for member in &group.members {
        for of in &member.assignment {
            partitions.entry(of.clone()).or_default().member = Some(member.clone());
        }
    }
    partitions
}

fn describe_text(group: &GroupDescription, partitions: &Partitions) -> String {
    let mut text = format!(
        "Group:     {}\nState:     {}\nProtocol:  {}\nMembers:   {}\n",
        group.id,
        group.state,
        match (group.protocol_type.as_str(), group.protocol.as_str()) {
            ("", _) => "-".to_owned(),
            (kind, "") => kind.to_owned(),
            (kind, assignor) => format!("{kind}, {assignor}"),
        },
        group.members.len(),
    );
    let number = |offset: Option<i64>| offset.map_or(String::new(), |offset| offset.to_string());
    if !partitions.is_empty() {
        let head = [
            "TOPIC",
            "PARTITION",
            "OFFSET",
            "END",
            "LAG",
            "MEMBER",
            "CLIENT",
            "HOST",
        ];
        let mut table = Table::new(head);
        for (of, progress) in partitions {
            let member = progress.member.as_ref();
            table.row([
                of.topic.to_string(),
                of.partition.to_string(),
                number(progress.committed.map(|offset| offset.0)),
                number(progress.end.map(|offset| offset.0)),
                number(progress.lag()),
                member.map_or(String::new(), |member| member.id.clone()),
                member.map_or(String::new(), |member| member.client_id.clone()),
                member.map_or(String::new(), |member| member.host.clone()),
            ]);
        }
        text = text + "\n" + &table.render();
    }
    let idle = group
        .members
        .iter()
        .filter(|member| member.assignment.is_empty());
    let mut table = Table::new(["MEMBER WITHOUT PARTITIONS", "CLIENT", "HOST"]);
    let mut is_any_idle = false;
    for member in idle {
        is_any_idle = true;
        table.row([
            member.id.clone(),
            member.client_id.clone(),
            member.host.clone(),
        ]);
    }
    if is_any_idle {
        text = text + "\n" + &table.render();
    }
    text
}

fn describe_json(group: &GroupDescription, partitions: &Partitions) -> Value {
    let members: Vec<_> = group
        .members
        .iter()
        .map(|member| {
            let assignment: Vec<_> = member
                .assignment
                .iter()
                .map(|of| json!({ "topic": of.topic.as_str(), "partition": of.partition.0 }))
                .collect();
            json!({
                "member": member.id,
                "instance": member.instance_id,
                "client": member.client_id,
                "host": member.host,
                "assignment": assignment,
            })
        })
        .collect();
    let partitions: Vec<_> = partitions
        .iter()
        .map(|(of, progress)| {
            json!({
                "topic": of.topic.as_str(),
                "partition": of.partition.0,
                "offset": progress.committed.map(|offset| offset.0),
                "end": progress.end.map(|offset| offset.0),
                "lag": progress.lag(),
                "member": progress.member.as_ref().map(|member| &member.id),
            })
        })
        .collect();
    json!({
        "group": group.id,
        "state": group.state,
        "protocol_type": group.protocol_type,
        "protocol": group.protocol,
        "members": members,
        "partitions": partitions,
    })
}

async fn reset(args: ResetArgs) -> Result<(), Failure> {
    let admin = Admin::new(args.connect.connect().await?);
    let name = TopicName::from(args.topic.as_str());
    let about = |error: Error| about_topic(&error, &args.topic);
    let topic = admin.describe_topic(&name).await.map_err(about)?;
    let mut offsets = Vec::new();
    for partition in &topic.partitions {
        if !args.partition.is_empty() && !args.partition.contains(&partition.index.0) {
            continue;
        }
        let of = TopicPartition {
            topic: name.clone(),
            partition: partition.index,
        };
        let offset = args.to.resolve(&admin, &of).await.map_err(about)?;
        offsets.push((of, offset));
    }
    if offsets.is_empty() {
        let message = format!("topic '{name}' has none of these partitions");
        return Err(Failure::Failed(message));
    }
    if !args.dry_run {
        let group = admin.describe_group(&args.group).await;
        if group.is_ok_and(|group| !group.members.is_empty()) {
            let message = format!("group '{}' has members: stop them first", args.group);
            return Err(Failure::Failed(message));
        }
        admin
            .set_group_offsets(&args.group, &offsets)
            .await
            .map_err(|error| about_group(&error, &args.group))?;
    }
    let mut table = Table::new(["TOPIC", "PARTITION", "OFFSET"]);
    for (of, offset) in offsets {
        table.row([
            of.topic.to_string(),
            of.partition.to_string(),
            offset.to_string(),
        ]);
    }
    Output::new().text(&table.render())
}

async fn delete(args: DeleteArgs) -> Result<(), Failure> {
    let admin = Admin::new(args.connect.connect().await?);
    let mut output = Output::new();
    delete_each(&args.groups, async |name| {
        match admin.delete_group(name).await {
            Ok(()) => output.text(&format!("deleted group '{name}'\n")),
            Err(error) => Err(about_group(&error, name)),
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidelog_client::PartitionIndex;

    fn partition(index: i32) -> TopicPartition {
        TopicPartition {
            topic: "orders".into(),
            partition: PartitionIndex(index),
        }
    }

    fn group() -> GroupDescription {
        let member = |id: &str, assignment: Vec<TopicPartition>| GroupMember {
            id: id.to_owned(),
            instance_id: None,
            client_id: "c".to_owned(),
            host: "127.0.0.1".to_owned(),
            assignment,
        };
        GroupDescription {
            id: "g".to_owned(),
            state: "Stable".to_owned(),
            protocol_type: "consumer".to_owned(),
            protocol: "range".to_owned(),
            members: vec![member("m1", vec![partition(0)]), member("m2", Vec::new())],
        }
    }

    #[test]
    fn a_group_is_shown_with_its_lag_and_its_idle_members() {
        let committed = CommittedOffset {
            partition: partition(0),
            offset: Offset(7),
            metadata: String::new(),
        };
        let abandoned = CommittedOffset {
            partition: partition(1),
            ..committed.clone()
        };
        let mut partitions = gather(&group(), &[committed, abandoned]);
        for progress in partitions.values_mut() {
            progress.end = Some(Offset(10));
        }
        assert_eq!(
            describe_text(&group(), &partitions),
            "Group:     g\nState:     Stable\nProtocol:  consumer, range\nMembers:   2\n\n\
             TOPIC   PARTITION  OFFSET  END  LAG  MEMBER  CLIENT  HOST\n\
             orders  0          7       10   3    m1      c       127.0.0.1\n\
             orders  1          7       10   3    -       -       -\n\n\
             MEMBER WITHOUT PARTITIONS  CLIENT  HOST\n\
             m2                         c       127.0.0.1\n"
        );
    }

    #[test]
    fn lag_is_never_negative_and_unknown_without_a_commit() {
        let mut progress = Progress {
            committed: Some(Offset(9)),
            end: Some(Offset(5)),
            member: None,
        };
        assert_eq!(progress.lag(), Some(0));
        progress.committed = None;
        assert_eq!(progress.lag(), None);
    }
}
