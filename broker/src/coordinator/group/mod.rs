//! The classic consumer-group protocol as a pure state machine: one [`Group`], stepped by events.
//!
//! Owns the rules: who is in a group, when a generation begins, which commit is accepted, what is stored.
//! Invariant: every request is answered exactly once, and all members of a generation see the same one.
//! Must never know: clocks, tasks, channels, sockets, logs. Time comes with each event, whatever is to be done
//! leaves as an [`Effect`].

mod appended;
mod charge;
mod commit;
mod describe;
mod effect;
mod error;
mod event;
mod heartbeat;
mod ids;
mod join;
mod leave;
mod member;
mod members;
mod offset;
mod rebalance;
mod record;
mod restore;
mod retire;
mod settings;
mod state;
mod static_join;
mod subscription;
mod sync;
mod timers;

#[cfg(test)]
mod tests;

pub use charge::{MemberBudget, MemberCharge};
pub use describe::{DescribedGroup, DescribedMember};
pub use effect::{Effect, GroupRecord, JoinReply, Joined, JoinedMember, Reply, Synced};
pub use error::GroupError;
pub use event::{Commit, Event, Heartbeat, Join, Leave, Leaver, OffsetToCommit, Sync};
pub use ids::{AppendId, Generation, GroupId, InstanceId, MemberId, MonotonicMs, Now, ReplyToken};
pub use member::{ClientIdentity, Member, Protocol, Timeouts};
pub use offset::CommittedOffset;
pub use record::{GroupMetadata, StoredMember};
pub use settings::GroupSettings;
pub use state::{Group, GroupState};

impl Group {
    /// Takes one event and returns what is to be done about it, in order.
    pub fn step(&mut self, event: Event, now: Now) -> Vec<Effect> {
        match event {
            Event::Join(join) => self.join(join, now),
            Event::Sync(sync) => self.sync(sync, now),
            Event::Heartbeat(heartbeat) => self.heartbeat(heartbeat, now),
            Event::Leave(leave) => self.leave(leave, now),
            Event::Commit(commit) => self.commit(commit, now),
            Event::DeleteOffsets(token, partitions) => self.delete_offsets(token, partitions),
            Event::Delete(token) => self.delete(token),
            Event::TopicsDeleted(topics) => self.topics_deleted(&topics),
            Event::ExpireOffsets => self.expire_offsets(now),
            Event::Appended(append, outcome) => self.appended(append, outcome, now),
            Event::Tick => self.tick(now),
            Event::Unload(reason) => self.unload(reason),
        }
        self.take_effects()
    }
}
