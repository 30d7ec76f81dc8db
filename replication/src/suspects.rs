//! Replicas that a power loss may have left shorter than they were.
//!
//! With `durability=os` a replica acknowledges what its operating system has; a power loss takes the newest of it back. Elected,
//! or helping another one that lacks it, such a replica would let a leader lead without acknowledged records that a third one
//! still has. So a replica whose process had not stopped cleanly when its machine was started again is a *suspect*: it
//! neither asks for votes nor grants any until a leader has brought it past what that leader knows to be committed. Kafka does
//! the same when it takes such a broker out of the in-sync replicas (KIP-966). Where nobody can lead without suspects, an
//! operator may trust them by an unclean election: what they have counts then.
//!
//! Each suspect is on record beside its vote before the machine's run is: whatever happens meanwhile, it stays one.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use openraft::raft::AppendEntriesRequest;
use tidelog_protocol::types::BrokerId;
use tidelog_storage::journal::Durability;
use tidelog_storage::kv::{KeySpace, KeyValueStore, KvWrite};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::control::Request;
use crate::controller::Controller;
use crate::hosted::{HostedPartitions, live_before};
use crate::metadata::image::MetadataImage;
use crate::options::ReplicationOptions;
use crate::partition::Partition;
use crate::partition::shared::PartitionShared;
use crate::raft::state_store::{self, GroupStateStore};
use crate::raft::types::{GroupId, GroupTypes};

/// Key of the id of the machine's run in which the directory was used last.
const BOOT_ID: &[u8] = b"boot-id";

/// Whether the power may have gone since the directory was used last.
///
/// # Errors
///
/// The store cannot be read.
pub fn power_was_lost(
    kv: &dyn KeyValueStore,
    options: &ReplicationOptions,
) -> Result<bool, io::Error> {
    if options.stopped_cleanly {
        return Ok(false);
    }
    let known = kv.get(KeySpace::Meta, BOOT_ID).map_err(io::Error::other)?;
    Ok(known.is_none_or(|known| known != options.boot_id))
}

/// Notes the machine's run, once the suspects of the one before are on record: batches reach the disk in their order.
pub async fn note_run(
    kv: &dyn KeyValueStore,
    options: &ReplicationOptions,
) -> Result<(), io::Error> {
    let boot_id = Bytes::copy_from_slice(options.boot_id.as_bytes());
    let note = KvWrite::Put(KeySpace::Meta, Bytes::from_static(BOOT_ID), boot_id);
    let written = state_store::write(kv, vec![note], None).await;
    written.map_err(io::Error::other)
}

impl HostedPartitions {
    /// Notes that a replica that is being opened is a suspect, if it is one now or was before. `replicas`: how many there are.
    pub(crate) async fn doubt(
        &self,
        partition: &Partition,
        replicas: usize,
    ) -> Result<(), io::Error> {
        let state = self.state_of(partition);
        let durability = partition.log().config().durability;
        // One that is alone has nobody to tell it more; one that has never voted had acknowledged nothing.
        let newly = self.is_doubtful()
            && durability == Durability::Os
            && replicas > 1
            && state.read_vote()?.is_some();
        if newly {
            state.note_suspect().await?;
        }
        if newly || state.is_suspect()? {
            partition.shared().suspect();
        }
        Ok(())
    }
}

/// Asks all live replicas of partitions without a leader to trust what they have, and to elect one of them.
pub async fn trust_all(
    controller: &Arc<Controller>,
    hosted: &HostedPartitions,
    groups: &[GroupId],
    deadline: Instant,
) {
    let image = controller.shared().image();
    let mut by_broker: BTreeMap<BrokerId, Vec<GroupId>> = BTreeMap::new();
    for group in groups {
        let known = image.partition_by_id(group.topic, group.partition);
        let replicas = known.iter().flat_map(|known| known.replicas.iter());
        for replica in replicas {
            if image.is_live(*replica) {
                by_broker.entry(*replica).or_default().push(*group);
            }
        }
    }
    let mut asked = JoinSet::new();
    for (broker, groups) in by_broker {
        if broker == hosted.broker() {
            trust(&image, hosted, groups).await;
            continue;
        }
        let Some(replica) = image.broker(broker).map(|broker| broker.replica()) else {
            continue;
        };
        let controller = controller.clone();
        asked.spawn(async move {
            let told = controller
                .control()
                .tell(replica, groups, Request::Trust, deadline);
            if let Err(error) = told.await {
                tracing::warn!(%replica, %error, "not all replicas there are trusted");
            }
        });
    }
    asked.join_all().await;
}

/// An operator trusts what this broker's replicas of some partitions have: each asks for the leadership when it is its turn.
pub async fn trust(image: &MetadataImage, hosted: &HostedPartitions, groups: Vec<GroupId>) {
    let groups: HashSet<GroupId> = groups.into_iter().collect();
    for partition in hosted.of(groups) {
        if partition.shared().is_suspect() {
            tracing::warn!(
                partition = %partition.name(),
                "an operator trusts the replica: what a power loss took from it is lost where no other replica has it"
            );
            clear(&hosted.state_of(&partition), partition.shared()).await;
        }
        let known = image.partition_by_id(partition.topic_id(), partition.index());
        let turn = live_before(image, known, hosted.broker(), &BTreeSet::new());
        tokio::spawn(async move { partition.elect_in_turn(turn).await });
    }
}

/// A replica is a suspect no more.
pub async fn clear(state: &GroupStateStore, shared: &PartitionShared) {
    shared.trust();
    if let Err(error) = state.forget_suspect().await {
        tracing::debug!(partition = %shared.name(), %error, "the replica is a suspect again after a restart");
    }
}

/// Whether one that takes all of a request has what its leader knows to be committed, and that is all that ever was: by the
/// first entry that is committed in its own term a leader knows of all before it.
pub fn brings_up(request: &AppendEntriesRequest<GroupTypes>) -> bool {
    let last = request.entries.last().map(|entry| entry.log_id);
    let last = last.or(request.prev_log_id);
    let (Some(commit), Some(last)) = (request.leader_commit, last) else {
        return false;
    };
    commit.leader_id.term == request.vote.leader_id.term && last.index >= commit.index
}
