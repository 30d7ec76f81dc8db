//! A broker's process: its replicas, and the tasks around them that the real one has, as timers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rand::RngExt;
use tidelog_protocol::types::{BrokerId, LeaderEpoch};

use super::moving::Mover;
use super::raft::{Disk, Index, Message, Ms, Replica, Vote};
use super::submitting::Submit;
use super::tending::Tending;
use super::world::{CONTROLLER, Group, World, place};
use crate::metadata::command::{Command, MetadataError, Outcome};
use crate::metadata::image::MetadataImage;
use crate::raft::types::ReplicaId;
use crate::reporter::LeaderReporter;

/// `broker.session.timeout.ms` here. Everything is as much shorter than by default.
pub const SESSION: Ms = 1_000;
const BEAT: Ms = SESSION / 4;
const CONTROLLER_LEASE: Ms = 600;
const CONTROLLER_TICK: Ms = 100;
pub const PARTITION_LEASE: Ms = 400;
const CHECKPOINT: Ms = 2_000;
const RESEND: Ms = 200;

/// What travels between brokers.
#[derive(Clone, Debug)]
pub enum Mail {
    Raft(Group, Message),
    Heartbeat {
        epoch: i64,
    },
    /// The one that was asked does not lead; who may.
    NotController {
        /// Of the submission; 0: a heartbeat.
        id: u64,
        hint: Option<BrokerId>,
    },
    Submit {
        /// Of the sender: with it the connection ends.
        run: u64,
        id: u64,
        number: u64,
        command: Arc<Command>,
    },
    Submitted {
        id: u64,
        index: Index,
        outcome: Result<Outcome, MetadataError>,
    },

    /// The connections of the sender's process are closed.
    Closed,
    /// A leader is asked to hand over to the preferred replica.
    HandOver(Group),
}

impl Mail {
    /// For the trace.
    pub fn number(&self) -> u64 {
        match self {
            Mail::Raft(group, message) => {
                let kind = match message {
                    Message::Ask { term, .. } => 1 + 10 * term,
                    Message::Answer { term, .. } => 2 + 10 * term,
                    Message::Append { prev, commit, .. } => 3 + 10 * (prev.1 * 1_000 + commit),
                    Message::Appended { commit, .. } => 4 + 10 * commit,
                    Message::Transfer { term, .. } => 5 + 10 * term,
                };
                100 + *group as u64 + 1_000 * kind
            }
            Mail::Heartbeat { epoch } => 1 + 100 * (*epoch as u64),
            Mail::NotController { id, .. } => 2 + 100 * id,
            Mail::Submit { number, .. } => 3 + 100 * number,
            Mail::Submitted { index, .. } => 4 + 100 * index,

            Mail::Closed => 7,
            Mail::HandOver(group) => 8 + 100 * *group as u64,
        }
    }
}

#[derive(Clone, Debug)]
pub enum Timer {
    /// The controller group's own clock.
    Tick,
    Beat,
    Checkpoint,
    InSync,
    Sweep,
    /// A turn to ask for a partition's leadership; how many follow.
    Elect(Group, u32),
    /// Followers of a partition may need more.
    Resend(Group),
    /// A leadership that was handed over in this term should have been taken.
    Transferred(Group, u64),
    Mover(Group, u64),
    Tend(u64),
    /// A step of the controller's members is over.
    Stepped,
    Report,
    /// Logs that were left may be removed.
    Leave(Group),
    Retry(u64, u32),
    Register,
}

impl Timer {
    pub fn number(&self) -> u64 {
        match self {
            Timer::Tick => 1,
            Timer::Beat => 2,
            Timer::Checkpoint => 3,
            Timer::InSync => 4,
            Timer::Sweep => 5,
            Timer::Elect(group, tries) => 6 + 100 * (*group as u64 + 10 * u64::from(*tries)),
            Timer::Resend(group) => 7 + 100 * *group as u64,
            Timer::Transferred(group, term) => 8 + 100 * (*group as u64 + 10 * term),
            Timer::Mover(group, token) => 9 + 100 * (*group as u64 + 10 * token),
            Timer::Tend(token) => 10 + 100 * token,
            Timer::Stepped => 11,
            Timer::Report => 12,
            Timer::Retry(id, attempt) => 13 + 100 * (id + 1_000 * u64::from(*attempt)),
            Timer::Register => 14,
            Timer::Leave(group) => 15 + 100 * *group as u64,
        }
    }
}

