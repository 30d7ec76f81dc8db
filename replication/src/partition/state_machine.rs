//! What a committed entry does to a partition: the high watermark rises, the log start moves, members change.
//!
//! Applying reads headers only. A snapshot describes the retention boundary and never the last entry applied: a new
//! replica must receive all that is retained.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, TryStreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};
use tidelog_protocol::types::BrokerId;
use tidelog_storage::log::{EntryIndex, LogError, LogPosition, PartitionLog, RecordCopy};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

use super::records::{RecordSource, RecordsRead, RecordsWanted};
use super::shared::PartitionShared;
use crate::limits::APPLY_HEADERS_MAX;
use crate::raft::codec::{self, PartitionSnapshot, tag};
use crate::raft::network::Snapshot;
use crate::raft::state_store::GroupStateStore;
use crate::raft::types::{GroupCommand, GroupReply, GroupTypes, LogId, StoredMembership};
use crate::throttle::Pacer;

/// How long a copy of records may stand still before it counts as a failure. The group answers nothing meanwhile, and
/// does not hear of another leader; one that starts again does.
const COPY_PATIENCE: Duration = Duration::from_secs(10);

/// Pause before they are copied anew.
const COPY_PAUSE: Duration = Duration::from_millis(200);

/// See the module.
#[derive(Clone, Debug)]
pub struct PartitionStateMachine {
    shared: Arc<PartitionShared>,
    state: GroupStateStore,
    records: Option<Arc<dyn RecordSource>>,
    pacer: Arc<Pacer>,
    ended: Ended,
}

/// Whether the group has ended. Its task may not have: what it does to the log, it does under this lock, or not at all.
pub type Ended = Arc<Mutex<bool>>;

impl PartitionStateMachine {
    /// State machine of a replica.
    pub fn new(
        shared: Arc<PartitionShared>,
        state: GroupStateStore,
        records: Option<Arc<dyn RecordSource>>,
        pacer: Pacer,
        ended: Ended,
    ) -> Self {
        PartitionStateMachine {
            shared,
            state,
            records,
            pacer: Arc::new(pacer),
            ended,
        }
    }

    /// Lets the log begin where a snapshot ends, with what compaction has left before that.
    async fn begin_anew(
        &self,
        position: LogPosition,
        copy: Option<RecordCopy>,
        snapshot: Bytes,
    ) -> Result<(), io::Error> {
        let log = self.shared.log();
        self.state.write_installing(snapshot).await?;
        let begun = match copy {
            Some(copy) => log.install(position, copy).await,
            None => log.reset(position).await,
        };
        begun.map_err(io::Error::other)
    }

    /// Copies the records up to a position from the leader, anew if compaction changed them meanwhile, or if it was out
    /// of reach. Where that does not pass, the group ends and is started again.
    async fn copy_records(&self, position: &LogPosition) -> Result<RecordCopy, io::Error> {
        let name = self.shared.name();
        tracing::info!(partition = %name, upto = %position.next_offset, "records are copied from the leader");
        let mut went_on = Instant::now();
        loop {
            let failed = match self.try_copy(position, &mut went_on).await {
                Ok(Some(copy)) => return Ok(copy),
                Ok(None) => io::Error::other("the records change faster than they are copied"),
                Err(error) => error,
            };
            check(*self.ended.lock().await)?;
            if went_on.elapsed() >= COPY_PATIENCE {
                let reason = format!("records could not be copied from the leader: {failed}");
                self.shared.go_offline(&reason);
                return Err(failed);
            }
            tracing::debug!(partition = %name, error = %failed, "records are copied anew");
            sleep(COPY_PAUSE).await;
        }
    }

