//! The controller group as it is shown (KIP-595, KIP-836).

use std::collections::BTreeSet;
use std::time::Duration;

use openraft::Instant as _;
use openraft::async_runtime::WatchReceiver as _;
use tidelog_protocol::types::BrokerId;
use tokio::time::Instant;
use uuid::Uuid;

use super::Controller;
use crate::control::{AskError, Reply, Request};
use crate::errors::SubmitError;
use crate::metadata::command::MetadataError;
use crate::raft::members::Members;
use crate::raft::types::{ReplicaId, epoch_of};

/// A member of the controller group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuorumMember {
    /// Its broker.
    pub broker: BrokerId,
    /// Its data directory.
    pub directory_id: Uuid,
    /// Entries that it has, as far as the leader knows; -1: nothing is known.
    pub log_end: i64,
    /// Time since it was heard of last; `None`: never, or not known. Zero for the leader.
    pub silent: Option<Duration>,
}

/// The controller group, as its leader knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quorum {
    /// The leader.
    pub leader: BrokerId,
    /// Its epoch.
    pub epoch: i32,
    /// Entries that are committed.
    pub high_watermark: i64,
    /// Those that vote.
    pub voters: Vec<QuorumMember>,
    /// Those that only listen.
    pub observers: Vec<QuorumMember>,
}

impl QuorumMember {
    /// Its replica of the group.
    pub(crate) fn replica(&self) -> ReplicaId {
        ReplicaId {
            broker: self.broker,
            directory: self.directory_id,
        }
    }
}

impl Controller {
    /// The group, asked of its leader, here or on another broker.
    pub(crate) async fn describe_quorum(&self, timeout: Duration) -> Result<Quorum, SubmitError> {
        if let Some(quorum) = self.quorum() {
            return Ok(quorum);
        }
        let (leader, deadline) = (self.leader(), Instant::now() + timeout);
        let asked = (self.control()).ask_controller(leader, &Request::DescribeQuorum, deadline);
        match asked.await {
            Ok(Reply::Quorum(quorum)) => Ok(quorum),
            Ok(_) | Err(AskError::Nobody) => Err(SubmitError::NotController { controller: leader }),
            Err(error @ AskError::Unknown(_)) => {
                let unsupported = MetadataError::Unsupported(error.to_string());
                Err(SubmitError::Metadata(unsupported))
            }
            Err(AskError::Unanswered(_)) => Err(SubmitError::Timeout),
        }
    }

    /// The group, if this broker leads it.
    pub(crate) fn quorum(&self) -> Option<Quorum> {
        if !self.leads() {
            return None;
        }
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let matched = metrics.replication.as_ref();
        let heard = metrics.heartbeat.as_ref();
        let show = |replica: &ReplicaId| {
            let (last, silent) = if *replica == self.me {
                (metrics.last_log_index, Some(Duration::ZERO))
            } else {
                let matched = matched.and_then(|all| all.get(replica).copied().flatten());
                let heard = heard.and_then(|all| all.get(replica).copied().flatten());
                (matched.map(|id| id.index), heard.map(|at| at.elapsed()))
            };
            QuorumMember {
                broker: replica.broker,
                directory_id: replica.directory,
                log_end: last.map_or(-1, |last| signed(last.saturating_add(1))),
                silent,
            }
        };
        let all = |replicas: &BTreeSet<ReplicaId>| replicas.iter().map(show).collect();
        let members = Members::of(&metrics);
        let committed = metrics
            .local_committed
            .map_or(0, |id| id.index.saturating_add(1));
        Some(Quorum {
            leader: self.me.broker,
            epoch: epoch_of(metrics.current_term).map_or(i32::MAX, |epoch| epoch.0),
            high_watermark: signed(committed),
            voters: all(&members.voters),
            observers: all(&members.learners),
        })
    }
}

fn signed(index: u64) -> i64 {
    i64::try_from(index).unwrap_or(i64::MAX)
}
