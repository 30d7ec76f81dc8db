//! Configuration: the properties that exist, where their values come from, and the typed result.
//!
//! Owns names, types, defaults, precedence and the resolution of broker and topic settings. Every property is defined
//! once, in [`definitions`] or [`topic_definitions`]. Precedence, strongest first: settings of a topic, dynamic settings
//! of one broker, dynamic settings of all brokers, `--data-dir` and `--set`, environment, file, default. Never opens a
//! socket or a log.

pub mod address;
pub mod alter;
pub mod assemble;
pub mod broker_config;
pub mod definition;
pub mod definitions;
pub mod layers;
pub mod load;
pub mod manager;
pub mod properties;
pub mod settings;
pub mod sources;
pub mod topic_definitions;
pub mod topic_settings;

#[cfg(test)]
mod tests;

pub use address::{HostPort, Listener, SecurityProtocol};
pub use broker_config::{
    BrokerConfig, FetchConfig, GroupsConfig, LogFormat, LogTasksConfig, NetworkConfig,
    OffsetsConfig, ProcessConfig, ReplicaSelector, ReplicationConfig, StorageConfig, TopicDefaults,
};
pub use layers::{ConfigEntry, ConfigSource, Layers, Overrides, SynonymEntry};
pub use load::{Loaded, load, print};
pub use manager::ConfigManager;
pub use settings::{ConfigError, ConfigErrors};
pub use sources::{LoadArgs, Origin};
pub use topic_settings::TopicSettings;
