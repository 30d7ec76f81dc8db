//! Heartbeat: keeps the session, and tells members that the group rebalances.

use super::effect::Reply;
use super::error::GroupError;
use super::event::Heartbeat;
use super::ids::Now;
use super::state::{Group, GroupState};

impl Group {
    pub(super) fn heartbeat(&mut self, heartbeat: Heartbeat, now: Now) {
        let outcome = self.check_heartbeat(&heartbeat);
        if matches!(outcome, Ok(()) | Err(GroupError::RebalanceInProgress)) {
            self.restart_session(&heartbeat.member, now);
        }
        self.reply(heartbeat.token, Reply::Heartbeat(outcome));
    }

    fn check_heartbeat(&self, heartbeat: &Heartbeat) -> Result<(), GroupError> {
        if self.state == GroupState::Dead {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        self.validate_member(&heartbeat.member, heartbeat.instance.as_ref())?;
        if heartbeat.generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        match self.state {
            GroupState::PreparingRebalance => Err(GroupError::RebalanceInProgress),
            GroupState::CompletingRebalance | GroupState::Stable => Ok(()),
            GroupState::Empty | GroupState::Dead => Err(GroupError::UnknownMember),
        }
    }
}
