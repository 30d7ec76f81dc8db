//! Leaderships that are moved on purpose: by an operator, or back to the replica that is preferred.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tidelog_protocol::types::{BrokerId, PartitionIndex, TopicId};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout_at};

use crate::control::{Reply, Request};
use crate::controller::Controller;
use crate::hosted::HostedPartitions;
use crate::metadata::image::{MetadataImage, PartitionImage};
use crate::partition::Partition;
use crate::raft::types::GroupId;
use crate::suspects;

/// Leaderships that are given back before the next ones wait for them: no storm of elections.
const GIVEN_AT_ONCE: usize = 16;

/// Pause between those.
const GIVEN_PAUSE: Duration = Duration::from_millis(100);

/// Which replica an operator wants as leader (KIP-460).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElectionKind {
    /// The first of the replicas.
    Preferred,
    /// Any, where none leads: replicas that a power loss may have left shorter (`durability=os`) count as if it had not. No
    /// other replica that lacks what was acknowledged is ever elected.
    Unclean,
}

/// Why a partition's leader did not change.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ElectionError {
    /// There is no such partition.
    #[error("unknown topic or partition")]
    UnknownPartition,
    /// The replica that is asked for leads, or with [`ElectionKind::Unclean`] any does.
    #[error("Leader election not needed for topic partition.")]
    NotNeeded,
    /// The preferred replica is not there, or has not caught up, or nobody leads who could hand over to it.
    #[error("{0}")]
    PreferredNotAvailable(String),
    /// With [`ElectionKind::Unclean`]: nobody leads, or can, as no majority of the replicas is there.
    #[error("{0}")]
    NotAvailable(String),
    /// No answer in time; the leadership may change yet.
    #[error("no leader was elected in time")]
    Timeout,
}

/// What came of a partition's election.
pub type Elected = Result<(), ElectionError>;

/// Moves leaderships as an operator asks for it; returns one answer for each partition, in their order.
pub async fn elect(
    controller: &Arc<Controller>,
    hosted: &HostedPartitions,
    kind: ElectionKind,
    partitions: &[(TopicId, PartitionIndex)],
    deadline: Instant,
) -> Vec<Elected> {
    let groups: Vec<GroupId> = (partitions.iter())
        .map(|(topic, partition)| GroupId {
            topic: *topic,
            partition: *partition,
        })
        .collect();
    let image = controller.shared().image();
    let mut answers: Vec<Elected> = Vec::with_capacity(groups.len());
    let mut by_leader: BTreeMap<BrokerId, Vec<usize>> = BTreeMap::new();
    for (at, group) in groups.iter().enumerate() {
        let plan = plan(&image, kind, *group);
        if let Ok(Some(leader)) = plan {
            by_leader.entry(leader).or_default().push(at);
        }
        answers.push(plan.map(drop));
    }
    for (leader, places) in by_leader {
        let asked: Vec<GroupId> = (places.iter())
            .filter_map(|at| groups.get(*at).copied())
            .collect();
        let told = ask_leader(controller, hosted, &image, leader, asked, deadline).await;
        for (at, answer) in places.into_iter().zip(told) {
            if let Some(place) = answers.get_mut(at) {
                *place = answer;
            }
        }
    }
    if kind == ElectionKind::Unclean {
        let leaderless = groups.iter().zip(&answers);
        let leaderless = leaderless.filter(|(_, answer)| answer.is_ok());
        let leaderless: Vec<GroupId> = leaderless.map(|(group, _)| *group).collect();
        suspects::trust_all(controller, hosted, &leaderless, deadline).await;
    }
    for (group, answer) in groups.into_iter().zip(&mut answers) {
        if answer.is_ok() {
            *answer = wait_led(controller, kind, group, deadline).await;
        }
    }
    answers
}

/// Whom to ask to hand over; `None`: nobody, a leader is only waited for.
fn plan(
    image: &MetadataImage,
    kind: ElectionKind,
    group: GroupId,
) -> Result<Option<BrokerId>, ElectionError> {
    let known = image.partition_by_id(group.topic, group.partition);
    let known = known.ok_or(ElectionError::UnknownPartition)?;
    let leader = image.live_leader(known);
    match kind {
        ElectionKind::Unclean => leader.map_or(Ok(None), |_| Err(ElectionError::NotNeeded)),
        ElectionKind::Preferred => {
            let preferred = preferred(known).ok_or(ElectionError::UnknownPartition)?;
            let leader = leader.ok_or_else(|| {
                ElectionError::PreferredNotAvailable("no replica leads the partition".to_owned())
            })?;
            if leader == preferred {
                return Err(ElectionError::NotNeeded);
            }
            if !image.is_live(preferred) {
                let text = format!("broker {preferred}, the preferred leader, is not up");
                return Err(ElectionError::PreferredNotAvailable(text));
            }
            Ok(Some(leader))
        }
    }
}

