//! What a setting is worth in the end, and how it is described.

use std::sync::Arc;

use tidelog_protocol::batch::validate::TimestampType;
use tidelog_protocol::compression::Compression;
use tidelog_protocol::types::{BrokerId, PartitionIndex, TimestampMs, TopicId};
use tidelog_storage::journal::Durability;
use tidelog_storage::log::CleaningConfig;

use super::super::assemble::assemble;
use super::super::layers::{ConfigEntry, ConfigSource, Layers, Overrides};
use super::super::manager::ConfigManager;
use super::super::topic_settings::{TopicSettings, validate};
use super::load_from;

fn overrides(pairs: &[(&str, &str)]) -> Overrides {
    pairs
        .iter()
        .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
        .collect()
}

fn layers(file: &str, cluster: &[(&str, &str)], broker: &[(&str, &str)]) -> Layers {
    let settings = load_from(file, &[], &[]).expect("loads").settings;
    Layers::new(settings, overrides(cluster), overrides(broker))
}

fn entry(
    entries: Vec<ConfigEntry>,
    name: &str,
) -> (
    Option<String>,
    ConfigSource,
    Vec<(String, String, ConfigSource)>,
) {
    let entry = entries
        .into_iter()
        .find(|entry| entry.definition.name == name)
        .expect("listed");
    let synonyms = entry.synonyms.into_iter();
    let synonyms = synonyms
        .map(|s| (s.name.to_owned(), s.value.unwrap_or_default(), s.source))
        .collect();
    (entry.value, entry.source, synonyms)
}

#[test]
fn topic_defaults_are_kafkas() {
    let settings = TopicSettings::resolve(&layers("", &[], &[]), &Overrides::new());
    assert_eq!(settings.log.segment_bytes, 1 << 30);
    assert_eq!(settings.log.segment_ms, 604_800_000);
    assert_eq!(settings.log.retention_ms, Some(604_800_000));
    assert_eq!(settings.log.retention_bytes, None);
    assert_eq!(settings.log.index_interval_bytes, 4096);
    assert_eq!(settings.log.index_bytes_max, 10 << 20);
    assert_eq!(settings.log.durability, Durability::Sync);
    assert_eq!((settings.log.delete, settings.log.compact), (true, false));
    assert_eq!(settings.log.cleaning, CleaningConfig::default());
    assert_eq!(settings.log.producer_id_expiration_ms, 86_400_000);
    assert_eq!(settings.min_insync_replicas, 1);
    let rules = settings.produce_rules(9, TimestampMs(5));
    assert_eq!((rules.api_version, rules.now), (9, TimestampMs(5)));
    assert_eq!(rules.max_message_bytes, 1_048_588);
    assert_eq!(rules.timestamp_type, TimestampType::CreateTime);
    assert_eq!(
        (rules.timestamp_before_max_ms, rules.timestamp_after_max_ms),
        (i64::MAX, 3_600_000)
    );
    assert_eq!(rules.compression, None);
}

#[test]
fn a_topics_own_settings_win() {
    let own = overrides(&[
        ("cleanup.policy", "compact,delete"),
        ("compression.type", "uncompressed"),
        ("delete.retention.ms", "7"),
        ("durability", "os"),
        ("max.compaction.lag.ms", "60000"),
        ("min.cleanable.dirty.ratio", "0.25"),
        ("min.compaction.lag.ms", "9"),
        ("message.timestamp.type", "LogAppendTime"),
        ("retention.bytes", "1000"),
        ("retention.ms", "-1"),
        ("segment.bytes", "2097152"),
    ]);
    let settings = TopicSettings::resolve(&layers("log.retention.ms=5", &[], &[]), &own);
    assert_eq!((settings.log.delete, settings.log.compact), (true, true));
    let cleaning = CleaningConfig {
        delete_retention_ms: 7,
        min_dirty_ratio: 0.25,
        min_lag_ms: 9,
        max_lag_ms: 60_000,
    };
    assert_eq!(settings.log.cleaning, cleaning);
    assert_eq!(
        settings.log.segment_ms, 60_000,
        "it must end to be compacted"
    );
    assert_eq!(settings.compression, Some(Compression::None));
    assert_eq!(settings.log.durability, Durability::Os);
    assert_eq!(settings.timestamp_type, TimestampType::LogAppendTime);
    assert_eq!(
        (settings.log.retention_ms, settings.log.retention_bytes),
        (None, Some(1000))
    );
    assert_eq!(settings.log.segment_bytes, 2 << 20);
}

