//! The fault build: a broker whose end, however it comes, is a power loss, or that acts as one of another version.
//!
//! Asked for by environment variables that only tests set (`TIDELOG_TEST_*` is never read as a setting), and warned of
//! at start. Not a setting, so that no configuration file can carry it into production. Everything else of the broker is
//! as it is shipped.

use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;

use tidelog_replication::FEATURE_LEVELS;
use tidelog_storage::SyncPoint;
use tidelog_storage::fs::{FileSystem, RealFs, VolatileFs};
use tidelog_storage::kv::{KeyValueStore, KvError, RocksKv};
use uuid::Uuid;

use crate::server::error::ServerError;

/// Seed of what reaches the disk without a sync.
const SEED: &str = "TIDELOG_TEST_VOLATILE_STORAGE";
/// Name of the sync that is left out.
const LEFT_OUT: &str = "TIDELOG_TEST_LEAVE_OUT_SYNC";

/// Where Linux says which of the machine's runs this is.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Lowest and highest feature level of another version, as `1-1`.
const LEVELS: &str = "TIDELOG_TEST_FEATURE_LEVELS";

/// The feature levels that this process is to know: those of its program, unless its environment says others.
pub(crate) fn feature_levels() -> Result<RangeInclusive<u16>, ServerError> {
    let levels = levels_of(std::env::var(LEVELS).ok())?;
    if levels != FEATURE_LEVELS {
        let (min, max) = (levels.start(), levels.end());
        tracing::warn!(
            min,
            max,
            "test mode: acts as a version that knows other feature levels"
        );
    }
    Ok(levels)
}

fn levels_of(value: Option<String>) -> Result<RangeInclusive<u16>, ServerError> {
    let Some(value) = value else {
        return Ok(FEATURE_LEVELS);
    };
    let numbers = value.split_once('-');
    let numbers = numbers.and_then(|(min, max)| Some((min.parse().ok()?, max.parse().ok()?)));
    match numbers {
        Some((min, max)) if 0 < min && min <= max => Ok(min..=max),
        _ => Err(ServerError::TestVariable {
            name: LEVELS.to_owned(),
            value,
        }),
    }
}

/// Where and how a broker keeps things, as its environment says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Medium {
    /// The disk.
    Disk,
    /// The disk for what was synced, memory for the rest.
    Volatile {
        seed: u64,
        left_out: Option<SyncPoint>,
    },
}

impl Medium {
    /// What this process was asked for.
    pub(crate) fn of_environment() -> Result<Medium, ServerError> {
        Medium::read(|name| std::env::var(name).ok())
    }

    fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Medium, ServerError> {
        let invalid = |name: &str, value: &str| ServerError::TestVariable {
            name: name.to_owned(),
            value: value.to_owned(),
        };
        let Some(seed) = variable(SEED) else {
            return Ok(Medium::Disk);
        };
        let seed = seed.parse().map_err(|_| invalid(SEED, &seed))?;
        let left_out = match variable(LEFT_OUT) {
            Some(name) => Some(SyncPoint::of_name(&name).ok_or_else(|| invalid(LEFT_OUT, &name))?),
            None => None,
        };
        tracing::warn!(
            seed,
            ?left_out,
            "test mode: everything that was not synced is lost when this process ends"
        );
        Ok(Medium::Volatile { seed, left_out })
    }

    pub(crate) fn files(self) -> Arc<dyn FileSystem> {
        match self {
            Medium::Disk => Arc::new(RealFs),
            Medium::Volatile { seed, left_out } => Arc::new(VolatileFs::new(seed, left_out)),
        }
    }

    /// Id of the run of the machine as far as what it had not synced is concerned. A machine that does not say is another one
    /// each time.
    pub(crate) fn boot_id(self) -> String {
        let said = match self {
            Medium::Disk => std::fs::read_to_string(BOOT_ID).ok(),
            Medium::Volatile { .. } => None,
        };
        said.map_or_else(|| Uuid::new_v4().to_string(), |id| id.trim().to_owned())
    }

    /// Opens the key-value store. Blocks.
    pub(crate) fn key_values(self, directory: &Path) -> Result<Arc<dyn KeyValueStore>, KvError> {
        Ok(Arc::new(match self {
            Medium::Disk => RocksKv::open(directory)?,
            Medium::Volatile { left_out, .. } => RocksKv::open_volatile(directory, left_out)?,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Medium, ServerError> {
        Medium::read(|name| {
            let found = variables.iter().find(|(set, _)| *set == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn only_the_seed_makes_a_broker_forgetful() {
        assert_eq!(read(&[]).expect("is read"), Medium::Disk);
        let left_out = (LEFT_OUT, "JournalGroup");
        assert_eq!(read(&[left_out]).expect("is read"), Medium::Disk);
        let medium = read(&[(SEED, "7"), left_out]).expect("is read");
        let left_out = Some(SyncPoint::JournalGroup);
        assert_eq!(medium, Medium::Volatile { seed: 7, left_out });
    }

    #[test]
    fn a_broker_knows_the_levels_of_its_program_unless_it_is_told_others() {
        assert_eq!(levels_of(None).expect("is read"), FEATURE_LEVELS);
        let levels = |text: &str| levels_of(Some(text.to_owned()));
        assert_eq!(levels("1-1").expect("is read"), 1..=1);
        assert_eq!(levels("2-3").expect("is read"), 2..=3);
        for text in ["", "1", "0-1", "2-1", "1-x", "1-2-3"] {
            let error = levels(text).expect_err("is refused").to_string();
            assert!(error.contains(LEVELS), "{error}");
        }
    }

    #[test]
    fn a_sync_that_does_not_exist_is_refused() {
        let text = match read(&[(SEED, "7"), (LEFT_OUT, "JournalGrup")]) {
            Err(error) => error.to_string(),
            Ok(medium) => panic!("{medium:?}"),
        };
        assert!(
            text.contains("JournalGrup") && text.contains(LEFT_OUT),
            "{text}"
        );
    }
}
