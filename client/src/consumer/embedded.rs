//! The consumers' own format inside of JoinGroup and SyncGroup: subscriptions and assignments, version 0, which every
//! consumer reads.
//!
//! What other members sent is not believed: every length is compared with the bytes at hand before memory is taken.

use bytes::{BufMut, Bytes};
use tidelog_protocol::types::{PartitionIndex, TopicName, TopicPartition};

use crate::admin::by_topic;

const VERSION: i16 = 0;

/// A subscription to topics.
pub(crate) fn write_subscription(topics: &[TopicName]) -> Bytes {
    let mut out = Vec::new();
    out.put_i16(VERSION);
    put_count(&mut out, topics.len());
    for topic in topics {
        put_text(&mut out, topic.as_str());
    }
    // No user data.
    out.put_i32(-1);
    out.into()
}

/// The topics of a subscription of any version; `None` if it is malformed.
pub(crate) fn read_subscription(bytes: &[u8]) -> Option<Vec<TopicName>> {
    let mut rest = versioned(bytes)?;
    let count = take_count(&mut rest)?;
    (0..count).map(|_| take_text(&mut rest)).collect()
}

/// An assignment of partitions.
pub(crate) fn write_assignment(partitions: &[TopicPartition]) -> Bytes {
    let mut out = Vec::new();
    out.put_i16(VERSION);
    let topics = by_topic(partitions.iter().map(|partition| (partition.clone(), ())));
    put_count(&mut out, topics.len());
    for (topic, partitions) in topics {
        put_text(&mut out, topic.as_str());
        put_count(&mut out, partitions.len());
        for (partition, ()) in partitions {
            out.put_i32(partition.0);
        }
    }
    out.put_i32(-1);
    out.into()
}

/// The partitions of an assignment of any version; `None` if it is malformed. No bytes at all assign nothing.
pub(crate) fn read_assignment(bytes: &[u8]) -> Option<Vec<TopicPartition>> {
    if bytes.is_empty() {
        return Some(Vec::new());
    }
    let mut rest = versioned(bytes)?;
    let mut partitions = Vec::new();
    for _ in 0..take_count(&mut rest)? {
        let topic = take_text(&mut rest)?;
        for _ in 0..take_count(&mut rest)? {
            partitions.push(TopicPartition {
                topic: topic.clone(),
                partition: PartitionIndex(i32::from_be_bytes(take(&mut rest)?)),
            });
        }
    }
    partitions.sort();
    Some(partitions)
}

fn versioned(bytes: &[u8]) -> Option<&[u8]> {
    let mut rest = bytes;
    (i16::from_be_bytes(take(&mut rest)?) >= 0).then_some(rest)
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (field, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(*field)
}

/// A count that the rest can hold: an element takes a byte at least.
fn take_count(rest: &mut &[u8]) -> Option<usize> {
    let count = usize::try_from(i32::from_be_bytes(take(rest)?)).ok()?;
    (count <= rest.len()).then_some(count)
}

fn take_text(rest: &mut &[u8]) -> Option<TopicName> {
    let len = usize::try_from(i16::from_be_bytes(take(rest)?)).ok()?;
    let (text, after) = rest.split_at_checked(len)?;
    *rest = after;
    std::str::from_utf8(text).ok().map(TopicName::from)
}

/// Counts come from lists of topics and partitions, which are far below the limit of 2^31.
fn put_count(out: &mut Vec<u8>, count: usize) {
    out.put_i32(i32::try_from(count).unwrap_or(i32::MAX));
}

/// Topic names are at most 249 letters long.
fn put_text(out: &mut Vec<u8>, text: &str) {
    out.put_i16(i16::try_from(text.len()).unwrap_or(i16::MAX));
    out.put_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(topic: &str, index: i32) -> TopicPartition {
        TopicPartition {
            topic: topic.into(),
            partition: PartitionIndex(index),
        }
    }

    #[test]
    fn subscriptions_are_as_kafka_writes_them() {
        let bytes = write_subscription(&["ab".into(), "c".into()]);
        assert_eq!(&bytes[..], b"\0\0\0\0\0\x02\0\x02ab\0\x01c\xff\xff\xff\xff");
        assert_eq!(
            read_subscription(&bytes),
            Some(vec!["ab".into(), "c".into()])
        );
        // Later versions have more behind it.
        let newer = [&b"\0\x03\0\0\0\x01\0\x01x"[..], &[0; 20]].concat();
        assert_eq!(read_subscription(&newer), Some(vec!["x".into()]));
    }

    #[test]
    fn assignments_are_as_kafka_writes_them() {
        let partitions = [partition("a", 0), partition("a", 2), partition("b", 1)];
        let bytes = write_assignment(&partitions);
        assert_eq!(
            &bytes[..],
            b"\0\0\0\0\0\x02\0\x01a\0\0\0\x02\0\0\0\0\0\0\0\x02\0\x01b\0\0\0\x01\0\0\0\x01\xff\xff\xff\xff"
        );
        assert_eq!(read_assignment(&bytes), Some(partitions.to_vec()));
        assert_eq!(read_assignment(b""), Some(Vec::new()));
    }

    #[test]
    fn lengths_that_lie_are_not_believed() {
        assert_eq!(read_subscription(b"\0\0\x7f\xff\xff\xff"), None);
        assert_eq!(read_subscription(b"\xff\xff\0\0\0\0"), None);
        assert_eq!(
            read_assignment(b"\0\0\0\0\0\x01\0\x01a\x7f\xff\xff\xff"),
            None
        );
        assert_eq!(read_assignment(b"\0\0\0\0\0\x01\x7f\xff"), None);
        let whole = write_assignment(&[partition("topic", 7)]);
        for cut in 1..whole.len() - 4 {
            assert_eq!(read_assignment(&whole[..cut]), None, "{cut}");
        }
    }
}