/// A partition that a broker hosts: what `PartitionShared` says of it.
#[derive(Debug)]
pub struct Hosted {
    pub replica: Replica,
    pub leads: bool,
    pub leader: Option<BrokerId>,
    pub epoch: LeaderEpoch,
    /// Sweeps that found no leader.
    pub sweeps: u32,
    /// It is on the list of those without a leader.
    pub leaderless: bool,
    pub resending: bool,
    /// Records that clients wait for.
    pub writes: BTreeMap<Index, u64>,
    pub mover: Option<Mover>,
}

/// See the module.
#[derive(Debug)]
pub struct Process {
    pub me: ReplicaId,
    pub run: u64,
    /// Epoch of its registration; before it hosts nothing.
    pub epoch: Option<i64>,
    pub controller: Replica,
    pub hosted: BTreeMap<Group, Hosted>,
    /// Its image is as of this entry.
    pub applied: Index,
    pub submits: BTreeMap<u64, Submit>,
    /// As the controller's leader: who waits for an entry, as which submission.
    pub answers: BTreeMap<Index, (ReplicaId, u64)>,
    pub reporter: LeaderReporter,
    pub reporting: bool,
    pub sweeping: bool,
    pub tending: Option<Tending>,
    /// Peers whose connections were closed.
    pub closed: BTreeSet<ReplicaId>,
    election_timeout: Ms,
    quiet_since: Ms,
}

impl Process {
    pub fn new(me: ReplicaId, run: u64, disk: Disk) -> Process {
        Process {
            me,
            run,
            epoch: None,
            controller: Replica::start(me, disk, CONTROLLER_LEASE),
            hosted: BTreeMap::new(),
            applied: 0,
            submits: BTreeMap::new(),
            answers: BTreeMap::new(),
            reporter: LeaderReporter::default(),
            reporting: false,
            sweeping: false,
            tending: None,
            closed: BTreeSet::new(),
            election_timeout: CONTROLLER_LEASE,
            quiet_since: 0,
        }
    }

    pub fn replica(&self, group: Group) -> Option<&Replica> {
        match group {
            CONTROLLER => Some(&self.controller),
            _ => self.hosted.get(&group).map(|it| &it.replica),
        }
    }

    pub fn replica_mut(&mut self, group: Group) -> Option<&mut Replica> {
        match group {
            CONTROLLER => Some(&mut self.controller),
            _ => self.hosted.get_mut(&group).map(|it| &mut it.replica),
        }
    }

    pub fn into_disks(self) -> BTreeMap<Group, Disk> {
        let hosted = self.hosted.into_iter();
        let mut disks: BTreeMap<Group, Disk> =
            hosted.map(|(group, it)| (group, it.replica.disk)).collect();
        disks.insert(CONTROLLER, self.controller.disk);
        disks
    }
}

impl World {
    /// The image of a broker that runs.
    pub fn image(&self, broker: usize) -> Arc<MetadataImage> {
        let applied = self.hosts[broker]
            .process
            .as_ref()
            .map_or(0, |it| it.applied);
        self.ledger.image(applied).clone()
    }

    pub fn begin_process(&mut self, broker: usize) {
        let now = self.now;
        let offset = self.rng.random_range(0..CONTROLLER_TICK);
        if let Some(process) = self.process(broker) {
            process.quiet_since = now;
        }
        self.timer(broker, offset, Timer::Tick);
        self.timer(broker, CHECKPOINT, Timer::Checkpoint);
        self.timer(broker, 2, Timer::Register);
        self.touch(broker, CONTROLLER);
    }

