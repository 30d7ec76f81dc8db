//! This broker's place among the brokers of a cluster: joining one, listening for the others, connections to them.
//!
//! A broker without `inter.broker.listener` stays alone. What goes over the connections is the replication crate's.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use tidelog_replication::{
    ClusterDirectory, ClusterSecret, GroupRouter, Introduction, JoinError, LinkContext, LocalPeer,
    Member, PeerAddress, PeerPatience, PeerPool, PeerServer, Peers, ReplicaId, introduce,
};
use tokio::net::lookup_host;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};
use uuid::Uuid;

use crate::config::{BrokerConfig, NetworkConfig};
use crate::server::error::ServerError;

/// Longest wait for a broker of the cluster that is to be joined: it may just be starting.
const JOIN_PATIENCE: Duration = Duration::from_secs(60);

/// Pause between two tries.
const JOIN_RETRY: Duration = Duration::from_millis(500);

/// Connections with the other brokers.
#[derive(Debug)]
pub(crate) struct PeerConnections {
    server: PeerServer,
    pool: PeerPool,
    /// What replication needs of them.
    pub(crate) peers: Peers,
    /// What other brokers are told.
    pub(crate) address: PeerAddress,
}

impl PeerConnections {
    /// Listens for other brokers, if the configuration says where. `introduced_to` are those of a cluster that is being
    /// joined.
    pub(crate) async fn open(
        config: &BrokerConfig,
        me: ReplicaId,
        cluster: Uuid,
        introduced_to: Vec<Member>,
        levels: RangeInclusive<u16>,
    ) -> Result<Option<PeerConnections>, ServerError> {
        let network = &config.network;
        let Some(listener) = &network.inter_broker_listener else {
            return Ok(None);
        };
        let secret = secret(network).await?;
        let local = LocalPeer::with_levels(me, cluster, secret, levels);
        let router = Arc::new(GroupRouter::default());
        let patience = PeerPatience::default();
        let failed = |source| ServerError::Bind {
            property: "inter.broker.listener",
            address: listener.to_string(),
            source,
        };
        let host = if listener.host.is_empty() {
            "0.0.0.0"
        } else {
            &*listener.host
        };
        let mut resolved = lookup_host((host, listener.port)).await.map_err(failed)?;
        let bound = resolved
            .next()
            .ok_or_else(|| failed(std::io::ErrorKind::AddrNotAvailable.into()))?;
        let server =
            PeerServer::bind(bound, local.clone(), router.clone(), patience.clone()).await?;
        let advertised = network.inter_broker_advertised.as_ref().unwrap_or(listener);
        let address = PeerAddress {
            host: advertised.host.to_string(),
            port: match advertised.port {
                0 => server.address().port(),
                port => port,
            },
        };
        let directory = Arc::new(ClusterDirectory::new(&introduced_to));
        let pool = PeerPool::new(LinkContext {
            local,
            directory: directory.clone(),
            patience,
        });
        info!(address = %server.address(), advertised = %address, "listening for other brokers");
        Ok(Some(PeerConnections {
            server,
            pool: pool.clone(),
            peers: Peers {
                pool,
                router,
                directory,
                introduced_to,
            },
            address,
        }))
    }

    /// Answers what other brokers have asked, and takes nothing more from them.
    pub(crate) async fn refuse(&self, patience: Duration) {
        self.server.shutdown(patience).await;
    }

    /// Ends the connections to them; replication has stopped.
    pub(crate) async fn close(&self) {
        self.pool.shutdown().await;
    }
}

/// Asks the brokers of a cluster, one after the other, who is in it.
pub(crate) async fn find_cluster(
    config: &BrokerConfig,
    me: ReplicaId,
    levels: RangeInclusive<u16>,
) -> Result<Introduction, ServerError> {
    let secret = secret(&config.network).await?;
    let stranger = LocalPeer::with_levels(me, Uuid::nil(), secret, levels);
    let deadline = Instant::now() + JOIN_PATIENCE;
    let mut said = String::new();
    loop {
        for contact in &config.network.bootstrap_servers {
            let address = PeerAddress {
                host: contact.host.to_string(),
                port: contact.port,
            };
            match introduce(&stranger, &address, &PeerPatience::default()).await {
                Ok(introduction) => return Ok(introduction),
                Err(error @ JoinError::FeatureLevel(_)) => return Err(error.into()),
                Err(error) if Instant::now() >= deadline => return Err(error.into()),
                Err(error) => {
                    let text = error.to_string();
                    if text != said {
                        warn!("not joined yet: {text}");
                        said = text;
                    }
                }
            }
        }
        sleep(JOIN_RETRY).await;
    }
}

/// What all brokers of the cluster know, from its file.
async fn secret(network: &NetworkConfig) -> Result<Option<ClusterSecret>, ServerError> {
    let Some(file) = &network.cluster_secret_file else {
        return Ok(None);
    };
    let failed = |reason: String| ServerError::Secret {
        file: file.display().to_string(),
        reason,
    };
    let bytes = tokio::fs::read(file)
        .await
        .map_err(|error| failed(error.to_string()))?;
    let secret = ClusterSecret::new(bytes.trim_ascii());
    secret.map(Some).map_err(|error| failed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_secret_that_is_too_short_names_its_file() {
        let folder = tempfile::tempdir().expect("temporary directory");
        let file = folder.path().join("secret");
        std::fs::write(&file, "short\n").expect("written");
        let mut network = crate::config::load(&crate::config::LoadArgs::default())
            .expect("defaults load")
            .config
            .network
            .clone();
        network.cluster_secret_file = Some(file.clone());
        let error = secret(&network).await.expect_err("too short");
        assert!(
            error.to_string().contains(&file.display().to_string()),
            "{error}"
        );
        std::fs::write(&file, "a secret that is long enough\n").expect("written");
        assert!(secret(&network).await.expect("is read").is_some());
    }
}
