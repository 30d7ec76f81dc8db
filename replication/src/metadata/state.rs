//! The metadata's rules: `apply(command) -> outcome`, on the image that it owns.
//!
//! Deterministic: depends on nothing but the commands applied so far. A refused command changes nothing.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use tidelog_protocol::types::{
    BrokerId, LeaderEpoch, PartitionIndex, ProducerId, TopicId, TopicName,
};
use uuid::Uuid;

use crate::limits::{
    CONFIG_KEY_BYTES_MAX, CONFIG_KEYS_MAX, CONFIG_RESOURCES_MAX, CONFIG_VALUE_BYTES_MAX,
    PARTITION_REPLICAS_MAX, PRODUCER_IDS_MAX, TOPIC_NAME_BYTES_MAX, TOPIC_PARTITIONS_MAX,
};
use crate::metadata::command::{
    BrokerRegistration, Command, ConfigResource, LeaderReport, MetadataError, Outcome,
};
use crate::metadata::image::{BrokerImage, MetadataImage, PartitionImage, TopicImage, fold_name};
use crate::metadata::levels::{METADATA_FEATURE, RUNS_LEVEL};
use crate::planted::{Bug, planted};

mod level;
mod reassign;

/// What changed since it was last taken, for those who act on changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetadataDelta {
    /// Topics that were created, changed or deleted.
    pub topics: HashSet<TopicId>,
    /// Whether a broker's configuration changed, which may concern every topic.
    pub broker_configs: bool,
    /// Brokers whose run ended, or that are heard of no more: what they led needs another leader.
    pub lost: BTreeSet<BrokerId>,
    /// Whether brokers came, went, were fenced or are heard of again.
    pub brokers: bool,
}

impl MetadataDelta {
    /// Adds another delta to this one.
    pub fn merge(&mut self, other: MetadataDelta) {
        self.topics.extend(other.topics);
        self.broker_configs |= other.broker_configs;
        self.lost.extend(other.lost);
        self.brokers |= other.brokers;
    }
}

impl MetadataImage {
    /// The image that would follow if the controller carried out the command now. Changes nothing: for dry runs.
    pub fn after(&self, command: Command) -> Result<MetadataImage, MetadataError> {
        let mut state = MetadataState::new(self.clone());
        state.apply(command, self.version.saturating_add(1))?;
        Ok(state.image)
    }
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct MetadataState {
    image: MetadataImage,
    delta: MetadataDelta,
}

impl MetadataState {
    /// Continues from an image.
    pub fn new(image: MetadataImage) -> Self {
        MetadataState {
            image,
            delta: MetadataDelta::default(),
        }
    }

    /// The image so far.
    pub fn image(&self) -> &MetadataImage {
        &self.image
    }

    /// What changed since the last call.
    pub fn take_delta(&mut self) -> MetadataDelta {
        std::mem::take(&mut self.delta)
    }

    /// Names the broker that leads the controller group; not a command, each replica knows it by itself.
    pub fn set_controller(&mut self, controller: Option<BrokerId>) {
        self.image.controller = controller;
    }

    /// Carries out a command, or refuses it and changes nothing. `version` is that of the image that shows it.
    pub fn apply(&mut self, command: Command, version: u64) -> Result<Outcome, MetadataError> {
        let outcome = match command {
            Command::Bootstrap {
                cluster_id,
                feature_level,
            } => self.bootstrap(cluster_id, feature_level),
            Command::RegisterBroker(registration) => self.register_broker(registration, version),
            Command::SetBrokerFenced {
                broker,
                epoch,
                fenced,
            } => self.set_broker_fenced(broker, epoch, fenced),
            Command::CreateTopic {
                name,
                id,
                assignments,
                configs,
            } => self.create_topic(name, id, &assignments, configs),
            Command::DeleteTopic { id } => self.delete_topic(id),
            Command::CreatePartitions { id, assignments } => {
                self.create_partitions(id, &assignments)
            }
            Command::AlterReassignment {
                topic,
                partition,
                target,
            } => self.alter_reassignment(topic, partition, target, version),
            Command::CompleteReassignments(completed) => {
                self.complete_reassignments(completed, version);
                Ok(Outcome::Done)
            }
            Command::UnregisterBroker { broker } => self.unregister_broker(broker),
            Command::ReportDamage(damaged) => self.report_damage(damaged, version),
            Command::AlterConfigs { resource, changes } => self.alter_configs(resource, changes),
            Command::AllocateProducerIds { broker, count } => {
                self.allocate_producer_ids(broker, count)
            }
            Command::ReportLeaders(reports) => {
                self.report_leaders(reports);
                Ok(Outcome::Done)
            }
            Command::SetFeature { name, level } => self.set_feature(name, level),
        }?;
        self.image.version = version;
        Ok(outcome)
    }

