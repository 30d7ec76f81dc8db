//! What the controller's leader does by itself: the loop of `controller::tend`, around the same decisions.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tidelog_protocol::types::BrokerId;

use super::hosting::LAG_MAX;
use super::process::{SESSION, Timer};
use super::raft::{Index, Ms};
use super::world::{CONTROLLER, World};
use crate::controller::liveness::{Event, Liveness, Moment, Patience, SetFenced};
use crate::controller::tend::{candidates, known_brokers, newly_lost};
use crate::controller::voters::{self, Step};
use crate::metadata::command::Command;
use crate::metadata::image::BrokerImage;
use crate::raft::types::ReplicaId;

const DISCONNECTED: Ms = 150;
const DECISION_TIMEOUT: Ms = 1_500;
const RETRY: Ms = 20;
const MEMBERS_INTERVAL: Ms = 100;

/// What the controller's leader knows while it leads.
#[derive(Debug)]
pub struct Tending {
    liveness: Liveness,
    heartbeats: VecDeque<(BrokerId, i64, Ms)>,
    image_changed: bool,
    closed_changed: bool,
    /// Losses of connections that were taken into account.
    counted: BTreeSet<ReplicaId>,
    /// Decisions that are to be committed, by when.
    deciding: Vec<(SetFenced, Option<Index>)>,
    patient_until: Ms,
    wake: Ms,
    token: u64,
    /// A change of the members is under way: the entry that it waits for.
    step: Option<Option<Index>>,
    busy: bool,
    pub watch: Watch,
}

/// What really was heard of the brokers, for the checks.
#[derive(Debug, Default)]
pub struct Watch {
    pub since: Ms,
    /// Epoch of the registration, and when it or a heartbeat of it was last heard of.
    pub heard: BTreeMap<BrokerId, (i64, Ms)>,
    pub closed: BTreeSet<BrokerId>,
    /// Since when the decisions know of these registrations.
    pub shown: BTreeMap<BrokerId, (i64, Ms)>,
    /// Those that were fenced when they were first shown, and not heard of since.
    unheard: BTreeSet<BrokerId>,
}

impl Watch {
    /// The decisions hear of a registration. Another controller's word that a broker is there counts as hearing of it.
    fn show(&mut self, known: &BrokerImage, now: Ms) {
        let before = self.shown.get(&known.id).map(|(epoch, _)| *epoch);
        if before.is_none() && known.fenced {
            self.unheard.insert(known.id);
        }
        let is_back = !known.fenced && self.unheard.remove(&known.id);
        if before != Some(known.epoch) || is_back {
            self.shown.insert(known.id, (known.epoch, now));
        }
    }
}

impl World {
    pub fn begin_tending(&mut self, broker: usize) {
        let now = self.now;
        self.say(format_args!("{broker}: is the controller"));
        let patience = Patience {
            session: Duration::from_millis(SESSION),
            disconnected: Duration::from_millis(DISCONNECTED),
        };
        let image = self.image(broker);
        let heard = image.brokers().map(|it| (it.id, (it.epoch, now))).collect();
        let Some(process) = self.process(broker) else {
            return;
        };
        process.tending = Some(Tending {
            liveness: Liveness::new(patience),
            heartbeats: VecDeque::new(),
            image_changed: true,
            closed_changed: false,
            counted: BTreeSet::new(),
            deciding: Vec::new(),
            patient_until: 0,
            wake: now,
            token: 0,
            step: None,
            busy: false,
            watch: Watch {
                since: now,
                heard,
                closed: process.closed.iter().map(|it| it.broker).collect(),
                shown: BTreeMap::new(),
                unheard: BTreeSet::new(),
            },
        });
    }

    fn tending(&mut self, broker: usize) -> Option<&mut Tending> {
        self.process(broker)?.tending.as_mut()
    }

    /// A heartbeat came.
    pub fn hear(&mut self, broker: usize, from: ReplicaId, epoch: i64) {
        let (now, image) = (self.now, self.image(broker));
        let current = image
            .broker(from.broker)
            .is_some_and(|it| it.epoch == epoch);
        let Some(tending) = self.tending(broker) else {
            return;
        };
        if current {
            tending.watch.heard.insert(from.broker, (epoch, now));
            tending.watch.closed.remove(&from.broker);
            tending.watch.unheard.remove(&from.broker);
        }
        tending.heartbeats.push_back((from.broker, epoch, now));
        self.tend(broker);
    }

