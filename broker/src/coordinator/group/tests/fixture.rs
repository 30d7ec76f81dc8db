//! A group, a clock, and somebody who carries out effects.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use tidelog_protocol::types::{
    LeaderEpoch, Offset, PartitionIndex, TimestampMs, TopicName, TopicPartition,
};

use super::super::*;

pub(super) struct Fixture {
    pub(super) group: Group,
    pub(super) now_ms: i64,
    next_token: u64,
    asked: HashSet<ReplyToken>,
    answered: HashSet<ReplyToken>,
    pub(super) replies: HashMap<ReplyToken, Reply>,
    /// Appends that wait; completed at once unless `hold` is set.
    pub(super) appends: VecDeque<(AppendId, Vec<GroupRecord>)>,
    pub(super) hold: bool,
    /// Everything that was appended and committed.
    pub(super) log: Vec<GroupRecord>,
    wakes: Vec<MonotonicMs>,
}

pub(super) fn settings() -> GroupSettings {
    GroupSettings {
        initial_rebalance_delay_ms: 0,
        ..GroupSettings::default()
    }
}

pub(super) fn tp(topic: &str, partition: i32) -> TopicPartition {
    TopicPartition {
        topic: TopicName::from(topic),
        partition: PartitionIndex(partition),
    }
}

/// A consumer's subscription to the topics.
pub(super) fn subscription(topics: &[&str]) -> Bytes {
    let mut bytes = vec![0, 1];
    bytes.extend((topics.len() as i32).to_be_bytes());
    for topic in topics {
        bytes.extend((topic.len() as i16).to_be_bytes());
        bytes.extend(topic.as_bytes());
    }
    bytes.extend((-1i32).to_be_bytes());
    Bytes::from(bytes)
}

pub(super) fn protocol(name: &str, metadata: &[u8]) -> Protocol {
    Protocol {
        name: Arc::from(name),
        metadata: Bytes::copy_from_slice(metadata),
    }
}

impl Fixture {
    pub(super) fn new(settings: GroupSettings) -> Fixture {
        Fixture {
            group: Group::new(Arc::new(settings)),
            now_ms: 1_000,
            next_token: 0,
            asked: HashSet::new(),
            answered: HashSet::new(),
            replies: HashMap::new(),
            appends: VecDeque::new(),
            hold: false,
            log: Vec::new(),
            wakes: Vec::new(),
        }
    }

    pub(super) fn now(&self) -> Now {
        Now {
            mono: MonotonicMs(self.now_ms),
            wall: TimestampMs(1_700_000_000_000 + self.now_ms),
        }
    }

    pub(super) fn token(&mut self) -> ReplyToken {
        self.next_token += 1;
        let token = ReplyToken(self.next_token);
        self.asked.insert(token);
        token
    }

