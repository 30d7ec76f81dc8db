//! A replica of a Raft group, as openraft is one, without its disk, its tasks and its messages' bytes.
//!
//! What is kept is what safety rests on: votes that are persisted before they are answered, terms, logs that match,
//! quorums of joint memberships, leases, pre-votes, leaderships that are handed over. What was written is durable at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::metadata::command::Command;
use crate::raft::members::Members;
use crate::raft::types::ReplicaId;

/// Milliseconds of the simulation's clock.
pub type Ms = u64;
/// Place of an entry, from 1; 0 is before the first.
pub type Index = u64;

/// Entries of one append.
const APPEND_ENTRIES_MAX: usize = 12;

#[derive(Clone, Debug)]
pub enum Body {
    Blank,
    Members(Arc<Membership>),
    Record(u64),
    /// With a number of its own.
    Command(u64, Arc<Command>),
}

#[derive(Clone, Debug)]
pub struct Entry {
    pub term: u64,
    pub body: Body,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    pub configs: Vec<BTreeSet<ReplicaId>>,
    pub learners: BTreeSet<ReplicaId>,
}

impl Membership {
    pub fn new(voters: BTreeSet<ReplicaId>) -> Membership {
        Membership {
            configs: vec![voters],
            learners: BTreeSet::new(),
        }
    }

    pub fn is_quorum(&self, has: impl Fn(&ReplicaId) -> bool) -> bool {
        let most = |config: &BTreeSet<ReplicaId>| {
            config.iter().filter(|it| has(it)).count() > config.len() / 2
        };
        self.configs.iter().all(most)
    }

    /// The largest value that a quorum has reached.
    fn reached(&self, value: impl Fn(&ReplicaId) -> u64) -> u64 {
        let of = |config: &BTreeSet<ReplicaId>| {
            let mut values: Vec<u64> = config.iter().map(&value).collect();
            values.sort_unstable_by(|a, b| b.cmp(a));
            values.get(values.len() / 2).copied().unwrap_or(0)
        };
        self.configs.iter().map(of).min().unwrap_or(0)
    }

    pub fn is_voter(&self, replica: &ReplicaId) -> bool {
        self.configs.iter().any(|config| config.contains(replica))
    }

    pub fn voters(&self) -> BTreeSet<ReplicaId> {
        self.configs.iter().flatten().copied().collect()
    }

    fn all(&self) -> BTreeSet<ReplicaId> {
        self.voters().union(&self.learners).copied().collect()
    }

    /// As the decisions see it.
    pub fn members(&self) -> Members {
        Members {
            voters: self.voters(),
            learners: self.learners.clone(),
            next: self.configs.get(1..).and_then(<[_]>::last).cloned(),
        }
    }

    /// On the way to these voters, as openraft goes it.
    fn towards(&self, goal: &BTreeSet<ReplicaId>, retain: bool) -> Membership {
        let last = self.configs.last().cloned().unwrap_or_default();
        let configs = if last == *goal {
            vec![goal.clone()]
        } else {
            vec![last, goal.clone()]
        };
        let next = Membership {
            configs,
            learners: BTreeSet::new(),
        };
        let (before, after) = (self.voters(), next.voters());
        let mut learners = self.learners.clone();
        if retain {
            learners.extend(before);
        }
        learners.retain(|it| !after.contains(it));
        Membership { learners, ..next }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vote {
    pub term: u64,
    pub of: ReplicaId,
    /// It was elected.
    pub committed: bool,
}

/// What a crash leaves.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    pub vote: Option<Vote>,
    pub entries: Vec<Entry>,
    pub memberships: Vec<(Index, Arc<Membership>)>,
    /// Up to here the state machine starts again.
    pub checkpoint: Index,
    /// Term and place of the last entry that there was when the partition was left before.
    pub had: (u64, Index),
}

impl Disk {
    pub fn last(&self) -> Index {
        self.entries.len() as Index
    }

    pub fn term(&self) -> u64 {
        self.vote.map_or(0, |vote| vote.term)
    }

    pub fn term_at(&self, index: Index) -> Option<u64> {
        if index == 0 {
            return Some(0);
        }
        self.entries.get(index as usize - 1).map(|entry| entry.term)
    }

    /// What is kept of a log that is removed.
    pub fn departed(&self) -> Disk {
        Disk {
            vote: self.vote,
            had: self.last_id().max(self.had),
            ..Disk::default()
        }
    }

    /// Whether the replica was here before.
    pub fn was_left(&self) -> bool {
        self.had > (0, 0)
    }

    fn last_id(&self) -> (u64, Index) {
        (self.term_at(self.last()).unwrap_or(0), self.last())
    }