    fn bootstrap(
        &mut self,
        cluster_id: Uuid,
        feature_level: u16,
    ) -> Result<Outcome, MetadataError> {
        if !self.image.cluster_id.is_nil() {
            return Err(MetadataError::AlreadyBootstrapped(self.image.cluster_id));
        }
        self.image.cluster_id = cluster_id;
        self.image.feature_level = feature_level;
        Ok(Outcome::Done)
    }

    fn register_broker(
        &mut self,
        registration: BrokerRegistration,
        version: u64,
    ) -> Result<Outcome, MetadataError> {
        let id = registration.broker;
        let known = self.image.brokers.get(&id).cloned();
        let other = known.filter(|known| {
            known.directory_id != registration.directory_id && !planted(Bug::DirectoryIgnored)
        });
        if let Some(other) = &other {
            let lost = other.fenced && registration.new_directory;
            if !lost || self.image.check_can_move().is_err() {
                return Err(MetadataError::BrokerIdTaken(id));
            }
        }
        self.image
            .check_knows_level(id, registration.feature_level_max)?;
        let broker_epoch = self.image.next_broker_epoch;
        self.image.next_broker_epoch += 1;
        let broker = BrokerImage {
            id,
            epoch: broker_epoch,
            directory_id: registration.directory_id,
            incarnation: registration.incarnation,
            rack: registration.rack,
            endpoints: registration.endpoints,
            peer_address: registration.peer_address,
            fenced: false,
            feature_level_max: registration.feature_level_max,
        };
        let incarnation = broker.incarnation;
        let before = Arc::make_mut(&mut self.image.brokers).insert(id, Arc::new(broker));
        if let Some(before) = before {
            self.delta.lost.insert(id);
            if before.incarnation != incarnation && self.image.feature_level >= RUNS_LEVEL {
                self.take_leaderships(id);
            }
        }
        if other.is_some() {
            self.replace_directory(id, version);
        }
        self.delta.brokers = true;
        Ok(Outcome::BrokerRegistered { broker_epoch })
    }

    /// A broker leads nothing any more. What has no other replica nobody else can lead: it stays on record.
    fn take_leaderships(&mut self, broker: BrokerId) {
        let led = |it: &PartitionImage| it.leader == Some(broker) && it.replicas.len() > 1;
        let topics = self.image.topics();
        let topics = topics.filter(|topic| topic.partitions.iter().any(led));
        let topics: Vec<Arc<TopicImage>> = topics.cloned().collect();
        for topic in topics {
            let mut topic = TopicImage::clone(&topic);
            for partition in topic.partitions.iter_mut().filter(|it| led(it)) {
                partition.leader = None;
                partition.partition_epoch = partition.partition_epoch.wrapping_add(1);
            }
            self.put_topic(topic);
        }
    }

