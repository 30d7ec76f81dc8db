//! Replicas that lost what they had: a whole disk, or one log.

use super::brokers::{Node, leader_of, produce, second_directory, three};
use super::*;
use crate::partition::state::{PartitionState, Role};

fn in_sync(node: &Node, topic: TopicId) -> usize {
    let image = node.image();
    let topic = image.topic_by_id(topic);
    topic.map_or(0, |topic| topic.partitions[0].isr.len())
}

fn is_moving(node: &Node, topic: TopicId) -> bool {
    let image = node.image();
    let topic = image.topic_by_id(topic);
    topic.is_some_and(|topic| topic.partitions[0].reassignment.is_some())
}

async fn healed(nodes: &[Node], topic: TopicId, records: i64) {
    eventually("nothing moves", || {
        nodes.iter().all(|node| !is_moving(node, topic))
    })
    .await;
    eventually("all are in sync", || in_sync(&nodes[0], topic) == 3).await;
    for node in nodes {
        eventually("it has all", || {
            let partition = node.replication.partition(topic, PartitionIndex(0));
            let state = partition.map(|it| it.state());
            let is_good = |it: PartitionState| {
                it.high_watermark == Offset(records) && it.role != Role::Offline
            };
            state.is_some_and(is_good)
        })
        .await;
        let all: Vec<i64> = (0..records).collect();
        assert_eq!(stored_offsets(&node.partition(topic)), all);
    }
}

async fn produce_some(nodes: &[Node], topic: TopicId, numbers: std::ops::Range<i32>) {
    for number in numbers {
        let offset = produce(nodes, topic, batch_of(4, number, 1)).await;
        assert_eq!(offset, Offset(number.into()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_whose_disk_is_lost_comes_back_with_an_empty_one() {
    let mut nodes = three().await;
    let topic = nodes[0].create("orders", &[1, 2, 3]).await;
    produce_some(&nodes, topic, 0..10).await;
    drop(nodes.remove(2).kill().await);
    produce_some(&nodes, topic, 10..20).await;
    // The controller may be the last to hear of the loss.
    let contact = nodes[0].address();
    let back = Node::run(3, second_directory(), Some(contact)).await;
    nodes.push(back.expect("takes its place"));
    healed(&nodes, topic, 20).await;
    let voters = || nodes[0].members();
    eventually(
        "it votes for the controller in the place of the lost one",
        || {
            let members = voters();
            let second =
                |it: &&crate::raft::types::ReplicaId| it.directory == Uuid::from_u128(2_003);
            members.voters.len() == 3 && members.voters.iter().filter(second).count() == 1
        },
    )
    .await;
    // What it has counts.
    nodes.remove(0).kill().await;
    leader_of(&nodes[0], "orders", Some(1)).await;
    produce_some(&nodes, topic, 20..30).await;
    for node in nodes {
        node.kill().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_was_replaced_does_not_come_back() {
    let mut nodes = three().await;
    let lost = nodes.remove(2).kill().await;
    let contact = nodes[0].address();
    let back = Node::run(3, second_directory(), Some(contact)).await;
    let kept = back.expect("takes its place").stop().await;
    eventually("it is fenced", || {
        let image = nodes[0].image();
        image.broker(BrokerId(3)).is_some_and(|it| it.fenced)
    })
    .await;
    let refused = Node::run(3, lost, None).await.err();
    assert!(
        matches!(refused, Some(StartError::BrokerIdTaken(BrokerId(3)))),
        "{refused:?}"
    );
    nodes.push(Node::run(3, kept, None).await.expect("comes back"));
    for node in nodes {
        node.stop().await;
    }
}

/// A replica that has found its log damaged.
fn damage(node: &Node, topic: TopicId) -> Arc<Partition> {
    let partition = node.partition(topic);
    partition.shared().lose_records("for a test");
    partition
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_replica_is_brought_back_from_the_others() {
    let nodes = three().await;
    let topic = nodes[0].create("orders", &[1, 2, 3]).await;
    produce_some(&nodes, topic, 0..10).await;
    let leader = leader_of(&nodes[0], "orders", None).await;
    // First one that follows, then the leader itself.
    let follower = nodes
        .iter()
        .position(|node| node.replication.broker().0 != leader);
    let leads = nodes
        .iter()
        .position(|node| node.replication.broker().0 == leader);
    let mut records = 10;
    for at in [follower, leads] {
        let node = &nodes[at.expect("is there")];
        let damaged = damage(node, topic);
        produce_some(&nodes, topic, records..records + 10).await;
        records += 10;
        eventually("another replica stands in its place", || {
            let now = node.replication.partition(topic, PartitionIndex(0));
            now.is_some_and(|now| !Arc::ptr_eq(&damaged, &now))
        })
        .await;
        healed(&nodes, topic, records.into()).await;
    }
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_replica_stays_out_over_a_restart_until_it_is_replaced() {
    let mut nodes = three().await;
    let topic = nodes[0].create("orders", &[1, 2, 3]).await;
    produce_some(&nodes, topic, 0..10).await;
    let at = nodes
        .iter()
        .position(|node| !node.partition(topic).state().is_leader());
    let node = nodes.remove(at.expect("is there"));
    let id = node.replication.broker().0;
    let store = node.replication.hosted().state_of(&node.partition(topic));
    store
        .write_damaged(node.image().version())
        .await
        .expect("is written");
    drop(store);
    let kept = node.stop().await;
    produce_some(&nodes, topic, 10..20).await;
    nodes.push(Node::run(id, kept, None).await.expect("comes back"));
    healed(&nodes, topic, 20).await;
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_replica_that_is_alone_stays_as_it_is() {
    let nodes = three().await;
    let topic = nodes[0].create("alone", &[2]).await;
    produce_some(&nodes, topic, 0..10).await;
    let damaged = damage(&nodes[1], topic);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(Arc::ptr_eq(&damaged, &nodes[1].partition(topic)));
    assert_eq!(damaged.state().role, Role::Offline);
    assert_eq!(damaged.log().bounds().log_end, Offset(10));
    for node in nodes {
        node.stop().await;
    }
}
