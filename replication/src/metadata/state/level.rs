//! The level of the metadata's format: which records may be written, because every broker knows them.
//!
//! It only rises, when all registered brokers know the new one, whether they are up or not: one that is down has the log read
//! to it when it comes back. Whoever knows less than the cluster's level is not registered.

use tidelog_protocol::types::BrokerId;

use super::MetadataState;
use crate::metadata::command::{MetadataError, Outcome};
use crate::metadata::image::{BrokerImage, MetadataImage};
use crate::metadata::levels::REASSIGNMENT_LEVEL;
use crate::metadata::record::RecordError;

/// Brokers that a refusal names.
const NAMED_MAX: usize = 5;

impl MetadataImage {
    /// Refuses a broker whose program does not know the cluster's level.
    pub(crate) fn check_knows_level(
        &self,
        broker: BrokerId,
        known: u16,
    ) -> Result<(), MetadataError> {
        if known >= self.feature_level {
            return Ok(());
        }
        Err(MetadataError::InvalidFeature(format!(
            "broker {broker} knows feature level {known}, and the cluster is at {}: start it with the version that the other \
             brokers run",
            self.feature_level
        )))
    }

    /// Refuses what needs replicas that can be moved, if the cluster's level does not allow that yet.
    pub fn check_can_move(&self) -> Result<(), MetadataError> {
        let (needed, level) = (REASSIGNMENT_LEVEL, self.feature_level);
        if level >= needed {
            return Ok(());
        }
        let text = RecordError::LevelTooLow { needed, level }.to_string();
        Err(MetadataError::LevelTooLow(text))
    }

    /// Refuses a record of a level that the cluster has not reached. Those who write see to it; this is so that all
    /// replicas agree if one did not.
    pub(crate) fn check_level(&self, written_at: u16) -> Result<(), MetadataError> {
        if written_at <= self.feature_level || self.cluster_id.is_nil() {
            return Ok(());
        }
        Err(MetadataError::LevelTooLow(format!(
            "a record of feature level {written_at}, and the cluster is at {}",
            self.feature_level
        )))
    }
}

impl MetadataState {
    /// Judged by what the image says of brokers and by nothing of this program: replicas of other versions judge alike.
    pub(super) fn raise_level(&mut self, level: i16) -> Result<Outcome, MetadataError> {
        let current = self.image.feature_level;
        let refuse = |text: String| Err(MetadataError::InvalidFeature(text));
        let level = match u16::try_from(level) {
            Ok(level) if level >= current => level,
            _ => {
                return refuse(format!(
                    "the cluster is at feature level {current}, and a level is never lowered: what was written since is not \
                     known to versions before it"
                ));
            }
        };
        let name = |broker: &BrokerImage| {
            let down = if broker.fenced {
                " (which is down)"
            } else {
                ""
            };
            let known = broker.feature_level_max;
            format!("broker {}{down} knows {known}", broker.id)
        };
        let behind = (self.image.brokers()).filter(|broker| broker.feature_level_max < level);
        let mut named: Vec<String> = behind.map(|broker| name(broker)).collect();
        if named.is_empty() {
            self.image.feature_level = level;
            return Ok(Outcome::Done);
        }
        if named.len() > NAMED_MAX {
            let more = named.len() - NAMED_MAX;
            named.truncate(NAMED_MAX);
            named.push(format!("{more} more know less"));
        }
        refuse(format!(
            "not all brokers know feature level {level}: {}. Start each of them with a version that does",
            named.join(", ")
        ))
    }
}
