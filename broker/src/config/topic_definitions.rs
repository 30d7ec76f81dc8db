//! The table of topic settings: each key once, with the broker properties that it falls back to.
//!
//! Names, defaults and limits are those of Kafka 4.4 for what Kafka has. Knows no topic.

use super::definition::Importance::Medium;
use super::definition::Kind::{Bool, Choice, Double, GzipLevel, Int, List, Long, Replicas};
use super::definition::{Definition, default_only, no_effect, used};
use super::definitions::{COMPRESSION_TYPES, DURABILITIES};

/// A topic setting.
#[derive(Clone, Copy, Debug)]
pub struct TopicDefinition {
    /// Name, type, default, documentation.
    pub definition: Definition,
    /// Broker properties that give the value where the topic does not, strongest first.
    pub synonyms: &'static [Synonym],
}

/// A broker property in the unit of a topic setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Synonym {
    /// The broker property.
    pub name: &'static str,
    /// Its unit in that of the topic setting; 1 for the same.
    pub scale: i64,
}

const HOUR_MS: i64 = 3_600_000;
const MINUTE_MS: i64 = 60_000;
const I32: i64 = i32::MAX as i64;
const I64: i64 = i64::MAX;

const DEAD_LETTERS: &str = "Tidelog does not have dead-letter topics for share groups yet.";
const FLUSH: &str =
    "Data goes to stable storage before it is acknowledged, unless durability is os.";
const INFLATED: &str = "Tidelog lets no batch inflate to more than 128 MiB.";
const LEVELS: &str =
    "Tidelog compresses at each codec's usual level where compression.type asks for it.";
const SEGMENTS: &str = "Tidelog manages its segment files itself.";
const TIERED: &str = "Tidelog does not have tiered storage.";
const UNCLEAN: &str = "Tidelog never elects a leader that lacks acknowledged records.";

const fn on(definition: Definition, synonyms: &'static [Synonym]) -> TopicDefinition {
    TopicDefinition {
        definition,
        synonyms,
    }
}

const fn same(name: &'static str) -> Synonym {
    Synonym { name, scale: 1 }
}

const fn scaled(name: &'static str, scale: i64) -> Synonym {
    Synonym { name, scale }
}