    pub fn note_closed(&mut self, broker: usize) {
        let Some(process) = self.process(broker) else {
            return;
        };
        if let Some(tending) = &mut process.tending {
            tending.closed_changed = true;
            let closed = process.closed.iter().map(|it| it.broker);
            tending.watch.closed.extend(closed);
        }
        self.tend(broker);
    }

    pub fn image_changed(&mut self, broker: usize) {
        let (now, image) = (self.now, self.image(broker));
        let Some(tending) = self.tending(broker) else {
            return;
        };
        tending.image_changed = true;
        for known in image.brokers() {
            let watch = &mut tending.watch;
            let before = watch.heard.get(&known.id).map(|(epoch, _)| *epoch);
            if before != Some(known.epoch) {
                watch.heard.insert(known.id, (known.epoch, now));
            }
        }
    }

    pub fn wake_tending(&mut self, broker: usize, token: u64) {
        if self.tending(broker).is_some_and(|it| it.token == token) {
            self.tend(broker);
        }
    }

    /// Takes in what there is to be taken in.
    pub fn tend(&mut self, broker: usize) {
        match self.tending(broker) {
            Some(tending) if !tending.busy => tending.busy = true,
            _ => return,
        }
        while self.tend_once(broker) {}
        self.go_on_stepping(broker);
        if let Some(tending) = self.tending(broker) {
            tending.busy = false;
        }
    }

    /// Returns whether there may be more.
    fn tend_once(&mut self, broker: usize) -> bool {
        if self.is_deciding(broker) {
            return false;
        }
        let now = self.now;
        let Some(tending) = self.tending(broker) else {
            return false;
        };
        // Which of them a `select!` takes is a matter of luck.
        let ready: Vec<u8> = [
            (0, !tending.heartbeats.is_empty()),
            (1, tending.image_changed),
            (2, tending.closed_changed),
            (3, tending.wake <= now),
        ]
        .into_iter()
        .filter_map(|(kind, is_ready)| is_ready.then_some(kind))
        .collect();
        let Some(kind) = self.any_of(&ready) else {
            self.check_silence(broker);
            return false;
        };
        let image = self.image(broker);
        let Some(process) = self.process(broker) else {
            return false;
        };
        let Some(tending) = process.tending.as_mut() else {
            return false;
        };
        let (event, at) = match kind {
            0 => match tending.heartbeats.pop_front() {
                Some((broker, epoch, at)) => (Event::Heartbeat { broker, epoch }, at),
                None => return false,
            },
            1 => {
                tending.image_changed = false;
                for known in image.brokers() {
                    tending.watch.show(known, now);
                }
                (Event::Brokers(known_brokers(&image)), now)
            }
            2 => {
                tending.closed_changed = false;
                let lost = newly_lost(&mut tending.counted, &process.closed, &image);
                for lost in lost {
                    tending.liveness.note_disconnected(lost, Moment(now));
                }
                (Event::Tick, now)
            }
            _ => (Event::Tick, now),
        };
        self.decide(broker, event, at);
        self.plan_members(broker);
        let image = self.image(broker);
        let Some(tending) = self.tending(broker) else {
            return false;
        };
        let deadline = tending.liveness.next_deadline().map_or(Ms::MAX, |it| it.0);
        let alone = image.is_alone() && tending.step.is_none();
        tending.wake = if alone {
            now + 3_600_000
        } else {
            deadline.min(now + MEMBERS_INTERVAL)
        };
        tending.token += 1;
        let (wake, token) = (tending.wake.saturating_sub(now), tending.token);
        self.timer(broker, wake, Timer::Tend(token));
        true
    }

    /// Whether decisions are being committed, or tried again in a moment.
    fn is_deciding(&mut self, broker: usize) -> bool {
        let now = self.now;
        let Some(process) = self.process(broker) else {
            return false;
        };
        let applied = process.applied;
        let Some(tending) = process.tending.as_mut() else {
            return false;
        };
        let late = now >= tending.patient_until;
        let liveness = &mut tending.liveness;
        tending.deciding.retain(|(change, index)| {
            let done = index.is_some_and(|index| index <= applied);
            if !done && late {
                liveness.failed(change);
            }
            !done && !late
        });
        !tending.deciding.is_empty()
    }

