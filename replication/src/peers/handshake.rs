//! The handshake: who is there, of which cluster, and does it know the secret.
//!
//! Four frames. The side that connects proves first, so that a stranger gets nothing that it could try secrets on.
//! Proofs cover both nonces and everything that both sides said, with a label for each side.

use std::io;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use uuid::Uuid;

use super::codec::{get_text, put_text};
use super::frame::{FrameError, FrameKind, OutgoingFrame};
use super::identity::LocalPeer;
use super::wire::{FrameReader, Progress, WireError, write_frames};
use crate::raft::codec::{CodecError, get_replica, put_replica};
use crate::raft::types::ReplicaId;
use tidelog_protocol::types::BrokerId;

/// Opens the first frame.
const MAGIC: [u8; 8] = *b"TIDEPEER";

/// Versions of bodies that this program speaks.
pub const VERSIONS: std::ops::RangeInclusive<u8> = 1..=1;

const NONCE_BYTES: usize = 32;

const CONNECTING: &[u8] = b"tidelog peer, connecting side";
const ACCEPTING: &[u8] = b"tidelog peer, accepting side";

/// Connections between two brokers, for what must not wait for one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Votes, heartbeats, short calls.
    Control,
    /// Entries.
    Append,
    /// Snapshots, long calls.
    Bulk,
}

impl Lane {
    /// All of them.
    pub const ALL: [Lane; 3] = [Lane::Control, Lane::Append, Lane::Bulk];

    fn code(self) -> u8 {
        match self {
            Lane::Control => 0,
            Lane::Append => 1,
            Lane::Bulk => 2,
        }
    }

    fn of_code(code: u8) -> Option<Lane> {
        Lane::ALL.into_iter().find(|lane| lane.code() == code)
    }
}

/// Why a handshake was refused. On the wire: never change a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusedFor {
    /// No common version.
    Version,
    /// Another cluster.
    Cluster,
    /// Another broker, or another data directory of the same one.
    Replica,
    /// Another secret.
    Secret,
    /// Too many connections.
    Busy,
    /// Senseless bytes.
    Malformed,
    /// A reason of a newer version.
    Other(u16),
}

const REASONS: [(RefusedFor, u16); 6] = [
    (RefusedFor::Version, 1),
    (RefusedFor::Cluster, 2),
    (RefusedFor::Replica, 3),
    (RefusedFor::Secret, 4),
    (RefusedFor::Busy, 5),
    (RefusedFor::Malformed, 6),
];

impl RefusedFor {
    fn number(self) -> u16 {
        if let RefusedFor::Other(number) = self {
            return number;
        }
        let found = REASONS.iter().find(|(reason, _)| *reason == self);
        found.map_or(0, |(_, number)| *number)
    }

    fn of_number(number: u16) -> RefusedFor {
        let found = REASONS.iter().find(|(_, other)| *other == number);
        found.map_or(RefusedFor::Other(number), |(reason, _)| *reason)
    }
}

/// Why two brokers do not talk.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The connection failed.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// It took too long.
    #[error("no handshake within {0:?}")]
    Timeout(Duration),
    /// One of both refused.
    #[error("{text}")]
    Refused {
        /// For programs.
        reason: RefusedFor,
        /// For people: what is wrong and what to do.
        text: String,
        /// Whether the other end refused.
        by_peer: bool,
    },
}

impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> Self {
        WireError::from(error).into()
    }
}

fn refuse(reason: RefusedFor, text: impl Into<String>) -> HandshakeError {
    HandshakeError::Refused {
        reason,
        text: text.into(),
        by_peer: false,
    }
}

fn malformed(error: CodecError) -> HandshakeError {
    refuse(RefusedFor::Malformed, format!("handshake: {error}"))
}

