//! The state of one group and the small questions about it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use indexmap::IndexMap;
use tidelog_protocol::types::{TimestampMs, TopicName, TopicPartition};

use super::appended::Pending;
use super::effect::{Effect, GroupRecord, Reply};
use super::error::GroupError;
use super::ids::{AppendId, Generation, InstanceId, MemberId, MonotonicMs, Now, ReplyToken};
use super::member::{Member, PendingMember, Protocol};
use super::members::Members;
use super::offset::CommittedOffset;
use super::record::GroupMetadata;
use super::settings::GroupSettings;
use super::timers::JoinTimer;

/// The states of Kafka's classic groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GroupState {
    /// No members; perhaps offsets.
    Empty,
    /// Members join the next generation.
    PreparingRebalance,
    /// All have joined; the leader assigns.
    CompletingRebalance,
    /// Everybody has an assignment or can fetch it.
    Stable,
    /// Being removed, or gone.
    Dead,
}

impl GroupState {
    /// The state's name in ListGroups and DescribeGroups.
    pub fn name(self) -> &'static str {
        match self {
            GroupState::Empty => "Empty",
            GroupState::PreparingRebalance => "PreparingRebalance",
            GroupState::CompletingRebalance => "CompletingRebalance",
            GroupState::Stable => "Stable",
            GroupState::Dead => "Dead",
        }
    }
}

/// One group.
///
/// Invariants: `Empty` and `Dead` have no members; a leader is a member; `static_members` maps exactly the members
/// that have an instance id; the selected protocol is supported by all members from `CompletingRebalance` on.
#[derive(Debug)]
pub struct Group {
    pub(super) settings: Arc<GroupSettings>,
    pub(super) state: GroupState,
    /// The state before the current one: a first rebalance is one that began in `Empty`.
    pub(super) previous_state: GroupState,
    /// When the current state began.
    pub(super) state_timestamp: TimestampMs,
    pub(super) generation: Generation,
    pub(super) protocol_type: Option<Arc<str>>,
    pub(super) protocol: Option<Arc<str>>,
    pub(super) leader: Option<MemberId>,
    pub(super) members: Members,
    pub(super) static_members: HashMap<InstanceId, MemberId>,
    /// Newcomers that were told to join again with their id, and until when they are waited for.
    pub(super) pending_members: HashMap<MemberId, PendingMember>,
    /// Members of the current generation whose sync has not come.
    pub(super) pending_sync: HashSet<MemberId>,
    /// Whether a member came since the initial rebalance delay was last extended.
    pub(super) new_member_added: bool,
    pub(super) join_timer: Option<JoinTimer>,
    pub(super) sync_deadline: Option<MonotonicMs>,
    /// Topics of the generation's subscriptions; `None` when they cannot be known.
    pub(super) subscribed: Option<HashSet<TopicName>>,
    pub(super) offsets: BTreeMap<TopicPartition, CommittedOffset>,
    /// Whether the group had offsets: it then exists until the next check for expired ones, as in Kafka, even if
    /// it has none left.
    pub(super) lingers: bool,
    /// The group's last record in the log.
    pub(super) stored: Option<GroupMetadata>,
    /// Appends that are on their way.
    pub(super) in_flight: BTreeMap<AppendId, Pending>,
    next_append: u64,
    /// The earliest wake-up asked for and not yet received.
    pub(super) armed: Option<MonotonicMs>,
    effects: Vec<Effect>,
}

impl Group {
    /// A group that nobody has written to yet. For every request it answers what a missing group answers.
    pub fn new(settings: Arc<GroupSettings>) -> Group {
        Group {
            settings,
            state: GroupState::Empty,
            previous_state: GroupState::Empty,
            state_timestamp: TimestampMs::NONE,
            generation: Generation(0),
            protocol_type: None,
            protocol: None,
            leader: None,
            members: Members::default(),
            static_members: HashMap::new(),
            pending_members: HashMap::new(),
            pending_sync: HashSet::new(),
            new_member_added: false,
            join_timer: None,
            sync_deadline: None,
            subscribed: None,
            offsets: BTreeMap::new(),
            lingers: false,
            stored: None,
            in_flight: BTreeMap::new(),
            next_append: 0,
            armed: None,
            effects: Vec::new(),
        }
    }

    /// A group without anything, that keeps the counters of this one and the effects that wait to be taken.
    pub(super) fn emptied(&mut self) -> Group {
        let mut group = Group::new(self.settings.clone());
        group.next_append = self.next_append;
        group.effects = std::mem::take(&mut self.effects);
        group
    }

    /// Whether nothing distinguishes the group from one that does not exist, so that it can be forgotten.
    pub fn is_vacant(&self) -> bool {
        let gone = match self.state {
            GroupState::Dead => true,
            GroupState::Empty => {
                self.stored.is_none()
                    && !self.lingers
                    && self.pending_members.is_empty()
                    && self.offsets.is_empty()
            }
            _ => false,
        };
        gone && self.in_flight.is_empty()
    }

    /// Whether the group exists as far as clients can tell.
    pub fn exists(&self) -> bool {
        self.state != GroupState::Dead && !self.is_vacant()
    }

