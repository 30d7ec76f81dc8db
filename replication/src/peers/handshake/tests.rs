//! Who gets in, and what the others are told.

use tokio::io::{AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split};

use super::super::frame::{Frame, HEADER_BYTES, RequestKind};
use super::super::identity::ClusterSecret;
use super::*;
use crate::metadata::levels::FEATURE_LEVEL_MAX;

const PATIENCE: Duration = Duration::from_secs(20);

type End = (FrameReader<ReadHalf<DuplexStream>>, WriteHalf<DuplexStream>);

fn ends() -> (End, End) {
    let (one, other) = duplex(1 << 16);
    let end = |stream| {
        let (reader, writer) = split(stream);
        (FrameReader::new(reader, Progress::new()), writer)
    };
    (end(one), end(other))
}

fn replica(broker: i32, directory: u128) -> ReplicaId {
    ReplicaId {
        broker: BrokerId(broker),
        directory: Uuid::from_u128(directory),
    }
}

fn secret(text: &str) -> Option<ClusterSecret> {
    Some(ClusterSecret::new(text.as_bytes()).expect("long enough"))
}

struct Side {
    me: ReplicaId,
    cluster: u128,
    secret: Option<ClusterSecret>,
}

impl Side {
    fn new(broker: i32) -> Side {
        Side {
            me: replica(broker, 10 + broker as u128),
            cluster: 99,
            secret: secret("correct horse battery"),
        }
    }

    fn local(&self) -> std::sync::Arc<LocalPeer> {
        LocalPeer::new(self.me, Uuid::from_u128(self.cluster), self.secret.clone())
    }
}

type Outcome = Result<RemotePeer, HandshakeError>;

async fn meet(one: &Side, other: &Side, expected: Option<ReplicaId>) -> (Outcome, Outcome) {
    let (mut here, mut there) = ends();
    let (one, other) = (one.local(), other.local());
    let connecting = async {
        let lane = Lane::Append;
        let met = connect(&one, expected, lane, &mut here.0, &mut here.1, PATIENCE).await;
        if met.is_err() {
            here.1.shutdown().await.expect("closes");
        }
        met
    };
    let accepting = async {
        let met = accept(&other, &mut there.0, &mut there.1, PATIENCE).await;
        if met.is_err() {
            there.1.shutdown().await.expect("closes");
        }
        met
    };
    tokio::join!(connecting, accepting)
}

