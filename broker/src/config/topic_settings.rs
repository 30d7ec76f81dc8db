//! A topic's settings in force as typed fields, and the rules for setting them.
//!
//! Owns what a topic's configuration may be, and the two forms that the code runs on: [`LogConfig`] for its logs and
//! [`ProduceRules`] for what producers send.

use std::sync::Arc;

use tidelog_protocol::batch::validate::{ProduceRules, TimestampType};
use tidelog_protocol::compression::Compression;
use tidelog_protocol::types::TimestampMs;
use tidelog_replication::{ReplicaList, ThrottledReplicas};
use tidelog_storage::journal::Durability;
use tidelog_storage::log::{CleaningConfig, LogConfig};

use super::assemble::parse_durability;
use super::definition::{Support, Value, invalid_value};
use super::layers::{Layers, Overrides};
use super::topic_definitions;

/// A topic's settings in force.
#[derive(Clone, Debug, PartialEq)]
pub struct TopicSettings {
    /// For the topic's logs.
    pub log: LogConfig,
    /// `min.insync.replicas`.
    pub min_insync_replicas: usize,
    /// `leader.replication.throttled.replicas` and `follower.replication.throttled.replicas`; `None`: neither names any.
    pub throttled: Option<Arc<ThrottledReplicas>>,
    /// `max.message.bytes`.
    pub max_message_bytes: usize,
    /// `message.timestamp.type`.
    pub timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`.
    pub timestamp_before_max_ms: i64,
    /// `message.timestamp.after.max.ms`.
    pub timestamp_after_max_ms: i64,
    /// `compression.type`; `None` is `producer`.
    pub compression: Option<Compression>,
}

impl TopicSettings {
    /// Resolves a topic's settings from its own configuration and the broker's.
    pub fn resolve(layers: &Layers, own: &Overrides) -> TopicSettings {
        let reader = Reader { layers, own };
        let policies = reader.list("cleanup.policy");
        let has = |policy: &str| policies.iter().any(|p| p == policy);
        let unlimited = |n: i64| (n >= 0).then_some(n);
        let max_lag_ms = reader.integer("max.compaction.lag.ms");
        // As in Kafka: what has to be compacted by then must not be in the active segment.
        let roll_max_ms = if has("compact") { max_lag_ms } else { i64::MAX };
        let log = LogConfig {
            segment_bytes: reader.u32("segment.bytes"),
            segment_ms: reader.integer("segment.ms").min(roll_max_ms),
            index_bytes_max: reader.u32("segment.index.bytes"),
            index_interval_bytes: reader.u32("index.interval.bytes"),
            retention_ms: unlimited(reader.integer("retention.ms")),
            retention_bytes: u64::try_from(reader.integer("retention.bytes")).ok(),
            delete: has("delete"),
            compact: has("compact"),
            cleaning: CleaningConfig {
                delete_retention_ms: reader.integer("delete.retention.ms"),
                min_dirty_ratio: reader.double("min.cleanable.dirty.ratio"),
                min_lag_ms: reader.integer("min.compaction.lag.ms"),
                max_lag_ms,
            },
            durability: parse_durability(&reader.text("durability")),
            producer_id_expiration_ms: producer_id_expiration_ms(layers),
        };
        TopicSettings {
            log,
            min_insync_replicas: reader.usize("min.insync.replicas"),
            throttled: Some(throttled(&reader))
                .filter(|throttled| !throttled.is_empty())
                .map(Arc::new),
            max_message_bytes: reader.usize("max.message.bytes"),
            timestamp_type: match reader.text("message.timestamp.type").as_str() {
                "LogAppendTime" => TimestampType::LogAppendTime,
                _ => TimestampType::CreateTime,
            },
            timestamp_before_max_ms: reader.integer("message.timestamp.before.max.ms"),
            timestamp_after_max_ms: reader.integer("message.timestamp.after.max.ms"),
            compression: match reader.text("compression.type").as_str() {
                "uncompressed" => Some(Compression::None),
                word => Compression::from_name(word),
            },
        }
    }

    /// What a batch must be, for one Produce request.
    pub fn produce_rules(&self, api_version: i16, now: TimestampMs) -> ProduceRules {
        ProduceRules {
            api_version,
            now,
            max_message_bytes: self.max_message_bytes,
            is_compacted: self.log.compact,
            timestamp_type: self.timestamp_type,
            timestamp_before_max_ms: self.timestamp_before_max_ms,
            timestamp_after_max_ms: self.timestamp_after_max_ms,
            compression: self.compression,
        }
    }
}

/// Checks a topic's whole own configuration. The error is a sentence for the client.
pub fn validate(layers: &Layers, own: &Overrides) -> Result<(), String> {
    for (name, text) in own {
        let topic = topic_definitions::find(name)
            .ok_or_else(|| format!("Unknown topic config name: {name}"))?;
        topic.definition.check(text)?;
    }
    let settings = TopicSettings::resolve(layers, own);
    if settings.log.durability == Durability::Os {
        for name in ["flush.messages", "flush.ms"] {
            validate_flush(own, name)?;
        }
    }
    let reader = Reader { layers, own };
    let (min, max) = (
        reader.integer("min.compaction.lag.ms"),
        reader.integer("max.compaction.lag.ms"),
    );
    if min > max {
        return Err(format!(
            "conflict topic config setting min.compaction.lag.ms ({min}) > max.compaction.lag.ms ({max})"
        ));
    }
    Ok(())
}

/// With `durability=sync` every flush setting is fulfilled; with `os` nothing would carry it out.
fn validate_flush(own: &Overrides, name: &str) -> Result<(), String> {
    let (Some(text), Some(topic)) = (own.get(name), topic_definitions::find(name)) else {
        return Ok(());
    };
    let is_default = topic
        .definition
        .default
        .is_some_and(|default| default == text.trim());
    if is_default || !matches!(topic.definition.support, Support::NoEffect(_)) {
        return Ok(());
    }
    let reason = "It has no effect with durability=os; durability=sync syncs every append before it is acknowledged";
    Err(invalid_value(&topic.definition, text, reason))
}

fn throttled(reader: &Reader<'_>) -> ThrottledReplicas {
    let listed = |name| ReplicaList::of(reader.list(name).iter().map(String::as_str));
    ThrottledReplicas {
        leaders: listed("leader.replication.throttled.replicas"),
        followers: listed("follower.replication.throttled.replicas"),
    }
}

fn producer_id_expiration_ms(layers: &Layers) -> i64 {
    match layers
        .effective()
        .get("producer.id.expiration.ms")
        .and_then(|setting| setting.value.as_ref())
    {
        Some(Value::Integer(n)) => *n,
        _ => i64::MAX,
    }
}

/// Typed access to a topic's settings; names are those of the table.
struct Reader<'a> {
    layers: &'a Layers,
    own: &'a Overrides,
}

impl Reader<'_> {
    fn value(&self, name: &str) -> Value {
        let topic = topic_definitions::find(name)
            .expect("every name in this file is in the table, as a test shows");
        self.layers
            .topic_value(topic, self.own)
            .expect("every setting of the table has a default, as a test shows")
    }

    fn integer(&self, name: &str) -> i64 {
        match self.value(name) {
            Value::Integer(n) => n,
            _ => 0,
        }
    }

    fn u32(&self, name: &str) -> u32 {
        u32::try_from(self.integer(name)).unwrap_or(u32::MAX)
    }

    fn usize(&self, name: &str) -> usize {
        usize::try_from(self.integer(name)).unwrap_or(usize::MAX)
    }

    fn double(&self, name: &str) -> f64 {
        match self.value(name) {
            Value::Double(n) => n,
            _ => 0.0,
        }
    }

    fn text(&self, name: &str) -> String {
        match self.value(name) {
            Value::Text(text) => text,
            _ => String::new(),
        }
    }

    fn list(&self, name: &str) -> Vec<String> {
        match self.value(name) {
            Value::List(items) => items,
            _ => Vec::new(),
        }
    }
}
