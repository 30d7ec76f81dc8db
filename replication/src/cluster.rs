//! What a broker does because it is not alone: it knows the others, says that it is there, and hands over before it goes.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tidelog_protocol::types::BrokerId;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use crate::control::{
    self, ClusterDirectory, ControlHandler, Introduction, Member, Reply, Request,
};
use crate::controller::Controller;
use crate::controller::liveness::Patience;
use crate::controller::tend::Tender;
use crate::errors::JoinError;
use crate::hosted::HostedPartitions;
use crate::limits::HEARTBEATS_MAX;
use crate::metadata::levels;
use crate::peers::{GroupRouter, LocalPeer, PeerAddress, PeerPatience, PeerPool, closed};
use crate::raft::types::ReplicaId;
use crate::tasks::Task;

/// Heartbeats within one session: one that is lost or late is no death.
const HEARTBEATS_PER_SESSION: u32 = 4;

/// From the loss of a broker's connections to its fencing.
const DISCONNECTED: Duration = Duration::from_millis(150);

/// Longest wait for the answer of a broker that is asked to introduce itself.
const INTRODUCTION_TIMEOUT: Duration = Duration::from_secs(5);

/// The connections of a broker of a cluster.
#[derive(Clone, Debug)]
pub struct Peers {
    /// To the others.
    pub pool: PeerPool,
    /// From the others.
    pub router: Arc<GroupRouter>,
    /// Where they are; the one that the pool looks at.
    pub directory: Arc<ClusterDirectory>,
    /// Brokers of the cluster that this one is to join with an empty data directory; none: it founds a cluster, or
    /// knows its own already.
    pub introduced_to: Vec<Member>,
}

/// Asks a broker of a cluster, by its address, who is in it.
pub async fn introduce(
    local: &LocalPeer,
    address: &PeerAddress,
    patience: &PeerPatience,
) -> Result<Introduction, JoinError> {
    let failed = |reason: String| JoinError::NotReached(address.to_string(), reason);
    let (kind, body) = control::encode_request(&Request::Introduce);
    let asked = PeerPool::call_at(local, address, kind, body, patience, INTRODUCTION_TIMEOUT);
    let (_, answer) = asked.await.map_err(|error| failed(error.to_string()))?;
    let introduction = match control::decode_reply(answer) {
        Ok(Reply::Introduced(introduction)) => introduction,
        Ok(Reply::NotNow(reason)) => return Err(failed(reason)),
        Ok(other) => return Err(failed(format!("it answered {other:?}"))),
        Err(error) => return Err(failed(error.to_string())),
    };
    match levels::why_unknown(introduction.feature_level, local.levels()) {
        Some(text) => Err(JoinError::FeatureLevel(text)),
        None => Ok(introduction),
    }
}

/// What a broker of a cluster does from the start on, before it has registered: others may need it to start themselves.
pub fn tasks(
    peers: &Peers,
    controller: &Arc<Controller>,
    me: ReplicaId,
    session: Duration,
) -> Vec<Task> {
    let (sender, heartbeats) = mpsc::channel(HEARTBEATS_MAX);
    let handler = ControlHandler::new(controller.clone(), peers.router.partitions(), sender);
    peers.router.answer_calls(Arc::new(handler));
    let patience = Patience {
        session,
        disconnected: DISCONNECTED,
    };
    let tender = Tender::new(
        controller.clone(),
        me,
        patience,
        heartbeats,
        peers.pool.statuses(),
    );
    vec![
        Box::pin(tender.run()),
        Box::pin(follow_brokers(peers.clone(), controller.clone(), me)),
    ]
}

/// Takes over who is in the cluster, and where. As long as this broker has not heard from a leader, others may be there that
/// only its log names, or that it was introduced to.
fn know_brokers(peers: &Peers, controller: &Controller, me: ReplicaId) {
    let image = controller.shared().image();
    let mut brokers: HashSet<ReplicaId> = image.brokers().map(|broker| broker.replica()).collect();
    peers.directory.follow(&image);
    if brokers.is_empty() || controller.leader().is_none() {
        peers.directory.know(controller.named());
        let others = controller.named().iter().chain(&peers.introduced_to);
        brokers.extend(others.map(|member| member.replica));
    }
    brokers.remove(&me);
    brokers.iter().for_each(|replica| peers.pool.keep(*replica));
    peers.pool.retain(&brokers);
    controller.control().know(brokers);
}

async fn follow_brokers(peers: Peers, controller: Arc<Controller>, me: ReplicaId) {
    let mut versions = controller.watch();
    let mut known = None;
    loop {
        let image = controller.shared().image();
        peers.pool.reach_level(image.feature_level());
        // Images share what did not change.
        let brokers = image.brokers.clone();
        if known
            .as_ref()
            .is_none_or(|known| !Arc::ptr_eq(known, &brokers))
        {
            know_brokers(&peers, &controller, me);
            known = Some(brokers);
        }
        if versions.changed().await.is_err() {
            return;
        }
    }
}

/// Lets other replicas take over what a broker led whose process is gone, as its connections show. The controller comes to
/// the same conclusion, but its leader may be what is gone.
pub async fn replace_lost(
    peers: Peers,
    controller: Arc<Controller>,
    hosted: Arc<HostedPartitions>,
) {
    let mut statuses = peers.pool.statuses();
    let mut noted: BTreeSet<ReplicaId> = BTreeSet::new();
    while statuses.changed().await.is_ok() {
        let gone = closed(&statuses.borrow_and_update());
        noted.retain(|replica| gone.contains(replica));
        for replica in gone {
            if noted.insert(replica) {
                let (statuses, controller) = (statuses.clone(), controller.clone());
                let hosted = hosted.clone();
                tokio::spawn(async move {
                    // One that broke is made anew within that time.
                    sleep(DISCONNECTED).await;
                    if closed(&statuses.borrow()).contains(&replica) {
                        let image = controller.shared().image();
                        hosted.replace_leaders(&image, &BTreeSet::from([replica.broker]));
                    }
                });
            }
        }
    }
}

/// Tells the controller that this broker is there, as its registration of this epoch. A broker that is alone tells
/// nobody.
pub async fn beat(controller: Arc<Controller>, broker: BrokerId, epoch: i64, session: Duration) {
    let every = session / HEARTBEATS_PER_SESSION;
    let request = Request::Heartbeat { broker, epoch };
    let mut versions = controller.watch();
    loop {
        if controller.shared().image().is_alone() {
            if versions.changed().await.is_err() {
                return;
            }
            continue;
        }
        let began = Instant::now();
        if !controller.leads() {
            let leader = controller.leader();
            let asked = controller
                .control()
                .ask_controller(leader, &request, began + every)
                .await;
            if let Err(error) = asked {
                tracing::debug!(%error, "no heartbeat");
            }
        }
        sleep(every.saturating_sub(began.elapsed())).await;
    }
}