    /// The newest membership, committed or not.
    pub fn membership(&self) -> Option<&(Index, Arc<Membership>)> {
        self.memberships.last()
    }

    fn push(&mut self, entry: Entry) {
        let index = self.last() + 1;
        if let Body::Members(members) = &entry.body {
            self.memberships.push((index, members.clone()));
        }
        self.entries.push(entry);
    }

    fn truncate(&mut self, last: Index) {
        self.entries.truncate(last as usize);
        self.memberships.retain(|(index, _)| *index <= last);
    }
}

#[derive(Clone, Debug)]
pub enum Message {
    /// A vote, or a pre-vote, is asked for.
    Ask {
        pre: bool,
        term: u64,
        last: (u64, Index),
        transfer: bool,
    },
    Answer {
        pre: bool,
        term: u64,
        granted: bool,
        vote: Option<Vote>,
    },
    Append {
        term: u64,
        prev: (u64, Index),
        entries: Vec<Entry>,
        commit: Index,
        sent_at: Ms,
    },
    Appended {
        term: u64,
        /// Up to where the logs match; else where they may.
        matched: Result<Index, Index>,
        commit: Index,
        sent_at: Ms,
        vote: Option<Vote>,
    },
    Transfer {
        term: u64,
        last: (u64, Index),
    },
}

/// Messages on their way out.
pub type Out = Vec<(ReplicaId, Message)>;

#[derive(Debug)]
struct Election {
    term: u64,
    pre: bool,
    granted: BTreeSet<ReplicaId>,
}

#[derive(Clone, Debug, Default)]
pub struct Follower {
    pub matched: Option<Index>,
    next: Index,
    commit: Index,
    acked_at: Ms,
    /// What was sent before is not answered by the member that it is now: it may have left, and come back with nothing.
    since: Ms,
}

/// What a leader knows.
#[derive(Debug)]
pub struct Lead {
    /// Its first entry.
    first: Index,
    pub followers: BTreeMap<ReplicaId, Follower>,
    pub transferring: bool,
    /// Voters of a change that is under way, and whether those that go stay as listeners.
    pub change: Option<(BTreeSet<ReplicaId>, bool)>,
}

/// See the module.
#[derive(Debug)]
pub struct Replica {
    pub me: ReplicaId,
    pub disk: Disk,
    pub commit: Index,
    pub lead: Option<Lead>,
    lease: Ms,
    heard_at: Option<Ms>,
    seen_term: u64,
    election: Option<Election>,
    /// As of the last look at what came of an event.
    pub seen: Seen,
}

/// What others act on when it changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    pub vote: Option<Vote>,
    pub leads: bool,
    pub commit: Index,
    pub last: Index,
}

impl Replica {
    pub fn start(me: ReplicaId, mut disk: Disk, lease: Ms) -> Replica {
        // Who leads is said by a leader's first message, as `GroupLog::open` has it.
        if let Some(vote) = &mut disk.vote {
            vote.committed = false;
        }
        Replica {
            me,
            commit: disk.checkpoint,
            seen_term: disk.term(),
            seen: Seen {
                vote: disk.vote,
                leads: false,
                commit: 0,
                last: disk.last(),
            },
            disk,
            lead: None,
            lease,
            heard_at: None,
            election: None,
        }
    }

    /// Tells a new group its members; says whether it did: `GroupLog::found`.
    pub fn found(&mut self, members: BTreeSet<ReplicaId>) -> bool {
        if members.is_empty() || self.disk.last() > 0 {
            return false;
        }
        let body = Body::Members(Arc::new(Membership::new(members)));
        self.disk.push(Entry { term: 0, body });
        true
    }

    /// The replica that leads, as far as this one knows.
    pub fn leader(&self) -> Option<ReplicaId> {
        let vote = self.disk.vote.filter(|vote| vote.committed)?;
        (vote.of != self.me || self.lead.is_some()).then_some(vote.of)
    }

    fn membership(&self) -> Membership {
        let newest = self.disk.membership();
        newest.map_or_else(Membership::default, |(_, it)| Membership::clone(it))
    }

    /// The newest membership, if it is committed.
    pub fn committed_members(&self) -> Option<Members> {
        let (index, membership) = self.disk.membership()?;
        (*index <= self.commit).then(|| membership.members())
    }

    pub fn heard_within(&self, now: Ms, silence: Ms) -> bool {
        self.heard_at.is_some_and(|at| now < at + silence)
    }

