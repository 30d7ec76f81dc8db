//! The machines, their network and their clock: events are carried out one after the other, in the order of their times.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::fmt;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tidelog_protocol::types::{BrokerId, PartitionIndex, TopicId};
use uuid::Uuid;

use super::checks::Checks;
use super::ledger::Ledger;
use super::network::{BROKERS_MAX, Network};
use super::operator::Operator;
use super::process::{Mail, Process, Timer};
use super::raft::{Disk, Ms, Out, Replica};
use super::trace::Trace;
use crate::raft::types::{GroupId, ReplicaId};

/// Number of a consensus group: 0 is the controller's, the others are partitions.
pub type Group = usize;
pub const CONTROLLER: Group = 0;
pub const PARTITIONS: usize = 4;

/// The topic that the partitions belong to.
pub const TOPIC: TopicId = TopicId(Uuid::from_u128(7));

pub fn index_of(group: Group) -> PartitionIndex {
    PartitionIndex(group as i32 - 1)
}

pub fn group_id(group: Group) -> GroupId {
    GroupId {
        topic: TOPIC,
        partition: index_of(group),
    }
}

pub fn group_of(id: GroupId) -> Group {
    id.partition.0 as Group + 1
}

pub fn place(replica: ReplicaId) -> usize {
    replica.broker.0 as usize
}

#[derive(Debug)]
pub enum Event {
    Deliver {
        from: ReplicaId,
        to: ReplicaId,
        mail: Mail,
    },
    Timer {
        broker: usize,
        run: u64,
        timer: Timer,
    },
    /// The next fault begins.
    Fault,
    /// A fault ends.
    Mend(super::faults::Mend),
    /// The operator looks.
    Operate,
    /// A client writes.
    Write,
}

