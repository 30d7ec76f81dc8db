//! Asks the broker that leads the controller group, whoever that is by now.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::future::BoxFuture;
use parking_lot::RwLock;
use tidelog_protocol::types::BrokerId;
use tokio::time::{Instant, sleep};

use super::codec;
use super::message::{Reply, Request};
use crate::limits::PEER_CALL_GROUPS_MAX;
use crate::partition::records::{RecordSource, RecordsRead, RecordsWanted};
use crate::peers::{Lane, PeerPool, PeerStatus, RefusalCode, RequestError};
use crate::raft::types::{GroupId, ReplicaId};
use crate::throttle::{Pace, Paced};

/// Longest wait for one broker's answer; the next may know more.
const ONE_BROKER: Duration = Duration::from_secs(5);

/// Pause between two looks whether a lane is connected.
const CONNECTING: Duration = Duration::from_millis(20);

/// Why nobody answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// No broker that was reached leads the controller group. Nothing was done.
    #[error("no broker that could be reached is the controller")]
    Nobody,
    /// A broker that may be the controller runs a version that has no such call, and nobody else is. Nothing was done.
    #[error("broker {0} runs a version that does not know this: upgrade it first")]
    Unknown(BrokerId),
    /// A broker was asked and did not answer: it may have been done.
    #[error("the controller did not answer: {0}")]
    Unanswered(String),
}

/// See the module.
#[derive(Debug)]
pub struct ControlClient {
    me: ReplicaId,
    pool: Option<PeerPool>,
    brokers: RwLock<BTreeMap<BrokerId, ReplicaId>>,
}

impl ControlClient {
    /// A client of a broker; without a pool it is alone.
    pub fn new(me: ReplicaId, pool: Option<PeerPool>) -> ControlClient {
        ControlClient {
            me,
            pool,
            brokers: RwLock::default(),
        }
    }

    /// This broker.
    pub fn broker(&self) -> BrokerId {
        self.me.broker
    }

    /// Whether there may be others.
    pub fn has_peers(&self) -> bool {
        self.pool.is_some()
    }

    /// The brokers that there are.
    pub fn know(&self, brokers: impl IntoIterator<Item = ReplicaId>) {
        let me = self.me;
        let others = brokers.into_iter().filter(|replica| *replica != me);
        *self.brokers.write() = others.map(|replica| (replica.broker, replica)).collect();
    }

    /// Whether a broker answers, as far as its connection shows.
    pub fn is_connected(&self, broker: BrokerId) -> bool {
        let (Some(pool), Ok(replica)) = (&self.pool, self.known(broker)) else {
            return false;
        };
        let status = pool.statuses().borrow().get(&replica).cloned();
        matches!(status, Some(PeerStatus::Connected { .. }))
    }

    /// Asks the controller. `hint` is the broker that is asked first; one that says who leads is believed, others are
    /// asked in turn.
    pub async fn ask_controller(
        &self,
        hint: Option<BrokerId>,
        request: &Request,
        deadline: Instant,
    ) -> Result<Reply, AskError> {
        let brokers = self.brokers.read().clone();
        let mut asked = BTreeSet::new();
        let mut hint = hint;
        let mut unknown_to = None;
        loop {
            let named = hint.take().and_then(|id| brokers.get(&id));
            let named = named.filter(|replica| !asked.contains(*replica));
            let Some(broker) = named.or_else(|| brokers.values().find(|it| !asked.contains(*it)))
            else {
                return Err(unknown_to.map_or(AskError::Nobody, AskError::Unknown));
            };
            asked.insert(*broker);
            match self.ask(*broker, request, deadline).await {
                Ok(Reply::NotController(controller)) => hint = controller,
                Ok(Reply::NotNow(reason)) => {
                    tracing::debug!(%broker, reason, "asked in vain");
                }
                Ok(reply) => return Ok(reply),
                Err(RequestError::Refused(refusal)) if refusal.code == RefusalCode::UnknownCall => {
                    unknown_to.get_or_insert(broker.broker);
                }
                Err(RequestError::Timeout(after)) => {
                    return Err(AskError::Unanswered(format!("{broker} within {after:?}")));
                }
                Err(error) => tracing::debug!(%broker, %error, "not asked"),
            }
        }
    }

