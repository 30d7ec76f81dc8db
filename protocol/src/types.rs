//! Ids, offsets and epochs as newtypes, so that two `i32` never stand side by side in a signature.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use crate::{StrBytes, messages};

/// Number of a broker, `broker.id`; unique in a cluster and never negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BrokerId(pub i32);

/// Index of a partition in its topic, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionIndex(pub i32);

/// Kafka offset of a record: dense from 0 in each partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Offset(pub i64);

/// Epoch of a partition's leader; rises with each change of leader. Equal to the Raft term.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LeaderEpoch(pub i32);

/// Id of an idempotent producer; -1 on the wire means none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProducerId(pub i64);

/// Epoch of an idempotent producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProducerEpoch(pub i16);

/// Sequence number of a record of an idempotent producer; after 2^31-1 comes 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sequence(pub i32);

/// Milliseconds since the Unix epoch; -1 means none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TimestampMs(pub i64);

/// Random id of one incarnation of a topic (KIP-516).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicId(pub Uuid);

/// Name of a topic. Cloning shares the text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicName(Arc<str>);

/// One partition of a topic, by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic's name.
    pub topic: TopicName,
    /// The partition's index.
    pub partition: PartitionIndex,
}

impl Sequence {
    /// The sequence `count` records later, wrapping from 2^31-1 to 0.
    pub fn plus(self, count: i32) -> Sequence {
        let sum = i64::from(self.0) + i64::from(count);
        Sequence((sum % (i64::from(i32::MAX) + 1)) as i32)
    }
}

impl Sequence {
    /// "No sequence" on the wire.
    pub const NONE: Sequence = Sequence(-1);
}

impl ProducerId {
    /// "No producer id" on the wire.
    pub const NONE: ProducerId = ProducerId(-1);

    /// Whether it is a producer's; every negative number means none.
    pub fn is_some(self) -> bool {
        self.0 >= 0
    }
}

impl ProducerEpoch {
    /// "No producer epoch" on the wire.
    pub const NONE: ProducerEpoch = ProducerEpoch(-1);

    /// Whether the next epoch would not leave room for a fencing epoch: the producer needs a new id (Kafka
    /// exhausts at 32,766).
    pub fn is_exhausted(self) -> bool {
        self.0 >= i16::MAX - 1
    }

    /// The epoch after this one; `None` when exhausted.
    pub fn next(self) -> Option<ProducerEpoch> {
        (!self.is_exhausted()).then(|| ProducerEpoch(self.0 + 1))
    }
}

impl LeaderEpoch {
    /// "Unknown" or "do not check" on the wire.
    pub const NONE: LeaderEpoch = LeaderEpoch(-1);
}

impl Offset {
    /// "None" or "unknown" on the wire.
    pub const NONE: Offset = Offset(-1);

    /// The offset `count` records later.
    pub fn plus(self, count: i64) -> Offset {
        Offset(self.0.saturating_add(count))
    }
}

impl TopicId {
    /// "No id" on the wire.
    pub const NONE: TopicId = TopicId(Uuid::nil());
}

impl TimestampMs {
    /// "No timestamp" on the wire.
    pub const NONE: TimestampMs = TimestampMs(-1);
}

impl TopicName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A wire name holds on to the frame that it came in, so this copies the text.
impl From<&messages::TopicName> for TopicName {
    fn from(name: &messages::TopicName) -> Self {
        TopicName::from(name.as_str())
    }
}

/// Shares the text.
impl From<&TopicName> for StrBytes {
    fn from(name: &TopicName) -> Self {
        StrBytes::from_utf8(Bytes::from_owner(SharedText(name.0.clone()))).unwrap_or_default()
    }
}

/// Shares the text.
impl From<&TopicName> for messages::TopicName {
    fn from(name: &TopicName) -> Self {
        messages::TopicName(name.into())
    }
}

/// Lets a `Bytes` own a shared text.
struct SharedText(Arc<str>);

impl AsRef<[u8]> for SharedText {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl From<&str> for TopicName {
    fn from(name: &str) -> Self {
        TopicName(Arc::from(name))
    }
}

impl fmt::Debug for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition.0)
    }
}

impl std::borrow::Borrow<str> for TopicName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for BrokerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for PartitionIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for LeaderEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_wrap_to_zero() {
        assert_eq!(Sequence(5).plus(3), Sequence(8));
        assert_eq!(Sequence(i32::MAX).plus(1), Sequence(0));
        assert_eq!(Sequence(i32::MAX - 1).plus(3), Sequence(1));
    }

    #[test]
    fn producer_epochs_end_before_the_fencing_epoch() {
        assert_eq!(ProducerEpoch::NONE.next(), Some(ProducerEpoch(0)));
        assert_eq!(
            ProducerEpoch(i16::MAX - 2).next(),
            Some(ProducerEpoch(i16::MAX - 1))
        );
        assert_eq!(ProducerEpoch(i16::MAX - 1).next(), None);
        assert!(!ProducerId::NONE.is_some() && ProducerId(0).is_some());
    }

    #[test]
    fn topic_names_cross_the_wire() {
        let name = TopicName::from("orders");
        let wire = messages::TopicName::from(&name);
        assert_eq!(wire.as_str(), "orders");
        assert_eq!(wire.as_ptr(), name.as_str().as_ptr());
        assert_eq!(TopicName::from(&wire), name);
    }
}