    fn set_broker_fenced(
        &mut self,
        id: BrokerId,
        epoch: i64,
        fenced: bool,
    ) -> Result<Outcome, MetadataError> {
        let broker = self
            .image
            .brokers
            .get(&id)
            .ok_or(MetadataError::UnknownBroker(id))?;
        let is_meant = broker.epoch == epoch || planted(Bug::FencedAsAnotherRun);
        if is_meant && broker.fenced != fenced {
            let mut broker = BrokerImage::clone(broker);
            broker.fenced = fenced;
            Arc::make_mut(&mut self.image.brokers).insert(id, Arc::new(broker));
            self.delta.brokers = true;
            if fenced {
                self.delta.lost.insert(id);
            }
        }
        Ok(Outcome::Done)
    }

    fn create_topic(
        &mut self,
        name: TopicName,
        id: TopicId,
        assignments: &[Vec<BrokerId>],
        configs: BTreeMap<String, String>,
    ) -> Result<Outcome, MetadataError> {
        check_topic_name(name.as_str())?;
        if let Some(existing) = self.image.topics.get(&name) {
            return if existing.id == id {
                Ok(Outcome::TopicCreated { id })
            } else {
                Err(MetadataError::TopicExists(name))
            };
        }
        if self.image.topic_names.get(&id).is_some() {
            return Err(MetadataError::TopicIdExists);
        }
        if let Some(existing) = self.image.colliding_topic(&name) {
            return Err(MetadataError::TopicNameCollision {
                existing: existing.clone(),
            });
        }
        if assignments.is_empty() {
            return Err(MetadataError::InvalidPartitions(
                "a topic needs a partition".into(),
            ));
        }
        let partitions = self.new_partitions(assignments, 0)?;
        check_configs(&configs)?;
        self.image.partition_count += partitions.len();
        self.image.topic_names.insert(id, name.clone());
        self.image
            .folded_names
            .insert(fold_name(name.as_str()), name.clone());
        self.image.topics.insert(
            name.clone(),
            Arc::new(TopicImage {
                name,
                id,
                partitions,
                configs,
            }),
        );
        self.delta.topics.insert(id);
        Ok(Outcome::TopicCreated { id })
    }

    fn delete_topic(&mut self, id: TopicId) -> Result<Outcome, MetadataError> {
        let name = self
            .image
            .topic_names
            .remove(&id)
            .ok_or(MetadataError::UnknownTopic)?;
        self.image.folded_names.remove(&fold_name(name.as_str()));
        if let Some(topic) = self.image.topics.remove(&name) {
            self.image.partition_count -= topic.partitions.len();
        }
        self.delta.topics.insert(id);
        Ok(Outcome::Done)
    }

    fn create_partitions(
        &mut self,
        id: TopicId,
        assignments: &[Vec<BrokerId>],
    ) -> Result<Outcome, MetadataError> {
        let topic = self.topic(id)?;
        if assignments.is_empty() {
            return Err(MetadataError::InvalidPartitions(
                "no partition to add".into(),
            ));
        }
        let added = self.new_partitions(assignments, topic.partitions.len())?;
        self.image.partition_count += added.len();
        let mut topic = TopicImage::clone(&topic);
        topic.partitions.extend(added);
        self.put_topic(topic);
        Ok(Outcome::Done)
    }

    fn alter_configs(
        &mut self,
        resource: ConfigResource,
        changes: Vec<(String, Option<String>)>,
    ) -> Result<Outcome, MetadataError> {
        let mut configs = match &resource {
            ConfigResource::Topic(name) => self
                .image
                .topics
                .get(name)
                .ok_or(MetadataError::UnknownTopic)?
                .configs
                .clone(),
            other => self.image.configs(other).cloned().unwrap_or_default(),
        };
        for (key, value) in changes {
            match value {
                Some(value) => configs.insert(key, value),
                None => configs.remove(&key),
            };
        }
        check_configs(&configs)?;
        if let ConfigResource::Topic(name) = &resource {
            let topic = self
                .image
                .topics
                .get(name)
                .ok_or(MetadataError::UnknownTopic)?;
            let mut topic = TopicImage::clone(topic);
            topic.configs = configs;
            self.put_topic(topic);
            return Ok(Outcome::Done);
        }
        if self.image.configs.len() >= CONFIG_RESOURCES_MAX
            && !self.image.configs.contains_key(&resource)
        {
            return Err(MetadataError::InvalidConfig("too many resources".into()));
        }
        self.delta.broker_configs |= matches!(resource, ConfigResource::Broker(_));
        let all = Arc::make_mut(&mut self.image.configs);
        if configs.is_empty() {
            all.remove(&resource);
        } else {
            all.insert(resource, Arc::new(configs));
        }
        Ok(Outcome::Done)
    }

