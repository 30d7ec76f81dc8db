//! The broker's door to everything that is agreed.

use std::sync::Arc;
use std::time::Duration;

use tidelog_protocol::types::{BrokerId, PartitionIndex, TopicId, TopicPartition};
use tidelog_storage::manager::LogManager;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::compaction;
use crate::controller::Controller;
use crate::errors::{StartError, SubmitError, WaitLedError};
use crate::hosted::HostedPartitions;
use crate::metadata::command::{BrokerRegistration, Command, MetadataError};
use crate::metadata::image::MetadataImage;
use crate::metadata::record::FEATURE_LEVEL;
use crate::metadata::state::MetadataDelta;
use crate::options::ReplicationOptions;
use crate::partition::Partition;
use crate::partition::group::GroupContext;
use crate::partition::state::Role;
use crate::peers::{GroupRouter, PeerPool};
use crate::raft::network::{NoPeers, PeerTransport};
use crate::raft::types::ReplicaId;
use crate::reporter::LeaderReporter;
use crate::tasks;

/// All consensus groups of this broker.
#[derive(Debug)]
pub struct Replication {
    options: ReplicationOptions,
    controller: Arc<Controller>,
    hosted: Arc<HostedPartitions>,
    stop: CancellationToken,
    tasks: TaskTracker,
    context: GroupContext,
}

impl Replication {
    /// Starts: on return the controller is led, the image loaded, this broker registered, its partitions led (those
    /// whose log failed are offline and were logged).
    pub async fn start(
        options: ReplicationOptions,
        logs: Arc<LogManager>,
    ) -> Result<Arc<Replication>, StartError> {
        Replication::start_with(options, logs, Arc::new(NoPeers), &GroupRouter::default()).await
    }

    /// Starts as one broker of several: groups send by `peers`, and are asked by way of `router`.
    pub async fn start_with_peers(
        options: ReplicationOptions,
        logs: Arc<LogManager>,
        peers: PeerPool,
        router: &GroupRouter,
    ) -> Result<Arc<Replication>, StartError> {
        Replication::start_with(options, logs, Arc::new(peers), router).await
    }

    /// Starts with connections to other brokers.
    pub(crate) async fn start_with(
        options: ReplicationOptions,
        logs: Arc<LogManager>,
        transport: Arc<dyn PeerTransport>,
        router: &GroupRouter,
    ) -> Result<Arc<Replication>, StartError> {
        let deadline = Instant::now() + options.start_timeout;
        let me = ReplicaId {
            broker: options.broker,
            directory: options.directory_id,
        };
        let context = GroupContext {
            me,
            kv: logs.kv().clone(),
            transport,
        };
        let controller = Arc::new(Controller::start(&context, &logs, &[me]).await?);
        router.serve_controller(controller.clone());
        controller.wait_led(options.start_timeout).await?;
        let first_start = controller.shared().image().cluster_id().is_nil();
        announce(&controller, &options).await?;
        let reporter = Arc::new(LeaderReporter::default());
        let hosted =
            HostedPartitions::new(options.clone(), context.clone(), logs, reporter.clone())
                .map_err(|error| StartError::Metadata(error.to_string()))?;
        let hosted = Arc::new(hosted);
        router.serve_partitions(hosted.clone());
        let image = controller.shared().image();
        if !first_start {
            hosted.remove_orphans(&image).await;
        }
        let all = MetadataDelta {
            topics: image.topics().map(|topic| topic.id).collect(),
            broker_configs: false,
        };
        hosted.reconcile(&image, all).await;
        let replication = Arc::new(Replication {
            options,
            controller,
            hosted,
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            context,
        });
        replication.spawn_tasks(&reporter);
        replication.wait_local_leaders(deadline).await;
        Ok(replication)
    }

    #[cfg(test)]
    pub(crate) fn hosted(&self) -> &Arc<HostedPartitions> {
        &self.hosted
    }

    /// This broker's id.
    pub fn broker(&self) -> BrokerId {
        self.options.broker
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

    /// Stops all groups; what was acknowledged is on disk. The log manager is the caller's to shut down.
    pub async fn shutdown(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        tasks::save_checkpoints(&self.context, &self.controller, &self.hosted).await;
        self.hosted.shutdown().await;
        self.controller.shutdown().await;
    }

    fn spawn_tasks(&self, reporter: &Arc<LeaderReporter>) {
        let (controller, hosted, stop) = (&self.controller, &self.hosted, &self.stop);
        let spawn = |task: tasks::Task| {
            drop(
                self.tasks
                    .spawn(stop.clone().run_until_cancelled_owned(task)),
            )
        };
        spawn(Box::pin(tasks::follow_image(
            controller.clone(),
            hosted.clone(),
        )));
        spawn(Box::pin(tasks::report_leaders(
            controller.clone(),
            reporter.clone(),
            self.options.broker,
        )));
        spawn(Box::pin(tasks::elect_leaders(hosted.clone())));
        spawn(Box::pin(tasks::retain(
            hosted.clone(),
            self.options.retention_check_interval,
        )));
        for task in compaction::tasks(hosted, &self.options.compaction) {
            spawn(task);
        }
        spawn(Box::pin(tasks::checkpoint(
            self.context.clone(),
            controller.clone(),
            hosted.clone(),
        )));
    }

    /// Waits until every partition hosted here leads, follows a leader, or is offline, and the image shows it.
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
            let known = image
                .topic_by_id(partition.topic_id())
                .and_then(|topic| topic.partition(partition.index()));
            let shown = known.is_none_or(|known| {
                known.leader_epoch >= state.leader_epoch && known.leader.is_some()
            });
            state.role == Role::Offline || (state.leader.is_some() && shown)
        })
    }
}

/// Makes sure that the metadata is this cluster's, and registers this broker.
async fn announce(controller: &Controller, options: &ReplicationOptions) -> Result<(), StartError> {
    let failed = |error: SubmitError| StartError::Metadata(error.to_string());
    if controller.shared().image().cluster_id().is_nil() {
        let first = Command::Bootstrap {
            cluster_id: options.cluster_id,
            feature_level: FEATURE_LEVEL,
        };
        match controller.submit(first, options.start_timeout).await {
            Ok(_) | Err(SubmitError::Metadata(MetadataError::AlreadyBootstrapped(_))) => {}
            Err(error) => return Err(failed(error)),
        }
    }
    let image = controller.shared().image();
    if image.cluster_id() != options.cluster_id {
        return Err(StartError::ClusterIdMismatch {
            expected: options.cluster_id,
            found: image.cluster_id(),
        });
    }
    if image.feature_level() > FEATURE_LEVEL {
        return Err(StartError::FeatureLevel {
            found: image.feature_level(),
            known: FEATURE_LEVEL,
        });
    }
    let registration = BrokerRegistration {
        broker: options.broker,
        directory_id: options.directory_id,
        incarnation: Uuid::new_v4(),
        rack: options.rack.clone(),
        endpoints: options.endpoints.clone(),
        feature_level_max: FEATURE_LEVEL,
    };
    controller
        .submit(Command::RegisterBroker(registration), options.start_timeout)
        .await
        .map(drop)
        .map_err(failed)
}
