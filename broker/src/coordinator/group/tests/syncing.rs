//! SyncGroup: storing the assignment before it is answered, errors, the sync time-out.

use std::sync::Arc;

use super::super::*;
use super::fixture::{Fixture, settings};

#[test]
fn assignment_is_stored_before_anybody_gets_it() {
    let mut f = Fixture::new(settings());
    let (a, token) = f.enter();
    f.advance(0);
    let generation = f.joined(token).generation;
    f.hold = true;
    let sync = f.sync(&a, generation, &[(&a, "all")]);
    assert!(f.is_parked(sync));
    assert_eq!(f.group.state(), GroupState::CompletingRebalance);
    let [GroupRecord::Metadata(Some(stored))] = &f.appends[0].1[..] else {
        panic!("one record")
    };
    assert_eq!(
        (stored.generation, &stored.members[0].assignment[..]),
        (generation, &b"all"[..])
    );
    f.complete_appends(Ok(()));
    assert_eq!(f.synced(sync).expect("assigned").assignment, "all");
    assert_eq!(f.group.state(), GroupState::Stable);
}

#[test]
fn assignment_that_cannot_be_stored_starts_the_rebalance_again() {
    let mut f = Fixture::new(settings());
    let (a, token) = f.enter();
    f.advance(0);
    let generation = f.joined(token).generation;
    f.hold = true;
    let sync = f.sync(&a, generation, &[(&a, "all")]);
    f.complete_appends(Err(GroupError::CoordinatorNotAvailable));
    assert_eq!(f.synced(sync), Err(GroupError::CoordinatorNotAvailable));
    assert_eq!(f.group.state(), GroupState::PreparingRebalance);
}

#[test]
fn rebalance_during_the_append_makes_the_assignment_void() {
    let mut f = Fixture::new(settings());
    let (a, token) = f.enter();
    f.advance(0);
    let generation = f.joined(token).generation;
    f.hold = true;
    let sync = f.sync(&a, generation, &[(&a, "all")]);
    let (_, join_b) = f.enter();
    assert_eq!(f.synced(sync), Err(GroupError::RebalanceInProgress));
    f.complete_appends(Ok(()));
    assert_eq!(f.group.state(), GroupState::PreparingRebalance);
    let rejoin = f.join(&a.0);
    assert_eq!(f.joined(rejoin).generation, f.joined(join_b).generation);
}

#[test]
fn member_without_an_assignment_gets_an_empty_one() {
    let (mut f, a, b, _) = Fixture::stable_pair(settings());
    let (ja, jb) = (f.join(&a.0), f.join(&b.0));
    let generation = f.joined(ja).generation;
    f.joined(jb);
    let sync_b = f.sync(&b, generation, &[]);
    let sync_a = f.sync(&a, generation, &[(&a, "x")]);
    assert_eq!(f.synced(sync_a).expect("assigned").assignment, "x");
    assert!(f.synced(sync_b).expect("assigned").assignment.is_empty());
}

#[test]
fn sync_in_a_stable_group_repeats_the_assignment() {
    let (mut f, _, b, generation) = Fixture::stable_pair(settings());
    let again = f.sync(&b, generation, &[]);
    assert_eq!(f.synced(again).expect("assigned").assignment, "for b");
}

#[test]
fn sync_errors() {
    let (mut f, a, b, generation) = Fixture::stable_pair(settings());
    let old = f.sync(&b, Generation(1), &[]);
    assert_eq!(f.synced(old), Err(GroupError::IllegalGeneration));
    let nobody = f.sync(&MemberId::from("nobody"), generation, &[]);
    assert_eq!(f.synced(nobody), Err(GroupError::UnknownMember));
    for (protocol_type, protocol) in [("connect", "range"), ("consumer", "sticky")] {
        let token = f.token();
        f.send(Event::Sync(Sync {
            token,
            member: b.clone(),
            instance: None,
            generation,
            protocol_type: Some(Arc::from(protocol_type)),
            protocol: Some(Arc::from(protocol)),
            assignments: Vec::new(),
        }));
        assert_eq!(f.synced(token), Err(GroupError::InconsistentProtocol));
    }
    let _ = f.join(&a.0);
    let late = f.sync(&b, generation, &[]);
    assert_eq!(f.synced(late), Err(GroupError::RebalanceInProgress));
}

#[test]
fn members_that_never_sync_are_removed_at_the_rebalance_timeout() {
    let (mut f, a, b, _) = Fixture::stable_pair(settings());
    let (ja, jb) = (f.join(&a.0), f.join(&b.0));
    let generation = f.joined(ja).generation;
    f.joined(jb);
    let sync_a = f.sync(&a, generation, &[(&a, "x")]);
    assert!(f.synced(sync_a).is_ok());
    for _ in 0..7 {
        f.advance(8_000);
        assert_eq!(f.heartbeat(&a, generation), Ok(()));
        assert_eq!(f.heartbeat(&b, generation), Ok(()));
    }
    f.advance(4_000);
    assert_eq!(f.heartbeat(&b, generation), Err(GroupError::UnknownMember));
    assert_eq!(
        f.heartbeat(&a, generation),
        Err(GroupError::RebalanceInProgress)
    );
}

#[test]
fn follower_waits_for_the_leader_and_its_session_is_excused() {
    let (mut f, a, b, _) = Fixture::stable_pair(settings());
    let (ja, jb) = (f.join(&a.0), f.join(&b.0));
    let generation = f.joined(ja).generation;
    f.joined(jb);
    let sync_b = f.sync(&b, generation, &[]);
    f.advance(9_000);
    assert_eq!(f.heartbeat(&a, generation), Ok(()));
    f.advance(9_000);
    assert!(f.is_parked(sync_b));
    let sync_a = f.sync(&a, generation, &[(&b, "late")]);
    assert!(f.synced(sync_a).is_ok());
    assert_eq!(f.synced(sync_b).expect("assigned").assignment, "late");
    f.advance(9_000);
    assert_eq!(
        f.heartbeat(&b, generation),
        Ok(()),
        "its session began anew with the answer"
    );
}

#[test]
fn leader_that_dies_before_assigning_is_replaced() {
    let (mut f, a, b, _) = Fixture::stable_pair(settings());
    let (ja, jb) = (f.join(&a.0), f.join(&b.0));
    let generation = f.joined(ja).generation;
    f.joined(jb);
    let sync_b = f.sync(&b, generation, &[]);
    f.advance(10_500);
    assert_eq!(f.synced(sync_b), Err(GroupError::RebalanceInProgress));
    let rejoin = f.join(&b.0);
    let joined = f.joined(rejoin);
    assert_eq!((joined.leader, joined.members.len()), (Some(b), 1));
}
