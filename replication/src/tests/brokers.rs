//! Several brokers in one process, each with its data directory and its listener on loopback: joining, growing, failing.

use std::net::SocketAddr;

use tidelog_protocol::types::TopicPartition;

use super::*;
use crate::metadata::levels::FEATURE_LEVEL_MAX;
use crate::peers::{
    GroupRouter, LinkContext, LocalPeer, PeerAddress, PeerPatience, PeerPool, PeerServer,
};
use crate::raft::members::Members;
use crate::raft::types::ReplicaId;
use crate::tests::proxy::Proxy;
use crate::{ClusterDirectory, JoinError, Peers, StartError, introduce};

/// One broker of a cluster.
pub struct Node {
    directory: TempDir,
    pub replication: Arc<Replication>,
    pub logs: Arc<LogManager>,
    pool: PeerPool,
    server: PeerServer,
    /// What others reach it through, where they can be kept from it.
    pub proxy: Option<Proxy>,
}

/// Changes options before a broker starts.
pub type Tune = fn(&mut ReplicationOptions);

const SECOND: &str = "second";

/// A broker with its data directory; one that takes the place of a lost one has a file that says so.
fn replica(id: i32, directory: &TempDir) -> ReplicaId {
    let is_second = directory.path().join(SECOND).exists();
    let first = 1_000 + u128::from(id.unsigned_abs());
    ReplicaId {
        broker: BrokerId(id),
        directory: Uuid::from_u128(if is_second { first + 1_000 } else { first }),
    }
}