    /// Asks one broker.
    pub async fn ask(
        &self,
        broker: ReplicaId,
        request: &Request,
        deadline: Instant,
    ) -> Result<Reply, RequestError> {
        let pool = self
            .pool
            .as_ref()
            .ok_or(RequestError::Unreachable(broker))?;
        let (kind, body) = codec::encode_request(request);
        let patience = deadline
            .saturating_duration_since(Instant::now())
            .min(ONE_BROKER);
        let answer = pool.call(broker, kind, body, patience).await?;
        Ok(codec::decode_reply(answer)?)
    }

    /// Tells a broker something of groups, so many at a time as a call may name.
    ///
    /// # Errors
    ///
    /// Why it did not hear of some of them; the others were said all the same.
    pub async fn tell(
        &self,
        broker: ReplicaId,
        groups: Vec<GroupId>,
        request: fn(Vec<GroupId>) -> Request,
        deadline: Instant,
    ) -> Result<(), String> {
        let mut told = Ok(());
        for some in groups.chunks(PEER_CALL_GROUPS_MAX) {
            match self.ask(broker, &request(some.to_vec()), deadline).await {
                Ok(Reply::Heard) => {}
                Ok(other) => told = Err(format!("it answered {other:?}")),
                Err(error) => told = Err(error.to_string()),
            }
        }
        told
    }

    /// Asks a broker whether bytes may go to or come from its replica.
    ///
    /// # Errors
    ///
    /// It is not known, did not answer, or its version knows no throttles.
    pub async fn pace(&self, broker: BrokerId, pace: Pace) -> Result<Paced, String> {
        let replica = self.known(broker)?;
        let deadline = Instant::now() + ONE_BROKER;
        match self.ask(replica, &Request::Pace(pace), deadline).await {
            Ok(Reply::Paced(paced)) => Ok(paced),
            Ok(other) => Err(format!("broker {broker} answered {other:?}")),
            Err(error) => Err(error.to_string()),
        }
    }

    fn known(&self, broker: BrokerId) -> Result<ReplicaId, String> {
        let known = self.brokers.read().get(&broker).copied();
        known.ok_or_else(|| unknown(broker))
    }
}

fn unknown(broker: BrokerId) -> String {
    format!("broker {broker} is not known")
}

impl RecordSource for ControlClient {
    fn read(
        &self,
        from: BrokerId,
        wanted: RecordsWanted,
    ) -> BoxFuture<'_, Result<RecordsRead, String>> {
        Box::pin(async move {
            let replica = self.known(from)?;
            let pool = self.pool.as_ref().ok_or_else(|| unknown(from))?;
            let (kind, body) = codec::encode_request(&Request::ReadRecords(wanted));
            let deadline = Instant::now() + ONE_BROKER;
            let answer = loop {
                let asked = pool.call_on(replica, Lane::Bulk, kind, body.clone(), ONE_BROKER);
                match asked.await {
                    Ok(answer) => break answer,
                    // The lane is connected when it is wanted first.
                    Err(RequestError::Unreachable(_)) if Instant::now() < deadline => {
                        sleep(CONNECTING).await;
                    }
                    Err(error) => return Err(error.to_string()),
                }
            };
            match codec::decode_reply(answer) {
                Ok(Reply::Records(read)) => Ok(read),
                Ok(Reply::NotNow(reason)) => Err(reason),
                Ok(other) => Err(format!("broker {from} answered {other:?}")),
                Err(error) => Err(error.to_string()),
            }
        })
    }
}
