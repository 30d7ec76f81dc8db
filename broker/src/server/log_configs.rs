//! The door through which replication asks for the settings of topics' logs.

use std::sync::Arc;

use tidelog_replication::{LogConfigSource, TopicImage};
use tidelog_storage::log::LogConfig;

use crate::config::ConfigManager;

/// See the module.
#[derive(Debug)]
pub(crate) struct LogConfigs(pub(crate) Arc<ConfigManager>);

impl LogConfigSource for LogConfigs {
    fn log_config(&self, topic: &TopicImage) -> LogConfig {
        self.0.topic(topic.id, &topic.configs).log.clone()
    }

    fn min_insync_replicas(&self, topic: &TopicImage) -> usize {
        self.0.topic(topic.id, &topic.configs).min_insync_replicas
    }
}
