//! Replicas that move to other brokers, and brokers that are forgotten.
//!
//! A reassignment is asked for here and carried out by the partition's leader, which says when it is done. Meanwhile the
//! partition names all brokers that may hold anything of it, so that none of them removes what the others need.

use std::collections::BTreeSet;
use std::sync::Arc;

use tidelog_protocol::types::{BrokerId, PartitionIndex, TopicId};

use super::MetadataState;
use crate::metadata::command::{
    CompletedReassignment, ConfigResource, DamagedReplica, MetadataError, Outcome,
};
use crate::metadata::image::{PartitionImage, Reassignment, TopicImage};
use crate::planted::{Bug, planted};

impl MetadataState {
    pub(super) fn alter_reassignment(
        &mut self,
        id: TopicId,
        index: PartitionIndex,
        target: Option<Vec<BrokerId>>,
        version: u64,
    ) -> Result<Outcome, MetadataError> {
        if let Some(target) = &target {
            self.check_replicas(target)?;
        }
        let mut topic = TopicImage::clone(&*self.topic(id)?);
        let partition = topic
            .partition_mut(index)
            .ok_or(MetadataError::UnknownPartition)?;
        let changed = match target {
            Some(target) => partition.reassign(target, version),
            None => {
                let from = partition.moving().map(|it| it.from.clone());
                // Where the only replica lost its disk there is nothing to go back to.
                let from = from.filter(|from| !from.is_empty());
                partition.reassign(from.ok_or(MetadataError::NoReassignment)?, version)
            }
        };
        if changed {
            self.put_topic(topic);
        }
        Ok(Outcome::Done)
    }

    /// Those that were asked for anew meanwhile, or whose topic is gone, are skipped.
    pub(super) fn complete_reassignments(
        &mut self,
        completed: Vec<CompletedReassignment>,
        version: u64,
    ) {
        self.change_partitions(
            completed,
            |one| (one.topic, one.partition),
            |partition, one| partition.complete(one.since, version),
        );
    }

    /// A replica that is alone has nothing to be brought back from, and stays as it is.
    pub(super) fn report_damage(
        &mut self,
        damaged: DamagedReplica,
        version: u64,
    ) -> Result<Outcome, MetadataError> {
        let mut topic = TopicImage::clone(&*self.topic(damaged.topic)?);
        let partition = topic
            .partition_mut(damaged.partition)
            .ok_or(MetadataError::UnknownPartition)?;
        if partition.take_out(damaged.broker, version) {
            self.put_topic(topic);
        }
        Ok(Outcome::Done)
    }

    /// A broker has another data directory, an empty one: all its replicas are brought back from the others.
    pub(super) fn replace_directory(&mut self, broker: BrokerId, version: u64) {
        let held: Vec<TopicId> = (self.image.topics())
            .filter(|topic| {
                topic
                    .partitions
                    .iter()
                    .any(|it| it.replicas.contains(&broker))
            })
            .map(|topic| topic.id)
            .collect();
        for id in held {
            let Ok(topic) = self.topic(id) else { continue };
            let mut topic = TopicImage::clone(&topic);
            for partition in &mut topic.partitions {
                partition.bring_back(broker, version);
            }
            self.put_topic(topic);
        }
    }

    pub(super) fn unregister_broker(&mut self, id: BrokerId) -> Result<Outcome, MetadataError> {
        let broker = self
            .image
            .broker(id)
            .ok_or(MetadataError::UnknownBroker(id))?;
        if !broker.fenced {
            return Err(MetadataError::BrokerInUse(format!(
                "broker {id} is up: stop it before it is removed"
            )));
        }
        let held = self.image.partitions_of(id);
        if let Some(example) = held.first()
            && !planted(Bug::RemovedWithReplicas)
        {
            return Err(MetadataError::BrokerInUse(format!(
                "broker {id} has replicas of {} partition(s), {example} among them: reassign them to other brokers, or \
                 delete their topics, before it is removed",
                held.len()
            )));
        }
        Arc::make_mut(&mut self.image.brokers).remove(&id);
        // Another one may get its id later.
        let own = ConfigResource::Broker(Some(id));
        if self.image.configs.contains_key(&own) {
            Arc::make_mut(&mut self.image.configs).remove(&own);
            self.delta.broker_configs = true;
        }
        Ok(Outcome::Done)
    }
}

