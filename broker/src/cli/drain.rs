//! `tidelog broker drain` and `undrain`: a broker is emptied, so that it can be removed, or is used again.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tidelog_client::{Admin, BrokerId, ConfigChange, TopicInfo};
use tokio::time::{Instant, sleep};

use super::failure::{Failure, about_broker};
use super::output::Output;
use super::stop::{Stop, pass};
use super::{ConnectArgs, seconds};

/// The broker's property that says so.
const DRAINING: &str = "broker.draining";
/// Wait between looks at what is left.
const POLL: Duration = Duration::from_secs(1);
/// How long nothing may be on its way until it is clear that what is left has nowhere to go.
const STUCK: Duration = Duration::from_secs(20);

/// Arguments of `broker drain`.
#[derive(Debug, Args)]
pub struct DrainArgs {
    /// Id of the broker, which need not be up
    #[arg(value_name = "ID", value_parser = clap::value_parser!(i32).range(0..))]
    broker: i32,
    /// Show how many replicas are left until none is
    #[arg(long)]
    wait: bool,
    /// Stop waiting after so many seconds; the broker goes on being emptied [default: wait until it is empty]
    #[arg(long, value_name = "SECONDS", requires = "wait", value_parser = seconds)]
    timeout: Option<Duration>,
    #[command(flatten)]
    connect: ConnectArgs,
}

pub(super) async fn drain(args: DrainArgs) -> Result<(), Failure> {
    let admin = Admin::new(args.connect.connect().await?);
    let id = BrokerId(args.broker);
    is_known(&admin, id).await?;
    let set = ConfigChange::Set {
        name: DRAINING.to_owned(),
        value: "true".to_owned(),
    };
    alter(&admin, id, set).await?;
    let mut output = Output::new();
    output.text(&format!(
        "broker {id} is being emptied: its replicas move to others, and it gets no new ones\n"
    ))?;
    if !args.wait {
        return Ok(());
    }
    let mut stop = Stop::new()?;
    tokio::select! {
        emptied = watch(&admin, id, &mut output) => emptied,
        () = stop.wait() => Err(unfinished(id)),
        () = pass(args.timeout) => Err(unfinished(id)),
    }
}

pub(super) async fn undrain(broker: i32, connect: &ConnectArgs) -> Result<(), Failure> {
    let admin = Admin::new(connect.connect().await?);
    let id = BrokerId(broker);
    is_known(&admin, id).await?;
    let reset = ConfigChange::Reset {
        name: DRAINING.to_owned(),
    };
    alter(&admin, id, reset).await?;
    Output::new().text(&format!(
        "broker {id} is used again: it may get new replicas; those that have left stay where they are\n"
    ))
}

async fn alter(admin: &Admin, id: BrokerId, change: ConfigChange) -> Result<(), Failure> {
    let altered = admin.alter_broker_configs_for(id, &[change]).await;
    altered.map_err(|error| about_broker(&error, id))
}

async fn is_known(admin: &Admin, id: BrokerId) -> Result<(), Failure> {
    let cluster = admin.describe_cluster().await?;
    if cluster.brokers.iter().any(|broker| broker.info.id == id) {
        return Ok(());
    }
    Err(Failure::Failed(format!(
        "there is no broker {id} in the cluster: `tidelog broker list` shows those that there are"
    )))
}

fn unfinished(id: BrokerId) -> Failure {
    Failure::Failed(format!(
        "broker {id} goes on being emptied: `tidelog broker list` shows how many replicas are left"
    ))
}

/// Shows what is left until nothing is. May be dropped while it waits.
async fn watch(admin: &Admin, id: BrokerId, output: &mut Output) -> Result<(), Failure> {
    let (mut shown, mut moved) = (None, Instant::now());
    loop {
        let moving = !admin.list_reassignments(None).await?.is_empty();
        let left = held(&admin.describe_topics().await?, id);
        if shown != Some(left.len()) {
            output.text(&format!("broker {id} has {} replicas\n", left.len()))?;
            shown = Some(left.len());
            moved = Instant::now();
        }
        match left.first() {
            None => return Ok(()),
            Some(_) if moving => moved = Instant::now(),
            Some(example) if moved.elapsed() > STUCK => {
                return Err(Failure::Failed(format!(
                    "{} replicas stay on broker {id}, {example} among them: there is no other broker for them. Start \
                     one more broker, or give their partitions fewer replicas",
                    left.len()
                )));
            }
            Some(_) => {}
        }
        sleep(POLL).await;
    }
}

/// The partitions of which a broker has a replica.
fn held(topics: &[Arc<TopicInfo>], id: BrokerId) -> Vec<String> {
    let of_topic = |topic: &Arc<TopicInfo>| {
        let held = topic
            .partitions
            .iter()
            .filter(|it| it.replicas.contains(&id));
        let named = held.map(|partition| format!("{}-{}", topic.name, partition.index));
        named.collect::<Vec<_>>()
    };
    topics.iter().flat_map(of_topic).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::broker_rows::samples;

    #[test]
    fn what_is_left_is_named() {
        let topics = samples::topics();
        assert_eq!(held(&topics, BrokerId(2)), ["orders-0", "orders-1"]);
        assert_eq!(held(&topics, BrokerId(1)), ["orders-0"]);
        assert_eq!(held(&topics, BrokerId(3)), Vec::<String>::new());
    }
}
