//! What a log knows of its idempotent producers: for each the newest epoch and the last five batches.
//!
//! Pure: no clock, no file. Invariant: the batches of a producer are of its newest epoch and follow each other.
//! Used in layers: a log holds the appended layer, the consensus layer lays batches that are under way over it.

mod snapshot;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use tidelog_protocol::batch::BatchHeader;
use tidelog_protocol::types::{Offset, ProducerEpoch, ProducerId, Sequence, TimestampMs};

/// Batches kept of each producer: as many as a client may have in flight.
const BATCHES_MAX: usize = 5;

/// Parts of the table that are copied on their own when a clone is alive.
const SHARDS: usize = 32;

/// "No sequence" on the wire and on disk.
const NO_SEQUENCE: Sequence = Sequence(-1);

/// What the sequence numbers of a batch say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SequenceCheck {
    /// Next in order, or of no producer id: append it.
    Accept,
    /// The same batch was recorded before.
    Duplicate {
        /// Offset of its first record.
        base_offset: Offset,
        /// Its largest timestamp (the append time in LogAppendTime topics).
        max_timestamp: TimestampMs,
    },
    /// Refused.
    Reject(SequenceError),
}

/// Why a batch's sequence numbers are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SequenceError {
    /// Does not follow the last batch of the producer.
    #[error("sequence {got:?} does not follow {last:?}")]
    OutOfOrder {
        /// First sequence of the batch.
        got: Sequence,
        /// Last sequence recorded; -1 when none is.
        last: Sequence,
    },
    /// The producer was fenced by a newer epoch.
    #[error("producer epoch {got:?} is older than {current:?}")]
    StaleEpoch {
        /// Epoch of the batch.
        got: ProducerEpoch,
        /// Newest epoch recorded.
        current: ProducerEpoch,
    },
}

/// One producer, as DescribeProducers shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerStateView {
    /// Producer.
    pub producer_id: ProducerId,
    /// Its newest epoch.
    pub epoch: ProducerEpoch,
    /// Its last sequence; -1 when none is recorded.
    pub last_sequence: Sequence,
    /// Its largest timestamp.
    pub last_timestamp: TimestampMs,
    /// Epoch of the coordinator that wrote its last marker; -1 when none did.
    pub coordinator_epoch: i32,
    /// First offset of its open transaction.
    pub transaction_start: Option<Offset>,
}

/// A batch as it is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct BatchMark {
    last_sequence: Sequence,
    last_offset: Offset,
    offset_delta: i32,
    timestamp: TimestampMs,
}

impl BatchMark {
    fn first_sequence(self) -> Sequence {
        // Sequences wrap from 2^31-1 to 0.
        let first = i64::from(self.last_sequence.0) - i64::from(self.offset_delta);
        let wrapped = if first < 0 {
            first + i64::from(i32::MAX) + 1
        } else {
            first
        };
        Sequence(i32::try_from(wrapped).unwrap_or(0))
    }

    fn base_offset(self) -> Offset {
        Offset(
            self.last_offset
                .0
                .saturating_sub(i64::from(self.offset_delta)),
        )
    }
}

/// What is known of one producer.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ProducerState {
    epoch: ProducerEpoch,
    /// Oldest first.
    batches: [Option<BatchMark>; BATCHES_MAX],
    last_timestamp: TimestampMs,
    coordinator_epoch: i32,
    transaction_start: Option<Offset>,
}

impl ProducerState {
    fn new(epoch: ProducerEpoch) -> ProducerState {
        ProducerState {
            epoch,
            batches: [None; BATCHES_MAX],
            last_timestamp: TimestampMs::NONE,
            coordinator_epoch: -1,
            transaction_start: None,
        }
    }

    fn marks(&self) -> impl DoubleEndedIterator<Item = &BatchMark> {
        self.batches.iter().flatten()
    }

    fn last_sequence(&self) -> Sequence {
        self.marks()
            .next_back()
            .map_or(NO_SEQUENCE, |mark| mark.last_sequence)
    }

    fn push(&mut self, mark: BatchMark) {
        if let Some(free) = self.batches.iter_mut().find(|slot| slot.is_none()) {
            *free = Some(mark);
        } else {
            self.batches.rotate_left(1);
            self.batches[BATCHES_MAX - 1] = Some(mark);
        }
    }

    fn check(&self, batch: &BatchHeader) -> SequenceCheck {
        let epoch = batch.producer_epoch();
        if epoch < self.epoch {
            let error = SequenceError::StaleEpoch {
                got: epoch,
                current: self.epoch,
            };
            return SequenceCheck::Reject(error);
        }
        if batch.is_control() {
            return SequenceCheck::Accept;
        }
        let (first, last) = (batch.base_sequence(), batch.last_sequence());
        if epoch == self.epoch
            && let Some(mark) = self
                .marks()
                .find(|mark| mark.first_sequence() == first && mark.last_sequence == last)
        {
            return SequenceCheck::Duplicate {
                base_offset: mark.base_offset(),
                max_timestamp: mark.timestamp,
            };
        }
        let before = if epoch == self.epoch {
            self.last_sequence()
        } else {
            NO_SEQUENCE
        };
        let expected = if before == NO_SEQUENCE {
            Sequence(0)
        } else {
            before.plus(1)
        };
        if first == expected {
            SequenceCheck::Accept
        } else {
            let last = self.last_sequence();
            SequenceCheck::Reject(SequenceError::OutOfOrder { got: first, last })
        }
    }

