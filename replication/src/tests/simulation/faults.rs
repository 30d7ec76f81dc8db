//! What goes wrong, and how each of it ends.

use rand::RngExt;
use tidelog_protocol::types::BrokerId;

use super::network::BROKERS_MAX;
use super::raft::{Membership, Ms};
use super::world::{Event, PARTITIONS, World, place};
use crate::metadata::image::PartitionImage;
use crate::raft::types::ReplicaId;

/// The end of a fault.
#[derive(Clone, Debug)]
pub enum Mend {
    Start(usize),
    Resume(usize),
    Links(Vec<(usize, usize)>),
    Loss,
    Speed(usize),
    /// A stop that was asked for is over, and for how long.
    Stop(usize, Ms),
    /// Nothing is wrong from here on.
    All,
}

impl World {
    pub fn begin_fault(&mut self) {
        if self.faults_left == 0 {
            return;
        }
        self.faults_left -= 1;
        self.faults += 1;
        let kind = self.rng.random_range(0..13);
        self.inject(kind);
        let pause = self.rng.random_range(50..1_600);
        let next = if self.faults_left == 0 {
            Event::Mend(Mend::All)
        } else {
            Event::Fault
        };
        self.at(self.now + pause, next);
    }

    fn inject(&mut self, kind: u32) {
        let running = self.running();
        let Some(broker) = self.any_of(&running) else {
            return;
        };
        let others: Vec<usize> = (1..BROKERS_MAX).filter(|it| *it != broker).collect();
        let (now, short, long) = (
            self.now,
            self.rng.random_range(50..600),
            self.rng.random_range(300..3_500),
        );
        self.trace
            .event(now, [3, u64::from(kind), broker as u64, 0], || {
                format!("fault {kind} of {broker}")
            });
        self.say(format_args!(
            "FAULT {kind} of {broker}, for {short} or {long}"
        ));
        match kind {
            0 | 1 => {
                self.kill(broker);
                self.mend_at(now + long, Mend::Start(broker));
            }
            // It is back before anybody thinks that it is gone.
            2 => {
                self.kill(broker);
                self.mend_at(now + short, Mend::Start(broker));
                if let Some(other) = self.any_of(&others).filter(|_| self.rng.random_bool(0.5)) {
                    self.kill(other);
                    self.mend_at(now + long, Mend::Start(other));
                }
            }
            3 | 4 => {
                self.pause(broker);
                self.mend_at(now + long, Mend::Resume(broker));
            }
            5 => {
                let Some(other) = self.any_of(&others) else {
                    return;
                };
                let mut links = vec![(broker, other)];
                if self.rng.random_bool(0.5) {
                    links.push((other, broker));
                }
                self.cut(links, long);
            }
            6 => {
                let links = others.iter().flat_map(|it| [(broker, *it), (*it, broker)]);
                self.cut(links.collect(), long);
            }
            7 => {
                let outwards = self.rng.random_bool(0.5);
                let links = others.iter().map(|it| match outwards {
                    true => (broker, *it),
                    false => (*it, broker),
                });
                self.cut(links.collect(), long);
            }
            8 => {
                let side: Vec<bool> = (0..BROKERS_MAX)
                    .map(|_| self.rng.random_bool(0.5))
                    .collect();
                let all = (1..BROKERS_MAX).flat_map(|a| (1..BROKERS_MAX).map(move |b| (a, b)));
                self.cut(all.filter(|(a, b)| side[*a] != side[*b]).collect(), long);
            }
            9 => {
                self.network.loss = self.rng.random_range(0.02..0.3);
                self.mend_at(now + long, Mend::Loss);
            }
            10 => {
                let by = self.rng.random_range(20..900);
                self.network.slow_down(broker, by);
                self.mend_at(now + 2 * long, Mend::Speed(broker));
            }
            11 => {
                self.hand_all_over(broker);
                self.mend_at(now + 150, Mend::Stop(broker, short));
            }
            _ => self.lose_disk(broker),
        }
    }

    fn cut(&mut self, links: Vec<(usize, usize)>, time: Ms) {
        for (from, to) in &links {
            self.network.cut(*from, *to, self.now);
        }
        self.mend_at(self.now + time, Mend::Links(links));
    }

    fn mend_at(&mut self, at: Ms, mend: Mend) {
        self.at(at, Event::Mend(mend));
    }

    /// A disk is lost, if no group loses a majority by that; the operator replaces the broker.
    fn lose_disk(&mut self, broker: usize) {
        if !self.is_bearable(broker) || !self.may_leave(broker) {
            return self.kill_for(broker, 400);
        }
        self.kill(broker);
        let tries = self.rng.random_bool(0.5);
        let host = &mut self.hosts[broker];
        host.disks.clear();
        host.departed.clear();
        host.directory = uuid::Uuid::from_u128(host.directory.as_u128() + 1);
        (host.wanted, host.may_run) = (false, tries);
        self.operator.leaving.insert(broker);
        // It is refused as long as the old one is registered.
        self.mend_at(self.now + 100, Mend::Start(broker));
        self.say(format_args!("{broker}: its disk is lost"));
    }

    /// Whether no group loses its majority for good if a broker does not come back as it was.
    pub fn is_bearable(&self, broker: usize) -> bool {
        let lost = self.replica_id(broker);
        let alive = |it: &ReplicaId| {
            let host = &self.hosts[place(*it)];
            *it != lost && host.directory == it.directory && host.may_run
        };
        let bears = |it: &Membership| !it.is_voter(&lost) || it.is_quorum(alive);
        let is_there = |id: &&BrokerId| **id != lost.broker && self.hosts[id.0 as usize].may_run;
        // A leader may have proposed what is wanted where nobody has seen it yet.
        let comes_to_bear = |it: &PartitionImage| {
            let to = it.wanted();
            !to.contains(&lost.broker) || to.iter().filter(is_there).count() * 2 > to.len()
        };
        let mut wanted = (self.ledger.newest().topics()).flat_map(|topic| &topic.partitions);
        wanted.all(comes_to_bear)
            && (0..=PARTITIONS).all(|group| self.memberships(group).iter().all(bears))
    }

    fn kill_for(&mut self, broker: usize, time: Ms) {
        self.kill(broker);
        self.mend_at(self.now + time, Mend::Start(broker));
    }

    /// Memberships that a group has, or may come to have.
    fn memberships(&self, group: usize) -> Vec<Membership> {
        let mut all = vec![Membership::clone(&self.ledger.groups[group].membership)];
        for broker in 1..BROKERS_MAX {
            let disk = self.disk_of(self.replica_id(broker), group);
            let newest = disk.and_then(|disk| disk.membership());
            all.extend(newest.map(|(_, it)| Membership::clone(it)));
        }
        all
    }

    pub fn mend(&mut self, mend: Mend) {
        self.trace
            .event(self.now, [4, self.faults as u64, 0, 0], || {
                format!("mend {mend:?}")
            });
        self.say(format_args!("MEND {mend:?}"));
        match mend {
            Mend::Start(broker) => self.start(broker, false),
            Mend::Resume(broker) => self.resume(broker),
            Mend::Links(links) => {
                for (from, to) in links {
                    self.network.mend(from, to);
                }
            }
            Mend::Loss => self.network.loss = 0.0,
            Mend::Speed(broker) => self.network.slow_down(broker, 0),
            Mend::Stop(broker, time) => self.kill_for(broker, time),
            Mend::All => {
                self.network.mend_all();
                for broker in 1..BROKERS_MAX {
                    self.resume(broker);
                    self.start(broker, false);
                }
                self.calm_since = Some(self.now);
            }
        }
    }
}