#[test]
fn retention_falls_back_through_its_units() {
    let retention = |file: &str, cluster: &[(&str, &str)], broker: &[(&str, &str)]| {
        TopicSettings::resolve(&layers(file, cluster, broker), &Overrides::new())
            .log
            .retention_ms
    };
    assert_eq!(
        retention("log.retention.hours=2", &[], &[]),
        Some(7_200_000)
    );
    assert_eq!(retention("log.retention.hours=-1", &[], &[]), None);
    assert_eq!(
        retention("log.retention.hours=2\nlog.retention.minutes=3", &[], &[]),
        Some(180_000)
    );
    assert_eq!(
        retention("log.retention.ms=4\nlog.retention.minutes=3", &[], &[]),
        Some(4)
    );
    assert_eq!(
        retention("log.retention.ms=4", &[("log.retention.ms", "5")], &[]),
        Some(5)
    );
    assert_eq!(
        retention(
            "",
            &[("log.retention.ms", "5")],
            &[("log.retention.ms", "6")]
        ),
        Some(6)
    );
}

#[test]
fn topic_description_names_source_and_synonyms() {
    let layers = layers("log.retention.hours=2", &[("log.retention.ms", "5")], &[]);
    let (value, source, synonyms) = entry(layers.describe_topic(&Overrides::new()), "retention.ms");
    assert_eq!(
        (value.as_deref(), source),
        (Some("5"), ConfigSource::DynamicDefaultBroker)
    );
    let expected = [
        ("log.retention.ms", "5", ConfigSource::DynamicDefaultBroker),
        ("log.retention.hours", "2", ConfigSource::StaticBroker),
        ("log.retention.hours", "168", ConfigSource::Default),
    ];
    assert_eq!(
        synonyms,
        expected.map(|(n, v, s)| (n.to_owned(), v.to_owned(), s))
    );
    let own = overrides(&[("retention.ms", "7")]);
    let (value, source, synonyms) = entry(layers.describe_topic(&own), "retention.ms");
    assert_eq!(
        (value.as_deref(), source, synonyms.len()),
        (Some("7"), ConfigSource::Topic, 4)
    );
    let (value, source, synonyms) = entry(layers.describe_topic(&own), "remote.storage.enable");
    assert_eq!(
        (value.as_deref(), source, synonyms.len()),
        (Some("false"), ConfigSource::Default, 0)
    );
}

#[test]
fn broker_description_marks_what_cannot_change() {
    let layers = layers("num.partitions=3", &[], &[("message.max.bytes", "2000")]);
    let entries = layers.describe_broker();
    let find = |name: &str| {
        entries
            .iter()
            .find(|e| e.definition.name == name)
            .expect("listed")
            .clone()
    };
    assert!(find("num.partitions").read_only && !find("message.max.bytes").read_only);
    assert_eq!(find("num.partitions").source, ConfigSource::StaticBroker);
    assert_eq!(
        find("message.max.bytes").source,
        ConfigSource::DynamicBroker
    );
    assert_eq!(find("message.max.bytes").value.as_deref(), Some("2000"));
    assert_eq!(find("advertised.listeners").value, None);
    let secret = entries
        .iter()
        .find(|e| e.definition.is_secret())
        .expect("there are secrets");
    assert_eq!(secret.value, None);
}