    fn record(&mut self, batch: &BatchHeader, base_offset: Offset) {
        if batch.producer_epoch() > self.epoch {
            self.epoch = batch.producer_epoch();
            self.batches = [None; BATCHES_MAX];
        }
        self.last_timestamp = batch.max_timestamp();
        if batch.is_control() {
            self.transaction_start = None;
            return;
        }
        let delta = batch.last_offset_delta();
        self.push(BatchMark {
            last_sequence: batch.last_sequence(),
            last_offset: Offset(base_offset.0.saturating_add(i64::from(delta))),
            offset_delta: delta,
            timestamp: batch.max_timestamp(),
        });
        if batch.is_transactional() && self.transaction_start.is_none() {
            self.transaction_start = Some(base_offset);
        }
    }
}

/// Producers of one log with their last five batches. Cloning shares what is not changed afterwards.
#[derive(Clone, Debug, Default)]
pub struct ProducerStateTable {
    /// Empty until the first producer, then [`SHARDS`] parts by producer id.
    shards: Vec<Arc<HashMap<ProducerId, ProducerState>>>,
}

impl PartialEq for ProducerStateTable {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().all(|(id, state)| other.get(id) == Some(state))
    }
}

impl ProducerStateTable {
    /// Judges a batch by its sequence numbers; changes nothing.
    pub fn check(&self, batch: &BatchHeader) -> SequenceCheck {
        self.get(batch.producer_id())
            .map_or(SequenceCheck::Accept, |state| state.check(batch))
    }

    /// Judges a batch by this layer where it knows the producer, else by the layer below.
    pub fn check_over(&self, below: &ProducerStateTable, batch: &BatchHeader) -> SequenceCheck {
        let layer = if self.get(batch.producer_id()).is_some() {
            self
        } else {
            below
        };
        layer.check(batch)
    }

    /// Records a batch that is (to be) appended at `base_offset`.
    pub fn record(&mut self, batch: &BatchHeader, base_offset: Offset) {
        if batch.producer_id().0 < 0 {
            return;
        }
        let epoch = batch.producer_epoch();
        let shard = self.shard_mut(batch.producer_id());
        shard
            .entry(batch.producer_id())
            .or_insert_with(|| ProducerState::new(epoch))
            .record(batch, base_offset);
    }

    /// Records a batch in this layer, which begins with what the layer below knows of the producer.
    pub fn record_over(
        &mut self,
        below: &ProducerStateTable,
        batch: &BatchHeader,
        base_offset: Offset,
    ) {
        let id = batch.producer_id();
        if self.get(id).is_none()
            && let Some(state) = below.get(id)
        {
            let state = state.clone();
            self.shard_mut(id).insert(id, state);
        }
        self.record(batch, base_offset);
    }

    /// Forgets one producer.
    pub fn remove(&mut self, id: ProducerId) {
        if self.get(id).is_some() {
            self.shard_mut(id).remove(&id);
        }
    }

    /// Forgets producers whose last batch is older than `expiration_ms` and that have no open transaction.
    pub fn remove_expired(&mut self, now: TimestampMs, expiration_ms: i64) {
        let expired = |state: &ProducerState| {
            state.transaction_start.is_none()
                && now.0.saturating_sub(state.last_timestamp.0) >= expiration_ms
        };
        for shard in &mut self.shards {
            if shard.values().any(expired) {
                Arc::make_mut(shard).retain(|_, state| !expired(state));
            }
        }
    }

    /// Number of producers.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.len()).sum()
    }

    /// Whether no producer is known.
    pub fn is_empty(&self) -> bool {
        self.shards.iter().all(|shard| shard.is_empty())
    }

    /// Offset of the last record of each producer.
    pub fn last_offsets(&self) -> impl Iterator<Item = (ProducerId, Offset)> {
        self.iter()
            .filter_map(|(id, state)| Some((id, state.marks().next_back()?.last_offset)))
    }

    /// All producers, by id.
    pub fn producers(&self) -> Vec<ProducerStateView> {
        let mut views: Vec<_> = self
            .iter()
            .map(|(producer_id, state)| ProducerStateView {
                producer_id,
                epoch: state.epoch,
                last_sequence: state.last_sequence(),
                last_timestamp: state.last_timestamp,
                coordinator_epoch: state.coordinator_epoch,
                transaction_start: state.transaction_start,
            })
            .collect();
        views.sort_by_key(|view| view.producer_id);
        views
    }

    fn iter(&self) -> impl Iterator<Item = (ProducerId, &ProducerState)> {
        self.shards
            .iter()
            .flat_map(|shard| shard.iter())
            .map(|(id, state)| (*id, state))
    }

    fn get(&self, id: ProducerId) -> Option<&ProducerState> {
        self.shards.get(shard_of(id))?.get(&id)
    }

    fn shard_mut(&mut self, id: ProducerId) -> &mut HashMap<ProducerId, ProducerState> {
        if self.shards.is_empty() {
            self.shards.resize_with(SHARDS, Arc::default);
        }
        Arc::make_mut(&mut self.shards[shard_of(id)])
    }
}

/// Producer ids are handed out in blocks, so that neighbours belong to different producers.
fn shard_of(id: ProducerId) -> usize {
    usize::try_from(id.0).unwrap_or(0) % SHARDS
}
