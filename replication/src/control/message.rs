//! The requests of the control plane and their answers.

use bytes::Bytes;
use tidelog_protocol::types::BrokerId;
use uuid::Uuid;

use crate::controller::quorum::Quorum;
use crate::election::Elected;
use crate::metadata::command::{MetadataError, Outcome};
use crate::partition::records::{RecordsRead, RecordsWanted};
use crate::peers::PeerAddress;
use crate::raft::types::{GroupId, ReplicaId};
use crate::succession::SleeperEnd;
use crate::throttle::{Pace, Paced};

/// What a broker asks another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Which cluster is this, and who is in it? The only one that may be asked before joining.
    Introduce,
    /// Carry out a command; only the controller does.
    Submit {
        /// The command, as it is stored.
        record: Bytes,
        /// How long the caller waits.
        timeout_ms: u32,
    },
    /// Up to which entry is the metadata committed? Only the controller knows.
    ReadIndex,
    /// A broker is there; of interest to the controller only.
    Heartbeat {
        /// The broker.
        broker: BrokerId,
        /// Epoch of its registration.
        epoch: i64,
    },
    /// Hand partitions that the asked broker leads over to the replicas that are preferred.
    HandOver(Vec<GroupId>),
    /// Who is in the controller group? Only the controller knows.
    DescribeQuorum,
    /// Records of a partition that the asked broker has.
    ReadRecords(RecordsWanted),
    /// Tell the other replicas of partitions that the asked broker leads what is committed.
    TellCommitted(Vec<GroupId>),
    /// Do the asked broker's replicas of these groups sleep, with nothing in their logs beyond these ends?
    Agree(Vec<SleeperEnd>),
    /// An operator trusts what the asked broker's replicas of these partitions have: they are to elect a leader.
    Trust(Vec<GroupId>),
    /// May bytes go to or come from the asked broker's replica, as far as it is throttled?
    Pace(Pace),
}

/// What it answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// To [`Request::Introduce`].
    Introduced(Introduction),
    /// To [`Request::Submit`]: the command was applied.
    Submitted {
        /// What came of it.
        result: Result<Outcome, MetadataError>,
        /// Index of the last entry that the controller had applied by then.
        applied: u64,
    },
    /// To [`Request::ReadIndex`]: index of the last entry applied; everything committed before the request is in it.
    Applied(u64),
    /// To [`Request::Heartbeat`], [`Request::TellCommitted`] and [`Request::Trust`].
    Heard,
    /// To [`Request::HandOver`]: what came of each, in their order.
    HandedOver(Vec<Elected>),
    /// To [`Request::DescribeQuorum`].
    Quorum(Quorum),
    /// To [`Request::ReadRecords`].
    Records(RecordsRead),
    /// To [`Request::Agree`]: for each group, in their order.
    Agreed(Vec<bool>),
    /// To [`Request::Pace`].
    Paced(Paced),
    /// Another broker is the controller, where known.
    NotController(Option<BrokerId>),
    /// It could not be done now, and nothing of it was.
    NotNow(String),
}

/// A broker of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Broker and data directory.
    pub replica: ReplicaId,
    /// Where it listens for its peers.
    pub address: Option<PeerAddress>,
}

/// A cluster, as one of its brokers knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Introduction {
    /// Its id.
    pub cluster_id: Uuid,
    /// Level of its metadata's format: a broker that knows less cannot join.
    pub feature_level: u16,
    /// The broker that leads the controller group, where known.
    pub controller: Option<BrokerId>,
    /// All registered brokers.
    pub members: Vec<Member>,
}
