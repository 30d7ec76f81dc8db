//! Who follows the leader of a sleeping group when its broker dies: named at once, elected when it is first needed.
//!
//! An election would wake all replicas of the group, and a broker leads thousands of groups. So the first replica in the
//! order of the metadata that is in sync and on a live broker, its heir, asks the other brokers, for many groups at once,
//! whether they have anything of the group that it has not. They look at their records and wake nothing. If a majority,
//! itself among them, sleeps and has nothing more, then whatever was committed is in its log: it lets itself be **named**,
//! and serves fetches, offsets and epochs from its log like a leader. The first who wants more than that (a producer, or
//! one who must know that nobody else leads) wakes it, and it asks for votes.
//!
//! What makes it safe:
//! - **A name is no term.** The epoch stays that of the last leader that was elected, so that no epoch is ever used by two
//!   leaders that write: to write, the named one must be elected, in a term of its own. Clients take an equal epoch for
//!   no older news. The leader of that epoch, should it live after all, says so again, and who was named follows it.
//! - **The majority that answered holds all that is committed**, as any two majorities share a replica. What is committed
//!   later takes one of those that answered, and a message that wakes it. A named replica that is cut off by then knows
//!   less than the others, as any leader that was deposed and has not heard of it; a record is not lost by it, and a
//!   consumer that has read further than its log is not told that there is nothing: the replica asks for votes first.
//! - **Where there is no such majority, nobody is named.** If most replicas live, the heir wakes and asks for votes, which
//!   others refuse it if they have more, and take the lead themselves. If they do not, no election could succeed: all
//!   sleep on until brokers come back.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tidelog_protocol::types::BrokerId;
use tidelog_storage::log::EntryId;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::control::{Reply, Request};
use crate::controller::Controller;
use crate::hosted::HostedPartitions;
use crate::limits::{GROUPS_WAKING_MAX, SLEEPERS_ASKED_MAX};
use crate::metadata::image::{MetadataImage, PartitionImage};
use crate::partition::Partition;
use crate::raft::types::{GroupId, ReplicaId};

/// From one replica's turn to look after a sleeper without a leader to the next.
const TURN: Duration = Duration::from_secs(2);

/// Longest wait for what another broker knows.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);

/// Pause that lets sleepers gather, and before those are tried again that could not be woken.
const LINGER: Duration = Duration::from_millis(5);

/// A sleeper, as another replica asks about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SleeperEnd {
    /// Its group.
    pub group: GroupId,
    /// The last entry of the log of whoever asks.
    pub last: EntryId,
}

/// Whether a replica that sleeps has nothing that the asking one has not. `own`: the end of its log, none if it is awake.
fn has_no_more(own: Option<EntryId>, asked: EntryId) -> bool {
    own.is_some_and(|own| own <= asked)
}

/// Answers for the replicas of this broker. Those that have more than was asked for are looked after from here.
pub fn agree(hosted: &HostedPartitions, asked: &[SleeperEnd]) -> Vec<bool> {
    let answer = |end: &SleeperEnd| {
        let Some(partition) = hosted.get(end.group.topic, end.group.partition) else {
            return false;
        };
        let own = partition.log().bounds().last;
        let agrees = has_no_more(partition.is_asleep().then_some(own), end.last);
        if own > end.last {
            hosted.notices().orphaned.add(end.group);
        }
        agrees
    };
    asked.iter().map(answer).collect()
}

/// How many replicas come before a broker's, when a sleeper has no leader; `None`: it has one, or too few replicas live.
fn turn(image: &MetadataImage, known: &PartitionImage, me: BrokerId) -> Option<usize> {
    if image.live_leader(known).is_some() {
        return None;
    }
    let live = |id: &&BrokerId| image.is_live(**id);
    let living: Vec<BrokerId> = known.replicas.iter().filter(live).copied().collect();
    if living.len() * 2 <= known.replicas.len() {
        return None;
    }
    let in_sync = |id: &BrokerId| known.isr.contains(id);
    let (first, last): (Vec<BrokerId>, Vec<BrokerId>) = living.into_iter().partition(in_sync);
    first.into_iter().chain(last).position(|id| id == me)
}

/// The brokers changed: sleepers whose leader is gone are looked after, by one replica after the other.
pub fn look_for_orphans(image: &MetadataImage, hosted: &Arc<HostedPartitions>) {
    let mut by_turn: BTreeMap<usize, Vec<GroupId>> = BTreeMap::new();
    for group in hosted.sleepers() {
        let known = image.partition_by_id(group.topic, group.partition);
        if let Some(turn) = known.and_then(|known| turn(image, known, hosted.broker())) {
            by_turn.entry(turn).or_default().push(group);
        }
    }
    for (turn, groups) in by_turn {
        let hosted = hosted.clone();
        let patience = TURN.saturating_mul(u32::try_from(turn).unwrap_or(u32::MAX));
        tokio::spawn(async move {
            sleep(patience).await;
            let orphaned = &hosted.notices().orphaned;
            groups.into_iter().for_each(|group| orphaned.add(group));
        });
    }
}

