//! Replicas and leaderships that move between brokers, and brokers that leave.

use super::brokers::{Node, leader_of, produce, stop, three, three_tuned};
use super::compaction::{keyed, stored_offsets_from};
use super::*;
use crate::{ElectionError, ElectionKind, MetadataError, PartitionImage, SubmitError};

fn ids(raw: &[i32]) -> Vec<BrokerId> {
    raw.iter().copied().map(BrokerId).collect()
}

pub async fn four() -> Vec<Node> {
    let mut nodes = three().await;
    let fourth = Node::join(4, &nodes[0]).await.expect("joins");
    nodes.push(fourth);
    nodes
}

async fn submit(node: &Node, command: Command) -> Result<Outcome, SubmitError> {
    node.replication
        .controller()
        .submit(command, PATIENCE)
        .await
}

pub async fn reassign(node: &Node, topic: TopicId, target: Option<&[i32]>) {
    let command = Command::AlterReassignment {
        topic,
        partition: PartitionIndex(0),
        target: target.map(ids),
    };
    assert_eq!(submit(node, command).await, Ok(Outcome::Done));
}

fn shown(node: &Node, topic: TopicId) -> PartitionImage {
    let image = node.image();
    let partition = image.partition_by_id(topic, PartitionIndex(0));
    partition.expect("is there").clone()
}

/// Until a broker's image shows these replicas and no reassignment.
pub async fn moved(node: &Node, topic: TopicId, replicas: &[i32]) {
    let replicas = ids(replicas);
    eventually("it has moved", || {
        let shown = shown(node, topic);
        shown.reassignment.is_none() && *shown.replicas == *replicas
    })
    .await;
}

fn hosts(node: &Node, topic: TopicId) -> bool {
    (node.replication)
        .partition(topic, PartitionIndex(0))
        .is_some()
}

async fn fill(nodes: &[Node], topic: TopicId, numbers: std::ops::Range<i32>) {
    for number in numbers {
        let offset = produce(nodes, topic, batch_of(4, number, 1)).await;
        assert_eq!(offset, Offset(number.into()));
    }
}

