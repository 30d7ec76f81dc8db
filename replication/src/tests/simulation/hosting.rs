//! The partitions of a broker: opened and removed as the image says, led, looked after, reported. What `HostedPartitions`
//! and `tasks` do.

use std::collections::BTreeSet;

use rand::RngExt;
use tidelog_protocol::types::BrokerId;

use super::operator::Slip;
use super::process::{Hosted, PARTITION_LEASE, Timer};
use super::raft::{Body, Ms, Replica};
use super::submitting::Purpose;
use super::world::{CONTROLLER, Group, PARTITIONS, TOPIC, World, group_id, group_of, index_of};
use crate::hosted::{founders, live_before};
use crate::metadata::command::Command;
use crate::metadata::image::{MetadataImage, PartitionImage};
use crate::metadata::state::MetadataDelta;
use crate::partition::shared::is_election_due;
use crate::raft::types::ReplicaId;
use crate::reporter::same_brokers;

/// Entries that a replica may lack and count as in sync, or as caught up.
pub const LAG_MAX: u64 = 2;

const STAGGER: Ms = 200;
const TRIES: u32 = 10;
const SWEEP: Ms = 700;
const IN_SYNC_LOOK: Ms = 700;
const TRANSFER_PATIENCE: Ms = 1_000;
const LINGER: Ms = 3;

pub fn partition(image: &MetadataImage, group: Group) -> Option<&PartitionImage> {
    image.partition_by_id(TOPIC, index_of(group))
}

impl World {
    /// The image of a broker changed: `tasks::follow_image`.
    pub fn follow_image(&mut self, broker: usize, delta: &MetadataDelta) {
        if self.process(broker).is_none_or(|it| it.epoch.is_none()) {
            return;
        }
        self.replace_leaders(broker, &delta.lost);
        if !delta.topics.is_empty() {
            self.host_all(broker);
        }
    }

    fn replace_leaders(&mut self, broker: usize, lost: &BTreeSet<BrokerId>) {
        let (image, me) = (self.image(broker), BrokerId(broker as i32));
        for group in 1..=PARTITIONS {
            let Some(hosted) = self.hosted(broker, group) else {
                continue;
            };
            let leader = hosted.leader;
            let gone = leader.filter(|leader| *leader != me && lost.contains(leader));
            if gone.is_none() {
                continue;
            }
            if !hosted.leads {
                hosted.leader = None;
                self.note_leaderless(broker, group);
            }
            let known = partition(&image, group);
            let turn = live_before(&image, known, me, lost);
            self.check_turn(&image, known, me, lost, turn);
            self.say(format_args!(
                "{broker}: leader of {group} is lost, turn {turn}"
            ));
            self.timer(broker, STAGGER * turn as Ms, Timer::Elect(group, TRIES));
        }
    }

    pub fn ask_in_turn(&mut self, broker: usize, group: Group, tries: u32) {
        if self.hosted(broker, group).is_none() || self.is_led(broker, group) {
            return;
        }
        self.with(broker, group, |it, now, out| it.elect(now, false, out));
        if tries > 1 {
            self.timer(broker, STAGGER, Timer::Elect(group, tries - 1));
        }
    }

    /// Makes what is hosted equal to the image.
    pub fn host_all(&mut self, broker: usize) {
        let image = self.image(broker);
        for group in 1..=PARTITIONS {
            let known = partition(&image, group);
            let me = BrokerId(broker as i32);
            let assigned = known.filter(|it| it.replicas.contains(&me));
            let hosts = self.hosted(broker, group).is_some();
            match assigned {
                None if hosts => self.remove(broker, group),
                None => {}
                Some(known) if !hosts => self.open(broker, group, founders(&image, known, me)),
                Some(known) if known.reassignment.is_some() => self.move_if_due(broker, group),
                Some(_) => {}
            }
        }
    }

    fn open(&mut self, broker: usize, group: Group, founders: Vec<ReplicaId>) {
        let me = self.replica_id(broker);
        let host = &mut self.hosts[broker];
        let departed = host.departed.get(&group).cloned();
        let disk = host.disks.remove(&group).or(departed);
        let disk = disk.unwrap_or_default();
        let founders = if disk.was_left() {
            Vec::new()
        } else {
            founders
        };
        let mut replica = Replica::start(me, disk, PARTITION_LEASE);
        let first = founders.first() == Some(&me);
        let is_new = replica.found(founders.into_iter().collect());
        let epoch = tidelog_protocol::types::LeaderEpoch(replica.disk.term() as i32);
        let hosted = Hosted {
            replica,
            leads: false,
            leader: None,
            epoch,
            sweeps: 0,
            leaderless: false,
            resending: false,
            writes: Default::default(),
            mover: None,
        };
        let Some(process) = self.process(broker) else {
            return;
        };
        process.hosted.insert(group, hosted);
        self.say(format_args!("{broker}: opens {group}, new {is_new}"));
        self.note_leaderless(broker, group);
        self.touch(broker, group);
        if !is_new || first {
            self.with(broker, group, |it, now, out| it.elect(now, false, out));
        }
    }

