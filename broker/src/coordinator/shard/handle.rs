//! The way to a shard from outside its task.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tidelog_protocol::limits;
use tidelog_storage::kv::KeyValueStore;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::request::ShardRequest;
use super::task::ShardTask;
use crate::coordinator::group::{GroupError, GroupSettings};
use crate::coordinator::offsets_log::OffsetsLog;
use crate::coordinator::topic_registry::TopicRegistry;

/// What a shard is started with.
#[derive(Clone, Debug)]
pub(in crate::coordinator) struct ShardStart {
    /// Its log.
    pub(in crate::coordinator) log: Arc<dyn OffsetsLog>,
    /// Where its snapshots are.
    pub(in crate::coordinator) store: Arc<dyn KeyValueStore>,
    /// Settings of its groups.
    pub(in crate::coordinator) settings: Arc<GroupSettings>,
    /// How often expired offsets are looked for.
    pub(in crate::coordinator) retention_check_interval: Duration,
    /// Topics that offsets point to.
    pub(in crate::coordinator) topics: Arc<TopicRegistry>,
    /// For the log messages of a person who reads them: the partition's name.
    pub(in crate::coordinator) name: Arc<str>,
}

/// How far a shard is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum ShardStatus {
    /// Reading its log.
    Loading = 0,
    /// Answering.
    Serving = 1,
    /// Its log cannot be read.
    Failed = 2,
    /// Not the leader any more.
    Stopped = 3,
}

/// The status, as the task writes and handles read it.
#[derive(Debug)]
pub(super) struct StatusCell(AtomicU8);

impl StatusCell {
    fn get(&self) -> ShardStatus {
        match self.0.load(Ordering::Acquire) {
            0 => ShardStatus::Loading,
            1 => ShardStatus::Serving,
            2 => ShardStatus::Failed,
            _ => ShardStatus::Stopped,
        }
    }

    pub(super) fn set(&self, status: ShardStatus) {
        self.0.store(status as u8, Ordering::Release);
    }
}

/// A running shard.
#[derive(Debug)]
pub(in crate::coordinator) struct ShardHandle {
    requests: mpsc::Sender<ShardRequest>,
    status: Arc<StatusCell>,
    stop: oneshot::Sender<GroupError>,
    task: JoinHandle<()>,
}

/// Sends requests to a shard. Cheap to clone, so that nobody holds the coordinator's lock while waiting.
#[derive(Clone, Debug)]
pub(in crate::coordinator) struct ShardSender {
    requests: mpsc::Sender<ShardRequest>,
    status: Arc<StatusCell>,
}

impl ShardHandle {
    /// Starts the shard's task; it loads first.
    pub(in crate::coordinator) fn start(start: ShardStart) -> ShardHandle {
        let (requests, mailbox) = mpsc::channel(limits::COORDINATOR_MAILBOX_MAX);
        let (stop, stopped) = oneshot::channel();
        let status = Arc::new(StatusCell(AtomicU8::new(ShardStatus::Loading as u8)));
        let task = ShardTask::new(start, mailbox, stopped, status.clone());
        ShardHandle {
            requests,
            status,
            stop,
            task: tokio::spawn(task.run()),
        }
    }

    /// The way in.
    pub(in crate::coordinator) fn sender(&self) -> ShardSender {
        ShardSender {
            requests: self.requests.clone(),
            status: self.status.clone(),
        }
    }

    /// Asks the shard to send everybody away with this reason and to end; its state stays in the log.
    pub(in crate::coordinator) fn stop(self, reason: GroupError) -> JoinHandle<()> {
        // A task that has ended already needs no telling.
        let _ = self.stop.send(reason);
        self.task
    }
}

impl ShardSender {
    /// Hands a request to the shard. Its place in the order is taken at the first poll.
    pub(in crate::coordinator) async fn send(
        &self,
        request: ShardRequest,
    ) -> Result<(), GroupError> {
        match self.status.get() {
            ShardStatus::Loading => return Err(GroupError::LoadInProgress),
            ShardStatus::Failed => return Err(GroupError::CoordinatorNotAvailable),
            ShardStatus::Stopped => return Err(GroupError::NotCoordinator),
            ShardStatus::Serving => {}
        }
        self.requests
            .send(request)
            .await
            .map_err(|_| GroupError::NotCoordinator)
    }

    /// Hands over what the shard has to know even while it loads.
    pub(in crate::coordinator) async fn tell(&self, request: ShardRequest) {
        // A shard that is gone has nothing to forget.
        drop(self.requests.send(request).await);
    }
}
