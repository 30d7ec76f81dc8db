//! Where values come from: the command line, the environment, a file.
//!
//! Owns the precedence, highest first: `--data-dir` and `--set`, then `TIDELOG_*`, then the file, then the defaults; in
//! one source the last mention of a property wins. Gathers text only; what it means is [`super::settings`]'s.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::properties;
use super::settings::ConfigError;

/// What `serve` was started with. Nothing is read but the file.
#[derive(Clone, Debug, Default)]
pub struct LoadArgs {
    /// `--data-dir`: the same as `--set log.dirs=...`, but after all of those.
    pub data_dir: Option<PathBuf>,
    /// `--config`.
    pub config_file: Option<PathBuf>,
    /// Each `--set`, as given.
    pub sets: Vec<String>,
    /// The process environment.
    pub environment: Vec<(String, String)>,
}

/// Where one value came from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// The definition.
    Default,
    /// A line of the file.
    File {
        /// The file as named on the command line.
        path: Arc<str>,
        /// Its line.
        line: usize,
    },
    /// A variable of the environment.
    Environment {
        /// The variable.
        variable: String,
    },
    /// A flag.
    Flag {
        /// `--set` or `--data-dir`.
        flag: &'static str,
    },
}

/// One mention of a property; later ones win.
#[derive(Clone, Debug)]
pub struct Mention {
    /// As written: a property's name, or for the environment its variable.
    pub name: String,
    /// Value as written.
    pub value: String,
    /// Where.
    pub origin: Origin,
}

/// Prefix of the variables that are read.
pub const ENVIRONMENT_PREFIX: &str = "TIDELOG_";

/// Variables with that prefix that belong to others: the build, the command line's clients.
const OTHERS_VARIABLES: [&str; 2] = ["TIDELOG_CACHE", "TIDELOG_BOOTSTRAP_SERVER"];
/// The tests' variables.
const TESTS_PREFIX: &str = "TIDELOG_TEST_";

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File { path, line } => write!(f, "{path}:{line}"),
            Origin::Environment { variable } => write!(f, "environment variable {variable}"),
            Origin::Flag { flag } => f.write_str(flag),
        }
    }
}

impl Origin {
    /// Rank of the source, the default lowest; places within one source are equal.
    pub fn strength(&self) -> u8 {
        match self {
            Origin::Default => 0,
            Origin::File { .. } => 1,
            Origin::Environment { .. } => 2,
            Origin::Flag { .. } => 3,
        }
    }
}

/// The variable that sets a property.
pub fn variable_of(name: &str) -> String {
    format!(
        "{ENVIRONMENT_PREFIX}{}",
        name.to_ascii_uppercase().replace('.', "_")
    )
}

fn is_property_variable(name: &str) -> bool {
    name.starts_with(ENVIRONMENT_PREFIX)
        && !name.starts_with(TESTS_PREFIX)
        && !OTHERS_VARIABLES.contains(&name)
}

/// All mentions, lowest precedence first; reads the file.
pub fn gather(args: &LoadArgs, errors: &mut Vec<ConfigError>) -> Vec<Mention> {
    let mut mentions = Vec::new();
    if let Some(path) = &args.config_file {
        match read_file(path) {
            Ok(entries) => mentions.extend(entries),
            Err(error) => errors.push(error),
        }
    }
    let mut variables: Vec<_> = args
        .environment
        .iter()
        .filter(|(name, _)| is_property_variable(name))
        .collect();
    variables.sort();
    mentions.extend(variables.into_iter().map(|(name, value)| Mention {
        name: name.clone(),
        value: value.clone(),
        origin: Origin::Environment {
            variable: name.clone(),
        },
    }));
    for set in &args.sets {
        match set.split_once('=') {
            Some((name, value)) => mentions.push(Mention {
                name: name.trim().to_owned(),
                value: value.trim().to_owned(),
                origin: Origin::Flag { flag: "--set" },
            }),
            None => errors.push(ConfigError::new(
                Origin::Flag { flag: "--set" },
                format!("'{set}' is not of the form name=value"),
            )),
        }
    }
    if let Some(dir) = &args.data_dir {
        match dir.to_str() {
            Some(dir) => mentions.push(Mention {
                name: "log.dirs".to_owned(),
                value: dir.to_owned(),
                origin: Origin::Flag { flag: "--data-dir" },
            }),
            None => errors.push(ConfigError::new(
                Origin::Flag { flag: "--data-dir" },
                format!("'{}' is not UTF-8", dir.display()),
            )),
        }
    }
    mentions
}

fn read_file(path: &std::path::Path) -> Result<Vec<Mention>, ConfigError> {
    let shown: Arc<str> = Arc::from(path.display().to_string());
    let at = |line: usize| Origin::File {
        path: shown.clone(),
        line,
    };
    let bytes = std::fs::read(path).map_err(|e| {
        ConfigError::new(
            Origin::Flag { flag: "--config" },
            format!("cannot read '{shown}': {e}"),
        )
    })?;
    let text = String::from_utf8(bytes).map_err(|e| {
        let valid = e.utf8_error().valid_up_to();
        let line = 1 + e
            .as_bytes()
            .iter()
            .take(valid)
            .filter(|b| **b == b'\n')
            .count();
        ConfigError::new(at(line), "not UTF-8".to_owned())
    })?;
    let entries = properties::parse(&text).map_err(|e| ConfigError::new(at(e.line), e.reason))?;
    Ok(entries
        .into_iter()
        .map(|e| Mention {
            name: e.name,
            value: e.value,
            origin: at(e.line),
        })
        .collect())
}
