//! What a new topic, or new partitions of one, will look like: checked against the image, carried out by the caller.

use std::collections::BTreeMap;

use tidelog_protocol::types::{BrokerId, PartitionIndex, TopicName};
use tidelog_replication::{MetadataImage, TopicImage};

use super::drain::open_brokers;
use super::error::{TopicError, all_fenced, unregistered};
use super::{name, placement};
use crate::config::{Layers, Overrides, TopicDefaults, topic_settings};

/// Where the replicas of new partitions go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placement {
    /// The broker chooses.
    Automatic {
        /// Number of partitions; -1 for `num.partitions`.
        partitions: i32,
        /// Replicas of each; -1 for `default.replication.factor`.
        replication_factor: i16,
    },
    /// The client names them, by partition.
    Manual(Vec<(PartitionIndex, Vec<BrokerId>)>),
}

/// A topic that somebody wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTopic {
    /// Its name.
    pub name: TopicName,
    /// Its partitions.
    pub placement: Placement,
    /// Its own settings.
    pub configs: Overrides,
}

/// A topic that can be created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicPlan {
    /// Its name.
    pub name: TopicName,
    /// Replicas of each partition; the first is preferred as leader. Never empty, all of the same length.
    pub assignments: Vec<Vec<BrokerId>>,
    /// Its own settings, checked.
    pub configs: Overrides,
}

impl TopicPlan {
    /// Replicas of each partition.
    pub fn replication_factor(&self) -> usize {
        self.assignments.first().map_or(0, Vec::len)
    }
}

/// Checks a new topic and places its replicas, beginning the round of brokers at `start`.
pub fn plan_topic(
    image: &MetadataImage,
    layers: &Layers,
    defaults: &TopicDefaults,
    topic: NewTopic,
    start: usize,
) -> Result<TopicPlan, TopicError> {
    let NewTopic {
        name,
        placement,
        configs,
    } = topic;
    name::check_new(image, &name)?;
    topic_settings::validate(layers, &configs).map_err(TopicError::InvalidConfig)?;
    let assignments = match placement {
        Placement::Manual(replicas) => manual(image, replicas)?,
        Placement::Automatic {
            partitions,
            replication_factor,
        } => {
            let brokers = open_brokers(image);
            let live = brokers.iter().filter(|broker| !broker.fenced).count();
            let replicas = replica_count(replication_factor, defaults, live)?;
            let partitions = partition_count(partitions, defaults)?;
            placement::assign(&brokers, partitions, replicas, start)?
        }
    };
    Ok(TopicPlan {
        name,
        assignments,
        configs,
    })
}

/// Checks new partitions of a topic, up to `count` in all, and places their replicas.
pub fn plan_partitions(
    image: &MetadataImage,
    topic: &TopicImage,
    count: i32,
    manual_replicas: Option<Vec<Vec<BrokerId>>>,
    start: usize,
) -> Result<Vec<Vec<BrokerId>>, TopicError> {
    let existing = topic.partitions.len();
    let wanted = usize::try_from(count).unwrap_or(0);
    if wanted == existing {
        return Err(TopicError::InvalidPartitions(format!(
            "Topic already has {existing} partition(s)."
        )));
    }
    if wanted < existing {
        return Err(TopicError::InvalidPartitions(format!(
            "The topic {} currently has {existing} partition(s); {count} would not be an increase.",
            topic.name
        )));
    }
    let added = wanted - existing;
    let replicas = topic
        .partitions
        .first()
        .map_or(1, |partition| partition.replicas.len());
    let Some(given) = manual_replicas else {
        check_total(added)?;
        let start = start.wrapping_add(existing);
        return placement::assign(&open_brokers(image), added, replicas, start);
    };
    if given.len() != added {
        return Err(TopicError::InvalidAssignment(format!(
            "Attempted to add {added} additional partition(s), but only {} assignment(s) were specified.",
            given.len()
        )));
    }
    for (partition, brokers_given) in (existing..).zip(&given) {
        check_replicas(image, partition, brokers_given, Some(replicas))?;
    }
    Ok(given)
}

/// Most partitions that one request may bring about or change, as in Kafka.
pub const REQUEST_PARTITIONS_MAX: usize = 10_000;

/// What a request for more is told.
pub const TOO_MANY_PARTITIONS: &str = "Excessively large number of partitions per request.";

/// Takes partitions out of what is left to a request.
pub fn take_room(room: &mut usize, partitions: usize) -> Result<(), TopicError> {
    *room = room
        .checked_sub(partitions)
        .ok_or_else(|| TopicError::PolicyViolation(TOO_MANY_PARTITIONS.to_owned()))?;
    Ok(())
}

