//! From the command line to a configuration, and back to text for `--print-config`.

use std::fmt::Write;

use super::assemble::assemble;
use super::broker_config::BrokerConfig;
use super::definition::{Definition, Support};
use super::properties;
use super::settings::{ConfigErrors, Setting, Settings};
use super::sources::{LoadArgs, Origin, gather};

/// A configuration that a broker can start with.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// Each property with its source.
    pub settings: Settings,
    /// The typed fields.
    pub config: BrokerConfig,
    /// Sentences to log once at start: properties that were accepted and change nothing, listeners that are open.
    pub warnings: Vec<String>,
}

/// Reads all sources. Every fault is reported, not only the first.
pub fn load(args: &LoadArgs) -> Result<Loaded, ConfigErrors> {
    let mut errors = Vec::new();
    let mut warnings = Vec::new();
    let mentions = gather(args, &mut errors);
    let settings = Settings::resolve(&mentions, &mut errors, &mut warnings);
    match assemble(&settings) {
        Ok(config) if errors.is_empty() => {
            warnings.extend(open_listeners(&config));
            Ok(Loaded {
                settings,
                config,
                warnings,
            })
        }
        Ok(_) => Err(ConfigErrors(errors)),
        Err(more) => {
            errors.extend(more);
            Err(ConfigErrors(errors))
        }
    }
}

/// The effective configuration as a file that `--config` reads: what was set with its source, then the defaults.
/// Secrets are left out. Properties that change nothing are shown only where they were set.
pub fn print(settings: &Settings) -> String {
    let all = settings.sorted();
    let mut out = String::new();
    for setting in all
        .values()
        .filter(|setting| setting.origin != Origin::Default)
    {
        let _ = writeln!(out, "# from {}", setting.origin);
        print_line(&mut out, setting);
    }
    out.push_str("\n# defaults\n");
    let is_used = |definition: &Definition| definition.support == Support::Used;
    for setting in all
        .values()
        .filter(|s| s.origin == Origin::Default && is_used(s.definition))
    {
        print_line(&mut out, setting);
    }
    out
}

fn print_line(out: &mut String, setting: &Setting) {
    let name = setting.definition.name;
    let line = match &setting.text {
        Some(_) if setting.definition.is_secret() => format!("# {name}=[hidden]"),
        Some(text) => format!("{name}={}", properties::escape_value(text)),
        None => format!("# {name} is not set"),
    };
    out.push_str(&line);
    out.push('\n');
}

/// Nobody has to prove who they are yet, so whoever reaches a listener may do everything.
fn open_listeners(config: &BrokerConfig) -> Vec<String> {
    let network = &config.network;
    let kafka = network
        .listeners
        .iter()
        .map(|listener| ("listeners", &listener.address));
    let http = network
        .http_listeners
        .iter()
        .map(|address| ("http.listeners", address));
    kafka
        .chain(http)
        .filter(|(_, address)| !address.is_loopback())
        .map(|(name, address)| {
            format!("{name}: {address} is reachable from other machines, and there is no authentication: everyone who reaches it may read and write everything")
        })
        .collect()
}
