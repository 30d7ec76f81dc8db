//! The static settings: each property's value after precedence, with where it came from.
//!
//! Owns the errors about names and values. Invariant of [`Settings`]: every definition has an entry whose value has
//! passed the definition's checks. What values mean together is [`super::assemble`]'s.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use super::definition::{Definition, Support, Value};
use super::definitions;
use super::sources::{ENVIRONMENT_PREFIX, Mention, Origin, variable_of};

/// One thing wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Where.
    pub origin: Origin,
    /// What.
    pub message: String,
}

/// Everything wrong with the configuration, one line each. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

/// A property's value and where it came from.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The property.
    pub definition: &'static Definition,
    /// Value as text; `None` is Kafka's null.
    pub text: Option<Arc<str>>,
    /// Value parsed; `None` is Kafka's null.
    pub value: Option<Value>,
    /// Where from.
    pub origin: Origin,
}

/// All properties with their static values.
#[derive(Clone, Debug)]
pub struct Settings {
    by_name: HashMap<&'static str, Setting>,
}

impl ConfigError {
    /// An error at a place.
    pub fn new(origin: Origin, message: String) -> Self {
        ConfigError { origin, message }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.origin {
            Origin::Default => f.write_str(&self.message),
            _ => write!(f, "{}: {}", self.origin, self.message),
        }
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

impl Settings {
    /// Applies `mentions`, lowest precedence first, over the defaults. Warnings are sentences about properties that
    /// were accepted and change nothing.
    pub fn resolve(
        mentions: &[Mention],
        errors: &mut Vec<ConfigError>,
        warnings: &mut Vec<String>,
    ) -> Settings {
        let mut by_name: HashMap<&'static str, Setting> = HashMap::new();
        for definition in definitions::all() {
            let value = definition
                .default
                .and_then(|text| definition.kind.parse(text).ok());
            let text = definition.default.map(Arc::from);
            by_name.insert(
                definition.name,
                Setting {
                    definition,
                    text,
                    value,
                    origin: Origin::Default,
                },
            );
        }
        for mention in mentions {
            let definition = match find(mention) {
                Ok(Some(definition)) => definition,
                Ok(None) => {
                    warnings.push(format!(
                        "{}: {} of older Kafka is ignored",
                        mention.origin, mention.name
                    ));
                    continue;
                }
                Err(message) => {
                    errors.push(ConfigError::new(mention.origin.clone(), message));
                    continue;
                }
            };
            match definition.check(&mention.value) {
                Ok(value) => {
                    if let Support::NoEffect(reason) = definition.support {
                        warnings.push(format!(
                            "{}: {} has no effect: {reason}",
                            mention.origin, definition.name
                        ));
                    }
                    let text = Some(Arc::from(mention.value.trim()));
                    let origin = mention.origin.clone();
                    by_name.insert(
                        definition.name,
                        Setting {
                            definition,
                            text,
                            value: Some(value),
                            origin,
                        },
                    );
                }
                Err(message) => errors.push(ConfigError::new(mention.origin.clone(), message)),
            }
        }
        let mut settings = Settings { by_name };
        settings.unify_ids(errors);
        settings
    }

    /// `node.id` and `broker.id` name the same thing: the one from the stronger source counts, and both show it. From
    /// sources of equal strength they must agree.
    fn unify_ids(&mut self, errors: &mut Vec<ConfigError>) {
        let (Some(node), Some(broker)) =
            (self.get("node.id").cloned(), self.get("broker.id").cloned())
        else {
            return;
        };
        let from = (node.origin.strength(), broker.origin.strength());
        let broker_is_set = broker.value != Some(Value::Integer(-1));
        if broker_is_set && from.0 == from.1 && node.value != broker.value {
            let message = "broker.id and node.id disagree; set one of them".to_owned();
            errors.push(ConfigError::new(broker.origin, message));
            return;
        }
        let (strong, weak) = if broker_is_set && from.1 > from.0 {
            (broker, "node.id")
        } else {
            (node, "broker.id")
        };
        if let Some(setting) = self.by_name.get_mut(weak) {
            setting.text = strong.text;
            setting.value = strong.value;
            setting.origin = strong.origin;
        }
    }

    /// A copy in which the given texts replace the static ones where they are valid. Names that are not defined and
    /// values that do not pass are left out: they were refused when they were set, or come from another release.
    pub fn overlaid<'a>(
        &self,
        overrides: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Settings {
        let mut copy = self.clone();
        for (name, text) in overrides {
            if let Some(setting) = copy.by_name.get_mut(name)
                && let Ok(value) = setting.definition.check(text)
            {
                setting.value = Some(value);
                setting.text = Some(Arc::from(text));
            }
        }
        copy
    }

    /// The setting of a property, or `None` where no such property is defined.
    pub fn get(&self, name: &str) -> Option<&Setting> {
        self.by_name.get(name)
    }

    /// All settings by name.
    pub fn sorted(&self) -> BTreeMap<&'static str, &Setting> {
        self.by_name
            .iter()
            .map(|(name, setting)| (*name, setting))
            .collect()
    }
}

/// The definition that a mention means; `Ok(None)` for a name that only older releases of Kafka have.
fn find(mention: &Mention) -> Result<Option<&'static Definition>, String> {
    if let Origin::Environment { variable } = &mention.origin {
        let mut all = definitions::all();
        let named = all.find(|definition| variable_of(definition.name) == *variable);
        if let Some(definition) = named.or_else(|| alias(|name| variable_of(name) == *variable)) {
            return Ok(Some(definition));
        }
        let names: Vec<String> = definitions::all().map(|d| variable_of(d.name)).collect();
        let nearest = nearest(variable, names.iter().map(String::as_str));
        return Err(format!(
            "no property is called so (variables that begin with {ENVIRONMENT_PREFIX} are read as properties){nearest}"
        ));
    }
    let name = mention.name.as_str();
    if let Some(definition) = definitions::find(name).or_else(|| alias(|alias| alias == name)) {
        return Ok(Some(definition));
    }
    if definitions::REMOVED_FROM_KAFKA.contains(&name) {
        return Ok(None);
    }
    if let Some((_, reason)) = definitions::UNSUPPORTED_PREFIXES
        .iter()
        .find(|(prefix, _)| name.starts_with(prefix))
    {
        return Err(format!("property '{name}' is not supported: {reason}"));
    }
    Err(format!(
        "unknown property '{name}'{}",
        nearest(name, definitions::all().map(|d| d.name))
    ))
}

/// The definition that one of the other spellings means.
fn alias(is_meant: impl Fn(&str) -> bool) -> Option<&'static Definition> {
    let mut aliases = definitions::ALIASES.iter();
    let (_, name) = aliases.find(|(alias, _)| is_meant(alias))?;
    definitions::find(name)
}

/// "; did you mean X?" for the name that is closest, or nothing where none is close.
pub fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> String {
    const SIMILAR: f64 = 0.75;
    candidates
        .map(|candidate| {
            (
                strsim::normalized_damerau_levenshtein(name, candidate),
                candidate,
            )
        })
        .filter(|(score, _)| *score >= SIMILAR)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| format!("; did you mean '{candidate}'?"))
        .unwrap_or_default()
}
