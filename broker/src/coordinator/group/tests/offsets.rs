//! OffsetCommit in every state.

use std::sync::Arc;

use tidelog_protocol::types::{LeaderEpoch, Offset};

use super::super::*;
use super::fixture::{Fixture, settings, tp};

#[test]
fn rule_38_offset_epoch_note_and_time_are_kept() {
    let mut f = Fixture::new(settings());
    let now = f.now().wall;
    assert_eq!(f.commit(None, Generation::NONE), Ok(vec![Ok(())]));
    let expected = CommittedOffset {
        offset: Offset(42),
        leader_epoch: Some(LeaderEpoch(3)),
        metadata: Arc::from("note"),
        commit_timestamp: now,
        expire_timestamp: None,
    };
    assert_eq!(f.group.offsets().get(&tp("t", 0)), Some(&expected));
    assert_eq!(
        f.restarted().group.offsets().get(&tp("t", 0)),
        Some(&expected)
    );
}

#[test]
fn offset_is_visible_only_once_it_is_stored() {
    let mut f = Fixture::new(settings());
    f.hold = true;
    let commit = f.commit_request(None, Generation::NONE);
    let token = commit.token;
    f.send(Event::Commit(commit));
    assert!(f.is_parked(token) && f.group.offsets().is_empty());
    f.complete_appends(Err(GroupError::NotCoordinator));
    assert_eq!(
        f.take(token),
        Reply::Commit(Err(GroupError::NotCoordinator))
    );
    assert!(f.group.is_vacant());
}

#[test]
fn commits_without_a_group_are_for_empty_groups_only() {
    let (mut f, a, b, generation) = Fixture::stable_pair(settings());
    assert_eq!(
        f.commit(None, Generation::NONE),
        Err(GroupError::UnknownMember)
    );
    assert_eq!(f.commit(None, generation), Err(GroupError::UnknownMember));
    assert_eq!(f.leave_one(&a), Ok(()));
    assert_eq!(f.leave_one(&b), Ok(()));
    assert_eq!(f.commit(None, Generation::NONE), Ok(vec![Ok(())]));
}

#[test]
fn rule_37_commit_is_accepted_while_preparing_and_refused_while_completing() {
    let (mut f, a, b, generation) = Fixture::stable_pair(settings());
    assert_eq!(f.commit(Some(&a), generation), Ok(vec![Ok(())]), "stable");
    let rejoin_a = f.join(&a.0);
    assert_eq!(
        f.commit(Some(&b), generation),
        Ok(vec![Ok(())]),
        "preparing"
    );
    let rejoin_b = f.join(&b.0);
    let next = f.joined(rejoin_a).generation;
    f.joined(rejoin_b);
    assert_eq!(
        f.commit(Some(&b), next),
        Err(GroupError::RebalanceInProgress),
        "completing"
    );
    assert_eq!(
        f.commit(Some(&b), generation),
        Err(GroupError::IllegalGeneration)
    );
}

#[test]
fn commit_errors() {
    let (mut f, a, _, generation) = Fixture::stable_pair(settings());
    assert_eq!(
        f.commit(Some(&a), Generation(generation.0 + 1)),
        Err(GroupError::IllegalGeneration)
    );
    assert_eq!(
        f.commit(Some(&MemberId::from("nobody")), generation),
        Err(GroupError::UnknownMember)
    );
    let mut fenced = f.commit_request(Some(&a), generation);
    fenced.instance = Some(InstanceId::from("one"));
    assert_eq!(
        f.commit_with(fenced),
        Err(GroupError::UnknownMember),
        "no such instance"
    );
}

#[test]
fn generation_of_a_group_that_is_gone() {
    let mut f = Fixture::new(settings());
    let member = MemberId::from("m");
    assert_eq!(
        f.commit(Some(&member), Generation(3)),
        Err(GroupError::GroupNotFound)
    );
    let mut old = f.commit_request(Some(&member), Generation(3));
    old.knows_group_not_found = false;
    assert_eq!(f.commit_with(old), Err(GroupError::IllegalGeneration));
}

#[test]
fn commit_keeps_the_session_alive() {
    let (mut f, a, b, generation) = Fixture::stable_pair(settings());
    for _ in 0..4 {
        f.advance(6_000);
        assert!(f.commit(Some(&a), generation).is_ok());
        assert_eq!(f.heartbeat(&b, generation), Ok(()));
    }
}

#[test]
fn rule_38_metadata_of_4096_fits_and_4097_does_not() {
    let mut f = Fixture::new(settings());
    let mut commit = f.commit_request(None, Generation::NONE);
    let with = |metadata: String| OffsetToCommit {
        offset: Offset(1),
        leader_epoch: None,
        metadata: Arc::from(metadata.as_str()),
    };
    commit.offsets = vec![
        (tp("t", 0), with("x".repeat(4_096))),
        (tp("t", 1), with("x".repeat(4_097))),
        (tp("t", 2), with("\u{e9}".repeat(4_096))),
    ];
    assert_eq!(
        f.commit_with(commit),
        Ok(vec![Ok(()), Err(GroupError::MetadataTooLarge), Ok(())])
    );
    assert_eq!(f.group.offsets().len(), 2);
    let mut commit = f.commit_request(None, Generation::NONE);
    commit.offsets = vec![(tp("t", 1), with("x".repeat(4_097)))];
    assert_eq!(
        f.commit_with(commit),
        Ok(vec![Err(GroupError::MetadataTooLarge)])
    );
}

#[test]
fn commit_that_no_batch_can_hold_says_so() {
    let mut f = Fixture::new(settings());
    f.hold = true;
    let commit = f.commit_request(None, Generation::NONE);
    let token = commit.token;
    f.send(Event::Commit(commit));
    f.complete_appends(Err(GroupError::RecordTooLarge));
    assert_eq!(
        f.take(token),
        Reply::Commit(Err(GroupError::CommitTooLarge))
    );
}
