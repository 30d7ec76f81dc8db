//! Snapshots on their way in. What has arrived of one outlives its connection for a while.

use std::collections::HashMap;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::codec::{SnapshotAnnouncement, SnapshotPiece};
use super::sending::name_of;
use super::service::{Refusal, RefusalCode};
use crate::limits::{PEER_SNAPSHOT_BYTES_MAX, PEER_SNAPSHOTS_ARRIVING_MAX};
use crate::raft::network::Snapshot;
use crate::raft::types::{GroupId, ReplicaId, Vote};

/// See the module.
#[derive(Debug)]
pub struct ArrivingSnapshots {
    kept: Duration,
    arriving: Mutex<HashMap<(ReplicaId, GroupId), Arriving>>,
}

#[derive(Debug)]
struct Arriving {
    announced: SnapshotAnnouncement,
    bytes: BytesMut,
    touched: Instant,
}

fn malformed(text: &str) -> Refusal {
    Refusal::new(RefusalCode::Malformed, text)
}

impl ArrivingSnapshots {
    /// None so far. `kept`: how long the beginning of one is kept that does not go on.
    pub fn new(kept: Duration) -> Self {
        ArrivingSnapshots {
            kept,
            arriving: Mutex::default(),
        }
    }

    /// A snapshot is announced. Says how much of it is here.
    pub fn begin(
        &self,
        from: ReplicaId,
        group: GroupId,
        announced: SnapshotAnnouncement,
    ) -> Result<u64, Refusal> {
        let mut arriving = self.arriving.lock();
        let now = Instant::now();
        arriving.retain(|_, other| now.duration_since(other.touched) < self.kept);
        let before = arriving.remove(&(from, group));
        let others: u64 = arriving.values().map(|it| it.announced.bytes).sum();
        let left = PEER_SNAPSHOT_BYTES_MAX.saturating_sub(others);
        if arriving.len() >= PEER_SNAPSHOTS_ARRIVING_MAX || announced.bytes > left {
            let text = format!(
                "no room for a snapshot of {} bytes: {} others of {others} bytes are arriving",
                announced.bytes,
                arriving.len()
            );
            return Err(Refusal::new(RefusalCode::Busy, text));
        }
        let bytes = match before {
            Some(before)
                if before.announced.id == announced.id
                    && before.announced.bytes == announced.bytes =>
            {
                before.bytes
            }
            _ => BytesMut::new(),
        };
        let received = bytes.len() as u64;
        let entry = Arriving {
            announced,
            bytes,
            touched: now,
        };
        arriving.insert((from, group), entry);
        Ok(received)
    }

    /// A piece arrived. Says how much is here.
    pub fn piece(
        &self,
        from: ReplicaId,
        group: GroupId,
        piece: &SnapshotPiece,
    ) -> Result<u64, Refusal> {
        let mut arriving = self.arriving.lock();
        let entry = arriving
            .get_mut(&(from, group))
            .filter(|entry| entry.announced.id == piece.id)
            .ok_or_else(|| malformed("a piece of a snapshot that was not announced"))?;
        let received = entry.bytes.len() as u64;
        let end = piece.offset.checked_add(piece.bytes.len() as u64);
        if piece.offset != received || end.is_none_or(|end| end > entry.announced.bytes) {
            let text = format!(
                "a piece at {} of a snapshot of {} bytes, {received} of which are here",
                piece.offset, entry.announced.bytes
            );
            return Err(malformed(&text));
        }
        entry.bytes.extend_from_slice(&piece.bytes);
        entry.touched = Instant::now();
        Ok(entry.bytes.len() as u64)
    }

    /// A snapshot ended; gives it out if it is whole.
    pub fn end(
        &self,
        from: ReplicaId,
        group: GroupId,
        id: u128,
    ) -> Result<(Vote, Snapshot), Refusal> {
        let entry = self.arriving.lock().remove(&(from, group));
        let Arriving {
            announced, bytes, ..
        } = entry
            .filter(|entry| entry.announced.id == id)
            .ok_or_else(|| malformed("the end of a snapshot that was not announced"))?;
        let bytes: Bytes = bytes.freeze();
        if bytes.len() as u64 != announced.bytes || name_of(&bytes) != id {
            return Err(malformed("the snapshot is not the one that was announced"));
        }
        let meta = openraft::SnapshotMeta {
            last_log_id: announced.last,
            last_membership: announced.membership,
        };
        let snapshot = Snapshot {
            meta,
            snapshot: bytes,
        };
        Ok((announced.vote, snapshot))
    }
}

#[cfg(test)]
mod tests;
