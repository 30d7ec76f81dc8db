//! The cluster's feature level: shown by `tidelog cluster status`, raised by `tidelog cluster upgrade`.

use std::collections::BTreeMap;

use clap::Args;
use serde_json::{Value, json};
use tidelog_client::{Admin, BrokerId, Error, FeatureDescription, FeatureUpdate};
use tidelog_replication::METADATA_FEATURE;

use super::ConnectArgs;
use super::failure::{Failure, words};
use super::output::Output;

/// Arguments of `tidelog cluster upgrade`.
#[derive(Debug, Args)]
pub struct UpgradeArgs {
    /// Raise to this level [default: the highest that the brokers know]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i16).range(1..))]
    level: Option<i16>,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// Raises the level. That brokers know it is the controller's to say.
pub(super) async fn upgrade(args: UpgradeArgs) -> Result<(), Failure> {
    let admin = Admin::new(args.connect.connect().await?);
    let Some(levels) = Levels::of(&admin.describe_features().await?) else {
        return Err(Failure::Failed(format!(
            "no broker knows {METADATA_FEATURE}: they run a version from before there were levels"
        )));
    };
    let Levels { current, known, by } = levels;
    let level = args.level.unwrap_or(known);
    let mut output = Output::new();
    if level == current {
        return output.text(&format!("the cluster is at feature level {current}\n"));
    }
    let update = if args.dry_run {
        FeatureUpdate::Tried
    } else {
        FeatureUpdate::Made
    };
    let done = admin.upgrade_feature(by, METADATA_FEATURE, level, update);
    done.await?;
    let text = match update {
        FeatureUpdate::Tried => format!(
            "the cluster is at feature level {current} and can be raised to {level}. There is no way back: versions that know \
             less cannot be started on it any more\n"
        ),
        FeatureUpdate::Made => {
            format!("the cluster is at feature level {level}, before at {current}\n")
        }
    };
    output.text(&text)
}

/// The cluster's level, and the highest that a broker knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Levels {
    current: i16,
    known: i16,
    /// The broker that does.
    by: BrokerId,
}

impl Levels {
    fn of(brokers: &BTreeMap<BrokerId, FeatureDescription>) -> Option<Levels> {
        let said = brokers.iter().filter_map(|(id, features)| {
            Some(Levels {
                current: *features.finalized.get(METADATA_FEATURE)?,
                known: *features.supported.get(METADATA_FEATURE)?.end(),
                by: *id,
            })
        });
        // One may not have heard of a raise.
        let said: Vec<Levels> = said.collect();
        let current = said.iter().map(|it| it.current).max()?;
        let best = said.into_iter().max_by_key(|it| it.known)?;
        Some(Levels { current, ..best })
    }
}

/// The level as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FeatureLevel {
    current: i16,
    known: i16,
    /// Why it cannot be raised to what is known.
    held_back: Option<String>,
}

impl FeatureLevel {
    /// Asks for it; `None` where the cluster has none.
    pub(super) async fn ask(admin: &Admin) -> Result<Option<FeatureLevel>, Error> {
        let Some(levels) = Levels::of(&admin.describe_features().await?) else {
            return Ok(None);
        };
        let Levels { current, known, by } = levels;
        let held_back = if known > current {
            let tried = admin.upgrade_feature(by, METADATA_FEATURE, known, FeatureUpdate::Tried);
            tried.await.err().map(|error| words(&error))
        } else {
            None
        };
        Ok(Some(FeatureLevel {
            current,
            known,
            held_back,
        }))
    }

    /// In one line.
    pub(super) fn line(&self) -> String {
        let FeatureLevel { current, known, .. } = self;
        match &self.held_back {
            Some(why) => format!("{current}, held back from {known}: {why}"),
            None if known > current => {
                format!("{current}, can be raised to {known}: tidelog cluster upgrade")
            }
            None => current.to_string(),
        }
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "current": self.current,
            "known": self.known,
            "held_back": self.held_back,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_broker_that_knows_most_is_asked() {
        let features = |known, current| {
            let name = || METADATA_FEATURE.to_owned();
            FeatureDescription {
                supported: BTreeMap::from([(name(), 1..=known)]),
                finalized: BTreeMap::from([(name(), current)]),
            }
        };
        let mut brokers = BTreeMap::new();
        assert_eq!(Levels::of(&brokers), None);
        // One of a version from before there were levels.
        brokers.insert(BrokerId(1), FeatureDescription::default());
        assert_eq!(Levels::of(&brokers), None);
        brokers.insert(BrokerId(2), features(3, 1));
        brokers.insert(BrokerId(3), features(2, 2));
        let found = Levels {
            current: 2,
            known: 3,
            by: BrokerId(2),
        };
        assert_eq!(Levels::of(&brokers), Some(found));
    }

    #[test]
    fn a_level_says_what_can_be_done() {
        let level = |current, held_back: Option<&str>| FeatureLevel {
            current,
            known: 2,
            held_back: held_back.map(str::to_owned),
        };
        assert_eq!(level(2, None).line(), "2");
        assert_eq!(
            level(1, None).line(),
            "1, can be raised to 2: tidelog cluster upgrade"
        );
        let held_back = level(1, Some("broker 3 knows 1"));
        assert_eq!(held_back.line(), "1, held back from 2: broker 3 knows 1");
        assert_eq!(held_back.json()["held_back"], "broker 3 knows 1");
        assert_eq!(level(2, None).json()["held_back"], Value::Null);
    }
}