fn preferred(partition: &PartitionImage) -> Option<BrokerId> {
    partition.replicas.first().copied()
}

/// Asks the leader of some partitions to hand them over to the preferred replicas.
async fn ask_leader(
    controller: &Controller,
    hosted: &HostedPartitions,
    image: &MetadataImage,
    leader: BrokerId,
    groups: Vec<GroupId>,
    deadline: Instant,
) -> Vec<Elected> {
    if leader == hosted.broker() {
        return hand_over(image, hosted, &groups).await;
    }
    let count = groups.len();
    let failed = |why: String| {
        let text = format!("broker {leader}, which leads, did not hand over: {why}");
        vec![Err(ElectionError::PreferredNotAvailable(text)); count]
    };
    let Some(broker) = image.broker(leader) else {
        return failed("it is not registered".to_owned());
    };
    let request = Request::HandOver(groups);
    let asked = (controller.control()).ask(broker.replica(), &request, deadline);
    match asked.await {
        Ok(Reply::HandedOver(answers)) if answers.len() == count => answers,
        Ok(Reply::NotNow(why)) => failed(why),
        Ok(other) => failed(format!("it answered {other:?}")),
        Err(error) => failed(error.to_string()),
    }
}

/// Hands partitions that this broker leads over to the preferred replicas.
pub async fn hand_over(
    image: &MetadataImage,
    hosted: &HostedPartitions,
    groups: &[GroupId],
) -> Vec<Elected> {
    let mut answers = Vec::with_capacity(groups.len());
    for group in groups {
        let known = image.partition_by_id(group.topic, group.partition);
        let partition = hosted.get(group.topic, group.partition);
        answers.push(match (partition, known.and_then(preferred)) {
            (Some(partition), Some(preferred)) => partition.hand_over_to(preferred).await,
            _ => Err(ElectionError::UnknownPartition),
        });
    }
    answers
}

/// Waits until the image shows the leader that was asked for.
async fn wait_led(
    controller: &Controller,
    kind: ElectionKind,
    group: GroupId,
    deadline: Instant,
) -> Elected {
    let mut versions = controller.watch();
    loop {
        let image = controller.shared().image();
        let known = image.partition_by_id(group.topic, group.partition);
        let known = known.ok_or(ElectionError::UnknownPartition)?;
        let leader = image.live_leader(known);
        let led = match kind {
            ElectionKind::Preferred => leader.is_some() && leader == preferred(known),
            ElectionKind::Unclean => leader.is_some(),
        };
        if led {
            return Ok(());
        }
        if !matches!(timeout_at(deadline, versions.changed()).await, Ok(Ok(()))) {
            return Err(match kind {
                ElectionKind::Preferred => ElectionError::Timeout,
                ElectionKind::Unclean => ElectionError::NotAvailable(
                    "no replica that has all that was acknowledged can be elected: most replicas are not up"
                        .to_owned(),
                ),
            });
        }
    }
}

/// Gives what this broker leads for another back to it, now and then: once it has caught up, few at a time.
pub async fn restore_preferred(
    controller: Arc<Controller>,
    hosted: Arc<HostedPartitions>,
    every: Duration,
) {
    let mut ticks = interval(every.max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let image = controller.shared().image();
        if image.is_alone() {
            continue;
        }
        let borrowed = hosted.all().into_iter().filter_map(|partition| {
            let owner = owner(&controller, &image, &partition)?;
            Some((partition, owner))
        });
        let borrowed: Vec<(Arc<Partition>, BrokerId)> = borrowed.collect();
        for some in borrowed.chunks(GIVEN_AT_ONCE) {
            for (partition, owner) in some {
                match partition.hand_over_to(*owner).await {
                    Ok(()) => {
                        tracing::info!(partition = %partition.name(), to = %owner, "leadership is given back");
                    }
                    Err(error) => {
                        tracing::debug!(partition = %partition.name(), %error, "leadership stays");
                    }
                }
            }
            sleep(GIVEN_PAUSE).await;
        }
    }
}

/// The broker that should lead a partition in this one's place, if it can.
fn owner(
    controller: &Controller,
    image: &MetadataImage,
    partition: &Partition,
) -> Option<BrokerId> {
    let state = partition.state();
    let known = image.partition_by_id(partition.topic_id(), partition.index())?;
    let owner = preferred(known)?;
    // Where nobody writes it does not matter who leads.
    let leads = state.is_leader() && !partition.is_asleep();
    let elsewhere = leads && state.leader != Some(owner);
    // The metadata may not know yet that it is gone; the connections do.
    let there = image.is_live(owner) && controller.control().is_connected(owner);
    (elsewhere && there).then_some(owner)
}

#[cfg(test)]
mod tests;
