//! The table of broker properties: each key once, in files by area.
//!
//! Names, defaults and limits are those of Kafka 4.4 for what Kafka has. Knows no values but defaults.

mod coordination;
mod coordinators;
mod elsewhere;
mod log;
mod network;
mod security;

use std::collections::HashMap;
use std::sync::LazyLock;

use super::definition::Definition;

const I32: i64 = i32::MAX as i64;
const I32_MIN: i64 = i32::MIN as i64;
const I64: i64 = i64::MAX;
const I64_MIN: i64 = i64::MIN;

/// Words of `compression.type`.
pub const COMPRESSION_TYPES: &[&str] =
    &["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"];

/// Words of `durability` and `log.durability`.
pub const DURABILITIES: &[&str] = &["sync", "os"];

/// Words of `replica.selector.class`: Kafka's own classes. Those of others are plug-ins, and none are loaded.
pub const REPLICA_SELECTORS: &[&str] = &[
    "org.apache.kafka.common.replica.RackAwareReplicaSelector",
    "RackAwareReplicaSelector",
    "org.apache.kafka.common.replica.LeaderSelector",
    "LeaderSelector",
];

/// Other spellings of properties, where they are set at start.
pub const ALIASES: &[(&str, &str)] = &[("replica.selector", "replica.selector.class")];

/// Properties that older releases of Kafka had and 4.x ignores; files that carry them still start.
pub const REMOVED_FROM_KAFKA: &[&str] = &[
    "broker.id.generation.enable",
    "controlled.shutdown.max.retries",
    "controlled.shutdown.retry.backoff.ms",
    "inter.broker.protocol.version",
    "log.message.downconversion.enable",
    "log.message.format.version",
    "offsets.commit.required.acks",
    "reserved.broker.max.id",
    "zookeeper.connect",
    "zookeeper.connection.timeout.ms",
    "zookeeper.max.in.flight.requests",
    "zookeeper.metadata.migration.enable",
    "zookeeper.session.timeout.ms",
    "zookeeper.set.acl",
];

/// Families of properties that cannot be told from spelling mistakes one by one, with the reason for refusing them.
pub const UNSUPPORTED_PREFIXES: &[(&str, &str)] = &[
    (
        "listener.name.",
        "settings of single listeners are not built; set the property without the prefix",
    ),
    ("rlmm.config.", "Tidelog does not have tiered storage"),
    ("rsm.config.", "Tidelog does not have tiered storage"),
    ("config.providers.", "Tidelog loads no plug-ins"),
    ("confluent.", "it is Confluent's, not Kafka's"),
];

const TABLES: [&[Definition]; 6] = [
    network::DEFINITIONS,
    log::DEFINITIONS,
    coordination::DEFINITIONS,
    security::DEFINITIONS,
    coordinators::DEFINITIONS,
    elsewhere::DEFINITIONS,
];

static BY_NAME: LazyLock<HashMap<&'static str, &'static Definition>> = LazyLock::new(|| {
    all()
        .map(|definition| (definition.name, definition))
        .collect()
});

/// Every definition, in table order.
pub fn all() -> impl Iterator<Item = &'static Definition> {
    TABLES.into_iter().flatten()
}

/// The definition of a name.
pub fn find(name: &str) -> Option<&'static Definition> {
    BY_NAME.get(name).copied()
}
