//! What the controller's leader does by itself: it decides which brokers are alive, and who votes in the group.
//!
//! Runs on every broker and works on the one that leads. Decisions are [`Liveness`] and [`voters::next_step`]; here are
//! the clock, the channels and the calls.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use openraft::ChangeMembers;
use openraft::async_runtime::WatchReceiver as _;
use tidelog_protocol::types::BrokerId;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use super::Controller;
use super::liveness::{Event, KnownBroker, Liveness, Moment, Patience, SetFenced};
use super::voters::{self, Candidate, Step};
use crate::control::Heartbeat;
use crate::metadata::command::Command;
use crate::metadata::image::{BrokerImage, MetadataImage};
use crate::peers::{PeerStatuses, closed};
use crate::raft::members::{Members, caught_up};
use crate::raft::types::ReplicaId;

/// Longest wait for a decision to be committed.
const DECISION_TIMEOUT: Duration = Duration::from_secs(5);

/// Pause between two looks at the members while they are not as they should be, or may become so.
const MEMBERS_INTERVAL: Duration = Duration::from_millis(250);

/// Entries that a broker may lack and still count as caught up.
const LAG_MAX: u64 = 64;

/// See the module.
#[derive(Debug)]
pub struct Tender {
    controller: Arc<Controller>,
    me: ReplicaId,
    patience: Patience,
    heartbeats: mpsc::Receiver<Heartbeat>,
    statuses: watch::Receiver<Arc<PeerStatuses>>,
    /// Peers whose lost connections were taken into account.
    lost: BTreeSet<ReplicaId>,
    began: Instant,
}

impl Tender {
    /// Looks after the brokers from now on.
    pub fn new(
        controller: Arc<Controller>,
        me: ReplicaId,
        patience: Patience,
        heartbeats: mpsc::Receiver<Heartbeat>,
        statuses: watch::Receiver<Arc<PeerStatuses>>,
    ) -> Tender {
        Tender {
            controller,
            me,
            patience,
            heartbeats,
            statuses,
            lost: BTreeSet::new(),
            began: Instant::now(),
        }
    }

    /// Works whenever this broker leads, for ever.
    pub async fn run(mut self) {
        let mut leads = self.controller.shared().watch_leads();
        loop {
            if leads.wait_for(|leads| *leads).await.is_err() {
                return;
            }
            // What came before is not for this leader.
            while self.heartbeats.try_recv().is_ok() {}
            self.lead(leads.clone()).await;
        }
    }

    async fn lead(&mut self, mut leads: watch::Receiver<bool>) {
        let mut liveness = Liveness::new(self.patience);
        let mut versions = self.controller.watch();
        let mut step: Option<JoinHandle<()>> = None;
        // Connections that broke before count as well: the leader before this one may be what they led to.
        self.lost.clear();
        self.statuses.mark_changed();
        let mut event = Event::Brokers(known_brokers(&self.controller.shared().image()));
        let mut now = Instant::now();
        loop {
            self.decide(&mut liveness, event, now).await;
            if step.as_ref().is_none_or(JoinHandle::is_finished) {
                step = self.next_step().map(|next| self.carry_out(next));
            }
            let wake = self.wake(&liveness, step.is_some());
            (event, now) = tokio::select! {
                changed = leads.wait_for(|leads| !*leads) => {
                    drop(changed);
                    return;
                }
                Some(heard) = self.heartbeats.recv() => {
                    let Heartbeat { broker, epoch, at } = heard;
                    (Event::Heartbeat { broker, epoch }, at)
                }
                Ok(()) = versions.changed() => {
                    let image = self.controller.shared().image();
                    (Event::Brokers(known_brokers(&image)), Instant::now())
                }
                Ok(()) = self.statuses.changed() => {
                    self.note_lost(&mut liveness);
                    (Event::Tick, Instant::now())
                }
                () = sleep_until(wake) => (Event::Tick, Instant::now()),
            };
        }
    }

    /// When to look again if nothing happens. A broker that is alone has nobody to wait for.
    fn wake(&self, liveness: &Liveness, stepping: bool) -> Instant {
        let image = self.controller.shared().image();
        if image.is_alone() && !stepping {
            return Instant::now() + Duration::from_secs(3_600);
        }
        let deadline = liveness.next_deadline();
        let deadline = deadline.map(|moment| self.began + Duration::from_millis(moment.0));
        let members = Instant::now() + MEMBERS_INTERVAL;
        deadline.map_or(members, |deadline| deadline.min(members))
    }

