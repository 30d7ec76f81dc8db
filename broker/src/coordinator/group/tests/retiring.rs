//! DeleteGroups, OffsetDelete, deleted topics, expiry.

use std::collections::HashSet;
use std::sync::Arc;

use tidelog_protocol::types::{Offset, TopicName};

use super::super::*;
use super::fixture::{Fixture, settings, subscription, tp};

const DAY_MS: i64 = 24 * 60 * 60 * 1_000;

fn commit_on(f: &mut Fixture, topic: &str, partitions: i32) {
    let mut commit = f.commit_request(None, Generation::NONE);
    let offset = OffsetToCommit {
        offset: Offset(1),
        leader_epoch: None,
        metadata: Arc::from(""),
    };
    commit.offsets = (0..partitions)
        .map(|p| (tp(topic, p), offset.clone()))
        .collect();
    assert!(f.commit_with(commit).is_ok());
}

fn delete_offsets(
    f: &mut Fixture,
    partitions: &[(&str, i32)],
) -> Result<Vec<Result<(), GroupError>>, GroupError> {
    let token = f.token();
    f.send(Event::DeleteOffsets(
        token,
        partitions.iter().map(|(t, p)| tp(t, *p)).collect(),
    ));
    match f.take(token) {
        Reply::DeleteOffsets(outcome) => outcome,
        other => panic!("{other:?}"),
    }
}

#[test]
fn only_empty_groups_are_deleted_and_nothing_of_them_comes_back() {
    let (mut f, a, b, generation) = Fixture::stable_pair(settings());
    assert!(f.commit(Some(&a), generation).is_ok());
    assert_eq!(f.delete(), Err(GroupError::NonEmptyGroup));
    assert_eq!(f.leave_one(&a), Ok(()));
    assert_eq!(f.leave_one(&b), Ok(()));
    assert_eq!(f.delete(), Ok(()));
    assert!(f.group.is_vacant());
    assert!(f.restarted().group.is_vacant());
    assert_eq!(f.delete(), Err(GroupError::GroupNotFound));
    assert_eq!(
        Fixture::new(settings()).delete(),
        Err(GroupError::GroupNotFound)
    );
}

#[test]
fn deletion_takes_commits_along_that_are_on_their_way() {
    let mut f = Fixture::new(settings());
    f.hold = true;
    let commit = f.commit_request(None, Generation::NONE);
    f.send(Event::Commit(commit));
    let token = f.token();
    f.send(Event::Delete(token));
    f.complete_appends(Ok(()));
    assert_eq!(f.take(token), Reply::Delete(Ok(())));
    assert!(f.group.is_vacant() && f.restarted().group.is_vacant());
}

#[test]
fn deletion_that_cannot_be_stored_leaves_the_group() {
    let mut f = Fixture::new(settings());
    assert!(f.commit(None, Generation::NONE).is_ok());
    f.hold = true;
    let token = f.token();
    f.send(Event::Delete(token));
    f.complete_appends(Err(GroupError::NotCoordinator));
    assert_eq!(
        f.take(token),
        Reply::Delete(Err(GroupError::NotCoordinator))
    );
    assert_eq!(
        (f.group.state(), f.group.offsets().len()),
        (GroupState::Empty, 1)
    );
}

#[test]
fn deletion_of_many_offsets_goes_in_pieces() {
    let mut f = Fixture::new(settings());
    commit_on(&mut f, "t", 5_000);
    f.hold = true;
    let token = f.token();
    f.send(Event::Delete(token));
    assert_eq!(
        f.appends.iter().map(|a| a.1.len()).collect::<Vec<_>>(),
        [2_000, 2_000, 1_001]
    );
    f.complete_appends(Ok(()));
    assert_eq!(f.take(token), Reply::Delete(Ok(())));
    assert!(f.restarted().group.is_vacant());
}

#[test]
fn offsets_of_subscribed_topics_are_not_deleted() {
    let (mut f, a, _, generation) = Fixture::stable_pair(settings());
    assert!(f.commit(Some(&a), generation).is_ok());
    let mut other = f.commit_request(Some(&a), generation);
    other.offsets[0].0 = tp("u", 0);
    assert!(f.commit_with(other).is_ok());
    let outcomes = delete_offsets(&mut f, &[("t", 0), ("u", 0), ("v", 9)]);
    assert_eq!(
        outcomes,
        Ok(vec![Err(GroupError::SubscribedToTopic), Ok(()), Ok(())])
    );
    assert_eq!(
        f.group.offsets().keys().cloned().collect::<Vec<_>>(),
        [tp("t", 0)]
    );
    assert_eq!(f.restarted().group.offsets().len(), 1);
}

