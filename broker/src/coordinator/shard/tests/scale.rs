//! Large groups, many groups.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use tidelog_storage::kv::MemoryKv;

use super::fixture::{Fixture, MemoryLog, beside};
use crate::coordinator::group::{GroupSettings, MemberId};

const MEMBERS: usize = 200;
const PARTITIONS: usize = 900;

/// Joins and syncs all members at once; the leader gives each its share. Returns their ids, the leader first.
async fn rebalance(fixture: &Fixture, members: Vec<Option<MemberId>>) -> Vec<Option<MemberId>> {
    let mut running = Vec::new();
    for (place, member) in members.into_iter().enumerate() {
        let client = fixture.client();
        running.push(beside(async move {
            let joined = client.join("g", member.as_ref()).await.expect("joins");
            assert!(joined.members.is_empty() || joined.members.len() == MEMBERS);
            let share = Bytes::from(vec![1u8; PARTITIONS / MEMBERS * 16]);
            let assign: HashMap<_, _> = joined
                .members
                .iter()
                .map(|m| (m.member.clone(), share.clone()))
                .collect();
            assert_eq!(client.sync("g", &joined, &assign).await, Ok(share));
            (joined.leader == Some(joined.member.clone()), joined.member)
        }));
        if place == 0 {
            // The leader's join begins the rebalance; the others learn of it from their heartbeats.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    let mut members = Vec::new();
    for member in running {
        let (leads, id) = member.await.expect("ends");
        members.insert(if leads { 0 } else { members.len() }, Some(id));
    }
    members
}

/// From the first rejoin to the last assignment.
#[tokio::test]
async fn group_of_200_members_over_900_partitions_rebalances_within_5_seconds() {
    let settings = GroupSettings {
        initial_rebalance_delay_ms: 500,
        ..GroupSettings::default()
    };
    let store = Arc::new(MemoryKv::new().expect("starts"));
    let fixture = Fixture::start_on(MemoryLog::new(), store, settings);
    fixture.serving().await;
    let members = rebalance(&fixture, vec![None; MEMBERS]).await;
    let started = Instant::now();
    let members = rebalance(&fixture, members).await;
    assert_eq!(members.len(), MEMBERS);
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "{:?}",
        started.elapsed()
    );
    fixture.stop().await;
}

#[tokio::test]
async fn five_thousand_groups_are_kept_and_found_again() {
    let fixture = Fixture::start().await;
    let started = Instant::now();
    let mut commits = Vec::new();
    for i in 0..5_000 {
        let client = fixture.client();
        commits.push(beside(async move {
            client.commit(&format!("group-{i}"), "t", 0, i).await
        }));
    }
    for commit in commits {
        assert_eq!(commit.await.expect("ends"), Ok(()));
    }
    let fixture = fixture.restart().await;
    assert_eq!(fixture.list().await, Ok(5_000));
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "{:?}",
        started.elapsed()
    );
    fixture.stop().await;
}
