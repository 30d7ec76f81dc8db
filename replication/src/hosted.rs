//! The partitions that this broker hosts, kept equal to what the image assigns to it.
//!
//! One task changes the set, topic by topic, so that the deletion of a topic never overtakes its creation. Another removes
//! what is left of partitions that went elsewhere.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::RwLock;
use tidelog_protocol::types::{BrokerId, PartitionIndex, TopicId, TopicPartition};
use tidelog_storage::log::{EntryId, LogConfig, LogId, PartitionLog};
use tidelog_storage::manager::LogManager;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::limits::GROUPS_CHANGING_MAX;
use crate::metadata::image::{MetadataImage, PartitionImage, TopicImage};
use crate::metadata::state::MetadataDelta;
use crate::notices::Notices;
use crate::options::{CompactionOptions, ReplicationOptions};
use crate::partition::group::GroupContext;
use crate::partition::shared::{Budgets, PartitionShared, Resting};
use crate::partition::starter::GroupStarter;
use crate::partition::{Life, Partition, PartitionLimits};
use crate::planted::{Bug, planted};
use crate::raft::departures::Departures;
use crate::raft::state_store::{self, GroupStateStore};
use crate::raft::types::{GroupId, ReplicaId};
use crate::suspects;
use crate::throttle::{ThrottledReplicas, Throttles};

mod leaving;

pub use leaving::remove_left;

/// Longest wait for others to take over what this broker led.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(2);

/// Pause between two looks whether they have.
const HAND_OVER_LOOK: Duration = Duration::from_millis(5);

/// Said of a replica that was found to be damaged by an earlier run.
const LOST_BEFORE: &str = "it has lost records, and is not replaced yet";

/// Partitions of one topic by index; those that are hosted elsewhere are gaps.
type Slots = Vec<Option<Arc<Partition>>>;

/// Groups that are started and stopped, some at a time.
struct Changes {
    gate: Arc<Semaphore>,
    tasks: JoinSet<()>,
}

impl Changes {
    fn new() -> Changes {
        Changes {
            gate: Arc::new(Semaphore::new(GROUPS_CHANGING_MAX)),
            tasks: JoinSet::new(),
        }
    }

    /// Does it when it is its turn.
    fn spawn(&mut self, change: impl Future<Output = ()> + Send + 'static) {
        let gate = self.gate.clone();
        self.tasks.spawn(async move {
            let _permit = gate.acquire().await;
            change.await;
        });
    }

    /// Waits until all are done.
    async fn join(mut self) {
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a partition could not be started or stopped");
            }
        }
    }
}

/// What a topic's configuration says about each of its partitions.
#[derive(Clone, Debug)]
struct Settings {
    log: LogConfig,
    min_insync_replicas: usize,
    throttled: Option<Arc<ThrottledReplicas>>,
}

/// See the module.
#[derive(Debug)]
pub struct HostedPartitions {
    options: ReplicationOptions,
    starter: Arc<GroupStarter>,
    logs: Arc<LogManager>,
    notices: Arc<Notices>,
    broker_in_flight: Arc<Semaphore>,
    topics: RwLock<HashMap<TopicId, Slots>>,
    departures: Departures,
    /// While the replicas that this broker had are opened: the power may have been lost since they were written.
    doubtful: AtomicBool,
    /// Held while the set is changed.
    changing: tokio::sync::Mutex<()>,
    /// Partitions handed out to be looked at, all in all.
    visits: AtomicU64,
    /// Told when the brokers' settings may have changed.
    settings: watch::Sender<()>,
}

impl HostedPartitions {
    /// None so far. Blocks.
    ///
    /// # Errors
    ///
    /// The consensus library refuses its configuration, or the store cannot be read.
    pub fn new(
        options: ReplicationOptions,
        context: GroupContext,
        logs: Arc<LogManager>,
        notices: Arc<Notices>,
    ) -> Result<Self, io::Error> {
        let budget = options
            .broker_in_flight_bytes_max
            .min(Semaphore::MAX_PERMITS);
        let departures = Departures::load(context.kv.clone())?;
        let doubtful = suspects::power_was_lost(&*context.kv, &options)?;
        let starter = GroupStarter::new(context).map_err(io::Error::other)?;
        Ok(HostedPartitions {
            options,
            starter: Arc::new(starter),
            logs,
            notices,
            broker_in_flight: Arc::new(Semaphore::new(budget)),
            topics: RwLock::default(),
            departures,
            doubtful: AtomicBool::new(doubtful),
            changing: tokio::sync::Mutex::default(),
            visits: AtomicU64::new(0),
            settings: watch::Sender::default(),
        })
    }

