//! The controller: the group that holds the cluster's metadata.
//!
//! Its log is a partition log like any other, of opaque entries. Commands are judged when they are applied, by every
//! replica alike; the image that follows is what the rest of the broker sees.

pub mod liveness;
mod named;
pub mod quorum;
pub mod shared;
pub mod state_machine;
mod submit;
pub mod tend;
pub mod voters;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use openraft::Raft;
use openraft::async_runtime::WatchReceiver as _;
use tidelog_protocol::types::{BrokerId, PartitionIndex, TopicId, TopicName};
use tidelog_storage::journal::Durability;
use tidelog_storage::kv::KvWrite;
use tidelog_storage::log::{EntryId, EntryIndex, LogConfig};
use tidelog_storage::manager::LogManager;
use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;

use crate::control::{ControlClient, Member};
use crate::controller::shared::ControllerShared;
use crate::controller::state_machine::ControllerStateMachine;
pub use crate::controller::state_machine::metadata_snapshot_end;
use crate::errors::StartError;
use crate::partition::group::GroupContext;
use crate::raft::codec::entry_index;
use crate::raft::config;
use crate::raft::log_store::GroupLog;
use crate::raft::members::Members;
use crate::raft::network::GroupNetwork;
use crate::raft::state_store::GroupStateStore;
use crate::raft::types::{GroupId, GroupTypes, LogId, ReplicaId};

/// Name of the topic that the metadata log is shown as.
pub const METADATA_TOPIC: &str = "__cluster_metadata";

/// Its id, as in Kafka.
pub const METADATA_TOPIC_ID: TopicId = TopicId(Uuid::from_u128(1));

/// Longest wait for the group to read its members from its log.
const MEMBERS_READ_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest wait for another broker to take over the leadership.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(2);

/// Handle to the controller group.
pub struct Controller {
    raft: Raft<GroupTypes, ControllerStateMachine>,
    shared: Arc<ControllerShared>,
    state: GroupStateStore,
    control: Arc<ControlClient>,
    me: ReplicaId,
    named: Vec<Member>,
}

impl fmt::Debug for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Controller")
            .field("image", &self.shared.image().version())
            .finish_non_exhaustive()
    }
}

impl Controller {
    /// Starts this broker's replica. `members` are those of a new cluster; none for a broker that joins one: the
    /// cluster's controller tells it the rest.
    pub(crate) async fn start(
        context: &GroupContext,
        logs: &LogManager,
        members: &[ReplicaId],
        control: Arc<ControlClient>,
        levels: RangeInclusive<u16>,
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
        let kv = context.kv.clone();
        let machine = ControllerStateMachine::restore(shared.clone(), state.clone(), kv, levels)
            .map_err(|error| metadata(&error))?;
        let purged = log.bounds().purged;
        let named = named::named_in(log.clone()).await;
        let named = named.map_err(|error| metadata(&error))?;
        let store = GroupLog::open(log, state.clone(), context.me, shared.clone(), committed)
            .map_err(|error| metadata(&error))?;
        let pristine = store.is_pristine();
        check_complete(logs, pristine, purged, &shared)?;
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
            control,
            me: context.me,
            named,
        })
    }

    /// Brokers that the log named at the start, whether that was committed or not.
    pub(crate) fn named(&self) -> &[Member] {
        &self.named
    }

    /// Whether this broker leads the group, as far as it knows.
    pub fn leads(&self) -> bool {
        self.shared.leads()
    }

    /// The broker that leads the group, where known.
    pub fn leader(&self) -> Option<BrokerId> {
        self.shared.leader()
    }

    /// Who votes in the group, and who listens, as far as this broker knows.
    pub(crate) fn members(&self) -> Members {
        Members::of(&self.raft.metrics().borrow_watched())
    }

    /// The same, once the group has read them from its log: it does so beside, at its start.
    pub(crate) async fn known_members(&self) -> Members {
        let deadline = Instant::now() + MEMBERS_READ_TIMEOUT;
        loop {
            let members = self.members();
            if members.count() > 0 || Instant::now() >= deadline {
                return members;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Gives the leadership of the group to another voter that has everything, if this broker leads, and waits a little
    /// until it has taken it.
    pub(crate) async fn hand_over(&self) {
        let mut leads = self.shared.watch_leads();
        if !*leads.borrow_and_update() {
            return;
        }
        let heir = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            let last = metrics.last_log_index;
            let voters: Vec<ReplicaId> = metrics.membership_config.voter_ids().collect();
            let has_all = |matched: Option<LogId>| matched.map(|id| id.index) == last;
            let mut others = metrics.replication.iter().flatten();
            let heir = others.find(|(replica, matched)| {
                **replica != self.me && voters.contains(replica) && has_all(**matched)
            });
            heir.map(|(replica, _)| *replica)
        };
        let Some(heir) = heir else { return };
        if let Err(error) = self.raft.trigger().transfer_leader(heir).await {
            tracing::debug!(%error, "not handed over");
            return;
        }
        let given = leads.wait_for(|leads| !*leads);
        drop(tokio::time::timeout(HAND_OVER_TIMEOUT, given).await);
    }

    /// Asks other brokers.
    pub(crate) fn control(&self) -> &ControlClient {
        &self.control
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
}

/// Refuses a state from which topics are missing: what is not in the image is deleted.
fn check_complete(
    logs: &LogManager,
    pristine: bool,
    purged: EntryId,
    shared: &ControllerShared,
) -> Result<(), StartError> {
    let restored = (shared.applied().0).map_or(EntryIndex(0), |applied| entry_index(applied.index));
    if restored < purged.index {
        return Err(StartError::Metadata(format!(
            "the snapshot holds entries up to {}, and the log begins behind entry {}: what is between is lost. Restore \
             the whole data directory from a copy",
            restored.0, purged.index.0
        )));
    }
    let others = logs.logs().into_iter();
    let orphan = others
        .filter(|log| log.topic_id != METADATA_TOPIC_ID)
        .find(|_| pristine);
    orphan.map_or(Ok(()), |log| {
        Err(StartError::Metadata(format!(
            "the metadata log is empty, but there is a log of {}-{}: the topics are lost. Restore the whole data \
             directory from a copy",
            log.topic, log.partition
        )))
    })
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
