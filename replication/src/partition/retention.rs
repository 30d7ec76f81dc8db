//! Old records go: the log start moves by agreement, then each replica drops whole segments below it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tidelog_protocol::types::TimestampMs;
use tidelog_storage::log::{LogError, LogPosition};

use super::Partition;
use super::state_machine::boundary_id;

/// Longest wait for a snapshot, which is a few hundred bytes.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(10);

/// Now, as records are stamped.
pub fn now() -> TimestampMs {
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    TimestampMs(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
}

impl Partition {
    /// One round of retention: the leader moves the log start past what has expired, every replica drops what is below
    /// the log start. Also forgets idle producers.
    pub(crate) async fn retain(&self) {
        let expiration_ms = self.log().config().producer_id_expiration_ms;
        self.shared().order().expire_producers(now(), expiration_ms);
        if !self.log().may_let_go(now()) {
            return;
        }
        let Ok(guard) = self.retention.try_lock() else {
            return;
        };
        if !self.drop_settled().await {
            return;
        }
        let Some(boundary) = self.expired_boundary().await else {
            return;
        };
        if boundary.next_offset > self.shared().log_start() {
            if !self.shared().leads() {
                return;
            }
            if let Err(error) = self.write_log_start(boundary.next_offset).await {
                tracing::debug!(partition = %self.name(), %error, "retention waits for the next round");
                return;
            }
        }
        self.drop_to(boundary).await;
        drop(guard);
    }

    /// Lets what compaction has left go as retention and log start say; false if the log start could not be moved.
    async fn drop_settled(&self) -> bool {
        let expired = self.log().settled_expired(now());
        if let Some(expired) = expired.filter(|expired| *expired > self.shared().log_start()) {
            if !self.shared().leads() {
                return false;
            }
            if let Err(error) = self.write_log_start(expired).await {
                tracing::debug!(partition = %self.name(), %error, "retention waits for the next round");
                return false;
            }
        }
        self.drop_settled_below_start().await;
        true
    }

    async fn drop_settled_below_start(&self) {
        match self.log().drop_settled_below_start().await {
            Ok(()) | Err(LogError::Removed | LogError::Stopped(_)) => {}
            Err(error) => {
                tracing::warn!(partition = %self.name(), %error, "compacted segments are not dropped");
            }
        }
    }

    /// Drops whole segments below the log start.
    pub(crate) async fn drop_deleted(&self) {
        let _guard = self.retention.lock().await;
        self.drop_settled_below_start().await;
        if let Some(boundary) = self.expired_boundary().await
            && boundary.next_offset <= self.shared().log_start()
        {
            self.drop_to(boundary).await;
        }
    }

    async fn expired_boundary(&self) -> Option<LogPosition> {
        let log = self.log().clone();
        let high_watermark = self.shared().high_watermark();
        let found =
            tokio::task::spawn_blocking(move || log.retention_boundary(now(), high_watermark))
                .await;
        match found {
            Ok(Ok(boundary)) => boundary,
            Ok(Err(LogError::Removed | LogError::Stopped(_))) => None,
            Ok(Err(error)) => {
                tracing::warn!(partition = %self.name(), %error, "cannot tell what has expired");
                None
            }
            Err(_) => None,
        }
    }

    /// Snapshot at the boundary, then purge. What is postponed by the group is asked for again in the next round.
    pub(super) async fn drop_to(&self, boundary: LogPosition) {
        let Some(id) = boundary_id(&boundary) else {
            return;
        };
        let Ok(group) = self.wake().await else {
            return;
        };
        group.note_use();
        self.shared().set_snapshot_target(boundary);
        if let Err(error) = group.purge_to(id, SNAPSHOT_TIMEOUT).await {
            tracing::debug!(partition = %self.name(), %error, "segments stay until the next round");
        }
    }
}