    pub(super) fn send(&mut self, event: Event) {
        let effects = self.group.step(event, self.now());
        self.carry_out(effects);
        if !self.hold {
            self.complete_appends(Ok(()));
        }
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Reply(token, reply) => {
                    assert!(self.asked.contains(&token), "reply to nobody: {token:?}");
                    assert!(self.answered.insert(token), "two replies to {token:?}");
                    self.replies.insert(token, reply);
                }
                Effect::Append(id, records) => self.appends.push_back((id, records)),
                Effect::WakeAt(at) => self.wakes.push(at),
            }
        }
    }

    pub(super) fn complete_append(&mut self, outcome: Result<(), GroupError>) -> bool {
        let Some((id, records)) = self.appends.pop_front() else {
            return false;
        };
        if outcome.is_ok() {
            self.log.extend(records);
        }
        let effects = self.group.step(Event::Appended(id, outcome), self.now());
        self.carry_out(effects);
        true
    }

    pub(super) fn complete_appends(&mut self, outcome: Result<(), GroupError>) {
        while self.complete_append(outcome) {}
    }

    /// Lets time pass, waking the group whenever it asked for it.
    pub(super) fn advance(&mut self, ms: i64) {
        let end = self.now_ms + ms;
        loop {
            let next = self.wakes.iter().map(|w| w.0).filter(|at| *at <= end).min();
            let Some(at) = next else { break };
            self.wakes.retain(|w| w.0 != at);
            self.now_ms = self.now_ms.max(at);
            self.send(Event::Tick);
        }
        self.now_ms = end;
    }

    pub(super) fn take(&mut self, token: ReplyToken) -> Reply {
        self.replies
            .remove(&token)
            .unwrap_or_else(|| panic!("{token:?} is not answered"))
    }

    pub(super) fn is_parked(&self, token: ReplyToken) -> bool {
        !self.answered.contains(&token)
    }

    /// Requests without an answer.
    pub(super) fn open_requests(&self) -> usize {
        self.asked.len() - self.answered.len()
    }

    pub(super) fn join_request(&mut self, member: &str) -> Join {
        let token = self.token();
        Join {
            token,
            member: (!member.is_empty()).then(|| MemberId::from(member)),
            instance: None,
            fresh_id: MemberId::from(format!("m{}", token.0).as_str()),
            client: ClientIdentity {
                id: Arc::from("client"),
                host: Arc::from("/127.0.0.1"),
            },
            timeouts: Timeouts {
                session_ms: 10_000,
                rebalance_ms: 60_000,
            },
            protocol_type: Arc::from("consumer"),
            protocols: vec![protocol("range", &subscription(&["t"]))],
            charge: MemberCharge::default(),
            requires_known_member: true,
            knows_skip_assignment: true,
        }
    }

    pub(super) fn join_with(&mut self, member: &str, change: impl FnOnce(&mut Join)) -> ReplyToken {
        let mut join = self.join_request(member);
        change(&mut join);
        let token = join.token;
        self.send(Event::Join(join));
        token
    }

    pub(super) fn join(&mut self, member: &str) -> ReplyToken {
        self.join_with(member, |_| {})
    }

    /// Joins as a newcomer with the MEMBER_ID_REQUIRED round trip; the second join may be parked.
    pub(super) fn enter(&mut self) -> (MemberId, ReplyToken) {
        let first = self.join("");
        let Reply::Join(JoinReply::Refused {
            error: GroupError::MemberIdRequired,
            member: Some(id),
        }) = self.take(first)
        else {
            panic!("expected MEMBER_ID_REQUIRED")
        };
        let token = self.join(&id.0);
        (id, token)
    }

    pub(super) fn joined(&mut self, token: ReplyToken) -> Joined {
        match self.take(token) {
            Reply::Join(JoinReply::Joined(joined)) => *joined,
            other => panic!("not joined: {other:?}"),
        }
    }

    pub(super) fn refused(&mut self, token: ReplyToken) -> GroupError {
        match self.take(token) {
            Reply::Join(JoinReply::Refused { error, .. }) => error,
            other => panic!("not refused: {other:?}"),
        }
    }

    pub(super) fn sync(
        &mut self,
        member: &MemberId,
        generation: Generation,
        assign: &[(&MemberId, &str)],
    ) -> ReplyToken {
        let token = self.token();
        let assignments = assign
            .iter()
            .map(|(id, a)| ((*id).clone(), Bytes::copy_from_slice(a.as_bytes())))
            .collect();
        self.send(Event::Sync(Sync {
            token,
            member: member.clone(),
            instance: None,
            generation,
            protocol_type: None,
            protocol: None,
            assignments,
        }));
        token
    }

    pub(super) fn synced(&mut self, token: ReplyToken) -> Result<Synced, GroupError> {
        match self.take(token) {
            Reply::Sync(outcome) => outcome,
            other => panic!("no sync: {other:?}"),
        }
    }

    pub(super) fn heartbeat(
        &mut self,
        member: &MemberId,
        generation: Generation,
    ) -> Result<(), GroupError> {
        let token = self.token();
        self.send(Event::Heartbeat(Heartbeat {
            token,
            member: member.clone(),
            instance: None,
            generation,
        }));
        match self.take(token) {
            Reply::Heartbeat(outcome) => outcome,
            other => panic!("no heartbeat: {other:?}"),
        }
    }

    pub(super) fn leave(&mut self, leavers: Vec<Leaver>) -> Vec<Result<(), GroupError>> {
        let token = self.token();
        self.send(Event::Leave(Leave {
            token,
            members: leavers,
        }));
        match self.take(token) {
            Reply::Leave(outcome) => outcome.expect("group is alive"),
            other => panic!("no leave: {other:?}"),
        }
    }

    pub(super) fn leave_one(&mut self, member: &MemberId) -> Result<(), GroupError> {
        self.leave(vec![Leaver {
            member: Some(member.clone()),
            instance: None,
        }])
        .remove(0)
    }

    pub(super) fn commit_request(
        &mut self,
        member: Option<&MemberId>,
        generation: Generation,
    ) -> Commit {
        let offset = OffsetToCommit {
            offset: Offset(42),
            leader_epoch: Some(LeaderEpoch(3)),
            metadata: Arc::from("note"),
        };
        Commit {
            token: self.token(),
            member: member.cloned(),
            instance: None,
            generation,
            knows_group_not_found: true,
            retention_ms: None,
            offsets: vec![(tp("t", 0), offset)],
        }
    }

    pub(super) fn commit_with(
        &mut self,
        commit: Commit,
    ) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        let token = commit.token;
        self.send(Event::Commit(commit));
        match self.take(token) {
            Reply::Commit(outcome) => outcome,
            other => panic!("no commit: {other:?}"),
        }
    }

    pub(super) fn commit(
        &mut self,
        member: Option<&MemberId>,
        generation: Generation,
    ) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        let commit = self.commit_request(member, generation);
        self.commit_with(commit)
    }

    pub(super) fn delete(&mut self) -> Result<(), GroupError> {
        let token = self.token();
        self.send(Event::Delete(token));
        match self.take(token) {
            Reply::Delete(outcome) => outcome,
            other => panic!("no delete: {other:?}"),
        }
    }

    /// A stable group of two; the first leads.
    pub(super) fn stable_pair(
        settings: GroupSettings,
    ) -> (Fixture, MemberId, MemberId, Generation) {
        let mut f = Fixture::new(settings);
        let (a, join_a) = f.enter();
        f.advance(0);
        let first = f.joined(join_a);
        let (b, join_b) = f.enter();
        assert_eq!(
            f.heartbeat(&a, first.generation),
            Err(GroupError::RebalanceInProgress)
        );
        let rejoin_a = f.join(&a.0);
        let generation = f.joined(rejoin_a).generation;
        assert_eq!(f.joined(join_b).generation, generation);
        let sync_a = f.sync(&a, generation, &[(&a, "for a"), (&b, "for b")]);
        let sync_b = f.sync(&b, generation, &[]);
        assert_eq!(f.synced(sync_a).expect("assigned").assignment, "for a");
        assert_eq!(f.synced(sync_b).expect("assigned").assignment, "for b");
        assert_eq!(f.group.state(), GroupState::Stable);
        (f, a, b, generation)
    }

    /// What a restart would find: a new group, loaded from what was committed.
    pub(super) fn restarted(&self) -> Fixture {
        let mut next = Fixture::new((*self.group.settings).clone());
        next.now_ms = self.now_ms;
        next.next_token = self.next_token;
        for record in &self.log {
            next.group.load(record.clone());
        }
        next.log = self.log.clone();
        let effects = next.group.loaded(next.now());
        next.carry_out(effects);
        next
    }
}
