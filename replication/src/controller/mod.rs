//! The controller: the group that holds the cluster's metadata.
//!
//! Its log is a partition log like any other, of opaque entries. Commands are judged when they are applied, by every
//! replica alike; the image that follows is what the rest of the broker sees.

pub mod shared;
pub mod state_machine;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver as _;
use openraft::errors::{ClientWriteError, ForwardToLeader};
use openraft::raft::ClientWriteResult;
use openraft::{Raft, ReadPolicy};
use tidelog_protocol::types::{PartitionIndex, TopicId, TopicName};
use tidelog_storage::journal::Durability;
use tidelog_storage::kv::KvWrite;
use tidelog_storage::log::LogConfig;
use tidelog_storage::manager::LogManager;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use uuid::Uuid;

use crate::controller::shared::ControllerShared;
use crate::controller::state_machine::ControllerStateMachine;
use crate::errors::{StartError, SubmitError};
use crate::metadata::command::{Command, Outcome};
use crate::metadata::record;
use crate::partition::group::GroupContext;
use crate::raft::config;
use crate::raft::log_store::GroupLog;
use crate::raft::network::GroupNetwork;
use crate::raft::state_store::GroupStateStore;
use crate::raft::types::{
    GroupCommand, GroupId, GroupReply, GroupResponder, GroupTypes, ReplicaId,
};

/// Name of the topic that the metadata log is shown as.
pub const METADATA_TOPIC: &str = "__cluster_metadata";

/// Its id, as in Kafka.
pub const METADATA_TOPIC_ID: TopicId = TopicId(Uuid::from_u128(1));

/// Pause between two tries to reach a leader that is just being elected.
const RETRY: Duration = Duration::from_millis(20);

/// Handle to the controller group.
pub struct Controller {
    raft: Raft<GroupTypes, ControllerStateMachine>,
    shared: Arc<ControllerShared>,
    state: GroupStateStore,
}

impl fmt::Debug for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Controller")
            .field("image", &self.shared.image().version())
            .finish_non_exhaustive()
    }
}

impl Controller {
    /// Starts this broker's replica. `members` are those of a new cluster.
    pub(crate) async fn start(
        context: &GroupContext,
        logs: &LogManager,
        members: &[ReplicaId],
    ) -> Result<Controller, StartError> {
        let metadata = |error: &dyn fmt::Display| StartError::Metadata(error.to_string());
        let log = logs
            .create_log(
                &TopicName::from(METADATA_TOPIC),
                METADATA_TOPIC_ID,
                PartitionIndex(0),
                log_config(),
            )
            .map_err(|error| metadata(&error))?;
        if let Some(reason) = log.stopped() {
            return Err(StartError::Metadata(reason.to_string()));
        }
        let state = GroupStateStore::new(context.kv.clone(), log.id());
        let shared = Arc::new(ControllerShared::new(context.me));
        let committed = state.read_checkpoint().map_err(|error| metadata(&error))?;
        let committed =
            committed.filter(|checkpoint| log.bounds().last.index.0 > checkpoint.applied.index);
        let machine =
            ControllerStateMachine::restore(shared.clone(), state.clone(), context.kv.clone())
                .map_err(|error| metadata(&error))?;
        let store = GroupLog::open(log, state.clone(), context.me, shared.clone(), committed)
            .map_err(|error| metadata(&error))?;
        let pristine = store.is_pristine();
        let group = GroupId {
            topic: METADATA_TOPIC_ID,
            partition: PartitionIndex(0),
        };
        let network = GroupNetwork::new(group, context.transport.clone());
        let config = config::controller().map_err(|error| metadata(&error))?;
        let raft = Raft::new(context.me, config, network, store, machine)
            .await
            .map_err(|error| metadata(&error))?;
        if pristine {
            if members.first() == Some(&context.me) {
                let members: BTreeMap<ReplicaId, ()> =
                    members.iter().map(|member| (*member, ())).collect();
                raft.initialize(members)
                    .await
                    .map_err(|error| metadata(&error))?;
            }
        } else {
            raft.trigger()
                .elect(true)
                .await
                .map_err(|error| metadata(&error))?;
        }
        Ok(Controller {
            raft,
            shared,
            state,
        })
    }

