//! Properties of groups, offsets and producers.

use super::super::definition::Importance::{High, Low, Medium};
use super::super::definition::Kind::{Int, Long, Short};
use super::super::definition::{Definition, dynamic, used};
use super::{I32, I64};

/// The properties.
#[rustfmt::skip]
pub static DEFINITIONS: &[Definition] = &[
    used("group.initial.rebalance.delay.ms", Int(0, I32), Some("3000"), Medium, "How long an empty group waits for more members before its first rebalance."),
    used("group.min.session.timeout.ms", Int(0, I32), Some("6000"), Medium, "Shortest session time-out that a member may ask for."),
    used("group.max.session.timeout.ms", Int(0, I32), Some("1800000"), Medium, "Longest session time-out that a member may ask for."),
    used("group.max.size", Int(1, I32), Some("2147483647"), Medium, "Most members of a group."),
    used("offset.metadata.max.bytes", Int(0, I32), Some("4096"), High, "Longest metadata text of a committed offset."),
    used("offsets.retention.minutes", Int(1, I32), Some("10080"), High, "Committed offsets are forgotten this long after their group lost its last member or, outside groups, after the commit."),
    used("offsets.retention.check.interval.ms", Long(1, I64), Some("600000"), High, "How often forgotten offsets are looked for."),
    used("offsets.topic.num.partitions", Int(1, I32), Some("50"), High, "Partitions of __consumer_offsets when it is created."),
    used("offsets.topic.replication.factor", Short(1, 32767), Some("3"), High, "Replicas of __consumer_offsets when it is created; as many as there are brokers where those are fewer."),
    used("offsets.topic.segment.bytes", Int(1, I32), Some("104857600"), High, "Segment size of __consumer_offsets when it is created; at least 1 MiB."),
    dynamic("producer.id.expiration.ms", Int(1, I32), Some("86400000"), Low, "An idempotent producer's state in a partition is forgotten this long after its last batch."),
];
