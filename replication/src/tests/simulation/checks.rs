//! What must be true, whatever happens. Looked at where it could become untrue.

use std::collections::{BTreeMap, BTreeSet};

use tidelog_protocol::types::BrokerId;

use super::hosting::partition;
use super::ledger::mark;
use super::process::SESSION;
use super::raft::{Body, Entry, Index, Ms};
use super::world::{CONTROLLER, Group, PARTITIONS, World, group_of, place};
use crate::controller::voters::{self, Candidate};
use crate::hosted::members;
use crate::metadata::command::Command;
use crate::metadata::image::{MetadataImage, PartitionImage};
use crate::partition::reassignment::Step;
use crate::raft::members::Members;
use crate::raft::types::ReplicaId;

#[derive(Debug, Default)]
pub struct Checks {
    failure: Option<String>,
    /// Records that clients were told are safe: group, index, value, when.
    pub acknowledged: BTreeMap<(Group, Index), (u64, Ms)>,
    /// When a record of each partition was last acknowledged.
    last_acknowledged: BTreeMap<Group, Ms>,
}

impl Checks {
    pub fn fail(&mut self, why: impl FnOnce() -> String) {
        if self.failure.is_none() {
            self.failure = Some(why());
        }
    }

    pub fn failure(&self) -> Option<&String> {
        self.failure.as_ref()
    }

    pub fn acknowledged(&mut self, group: Group, index: Index, value: u64, now: Ms) {
        self.acknowledged.insert((group, index), (value, now));
        self.last_acknowledged.insert(group, now);
    }

    /// When that was; 0: never.
    pub fn last_acknowledged(&self, group: Group) -> Ms {
        self.last_acknowledged.get(&group).copied().unwrap_or(0)
    }
}

impl World {
    /// One leader of a term, and it has all that was committed before.
    pub fn check_leader(&mut self, group: Group, me: ReplicaId) {
        let Some(replica) = self.replica(place(me), group) else {
            return;
        };
        let term = replica.disk.term();
        let ledger = &self.ledger.groups[group];
        // One that was elected late owes nothing to what later leaders have committed meanwhile.
        let owed = (ledger.entries.iter().enumerate())
            .zip(&ledger.committed_in)
            .filter(|(_, committed_in)| **committed_in < term)
            .map(|(entry, _)| entry);
        let mut missing =
            owed.filter(|(at, known)| replica.disk.entries.get(*at).map(mark) != Some(**known));
        let missing = missing.next().map(|(at, _)| at + 1);
        self.say(format_args!("{}: leads {group} in term {term}", me.broker));
        if let Some(index) = missing {
            self.fail(|| {
                format!("{me} leads {group} in term {term} without committed entry {index}")
            });
        }
        let other = self.ledger.groups[group].leaders.insert(term, me);
        if let Some(other) = other.filter(|other| *other != me) {
            self.fail(|| format!("{me} and {other} lead {group} in term {term}"));
        }
    }

    /// An entry counts as committed on a broker: it is the same everywhere, and at first on a majority of the disks.
    pub fn check_committed(&mut self, broker: usize, group: Group, index: Index, entry: &Entry) {
        let known = self.ledger.groups[group]
            .entries
            .get(index as usize - 1)
            .copied();
        if let Some(known) = known {
            if known != mark(entry) {
                self.fail(|| {
                    format!("entry {index} of {group} on {broker} is another one: {entry:?}")
                });
            }
            return;
        }
        let membership = match &entry.body {
            Body::Members(members) => members.clone(),
            _ => self.ledger.groups[group].membership.clone(),
        };
        // A leader commits by its newest membership, which may come with the next entries of the same round.
        let newest = self
            .replica(broker, group)
            .and_then(|it| it.disk.membership().cloned());
        let holds = |replica: &ReplicaId| {
            // One whose disk is lost may have had it, and is one of a minority.
            let is_lost = self.hosts[place(*replica)].directory != replica.directory;
            let disk = self.disk_of(*replica, group);
            is_lost || disk.is_some_and(|disk| disk.term_at(index) == Some(entry.term))
        };
        let by_newest = newest.is_some_and(|(_, members)| members.is_quorum(holds));
        if !by_newest && !membership.is_quorum(holds) {
            self.fail(|| {
                format!("entry {index} of {group} is committed without a majority: {entry:?}")
            });
        }
        let before = self.ledger.newest().clone();
        let term = self.replica(broker, group).map_or(0, |it| it.disk.term());
        if let Some(command) = self.ledger.add(group, entry, term) {
            self.check_metadata(index, &before, &command);
        }
    }

