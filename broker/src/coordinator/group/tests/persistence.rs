//! What a restart brings back.

use super::super::*;
use super::fixture::{Fixture, settings};

#[test]
fn members_go_on_with_their_generation_after_a_restart() {
    let (mut f, a, b, generation) = Fixture::stable_pair(settings());
    assert!(f.commit(Some(&b), generation).is_ok());
    let mut f = f.restarted();
    assert_eq!(f.group.state(), GroupState::Stable);
    assert_eq!(f.heartbeat(&a, generation), Ok(()));
    let sync = f.sync(&b, generation, &[]);
    assert_eq!(f.synced(sync).expect("assigned").assignment, "for b");
    assert!(f.commit(Some(&b), generation).is_ok());
    let again = f.join(&b.0);
    assert_eq!(
        f.joined(again).leader,
        Some(a),
        "unchanged follower needs no rebalance"
    );
}

#[test]
fn members_that_died_with_the_broker_time_out() {
    let (f, a, b, generation) = Fixture::stable_pair(settings());
    let mut f = f.restarted();
    f.advance(9_999);
    assert_eq!(f.heartbeat(&a, generation), Ok(()));
    f.advance(1);
    assert_eq!(f.heartbeat(&b, generation), Err(GroupError::UnknownMember));
}

#[test]
fn stored_records_are_what_the_log_says_and_not_what_is_on_its_way() {
    let (mut f, a, _, generation) = Fixture::stable_pair(settings());
    assert!(f.commit(Some(&a), generation).is_ok());
    f.hold = true;
    let rejoin = f.join(&a.0);
    assert!(f.is_parked(rejoin));
    let commit = f.commit_request(Some(&a), generation);
    f.send(Event::Commit(commit));
    let mut copy = Group::new(std::sync::Arc::new(settings()));
    for record in f.group.stored_records() {
        copy.load(record);
    }
    copy.loaded(f.now());
    let log = f.restarted();
    assert_eq!(copy.describe(), log.group.describe());
    assert_eq!(copy.offsets(), log.group.offsets());
}

#[test]
fn description_shows_members_of_a_stable_group_only() {
    let (mut f, a, _, _) = Fixture::stable_pair(settings());
    let described = f.group.describe().expect("it exists");
    assert_eq!(
        (described.state, &*described.protocol),
        (GroupState::Stable, "range")
    );
    assert_eq!(described.members[0].assignment, "for a");
    let _ = f.join(&a.0);
    let described = f.group.describe().expect("it exists");
    assert_eq!(
        (described.state, &*described.protocol),
        (GroupState::PreparingRebalance, "")
    );
    assert!(described.members[0].assignment.is_empty() && described.members[0].metadata.is_empty());
    assert_eq!(Fixture::new(settings()).group.describe(), None);
}