#[test]
fn topic_settings_that_are_refused() {
    let layers = layers("", &[], &[]);
    let refused =
        |pairs: &[(&str, &str)]| validate(&layers, &overrides(pairs)).expect_err("refused");
    assert_eq!(
        refused(&[("retention.sm", "1")]),
        "Unknown topic config name: retention.sm"
    );
    assert_eq!(
        refused(&[("retention.ms", "-2")]),
        "Invalid value -2 for configuration retention.ms: Value must be at least -1"
    );
    assert_eq!(
        refused(&[("retention.ms", "x")]),
        "Invalid value x for configuration retention.ms: Not a number of type LONG"
    );
    assert_eq!(
        refused(&[("remote.storage.enable", "true")]),
        "Invalid value true for configuration remote.storage.enable: Tidelog does not have tiered storage."
    );
    assert!(refused(&[("durability", "os"), ("flush.messages", "1")]).contains("durability=sync"));
    assert!(
        refused(&[
            ("min.compaction.lag.ms", "2"),
            ("max.compaction.lag.ms", "1")
        ])
        .contains("conflict")
    );
    assert_eq!(
        validate(&layers, &overrides(&[("cleanup.policy", "compact")])),
        Ok(())
    );
    assert_eq!(
        validate(
            &layers,
            &overrides(&[("flush.messages", "1"), ("remote.storage.enable", "false")])
        ),
        Ok(())
    );
}

#[test]
fn manager_resolves_once_and_follows_dynamic_settings() {
    let manager = ConfigManager::new(load_from("", &[], &[]).expect("loads"));
    let (a, b) = (
        TopicId(uuid::Uuid::from_u128(1)),
        TopicId(uuid::Uuid::from_u128(2)),
    );
    let own = overrides(&[("max.message.bytes", "10")]);
    assert!(Arc::ptr_eq(
        &manager.topic(a, &Overrides::new()),
        &manager.topic(b, &Overrides::new())
    ));
    let first = manager.topic(a, &own);
    assert_eq!(first.max_message_bytes, 10);
    assert!(Arc::ptr_eq(&first, &manager.topic(a, &own)));
    assert_eq!(
        manager
            .topic(a, &overrides(&[("max.message.bytes", "11")]))
            .max_message_bytes,
        11
    );

    let cluster = overrides(&[("message.max.bytes", "12"), ("min.insync.replicas", "2")]);
    assert!(manager.refresh(&cluster, &Overrides::new()));
    assert!(!manager.refresh(&cluster, &Overrides::new()));
    assert_eq!(manager.topic(b, &Overrides::new()).max_message_bytes, 12);
    assert_eq!(manager.topic(a, &own).min_insync_replicas, 2);
    assert!(manager.refresh(&Overrides::new(), &overrides(&[("max.connections", "5")])));
    assert_eq!(manager.broker().network.max_connections, 5);
    assert_eq!(
        manager.topic(b, &Overrides::new()).max_message_bytes,
        1_048_588
    );
}

#[test]
fn throttles_as_the_code_reads_them() {
    let none = layers("", &[], &[]);
    assert_eq!(
        TopicSettings::resolve(&none, &overrides(&[])).throttled,
        None
    );
    let rates = |layers: &Layers| {
        let config = assemble(layers.effective()).expect("fits");
        let rates = config.replication.throttle_rates;
        (rates.leader, rates.follower)
    };
    assert_eq!(rates(&none), (None, None));
    let set = layers(
        "",
        &[
            ("leader.replication.throttled.rate", "7"),
            ("follower.replication.throttled.rate", "8"),
        ],
        &[("follower.replication.throttled.rate", "9")],
    );
    assert_eq!(rates(&set), (Some(7), Some(9)));
    let own = overrides(&[
        ("leader.replication.throttled.replicas", "*"),
        ("follower.replication.throttled.replicas", "0:4, 1:5"),
    ]);
    let throttled = TopicSettings::resolve(&none, &own).throttled;
    let throttled = throttled.expect("names some");
    let (partition, broker) = (PartitionIndex(1), BrokerId(5));
    assert!(throttled.leaders.contains(partition, broker));
    assert!(throttled.followers.contains(partition, broker));
    assert!(!throttled.followers.contains(PartitionIndex(0), broker));
}
