//! The broker as a whole: the state that its parts share, their order at start and at the end.
//!
//! Start: data directory, sockets, HTTP, recovery, replication, then clients. End: no new requests, what was begun is
//! answered, replication stops, storage syncs. Knows no request.

mod broker;
pub mod cluster_id;
mod error;
mod fault;
mod listener;
mod open_files;
mod peers;
mod storage;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tidelog_protocol::types::TopicName;
use tidelog_replication::{
    Endpoint, LogConfigSource, ReplicaId, Replication, ReplicationOptions, SecurityProtocol,
};
use tokio::net::TcpListener;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

pub use self::broker::{Broker, ConnectionLimits};
pub use self::error::ServerError;
pub(crate) use self::listener::bind;

use self::listener::Connections;
use self::open_files::OpenFiles;
use self::peers::PeerConnections;
use self::storage::{DataDirectory, Storage};
use crate::config::{BrokerConfig, ConfigManager, Loaded};
use crate::coordinator::{CoordinatorConfig, GroupCoordinator, OFFSETS_TOPIC};
use crate::http::{Health, HttpServer};
use crate::kafka::budget::MemoryBudget;
use crate::kafka::dispatch;
use crate::kafka::handlers::fetch::sessions::FetchSessions;
use crate::kafka::handlers::init_producer_id::ProducerIds;
use crate::kafka::request_metrics::RequestMetrics;
use crate::topics::{fill, follow};

/// Longest wait for answers to other brokers at the end.
const PEERS_PATIENCE: Duration = Duration::from_secs(1);

/// Longest wait for the controller to note that this broker is to get its share of replicas.
const FILLING_TIMEOUT: Duration = Duration::from_secs(10);

/// A running broker.
#[derive(Debug)]
pub struct Server {
    broker: Arc<Broker>,
    endpoints: Vec<Endpoint>,
    http: HttpServer,
    health: Arc<Health>,
    tasks: TaskTracker,
    storage: Storage,
    peers: Option<PeerConnections>,
}

/// A bound Kafka listener that does not accept yet.
struct Bound {
    name: Arc<str>,
    sockets: Vec<TcpListener>,
    port: u16,
}

impl Server {
    /// Starts a broker; on return it serves. Nothing of the data directory is touched unless it is free and the
    /// ports are.
    pub async fn start(loaded: Loaded) -> Result<Server, ServerError> {
        for warning in &loaded.warnings {
            warn!("{warning}");
        }
        let configs = Arc::new(ConfigManager::new(loaded));
        let config = configs.broker();
        let mut directory = blocking({
            let config = Arc::clone(&config);
            move || DataDirectory::claim(&config)
        })
        .await?;
        let me = ReplicaId {
            broker: config.node_id,
            directory: directory.directory_id,
        };
        let levels = fault::feature_levels()?;
        let mut members = Vec::new();
        if directory.joining {
            let introduction = peers::find_cluster(&config, me, levels.clone()).await?;
            // What had this broker's id before is not there any more, or this one is refused.
            members = introduction.members;
            members.retain(|member| member.replica.broker != me.broker);
            let (cluster, of) = (introduction.cluster_id, Arc::clone(&config));
            directory = blocking(move || {
                directory.belong_to(cluster, &of)?;
                Ok(directory)
            })
            .await?;
        }
        let cluster = directory.cluster_id;
        let peers = PeerConnections::open(&config, me, cluster, members, levels.clone()).await?;
        let admission = directory.admission(&config);
        let bound = bind_all(&config).await?;
        let health = Arc::new(Health::default());
        let http = HttpServer::start(&config.network.http_listeners, Arc::clone(&health)).await?;
        let endpoints = endpoints(&config, &bound);
        let (cluster_id, mut options) =
            replication_options(&configs, &directory, endpoints.clone());
        options.feature_levels = levels;
        options.peer_address = peers.as_ref().map(|peers| peers.address.clone());
        let storage = blocking(move || directory.open(&config)).await?;
        options.stopped_cleanly = storage.stopped_cleanly;
        options.boot_id.clone_from(&storage.boot_id);
        let replication = Replication::start(
            options,
            Arc::clone(&storage.logs),
            peers.as_ref().map(|connections| connections.peers.clone()),
        )
        .await?;
        if let Some(admission) = admission {
            if configs.broker().replication.rebalance_on_join {
                ask_for_share(&replication).await;
            }
            blocking(move || admission.record()).await?;
        }
        let broker = Arc::new(assemble(configs, cluster_id, replication, &storage));
        let tasks = TaskTracker::new();
        accept_all(&broker, bound, &tasks);
        if peers.is_some() {
            follow_internal_topics(&broker, &tasks);
        }
        health.serve(Arc::clone(&broker));
        Ok(Server {
            broker,
            endpoints,
            http,
            health,
            tasks,
            storage,
            peers,
        })
    }

    /// The state that its parts share.
    pub fn broker(&self) -> &Arc<Broker> {
        &self.broker
    }

    /// What clients are told to connect to, by listener.
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// Addresses of the HTTP listeners.
    pub fn http_addresses(&self) -> &[SocketAddr] {
        self.http.addresses()
    }

