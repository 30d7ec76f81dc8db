//! Metadata commands become the image; the image becomes snapshots.
//!
//! A snapshot is written to the key-value store in pieces. Keys: `image` (u8 1), then the piece's number (u32); the
//! description is at u8 0: log id, membership, number of pieces, bytes.

use std::io;
use std::ops::RangeInclusive;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::{Stream, TryStreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};
use tidelog_storage::SyncPoint;
use tidelog_storage::kv::{KeySpace, KeyValueStore, KvWrite};
use tidelog_storage::log::EntryIndex;

use super::shared::ControllerShared;
use crate::limits::SNAPSHOT_CHUNK_BYTES;
use crate::metadata::command::{MetadataError, Outcome};
use crate::metadata::image::MetadataImage;
use crate::metadata::levels;
use crate::metadata::record;
use crate::metadata::snapshot;
use crate::metadata::state::MetadataState;
use crate::raft::codec::{self, CodecError};
use crate::raft::network::Snapshot;
use crate::raft::state_store::{self, GroupStateStore};
use crate::raft::types::{GroupCommand, GroupReply, GroupTypes, LogId, StoredMembership};

const DESCRIPTION: u8 = 0;
const IMAGE: u8 = 1;

/// See the module.
pub struct ControllerStateMachine {
    shared: Arc<ControllerShared>,
    state: GroupStateStore,
    kv: Arc<dyn KeyValueStore>,
    metadata: MetadataState,
    /// Feature levels that this program knows.
    levels: RangeInclusive<u16>,
}

/// What a snapshot is of.
struct Description {
    last: LogId,
    membership: StoredMembership,
    pieces: u32,
    bytes: u64,
}

impl ControllerStateMachine {
    /// Continues from the last snapshot.
    pub fn restore(
        shared: Arc<ControllerShared>,
        state: GroupStateStore,
        kv: Arc<dyn KeyValueStore>,
        levels: RangeInclusive<u16>,
    ) -> Result<Self, io::Error> {
        let mut machine = ControllerStateMachine {
            shared,
            state,
            kv,
            metadata: MetadataState::default(),
            levels,
        };
        if let Some((description, bytes)) = read_snapshot(&*machine.kv)? {
            let image = snapshot::decode(&bytes).map_err(io::Error::other)?;
            machine.check_known(image.feature_level())?;
            machine.take_over(image, &description);
        }
        Ok(machine)
    }

    fn take_over(&mut self, image: MetadataImage, description: &Description) {
        let topics = image.topics().map(|topic| topic.id).collect();
        let delta = crate::metadata::state::MetadataDelta {
            topics,
            broker_configs: true,
            brokers: true,
            ..Default::default()
        };
        self.metadata = MetadataState::new(image);
        let (last, membership) = (description.last, description.membership.clone());
        let image = self.metadata.image().clone();
        self.shared.publish(image, delta, last, Some(membership));
    }

    fn apply_command(&mut self, id: LogId, record: &[u8]) -> Result<GroupReply, io::Error> {
        let applied = self.apply_record(id, record);
        if let Err(error) = &applied {
            // A record that this program does not know would make its image differ from the others': stop instead.
            self.shared.refuse(id, error);
        }
        applied.map(GroupReply::Metadata)
    }

    fn apply_record(
        &mut self,
        id: LogId,
        record: &[u8],
    ) -> Result<Result<Outcome, MetadataError>, io::Error> {
        let written_at = record::level(record).map_err(io::Error::other)?;
        let command = record::decode(record).map_err(io::Error::other)?;
        if let Err(refused) = self.metadata.image().check_level(written_at) {
            return Ok(Err(refused));
        }
        let result = self.metadata.apply(command, id.index + 1);
        if let Err(error @ MetadataError::Unsupported(_)) = &result {
            return Err(io::Error::other(error.clone()));
        }
        self.check_known(self.metadata.image().feature_level())?;
        Ok(result)
    }

    /// Nothing of a cluster whose level this program does not know can be carried out.
    fn check_known(&self, level: u16) -> Result<(), io::Error> {
        // Before the first record there is no level.
        let unknown = levels::why_unknown(level, &self.levels).filter(|_| level > 0);
        unknown.map_or(Ok(()), |text| Err(io::Error::other(text)))
    }
}