    /// This broker.
    pub fn broker(&self) -> BrokerId {
        self.options.broker
    }

    /// Whether the power may have been lost since what is being opened was written.
    pub fn is_doubtful(&self) -> bool {
        self.doubtful.load(Ordering::Acquire)
    }

    /// All replicas that this broker had are open.
    pub async fn note_opened(&self) -> Result<(), io::Error> {
        self.doubtful.store(false, Ordering::Release);
        let suspects = self.all();
        let suspects = suspects.iter().filter(|it| it.shared().is_suspect());
        let count = suspects.count();
        if count > 0 {
            tracing::warn!(
                replicas = count,
                "the power may have taken records with durability=os: these replicas neither vote nor lead until a leader has brought them up"
            );
        }
        suspects::note_run(&*self.starter.context().kv, &self.options).await
    }

    /// A partition hosted here.
    pub fn get(&self, topic: TopicId, partition: PartitionIndex) -> Option<Arc<Partition>> {
        let index = usize::try_from(partition.0).ok()?;
        self.topics.read().get(&topic)?.get(index)?.clone()
    }

    /// Those of some partitions that are hosted here.
    pub fn of(&self, groups: HashSet<GroupId>) -> Vec<Arc<Partition>> {
        let hosted = groups.into_iter();
        let hosted = hosted.filter_map(|group| self.get(group.topic, group.partition));
        self.visited(hosted.collect())
    }

    /// Those that are compacted.
    pub fn compacted(&self) -> Vec<Arc<Partition>> {
        let topics = self.topics.read();
        let all = topics.values().flatten().flatten();
        let compacted = all.filter(|partition| partition.log().config().compact);
        self.visited(compacted.cloned().collect())
    }

    /// How compacted logs are looked after, as of now.
    pub fn compaction(&self) -> CompactionOptions {
        self.options.log_configs.compaction()
    }

    /// Hears of changes of the brokers' settings.
    pub fn settings_changes(&self) -> watch::Receiver<()> {
        self.settings.subscribe()
    }

    /// What replicas that catch up may take.
    pub fn throttles(&self) -> &Throttles {
        &self.starter.context().throttles
    }

    /// What the partitions say.
    pub fn notices(&self) -> &Notices {
        &self.notices
    }

    /// All partitions hosted here.
    pub fn all(&self) -> Vec<Arc<Partition>> {
        let topics = self.topics.read();
        let all = topics.values().flatten().flatten();
        self.visited(all.cloned().collect())
    }

    /// Those whose group is in memory.
    pub fn awake(&self) -> Vec<Arc<Partition>> {
        self.of(self.notices.awake.list())
    }

    /// The groups that sleep.
    pub fn sleepers(&self) -> Vec<GroupId> {
        let topics = self.topics.read();
        let all = topics.values().flatten().flatten();
        let sleepers = all.filter(|partition| partition.is_asleep());
        sleepers
            .map(|partition| partition.shared().group())
            .collect()
    }

    /// How many partitions sleep.
    pub fn asleep(&self) -> usize {
        self.starter.asleep()
    }

    fn visited(&self, partitions: Vec<Arc<Partition>>) -> Vec<Arc<Partition>> {
        self.visits
            .fetch_add(partitions.len() as u64, Ordering::Relaxed);
        partitions
    }

    /// How many partitions were looked at so far.
    #[cfg(test)]
    pub fn visits(&self) -> u64 {
        self.visits.load(Ordering::Relaxed)
    }

