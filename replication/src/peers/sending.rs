//! A snapshot on its way out: announced, then piece by piece, then its end.
//!
//! The other end keeps what it has when the connection is lost, and says so when the same bytes are announced again.

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use openraft::raft::SnapshotResponse;
use sha2::{Digest, Sha256};

use super::codec::{self, SnapshotAnnouncement, SnapshotPiece};
use super::connection::{Connection, RequestError};
use super::frame::RequestKind;
use super::identity::PeerPatience;
use crate::limits::{PEER_PIECE_BYTES, PEER_PIECES_IN_FLIGHT_MAX};
use crate::raft::network::Snapshot;
use crate::raft::types::{GroupId, GroupTypes, Vote};

/// Names bytes.
pub fn name_of(bytes: &[u8]) -> u128 {
    let digest = Sha256::digest(bytes);
    let first = digest.iter().take(16);
    first.fold(0, |name, byte| name << 8 | u128::from(*byte))
}

/// Sends a snapshot, from where the other end has it, and waits until it is installed.
pub async fn send_snapshot(
    connection: &Connection,
    group: GroupId,
    vote: Vote,
    snapshot: Snapshot,
    patience: &PeerPatience,
) -> Result<SnapshotResponse<GroupTypes>, RequestError> {
    let bytes = snapshot.snapshot;
    let named = bytes.clone();
    let id = tokio::task::spawn_blocking(move || name_of(&named)).await;
    let id = id.map_err(|error| RequestError::Senseless(error.to_string()))?;
    let announcement = SnapshotAnnouncement {
        vote,
        id,
        bytes: bytes.len() as u64,
        last: snapshot.meta.last_log_id,
        membership: snapshot.meta.last_membership,
    };
    let begin = codec::encode_announcement(group, &announcement);
    let reply = connection.request(RequestKind::SnapshotBegin, begin, patience.piece);
    let received = codec::decode_received(reply.await?)?;
    let from = usize::try_from(received)
        .ok()
        .filter(|from| *from <= bytes.len())
        .ok_or_else(|| RequestError::Senseless("more was received than was sent".into()))?;
    stream::iter((from..bytes.len()).step_by(PEER_PIECE_BYTES))
        .map(|offset| {
            let end = bytes.len().min(offset + PEER_PIECE_BYTES);
            let piece = SnapshotPiece {
                id,
                offset: offset as u64,
                bytes: bytes.slice(offset..end),
            };
            send_piece(connection, group, piece, patience)
        })
        .buffered(PEER_PIECES_IN_FLIGHT_MAX)
        .try_for_each(|_: Bytes| std::future::ready(Ok(())))
        .await?;
    let end = codec::encode_snapshot_end(group, id);
    let reply = connection.request(RequestKind::SnapshotEnd, end, patience.install);
    Ok(codec::decode_snapshot_reply(reply.await?)?)
}

/// Sends a piece. The lane is shared: a piece that finds no room waits for it.
async fn send_piece(
    connection: &Connection,
    group: GroupId,
    piece: SnapshotPiece,
    patience: &PeerPatience,
) -> Result<Bytes, RequestError> {
    let deadline = tokio::time::Instant::now() + patience.piece;
    loop {
        let body = codec::encode_piece(group, piece.clone());
        let sent = connection.request(RequestKind::SnapshotPiece, body, patience.piece);
        match sent.await {
            Err(RequestError::Full(_)) if tokio::time::Instant::now() < deadline => {
                connection.wait_for_room(patience.room).await;
            }
            result => return result,
        }
    }
}
