//! What goes on behind the requests: following the image, reporting leaders, elections, retention, checkpoints.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tidelog_protocol::types::BrokerId;
use tokio::time::{MissedTickBehavior, interval};

use crate::controller::Controller;
use crate::errors::SubmitError;
use crate::hosted::HostedPartitions;
use crate::metadata::command::Command;
use crate::notices::Notices;
use crate::partition::Partition;
use crate::partition::group::GroupContext;
use crate::partition::state::Role;
use crate::peers::jitter;
use crate::raft::state_store::{self, GroupStateStore};
use crate::reporter::same_brokers;
use crate::succession;

/// A task that runs until it is cancelled.
pub type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Pause that lets reports gather: a thousand new leaders make a few records.
const REPORT_LINGER: Duration = Duration::from_millis(3);

/// Longest wait for a report to be committed.
const REPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// Pause after a report that did not get through.
const REPORT_RETRY: Duration = Duration::from_millis(200);

/// Pause before a look at groups without a leader: whose turn it is has had the chance by then.
const ELECTION_SWEEP: Duration = Duration::from_secs(1);

/// What it is longer by at most, by chance: replicas that lost their leader in the same moment would else ask for votes in
/// the same moments, each for itself, for ever.
const SWEEP_SPREAD: Duration = Duration::from_millis(500);

/// Pause between two looks at the replicas that are in sync.
const IN_SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// Pause between two checkpoints; bounds what a start applies again.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(5);

/// Partitions between two pauses of a retention round.
const RETENTION_STRIDE: usize = 32;

/// Pause within a retention round, so that it does not compete with requests.
const RETENTION_PAUSE: Duration = Duration::from_millis(5);

/// Keeps the hosted partitions equal to the image.
pub async fn follow_image(controller: Arc<Controller>, hosted: Arc<HostedPartitions>) {
    let mut brokers = controller.shared().image().brokers.clone();
    loop {
        let delta = controller.shared().next_delta().await;
        let image = controller.shared().image();
        if delta.brokers {
            hosted.note_fenced(&image, &delta.lost);
        }
        hosted.replace_leaders(&image, &delta.lost);
        // Images share what did not change.
        if !Arc::ptr_eq(&brokers, &image.brokers) {
            brokers = image.brokers.clone();
            succession::look_for_orphans(&image, &hosted);
        }
        hosted.reconcile(&image, delta).await;
    }
}

/// Tells the controller which partitions this broker leads.
pub async fn report_leaders(
    controller: Arc<Controller>,
    hosted: Arc<HostedPartitions>,
    notices: Arc<Notices>,
    me: BrokerId,
) {
    let reporter = &notices.leading;
    loop {
        reporter.wait().await;
        tokio::time::sleep(REPORT_LINGER).await;
        loop {
            let image = controller.shared().image();
            let reports = reporter.take(me, &image, |group, known| {
                let partition = hosted.get(group.topic, group.partition);
                partition.map_or_else(Vec::new, |it| it.in_sync(known))
            });
            if reports.is_empty() {
                break;
            }
            match controller
                .submit(Command::ReportLeaders(reports.clone()), REPORT_TIMEOUT)
                .await
            {
                Ok(_) => {}
                Err(SubmitError::ShuttingDown) => return,
                Err(error) => {
                    tracing::warn!(%error, "the controller does not know of new leaders yet");
                    tokio::time::sleep(REPORT_RETRY).await;
                    reporter.put_back(&reports);
                }
            }
        }
    }
}

/// Asks groups that have no leader to elect one, and brings partitions back that were stopped for want of space. The
/// usual election follows an event; this is for what fell through.
pub async fn elect_leaders(hosted: Arc<HostedPartitions>) {
    loop {
        hosted.notices().leaderless.wait().await;
        tokio::time::sleep(ELECTION_SWEEP + jitter(SWEEP_SPREAD)).await;
        sweep_leaderless(&hosted).await;
    }
}

/// Looks after each partition that has no leader.
pub async fn sweep_leaderless(hosted: &HostedPartitions) {
    for partition in hosted.of(hosted.notices().leaderless.take()) {
        look_after(hosted, &partition).await;
        if !partition.shared().is_led() {
            partition.shared().note_leaderless();
        }
    }
}

async fn look_after(hosted: &HostedPartitions, partition: &Partition) {
    let state = partition.state();
    match state.role {
        Role::Leader => {}
        Role::Follower if partition.shared().is_led() => {}
        Role::Follower => match partition.group() {
            Some(group) if group.is_running() && partition.shared().election_due() => {
                group.elect().await;
            }
            Some(group) if group.is_running() => {}
            Some(_) => partition.shared().go_offline("its consensus group stopped"),
            // It lost its leader while it fell asleep.
            None if partition.is_asleep() => drop(partition.wake().await),
            None => {}
        },
        Role::Offline if partition.shared().is_damaged() => {}
        Role::Offline => {
            let log = partition.log();
            if log.stopped().is_none() && log.check_writable().is_ok() {
                tracing::info!(partition = %partition.name(), "partition is started again");
                hosted.restart_group(partition).await;
            }
        }
    }
}

/// Reports replicas that have fallen behind or caught up, of the partitions that this broker leads.
pub async fn report_in_sync(controller: Arc<Controller>, hosted: Arc<HostedPartitions>) {
    let mut ticks = interval(IN_SYNC_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let image = controller.shared().image();
        if image.is_alone() {
            let mut versions = controller.watch();
            if versions.changed().await.is_err() {
                return;
            }
            continue;
        }
        for partition in hosted.awake() {
            let state = partition.state();
            let known = image.partition_by_id(partition.topic_id(), partition.index());
            let Some(known) = known.filter(|known| state.is_leader() && known.replicas.len() > 1)
            else {
                continue;
            };
            // Whoever read there has heard of it, and nobody else.
            if partition.log().is_damaged() {
                let reason = partition.log().stopped().unwrap_or_default();
                partition.shared().lose_records(&reason);
            }
            if known.leader != state.leader || !same_brokers(&partition.in_sync(known), &known.isr)
            {
                partition.shared().note_in_sync();
            }
        }
    }
}

/// Enforces retention, partition by partition.
pub async fn retain(hosted: Arc<HostedPartitions>, every: Duration) {
    let mut ticks = interval(every.max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        for stride in hosted.all().chunks(RETENTION_STRIDE) {
            for partition in stride {
                partition.retain().await;
            }
            tokio::time::sleep(RETENTION_PAUSE).await;
        }
    }
}

/// Saves how far each group has come.
pub async fn checkpoint(
    context: GroupContext,
    controller: Arc<Controller>,
    hosted: Arc<HostedPartitions>,
) {
    let mut ticks = interval(CHECKPOINT_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        save_checkpoints(&context, &controller, &hosted).await;
    }
}

/// Saves the progress of all groups that made some, in one write.
pub async fn save_checkpoints(
    context: &GroupContext,
    controller: &Controller,
    hosted: &HostedPartitions,
) {
    let mut writes: Vec<_> = controller.due_checkpoint().into_iter().collect();
    for partition in hosted.of(hosted.notices().unsaved.take()) {
        let store = GroupStateStore::new(context.kv.clone(), partition.log().id());
        writes.extend(
            partition
                .shared()
                .due_checkpoint()
                .map(|checkpoint| store.checkpoint_write(&checkpoint)),
        );
    }
    if writes.is_empty() {
        return;
    }
    // A start that finds older progress applies more of the log again.
    if let Err(error) = state_store::write(&*context.kv, writes, None).await {
        tracing::error!(%error, "progress of the consensus groups was not saved");
    }
}