/// The settings, by name.
#[rustfmt::skip]
pub static DEFINITIONS: &[TopicDefinition] = &[
    on(used("cleanup.policy", List(&["compact", "delete"]), Some("delete"), Medium, "What happens to old records: delete by retention, or keep the newest of each key (compact)."), &[same("log.cleanup.policy")]),
    on(default_only("compression.gzip.level", GzipLevel, Some("-1"), Medium, LEVELS), &[same("compression.gzip.level")]),
    on(default_only("compression.lz4.level", Int(1, 17), Some("9"), Medium, LEVELS), &[same("compression.lz4.level")]),
    on(used("compression.type", Choice(COMPRESSION_TYPES), Some("producer"), Medium, "How batches are stored: as the producer sent them, or in this codec."), &[same("compression.type")]),
    on(default_only("compression.zstd.level", Int(-131_072, 22), Some("3"), Medium, LEVELS), &[same("compression.zstd.level")]),
    on(used("delete.retention.ms", Long(0, I64), Some("86400000"), Medium, "How long a compacted topic keeps tombstones."), &[same("log.cleaner.delete.retention.ms")]),
    on(used("durability", Choice(DURABILITIES), Some("sync"), Medium, "When an append counts as done: sync, once it is on stable storage; os, once the operating system has it."), &[same("log.durability")]),
    on(default_only("errors.deadletterqueue.group.enable", Bool, Some("false"), Medium, DEAD_LETTERS), &[]),
    on(no_effect("file.delete.delay.ms", Long(0, I64), Some("60000"), Medium, SEGMENTS), &[same("log.segment.delete.delay.ms")]),
    on(no_effect("flush.messages", Long(1, I64), Some("9223372036854775807"), Medium, FLUSH), &[same("log.flush.interval.messages")]),
    on(no_effect("flush.ms", Long(0, I64), Some("9223372036854775807"), Medium, FLUSH), &[same("log.flush.interval.ms"), same("log.flush.scheduler.interval.ms")]),
    on(used("follower.replication.throttled.replicas", Replicas, Some(""), Medium, "Replicas that receive no more than follower.replication.throttled.rate of their broker while they are not in sync: partition:broker each, or * for all of the topic."), &[]),
    on(used("index.interval.bytes", Int(0, I32), Some("4096"), Medium, "Bytes of records between two entries of a segment's offset index."), &[same("log.index.interval.bytes")]),
    on(used("leader.replication.throttled.replicas", Replicas, Some(""), Medium, "Replicas that, while they lead, send no more than leader.replication.throttled.rate of their broker to replicas that are not in sync: partition:broker each, or * for all of the topic."), &[]),
    on(default_only("local.retention.bytes", Long(-2, I64), Some("-2"), Medium, TIERED), &[same("log.local.retention.bytes")]),
    on(default_only("local.retention.ms", Long(-2, I64), Some("-2"), Medium, TIERED), &[same("log.local.retention.ms")]),
    on(used("max.compaction.lag.ms", Long(1, I64), Some("9223372036854775807"), Medium, "Greatest age that a record of a compacted topic reaches before compaction looks at it."), &[same("log.cleaner.max.compaction.lag.ms")]),
    on(default_only("max.decompressed.message.bytes", Int(1, 2_147_483_639), Some("2147483639"), Medium, INFLATED), &[same("max.decompressed.message.bytes")]),
    on(used("max.message.bytes", Int(0, I32), Some("1048588"), Medium, "Largest record batch, as sent."), &[same("message.max.bytes")]),
    on(used("message.timestamp.after.max.ms", Long(0, I64), Some("3600000"), Medium, "How far a producer's time may lie in the future."), &[same("log.message.timestamp.after.max.ms")]),
    on(used("message.timestamp.before.max.ms", Long(0, I64), Some("9223372036854775807"), Medium, "How far a producer's time may lie in the past."), &[same("log.message.timestamp.before.max.ms")]),
    on(used("message.timestamp.type", Choice(&["CreateTime", "LogAppendTime"]), Some("CreateTime"), Medium, "Whether a record carries its producer's time or that of its append."), &[same("log.message.timestamp.type")]),
    on(used("min.cleanable.dirty.ratio", Double(0.0, 1.0), Some("0.5"), Medium, "Share of a compacted log that must be uncleaned before it is cleaned."), &[same("log.cleaner.min.cleanable.ratio")]),
    on(used("min.compaction.lag.ms", Long(0, I64), Some("0"), Medium, "Least age of a record that compaction may remove."), &[same("log.cleaner.min.compaction.lag.ms")]),
    on(used("min.insync.replicas", Int(1, I32), Some("1"), Medium, "Replicas that must have a record before a producer with acks=all is answered."), &[same("min.insync.replicas")]),
    on(no_effect("preallocate", Bool, Some("false"), Medium, SEGMENTS), &[same("log.preallocate")]),
    on(default_only("remote.copy.lag.bytes", Long(-1, I64), Some("-1"), Medium, TIERED), &[same("log.remote.copy.lag.bytes")]),
    on(default_only("remote.copy.lag.ms", Long(-1, I64), Some("0"), Medium, TIERED), &[same("log.remote.copy.lag.ms")]),
    on(default_only("remote.log.copy.disable", Bool, Some("false"), Medium, TIERED), &[]),
    on(default_only("remote.log.delete.on.disable", Bool, Some("false"), Medium, TIERED), &[]),
    on(default_only("remote.storage.enable", Bool, Some("false"), Medium, TIERED), &[]),
    on(used("retention.bytes", Long(i64::MIN, I64), Some("-1"), Medium, "The oldest segments of a partition are deleted while the rest is at least this large; -1 means no limit."), &[same("log.retention.bytes")]),
    on(used("retention.ms", Long(-1, I64), Some("604800000"), Medium, "Segments whose newest record is older are deleted; -1 keeps all."), &[same("log.retention.ms"), scaled("log.retention.minutes", MINUTE_MS), scaled("log.retention.hours", HOUR_MS)]),
    on(used("segment.bytes", Int(1_048_576, I32), Some("1073741824"), Medium, "Size at which a segment is closed and a new one begun."), &[same("log.segment.bytes")]),
    on(used("segment.index.bytes", Int(4, I32), Some("10485760"), Medium, "Largest index of a segment; a full one closes the segment."), &[same("log.index.size.max.bytes")]),
    on(no_effect("segment.jitter.ms", Long(0, I64), Some("0"), Medium, SEGMENTS), &[same("log.roll.jitter.ms"), scaled("log.roll.jitter.hours", HOUR_MS)]),
    on(used("segment.ms", Long(1, I64), Some("604800000"), Medium, "Age at which a segment is closed and a new one begun."), &[same("log.roll.ms"), scaled("log.roll.hours", HOUR_MS)]),
    on(default_only("unclean.leader.election.enable", Bool, Some("false"), Medium, UNCLEAN), &[same("unclean.leader.election.enable")]),
];

/// The setting of a name.
pub fn find(name: &str) -> Option<&'static TopicDefinition> {
    DEFINITIONS
        .binary_search_by(|topic| topic.definition.name.cmp(name))
        .ok()
        .and_then(|at| DEFINITIONS.get(at))
}
