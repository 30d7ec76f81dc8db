//! What a log knows of its idempotent producers.

use tidelog_protocol::batch::RecordBatch;
use tidelog_protocol::types::{Offset, ProducerEpoch, ProducerId, Sequence, TimestampMs};

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

/// Producers of one log with their last five batches. Cloning shares what is not changed.
#[derive(Clone, Debug, Default)]
pub struct ProducerStateTable {
    _private: (),
}

impl ProducerStateTable {
    /// Judges a batch by its sequence numbers; changes nothing.
    pub fn check(&self, _batch: &RecordBatch) -> SequenceCheck {
        unimplemented!()
    }
    /// Records a batch that is (to be) appended at `base_offset`.
    pub fn record(&mut self, _batch: &RecordBatch, _base_offset: Offset) {
        unimplemented!()
    }
    /// Forgets producers whose last batch is older than `expiration_ms`.
    pub fn remove_expired(&mut self, _now: TimestampMs, _expiration_ms: i64) {
        unimplemented!()
    }
    /// All producers, by id.
    pub fn producers(&self) -> Vec<ProducerStateView> {
        unimplemented!()
    }
    /// Bytes for a snapshot that travels; read back by [`ProducerStateTable::decode`].
    pub fn encode(&self) -> bytes::Bytes {
        unimplemented!()
    }
    /// Reads what [`ProducerStateTable::encode`] wrote.
    pub fn decode(_bytes: &[u8]) -> Option<ProducerStateTable> {
        unimplemented!()
    }
}
