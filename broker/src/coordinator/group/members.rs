//! The members of a group in the order in which they came, and how many of them support which protocol.
//!
//! Invariant: `supporters` counts, for each protocol name, the members that name it; a member names each once. So what
//! all members have in common is known without comparing their lists, which are the clients' and may be long.

use std::collections::{HashMap, HashSet};
use std::ops::Deref;
use std::sync::Arc;

use indexmap::IndexMap;
use indexmap::map::{IntoIter, ValuesMut};

use super::ids::MemberId;
use super::member::{Member, Protocol};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Members {
    by_id: IndexMap<MemberId, Member>,
    supporters: HashMap<Arc<str>, usize>,
}

/// The protocols without those that repeat an earlier name.
pub(super) fn distinct(mut protocols: Vec<Protocol>) -> Vec<Protocol> {
    let mut names = HashSet::with_capacity(protocols.len());
    protocols.retain(|protocol| names.insert(protocol.name.clone()));
    protocols
}

impl Members {
    /// Whether every member supports the named protocol.
    pub(super) fn all_support(&self, protocol: &str) -> bool {
        self.supporters.get(protocol).copied().unwrap_or(0) == self.by_id.len()
    }

    pub(super) fn insert(&mut self, member: Member) {
        self.count(&member.protocols);
        let before = self.by_id.insert(member.id.clone(), member);
        self.discount(before.as_ref());
    }

    /// Puts `member` in the place of another.
    pub(super) fn replace(&mut self, old: &MemberId, member: Member) {
        let Some(index) = self.by_id.get_index_of(old) else {
            return;
        };
        self.remove(old);
        self.count(&member.protocols);
        let before = self.by_id.shift_insert(index, member.id.clone(), member);
        self.discount(before.as_ref());
    }

    pub(super) fn remove(&mut self, id: &MemberId) -> Option<Member> {
        let member = self.by_id.shift_remove(id);
        self.discount(member.as_ref());
        member
    }

    pub(super) fn set_protocols(&mut self, id: &MemberId, protocols: Vec<Protocol>) {
        if !self.by_id.contains_key(id) {
            return;
        }
        self.count(&protocols);
        if let Some(member) = self.by_id.get_mut(id) {
            let before = std::mem::replace(&mut member.protocols, protocols);
            self.discount_all(&before);
        }
    }

    /// A member, to change anything but its protocols.
    pub(super) fn get_mut(&mut self, id: &MemberId) -> Option<&mut Member> {
        self.by_id.get_mut(id)
    }

    /// All members, to change anything but their protocols.
    pub(super) fn values_mut(&mut self) -> ValuesMut<'_, MemberId, Member> {
        self.by_id.values_mut()
    }

    fn count(&mut self, protocols: &[Protocol]) {
        for protocol in protocols {
            *self.supporters.entry(protocol.name.clone()).or_default() += 1;
        }
    }

    fn discount(&mut self, member: Option<&Member>) {
        if let Some(member) = member {
            self.discount_all(&member.protocols);
        }
    }

    fn discount_all(&mut self, protocols: &[Protocol]) {
        for protocol in protocols {
            if let Some(count) = self.supporters.get_mut(&protocol.name) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    self.supporters.remove(&protocol.name);
                }
            }
        }
    }
}

impl Deref for Members {
    type Target = IndexMap<MemberId, Member>;

    fn deref(&self) -> &Self::Target {
        &self.by_id
    }
}

impl IntoIterator for Members {
    type Item = (MemberId, Member);
    type IntoIter = IntoIter<MemberId, Member>;

    fn into_iter(self) -> Self::IntoIter {
        self.by_id.into_iter()
    }
}
