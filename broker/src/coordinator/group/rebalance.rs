//! The join phase: how it begins, how long it waits, how a generation comes out of it.

use super::appended::Pending;
use super::effect::{GroupRecord, JoinReply, Joined, JoinedMember, Reply};
use super::error::GroupError;
use super::ids::{MemberId, Now, ReplyToken};
use super::state::{Group, GroupState};
use super::subscription::subscribed_topics;
use super::timers::JoinTimerKind;

/// The delay before the first generation of an empty group, so that members that start together meet in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InitialDelay {
    /// Length of the delay that runs.
    delay_ms: u32,
    /// By how much it may still be extended.
    remaining_ms: u32,
}

impl Group {
    /// Begins a rebalance if the state allows it, else lets the running one complete if everybody is there.
    pub(super) fn rebalance_or_complete(&mut self, now: Now) {
        match self.state {
            GroupState::Empty | GroupState::Stable | GroupState::CompletingRebalance => {
                self.prepare_rebalance(now)
            }
            GroupState::PreparingRebalance => self.maybe_complete_join(now),
            GroupState::Dead => {}
        }
    }

    pub(super) fn prepare_rebalance(&mut self, now: Now) {
        if self.state == GroupState::CompletingRebalance {
            self.reset_assignment(GroupError::RebalanceInProgress, now);
        }
        self.sync_deadline = None;
        let initial = self.state == GroupState::Empty;
        self.transition(GroupState::PreparingRebalance, now);
        if initial {
            let delay_ms = self.settings.initial_rebalance_delay_ms;
            let remaining_ms = self.rebalance_timeout_ms().saturating_sub(delay_ms);
            let delay = InitialDelay {
                delay_ms,
                remaining_ms,
            };
            self.set_join_timer(now.mono.after(delay_ms), JoinTimerKind::Initial(delay));
        } else if self.all_members_joined() {
            self.complete_join(now);
        } else {
            self.set_join_timer(
                now.mono.after(self.rebalance_timeout_ms()),
                JoinTimerKind::Rebalance,
            );
        }
    }

    /// The initial delay is over: complete, or wait on because members still come.
    pub(super) fn end_initial_delay(&mut self, delay: InitialDelay, now: Now) {
        if !self.new_member_added || delay.remaining_ms == 0 {
            return self.complete_join(now);
        }
        self.new_member_added = false;
        let next = InitialDelay {
            delay_ms: self
                .settings
                .initial_rebalance_delay_ms
                .min(delay.remaining_ms),
            remaining_ms: delay.remaining_ms.saturating_sub(delay.delay_ms),
        };
        self.set_join_timer(now.mono.after(next.delay_ms), JoinTimerKind::Initial(next));
    }

    /// Completes the join phase once all known members are there; the first one always waits out its delay.
    pub(super) fn maybe_complete_join(&mut self, now: Now) {
        if self.state == GroupState::PreparingRebalance
            && self.previous_state != GroupState::Empty
            && self.all_members_joined()
        {
            self.complete_join(now);
        }
    }

    /// Ends the join phase: laggards go (static ones stay), and whoever is there forms the next generation.
    pub(super) fn complete_join(&mut self, now: Now) {
        self.join_timer = None;
        if self.state != GroupState::PreparingRebalance {
            return;
        }
        let laggards: Vec<MemberId> = self
            .members
            .values()
            .filter(|m| m.awaiting_join.is_none() && !m.is_static())
            .map(|m| m.id.clone())
            .collect();
        for id in laggards {
            self.remove_member(&id);
        }
        if self.members.is_empty() {
            self.begin_empty_generation(now);
        } else if self.elect_joined_leader() {
            self.begin_generation(now);
        } else {
            // Only static members that did not rejoin are left: their sessions decide.
            self.set_join_timer(
                now.mono.after(self.rebalance_timeout_ms()),
                JoinTimerKind::Rebalance,
            );
        }
    }

    /// Makes sure that the leader is a member that takes part in the generation.
    fn elect_joined_leader(&mut self) -> bool {
        let joined = |id: &MemberId| {
            self.members
                .get(id)
                .is_some_and(|m| m.awaiting_join.is_some())
        };
        if self.leader.as_ref().is_some_and(joined) {
            return true;
        }
        match self
            .members
            .values()
            .find(|m| m.awaiting_join.is_some())
            .map(|m| m.id.clone())
        {
            Some(id) => {
                self.leader = Some(id);
                true
            }
            None => false,
        }
    }

    fn begin_empty_generation(&mut self, now: Now) {
        self.generation = self.generation.next();
        self.protocol = None;
        self.leader = None;
        self.pending_sync.clear();
        self.new_member_added = false;
        self.subscribed = self.uses_consumer_protocol().then(Default::default);
        self.transition(GroupState::Empty, now);
        let metadata = self.to_metadata(None);
        self.append(
            vec![GroupRecord::Metadata(Some(metadata.clone()))],
            Pending::Emptied(metadata),
        );
    }

    fn begin_generation(&mut self, now: Now) {
        self.generation = self.generation.next();
        self.protocol = self.select_protocol();
        self.new_member_added = false;
        self.subscribed = subscribed_topics(self);
        self.transition(GroupState::CompletingRebalance, now);
        let ids: Vec<MemberId> = self.members.keys().cloned().collect();
        self.pending_sync = ids.iter().cloned().collect();
        for id in &ids {
            let Some(member) = self.members.get_mut(id) else {
                continue;
            };
            member.is_new = false;
            let token = member.awaiting_join.take();
            if let Some(token) = token {
                self.reply_joined(token, id, true);
            }
            self.restart_session(id, now);
        }
        self.set_sync_deadline(now.mono.after(self.rebalance_timeout_ms()));
    }

    /// Tells a member the current generation, the leader also who is in it if `with_members`.
    pub(super) fn reply_joined(&mut self, token: ReplyToken, id: &MemberId, with_members: bool) {
        let members = if with_members && self.is_leader(id) {
            self.joined_members()
        } else {
            Vec::new()
        };
        let joined = Joined {
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            skip_assignment: false,
            member: id.clone(),
            members,
        };
        self.reply(token, Reply::Join(JoinReply::Joined(Box::new(joined))));
    }

    pub(super) fn joined_members(&self) -> Vec<JoinedMember> {
        let protocol = self.protocol.as_deref().unwrap_or("");
        self.members
            .values()
            .map(|m| JoinedMember {
                member: m.id.clone(),
                instance: m.instance.clone(),
                metadata: m.metadata(protocol),
            })
            .collect()
    }

    pub(super) fn refuse_join(
        &mut self,
        token: ReplyToken,
        error: GroupError,
        member: Option<MemberId>,
    ) {
        self.reply(token, Reply::Join(JoinReply::Refused { error, member }));
    }

    /// The sync phase is over: whoever did not fetch its assignment is removed.
    pub(super) fn expire_pending_sync(&mut self, now: Now) {
        let in_phase = matches!(
            self.state,
            GroupState::CompletingRebalance | GroupState::Stable
        );
        if !in_phase || self.pending_sync.is_empty() {
            return;
        }
        let late: Vec<MemberId> = self
            .members
            .keys()
            .filter(|id| self.pending_sync.contains(*id))
            .cloned()
            .collect();
        for id in late {
            self.remove_member(&id);
        }
        self.prepare_rebalance(now);
    }
}
