//! Static members: taking over a place, fencing, `skip_assignment`, staying through rebalances.

use super::super::*;
use super::fixture::{Fixture, protocol, settings, subscription};

fn instance(name: &str) -> Option<InstanceId> {
    Some(InstanceId::from(name))
}

fn join_static(f: &mut Fixture, member: &str, name: &str) -> ReplyToken {
    f.join_with(member, |j| j.instance = instance(name))
}

fn heartbeat_static(
    f: &mut Fixture,
    member: &MemberId,
    name: &str,
    generation: Generation,
) -> Result<(), GroupError> {
    let token = f.token();
    f.send(Event::Heartbeat(Heartbeat {
        token,
        member: member.clone(),
        instance: instance(name),
        generation,
    }));
    match f.take(token) {
        Reply::Heartbeat(outcome) => outcome,
        other => panic!("{other:?}"),
    }
}

/// Two static members, "one" leading and "two" following, stable.
fn stable() -> (Fixture, MemberId, MemberId, Generation) {
    let mut f = Fixture::new(settings());
    let (one, two) = (
        join_static(&mut f, "", "one"),
        join_static(&mut f, "", "two"),
    );
    f.advance(0);
    let (one, two) = (f.joined(one), f.joined(two));
    assert_eq!(
        one.leader,
        Some(one.member.clone()),
        "no MEMBER_ID_REQUIRED round trip"
    );
    let generation = one.generation;
    let sync = f.sync(
        &one.member,
        generation,
        &[(&one.member, "1"), (&two.member, "2")],
    );
    assert!(f.synced(sync).is_ok());
    let sync = f.sync(&two.member, generation, &[]);
    assert_eq!(f.synced(sync).expect("assigned").assignment, "2");
    (f, one.member, two.member, generation)
}

#[test]
fn rule_36_static_follower_comes_back_without_a_rebalance() {
    let (mut f, _, old, generation) = stable();
    let back = join_static(&mut f, "", "two");
    let joined = f.joined(back);
    assert_eq!(joined.generation, generation);
    assert_ne!(joined.member, old);
    assert!(!joined.skip_assignment && joined.members.is_empty());
    assert_eq!(f.group.state(), GroupState::Stable);
    assert_eq!(
        heartbeat_static(&mut f, &old, "two", generation),
        Err(GroupError::FencedInstance)
    );
    assert_eq!(
        heartbeat_static(&mut f, &joined.member, "two", generation),
        Ok(())
    );
    let sync = f.sync(&joined.member, generation, &[]);
    assert_eq!(
        f.synced(sync).expect("assigned").assignment,
        "2",
        "it keeps its assignment"
    );
    let mut f = f.restarted();
    assert_eq!(
        heartbeat_static(&mut f, &joined.member, "two", generation),
        Ok(()),
        "the new id is stored"
    );
    assert_eq!(
        heartbeat_static(&mut f, &old, "two", generation),
        Err(GroupError::FencedInstance)
    );
}

#[test]
fn new_id_is_answered_only_once_it_is_stored() {
    let (mut f, _, old, generation) = stable();
    f.hold = true;
    let back = join_static(&mut f, "", "two");
    assert!(f.is_parked(back));
    f.complete_appends(Err(GroupError::NotCoordinator));
    assert_eq!(f.refused(back), GroupError::NotCoordinator);
    assert_eq!(
        heartbeat_static(&mut f, &old, "two", generation),
        Ok(()),
        "the old id holds again"
    );
}

#[test]
fn static_leader_that_knows_skip_assignment_leads_without_assigning() {
    let (mut f, _, _, generation) = stable();
    let back = join_static(&mut f, "", "one");
    let joined = f.joined(back);
    assert_eq!(
        (joined.generation, joined.leader.as_ref()),
        (generation, Some(&joined.member))
    );
    assert!(joined.skip_assignment);
    assert_eq!(joined.members.len(), 2);
}

#[test]
fn static_leader_of_an_old_client_is_not_told_that_it_leads() {
    let (mut f, old, _, generation) = stable();
    let back = f.join_with("", |j| {
        j.instance = instance("one");
        j.knows_skip_assignment = false;
    });
    let joined = f.joined(back);
    assert_eq!((joined.generation, joined.leader), (generation, Some(old)));
    assert!(!joined.skip_assignment && joined.members.is_empty());
}

