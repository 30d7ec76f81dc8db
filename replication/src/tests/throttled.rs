//! Replicas that catch up at the rate that is set, and what does not wait for them.

use std::time::Instant;

use super::brokers::{Node, produce, stop, three};
use super::moving::{four, moved, reassign};
use super::*;

const LEADERS: &str = "leader.replication.throttled.replicas";
const FOLLOWERS: &str = "follower.replication.throttled.replicas";
const LEADER_RATE: &str = "leader.replication.throttled.rate";
const FOLLOWER_RATE: &str = "follower.replication.throttled.rate";

const RECORDS: i32 = 2_000;

/// Appends batches of 220 KB.
async fn fill(nodes: &[Node], topic: TopicId, numbers: std::ops::Range<i32>) {
    for number in numbers {
        produce(nodes, topic, batch_of(4, number * RECORDS, RECORDS)).await;
    }
}

/// Until leaders have looked twice: whoever has what they had before that counts as in sync.
async fn looked() {
    tokio::time::sleep(Duration::from_millis(2_500)).await;
}

/// Sets a rate for all brokers, or takes it back.
async fn set_rate(node: &Node, key: &str, rate: Option<u64>) {
    let command = Command::AlterConfigs {
        resource: ConfigResource::Broker(None),
        changes: vec![(key.to_owned(), rate.map(|rate| rate.to_string()))],
    };
    let submitted = node.replication.controller().submit(command, PATIENCE);
    submitted.await.expect("is set");
}

fn end(node: &Node, topic: TopicId) -> i64 {
    let partition = node.replication.partition(topic, PartitionIndex(0));
    partition.map_or(0, |partition| partition.state().log_end.0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_gets_what_it_lacks_at_its_rate() {
    let nodes = four().await;
    let configs = [(FOLLOWERS, "0:4")];
    let topic = nodes[0].create_with("slow", &[1, 2], &configs).await;
    fill(&nodes, topic, 0..20).await;
    looked().await;
    set_rate(&nodes[1], FOLLOWER_RATE, Some(1 << 20)).await;
    let began = Instant::now();
    reassign(&nodes[0], topic, Some(&[1, 2, 4])).await;
    // What is written meanwhile waits for nobody.
    fill(&nodes, topic, 20..22).await;
    has_batches(&nodes[3], topic, 22).await;
    // 4.6 MiB, of which the first is sent at once and the last is paid for by nobody.
    assert!(began.elapsed() > Duration::from_millis(2_000));
    moved(&nodes[0], topic, &[1, 2, 4]).await;
    // Others are not named.
    let began = Instant::now();
    set_rate(&nodes[1], FOLLOWER_RATE, Some(1)).await;
    reassign(&nodes[0], topic, Some(&[1, 2, 3])).await;
    has_batches(&nodes[2], topic, 22).await;
    assert!(began.elapsed() < Duration::from_secs(30));
    stop(nodes).await;
}

async fn has_batches(node: &Node, topic: TopicId, batches: i64) {
    eventually("it has all", || {
        end(node, topic) == batches * i64::from(RECORDS)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_set_anew_counts_at_once() {
    let nodes = four().await;
    let configs = [(LEADERS, "*"), (FOLLOWERS, "0:3,0:4")];
    let topic = nodes[0].create_with("stuck", &[1, 2], &configs).await;
    fill(&nodes, topic, 0..20).await;
    looked().await;
    set_rate(&nodes[1], LEADER_RATE, Some(1)).await;
    set_rate(&nodes[1], FOLLOWER_RATE, Some(1)).await;
    reassign(&nodes[0], topic, Some(&[1, 2, 4])).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    fill(&nodes, topic, 20..22).await;
    let all = 22 * i64::from(RECORDS);
    assert!(end(&nodes[3], topic) < all, "it is behind");
    // A rate that is raised, one that goes, and a list that no longer names the replica.
    set_rate(&nodes[1], LEADER_RATE, Some(1 << 30)).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(
        end(&nodes[3], topic) < all,
        "the follower's rate counts, too"
    );
    set_rate(&nodes[1], FOLLOWER_RATE, None).await;
    has_batches(&nodes[3], topic, 22).await;
    moved(&nodes[0], topic, &[1, 2, 4]).await;
    looked().await;
    set_rate(&nodes[1], FOLLOWER_RATE, Some(1)).await;
    reassign(&nodes[0], topic, Some(&[1, 2, 3])).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(end(&nodes[2], topic) < all, "it is behind");
    let command = Command::AlterConfigs {
        resource: ConfigResource::Topic("stuck".into()),
        changes: vec![(FOLLOWERS.to_owned(), Some("0:4".to_owned()))],
    };
    let submitted = nodes[0].replication.controller().submit(command, PATIENCE);
    submitted.await.expect("is set");
    has_batches(&nodes[2], topic, 22).await;
    stop(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_a_majority_needs_does_not_wait() {
    let mut nodes = three().await;
    let configs = [(LEADERS, "*"), (FOLLOWERS, "*")];
    let topic = nodes[0].create_with("needed", &[1, 2, 3], &configs).await;
    set_rate(&nodes[0], LEADER_RATE, Some(1)).await;
    set_rate(&nodes[0], FOLLOWER_RATE, Some(1)).await;
    fill(&nodes, topic, 0..1).await;
    let contact = nodes[0].address();
    let directory = nodes.remove(2).kill().await;
    fill(&nodes, topic, 1..20).await;
    looked().await;
    let back = Node::run_tuned(3, directory, Some(contact), |_| {}).await;
    nodes.push(back.expect("comes back"));
    tokio::time::sleep(Duration::from_secs(2)).await;
    let all = 20 * i64::from(RECORDS);
    assert!(end(&nodes[2], topic) < all, "two are enough without it");
    let second = nodes.remove(1);
    second.kill().await;
    fill(&nodes, topic, 20..21).await;
    has_batches(&nodes[1], topic, 21).await;
    stop(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_replica_that_lacks_much_gets_no_vote() {
    let nodes = three().await;
    let topic = nodes[0].create_with("alone", &[1], &[(LEADERS, "*")]).await;
    set_rate(&nodes[0], LEADER_RATE, Some(1)).await;
    // Few entries, but 9 MB.
    fill(&nodes, topic, 0..40).await;
    reassign(&nodes[0], topic, Some(&[2])).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let image = nodes[0].image();
    let shown = image.partition_by_id(topic, PartitionIndex(0));
    assert!(shown.is_some_and(|it| it.reassignment.is_some()));
    fill(&nodes, topic, 40..42).await;
    set_rate(&nodes[0], LEADER_RATE, None).await;
    moved(&nodes[0], topic, &[2]).await;
    has_batches(&nodes[1], topic, 42).await;
    stop(nodes).await;
}
