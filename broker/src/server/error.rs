//! Why a broker does not start, in one line that tells a person what to do.

use std::io;

use tidelog_replication::{JoinError, ListenError, StartError as ReplicationError};
use tidelog_storage::fs::{IdentityError, LockError};
use tidelog_storage::kv::KvError;
use tidelog_storage::manager::OpenError;

/// See the module.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The data directory is in use, or cannot be written.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The data directory's identity cannot be read or written.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The data directory is another broker's.
    #[error("data directory {directory} belongs to broker {found}, but node.id is {configured}")]
    BrokerId {
        /// The directory.
        directory: String,
        /// The broker that it belongs to.
        found: i32,
        /// The broker that was configured.
        configured: i32,
    },
    /// The data directory's cluster id is not one.
    #[error("data directory {directory}: cluster.id {found:?} is not a cluster id")]
    ClusterId {
        /// The directory.
        directory: String,
        /// What stands there.
        found: String,
    },
    /// A variable that only tests set is not in order.
    #[error("{name}: {value:?} is not what it may be")]
    TestVariable {
        /// The variable.
        name: String,
        /// Its value.
        value: String,
    },
    /// A port is taken, or an address is not this machine's.
    #[error("{property}: cannot listen on {address}: {source}{}", hint(source))]
    Bind {
        /// The property that names the address.
        property: &'static str,
        /// The address.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// The cluster's secret cannot be used.
    #[error("cluster.secret.file {file}: {reason}")]
    Secret {
        /// The file.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// There is no listener for other brokers.
    #[error("inter.broker.listener: {0}")]
    PeerListener(#[from] ListenError),
    /// The cluster cannot be joined.
    #[error("cannot join: {0}")]
    Join(#[from] JoinError),
    /// The data directory was made to join a cluster, which did not come about.
    #[error(
        "data directory {directory} has not joined its cluster yet: start it with --join HOST:PORT of a broker that has, or empty it"
    )]
    NotJoined {
        /// The directory.
        directory: String,
    },
    /// The broker to join by is of another cluster.
    #[error(
        "data directory {directory} belongs to cluster {found}, the broker to join by to cluster {asked}: empty the directory, or name a broker of its own cluster"
    )]
    OtherCluster {
        /// The directory.
        directory: String,
        /// Its cluster.
        found: String,
        /// The other.
        asked: String,
    },
    /// The key-value store does not open.
    #[error("data directory {directory}: {source}")]
    Kv {
        /// The directory.
        directory: String,
        /// What it said.
        source: KvError,
    },
    /// The logs do not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The cluster's metadata or the partitions do not start.
    #[error(transparent)]
    Replication(#[from] ReplicationError),
    /// A part of the start failed unexpectedly.
    #[error("start-up failed: {0}")]
    Internal(String),
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            " (another process listens there; choose another port or stop it)"
        }
        io::ErrorKind::PermissionDenied => {
            " (ports below 1024 need a privilege; choose another one)"
        }
        _ => "",
    }
}
