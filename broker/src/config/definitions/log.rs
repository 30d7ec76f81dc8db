//! Properties of partition logs; most are the defaults of a topic's setting.

use super::super::definition::Importance::{High, Low, Medium};
use super::super::definition::Kind::{Bool, Choice, Double, Int, List, Long, Text};
use super::super::definition::{Definition, dynamic, used};
use super::{COMPRESSION_TYPES, DURABILITIES, I32, I64};

/// The properties.
#[rustfmt::skip]
pub static DEFINITIONS: &[Definition] = &[
    used("log.dirs", List(&[]), None, High, "The data directory; Tidelog uses one. Takes precedence over log.dir. The flag --data-dir sets it."),
    used("log.dir", List(&[]), Some("data"), High, "The data directory, where log.dirs is not set."),
    dynamic("log.retention.ms", Long(-1, I64), None, High, "Segments whose newest record is older are deleted; -1 keeps all. Takes precedence over log.retention.minutes."),
    used("log.retention.minutes", Int(-1, I32), None, High, "As log.retention.ms, in minutes. Takes precedence over log.retention.hours."),
    used("log.retention.hours", Int(-1, I32), Some("168"), High, "As log.retention.ms, in hours."),
    dynamic("log.retention.bytes", Long(-1, I64), Some("-1"), High, "The oldest segments of a partition are deleted while the rest is at least this large; -1 means no limit."),
    used("log.retention.check.interval.ms", Long(1, I64), Some("300000"), Medium, "How often retention is checked."),
    dynamic("log.segment.bytes", Int(1_048_576, I32), Some("1073741824"), High, "Size at which a segment is closed and a new one begun."),
    dynamic("log.roll.ms", Long(1, I64), None, High, "Age at which a segment is closed and a new one begun. Takes precedence over log.roll.hours."),
    used("log.roll.hours", Int(1, I32), Some("168"), High, "As log.roll.ms, in hours."),
    dynamic("log.index.interval.bytes", Int(0, I32), Some("4096"), Medium, "Bytes of records between two entries of a segment's offset index."),
    dynamic("log.index.size.max.bytes", Int(4, I32), Some("10485760"), Medium, "Largest index of a segment; a full one closes the segment."),
    dynamic("log.cleanup.policy", List(&["compact", "delete"]), Some("delete"), Medium, "What happens to old records of topics."),
    used("log.cleaner.enable", Bool, Some("true"), Medium, "Whether logs are compacted."),
    dynamic("log.cleaner.threads", Int(0, I32), Some("1"), Medium, "Logs that are compacted at once."),
    dynamic("log.cleaner.backoff.ms", Long(0, I64), Some("15000"), Medium, "Pause between two looks for logs to compact, when there was none."),
    dynamic("log.cleaner.dedupe.buffer.size", Long(i64::MIN, I64), Some("134217728"), Medium, "Memory for the newest offset of each key, 24 bytes a key, all threads together. A log with more new keys than fit is compacted in several passes."),
    dynamic("log.cleaner.io.max.bytes.per.second", Double(f64::MIN, f64::MAX), Some("1.7976931348623157E308"), Medium, "Bytes a second that compaction reads and writes, all threads together."),
    dynamic("log.cleaner.delete.retention.ms", Long(0, I64), Some("86400000"), Medium, "How long a compacted topic keeps tombstones."),
    dynamic("log.cleaner.min.cleanable.ratio", Double(0.0, 1.0), Some("0.5"), Medium, "Share of a compacted log that must be uncleaned before it is cleaned."),
    dynamic("log.cleaner.min.compaction.lag.ms", Long(0, I64), Some("0"), Medium, "Least age of a record that compaction may remove."),
    dynamic("log.cleaner.max.compaction.lag.ms", Long(1, I64), Some("9223372036854775807"), Medium, "Greatest age that a record reaches before compaction looks at it."),
    dynamic("log.message.timestamp.type", Choice(&["CreateTime", "LogAppendTime"]), Some("CreateTime"), Medium, "Whether a record carries its producer's time or that of its append."),
    dynamic("log.message.timestamp.before.max.ms", Long(0, I64), Some("9223372036854775807"), Medium, "How far a producer's time may lie in the past."),
    dynamic("log.message.timestamp.after.max.ms", Long(0, I64), Some("3600000"), Medium, "How far a producer's time may lie in the future."),
    dynamic("message.max.bytes", Int(0, I32), Some("1048588"), High, "Largest record batch, as sent."),
    dynamic("compression.type", Choice(COMPRESSION_TYPES), Some("producer"), High, "How batches are stored: as the producer sent them, or in this codec."),
    dynamic("min.insync.replicas", Int(1, I32), Some("1"), High, "Replicas that must have a record before a producer with acks=all is answered."),
    dynamic("log.durability", Choice(DURABILITIES), Some("sync"), High, "When an append counts as done: sync, once it is on stable storage; os, once the operating system has it."),
    used("journal.file.bytes", Long(1_048_576, 4_294_967_296), Some("67108864"), Medium, "Size of one preallocated journal file."),
    used("journal.files.min", Int(2, 1024), Some("3"), Medium, "Journal files kept ready for reuse."),
    used("journal.bytes.max", Long(4_194_304, I64), Some("1073741824"), Medium, "Most bytes of journal; when it is full, appends wait until segments are on stable storage."),
    used("log.cache.bytes", Long(0, I64), Some("268435456"), Medium, "Memory for recent batches, from which readers at the end of a log are served."),
    used("open.segment.files.max", Int(16, I32), None, Low, "Segment files kept open. Default: a share of the limit of open files."),
    used("disk.reserve.bytes", Long(0, I64), Some("1073741824"), Medium, "Producers are refused while less than this is free on the data directory's file system, or less than disk.reserve.percent of it, whichever is less."),
    used("disk.reserve.percent", Double(0.0, 50.0), Some("2"), Medium, "See disk.reserve.bytes."),
    used("log.format", Choice(&["plain", "json"]), Some("plain"), Low, "How the broker writes its own log: text lines, or one JSON object a line."),
    used("log.level", Text, Some("info"), Low, "Level of the broker's own log: error, warn, info, debug or trace, or directives of the form target=level separated by commas."),
    used("shutdown.timeout.ms", Long(0, I64), Some("30000"), Medium, "A stopping broker finishes what was begun within this time, then ends."),
];