    fn moment(&self, at: Instant) -> Moment {
        let since = at.saturating_duration_since(self.began);
        Moment(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    /// Brokers whose process closed its connections.
    fn note_lost(&mut self, liveness: &mut Liveness) {
        let now = self.moment(Instant::now());
        let closed = closed(&self.statuses.borrow_and_update());
        let image = self.controller.shared().image();
        for broker in newly_lost(&mut self.lost, &closed, &image) {
            liveness.note_disconnected(broker, now);
        }
    }

    async fn decide(&mut self, liveness: &mut Liveness, event: Event, at: Instant) {
        let now = self.moment(at);
        // The leader is there.
        if let Some(me) = self.controller.shared().image().broker(self.me.broker) {
            liveness.note_heard(me.id, me.epoch, now);
        }
        // They wait while decisions are carried out.
        let mut waiting = Vec::new();
        while let Ok(Heartbeat { broker, epoch, at }) = self.heartbeats.try_recv() {
            waiting.push((broker, epoch, self.moment(at)));
        }
        let changes = liveness.step_after(waiting, event, now);
        // All at once: what is decided now may not be true any more when the one before is done.
        let decided = join_all(changes.iter().map(|change| self.set_fenced(change))).await;
        for (change, _) in changes.iter().zip(decided).filter(|(_, done)| !done) {
            liveness.failed(change);
        }
    }

    async fn set_fenced(&self, change: &SetFenced) -> bool {
        let SetFenced {
            broker,
            epoch,
            fenced,
        } = *change;
        if fenced {
            tracing::warn!(%broker, "broker is not heard of and is fenced: others take over what it led");
        } else {
            tracing::info!(%broker, "broker is heard of again");
        }
        let command = Command::SetBrokerFenced {
            broker,
            epoch,
            fenced,
        };
        let decided = self.controller.decide(command, DECISION_TIMEOUT).await;
        if let Err(error) = &decided {
            tracing::debug!(%broker, %error, "not decided");
        }
        decided.is_ok()
    }

    fn next_step(&self) -> Option<Step> {
        let metrics = self.controller.raft().metrics().borrow_watched().clone();
        // One change at a time.
        let members = Members::committed(&metrics)?;
        let caught_up = caught_up(&metrics, LAG_MAX);
        let image = self.controller.shared().image();
        let candidates = candidates(&image, &caught_up);
        // Before the first broker has registered there is nothing to plan with.
        if candidates.is_empty() {
            return None;
        }
        voters::next_step(&candidates, &members, self.me)
    }

    /// Carries a step out beside; one that fails is planned again.
    fn carry_out(&self, step: Step) -> JoinHandle<()> {
        tracing::info!(?step, "the controller group changes");
        let raft = self.controller.raft().clone();
        tokio::spawn(async move {
            let done = match step {
                Step::AddLearner(replica) => raft.add_learner(replica, (), false).await.map(drop),
                Step::ReplaceVoters(voters) => {
                    let change = ChangeMembers::ReplaceAllVoters(voters);
                    raft.change_membership(change, true).await.map(drop)
                }
                Step::RemoveLearner(replica) => {
                    let change = ChangeMembers::RemoveNodes(BTreeSet::from([replica]));
                    raft.change_membership(change, false).await.map(drop)
                }
                Step::HandOver(replica) => {
                    if let Err(error) = raft.trigger().transfer_leader(replica).await {
                        tracing::debug!(%error, "not handed over");
                    }
                    Ok(())
                }
            };
            if let Err(error) = done {
                tracing::debug!(%error, "the controller group stays as it is for now");
            }
            // A step shows in the metrics a little later.
            tokio::time::sleep(MEMBERS_INTERVAL).await;
        })
    }
}

/// Registered brokers whose connections are closed and were not when it was last looked. Each loss counts once: the peer
/// may be heard of by connections of its own.
pub fn newly_lost(
    counted: &mut BTreeSet<ReplicaId>,
    closed: &BTreeSet<ReplicaId>,
    image: &MetadataImage,
) -> Vec<BrokerId> {
    counted.retain(|replica| closed.contains(replica));
    let is_registered = |replica: &ReplicaId| {
        let known = image.broker(replica.broker);
        known.is_some_and(|broker| broker.replica() == *replica)
    };
    let new = closed.iter().copied();
    new.filter(|replica| is_registered(replica) && counted.insert(*replica))
        .map(|replica| replica.broker)
        .collect()
}

/// The brokers as the plan of the voters sees them.
pub fn candidates(image: &MetadataImage, caught_up: &BTreeSet<ReplicaId>) -> Vec<Candidate> {
    let candidate = |broker: &Arc<BrokerImage>| Candidate {
        replica: broker.replica(),
        rack: broker.rack.clone(),
        live: !broker.fenced,
        caught_up: caught_up.contains(&broker.replica()),
    };
    image.brokers().map(candidate).collect()
}

/// The brokers as liveness sees them.
pub fn known_brokers(image: &MetadataImage) -> Vec<KnownBroker> {
    let known = image.brokers().map(|broker| KnownBroker {
        id: broker.id,
        epoch: broker.epoch,
        fenced: broker.fenced,
    });
    known.collect()
}
