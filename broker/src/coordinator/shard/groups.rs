//! The groups of a shard, with what they wait for: answers, appends, moments.
//!
//! Invariant: a group is in the map exactly while it is more than nothing. No I/O: appends are queued for the task.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use tidelog_protocol::limits;
use tidelog_protocol::types::{TopicName, TopicPartition};
use tokio::sync::oneshot;

use super::request::{FetchedOffset, ListedGroup, ShardRequest};
use crate::coordinator::group::{
    AppendId, Effect, Event, Group, GroupError, GroupId, GroupRecord, GroupSettings, MonotonicMs,
    Now, Reply, ReplyToken,
};
use crate::coordinator::records::{self, EncodedRecord};

/// An append that waits for its turn.
#[derive(Debug)]
pub(super) struct Change {
    /// Whose it is.
    pub(super) group: GroupId,
    /// Its name within the group.
    pub(super) append: AppendId,
    /// What to write, in one batch.
    pub(super) records: Vec<EncodedRecord>,
    /// Size of keys and values.
    pub(super) size_bytes: usize,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Groups {
    settings: Arc<GroupSettings>,
    groups: HashMap<GroupId, Group>,
    replies: HashMap<ReplyToken, oneshot::Sender<Reply>>,
    changes: VecDeque<Change>,
    wakes: BinaryHeap<Reverse<(MonotonicMs, GroupId)>>,
}

impl Groups {
    pub(super) fn new(settings: Arc<GroupSettings>) -> Groups {
        Groups {
            settings,
            groups: HashMap::new(),
            replies: HashMap::new(),
            changes: VecDeque::new(),
            wakes: BinaryHeap::new(),
        }
    }

    /// Replays one stored record.
    pub(super) fn load(&mut self, group: GroupId, record: GroupRecord) {
        let settings = &self.settings;
        let loading = self
            .groups
            .entry(group.clone())
            .or_insert_with(|| Group::new(settings.clone()));
        loading.load(record);
        if loading.is_vacant() {
            self.groups.remove(&group);
        }
    }

    /// All records are replayed.
    pub(super) fn loaded(&mut self, now: Now) {
        let ids: Vec<GroupId> = self.groups.keys().cloned().collect();
        for id in ids {
            let effects = self
                .groups
                .get_mut(&id)
                .map(|group| group.loaded(now))
                .unwrap_or_default();
            self.carry_out(&id, effects, now);
        }
    }

    /// Does what is asked.
    pub(super) fn handle(&mut self, request: ShardRequest, now: Now) {
        match request {
            ShardRequest::Group {
                group,
                token,
                event,
                reply,
            } => {
                self.replies.insert(token, reply);
                self.step(&group, event, now);
            }
            // Whoever asked may be gone; then the answer goes nowhere.
            ShardRequest::Fetch {
                group,
                partitions,
                reply,
            } => drop(reply.send(self.fetch(&group, partitions))),
            ShardRequest::Describe { group, reply } => {
                drop(reply.send(self.groups.get(&group).and_then(Group::describe)));
            }
            ShardRequest::List { reply } => drop(reply.send(self.list())),
            ShardRequest::TopicsDeleted(topics) => {
                self.step_all(&Event::TopicsDeleted(topics), now)
            }
        }
    }

    /// Lets one group take an event.
    pub(super) fn step(&mut self, id: &GroupId, event: Event, now: Now) {
        let settings = &self.settings;
        let group = self
            .groups
            .entry(id.clone())
            .or_insert_with(|| Group::new(settings.clone()));
        let effects = group.step(event, now);
        self.carry_out(id, effects, now);
    }

    /// Lets all groups take an event.
    pub(super) fn step_all(&mut self, event: &Event, now: Now) {
        let ids: Vec<GroupId> = self.groups.keys().cloned().collect();
        for id in ids {
            self.step(&id, event.clone(), now);
        }
    }

    /// The append of a change ended.
    pub(super) fn appended(
        &mut self,
        group: &GroupId,
        append: AppendId,
        outcome: Result<(), GroupError>,
        now: Now,
    ) {
        if self.groups.contains_key(group) {
            self.step(group, Event::Appended(append, outcome), now);
        }
    }

