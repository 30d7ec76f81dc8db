//! LeaveGroup: members that go, and members that an administrator removes.

use super::effect::Reply;
use super::error::GroupError;
use super::event::{Leave, Leaver};
use super::ids::{MemberId, Now};
use super::state::{Group, GroupState};

impl Group {
    pub(super) fn leave(&mut self, leave: Leave, now: Now) {
        if self.state == GroupState::Dead {
            return self.reply(
                leave.token,
                Reply::Leave(Err(GroupError::CoordinatorNotAvailable)),
            );
        }
        let mut outcomes = Vec::with_capacity(leave.members.len());
        for leaver in &leave.members {
            let outcome = self.find_leaver(leaver).map(|id| self.remove_member(&id));
            outcomes.push(outcome);
        }
        let somebody_left = outcomes.iter().any(Result::is_ok);
        self.reply(leave.token, Reply::Leave(Ok(outcomes)));
        if somebody_left {
            self.after_removal(now);
        }
    }

    /// The member that is meant. An administrator names a static member by its instance id alone.
    fn find_leaver(&self, leaver: &Leaver) -> Result<MemberId, GroupError> {
        let Some(id) = &leaver.member else {
            let member = leaver
                .instance
                .as_ref()
                .and_then(|instance| self.static_member(instance));
            return member.cloned().ok_or(GroupError::UnknownMember);
        };
        if !self.pending_members.contains_key(id) {
            self.validate_member(id, leaver.instance.as_ref())?;
        }
        Ok(id.clone())
    }
}
