//! Appends on their way, and what happens when they arrive.

use tidelog_protocol::types::TopicPartition;

use super::effect::Reply;
use super::error::GroupError;
use super::ids::{AppendId, MemberId, Now, ReplyToken};
use super::member::Member;
use super::offset::CommittedOffset;
use super::record::GroupMetadata;
use super::state::{Group, GroupState};

/// An append that the machine waits for.
#[derive(Debug)]
pub(super) enum Pending {
    /// The leader's assignment.
    Assignment(GroupMetadata),
    /// A static member under its new id.
    Replaced(GroupMetadata, ReplacedMember),
    /// A generation without members.
    Emptied(GroupMetadata),
    /// Offsets.
    Commit(PendingCommit),
    /// Offsets, and perhaps the group itself, that go.
    Removal(PendingRemoval),
}

/// A static member whose new id is being stored.
#[derive(Debug)]
pub(super) struct ReplacedMember {
    /// Its parked join.
    pub(super) token: ReplyToken,
    /// The member as it was, for the case that storing fails.
    pub(super) before: Box<Member>,
    /// Its new id.
    pub(super) new: MemberId,
    /// Who led before.
    pub(super) leader_before: Option<MemberId>,
    /// Whether the client understands `skip_assignment`.
    pub(super) knows_skip_assignment: bool,
}

/// A commit that is being stored.
#[derive(Debug)]
pub(super) struct PendingCommit {
    /// The parked request.
    pub(super) token: ReplyToken,
    /// Its answer if storing succeeds.
    pub(super) outcomes: Vec<Result<(), GroupError>>,
    /// The offsets that were accepted.
    pub(super) offsets: Vec<(TopicPartition, CommittedOffset)>,
}

/// Tombstones that are being stored.
#[derive(Debug)]
pub(super) struct PendingRemoval {
    /// The request to answer: with the first reply if storing succeeds, else with the error that the second makes.
    pub(super) answer: Option<RemovalAnswer>,
    /// Offsets that go.
    pub(super) partitions: Vec<TopicPartition>,
    /// Whether the group goes too.
    pub(super) group: bool,
}

/// How a removal is answered.
#[derive(Debug)]
pub(super) struct RemovalAnswer {
    /// The parked request.
    pub(super) token: ReplyToken,
    /// The reply if storing succeeds.
    pub(super) stored: Reply,
}

impl RemovalAnswer {
    fn failed(&self, error: GroupError) -> Reply {
        match &self.stored {
            Reply::DeleteOffsets(_) => Reply::DeleteOffsets(Err(error)),
            _ => Reply::Delete(Err(error)),
        }
    }
}

impl Pending {
    /// Partitions whose offset this append changes.
    pub(super) fn partitions(&self) -> impl Iterator<Item = &TopicPartition> {
        let (commit, removal) = match self {
            Pending::Commit(commit) => (Some(commit), None),
            Pending::Removal(removal) => (None, Some(removal)),
            _ => (None, None),
        };
        let committed = commit
            .into_iter()
            .flat_map(|c| c.offsets.iter().map(|(tp, _)| tp));
        committed.chain(removal.into_iter().flat_map(|r| r.partitions.iter()))
    }
}

impl Group {
    pub(super) fn appended(&mut self, id: AppendId, outcome: Result<(), GroupError>, now: Now) {
        let Some(pending) = self.in_flight.remove(&id) else {
            return;
        };
        match pending {
            Pending::Assignment(metadata) => {
                let generation = metadata.generation;
                let outcome = outcome.map(|()| metadata);
                if let Ok(metadata) = &outcome {
                    self.stored = Some(metadata.clone());
                }
                self.assignment_stored(generation, outcome, now);
            }
            Pending::Replaced(metadata, replaced) => {
                if outcome.is_ok() {
                    self.stored = Some(metadata);
                }
                self.static_stored(replaced, outcome, now);
            }
            Pending::Emptied(metadata) => {
                // If this fails, the generation before it becomes the last one again after a restart; its members
                // are gone and time out then.
                if outcome.is_ok() {
                    self.stored = Some(metadata);
                }
            }
            Pending::Commit(commit) => self.commit_stored(commit, outcome),
            Pending::Removal(removal) => self.removal_stored(removal, outcome),
        }
    }

    fn removal_stored(&mut self, removal: PendingRemoval, outcome: Result<(), GroupError>) {
        match outcome {
            Ok(()) => {
                for partition in &removal.partitions {
                    self.offsets.remove(partition);
                }
                self.lingers = !removal.group;
                if removal.group {
                    self.stored = None;
                }
            }
            // The group stays, as if nobody had asked.
            Err(_) if removal.group && self.state == GroupState::Dead => {
                self.state = GroupState::Empty
            }
            Err(_) => {}
        }
        if let Some(answer) = removal.answer {
            let reply = match outcome {
                Ok(()) => answer.stored,
                Err(error) => answer.failed(error),
            };
            self.reply(answer.token, reply);
        }
    }

    /// The group leaves this broker: whoever waits is sent away. Nothing is stored; the next coordinator reads it
    /// back.
    pub(super) fn unload(&mut self, reason: GroupError) {
        for pending in std::mem::take(&mut self.in_flight).into_values() {
            match pending {
                Pending::Commit(commit) => self.reply(commit.token, Reply::Commit(Err(reason))),
                Pending::Removal(PendingRemoval {
                    answer: Some(answer),
                    ..
                }) => {
                    let reply = answer.failed(reason);
                    self.reply(answer.token, reply);
                }
                _ => {}
            }
        }
        for (id, member) in std::mem::take(&mut self.members) {
            self.dismiss(&member, reason, Some(id));
        }
        *self = self.emptied();
        self.state = GroupState::Dead;
    }
}
