//! Kafka's properties of coordinators and protocols that Tidelog does not have yet, or tunes itself.

use super::super::definition::Importance::{High, Low, Medium};
use super::super::definition::Kind::{Bool, Class, Int, List, Short, Text};
use super::super::definition::{Definition, default_only, no_effect};
use super::{I32, I32_MIN};

const CONSUMER_GROUPS: &str =
    "Tidelog serves classic consumer groups; the newer consumer protocol is not built yet.";
const SHARE_GROUPS: &str = "Tidelog does not have share groups yet.";
const STREAMS_GROUPS: &str = "Tidelog does not have the streams group protocol.";
const COORDINATOR: &str = "Tidelog's coordinators size their own threads and buffers.";
const TRANSACTIONS: &str = "Tidelog does not have transactions yet.";
const DEAD_LETTERS: &str = "Tidelog does not have dead-letter topics for share groups yet.";

const COMMITS: &str = "Tidelog answers a commit once it is durable, or when the request ends.";

/// The properties.
#[rustfmt::skip]
pub static DEFINITIONS: &[Definition] = &[
    no_effect("group.consumer.assignment.interval.ms", Int(0, I32), Some("1000"), Medium, CONSUMER_GROUPS),
    no_effect("group.consumer.assignors", List(&[]), Some("uniform,range"), Medium, CONSUMER_GROUPS),
    no_effect("group.consumer.heartbeat.interval.ms", Int(1, I32), Some("5000"), Medium, CONSUMER_GROUPS),
    no_effect("group.consumer.max.assignment.interval.ms", Int(0, I32), Some("15000"), Medium, CONSUMER_GROUPS),
    no_effect("group.consumer.max.heartbeat.interval.ms", Int(1, I32), Some("15000"), Medium, CONSUMER_GROUPS),
    no_effect("group.consumer.max.session.timeout.ms", Int(1, I32), Some("60000"), Medium, CONSUMER_GROUPS),
    no_effect("group.consumer.max.size", Int(1, I32), Some("2147483647"), Medium, CONSUMER_GROUPS),
    no_effect("group.consumer.migration.policy", Text, Some("bidirectional"), Medium, CONSUMER_GROUPS),
    no_effect("group.consumer.min.assignment.interval.ms", Int(0, I32), Some("0"), Medium, CONSUMER_GROUPS),
    no_effect("group.consumer.min.heartbeat.interval.ms", Int(1, I32), Some("5000"), Medium, CONSUMER_GROUPS),
    no_effect("group.consumer.min.session.timeout.ms", Int(1, I32), Some("45000"), Medium, CONSUMER_GROUPS),
    no_effect("group.consumer.session.timeout.ms", Int(1, I32), Some("45000"), Medium, CONSUMER_GROUPS),
    no_effect("group.coordinator.rebalance.protocols", List(&[]), Some("classic,consumer,streams"), Medium, CONSUMER_GROUPS),
    no_effect("group.share.assignment.interval.ms", Int(0, I32), Some("1000"), Medium, SHARE_GROUPS),
    no_effect("group.share.assignors", List(&[]), Some("simple"), Medium, SHARE_GROUPS),
    no_effect("group.share.delivery.count.limit", Int(2, 10), Some("5"), Medium, SHARE_GROUPS),
    no_effect("group.share.heartbeat.interval.ms", Int(1, I32), Some("5000"), Medium, SHARE_GROUPS),
    no_effect("group.share.max.assignment.interval.ms", Int(0, I32), Some("15000"), Medium, SHARE_GROUPS),
    no_effect("group.share.max.delivery.count.limit", Int(5, 25), Some("10"), Medium, SHARE_GROUPS),
    no_effect("group.share.max.heartbeat.interval.ms", Int(1, I32), Some("15000"), Medium, SHARE_GROUPS),
    no_effect("group.share.max.partition.max.record.locks", Int(2000, 10000), Some("4000"), Medium, SHARE_GROUPS),
    no_effect("group.share.max.record.lock.duration.ms", Int(30000, 3600000), Some("60000"), Medium, SHARE_GROUPS),
    no_effect("group.share.max.session.timeout.ms", Int(1, I32), Some("60000"), Medium, SHARE_GROUPS),
    no_effect("group.share.max.share.sessions", Int(1, I32), Some("2000"), Medium, SHARE_GROUPS),
    no_effect("group.share.max.size", Int(1, 1000), Some("200"), Medium, SHARE_GROUPS),
    no_effect("group.share.min.assignment.interval.ms", Int(0, I32), Some("0"), Medium, SHARE_GROUPS),
    no_effect("group.share.min.delivery.count.limit", Int(2, 5), Some("2"), Medium, SHARE_GROUPS),
    no_effect("group.share.min.heartbeat.interval.ms", Int(1, I32), Some("5000"), Medium, SHARE_GROUPS),
    no_effect("group.share.min.partition.max.record.locks", Int(100, 2000), Some("100"), Medium, SHARE_GROUPS),
    no_effect("group.share.min.record.lock.duration.ms", Int(1000, 30000), Some("15000"), Medium, SHARE_GROUPS),
    no_effect("group.share.min.session.timeout.ms", Int(1, I32), Some("45000"), Medium, SHARE_GROUPS),
    no_effect("group.share.partition.max.record.locks", Int(100, 10000), Some("2000"), Medium, SHARE_GROUPS),
    no_effect("group.share.record.lock.duration.ms", Int(1000, 3600000), Some("30000"), Medium, SHARE_GROUPS),
    no_effect("group.share.session.timeout.ms", Int(1, I32), Some("45000"), Medium, SHARE_GROUPS),
    no_effect("share.coordinator.append.linger.ms", Int(-1, I32), Some("-1"), Medium, SHARE_GROUPS),
    no_effect("share.coordinator.cached.buffer.max.bytes", Int(524288, I32), Some("1048588"), Medium, SHARE_GROUPS),
    no_effect("share.coordinator.load.buffer.size", Int(1, I32), Some("5242880"), High, SHARE_GROUPS),
    no_effect("share.coordinator.snapshot.update.records.per.snapshot", Int(0, 500), Some("500"), Medium, SHARE_GROUPS),
    no_effect("share.coordinator.state.topic.compression.codec", Int(I32_MIN, I32), Some("0"), High, SHARE_GROUPS),
    no_effect("share.coordinator.state.topic.min.isr", Short(1, 32767), Some("2"), High, SHARE_GROUPS),
    no_effect("share.coordinator.state.topic.num.partitions", Int(1, I32), Some("50"), High, SHARE_GROUPS),
    no_effect("share.coordinator.state.topic.replication.factor", Short(1, 32767), Some("3"), High, SHARE_GROUPS),
    no_effect("share.coordinator.state.topic.segment.bytes", Int(1, I32), Some("104857600"), High, SHARE_GROUPS),
    no_effect("share.coordinator.threads", Int(1, I32), Some("1"), Medium, SHARE_GROUPS),
    no_effect("share.coordinator.write.timeout.ms", Int(1, I32), Some("5000"), High, SHARE_GROUPS),
    no_effect("share.fetch.purgatory.purge.interval.requests", Int(I32_MIN, I32), Some("1000"), Medium, SHARE_GROUPS),
    no_effect("group.streams.assignment.interval.ms", Int(0, I32), Some("1000"), Medium, STREAMS_GROUPS),
    no_effect("group.streams.assignors", List(&[]), Some("sticky"), Medium, STREAMS_GROUPS),
    no_effect("group.streams.heartbeat.interval.ms", Int(1, I32), Some("5000"), Medium, STREAMS_GROUPS),
    no_effect("group.streams.initial.rebalance.delay.ms", Int(0, I32), Some("3000"), Medium, STREAMS_GROUPS),
    no_effect("group.streams.max.assignment.interval.ms", Int(0, I32), Some("15000"), Medium, STREAMS_GROUPS),
    no_effect("group.streams.max.heartbeat.interval.ms", Int(1, I32), Some("15000"), Medium, STREAMS_GROUPS),
    no_effect("group.streams.max.session.timeout.ms", Int(1, I32), Some("60000"), Medium, STREAMS_GROUPS),
    no_effect("group.streams.max.size", Int(1, I32), Some("2147483647"), Medium, STREAMS_GROUPS),
    no_effect("group.streams.max.standby.replicas", Int(0, I32), Some("2"), Medium, STREAMS_GROUPS),
    no_effect("group.streams.min.assignment.interval.ms", Int(0, I32), Some("0"), Medium, STREAMS_GROUPS),
    no_effect("group.streams.min.heartbeat.interval.ms", Int(1, I32), Some("5000"), Medium, STREAMS_GROUPS),
    no_effect("group.streams.min.session.timeout.ms", Int(1, I32), Some("45000"), Medium, STREAMS_GROUPS),
    no_effect("group.streams.num.standby.replicas", Int(0, I32), Some("0"), Medium, STREAMS_GROUPS),
    no_effect("group.streams.rack.aware.assignment.tags", List(&[]), Some(""), Low, STREAMS_GROUPS),
    no_effect("group.streams.session.timeout.ms", Int(1, I32), Some("45000"), Medium, STREAMS_GROUPS),
    no_effect("group.streams.topology.description.plugin.class", Class, None, Medium, STREAMS_GROUPS),
    no_effect("group.coordinator.append.linger.ms", Int(-1, I32), Some("-1"), Medium, COORDINATOR),
    no_effect("group.coordinator.cached.buffer.max.bytes", Int(524288, I32), Some("1048588"), Medium, COORDINATOR),
    no_effect("offsets.load.buffer.size", Int(1, I32), Some("5242880"), High, COORDINATOR),
    no_effect("offsets.topic.compression.codec", Int(I32_MIN, I32), Some("0"), High, COORDINATOR),
    no_effect("add.partitions.to.txn.retry.backoff.max.ms", Int(0, I32), Some("100"), High, TRANSACTIONS),
    no_effect("add.partitions.to.txn.retry.backoff.ms", Int(1, I32), Some("20"), High, TRANSACTIONS),
    no_effect("transaction.abort.timed.out.transaction.cleanup.interval.ms", Int(1, I32), Some("10000"), Low, TRANSACTIONS),
    no_effect("transaction.partition.verification.enable", Bool, Some("true"), Low, TRANSACTIONS),
    no_effect("transaction.remove.expired.transaction.cleanup.interval.ms", Int(1, I32), Some("3600000"), Low, TRANSACTIONS),
    no_effect("transaction.state.log.load.buffer.size", Int(1, I32), Some("5242880"), High, TRANSACTIONS),
    no_effect("transaction.state.log.min.isr", Int(1, I32), Some("2"), High, TRANSACTIONS),
    no_effect("transaction.state.log.num.partitions", Int(1, I32), Some("50"), High, TRANSACTIONS),
    no_effect("transaction.state.log.replication.factor", Short(1, 32767), Some("3"), High, TRANSACTIONS),
    no_effect("transaction.state.log.segment.bytes", Int(1, I32), Some("104857600"), High, TRANSACTIONS),
    no_effect("transaction.two.phase.commit.enable", Bool, Some("false"), Low, TRANSACTIONS),
    no_effect("transactional.id.expiration.ms", Int(1, I32), Some("604800000"), High, TRANSACTIONS),
    default_only("errors.deadletterqueue.auto.create.topics.enable", Bool, Some("false"), Medium, DEAD_LETTERS),
    default_only("errors.deadletterqueue.topic.name.prefix", Text, Some("dlq."), Medium, DEAD_LETTERS),
    no_effect("offsets.commit.timeout.ms", Int(1, I32), Some("5000"), High, COMMITS),
    no_effect("transaction.max.timeout.ms", Int(1, I32), Some("900000"), High, TRANSACTIONS),
];
