//! Brokers of several versions in one cluster: each knows some feature levels, and the cluster is at one of them.

use super::brokers::{Node, Tune, leader_of, stop, three_tuned};
use super::*;
use crate::metadata::levels::{FEATURE_LEVEL_MAX, METADATA_FEATURE};
use crate::{MetadataError, StartError, SubmitError};

const OLD: Tune = |options| options.feature_levels = 1..=1;
const NEW: Tune = |options| options.feature_levels = 1..=2;
const NEXT: Tune = |options| options.feature_levels = 2..=3;

async fn submit(node: &Node, command: Command) -> Result<Outcome, MetadataError> {
    let controller = node.replication.controller();
    match controller.submit(command, PATIENCE).await {
        Ok(outcome) => Ok(outcome),
        Err(SubmitError::Metadata(error)) => Err(error),
        Err(other) => panic!("{other}"),
    }
}

async fn raise(node: &Node, level: i16) -> Result<Outcome, MetadataError> {
    let name = METADATA_FEATURE.to_owned();
    submit(node, Command::SetFeature { name, level }).await
}

/// Why the level is not raised.
async fn held_back(node: &Node, level: i16) -> String {
    let refused = raise(node, level).await.expect_err("is refused");
    assert!(
        matches!(refused, MetadataError::InvalidFeature(_)),
        "{refused:?}"
    );
    refused.to_string()
}

async fn reassign(node: &Node, topic: TopicId, to: &[i32]) -> Result<Outcome, MetadataError> {
    let command = Command::AlterReassignment {
        topic,
        partition: PartitionIndex(0),
        target: Some(to.iter().copied().map(BrokerId).collect()),
    };
    submit(node, command).await
}

async fn moved(nodes: &[Node], topic: TopicId, to: &[i32]) {
    let to: Vec<BrokerId> = to.iter().copied().map(BrokerId).collect();
    for node in nodes {
        eventually("it has moved", || {
            let image = node.image();
            let partition = image.partition_by_id(topic, PartitionIndex(0));
            partition.is_some_and(|it| it.reassignment.is_none() && *it.replicas == *to)
        })
        .await;
    }
}

async fn fenced(node: &Node, broker: i32) {
    eventually("it is fenced", || {
        let image = node.image();
        image.broker(BrokerId(broker)).is_some_and(|it| it.fenced)
    })
    .await;
}

