//! A group as DescribeGroups shows it.

use std::sync::Arc;

use bytes::Bytes;

use super::ids::{InstanceId, MemberId};
use super::member::ClientIdentity;
use super::state::{Group, GroupState};

/// A group, described.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedGroup {
    /// Its state.
    pub state: GroupState,
    /// Its protocol type; empty for a group of offsets alone.
    pub protocol_type: Arc<str>,
    /// Its protocol while it is stable, else empty.
    pub protocol: Arc<str>,
    /// Its members.
    pub members: Vec<DescribedMember>,
}

/// A member, described.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedMember {
    /// Its id.
    pub member: MemberId,
    /// Its `group.instance.id`.
    pub instance: Option<InstanceId>,
    /// Who it is.
    pub client: ClientIdentity,
    /// Its subscription while the group is stable, else empty.
    pub metadata: Bytes,
    /// Its assignment while the group is stable, else empty.
    pub assignment: Bytes,
}

impl Group {
    /// What there is to say about the group; `None` if there is no such group.
    pub fn describe(&self) -> Option<DescribedGroup> {
        if !self.exists() {
            return None;
        }
        let stable = self.state == GroupState::Stable;
        let protocol = self.protocol.clone().filter(|_| stable).unwrap_or_default();
        let members = self
            .members
            .values()
            .map(|m| DescribedMember {
                member: m.id.clone(),
                instance: m.instance.clone(),
                client: m.client.clone(),
                metadata: if stable {
                    m.metadata(&protocol)
                } else {
                    Bytes::new()
                },
                assignment: if stable {
                    m.assignment.clone()
                } else {
                    Bytes::new()
                },
            })
            .collect();
        Some(DescribedGroup {
            state: self.state,
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            protocol,
            members,
        })
    }
}