    /// Makes the hosted set equal to the image, where it changed.
    pub async fn reconcile(self: &Arc<Self>, image: &Arc<MetadataImage>, delta: MetadataDelta) {
        self.options.log_configs.follow(image);
        if delta.broker_configs {
            self.settings.send_replace(());
            let rates = self.options.log_configs.throttle_rates();
            self.throttles().set_rates(rates);
        }
        let _changing = self.changing.lock().await;
        let mut changes = Changes::new();
        let topics: Vec<TopicId> = if delta.broker_configs {
            let known: Vec<TopicId> = self.topics.read().keys().copied().collect();
            known.into_iter().chain(delta.topics).collect()
        } else {
            delta.topics.into_iter().collect()
        };
        for id in topics {
            match image.topic_by_id(id) {
                Some(topic) => self.reconcile_topic(image, topic, &mut changes),
                None => {
                    self.remove_topic(id, &mut changes);
                    self.forget_departures(id).await;
                }
            }
        }
        changes.join().await;
    }

    fn reconcile_topic(
        self: &Arc<Self>,
        image: &MetadataImage,
        topic: &Arc<TopicImage>,
        changes: &mut Changes,
    ) {
        let settings = Settings {
            log: self.options.log_configs.log_config(topic),
            min_insync_replicas: self.options.log_configs.min_insync_replicas(topic),
            throttled: self.options.log_configs.throttled_replicas(topic),
        };
        for (index, partition) in topic.partitions.iter().enumerate() {
            let index = PartitionIndex(i32::try_from(index).unwrap_or(i32::MAX));
            if !partition.replicas.contains(&self.options.broker) {
                if let Some(gone) = self.take(topic.id, index) {
                    self.spawn_departure(gone, changes);
                }
                continue;
            }
            if let Some(hosted) = self.get(topic.id, index) {
                if self.is_renewed(&hosted, partition) {
                    let (me, topic, settings) = (self.clone(), topic.clone(), settings.clone());
                    changes.spawn(async move { me.renew(&hosted, &topic, settings).await });
                    continue;
                }
                self.reconfigure(&hosted, &settings, changes);
                self.follow_loss(image, &hosted, partition);
                // A leader that is gone may be older news than who was named in its place.
                if let Some(leader) = image.live_leader(partition) {
                    let epoch = partition.leader_epoch;
                    hosted.hear_in_sleep(Resting { leader, epoch });
                }
                if partition.reassignment.is_some() {
                    self.notices.moving.add(hosted.shared().group());
                }
                continue;
            }
            let members = founders(image, partition, self.options.broker);
            let leader = self.led_elsewhere(image, partition);
            let (hosted, topic, settings, known) = (
                self.clone(),
                topic.clone(),
                settings.clone(),
                partition.clone(),
            );
            changes.spawn(async move {
                let opened = hosted.open(&topic, index, settings.clone(), &members, leader);
                opened.await;
                // It was out and is back before what it had was removed.
                if let Some(opened) = hosted.get(topic.id, index)
                    && hosted.is_renewed(&opened, &known)
                {
                    hosted.renew(&opened, &topic, settings).await;
                }
            });
        }
    }

    /// Whether a replica that has lost something is out of its group, and wanted again without what it had.
    pub fn is_renewed(&self, hosted: &Partition, known: &PartitionImage) -> bool {
        // Hardly any is, so that the store is hardly ever asked.
        let Some(since) = known.added_since(self.options.broker) else {
            return false;
        };
        let noted = self.state_of(hosted).read_damaged();
        noted.ok().flatten().is_some_and(|at| since > at)
    }

    /// Removes what is left of a replica and begins anew with nothing.
    async fn renew(&self, damaged: &Partition, topic: &TopicImage, settings: Settings) {
        let index = damaged.index();
        tracing::info!(partition = %damaged.name(), "the damaged replica is replaced by an empty one");
        drop(self.take(topic.id, index));
        self.remove(damaged).await;
        self.open(topic, index, settings, &[], None).await;
    }

    /// A leader that lost its records leads no more: another replica asks for it.
    fn follow_loss(&self, image: &MetadataImage, hosted: &Arc<Partition>, known: &PartitionImage) {
        let state = hosted.state();
        let (me, nobody) = (self.options.broker, known.leader.is_none());
        let gone = |it: &BrokerId| *it != me && nobody && !known.isr.contains(it);
        if let Some(leader) = state.leader.filter(gone) {
            if hosted.is_asleep() {
                return self.notices.orphaned.add(hosted.shared().group());
            }
            self.replace_leader(image, hosted, leader, &BTreeSet::from([leader]));
        }
    }

