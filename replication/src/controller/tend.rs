//! What the controller's leader does by itself: it decides which brokers are alive, and who votes in the group.
//!
//! Runs on every broker and works on the one that leads. Decisions are [`Liveness`] and [`voters::next_step`]; here are
//! the clock, the channels and the calls.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use openraft::ChangeMembers;
use openraft::async_runtime::WatchReceiver as _;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use super::Controller;
use super::liveness::{Event, KnownBroker, Liveness, Moment, Patience, SetFenced};
use super::voters::{self, Candidate, Step};
use crate::control::Heartbeat;
use crate::metadata::command::Command;
use crate::metadata::image::MetadataImage;
use crate::peers::{Loss, PeerStatus, PeerStatuses};
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
        let statuses = self.statuses.borrow_and_update().clone();
        let image = self.controller.shared().image();
        let is_lost = |status: &PeerStatus| matches!(status, PeerStatus::Lost(Loss::Closed));
        self.lost
            .retain(|replica| statuses.get(replica).is_some_and(is_lost));
        for (replica, status) in statuses.iter() {
            let registered = image.broker(replica.broker);
            let same = registered.is_some_and(|it| it.replica() == *replica);
            // Each loss counts once: the peer may be heard of by connections of its own.
            if same && is_lost(status) && self.lost.insert(*replica) {
                liveness.note_disconnected(replica.broker, now);
            }
        }
    }

    async fn decide(&self, liveness: &mut Liveness, event: Event, at: Instant) {
        let now = self.moment(at);
        // The leader is there.
        if let Some(me) = self.controller.shared().image().broker(self.me.broker) {
            liveness.note_heard(me.id, me.epoch, now);
        }
        for change in liveness.step(event, now) {
            if !self.set_fenced(&change).await {
                liveness.failed(&change);
            }
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
        let submitted = self.controller.submit(command, DECISION_TIMEOUT).await;
        if let Err(error) = &submitted {
            tracing::debug!(%broker, %error, "not decided");
        }
        submitted.is_ok()
    }

    fn next_step(&self) -> Option<Step> {
        let metrics = self.controller.raft().metrics().borrow_watched().clone();
        // One change at a time.
        let members = Members::committed(&metrics)?;
        let caught_up = caught_up(&metrics, LAG_MAX);
        let image = self.controller.shared().image();
        let candidates: Vec<Candidate> = image
            .brokers()
            .map(|broker| {
                let replica = broker.replica();
                Candidate {
                    rack: broker.rack.clone(),
                    live: !broker.fenced,
                    caught_up: caught_up.contains(&replica),
                    replica,
                }
            })
            .collect();
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

fn known_brokers(image: &MetadataImage) -> Vec<KnownBroker> {
    let known = image.brokers().map(|broker| KnownBroker {
        id: broker.id,
        epoch: broker.epoch,
        fenced: broker.fenced,
    });
    known.collect()
}
