//! Partitions that this broker had, and that went elsewhere.
//!
//! A group ends as soon as the image says so; its log stays until it is certain that the group has not taken this broker back
//! meanwhile, which an image that is late does not show. What a Raft member must not forget outlives the log.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tidelog_protocol::types::TopicId;
use tidelog_storage::log::{EntryId, LogId};
use tokio::time::sleep;

use super::{Changes, HostedPartitions, end_group};
use crate::controller::{Controller, METADATA_TOPIC_ID};
use crate::metadata::image::MetadataImage;
use crate::partition::Partition;
use crate::raft::departures::Departure;
use crate::raft::state_store::GroupStateStore;
use crate::raft::types::GroupId;

/// Longest wait for an image that shows all that is committed.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(5);

/// Pause after logs could not be removed.
const RETRY: Duration = Duration::from_secs(1);

/// Removes what is left of partitions that went elsewhere, for ever.
pub async fn remove_left(controller: Arc<Controller>, hosted: Arc<HostedPartitions>) {
    let left = &hosted.notices().left;
    loop {
        left.wait().await;
        // Their groups have ended: whatever they said was said before the read that follows.
        let groups = left.take();
        let caught_up = controller.catch_up(CATCH_UP_TIMEOUT).await;
        let mut stay = Vec::new();
        for group in groups {
            let removed = match &caught_up {
                Ok(()) => hosted.remove_if_left(&controller, group).await,
                Err(error) => Err(io::Error::other(error.to_string())),
            };
            if let Err(error) = removed {
                tracing::debug!(?group, %error, "the log of a partition that went elsewhere stays for now");
                stay.push(group);
            }
        }
        if !stay.is_empty() {
            sleep(RETRY).await;
            stay.into_iter().for_each(|group| left.add(group));
        }
    }
}

impl HostedPartitions {
    /// Ends a group that this broker is not to be in any more, and leaves the rest to [`remove_left`].
    pub(super) fn spawn_departure(
        self: &Arc<Self>,
        partition: Arc<Partition>,
        changes: &mut Changes,
    ) {
        let hosted = self.clone();
        changes.spawn(async move {
            end_group(&partition).await;
            hosted.notices.left.add(partition.shared().group());
        });
    }

    /// Removes the log of a partition, unless it is wanted here again.
    async fn remove_if_left(
        &self,
        controller: &Controller,
        group: GroupId,
    ) -> Result<(), io::Error> {
        let _changing = self.changing.lock().await;
        let image = controller.shared().image();
        if self.get(group.topic, group.partition).is_some() || self.is_assigned(&image, group) {
            return Ok(());
        }
        let log = self.logs.log(group.topic, group.partition);
        match log {
            Some(log) => self.leave(&image, group, log.id(), log.bounds().last).await,
            None => Ok(()),
        }
    }

    /// Removes the logs of partitions that were deleted, or went elsewhere, while this broker was down. The image shows what was
    /// committed before the start.
    pub async fn remove_orphans(&self, image: &MetadataImage) {
        for topic in self.departures.topics() {
            if image.topic_by_id(topic).is_none() {
                self.forget_departures(topic).await;
            }
        }
        for log in self.logs.logs() {
            let group = GroupId {
                topic: log.topic_id,
                partition: log.partition,
            };
            if log.topic_id == METADATA_TOPIC_ID || self.is_assigned(image, group) {
                continue;
            }
            tracing::info!(topic = %log.topic, partition = log.partition.0, "removing the log of a partition that is not here any more");
            if let Err(error) = self.leave(image, group, log.id, log.bounds.last).await {
                tracing::error!(topic = %log.topic, partition = log.partition.0, %error, "it stays");
            }
        }
    }

    /// Removes a log. Of a topic that there is, what a member of the group must not forget is kept.
    async fn leave(
        &self,
        image: &MetadataImage,
        group: GroupId,
        log: LogId,
        last: EntryId,
    ) -> Result<(), io::Error> {
        if image.topic_by_id(group.topic).is_some() {
            let state = GroupStateStore::new(self.starter.context().kv.clone(), log);
            let vote = state.read_vote()?;
            let departure = Departure { vote, last };
            self.departures.note(group, departure).await?;
        }
        self.remove_log(log).await
    }

    /// A replica has left the partition before. An empty log begins with the vote that there was.
    pub(super) async fn come_back(
        &self,
        partition: &Partition,
        departure: &Departure,
    ) -> Result<(), io::Error> {
        let state = self.state_of(partition);
        if let Some(vote) = departure.vote
            && partition.log().bounds().last.index.0 == 0
            && state.read_vote()?.is_none()
        {
            state.write_vote(&vote).await?;
        }
        Ok(())
    }

    /// What is remembered of a partition that this broker has left.
    #[cfg(test)]
    pub(crate) fn departure(&self, group: GroupId) -> Option<Departure> {
        self.departures.of(group)
    }

    pub(super) async fn forget_departures(&self, topic: TopicId) {
        if let Err(error) = self.departures.forget(topic).await {
            tracing::warn!(%topic, %error, "what is remembered of a deleted topic stays until the next start");
        }
    }

    fn is_assigned(&self, image: &MetadataImage, group: GroupId) -> bool {
        let known = image.partition_by_id(group.topic, group.partition);
        known.is_some_and(|partition| partition.replicas.contains(&self.options.broker))
    }
}