    /// Sends everybody away and forgets everything.
    pub(super) fn unload(&mut self, reason: GroupError, now: Now) {
        self.step_all(&Event::Unload(reason), now);
        self.groups.clear();
        self.changes.clear();
        self.wakes.clear();
        // Every waiting request belongs to a group, which has answered it.
        self.replies.clear();
    }

    /// The next moment at which a group wants to be woken.
    pub(super) fn next_wake(&self) -> Option<MonotonicMs> {
        self.wakes.peek().map(|Reverse((at, _))| *at)
    }

    /// Wakes the groups whose moment has come.
    pub(super) fn wake(&mut self, now: Now) {
        while self.next_wake().is_some_and(|at| at <= now.mono) {
            let Some(Reverse((_, id))) = self.wakes.pop() else {
                return;
            };
            if self.groups.contains_key(&id) {
                self.step(&id, Event::Tick, now);
            }
        }
    }

    /// The changes that wait, in order.
    pub(super) fn changes_mut(&mut self) -> &mut VecDeque<Change> {
        &mut self.changes
    }

    /// Names of all topics with offsets.
    pub(super) fn topics(&self) -> HashSet<&TopicName> {
        self.groups
            .values()
            .flat_map(|group| group.offsets().keys().map(|tp| &tp.topic))
            .collect()
    }

    /// Every stored record of every group.
    pub(super) fn stored_records(&self) -> impl Iterator<Item = (&GroupId, GroupRecord)> {
        self.groups
            .iter()
            .flat_map(|(id, group)| group.stored_records().map(move |record| (id, record)))
    }

    fn carry_out(&mut self, id: &GroupId, effects: Vec<Effect>, now: Now) {
        let mut refused = Vec::new();
        for effect in effects {
            match effect {
                Effect::Reply(token, reply) => {
                    if let Some(waiting) = self.replies.remove(&token) {
                        // A closed connection waits for nothing, and nothing follows from that.
                        drop(waiting.send(reply));
                    }
                }
                Effect::WakeAt(at) => self.wakes.push(Reverse((at, id.clone()))),
                Effect::Append(append, records) => match encode(id, &records) {
                    Some((records, size_bytes)) => {
                        self.changes.push_back(Change {
                            group: id.clone(),
                            append,
                            records,
                            size_bytes,
                        });
                    }
                    None => refused.push(append),
                },
            }
        }
        for append in refused {
            tracing::warn!(group = %id, "a change of the group is too large to be stored");
            self.step(
                id,
                Event::Appended(append, Err(GroupError::RecordTooLarge)),
                now,
            );
        }
        if self.groups.get(id).is_some_and(Group::is_vacant) {
            self.groups.remove(id);
        }
    }

    fn fetch(
        &self,
        group: &GroupId,
        partitions: Option<Vec<TopicPartition>>,
    ) -> Vec<FetchedOffset> {
        let offsets = self.groups.get(group).map(Group::offsets);
        match (partitions, offsets) {
            (None, None) => Vec::new(),
            (None, Some(offsets)) => offsets
                .iter()
                .map(|(tp, offset)| (tp.clone(), Some(offset.clone())))
                .collect(),
            (Some(asked), offsets) => asked
                .into_iter()
                .map(|tp| {
                    let offset = offsets.and_then(|offsets| offsets.get(&tp)).cloned();
                    (tp, offset)
                })
                .collect(),
        }
    }

    fn list(&self) -> Vec<ListedGroup> {
        let existing = self.groups.iter().filter(|(_, group)| group.exists());
        existing
            .map(|(id, group)| ListedGroup {
                group: id.clone(),
                protocol_type: group.protocol_type().cloned().unwrap_or_default(),
                state: group.state(),
            })
            .collect()
    }
}

/// The records as bytes with their size; `None` if they are more than a log takes.
fn encode(group: &GroupId, records: &[GroupRecord]) -> Option<(Vec<EncodedRecord>, usize)> {
    let mut size_bytes = 0;
    let mut encoded = Vec::with_capacity(records.len());
    for record in records {
        let record = records::encode(group, record).ok()?;
        size_bytes += record.key.len() + record.value.as_ref().map_or(0, |value| value.len());
        if size_bytes > limits::COORDINATOR_CHANGE_BYTES_MAX {
            return None;
        }
        encoded.push(record);
    }
    Some((encoded, size_bytes))
}
