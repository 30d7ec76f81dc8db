//! Finds the group that a peer's request is for: the controller's, or that of a partition hosted here.

use std::fmt::{self, Debug};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use openraft::Raft;
use openraft::errors::{Infallible, RaftError};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};

use super::service::{CallKind, PeerService, Refusal, RefusalCode, Served};
use crate::controller::state_machine::ControllerStateMachine;
use crate::controller::{Controller, METADATA_TOPIC_ID};
use crate::hosted::HostedPartitions;
use crate::partition::Partition;
use crate::partition::group::PartitionGroup;
use crate::raft::network::Snapshot;
use crate::raft::types::{GroupId, GroupTypes, ReplicaId, Vote};

/// Answers what peers ask of the broker itself.
pub trait CallHandler: Debug + Send + Sync + 'static {
    /// A call. `joined`: both ends know that they are of the same cluster; who has not joined may ask for nothing else.
    fn call(&self, from: ReplicaId, joined: bool, kind: CallKind, body: Bytes) -> Served<Bytes>;
}

/// See the module. It is there before the groups are, as the groups need their peers to start: what is asked of one that
/// is not there yet may be asked again.
#[derive(Debug, Default)]
pub struct GroupRouter {
    controller: OnceLock<Arc<Controller>>,
    hosted: Arc<OnceLock<Arc<HostedPartitions>>>,
    calls: OnceLock<Arc<dyn CallHandler>>,
}

/// A running group.
enum Group {
    Controller(Raft<GroupTypes, ControllerStateMachine>),
    /// Held while it is used, so that it does not fall asleep meanwhile.
    Partition(Arc<PartitionGroup>),
}

/// What there is of a group.
enum Found {
    /// It runs.
    Group(Group),
    /// It may sleep.
    Partition(Arc<Partition>),
}

impl GroupRouter {
    /// Who answers calls. The first one stays.
    pub fn answer_calls(&self, handler: Arc<dyn CallHandler>) {
        drop(self.calls.set(handler));
    }

    /// The controller's group runs. The first one stays.
    pub(crate) fn serve_controller(&self, controller: Arc<Controller>) {
        drop(self.controller.set(controller));
    }

    /// Partitions are hosted. The first ones stay.
    pub(crate) fn serve_partitions(&self, hosted: Arc<HostedPartitions>) {
        drop(self.hosted.set(hosted));
    }

    /// The partitions, once they are hosted.
    pub(crate) fn partitions(&self) -> Arc<OnceLock<Arc<HostedPartitions>>> {
        self.hosted.clone()
    }

    /// A group that sleeps is woken: what peers say is news.
    fn find(&self, id: GroupId) -> impl Future<Output = Result<Group, Refusal>> + Send + 'static {
        let found = self.look_up(id);
        async move {
            let partition = match found? {
                Found::Group(group) => return Ok(group),
                Found::Partition(partition) => partition,
            };
            let group = partition.wake().await;
            let group = group.map_err(|_| stopped(partition.name()))?;
            group.note_use();
            Ok(Group::Partition(group))
        }
    }

    fn look_up(&self, id: GroupId) -> Result<Found, Refusal> {
        let unknown = || {
            let text = format!(
                "partition {} of topic {} is not hosted here (yet)",
                id.partition, id.topic
            );
            Refusal::new(RefusalCode::UnknownGroup, text)
        };
        if id.topic == METADATA_TOPIC_ID {
            let controller = self.controller.get().ok_or_else(unknown)?;
            return Ok(Found::Group(Group::Controller(controller.raft().clone())));
        }
        let hosted = self.hosted.get().ok_or_else(unknown)?;
        let partition = hosted.get(id.topic, id.partition).ok_or_else(unknown)?;
        Ok(match partition.group() {
            Some(group) => {
                group.note_use();
                Found::Group(Group::Partition(group))
            }
            None => Found::Partition(partition),
        })
    }
}

fn stopped(why: &dyn fmt::Display) -> Refusal {
    Refusal::new(
        RefusalCode::GroupStopped,
        format!("the group does not run: {why}"),
    )
}

fn refused(error: RaftError<GroupTypes, Infallible>) -> Refusal {
    stopped(&error)
}

impl PeerService for GroupRouter {
    fn append(
        &self,
        _from: ReplicaId,
        group: GroupId,
        request: AppendEntriesRequest<GroupTypes>,
    ) -> Served<AppendEntriesResponse<GroupTypes>> {
        let group = self.find(group);
        Box::pin(async move {
            match group.await? {
                Group::Controller(raft) => raft.append_entries(request).await,
                Group::Partition(group) => group.append(request).await,
            }
            .map_err(refused)
        })
    }

    fn vote(
        &self,
        _from: ReplicaId,
        group: GroupId,
        request: VoteRequest<GroupTypes>,
        pre_vote: bool,
    ) -> Served<VoteResponse<GroupTypes>> {
        let group = self.find(group);
        Box::pin(async move {
            match (group.await?, pre_vote) {
                (Group::Controller(raft), false) => raft.vote(request).await,
                (Group::Controller(raft), true) => raft.pre_vote(request).await,
                (Group::Partition(group), pre_vote) => group.vote(request, pre_vote).await,
            }
            .map_err(refused)
        })
    }

    fn transfer_leader(
        &self,
        _from: ReplicaId,
        group: GroupId,
        request: TransferLeaderRequest<GroupTypes>,
    ) -> Served<TransferLeaderResponse<GroupTypes>> {
        let group = self.find(group);
        Box::pin(async move {
            match group.await? {
                Group::Controller(raft) => raft.handle_transfer_leader(request).await,
                Group::Partition(group) => group.raft().handle_transfer_leader(request).await,
            }
            .map_err(|fatal| stopped(&fatal))
        })
    }

    fn snapshot(
        &self,
        _from: ReplicaId,
        group: GroupId,
        vote: Vote,
        snapshot: Snapshot,
    ) -> Served<SnapshotResponse<GroupTypes>> {
        let group = self.find(group);
        Box::pin(async move {
            match group.await? {
                Group::Controller(raft) => raft.install_full_snapshot(vote, snapshot).await,
                Group::Partition(group) => group.raft().install_full_snapshot(vote, snapshot).await,
            }
            .map_err(|fatal| stopped(&fatal))
        })
    }

    fn call(&self, from: ReplicaId, joined: bool, kind: CallKind, body: Bytes) -> Served<Bytes> {
        match self.calls.get() {
            Some(handler) => handler.call(from, joined, kind, body),
            None => {
                let text = format!("nobody here answers calls of kind {}", kind.0);
                let refusal = Refusal::new(RefusalCode::UnknownCall, text);
                Box::pin(std::future::ready(Err(refusal)))
            }
        }
    }
}
