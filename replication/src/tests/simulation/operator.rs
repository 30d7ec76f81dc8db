//! Who uses the cluster: an operator who moves replicas, adds brokers and takes them away, and clients that write.

use std::collections::{BTreeMap, BTreeSet};

use rand::RngExt;
use tidelog_protocol::types::{BrokerId, TopicName};

use super::hosting::partition;
use super::network::BROKERS_MAX;
use super::process::Mail;
use super::raft::Ms;
use super::submitting::Purpose;
use super::world::{Event, Group, PARTITIONS, TOPIC, World, index_of};
use crate::metadata::command::Command;

/// Replicas of each partition.
const REPLICAS: usize = 3;
const LOOK: Ms = 120;
/// From one move of a partition that is asked for to the next: the first is on record by then.
const MOVE_PAUSE: Ms = 3_000;

/// Mistakes of a broker that leaves a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slip {
    /// It forgets its vote and how far its log went.
    Forgets,
    /// It removes its log as soon as its image says that it is to go, however late that is.
    Hastens,
}

#[derive(Debug, Default)]
pub struct Operator {
    /// Brokers that are to leave.
    pub leaving: BTreeSet<usize>,
    /// When something was last asked for.
    asked_at: Ms,
    /// When a partition was last asked to move.
    moved_at: BTreeMap<Group, Ms>,
    /// What brokers do wrong, to show that it would be found.
    pub slip: Option<Slip>,
}

impl World {
    /// The first brokers start.
    pub fn begin(&mut self) {
        let brokers = self.rng.random_range(3..=6);
        for broker in 1..=brokers {
            (self.hosts[broker].wanted, self.hosts[broker].may_run) = (true, true);
            if broker > 1 {
                let at = self.rng.random_range(300..900);
                self.at(at, Event::Mend(super::faults::Mend::Start(broker)));
            }
        }
        self.start(1, true);
        let first = self.rng.random_range(1_500..3_500);
        self.at(first, Event::Fault);
        self.at(500, Event::Operate);
        self.at(900, Event::Write);
    }

    /// Whether enough brokers stay if this one leaves.
    pub fn may_leave(&self, broker: usize) -> bool {
        let stay = (1..BROKERS_MAX).filter(|it| *it != broker && self.hosts[*it].wanted);
        let registered = self
            .ledger
            .newest()
            .broker(BrokerId(broker as i32))
            .is_some();
        registered && self.hosts[broker].wanted && stay.count() > REPLICAS
    }

    pub fn operate(&mut self) {
        self.at(self.now + LOOK, Event::Operate);
        let image = self.ledger.newest().clone();
        if partition(&image, 1).is_none() {
            return self.create();
        }
        self.take_leave();
        let wait = if self.calm_since.is_some() {
            Ms::MAX
        } else {
            self.rng.random_range(200..900)
        };
        if self.now < self.operator.asked_at.saturating_add(wait) {
            return;
        }
        self.operator.asked_at = self.now;
        let group = self.rng.random_range(1..=PARTITIONS);
        match self.rng.random_range(0..10) {
            0..=4 => self.ask_to_move(group),
            5 => self.ask(Command::AlterReassignment {
                topic: TOPIC,
                partition: index_of(group),
                target: None,
            }),
            6 | 7 => self.ask_preferred(group),
            8 => {
                let idle =
                    |it: &usize| !self.hosts[*it].wanted && !self.operator.leaving.contains(it);
                let idle: Vec<usize> = (1..BROKERS_MAX).filter(idle).collect();
                if let Some(broker) = self.any_of(&idle) {
                    (self.hosts[broker].wanted, self.hosts[broker].may_run) = (true, true);
                    self.start(broker, false);
                }
            }
            _ => {
                let broker = self.rng.random_range(1..BROKERS_MAX);
                if self.may_leave(broker) {
                    self.hosts[broker].wanted = false;
                    self.operator.leaving.insert(broker);
                }
            }
        }
    }

    /// Any broker takes a command.
    fn ask(&mut self, command: Command) {
        let registered = |it: &usize| {
            let process = self.hosts[*it].process.as_ref();
            process.is_some_and(|it| it.epoch.is_some())
        };
        let mut brokers = self.running();
        brokers.retain(registered);
        if let Some(broker) = self.any_of(&brokers) {
            self.say(format_args!("operator by {broker}: {command:?}"));
            self.submit(broker, command, Purpose::Operate);
        }
    }

    /// Brokers that a partition may be moved to.
    fn some_brokers(&mut self, but: &[BrokerId], count: usize) -> Vec<BrokerId> {
        let image = self.ledger.newest().clone();
        let fits = |it: &BrokerId| !but.contains(it) && self.hosts[it.0 as usize].wanted;
        let mut fit: Vec<BrokerId> = image.brokers().map(|it| it.id).filter(fits).collect();
        let mut chosen = Vec::new();
        while chosen.len() < count && !fit.is_empty() {
            let at = self.rng.random_range(0..fit.len());
            chosen.push(fit.swap_remove(at));
        }
        chosen
    }

