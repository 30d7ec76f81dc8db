//! From the stored records to a living group and back.

use std::collections::HashMap;

use bytes::Bytes;

use super::charge::MemberCharge;
use super::effect::{Effect, GroupRecord};
use super::ids::{MemberId, Now};
use super::member::{Member, Protocol};
use super::record::{GroupMetadata, StoredMember};
use super::state::{Group, GroupState};
use super::subscription::subscribed_topics;

impl Group {
    /// Replays one record. Only before [`Group::loaded`].
    pub fn load(&mut self, record: GroupRecord) {
        match record {
            GroupRecord::Metadata(metadata) => self.stored = metadata,
            GroupRecord::Offset(partition, Some(offset)) => {
                self.offsets.insert(partition, offset);
            }
            GroupRecord::Offset(partition, None) => {
                self.offsets.remove(&partition);
            }
        }
    }

    /// All records have been replayed: the group lives from here on. Its members keep their generation and have one
    /// session to be heard of.
    pub fn loaded(&mut self, now: Now) -> Vec<Effect> {
        let Some(metadata) = self.stored.clone() else {
            return Vec::new();
        };
        self.state = if metadata.members.is_empty() {
            GroupState::Empty
        } else {
            GroupState::Stable
        };
        self.previous_state = self.state;
        self.state_timestamp = metadata.state_timestamp;
        self.generation = metadata.generation;
        self.protocol_type = metadata.protocol_type;
        self.protocol = metadata.protocol;
        for stored in metadata.members {
            self.load_member(stored, now);
        }
        // Every member named by a log is checked: a leader that is none would leave the group without one.
        self.leader = metadata.leader.filter(|id| self.members.contains_key(id));
        if self.leader.is_none() {
            self.leader = self.members.keys().next().cloned();
        }
        self.subscribed = subscribed_topics(self);
        if self.members.len() > self.settings.size_max {
            self.prepare_rebalance(now);
        }
        self.take_effects()
    }

    fn load_member(&mut self, stored: StoredMember, now: Now) {
        let id = stored.id.clone();
        if let Some(instance) = &stored.instance {
            self.static_members.insert(instance.clone(), id.clone());
        }
        let name = self.protocol.clone().unwrap_or_default();
        let member = Member {
            id: stored.id,
            instance: stored.instance,
            client: stored.client,
            timeouts: stored.timeouts,
            protocols: vec![Protocol {
                name,
                metadata: stored.subscription,
            }],
            // It was admitted once; its next join is charged.
            charge: MemberCharge::default(),
            assignment: stored.assignment,
            is_new: false,
            awaiting_join: None,
            awaiting_sync: None,
            deadline: None,
        };
        self.members.insert(member);
        self.restart_session(&id, now);
    }

    /// The records that would bring the group back as it is stored now; nothing that is still on its way.
    pub fn stored_records(&self) -> impl Iterator<Item = GroupRecord> {
        let offsets = self
            .offsets
            .iter()
            .map(|(tp, offset)| GroupRecord::Offset(tp.clone(), Some(offset.clone())));
        self.stored
            .iter()
            .map(|m| GroupRecord::Metadata(Some(m.clone())))
            .chain(offsets)
    }

    /// The current generation as a record, with the members' own assignments or with those given.
    pub(super) fn to_metadata(&self, given: Option<&HashMap<MemberId, Bytes>>) -> GroupMetadata {
        let protocol = self.protocol.as_deref().unwrap_or("");
        let assignment = |m: &Member| match given {
            Some(given) => given.get(&m.id).cloned().unwrap_or_default(),
            None => m.assignment.clone(),
        };
        let members = self
            .members
            .values()
            .map(|m| StoredMember {
                id: m.id.clone(),
                instance: m.instance.clone(),
                client: m.client.clone(),
                timeouts: m.timeouts,
                subscription: m.metadata(protocol),
                assignment: assignment(m),
            })
            .collect();
        GroupMetadata {
            protocol_type: self.protocol_type.clone(),
            generation: self.generation,
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            state_timestamp: self.state_timestamp,
            members,
        }
    }
}
