//! `tidelog partition reassign`: other brokers for a partition, and waiting until they hold it.

use std::collections::BTreeSet;
use std::time::Duration;

use clap::Args;
use tidelog_client::{Admin, BrokerId, Error, PartitionIndex, Reassignment, TopicPartition};
use tokio::time::{Instant, sleep};

use super::progress::{self, Move, Progress};
use super::throttle::Throttle;
use crate::cli::failure::{Failure, about_move, about_topic};
use crate::cli::output::Output;
use crate::cli::partitions::{find, words_of};
use crate::cli::stop::{Stop, pass};
use crate::cli::table::list;
use crate::cli::{ConnectArgs, seconds};

/// Wait between looks at how far a move is.
const POLL: Duration = Duration::from_secs(1);
/// How long a move may be unknown before it is clear that it was cancelled or replaced. The broker that is asked may
/// hear of it late; one that goes back to where it began is not listed while it takes away what it had brought.
const UNKNOWN_MAX: Duration = Duration::from_secs(30);

/// Arguments of `partition reassign`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("change").required(true))]
pub struct ReassignArgs {
    /// Name of the topic
    topic: String,
    /// Index of the partition
    #[arg(value_parser = clap::value_parser!(i32).range(0..))]
    partition: i32,
    /// Ids of the brokers that are to hold it, separated by commas; the first one is preferred as its leader
    #[arg(long, short, value_name = "BROKERS", value_delimiter = ',', group = "change", value_parser = clap::value_parser!(i32).range(0..))]
    replicas: Vec<i32>,
    /// Cancel a move: the brokers that held the partition before it go on to
    #[arg(long, group = "change", conflicts_with = "wait")]
    cancel: bool,
    /// Show how much is copied until all is
    #[arg(long)]
    wait: bool,
    /// Stop waiting after so many seconds; the move goes on [default: wait until it is done]
    #[arg(long, value_name = "SECONDS", requires = "wait", value_parser = seconds)]
    timeout: Option<Duration>,
    /// Let each broker send and receive no more than so many bytes per second for replicas that catch up, until it is done
    #[arg(long, value_name = "BYTES_PER_SECOND", requires = "wait", value_parser = clap::value_parser!(u64).range(1..i64::MAX as u64))]
    throttle: Option<u64>,
    #[command(flatten)]
    connect: ConnectArgs,
}

pub(super) async fn run(args: ReassignArgs) -> Result<(), Failure> {
    let target = distinct(&args.replicas)?;
    let admin = Admin::new(args.connect.connect().await?);
    let of = TopicPartition {
        topic: args.topic.as_str().into(),
        partition: PartitionIndex(args.partition),
    };
    // The controller would not say which of the two does not exist.
    find(&admin, &args.topic, &[args.partition]).await?;
    let throttle = match args.throttle {
        Some(rate) => Some(Throttle::set(&admin, &of, &target, rate).await?),
        None => None,
    };
    let target = (!args.cancel).then_some(target.as_slice());
    if let Err(error) = admin.reassign(&of, target).await {
        if let Some(throttle) = throttle {
            throttle.take_back().await?;
        }
        return Err(about_move(&error, &of));
    }
    let mut output = Output::new();
    let Some(target) = target else {
        return output.text(&format!("cancelled the move of {}\n", words_of(&of)));
    };
    let (what, brokers) = (words_of(&of), list(target));
    if !args.wait {
        return output.text(&format!("moving {what} to brokers {brokers}\n"));
    }
    let mut stop = Stop::new()?;
    let unfinished = || Err(unfinished(&of, throttle.is_some()));
    tokio::select! {
        done = watch(&admin, &of, target, &mut output) => done?,
        () = stop.wait() => return unfinished(),
        () = pass(args.timeout) => return unfinished(),
    }
    if let Some(throttle) = &throttle {
        throttle.take_back().await?;
    }
    output.text(&format!("{what} is on brokers {brokers}\n"))
}

/// The brokers as given; one that is given twice is a mistake.
fn distinct(replicas: &[i32]) -> Result<Vec<BrokerId>, Failure> {
    let mut known = BTreeSet::new();
    match replicas.iter().find(|broker| !known.insert(**broker)) {
        None => Ok(replicas.iter().copied().map(BrokerId).collect()),
        Some(twice) => Err(Failure::Usage(format!(
            "broker {twice} is given twice: a broker holds one replica of a partition"
        ))),
    }
}