    /// The group's state.
    pub fn state(&self) -> GroupState {
        self.state
    }

    /// "consumer", "connect" and so on; `None` for a group that only stores offsets.
    pub fn protocol_type(&self) -> Option<&Arc<str>> {
        self.protocol_type.as_ref()
    }

    /// All committed offsets, ordered by topic and partition.
    pub fn offsets(&self) -> &BTreeMap<TopicPartition, CommittedOffset> {
        &self.offsets
    }

    pub(super) fn transition(&mut self, state: GroupState, now: Now) {
        self.previous_state = self.state;
        self.state = state;
        self.state_timestamp = now.wall;
    }

    pub(super) fn reply(&mut self, token: ReplyToken, reply: Reply) {
        self.effects.push(Effect::Reply(token, reply));
    }

    pub(super) fn append(&mut self, records: Vec<GroupRecord>, pending: Pending) {
        let id = AppendId(self.next_append);
        self.next_append += 1;
        self.in_flight.insert(id, pending);
        self.effects.push(Effect::Append(id, records));
    }

    pub(super) fn effect(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    pub(super) fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    pub(super) fn is_leader(&self, member: &MemberId) -> bool {
        self.leader.as_ref() == Some(member)
    }

    pub(super) fn uses_consumer_protocol(&self) -> bool {
        self.protocol_type.as_deref() == Some("consumer")
    }

    pub(super) fn awaiting_join_count(&self) -> usize {
        self.members
            .values()
            .filter(|m| m.awaiting_join.is_some())
            .count()
    }

    pub(super) fn all_members_joined(&self) -> bool {
        self.pending_members.is_empty() && self.members.values().all(|m| m.awaiting_join.is_some())
    }

    /// The longest rebalance time-out of all members.
    pub(super) fn rebalance_timeout_ms(&self) -> u32 {
        self.members
            .values()
            .map(|m| m.timeouts.rebalance_ms)
            .max()
            .unwrap_or(0)
    }

    /// Whether the group could select a protocol if a member came with these.
    pub(super) fn supports(&self, protocol_type: &str, protocols: &[Protocol]) -> bool {
        if self.state == GroupState::Empty {
            return !protocol_type.is_empty() && !protocols.is_empty();
        }
        self.protocol_type.as_deref() == Some(protocol_type)
            && protocols.iter().any(|p| self.members.all_support(&p.name))
    }

    /// The protocol with the most votes: each member votes for its first one that all members support. Among equals
    /// the one that the earliest member prefers.
    pub(super) fn select_protocol(&self) -> Option<Arc<str>> {
        let mut votes: IndexMap<Arc<str>, usize> = IndexMap::new();
        for member in self.members.values() {
            let vote = member
                .protocols
                .iter()
                .find(|p| self.members.all_support(&p.name));
            if let Some(protocol) = vote {
                *votes.entry(protocol.name.clone()).or_default() += 1;
            }
        }
        let most = votes.values().copied().max()?;
        votes
            .into_iter()
            .find(|(_, count)| *count == most)
            .map(|(name, _)| name)
    }

    /// Whether the request may speak for the member.
    pub(super) fn validate_member(
        &self,
        member: &MemberId,
        instance: Option<&InstanceId>,
    ) -> Result<(), GroupError> {
        if let Some(instance) = instance {
            match self.static_members.get(instance) {
                None => return Err(GroupError::UnknownMember),
                Some(current) if current != member => return Err(GroupError::FencedInstance),
                Some(_) => {}
            }
        }
        if self.members.contains_key(member) {
            Ok(())
        } else {
            Err(GroupError::UnknownMember)
        }
    }

    /// Adds a member with its parked join. The first one sets the protocol type and leads.
    pub(super) fn add_member(&mut self, member: Member, protocol_type: &Arc<str>) {
        if let Some(instance) = &member.instance {
            self.static_members
                .insert(instance.clone(), member.id.clone());
        }
        if self.members.is_empty() {
            self.protocol_type = Some(protocol_type.clone());
        }
        if self.leader.is_none() {
            self.leader = Some(member.id.clone());
        }
        self.pending_members.remove(&member.id);
        self.members.insert(member);
    }

    /// Forgets a member, pending or full, and answers whatever it had parked.
    pub(super) fn remove_member(&mut self, id: &MemberId) {
        self.pending_members.remove(id);
        self.pending_sync.remove(id);
        let Some(member) = self.members.remove(id) else {
            return;
        };
        if let Some(instance) = &member.instance {
            self.static_members.remove(instance);
        }
        if self.is_leader(id) {
            self.leader = self.members.keys().next().cloned();
        }
        self.dismiss(&member, GroupError::UnknownMember, None);
    }

    /// Answers the parked requests of a member that is no longer one.
    pub(super) fn dismiss(
        &mut self,
        member: &Member,
        error: GroupError,
        answer_with: Option<MemberId>,
    ) {
        if let Some(token) = member.awaiting_join {
            self.refuse_join(token, error, answer_with);
        }
        if let Some(token) = member.awaiting_sync {
            self.reply(token, Reply::Sync(Err(error)));
        }
    }
}
