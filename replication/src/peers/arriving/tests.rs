//! Pieces in order become the snapshot that was announced, or nothing.

use tidelog_protocol::types::{BrokerId, PartitionIndex, TopicId};
use uuid::Uuid;

use super::*;
use crate::raft::types::StoredMembership;

const KEPT: Duration = Duration::from_secs(60);

fn from(broker: i32) -> ReplicaId {
    ReplicaId {
        broker: BrokerId(broker),
        directory: Uuid::from_u128(1),
    }
}

fn group(partition: i32) -> GroupId {
    GroupId {
        topic: TopicId(Uuid::from_u128(42)),
        partition: PartitionIndex(partition),
    }
}

fn announce(bytes: &[u8]) -> SnapshotAnnouncement {
    SnapshotAnnouncement {
        vote: Vote::new_committed(1, from(1)),
        id: name_of(bytes),
        bytes: bytes.len() as u64,
        last: None,
        membership: StoredMembership::default(),
    }
}

fn piece(whole: &'static [u8], offset: usize, len: usize) -> SnapshotPiece {
    SnapshotPiece {
        id: name_of(whole),
        offset: offset as u64,
        bytes: Bytes::from_static(&whole[offset..offset + len]),
    }
}

const WHOLE: &[u8] = b"0123456789";

#[tokio::test]
async fn what_arrived_is_kept_and_goes_on() {
    let snapshots = ArrivingSnapshots::new(KEPT);
    let begin = || snapshots.begin(from(1), group(0), announce(WHOLE));
    assert_eq!(begin(), Ok(0));
    let put = |offset, len| snapshots.piece(from(1), group(0), &piece(WHOLE, offset, len));
    assert_eq!(put(0, 4), Ok(4));
    // The connection is lost, and another one made.
    assert_eq!(begin(), Ok(4));
    assert!(put(0, 4).is_err(), "it is here");
    assert!(put(5, 5).is_err(), "a gap");
    assert_eq!(put(4, 6), Ok(10));
    let (_, snapshot) = snapshots
        .end(from(1), group(0), name_of(WHOLE))
        .expect("is whole");
    assert_eq!(snapshot.snapshot, WHOLE);
    assert!(snapshots.end(from(1), group(0), name_of(WHOLE)).is_err());
}

#[tokio::test]
async fn another_snapshot_begins_anew_and_damage_is_found() {
    let snapshots = ArrivingSnapshots::new(KEPT);
    snapshots
        .begin(from(1), group(0), announce(b"abcdefghij"))
        .expect("has room");
    let other = piece(WHOLE, 0, 4);
    assert!(
        snapshots.piece(from(1), group(0), &other).is_err(),
        "not announced"
    );
    assert_eq!(snapshots.begin(from(1), group(0), announce(WHOLE)), Ok(0));
    let mut damaged = piece(WHOLE, 0, 10);
    damaged.bytes = Bytes::from_static(b"0123456798");
    snapshots.piece(from(1), group(0), &damaged).expect("fits");
    assert!(snapshots.end(from(1), group(0), name_of(WHOLE)).is_err());
    assert_eq!(
        snapshots.begin(from(1), group(0), announce(WHOLE)),
        Ok(0),
        "what was damaged is not kept"
    );
    let mut long = piece(WHOLE, 0, 10);
    long.bytes = Bytes::from_static(b"0123456789+");
    assert!(snapshots.piece(from(1), group(0), &long).is_err());
    let short = snapshots.end(from(1), group(0), name_of(WHOLE));
    assert!(short.is_err(), "it is not whole");
}

#[tokio::test]
async fn room_is_bounded_and_given_back_after_a_while() {
    let kept = Duration::from_millis(300);
    let snapshots = ArrivingSnapshots::new(kept);
    for partition in 0..PEER_SNAPSHOTS_ARRIVING_MAX {
        let group = group(i32::try_from(partition).expect("few"));
        snapshots
            .begin(from(1), group, announce(WHOLE))
            .expect("has room");
    }
    let one_more = || snapshots.begin(from(2), group(0), announce(WHOLE));
    let code = one_more().map_err(|refusal| refusal.code);
    assert_eq!(code, Err(RefusalCode::Busy));
    tokio::time::sleep(kept).await;
    assert_eq!(one_more(), Ok(0));
    let mut huge = announce(WHOLE);
    huge.bytes = u64::MAX;
    let refused = snapshots.begin(from(3), group(0), huge.clone());
    assert_eq!(refused.map_err(|it| it.code), Err(RefusalCode::Busy));
    huge.bytes = PEER_SNAPSHOT_BYTES_MAX - WHOLE.len() as u64;
    assert_eq!(snapshots.begin(from(3), group(0), huge), Ok(0));
    let refused = snapshots.begin(from(4), group(0), announce(b"x"));
    assert_eq!(refused.map_err(|it| it.code), Err(RefusalCode::Busy));
}