/// What the handshake told of the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemotePeer {
    /// Broker and data directory.
    pub id: ReplicaId,
    /// Its cluster; nil if it has joined none.
    pub cluster: Uuid,
    /// Version of bodies that both speak.
    pub version: u8,
    /// What its program can do.
    pub feature_level: u16,
    /// The lane that the connection is.
    pub lane: Lane,
    /// Whether both ends know that they are of the same cluster.
    pub joined: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Hello {
    version_min: u8,
    version_max: u8,
    feature_level: u16,
    cluster: Uuid,
    me: ReplicaId,
    expected: Option<ReplicaId>,
    lane: Option<Lane>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Challenge {
    version: u8,
    feature_level: u16,
    cluster: Uuid,
    me: ReplicaId,
}

/// Stands for any replica.
const ANY: ReplicaId = ReplicaId {
    broker: BrokerId(-1),
    directory: Uuid::nil(),
};

fn put_nonce(bytes: &mut BytesMut) {
    for _ in 0..NONCE_BYTES / 16 {
        bytes.put_u128(Uuid::new_v4().as_u128());
    }
}

impl Hello {
    fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(128);
        bytes.put_slice(&MAGIC);
        bytes.put_u8(self.version_min);
        bytes.put_u8(self.version_max);
        bytes.put_u16(self.feature_level);
        bytes.put_u128(self.cluster.as_u128());
        put_replica(&mut bytes, &self.me);
        put_replica(&mut bytes, &self.expected.unwrap_or(ANY));
        bytes.put_u8(self.lane.map_or(u8::MAX, Lane::code));
        put_nonce(&mut bytes);
        bytes.freeze()
    }

    /// Bytes behind the nonce are of newer versions.
    fn decode(mut bytes: Bytes) -> Result<Hello, CodecError> {
        if bytes.len() < MAGIC.len() || bytes.split_to(MAGIC.len()) != MAGIC[..] {
            return Err(CodecError::Damaged("not a broker"));
        }
        let hello = Hello {
            version_min: bytes.try_get_u8()?,
            version_max: bytes.try_get_u8()?,
            feature_level: bytes.try_get_u16()?,
            cluster: Uuid::from_u128(bytes.try_get_u128()?),
            me: get_replica(&mut bytes)?,
            expected: Some(get_replica(&mut bytes)?).filter(|expected| *expected != ANY),
            lane: Lane::of_code(bytes.try_get_u8()?),
        };
        check_nonce(&bytes)?;
        Ok(hello)
    }
}

impl Challenge {
    fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(128);
        bytes.put_u8(self.version);
        bytes.put_u16(self.feature_level);
        bytes.put_u128(self.cluster.as_u128());
        put_replica(&mut bytes, &self.me);
        put_nonce(&mut bytes);
        bytes.freeze()
    }

    /// Bytes behind the nonce are of newer versions.
    fn decode(mut bytes: Bytes) -> Result<Challenge, CodecError> {
        let challenge = Challenge {
            version: bytes.try_get_u8()?,
            feature_level: bytes.try_get_u16()?,
            cluster: Uuid::from_u128(bytes.try_get_u128()?),
            me: get_replica(&mut bytes)?,
        };
        check_nonce(&bytes)?;
        Ok(challenge)
    }
}

fn check_nonce(bytes: &Bytes) -> Result<(), CodecError> {
    if bytes.len() < NONCE_BYTES {
        return Err(CodecError::Damaged("nonce"));
    }
    Ok(())
}

/// A proof over everything that was said.
fn proof(key: &[u8], side: &[u8], hello: &Bytes, challenge: &Bytes) -> Hmac<Sha256> {
    let mut proof = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    for part in [side, hello, challenge] {
        proof.update(&(part.len() as u64).to_be_bytes());
        proof.update(part);
    }
    proof
}

/// Makes a handshake on a connection that was made to a peer. `expected`: the only replica that will do.
pub async fn connect<R, W>(
    local: &LocalPeer,
    expected: Option<ReplicaId>,
    lane: Lane,
    reader: &mut FrameReader<R>,
    writer: &mut W,
    patience: Duration,
) -> Result<RemotePeer, HandshakeError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let handshake = connect_patiently(local, expected, lane, reader, writer);
    timeout(patience, handshake)
        .await
        .unwrap_or(Err(HandshakeError::Timeout(patience)))
}

