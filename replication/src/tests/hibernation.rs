//! Groups that sleep, wake, and lose the broker of their leader meanwhile.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use tidelog_protocol::types::{LeaderEpoch, TopicPartition};
use tokio::sync::Notify;

use super::brokers::{Node, leader_of, produce, stop, three_tuned};
use super::*;

/// Short enough for tests, long enough for a busy machine to make a topic meanwhile.
fn sleepy(options: &mut ReplicationOptions) {
    options.hibernation_idle = Some(Duration::from_millis(200));
}

/// Groups sleep only when a test says so.
fn told(options: &mut ReplicationOptions) {
    options.hibernation_idle = Some(Duration::from_secs(3_600));
}

async fn all_sleep(nodes: &[Node], topic: TopicId) {
    for node in nodes {
        let partition = node.partition(topic);
        eventually("it sleeps", || partition.is_asleep()).await;
        assert!(partition.group().is_none());
    }
}

/// Puts a replica to sleep as soon as that is possible.
async fn put_to_sleep(partition: &Arc<Partition>) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !partition.is_asleep() && !partition.clone().fall_asleep().await {
        assert!(tokio::time::Instant::now() < deadline, "it never sleeps");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn known(node: &Node, topic: &str) -> (Option<i32>, LeaderEpoch) {
    let partition = TopicPartition {
        topic: TopicName::from(topic),
        partition: PartitionIndex(0),
    };
    let image = node.image();
    let known = image.partition(&partition).expect("is there");
    (known.leader.map(|leader| leader.0), known.leader_epoch)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_group_sleeps_serves_its_log_and_wakes_for_an_append() {
    let nodes = three_tuned(sleepy).await;
    let topic = nodes[0].create("orders", &[1, 2, 3]).await;
    for number in 0..5 {
        produce(&nodes, topic, batch_of(4, number, 1)).await;
    }
    let leader = nodes[0].partition(topic);
    let before = leader.state();
    all_sleep(&nodes, topic).await;
    // A follower that slept before its leader is told once more what is committed.
    tokio::time::sleep(Duration::from_secs(1)).await;
    all_sleep(&nodes, topic).await;
    assert!(nodes[0].replication.asleep() >= 1);
    // A fetch is parked, and others read and ask.
    let notify = Arc::new(Notify::new());
    let parked = leader.register_waiter(&notify);
    tokio::time::sleep(Duration::from_secs(2)).await;
    for node in &nodes {
        let partition = node.partition(topic);
        assert!(partition.is_asleep(), "something wakes it");
        assert_eq!(partition.state().leader, Some(BrokerId(1)));
        assert_eq!(partition.state().high_watermark, Offset(5));
        assert_eq!(stored_offsets(&partition), [0, 1, 2, 3, 4]);
    }
    assert_eq!(leader.state(), before);
    assert_eq!(
        nodes[1]
            .image()
            .topic_by_id(topic)
            .map(|it| it.partitions[0].isr.len()),
        Some(3)
    );
    let began = std::time::Instant::now();
    assert_eq!(produce(&nodes, topic, batch_of(4, 5, 1)).await, Offset(5));
    println!("first acknowledgement after {:?}", began.elapsed());
    tokio::time::timeout(PATIENCE, notify.notified())
        .await
        .expect("the parked fetch is woken");
    drop(parked);
    assert_eq!(
        leader.state().leader_epoch,
        before.leader_epoch,
        "it went on leading"
    );
    // A duplicate of what was sent before the sleep is known.
    assert_eq!(produce(&nodes, topic, batch_of(4, 4, 1)).await, Offset(4));
    for node in &nodes {
        let partition = node.partition(topic);
        eventually("it has all", || {
            partition.state().high_watermark == Offset(6)
        })
        .await;
    }
    all_sleep(&nodes, topic).await;
    stop(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sleeping_leader_asks_the_others_before_it_says_that_it_leads() {
    let nodes = three_tuned(told).await;
    let topic = nodes[0].create("orders", &[1, 2, 3]).await;
    produce(&nodes, topic, batch_of(4, 0, 1)).await;
    for node in &nodes {
        put_to_sleep(&node.partition(topic)).await;
    }
    let leader = nodes[0].partition(topic);
    let epoch = leader.state().leader_epoch;
    leader.confirm_leadership().await.expect("it leads still");
    assert_eq!(leader.state().leader_epoch, epoch);
    // Another one is elected while it sleeps; the votes wake it.
    for node in &nodes {
        put_to_sleep(&node.partition(topic)).await;
    }
    let other = nodes[1].partition(topic);
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !other.state().is_leader() {
        assert!(tokio::time::Instant::now() < deadline, "never elected");
        other.wake().await.expect("wakes").elect().await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(
        produce(&nodes[1..], topic, batch_of(4, 1, 1)).await,
        Offset(1)
    );
    assert!(leader.confirm_leadership().await.is_err());
    eventually("it follows", || leader.state().leader == Some(BrokerId(2))).await;
    stop(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wakes_of_one_group_at_once_are_one() {
    let nodes = three_tuned(told).await;
    let topic = nodes[0].create("orders", &[1, 2, 3]).await;
    produce(&nodes, topic, batch_of(4, 0, 1)).await;
    let leader = nodes[0].partition(topic);
    put_to_sleep(&leader).await;
    let wakes = (0..100).map(|_| leader.wake());
    let woken = futures_util::future::join_all(wakes).await;
    let first = woken[0].as_ref().expect("wakes");
    let same = |group: &Result<Arc<_>, _>| group.as_ref().is_ok_and(|it| Arc::ptr_eq(it, first));
    assert!(woken.iter().all(same));
    assert!(!leader.is_asleep());
    // Somebody holds the group.
    assert!(!leader.clone().fall_asleep().await);
    drop(woken);
    put_to_sleep(&leader).await;
    stop(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_that_come_while_a_group_falls_asleep_are_not_lost() {
    let nodes = Arc::new(three_tuned(told).await);
    let topic = nodes[0].create("orders", &[1, 2, 3]).await;
    produce(&nodes, topic, batch_of(99, 0, 1)).await;
    let ended = Arc::new(AtomicBool::new(false));
    let sandman = tokio::spawn({
        let (nodes, ended) = (nodes.clone(), ended.clone());
        async move {
            let mut sleeps = 0;
            while !ended.load(Ordering::Relaxed) {
                for node in nodes.iter() {
                    sleeps += u32::from(node.partition(topic).fall_asleep().await);
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            sleeps
        }
    });
    let producers = (0..4).map(|producer| {
        let nodes = nodes.clone();
        tokio::spawn(async move {
            let mut offsets = Vec::new();
            for number in 0..60 {
                offsets.push(produce(&nodes, topic, batch_of(producer, number, 1)).await);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            offsets
        })
    });
    let mut acknowledged = vec![Offset(0)];
    for producer in producers.collect::<Vec<_>>() {
        acknowledged.extend(producer.await.expect("no panic"));
    }
    ended.store(true, Ordering::Relaxed);
    let sleeps = sandman.await.expect("no panic");
    assert!(sleeps > 20, "it slept {sleeps} times");
    acknowledged.sort_unstable();
    assert_eq!(acknowledged, (0..=240).map(Offset).collect::<Vec<_>>());
    let leader = nodes[0].partition(topic);
    assert_eq!(stored_offsets(&leader), (0..=240).collect::<Vec<_>>());
    let nodes = Arc::into_inner(nodes).expect("nobody else has them");
    stop(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sleepers_of_a_killed_broker_get_a_named_leader_and_elect_when_they_are_used() {
    const TOPICS: usize = 12;
    let mut nodes = three_tuned(sleepy).await;
    let mut topics = BTreeMap::new();
    for number in 0..TOPICS {
        let name = format!("orders-{number}");
        let topic = nodes[0].create(&name, &[1, 2, 3]).await;
        produce(&nodes, topic, batch_of(4, 0, 1)).await;
        topics.insert(name, topic);
    }
    for topic in topics.values() {
        all_sleep(&nodes, *topic).await;
    }
    let epochs: Vec<LeaderEpoch> = topics.keys().map(|name| known(&nodes[1], name).1).collect();
    let contact = nodes[1].address();
    let directory = nodes.remove(0).kill().await;
    for (name, epoch) in topics.keys().zip(&epochs) {
        for node in &nodes {
            assert_eq!(leader_of(node, name, Some(1)).await, 2);
            assert_eq!(known(node, name), (Some(2), *epoch), "nobody was elected");
        }
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    for topic in topics.values() {
        let (heir, other) = (nodes[0].partition(*topic), nodes[1].partition(*topic));
        assert!(heir.is_asleep() && other.is_asleep(), "a name wakes nobody");
        assert!(heir.state().is_leader() && heir.leads_in_name());
        assert_eq!(heir.state().high_watermark, Offset(1));
        eventually("the other knows", || {
            other.state().leader == Some(BrokerId(2))
        })
        .await;
    }
    // The first one that is used is led in an epoch of its own, the others sleep on.
    let (used, topic) = topics.iter().next().expect("there are some");
    assert_eq!(produce(&nodes, *topic, batch_of(4, 1, 1)).await, Offset(1));
    eventually("all know", || {
        known(&nodes[1], used) == (Some(2), LeaderEpoch(epochs[0].0 + 1))
    })
    .await;
    assert!(
        topics
            .values()
            .skip(1)
            .all(|topic| nodes[0].partition(*topic).is_asleep())
    );
    // Whoever must know that nobody else leads wakes it as well.
    let (_, second) = topics.iter().nth(1).expect("there are some");
    let heir = nodes[0].partition(*second);
    heir.confirm_leadership().await.expect("is elected");
    assert!(!heir.leads_in_name() && heir.state().leader_epoch > epochs[1]);
    // The first batch is not refused.
    let (_, third) = topics.iter().nth(2).expect("there are some");
    let heir = nodes[0].partition(*third);
    assert_eq!(
        offset(append(&heir, batch_of(5, 0, 1), Acks::All).await),
        Offset(1)
    );
    assert_eq!(heir.state().leader_epoch.0, epochs[2].0 + 1);
    // The broker comes back and follows.
    let back = Node::run_tuned(1, directory, Some(contact), sleepy)
        .await
        .expect("comes back");
    nodes.push(back);
    for (at, topic) in topics.values().enumerate() {
        // One of those that were written to by the same producer, and one by another.
        let sequence = if at == 0 { 2 } else { 1 };
        let next = if at == 0 || at == 2 { 2 } else { 1 };
        let appended = produce(&nodes, *topic, batch_of(4, sequence, 1)).await;
        assert_eq!(appended, Offset(next));
        let returned = nodes[2].partition(*topic);
        eventually("it has all", || {
            returned.state().high_watermark == Offset(next + 1)
        })
        .await;
    }
    stop(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sleeper_that_was_cut_off_is_not_named_for_what_it_lacks() {
    let mut nodes: Vec<Node> = Vec::new();
    for id in 1..=3 {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let contact = nodes.first().map(Node::address);
        let node = match id {
            2 => Node::run_behind_proxy(id, directory, contact, told).await,
            _ => Node::run_tuned(id, directory, contact, told).await,
        };
        nodes.push(node.expect("starts"));
    }
    for node in &nodes {
        eventually("all three vote", || node.members().voters.len() == 3).await;
    }
    let topic = nodes[0].create("orders", &[1, 2, 3]).await;
    assert_eq!(leader_of(&nodes[2], "orders", None).await, 1);
    produce(&nodes, topic, batch_of(4, 0, 1)).await;
    for node in &nodes {
        let partition = node.partition(topic);
        eventually("it has all", || {
            partition.state().high_watermark == Offset(1)
        })
        .await;
        put_to_sleep(&partition).await;
    }
    let proxy = nodes[1].proxy.take().expect("is behind one");
    proxy.change(|mode| (mode.refuse, mode.round) = (true, mode.round + 1));
    // The others go on without the second one, which sleeps and does not know.
    let cut_off = nodes[1].partition(topic);
    for number in 1..6 {
        assert_eq!(
            produce(&nodes[..1], topic, batch_of(4, number, 1)).await,
            Offset(number.into())
        );
    }
    let third = nodes[2].partition(topic);
    eventually("it has all", || third.state().high_watermark == Offset(6)).await;
    put_to_sleep(&third).await;
    assert!(cut_off.is_asleep());
    assert_eq!(cut_off.state().high_watermark, Offset(1));
    nodes.remove(0).kill().await;
    proxy.change(|mode| mode.refuse = false);
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !third.state().is_leader() {
        assert!(tokio::time::Instant::now() < deadline, "nobody leads");
        let state = cut_off.state();
        assert!(
            !state.is_leader() || state.high_watermark >= Offset(6),
            "it says that it has all that was acknowledged: {state:?}"
        );
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(produce(&nodes, topic, batch_of(4, 6, 1)).await, Offset(6));
    for partition in [cut_off, third] {
        eventually("it has all", || {
            partition.state().high_watermark == Offset(7)
        })
        .await;
        assert_eq!(stored_offsets(&partition), (0..7).collect::<Vec<_>>());
    }
    stop(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sleeper_survives_a_restart_and_can_be_deleted() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let node = Node::run_tuned(1, directory, None, sleepy)
        .await
        .expect("starts");
    let nodes = [node];
    let topic = nodes[0].create("orders", &[1]).await;
    for number in 0..3 {
        produce(&nodes, topic, batch_of(4, number, 1)).await;
    }
    all_sleep(&nodes, topic).await;
    let [node] = nodes;
    let directory = node.stop().await;
    let nodes = [Node::run_tuned(1, directory, None, sleepy)
        .await
        .expect("starts again")];
    let partition = nodes[0].partition(topic);
    assert_eq!(produce(&nodes, topic, batch_of(4, 3, 1)).await, Offset(3));
    assert_eq!(stored_offsets(&partition), [0, 1, 2, 3]);
    all_sleep(&nodes, topic).await;
    assert_eq!(
        partition.delete_records(Some(Offset(2))).await,
        Ok(Offset(2))
    );
    all_sleep(&nodes, topic).await;
    let deleted = Command::DeleteTopic { id: topic };
    let controller = nodes[0].replication.controller();
    controller
        .submit(deleted, PATIENCE)
        .await
        .expect("is deleted");
    eventually("its log is gone", || {
        partition.log().check_writable().is_err()
    })
    .await;
    assert_eq!(nodes[0].replication.asleep(), 0);
    assert!(partition.wake().await.is_err());
    let [node] = nodes;
    node.stop().await;
}

/// A sequence of numbers that a seed repeats.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_acknowledged_is_kept_through_a_thousand_random_sleeps_wakes_and_kills() {
    let seed = std::env::var("TIDELOG_TEST_SEED")
        .ok()
        .and_then(|it| it.parse().ok());
    let seed = seed.unwrap_or_else(|| u64::from(std::process::id()));
    println!("TIDELOG_TEST_SEED={seed}");
    let mut dice = Dice(seed);
    let mut nodes = three_tuned(told).await;
    let topic = nodes[0].create("orders", &[1, 2, 3]).await;
    let (mut acknowledged, mut kills) = (0, 0);
    for step in 0..1_000 {
        let at = dice.roll(3) as usize;
        let partition = nodes[at].partition(topic);
        let what = dice.roll(100);
        match what {
            0..40 => drop(partition.fall_asleep().await),
            40..45 => {
                for node in &nodes {
                    node.partition(topic).fall_asleep().await;
                }
            }
            45..55 => drop(partition.wake().await),
            55..60 => drop(partition.confirm_leadership().await),
            60..62 => {
                if let Ok(group) = partition.wake().await {
                    group.elect().await;
                }
            }
            62 if kills < 6 => {
                kills += 1;
                // It knows the data directory.
                drop(partition);
                let id = nodes[at].replication.broker().0;
                let directory = nodes.remove(at).kill().await;
                let offset = produce(&nodes, topic, batch_of(4, acknowledged, 1)).await;
                assert_eq!(offset, Offset(acknowledged.into()), "step {step}");
                acknowledged += 1;
                let contact = nodes[0].address();
                let back = Node::run_tuned(id, directory, Some(contact), told).await;
                nodes.push(back.expect("comes back"));
            }
            _ => {
                let offset = produce(&nodes, topic, batch_of(4, acknowledged, 1)).await;
                assert_eq!(offset, Offset(acknowledged.into()), "step {step}");
                acknowledged += 1;
            }
        }
    }
    assert!(acknowledged > 100, "{acknowledged}");
    produce(&nodes, topic, batch_of(4, acknowledged, 1)).await;
    for node in &nodes {
        let partition = node.partition(topic);
        eventually("it has all", || {
            partition.state().high_watermark == Offset(i64::from(acknowledged) + 1)
        })
        .await;
        let expected: Vec<i64> = (0..=i64::from(acknowledged)).collect();
        assert_eq!(stored_offsets(&partition), expected);
    }
    stop(nodes).await;
}