    fn remove(&mut self, broker: usize, group: Group) {
        self.say(format_args!("{broker}: ends {group}"));
        let ended = self.process(broker).and_then(|it| it.hosted.remove(&group));
        if let Some(ended) = ended {
            self.hosts[broker].disks.insert(group, ended.replica.disk);
        }
        match self.operator.slip {
            Some(Slip::Hastens) => self.leave(broker, group),
            _ => self.timer(broker, 1, Timer::Leave(group)),
        }
    }

    pub fn look_left(&mut self, broker: usize, group: Group) {
        if self.hosts[broker].disks.contains_key(&group) {
            self.catch_up(broker, Purpose::Leave(group));
        }
    }

    /// Removes a log, unless it is wanted here again.
    pub fn leave(&mut self, broker: usize, group: Group) {
        let (image, me) = (self.image(broker), self.replica_id(broker));
        let known = partition(&image, group);
        if known.is_some_and(|it| it.replicas.contains(&me.broker)) {
            return;
        }
        let host = &mut self.hosts[broker];
        let Some(disk) = host.disks.remove(&group) else {
            return;
        };
        if self.operator.slip != Some(Slip::Forgets) {
            host.departed.insert(group, disk.departed());
        }
        self.say(format_args!("{broker}: removes {group}"));
        self.check_removed(group, me);
    }

    /// Logs that are not assigned to this broker any more.
    pub fn remove_orphans(&mut self, broker: usize) {
        for group in 1..=PARTITIONS {
            self.leave(broker, group);
        }
    }

    /// `PartitionShared::is_led`.
    pub fn is_led(&mut self, broker: usize, group: Group) -> bool {
        let image = self.image(broker);
        let is_heard = |it: BrokerId| {
            it.0 as usize == broker || image.broker(it).is_none_or(|known| !known.fenced)
        };
        let hosted = self.hosted(broker, group);
        hosted.and_then(|it| it.leader).is_some_and(is_heard)
    }

    pub fn note_leaderless(&mut self, broker: usize, group: Group) {
        if let Some(hosted) = self.hosted(broker, group) {
            hosted.leaderless = true;
        }
        if let Some(process) = self.process(broker)
            && !std::mem::replace(&mut process.sweeping, true)
        {
            let pause = self.rng.random_range(SWEEP / 2..=SWEEP);
            self.timer(broker, pause, Timer::Sweep);
        }
    }

    pub fn sweep(&mut self, broker: usize) {
        let Some(process) = self.process(broker) else {
            return;
        };
        process.sweeping = false;
        for group in 1..=PARTITIONS {
            let is_led = self.is_led(broker, group);
            let Some(hosted) = self.hosted(broker, group) else {
                continue;
            };
            if !std::mem::take(&mut hosted.leaderless) || is_led {
                continue;
            }
            hosted.sweeps += 1;
            if is_election_due(hosted.sweeps) {
                self.with(broker, group, |it, now, out| it.elect(now, false, out));
            }
            if !self.is_led(broker, group) {
                self.note_leaderless(broker, group);
            }
        }
    }

    /// The controller is to know that this broker leads, or who is in sync.
    pub fn note_leading(&mut self, broker: usize, group: Group) {
        let Some(process) = self.process(broker) else {
            return;
        };
        let Some(hosted) = process.hosted.get(&group).filter(|it| it.leads) else {
            return;
        };
        process.reporter.report(group_id(group), hosted.epoch);
        if !std::mem::replace(&mut process.reporting, true) {
            self.timer(broker, LINGER, Timer::Report);
        }
    }

    /// `tasks::report_leaders`.
    pub fn report(&mut self, broker: usize) {
        let image = self.image(broker);
        let Some(process) = self.process(broker) else {
            return;
        };
        let in_sync = |id, _: &PartitionImage| {
            let hosted = process.hosted.get(&group_of(id));
            hosted.map_or_else(Vec::new, in_sync)
        };
        let mut reports = process.reporter.take(process.me.broker, &image, in_sync);
        // They come in the order of a hash.
        reports.sort_by_key(|report| report.partition);
        if reports.is_empty() {
            process.reporting = false;
            return;
        }
        let command = Command::ReportLeaders(reports.clone());
        self.submit(broker, command, Purpose::Report(reports));
    }

    /// `tasks::report_in_sync`.
    pub fn report_in_sync(&mut self, broker: usize) {
        self.timer(broker, IN_SYNC_LOOK, Timer::InSync);
        let image = self.image(broker);
        let Some(process) = self.process(broker) else {
            return;
        };
        let me = process.me.broker;
        let stale = process.hosted.iter().filter(|(group, hosted)| {
            let known = partition(&image, **group);
            let mut isr = in_sync(hosted);
            isr.push(me);
            hosted.leads && known.is_some_and(|known| !same_brokers(&isr, &known.isr))
        });
        let stale: Vec<Group> = stale.map(|(group, _)| *group).collect();
        for group in stale {
            self.note_leading(broker, group);
        }
    }