async fn connect_patiently<R, W>(
    local: &LocalPeer,
    expected: Option<ReplicaId>,
    lane: Lane,
    reader: &mut FrameReader<R>,
    writer: &mut W,
) -> Result<RemotePeer, HandshakeError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let hello = Hello {
        version_min: *VERSIONS.start(),
        version_max: *VERSIONS.end(),
        feature_level: *local.levels().end(),
        cluster: local.cluster(),
        me: local.me(),
        expected,
        lane: Some(lane),
    };
    let said = hello.encode();
    send(writer, FrameKind::Hello, &said).await?;
    let heard = receive(reader, FrameKind::Challenge).await?;
    let challenge = Challenge::decode(heard.clone()).map_err(malformed)?;
    if !VERSIONS.contains(&challenge.version) {
        return Err(refuse(
            RefusedFor::Version,
            version_text(challenge.version, challenge.version),
        ));
    }
    check_cluster(hello.cluster, challenge.cluster)?;
    if let Some(expected) = expected {
        check_replica(expected, challenge.me)?;
    }
    let mine = proof(local.key(), CONNECTING, &said, &heard);
    send(writer, FrameKind::Proof, &mine.finalize().into_bytes()).await?;
    let theirs = receive(reader, FrameKind::Welcome).await?;
    proof(local.key(), ACCEPTING, &said, &heard)
        .verify_slice(&theirs)
        .map_err(|_| wrong_secret(local))?;
    Ok(RemotePeer {
        id: challenge.me,
        cluster: challenge.cluster,
        version: challenge.version,
        feature_level: challenge.feature_level,
        lane,
        joined: !challenge.cluster.is_nil() && challenge.cluster == hello.cluster,
    })
}

/// Makes a handshake on a connection that somebody made to us. Whoever is refused is told why.
pub async fn accept<R, W>(
    local: &LocalPeer,
    reader: &mut FrameReader<R>,
    writer: &mut W,
    patience: Duration,
) -> Result<RemotePeer, HandshakeError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let handshake = async {
        let result = accept_patiently(local, reader, writer).await;
        match &result {
            Err(HandshakeError::Refused {
                reason,
                text,
                by_peer: false,
            }) => {
                tell_refusal(writer, *reason, text).await?;
            }
            // Bytes of something else get no answer that could confuse it.
            Err(HandshakeError::Wire(WireError::Frame(FrameError::Version(_)))) | Ok(_) => {}
            Err(HandshakeError::Wire(WireError::Frame(error))) => {
                tell_refusal(writer, RefusedFor::Malformed, &error.to_string()).await?;
            }
            Err(_) => {}
        }
        result
    };
    timeout(patience, handshake)
        .await
        .unwrap_or(Err(HandshakeError::Timeout(patience)))
}

async fn accept_patiently<R, W>(
    local: &LocalPeer,
    reader: &mut FrameReader<R>,
    writer: &mut W,
) -> Result<RemotePeer, HandshakeError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let heard = receive(reader, FrameKind::Hello).await?;
    let hello = Hello::decode(heard.clone()).map_err(malformed)?;
    let version = hello.version_max.min(*VERSIONS.end());
    if version < hello.version_min || version < *VERSIONS.start() {
        let text = version_text(hello.version_min, hello.version_max);
        return Err(refuse(RefusedFor::Version, text));
    }
    let cluster = local.cluster();
    check_cluster(cluster, hello.cluster)?;
    if let Some(expected) = hello.expected {
        check_replica(expected, local.me())?;
    }
    if hello.me == local.me() {
        let text = "a broker connects to itself: give the address of another one";
        return Err(refuse(RefusedFor::Replica, text));
    }
    let lane = hello
        .lane
        .ok_or_else(|| malformed(CodecError::Damaged("lane")))?;
    let challenge = Challenge {
        version,
        feature_level: *local.levels().end(),
        cluster,
        me: local.me(),
    };
    let said = challenge.encode();
    send(writer, FrameKind::Challenge, &said).await?;
    let theirs = receive(reader, FrameKind::Proof).await?;
    proof(local.key(), CONNECTING, &heard, &said)
        .verify_slice(&theirs)
        .map_err(|_| wrong_secret(local))?;
    let mine = proof(local.key(), ACCEPTING, &heard, &said);
    send(writer, FrameKind::Welcome, &mine.finalize().into_bytes()).await?;
    Ok(RemotePeer {
        id: hello.me,
        cluster: hello.cluster,
        version,
        feature_level: hello.feature_level,
        lane,
        joined: !cluster.is_nil() && cluster == hello.cluster,
    })
}

