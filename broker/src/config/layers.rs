//! What a setting is worth in the end, and why: topic, dynamic broker, dynamic default, static, default.
//!
//! Owns the order of the layers, for the code that runs and for DescribeConfigs alike. Pure: holds texts and parsed
//! values, knows no image and no request.

use std::collections::BTreeMap;

use super::definition::{Definition, Update, Value};
use super::definitions;
use super::settings::Settings;
use super::sources::Origin;
use super::topic_definitions::{self, Synonym, TopicDefinition};

/// Names and values that were set through the admin APIs for one resource.
pub type Overrides = BTreeMap<String, String>;

/// Where a value comes from, with Kafka's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(i8)]
pub enum ConfigSource {
    /// The topic's own.
    Topic = 1,
    /// Set for one broker while it ran.
    DynamicBroker = 2,
    /// Set for all brokers while they ran.
    DynamicDefaultBroker = 3,
    /// Set when the broker was started.
    StaticBroker = 4,
    /// Nobody set it.
    Default = 5,
    /// Level of a logger.
    BrokerLogger = 6,
}

/// A setting as DescribeConfigs shows it.
#[derive(Clone, Debug)]
pub struct ConfigEntry {
    /// Name, type, documentation.
    pub definition: &'static Definition,
    /// Value; `None` for null, and for a secret.
    pub value: Option<String>,
    /// Where the value comes from.
    pub source: ConfigSource,
    /// Whether the admin APIs cannot change it.
    pub read_only: bool,
    /// Everything that gives this setting a value, strongest first, the one in force included.
    pub synonyms: Vec<SynonymEntry>,
}

/// One of the values that a setting would have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SynonymEntry {
    /// Name of the property that gives it.
    pub name: &'static str,
    /// Value; `None` for a secret.
    pub value: Option<String>,
    /// Where from.
    pub source: ConfigSource,
}

/// The broker's layers below the topics.
#[derive(Clone, Debug)]
pub struct Layers {
    /// What the broker was started with.
    statics: Settings,
    /// Set for all brokers while they run.
    cluster: Overrides,
    /// Set for this broker while it runs.
    broker: Overrides,
    /// All three together.
    effective: Settings,
}

