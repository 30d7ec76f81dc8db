//! Follows the cluster's metadata into the configuration: dynamic settings come in, deleted topics are forgotten.

use std::sync::Arc;

use tidelog_replication::ConfigResource;
use tracing::info;

use crate::config::Overrides;
use crate::server::Broker;

/// Runs until the broker drains.
pub(crate) async fn run(broker: Arc<Broker>) {
    let mut versions = broker.replication.controller().watch();
    loop {
        versions.mark_unchanged();
        refresh(&broker);
        tokio::select! {
            () = broker.draining.cancelled() => return,
            changed = versions.changed() => if changed.is_err() { return },
        }
    }
}

fn refresh(broker: &Broker) {
    let image = broker.replication.image();
    let none = Overrides::new();
    let cluster = image
        .configs(&ConfigResource::Broker(None))
        .unwrap_or(&none);
    let own = image
        .configs(&ConfigResource::Broker(Some(broker.id)))
        .unwrap_or(&none);
    if broker.configs.refresh(cluster, own) {
        info!("dynamic broker settings changed");
    }
    broker
        .configs
        .retain_topics(|id| image.topic_by_id(id).is_some());
}
