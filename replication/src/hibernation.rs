//! Puts groups to sleep that nobody has used for a while.
//!
//! What is looked at now and then are the groups that are in memory; those that sleep are left alone.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::controller::Controller;
use crate::hosted::HostedPartitions;
use crate::limits::GROUPS_FALLING_ASLEEP_MAX;
use crate::metadata::image::MetadataImage;
use crate::partition::Partition;
use crate::raft::types::{GroupId, LogId};

/// Looks within the time after which an idle group sleeps.
const LOOKS: u32 = 4;

/// Shortest and longest pause between two looks.
const PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(30));

/// When a group was used last, as far as the looks show.
#[derive(Clone, Copy, Debug)]
struct Watched {
    applied: Option<LogId>,
    idle_since: Instant,
}

/// Puts groups to sleep that have been idle for so long, for ever.
pub async fn hibernate(controller: Arc<Controller>, hosted: Arc<HostedPartitions>, idle: Duration) {
    let mut ticks = interval((idle / LOOKS).clamp(PAUSES.0, PAUSES.1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut watched = HashMap::new();
    loop {
        ticks.tick().await;
        let image = controller.shared().image();
        let sleepy = look(&hosted, &image, &mut watched, idle);
        put_to_sleep(sleepy).await;
    }
}

/// The groups that have been idle for long enough.
fn look(
    hosted: &HostedPartitions,
    image: &MetadataImage,
    watched: &mut HashMap<GroupId, Watched>,
    idle: Duration,
) -> Vec<Arc<Partition>> {
    let now = Instant::now();
    let mut before = std::mem::take(watched);
    let mut sleepy = Vec::new();
    for partition in hosted.awake() {
        let group = partition.shared().group();
        let applied = partition.shared().applied_last();
        let used = partition.group().is_none_or(|group| group.take_used());
        let seen = before.remove(&group);
        let seen = seen.filter(|seen| !used && seen.applied == applied);
        let seen = seen.unwrap_or(Watched {
            applied,
            idle_since: now,
        });
        watched.insert(group, seen);
        // A leader tells its followers before it sleeps, which they should be awake to hear.
        let leads = partition.state().is_leader();
        let patience = if leads { idle } else { idle * 5 / 4 };
        let known = image.partition_by_id(group.topic, group.partition);
        let moves = known.is_none_or(|known| known.reassignment.is_some());
        // While it sleeps nobody says who has caught up.
        let lacks = known.is_some_and(|known| known.isr.len() < known.replicas.len());
        let busy = moves || (leads && lacks);
        if !busy && now.duration_since(seen.idle_since) >= patience {
            sleepy.push(partition);
        }
    }
    sleepy
}

/// Puts some to sleep, not too many at the same time.
async fn put_to_sleep(sleepy: Vec<Arc<Partition>>) {
    let mut going = JoinSet::new();
    for partition in sleepy {
        if going.len() >= GROUPS_FALLING_ASLEEP_MAX {
            drop(going.join_next().await);
        }
        // Once begun it is ended, also if the broker stops.
        let going_on = tokio::spawn(partition.fall_asleep());
        going.spawn(going_on);
    }
    while going.join_next().await.is_some() {}
}
