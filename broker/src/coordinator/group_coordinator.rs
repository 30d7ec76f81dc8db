//! All groups that this broker coordinates: which shard holds which, and which shards are here.
//!
//! Follows the metadata: a shard runs exactly where and while its partition is led. Invariant: at most one shard of
//! a partition runs, and a new one starts only after the old one has ended.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use tidelog_protocol::limits;
use tidelog_protocol::types::{
    BrokerId, LeaderEpoch, PartitionIndex, TopicId, TopicName, TopicPartition,
};
use tidelog_replication::{MetadataImage, PartitionImage, Replication};
use tidelog_storage::kv::KeyValueStore;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::config::CoordinatorConfig;
use super::group::{
    DescribedGroup, Event, GroupError, GroupId, GroupSettings, MemberBudget, Reply, ReplyToken,
};
use super::offsets_log::PartitionOffsetsLog;
use super::offsets_topic::{OFFSETS_TOPIC, TopicCreator};
use super::placement::partition_of;
use super::shard::{
    FetchedOffset, ListedGroup, ShardHandle, ShardRequest, ShardSender, ShardStart,
};
use super::topic_registry::TopicRegistry;

/// Why a group's coordinator is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CoordinatorError {
    /// The offsets topic is being created, or its partition has no leader yet.
    #[error("the coordinator is not available yet")]
    NotAvailable,
}

/// See the module.
#[derive(Debug)]
pub struct GroupCoordinator {
    replication: Arc<Replication>,
    store: Arc<dyn KeyValueStore>,
    config: CoordinatorConfig,
    settings: Arc<GroupSettings>,
    shards: RwLock<HashMap<PartitionIndex, LedShard>>,
    topics: Arc<TopicRegistry>,
    members: MemberBudget,
    creator: TopicCreator,
    next_token: AtomicU64,
    stopping: CancellationToken,
    tasks: TaskTracker,
}

/// A shard, and the leadership that it belongs to.
#[derive(Debug)]
struct LedShard {
    term: LedTerm,
    handle: ShardHandle,
}

/// One leadership of one incarnation of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct LedTerm {
    topic: TopicId,
    epoch: LeaderEpoch,
}

