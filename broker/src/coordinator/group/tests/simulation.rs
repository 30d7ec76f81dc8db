//! Many members at random, by seed: who is answered what, and does the group come to rest.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::super::*;
use super::fixture::{Fixture, settings};

/// A client that speaks the protocol as Kafka's consumer does.
#[derive(Clone, Debug, Default)]
struct Client {
    alive: bool,
    instance: Option<InstanceId>,
    member: Option<MemberId>,
    generation: Option<Generation>,
    assignment: Option<Bytes>,
    parked_join: Option<ReplyToken>,
    parked_sync: Option<ReplyToken>,
    /// Members that it leads and has to assign to.
    leads: Option<Vec<MemberId>>,
    needs_sync: bool,
    subscription: u8,
}

struct World {
    f: Fixture,
    rng: StdRng,
    clients: Vec<Client>,
    /// (protocol, leader) of each generation as members were told.
    generations: HashMap<Generation, (Option<Arc<str>>, Option<MemberId>)>,
    /// Assignments by generation and partition number: nobody may get what another has.
    assigned: BTreeMap<(Generation, u8), MemberId>,
}

impl World {
    fn new(seed: u64) -> World {
        let mut rng = StdRng::seed_from_u64(seed);
        let delay = if rng.random_bool(0.5) { 3_000 } else { 0 };
        let f = Fixture::new(GroupSettings {
            initial_rebalance_delay_ms: delay,
            ..settings()
        });
        let clients = (0..rng.random_range(1..12))
            .map(|i| Client {
                instance: rng
                    .random_bool(0.3)
                    .then(|| InstanceId::from(format!("i{i}").as_str())),
                ..Client::default()
            })
            .collect();
        World {
            f,
            rng,
            clients,
            generations: HashMap::new(),
            assigned: BTreeMap::new(),
        }
    }

    fn act(&mut self, i: usize, calm: bool) {
        if !self.clients[i].alive {
            if calm || self.rng.random_bool(0.3) {
                self.clients[i].alive = true;
            }
            return;
        }
        if !calm {
            match self.rng.random_range(0..60) {
                // Dies without a word; its parked requests are answered to nobody.
                0 => return self.forget(i),
                1 => return self.leave(i),
                2 if self.clients[i].parked_sync.is_none() => {
                    self.clients[i].subscription = self.rng.random_range(0..3);
                    self.clients[i].generation = None;
                }
                // Retries a join that it gave up on.
                3 if self.clients[i].parked_join.is_some() => self.join(i),
                _ => {}
            }
        }
        self.go_on(i);
    }

    fn forget(&mut self, i: usize) {
        let instance = self.clients[i].instance.clone();
        self.clients[i] = Client {
            instance,
            ..Client::default()
        };
    }

    fn leave(&mut self, i: usize) {
        if let Some(member) = self.clients[i].member.clone() {
            let _ = self.f.leave_one(&member);
        }
        self.forget(i);
    }

    fn go_on(&mut self, i: usize) {
        let client = &self.clients[i];
        match (client.parked_join, client.parked_sync, client.generation) {
            (Some(_), ..) | (_, Some(_), _) => {}
            (.., None) => self.join(i),
            (.., Some(generation)) if client.needs_sync => self.sync(i, generation),
            (.., Some(generation)) => {
                let member = client.member.clone().expect("joined members have an id");
                if self.rng.random_bool(0.5) {
                    let outcome = self.f.heartbeat(&member, generation);
                    self.on_error(i, outcome.err());
                } else {
                    let commit = self.f.commit_request(Some(&member), generation);
                    let token = commit.token;
                    self.f.send(Event::Commit(commit));
                    if let Some(Reply::Commit(Err(error))) = self.f.replies.get(&token).cloned() {
                        self.on_error(i, Some(error));
                    }
                }
            }
        }
    }

    fn on_error(&mut self, i: usize, error: Option<GroupError>) {
        let client = &mut self.clients[i];
        match error {
            None => {}
            Some(GroupError::RebalanceInProgress) => client.generation = None,
            Some(GroupError::FencedInstance) => {
                panic!("only one client per instance id, yet fenced")
            }
            Some(_) => {
                client.generation = None;
                client.member = None;
            }
        }
        if client.generation.is_none() {
            client.needs_sync = false;
        }
    }

    fn join(&mut self, i: usize) {
        let client = self.clients[i].clone();
        let member = client
            .member
            .as_ref()
            .map(|m| m.0.to_string())
            .unwrap_or_default();
        let token = self.f.join_with(&member, |j| {
            j.instance = client.instance.clone();
            j.timeouts = Timeouts {
                session_ms: 10_000,
                rebalance_ms: 20_000,
            };
            j.protocols[0].metadata = Bytes::from(vec![client.subscription]);
        });
        self.clients[i].parked_join = Some(token);
    }

    fn sync(&mut self, i: usize, generation: Generation) {
        let member = self.clients[i]
            .member
            .clone()
            .expect("joined members have an id");
        let leads = self.clients[i].leads.take().unwrap_or_default();
        let parts: Vec<(MemberId, String)> = leads
            .iter()
            .enumerate()
            .map(|(n, m)| (m.clone(), char::from(b'A' + n as u8).to_string()))
            .collect();
        let assign: Vec<(&MemberId, &str)> = parts.iter().map(|(m, a)| (m, a.as_str())).collect();
        let token = self.f.sync(&member, generation, &assign);
        self.clients[i].parked_sync = Some(token);
    }

