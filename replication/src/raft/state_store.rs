//! A group's vote, checkpoint and snapshot in the broker's key-value store.
//!
//! Keys: log id (u64 big-endian), kind (u8). Votes of all groups go out in shared, synced write batches.

use std::fmt;
use std::io;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use tidelog_storage::SyncPoint;
use tidelog_storage::kv::{KeySpace, KeyValueStore, KvError, KvWrite};
use tidelog_storage::log::{EntryIndex, LogId as StorageLogId};
use tokio::sync::oneshot;

use super::codec::{self, Checkpoint, CodecError};
use super::types::Vote;

const VOTE: u8 = 1;
const CHECKPOINT: u8 = 2;
const SNAPSHOT: u8 = 3;
const INSTALLING: u8 = 4;
const DAMAGED: u8 = 5;
const SUSPECT: u8 = 6;

/// State of one group beside its log.
#[derive(Clone)]
pub struct GroupStateStore {
    kv: Arc<dyn KeyValueStore>,
    log: StorageLogId,
}

impl fmt::Debug for GroupStateStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupStateStore")
            .field("log", &self.log)
            .finish_non_exhaustive()
    }
}

impl GroupStateStore {
    /// State of the group of a log.
    pub fn new(kv: Arc<dyn KeyValueStore>, log: StorageLogId) -> Self {
        GroupStateStore { kv, log }
    }

    /// The last vote saved.
    pub fn read_vote(&self) -> Result<Option<Vote>, io::Error> {
        self.read(VOTE, codec::decode_vote)
    }

    /// Saves a vote; durable when it returns.
    pub async fn write_vote(&self, vote: &Vote) -> Result<(), io::Error> {
        let writes = vec![self.put(VOTE, codec::encode_vote(vote))];
        self.write(writes, Some(SyncPoint::GroupVote)).await
    }

    /// The last checkpoint.
    pub fn read_checkpoint(&self) -> Result<Option<Checkpoint>, io::Error> {
        self.read(CHECKPOINT, codec::decode_checkpoint)
    }

    /// The write that saves a checkpoint, to be sent together with those of other groups.
    pub fn checkpoint_write(&self, checkpoint: &Checkpoint) -> KvWrite {
        self.put(CHECKPOINT, codec::encode_checkpoint(checkpoint))
    }

    /// The last snapshot, as the group's state machine encoded it.
    pub fn read_snapshot(&self) -> Result<Option<Bytes>, io::Error> {
        self.read(SNAPSHOT, Ok)
    }

    /// Saves a snapshot and, in one step with it, a checkpoint; durable when it returns. None is being installed then.
    pub async fn write_snapshot(
        &self,
        snapshot: Bytes,
        checkpoint: Option<&Checkpoint>,
    ) -> Result<(), io::Error> {
        let mut writes = vec![self.put(SNAPSHOT, snapshot), self.forget(INSTALLING)];
        writes.extend(checkpoint.map(|checkpoint| self.checkpoint_write(checkpoint)));
        self.write(writes, Some(SyncPoint::GroupSnapshot)).await
    }

    /// Forgets the last snapshot.
    pub async fn forget_snapshot(&self) -> Result<(), io::Error> {
        self.write(vec![self.forget(SNAPSHOT)], None).await
    }

    /// The snapshot that was about to be installed when the process ended.
    pub fn read_installing(&self) -> Result<Option<Bytes>, io::Error> {
        self.read(INSTALLING, Ok)
    }

    /// Notes that the log is about to begin anew where a snapshot ends; durable when it returns.
    pub async fn write_installing(&self, snapshot: Bytes) -> Result<(), io::Error> {
        let writes = vec![self.put(INSTALLING, snapshot)];
        self.write(writes, Some(SyncPoint::GroupInstalling)).await
    }

    /// Notes that it did not. What a power loss brings back is noticed again.
    pub async fn forget_installing(&self) -> Result<(), io::Error> {
        self.write(vec![self.forget(INSTALLING)], None).await
    }