    /// Looks at what an event made of a replica, and acts on it.
    pub fn touch(&mut self, broker: usize, group: Group) {
        let Some(replica) = self.process(broker).and_then(|it| it.replica_mut(group)) else {
            return;
        };
        let before = replica.seen;
        let after = super::raft::Seen {
            vote: replica.disk.vote,
            leads: replica.lead.is_some(),
            commit: replica.commit,
            last: replica.disk.last(),
        };
        replica.seen = after;
        let (me, behind) = (replica.me, replica.is_behind());
        if after.leads && (!before.leads || before.vote != after.vote) {
            self.check_leader(group, me);
        }
        // First: what was committed by another leader is no answer to those who wait here.
        if before.vote != after.vote || before.leads != after.leads {
            match group {
                CONTROLLER => self.controller_changed(broker, after.leads),
                _ => self.partition_changed(broker, group, after.vote, after.leads),
            }
        } else if after.last > before.last && !after.leads {
            self.leader_wrote(broker, group, after.vote);
        }
        if after.commit > before.commit {
            self.note_committed(broker, group, before.commit, after.commit);
        }
        if group == CONTROLLER {
            self.apply(broker);
            self.tend(broker);
            return;
        }
        if let Some(hosted) = self.hosted(broker, group)
            && after.leads
            && behind
            && !std::mem::replace(&mut hosted.resending, true)
        {
            self.timer(broker, RESEND, Timer::Resend(group));
        }
        self.go_on_moving(broker, group);
    }

    pub fn hosted(&mut self, broker: usize, group: Group) -> Option<&mut Hosted> {
        self.process(broker)?.hosted.get_mut(&group)
    }

    fn controller_changed(&mut self, broker: usize, leads: bool) {
        let Some(process) = self.process(broker) else {
            return;
        };
        process.answers.clear();
        process.tending = None;
        if leads {
            self.begin_tending(broker);
        }
    }

    fn partition_changed(&mut self, broker: usize, group: Group, vote: Option<Vote>, leads: bool) {
        let Some(vote) = vote else { return };
        let me = self.replica_id(broker);
        let Some(hosted) = self.hosted(broker, group) else {
            return;
        };
        let epoch = LeaderEpoch(vote.term as i32);
        hosted.writes.clear();
        hosted.leads = leads;
        match (vote.committed, vote.of == me) {
            (true, true) if leads => {
                (hosted.leader, hosted.epoch, hosted.sweeps) = (Some(me.broker), epoch, 0);
                self.note_leading(broker, group);
                self.move_if_due(broker, group);
            }
            (true, false) => {
                (hosted.leader, hosted.epoch) = (Some(vote.of.broker), epoch);
                hosted.sweeps = 0;
            }
            _ => hosted.leader = None,
        }
        if !self.is_led(broker, group) {
            self.note_leaderless(broker, group);
        }
    }

    /// `PartitionShared::leader_wrote`.
    fn leader_wrote(&mut self, broker: usize, group: Group, vote: Option<Vote>) {
        let vote = vote.filter(|vote| vote.committed);
        let hosted = self.hosted(broker, group);
        if vote.is_some() && hosted.is_some_and(|it| it.leader.is_none()) {
            self.partition_changed(broker, group, vote, false);
        }
    }

    pub fn on_timer(&mut self, broker: usize, timer: Timer) {
        match timer {
            Timer::Tick => self.tick(broker),
            Timer::Beat => self.beat(broker),
            Timer::Checkpoint => {
                if let Some(process) = self.process(broker) {
                    process.controller.disk.checkpoint = process.controller.commit;
                    for hosted in process.hosted.values_mut() {
                        hosted.replica.disk.checkpoint = hosted.replica.commit;
                    }
                }
                self.timer(broker, CHECKPOINT, Timer::Checkpoint);
            }
            Timer::InSync => self.report_in_sync(broker),
            Timer::Sweep => self.sweep(broker),
            Timer::Elect(group, tries) => self.ask_in_turn(broker, group, tries),
            Timer::Resend(group) => {
                let lags = self.with(broker, group, |it, now, out| it.send_lagging(now, out));
                let lags = lags == Some(true);
                if let Some(hosted) = self.hosted(broker, group) {
                    hosted.resending = lags;
                }
                if lags {
                    self.timer(broker, RESEND, Timer::Resend(group));
                }
            }
            Timer::Transferred(group, term) => self.end_transfer(broker, group, term),
            Timer::Mover(group, token) => self.wake_mover(broker, group, token),
            Timer::Tend(token) => self.wake_tending(broker, token),
            Timer::Stepped => self.end_step(broker),
            Timer::Report => self.report(broker),
            Timer::Leave(group) => self.look_left(broker, group),
            Timer::Retry(id, attempt) => self.retry(broker, id, attempt),
            Timer::Register => self.register(broker),
        }
    }