    /// The image changed by a command.
    fn check_metadata(&mut self, index: Index, before: &MetadataImage, command: &Command) {
        let after = self.ledger.newest().clone();
        match command {
            Command::RegisterBroker(new) => {
                let known = before.broker(new.broker).map(|it| it.directory_id);
                let now = after.broker(new.broker).map(|it| it.directory_id);
                if known.is_some() && known != now {
                    self.fail(|| format!("{index}: broker {} changed its directory", new.broker));
                }
            }
            Command::SetBrokerFenced { broker, epoch, .. } => {
                let (old, new) = (before.broker(*broker), after.broker(*broker));
                let changed = old.map(|it| it.fenced) != new.map(|it| it.fenced);
                if changed && old.map(|it| it.epoch) != Some(*epoch) {
                    self.fail(|| format!("{index}: {command:?} is of another run: {old:?}"));
                }
            }
            Command::UnregisterBroker { broker } if after.broker(*broker).is_none() => {
                self.check_unregistered(index, before, *broker);
            }
            Command::CompleteReassignments(completed) => {
                for one in completed {
                    let group = one.partition.0 as Group + 1;
                    let was = partition(before, group).and_then(|it| it.reassignment.clone());
                    let done = partition(&after, group).is_some_and(|it| it.reassignment.is_none());
                    if let Some(was) = was.filter(|_| done) {
                        let wanted = members(&after, &was.to).into_iter().collect();
                        self.check_completed(group, &wanted);
                    }
                }
            }
            Command::ReportLeaders(reports) => {
                for report in reports {
                    let group = group_of(crate::raft::types::GroupId {
                        topic: report.topic,
                        partition: report.partition,
                    });
                    self.check_reported(group, before, &after);
                }
            }
            _ => {}
        }
    }

    fn check_unregistered(&mut self, index: Index, before: &MetadataImage, broker: BrokerId) {
        let held = before.partitions_of(broker);
        if !held.is_empty() {
            self.fail(|| format!("{index}: broker {broker} is removed and holds {held:?}"));
        }
        for group in 1..=PARTITIONS {
            let membership = self.ledger.groups[group].membership.clone();
            let named = membership.voters().iter().any(|it| it.broker == broker);
            if named {
                self.fail(|| format!("{index}: broker {broker} is removed and votes in {group}"));
            }
        }
    }

    fn check_completed(&mut self, group: Group, wanted: &BTreeSet<ReplicaId>) {
        let membership = self.ledger.groups[group].membership.clone();
        if membership.configs != [wanted.clone()] {
            self.fail(|| {
                format!("the reassignment of {group} to {wanted:?} is complete with {membership:?}")
            });
        }
    }

    fn check_reported(&mut self, group: Group, before: &MetadataImage, after: &MetadataImage) {
        let (Some(old), Some(new)) = (partition(before, group), partition(after, group)) else {
            return;
        };
        if new.leader_epoch < old.leader_epoch {
            let (old, new) = (old.leader_epoch, new.leader_epoch);
            self.fail(|| format!("the leader epoch of {group} goes back from {old:?} to {new:?}"));
        }
        let Some(leader) = new.leader else { return };
        if !new.replicas.contains(&leader) {
            let replicas = new.replicas.clone();
            self.fail(|| format!("the leader of {group} is {leader}, none of {replicas:?}"));
        }
        let term = new.leader_epoch.0 as u64;
        let elected = self.ledger.groups[group]
            .leaders
            .get(&term)
            .map(|it| it.broker);
        if elected != Some(leader) {
            self.fail(|| {
                format!("{leader} leads {group} in epoch {term}, which elected {elected:?}")
            });
        }
    }

    /// A broker removes what it has of a partition: nobody needs it.
    pub fn check_removed(&mut self, group: Group, me: ReplicaId) {
        if self.ledger.groups[group].membership.is_voter(&me) {
            self.fail(|| format!("{me} removes its replica of {group}, in which it votes"));
        }
    }

    /// A step of a reassignment. `near` lack little, as far as the leader knows.
    pub fn check_step(
        &mut self,
        group: Group,
        step: &Step,
        members: &Members,
        near: &BTreeSet<ReplicaId>,
        me: ReplicaId,
    ) {
        match step {
            Step::ReplaceVoters(voters) => {
                let ends = members.next.as_ref() == Some(voters);
                let behind = voters
                    .iter()
                    .find(|it| !members.voters.contains(it) && !near.contains(it));
                if let Some(behind) = behind {
                    self.fail(|| format!("{behind} is to vote in {group} before it has caught up"));
                }
                if members.next.is_some() && !ends {
                    self.fail(|| {
                        format!("{group} is to change in the middle of a change: {members:?}")
                    });
                }
                let there = |it: &&ReplicaId| near.contains(it);
                if !ends && voters.iter().filter(there).count() <= voters.len() / 2 {
                    self.fail(|| {
                        format!("{group} is to change to voters that cannot commit: {voters:?}")
                    });
                }
                if !ends && !voters.contains(&me) {
                    self.fail(|| format!("the leader of {group} takes its own vote away"));
                }
            }
            Step::HandOver(heir) if !near.contains(heir) => {
                self.fail(|| format!("{group} is handed over to {heir}, which is behind"));
            }
            Step::RemoveLearner(gone) if members.voters.contains(gone) => {
                self.fail(|| format!("{gone} votes in {group} and is removed"));
            }
            _ => {}
        }
    }