    fn allocate_producer_ids(
        &mut self,
        broker: BrokerId,
        count: i32,
    ) -> Result<Outcome, MetadataError> {
        if !self.image.brokers.contains_key(&broker) {
            return Err(MetadataError::UnknownBroker(broker));
        }
        if !(1..=PRODUCER_IDS_MAX).contains(&count) {
            return Err(MetadataError::ProducerIds(format!("count {count}")));
        }
        let first = self.image.next_producer_id;
        let next = first
            .checked_add(i64::from(count))
            .ok_or_else(|| MetadataError::ProducerIds("all ids are used up".into()))?;
        self.image.next_producer_id = next;
        Ok(Outcome::ProducerIds {
            first: ProducerId(first),
            count,
        })
    }

    /// Reports of unknown partitions or of older epochs are skipped: their leader will learn better.
    fn report_leaders(&mut self, reports: Vec<LeaderReport>) {
        self.change_partitions(
            reports,
            |report| (report.topic, report.partition),
            accept_report,
        );
    }

    /// Changes partitions, each topic in one go; `change` says whether it did. Those that are not there are skipped.
    fn change_partitions<T>(
        &mut self,
        changes: Vec<T>,
        of: impl Fn(&T) -> (TopicId, PartitionIndex),
        change: impl Fn(&mut PartitionImage, &T) -> bool,
    ) {
        let mut by_topic: BTreeMap<TopicId, Vec<T>> = BTreeMap::new();
        for one in changes {
            by_topic.entry(of(&one).0).or_default().push(one);
        }
        for (id, changes) in by_topic {
            let Ok(topic) = self.topic(id) else { continue };
            let mut topic = TopicImage::clone(&topic);
            let mut changed = false;
            for one in changes {
                let partition = topic.partition_mut(of(&one).1);
                changed |= partition.is_some_and(|partition| change(partition, &one));
            }
            if changed {
                self.put_topic(topic);
            }
        }
    }

    fn set_feature(&mut self, name: String, level: i16) -> Result<Outcome, MetadataError> {
        if name == METADATA_FEATURE {
            return self.raise_level(level);
        }
        if name.is_empty() || name.len() > CONFIG_KEY_BYTES_MAX || level < 0 {
            let text = format!("no feature level: {name} {level}");
            return Err(MetadataError::InvalidFeature(text));
        }
        if level == 0 {
            self.image.features.remove(&name);
        } else if self.image.features.len() < CONFIG_KEYS_MAX
            || self.image.features.contains_key(&name)
        {
            self.image.features.insert(name, level);
        } else {
            return Err(MetadataError::InvalidFeature("too many features".into()));
        }
        Ok(Outcome::Done)
    }

    fn topic(&self, id: TopicId) -> Result<Arc<TopicImage>, MetadataError> {
        self.image
            .topic_by_id(id)
            .cloned()
            .ok_or(MetadataError::UnknownTopic)
    }

    fn put_topic(&mut self, topic: TopicImage) {
        self.delta.topics.insert(topic.id);
        self.image
            .topics
            .insert(topic.name.clone(), Arc::new(topic));
    }

    fn new_partitions(
        &self,
        assignments: &[Vec<BrokerId>],
        existing: usize,
    ) -> Result<Vec<PartitionImage>, MetadataError> {
        if existing + assignments.len() > TOPIC_PARTITIONS_MAX {
            return Err(MetadataError::InvalidPartitions(format!(
                "at most {TOPIC_PARTITIONS_MAX} partitions"
            )));
        }
        assignments
            .iter()
            .map(|replicas| self.new_partition(replicas))
            .collect()
    }

