//! Leaders tell the controller that they lead, many at once.

use std::collections::HashMap;

use parking_lot::Mutex;
use tidelog_protocol::types::{BrokerId, LeaderEpoch};
use tokio::sync::Notify;

use crate::limits::LEADER_REPORTS_MAX;
use crate::metadata::command::LeaderReport;
use crate::metadata::image::MetadataImage;
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
    pub fn take(&self, me: BrokerId, image: &MetadataImage) -> Vec<LeaderReport> {
        let mut pending = self.pending.lock();
        pending.retain(|group, epoch| is_news(image, *group, *epoch, me));
        let taken: Vec<GroupId> = pending.keys().copied().take(LEADER_REPORTS_MAX).collect();
        taken
            .into_iter()
            .filter_map(|group| {
                let epoch = pending.remove(&group)?;
                let (topic, partition) = (group.topic, group.partition);
                Some(LeaderReport {
                    topic,
                    partition,
                    leader: me,
                    epoch,
                    isr: vec![me],
                })
            })
            .collect()
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

/// Whether the image does not show this leader yet. Deleted partitions are no news.
fn is_news(image: &MetadataImage, group: GroupId, epoch: LeaderEpoch, me: BrokerId) -> bool {
    let known = image
        .topic_by_id(group.topic)
        .and_then(|topic| topic.partition(group.partition));
    known.is_some_and(|known| known.leader_epoch < epoch || known.leader != Some(me))
}