/// Most partitions of a topic: beyond it the number is a mistake.
const PARTITIONS_MAX: usize = 100_000;

fn check_total(partitions: usize) -> Result<(), TopicError> {
    if partitions > PARTITIONS_MAX {
        return Err(TopicError::InvalidPartitions(format!(
            "A topic can have at most {PARTITIONS_MAX} partitions, not {partitions}."
        )));
    }
    Ok(())
}

fn partition_count(wanted: i32, defaults: &TopicDefaults) -> Result<usize, TopicError> {
    let wanted = if wanted == -1 {
        defaults.num_partitions
    } else {
        wanted
    };
    let count = usize::try_from(wanted).ok().filter(|count| *count > 0);
    let count = count.ok_or_else(|| {
        TopicError::InvalidPartitions(
            "Number of partitions was set to an invalid non-positive value.".to_owned(),
        )
    })?;
    check_total(count)?;
    Ok(count)
}

/// Most replicas where nobody says how many.
const REPLICAS_DEFAULT_MAX: usize = 3;

fn replica_count(wanted: i16, defaults: &TopicDefaults, live: usize) -> Result<usize, TopicError> {
    let wanted = match defaults.replication_factor {
        Some(set) if wanted == -1 => set,
        None if wanted == -1 => {
            return Ok(if live < REPLICAS_DEFAULT_MAX {
                1
            } else {
                REPLICAS_DEFAULT_MAX
            });
        }
        _ => wanted,
    };
    usize::try_from(wanted)
        .ok()
        .filter(|count| *count > 0)
        .ok_or_else(|| {
            TopicError::InvalidReplicationFactor(
                "Replication factor must be larger than 0, or -1 to use the default value."
                    .to_owned(),
            )
        })
}

fn manual(
    image: &MetadataImage,
    given: Vec<(PartitionIndex, Vec<BrokerId>)>,
) -> Result<Vec<Vec<BrokerId>>, TopicError> {
    let mut by_partition = BTreeMap::new();
    let mut replicas = None;
    for (partition, brokers_given) in given {
        if by_partition.contains_key(&partition) {
            return Err(TopicError::InvalidAssignment(format!(
                "Found multiple manual partition assignments for partition {partition}"
            )));
        }
        let index = usize::try_from(partition.0).unwrap_or(usize::MAX);
        check_replicas(image, index, &brokers_given, replicas)?;
        replicas = Some(brokers_given.len());
        by_partition.insert(partition, brokers_given);
    }
    let consecutive = by_partition
        .keys()
        .zip(0..)
        .all(|(partition, expected)| partition.0 == expected);
    if !consecutive || by_partition.is_empty() {
        return Err(TopicError::InvalidAssignment(
            "partitions should be a consecutive 0-based integer sequence".to_owned(),
        ));
    }
    check_total(by_partition.len())?;
    Ok(by_partition.into_values().collect())
}

/// Checks the brokers that a client names for the replicas of one partition: there are some, all are registered, and none
/// comes twice.
pub fn check_named(image: &MetadataImage, given: &[BrokerId]) -> Result<(), TopicError> {
    if given.is_empty() {
        return Err(TopicError::InvalidAssignment(
            "The manual partition assignment includes an empty replica list.".to_owned(),
        ));
    }
    let mut sorted = given.to_vec();
    sorted.sort_unstable();
    let mut before = None;
    for id in sorted {
        if image.broker(id).is_none() {
            return Err(unregistered(id));
        }
        if before == Some(id) {
            return Err(TopicError::InvalidAssignment(format!(
                "The manual partition assignment includes the broker {id} more than once."
            )));
        }
        before = Some(id);
    }
    Ok(())
}

fn check_replicas(
    image: &MetadataImage,
    partition: usize,
    given: &[BrokerId],
    replicas: Option<usize>,
) -> Result<(), TopicError> {
    check_named(image, given)?;
    if let Some(replicas) = replicas.filter(|replicas| *replicas != given.len()) {
        return Err(TopicError::InvalidAssignment(format!(
            "The manual partition assignment includes a partition with {} replica(s), but this is not consistent with \
             previous partitions, which have {replicas} replica(s).",
            given.len()
        )));
    }
    let is_live = |id: &BrokerId| image.is_live(*id);
    if !given.iter().any(is_live) {
        return Err(all_fenced(PartitionIndex(
            i32::try_from(partition).unwrap_or(i32::MAX),
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
