//! What goes into a producer and what comes out of it.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use tidelog_protocol::types::{Offset, PartitionIndex, TimestampMs, TopicName, TopicPartition};
use tokio::sync::oneshot;

use crate::error::Error;

/// Bytes that a record's fields take beside key, value and headers, at most.
const RECORD_OVERHEAD_BYTES: usize = 32;

/// A record to be written.
#[derive(Clone, Debug)]
pub struct ProducerRecord {
    /// Where to.
    pub topic: TopicName,
    /// Which partition; `None` lets the key choose, or chance.
    pub partition: Option<PartitionIndex>,
    /// Its time; `None` is now.
    pub timestamp: Option<TimestampMs>,
    /// Key; `None` is null.
    pub key: Option<Bytes>,
    /// Value; `None` is null.
    pub value: Option<Bytes>,
    /// Headers in order; a key may occur more than once.
    pub headers: Vec<(String, Option<Bytes>)>,
}

impl ProducerRecord {
    /// A record without key and value.
    pub fn new(topic: impl Into<TopicName>) -> Self {
        ProducerRecord {
            topic: topic.into(),
            partition: None,
            timestamp: None,
            key: None,
            value: None,
            headers: Vec::new(),
        }
    }

    /// With this key.
    pub fn key(mut self, key: impl Into<Bytes>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// With this value.
    pub fn value(mut self, value: impl Into<Bytes>) -> Self {
        self.value = Some(value.into());
        self
    }

    /// With one more header.
    pub fn header(mut self, key: impl Into<String>, value: impl Into<Bytes>) -> Self {
        self.headers.push((key.into(), Some(value.into())));
        self
    }

    /// To this partition.
    pub fn partition(mut self, index: i32) -> Self {
        self.partition = Some(PartitionIndex(index));
        self
    }

    /// An upper bound of what it takes in a batch.
    pub(super) fn size_bytes(&self) -> usize {
        let len = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
        let headers: usize = self
            .headers
            .iter()
            .map(|(key, value)| key.len() + len(value) + 10)
            .sum();
        RECORD_OVERHEAD_BYTES + len(&self.key) + len(&self.value) + headers
    }
}

/// Where a record was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// The partition.
    pub partition: TopicPartition,
    /// The offset; `None` without acknowledgement, and when a retry found the record stored already.
    pub offset: Option<Offset>,
}

/// Becomes the outcome of one record.
#[derive(Debug)]
pub struct Delivery {
    outcome: oneshot::Receiver<Result<Delivered, Error>>,
}

impl Delivery {
    pub(super) fn new(outcome: oneshot::Receiver<Result<Delivered, Error>>) -> Self {
        Delivery { outcome }
    }
}

impl Future for Delivery {
    type Output = Result<Delivered, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.outcome)
            .poll(context)
            .map(|outcome| outcome.unwrap_or(Err(Error::Closed)))
    }
}