    /// Asks for the leadership, unless there seems to be a leader.
    pub fn elect(&mut self, now: Ms, transfer: bool, out: &mut Out) {
        let led = self.lead.is_some() || (!transfer && self.heard_within(now, self.lease));
        let votes = self
            .disk
            .membership()
            .is_some_and(|(_, it)| it.is_voter(&self.me));
        if led || !votes || self.disk.last_id() < self.disk.had {
            return;
        }
        let term = self.seen_term.max(self.disk.term()) + 1;
        self.campaign(now, term, !transfer, transfer, out);
    }

    fn campaign(&mut self, now: Ms, term: u64, pre: bool, transfer: bool, out: &mut Out) {
        if !pre {
            self.set_vote(term, self.me, false);
        }
        self.election = Some(Election {
            term,
            pre,
            granted: BTreeSet::from([self.me]),
        });
        let last = self.disk.last_id();
        for voter in self.membership().voters() {
            if voter != self.me {
                out.push((
                    voter,
                    Message::Ask {
                        pre,
                        term,
                        last,
                        transfer,
                    },
                ));
            }
        }
        self.count_votes(now, out);
    }

    fn count_votes(&mut self, now: Ms, out: &mut Out) {
        let membership = self.membership();
        let Some(election) = &self.election else {
            return;
        };
        if !membership.is_quorum(|it| election.granted.contains(it)) {
            return;
        }
        let (term, pre) = (election.term, election.pre);
        self.election = None;
        if pre {
            // Another vote may have been given meanwhile.
            if term > self.disk.term() {
                self.campaign(now, term, false, false, out);
            }
            return;
        }
        self.set_vote(term, self.me, true);
        self.lead = Some(Lead {
            first: self.disk.last() + 1,
            followers: BTreeMap::new(),
            transferring: false,
            change: None,
        });
        self.append(Body::Blank, now, out);
    }

    fn set_vote(&mut self, term: u64, of: ReplicaId, committed: bool) {
        self.disk.vote = Some(Vote {
            term,
            of,
            committed,
        });
        self.seen_term = self.seen_term.max(term);
        self.lead = None;
        self.election = None;
    }

    /// Another replica showed a later vote.
    fn adopt(&mut self, vote: Option<Vote>) {
        if let Some(vote) = vote {
            self.seen_term = self.seen_term.max(vote.term);
            if vote.term > self.disk.term() && vote.of != self.me {
                self.set_vote(vote.term, vote.of, vote.committed);
            }
        }
    }

    /// Appends an entry of a leader; returns its place.
    pub fn append(&mut self, body: Body, now: Ms, out: &mut Out) -> Index {
        let term = self.disk.term();
        self.disk.push(Entry { term, body });
        self.follow_membership(now);
        self.advance(now, out);
        self.send_all(now, out);
        self.disk.last()
    }

    fn follow_membership(&mut self, now: Ms) {
        let (me, next, all) = (self.me, self.disk.last(), self.membership().all());
        if let Some(lead) = &mut self.lead {
            lead.followers.retain(|it, _| all.contains(it));
            for replica in all.into_iter().filter(|it| *it != me) {
                let new = Follower {
                    next,
                    since: now,
                    ..Follower::default()
                };
                lead.followers.entry(replica).or_insert(new);
            }
        }
    }

    /// Sends everybody what is missing, or at least a sign of life.
    pub fn send_all(&mut self, now: Ms, out: &mut Out) {
        let all: Vec<ReplicaId> = match &self.lead {
            Some(lead) => lead.followers.keys().copied().collect(),
            None => return,
        };
        for to in all {
            self.send(to, now, out);
        }
    }

    /// The same to those who lack something; says whether anybody does.
    pub fn send_lagging(&mut self, now: Ms, out: &mut Out) -> bool {
        let (last, commit) = (self.disk.last(), self.commit);
        let Some(lead) = &self.lead else { return false };
        let lags = |it: &Follower| it.matched != Some(last) || it.commit < commit;
        let lagging = lead.followers.iter().filter(|(_, it)| lags(it));
        let lagging: Vec<ReplicaId> = lagging.map(|(replica, _)| *replica).collect();
        for to in &lagging {
            self.send(*to, now, out);
        }
        !lagging.is_empty()
    }

    /// Whether anybody lacks something.
    pub fn is_behind(&self) -> bool {
        let (last, commit) = (self.disk.last(), self.commit);
        let lags = |it: &Follower| it.matched != Some(last) || it.commit < commit;
        self.lead
            .as_ref()
            .is_some_and(|lead| lead.followers.values().any(lags))
    }

