//! The way of a command to the controller's leader, and back to an image that shows it: `Controller::submit`.

use std::sync::Arc;

use rand::RngExt;
use tidelog_protocol::types::BrokerId;

use super::faults::Mend;
use super::process::{Mail, Timer};
use super::raft::{Body, Index, Ms};
use super::world::{CONTROLLER, Event, Group, World, place};
use crate::metadata::command::{BrokerRegistration, Command, LeaderReport, MetadataError, Outcome};
use crate::metadata::levels::FEATURE_LEVEL_MAX;
use crate::raft::types::ReplicaId;

/// Longest wait for a command, from the caller's side.
const PATIENCE: Ms = 1_500;
/// Longest wait for the answer of one broker.
const ANSWER: Ms = 500;
const RETRY: Ms = 20;

/// What is to follow.
#[derive(Clone, Debug)]
pub enum Purpose {
    Register,
    Report(Vec<LeaderReport>),
    Complete(Group),
    /// An image that shows what is committed by now, before a log is removed.
    Leave(Group),
    /// The same, before a partition is moved.
    Hear(Group, u64),
    Operate,
}

#[derive(Debug)]
pub struct Submit {
    number: u64,
    command: Arc<Command>,
    purpose: Purpose,
    deadline: Ms,
    attempt: u32,
    hint: Option<BrokerId>,
    /// Somebody was asked, and may have carried it out.
    asked: bool,
    /// What it came to, and the entry that is to be shown.
    done: Option<(Index, Result<Outcome, MetadataError>)>,
}

impl World {
    pub fn submit(&mut self, broker: usize, command: Command, purpose: Purpose) {
        let (id, number) = (self.number(), self.number());
        let deadline = self.now + PATIENCE;
        if let Some(process) = self.process(broker) {
            let submit = Submit {
                number,
                command: Arc::new(command),
                purpose,
                deadline,
                attempt: 0,
                hint: None,
                asked: false,
                done: None,
            };
            process.submits.insert(id, submit);
            self.retry(broker, id, 0);
        }
    }

    /// Writes a command as the controller's leader; `None`: this broker does not lead.
    pub fn write_command(
        &mut self,
        broker: usize,
        number: u64,
        command: Arc<Command>,
    ) -> Option<Index> {
        let now = self.now;
        let replica = self.replica(broker, CONTROLLER)?;
        if !replica.has_lease(now) {
            return None;
        }
        self.check_written(broker, &command);
        self.with(broker, CONTROLLER, |it, now, out| {
            it.append(Body::Command(number, command), now, out)
        })
    }

    pub fn retry(&mut self, broker: usize, id: u64, attempt: u32) {
        let (now, me) = (self.now, self.replica_id(broker));
        let Some(process) = self.process(broker) else {
            return;
        };
        let leader = process.controller.leader().map(|it| it.broker);
        let Some(submit) = process.submits.get_mut(&id) else {
            return;
        };
        if submit.attempt != attempt {
            return;
        }
        // A registration that nobody answered is not asked for again: the process ends, and the next one does.
        let given_up = submit.asked && matches!(submit.purpose, Purpose::Register);
        if now >= submit.deadline || given_up {
            return self.end_submit(broker, id, None);
        }
        (submit.attempt, submit.asked) = (submit.attempt + 1, true);
        let (number, command, next) = (submit.number, submit.command.clone(), submit.attempt);
        let target = submit.hint.take().or(leader);
        if let Some(index) = self.write_command(broker, number, command.clone()) {
            if let Some(process) = self.process(broker) {
                process.answers.insert(index, (me, id));
            }
            self.timer(broker, ANSWER, Timer::Retry(id, next));
            return self.answer(broker);
        }
        let target = target
            .filter(|it| *it != me.broker)
            .or_else(|| self.somebody(broker));
        let newest = self.image(broker);
        let target = target
            .and_then(|it| newest.broker(it))
            .map(|it| it.replica());
        // One that knows nobody yet was introduced to the cluster.
        let target = target.or_else(|| {
            let others = self.running();
            let others: Vec<usize> = others.into_iter().filter(|it| *it != broker).collect();
            self.any_of(&others).map(|it| self.replica_id(it))
        });
        let run = self.hosts[broker].runs;
        // Who does not listen is known at once.
        let listens = |it: &ReplicaId| {
            let host = &self.hosts[place(*it)];
            host.process.is_some() && host.directory == it.directory
        };
        match target.filter(listens) {
            Some(target) => {
                let mail = Mail::Submit {
                    run,
                    id,
                    number,
                    command,
                };
                self.mail(me, target, mail);
            }
            None => return self.not_there(broker, id, None),
        }
        self.timer(broker, ANSWER, Timer::Retry(id, next));
    }

    /// A broker that was asked does not lead.
    pub fn not_there(&mut self, broker: usize, id: u64, hint: Option<BrokerId>) {
        let Some(submit) = self.process(broker).and_then(|it| it.submits.get_mut(&id)) else {
            return;
        };
        (submit.hint, submit.asked) = (hint, false);
        let attempt = submit.attempt;
        self.timer(broker, RETRY, Timer::Retry(id, attempt));
    }

