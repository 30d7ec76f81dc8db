//! Replicas that consumers read from, and that do not know that what they hold is committed.
//!
//! The leader says what is committed with the next records, or by itself when nothing follows. It says so once: a message that
//! is lost with its connection, or that came before this replica was started again, is missing until somebody writes. So a
//! replica that somebody waits at, and that stands still, asks, and so does a suspect (`suspects`). One that nobody reads from asks nobody.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tidelog_protocol::types::{BrokerId, Offset};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::control::Request;
use crate::controller::Controller;
use crate::hosted::HostedPartitions;
use crate::partition::Partition;
use crate::raft::types::GroupId;

/// How long a replica stands still before it asks: under load what is committed is heard within this.
const PATIENCE: Duration = Duration::from_millis(100);

/// Longest wait for a leader's answer.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);

/// Pause before a replica that still stands still asks again: its leader may not be able to commit.
const AGAIN: Duration = Duration::from_secs(1);

/// Looks after the replicas that are waited for.
pub async fn catch_up(controller: Arc<Controller>, hosted: Arc<HostedPartitions>) {
    let behind = &hosted.notices().behind;
    loop {
        behind.wait().await;
        let noted = hosted.of(behind.take()).into_iter();
        let noted = noted.map(|partition| {
            let seen = partition.shared().high_watermark();
            (partition, seen)
        });
        let mut waiting: Vec<(Arc<Partition>, Offset)> = noted.collect();
        sleep(PATIENCE).await;
        waiting.retain(stands_still);
        if waiting.is_empty() {
            continue;
        }
        ask_leaders(&controller, &waiting).await;
        sleep(AGAIN).await;
        for (partition, _) in waiting.iter().filter(|it| stands_still(it)) {
            let shared = partition.shared();
            if shared.is_suspect() || !shared.waiters().is_empty() {
                behind.add(shared.group());
            }
        }
    }
}

fn stands_still((partition, seen): &(Arc<Partition>, Offset)) -> bool {
    let shared = partition.shared();
    shared.is_suspect() || (shared.is_behind() && shared.high_watermark() == *seen)
}

/// Asks each leader for its partitions, all leaders at the same time.
async fn ask_leaders(controller: &Arc<Controller>, waiting: &[(Arc<Partition>, Offset)]) {
    let image = controller.shared().image();
    let mut by_leader: BTreeMap<BrokerId, Vec<GroupId>> = BTreeMap::new();
    for (partition, _) in waiting {
        // One that was started again has not heard of its leader yet.
        let shown = || {
            let known = image.partition_by_id(partition.topic_id(), partition.index());
            known.and_then(|known| image.live_leader(known))
        };
        if let Some(leader) = partition.state().leader.or_else(shown) {
            let groups = by_leader.entry(leader).or_default();
            groups.push(partition.shared().group());
        }
    }
    let mut asked = JoinSet::new();
    for (leader, groups) in by_leader {
        let Some(broker) = image.broker(leader).map(|broker| broker.replica()) else {
            continue;
        };
        let controller = controller.clone();
        asked.spawn(async move {
            let deadline = Instant::now() + ASK_TIMEOUT;
            let told = controller
                .control()
                .tell(broker, groups, Request::TellCommitted, deadline);
            if let Err(error) = told.await {
                tracing::debug!(%broker, %error, "asked in vain what is committed");
            }
        });
    }
    asked.join_all().await;
}

/// Tells the other replicas of some partitions what is committed, of those that this broker leads.
pub async fn tell_committed(hosted: &HostedPartitions, groups: Vec<GroupId>) {
    let groups: HashSet<GroupId> = groups.into_iter().collect();
    for partition in hosted.of(groups) {
        if !partition.state().is_leader() {
            continue;
        }
        match partition.wake().await {
            Ok(group) => group.tell_committed().await,
            Err(error) => tracing::debug!(partition = %partition.name(), ?error, "does not wake"),
        }
    }
}
