//! The tables against what Kafka 4.4 itself says (`kafka-4.4-*.tsv`: name, type, default, importance).

use std::collections::{BTreeMap, BTreeSet};

use super::super::definition::{Definition, Importance, Update};
use super::super::{definitions, sources, topic_definitions};

/// Kafka's own table, by name.
fn kafka(table: &'static str) -> BTreeMap<&'static str, Vec<&'static str>> {
    table
        .lines()
        .map(|line| {
            let mut columns = line.split('\t');
            (columns.next().expect("a name"), columns.collect())
        })
        .collect()
}

fn brokers() -> BTreeMap<&'static str, Vec<&'static str>> {
    kafka(include_str!("kafka-4.4-broker.tsv"))
}

fn topics() -> BTreeMap<&'static str, Vec<&'static str>> {
    kafka(include_str!("kafka-4.4-topic.tsv"))
}

fn importance(definition: &Definition) -> &'static str {
    match definition.importance {
        Importance::High => "HIGH",
        Importance::Medium => "MEDIUM",
        Importance::Low => "LOW",
    }
}

fn check(definition: &Definition, columns: &[&str], differs: &[&str]) {
    let name = definition.name;
    let [kind, default, rated] = columns else {
        panic!("{name}: {columns:?}")
    };
    assert_eq!(importance(definition), *rated, "{name}");
    if differs.contains(&name) {
        return;
    }
    assert_eq!(definition.kind.type_name(), *kind, "{name}");
    match (definition.default, *default) {
        (None, "null" | "<NONE>") => {}
        (Some(ours), kafkas) => assert_eq!(ours, kafkas, "{name}"),
        (None, kafkas) => panic!("{name}: Kafka's default is {kafkas}"),
    }
}

#[test]
fn broker_defaults_are_kafkas() {
    // Bound to loopback, one data directory below the working directory, an id without asking; lists where Kafka
    // parses the text itself.
    let differs = [
        "controller.listener.names",
        "listener.security.protocol.map",
        "listeners",
        "broker.session.timeout.ms",
        "default.replication.factor",
        "log.dir",
        "node.id",
        "process.roles",
    ];
    let kafka = brokers();
    for definition in definitions::all() {
        if let Some(columns) = kafka.get(definition.name) {
            check(definition, columns, &differs);
        }
    }
}

#[test]
fn every_broker_property_of_kafka_is_defined() {
    let missing: Vec<_> = brokers()
        .into_keys()
        .filter(|name| definitions::find(name).is_none())
        .collect();
    assert_eq!(missing, Vec::<&str>::new());
}

#[test]
fn broker_properties_that_kafka_does_not_have() {
    let kafka = brokers();
    let ours: BTreeSet<_> = definitions::all()
        .map(|d| d.name)
        .filter(|name| !kafka.contains_key(name))
        .collect();
    let expected = [
        "auto.rebalance",
        "broker.draining",
        "broker.filling",
        "cluster.join",
        "cluster.secret.file",
        "disk.reserve.bytes",
        "disk.reserve.percent",
        "http.listeners",
        "inter.broker.advertised.listener",
        "inter.broker.listener",
        "journal.bytes.max",
        "journal.file.bytes",
        "journal.files.min",
        "log.cache.bytes",
        "log.durability",
        "log.format",
        "log.initial.task.delay.ms",
        "log.level",
        "open.segment.files.max",
        "partition.hibernation.idle.ms",
        "producer.id.expiration.check.interval.ms",
        "shutdown.timeout.ms",
    ];
    assert_eq!(ours, BTreeSet::from(expected));
}

#[test]
fn topic_settings_are_kafkas_and_durability() {
    let kafka = topics();
    let ours: BTreeSet<_> = topic_definitions::DEFINITIONS
        .iter()
        .map(|topic| topic.definition.name)
        .collect();
    let mut expected: BTreeSet<_> = kafka.keys().copied().collect();
    expected.insert("durability");
    assert_eq!(ours, expected);
    for topic in topic_definitions::DEFINITIONS {
        if let Some(columns) = kafka.get(topic.definition.name) {
            check(&topic.definition, columns, &[]);
        }
    }
}

#[test]
fn tables_are_sound() {
    let mut names = BTreeSet::new();
    let mut variables = BTreeSet::new();
    for definition in definitions::all() {
        assert!(
            names.insert(definition.name),
            "{} is defined twice",
            definition.name
        );
        assert!(
            variables.insert(sources::variable_of(definition.name)),
            "{}",
            definition.name
        );
    }
    for pair in topic_definitions::DEFINITIONS.windows(2) {
        assert!(
            pair[0].definition.name < pair[1].definition.name,
            "{} is out of order",
            pair[1].definition.name
        );
    }
    let all = definitions::all().chain(
        topic_definitions::DEFINITIONS
            .iter()
            .map(|topic| &topic.definition),
    );
    for definition in all {
        if let Some(default) = definition.default {
            let parsed = definition.check(default);
            assert!(parsed.is_ok(), "{}: {parsed:?}", definition.name);
        }
        assert!(
            definition.doc.len() > 10 && definition.doc.ends_with('.'),
            "{}: {}",
            definition.name,
            definition.doc
        );
    }
}

#[test]
fn topic_synonyms_exist_and_inherit() {
    for topic in topic_definitions::DEFINITIONS {
        let name = topic.definition.name;
        assert!(topic.definition.default.is_some(), "{name}");
        for synonym in topic.synonyms {
            let broker = definitions::find(synonym.name)
                .unwrap_or_else(|| panic!("{name} <- {}", synonym.name));
            let same = broker.kind.is_list() == topic.definition.kind.is_list();
            assert!(same, "{name}");
        }
        // The strongest synonym of what takes effect can be changed while brokers run, as in Kafka.
        if topic.definition.support == super::super::definition::Support::Used
            && let Some(first) = topic.synonyms.first()
        {
            assert_eq!(
                definitions::find(first.name).map(|d| d.update),
                Some(Update::Dynamic),
                "{name}"
            );
        }
    }
}

#[test]
fn documentation_names_the_properties_that_kafka_does_not_have() {
    let page = include_str!("../../../../docs/CONFIGURATION.md");
    let kafka = brokers();
    let undocumented = [
        "log.initial.task.delay.ms",
        "producer.id.expiration.check.interval.ms",
    ];
    for definition in definitions::all() {
        let name = definition.name;
        if kafka.contains_key(name) || undocumented.contains(&name) {
            continue;
        }
        let row = match definition.default {
            Some(default) => format!("| `{name}` | {default} |"),
            None => format!("| `{name}` | |"),
        };
        assert!(page.contains(&row), "{row}");
    }
}
