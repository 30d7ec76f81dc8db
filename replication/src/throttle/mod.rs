//! Replicas that catch up do so at the rate that an operator allows (KIP-73), and nobody else waits for them.
//!
//! Bytes are counted twice: by the leader that gives them, of which `leader.replication.throttled.rate` is asked, and by the
//! follower that gets them, of which `follower.replication.throttled.rate` is. The side that carries them pays at home, then
//! asks the other broker for a place in its flow, before it touches any of them: while it waits nothing is held in memory, no
//! connection is used, and no message of the group is held up but the entries that this one replica lacks.
//!
//! Only what a replica that is not in sync lacks is counted, and only as long as records are acknowledged without it. What
//! applies is looked at again while somebody waits, at once when a setting changes.

mod flow;
mod pacer;
mod replicas;

use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tidelog_protocol::types::BrokerId;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use crate::control::ControlClient;
use crate::hosted::HostedPartitions;
use crate::raft::types::GroupId;

use flow::Flow;
pub use flow::Place;
pub use pacer::Pacer;
pub use replicas::{ReplicaList, ThrottleRates, ThrottledReplicas};

/// Longest pause before somebody who waits looks again whether it has to: who is in sync changes without a word.
const LOOK: Duration = Duration::from_secs(1);

/// The side on which bytes are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// That of the replica that gives them.
    Leader,
    /// That of the replica that gets them.
    Follower,
}

impl Side {
    fn other(self) -> Side {
        match self {
            Side::Leader => Side::Follower,
            Side::Follower => Side::Leader,
        }
    }
}

/// What a broker is asked before bytes go to or come from its replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Bytes of this partition.
    pub group: GroupId,
    /// Which side its replica is on.
    pub side: Side,
    /// So many are to go; 0: it is asked how long the place that it gave before has to wait.
    pub bytes: u32,
    /// That place.
    pub place: Place,
}

/// What it answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Paced {
    /// The place in its flow.
    pub place: Place,
    /// How long until it is due, as of now. Zero: they may go.
    pub wait: Duration,
}

/// The flows of a broker, and who has to use them.
#[derive(Debug)]
pub struct Throttles {
    leader: Mutex<Flow>,
    follower: Mutex<Flow>,
    /// Told when something about throttles was set.
    changed: Notify,
    control: Arc<ControlClient>,
    /// There later, and gone earlier.
    hosted: OnceLock<Weak<HostedPartitions>>,
}

impl Throttles {
    /// Without limits.
    pub fn new(control: Arc<ControlClient>) -> Throttles {
        let flow = || Mutex::new(Flow::new(Instant::now()));
        Throttles {
            leader: flow(),
            follower: flow(),
            changed: Notify::new(),
            control,
            hosted: OnceLock::new(),
        }
    }

    /// Partitions are hosted. The first ones stay.
    pub fn serve(&self, hosted: &Arc<HostedPartitions>) {
        drop(self.hosted.set(Arc::downgrade(hosted)));
    }

    /// Takes over this broker's rates.
    pub fn set_rates(&self, rates: ThrottleRates) {
        let now = Instant::now();
        self.leader.lock().set_rate(rates.leader, now);
        self.follower.lock().set_rate(rates.follower, now);
        self.note_change();
    }

    /// Something was set: whoever waits looks at once whether it has to.
    pub fn note_change(&self) {
        self.changed.notify_waiters();
    }

    /// Waits until so many bytes may pass between this broker's replica, which is on `side`, and that of another broker.
    async fn pass(&self, side: Side, group: GroupId, other: BrokerId, bytes: u32) {
        let me = self.control.broker();
        for (side, one, other) in [(side, me, other), (side.other(), other, me)] {
            let mut pace = Pace {
                group,
                side,
                bytes,
                place: Place::default(),
            };
            loop {
                let changed = self.changed.notified();
                let Paced { place, wait } = self.ask(one, other, pace).await;
                if wait.is_zero() {
                    break;
                }
                (pace.bytes, pace.place) = (0, place);
                // Either way it is looked at again.
                let _ = timeout(wait.min(LOOK), changed).await;
            }
        }
    }

    /// Asks the broker of one replica, which is on the side that is named; the other one is that of `other`. A broker that
    /// does not answer, or whose version knows no throttles, sets none.
    async fn ask(&self, one: BrokerId, other: BrokerId, pace: Pace) -> Paced {
        if one == self.control.broker() {
            return self.answer(other, pace);
        }
        if !self.applies(pace.group, pace.side, one, other) {
            return Paced::default();
        }
        let asked = self.control.pace(one, pace).await;
        asked.unwrap_or_else(|error| {
            tracing::debug!(broker = %one, %error, "not asked for a place");
            Paced::default()
        })
    }

    /// Answers for this broker's replica, which is on the side that is named; the other one is that of `other`.
    pub fn answer(&self, other: BrokerId, pace: Pace) -> Paced {
        let me = self.control.broker();
        if !self.applies(pace.group, pace.side, me, other) {
            return Paced::default();
        }
        let (flow, now) = match pace.side {
            Side::Leader => (&self.leader, Instant::now()),
            Side::Follower => (&self.follower, Instant::now()),
        };
        let mut flow = flow.lock();
        let place = match pace.bytes {
            0 => pace.place,
            bytes => flow.reserve(bytes.into(), now),
        };
        let wait = flow.wait(place, now);
        Paced { place, wait }
    }

    /// Whether the replica of `one`, which is on that side, is throttled towards that of `other`; one of both is this
    /// broker's.
    fn applies(&self, group: GroupId, side: Side, one: BrokerId, other: BrokerId) -> bool {
        let hosted = self.hosted.get().and_then(Weak::upgrade);
        let partition = hosted.and_then(|hosted| hosted.get(group.topic, group.partition));
        let Some(partition) = partition else {
            return false;
        };
        let Some(throttled) = partition.shared().throttled() else {
            return false;
        };
        let (listed, follower) = match side {
            Side::Leader => (&throttled.leaders, other),
            Side::Follower => (&throttled.followers, one),
        };
        let me = self.control.broker();
        listed.contains(group.partition, one)
            // Whether a follower may wait only its leader knows.
            && (follower == me || partition.does_without(follower))
    }
}
