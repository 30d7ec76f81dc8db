//! Replicas that have lost something of what they had: they say so, are taken out of their groups, and come back empty.
//!
//! Such a replica neither votes nor leads: its group does not run. Before it says so it notes it, so that it stays like that
//! over a restart; only a version of the metadata behind that note, in which the replica is out of the group and wanted
//! again, lets it begin anew ([`HostedPartitions`]).

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use crate::controller::Controller;
use crate::hosted::{HostedPartitions, end_damaged};
use crate::metadata::command::{Command, DamagedReplica};
use crate::metadata::image::PartitionImage;
use crate::partition::Partition;

/// Longest wait for a report to be committed.
const REPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// Pause between two looks at the replicas that are not replaced yet.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Reports damaged replicas until they are replaced, for ever.
pub async fn heal(controller: Arc<Controller>, hosted: Arc<HostedPartitions>) {
    loop {
        hosted.notices().damaged.wait().await;
        for partition in hosted.of(hosted.notices().damaged.take()) {
            if partition.shared().offline().is_none() {
                continue;
            }
            if let Err(error) = report(&controller, &hosted, &partition).await {
                tracing::debug!(partition = %partition.name(), %error, "damage is not reported yet");
            }
            // Until another replica stands in its place.
            hosted.notices().damaged.add(partition.shared().group());
        }
        sleep(LOOK_INTERVAL).await;
    }
}

async fn report(
    controller: &Controller,
    hosted: &HostedPartitions,
    partition: &Partition,
) -> Result<(), io::Error> {
    let image = controller.shared().image();
    let (topic, index, broker) = (partition.topic_id(), partition.index(), hosted.broker());
    let known = image.partition_by_id(topic, index);
    let others = |it: &&PartitionImage| it.wanted().iter().any(|id| *id != broker);
    let Some(known) = known.filter(others) else {
        return Ok(());
    };
    end_damaged(partition).await;
    let going = known.reassignment.as_deref();
    if going.is_some_and(|it| it.takes_out(broker)) || hosted.is_renewed(partition, known) {
        return Ok(());
    }
    let store = hosted.state_of(partition);
    store.write_damaged(image.version()).await?;
    let command = Command::ReportDamage(DamagedReplica {
        topic,
        partition: index,
        broker,
    });
    let submitted = controller.submit(command, REPORT_TIMEOUT).await;
    submitted.map(drop).map_err(io::Error::other)
}