/// Both ends fail; somebody refused for this reason and the text says this.
fn assert_refused((one, other): (Outcome, Outcome), reason: RefusedFor, says: &str) {
    let mut told = 0;
    for outcome in [one, other] {
        match outcome {
            Err(HandshakeError::Refused {
                reason: found,
                text,
                ..
            }) => {
                assert_eq!(found, reason, "{text}");
                assert!(text.contains(says), "{text}");
                told += 1;
            }
            Err(HandshakeError::Wire(WireError::Closed)) => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(told > 0, "nobody says why");
}

#[tokio::test]
async fn brokers_of_one_cluster_meet() {
    let (one, other) = (Side::new(1), Side::new(2));
    let (met, was_met) = meet(&one, &other, Some(other.me)).await;
    let expected = RemotePeer {
        id: other.me,
        cluster: Uuid::from_u128(99),
        version: 1,
        feature_level: FEATURE_LEVEL_MAX,
        lane: Lane::Append,
        joined: true,
    };
    assert_eq!(met.expect("meets"), expected);
    let expected = RemotePeer {
        id: one.me,
        ..expected
    };
    assert_eq!(was_met.expect("meets"), expected);
}

#[tokio::test]
async fn one_that_wants_to_join_is_let_in_and_marked() {
    let (mut one, other) = (Side::new(1), Side::new(2));
    one.cluster = 0;
    let (met, was_met) = meet(&one, &other, None).await;
    let met = met.expect("meets");
    assert_eq!((met.joined, met.cluster), (false, Uuid::from_u128(99)));
    assert!(!was_met.expect("meets").joined);
}

#[tokio::test]
async fn another_secret_or_none_is_refused() {
    let (one, mut other) = (Side::new(1), Side::new(2));
    for secret in [secret("incorrect horse battery"), None] {
        other.secret = secret;
        let met = meet(&one, &other, None).await;
        assert_refused(met, RefusedFor::Secret, "give all brokers the same one");
        let met = meet(&other, &one, None).await;
        assert_refused(met, RefusedFor::Secret, "give all brokers the same one");
    }
}

#[tokio::test]
async fn another_cluster_is_refused() {
    let (one, mut other) = (Side::new(1), Side::new(2));
    other.cluster = 98;
    let met = meet(&one, &other, None).await;
    assert_refused(met, RefusedFor::Cluster, "join with an empty one");
}

#[tokio::test]
async fn another_data_directory_or_broker_is_refused() {
    let (one, other) = (Side::new(1), Side::new(2));
    let met = meet(&one, &other, Some(replica(2, 77))).await;
    assert_refused(met, RefusedFor::Replica, "takes the place of a lost one");
    let met = meet(&one, &other, Some(replica(3, 12))).await;
    assert_refused(met, RefusedFor::Replica, "correct the advertised address");
}

#[tokio::test]
async fn a_broker_does_not_meet_itself() {
    let met = meet(&Side::new(1), &Side::new(1), None).await;
    assert_refused(met, RefusedFor::Replica, "the address of another one");
}

fn hello(side: &Side) -> Hello {
    Hello {
        version_min: 1,
        version_max: 1,
        feature_level: 3,
        cluster: Uuid::from_u128(side.cluster),
        me: side.me,
        expected: None,
        lane: Some(Lane::Bulk),
    }
}

/// What the accepting side makes of a first frame, and what it answers.
async fn accept_bytes(bytes: &[u8]) -> (HandshakeError, Result<Frame, WireError>) {
    let (mut here, mut there) = ends();
    here.1.write_all(bytes).await.expect("is written");
    here.1.shutdown().await.expect("closes");
    let local = Side::new(2).local();
    let met = accept(&local, &mut there.0, &mut there.1, PATIENCE).await;
    there.1.shutdown().await.expect("closes");
    (met.expect_err("is no handshake"), here.0.frame().await)
}

fn framed(kind: FrameKind, body: &[u8]) -> Vec<u8> {
    OutgoingFrame::of(kind, 0, body).into_pieces().concat()
}

#[tokio::test]
async fn versions_too_far_away_are_refused() {
    let mut far = hello(&Side::new(1));
    (far.version_min, far.version_max) = (2, 7);
    let (error, answer) = accept_bytes(&framed(FrameKind::Hello, &far.encode())).await;
    let HandshakeError::Refused { reason, text, .. } = error else {
        panic!("{error}");
    };
    assert_eq!(reason, RefusedFor::Version);
    assert!(text.contains("upgrade the older one"), "{text}");
    assert_eq!(answer.expect("an answer").kind, FrameKind::Refused);
}

#[tokio::test]
async fn newer_versions_may_say_more() {
    let mut newer = hello(&Side::new(1));
    newer.version_max = 9;
    let mut bytes = newer.encode().to_vec();
    bytes.extend_from_slice(b"something new");
    assert_eq!(Hello::decode(bytes.into()), Ok(newer));
}

#[tokio::test]
async fn a_first_frame_that_is_cut_anywhere_ends_the_connection() {
    let whole = framed(FrameKind::Hello, &hello(&Side::new(1)).encode());
    for len in 0..whole.len() {
        let (error, answer) = accept_bytes(&whole[..len]).await;
        assert!(
            matches!(error, HandshakeError::Wire(WireError::Closed)),
            "{len}: {error}"
        );
        assert!(answer.is_err(), "{len}: {answer:?}");
    }
    for len in 0..whole.len() - HEADER_BYTES {
        let cut = framed(FrameKind::Hello, &whole[HEADER_BYTES..][..len]);
        let (error, _) = accept_bytes(&cut).await;
        let malformed = RefusedFor::Malformed;
        assert!(
            matches!(error, HandshakeError::Refused { reason, .. } if reason == malformed),
            "{len}: {error}"
        );
    }
}

#[tokio::test]
async fn other_frames_and_other_protocols_get_nowhere() {
    // A request for the versions of Kafka's protocol.
    let kafka = b"\0\0\0\x0d\0\x12\0\0\0\0\0\x01\0\x03abcdefgh";
    let (error, answer) = accept_bytes(kafka).await;
    assert!(matches!(
        error,
        HandshakeError::Wire(WireError::Frame(FrameError::Version(0)))
    ));
    assert!(
        matches!(answer, Err(WireError::Closed)),
        "no answer: {answer:?}"
    );
    for kind in [
        FrameKind::Request(RequestKind::Append),
        FrameKind::Proof,
        FrameKind::Request(RequestKind::Call),
    ] {
        let mut bytes = framed(kind, &[]);
        bytes[..4].copy_from_slice(&1_000u32.to_be_bytes());
        let (error, _) = accept_bytes(&bytes).await;
        assert!(
            matches!(error, HandshakeError::Wire(WireError::Frame(_))),
            "{kind:?}: {error}"
        );
    }
}

#[tokio::test]
async fn a_stranger_gets_no_proof_and_an_old_one_is_worth_nothing() {
    let (one, other) = (Side::new(1), Side::new(2));
    let said = hello(&one).encode();
    let mut proofs = Vec::new();
    for _ in 0..2 {
        let (mut here, mut there) = ends();
        let local = other.local();
        let accepting = accept(&local, &mut there.0, &mut there.1, PATIENCE);
        let connecting = async {
            send(&mut here.1, FrameKind::Hello, &said)
                .await
                .expect("is sent");
            let heard = receive(&mut here.0, FrameKind::Challenge)
                .await
                .expect("is there");
            let proof = proof(one.local().key(), CONNECTING, &said, &heard);
            let proof = proofs
                .pop()
                .unwrap_or(proof.finalize().into_bytes().to_vec());
            send(&mut here.1, FrameKind::Proof, &proof)
                .await
                .expect("is sent");
            proofs.push(proof);
            receive(&mut here.0, FrameKind::Welcome).await
        };
        let (_, welcome) = tokio::join!(accepting, connecting);
        if proofs.len() == 1 && welcome.is_ok() {
            continue;
        }
        let secret = RefusedFor::Secret;
        assert!(
            matches!(welcome, Err(HandshakeError::Refused { reason, .. }) if reason == secret),
            "{welcome:?}"
        );
        return;
    }
    panic!("the proof of an earlier handshake was taken");
}

#[tokio::test]
async fn one_that_says_nothing_is_given_up() {
    let (_here, mut there) = ends();
    let local = Side::new(2).local();
    let patience = Duration::from_millis(50);
    let met = accept(&local, &mut there.0, &mut there.1, patience).await;
    assert!(matches!(met, Err(HandshakeError::Timeout(_))), "{met:?}");
}

#[test]
fn the_first_frames_have_the_bytes_of_version_1() {
    let side = Side::new(1);
    let hex = |bytes: &[u8]| {
        bytes
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    let mut said = hello(&side);
    said.expected = Some(replica(2, 12));
    let bytes = said.encode();
    assert_eq!(bytes.len(), 69 + NONCE_BYTES);
    assert_eq!(
        hex(&bytes[..69]),
        format!(
            "{}01010003{:032x}00000001{:032x}00000002{:032x}02",
            hex(b"TIDEPEER"),
            99,
            11,
            12
        )
    );
    let challenge = Challenge {
        version: 1,
        feature_level: 3,
        cluster: Uuid::from_u128(99),
        me: side.me,
    };
    let bytes = challenge.encode();
    assert_eq!(bytes.len(), 39 + NONCE_BYTES);
    assert_eq!(
        hex(&bytes[..39]),
        format!("010003{:032x}00000001{:032x}", 99, 11)
    );
    let proof = proof(
        b"key",
        CONNECTING,
        &Bytes::from_static(b"hello"),
        &Bytes::from_static(b"challenge"),
    );
    assert_eq!(
        hex(&proof.finalize().into_bytes()),
        "03cea5bba272d631617262dcf791a86d5837120ef69a8a24dc832ee04e6a32e0"
    );
}
