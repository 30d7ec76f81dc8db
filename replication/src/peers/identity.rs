//! Who this broker is to its peers, where they are, and how patient it is with them.

use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tidelog_protocol::types::BrokerId;
use tokio::sync::watch;
use uuid::Uuid;

use crate::metadata::levels::FEATURE_LEVELS;
use crate::raft::types::ReplicaId;

/// Shortest cluster secret: what is shorter is guessed.
const SECRET_BYTES_MIN: usize = 16;

/// What all brokers of a cluster know, and nobody else.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterSecret(Arc<[u8]>);

impl fmt::Debug for ClusterSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterSecret(..)")
    }
}

/// Why there is no listener for peers.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Anybody could join.
    #[error(
        "without a cluster secret the listener for brokers may be bound to loopback only, not to {0}: \
         set a secret, the same on every broker"
    )]
    NoSecret(SocketAddr),
    /// The operating system refused.
    #[error("listener for brokers on {0}: {1}")]
    Bind(SocketAddr, std::io::Error),
}

/// The secret is too short.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
#[error("the cluster secret has {0} bytes, at least {SECRET_BYTES_MIN} are needed")]
pub struct ShortSecret(usize);

impl ClusterSecret {
    /// A secret.
    pub fn new(bytes: &[u8]) -> Result<ClusterSecret, ShortSecret> {
        if bytes.len() < SECRET_BYTES_MIN {
            return Err(ShortSecret(bytes.len()));
        }
        Ok(ClusterSecret(Arc::from(bytes)))
    }
}

/// This broker, as its peers see it.
#[derive(Debug)]
pub struct LocalPeer {
    me: ReplicaId,
    cluster: Mutex<Uuid>,
    secret: Option<ClusterSecret>,
    levels: RangeInclusive<u16>,
    /// The cluster's feature level, as far as this broker knows; it only rises.
    cluster_level: AtomicU16,
}

impl LocalPeer {
    /// A broker; `cluster` is nil before it has joined one.
    pub fn new(me: ReplicaId, cluster: Uuid, secret: Option<ClusterSecret>) -> Arc<LocalPeer> {
        LocalPeer::with_levels(me, cluster, secret, FEATURE_LEVELS)
    }

    /// The same, of a program that knows these feature levels.
    pub fn with_levels(
        me: ReplicaId,
        cluster: Uuid,
        secret: Option<ClusterSecret>,
        levels: RangeInclusive<u16>,
    ) -> Arc<LocalPeer> {
        Arc::new(LocalPeer {
            me,
            cluster: Mutex::new(cluster),
            secret,
            levels,
            cluster_level: AtomicU16::new(0),
        })
    }

    /// The feature levels that this broker knows.
    pub fn levels(&self) -> &RangeInclusive<u16> {
        &self.levels
    }

    /// The cluster is at this feature level.
    pub fn reach_level(&self, level: u16) {
        self.cluster_level.fetch_max(level, Ordering::Relaxed);
    }

    /// Whether a program that knows this feature level may take part in the groups of the cluster. One that knows less
    /// would stop at what it cannot read.
    pub fn admits(&self, level: u16) -> bool {
        level >= self.cluster_level.load(Ordering::Relaxed)
    }

    /// Its id.
    pub fn me(&self) -> ReplicaId {
        self.me
    }

    /// Its cluster; nil before it has joined one.
    pub fn cluster(&self) -> Uuid {
        *self.cluster.lock()
    }

    /// It has joined a cluster. Connections made before stay what they were: those without a cluster carry calls only.
    pub fn join(&self, cluster: Uuid) {
        *self.cluster.lock() = cluster;
    }

    /// Whether strangers can be told from peers.
    pub fn has_secret(&self) -> bool {
        self.secret.is_some()
    }

    /// The key of its proofs; empty without a secret, which proves nothing but that the other has none either.
    pub fn key(&self) -> &[u8] {
        self.secret.as_ref().map_or(&[], |secret| &secret.0)
    }
}

/// Where a broker listens for its peers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PeerAddress {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Knows where brokers are.
pub trait PeerDirectory: fmt::Debug + Send + Sync + 'static {
    /// Where a broker listens, as far as known now. Must not block.
    fn address(&self, broker: BrokerId) -> Option<PeerAddress>;
    /// Changes whenever an address may have changed.
    fn changes(&self) -> watch::Receiver<u64>;
}

/// How long to wait for peers.
#[derive(Clone, Debug)]
pub struct PeerPatience {
    /// For a connection. Default 3 s.
    pub connect: Duration,
    /// For a whole handshake. Default 5 s.
    pub handshake: Duration,
    /// Silence after which the other end is asked whether it is there. Default 2 s.
    pub ping: Duration,
    /// Silence after which a connection is given up; twice that on the side that is asked. Default 10 s.
    pub silence: Duration,
    /// For the answer to an append. Default 10 s: a follower's disk may take some.
    pub append: Duration,
    /// For a vote or a transfer. Default 3 s.
    pub vote: Duration,
    /// For the answer to a piece of a snapshot. Default 30 s.
    pub piece: Duration,
    /// For the installation of a snapshot. Default 120 s.
    pub install: Duration,
    /// First pause before the next try to connect; doubles up to `retry_max`, with jitter. Default 50 ms.
    pub retry_min: Duration,
    /// Longest pause. Default 2 s: a broker that comes back is wanted soon, and a try costs a packet.
    pub retry_max: Duration,
    /// Longest wait for room in a full lane. Default 1 s.
    pub room: Duration,
    /// How long the beginning of a snapshot is kept after its connection was lost. Default 60 s.
    pub snapshot_kept: Duration,
}

impl Default for PeerPatience {
    fn default() -> Self {
        PeerPatience {
            connect: Duration::from_secs(3),
            handshake: Duration::from_secs(5),
            ping: Duration::from_secs(2),
            silence: Duration::from_secs(10),
            append: Duration::from_secs(10),
            vote: Duration::from_secs(3),
            piece: Duration::from_secs(30),
            install: Duration::from_secs(120),
            retry_min: Duration::from_millis(50),
            retry_max: Duration::from_secs(2),
            room: Duration::from_secs(1),
            snapshot_kept: Duration::from_secs(60),
        }
    }
}
