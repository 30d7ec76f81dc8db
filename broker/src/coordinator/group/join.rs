//! JoinGroup: newcomers, pending members, members that rejoin.

use bytes::Bytes;
use tidelog_protocol::limits;

use super::error::GroupError;
use super::event::Join;
use super::ids::{MemberId, Now};
use super::member::{Member, PendingMember};
use super::members::distinct;
use super::state::{Group, GroupState};

impl Group {
    pub(super) fn join(&mut self, mut join: Join, now: Now) {
        join.protocols = distinct(join.protocols);
        if let Err(error) = self.check_join(&join) {
            // A member that finds the group full loses its place, as in Kafka.
            if let (GroupError::MaxSizeReached, Some(id)) = (error, &join.member) {
                self.remove_member(&id.clone());
                self.after_removal(now);
            }
            let answer_with = if error == GroupError::MaxSizeReached {
                None
            } else {
                join.member
            };
            return self.refuse_join(join.token, error, answer_with);
        }
        match join.member.clone() {
            None => self.join_newcomer(join, now),
            Some(id) if self.pending_members.contains_key(&id) => {
                self.add_and_rebalance(id, join, now)
            }
            Some(id) => self.rejoin(id, join, now),
        }
    }

    fn check_join(&self, join: &Join) -> Result<(), GroupError> {
        if self.state == GroupState::Dead {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        let range = self.settings.session_timeout_min_ms..=self.settings.session_timeout_max_ms;
        if !range.contains(&join.timeouts.session_ms) {
            return Err(GroupError::InvalidSessionTimeout);
        }
        if join.member.is_some() && self.is_vacant() {
            return Err(GroupError::UnknownMember);
        }
        if !self.accepts(join.member.as_ref()) {
            return Err(GroupError::MaxSizeReached);
        }
        if !self.supports(&join.protocol_type, &join.protocols) {
            return Err(GroupError::InconsistentProtocol);
        }
        Ok(())
    }

    /// Whether `group.max.size` leaves room. While members rejoin, those that have done so count, so that a limit
    /// that was lowered takes effect at the next rebalance.
    fn accepts(&self, id: Option<&MemberId>) -> bool {
        let member = id.and_then(|id| self.members.get(id));
        match self.state {
            GroupState::Empty | GroupState::Dead => true,
            GroupState::PreparingRebalance => {
                member.is_some_and(|m| m.awaiting_join.is_some())
                    || self.awaiting_join_count() < self.settings.size_max
            }
            GroupState::CompletingRebalance | GroupState::Stable => {
                member.is_some() || self.members.len() < self.settings.size_max
            }
        }
    }

    fn join_newcomer(&mut self, join: Join, now: Now) {
        let id = join.fresh_id.clone();
        if let Some(instance) = &join.instance {
            return match self.static_members.get(instance).cloned() {
                Some(old) => self.replace_static(old, id, join, now),
                None => self.add_and_rebalance(id, join, now),
            };
        }
        if !join.requires_known_member {
            return self.add_and_rebalance(id, join, now);
        }
        let until = now.mono.after(join.timeouts.session_ms);
        let pending = PendingMember {
            until,
            _charge: join.charge.shrink_to(limits::GROUP_MEMBER_BYTES),
        };
        self.pending_members.insert(id.clone(), pending);
        self.arm(until);
        self.refuse_join(join.token, GroupError::MemberIdRequired, Some(id));
    }

    fn add_and_rebalance(&mut self, id: MemberId, join: Join, now: Now) {
        // A pending member is dynamic; an instance id that appears with it may already be taken.
        if let Some(taken) = join
            .instance
            .as_ref()
            .and_then(|instance| self.static_members.get(instance))
        {
            let error = if *taken == id {
                GroupError::UnknownMember
            } else {
                GroupError::FencedInstance
            };
            return self.refuse_join(join.token, error, Some(id));
        }
        if self.state == GroupState::PreparingRebalance && self.previous_state == GroupState::Empty
        {
            self.new_member_added = true;
        }
        let member = Member {
            id: id.clone(),
            instance: join.instance,
            client: join.client,
            timeouts: join.timeouts,
            protocols: join.protocols,
            charge: join.charge,
            assignment: Bytes::new(),
            is_new: true,
            awaiting_join: Some(join.token),
            awaiting_sync: None,
            deadline: None,
        };
        self.add_member(member, &join.protocol_type);
        self.set_session(
            &id,
            now.mono.after(self.settings.new_member_join_timeout_ms),
        );
        self.rebalance_or_complete(now);
    }

    fn rejoin(&mut self, id: MemberId, join: Join, now: Now) {
        if let Err(error) = self.validate_member(&id, join.instance.as_ref()) {
            return self.refuse_join(join.token, error, Some(id));
        }
        let unchanged = self
            .members
            .get(&id)
            .is_some_and(|m| m.protocols == join.protocols);
        match self.state {
            GroupState::PreparingRebalance => self.update_and_rebalance(&id, join, now),
            // Its reply to the first join was lost: the same generation still holds.
            GroupState::CompletingRebalance if unchanged => {
                self.reply_joined(join.token, &id, true)
            }
            GroupState::CompletingRebalance => self.update_and_rebalance(&id, join, now),
            // The leader joins again when something else than subscriptions asks for a new assignment.
            GroupState::Stable if !self.is_leader(&id) && unchanged => {
                self.reply_joined(join.token, &id, false)
            }
            GroupState::Stable => self.update_and_rebalance(&id, join, now),
            GroupState::Empty | GroupState::Dead => {
                self.refuse_join(join.token, GroupError::UnknownMember, Some(id));
            }
        }
    }

    fn update_and_rebalance(&mut self, id: &MemberId, join: Join, now: Now) {
        self.update_member(id, join);
        self.rebalance_or_complete(now);
    }

    /// Takes over what the member says of itself now and parks its join. A join that it had parked before is
    /// answered: nobody reads that answer, but no request stays open.
    pub(super) fn update_member(&mut self, id: &MemberId, join: Join) {
        self.members.set_protocols(id, join.protocols);
        let Some(member) = self.members.get_mut(id) else {
            return;
        };
        member.charge = join.charge;
        member.timeouts = join.timeouts;
        if let Some(superseded) = member.awaiting_join.replace(join.token) {
            self.refuse_join(
                superseded,
                GroupError::RebalanceInProgress,
                Some(id.clone()),
            );
        }
    }
}
