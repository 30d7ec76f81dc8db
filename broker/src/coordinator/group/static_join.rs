//! A static member that comes back without its member id: it takes over its old place under a new id.

use super::appended::{Pending, ReplacedMember};
use super::effect::{GroupRecord, JoinReply, Joined, Reply};
use super::error::GroupError;
use super::event::Join;
use super::ids::{InstanceId, MemberId, Now};
use super::member::Member;
use super::state::{Group, GroupState};

impl Group {
    /// Puts `new` in the place of `old`. In a stable group whose protocol stays the same there is no rebalance, but
    /// the new id is stored before it is answered: after a restart the old one must not be believed again.
    pub(super) fn replace_static(&mut self, old: MemberId, new: MemberId, join: Join, now: Now) {
        let Some(before) = self.members.get(&old).cloned() else {
            return self.refuse_join(join.token, GroupError::UnknownMember, Some(old));
        };
        let leader_before = self.leader.clone();
        let (token, knows_skip_assignment) = (join.token, join.knows_skip_assignment);
        self.dismiss(&before, GroupError::FencedInstance, Some(old.clone()));
        let replacement = Member {
            id: new.clone(),
            client: join.client.clone(),
            awaiting_join: None,
            awaiting_sync: None,
            deadline: None,
            is_new: false,
            ..before.clone()
        };
        self.swap_member(&old, replacement);
        self.update_member(&new, join);
        self.restart_session(&new, now);
        if self.state != GroupState::Stable || self.select_protocol() != self.protocol {
            return self.rebalance_or_complete(now);
        }
        let metadata = self.to_metadata(None);
        let replaced = ReplacedMember {
            token,
            before: Box::new(before),
            new,
            leader_before,
            knows_skip_assignment,
        };
        self.append(
            vec![GroupRecord::Metadata(Some(metadata.clone()))],
            Pending::Replaced(metadata, replaced),
        );
    }

    /// Replaces a member by another with the same instance id, at the same place.
    fn swap_member(&mut self, old: &MemberId, member: Member) {
        let new = member.id.clone();
        if !self.members.contains_key(old) {
            return;
        }
        if let Some(instance) = member.instance.clone() {
            self.static_members.insert(instance, new.clone());
        }
        if self.is_leader(old) {
            self.leader = Some(new.clone());
        }
        if self.pending_sync.remove(old) {
            self.pending_sync.insert(new.clone());
        }
        self.members.replace(old, member);
    }

    /// The new id is stored, or could not be.
    pub(super) fn static_stored(
        &mut self,
        replaced: ReplacedMember,
        outcome: Result<(), GroupError>,
        now: Now,
    ) {
        let parked = self
            .members
            .get(&replaced.new)
            .is_some_and(|m| m.awaiting_join == Some(replaced.token));
        if !parked {
            // A rebalance came between and has answered.
            return;
        }
        match outcome {
            Err(error) => self.revert_static(replaced, error, now),
            Ok(()) => {
                if let Some(member) = self.members.get_mut(&replaced.new) {
                    member.awaiting_join = None;
                }
                self.reply_replaced(replaced);
            }
        }
    }

    fn revert_static(&mut self, replaced: ReplacedMember, error: GroupError, now: Now) {
        let old = replaced.before.id.clone();
        let restored = Member {
            awaiting_join: None,
            awaiting_sync: None,
            deadline: None,
            ..(*replaced.before).clone()
        };
        self.swap_member(&replaced.new, restored);
        self.restart_session(&old, now);
        self.refuse_join(replaced.token, error, None);
        if self.state == GroupState::PreparingRebalance {
            self.maybe_complete_join(now);
        }
    }

    fn reply_replaced(&mut self, replaced: ReplacedMember) {
        let leads = self.is_leader(&replaced.new);
        // A leader that does not know `skip_assignment` must not believe that it leads, or it would assign anew
        // while nobody else waits for an assignment.
        let (leader, members) = if replaced.knows_skip_assignment {
            (
                self.leader.clone(),
                if leads {
                    self.joined_members()
                } else {
                    Vec::new()
                },
            )
        } else {
            (replaced.leader_before, Vec::new())
        };
        let joined = Joined {
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader,
            skip_assignment: replaced.knows_skip_assignment && leads,
            member: replaced.new,
            members,
        };
        self.reply(
            replaced.token,
            Reply::Join(JoinReply::Joined(Box::new(joined))),
        );
    }

    /// The member id behind an instance id.
    pub(super) fn static_member(&self, instance: &InstanceId) -> Option<&MemberId> {
        self.static_members.get(instance)
    }
}