    /// Somebody asks at once for the leadership that a lost broker had.
    pub fn check_turn(
        &mut self,
        image: &MetadataImage,
        known: Option<&PartitionImage>,
        me: BrokerId,
        lost: &BTreeSet<BrokerId>,
        turn: usize,
    ) {
        let Some(known) = known else { return };
        let can = |it: &&BrokerId| image.is_live(**it) && !lost.contains(it);
        let first = known.replicas.iter().find(can);
        if first == Some(&me) && turn > 0 {
            self.fail(|| {
                format!(
                    "{me} is the first of {:?} that lives, and waits",
                    known.replicas
                )
            });
        }
    }

    /// A step of the controller's members.
    pub fn check_voters(
        &mut self,
        step: &voters::Step,
        candidates: &[Candidate],
        members: &Members,
    ) {
        let voters::Step::ReplaceVoters(voters) = step else {
            return;
        };
        if let Some(next) = &members.next {
            if next != voters {
                self.fail(|| {
                    format!(
                        "the controller group changes to {voters:?} in the middle of {members:?}"
                    )
                });
            }
            return;
        }
        let of = |it: &ReplicaId| candidates.iter().find(|candidate| candidate.replica == *it);
        let live = |it: &&ReplicaId| of(it).is_some_and(|candidate| candidate.live);
        let ready = |it: &ReplicaId| of(it).is_some_and(|it| it.live && it.caught_up);
        let new = voters.difference(&members.voters).find(|it| !ready(it));
        if let Some(new) = new {
            self.fail(|| {
                format!("{new} is to vote in the controller group, and is not there or behind")
            });
        }
        // One that gives its vote away later may be one too many.
        let stays = voters.is_disjoint(&members.voters) || voters.len() % 2 == 1;
        let odd = stays || voters.intersection(&members.voters).count() == 1;
        if !odd {
            self.fail(|| format!("an even number of voters: {voters:?}"));
        }
        let most = |all: &BTreeSet<ReplicaId>| all.iter().filter(live).count() > all.len() / 2;
        if !most(voters) || !most(&members.voters) {
            self.fail(|| format!("voters that cannot commit: {voters:?} after {members:?}"));
        }
        let away = voters.iter().filter(|it| !live(it)).count();
        let idle = candidates
            .iter()
            .filter(|it| it.live && it.caught_up && !voters.contains(&it.replica));
        if away > 0 && idle.count() >= 1 && voters.len() > 1 {
            self.fail(|| {
                format!("a broker that is away keeps its vote: {voters:?} of {candidates:?}")
            });
        }
    }

    /// The controller's leader is about to write a command.
    pub fn check_written(&mut self, broker: usize, command: &Command) {
        let Command::SetBrokerFenced {
            broker: whom,
            epoch,
            fenced: true,
        } = command
        else {
            return;
        };
        let now = self.now;
        let Some(process) = self.process(broker) else {
            return;
        };
        let Some(tending) = &process.tending else {
            return;
        };
        let watch = &tending.watch;
        let (known, heard) = watch
            .heard
            .get(whom)
            .copied()
            .unwrap_or((*epoch, watch.since));
        let base = heard.max(watch.since);
        if known == *epoch && now < base + SESSION && !watch.closed.contains(whom) {
            let silence = now - base;
            self.fail(|| format!("{broker} fences {whom}, of which it heard {silence} ms ago"));
        }
    }

    /// The controller's leader has nothing to do at the moment: nobody is silent for longer than a session.
    pub fn check_silence(&mut self, broker: usize) {
        let (now, image) = (self.now, self.image(broker));
        let Some(process) = self.process(broker) else {
            return;
        };
        let Some(tending) = &process.tending else {
            return;
        };
        let watch = &tending.watch;
        let mut silent = image.brokers().filter(|it| {
            let heard = watch
                .heard
                .get(&it.id)
                .filter(|(epoch, _)| *epoch == it.epoch);
            let shown = watch
                .shown
                .get(&it.id)
                .filter(|(epoch, _)| *epoch == it.epoch);
            let base = heard
                .map_or(now, |(_, at)| *at)
                .max(shown.map_or(now, |(_, at)| *at));
            it.id.0 as usize != broker && !it.fenced && now > base + SESSION
        });
        if let Some(silent) = silent.next().map(|it| it.id) {
            self.fail(|| format!("{broker} does not fence {silent}, which is silent"));
        }
    }