    /// `None`: what was read does not belong together.
    async fn try_copy(
        &self,
        position: &LogPosition,
        went_on: &mut Instant,
    ) -> Result<Option<RecordCopy>, io::Error> {
        let log = self.shared.log().clone();
        let mut wanted = RecordsWanted {
            group: self.shared.group(),
            from: position.log_start,
            upto: position.next_offset,
            skip: 0,
        };
        let mut copy = blocking(move || log.begin_copy(wanted.from)).await?;
        let (mut mark, mut piece) = (None, BytesMut::new());
        while wanted.from < wanted.upto {
            let leader = self.shared.state().leader;
            let leader = leader.ok_or_else(|| io::Error::other("no replica leads"))?;
            self.pacer.before(leader).await;
            check(*self.ended.lock().await)?;
            *went_on = Instant::now();
            let read = self.read_records(leader, wanted).await?;
            self.pacer.after(read.bytes.len());
            check(*self.ended.lock().await)?;
            *went_on = Instant::now();
            if *mark.get_or_insert(read.mark) != read.mark {
                return Ok(None);
            }
            piece.extend_from_slice(&read.bytes);
            wanted.skip = u32::try_from(piece.len()).unwrap_or(u32::MAX);
            if wanted.skip < read.piece_bytes && !read.bytes.is_empty() {
                continue;
            }
            if read.next <= wanted.from || wanted.skip != read.piece_bytes {
                return Err(io::Error::other("the leader's answer makes no sense"));
            }
            (wanted.from, wanted.skip) = (read.next, 0);
            let whole = piece.split().freeze();
            copy = blocking(move || copy.put(whole).map(|()| copy)).await?;
        }
        Ok(Some(copy))
    }

    async fn read_records(
        &self,
        leader: BrokerId,
        wanted: RecordsWanted,
    ) -> Result<RecordsRead, io::Error> {
        let source = self.records.as_ref();
        let source = source.ok_or_else(|| io::Error::other("there are no other brokers"))?;
        source.read(leader, wanted).await.map_err(io::Error::other)
    }

    fn apply_payload(
        &self,
        id: LogId,
        payload: EntryPayload<GroupCommand, crate::raft::types::ReplicaId, ()>,
    ) -> GroupReply {
        match payload {
            EntryPayload::Blank => {}
            EntryPayload::Membership(membership) => {
                self.shared
                    .apply_membership(StoredMembership::new(Some(id), membership));
            }
            EntryPayload::Normal(GroupCommand::BatchHeader { next_offset }) => {
                self.shared.advance_high_watermark(next_offset);
            }
            EntryPayload::Normal(GroupCommand::LogStart(offset)) => {
                self.shared.move_log_start(offset)
            }
            EntryPayload::Normal(GroupCommand::Void) => return GroupReply::Void,
            EntryPayload::Normal(command) => {
                tracing::error!(partition = %self.shared.name(), %command, "entry does not belong into a partition");
            }
        }
        GroupReply::Done
    }
}