impl GroupCoordinator {
    /// Starts to follow the metadata. The shards of partitions led here begin to load.
    pub fn start(
        replication: Arc<Replication>,
        store: Arc<dyn KeyValueStore>,
        config: CoordinatorConfig,
    ) -> Arc<GroupCoordinator> {
        let cluster = replication.clone();
        let lookup = move |name: &TopicName| cluster.image().topic(name).map(|topic| topic.id);
        let coordinator = Arc::new(GroupCoordinator {
            settings: Arc::new(config.groups.clone()),
            config,
            replication,
            store,
            shards: RwLock::default(),
            topics: Arc::new(TopicRegistry::new(Box::new(lookup))),
            members: MemberBudget::new(limits::GROUP_MEMBERS_BYTES_MAX),
            creator: TopicCreator::default(),
            next_token: AtomicU64::new(1),
            stopping: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        coordinator.tasks.spawn(coordinator.clone().follow());
        coordinator
    }

    /// The broker that coordinates the group. Creates the offsets topic if there is none yet, and says so.
    pub fn coordinator_of(self: &Arc<Self>, group: &GroupId) -> Result<BrokerId, CoordinatorError> {
        let image = self.replication.image();
        match image.topic(&TopicName::from(OFFSETS_TOPIC)) {
            None => {
                self.create_topic();
                Err(CoordinatorError::NotAvailable)
            }
            Some(topic) => partition_of(group, topic.partitions.len())
                .and_then(|index| topic.partition(index)?.leader)
                .ok_or(CoordinatorError::NotAvailable),
        }
    }

    /// Hands an event to its group and waits for the answer, which may take as long as a rebalance. The group's
    /// order is taken at the first poll.
    pub async fn request(
        self: &Arc<Self>,
        group: GroupId,
        event: impl FnOnce(ReplyToken) -> Event,
    ) -> Result<Reply, GroupError> {
        let shard = self.shard_of(&group)?;
        let token = ReplyToken(self.next_token.fetch_add(1, Ordering::Relaxed));
        let (reply, answer) = oneshot::channel();
        shard
            .send(ShardRequest::Group {
                group,
                token,
                event: event(token),
                reply,
            })
            .await?;
        answer.await.map_err(|_| GroupError::NotCoordinator)
    }

    /// Committed offsets of the partitions, in the order asked, or of all. Not those of a broker that was cut off while
    /// another one took its groups over.
    pub async fn fetch_offsets(
        self: &Arc<Self>,
        group: GroupId,
        partitions: Option<Vec<TopicPartition>>,
    ) -> Result<Vec<FetchedOffset>, GroupError> {
        let shard = self.shard_of(&group)?;
        self.confirm(&group).await?;
        let (reply, answer) = oneshot::channel();
        shard
            .send(ShardRequest::Fetch {
                group,
                partitions,
                reply,
            })
            .await?;
        answer.await.map_err(|_| GroupError::NotCoordinator)
    }

    /// The group with its members; `None` if there is no such group.
    pub async fn describe(
        self: &Arc<Self>,
        group: GroupId,
    ) -> Result<Option<DescribedGroup>, GroupError> {
        let shard = self.shard_of(&group)?;
        let (reply, answer) = oneshot::channel();
        shard.send(ShardRequest::Describe { group, reply }).await?;
        answer.await.map_err(|_| GroupError::NotCoordinator)
    }

    /// All groups of this broker; an error while some of them are being loaded.
    pub async fn list(&self) -> Result<Vec<ListedGroup>, GroupError> {
        let senders: Vec<ShardSender> = self
            .shards
            .read()
            .values()
            .map(|shard| shard.handle.sender())
            .collect();
        let mut groups = Vec::new();
        for shard in senders {
            let (reply, answer) = oneshot::channel();
            match shard.send(ShardRequest::List { reply }).await {
                // Another broker lists these groups.
                Err(GroupError::NotCoordinator) => continue,
                sent => sent?,
            }
            groups.extend(answer.await.unwrap_or_default());
        }
        Ok(groups)
    }

    /// The memory of members that joins are charged to.
    pub fn members(&self) -> &MemberBudget {
        &self.members
    }

    /// Notes topics whose offsets are about to be committed, so that the offsets go when the topics go.
    pub fn note_topics<'a>(&self, names: impl Iterator<Item = &'a TopicName>) {
        self.topics.note(names);
    }

    /// Ends all shards. Groups stay as they are: their members find them again after a restart.
    pub async fn shutdown(&self) {
        self.stopping.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        let shards = std::mem::take(&mut *self.shards.write());
        let ended: Vec<_> = shards
            .into_values()
            .map(|shard| shard.handle.stop(GroupError::CoordinatorNotAvailable))
            .collect();
        for task in ended {
            report_end(task.await);
        }
    }

    fn shard_of(self: &Arc<Self>, group: &GroupId) -> Result<ShardSender, GroupError> {
        if self.stopping.is_cancelled() {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        let image = self.replication.image();
        let Some(topic) = image.topic(&TopicName::from(OFFSETS_TOPIC)) else {
            self.create_topic();
            return Err(GroupError::CoordinatorNotAvailable);
        };
        let index = partition_of(group, topic.partitions.len())
            .ok_or(GroupError::CoordinatorNotAvailable)?;
        if let Some(shard) = self.shards.read().get(&index) {
            return Ok(shard.handle.sender());
        }
        match topic
            .partition(index)
            .and_then(|partition| partition.leader)
        {
            // Led here, but its shard is not started yet.
            Some(leader) if leader == self.replication.broker() => Err(GroupError::LoadInProgress),
            _ => Err(GroupError::NotCoordinator),
        }
    }

    /// Makes sure that no other broker coordinates the group by now.
    async fn confirm(&self, group: &GroupId) -> Result<(), GroupError> {
        let image = self.replication.image();
        let topic = image.topic(&TopicName::from(OFFSETS_TOPIC));
        let partition = topic.and_then(|topic| {
            let index = partition_of(group, topic.partitions.len())?;
            self.replication.partition(topic.id, index)
        });
        let partition = partition.ok_or(GroupError::NotCoordinator)?;
        let confirmed = partition.confirm_leadership().await;
        confirmed.map_err(|_| GroupError::NotCoordinator)
    }

    fn create_topic(self: &Arc<Self>) {
        let coordinator = self.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = coordinator.stopping.cancelled() => {}
                () = coordinator.creator.create(&coordinator.replication, &coordinator.config.topic) => {}
            }
        });
    }

    async fn follow(self: Arc<Self>) {
        let mut versions = self.replication.controller().watch();
        loop {
            versions.borrow_and_update();
            self.follow_leaders().await;
            self.follow_topics().await;
            tokio::select! {
                () = self.stopping.cancelled() => return,
                changed = versions.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Starts and stops shards so that they are those of the partitions that this broker leads.
    async fn follow_leaders(&self) {
        let image = self.replication.image();
        let wanted = self.led_here(&image);
        let outdated: Vec<PartitionIndex> = {
            let shards = self.shards.read();
            let moved = |(index, shard): &(&PartitionIndex, &LedShard)| {
                wanted.get(*index) != Some(&shard.term)
            };
            shards
                .iter()
                .filter(moved)
                .map(|(index, _)| *index)
                .collect()
        };
        for index in outdated {
            let removed = self.shards.write().remove(&index);
            if let Some(shard) = removed {
                report_end(shard.handle.stop(GroupError::NotCoordinator).await);
            }
        }
        for (index, term) in wanted {
            if !self.shards.read().contains_key(&index) {
                self.start_shard(index, term);
            }
        }
    }

    fn led_here(&self, image: &MetadataImage) -> HashMap<PartitionIndex, LedTerm> {
        let Some(topic) = image.topic(&TopicName::from(OFFSETS_TOPIC)) else {
            return HashMap::new();
        };
        let led = |partition: &PartitionImage| partition.leader == Some(self.replication.broker());
        (0i32..)
            .zip(&topic.partitions)
            .filter(|(_, partition)| led(partition))
            .map(|(index, partition)| {
                (
                    PartitionIndex(index),
                    LedTerm {
                        topic: topic.id,
                        epoch: partition.leader_epoch,
                    },
                )
            })
            .collect()
    }

    fn start_shard(&self, index: PartitionIndex, term: LedTerm) {
        let Some(partition) = self.replication.partition(term.topic, index) else {
            tracing::warn!(partition = %index, "a led partition of the offsets topic is not here");
            return;
        };
        let name = Arc::from(partition.name().to_string());
        let start = ShardStart {
            log: Arc::new(PartitionOffsetsLog::new(partition, term.epoch)),
            store: self.store.clone(),
            settings: self.settings.clone(),
            retention_check_interval: self.config.retention_check_interval,
            topics: self.topics.clone(),
            name,
        };
        self.shards.write().insert(
            index,
            LedShard {
                term,
                handle: ShardHandle::start(start),
            },
        );
    }

    /// Tells all shards which topics are gone.
    async fn follow_topics(&self) {
        let deleted = self.topics.take_deleted();
        if deleted.is_empty() {
            return;
        }
        let deleted = Arc::new(deleted);
        let senders: Vec<ShardSender> = self
            .shards
            .read()
            .values()
            .map(|shard| shard.handle.sender())
            .collect();
        for shard in senders {
            shard
                .tell(ShardRequest::TopicsDeleted(deleted.clone()))
                .await;
        }
    }
}

fn report_end(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a shard of the group coordinator broke off");
    }
}
