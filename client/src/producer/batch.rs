//! The records of one batch, from the first one until all are delivered or failed.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tidelog_protocol::batch::{BatchBuilder, BuildError, NewRecord, RecordBatch};
use tidelog_protocol::compression::Compression;
use tidelog_protocol::types::{
    Offset, ProducerEpoch, ProducerId, Sequence, TimestampMs, TopicPartition,
};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;

use super::record::{Delivered, ProducerRecord};
use crate::error::Error;

/// A record and who waits for it. Gives its room in the producer's buffer back when dropped.
#[derive(Debug)]
pub(super) struct PendingRecord {
    timestamp: TimestampMs,
    key: Option<Bytes>,
    value: Option<Bytes>,
    headers: Vec<(String, Option<Bytes>)>,
    size_bytes: usize,
    done: oneshot::Sender<Result<Delivered, Error>>,
    _room: OwnedSemaphorePermit,
}

/// Producer id, epoch and first sequence of a batch. Once given they stay, through all retries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) id: ProducerId,
    pub(super) epoch: ProducerEpoch,
    pub(super) sequence: Sequence,
}

/// Records of one partition that travel together.
#[derive(Debug)]
pub(super) struct Batch {
    records: Vec<PendingRecord>,
    pub(super) size_bytes: usize,
    pub(super) created: Instant,
    pub(super) identity: Option<Identity>,
    pub(super) attempts: u32,
    /// Not to be sent before this moment.
    pub(super) not_before: Option<Instant>,
    /// An attempt ended without a clear answer, so the broker may have the batch.
    pub(super) is_in_doubt: bool,
    pub(super) last_error: Option<Error>,
    encoded: Option<RecordBatch>,
}

impl PendingRecord {
    pub(super) fn new(
        record: ProducerRecord,
        size_bytes: usize,
        done: oneshot::Sender<Result<Delivered, Error>>,
        room: OwnedSemaphorePermit,
    ) -> Self {
        PendingRecord {
            timestamp: record.timestamp.unwrap_or_else(now),
            key: record.key,
            value: record.value,
            headers: record.headers,
            size_bytes,
            done,
            _room: room,
        }
    }

    fn finish(self, outcome: Result<Delivered, Error>) {
        // Whoever dropped the delivery does not want to know.
        drop(self.done.send(outcome));
    }
}

fn now() -> TimestampMs {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    TimestampMs(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

impl Batch {
    pub(super) fn new(now: Instant) -> Self {
        Batch {
            records: Vec::new(),
            size_bytes: 0,
            created: now,
            identity: None,
            attempts: 0,
            not_before: None,
            is_in_doubt: false,
            last_error: None,
            encoded: None,
        }
    }

    pub(super) fn push(&mut self, record: PendingRecord) {
        self.size_bytes = self.size_bytes.saturating_add(record.size_bytes);
        self.records.push(record);
    }

    pub(super) fn count(&self) -> usize {
        self.records.len()
    }

    /// Whether a record still fits; a batch that was sent once takes no more.
    pub(super) fn has_room_for(&self, record: &PendingRecord, batch_bytes: usize) -> bool {
        self.attempts == 0
            && self.identity.is_none()
            && self.size_bytes.saturating_add(record.size_bytes) <= batch_bytes
    }

    /// The batch as it travels; the same bytes at each attempt.
    pub(super) fn encoded(&mut self, compression: Compression) -> Result<RecordBatch, BuildError> {
        if let Some(batch) = &self.encoded {
            return Ok(batch.clone());
        }
        let mut builder = BatchBuilder::new(compression);
        if let Some(identity) = self.identity {
            builder = builder.producer(identity.id, identity.epoch, identity.sequence);
        }
        for record in &self.records {
            let headers: Vec<_> = record
                .headers
                .iter()
                .map(|(key, value)| (key.as_bytes(), value.as_deref()))
                .collect();
            builder.push(NewRecord {
                timestamp: record.timestamp,
                key: record.key.as_deref(),
                value: record.value.as_deref(),
                headers: &headers,
            })?;
        }
        let batch = builder.build()?;
        self.encoded = Some(batch.clone());
        Ok(batch)
    }

    /// Takes its place in the order of the producer; again only after [`Self::forget_identity`].
    pub(super) fn identify(&mut self, identity: Identity) {
        debug_assert!(self.identity.is_none());
        self.identity = Some(identity);
        self.encoded = None;
    }

    /// For a batch that no broker can have stored.
    pub(super) fn forget_identity(&mut self) {
        self.identity = None;
        self.encoded = None;
    }

    /// Splits a batch that the broker found too large; a single record comes back as it is.
    pub(super) fn split(mut self) -> Result<(Batch, Batch), Box<Batch>> {
        if self.records.len() < 2 {
            return Err(Box::new(self));
        }
        let second_half = self.records.split_off(self.records.len() / 2);
        let half = |records: Vec<PendingRecord>| {
            let mut batch = Batch::new(self.created);
            records.into_iter().for_each(|record| batch.push(record));
            // Closed for further records: it would grow too large again.
            batch.attempts = 1;
            batch
        };
        Ok((half(self.records), half(second_half)))
    }

    /// Tells every record where it is.
    pub(super) fn deliver(self, to: &TopicPartition, base_offset: Option<Offset>) {
        for (delta, record) in (0..).zip(self.records) {
            record.finish(Ok(Delivered {
                partition: to.clone(),
                offset: base_offset.map(|base| base.plus(delta)),
            }));
        }
    }

    /// Tells every record why it failed: its own reason if it has one, else the batch's.
    pub(super) fn fail(self, error: &Error, of_records: &[(usize, Error)]) {
        for (index, record) in self.records.into_iter().enumerate() {
            let own = of_records.iter().find(|(at, _)| *at == index);
            record.finish(Err(own.map_or(error, |(_, own)| own).clone()));
        }
    }
}