#[test]
fn static_member_whose_protocols_change_the_vote_forces_a_rebalance() {
    let mut f = Fixture::new(settings());
    let protocols = |names: &[&str]| -> Vec<Protocol> {
        names
            .iter()
            .map(|n| protocol(n, &subscription(&["t"])))
            .collect()
    };
    let token = f.join_with("", |j| {
        j.instance = instance("one");
        j.protocols = protocols(&["range", "sticky"]);
    });
    f.advance(0);
    let joined = f.joined(token);
    let sync = f.sync(&joined.member, joined.generation, &[]);
    assert!(f.synced(sync).is_ok());
    let back = f.join_with("", |j| {
        j.instance = instance("one");
        j.protocols = protocols(&["sticky", "range"]);
    });
    let again = f.joined(back);
    assert_eq!(
        (again.generation, again.protocol.as_deref()),
        (joined.generation.next(), Some("sticky"))
    );
}

#[test]
fn parked_requests_of_the_replaced_member_are_fenced() {
    let (mut f, one, two, _) = stable();
    let parked = f.join_with(&one.0, |j| j.instance = instance("one"));
    assert!(f.is_parked(parked), "the leader forces a rebalance");
    let back = join_static(&mut f, "", "one");
    assert_eq!(f.refused(parked), GroupError::FencedInstance);
    let rejoin = f.join_with(&two.0, |j| j.instance = instance("two"));
    assert_eq!(f.joined(back).generation, f.joined(rejoin).generation);
}

#[test]
fn replacing_a_member_while_the_group_completes_starts_over() {
    let (mut f, one, two, _) = stable();
    let a = f.join_with(&one.0, |j| j.instance = instance("one"));
    let b = f.join_with(&two.0, |j| j.instance = instance("two"));
    let generation = f.joined(a).generation;
    f.joined(b);
    let back = join_static(&mut f, "", "two");
    assert!(
        f.is_parked(back),
        "its old id may be in the leader's assignment already"
    );
    assert_eq!(
        heartbeat_static(&mut f, &one, "one", generation),
        Err(GroupError::RebalanceInProgress)
    );
}

#[test]
fn static_member_stays_when_it_misses_a_rebalance_and_goes_with_its_session() {
    let (mut f, one, two, _) = stable();
    let parked = f.join_with(&one.0, |j| {
        j.instance = instance("one");
        j.timeouts.rebalance_ms = 6_000;
    });
    // The longest rebalance time-out counts (60 s), so the session of "two" runs out first.
    f.advance(10_500);
    let joined = f.joined(parked);
    assert_eq!(joined.members.len(), 1);
    assert_eq!(
        heartbeat_static(&mut f, &two, "two", joined.generation),
        Err(GroupError::UnknownMember)
    );
}

#[test]
fn static_laggard_is_kept_in_the_next_generation() {
    let mut f = Fixture::new(settings());
    let short = |name: &'static str| {
        move |j: &mut Join| {
            j.instance = instance(name);
            j.timeouts = Timeouts {
                session_ms: 60_000,
                rebalance_ms: 10_000,
            };
        }
    };
    let (one, two) = (f.join_with("", short("one")), f.join_with("", short("two")));
    f.advance(0);
    let (one, two) = (f.joined(one), f.joined(two));
    let sync = f.sync(&one.member, one.generation, &[]);
    assert!(f.synced(sync).is_ok());
    let sync = f.sync(&two.member, one.generation, &[]);
    assert!(f.synced(sync).is_ok());
    let parked = f.join_with(&one.member.0, short("one"));
    f.advance(10_000);
    let joined = f.joined(parked);
    assert_eq!(
        joined.members.len(),
        2,
        "two is in, though it did not rejoin"
    );
    assert_eq!(
        heartbeat_static(&mut f, &two.member, "two", joined.generation),
        Ok(())
    );
}

#[test]
fn wrong_member_id_with_an_instance_id_is_fenced_and_unknown_instances_are_unknown() {
    let (mut f, _, _, generation) = stable();
    let intruder = MemberId::from("intruder");
    assert_eq!(
        heartbeat_static(&mut f, &intruder, "one", generation),
        Err(GroupError::FencedInstance)
    );
    assert_eq!(
        heartbeat_static(&mut f, &intruder, "three", generation),
        Err(GroupError::UnknownMember)
    );
    let token = join_static(&mut f, "intruder", "one");
    assert_eq!(f.refused(token), GroupError::FencedInstance);
}

#[test]
fn administrator_removes_a_static_member_by_its_instance_id() {
    let (mut f, one, _, generation) = stable();
    let outcomes = f.leave(vec![
        Leaver {
            member: None,
            instance: instance("two"),
        },
        Leaver {
            member: None,
            instance: instance("three"),
        },
        Leaver {
            member: Some(MemberId::from("wrong")),
            instance: instance("one"),
        },
    ]);
    assert_eq!(
        outcomes,
        [
            Ok(()),
            Err(GroupError::UnknownMember),
            Err(GroupError::FencedInstance)
        ]
    );
    assert_eq!(
        heartbeat_static(&mut f, &one, "one", generation),
        Err(GroupError::RebalanceInProgress)
    );
}