/// Stops a broker and starts it as another version, where the others know it: none of them is asked where they are by now.
async fn replaced(nodes: &mut Vec<Node>, at: usize, tune: Tune) -> Result<(), StartError> {
    let node = nodes.remove(at);
    let (id, address) = (node.replication.broker().0, node.address());
    let directory = node.stop().await;
    nodes.insert(at, Node::run_at(address, id, directory, None, tune).await?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_level_is_raised_once_all_brokers_know_it() {
    let mut nodes = three_tuned(OLD).await;
    assert_eq!(nodes[0].image().feature_level(), 1);
    let topic = nodes[0].create("orders", &[1]).await;
    assert!(
        held_back(&nodes[0], 2)
            .await
            .contains("broker 1 knows 1, broker 2 knows 1, broker 3 knows 1")
    );
    replaced(&mut nodes, 2, NEW).await.expect("starts");
    let why = held_back(&nodes[2], 2).await;
    assert!(
        why.contains("broker 1 knows 1, broker 2 knows 1. Start"),
        "{why}"
    );
    // One that is down holds it back, too: it will read what is written meanwhile.
    let down = nodes.remove(1).stop().await;
    fenced(&nodes[0], 2).await;
    let why = held_back(&nodes[1], 2).await;
    assert!(
        why.contains("broker 1 knows 1, broker 2 (which is down) knows 1"),
        "{why}"
    );
    nodes.insert(
        1,
        Node::run_tuned(2, down, None, NEW).await.expect("starts"),
    );
    replaced(&mut nodes, 0, NEW).await.expect("starts");
    // All are there, and nothing new is written before somebody says so.
    for node in &nodes {
        let before = node.image().version();
        let refused = reassign(node, topic, &[2]).await.expect_err("is refused");
        assert!(
            matches!(refused, MetadataError::LevelTooLow(_)),
            "{refused:?}"
        );
        assert!(
            refused.to_string().contains("tidelog cluster upgrade"),
            "{refused}"
        );
        let partition = node
            .image()
            .partition_by_id(topic, PartitionIndex(0))
            .cloned();
        assert!(partition.is_some_and(|it| it.reassignment.is_none()));
        assert!(node.image().version() >= before);
    }
    assert_eq!(raise(&nodes[1], 2).await, Ok(Outcome::Done));
    // What another broker was asked for a moment ago is known to all that are asked.
    assert_eq!(reassign(&nodes[2], topic, &[2]).await, Ok(Outcome::Done));
    moved(&nodes, topic, &[2]).await;
    assert_eq!(leader_of(&nodes[0], "orders", Some(1)).await, 2);
    assert_eq!(
        raise(&nodes[0], 2).await,
        Ok(Outcome::Done),
        "it is there already"
    );
    for lower in [1, 0, -1] {
        assert!(held_back(&nodes[0], lower).await.contains("never lowered"));
    }
    assert!(held_back(&nodes[0], 3).await.contains("broker 1 knows 2"));
    assert!(nodes[0].image().features().is_empty());
    stop(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_knows_less_than_the_cluster_is_refused_with_what_to_do() {
    const TEXT: &str = "start it with the version that the other brokers run";
    let mut nodes = three_tuned(OLD).await;
    for at in 0..3 {
        replaced(&mut nodes, at, NEW).await.expect("starts");
    }
    let topic = nodes[0].create("orders", &[1]).await;
    let away = nodes.remove(2).stop().await;
    fenced(&nodes[0], 3).await;
    assert_eq!(raise(&nodes[0], 2).await, Ok(Outcome::Done));
    assert_eq!(reassign(&nodes[0], topic, &[2]).await, Ok(Outcome::Done));
    moved(&nodes, topic, &[2]).await;
    // What this one has on disk is of the level that it knows; the others tell it.
    let path = away.path().to_owned();
    let refused = Node::run_tuned(3, away, None, OLD).await.map(drop);
    match refused {
        Err(StartError::FeatureLevel(text)) => assert!(text.contains(TEXT), "{text}"),
        other => panic!("{other:?}"),
    }
    drop(path);
    let refused = Node::run_tuned(
        4,
        tempfile::tempdir().expect("a folder"),
        Some(nodes[0].address()),
        OLD,
    );
    match refused.await.map(drop) {
        Err(StartError::FeatureLevel(text)) => {
            assert!(
                text.contains("start the version that the other brokers run"),
                "{text}"
            );
        }
        other => panic!("{other:?}"),
    }
    // This one has read that the level was raised.
    let started = tokio::time::Instant::now();
    let text = replaced(&mut nodes, 1, OLD)
        .await
        .expect_err("is refused")
        .to_string();
    assert!(
        text.contains("start the version that the other brokers run"),
        "{text}"
    );
    assert!(
        started.elapsed() < PATIENCE,
        "it does not wait for what cannot be"
    );
    stop(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_reads_only_later_levels_is_refused_with_what_to_do() {
    const TEXT: &str = "start the version before this one";
    let first = Node::run_tuned(1, tempfile::tempdir().expect("a folder"), None, OLD);
    let mut nodes = vec![first.await.expect("starts")];
    let joining = Node::run_tuned(
        2,
        tempfile::tempdir().expect("a folder"),
        Some(nodes[0].address()),
        NEXT,
    );
    match joining.await.map(drop) {
        Err(StartError::FeatureLevel(text)) => assert!(text.contains(TEXT), "{text}"),
        other => panic!("{other:?}"),
    }
    let text = replaced(&mut nodes, 0, NEXT)
        .await
        .expect_err("is refused")
        .to_string();
    assert!(text.contains(TEXT), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_cluster_is_at_the_highest_level_and_keeps_it() {
    let node = Node::found().await;
    assert_eq!(node.image().feature_level(), FEATURE_LEVEL_MAX);
    let node = Node::run(1, node.stop().await, None).await.expect("starts");
    assert_eq!(node.image().feature_level(), FEATURE_LEVEL_MAX);
    node.stop().await;
}
