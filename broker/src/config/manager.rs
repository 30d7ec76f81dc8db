//! The configuration of a running broker: read by everyone, changed through the admin APIs.
//!
//! Owns the current layers. Readers take a snapshot and never wait; [`ConfigManager::refresh`] replaces it when the
//! cluster's metadata brings other dynamic settings. Settings of topics are resolved once per configuration.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::RwLock;
use tidelog_protocol::types::TopicId;
use tidelog_replication::{
    CompactionOptions, ConfigResource, LogConfigSource, MetadataImage, ThrottleRates,
    ThrottledReplicas, TopicImage,
};
use tidelog_storage::log::LogConfig;

use super::assemble::assemble;
use super::broker_config::BrokerConfig;
use super::layers::{Layers, Overrides};
use super::load::Loaded;
use super::topic_settings::TopicSettings;

/// See the module.
#[derive(Debug)]
pub struct ConfigManager {
    current: ArcSwap<Current>,
    topics: RwLock<HashMap<TopicId, Resolved>>,
}

/// One state of the broker's own configuration.
#[derive(Debug)]
struct Current {
    layers: Arc<Layers>,
    broker: Arc<BrokerConfig>,
    /// Of topics without settings of their own.
    topic_defaults: Arc<TopicSettings>,
}

/// A topic's settings, with what they follow from.
#[derive(Debug)]
struct Resolved {
    own: Overrides,
    layers: Arc<Layers>,
    settings: Arc<TopicSettings>,
}

impl ConfigManager {
    /// Starts with what was loaded; dynamic settings come with the first [`refresh`](Self::refresh).
    pub fn new(loaded: Loaded) -> ConfigManager {
        let layers = Layers::new(loaded.settings, Overrides::new(), Overrides::new());
        ConfigManager {
            current: ArcSwap::from_pointee(Current::new(layers, loaded.config)),
            topics: RwLock::default(),
        }
    }

    /// The broker's configuration in force.
    pub fn broker(&self) -> Arc<BrokerConfig> {
        self.current.load().broker.clone()
    }

    /// The layers in force, to describe or to validate against.
    pub fn layers(&self) -> Arc<Layers> {
        self.current.load().layers.clone()
    }

    /// Settings in force of a topic with these settings of its own. Cheap: a lookup at most, once they were resolved.
    pub fn topic(&self, id: TopicId, own: &Overrides) -> Arc<TopicSettings> {
        let current = self.current.load();
        if own.is_empty() {
            return current.topic_defaults.clone();
        }
        if let Some(known) = self.topics.read().get(&id)
            && Arc::ptr_eq(&known.layers, &current.layers)
            && known.own == *own
        {
            return known.settings.clone();
        }
        let settings = Arc::new(TopicSettings::resolve(&current.layers, own));
        let resolved = Resolved {
            own: own.clone(),
            layers: current.layers.clone(),
            settings: settings.clone(),
        };
        self.topics.write().insert(id, resolved);
        settings
    }

    /// Takes over the dynamic settings of the cluster's metadata. Returns whether anything changed. Settings that do not
    /// fit together were refused when they were made; if they come from another release, the broker keeps what it has.
    pub fn refresh(&self, cluster: &Overrides, broker: &Overrides) -> bool {
        let current = self.current.load();
        if current.layers.cluster() == cluster && current.layers.broker() == broker {
            return false;
        }
        let layers = current
            .layers
            .with_overrides(cluster.clone(), broker.clone());
        let config = match assemble(layers.effective()) {
            Ok(config) => config,
            Err(errors) => {
                for error in errors {
                    tracing::warn!(%error, "dynamic broker settings do not fit together; keeping the previous ones");
                }
                BrokerConfig::clone(&current.broker)
            }
        };
        self.current.store(Arc::new(Current::new(layers, config)));
        true
    }
}

impl LogConfigSource for ConfigManager {
    fn log_config(&self, topic: &TopicImage) -> LogConfig {
        self.topic(topic.id, &topic.configs).log.clone()
    }

    fn min_insync_replicas(&self, topic: &TopicImage) -> usize {
        self.topic(topic.id, &topic.configs).min_insync_replicas
    }

    fn compaction(&self) -> CompactionOptions {
        self.broker().log.compaction.clone()
    }

    fn throttled_replicas(&self, topic: &TopicImage) -> Option<Arc<ThrottledReplicas>> {
        self.topic(topic.id, &topic.configs).throttled.clone()
    }

    fn throttle_rates(&self) -> ThrottleRates {
        self.broker().replication.throttle_rates
    }

    fn follow(&self, image: &MetadataImage) {
        let none = Overrides::new();
        let node_id = self.current.load().broker.node_id;
        let cluster = image
            .configs(&ConfigResource::Broker(None))
            .unwrap_or(&none);
        let broker = image
            .configs(&ConfigResource::Broker(Some(node_id)))
            .unwrap_or(&none);
        if self.refresh(cluster, broker) {
            tracing::info!("dynamic broker settings changed");
        }
        if self.topics.read().len() > image.topic_count() {
            self.topics
                .write()
                .retain(|id, _| image.topic_by_id(*id).is_some());
        }
    }
}

impl Current {
    fn new(layers: Layers, broker: BrokerConfig) -> Current {
        let topic_defaults = Arc::new(TopicSettings::resolve(&layers, &Overrides::new()));
        Current {
            layers: Arc::new(layers),
            broker: Arc::new(broker),
            topic_defaults,
        }
    }
}