/// An empty data directory for a broker whose first one is lost.
pub fn second_directory() -> TempDir {
    let directory = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(directory.path().join(SECOND), "").expect("is written");
    directory
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

impl Node {
    /// The first broker of a cluster.
    pub async fn found() -> Node {
        let directory = tempfile::tempdir().expect("a temporary directory");
        Node::run(1, directory, None).await.expect("starts")
    }

    /// A broker with an empty data directory that joins the cluster of another.
    pub async fn join(id: i32, contact: &Node) -> Result<Node, StartError> {
        let directory = tempfile::tempdir().expect("a temporary directory");
        Node::run(id, directory, Some(contact.address())).await
    }

    pub async fn run(
        id: i32,
        directory: TempDir,
        join: Option<SocketAddr>,
    ) -> Result<Node, StartError> {
        Node::run_tuned(id, directory, join, |_| {}).await
    }

    pub async fn run_tuned(
        id: i32,
        directory: TempDir,
        join: Option<SocketAddr>,
        tune: Tune,
    ) -> Result<Node, StartError> {
        Node::run_at(loopback(0), id, directory, join, tune).await
    }

    /// A broker that others reach through a proxy.
    pub async fn run_behind_proxy(
        id: i32,
        directory: TempDir,
        join: Option<SocketAddr>,
        tune: Tune,
    ) -> Result<Node, StartError> {
        Node::run_there(loopback(0), true, id, directory, join, tune).await
    }

    pub async fn run_at(
        at: SocketAddr,
        id: i32,
        directory: TempDir,
        join: Option<SocketAddr>,
        tune: Tune,
    ) -> Result<Node, StartError> {
        Node::run_there(at, false, id, directory, join, tune).await
    }

    async fn run_there(
        at: SocketAddr,
        behind_proxy: bool,
        id: i32,
        directory: TempDir,
        join: Option<SocketAddr>,
        tune: Tune,
    ) -> Result<Node, StartError> {
        let patience = PeerPatience::default();
        let cluster = Uuid::from_u128(99);
        let me = replica(id, &directory);
        let mut options = ReplicationOptions::new(
            BrokerId(id),
            me.directory,
            cluster,
            Arc::new(TestConfigs::new()),
        );
        options.session_timeout = Duration::from_secs(5);
        options.leader_rebalance_interval = None;
        sleep_early(&mut options);
        tune(&mut options);
        let levels = options.feature_levels.clone();
        let levels = || levels.clone();
        let mut members = Vec::new();
        if let Some(address) = join {
            let stranger = LocalPeer::with_levels(me, Uuid::nil(), None, levels());
            let address = PeerAddress {
                host: address.ip().to_string(),
                port: address.port(),
            };
            let introduction = match introduce(&stranger, &address, &patience).await {
                Ok(introduction) => introduction,
                Err(JoinError::FeatureLevel(text)) => return Err(StartError::FeatureLevel(text)),
                Err(error) => panic!("{error}"),
            };
            assert_eq!(introduction.cluster_id, cluster);
            members = introduction.members;
            members.retain(|member| member.replica.broker != me.broker);
            options.new_directory = true;
        }
        let local = LocalPeer::with_levels(me, cluster, None, levels());
        let router = Arc::new(GroupRouter::default());
        let server = PeerServer::bind(at, local.clone(), router.clone(), patience.clone())
            .await
            .expect("listens");
        let known = Arc::new(ClusterDirectory::new(&members));
        let pool = PeerPool::new(LinkContext {
            local,
            directory: known.clone(),
            patience,
        });
        let logs = open_logs(directory.path()).await;
        let proxy = match behind_proxy {
            true => Some(Proxy::to(server.address()).await),
            false => None,
        };
        let reached_at = proxy.as_ref().map_or(server.address(), Proxy::address);
        let port = reached_at.port();
        options.peer_address = Some(PeerAddress {
            host: "127.0.0.1".into(),
            port,
        });
        let peers = Peers {
            pool: pool.clone(),
            router,
            directory: known,
            introduced_to: members,
        };
        let started = Replication::start(options, logs.clone(), Some(peers)).await;
        match started {
            Ok(replication) => Ok(Node {
                directory,
                replication,
                logs,
                pool,
                server,
                proxy,
            }),
            Err(error) => {
                server.shutdown(Duration::from_secs(1)).await;
                pool.shutdown().await;
                logs.shutdown().await;
                Err(error)
            }
        }
    }

    /// Where it listens for others.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// As if the process were killed: connections are cut, nothing is handed over.
    pub async fn kill(self) -> TempDir {
        self.server.shutdown(Duration::ZERO).await;
        self.pool.shutdown().await;
        self.replication.abandon().await;
        drop(self.replication);
        self.logs.shutdown().await;
        self.directory
    }

    pub async fn stop(self) -> TempDir {
        self.replication.hand_over().await;
        self.server.shutdown(Duration::from_secs(5)).await;
        self.replication.shutdown().await;
        drop(self.replication);
        self.pool.shutdown().await;
        self.logs.shutdown().await;
        self.directory
    }

    pub fn image(&self) -> Arc<MetadataImage> {
        self.replication.image()
    }

    pub fn members(&self) -> Members {
        self.replication.controller().members()
    }

    pub fn partition(&self, topic: TopicId) -> Arc<Partition> {
        self.replication
            .partition(topic, PartitionIndex(0))
            .expect("is hosted")
    }

    pub async fn create(&self, name: &str, replicas: &[i32]) -> TopicId {
        self.create_with(name, replicas, &[]).await
    }

    pub async fn create_with(
        &self,
        name: &str,
        replicas: &[i32],
        configs: &[(&str, &str)],
    ) -> TopicId {
        let configs = configs.iter();
        let configs = configs.map(|(key, value)| (key.to_string(), value.to_string()));
        let id = TopicId(Uuid::new_v4());
        let command = Command::CreateTopic {
            name: TopicName::from(name),
            id,
            assignments: vec![replicas.iter().copied().map(BrokerId).collect()],
            configs: configs.collect(),
        };
        let created = self
            .replication
            .controller()
            .submit(command, PATIENCE)
            .await;
        assert_eq!(created, Ok(Outcome::TopicCreated { id }));
        self.replication
            .wait_led(id, PATIENCE)
            .await
            .expect("is led");
        id
    }
}

pub async fn stop(nodes: Vec<Node>) {
    for node in nodes {
        node.stop().await;
    }
}

pub async fn three() -> Vec<Node> {
    three_tuned(|_| {}).await
}

pub async fn three_tuned(tune: Tune) -> Vec<Node> {
    let mut nodes: Vec<Node> = Vec::new();
    for id in 1..=3 {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let contact = nodes.first().map(Node::address);
        let node = Node::run_tuned(id, directory, contact, tune).await;
        nodes.push(node.expect("starts"));
    }
    for node in &nodes {
        eventually("all three vote", || node.members().voters.len() == 3).await;
    }
    nodes
}

/// The broker that leads a partition, as the image of another says.
pub async fn leader_of(node: &Node, name: &str, not: Option<i32>) -> i32 {
    let partition = TopicPartition {
        topic: TopicName::from(name),
        partition: PartitionIndex(0),
    };
    let leader = || {
        let image = node.image();
        image
            .partition(&partition)
            .and_then(|it| it.leader)
            .map(|it| it.0)
    };
    eventually("it is led", || {
        leader().is_some_and(|leader| Some(leader) != not)
    })
    .await;
    leader().expect("was there")
}

/// Appends on whichever node leads, as a client does.
pub async fn produce(nodes: &[Node], topic: TopicId, batch: RecordBatch) -> Offset {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        for node in nodes {
            let Some(partition) = node.replication.partition(topic, PartitionIndex(0)) else {
                continue;
            };
            match append(&partition, batch.clone(), Acks::All).await {
                Ok(appended) => return appended.base_offset,
                Err(error) => assert!(tokio::time::Instant::now() < deadline, "{error}"),
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn brokers_join_vote_and_replicate() {
    let nodes = three().await;
    for node in &nodes {
        assert_eq!(node.image().brokers().count(), 3);
    }
    // Any broker takes a command, and shows what came of it.
    let topic = nodes[2].create("orders", &[2, 3, 1]).await;
    assert!(nodes[2].image().topic_by_id(topic).is_some());
    assert_eq!(leader_of(&nodes[0], "orders", None).await, 2);
    for number in 0..20 {
        assert_eq!(
            produce(&nodes, topic, batch_of(4, number, 1)).await,
            Offset(number.into())
        );
    }
    for node in &nodes {
        let partition = node.partition(topic);
        eventually("it has all", || {
            partition.state().high_watermark == Offset(20)
        })
        .await;
        assert_eq!(stored_offsets(&partition), (0..20).collect::<Vec<_>>());
    }
    let isr = || {
        nodes[0]
            .image()
            .topic_by_id(topic)
            .map_or(0, |it| it.partitions[0].isr.len())
    };
    eventually("all are in sync", || isr() == 3).await;
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_broker_led_is_led_by_others_and_it_comes_back() {
    let mut nodes = three().await;
    let topic = nodes[0].create("orders", &[1, 2, 3]).await;
    assert_eq!(leader_of(&nodes[1], "orders", None).await, 1);
    for number in 0..10 {
        produce(&nodes, topic, batch_of(4, number, 1)).await;
    }
    // The first broker leads the controller's group as well.
    let contact = nodes[1].address();
    let directory = nodes.remove(0).kill().await;
    let leader = leader_of(&nodes[0], "orders", Some(1)).await;
    assert_ne!(leader, 1);
    for number in 9..20 {
        let offset = produce(&nodes, topic, batch_of(4, number, 1)).await;
        assert_eq!(
            offset,
            Offset(number.into()),
            "the first is a duplicate, none is lost"
        );
    }
    eventually("it is fenced", || {
        nodes[0]
            .image()
            .broker(BrokerId(1))
            .is_some_and(|it| it.fenced)
    })
    .await;
    let back = Node::run(1, directory, Some(contact))
        .await
        .expect("comes back");
    let partition = back.partition(topic);
    eventually("it caught up", || {
        partition.state().high_watermark == Offset(20)
    })
    .await;
    assert_eq!(stored_offsets(&partition), (0..20).collect::<Vec<_>>());
    let unfenced = || {
        back.image()
            .broker(BrokerId(1))
            .is_some_and(|it| !it.fenced)
    };
    eventually("it is one of them again", unfenced).await;
    nodes.push(back);
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_stops_hands_over_first() {
    let mut nodes = three().await;
    let topic = nodes[0].create("orders", &[1, 2, 3]).await;
    produce(&nodes, topic, batch_of(4, 0, 1)).await;
    nodes.remove(0).stop().await;
    // No session runs out for it: the leadership is there at once.
    let led = nodes
        .iter()
        .filter(|node| node.partition(topic).state().is_leader())
        .count();
    assert_eq!(led, 1);
    assert_eq!(produce(&nodes, topic, batch_of(4, 1, 1)).await, Offset(1));
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_that_is_in_use_is_refused() {
    let first = Node::found().await;
    let mut second = Node::join(2, &first).await.expect("joins");
    let directory = tempfile::tempdir().expect("a temporary directory");
    let members = first.image().brokers().count();
    // Another data directory under the id of the second broker, which is there.
    let taken = Command::RegisterBroker(crate::BrokerRegistration {
        broker: BrokerId(2),
        directory_id: Uuid::new_v4(),
        incarnation: Uuid::new_v4(),
        rack: None,
        endpoints: Vec::new(),
        peer_address: None,
        feature_level_max: FEATURE_LEVEL_MAX,
        new_directory: true,
    });
    let refused = second
        .replication
        .controller()
        .submit(taken, PATIENCE)
        .await;
    let reason = crate::MetadataError::BrokerIdTaken(BrokerId(2));
    assert_eq!(refused, Err(crate::SubmitError::Metadata(reason)));
    assert_eq!(first.image().brokers().count(), members);
    // A returning member needs nobody to introduce it.
    let kept = second.stop().await;
    second = Node::run(2, kept, None).await.expect("comes back");
    assert_eq!(second.image().brokers().count(), members);
    drop(directory);
    second.stop().await;
    first.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_young_cluster_comes_back_after_all_of_it_was_killed_at_once() {
    let nodes = three().await;
    let topic = nodes[0].create("orders", &[1, 2, 3]).await;
    produce(&nodes, topic, batch_of(4, 0, 1)).await;
    let mut killed = Vec::new();
    for (id, node) in (1..).zip(nodes) {
        let at = node.address();
        killed.push((at, id, node.kill().await));
    }
    // Nobody has noted yet how far the metadata was committed.
    let starts = killed
        .into_iter()
        .map(|(at, id, directory)| tokio::spawn(Node::run_at(at, id, directory, None, |_| {})));
    let mut nodes = Vec::new();
    for start in starts.collect::<Vec<_>>() {
        let started = start.await.expect("does not panic");
        nodes.push(started.unwrap_or_else(|error| panic!("{error}")));
    }
    assert_eq!(produce(&nodes, topic, batch_of(4, 1, 1)).await, Offset(1));
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_waited_at_after_a_restart_asks_what_is_committed() {
    let mut nodes = three().await;
    let topic = nodes[0].create("orders", &[1, 2, 3]).await;
    let epoch = nodes[0].partition(topic).state().leader_epoch;
    let contact = nodes[0].address();
    for end in (10..=50).step_by(10) {
        for number in end - 10..end {
            produce(&nodes, topic, batch_of(4, number, 1)).await;
        }
        let end = Offset(i64::from(end));
        let partition = nodes[2].partition(topic);
        eventually("it has all", || partition.state().log_end == end).await;
        drop(partition);
        let directory = nodes.remove(2).kill().await;
        let back = Node::run(3, directory, Some(contact)).await;
        nodes.push(back.expect("comes back"));
        let partition = nodes[2].partition(topic);
        if partition.state().high_watermark == end {
            // It had just noted how far it was committed.
            continue;
        }
        let waiter = partition.register_waiter(&Arc::default());
        eventually("it knows that all is committed", || {
            partition.state().high_watermark == end
        })
        .await;
        drop(waiter);
        // It did not have to win an election for that.
        let state = partition.state();
        let leads = (state.leader, state.leader_epoch);
        assert_eq!(leads, (Some(BrokerId(1)), epoch));
        for node in nodes {
            node.stop().await;
        }
        return;
    }
    panic!("it always knew");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_decision_of_one_that_does_not_lead_is_not_carried_out_by_another() {
    let nodes = three().await;
    let leads = |node: &&Node| node.replication.controller().leads();
    let deposed = nodes.iter().find(|node| !leads(node)).expect("two follow");
    let image = deposed.image();
    let broker = image.brokers().next().expect("registered");
    let command = Command::SetBrokerFenced {
        broker: broker.id,
        epoch: broker.epoch,
        fenced: true,
    };
    let controller = deposed.replication.controller();
    let decided = controller.decide(command, PATIENCE).await;
    assert!(
        matches!(decided, Err(crate::SubmitError::NotController { .. })),
        "{decided:?}"
    );
    assert_eq!(deposed.image().version(), image.version());
    for node in nodes {
        node.stop().await;
    }
}