fn version_text(min: u8, max: u8) -> String {
    format!(
        "this broker speaks versions {} to {} of the protocol between brokers, the other {min} to {max}: upgrade the \
         older one, one release at a time",
        VERSIONS.start(),
        VERSIONS.end()
    )
}

/// Two clusters do not mix; a broker without one may ask to join.
fn check_cluster(mine: Uuid, theirs: Uuid) -> Result<(), HandshakeError> {
    if mine.is_nil() || theirs.is_nil() || mine == theirs {
        return Ok(());
    }
    Err(refuse(
        RefusedFor::Cluster,
        format!(
            "one broker is of cluster {mine}, the other of {theirs}: a data directory belongs to one cluster for good; \
             join with an empty one, or correct the address"
        ),
    ))
}

fn check_replica(expected: ReplicaId, found: ReplicaId) -> Result<(), HandshakeError> {
    if expected == found {
        return Ok(());
    }
    let text = if expected.broker == found.broker {
        format!(
            "broker {} was expected with data directory {}, and has {}: an empty directory takes the place of a \
             lost one with --join",
            found.broker, expected.directory, found.directory
        )
    } else {
        format!(
            "broker {} was expected and broker {} is there: correct the advertised address of one of them",
            expected.broker, found.broker
        )
    };
    Err(refuse(RefusedFor::Replica, text))
}

fn wrong_secret(local: &LocalPeer) -> HandshakeError {
    let text = if local.has_secret() {
        "the other broker has another cluster secret, or none: give all brokers the same one"
    } else {
        "the other broker has a cluster secret and this one has none: give all brokers the same one"
    };
    refuse(RefusedFor::Secret, text)
}

/// Tells the other end why it is refused.
pub async fn tell_refusal<W: AsyncWrite + Unpin>(
    writer: &mut W,
    reason: RefusedFor,
    text: &str,
) -> Result<(), HandshakeError> {
    let mut bytes = BytesMut::new();
    bytes.put_u16(reason.number());
    put_text(&mut bytes, text);
    send(writer, FrameKind::Refused, &bytes).await
}

async fn send<W: AsyncWrite + Unpin>(
    writer: &mut W,
    kind: FrameKind,
    body: &[u8],
) -> Result<(), HandshakeError> {
    let frame = OutgoingFrame::of(kind, 0, body);
    Ok(write_frames(writer, vec![frame], &Progress::new()).await?)
}

async fn receive<R: AsyncRead + Unpin>(
    reader: &mut FrameReader<R>,
    expected: FrameKind,
) -> Result<Bytes, HandshakeError> {
    let header = reader.header().await?;
    // What is not of a handshake may be long: its body is not read.
    if header.kind == expected {
        return Ok(reader.body(header).await?.body);
    }
    if header.kind != FrameKind::Refused {
        return Err(WireError::from(FrameError::Unexpected(header.kind)).into());
    }
    let mut body = reader.body(header).await?.body;
    let number = body
        .try_get_u16()
        .map_err(|error| malformed(error.into()))?;
    Err(HandshakeError::Refused {
        reason: RefusedFor::of_number(number),
        text: get_text(&mut body).map_err(malformed)?,
        by_peer: true,
    })
}

#[cfg(test)]
mod tests;