    fn send(&self, to: ReplicaId, now: Ms, out: &mut Out) {
        let Some(follower) = self.lead.as_ref().and_then(|lead| lead.followers.get(&to)) else {
            return;
        };
        let prev = follower.next.saturating_sub(1).min(self.disk.last());
        let entries = self.disk.entries.iter().skip(prev as usize);
        let message = Message::Append {
            term: self.disk.term(),
            prev: (self.disk.term_at(prev).unwrap_or(0), prev),
            entries: entries.take(APPEND_ENTRIES_MAX).cloned().collect(),
            commit: self.commit,
            sent_at: now,
        };
        out.push((to, message));
    }

    /// When a quorum last said that it follows: as of the sending of what it answered.
    fn acked_at(&self, now: Ms) -> Ms {
        let Some(lead) = &self.lead else { return 0 };
        let of = |it: &ReplicaId| match lead.followers.get(it) {
            _ if *it == self.me => now,
            Some(follower) => follower.acked_at,
            None => 0,
        };
        self.membership().reached(of)
    }

    /// Whether it may write without asking anybody.
    pub fn has_lease(&self, now: Ms) -> bool {
        let lead = self.lead.as_ref();
        lead.is_some_and(|lead| !lead.transferring) && now < self.acked_at(now) + self.lease
    }

    /// Whether it is known to have led at that time, and to know all that was committed then.
    pub fn confirmed(&self, since: Ms, now: Ms) -> bool {
        let knows = self
            .lead
            .as_ref()
            .is_some_and(|lead| self.commit >= lead.first);
        knows && self.acked_at(now) >= since
    }

    fn advance(&mut self, now: Ms, out: &mut Out) {
        let Some(lead) = &self.lead else { return };
        let (me, last) = (self.me, self.disk.last());
        let matched = |it: &ReplicaId| match lead.followers.get(it) {
            _ if *it == me => last,
            Some(follower) => follower.matched.unwrap_or(0),
            None => 0,
        };
        let reached = self.membership().reached(matched);
        if reached <= self.commit || self.disk.term_at(reached) != Some(self.disk.term()) {
            return;
        }
        self.commit = reached;
        self.go_on_changing(now, out);
    }

    /// A membership may be committed: the second half of a change, or its end.
    fn go_on_changing(&mut self, now: Ms, out: &mut Out) {
        let Some((index, membership)) = self.disk.membership().cloned() else {
            return;
        };
        let Some(lead) = self.lead.as_mut().filter(|_| index <= self.commit) else {
            return;
        };
        if let Some((goal, retain)) = lead.change.take()
            && membership.configs != [goal.clone()]
        {
            let next = Arc::new(membership.towards(&goal, retain));
            lead.change = Some((goal, retain));
            self.append(Body::Members(next), now, out);
        } else if !membership.is_voter(&self.me) {
            // It has left.
            self.set_vote(self.disk.term(), self.me, false);
        }
    }

    /// Begins a change of the members; `None`: not now.
    pub fn change(
        &mut self,
        to: impl FnOnce(&Membership) -> (Membership, Option<(BTreeSet<ReplicaId>, bool)>),
        now: Ms,
        out: &mut Out,
    ) -> Option<Index> {
        if !self.has_lease(now) || self.committed_members().is_none() {
            return None;
        }
        let lead = self
            .lead
            .as_mut()
            .filter(|lead| lead.first <= self.commit)?;
        let (next, change) = to(&self.disk.membership()?.1);
        lead.change = change;
        Some(self.append(Body::Members(Arc::new(next)), now, out))
    }

    pub fn replace_voters(
        &mut self,
        goal: BTreeSet<ReplicaId>,
        retain: bool,
        now: Ms,
        out: &mut Out,
    ) -> Option<Index> {
        let to = |it: &Membership| (it.towards(&goal, retain), Some((goal.clone(), retain)));
        self.change(to, now, out)
    }

    pub fn change_learners(
        &mut self,
        edit: impl FnOnce(&mut BTreeSet<ReplicaId>) -> bool,
        now: Ms,
        out: &mut Out,
    ) -> Option<Index> {
        let to = |it: &Membership| {
            let mut next = it.clone();
            edit(&mut next.learners);
            (next, None)
        };
        self.change(to, now, out)
    }

    /// Gives the leadership to another replica, and writes nothing more.
    pub fn transfer(&mut self, to: ReplicaId, out: &mut Out) {
        let (term, last) = (self.disk.term(), self.disk.last_id());
        if let Some(lead) = &mut self.lead {
            lead.transferring = true;
            out.push((to, Message::Transfer { term, last }));
        }
    }