impl RaftStateMachine<GroupTypes> for ControllerStateMachine {
    type SnapshotData = Bytes;
    type SnapshotBuilder = ImageSnapshotBuilder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok(self.shared.applied())
    }

    /// Answers are sent after the image shows what they say.
    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<GroupTypes>, io::Error>> + Unpin + OptionalSend,
    {
        let mut answers = Vec::new();
        let mut last = None;
        let mut membership = None;
        while let Some((entry, responder)) = entries.try_next().await? {
            let id = entry.log_id;
            let reply = match entry.payload {
                EntryPayload::Normal(GroupCommand::Metadata(record)) => {
                    self.apply_command(id, &record)?
                }
                EntryPayload::Membership(members) => {
                    membership = Some(StoredMembership::new(Some(id), members));
                    GroupReply::Done
                }
                EntryPayload::Blank | EntryPayload::Normal(_) => GroupReply::Done,
            };
            answers.extend(responder.map(|responder| (responder, reply)));
            last = Some(id);
        }
        let Some(last) = last else { return Ok(()) };
        self.metadata.set_controller(self.shared.leader());
        let delta = self.metadata.take_delta();
        let image = self.metadata.image().clone();
        self.shared.publish(image, delta, last, membership);
        answers
            .into_iter()
            .for_each(|(responder, reply)| responder.send(reply));
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> ImageSnapshotBuilder {
        let (last, membership) = self.shared.applied();
        ImageSnapshotBuilder {
            image: self.metadata.image().clone(),
            last,
            membership,
            kv: self.kv.clone(),
        }
    }

    async fn install_snapshot(
        &mut self,
        meta: &openraft::alias::SnapshotMetaOf<GroupTypes>,
        bytes: Bytes,
    ) -> Result<(), io::Error> {
        let image = snapshot::decode(&bytes).map_err(io::Error::other)?;
        self.check_known(image.feature_level())?;
        let last = meta
            .last_log_id
            .ok_or_else(|| io::Error::other("a snapshot of nothing"))?;
        let membership = meta.last_membership.clone();
        let description = write_snapshot(&*self.kv, last, membership, &bytes).await?;
        self.take_over(image, &description);
        if let Some(checkpoint) = self.shared.due_checkpoint() {
            // Behind the snapshot, from which a start goes on if this is lost.
            let write = vec![self.state.checkpoint_write(&checkpoint)];
            state_store::write(&*self.kv, write, None)
                .await
                .map_err(io::Error::other)?;
        }
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        let found = read_snapshot(&*self.kv)?;
        Ok(found
            .map(|(description, bytes)| describe(description.last, description.membership, bytes)))
    }
}

/// Writes the image as it was when the builder was made.
pub struct ImageSnapshotBuilder {
    image: MetadataImage,
    last: Option<LogId>,
    membership: StoredMembership,
    kv: Arc<dyn KeyValueStore>,
}

impl RaftSnapshotBuilder<GroupTypes> for ImageSnapshotBuilder {
    type SnapshotData = Bytes;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let last = self
            .last
            .ok_or_else(|| io::Error::other("nothing was applied"))?;
        let bytes = Bytes::from(snapshot::encode(&self.image).map_err(io::Error::other)?);
        write_snapshot(&*self.kv, last, self.membership.clone(), &bytes).await?;
        Ok(describe(last, self.membership.clone(), bytes))
    }
}

fn describe(last: LogId, membership: StoredMembership, bytes: Bytes) -> Snapshot {
    let meta = openraft::SnapshotMeta {
        last_log_id: Some(last),
        last_membership: membership,
    };
    Snapshot {
        meta,
        snapshot: bytes,
    }
}

fn piece_key(piece: u32) -> Bytes {
    let mut key = BytesMut::with_capacity(5);
    key.put_u8(IMAGE);
    key.put_u32(piece);
    key.freeze()
}