impl Layers {
    /// The layers of a broker that was started with `statics`.
    pub fn new(statics: Settings, cluster: Overrides, broker: Overrides) -> Layers {
        let pairs = |overrides: &'_ Overrides| -> Vec<(String, String)> {
            let dynamic =
                |name: &str| definitions::find(name).is_some_and(|d| d.update == Update::Dynamic);
            overrides
                .iter()
                .filter(|(name, _)| dynamic(name))
                .map(|(n, v)| (n.clone(), v.clone()))
                .collect()
        };
        let (weak, strong) = (pairs(&cluster), pairs(&broker));
        let effective = statics.overlaid(
            weak.iter()
                .chain(&strong)
                .map(|(n, v)| (n.as_str(), v.as_str())),
        );
        Layers {
            statics,
            cluster,
            broker,
            effective,
        }
    }

    /// The same broker with other dynamic settings.
    pub fn with_overrides(&self, cluster: Overrides, broker: Overrides) -> Layers {
        Layers::new(self.statics.clone(), cluster, broker)
    }

    /// Set for all brokers while they run.
    pub fn cluster(&self) -> &Overrides {
        &self.cluster
    }

    /// Set for this broker while it runs.
    pub fn broker(&self) -> &Overrides {
        &self.broker
    }

    /// The broker's settings in force.
    pub fn effective(&self) -> &Settings {
        &self.effective
    }

    /// Value in force of a topic setting, given the topic's own. A text that does not parse counts as not set: it was
    /// refused when it was set, or comes from another release.
    pub fn topic_value(&self, topic: &TopicDefinition, own: &Overrides) -> Option<Value> {
        let kind = &topic.definition.kind;
        if let Some(value) = own
            .get(topic.definition.name)
            .and_then(|text| kind.parse(text).ok())
        {
            return Some(value);
        }
        let inherited = topic.synonyms.iter().find_map(|synonym| {
            let value = self.effective.get(synonym.name)?.value.as_ref()?;
            Some(scale_value(value, *synonym))
        });
        inherited.or_else(|| {
            topic
                .definition
                .default
                .and_then(|text| kind.parse(text).ok())
        })
    }

    /// All settings of a topic.
    pub fn describe_topic(&self, own: &Overrides) -> Vec<ConfigEntry> {
        topic_definitions::DEFINITIONS
            .iter()
            .map(|topic| self.topic_entry(topic, own))
            .collect()
    }

    /// All properties of this broker.
    pub fn describe_broker(&self) -> Vec<ConfigEntry> {
        let mut entries: Vec<ConfigEntry> = definitions::all()
            .map(|definition| self.broker_entry(definition))
            .collect();
        entries.sort_by_key(|entry| entry.definition.name);
        entries
    }

    /// The properties that are set for all brokers, and nothing else, as Kafka shows the default broker.
    pub fn describe_cluster_default(&self) -> Vec<ConfigEntry> {
        let entry = |(name, text): (&String, &String)| {
            let definition = definitions::find(name)?;
            let value = shown(definition, text);
            let synonyms = vec![SynonymEntry {
                name: definition.name,
                value: value.clone(),
                source: ConfigSource::DynamicDefaultBroker,
            }];
            let source = ConfigSource::DynamicDefaultBroker;
            Some(ConfigEntry {
                definition,
                value,
                source,
                read_only: is_read_only(definition),
                synonyms,
            })
        };
        self.cluster.iter().filter_map(entry).collect()
    }

    fn topic_entry(&self, topic: &'static TopicDefinition, own: &Overrides) -> ConfigEntry {
        let definition = &topic.definition;
        let mut synonyms = Vec::new();
        if let Some(text) = own.get(definition.name) {
            let value = shown(definition, text);
            synonyms.push(SynonymEntry {
                name: definition.name,
                value,
                source: ConfigSource::Topic,
            });
        }
        let names: Vec<&str> = topic.synonyms.iter().map(|synonym| synonym.name).collect();
        if let Some(first) = names.first() {
            synonyms.extend(self.broker_synonyms(first, &names));
        }
        let value = match own.get(definition.name) {
            Some(text) => Some(text.clone()),
            None => self.topic_value(topic, own).map(|value| text_of(&value)),
        };
        let source = synonyms
            .first()
            .map_or(ConfigSource::Default, |first| first.source);
        ConfigEntry {
            definition,
            value,
            source,
            read_only: false,
            synonyms,
        }
    }

    fn broker_entry(&self, definition: &'static Definition) -> ConfigEntry {
        let synonyms = self.broker_synonyms(definition.name, synonym_names(&definition.name));
        let text = self
            .effective
            .get(definition.name)
            .and_then(|setting| setting.text.as_deref());
        let value = text.and_then(|text| shown(definition, text));
        let source = synonyms
            .first()
            .map_or(ConfigSource::Default, |first| first.source);
        ConfigEntry {
            definition,
            value,
            source,
            read_only: is_read_only(definition),
            synonyms,
        }
    }

    /// The values that properties of these names have in each layer, strongest layer first. As in Kafka, the list begins
    /// with the first value of `name` itself: without one it is empty, whatever the other names have.
    fn broker_synonyms(&self, name: &str, names: &[&str]) -> Vec<SynonymEntry> {
        let mut entries = Vec::new();
        let mut push = |name: &str, text: Option<&str>, source| {
            if let (Some(definition), Some(text)) = (definitions::find(name), text) {
                entries.push(SynonymEntry {
                    name: definition.name,
                    value: shown(definition, text),
                    source,
                });
            }
        };
        for name in names {
            push(
                name,
                self.broker.get(*name).map(String::as_str),
                ConfigSource::DynamicBroker,
            );
        }
        for name in names {
            push(
                name,
                self.cluster.get(*name).map(String::as_str),
                ConfigSource::DynamicDefaultBroker,
            );
        }
        for name in names {
            let setting = self
                .statics
                .get(name)
                .filter(|setting| setting.origin != Origin::Default);
            push(
                name,
                setting.and_then(|setting| setting.text.as_deref()),
                ConfigSource::StaticBroker,
            );
        }
        for name in names {
            push(
                name,
                definitions::find(name).and_then(|definition| definition.default),
                ConfigSource::Default,
            );
        }
        entries
            .into_iter()
            .skip_while(|entry| entry.name != name)
            .collect()
    }
}

/// A value as text, as Kafka prints it.
pub fn text_of(value: &Value) -> String {
    match value {
        Value::Bool(b) => b.to_string(),
        Value::Integer(n) => n.to_string(),
        Value::Double(n) => n.to_string(),
        Value::Text(text) => text.clone(),
        Value::List(items) => items.join(","),
    }
}

/// Properties that Kafka names together, strongest first.
fn synonym_names<'a>(name: &'a &'a str) -> &'a [&'a str] {
    const FAMILIES: [&[&str]; 4] = [
        &["log.roll.ms", "log.roll.hours"],
        &["log.roll.jitter.ms", "log.roll.jitter.hours"],
        &[
            "log.retention.ms",
            "log.retention.minutes",
            "log.retention.hours",
        ],
        &["log.flush.interval.ms", "log.flush.scheduler.interval.ms"],
    ];
    let family = FAMILIES.into_iter().find(|family| family.contains(name));
    match family {
        // The scheduler's interval is a property of its own as well.
        Some(family) if *name != "log.flush.scheduler.interval.ms" => family,
        _ => std::slice::from_ref(name),
    }
}

fn is_read_only(definition: &Definition) -> bool {
    definition.update == Update::ReadOnly
}

fn shown(definition: &Definition, text: &str) -> Option<String> {
    (!definition.is_secret()).then(|| text.to_owned())
}

fn scale_value(value: &Value, synonym: Synonym) -> Value {
    match value {
        // A negative count of hours means what a negative count of milliseconds does: no limit.
        Value::Integer(n) if *n >= 0 => Value::Integer(n.saturating_mul(synonym.scale)),
        other => other.clone(),
    }
}