    fn new_partition(&self, replicas: &[BrokerId]) -> Result<PartitionImage, MetadataError> {
        self.check_replicas(replicas)?;
        let replicas: Arc<[BrokerId]> = Arc::from(replicas);
        Ok(PartitionImage {
            isr: replicas.clone(),
            replicas,
            reassignment: None,
            leader: None,
            leader_epoch: LeaderEpoch(0),
            partition_epoch: 0,
        })
    }

    fn check_replicas(&self, replicas: &[BrokerId]) -> Result<(), MetadataError> {
        if replicas.is_empty() || replicas.len() > PARTITION_REPLICAS_MAX {
            return Err(MetadataError::InvalidReplicaAssignment(format!(
                "{} replicas",
                replicas.len()
            )));
        }
        for (position, broker) in replicas.iter().enumerate() {
            if !self.image.brokers.contains_key(broker) {
                return Err(MetadataError::UnknownBroker(*broker));
            }
            if replicas.iter().take(position).any(|other| other == broker) {
                return Err(MetadataError::InvalidReplicaAssignment(format!(
                    "broker {broker} twice"
                )));
            }
        }
        Ok(())
    }
}

/// Takes over a report that is not older than what is known. Returns whether it changed anything.
fn accept_report(partition: &mut PartitionImage, report: &LeaderReport) -> bool {
    let stale = report.epoch < partition.leader_epoch && !planted(Bug::StaleReport);
    let is_replica = partition.replicas.contains(&report.leader) || planted(Bug::ReportOfAStranger);
    if stale || !is_replica {
        return false;
    }
    let mut isr = report.isr.clone();
    isr.retain(|broker| partition.replicas.contains(broker));
    if !isr.contains(&report.leader) {
        isr.insert(0, report.leader);
    }
    let same = partition.leader == Some(report.leader)
        && partition.leader_epoch == report.epoch
        && *partition.isr == *isr;
    if same {
        return false;
    }
    partition.leader = Some(report.leader);
    partition.leader_epoch = report.epoch;
    partition.isr = Arc::from(isr);
    partition.partition_epoch = partition.partition_epoch.wrapping_add(1);
    true
}

/// Kafka's rule for topic names.
fn check_topic_name(name: &str) -> Result<(), MetadataError> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if name.is_empty() {
        return Err(MetadataError::InvalidTopicName(
            "the empty string is not allowed".into(),
        ));
    }
    if name == "." || name == ".." {
        return Err(MetadataError::InvalidTopicName(
            "'.' or '..' is not allowed".into(),
        ));
    }
    if name.len() > TOPIC_NAME_BYTES_MAX {
        return Err(MetadataError::InvalidTopicName(format!(
            "longer than {TOPIC_NAME_BYTES_MAX} characters"
        )));
    }
    if !name.bytes().all(legal) {
        return Err(MetadataError::InvalidTopicName(
            "it contains a character other than ASCII alphanumerics, '.', '_' and '-'".into(),
        ));
    }
    Ok(())
}

fn check_configs(configs: &BTreeMap<String, String>) -> Result<(), MetadataError> {
    if configs.len() > CONFIG_KEYS_MAX {
        return Err(MetadataError::InvalidConfig(format!(
            "more than {CONFIG_KEYS_MAX} keys"
        )));
    }
    for (key, value) in configs {
        if key.is_empty() || key.len() > CONFIG_KEY_BYTES_MAX {
            return Err(MetadataError::InvalidConfig(format!(
                "key of {} bytes",
                key.len()
            )));
        }
        if value.len() > CONFIG_VALUE_BYTES_MAX {
            return Err(MetadataError::InvalidConfig(format!(
                "value of {key} has {} bytes",
                value.len()
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