/// Looks after sleepers without a leader, for ever.
pub async fn succeed(controller: Arc<Controller>, hosted: Arc<HostedPartitions>) {
    let orphaned = &hosted.notices().orphaned;
    loop {
        orphaned.wait().await;
        sleep(LINGER).await;
        let image = controller.shared().image();
        let heirs = heirs(&image, &hosted, orphaned.take());
        let agreed = ask_others(&controller, &image, &heirs).await;
        let mut takers = JoinSet::new();
        for (partition, known) in heirs {
            let group = partition.shared().group();
            let votes = 1 + agreed.get(&group).copied().unwrap_or(0);
            let is_majority = votes * 2 > known.replicas.len() && known.reassignment.is_none();
            // The metadata forgets who led when that broker comes back as another run; one that sleeps does not.
            let believed = partition.state().leader;
            let believed = believed.filter(|_| partition.is_asleep());
            let gone = known.leader.or(believed);
            if is_majority && partition.be_named(gone, known.leader_epoch) {
                continue;
            }
            if takers.len() >= GROUPS_WAKING_MAX {
                drop(takers.join_next().await);
            }
            takers.spawn(take_over(hosted.clone(), partition, gone));
        }
        while takers.join_next().await.is_some() {}
    }
}

/// Those whose leader is still gone, with what the metadata says of them.
fn heirs(
    image: &MetadataImage,
    hosted: &HostedPartitions,
    groups: HashSet<GroupId>,
) -> Vec<(Arc<Partition>, PartitionImage)> {
    let me = hosted.broker();
    let heirs = hosted.of(groups).into_iter().filter_map(|partition| {
        let group = partition.shared().group();
        let known = image.partition_by_id(group.topic, group.partition)?;
        turn(image, known, me)?;
        Some((partition, known.clone()))
    });
    heirs.collect()
}

/// How many other replicas have nothing more, for each group that sleeps here.
async fn ask_others(
    controller: &Arc<Controller>,
    image: &MetadataImage,
    heirs: &[(Arc<Partition>, PartitionImage)],
) -> HashMap<GroupId, usize> {
    let mut by_broker: BTreeMap<BrokerId, Vec<SleeperEnd>> = BTreeMap::new();
    for (partition, known) in heirs.iter().filter(|(partition, _)| partition.is_asleep()) {
        let me = partition.shared().me().broker;
        let end = SleeperEnd {
            group: partition.shared().group(),
            last: partition.log().bounds().last,
        };
        for other in known.replicas.iter().filter(|id| **id != me) {
            by_broker.entry(*other).or_default().push(end);
        }
    }
    let mut asked = JoinSet::new();
    for (broker, ends) in by_broker {
        // One that is fenced would keep the others waiting.
        if let Some(broker) = image.broker(broker).filter(|broker| !broker.fenced) {
            asked.spawn(ask(controller.clone(), broker.replica(), ends));
        }
    }
    let mut agreed: HashMap<GroupId, usize> = HashMap::new();
    while let Some(answered) = asked.join_next().await {
        for group in answered.unwrap_or_default() {
            *agreed.entry(group).or_default() += 1;
        }
    }
    agreed
}

/// Of which groups a broker has nothing more.
async fn ask(
    controller: Arc<Controller>,
    broker: ReplicaId,
    ends: Vec<SleeperEnd>,
) -> Vec<GroupId> {
    let mut agreed = Vec::new();
    for ends in ends.chunks(SLEEPERS_ASKED_MAX) {
        let request = Request::Agree(ends.to_vec());
        let deadline = Instant::now() + ASK_TIMEOUT;
        let answer = controller.control().ask(broker, &request, deadline).await;
        match answer {
            Ok(Reply::Agreed(answers)) if answers.len() == ends.len() => {
                let agrees = ends.iter().zip(answers).filter(|(_, agrees)| *agrees);
                agreed.extend(agrees.map(|(end, _)| end.group));
            }
            other => {
                tracing::debug!(%broker, ?other, "does not say what its sleepers have");
                break;
            }
        }
    }
    agreed
}

/// Wakes a replica and lets it ask for the leadership. If others have more, one of them takes it.
async fn take_over(
    hosted: Arc<HostedPartitions>,
    partition: Arc<Partition>,
    gone: Option<BrokerId>,
) {
    if partition.wake().await.is_err() {
        sleep(LINGER).await;
        if partition.is_asleep() {
            hosted.notices().orphaned.add(partition.shared().group());
        }
        return;
    }
    if let Some(gone) = gone {
        partition.shared().lose_leader(gone);
    }
    tokio::spawn(async move { partition.elect_in_turn(0).await });
}

#[cfg(test)]
mod tests {
    use tidelog_protocol::types::LeaderEpoch;
    use tidelog_storage::log::EntryIndex;

    use super::*;

    #[test]
    fn only_a_sleeper_that_has_no_more_agrees() {
        let entry = |epoch, index| EntryId {
            epoch: LeaderEpoch(epoch),
            index: EntryIndex(index),
        };
        assert!(has_no_more(Some(entry(3, 9)), entry(3, 9)));
        assert!(has_no_more(Some(entry(3, 8)), entry(3, 9)));
        assert!(has_no_more(Some(entry(2, 11)), entry(3, 9)));
        assert!(!has_no_more(Some(entry(3, 10)), entry(3, 9)));
        assert!(!has_no_more(Some(entry(4, 5)), entry(3, 9)));
        assert!(!has_no_more(None, entry(3, 9)), "what is awake may grow");
    }
}