impl RaftStateMachine<GroupTypes> for PartitionStateMachine {
    type SnapshotData = Bytes;
    type SnapshotBuilder = PartitionStateMachine;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok(self.shared.applied())
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<GroupTypes>, io::Error>> + Unpin + OptionalSend,
    {
        let mut last = None;
        while let Some((entry, responder)) = entries.try_next().await? {
            let id = entry.log_id;
            let reply = self.apply_payload(id, entry.payload);
            if let Some(responder) = responder {
                responder.send(reply);
            }
            last = Some(id);
        }
        if let Some(last) = last {
            self.shared.set_applied(last);
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> PartitionStateMachine {
        self.clone()
    }

    async fn install_snapshot(
        &mut self,
        meta: &openraft::alias::SnapshotMetaOf<GroupTypes>,
        snapshot: Bytes,
    ) -> Result<(), io::Error> {
        let described = codec::decode_snapshot(snapshot.clone()).map_err(io::Error::other)?;
        let checkpoint = described.checkpoint().map_err(io::Error::other)?;
        if Some(checkpoint.applied) != meta.last_log_id {
            return Err(io::Error::other(
                "the snapshot is not the one that was announced",
            ));
        }
        // What the log holds beyond the snapshot is worth more than a place to begin.
        let last = described.position.last;
        let lacks = self.shared.log().entry_id(last.index) != Some(last);
        let copy = match lacks && described.needs_records() {
            true => Some(self.copy_records(&described.position).await?),
            false => None,
        };
        let ended = self.ended.lock().await;
        check(*ended)?;
        if lacks {
            self.begin_anew(described.position, copy, snapshot.clone())
                .await?;
        }
        self.state
            .write_snapshot(snapshot, Some(&checkpoint))
            .await?;
        self.shared.restore(&checkpoint, None);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        let Some(bytes) = self.state.read_snapshot()? else {
            return Ok(None);
        };
        let snapshot = codec::decode_snapshot(bytes.clone()).map_err(io::Error::other)?;
        Ok(Some(describe(&snapshot, bytes)))
    }
}

impl RaftSnapshotBuilder<GroupTypes> for PartitionStateMachine {
    type SnapshotData = Bytes;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let log = self.shared.log().clone();
        let target = self.shared.take_snapshot_target();
        let known = |index: EntryIndex| self.shared.membership_at(index.0.saturating_sub(1));
        let position = match target {
            Some(target) => target,
            None => {
                let log = log.clone();
                blocking(move || log.position_at(log.bounds().purged.index)).await?
            }
        };
        let membership = match known(position.last.index) {
            Some(membership) => membership,
            None => {
                let upto = position.last.index;
                blocking(move || find_membership(&log, upto)).await?
            }
        };
        let snapshot = PartitionSnapshot {
            position,
            membership,
        };
        let bytes = codec::encode_snapshot(&snapshot);
        self.state
            .write_snapshot(bytes.clone(), self.shared.checkpoint().as_ref())
            .await?;
        Ok(describe(&snapshot, bytes))
    }
}

fn check(ended: bool) -> Result<(), io::Error> {
    match ended {
        true => Err(io::Error::other("the group has ended")),
        false => Ok(()),
    }
}

fn describe(snapshot: &PartitionSnapshot, bytes: Bytes) -> Snapshot {
    let meta = openraft::SnapshotMeta {
        last_log_id: codec::log_id(snapshot.position.last),
        last_membership: snapshot.membership.clone(),
    };
    Snapshot {
        meta,
        snapshot: bytes,
    }
}

async fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, LogError> + Send + 'static,
) -> Result<T, io::Error> {
    tokio::task::spawn_blocking(read)
        .await
        .map_err(io::Error::other)?
        .map_err(io::Error::other)
}

/// The last membership among the entries up to `upto`. Reads headers from the purged boundary on: needed only where
/// members changed twice above the boundary since the last snapshot, and the broker restarted in between.
fn find_membership(log: &PartitionLog, upto: EntryIndex) -> Result<StoredMembership, LogError> {
    let mut from = EntryIndex(log.bounds().purged.index.0 + 1);
    let mut found = StoredMembership::default();
    while from <= upto {
        let headers = log.headers(from, EntryIndex(upto.0 + 1), APPLY_HEADERS_MAX)?;
        if headers.is_empty() {
            break;
        }
        from = EntryIndex(from.0 + headers.len() as u64);
        for header in headers {
            let Some((tag::MEMBERSHIP, bytes)) = header.opaque else {
                continue;
            };
            let payload = codec::decode_opaque(tag::MEMBERSHIP, bytes)
                .map_err(|error| LogError::Io(Arc::from(error.to_string())))?;
            if let EntryPayload::Membership(membership) = payload {
                found = StoredMembership::new(codec::log_id(header.id), membership);
            }
        }
    }
    Ok(found)
}

/// The place after an entry of the log, where a snapshot may be made.
pub fn boundary_id(position: &LogPosition) -> Option<LogId> {
    codec::log_id(position.last)
}