    /// What is not as it should be once nothing disturbs any more; `None`: all is well.
    pub fn unsettled(&self) -> Option<String> {
        let image = self.ledger.newest();
        for (broker, host) in self.hosts.iter().enumerate().skip(1) {
            let Some(process) = &host.process else {
                if host.wanted {
                    return Some(format!("{broker} does not run"));
                }
                continue;
            };
            let known = image.broker(process.me.broker);
            if known.is_none_or(|it| it.fenced || Some(it.epoch) != process.epoch) {
                return Some(format!("{broker} is not there as it is: {known:?}"));
            }
            if self.image(broker).version() != image.version() {
                return Some(format!("{broker} does not know the newest image"));
            }
        }
        let running = self.running().len();
        if image.brokers().count() != running {
            return Some(format!(
                "{running} brokers run, not {}",
                image.brokers().count()
            ));
        }
        self.unsettled_controller(image)
            .or_else(|| (1..=PARTITIONS).find_map(|group| self.unsettled_partition(image, group)))
    }

    fn unsettled_controller(&self, image: &MetadataImage) -> Option<String> {
        let membership = &self.ledger.groups[CONTROLLER].membership;
        let count = image.brokers().count().min(5);
        let count = if count.is_multiple_of(2) {
            count - 1
        } else {
            count
        };
        let voters = membership.voters();
        if membership.configs.len() != 1 || voters.len() != count {
            return Some(format!("{count} voters are wanted: {membership:?}"));
        }
        let all: BTreeSet<ReplicaId> = image.brokers().map(|it| it.replica()).collect();
        let listed: BTreeSet<ReplicaId> = voters.union(&membership.learners).copied().collect();
        if all != listed {
            return Some(format!("members are {listed:?}, brokers {all:?}"));
        }
        let racks = |some: &BTreeSet<ReplicaId>| {
            let racks = some.iter().map(|it| {
                let rack = image.broker(it.broker).and_then(|it| it.rack.clone());
                rack.unwrap_or_else(|| format!("of {}", it.broker))
            });
            racks.collect::<BTreeSet<String>>().len()
        };
        (racks(&voters) < racks(&all).min(count))
            .then(|| format!("voters are not spread over racks: {voters:?}"))
    }

    fn unsettled_partition(&self, image: &MetadataImage, group: Group) -> Option<String> {
        let known = partition(image, group)?;
        let wanted: BTreeSet<ReplicaId> = members(image, &known.replicas).into_iter().collect();
        let membership = &self.ledger.groups[group].membership;
        if known.reassignment.is_some() {
            return Some(format!(
                "{group} is still moving: {known:?}, {membership:?}"
            ));
        }
        if membership.configs != [wanted.clone()] || !membership.learners.is_empty() {
            return Some(format!("{group} has {membership:?}, not {wanted:?}"));
        }
        let leader = known
            .leader
            .filter(|_| known.isr.len() == known.replicas.len());
        let Some(leader) = leader else {
            return Some(format!("{group} is not led, or not in sync: {known:?}"));
        };
        let led = self
            .replica(leader.0 as usize, group)
            .filter(|it| it.lead.is_some());
        if led.is_none_or(|it| it.disk.term() != known.leader_epoch.0 as u64) {
            return Some(format!("{group} is not led as the image says: {known:?}"));
        }
        let committed = self.ledger.groups[group].entries.len() as Index;
        for (broker, host) in self.hosts.iter().enumerate().skip(1) {
            let hosts = host.process.as_ref().and_then(|it| it.replica(group));
            let assigned = known.replicas.contains(&BrokerId(broker as i32));
            let has =
                |it: &super::raft::Replica| it.commit == committed && it.disk.last() == committed;
            if hosts.is_some() != assigned || hosts.is_some_and(|it| !has(it)) {
                return Some(format!("{broker} does not host {group} as the image says"));
            }
        }
        let last = self.checks.last_acknowledged(group);
        (Some(last) <= self.calm_since).then(|| format!("{group} takes no records"))
    }

    /// Everything that was acknowledged is where it was said to be.
    pub fn check_books(&mut self) {
        let lost = self
            .checks
            .acknowledged
            .iter()
            .find(|((group, index), (value, _))| {
                let known = self.ledger.groups[*group].entries.get(*index as usize - 1);
                known.is_none_or(|(_, mark)| *mark != *value << 2)
            });
        if let Some(lost) = lost.map(|it| format!("{it:?}")) {
            self.fail(|| format!("acknowledged and not there: {lost}"));
        }
    }
}