    fn tick(&mut self, broker: usize) {
        let (now, timeout) = (self.now, self.rng.random_range(300..600));
        let Some(process) = self.process(broker) else {
            return;
        };
        let replica = &process.controller;
        let due = now >= process.quiet_since + process.election_timeout
            && !replica.heard_within(now, process.election_timeout);
        let beats = replica.lead.as_ref().map(|lead| !lead.transferring);
        match beats {
            Some(true) => drop(self.with(broker, CONTROLLER, |it, now, out| it.send_all(now, out))),
            Some(false) => {}
            None if due => {
                (process.quiet_since, process.election_timeout) = (now, timeout);
                self.with(broker, CONTROLLER, |it, now, out| it.elect(now, false, out));
            }
            None => {}
        }
        self.timer(broker, CONTROLLER_TICK, Timer::Tick);
        self.touch(broker, CONTROLLER);
    }

    fn beat(&mut self, broker: usize) {
        self.timer(broker, BEAT, Timer::Beat);
        let Some(process) = self.process(broker) else {
            return;
        };
        let leader = process.controller.leader();
        if process.controller.lead.is_none() {
            self.send_beat(broker, leader.map(|it| it.broker));
        }
    }

    fn send_beat(&mut self, broker: usize, to: Option<BrokerId>) {
        let image = self.image(broker);
        let me = self.replica_id(broker);
        let to = to.or_else(|| self.somebody(broker));
        let to = to.and_then(|to| image.broker(to)).map(|it| it.replica());
        let epoch = self.process(broker).and_then(|it| it.epoch);
        if let (Some(to), Some(epoch)) = (to.filter(|to| *to != me), epoch) {
            self.mail(me, to, Mail::Heartbeat { epoch });
        }
    }

    /// Another broker that this one knows.
    pub fn somebody(&mut self, broker: usize) -> Option<BrokerId> {
        let image = self.image(broker);
        let others = image.brokers().map(|it| it.id);
        let others: Vec<BrokerId> = others.filter(|it| it.0 as usize != broker).collect();
        self.any_of(&others)
    }

    pub fn receive(&mut self, broker: usize, from: ReplicaId, mail: Mail) {
        let Some(process) = self.process(broker) else {
            return;
        };
        if !matches!(mail, Mail::Closed) {
            process.closed.remove(&from);
        }
        let (me, leads) = (process.me, process.controller.lead.is_some());
        let hint = process.controller.leader().map(|it| it.broker);
        match mail {
            Mail::Raft(group, message) => {
                self.with(broker, group, |it, now, out| {
                    it.receive(from, message, now, out)
                });
            }
            Mail::Heartbeat { epoch } if leads => self.hear(broker, from, epoch),
            Mail::Heartbeat { .. } => self.mail(me, from, Mail::NotController { id: 0, hint }),
            Mail::NotController { id: 0, hint } => {
                if hint.is_some_and(|it| it != me.broker && it != from.broker) {
                    self.send_beat(broker, hint);
                }
            }
            Mail::NotController { id, hint } => self.not_there(broker, id, hint),
            Mail::Submit {
                id,
                number,
                command,
                ..
            } => {
                match self.write_command(broker, number, command) {
                    Some(index) => {
                        if let Some(process) = self.process(broker) {
                            process.answers.insert(index, (from, id));
                        }
                        // It may have been carried out at once.
                        self.answer(broker);
                    }
                    None => self.mail(me, from, Mail::NotController { id, hint }),
                }
            }
            Mail::Submitted { id, index, outcome } => self.submitted(broker, id, index, outcome),
            Mail::Closed => {
                process.closed.insert(from);
                self.note_closed(broker);
            }
            Mail::HandOver(group) => self.hand_over_to_preferred(broker, group),
        }
    }

    /// Whether a broker has connections to another one.
    pub fn is_connected(&self, broker: usize, to: ReplicaId) -> bool {
        let process = self.hosts[broker].process.as_ref();
        let closed = process.is_some_and(|it| it.closed.contains(&to));
        !closed && !self.network.is_silent(broker, place(to), self.now, 3_000)
    }
}