    /// The leader of a partition is gone, one of those that are lost: another replica is to be elected.
    fn replace_leader(
        &self,
        image: &MetadataImage,
        partition: &Arc<Partition>,
        leader: BrokerId,
        lost: &BTreeSet<BrokerId>,
    ) {
        partition.shared().lose_leader(leader);
        let known = image.partition_by_id(partition.topic_id(), partition.index());
        let turn = live_before(image, known, self.options.broker, lost);
        let partition = partition.clone();
        tokio::spawn(async move { partition.elect_in_turn(turn).await });
    }

    /// What is kept of a partition's group beside its log.
    pub fn state_of(&self, partition: &Partition) -> GroupStateStore {
        GroupStateStore::new(self.starter.context().kv.clone(), partition.log().id())
    }

    /// The leader of a partition that is on another broker, where groups may sleep.
    fn led_elsewhere(&self, image: &MetadataImage, partition: &PartitionImage) -> Option<Resting> {
        let leader = image.live_leader(partition)?;
        let sleeps = self.options.hibernation_idle.is_some() && leader != self.options.broker;
        sleeps.then_some(Resting {
            leader,
            epoch: partition.leader_epoch,
        })
    }

    /// Opens a partition: its log, its group.
    async fn open(
        &self,
        topic: &TopicImage,
        index: PartitionIndex,
        settings: Settings,
        members: &[ReplicaId],
        leader: Option<Resting>,
    ) {
        let log = match self
            .logs
            .create_log(&topic.name, topic.id, index, settings.log)
        {
            Ok(log) => log,
            Err(error) => {
                tracing::error!(topic = %topic.name, partition = index.0, %error, "no log for the partition");
                return;
            }
        };
        let group = GroupId {
            topic: topic.id,
            partition: index,
        };
        let departure = self.departures.of(group);
        let had = departure.map_or_else(EntryId::default, |it| it.last);
        let partition = self.new_partition(topic, group, log, had, settings.min_insync_replicas);
        partition.shared().set_throttled(settings.throttled);
        self.put(topic.id, index, partition.clone());
        if let Some(reason) = partition.log().stopped() {
            partition.shared().lose_records(&reason);
            return;
        }
        if let Some(departure) = departure
            && let Err(error) = self.come_back(&partition, &departure).await
        {
            return partition.shared().not_started(&error);
        }
        // One that was there before has nothing to tell the others.
        let members = if departure.is_none() { members } else { &[] };
        match self.state_of(&partition).read_damaged() {
            Ok(None) => {}
            Ok(Some(_)) => return partition.shared().lose_records(LOST_BEFORE),
            Err(error) => return partition.shared().lose_records(&error.to_string()),
        }
        let replicas = topic.partition(index).map_or(0, |it| it.replicas.len());
        if let Err(error) = self.doubt(&partition, replicas).await {
            return partition.shared().not_started(&error);
        }
        if let Some(leader) = leader
            && partition.start_asleep(leader).await
        {
            return;
        }
        partition.shared().note_leaderless();
        self.start_group(&partition, members).await;
    }

    fn new_partition(
        &self,
        topic: &TopicImage,
        group: GroupId,
        log: Arc<PartitionLog>,
        had: EntryId,
        min_insync_replicas: usize,
    ) -> Arc<Partition> {
        let shared = PartitionShared::new(
            group,
            TopicPartition {
                topic: topic.name.clone(),
                partition: group.partition,
            },
            self.starter.context().me,
            log,
            had,
            Budgets {
                partition: self.options.partition_in_flight_bytes_max,
                broker: self.broker_in_flight.clone(),
            },
            self.notices.clone(),
        );
        let partition = Arc::new(Partition::new(
            Arc::new(shared),
            min_insync_replicas,
            PartitionLimits {
                in_flight_bytes_max: self.options.partition_in_flight_bytes_max,
                broker_in_flight_bytes_max: self.options.broker_in_flight_bytes_max,
                replica_lag_max: self.options.replica_lag_max,
            },
        ));
        partition.let_sleep(&self.starter);
        partition
    }