async fn has_all(node: &Node, topic: TopicId, count: i64) {
    eventually("it is there", || hosts(node, topic)).await;
    let partition = node.partition(topic);
    eventually("it has all", || {
        partition.state().high_watermark == Offset(count)
    })
    .await;
    assert_eq!(stored_offsets(&partition), (0..count).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_move_with_everything_that_is_kept() {
    let nodes = four().await;
    let topic = nodes[0].create("orders", &[1, 2, 3]).await;
    fill(&nodes, topic, 0..30).await;
    // The leader goes as well; any broker may be asked.
    reassign(&nodes[3], topic, Some(&[4, 2, 3])).await;
    fill(&nodes, topic, 30..40).await;
    moved(&nodes[1], topic, &[4, 2, 3]).await;
    for node in &nodes[1..] {
        has_all(node, topic, 40).await;
    }
    eventually("nothing is left behind", || !hosts(&nodes[0], topic)).await;
    assert_ne!(leader_of(&nodes[0], "orders", Some(1)).await, 1);
    fill(&nodes, topic, 40..45).await;
    // All at once, and back to one.
    reassign(&nodes[0], topic, Some(&[1])).await;
    moved(&nodes[0], topic, &[1]).await;
    has_all(&nodes[0], topic, 45).await;
    let led = || shown(&nodes[2], topic).leader == Some(BrokerId(1));
    eventually("all know the leader", led).await;
    fill(&nodes, topic, 45..46).await;
    stop(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_to_a_broker_that_is_away_is_cancelled() {
    let mut nodes = four().await;
    let topic = nodes[0].create("orders", &[1, 2, 3]).await;
    fill(&nodes, topic, 0..5).await;
    let contact = nodes[0].address();
    let directory = nodes.remove(3).kill().await;
    reassign(&nodes[1], topic, Some(&[1, 2, 4])).await;
    let moving = shown(&nodes[1], topic);
    assert_eq!((moving.adding(), moving.removing()), (ids(&[4]), ids(&[3])));
    assert_eq!(*moving.replicas, *ids(&[1, 2, 4, 3]));
    fill(&nodes, topic, 5..10).await;
    reassign(&nodes[2], topic, None).await;
    moved(&nodes[1], topic, &[1, 2, 3]).await;
    fill(&nodes, topic, 10..12).await;
    let nothing = Command::AlterReassignment {
        topic,
        partition: PartitionIndex(0),
        target: None,
    };
    let refused = submit(&nodes[0], nothing).await;
    assert_eq!(
        refused,
        Err(SubmitError::Metadata(MetadataError::NoReassignment))
    );
    let back = Node::run_tuned(4, directory, Some(contact), |_| {}).await;
    let back = back.expect("comes back");
    assert!(!hosts(&back, topic));
    nodes.push(back);
    stop(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_leader_goes_on_with_a_move() {
    let mut nodes = four().await;
    let topic = nodes[1].create("orders", &[1, 2, 3]).await;
    fill(&nodes, topic, 0..10).await;
    reassign(&nodes[1], topic, Some(&[4, 2, 3])).await;
    // Wherever the move is by now.
    nodes.remove(0).kill().await;
    moved(&nodes[0], topic, &[4, 2, 3]).await;
    for node in &nodes {
        has_all(node, topic, 10).await;
    }
    fill(&nodes, topic, 10..12).await;
    stop(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_moves_a_leadership() {
    let nodes = three().await;
    let topic = nodes[0].create("orders", &[1, 2, 3]).await;
    fill(&nodes, topic, 0..3).await;
    assert_eq!(leader_of(&nodes[2], "orders", None).await, 1);
    let elect = async |node: &Node, kind| {
        let partitions = vec![(topic, PartitionIndex(0)), (topic, PartitionIndex(9))];
        let elected = node.replication.elect_leaders(kind, partitions, PATIENCE);
        elected.await
    };
    let unknown = || Err(ElectionError::UnknownPartition);
    let not_needed = || Err(ElectionError::NotNeeded);
    reassign(&nodes[0], topic, Some(&[3, 1, 2])).await;
    assert_eq!(*shown(&nodes[0], topic).replicas, *ids(&[3, 1, 2]));
    for node in &nodes {
        eventually("it shows", || {
            *shown(node, topic).replicas == *ids(&[3, 1, 2])
        })
        .await;
    }
    let elected = elect(&nodes[1], ElectionKind::Preferred).await;
    assert_eq!(elected, [Ok(()), unknown()]);
    assert_eq!(leader_of(&nodes[0], "orders", Some(1)).await, 3);
    for kind in [ElectionKind::Preferred, ElectionKind::Unclean] {
        assert_eq!(elect(&nodes[1], kind).await, [not_needed(), unknown()]);
    }
    fill(&nodes, topic, 3..5).await;
    stop(nodes).await;
}

fn often(options: &mut ReplicationOptions) {
    options.leader_rebalance_interval = Some(Duration::from_millis(300));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_comes_back_leads_again_what_it_led() {
    let mut nodes = three_tuned(often).await;
    let topic = nodes[0].create("orders", &[1, 2, 3]).await;
    fill(&nodes, topic, 0..10).await;
    let contact = nodes[1].address();
    let directory = nodes.remove(0).kill().await;
    assert_ne!(leader_of(&nodes[0], "orders", Some(1)).await, 1);
    fill(&nodes, topic, 10..20).await;
    let back = Node::run_tuned(1, directory, Some(contact), often).await;
    nodes.insert(0, back.expect("comes back"));
    eventually("it leads again", || {
        nodes[0].partition(topic).state().is_leader()
    })
    .await;
    fill(&nodes, topic, 20..25).await;
    has_all(&nodes[2], topic, 25).await;
    stop(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_broker_describes_the_controller_group() {
    let nodes = four().await;
    for node in &nodes {
        eventually("all listen", || node.members().count() == 4).await;
        let quorum = node.replication.describe_quorum(PATIENCE).await;
        let quorum = quorum.expect("is told");
        let voters: Vec<i32> = quorum.voters.iter().map(|it| it.broker.0).collect();
        let observers: Vec<i32> = quorum.observers.iter().map(|it| it.broker.0).collect();
        assert!(voters.contains(&quorum.leader.0));
        assert_eq!((voters, observers), (vec![1, 2, 3], vec![4]));
        let leader = quorum.voters.iter().find(|it| it.broker == quorum.leader);
        let log_end = leader.map(|it| it.log_end);
        assert!(quorum.high_watermark > 4 && log_end >= Some(quorum.high_watermark));
    }
    stop(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_is_forgotten_once_it_is_not_needed() {
    let mut nodes = four().await;
    let topic = nodes[0].create("orders", &[4]).await;
    fill(&nodes, topic, 0..3).await;
    let remove = async |node: &Node, broker| {
        let removal = Command::UnregisterBroker {
            broker: BrokerId(broker),
        };
        match submit(node, removal).await {
            Ok(_) => Ok(()),
            Err(SubmitError::Metadata(error)) => Err(error),
            Err(other) => panic!("{other}"),
        }
    };
    let in_use = |refused| matches!(refused, Err(MetadataError::BrokerInUse(_)));
    assert!(in_use(remove(&nodes[1], 4).await), "it is up");
    reassign(&nodes[0], topic, Some(&[2])).await;
    moved(&nodes[0], topic, &[2]).await;
    nodes.remove(3).stop().await;
    eventually("it is fenced", || {
        let image = nodes[0].image();
        image
            .broker(BrokerId(4))
            .is_some_and(|broker| broker.fenced)
    })
    .await;
    assert_eq!(remove(&nodes[1], 4).await, Ok(()));
    for node in &nodes {
        eventually("all know", || node.image().brokers().count() == 3).await;
        eventually("it listens no more", || node.members().count() == 3).await;
    }
    let unknown = Err(MetadataError::UnknownBroker(BrokerId(4)));
    assert_eq!(remove(&nodes[2], 4).await, unknown);
    has_all(&nodes[1], topic, 3).await;
    stop(nodes).await;
}

const COMPACTED: [(&str, &str); 2] = [("cleanup.policy", "compact"), ("segment.bytes", "4096")];

/// Writes keys 0 to 4 in each of some batches; returns the offset behind them.
async fn fill_keyed(nodes: &[Node], topic: TopicId, numbers: std::ops::Range<i32>) -> i64 {
    for number in numbers.clone() {
        produce(nodes, topic, keyed(4, number * 5, 0..5)).await;
    }
    i64::from(numbers.end) * 5
}

async fn is_compacted(node: &Node, topic: TopicId, end: i64) {
    eventually("it is there", || hosts(node, topic)).await;
    let partition = node.partition(topic);
    eventually("it has all, and most is compacted away", || {
        let (state, bounds) = (partition.state(), partition.log().bounds());
        state.high_watermark == Offset(end)
            && bounds.size_bytes < 8_000
            && bounds.purged.index.0 > 20
    })
    .await;
    let stored = stored_offsets_from(&partition, 0);
    assert!(
        stored.contains(&(end - 5)) && stored.len() < 20,
        "{stored:?}"
    );
    assert_eq!(partition.state().log_start, Offset(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_replica_compacts_and_a_new_one_gets_what_is_left() {
    let mut nodes = four().await;
    let topic = nodes[0].create_with("table", &[1, 2, 3], &COMPACTED).await;
    let end = fill_keyed(&nodes, topic, 0..60).await;
    for node in &nodes[..3] {
        is_compacted(node, topic, end).await;
    }
    reassign(&nodes[0], topic, Some(&[4, 2, 3])).await;
    moved(&nodes[0], topic, &[4, 2, 3]).await;
    is_compacted(&nodes[3], topic, end).await;
    let end = fill_keyed(&nodes, topic, 60..120).await;
    for node in &nodes[1..] {
        is_compacted(node, topic, end).await;
    }
    // What it has survives a restart of its own.
    let contact = nodes[0].address();
    let directory = nodes.remove(3).stop().await;
    let back = Node::run_tuned(4, directory, Some(contact), |_| {}).await;
    nodes.push(back.expect("comes back"));
    is_compacted(&nodes[3], topic, end).await;
    fill_keyed(&nodes, topic, 120..121).await;
    stop(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_was_away_while_others_compacted_begins_anew() {
    let mut nodes = three().await;
    let topic = nodes[1].create_with("table", &[1, 2, 3], &COMPACTED).await;
    fill_keyed(&nodes, topic, 0..5).await;
    has_high_watermark(&nodes[2], topic, 25).await;
    let contact = nodes[0].address();
    let directory = nodes.remove(2).kill().await;
    // More than the others wait for.
    let end = fill_keyed(&nodes, topic, 5..80).await;
    for node in &nodes {
        is_compacted(node, topic, end).await;
    }
    let back = Node::run_tuned(3, directory, Some(contact), |_| {}).await;
    nodes.push(back.expect("comes back"));
    is_compacted(&nodes[2], topic, end).await;
    stop(nodes).await;
}

async fn has_high_watermark(node: &Node, topic: TopicId, end: i64) {
    let partition = node.partition(topic);
    eventually("it has all", || {
        partition.state().high_watermark == Offset(end)
    })
    .await;
}