impl PartitionImage {
    /// Asks for other replicas. Returns whether that changes anything.
    fn reassign(&mut self, to: Vec<BrokerId>, version: u64) -> bool {
        if self.wanted() == to {
            return false;
        }
        let set = |brokers: &[BrokerId]| brokers.iter().copied().collect::<BTreeSet<_>>();
        if let Some(known) = &mut self.reassignment
            && known.then.is_some()
        {
            // First who lost what it had goes, also if it is wanted again.
            Arc::make_mut(known).then = Some(to);
            self.partition_epoch = self.partition_epoch.wrapping_add(1);
            return true;
        }
        self.partition_epoch = self.partition_epoch.wrapping_add(1);
        if self.reassignment.is_none() && set(&self.replicas) == set(&to) {
            // Another one is preferred as leader, and that is all.
            self.replicas = Arc::from(to);
            return true;
        }
        let known = self.reassignment.as_deref();
        let from = known.map_or_else(|| self.replicas.to_vec(), |it| it.from.clone());
        self.begin(Reassignment {
            from,
            to,
            since: version,
            then: None,
        });
        true
    }

    /// Names the wanted replicas first, then those that will go.
    fn begin(&mut self, reassignment: Reassignment) {
        let to = &reassignment.to;
        let rest = (self.replicas.iter()).filter(|broker| !to.contains(broker));
        self.replicas = to.iter().chain(rest).copied().collect();
        self.reassignment = Some(Arc::new(reassignment));
    }

    /// A broker lost what its replica had, which is a member of the group all the same: it goes, then it comes back. Returns
    /// whether that changes anything.
    fn take_out(&mut self, broker: BrokerId, version: u64) -> bool {
        let known = self.reassignment.as_deref();
        let going = known.is_some_and(|it| it.takes_out(broker));
        if !self.replicas.contains(&broker) || going {
            return false;
        }
        let others = |brokers: &[BrokerId]| -> Vec<BrokerId> {
            let others = brokers.iter().filter(|it| **it != broker);
            others.copied().collect()
        };
        let from = others(known.map_or(&self.replicas, |it| &it.from));
        let to = others(known.map_or(&self.replicas, |it| &it.to));
        let to = if to.is_empty() { from.clone() } else { to };
        if to.is_empty() {
            return false;
        }
        let then = Some(self.wanted().to_vec());
        self.begin(Reassignment {
            from,
            to,
            since: version,
            then,
        });
        self.lose(broker);
        true
    }

    /// A broker's replica is another one from now on, and empty.
    fn bring_back(&mut self, broker: BrokerId, version: u64) {
        if !self.replicas.contains(&broker) {
            return;
        }
        let known = self.reassignment.as_deref().cloned();
        let known = known.unwrap_or_else(|| Reassignment {
            from: self.replicas.to_vec(),
            to: self.replicas.to_vec(),
            since: version,
            then: None,
        });
        let from = known.from.iter().filter(|it| **it != broker);
        self.reassignment = Some(Arc::new(Reassignment {
            from: from.copied().collect(),
            since: version,
            ..known
        }));
        self.lose(broker);
    }

    fn lose(&mut self, broker: BrokerId) {
        let rest: Vec<BrokerId> = (self.isr.iter().copied())
            .filter(|it| *it != broker)
            .collect();
        if !rest.is_empty() {
            self.isr = Arc::from(rest);
        }
        self.leader = self.leader.filter(|it| *it != broker);
        self.partition_epoch = self.partition_epoch.wrapping_add(1);
    }

    /// The group has the replicas that the reassignment of that version asked for. Returns whether it is that one.
    fn complete(&mut self, since: u64, version: u64) -> bool {
        let is_meant =
            |it: &mut Arc<Reassignment>| it.since == since || planted(Bug::CompletesAnother);
        let Some(done) = self.reassignment.take_if(is_meant) else {
            return false;
        };
        self.replicas = Arc::from(done.to.as_slice());
        let (replicas, isr) = (self.replicas.clone(), self.isr.clone());
        let stays = |broker: &BrokerId| replicas.contains(broker);
        self.isr = isr.iter().copied().filter(stays).collect();
        // Its leader said so, and is one of them.
        self.leader = self.leader.filter(stays);
        self.partition_epoch = self.partition_epoch.wrapping_add(1);
        if let Some(next) = &done.then {
            self.reassign(next.clone(), version);
        }
        true
    }
}
