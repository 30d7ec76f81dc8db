//! What one property is: name, type, limits, default, documentation, who may change it when, and what Tidelog does with it.
//!
//! Owns the types of the definitions tables and the parsing of one value, with the messages of Kafka's own validators,
//! because clients and tests read them. Knows no particular property.

/// Type and limits of a property's value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// `true` or `false`.
    Bool,
    /// 16-bit integer from the first to the second, both included.
    Short(i64, i64),
    /// 32-bit integer from the first to the second, both included.
    Int(i64, i64),
    /// 64-bit integer from the first to the second, both included.
    Long(i64, i64),
    /// `compression.gzip.level`: 1 to 9, or -1.
    GzipLevel,
    /// Floating point from the first to the second, both included.
    Double(f64, f64),
    /// Any text.
    Text,
    /// Name of a Java class: text that Tidelog never loads.
    Class,
    /// Text that is never shown.
    Secret,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Words separated by commas; any words where the list is empty.
    List(&'static [&'static str]),
    /// Replicas of a topic, `partition:broker` each, separated by commas; or `*` for all.
    Replicas,
}

/// How much a property matters, as Kafka rates it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Importance {
    /// Most users need to know it.
    High,
    /// Some do.
    Medium,
    /// Few do.
    Low,
}

/// Whether the admin APIs may change a broker property while the broker runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Update {
    /// Only at start.
    ReadOnly,
    /// For one broker, or as the default of all.
    Dynamic,
}

/// What Tidelog does with a property.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// It takes effect.
    Used,
    /// Any well-formed value is accepted and changes nothing, because Tidelog has no such part or tunes it itself; the
    /// text says which.
    NoEffect(&'static str),
    /// Kafka's default is the only value accepted, because ignoring another would break what its user relies on; the
    /// text says what is missing.
    DefaultOnly(&'static str),
}

/// A parsed value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Of [`Kind::Bool`].
    Bool(bool),
    /// Of the integer kinds.
    Integer(i64),
    /// Of [`Kind::Double`].
    Double(f64),
    /// Of the text kinds.
    Text(String),
    /// Of [`Kind::List`].
    List(Vec<String>),
}

/// One property.
#[derive(Clone, Copy, Debug)]
pub struct Definition {
    /// Its name.
    pub name: &'static str,
    /// Type and limits.
    pub kind: Kind,
    /// Default as text; `None` is Kafka's null.
    pub default: Option<&'static str>,
    /// Kafka's rating.
    pub importance: Importance,
    /// Who may change it when.
    pub update: Update,
    /// What Tidelog does with it.
    pub support: Support,
    /// What it is for, in a sentence or two.
    pub doc: &'static str,
}

/// A property that takes effect and is read at start.
pub const fn used(
    name: &'static str,
    kind: Kind,
    default: Option<&'static str>,
    importance: Importance,
    doc: &'static str,
) -> Definition {
    Definition {
        name,
        kind,
        default,
        importance,
        update: Update::ReadOnly,
        support: Support::Used,
        doc,
    }
}

/// A property that takes effect and may change while the broker runs.
pub const fn dynamic(
    name: &'static str,
    kind: Kind,
    default: Option<&'static str>,
    importance: Importance,
    doc: &'static str,
) -> Definition {
    Definition {
        name,
        kind,
        default,
        importance,
        update: Update::Dynamic,
        support: Support::Used,
        doc,
    }
}

/// A property of Kafka that is accepted and changes nothing; `reason` is its documentation too.
pub const fn no_effect(
    name: &'static str,
    kind: Kind,
    default: Option<&'static str>,
    importance: Importance,
    reason: &'static str,
) -> Definition {
    let support = Support::NoEffect(reason);
    Definition {
        name,
        kind,
        default,
        importance,
        update: Update::ReadOnly,
        support,
        doc: reason,
    }
}

/// Such a property that Kafka lets change while the broker runs.
pub const fn no_effect_dynamic(
    name: &'static str,
    kind: Kind,
    default: Option<&'static str>,
    importance: Importance,
    reason: &'static str,
) -> Definition {
    Definition {
        update: Update::Dynamic,
        ..no_effect(name, kind, default, importance, reason)
    }
}

/// A property of Kafka whose function is not built; `reason` is its documentation too.
pub const fn default_only(
    name: &'static str,
    kind: Kind,
    default: Option<&'static str>,
    importance: Importance,
    reason: &'static str,
) -> Definition {
    let support = Support::DefaultOnly(reason);
    Definition {
        name,
        kind,
        default,
        importance,
        update: Update::ReadOnly,
        support,
        doc: reason,
    }
}