    /// Starts the group of a partition whose log is open, unless it was removed.
    pub async fn start_group(&self, partition: &Partition, members: &[ReplicaId]) {
        let life = partition.life().lock().await;
        if *life == Life::Hosted {
            self.start_locked(partition, members).await;
        }
    }

    async fn start_locked(&self, partition: &Partition, members: &[ReplicaId]) {
        match self.starter.start(partition.shared(), members).await {
            Ok(group) => drop(partition.swap_group(Some(Arc::new(group)))),
            Err(error) => partition.shared().not_started(&error),
        }
    }

    /// Takes over changed settings. A change of durability starts the group anew: what it may ask of a follower that
    /// came back shorter is fixed at its start.
    fn reconfigure(
        self: &Arc<Self>,
        partition: &Arc<Partition>,
        settings: &Settings,
        changes: &mut Changes,
    ) {
        partition.set_min_insync_replicas(settings.min_insync_replicas);
        if partition.shared().throttled() != settings.throttled {
            partition.shared().set_throttled(settings.throttled.clone());
            self.throttles().note_change();
        }
        let old = partition.log().config();
        if *old == settings.log {
            return;
        }
        let durability = settings.log.durability;
        partition.log().set_config(settings.log.clone());
        // One that sleeps wakes with the new settings.
        let runs = partition.shared().offline().is_none() && !partition.is_asleep();
        if durability != old.durability && runs {
            let (hosted, partition) = (self.clone(), partition.clone());
            changes.spawn(async move { hosted.restart_group(&partition).await });
        }
    }

    /// Stops the group of a partition and starts it again on the same log.
    pub async fn restart_group(&self, partition: &Partition) {
        let life = partition.life().lock().await;
        if *life == Life::Ended {
            return;
        }
        if let Some(group) = partition.swap_group(None) {
            partition.shared().stop_leading();
            group.shutdown().await;
        }
        partition.forget_sleep();
        partition.shared().come_back();
        self.start_locked(partition, &[]).await;
    }

    fn remove_topic(self: &Arc<Self>, id: TopicId, changes: &mut Changes) {
        let Some(slots) = self.topics.write().remove(&id) else {
            return;
        };
        for partition in slots.into_iter().flatten() {
            let hosted = self.clone();
            changes.spawn(async move { hosted.remove(&partition).await });
        }
    }

    /// Deletes a partition: first nobody reaches it, then its group ends, then its files and votes go.
    async fn remove(&self, partition: &Partition) {
        end_group(partition).await;
        if let Err(error) = self.remove_log(partition.log().id()).await {
            tracing::error!(partition = %partition.name(), %error, "the log of a deleted partition stays");
        }
    }

    async fn remove_log(&self, id: LogId) -> Result<(), io::Error> {
        self.logs.remove_log(id).await.map_err(io::Error::other)?;
        let forget = vec![GroupStateStore::removal(id)];
        // What a power loss brings back belongs to an id that is never used again.
        state_store::write(&*self.starter.context().kv, forget, None)
            .await
            .map_err(io::Error::other)
    }

    /// Says which brokers are not heard of. Those that were just lost are in sync no more with what is led here.
    pub fn note_fenced(&self, image: &MetadataImage, lost: &BTreeSet<BrokerId>) {
        let fenced = image.brokers().filter(|broker| broker.fenced);
        let fenced: Arc<BTreeSet<BrokerId>> = Arc::new(fenced.map(|broker| broker.id).collect());
        let before = self.notices.fenced.swap(fenced.clone());
        let back: Vec<&BrokerId> = before.difference(&fenced).collect();
        if lost.is_empty() && back.is_empty() {
            return;
        }
        for partition in self.all() {
            let known = image.partition_by_id(partition.topic_id(), partition.index());
            let Some(known) = known else { continue };
            let leaves = known.isr.iter().any(|it| lost.contains(it));
            // Those that are awake are looked at anyway.
            let returns = || known.replicas.iter().any(|it| back.contains(&it));
            if leaves || (partition.is_asleep() && returns()) {
                partition.shared().note_in_sync();
            }
        }
    }

