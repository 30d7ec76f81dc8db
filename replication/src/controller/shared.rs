//! What the controller's handle, its log and its state machine share: the image, and who waits for it.

use std::io;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tidelog_protocol::types::{BrokerId, Offset};
use tidelog_storage::log::LogError;
use tokio::sync::{Notify, watch};

use crate::metadata::image::MetadataImage;
use crate::metadata::state::MetadataDelta;
use crate::raft::codec::Checkpoint;
use crate::raft::log_store::GroupEvents;
use crate::raft::types::{LogId, ReplicaId, StoredMembership, Vote};

/// See the module.
#[derive(Debug)]
pub struct ControllerShared {
    me: ReplicaId,
    image: ArcSwap<MetadataImage>,
    versions: watch::Sender<u64>,
    delta: Mutex<MetadataDelta>,
    changed: Notify,
    leader: Mutex<Option<BrokerId>>,
    leads: watch::Sender<bool>,
    applied: Mutex<Applied>,
    failure: Mutex<Option<Arc<str>>>,
}

#[derive(Debug, Default)]
struct Applied {
    last: Option<LogId>,
    membership: StoredMembership,
    checkpointed: Option<LogId>,
}

impl ControllerShared {
    /// Nothing known yet.
    pub fn new(me: ReplicaId) -> Self {
        ControllerShared {
            me,
            image: ArcSwap::from_pointee(MetadataImage::default()),
            versions: watch::Sender::new(0),
            delta: Mutex::default(),
            changed: Notify::new(),
            leader: Mutex::default(),
            leads: watch::Sender::new(false),
            applied: Mutex::default(),
            failure: Mutex::default(),
        }
    }

    /// The newest image.
    pub fn image(&self) -> Arc<MetadataImage> {
        self.image.load_full()
    }

    /// Version of the image, for those who act on changes.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.versions.subscribe()
    }

    /// Shows an image to everybody, and what changed to the one who acts on it: everything up to this entry was applied,
    /// the last membership among it.
    pub fn publish(
        &self,
        image: MetadataImage,
        delta: MetadataDelta,
        last: LogId,
        membership: Option<StoredMembership>,
    ) {
        let version = image.version();
        // Before it counts as applied, and that before those who wait for it are woken.
        self.image.store(Arc::new(image));
        {
            let mut applied = self.applied.lock();
            applied.last = Some(last);
            if let Some(membership) = membership {
                applied.membership = membership;
            }
        }
        self.delta.lock().merge(delta);
        self.versions.send_replace(version);
        self.changed.notify_one();
    }

    /// Waits until something changed, and takes it.
    pub async fn next_delta(&self) -> MetadataDelta {
        loop {
            let delta = std::mem::take(&mut *self.delta.lock());
            if delta != MetadataDelta::default() {
                return delta;
            }
            self.changed.notified().await;
        }
    }

    /// The broker that leads the group, where known.
    pub fn leader(&self) -> Option<BrokerId> {
        *self.leader.lock()
    }

    /// Whether this broker leads the group, as far as it knows.
    pub fn leads(&self) -> bool {
        *self.leads.borrow()
    }

    /// The same, as it changes.
    pub fn watch_leads(&self) -> watch::Receiver<bool> {
        self.leads.subscribe()
    }

    /// Waits until everything up to an entry was applied, and the image shows it.
    pub async fn wait_applied(&self, index: u64) {
        let mut published = self.watch();
        let applied = || {
            self.applied
                .lock()
                .last
                .is_some_and(|last| last.index >= index)
        };
        while !applied() {
            if published.changed().await.is_err() {
                return;
            }
        }
    }

    /// A record cannot be applied, so that the group stops.
    pub fn refuse(&self, entry: LogId, error: &io::Error) {
        tracing::error!(%error, %entry, "a metadata record cannot be applied: this broker changes no metadata");
        *self.failure.lock() = Some(Arc::from(error.to_string()));
    }

    /// Why the group stopped, if its log failed or has a record that cannot be applied.
    pub fn failure(&self) -> Option<Arc<str>> {
        self.failure.lock().clone()
    }

    /// The last entry applied and the last membership up to it.
    pub fn applied(&self) -> (Option<LogId>, StoredMembership) {
        let applied = self.applied.lock();
        (applied.last, applied.membership.clone())
    }

    /// A checkpoint, if more was applied since the last one. Only its entry id counts: the image is restored from the
    /// snapshot and the entries behind it.
    pub fn due_checkpoint(&self) -> Option<Checkpoint> {
        let mut applied = self.applied.lock();
        if applied.checkpointed == applied.last {
            return None;
        }
        applied.checkpointed = applied.last;
        Some(Checkpoint {
            applied: applied.last?,
            high_watermark: Offset(0),
            log_start: Offset(0),
            membership: applied.membership.clone(),
        })
    }
}

impl GroupEvents for ControllerShared {
    fn vote_changed(&self, vote: &Vote) {
        let leader = vote.committed.then_some(vote.leader_id.voted_for);
        *self.leader.lock() = leader.map(|replica| replica.broker);
        let leads = leader == Some(self.me);
        if leads {
            tracing::info!(term = vote.leader_id.term, "this broker is the controller");
        }
        self.leads
            .send_if_modified(|known| std::mem::replace(known, leads) != leads);
    }

    fn failed(&self, error: &LogError) {
        if matches!(error, LogError::Removed) {
            return;
        }
        let mut failure = self.failure.lock();
        if failure.is_none() {
            tracing::error!(%error, "the metadata log failed: this broker changes no metadata until it restarts");
            *failure = Some(Arc::from(error.to_string()));
        }
    }
}
