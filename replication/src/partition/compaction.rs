//! Compaction of a partition: its entries up to a boundary are forgotten by the group while their records stay, then
//! the log takes out of them what newer records have replaced.
//!
//! Each replica compacts its own log. Entries that were compacted cannot be sent one by one any more: a replica that
//! lacks them begins anew with the records themselves (see `records`). So that this stays rare, a leader keeps the
//! entries that its followers are about to get.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tidelog_storage::log::{
    CleanStats, Cleanable, CleanerPace, CleaningBasis, EntryIndex, LogError,
};

use super::Partition;
use super::retention::now;
use crate::raft::codec;

/// Longest wait for the group to forget entries after its snapshot; what is postponed is asked for again.
const PURGE_TIMEOUT: Duration = Duration::from_secs(10);

/// Looks for something to compact.
#[derive(Debug, Default)]
pub(super) struct Looks {
    /// What the last one was due to, if it found nothing.
    clean: Option<CleaningBasis>,
    count: u64,
    /// When another replica read records last.
    pub(super) read_at: Option<Instant>,
}

impl Partition {
    /// What compaction should do now, if anything. Looks at the log only if something changed since it last found
    /// nothing.
    pub(crate) async fn cleanable(&self) -> Result<Option<Cleanable>, LogError> {
        let log = self.log().clone();
        if !log.config().compact || log.stopped().is_some() || self.is_read_by_others() {
            return Ok(None);
        }
        // Also not what an open transaction may still abort.
        let upto = self.state().last_stable_offset;
        let basis = log.cleaning_basis(upto);
        {
            let mut looks = self.compaction.lock();
            if basis.is_some() && looks.clean == basis {
                return Ok(None);
            }
            looks.count += 1;
        }
        let found = tokio::task::spawn_blocking(move || log.cleanable(now(), upto)).await;
        let is_clean = matches!(found, Ok(Ok(None)));
        self.compaction.lock().clean = basis.filter(|_| is_clean);
        match found {
            Ok(Err(LogError::Removed | LogError::Stopped(_))) | Err(_) => Ok(None),
            Ok(found) => found,
        }
    }

    /// How often the log was looked at for something to compact.
    #[cfg(test)]
    pub(crate) fn compaction_looks(&self) -> u64 {
        self.compaction.lock().count
    }

    /// Compacts what was found cleanable.
    pub(crate) async fn compact(
        &self,
        found: Cleanable,
        pace: Arc<CleanerPace>,
        follower_lag_max: u64,
    ) -> Result<CleanStats, LogError> {
        if let Some(boundary) = self.forgettable(found.boundary, follower_lag_max).await {
            let _guard = self.retention.lock().await;
            let log = self.log().clone();
            let position = tokio::task::spawn_blocking(move || log.position_at(boundary)).await;
            let position = position
                .map_err(|error| LogError::Io(Arc::from(format!("read task: {error}"))))??;
            let (group, id) = (self.group(), codec::log_id(position.last));
            self.drop_to(position).await;
            if let (Some(group), Some(id)) = (group, id) {
                group.wait_purged(id, PURGE_TIMEOUT).await;
            }
        }
        self.log().clean(pace, found.upto, now()).await
    }

    /// Up to which entry the group may forget what compaction found; `None`: there is nothing new.
    async fn forgettable(
        &self,
        found: Option<EntryIndex>,
        follower_lag_max: u64,
    ) -> Option<EntryIndex> {
        let is_new = |boundary: &EntryIndex| *boundary > self.log().bounds().purged.index;
        let found = found.filter(is_new)?;
        let group = match self.shared.leads() {
            true => self.leading_group(usize::MAX).await.ok()?,
            false => self.wake().await.ok()?,
        };
        group.note_use();
        let held = group.held_by_all(follower_lag_max);
        Some(found.min(held)).filter(is_new)
    }
}