    /// The version of the metadata as of which the log was found to have lost something.
    pub fn read_damaged(&self) -> Result<Option<u64>, io::Error> {
        self.read(DAMAGED, decode_version)
    }

    /// Notes that the log has lost something; durable when it returns.
    pub async fn write_damaged(&self, version: u64) -> Result<(), io::Error> {
        let value = Bytes::copy_from_slice(&version.to_be_bytes());
        self.write(
            vec![self.put(DAMAGED, value)],
            Some(SyncPoint::GroupDamaged),
        )
        .await
    }

    /// Whether a power loss may have taken entries from the log.
    pub fn is_suspect(&self) -> Result<bool, io::Error> {
        let noted = self.read(SUSPECT, Ok)?;
        Ok(noted.is_some())
    }

    /// Notes that it may have. What another power loss takes of this is found anew after it.
    pub async fn note_suspect(&self) -> Result<(), io::Error> {
        self.write(vec![self.put(SUSPECT, Bytes::new())], None)
            .await
    }

    /// Notes that the log has all that was committed after all.
    pub async fn forget_suspect(&self) -> Result<(), io::Error> {
        self.write(vec![self.forget(SUSPECT)], None).await
    }

    /// The write that forgets everything of a group.
    pub fn removal(log: StorageLogId) -> KvWrite {
        let from = key(log, 0);
        KvWrite::DeleteRange(KeySpace::Vote, from, key(log, u8::MAX))
    }

    fn read<T>(
        &self,
        kind: u8,
        decode: fn(Bytes) -> Result<T, CodecError>,
    ) -> Result<Option<T>, io::Error> {
        let bytes = self
            .kv
            .get(KeySpace::Vote, &key(self.log, kind))
            .map_err(io::Error::other)?;
        bytes
            .map(decode)
            .transpose()
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    fn put(&self, kind: u8, value: Bytes) -> KvWrite {
        KvWrite::Put(KeySpace::Vote, key(self.log, kind), value)
    }

    fn forget(&self, kind: u8) -> KvWrite {
        KvWrite::Delete(KeySpace::Vote, key(self.log, kind))
    }

    async fn write(&self, writes: Vec<KvWrite>, point: Option<SyncPoint>) -> Result<(), io::Error> {
        let written = write(&*self.kv, writes, point).await;
        written.map_err(io::Error::other)
    }
}

/// Writes and waits, without blocking the thread, until it is done; durable then where a point asks for it.
pub async fn write(
    kv: &dyn KeyValueStore,
    writes: Vec<KvWrite>,
    point: Option<SyncPoint>,
) -> Result<(), KvError> {
    let (sender, receiver) = oneshot::channel();
    let done = Box::new(move |result| drop(sender.send(result)));
    kv.write(writes, point, done);
    receiver
        .await
        .unwrap_or_else(|_| Err(KvError("the store stopped".into())))
}

/// Said of a log whose vote is gone.
pub const VOTE_MISSING: &str =
    "the vote is missing from the key-value store, and there are entries that follow one";

/// Whether a group has voted, going by the end of its log: only the first membership comes before the first vote.
pub fn must_have_voted(last: EntryIndex) -> bool {
    last.0 > 1
}

/// Key of a log's vote.
pub fn vote_key(log: StorageLogId) -> Bytes {
    key(log, VOTE)
}

/// The log that a key is about, and whether its value can be read.
pub fn check(key: &[u8], value: Bytes) -> (Option<StorageLogId>, Result<(), String>) {
    let Some((log, [kind])) = key.split_first_chunk() else {
        return (None, Err("a key of an unknown form".to_owned()));
    };
    let read = match *kind {
        VOTE => codec::decode_vote(value)
            .map(drop)
            .map_err(|it| format!("vote: {it}")),
        CHECKPOINT => {
            (codec::decode_checkpoint(value).map(drop)).map_err(|it| format!("checkpoint: {it}"))
        }
        SNAPSHOT | INSTALLING => {
            (codec::decode_snapshot(value).map(drop)).map_err(|it| format!("snapshot: {it}"))
        }
        DAMAGED => decode_version(value)
            .map(drop)
            .map_err(|it| format!("damage: {it}")),
        SUSPECT => Ok(()),
        _ => Err(format!("a value of unknown kind {kind}")),
    };
    (Some(StorageLogId(u64::from_be_bytes(*log))), read)
}

fn decode_version(value: Bytes) -> Result<u64, CodecError> {
    let bytes =
        <[u8; 8]>::try_from(&value[..]).map_err(|_| CodecError::Damaged("not a version"))?;
    Ok(u64::from_be_bytes(bytes))
}

fn key(log: StorageLogId, kind: u8) -> Bytes {
    let mut key = BytesMut::with_capacity(9);
    key.put_u64(log.0);
    key.put_u8(kind);
    key.freeze()
}

#[cfg(test)]
mod tests {
    use tidelog_storage::kv::MemoryKv;

