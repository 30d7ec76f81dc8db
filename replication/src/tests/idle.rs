//! Partitions that nobody uses are not looked at.

use super::*;
use crate::tasks;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_partitions_are_not_visited() {
    let mut broker = Broker::start().await;
    let topic = broker.create("idle", 40).await;
    for index in 0..40 {
        append(&broker.partition(topic, index), batch(1), Acks::All)
            .await
            .expect("is appended");
    }
    broker.restart().await;
    let replication = broker.replication().clone();
    let hosted = replication.hosted();
    // What the start had to say is heard.
    let round = async || {
        tasks::sweep_leaderless(hosted).await;
        replication.save_checkpoints().await;
        hosted.visits()
    };
    let quiet = async || {
        eventually("nothing is left to look at", || {
            hosted.notices().leaderless.is_empty() && hosted.notices().unsaved.is_empty()
        })
        .await;
        round().await
    };
    let before = quiet().await;
    assert_eq!(round().await, before, "all are idle");
    // One that is used is looked at, once, by whoever comes first.
    append(&broker.partition(topic, 7), batch(1), Acks::All)
        .await
        .expect("is appended");
    // It is answered a moment before it counts as applied.
    eventually("it is noted", || {
        !hosted.notices().unsaved.is_empty() || hosted.visits() > before
    })
    .await;
    assert_eq!(round().await, before + 1);
    assert_eq!(round().await, before + 1, "all are idle again");
    broker.partition(topic, 8).shared().go_offline("for a test");
    eventually("it is looked after until it is led again", || {
        broker.partition(topic, 8).state().is_leader()
    })
    .await;
    drop(replication);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_compacted_is_not_looked_at_again_before_it_changes() {
    let mut broker = Broker::start().await;
    let configs = [("cleanup.policy", "compact")];
    let topic = broker.create_with("compacted", 1, &configs).await;
    let partition = broker.partition(topic, 0);
    let looks = || partition.compaction_looks();
    let look = async || {
        for _ in 0..2 {
            assert_eq!(partition.cleanable().await.expect("is known"), None);
        }
        looks()
    };
    let before = look().await;
    assert_eq!(look().await, before, "it is idle");
    append(&partition, batch(1), Acks::All)
        .await
        .expect("is appended");
    assert!(look().await > before, "it has grown");
    let before = look().await;
    assert_eq!(look().await, before, "it is idle again");
    broker.stop().await;
}
