//! The order of batches between their validation and their append, and the sequence numbers in it.
//!
//! Idempotent producers pipeline: a batch is judged by what was submitted before it, not only by what is in the log.
//! Three layers: what is committed (below the high watermark), what is appended (the log's table, rewound when the log
//! is cut), and what was given its place here but is not appended yet. The last one is dropped, from the first batch
//! that is refused on, and everything behind that batch turns void.
//!
//! Pure but for the batches it holds. Invariant: `next_offset` is the log end plus the records of all pending batches.

use std::collections::VecDeque;

use tidelog_protocol::batch::RecordBatch;
use tidelog_protocol::types::{LeaderEpoch, Offset, ProducerId, TimestampMs};
use tidelog_storage::log::{ProducerStateTable, SequenceCheck, SequenceError};

/// Number of a submission in the order of its partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SubmissionNumber(pub u64);

/// Where a batch stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// It has a place.
    Placed {
        /// Its number.
        number: SubmissionNumber,
        /// The offset that its first record will have.
        base_offset: Offset,
        /// Epoch in which the place is valid.
        epoch: LeaderEpoch,
    },
    /// It has a place already.
    Duplicate {
        /// Offset of the first record.
        base_offset: Offset,
    },
    /// Its sequence numbers are refused.
    Refused(SequenceError),
    /// This replica does not lead.
    NotLeader,
}

/// A batch that has a place and is not appended.
#[derive(Debug)]
struct Pending {
    number: SubmissionNumber,
    base_offset: Offset,
    /// Kept for producers' batches only: they are recorded again after a refusal.
    batch: Option<RecordBatch>,
    void: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub struct AppendOrder {
    leading: Option<LeaderEpoch>,
    producers: ProducerStateTable,
    next_offset: Offset,
    next_number: u64,
    pending: VecDeque<Pending>,
}

impl AppendOrder {
    /// This replica leads from here on: `log` is all that was appended.
    pub fn begin(&mut self, epoch: LeaderEpoch, log: ProducerStateTable, log_end: Offset) {
        self.pending.clear();
        self.leading = Some(epoch);
        self.producers = log;
        self.next_offset = log_end;
    }

    /// This replica leads no more. Batches that were not appended have lost their places.
    pub fn end(&mut self) {
        self.leading = None;
        self.pending.clear();
        self.producers = ProducerStateTable::default();
    }

    /// The group sleeps: places are given again after the next beginning.
    pub fn rest(&mut self) {
        self.leading = None;
        self.pending = VecDeque::new();
        self.producers = ProducerStateTable::default();
    }

    /// Whether batches that have a place are not appended.
    pub fn is_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Gives a batch its place.
    pub fn place(&mut self, batch: &RecordBatch) -> Placement {
        let Some(epoch) = self.leading else {
            return Placement::NotLeader;
        };
        match self.producers.check(batch) {
            SequenceCheck::Accept => {}
            SequenceCheck::Duplicate { base_offset, .. } => {
                return Placement::Duplicate { base_offset };
            }
            SequenceCheck::Reject(error) => return Placement::Refused(error),
        }
        let number = SubmissionNumber(self.next_number);
        let base_offset = self.next_offset;
        self.next_number += 1;
        self.next_offset = Offset(base_offset.0 + i64::from(batch.record_count()));
        let of_producer = batch.producer_id() != ProducerId::NONE;
        if of_producer {
            self.producers.record(batch, base_offset);
        }
        let batch = of_producer.then(|| batch.clone());
        self.pending.push_back(Pending {
            number,
            base_offset,
            batch,
            void: false,
        });
        Placement::Placed {
            number,
            base_offset,
            epoch,
        }
    }

    /// A batch was refused after it had its place. Everything behind it turns void; what came before stays. `log` is
    /// the table of what was appended. Returns the offset from which on places are void, if the batch had one.
    pub fn refused(
        &mut self,
        number: SubmissionNumber,
        log: impl FnOnce() -> ProducerStateTable,
    ) -> Option<Offset> {
        let position = self.position(number)?;
        let refused = self.pending.remove(position)?;
        if refused.void {
            return None;
        }
        self.pending
            .iter_mut()
            .skip(position)
            .for_each(|behind| behind.void = true);
        self.next_offset = refused.base_offset;
        self.producers = log();
        for pending in self.pending.iter().take(position) {
            if let Some(batch) = &pending.batch {
                self.producers.record(batch, pending.base_offset);
            }
        }
        Some(refused.base_offset)
    }

    /// Whether a batch may be appended where it was placed.
    pub fn admits(&self, number: SubmissionNumber) -> bool {
        self.position(number)
            .and_then(|position| self.pending.get(position))
            .is_some_and(|pending| !pending.void)
    }

    /// All batches up to this one are in the log, or void.
    pub fn appended(&mut self, last: SubmissionNumber) {
        while self
            .pending
            .front()
            .is_some_and(|pending| pending.number <= last)
        {
            self.pending.pop_front();
        }
    }

    /// Whether nothing waits for its append, so that the log's own table says it all.
    pub fn is_settled(&self) -> bool {
        self.leading.is_some() && self.pending.is_empty()
    }

    /// Forgets producers that have been idle for too long.
    pub fn expire_producers(&mut self, now: TimestampMs, expiration_ms: i64) {
        if self.is_settled() {
            self.producers.remove_expired(now, expiration_ms);
        }
    }

    fn position(&self, number: SubmissionNumber) -> Option<usize> {
        self.pending
            .binary_search_by_key(&number, |pending| pending.number)
            .ok()
    }
}

#[cfg(test)]
mod tests;