    /// Stops: no new requests, what was begun is answered, then everything is synced. False if not all was answered
    /// within `shutdown.timeout.ms`; what was acknowledged is on disk either way.
    pub async fn shutdown(self) -> bool {
        let patience = self.broker.config().process.shutdown_timeout;
        let deadline = Instant::now() + patience.min(Duration::from_secs(86_400));
        info!("draining: no new requests are taken");
        self.health.drain();
        self.broker.draining.cancel();
        // Members whose requests wait for a rebalance are told to come back.
        if timeout_at(deadline, self.broker.groups.shutdown())
            .await
            .is_err()
        {
            warn!("consumer groups did not stop in time");
        }
        self.tasks.close();
        let drained = timeout_at(deadline, self.tasks.wait()).await.is_ok();
        if !drained {
            warn!(
                connections = self.tasks.len(),
                "not every request was answered in time"
            );
        }
        if let Some(peers) = &self.peers {
            self.broker.replication.hand_over().await;
            peers.refuse(PEERS_PATIENCE).await;
        }
        self.broker.replication.shutdown().await;
        if let Some(peers) = &self.peers {
            peers.close().await;
        }
        self.storage.logs.shutdown().await;
        self.http.stop().await;
        info!("stopped");
        drained
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ServerError> + Send + 'static,
) -> Result<T, ServerError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|failed| Err(ServerError::Internal(failed.to_string())))
}

async fn bind_all(config: &BrokerConfig) -> Result<Vec<Bound>, ServerError> {
    let mut all = Vec::new();
    for listener in &config.network.listeners {
        let failed = |source| ServerError::Bind {
            property: "listeners",
            address: listener.address.to_string(),
            source,
        };
        let sockets = listener::bind(&listener.address, config.network.listen_backlog)
            .await
            .map_err(failed)?;
        let first = sockets
            .first()
            .ok_or_else(|| failed(std::io::ErrorKind::AddrNotAvailable.into()))?;
        let port = first.local_addr().map_err(failed)?.port();
        all.push(Bound {
            name: Arc::clone(&listener.name),
            sockets,
            port,
        });
    }
    Ok(all)
}

/// What is advertised: a port of 0 stands for the one that was bound.
fn endpoints(config: &BrokerConfig, bound: &[Bound]) -> Vec<Endpoint> {
    let advertised = config.network.advertised_listeners.iter();
    advertised
        .map(|listener| {
            let of_name = bound.iter().find(|bound| bound.name == listener.name);
            let port = match listener.address.port {
                0 => of_name.map_or(0, |bound| bound.port),
                port => port,
            };
            Endpoint {
                listener: listener.name.to_string(),
                host: listener.address.host.to_string(),
                port,
                security_protocol: SecurityProtocol::Plaintext,
            }
        })
        .collect()
}

fn replication_options(
    configs: &Arc<ConfigManager>,
    directory: &DataDirectory,
    endpoints: Vec<Endpoint>,
) -> (Arc<str>, ReplicationOptions) {
    let config = configs.broker();
    let mut options = ReplicationOptions::new(
        config.node_id,
        directory.directory_id,
        directory.cluster_id,
        Arc::clone(configs) as Arc<dyn LogConfigSource>,
    );
    options.new_directory = directory.joining;
    options.session_timeout = config.replication.session_timeout;
    options.replica_lag_max = config.replication.replica_lag_max;
    options.leader_rebalance_interval = config.replication.leader_rebalance_interval;
    options.hibernation_idle = config.replication.hibernation_idle;
    options.rack = config.rack.as_deref().map(str::to_owned);
    options.endpoints = endpoints;
    options.retention_check_interval = config.log.retention_check_interval;
    (
        Arc::from(cluster_id::to_text(directory.cluster_id)),
        options,
    )
}

fn assemble(
    configs: Arc<ConfigManager>,
    cluster_id: Arc<str>,
    replication: Arc<Replication>,
    storage: &Storage,
) -> Broker {
    let config = configs.broker();
    let groups = GroupCoordinator::start(
        Arc::clone(&replication),
        Arc::clone(storage.logs.kv()),
        CoordinatorConfig::of(&config),
    );
    Broker {
        id: config.node_id,
        cluster_id,
        replication,
        groups,
        logs: Arc::clone(&storage.logs),
        memory: MemoryBudget::new(config.process.request_memory_bytes),
        limits: ConnectionLimits {
            request_bytes_max: config.network.request_bytes_max,
            idle_max: config.network.connections_max_idle,
        },
        fetch_sessions: FetchSessions::new(config.fetch.session_slots),
        producer_ids: ProducerIds::default(),
        request_metrics: RequestMetrics::new(dispatch::built()),
        draining: CancellationToken::new(),
        configs,
    }
}

/// Lets replicas of others move to this broker, which has joined just now.
async fn ask_for_share(replication: &Replication) {
    let asked = fill::set_filling(replication, replication.broker(), true, FILLING_TIMEOUT);
    match asked.await {
        Ok(()) => info!("replicas of other brokers move to this one until it holds its share"),
        Err(error) => warn!(%error, "replicas of other brokers stay where they are"),
    }
}

/// Lets internal topics have as many replicas as they should, once there are brokers for them.
fn follow_internal_topics(broker: &Arc<Broker>, tasks: &TaskTracker) {
    let wanted = CoordinatorConfig::of(&broker.config())
        .topic
        .replication_factor;
    let replication = Arc::clone(&broker.replication);
    let follow = follow::follow(replication, TopicName::from(OFFSETS_TOPIC), wanted);
    let until_stopped = broker.draining.clone().run_until_cancelled_owned(follow);
    drop(tasks.spawn(until_stopped));
}

fn accept_all(broker: &Arc<Broker>, bound: Vec<Bound>, tasks: &TaskTracker) {
    let config = broker.config();
    let files = OpenFiles::of_process(&config);
    files.check(config.network.max_connections);
    let connections = Arc::new(Connections::new(files.connections));
    for listener in bound {
        for socket in listener.sockets {
            let (broker, name) = (Arc::clone(broker), Arc::clone(&listener.name));
            tasks.spawn(listener::accept(
                broker,
                name,
                socket,
                Arc::clone(&connections),
                tasks.clone(),
            ));
        }
    }
}
