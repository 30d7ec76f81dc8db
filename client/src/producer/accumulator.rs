//! All batches of a producer by partition, and which of them may go now. A pure structure: the clock is an argument.
//!
//! Invariant: of a partition at most one batch is out (`Queue::is_out`); it was the front one, and comes back to the
//! front if it must be sent again.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tidelog_protocol::types::{ProducerEpoch, ProducerId, Sequence, TopicPartition};
use tokio::time::Instant;

use super::batch::{Batch, Identity, PendingRecord};

/// Batches that wait, by partition.
#[derive(Debug, Default)]
pub(super) struct Accumulator {
    queues: HashMap<TopicPartition, Queue>,
}

#[derive(Debug)]
struct Queue {
    batches: VecDeque<Batch>,
    is_out: bool,
    next_sequence: Sequence,
}

impl Default for Queue {
    fn default() -> Self {
        Queue {
            batches: VecDeque::new(),
            is_out: false,
            next_sequence: Sequence(0),
        }
    }
}

/// When batches go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Policy {
    pub(super) linger: Duration,
    pub(super) batch_bytes: usize,
    pub(super) delivery_timeout: Duration,
    /// Nothing lingers: somebody waits for a flush.
    pub(super) is_flushing: bool,
}

/// Who the producer is at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Identification {
    /// Not an idempotent producer.
    Anonymous,
    /// Batches get this id.
    As(ProducerId, ProducerEpoch),
    /// The id is being asked for; only batches that have theirs may go.
    Pending,
}

impl Accumulator {
    pub(super) fn append(
        &mut self,
        to: TopicPartition,
        record: PendingRecord,
        policy: &Policy,
        now: Instant,
    ) {
        let queue = self.queues.entry(to).or_default();
        match queue.batches.back_mut() {
            Some(open) if open.has_room_for(&record, policy.batch_bytes) => open.push(record),
            _ => {
                let mut batch = Batch::new(now);
                batch.push(record);
                queue.batches.push_back(batch);
            }
        }
    }

    /// Whether nothing waits and nothing is out.
    pub(super) fn is_empty(&self) -> bool {
        self.queues
            .values()
            .all(|queue| queue.batches.is_empty() && !queue.is_out)
    }

    /// Whether no batch has an identity: a new producer id may be taken.
    pub(super) fn is_unidentified(&self) -> bool {
        self.queues.values().all(|queue| {
            !queue.is_out && queue.batches.iter().all(|batch| batch.identity.is_none())
        })
    }

    /// Sequences begin anew, as they do with each producer id or epoch.
    pub(super) fn restart_sequences(&mut self) {
        self.queues.retain(|_, queue| !queue.batches.is_empty());
        for queue in self.queues.values_mut() {
            queue.next_sequence = Sequence(0);
        }
    }

    /// Takes the batches that may go now, each with its identity. They are out until [`Self::settle`].
    pub(super) fn take_ready(
        &mut self,
        policy: &Policy,
        identification: Identification,
        now: Instant,
    ) -> Vec<(TopicPartition, Batch)> {
        let mut ready = Vec::new();
        for (to, queue) in &mut self.queues {
            if queue.is_out
                || queue
                    .ready_at(policy, identification)
                    .is_none_or(|at| at > now)
            {
                continue;
            }
            let Some(mut batch) = queue.batches.pop_front() else {
                continue;
            };
            if let Identification::As(id, epoch) = identification
                && batch.identity.is_none()
            {
                batch.identify(Identity {
                    id,
                    epoch,
                    sequence: queue.next_sequence,
                });
            }
            queue.is_out = true;
            ready.push((to.clone(), batch));
        }
        ready
    }

    /// Takes the batches whose time is up; those that are out are left to their attempt.
    pub(super) fn take_expired(
        &mut self,
        policy: &Policy,
        now: Instant,
    ) -> Vec<(TopicPartition, Batch)> {
        let mut expired = Vec::new();
        for (to, queue) in &mut self.queues {
            while !queue.is_out
                && let Some(front) = queue.batches.front()
                && front.created + policy.delivery_timeout <= now
                && let Some(batch) = queue.batches.pop_front()
            {
                expired.push((to.clone(), batch));
            }
        }
        expired
    }

    /// Takes all batches that wait.
    pub(super) fn take_all(&mut self) -> Vec<Batch> {
        self.queues
            .values_mut()
            .flat_map(|queue| queue.batches.drain(..))
            .collect()
    }

    /// When something is to be done next, if nothing else happens.
    pub(super) fn next_moment(
        &self,
        policy: &Policy,
        identification: Identification,
    ) -> Option<Instant> {
        self.queues
            .values()
            .filter(|queue| !queue.is_out)
            .filter_map(|queue| {
                let expiry = queue.batches.front()?.created + policy.delivery_timeout;
                let ready = queue.ready_at(policy, identification);
                Some(ready.map_or(expiry, |ready| ready.min(expiry)))
            })
            .min()
    }

    /// A batch that was out is done. One that the broker stored has used up its sequence numbers.
    pub(super) fn settle(&mut self, to: &TopicPartition, stored: Option<&Batch>) {
        let Some(queue) = self.queues.get_mut(to) else {
            return;
        };
        queue.is_out = false;
        if let Some(batch) = stored
            && let Some(identity) = batch.identity
        {
            let count = i32::try_from(batch.count()).unwrap_or(i32::MAX);
            queue.next_sequence = identity.sequence.plus(count);
        }
    }

    /// A batch that was out goes back, to be sent again before all others.
    pub(super) fn put_back(&mut self, to: &TopicPartition, batch: Batch) {
        let queue = self.queues.entry(to.clone()).or_default();
        queue.batches.push_front(batch);
        queue.is_out = false;
    }
}

impl Queue {
    /// When the front batch may go; `None` while it cannot.
    fn ready_at(&self, policy: &Policy, identification: Identification) -> Option<Instant> {
        let front = self.batches.front()?;
        if identification == Identification::Pending && front.identity.is_none() {
            return None;
        }
        if let Some(not_before) = front.not_before {
            return Some(not_before);
        }
        let waits = !policy.is_flushing
            && front.attempts == 0
            && self.batches.len() == 1
            && front.size_bytes < policy.batch_bytes;
        Some(if waits {
            front.created + policy.linger
        } else {
            front.created
        })
    }
}
