//! Deadlines of a group: sessions, pending members, the join phase, the sync phase.
//!
//! The machine remembers its deadlines and asks for one wake-up at the earliest. Heartbeats only push deadlines
//! back, so they ask for nothing: a wake-up that comes too early finds nothing expired and asks for the next.

use super::effect::Effect;
use super::ids::{MemberId, MonotonicMs, Now};
use super::rebalance::InitialDelay;
use super::state::{Group, GroupState};

/// The deadline of the join phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct JoinTimer {
    /// When it fires.
    pub(super) at: MonotonicMs,
    /// What then.
    pub(super) kind: JoinTimerKind,
}

/// What happens when the join timer fires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum JoinTimerKind {
    /// The initial delay is over, unless it is extended.
    Initial(InitialDelay),
    /// Whoever has not rejoined is removed.
    Rebalance,
}

impl Group {
    /// Makes sure that a tick comes at `at` or before.
    pub(super) fn arm(&mut self, at: MonotonicMs) {
        if self.armed.is_none_or(|armed| at < armed) {
            self.armed = Some(at);
            self.effect(Effect::WakeAt(at));
        }
    }

    /// Starts the member's session anew.
    pub(super) fn restart_session(&mut self, id: &MemberId, now: Now) {
        if let Some(timeout_ms) = self.members.get(id).map(|m| m.timeouts.session_ms) {
            self.set_session(id, now.mono.after(timeout_ms));
        }
    }

    /// Lets the member's session end at `at`.
    pub(super) fn set_session(&mut self, id: &MemberId, at: MonotonicMs) {
        if let Some(member) = self.members.get_mut(id) {
            member.deadline = Some(at);
            self.arm(at);
        }
    }

    pub(super) fn set_join_timer(&mut self, at: MonotonicMs, kind: JoinTimerKind) {
        self.join_timer = Some(JoinTimer { at, kind });
        self.arm(at);
    }

    pub(super) fn set_sync_deadline(&mut self, at: MonotonicMs) {
        self.sync_deadline = Some(at);
        self.arm(at);
    }

    /// Handles everything whose time has come and arms the next wake-up.
    pub(super) fn tick(&mut self, now: Now) {
        if self.armed.is_none_or(|at| at > now.mono) {
            // A wake-up that an earlier one has overtaken: nothing is due, and the next one is asked for already.
            return;
        }
        self.armed = None;
        self.expire_pending_members(now);
        self.expire_sessions(now);
        if let Some(timer) = self.join_timer.take_if(|timer| timer.at <= now.mono) {
            match timer.kind {
                JoinTimerKind::Initial(delay) => self.end_initial_delay(delay, now),
                JoinTimerKind::Rebalance => self.complete_join(now),
            }
        }
        if self.sync_deadline.take_if(|at| *at <= now.mono).is_some() {
            self.expire_pending_sync(now);
        }
        if let Some(next) = self.next_deadline() {
            self.arm(next);
        }
    }

    fn next_deadline(&self) -> Option<MonotonicMs> {
        let sessions = self.members.values().filter_map(|m| m.deadline);
        let pending = self.pending_members.values().map(|pending| pending.until);
        let phases = self
            .join_timer
            .map(|t| t.at)
            .into_iter()
            .chain(self.sync_deadline);
        sessions.chain(pending).chain(phases).min()
    }

    fn expire_pending_members(&mut self, now: Now) {
        let before = self.pending_members.len();
        self.pending_members
            .retain(|_, pending| pending.until > now.mono);
        if self.pending_members.len() < before {
            self.maybe_complete_join(now);
        }
    }

    fn expire_sessions(&mut self, now: Now) {
        let expired: Vec<MemberId> = self
            .members
            .values()
            .filter(|m| m.deadline.is_some_and(|at| at <= now.mono))
            .map(|m| m.id.clone())
            .collect();
        for id in expired {
            // Removing one member may have restarted the sessions of the others.
            let Some(member) = self.members.get_mut(&id) else {
                continue;
            };
            if member.deadline.is_none_or(|at| at > now.mono) {
                continue;
            }
            member.deadline = None;
            if !member.is_excused() {
                self.remove_member(&id);
                self.after_removal(now);
            }
        }
    }

    /// Lets the group go on without a member that is gone.
    pub(super) fn after_removal(&mut self, now: Now) {
        match self.state {
            GroupState::Stable | GroupState::CompletingRebalance => self.prepare_rebalance(now),
            GroupState::PreparingRebalance => self.maybe_complete_join(now),
            GroupState::Empty | GroupState::Dead => {}
        }
    }
}