impl Kind {
    /// Parses `text` and checks it against the limits. The error is what Kafka would say after
    /// "Invalid value X for configuration Y: ".
    pub fn parse(&self, text: &str) -> Result<Value, String> {
        let text = text.trim();
        match *self {
            Kind::Bool => match text.to_ascii_lowercase().as_str() {
                "true" => Ok(Value::Bool(true)),
                "false" => Ok(Value::Bool(false)),
                _ => Err("Expected value to be either true or false".to_owned()),
            },
            Kind::Short(min, max) => integer(
                text,
                i64::from(i16::MIN),
                i64::from(i16::MAX),
                "SHORT",
                min,
                max,
            ),
            Kind::Int(min, max) => integer(
                text,
                i64::from(i32::MIN),
                i64::from(i32::MAX),
                "INT",
                min,
                max,
            ),
            Kind::Long(min, max) => integer(text, i64::MIN, i64::MAX, "LONG", min, max),
            Kind::GzipLevel => {
                let allowed = |n: &i64| *n == -1 || (1..=9).contains(n);
                match integer(
                    text,
                    i64::from(i32::MIN),
                    i64::from(i32::MAX),
                    "INT",
                    i64::MIN,
                    i64::MAX,
                )? {
                    Value::Integer(n) if !allowed(&n) => {
                        Err("Value must be between 1 and 9 or equal to -1".to_owned())
                    }
                    value => Ok(value),
                }
            }
            Kind::Double(min, max) => {
                let n: f64 = text
                    .parse()
                    .map_err(|_| "Not a number of type DOUBLE".to_owned())?;
                if n.is_nan() || n < min {
                    return Err(format!("Value must be at least {min}"));
                }
                if n > max {
                    return Err(format!("Value must be no more than {max}"));
                }
                Ok(Value::Double(n))
            }
            Kind::Text | Kind::Class | Kind::Secret => Ok(Value::Text(text.to_owned())),
            Kind::Choice(words) => {
                choice(text, words)?;
                Ok(Value::Text(text.to_owned()))
            }
            Kind::List(words) => list(text, words),
            Kind::Replicas => replicas(text),
        }
    }

    /// Whether values are words separated by commas, which can be added and taken away one by one.
    pub fn is_list(&self) -> bool {
        matches!(self, Kind::List(_) | Kind::Replicas)
    }

    /// Name of the type as Kafka calls it.
    pub fn type_name(&self) -> &'static str {
        match self {
            Kind::Bool => "BOOLEAN",
            Kind::Short(..) => "SHORT",
            Kind::Int(..) | Kind::GzipLevel => "INT",
            Kind::Long(..) => "LONG",
            Kind::Double(..) => "DOUBLE",
            Kind::Text | Kind::Choice(_) => "STRING",
            Kind::Class => "CLASS",
            Kind::Secret => "PASSWORD",
            Kind::List(_) | Kind::Replicas => "LIST",
        }
    }
}

impl Definition {
    /// Whether the value must never be shown.
    pub fn is_secret(&self) -> bool {
        matches!(self.kind, Kind::Secret)
    }

    /// Parses and checks a value given for this property, its support included.
    pub fn check(&self, text: &str) -> Result<Value, String> {
        let value = self
            .kind
            .parse(text)
            .map_err(|reason| invalid_value(self, text, &reason))?;
        if let Support::DefaultOnly(reason) = self.support {
            let is_default = match self.default {
                Some(default) => self.kind.parse(default).is_ok_and(|d| d == value),
                None => text.trim().is_empty(),
            };
            if !is_default {
                return Err(invalid_value(self, text, reason));
            }
        }
        Ok(value)
    }
}

/// Kafka's sentence about a value that is refused; a secret is not repeated.
pub fn invalid_value(definition: &Definition, text: &str, reason: &str) -> String {
    let name = definition.name;
    match definition.kind {
        Kind::Secret => format!("Invalid value [hidden] for configuration {name}: {reason}"),
        // This validator sees the list, and says once more what it is about.
        Kind::Replicas => {
            let words = words_of(text).join(", ");
            format!("Invalid value [{words}] for configuration {name}: {name} {reason}")
        }
        _ => format!("Invalid value {text} for configuration {name}: {reason}"),
    }
}

fn integer(
    text: &str,
    type_min: i64,
    type_max: i64,
    type_name: &str,
    min: i64,
    max: i64,
) -> Result<Value, String> {
    let n = text
        .parse::<i64>()
        .ok()
        .filter(|n| (type_min..=type_max).contains(n));
    let n = n.ok_or_else(|| format!("Not a number of type {type_name}"))?;
    if n < min {
        return Err(format!("Value must be at least {min}"));
    }
    if n > max {
        return Err(format!("Value must be no more than {max}"));
    }
    Ok(Value::Integer(n))
}

fn choice(text: &str, words: &[&str]) -> Result<(), String> {
    if words.contains(&text) {
        Ok(())
    } else {
        Err(format!("String must be one of: {}", words.join(", ")))
    }
}

fn list(text: &str, words: &[&str]) -> Result<Value, String> {
    if text.is_empty() {
        return Ok(Value::List(Vec::new()));
    }
    let items = words_of(text);
    if !words.is_empty() {
        for item in &items {
            choice(item, words)?;
        }
    }
    Ok(Value::List(items))
}

fn words_of(text: &str) -> Vec<String> {
    text.split(',').map(|item| item.trim().to_owned()).collect()
}

/// As Kafka has it, empty words count for nothing, also beside a `*`.
fn replicas(text: &str) -> Result<Value, String> {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_replica = |word: &String| {
        let parts = word.split_once(':');
        word.is_empty() || parts.is_some_and(|(one, other)| is_number(one) && is_number(other))
    };
    let words = words_of(text);
    if !words.iter().all(is_replica) && words.concat() != "*" {
        return Err(
            "must be the literal '*' or a list of replicas in the following format: \
             [partitionId]:[brokerId],[partitionId]:[brokerId],..."
                .to_owned(),
        );
    }
    let words = words.into_iter().filter(|word| !word.is_empty());
    Ok(Value::List(words.collect()))
}