    /// Hands the answers that came to the clients that wait for them.
    fn deliver(&mut self) {
        for i in 0..self.clients.len() {
            if let Some(token) = self.clients[i].parked_join
                && let Some(reply) = self.f.replies.get(&token).cloned()
            {
                self.clients[i].parked_join = None;
                self.on_join(i, reply);
            }
            if let Some(token) = self.clients[i].parked_sync
                && let Some(reply) = self.f.replies.get(&token).cloned()
            {
                self.clients[i].parked_sync = None;
                self.on_sync(i, reply);
            }
        }
    }

    fn on_join(&mut self, i: usize, reply: Reply) {
        match reply {
            Reply::Join(JoinReply::Joined(joined)) => {
                let told = (joined.protocol.clone(), joined.leader.clone());
                let agreed = self
                    .generations
                    .entry(joined.generation)
                    .or_insert_with(|| told.clone());
                assert_eq!(
                    agreed.0, told.0,
                    "members of {:?} disagree on the protocol",
                    joined.generation
                );
                let client = &mut self.clients[i];
                let leads = joined.leader.as_ref() == Some(&joined.member);
                assert!(
                    leads || joined.members.is_empty(),
                    "only the leader sees the members"
                );
                client.member = Some(joined.member.clone());
                client.generation = Some(joined.generation);
                client.needs_sync = true;
                client.leads = (leads && !joined.skip_assignment)
                    .then(|| joined.members.iter().map(|m| m.member.clone()).collect());
            }
            Reply::Join(JoinReply::Refused {
                error: GroupError::MemberIdRequired,
                member,
            }) => {
                self.clients[i].member = member;
            }
            Reply::Join(JoinReply::Refused { error, .. }) => self.on_error(i, Some(error)),
            other => panic!("join answered by {other:?}"),
        }
    }

    fn on_sync(&mut self, i: usize, reply: Reply) {
        let Reply::Sync(outcome) = reply else {
            panic!("sync answered by {reply:?}")
        };
        match outcome {
            Err(error) => self.on_error(i, Some(error)),
            Ok(synced) => {
                let client = &mut self.clients[i];
                client.needs_sync = false;
                client.assignment = Some(synced.assignment.clone());
                let generation = client.generation.expect("synced in a generation");
                let member = client.member.clone().expect("synced members have an id");
                let place = client
                    .instance
                    .as_ref()
                    .map(|i| MemberId(i.0.clone()))
                    .unwrap_or(member);
                for part in &synced.assignment {
                    let owner = self
                        .assigned
                        .entry((generation, *part))
                        .or_insert_with(|| place.clone());
                    assert_eq!(
                        *owner, place,
                        "{generation:?}: {part} belongs to two members"
                    );
                }
            }
        }
    }

    fn check_group(&self) {
        let group = &self.f.group;
        match group.state() {
            GroupState::Empty | GroupState::Dead => assert!(group.members.is_empty()),
            _ => {
                let leader = group.leader.as_ref();
                assert!(
                    group.members.is_empty()
                        || leader.is_some_and(|l| group.members.contains_key(l))
                );
            }
        }
        let with_instance = group
            .members
            .values()
            .filter(|m| m.instance.is_some())
            .count();
        assert_eq!(with_instance, group.static_members.len());
        for (instance, id) in &group.static_members {
            assert_eq!(
                group.members.get(id).and_then(|m| m.instance.as_ref()),
                Some(instance)
            );
        }
        for member in group.members.values() {
            assert!(
                member.deadline.is_some() || member.is_excused(),
                "{} can never time out",
                member.id
            );
            assert!(
                member.awaiting_join.is_none() || group.state() != GroupState::CompletingRebalance
            );
        }
    }

    fn run(&mut self, steps: usize, calm: bool) {
        for _ in 0..steps {
            if calm {
                (0..self.clients.len()).for_each(|i| self.act(i, true));
            } else {
                let i = self.rng.random_range(0..self.clients.len());
                self.act(i, false);
            }
            self.f.hold = !calm && self.rng.random_bool(0.5);
            if !self.f.hold || self.rng.random_bool(0.5) {
                // No failure here: a broker whose appends fail loses the group.
                self.f.complete_append(Ok(()));
            }
            if !calm && self.rng.random_bool(0.02) {
                self.f.send(Event::ExpireOffsets);
            }
            let pause = if calm {
                1_000
            } else {
                self.rng.random_range(0..600)
            };
            self.f.advance(pause);
            self.deliver();
            self.check_group();
        }
    }
}

fn simulate(seed: u64) -> Vec<GroupRecord> {
    let mut world = World::new(seed);
    world.run(600, false);
    // From here on nobody dies: all must end up in one stable generation with an assignment each.
    world.f.hold = false;
    world.f.complete_appends(Ok(()));
    world.run(150, true);
    let group = &world.f.group;
    assert_eq!(group.state(), GroupState::Stable, "seed {seed}");
    assert_eq!(
        group.members.len(),
        world.clients.len(),
        "seed {seed}: only the living are members"
    );
    for client in &world.clients {
        assert_eq!(
            client.generation,
            Some(group.generation),
            "seed {seed}: {client:?}"
        );
        assert!(
            !client.needs_sync && client.assignment.as_ref().is_some_and(|a| a.len() == 1),
            "seed {seed}: {client:?}"
        );
    }
    assert_eq!(
        world.f.open_requests(),
        0,
        "seed {seed}: requests without an answer"
    );
    let restarted = world.f.restarted();
    assert_eq!(restarted.group.describe(), group.describe(), "seed {seed}");
    world.f.send(Event::Unload(GroupError::NotCoordinator));
    assert_eq!(world.f.open_requests(), 0, "seed {seed}");
    world.f.log
}

#[test]
fn groups_come_to_rest_whatever_their_members_did() {
    for seed in 0..300 {
        simulate(seed);
    }
}

#[test]
fn a_seed_replays_exactly() {
    assert_eq!(simulate(7), simulate(7));
}