#[derive(Debug)]
struct Queued {
    at: Ms,
    number: u64,
    event: Event,
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Queued {}

impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Queued {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// A machine: it keeps its disk while its process comes and goes.
#[derive(Debug)]
pub struct Host {
    pub directory: Uuid,
    pub rack: Option<String>,
    /// Logs of groups that do not run.
    pub disks: BTreeMap<Group, Disk>,
    /// What is kept of groups that were left.
    pub departed: BTreeMap<Group, Disk>,
    pub process: Option<Process>,
    pub paused: bool,
    stalled: Vec<Event>,
    pub runs: u64,
    /// It is to be in the cluster.
    pub wanted: bool,
    /// A process may be started; not so where a disk was lost or the broker is to be removed.
    pub may_run: bool,
}

#[derive(Debug)]
pub struct World {
    pub rng: StdRng,
    pub now: Ms,
    queue: BinaryHeap<Reverse<Queued>>,
    queued: u64,
    pub network: Network,
    /// By broker id; 0 is nobody.
    pub hosts: Vec<Host>,
    pub ledger: Ledger,
    pub checks: Checks,
    pub operator: Operator,
    pub trace: Trace,
    pub faults: usize,
    /// Faults still to come.
    pub faults_left: usize,
    /// When the last of them was over.
    pub calm_since: Option<Ms>,
    numbers: u64,
}

impl World {
    pub fn new(seed: u64, with_lines: bool) -> World {
        let mut rng = StdRng::seed_from_u64(seed);
        let racks = rng.random_range(0..4_usize);
        let hosts = (0..BROKERS_MAX).map(|broker| Host {
            directory: Uuid::from_u128(1_000 * broker as u128 + 1),
            rack: (racks > 0).then(|| format!("r{}", rng.random_range(0..racks))),
            disks: BTreeMap::new(),
            departed: BTreeMap::new(),
            process: None,
            paused: false,
            stalled: Vec::new(),
            runs: 0,
            wanted: false,
            may_run: false,
        });
        let hosts: Vec<Host> = hosts.collect();
        let faults_left = rng.random_range(5..14);
        let mut world = World {
            rng,
            now: 0,
            queue: BinaryHeap::new(),
            queued: 0,
            network: Network::new(),
            hosts,
            ledger: Ledger::new(),
            checks: Checks::default(),
            operator: Operator::default(),
            trace: Trace::new(with_lines),
            faults: 0,
            faults_left,
            calm_since: None,
            numbers: 0,
        };
        world.begin();
        world
    }

    /// A number that nobody has had.
    pub fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    pub fn at(&mut self, at: Ms, event: Event) {
        self.queued += 1;
        let number = self.queued;
        self.queue.push(Reverse(Queued { at, number, event }));
    }

    pub fn timer(&mut self, broker: usize, after: Ms, timer: Timer) {
        if let Some(process) = &self.hosts[broker].process {
            let run = process.run;
            self.at(self.now + after, Event::Timer { broker, run, timer });
        }
    }

    pub fn say(&mut self, text: fmt::Arguments<'_>) {
        self.trace.note(self.now, text);
    }

    /// Something is as it must not be. Only the first counts: what comes after may follow from it.
    pub fn fail(&mut self, why: impl FnOnce() -> String) {
        self.checks.fail(why);
    }

    pub fn replica_id(&self, broker: usize) -> ReplicaId {
        ReplicaId {
            broker: BrokerId(broker as i32),
            directory: self.hosts[broker].directory,
        }
    }

    pub fn process(&mut self, broker: usize) -> Option<&mut Process> {
        self.hosts[broker].process.as_mut()
    }

    pub fn replica(&self, broker: usize, group: Group) -> Option<&Replica> {
        self.hosts[broker].process.as_ref()?.replica(group)
    }

    /// What a replica has on its disk, whether its process runs or not; `None`: the disk is lost, or there is none.
    pub fn disk_of(&self, replica: ReplicaId, group: Group) -> Option<&Disk> {
        let host = &self.hosts[place(replica)];
        if host.directory != replica.directory {
            return None;
        }
        let running = host.process.as_ref().and_then(|it| it.replica(group));
        running
            .map(|it| &it.disk)
            .or_else(|| host.disks.get(&group))
    }

    /// Lets a replica do something, and everybody act on what came of it.
    pub fn with<T>(
        &mut self,
        broker: usize,
        group: Group,
        act: impl FnOnce(&mut Replica, Ms, &mut Out) -> T,
    ) -> Option<T> {
        let (now, mut out) = (self.now, Out::new());
        let process = self.hosts[broker].process.as_mut()?;
        let (me, replica) = (process.me, process.replica_mut(group)?);
        let done = act(replica, now, &mut out);
        for (to, message) in out {
            self.mail(me, to, Mail::Raft(group, message));
        }
        self.touch(broker, group);
        Some(done)
    }

    pub fn mail(&mut self, from: ReplicaId, to: ReplicaId, mail: Mail) {
        let straggles = matches!(mail, Mail::Heartbeat { .. });
        let (source, target) = (place(from), place(to));
        let delay = self.network.delay(source, target, straggles, &mut self.rng);
        if let Some(delay) = delay {
            self.at(self.now + delay, Event::Deliver { from, to, mail });
        }
    }

    /// Carries out the next event.
    pub fn step(&mut self) -> bool {
        let Some(Reverse(Queued { at, event, .. })) = self.queue.pop() else {
            return false;
        };
        self.now = at;
        let target = match &event {
            Event::Deliver { to, .. } => place(*to),
            Event::Timer { broker, .. } => *broker,
            _ => 0,
        };
        if self.hosts[target].paused {
            self.hosts[target].stalled.push(event);
            return true;
        }
        match event {
            Event::Deliver { from, to, mail } => {
                let host = &self.hosts[target];
                let is_there = host.process.is_some() && host.directory == to.directory;
                let is_from_the_dead = match &mail {
                    Mail::Submit { run, .. } => {
                        let sender = self.hosts[place(from)].process.as_ref();
                        sender.is_none_or(|it| it.run != *run)
                    }
                    _ => false,
                };
                if is_there && !is_from_the_dead {
                    let numbers = [1, place(from) as u64, target as u64, mail.number()];
                    self.trace.event(at, numbers, || {
                        format!("{} -> {target}: {mail:?}", place(from))
                    });
                    self.receive(target, from, mail);
                }
            }
            Event::Timer { broker, run, timer } => {
                let process = self.hosts[broker].process.as_ref();
                if process.is_some_and(|it| it.run == run) {
                    self.trace
                        .event(at, [2, broker as u64, run, timer.number()], || {
                            format!("{broker}: {timer:?}")
                        });
                    self.on_timer(broker, timer);
                }
            }
            Event::Fault => self.begin_fault(),
            Event::Mend(mend) => self.mend(mend),
            Event::Operate => self.operate(),
            Event::Write => self.write(),
        }
        true
    }

    /// A process stands still.
    pub fn pause(&mut self, broker: usize) {
        self.hosts[broker].paused = true;
    }

    /// It goes on, with all that has come meanwhile.
    pub fn resume(&mut self, broker: usize) {
        self.hosts[broker].paused = false;
        for event in std::mem::take(&mut self.hosts[broker].stalled) {
            self.at(self.now, event);
        }
    }

    /// A process starts on the disk that is there.
    pub fn start(&mut self, broker: usize, founds: bool) {
        let me = self.replica_id(broker);
        let host = &mut self.hosts[broker];
        if host.process.is_some() || !host.may_run {
            return;
        }
        host.runs += 1;
        let disk = host.disks.remove(&CONTROLLER).unwrap_or_default();
        host.process = Some(Process::new(me, host.runs, disk));
        self.say(format_args!(
            "{broker}: starts, directory {}",
            me.directory.as_u128()
        ));
        if founds {
            self.with(broker, CONTROLLER, |replica, now, out| {
                replica.found(BTreeSet::from([me]));
                replica.elect(now, false, out);
            });
        }
        self.begin_process(broker);
    }

    /// A process ends at once; others see its connections close, where the network lets them.
    pub fn kill(&mut self, broker: usize) {
        let from = self.replica_id(broker);
        let host = &mut self.hosts[broker];
        let Some(process) = host.process.take() else {
            return;
        };
        host.paused = false;
        host.stalled.clear();
        host.disks.extend(process.into_disks());
        self.say(format_args!("{broker}: is killed"));
        for other in 1..BROKERS_MAX {
            let to = self.replica_id(other);
            if other != broker && !self.network.is_cut(broker, other) {
                let after = self.rng.random_range(1..4);
                let mail = Mail::Closed;
                self.at(self.now + after, Event::Deliver { from, to, mail });
            }
        }
    }

    /// Brokers with a process that is not standing still.
    pub fn running(&self) -> Vec<usize> {
        let runs = |it: &usize| self.hosts[*it].process.is_some() && !self.hosts[*it].paused;
        (1..BROKERS_MAX).filter(runs).collect()
    }

    pub fn any_of<T: Copy>(&mut self, some: &[T]) -> Option<T> {
        if some.is_empty() {
            return None;
        }
        let at = self.rng.random_range(0..some.len());
        some.get(at).copied()
    }
}