    /// As the controller's leader: tells those whose commands were carried out.
    pub fn answer(&mut self, broker: usize) {
        let Some(process) = self.process(broker) else {
            return;
        };
        let (me, applied) = (process.me, process.applied);
        let later = process.answers.split_off(&(applied + 1));
        let answers = std::mem::replace(&mut process.answers, later);
        for (index, (to, id)) in answers {
            let Some(outcome) = self.ledger.applied(index).outcome.clone() else {
                continue;
            };
            if to == me {
                self.submitted(broker, id, index, outcome);
            } else {
                self.mail(me, to, Mail::Submitted { id, index, outcome });
            }
        }
    }

    pub fn submitted(
        &mut self,
        broker: usize,
        id: u64,
        index: Index,
        outcome: Result<Outcome, MetadataError>,
    ) {
        let Some(submit) = self.process(broker).and_then(|it| it.submits.get_mut(&id)) else {
            return;
        };
        submit.done = Some((index, outcome));
        // The next wake-up is the deadline's.
        submit.attempt += 1;
        let (attempt, deadline) = (submit.attempt, submit.deadline);
        let left = deadline.saturating_sub(self.now);
        self.timer(broker, left, Timer::Retry(id, attempt));
        self.show_submitted(broker);
    }

    /// Ends submissions that the image shows.
    pub fn show_submitted(&mut self, broker: usize) {
        loop {
            let Some(process) = self.process(broker) else {
                return;
            };
            let applied = process.applied;
            let shown = process.submits.iter().find_map(|(id, submit)| {
                let (index, outcome) = submit.done.as_ref()?;
                (*index <= applied).then(|| (*id, outcome.clone()))
            });
            let Some((id, outcome)) = shown else { return };
            self.end_submit(broker, id, Some(outcome));
        }
    }

    fn end_submit(
        &mut self,
        broker: usize,
        id: u64,
        outcome: Option<Result<Outcome, MetadataError>>,
    ) {
        let Some(submit) = self.process(broker).and_then(|it| it.submits.remove(&id)) else {
            return;
        };
        match (submit.purpose, outcome) {
            (Purpose::Register, Some(Ok(Outcome::BrokerRegistered { broker_epoch }))) => {
                self.registered(broker, broker_epoch);
            }
            (Purpose::Register, _) => {
                self.kill(broker);
                self.at(self.now + 200, Event::Mend(Mend::Start(broker)));
            }
            (Purpose::Report(_), Some(_)) => self.timer(broker, 0, Timer::Report),
            (Purpose::Report(reports), None) => {
                if let Some(process) = self.process(broker) {
                    process.reporter.put_back(&reports);
                }
                self.timer(broker, 200, Timer::Report);
            }
            (Purpose::Complete(group), outcome) => {
                self.completed(broker, group, outcome.is_some());
            }
            (Purpose::Leave(group), Some(_)) => self.leave(broker, group),
            (Purpose::Leave(group), None) => self.timer(broker, 200, Timer::Leave(group)),
            (Purpose::Hear(group, token), outcome) => {
                self.heard_all(broker, group, token, outcome.is_some());
            }
            (Purpose::Operate, _) => {}
        }
    }

    /// Asks for an image that shows all that is committed by now: `Controller::catch_up`. Here something is committed for
    /// that.
    pub fn catch_up(&mut self, broker: usize, purpose: Purpose) {
        self.submit(broker, Command::ReportLeaders(Vec::new()), purpose);
    }

    pub fn register(&mut self, broker: usize) {
        let me = self.replica_id(broker);
        let registration = BrokerRegistration {
            broker: me.broker,
            directory_id: me.directory,
            incarnation: uuid::Uuid::from_u128(u128::from(self.number())),
            rack: self.hosts[broker].rack.clone(),
            endpoints: Vec::new(),
            peer_address: None,
            feature_level_max: FEATURE_LEVEL_MAX,
            new_directory: false,
        };
        self.submit(
            broker,
            Command::RegisterBroker(registration),
            Purpose::Register,
        );
    }

    /// From here on it says that it is there, and hosts what is assigned to it.
    fn registered(&mut self, broker: usize, epoch: i64) {
        self.say(format_args!("{broker}: is registered, epoch {epoch}"));
        if let Some(process) = self.process(broker) {
            process.epoch = Some(epoch);
        }
        self.remove_orphans(broker);
        self.host_all(broker);
        let (beat, look) = (self.rng.random_range(0..50), self.rng.random_range(0..700));
        self.timer(broker, beat, Timer::Beat);
        self.timer(broker, look, Timer::InSync);
    }

    /// Takes over what the controller group has committed.
    pub fn apply(&mut self, broker: usize) {
        let Some(process) = self.process(broker) else {
            return;
        };
        let (from, to) = (process.applied, process.controller.commit);
        if to <= from {
            return;
        }
        process.applied = to;
        let mut delta = crate::metadata::state::MetadataDelta::default();
        for index in from + 1..=to {
            delta.merge(self.ledger.applied(index).delta.clone());
        }
        self.follow_image(broker, &delta);
        self.answer(broker);
        self.show_submitted(broker);
        self.image_changed(broker);
    }
}
