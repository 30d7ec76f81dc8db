//! The broker's door to everything that is agreed.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use tidelog_protocol::types::{BrokerId, PartitionIndex, TopicId, TopicPartition};
use tidelog_storage::manager::LogManager;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::behind;
use crate::cluster::{self, Peers};
use crate::compaction;
use crate::control::ControlClient;
use crate::controller::Controller;
use crate::controller::quorum::Quorum;
use crate::election::{self, ElectionError, ElectionKind};
use crate::errors::{StartError, SubmitError, WaitLedError};
use crate::healing::heal;
use crate::hibernation::hibernate;
use crate::hosted::{HostedPartitions, remove_left};
use crate::metadata::command::{BrokerRegistration, Command, MetadataError, Outcome};
use crate::metadata::image::MetadataImage;
use crate::metadata::levels;
use crate::metadata::state::MetadataDelta;
use crate::notices::Notices;
use crate::options::ReplicationOptions;
use crate::partition::Partition;
use crate::partition::group::GroupContext;
use crate::partition::state::Role;
use crate::raft::network::{NoPeers, PeerTransport};
use crate::raft::types::ReplicaId;
use crate::reassign::reassign;
use crate::succession;
use crate::tasks;
use crate::throttle::Throttles;

/// Pause between two tries to take the place of a broker whose disk was lost.
const REGISTER_RETRY: Duration = Duration::from_millis(500);

/// All consensus groups of this broker.
#[derive(Debug)]
pub struct Replication {
    options: ReplicationOptions,
    controller: Arc<Controller>,
    hosted: Arc<HostedPartitions>,
    running: Running,
    context: GroupContext,
}