    /// Waits until the group has a leader and this broker's image shows all that is committed.
    pub(crate) async fn wait_led(&self, timeout: Duration) -> Result<(), StartError> {
        let deadline = Instant::now() + timeout;
        loop {
            // A follower learns the same from its leader, over the network.
            if self
                .raft
                .ensure_linearizable(ReadPolicy::ReadIndex)
                .await
                .is_ok()
            {
                return Ok(());
            }
            if let Err(fatal) = &self.raft.metrics().borrow_watched().running_state {
                return Err(StartError::Metadata(fatal.to_string()));
            }
            if Instant::now() >= deadline {
                return Err(StartError::ControllerTimeout(timeout.as_millis()));
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Carries out a command. Returns once it is committed and the image of this broker shows it.
    pub async fn submit(
        &self,
        command: Command,
        timeout: Duration,
    ) -> Result<Outcome, SubmitError> {
        let record = record::encode(&command).map_err(|error| {
            crate::metadata::command::MetadataError::Unsupported(error.to_string())
        })?;
        let deadline = Instant::now() + timeout;
        loop {
            let answer = tokio::time::timeout_at(deadline, self.write(record.clone())).await;
            match answer.map_err(|_| SubmitError::Timeout)?? {
                Ok(response) => {
                    return match response.data {
                        GroupReply::Metadata(result) => result.map_err(SubmitError::from),
                        GroupReply::Done | GroupReply::Void => Ok(Outcome::Done),
                    };
                }
                // Nothing was written: whoever leads by now may take it.
                Err(ClientWriteError::ForwardToLeader(ForwardToLeader {
                    leader_id: None, ..
                })) => {
                    if Instant::now() + RETRY >= deadline {
                        return Err(SubmitError::NotController { controller: None });
                    }
                    tokio::time::sleep(RETRY).await;
                    // Renews a lapsed lease; the outcome shows in the next try.
                    let _ = self.raft.ensure_linearizable(ReadPolicy::ReadIndex).await;
                }
                Err(ClientWriteError::ForwardToLeader(forward)) => {
                    let controller = forward.leader_id.map(|replica| replica.broker);
                    return Err(SubmitError::NotController { controller });
                }
                Err(_) => return Err(SubmitError::Timeout),
            }
        }
    }

    /// Version of the image, for those who act on changes.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.shared.watch()
    }

    pub(crate) fn raft(&self) -> &Raft<GroupTypes, ControllerStateMachine> {
        &self.raft
    }

    pub(crate) fn shared(&self) -> &Arc<ControllerShared> {
        &self.shared
    }

    /// What to save so that a start applies up to where this broker was.
    pub(crate) fn due_checkpoint(&self) -> Option<KvWrite> {
        self.shared
            .due_checkpoint()
            .map(|checkpoint| self.state.checkpoint_write(&checkpoint))
    }

    /// Stops this broker's replica.
    pub(crate) async fn shutdown(&self) {
        if let Err(error) = self.raft.shutdown().await {
            tracing::debug!(%error, "controller task did not end by itself");
        }
    }

    async fn write(
        &self,
        record: bytes::Bytes,
    ) -> Result<ClientWriteResult<GroupTypes>, SubmitError> {
        let (sender, receiver) = oneshot::channel();
        let command = GroupCommand::Metadata(record);
        let sent = self
            .raft
            .client_write_ff(command, Some(GroupResponder::Caller(sender)))
            .await;
        sent.map_err(|fatal| self.stopped(&fatal))?;
        receiver
            .await
            .map_err(|_| self.stopped(&"the group stopped"))
    }

    fn stopped(&self, reason: &dyn fmt::Display) -> SubmitError {
        match self.shared.failure() {
            Some(failure) => SubmitError::Unavailable(failure.to_string()),
            None => {
                tracing::debug!(%reason, "controller group stopped");
                SubmitError::ShuttingDown
            }
        }
    }
}

/// Settings of the metadata log: always synced, never shortened but by snapshots.
fn log_config() -> LogConfig {
    LogConfig {
        segment_bytes: 64 << 20,
        segment_ms: i64::MAX,
        index_bytes_max: 1 << 20,
        index_interval_bytes: 4_096,
        retention_ms: None,
        retention_bytes: None,
        delete: false,
        compact: false,
        cleaning: Default::default(),
        durability: Durability::Sync,
        producer_id_expiration_ms: i64::MAX,
    }
}
