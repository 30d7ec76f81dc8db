//! What `reassign` does: each step planned from the members, begun once the leadership is confirmed.

use std::collections::BTreeSet;

use super::hosting::{LAG_MAX, partition};
use super::process::Timer;
use super::raft::{Index, Ms};
use super::submitting::Purpose;
use super::world::{Group, TOPIC, World, index_of};
use crate::hosted::members;
use crate::metadata::command::{Command, CompletedReassignment};
use crate::partition::reassignment::{self, Step};
use crate::raft::types::ReplicaId;

const STEP_TIMEOUT: Ms = 2_000;
const STEP_PAUSE: Ms = 10;
const WAIT_PAUSE: Ms = 100;

#[derive(Debug)]
pub struct Mover {
    /// Timers of other states are void.
    token: u64,
    doing: Doing,
}

#[derive(Debug)]
enum Doing {
    /// Waits for an image that shows what leaders before this one have ended.
    Hearing,
    /// Looks again when its timer rings.
    Pausing,
    /// Waits for the confirmation of the leadership at that time.
    Confirming { step: Step, since: Ms },
    /// Waits for the commit of this entry and of what follows from it.
    Changing(Index),
    /// Waits for the controller.
    Completing,
}

impl World {
    /// A partition is said to be moving, or began to be led here.
    pub fn move_if_due(&mut self, broker: usize, group: Group) {
        let image = self.image(broker);
        let asked = partition(&image, group).is_some_and(|it| it.reassignment.is_some());
        let token = self.number();
        let Some(hosted) = self.hosted(broker, group) else {
            return;
        };
        if !asked || !hosted.leads || hosted.mover.is_some() {
            return;
        }
        let doing = Doing::Hearing;
        hosted.mover = Some(Mover { token, doing });
        self.timer(broker, 1, Timer::Mover(group, token));
    }

    /// The image shows what was committed before this replica led, or nobody could be asked.
    pub fn heard_all(&mut self, broker: usize, group: Group, token: u64, heard: bool) {
        let Some(hosted) = self.hosted(broker, group) else {
            return;
        };
        if hosted.mover.as_ref().is_none_or(|it| it.token != token) {
            return;
        }
        if heard {
            self.set_mover(broker, group, Doing::Pausing, 1);
        } else {
            self.set_mover(broker, group, Doing::Hearing, WAIT_PAUSE);
        }
    }

    fn set_mover(&mut self, broker: usize, group: Group, doing: Doing, wake: Ms) {
        let token = self.number();
        if let Some(hosted) = self.hosted(broker, group) {
            hosted.mover = Some(Mover { token, doing });
            self.timer(broker, wake, Timer::Mover(group, token));
        }
    }

    pub fn wake_mover(&mut self, broker: usize, group: Group, token: u64) {
        let mover = self.hosted(broker, group).and_then(|it| it.mover.as_ref());
        let Some(mover) = mover.filter(|it| it.token == token) else {
            return;
        };
        match mover.doing {
            Doing::Pausing => self.look_at_members(broker, group),
            Doing::Hearing => self.catch_up(broker, Purpose::Hear(group, token)),
            // It took too long, and is planned anew.
            _ => self.set_mover(broker, group, Doing::Pausing, WAIT_PAUSE),
        }
    }

    fn look_at_members(&mut self, broker: usize, group: Group) {
        let Some(step) = self.plan_step(broker, group) else {
            if let Some(hosted) = self.hosted(broker, group) {
                hosted.mover = None;
            }
            return;
        };
        if step == Step::Wait {
            return self.set_mover(broker, group, Doing::Pausing, WAIT_PAUSE);
        }
        self.say(format_args!("{broker}: plans {step:?} of {group}"));
        let since = self.now;
        self.set_mover(
            broker,
            group,
            Doing::Confirming { step, since },
            STEP_TIMEOUT,
        );
        self.with(broker, group, |it, now, out| it.send_all(now, out));
    }

