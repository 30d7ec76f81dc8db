//! Requests, appends, stopping.

use std::time::Duration;

use super::fixture::{Fixture, beside};
use crate::coordinator::group::{Event, GroupError};
use crate::coordinator::offsets_log::AppendFailure;

#[tokio::test]
async fn commits_that_wait_for_an_append_go_out_together() {
    let fixture = Fixture::start().await;
    fixture
        .log
        .permits
        .forget_permits(tokio::sync::Semaphore::MAX_PERMITS);
    let commits: Vec<_> = (0..100)
        .map(|i| {
            let client = fixture.client();
            beside(async move { client.commit(&format!("g{i}"), "t", 0, i).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(
        fixture.log.batches.lock().is_empty(),
        "nothing is answered before it is stored"
    );
    assert!(commits.iter().all(|commit| !commit.is_finished()));
    fixture.log.permits.add_permits(1_000);
    for commit in commits {
        assert_eq!(commit.await.expect("ends"), Ok(()));
    }
    let batches = fixture
        .log
        .batches
        .lock()
        .iter()
        .map(|batch| batch.record_count())
        .collect::<Vec<_>>();
    assert_eq!(batches.iter().sum::<i32>(), 100);
    assert!(batches.len() <= 4, "{batches:?}");
    fixture.stop().await;
}

#[tokio::test]
async fn refused_append_is_answered_and_the_next_one_works() {
    let fixture = Fixture::start().await;
    let client = fixture.client();
    *fixture.log.fail_next.lock() =
        Some(AppendFailure::Refused(GroupError::CoordinatorNotAvailable));
    assert_eq!(
        client.commit("g", "t", 0, 1).await,
        Err(GroupError::CoordinatorNotAvailable)
    );
    assert_eq!(client.offset("g", "t", 0).await, None);
    assert_eq!(client.commit("g", "t", 0, 2).await, Ok(()));
    assert_eq!(client.offset("g", "t", 0).await, Some(2));
    fixture.stop().await;
}

#[tokio::test]
async fn append_of_unknown_fate_makes_the_shard_read_its_log_again() {
    let fixture = Fixture::start().await;
    let client = fixture.client();
    assert_eq!(client.commit("g", "t", 0, 1).await, Ok(()));
    *fixture.log.fail_next.lock() = Some(AppendFailure::Unknown);
    assert_eq!(
        client.commit("g", "t", 0, 2).await,
        Err(GroupError::NotCoordinator)
    );
    tokio::time::sleep(Duration::from_millis(150)).await;
    fixture.serving().await;
    assert_eq!(client.offset("g", "t", 0).await, Some(1));
    assert_eq!(client.commit("g", "t", 0, 3).await, Ok(()));
    fixture.stop().await;
}

#[tokio::test]
async fn stopping_answers_whoever_is_parked_and_keeps_the_group() {
    let fixture = Fixture::start().await;
    let client = fixture.client();
    let first = client.enter("g").await;
    let newcomer = fixture.client();
    let parked = beside(async move { newcomer.join("g", None).await.map(drop) });
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(!parked.is_finished());
    let fixture = fixture.restart().await;
    assert_eq!(
        parked.await.expect("ends"),
        Err(GroupError::CoordinatorNotAvailable)
    );
    let client = fixture.client();
    assert_eq!(
        client.heartbeat("g", &first.member, first.generation).await,
        Ok(())
    );
    fixture.stop().await;
}

#[tokio::test]
async fn requests_to_a_stopped_shard_are_sent_elsewhere() {
    let fixture = Fixture::start().await;
    let client = fixture.client();
    fixture.stop().await;
    assert_eq!(
        client.commit("g", "t", 0, 1).await,
        Err(GroupError::NotCoordinator)
    );
}

#[tokio::test]
async fn client_that_goes_away_changes_nothing() {
    let fixture = Fixture::start().await;
    let client = fixture.client();
    let first = client.enter("g").await;
    let newcomer = fixture.client();
    let gone = beside(async move { newcomer.join("g", None).await });
    tokio::time::sleep(Duration::from_millis(20)).await;
    gone.abort();
    tokio::time::sleep(Duration::from_millis(20)).await;
    let still = client.heartbeat("g", &first.member, first.generation).await;
    assert_eq!(
        still,
        Err(GroupError::RebalanceInProgress),
        "the rebalance that it started goes on"
    );
    let rejoined = client.join("g", Some(&first.member)).await.expect("joins");
    assert_eq!(
        rejoined.members.len(),
        2,
        "it counts until its time is up, as in Kafka"
    );
    fixture.stop().await;
}

#[tokio::test]
async fn silent_members_time_out_without_anybody_asking() {
    let fixture = Fixture::start().await;
    let mut client = fixture.client();
    client.session_ms = 50;
    let first = client.enter("g").await;
    let batches = fixture.log.batches.lock().len();
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert_eq!(
        fixture.log.batches.lock().len(),
        batches + 1,
        "the empty group is stored"
    );
    assert_eq!(
        client.heartbeat("g", &first.member, first.generation).await,
        Err(GroupError::UnknownMember)
    );
    fixture.stop().await;
}

#[tokio::test]
async fn deleted_group_is_gone_after_a_restart() {
    let fixture = Fixture::start().await;
    let client = fixture.client();
    client.commit("g", "t", 0, 1).await.expect("commits");
    client.request("g", Event::Delete).await.expect("answered");
    assert_eq!(fixture.list().await, Ok(0));
    let fixture = fixture.restart().await;
    assert_eq!(fixture.list().await, Ok(0));
    fixture.stop().await;
}