    pub fn receive(&mut self, from: ReplicaId, message: Message, now: Ms, out: &mut Out) {
        match message {
            Message::Ask {
                pre,
                term,
                last,
                transfer,
            } => {
                let granted = self.judge(from, pre, term, last, transfer, now);
                let vote = self.disk.vote;
                out.push((
                    from,
                    Message::Answer {
                        pre,
                        term,
                        granted,
                        vote,
                    },
                ));
            }
            Message::Answer {
                pre,
                term,
                granted,
                vote,
            } => {
                let mine = self.election.as_mut();
                match mine.filter(|it| it.pre == pre && it.term == term) {
                    Some(election) if granted => {
                        election.granted.insert(from);
                        self.count_votes(now, out);
                    }
                    _ => self.adopt(vote),
                }
            }
            Message::Append {
                term,
                prev,
                entries,
                commit,
                sent_at,
            } => {
                let matched = self.take(from, term, prev, entries, commit, now);
                let (vote, commit) = (self.disk.vote, self.commit);
                let answer = Message::Appended {
                    term,
                    matched,
                    commit,
                    sent_at,
                    vote,
                };
                out.push((from, answer));
            }
            Message::Appended {
                term,
                matched,
                commit,
                sent_at,
                vote,
            } => {
                self.adopt(vote);
                if term == self.disk.term() {
                    self.note_appended(from, matched, commit, sent_at, now, out);
                }
            }
            Message::Transfer { term, last } => {
                if term == self.disk.term() && self.disk.last_id() >= last {
                    self.elect(now, true, out);
                }
            }
        }
    }

    fn judge(
        &mut self,
        from: ReplicaId,
        pre: bool,
        term: u64,
        last: (u64, Index),
        transfer: bool,
        now: Ms,
    ) -> bool {
        let follows = self.disk.vote.is_some_and(|vote| vote.committed);
        let led = (follows && self.heard_within(now, self.lease)) || self.has_lease(now);
        if (led && !transfer) || last < self.disk.last_id().max(self.disk.had) {
            return false;
        }
        let same = self
            .disk
            .vote
            .is_some_and(|vote| vote.term == term && vote.of == from);
        let later = term > self.disk.term();
        if later && !pre {
            self.set_vote(term, from, false);
        }
        later || (same && !pre)
    }

    fn take(
        &mut self,
        from: ReplicaId,
        term: u64,
        prev: (u64, Index),
        entries: Vec<Entry>,
        commit: Index,
        now: Ms,
    ) -> Result<Index, Index> {
        if term < self.disk.term() {
            return Err(0);
        }
        let known = Some(Vote {
            term,
            of: from,
            committed: true,
        });
        if self.disk.vote != known {
            self.set_vote(term, from, true);
        }
        self.heard_at = Some(now);
        let (prev_term, mut at) = prev;
        if self.disk.term_at(at) != Some(prev_term) {
            return Err(self.disk.last().min(at.saturating_sub(1)));
        }
        for entry in entries {
            at += 1;
            if self.disk.term_at(at) != Some(entry.term) {
                self.disk.truncate(at - 1);
                self.disk.push(entry);
            }
        }
        self.commit = self.commit.max(commit.min(at));
        Ok(at)
    }

    fn note_appended(
        &mut self,
        from: ReplicaId,
        matched: Result<Index, Index>,
        commit: Index,
        sent_at: Ms,
        now: Ms,
        out: &mut Out,
    ) {
        let (last, committed) = (self.disk.last(), self.commit);
        let follower = self
            .lead
            .as_mut()
            .and_then(|lead| lead.followers.get_mut(&from));
        let Some(follower) = follower.filter(|it| sent_at >= it.since) else {
            return;
        };
        follower.acked_at = follower.acked_at.max(sent_at);
        follower.commit = follower.commit.max(commit);
        let more = match matched {
            Ok(index) => {
                let before = follower.matched.unwrap_or(0);
                follower.matched = Some(index.max(before));
                follower.next = index.max(before) + 1;
                index > before && (index < last || follower.commit < committed)
            }
            Err(hint) if follower.matched.is_none() => {
                follower.next = (hint + 1).min(follower.next.saturating_sub(1)).max(1);
                true
            }
            Err(_) => false,
        };
        self.advance(now, out);
        if self.commit > committed {
            self.send_lagging(now, out);
        } else if more {
            self.send(from, now, out);
        }
    }

    /// Members that lack at most so many entries, as far as a leader knows; none if it does not lead.
    pub fn near(&self, lag_max: u64) -> impl Iterator<Item = ReplicaId> + '_ {
        let last = self.disk.last();
        let all = self.lead.iter().flat_map(|lead| &lead.followers);
        all.filter(move |(_, it)| it.matched.is_some_and(|index| index + lag_max >= last))
            .map(|(replica, _)| *replica)
    }
}
