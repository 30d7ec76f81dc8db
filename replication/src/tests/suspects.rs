//! Replicas that a power loss may have left shorter than they were.

use std::net::SocketAddr;

use super::brokers::{Node, Tune, leader_of, produce, stop, three};
use super::*;
use crate::{ElectionError, ElectionKind};

/// The process did not stop, and the machine runs for the second time: the first start of a broker like this follows a power
/// loss, the next ones a kill.
const SECOND_RUN: Tune = |options| {
    options.stopped_cleanly = false;
    options.boot_id = "second".to_owned();
};

const OS: &[(&str, &str)] = &[("durability", "os")];

fn is_suspect(node: &Node, topic: TopicId) -> bool {
    node.partition(topic).shared().is_suspect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_suspect_counts_again_once_a_leader_has_brought_it_up() {
    let mut nodes = three().await;
    let topic = nodes[0].create_with("orders", &[1, 2, 3], OS).await;
    let synced = nodes[0].create("synced", &[1, 2, 3]).await;
    for number in 0..10 {
        produce(&nodes, topic, batch_of(4, number, 1)).await;
        produce(&nodes, synced, batch_of(4, number, 1)).await;
    }
    let leader = leader_of(&nodes[0], "orders", None).await;
    let at = nodes
        .iter()
        .position(|node| node.replication.broker().0 != leader);
    let node = nodes.remove(at.expect("is there"));
    let (id, address) = (node.replication.broker().0, node.address());
    let directory = node.kill().await;
    let back = Node::run_at(address, id, directory, None, SECOND_RUN).await;
    let back = back.expect("comes back");
    assert!(!is_suspect(&back, synced));
    // Nobody writes: it asks its leader.
    eventually("it is no suspect", || !is_suspect(&back, topic)).await;
    let store = back.replication.hosted().state_of(&back.partition(topic));
    eventually("nor after a restart", || {
        matches!(store.is_suspect(), Ok(false))
    })
    .await;
    drop(store);
    nodes.push(back);
    let lost = nodes
        .iter()
        .position(|node| node.replication.broker().0 == leader);
    drop(nodes.remove(lost.expect("is there")).kill().await);
    leader_of(&nodes[0], "orders", Some(leader)).await;
    for number in 10..15 {
        let offset = produce(&nodes, topic, batch_of(4, number, 1)).await;
        assert_eq!(offset, Offset(number.into()));
    }
    stop(nodes).await;
}

/// A broker that was killed: its id, where it listens, what it has.
type Killed = (i32, SocketAddr, TempDir);

async fn kill(nodes: Vec<Node>) -> Vec<Killed> {
    let mut killed = Vec::new();
    for node in nodes {
        let (id, address) = (node.replication.broker().0, node.address());
        killed.push((id, address, node.kill().await));
    }
    killed
}

async fn start(killed: Vec<Killed>) -> Vec<Node> {
    let starts = killed.into_iter().map(|(id, address, directory)| {
        tokio::spawn(Node::run_at(address, id, directory, None, SECOND_RUN))
    });
    let mut nodes = Vec::new();
    for start in starts.collect::<Vec<_>>() {
        let started = start.await.expect("does not panic");
        nodes.push(started.unwrap_or_else(|error| panic!("{error}")));
    }
    nodes
}

/// Once nobody is said to lead: of a broker that was killed with all others it takes a session to find out.
async fn elect(node: &Node, topic: TopicId) -> Result<(), ElectionError> {
    eventually("the dead leads no more", || {
        let image = node.image();
        let known = image.partition_by_id(topic, PartitionIndex(0));
        known.is_some_and(|known| image.live_leader(known).is_none())
    })
    .await;
    let partitions = vec![(topic, PartitionIndex(0))];
    let elected = node
        .replication
        .elect_leaders(ElectionKind::Unclean, partitions, PATIENCE);
    elected.await.pop().expect("one is asked for")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn suspects_elect_nobody_until_an_operator_trusts_them() {
    let nodes = three().await;
    let topic = nodes[0].create_with("orders", &[1, 2, 3], OS).await;
    let synced = nodes[0].create("synced", &[1, 2, 3]).await;
    for number in 0..10 {
        produce(&nodes, topic, batch_of(4, number, 1)).await;
        produce(&nodes, synced, batch_of(4, number, 1)).await;
    }
    // One that had acknowledged nothing would be no suspect.
    for node in &nodes {
        let partition = node.partition(topic);
        eventually("it has all", || partition.state().log_end == Offset(10)).await;
    }
    let mut killed = kill(nodes).await;
    drop(killed.remove(0));
    let nodes = start(killed).await;
    // The others lead at once.
    for number in 10..12 {
        let offset = produce(&nodes, synced, batch_of(4, number, 1)).await;
        assert_eq!(offset, Offset(number.into()));
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    for node in &nodes {
        assert!(is_suspect(node, topic));
        assert_eq!(node.partition(topic).state().leader, None);
    }
    // It stays so when only the process ends.
    let nodes = start(kill(nodes).await).await;
    for node in &nodes {
        assert!(is_suspect(node, topic));
    }
    assert_eq!(elect(&nodes[0], topic).await, Ok(()));
    for number in 10..12 {
        let offset = produce(&nodes, topic, batch_of(4, number, 1)).await;
        assert_eq!(offset, Offset(number.into()));
    }
    for node in &nodes {
        eventually("it is no suspect", || !is_suspect(node, topic)).await;
    }
    stop(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_was_killed_lost_nothing_and_is_no_suspect() {
    let nodes = three().await;
    let topic = nodes[0].create_with("orders", &[1, 2, 3], OS).await;
    for number in 0..10 {
        produce(&nodes, topic, batch_of(4, number, 1)).await;
    }
    // The machine's run is noted at a start.
    let mut killed = kill(nodes).await;
    drop(killed.remove(0));
    let nodes = start(killed).await;
    assert_eq!(elect(&nodes[0], topic).await, Ok(()));
    let topic = nodes[0].create_with("second", &[2, 3], OS).await;
    for number in 0..10 {
        produce(&nodes, topic, batch_of(4, number, 1)).await;
    }
    let nodes = start(kill(nodes).await).await;
    for node in &nodes {
        assert!(!is_suspect(node, topic));
    }
    let offset = produce(&nodes, topic, batch_of(4, 10, 1)).await;
    assert_eq!(offset, Offset(10));
    stop(nodes).await;
}