    /// Gives a leadership away, and sees to it that somebody takes it.
    pub fn transfer(&mut self, broker: usize, group: Group, heir: ReplicaId) {
        let Some(replica) = self.replica(broker, group) else {
            return;
        };
        let term = replica.disk.term();
        self.say(format_args!(
            "{broker}: hands {group} over to {}",
            heir.broker
        ));
        self.with(broker, group, |it, _, out| it.transfer(heir, out));
        if group != CONTROLLER {
            self.timer(broker, TRANSFER_PATIENCE, Timer::Transferred(group, term));
        }
    }

    /// Nobody took it: the group is started again.
    pub fn end_transfer(&mut self, broker: usize, group: Group, term: u64) {
        let Some(hosted) = self.hosted(broker, group) else {
            return;
        };
        let lead = hosted.replica.lead.as_ref();
        if !lead.is_some_and(|it| it.transferring) || hosted.replica.disk.term() != term {
            return;
        }
        let me = hosted.replica.me;
        let disk = std::mem::take(&mut hosted.replica.disk);
        let seen = hosted.replica.seen;
        hosted.replica = Replica::start(me, disk, PARTITION_LEASE);
        hosted.replica.seen = seen;
        (hosted.leads, hosted.leader, hosted.mover) = (false, None, None);
        hosted.writes.clear();
        self.note_leaderless(broker, group);
        self.with(broker, group, |it, now, out| it.elect(now, false, out));
    }

    /// Gives everything away that others can take: a stop.
    pub fn hand_all_over(&mut self, broker: usize) {
        for group in 1..=PARTITIONS {
            let Some(hosted) = self.hosted(broker, group).filter(|it| it.leads) else {
                continue;
            };
            let heir = hosted.replica.near(LAG_MAX).find(|it| {
                let membership = hosted.replica.disk.membership();
                membership.is_some_and(|(_, members)| members.is_voter(it))
            });
            if let Some(heir) = heir {
                self.transfer(broker, group, heir);
            }
        }
        let Some(replica) = self
            .replica(broker, CONTROLLER)
            .filter(|it| it.lead.is_some())
        else {
            return;
        };
        let voters = replica
            .disk
            .membership()
            .map(|(_, members)| members.voters());
        let heir = replica
            .near(0)
            .find(|it| voters.as_ref().is_some_and(|v| v.contains(it)));
        if let Some(heir) = heir {
            self.transfer(broker, CONTROLLER, heir);
        }
    }

    /// `Partition::hand_over_to` the first of the replicas.
    pub fn hand_over_to_preferred(&mut self, broker: usize, group: Group) {
        let image = self.image(broker);
        let preferred = partition(&image, group).and_then(|it| it.replicas.first().copied());
        let Some(hosted) = self.hosted(broker, group).filter(|it| it.leads) else {
            return;
        };
        let voters = hosted.replica.disk.membership().map(|(_, it)| it.voters());
        let heir = hosted.replica.near(LAG_MAX).find(|it| {
            Some(it.broker) == preferred && voters.as_ref().is_some_and(|v| v.contains(it))
        });
        if let Some(heir) = heir {
            self.transfer(broker, group, heir);
        }
    }

    /// A client writes a record to a replica that seems to lead.
    pub fn write_record(&mut self, broker: usize, group: Group) {
        let value = self.number();
        let now = self.now;
        let Some(hosted) = self.hosted(broker, group) else {
            return;
        };
        if !hosted.leads {
            return;
        }
        if !hosted.replica.has_lease(now) {
            // The lease is renewed; the client comes again.
            self.with(broker, group, |it, now, out| it.send_all(now, out));
            return;
        }
        let index = self.with(broker, group, |it, now, out| {
            it.append(Body::Record(value), now, out)
        });
        let now = self.now;
        let Some(index) = index else { return };
        let Some(hosted) = self.hosted(broker, group) else {
            return;
        };
        if hosted.replica.commit >= index {
            self.checks.acknowledged(group, index, value, now);
        } else if hosted.leads {
            hosted.writes.insert(index, value);
        }
    }

    /// Entries of a replica are committed, as far as it knows.
    pub fn note_committed(&mut self, broker: usize, group: Group, from: u64, to: u64) {
        for index in from + 1..=to {
            let Some(replica) = self.replica(broker, group) else {
                return;
            };
            let Some(entry) = replica.disk.entries.get(index as usize - 1).cloned() else {
                return self
                    .fail(|| format!("{broker} has committed {index} of {group} without it"));
            };
            self.check_committed(broker, group, index, &entry);
        }
        let now = self.now;
        let Some(hosted) = self.hosted(broker, group) else {
            return;
        };
        let later = hosted.writes.split_off(&(to + 1));
        let done = std::mem::replace(&mut hosted.writes, later);
        if hosted.leads {
            for (index, value) in done {
                self.checks.acknowledged(group, index, value, now);
            }
        }
    }
}

/// Voters in sync beside the leader, as `PartitionGroup::in_sync` names them.
fn in_sync(hosted: &Hosted) -> Vec<BrokerId> {
    let membership = hosted.replica.disk.membership();
    let votes = |it: &ReplicaId| membership.is_some_and(|(_, members)| members.is_voter(it));
    let near = hosted.replica.near(LAG_MAX).filter(votes);
    near.map(|replica| replica.broker).collect()
}