    use super::super::types::ReplicaId;
    use super::*;

    /// A store whose power went after a vote and a snapshot were written.
    async fn after_power_loss(left_out: Option<SyncPoint>) -> GroupStateStore {
        let kv = Arc::new(MemoryKv::new().expect("starts"));
        kv.leave_out(left_out);
        let store = GroupStateStore::new(kv.clone(), StorageLogId(7));
        let snapshot = Bytes::from_static(b"snapshot");
        let mut points = vec![
            SyncPoint::GroupVote,
            SyncPoint::GroupSnapshot,
            SyncPoint::GroupInstalling,
            SyncPoint::GroupDamaged,
        ];
        // The one that is looked at is the last: each takes along what was written before it.
        points.sort_by_key(|point| Some(*point) == left_out);
        for point in points {
            let written = match point {
                SyncPoint::GroupVote => store.write_vote(&vote()).await,
                SyncPoint::GroupSnapshot => store.write_snapshot(snapshot.clone(), None).await,
                SyncPoint::GroupDamaged => store.write_damaged(12).await,
                _ => store.write_installing(snapshot.clone()).await,
            };
            written.expect("is written");
        }
        kv.power_loss();
        store
    }

    fn vote() -> Vote {
        let me = ReplicaId {
            broker: tidelog_protocol::types::BrokerId(1),
            directory: uuid::Uuid::from_u128(3),
        };
        Vote::new(5, me)
    }

    #[tokio::test]
    async fn votes_and_snapshots_survive_a_power_loss() {
        let store = after_power_loss(None).await;
        assert_eq!(store.read_vote().expect("is read"), Some(vote()));
        assert!(store.read_snapshot().expect("is read").is_some());
        assert!(store.read_installing().expect("is read").is_some());
        assert_eq!(store.read_damaged().expect("is read"), Some(12));
    }

    #[tokio::test]
    async fn what_is_installed_is_not_being_installed() {
        let store = after_power_loss(None).await;
        let snapshot = Bytes::from_static(b"snapshot");
        store
            .write_snapshot(snapshot.clone(), None)
            .await
            .expect("is written");
        assert_eq!(store.read_installing().expect("is read"), None);
        store.write_installing(snapshot).await.expect("is written");
        store.forget_installing().await.expect("is written");
        assert_eq!(store.read_installing().expect("is read"), None);
    }

    #[tokio::test]
    async fn without_their_sync_they_do_not() {
        let store = after_power_loss(Some(SyncPoint::GroupVote)).await;
        assert_eq!(store.read_vote().expect("is read"), None);
        let store = after_power_loss(Some(SyncPoint::GroupSnapshot)).await;
        assert_eq!(store.read_snapshot().expect("is read"), None);
        let store = after_power_loss(Some(SyncPoint::GroupInstalling)).await;
        assert_eq!(store.read_installing().expect("is read"), None);
        let store = after_power_loss(Some(SyncPoint::GroupDamaged)).await;
        assert_eq!(store.read_damaged().expect("is read"), None);
    }
}
