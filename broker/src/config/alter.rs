//! Changes of settings through the admin APIs: what AlterConfigs and IncrementalAlterConfigs ask, checked against the
//! tables and the layers, as the list of keys that change.
//!
//! Pure: the caller hands the list to the controller. Messages are Kafka's, because its tools print them.

use std::collections::BTreeSet;

use super::assemble::assemble;
use super::definition::{Definition, Update, Value};
use super::layers::{Layers, Overrides, text_of};
use super::{definitions, topic_definitions, topic_settings};

/// What one key of a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AlterOp {
    /// The key gets this value.
    Set(String),
    /// The key goes back to what the layers below give it.
    Delete,
    /// These words are added to a list.
    Append(String),
    /// These words are taken out of a list.
    Subtract(String),
}

/// Keys that change: the new value, or `None` where the key goes.
pub type Changes = Vec<(String, Option<String>)>;

/// Why a change is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AlterError {
    /// A key or value is not one that the tables allow.
    #[error("{0}")]
    InvalidConfig(String),
    /// The request asks for something that makes no sense.
    #[error("{0}")]
    InvalidRequest(String),
}

/// Changes of a topic's settings. `own` is what it has now.
pub fn topic_changes(
    layers: &Layers,
    own: &Overrides,
    ops: &[(String, AlterOp)],
) -> Result<Changes, AlterError> {
    let inherited = |name: &str| {
        let topic = topic_definitions::find(name)?;
        Some(text_of(&layers.topic_value(topic, &Overrides::new())?))
    };
    let after = apply(
        own,
        ops,
        |name| topic_definitions::find(name).map(|topic| &topic.definition),
        inherited,
    )?;
    topic_settings::validate(layers, &after).map_err(AlterError::InvalidConfig)?;
    Ok(difference(own, &after))
}

/// Changes of the settings of one broker, or with `cluster` of all.
pub fn broker_changes(
    layers: &Layers,
    cluster: bool,
    own: &Overrides,
    ops: &[(String, AlterOp)],
) -> Result<Changes, AlterError> {
    let fixed: BTreeSet<&str> = ops
        .iter()
        .filter_map(|(name, _)| definitions::find(name))
        .filter(|definition| definition.update == Update::ReadOnly)
        .map(|definition| definition.name)
        .collect();
    if !fixed.is_empty() {
        let names: Vec<&str> = fixed.into_iter().collect();
        return Err(AlterError::InvalidRequest(format!(
            "Cannot update these configs dynamically: [{}]",
            names.join(", ")
        )));
    }
    for (name, op) in ops {
        let word = match op {
            AlterOp::Append(_) => "append",
            AlterOp::Subtract(_) => "subtract",
            AlterOp::Set(_) | AlterOp::Delete => continue,
        };
        if !is_list(definitions::find(name)) {
            return Err(AlterError::InvalidConfig(format!(
                "Config value {word} is not allowed for config key: {name}"
            )));
        }
    }
    let inherited = |name: &str| definitions::find(name)?.default.map(str::to_owned);
    let after = apply(own, ops, definitions::find, inherited)?;
    for (name, text) in &after {
        let unknown = || AlterError::InvalidRequest(format!("Unknown broker config name: {name}"));
        definitions::find(name)
            .ok_or_else(unknown)?
            .check(text)
            .map_err(AlterError::InvalidRequest)?;
    }
    let result = match cluster {
        true => layers.with_overrides(after.clone(), layers.broker().clone()),
        false => layers.with_overrides(layers.cluster().clone(), after.clone()),
    };
    assemble(result.effective()).map_err(|errors| {
        let sentences: Vec<String> = errors.into_iter().map(|error| error.message).collect();
        AlterError::InvalidRequest(sentences.join("; "))
    })?;
    check_cleaner_threads(layers, &result)?;
    Ok(difference(own, &after))
}

/// Kafka changes the number of its cleaner's threads by a factor of two at most.
fn check_cleaner_threads(before: &Layers, after: &Layers) -> Result<(), AlterError> {
    let threads = |layers: &Layers| match layers.effective().get("log.cleaner.threads")?.value {
        Some(Value::Integer(threads)) => Some(threads),
        _ => None,
    };
    let (Some(current), Some(wanted)) = (threads(before), threads(after)) else {
        return Ok(());
    };
    let refused = if wanted == current {
        return Ok(());
    } else if wanted < 1 {
        "Log cleaner threads should be at least 1".to_owned()
    } else if wanted < current / 2 {
        format!(
            "Log cleaner threads cannot be reduced to less than half the current value {current}"
        )
    } else if wanted > current.saturating_mul(2) {
        format!(
            "Log cleaner threads cannot be increased to more than double the current value {current}"
        )
    } else {
        return Ok(());
    };
    Err(AlterError::InvalidRequest(refused))
}

/// The operations of a full replacement: what is named is set, what is not named goes.
pub fn replacement(own: &Overrides, wanted: Vec<(String, String)>) -> Vec<(String, AlterOp)> {
    let gone: Vec<(String, AlterOp)> = own
        .keys()
        .filter(|name| !wanted.iter().any(|(other, _)| other == *name))
        .map(|name| (name.clone(), AlterOp::Delete))
        .collect();
    let set = wanted
        .into_iter()
        .map(|(name, value)| (name, AlterOp::Set(value)));
    set.chain(gone).collect()
}

fn apply(
    own: &Overrides,
    ops: &[(String, AlterOp)],
    find: impl Fn(&str) -> Option<&'static Definition>,
    inherited: impl Fn(&str) -> Option<String>,
) -> Result<Overrides, AlterError> {
    let mut after = own.clone();
    for (name, op) in ops {
        let current = || {
            after
                .get(name)
                .cloned()
                .or_else(|| inherited(name))
                .unwrap_or_default()
        };
        match op {
            AlterOp::Set(value) => {
                after.insert(name.clone(), value.clone());
            }
            AlterOp::Delete => {
                after.remove(name);
            }
            AlterOp::Append(words) => {
                check_is_list(find(name), name, "APPEND")?;
                let mut items = split(&current());
                for word in split(words) {
                    if !items.contains(&word) {
                        items.push(word);
                    }
                }
                after.insert(name.clone(), items.join(","));
            }
            AlterOp::Subtract(words) => {
                check_is_list(find(name), name, "SUBTRACT")?;
                let mut items = split(&current());
                let gone = split(words);
                items.retain(|item| !gone.contains(item));
                after.insert(name.clone(), items.join(","));
            }
        }
    }
    Ok(after)
}

fn is_list(definition: Option<&Definition>) -> bool {
    definition.is_some_and(|definition| definition.kind.is_list())
}

fn check_is_list(definition: Option<&Definition>, name: &str, op: &str) -> Result<(), AlterError> {
    if is_list(definition) {
        return Ok(());
    }
    Err(AlterError::InvalidConfig(format!(
        "Can't {op} to key {name} because its type is not LIST."
    )))
}

fn split(words: &str) -> Vec<String> {
    words
        .split(',')
        .map(str::trim)
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}

fn difference(before: &Overrides, after: &Overrides) -> Changes {
    let changed = after
        .iter()
        .filter(|(name, value)| before.get(*name) != Some(value));
    let set = changed.map(|(name, value)| (name.clone(), Some(value.clone())));
    let gone = before
        .keys()
        .filter(|name| !after.contains_key(*name))
        .map(|name| (name.clone(), None));
    set.chain(gone).collect()
}