#[test]
fn offsets_of_live_groups_of_other_kinds_are_not_deleted() {
    let mut f = Fixture::new(settings());
    assert_eq!(
        delete_offsets(&mut f, &[("t", 0)]),
        Err(GroupError::GroupNotFound)
    );
    let token = f.join_with("", |j| {
        j.protocol_type = Arc::from("connect");
        j.requires_known_member = false;
    });
    f.advance(0);
    f.joined(token);
    assert_eq!(
        delete_offsets(&mut f, &[("t", 0)]),
        Err(GroupError::NonEmptyGroup)
    );
}

#[test]
fn rule_38_deleted_topic_takes_its_offsets_along() {
    let mut f = Fixture::new(settings());
    commit_on(&mut f, "t", 3);
    commit_on(&mut f, "u", 1);
    f.send(Event::TopicsDeleted(Arc::new(HashSet::from([
        TopicName::from("t"),
    ]))));
    assert_eq!(
        f.group.offsets().keys().cloned().collect::<Vec<_>>(),
        [tp("u", 0)]
    );
    assert_eq!(f.restarted().group.offsets().len(), 1);
}

#[test]
fn rule_38_offsets_expire_seven_days_after_the_group_became_empty() {
    let (mut f, a, b, generation) = Fixture::stable_pair(settings());
    assert!(f.commit(Some(&a), generation).is_ok());
    assert_eq!(f.leave_one(&a), Ok(()));
    f.advance(9_000);
    assert_eq!(f.leave_one(&b), Ok(()));
    f.advance(7 * DAY_MS - 1);
    f.send(Event::ExpireOffsets);
    assert_eq!(f.group.offsets().len(), 1);
    f.advance(1);
    f.send(Event::ExpireOffsets);
    assert!(f.group.is_vacant() && f.restarted().group.is_vacant());
}

#[test]
fn rule_38_subscribed_topics_of_a_live_group_never_expire_and_others_do() {
    let (mut f, a, b, generation) = Fixture::stable_pair(settings());
    assert!(f.commit(Some(&a), generation).is_ok());
    let mut other = f.commit_request(Some(&a), generation);
    other.offsets[0].0 = tp("u", 0);
    assert!(f.commit_with(other).is_ok());
    f.now_ms += 8 * DAY_MS;
    f.send(Event::ExpireOffsets);
    assert_eq!(
        f.group.offsets().keys().cloned().collect::<Vec<_>>(),
        [tp("t", 0)]
    );
    let _ = b;
}

#[test]
fn simple_groups_expire_by_commit_time_and_by_their_own_retention() {
    let mut f = Fixture::new(settings());
    let mut short = f.commit_request(None, Generation::NONE);
    short.retention_ms = Some(1_000);
    short.offsets[0].0 = tp("s", 0);
    assert!(f.commit_with(short).is_ok());
    commit_on(&mut f, "t", 1);
    f.advance(1_000);
    f.send(Event::ExpireOffsets);
    assert_eq!(
        f.group.offsets().keys().cloned().collect::<Vec<_>>(),
        [tp("t", 0)]
    );
    f.advance(7 * DAY_MS);
    f.send(Event::ExpireOffsets);
    assert!(f.group.is_vacant());
}

#[test]
fn group_of_offsets_alone_exists_until_the_next_check_when_they_are_deleted() {
    let mut f = Fixture::new(settings());
    commit_on(&mut f, "t", 1);
    assert_eq!(delete_offsets(&mut f, &[("t", 0)]), Ok(vec![Ok(())]));
    assert!(f.group.exists() && f.group.offsets().is_empty());
    f.send(Event::ExpireOffsets);
    assert!(f.group.is_vacant());
}

#[test]
fn empty_group_without_offsets_is_forgotten_at_the_next_check() {
    let (mut f, a, b, _) = Fixture::stable_pair(settings());
    f.leave_one(&a).and(f.leave_one(&b)).expect("both leave");
    assert!(!f.group.is_vacant());
    f.send(Event::ExpireOffsets);
    assert!(f.group.is_vacant());
    assert_eq!(f.log.last(), Some(&GroupRecord::Metadata(None)));
}

#[test]
fn group_whose_subscription_cannot_be_read_keeps_everything() {
    let mut f = Fixture::new(settings());
    let token = f.join_with("", |j| {
        j.requires_known_member = false;
        j.protocols[0].metadata = subscription(&["t"]).slice(..3);
    });
    f.advance(0);
    let joined = f.joined(token);
    let sync = f.sync(&joined.member, joined.generation, &[]);
    assert!(f.synced(sync).is_ok());
    assert!(f.commit(Some(&joined.member), joined.generation).is_ok());
    f.now_ms += 30 * DAY_MS;
    f.send(Event::ExpireOffsets);
    assert_eq!(f.group.offsets().len(), 1);
    assert_eq!(
        delete_offsets(&mut f, &[("t", 0)]),
        Ok(vec![Err(GroupError::SubscribedToTopic)])
    );
}
