//! Leaders tell the controller that they lead, many at once.

use std::collections::HashMap;

use parking_lot::Mutex;
use tidelog_protocol::types::{BrokerId, LeaderEpoch};
use tokio::sync::Notify;

use crate::limits::LEADER_REPORTS_MAX;
use crate::metadata::command::LeaderReport;
use crate::metadata::image::{MetadataImage, PartitionImage};
use crate::raft::types::GroupId;

/// Partitions that began to lead and whose epoch the image may not show.
#[derive(Debug, Default)]
pub struct LeaderReporter {
    pending: Mutex<HashMap<GroupId, LeaderEpoch>>,
    ready: Notify,
}

impl LeaderReporter {
    /// A replica of this broker leads.
    pub fn report(&self, group: GroupId, epoch: LeaderEpoch) {
        self.pending.lock().insert(group, epoch);
        self.ready.notify_one();
    }

    /// Waits until there is something to report.
    pub async fn wait(&self) {
        self.ready.notified().await;
    }

    /// Takes reports for one record; empty when there are none.
    ///
    /// `in_sync` names the replicas in sync, as the leader sees them; it is told what the image shows.
    pub fn take(
        &self,
        me: BrokerId,
        image: &MetadataImage,
        in_sync: impl Fn(GroupId, &PartitionImage) -> Vec<BrokerId>,
    ) -> Vec<LeaderReport> {
        let mut reports = Vec::new();
        while reports.len() < LEADER_REPORTS_MAX {
            let next = {
                let mut pending = self.pending.lock();
                let next = pending.keys().next().copied();
                next.and_then(|group| pending.remove_entry(&group))
            };
            let Some((group, epoch)) = next else { break };
            // Deleted partitions are no news.
            let Some(known) = image.partition_by_id(group.topic, group.partition) else {
                continue;
            };
            let mut isr = in_sync(group, known);
            if !isr.contains(&me) {
                isr.insert(0, me);
            }
            if is_news(known, epoch, me, &isr) {
                reports.push(LeaderReport {
                    topic: group.topic,
                    partition: group.partition,
                    leader: me,
                    epoch,
                    isr,
                });
            }
        }
        reports
    }

    /// Puts reports back that did not get through, unless there is newer news.
    pub fn put_back(&self, reports: &[LeaderReport]) {
        let mut pending = self.pending.lock();
        for report in reports {
            let group = GroupId {
                topic: report.topic,
                partition: report.partition,
            };
            pending.entry(group).or_insert(report.epoch);
        }
        drop(pending);
        self.ready.notify_one();
    }
}

/// Whether both name the same brokers, in whatever order.
pub fn same_brokers(some: &[BrokerId], others: &[BrokerId]) -> bool {
    some.len() == others.len() && some.iter().all(|broker| others.contains(broker))
}

/// Whether the image does not show this leader, or these replicas in sync, yet.
fn is_news(known: &PartitionImage, epoch: LeaderEpoch, me: BrokerId, isr: &[BrokerId]) -> bool {
    known.leader_epoch < epoch || known.leader != Some(me) || !same_brokers(&known.isr, isr)
}