    fn decide(&mut self, broker: usize, event: Event, at: Ms) {
        let (now, image) = (self.now, self.image(broker));
        let me = BrokerId(broker as i32);
        let Some(tending) = self.tending(broker) else {
            return;
        };
        let own = image.broker(me).map(|it| it.epoch);
        if let Some(epoch) = own {
            tending.liveness.note_heard(me, epoch, Moment(at));
        }
        let heartbeats = &mut tending.heartbeats;
        let waiting = std::iter::from_fn(|| heartbeats.pop_front())
            .map(|(broker, epoch, at)| (broker, epoch, Moment(at)));
        let changes = tending.liveness.step_after(waiting, event, Moment(at));
        let mut patience = DECISION_TIMEOUT;
        let mut deciding = Vec::new();
        for change in changes {
            let SetFenced {
                broker: whom,
                epoch,
                fenced,
            } = change;
            self.say(format_args!("{broker}: decides {change:?}"));
            let command = Command::SetBrokerFenced {
                broker: whom,
                epoch,
                fenced,
            };
            let number = self.number();
            let index = self.write_command(broker, number, Arc::new(command));
            if index.is_none() {
                patience = RETRY;
            }
            deciding.push((change, index));
        }
        if deciding.is_empty() {
            return;
        }
        let Some(tending) = self.tending(broker) else {
            return;
        };
        tending.deciding = deciding;
        tending.patient_until = now + patience;
        tending.token += 1;
        let token = tending.token;
        self.timer(broker, patience, Timer::Tend(token));
    }

    fn plan_members(&mut self, broker: usize) {
        if self.tending(broker).is_none_or(|it| it.step.is_some()) {
            return;
        }
        let (image, me) = (self.image(broker), self.replica_id(broker));
        let Some(replica) = self.replica(broker, CONTROLLER) else {
            return;
        };
        let Some(members) = replica.committed_members() else {
            return;
        };
        let caught_up: BTreeSet<ReplicaId> = replica.near(LAG_MAX).chain([me]).collect();
        let candidates = candidates(&image, &caught_up);
        if candidates.is_empty() {
            return;
        }
        let Some(step) = voters::next_step(&candidates, &members, me) else {
            return;
        };
        self.say(format_args!(
            "{broker}: the controller group changes: {step:?}"
        ));
        self.check_voters(&step, &candidates, &members);
        let begun = match step {
            Step::AddLearner(replica) => self.with(broker, CONTROLLER, |it, now, out| {
                it.change_learners(|learners| learners.insert(replica), now, out)
            }),
            Step::RemoveLearner(replica) => self.with(broker, CONTROLLER, |it, now, out| {
                it.change_learners(|learners| learners.remove(&replica), now, out)
            }),
            Step::ReplaceVoters(voters) => self.with(broker, CONTROLLER, |it, now, out| {
                it.replace_voters(voters, true, now, out)
            }),
            Step::HandOver(heir) => {
                self.transfer(broker, CONTROLLER, heir);
                None
            }
        };
        let index = begun.flatten();
        if let Some(tending) = self.tending(broker) {
            tending.step = Some(index);
            if index.is_none() {
                self.timer(broker, MEMBERS_INTERVAL, Timer::Stepped);
            }
        }
    }

    /// A change that was begun may be committed.
    fn go_on_stepping(&mut self, broker: usize) {
        let Some(process) = self.process(broker) else {
            return;
        };
        let replica = &process.controller;
        let ended = replica.lead.as_ref().is_some_and(|it| it.change.is_none());
        let commit = replica.commit;
        let Some(tending) = process.tending.as_mut() else {
            return;
        };
        if let Some(Some(index)) = tending.step
            && index <= commit
            && ended
        {
            // The next look is a little later.
            tending.step = Some(None);
            self.timer(broker, MEMBERS_INTERVAL, Timer::Stepped);
        }
    }

    pub fn end_step(&mut self, broker: usize) {
        if let Some(tending) = self.tending(broker)
            && tending.step == Some(None)
        {
            tending.step = None;
            self.tend(broker);
        }
    }
}