    fn create(&mut self) {
        let assignments: Vec<Vec<BrokerId>> = (1..=PARTITIONS)
            .map(|_| self.some_brokers(&[], REPLICAS))
            .collect();
        if assignments.iter().all(|it| it.len() == REPLICAS) {
            self.ask(Command::CreateTopic {
                name: TopicName::from("orders"),
                id: TOPIC,
                assignments,
                configs: Default::default(),
            });
        }
    }

    fn ask_to_move(&mut self, group: Group) {
        let target = match self.rng.random_range(0..6) {
            // To fewer, and back some time.
            0 => self.some_brokers(&[], 1),
            1 => self.some_brokers(&[], 2),
            _ => self.some_brokers(&[], REPLICAS),
        };
        self.move_to(group, target);
    }

    fn move_to(&mut self, group: Group, target: Vec<BrokerId>) {
        let moved_at = self.operator.moved_at.entry(group).or_default();
        if target.is_empty() || self.now < *moved_at + MOVE_PAUSE {
            return;
        }
        *moved_at = self.now;
        self.ask(Command::AlterReassignment {
            topic: TOPIC,
            partition: index_of(group),
            target: Some(target),
        });
    }

    fn ask_preferred(&mut self, group: Group) {
        let image = self.ledger.newest().clone();
        let leader = partition(&image, group).and_then(|it| image.live_leader(it));
        let leader = leader
            .and_then(|it| image.broker(it))
            .map(|it| it.replica());
        let brokers = self.running();
        if let (Some(leader), Some(broker)) = (leader, self.any_of(&brokers)) {
            let me = self.replica_id(broker);
            self.mail(me, leader, Mail::HandOver(group));
        }
    }

    /// Brokers that are to leave are emptied, stopped and removed; some come back with another disk.
    fn take_leave(&mut self) {
        let image = self.ledger.newest().clone();
        for broker in self.operator.leaving.clone() {
            let (id, me) = (BrokerId(broker as i32), self.replica_id(broker));
            let mut holds = false;
            for group in 1..=PARTITIONS {
                let Some(known) = partition(&image, group) else {
                    continue;
                };
                holds |= known.replicas.contains(&id);
                let asked = known.wanted();
                let at = asked.iter().position(|it| *it == id);
                if let Some(at) = at
                    && self.rng.random_bool(0.4)
                {
                    let mut target = asked.to_vec();
                    match self.some_brokers(asked, 1).first() {
                        Some(other) => target[at] = *other,
                        None if target.len() > 1 => {
                            target.remove(at);
                        }
                        // There is nobody else to take it.
                        None => {
                            self.operator.leaving.remove(&broker);
                            self.hosts[broker].wanted = true;
                            continue;
                        }
                    }
                    self.move_to(group, target);
                }
            }
            match image.broker(id) {
                // A broker that is stopped may be removed; impatience is refused.
                Some(known)
                    if known.fenced
                        && (!self.hosts[broker].may_run || known.replica() != me)
                        && (!holds || self.rng.random_bool(0.1)) =>
                {
                    self.ask(Command::UnregisterBroker { broker: id });
                }
                Some(known)
                    if !holds
                        && known.replica() == me
                        && self.hosts[broker].may_run
                        && self.moves_are_known()
                        && self.is_bearable(broker) =>
                {
                    self.hosts[broker].may_run = false;
                    self.kill(broker);
                }
                Some(_) => {}
                None => self.gone(broker),
            }
        }
    }

    /// Whether the image shows all moves that were asked for.
    fn moves_are_known(&self) -> bool {
        let mut moved = self.operator.moved_at.values();
        moved.all(|at| self.now > at + MOVE_PAUSE)
    }

    fn gone(&mut self, broker: usize) {
        self.operator.leaving.remove(&broker);
        if self.hosts[broker].may_run {
            // It has tried to come with its new disk all the time.
            self.hosts[broker].wanted = true;
            return;
        }
        let host = &mut self.hosts[broker];
        host.may_run = false;
        host.disks.clear();
        host.departed.clear();
        host.directory = uuid::Uuid::from_u128(host.directory.as_u128() + 1);
        self.say(format_args!("{broker}: is removed"));
        if self.calm_since.is_none() && self.rng.random_bool(0.5) {
            (self.hosts[broker].wanted, self.hosts[broker].may_run) = (true, true);
            self.start(broker, false);
        }
    }

    /// A client writes to a replica that says that it leads.
    pub fn write(&mut self) {
        let pause = self.rng.random_range(10..60);
        self.at(self.now + pause, Event::Write);
        let group = self.rng.random_range(1..=PARTITIONS);
        if let Some(calm) = self.calm_since {
            let last = self.checks.last_acknowledged(group);
            if last > calm + 500 {
                return;
            }
        }
        let leads = |it: &usize| {
            let process = self.hosts[*it].process.as_ref();
            process
                .and_then(|it| it.hosted.get(&group))
                .is_some_and(|it| it.leads)
        };
        let mut leaders = self.running();
        leaders.retain(leads);
        if let Some(broker) = self.any_of(&leaders) {
            self.write_record(broker, group);
        }
    }
}
