//! Properties of groups, offsets, producers and replicas.

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
    used("offsets.commit.timeout.ms", Int(1, I32), Some("5000"), High, "How long a commit may wait for its replicas."),
    used("offsets.retention.minutes", Int(1, I32), Some("10080"), High, "Committed offsets are forgotten this long after their group lost its last member or, outside groups, after the commit."),
    used("offsets.retention.check.interval.ms", Long(1, I64), Some("600000"), High, "How often forgotten offsets are looked for."),
    used("offsets.topic.num.partitions", Int(1, I32), Some("50"), High, "Partitions of __consumer_offsets when it is created."),
    used("offsets.topic.replication.factor", Short(1, 32767), Some("3"), High, "Replicas of __consumer_offsets when it is created; as many as there are brokers where those are fewer."),
    used("offsets.topic.segment.bytes", Int(1, I32), Some("104857600"), High, "Segment size of __consumer_offsets when it is created; at least 1 MiB."),
    dynamic("producer.id.expiration.ms", Int(1, I32), Some("86400000"), Low, "An idempotent producer's state in a partition is forgotten this long after its last batch."),
    used("producer.id.expiration.check.interval.ms", Int(1, I32), Some("600000"), Low, "How often forgotten producers are looked for."),
    used("transaction.max.timeout.ms", Int(1, I32), Some("900000"), High, "Longest transaction time-out that a producer may ask for."),
    used("replica.lag.time.max.ms", Long(1, I64), Some("30000"), High, "A follower that was not at its leader's end for this long is no longer in sync."),
    used("broker.heartbeat.interval.ms", Int(1, I32), Some("2000"), Medium, "How often a broker tells the controller that it lives."),
    used("broker.session.timeout.ms", Int(1, I32), Some("9000"), Medium, "A broker that was silent for this long is fenced."),
];