/// Tasks that run until they are told to stop.
#[derive(Debug, Default)]
struct Running {
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Running {
    fn spawn(&self, task: tasks::Task) {
        let until_stopped = self.stop.clone().run_until_cancelled_owned(task);
        drop(self.tasks.spawn(until_stopped));
    }

    async fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// A start that failed leaves nothing behind that goes on.
impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Replication {
    /// Starts: on return the controller is led, the image loaded, this broker registered, its partitions led (those
    /// whose log failed are offline and were logged). Without `peers` the broker stays alone.
    pub async fn start(
        options: ReplicationOptions,
        logs: Arc<LogManager>,
        peers: Option<Peers>,
    ) -> Result<Arc<Replication>, StartError> {
        let deadline = Instant::now() + options.start_timeout;
        let me = ReplicaId {
            broker: options.broker,
            directory: options.directory_id,
        };
        let pool = peers.as_ref().map(|peers| peers.pool.clone());
        let transport: Arc<dyn PeerTransport> = match &pool {
            Some(pool) => Arc::new(pool.clone()),
            None => Arc::new(NoPeers),
        };
        let control = Arc::new(ControlClient::new(me, pool));
        let context = GroupContext {
            me,
            kv: logs.kv().clone(),
            transport,
            records: Some(control.clone()),
            throttles: Arc::new(Throttles::new(control.clone())),
        };
        let founds = peers
            .as_ref()
            .is_none_or(|peers| peers.introduced_to.is_empty());
        let founders: &[ReplicaId] = if founds { &[me] } else { &[] };
        let levels = options.feature_levels.clone();
        let controller = Controller::start(&context, &logs, founders, control, levels).await?;
        let controller = Arc::new(controller);
        let running = Running::default();
        if let Some(peers) = &peers {
            peers.router.serve_controller(controller.clone());
            let tasks = cluster::tasks(peers, &controller, me, options.session_timeout);
            tasks.into_iter().for_each(|task| running.spawn(task));
        }
        // Whoever knows others registers first: they may have to be told where this broker is now before they can tell it
        // anything.
        let alone = founds && controller.known_members().await.count() <= 1;
        if alone {
            controller.catch_up(options.start_timeout).await?;
        }
        let first_start = alone && controller.shared().image().cluster_id().is_nil();
        // The image shows all that was committed before the registration.
        let epoch = announce(&controller, &options, first_start).await?;
        let notices = Arc::new(Notices::default());
        let hosted = HostedPartitions::new(options.clone(), context.clone(), logs, notices.clone())
            .map_err(|error| StartError::Metadata(error.to_string()))?;
        let hosted = Arc::new(hosted);
        context.throttles.serve(&hosted);
        if let Some(peers) = &peers {
            peers.router.serve_partitions(hosted.clone());
            let session = options.session_timeout;
            let beat = cluster::beat(controller.clone(), me.broker, epoch, session);
            running.spawn(Box::pin(beat));
            let lost = cluster::replace_lost(peers.clone(), controller.clone(), hosted.clone());
            running.spawn(Box::pin(lost));
        }
        let image = controller.shared().image();
        if !first_start {
            hosted.remove_orphans(&image).await;
        }
        hosted.note_fenced(&image, &BTreeSet::new());
        let all = MetadataDelta {
            topics: image.topics().map(|topic| topic.id).collect(),
            broker_configs: true,
            ..MetadataDelta::default()
        };
        hosted.reconcile(&image, all).await;
        let opened = hosted.note_opened().await;
        opened.map_err(|error| StartError::Metadata(error.to_string()))?;
        let replication = Arc::new(Replication {
            options,
            controller,
            hosted,
            running,
            context,
        });
        replication.spawn_tasks(&notices);
        replication.wait_local_leaders(deadline).await;
        Ok(replication)
    }

    /// This broker's id.
    pub fn broker(&self) -> BrokerId {
        self.options.broker
    }

    /// The feature levels that this broker knows.
    pub fn feature_levels(&self) -> &RangeInclusive<u16> {
        &self.options.feature_levels
    }

    /// The controller.
    pub fn controller(&self) -> &Controller {
        &self.controller
    }

    /// The newest image.
    pub fn image(&self) -> Arc<MetadataImage> {
        self.controller.shared().image()
    }

    /// A partition hosted here.
    pub fn partition(&self, topic: TopicId, partition: PartitionIndex) -> Option<Arc<Partition>> {
        self.hosted.get(topic, partition)
    }

    /// A partition hosted here, by name.
    pub fn partition_by_name(&self, partition: &TopicPartition) -> Option<Arc<Partition>> {
        let id = self.image().topic(&partition.topic)?.id;
        self.partition(id, partition.partition)
    }

    /// All partitions hosted here, in no order.
    pub fn partitions(&self) -> Vec<Arc<Partition>> {
        self.hosted.all()
    }

    /// How many partitions hosted here sleep.
    pub fn asleep(&self) -> usize {
        self.hosted.asleep()
    }

    /// Waits until the image names a leader for each partition of the topic.
    pub async fn wait_led(&self, topic: TopicId, timeout: Duration) -> Result<(), WaitLedError> {
        let mut versions = self.controller.watch();
        let led = async {
            loop {
                let image = self.image();
                let topic = image.topic_by_id(topic).ok_or(WaitLedError::UnknownTopic)?;
                if topic
                    .partitions
                    .iter()
                    .all(|partition| partition.leader.is_some())
                {
                    return Ok(());
                }
                if versions.changed().await.is_err() {
                    return Err(WaitLedError::Timeout);
                }
            }
        };
        tokio::time::timeout(timeout, led)
            .await
            .unwrap_or(Err(WaitLedError::Timeout))
    }

    /// Moves leaderships; returns one answer for each partition, in their order. Any broker may be asked.
    pub async fn elect_leaders(
        &self,
        kind: ElectionKind,
        partitions: Vec<(TopicId, PartitionIndex)>,
        timeout: Duration,
    ) -> Vec<Result<(), ElectionError>> {
        let deadline = Instant::now() + timeout;
        election::elect(&self.controller, &self.hosted, kind, &partitions, deadline).await
    }

    /// The controller group, asked of its leader. Any broker may be asked.
    pub async fn describe_quorum(&self, timeout: Duration) -> Result<Quorum, SubmitError> {
        self.controller.describe_quorum(timeout).await
    }

    /// Gives what this broker leads to other brokers, where there are others in sync, and waits a little until they have
    /// taken it. For a stop, before requests of other brokers are refused.
    pub async fn hand_over(&self) {
        self.hosted.hand_over().await;
        self.controller.hand_over().await;
    }

    /// Stops all groups; what was acknowledged is on disk. The log manager is the caller's to shut down.
    pub async fn shutdown(&self) {
        self.context.kv.stop_waiting();
        self.running.stop().await;
        self.save_checkpoints().await;
        self.hosted.shutdown().await;
        self.controller.shutdown().await;
    }

    /// Ends as a killed process does: nothing is handed over or saved.
    #[cfg(test)]
    pub(crate) async fn abandon(&self) {
        self.running.stop().await;
        self.hosted.shutdown().await;
        self.controller.shutdown().await;
    }

    /// Saves how far the groups have come.
    pub(crate) async fn save_checkpoints(&self) {
        tasks::save_checkpoints(&self.context, &self.controller, &self.hosted).await;
    }

    /// The partitions of this broker.
    #[cfg(test)]
    pub(crate) fn hosted(&self) -> &Arc<HostedPartitions> {
        &self.hosted
    }

    fn spawn_tasks(&self, notices: &Arc<Notices>) {
        let (controller, hosted) = (&self.controller, &self.hosted);
        let spawn = |task: tasks::Task| self.running.spawn(task);
        spawn(Box::pin(tasks::follow_image(
            controller.clone(),
            hosted.clone(),
        )));
        spawn(Box::pin(tasks::report_leaders(
            controller.clone(),
            hosted.clone(),
            notices.clone(),
            self.options.broker,
        )));
        if controller.control().has_peers() {
            let (controller, hosted) = (controller.clone(), hosted.clone());
            if let Some(every) = self.options.leader_rebalance_interval {
                let (controller, hosted) = (controller.clone(), hosted.clone());
                spawn(Box::pin(election::restore_preferred(
                    controller, hosted, every,
                )));
            }
            spawn(Box::pin(reassign(controller.clone(), hosted.clone())));
            spawn(Box::pin(remove_left(controller.clone(), hosted.clone())));
            spawn(Box::pin(heal(controller.clone(), hosted.clone())));
            spawn(Box::pin(behind::catch_up(
                controller.clone(),
                hosted.clone(),
            )));
            spawn(Box::pin(tasks::report_in_sync(controller, hosted)));
        }
        if let Some(idle) = self.options.hibernation_idle {
            let task = hibernate(controller.clone(), hosted.clone(), idle);
            spawn(Box::pin(task));
        }
        spawn(Box::pin(succession::succeed(
            controller.clone(),
            hosted.clone(),
        )));
        spawn(Box::pin(tasks::elect_leaders(hosted.clone())));
        spawn(Box::pin(tasks::retain(
            hosted.clone(),
            self.options.retention_check_interval,
        )));
        spawn(Box::pin(compaction::compact(hosted.clone())));
        spawn(Box::pin(tasks::checkpoint(
            self.context.clone(),
            controller.clone(),
            hosted.clone(),
        )));
    }

    /// Waits until every partition hosted here leads, follows a leader, or is offline or a suspect, and the image shows it.
    async fn wait_local_leaders(&self, deadline: Instant) {
        let mut versions = self.controller.watch();
        while !self.all_led() {
            if tokio::time::timeout_at(deadline, versions.changed())
                .await
                .is_err()
            {
                tracing::warn!("some partitions have no leader yet");
                return;
            }
        }
    }

    fn all_led(&self) -> bool {
        let image = self.image();
        self.hosted.all().iter().all(|partition| {
            let state = partition.state();
            let known = image.partition_by_id(partition.topic_id(), partition.index());
            let shown = known.is_none_or(|known| {
                known.leader_epoch >= state.leader_epoch && known.leader.is_some()
            });
            // A follower hears of its leader with the next record, which may come much later.
            let elsewhere = known.and_then(|known| known.leader).filter(|leader| {
                *leader != self.broker() && image.broker(*leader).is_some_and(|it| !it.fenced)
            });
            // A suspect may have nobody to be led by until an operator decides.
            let waits = state.role != Role::Offline && !partition.shared().is_suspect();
            !waits || elsewhere.is_some() || (state.leader.is_some() && shown)
        })
    }
}

/// Registers this broker. One with an empty directory may have to wait until the one that had its id before counts as
/// dead.
async fn register(
    controller: &Controller,
    registration: BrokerRegistration,
    options: &ReplicationOptions,
) -> Result<Outcome, SubmitError> {
    let dead_by = Instant::now() + options.session_timeout * 2;
    loop {
        let command = Command::RegisterBroker(registration.clone());
        match controller.submit(command, options.start_timeout).await {
            Err(SubmitError::Metadata(MetadataError::BrokerIdTaken(_)))
                if registration.new_directory && Instant::now() < dead_by =>
            {
                tokio::time::sleep(REGISTER_RETRY).await;
            }
            registered => return registered,
        }
    }
}

/// Makes sure that the metadata is this cluster's, and registers this broker. Returns the registration's epoch.
async fn announce(
    controller: &Controller,
    options: &ReplicationOptions,
    founds: bool,
) -> Result<i64, StartError> {
    let failed = |error: SubmitError| match error {
        SubmitError::NotController { .. } => {
            StartError::ControllerTimeout(options.start_timeout.as_millis())
        }
        other => StartError::Metadata(other.to_string()),
    };
    if founds {
        let first = Command::Bootstrap {
            cluster_id: options.cluster_id,
            feature_level: *options.feature_levels.end(),
        };
        match controller.submit(first, options.start_timeout).await {
            Ok(_) | Err(SubmitError::Metadata(MetadataError::AlreadyBootstrapped(_))) => {}
            Err(error) => return Err(failed(error)),
        }
    }
    let registration = BrokerRegistration {
        broker: options.broker,
        directory_id: options.directory_id,
        incarnation: Uuid::new_v4(),
        rack: options.rack.clone(),
        endpoints: options.endpoints.clone(),
        peer_address: options.peer_address.clone(),
        feature_level_max: *options.feature_levels.end(),
        new_directory: options.new_directory,
    };
    if !controller.shared().image().cluster_id().is_nil() {
        check_cluster(controller, options)?;
    }
    let registered = register(controller, registration, options).await;
    let epoch = match registered {
        Ok(Outcome::BrokerRegistered { broker_epoch }) => broker_epoch,
        Ok(other) => return Err(StartError::Metadata(format!("registered as {other:?}"))),
        Err(SubmitError::Metadata(MetadataError::BrokerIdTaken(id))) => {
            return Err(StartError::BrokerIdTaken(id));
        }
        Err(SubmitError::Metadata(MetadataError::InvalidFeature(text))) => {
            return Err(StartError::FeatureLevel(text));
        }
        Err(error) => return Err(failed(error)),
    };
    check_cluster(controller, options)?;
    Ok(epoch)
}

fn check_cluster(controller: &Controller, options: &ReplicationOptions) -> Result<(), StartError> {
    let image = controller.shared().image();
    if image.cluster_id() != options.cluster_id {
        return Err(StartError::ClusterIdMismatch {
            expected: options.cluster_id,
            found: image.cluster_id(),
        });
    }
    let unknown = levels::why_unknown(image.feature_level(), &options.feature_levels);
    unknown.map_or(Ok(()), |text| Err(StartError::FeatureLevel(text)))
}
