//! Carries reassignments out: each by the leader of its partition, step by step, whoever leads by then.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::controller::Controller;
use crate::hosted::{HostedPartitions, members};
use crate::metadata::command::{Command, CompletedReassignment};
use crate::metadata::image::Reassignment;
use crate::partition::Partition;
use crate::partition::reassignment::Step;
use crate::raft::types::{GroupId, ReplicaId};

/// Longest wait for one step to be committed; it is planned anew then.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);

/// Pause after a step, so that the group's state shows it.
const STEP_PAUSE: Duration = Duration::from_millis(10);

/// Pause between two looks at replicas that catch up, and after what failed.
const WAIT_PAUSE: Duration = Duration::from_millis(100);

/// Longest wait for the controller to note that a reassignment is done.
const COMPLETE_TIMEOUT: Duration = Duration::from_secs(5);

/// Looks after the partitions that are said to be moving, for ever.
pub async fn reassign(controller: Arc<Controller>, hosted: Arc<HostedPartitions>) {
    let mut movers: JoinSet<GroupId> = JoinSet::new();
    let mut moved: HashSet<GroupId> = HashSet::new();
    loop {
        let noted = &hosted.notices().moving;
        tokio::select! {
            () = noted.wait() => {
                for partition in hosted.of(noted.take()) {
                    let group = partition.shared().group();
                    if is_due(&controller, &partition) && moved.insert(group) {
                        let mover = Mover { controller: controller.clone(), partition };
                        movers.spawn(async move { mover.run().await; group });
                    }
                }
            }
            Some(ended) = movers.join_next() => match ended {
                Ok(group) => {
                    moved.remove(&group);
                    // It may have been asked for anew while its mover ended.
                    if hosted.of(HashSet::from([group])).iter().any(|it| is_due(&controller, it)) {
                        noted.add(group);
                    }
                }
                Err(error) => {
                    tracing::error!(%error, "a reassignment is stuck until its leader changes");
                }
            },
        }
    }
}

/// Whether a partition is being moved and this replica has to see to it.
fn is_due(controller: &Controller, partition: &Partition) -> bool {
    partition.state().is_leader() && asked(controller, partition).is_some()
}

fn asked(controller: &Controller, partition: &Partition) -> Option<Arc<Reassignment>> {
    let image = controller.shared().image();
    let known = image.partition_by_id(partition.topic_id(), partition.index())?;
    known.reassignment.clone()
}

/// Moves one partition while this replica leads it.
struct Mover {
    controller: Arc<Controller>,
    partition: Arc<Partition>,
}

impl Mover {
    async fn run(&self) {
        let mut heard_in = None;
        while let Some(reassignment) = asked(&self.controller, &self.partition) {
            // What a leader before this one has ended is not begun again.
            let epoch = self.partition.state().leader_epoch;
            if heard_in != Some(epoch) {
                if let Err(error) = self.controller.catch_up(COMPLETE_TIMEOUT).await {
                    tracing::debug!(partition = %self.partition.name(), %error, "not moved yet");
                    sleep(WAIT_PAUSE).await;
                    return;
                }
                heard_in = Some(epoch);
                continue;
            }
            // Those that are being moved do not fall asleep again.
            if let Err(error) = self.partition.leading_group(usize::MAX).await {
                tracing::debug!(partition = %self.partition.name(), ?error, "does not wake");
                return;
            }
            let Some(step) = self.next_step(&reassignment) else {
                return;
            };
            sleep(self.carry_out(step, &reassignment).await).await;
        }
    }

    /// What is to be done; `None`: this replica does not lead.
    fn next_step(&self, reassignment: &Reassignment) -> Option<Step> {
        let image = self.controller.shared().image();
        let wanted: Vec<ReplicaId> = members(&image, &reassignment.to);
        if wanted.len() < reassignment.to.len() {
            // The controller forgets no broker that is wanted; one that registers again is another replica meanwhile.
            return Some(Step::Wait);
        }
        let control = self.controller.control();
        let is_there = |replica: &ReplicaId| {
            let broker = image.broker(replica.broker);
            let same = broker.is_some_and(|it| !it.fenced && it.replica() == *replica);
            same && control.is_connected(replica.broker)
        };
        self.partition.reassignment_step(&wanted, is_there)
    }

    /// Returns how long to wait until the next look.
    async fn carry_out(&self, step: Step, reassignment: &Reassignment) -> Duration {
        let name = self.partition.name();
        match step {
            Step::Wait => return WAIT_PAUSE,
            Step::Done => {}
            _ => tracing::info!(partition = %name, ?step, "replicas move"),
        }
        let is_last = step == Step::Done;
        match timeout(STEP_TIMEOUT, self.partition.carry_out(step)).await {
            // The leadership is confirmed: what a deposed leader takes for done is what was before others went on, and
            // whoever is not named any more deletes its records.
            Ok(Ok(())) if is_last => match self.next_step(reassignment) {
                Some(Step::Done) => self.complete(reassignment).await,
                _ => STEP_PAUSE,
            },
            Ok(Ok(())) => STEP_PAUSE,
            Ok(Err(error)) => {
                tracing::debug!(partition = %name, %error, "not moved yet");
                WAIT_PAUSE
            }
            Err(_) => WAIT_PAUSE,
        }
    }

    async fn complete(&self, reassignment: &Reassignment) -> Duration {
        // The new replicas are in sync as soon as they are what there is.
        self.partition.shared().note_in_sync();
        let completed = CompletedReassignment {
            topic: self.partition.topic_id(),
            partition: self.partition.index(),
            since: reassignment.since,
        };
        let command = Command::CompleteReassignments(vec![completed]);
        match self.controller.submit(command, COMPLETE_TIMEOUT).await {
            Ok(_) => {
                let replicas = &reassignment.to;
                tracing::info!(partition = %self.partition.name(), ?replicas, "replicas have moved");
                STEP_PAUSE
            }
            Err(error) => {
                tracing::debug!(partition = %self.partition.name(), %error, "not noted yet");
                WAIT_PAUSE
            }
        }
    }
}