    /// The next step; `None`: nothing is asked for, or this replica does not lead.
    fn plan_step(&mut self, broker: usize, group: Group) -> Option<Step> {
        let (image, me) = (self.image(broker), self.replica_id(broker));
        let asked = partition(&image, group)?.reassignment.clone()?;
        let replica = self.replica(broker, group)?;
        replica.lead.as_ref()?;
        let wanted = members(&image, &asked.to);
        let Some(members) = replica.committed_members() else {
            return Some(Step::Wait);
        };
        if wanted.len() < asked.to.len() {
            return Some(Step::Wait);
        }
        let near: BTreeSet<ReplicaId> = replica.near(LAG_MAX).chain([me]).collect();
        let is_there = |it: &ReplicaId| image.is_live(it.broker) && self.is_connected(broker, *it);
        let mut caught_up = near.clone();
        caught_up.retain(|it| *it == me || is_there(it));
        let step = reassignment::next_step(&wanted, &members, &caught_up, me);
        self.check_step(group, &step, &members, &near, me);
        Some(step)
    }

    /// Something happened to the partition's replica here.
    pub fn go_on_moving(&mut self, broker: usize, group: Group) {
        let now = self.now;
        let Some(hosted) = self.hosted(broker, group) else {
            return;
        };
        let Some(mover) = &hosted.mover else { return };
        if hosted.replica.lead.is_none() {
            hosted.mover = None;
            return;
        }
        let replica = &hosted.replica;
        match &mover.doing {
            Doing::Confirming { step, since } if replica.confirmed(*since, now) => {
                let step = step.clone();
                self.carry_out(broker, group, step);
            }
            Doing::Changing(index) if replica.commit >= *index => {
                let ended = replica.lead.as_ref().is_some_and(|it| it.change.is_none());
                if ended && replica.committed_members().is_some() {
                    self.set_mover(broker, group, Doing::Pausing, STEP_PAUSE);
                }
            }
            _ => {}
        }
    }

    fn carry_out(&mut self, broker: usize, group: Group, step: Step) {
        let pause = |world: &mut World, wake| world.set_mover(broker, group, Doing::Pausing, wake);
        // Before anything else: what is carried out comes back here.
        pause(self, WAIT_PAUSE);
        let begun = match step {
            Step::Wait => None,
            Step::Done => match self.plan_step(broker, group) {
                Some(Step::Done) => return self.complete(broker, group),
                _ => return pause(self, STEP_PAUSE),
            },
            Step::HandOver(heir) => {
                self.transfer(broker, group, heir);
                return;
            }
            Step::AddLearner(replica) => self.with(broker, group, |it, now, out| {
                it.change_learners(|learners| learners.insert(replica), now, out)
            }),
            Step::RemoveLearner(replica) => self.with(broker, group, |it, now, out| {
                it.change_learners(|learners| learners.remove(&replica), now, out)
            }),
            Step::ReplaceVoters(voters) => self.with(broker, group, |it, now, out| {
                it.replace_voters(voters, false, now, out)
            }),
        };
        let index = begun.flatten();
        if let Some(index) = index
            && self
                .replica(broker, group)
                .is_some_and(|it| it.lead.is_some())
        {
            self.set_mover(broker, group, Doing::Changing(index), STEP_TIMEOUT);
            self.go_on_moving(broker, group);
        }
    }

    fn complete(&mut self, broker: usize, group: Group) {
        let image = self.image(broker);
        let asked = partition(&image, group).and_then(|it| it.reassignment.clone());
        let Some(asked) = asked else { return };
        self.set_mover(broker, group, Doing::Completing, 2 * STEP_TIMEOUT);
        self.note_leading(broker, group);
        let completed = CompletedReassignment {
            topic: TOPIC,
            partition: index_of(group),
            since: asked.since,
        };
        let command = Command::CompleteReassignments(vec![completed]);
        self.submit(broker, command, Purpose::Complete(group));
    }

    /// The controller has noted that a reassignment is done, or did not answer.
    pub fn completed(&mut self, broker: usize, group: Group, noted: bool) {
        let mover = self.hosted(broker, group).and_then(|it| it.mover.as_ref());
        if mover.is_some_and(|it| matches!(it.doing, Doing::Completing)) {
            let wake = if noted { STEP_PAUSE } else { WAIT_PAUSE };
            self.set_mover(broker, group, Doing::Pausing, wake);
        }
    }
}