    /// Brokers are gone: the partitions that they led need other leaders. The first live replica in the order of the
    /// image asks first, the others a while later each, should it fail.
    pub fn replace_leaders(&self, image: &MetadataImage, lost: &BTreeSet<BrokerId>) {
        let me = self.options.broker;
        for partition in self.all() {
            let leader = partition.state().leader;
            // See `succession`.
            if partition.is_asleep() {
                continue;
            }
            let Some(leader) = leader.filter(|leader| *leader != me && lost.contains(leader))
            else {
                continue;
            };
            self.replace_leader(image, &partition, leader, lost);
        }
    }

    /// Gives the leadership of each partition that has others in sync to one of them, and waits a little until they
    /// have taken it.
    pub async fn hand_over(&self) {
        let mut given = Vec::new();
        for partition in self.all() {
            if partition.hand_over().await {
                given.push(partition);
            }
        }
        let deadline = Instant::now() + HAND_OVER_TIMEOUT;
        for partition in given {
            while partition.state().is_leader() && Instant::now() < deadline {
                tokio::time::sleep(HAND_OVER_LOOK).await;
            }
        }
    }

    /// Ends all groups.
    pub async fn shutdown(&self) {
        let mut tasks = JoinSet::new();
        for partition in self.all() {
            tasks.spawn(async move { end_group(&partition).await });
        }
        while tasks.join_next().await.is_some() {}
    }

    /// Takes a partition out, so that nobody finds it any more.
    fn take(&self, topic: TopicId, index: PartitionIndex) -> Option<Arc<Partition>> {
        let index = usize::try_from(index.0).ok()?;
        self.topics.write().get_mut(&topic)?.get_mut(index)?.take()
    }

    fn put(&self, topic: TopicId, index: PartitionIndex, partition: Arc<Partition>) {
        let Ok(index) = usize::try_from(index.0) else {
            return;
        };
        let mut topics = self.topics.write();
        let slots = topics.entry(topic).or_default();
        if slots.len() <= index {
            slots.resize(index + 1, None);
        }
        if let Some(slot) = slots.get_mut(index) {
            *slot = Some(partition);
        }
    }
}

/// Ends a partition's group for good: none is started after it.
async fn end_group(partition: &Partition) {
    let mut life = partition.life().lock().await;
    *life = Life::Ended;
    partition.shared().retire();
    end_locked(partition).await;
}

/// Ends the group of a replica that has lost something: it is not to vote with what is left.
pub async fn end_damaged(partition: &Partition) {
    let _life = partition.life().lock().await;
    end_locked(partition).await;
}

async fn end_locked(partition: &Partition) {
    partition.forget_sleep();
    if let Some(group) = partition.swap_group(None) {
        group.shutdown().await;
    }
}

/// How many live replicas of a partition come before this broker's.
pub fn live_before(
    image: &MetadataImage,
    known: Option<&PartitionImage>,
    me: BrokerId,
    lost: &BTreeSet<BrokerId>,
) -> usize {
    let replicas = known.map_or(&[][..], |partition| &partition.replicas);
    let live = |id: &&BrokerId| {
        (!lost.contains(id) && image.is_live(**id)) || planted(Bug::TurnOfTheFenced)
    };
    replicas
        .iter()
        .take_while(|id| **id != me)
        .filter(live)
        .count()
}

/// The first members of a partition's group, if a broker is one of them and may tell the group so. Those that a
/// reassignment brings are told by the group's leader: a group that was there before must not begin anew.
pub fn founders(image: &MetadataImage, partition: &PartitionImage, me: BrokerId) -> Vec<ReplicaId> {
    let moving = partition.reassignment.as_deref();
    let first = moving.map_or(&*partition.replicas, |it| &it.from);
    if first.contains(&me) {
        members(image, first)
    } else {
        Vec::new()
    }
}

/// Replicas: registered brokers with their data directories.
pub fn members(image: &MetadataImage, replicas: &[BrokerId]) -> Vec<ReplicaId> {
    let registered = replicas.iter().filter_map(|id| image.broker(*id));
    registered.map(|broker| broker.replica()).collect()
}