/// Replaces the snapshot in one step.
async fn write_snapshot(
    kv: &dyn KeyValueStore,
    last: LogId,
    membership: StoredMembership,
    image: &Bytes,
) -> Result<Description, io::Error> {
    let mut writes = vec![KvWrite::DeleteRange(
        KeySpace::Metadata,
        piece_key(0),
        piece_key(u32::MAX),
    )];
    let mut pieces = 0;
    for start in (0..image.len()).step_by(SNAPSHOT_CHUNK_BYTES) {
        let end = image.len().min(start + SNAPSHOT_CHUNK_BYTES);
        writes.push(KvWrite::Put(
            KeySpace::Metadata,
            piece_key(pieces),
            image.slice(start..end),
        ));
        pieces += 1;
    }
    let mut bytes = codec::header();
    codec::put_log_id(&mut bytes, Some(&last));
    codec::put_stored_membership(&mut bytes, &membership);
    bytes.put_u32(pieces);
    bytes.put_u64(image.len() as u64);
    writes.push(KvWrite::Put(
        KeySpace::Metadata,
        Bytes::from_static(&[DESCRIPTION]),
        bytes.freeze(),
    ));
    state_store::write(kv, writes, Some(SyncPoint::ImageSnapshot))
        .await
        .map_err(io::Error::other)?;
    Ok(Description {
        last,
        membership,
        pieces,
        bytes: image.len() as u64,
    })
}

fn read_snapshot(kv: &dyn KeyValueStore) -> Result<Option<(Description, Bytes)>, io::Error> {
    let Some(bytes) = kv
        .get(KeySpace::Metadata, &[DESCRIPTION])
        .map_err(io::Error::other)?
    else {
        return Ok(None);
    };
    let description = decode_description(bytes).map_err(io::Error::other)?;
    let mut image = BytesMut::new();
    for piece in 0..description.pieces {
        let bytes = kv
            .get(KeySpace::Metadata, &piece_key(piece))
            .map_err(io::Error::other)?;
        image.put(
            bytes.ok_or_else(|| io::Error::other("a piece of the metadata snapshot is missing"))?,
        );
    }
    if image.len() as u64 != description.bytes {
        return Err(io::Error::other("the metadata snapshot has the wrong size"));
    }
    Ok(Some((description, image.freeze())))
}

/// The last entry of the stored snapshot, if there is one, after a look at all of it.
pub fn metadata_snapshot_end(kv: &dyn KeyValueStore) -> Result<Option<EntryIndex>, io::Error> {
    let Some((description, bytes)) = read_snapshot(kv)? else {
        return Ok(None);
    };
    snapshot::decode(&bytes).map_err(io::Error::other)?;
    Ok(Some(codec::entry_index(description.last.index)))
}

fn decode_description(mut bytes: Bytes) -> Result<Description, CodecError> {
    codec::check_header(&mut bytes)?;
    Ok(Description {
        last: codec::get_log_id(&mut bytes)?.ok_or(CodecError::Damaged("snapshot entry"))?,
        membership: codec::get_stored_membership(&mut bytes)?,
        pieces: bytes.try_get_u32()?,
        bytes: bytes.try_get_u64()?,
    })
}

#[cfg(test)]
mod tests {
    use tidelog_storage::kv::MemoryKv;

    use super::*;

    /// Whether a snapshot is there after the power went.
    async fn survives(left_out: Option<SyncPoint>) -> bool {
        let kv = MemoryKv::new().expect("starts");
        kv.leave_out(left_out);
        let last = LogId::new_term_index(1, 9);
        let image = Bytes::from(vec![7; 3 * SNAPSHOT_CHUNK_BYTES / 2]);
        let written = write_snapshot(&kv, last, StoredMembership::default(), &image).await;
        written.expect("is written");
        kv.power_loss();
        let found = read_snapshot(&kv).expect("is read");
        found.is_some_and(|(description, bytes)| description.last == last && bytes == image)
    }

    #[tokio::test]
    async fn a_snapshot_survives_a_power_loss_because_it_is_synced() {
        assert!(survives(None).await);
        assert!(!survives(Some(SyncPoint::ImageSnapshot)).await);
    }
}
