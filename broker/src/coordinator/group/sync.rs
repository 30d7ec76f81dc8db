//! SyncGroup: the leader's assignment is stored, then everybody gets its part.

use std::collections::HashMap;

use bytes::Bytes;

use super::appended::Pending;
use super::effect::{GroupRecord, Reply, Synced};
use super::error::GroupError;
use super::event::Sync;
use super::ids::{Generation, MemberId, Now};
use super::record::GroupMetadata;
use super::state::{Group, GroupState};

impl Group {
    pub(super) fn sync(&mut self, sync: Sync, now: Now) {
        if let Err(error) = self.check_sync(&sync) {
            return self.reply(sync.token, Reply::Sync(Err(error)));
        }
        match self.state {
            GroupState::CompletingRebalance => self.park_sync(sync),
            GroupState::Stable => {
                self.note_synced(&sync.member);
                self.restart_session(&sync.member, now);
                let synced = self.synced(&sync.member);
                self.reply(sync.token, Reply::Sync(Ok(synced)));
            }
            GroupState::PreparingRebalance => {
                self.reply(
                    sync.token,
                    Reply::Sync(Err(GroupError::RebalanceInProgress)),
                );
            }
            GroupState::Empty | GroupState::Dead => {
                self.reply(sync.token, Reply::Sync(Err(GroupError::UnknownMember)));
            }
        }
    }

    fn check_sync(&self, sync: &Sync) -> Result<(), GroupError> {
        if self.state == GroupState::Dead {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        self.validate_member(&sync.member, sync.instance.as_ref())?;
        if sync.generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        let differs =
            |asked: &Option<_>, own: &Option<_>| asked.is_some() && own.is_some() && asked != own;
        if differs(&sync.protocol_type, &self.protocol_type)
            || differs(&sync.protocol, &self.protocol)
        {
            return Err(GroupError::InconsistentProtocol);
        }
        Ok(())
    }

    fn park_sync(&mut self, sync: Sync) {
        self.note_synced(&sync.member);
        let Some(member) = self.members.get_mut(&sync.member) else {
            return;
        };
        if let Some(superseded) = member.awaiting_sync.replace(sync.token) {
            self.reply(
                superseded,
                Reply::Sync(Err(GroupError::RebalanceInProgress)),
            );
        }
        if !self.is_leader(&sync.member) || self.assignment_in_flight() {
            return;
        }
        let given: HashMap<MemberId, Bytes> = sync.assignments.into_iter().collect();
        let metadata = self.to_metadata(Some(&given));
        self.append(
            vec![GroupRecord::Metadata(Some(metadata.clone()))],
            Pending::Assignment(metadata),
        );
    }

    fn assignment_in_flight(&self) -> bool {
        let current = self.generation;
        self.in_flight
            .values()
            .any(|p| matches!(p, Pending::Assignment(m) if m.generation == current))
    }

    /// The member fetched its assignment; when all have, nobody is waited for any more.
    fn note_synced(&mut self, id: &MemberId) {
        self.pending_sync.remove(id);
        if self.pending_sync.is_empty() {
            self.sync_deadline = None;
        }
    }

    /// The assignment is stored, or could not be. A rebalance may have come between: then it is void.
    pub(super) fn assignment_stored(
        &mut self,
        generation: Generation,
        outcome: Result<GroupMetadata, GroupError>,
        now: Now,
    ) {
        if self.state != GroupState::CompletingRebalance || self.generation != generation {
            return;
        }
        match outcome {
            Ok(metadata) => {
                for stored in metadata.members {
                    if let Some(member) = self.members.get_mut(&stored.id) {
                        member.assignment = stored.assignment;
                    }
                }
                self.transition(GroupState::Stable, now);
                self.answer_parked_syncs(None, now);
            }
            Err(error) => {
                self.reset_assignment(error, now);
                self.rebalance_or_complete(now);
            }
        }
    }

    /// Takes all assignments back and tells whoever waits for one why.
    pub(super) fn reset_assignment(&mut self, error: GroupError, now: Now) {
        for member in self.members.values_mut() {
            member.assignment = Bytes::new();
        }
        self.answer_parked_syncs(Some(error), now);
    }

    fn answer_parked_syncs(&mut self, error: Option<GroupError>, now: Now) {
        let ids: Vec<MemberId> = self.members.keys().cloned().collect();
        for id in ids {
            let Some(token) = self
                .members
                .get_mut(&id)
                .and_then(|m| m.awaiting_sync.take())
            else {
                continue;
            };
            let outcome = match error {
                Some(error) => Err(error),
                None => Ok(self.synced(&id)),
            };
            self.reply(token, Reply::Sync(outcome));
            // Its session may have run out unnoticed while it was parked.
            self.restart_session(&id, now);
        }
    }

    fn synced(&self, id: &MemberId) -> Synced {
        Synced {
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            assignment: self
                .members
                .get(id)
                .map(|m| m.assignment.clone())
                .unwrap_or_default(),
        }
    }
}