fn unfinished(of: &TopicPartition, throttled: bool) -> Failure {
    let throttle = match throttled {
        true => "; its throttle stays until this command is run again and ends",
        false => "",
    };
    Failure::Failed(format!(
        "{} goes on moving: `tidelog partition reassignments {}` shows how far it is{throttle}",
        words_of(of),
        of.topic
    ))
}

/// Where a move to some brokers is.
#[derive(Debug, PartialEq, Eq)]
enum Stage {
    /// On its way.
    Moving(Reassignment),
    /// They are the replicas now.
    Done,
    /// Neither: not known yet, or not any more.
    Unknown,
}

impl Stage {
    fn of(target: &[BrokerId], moving: Option<Reassignment>, replicas: &[BrokerId]) -> Stage {
        let set = |brokers: &[BrokerId]| brokers.iter().copied().collect::<BTreeSet<_>>();
        let is_ours =
            |moving: &Reassignment| &set(&moving.replicas) - &set(&moving.removing) == set(target);
        match moving {
            None if replicas == target => Stage::Done,
            Some(moving) if is_ours(&moving) => Stage::Moving(moving),
            _ => Stage::Unknown,
        }
    }
}

/// Shows how much is copied until the move is done. May be dropped while it waits.
async fn watch(
    admin: &Admin,
    of: &TopicPartition,
    target: &[BrokerId],
    output: &mut Output,
) -> Result<(), Failure> {
    let about = |error: Error| about_topic(&error, of.topic.as_str());
    let topics = std::slice::from_ref(&of.topic);
    let mut shown = None;
    let mut last_known = Instant::now();
    loop {
        let moves = admin.list_reassignments(Some(topics)).await;
        let mut moves = moves.map_err(about)?.into_iter();
        let topic = admin.describe_topic(&of.topic).await.map_err(about)?;
        let partition = topic.partition(of.partition);
        let replicas = partition.map(|found| found.replicas.as_slice());
        let replicas = replicas.unwrap_or_default();
        match Stage::of(target, moves.find(|it| it.partition == *of), replicas) {
            Stage::Done => return Ok(()),
            Stage::Moving(reassignment) => {
                last_known = Instant::now();
                let leader = partition.and_then(|found| found.leader);
                let one = Move {
                    reassignment,
                    leader,
                };
                let progress = progress::ask(admin, &[one]).await.pop().flatten();
                if let Some(now) = progress
                    && shown != progress
                {
                    output.text(&line(of, now))?;
                    shown = progress;
                }
            }
            Stage::Unknown if last_known.elapsed() > UNKNOWN_MAX => {
                return Err(Failure::Failed(format!(
                    "{} is on brokers {}: its move was cancelled or replaced",
                    words_of(of),
                    list(replicas)
                )));
            }
            Stage::Unknown => {}
        }
        sleep(POLL).await;
    }
}

fn line(of: &TopicPartition, progress: Progress) -> String {
    let Progress { copied, to_copy } = progress;
    format!("{}: {copied} of {to_copy} bytes copied\n", words_of(of))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brokers_are_given_once() {
        assert_eq!(distinct(&[3, 1]).unwrap(), [BrokerId(3), BrokerId(1)]);
        let Err(Failure::Usage(message)) = distinct(&[1, 2, 1]) else {
            panic!("1 is given twice");
        };
        assert!(message.starts_with("broker 1 is given twice"), "{message}");
    }

    #[test]
    fn a_move_is_told_from_another_one_to_other_brokers() {
        let ids = |ids: &[i32]| ids.iter().copied().map(BrokerId).collect::<Vec<_>>();
        let (before, target) = (ids(&[1, 2]), ids(&[3, 2]));
        let moving = Reassignment {
            partition: TopicPartition {
                topic: "orders".into(),
                partition: PartitionIndex(0),
            },
            replicas: ids(&[3, 2, 1]),
            adding: ids(&[3]),
            removing: ids(&[1]),
        };
        let elsewhere = Reassignment {
            replicas: ids(&[4, 2, 1]),
            adding: ids(&[4]),
            ..moving.clone()
        };
        let during = moving.replicas.clone();
        let stage = |moving, replicas: &[BrokerId]| Stage::of(&target, moving, replicas);
        assert_eq!(stage(None, &before), Stage::Unknown);
        let ours = stage(Some(moving.clone()), &during);
        assert_eq!(ours, Stage::Moving(moving));
        assert_eq!(stage(Some(elsewhere), &during), Stage::Unknown);
        assert_eq!(stage(None, &during), Stage::Unknown);
        assert_eq!(stage(None, &target), Stage::Done);
    }
}
