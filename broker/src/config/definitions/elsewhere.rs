//! Kafka's properties of parts that Tidelog builds differently: accepted where ignoring them is harmless, refused where
//! their user would rely on something that is not there.

use super::super::definition::Importance::{High, Low, Medium};
use super::super::definition::Kind::{Bool, Class, Double, GzipLevel, Int, List, Long, Text};
use super::super::definition::{Definition, default_only, no_effect, no_effect_dynamic};
use super::{I32, I32_MIN, I64, I64_MIN};

const PLUGIN: &str = "Tidelog loads no plug-ins.";
const PRODUCERS: &str = "Tidelog forgets idle producers as it goes.";
const CLUSTER: &str = "Tidelog decides by broker.session.timeout.ms.";
const QUOTAS: &str = "Tidelog does not have quotas yet.";
const RUNTIME: &str = "Tidelog sizes its threads and queues itself.";
const CONTROLLER: &str =
    "Tidelog's controller runs inside its brokers and needs no settings of its own.";
const ONE_DIRECTORY: &str = "Tidelog has one data directory.";
const TIERED: &str = "Tidelog does not have tiered storage.";
const METRICS: &str = "Tidelog's metrics are at /metrics of http.listeners.";
const CLEANER: &str = "Compaction reads and writes a megabyte at a time.";
const FLUSH: &str = "Tidelog decides by log.durability when data goes to stable storage, and paces its checkpoints itself.";
const SEGMENTS: &str = "Tidelog manages its segment files itself.";
const CONNECTION_RATE: &str = "Tidelog does not limit the rate of connections yet.";
const REPLICATION: &str = "Tidelog replicates through Raft and paces it itself.";
const SOCKETS: &str = "Tidelog leaves socket buffers to the operating system.";
const TELEMETRY: &str = "Tidelog does not collect client telemetry yet.";
const UNCLEAN: &str = "Tidelog never elects a leader that lacks acknowledged records.";

const LEVELS: &str =
    "Tidelog compresses at each codec's usual level where compression.type asks for it.";
const INFLATED: &str = "Tidelog lets no batch inflate to more than 128 MiB.";

/// The properties.
#[rustfmt::skip]
pub static DEFINITIONS: &[Definition] = &[
    default_only("alter.config.policy.class.name", Class, None, Low, PLUGIN),
    default_only("client.quota.callback.class", Class, None, Low, PLUGIN),
    default_only("config.providers", List(&[]), Some(""), Low, PLUGIN),
    default_only("create.topic.policy.class.name", Class, None, Low, PLUGIN),
    no_effect_dynamic("replica.alter.log.dirs.io.max.bytes.per.second", Long(0, I64), Some("9223372036854775807"), Medium, ONE_DIRECTORY),
    no_effect("alter.log.dirs.replication.quota.window.num", Int(1, I32), Some("11"), Low, QUOTAS),
    no_effect("alter.log.dirs.replication.quota.window.size.seconds", Int(1, I32), Some("1"), Low, QUOTAS),
    no_effect("quota.window.num", Int(1, I32), Some("11"), Low, QUOTAS),
    no_effect("quota.window.size.seconds", Int(1, I32), Some("1"), Low, QUOTAS),
    no_effect("replication.quota.window.num", Int(1, I32), Some("11"), Low, QUOTAS),
    no_effect("replication.quota.window.size.seconds", Int(1, I32), Some("1"), Low, QUOTAS),
    no_effect("background.threads", Int(1, I32), Some("10"), High, RUNTIME),
    no_effect("delete.records.purgatory.purge.interval.requests", Int(I32_MIN, I32), Some("1"), Medium, RUNTIME),
    no_effect("fetch.purgatory.purge.interval.requests", Int(I32_MIN, I32), Some("1000"), Medium, RUNTIME),
    no_effect("group.coordinator.background.threads", Int(1, I32), Some("2"), High, RUNTIME),
    no_effect("group.coordinator.threads", Int(1, I32), Some("4"), High, RUNTIME),
    no_effect("num.io.threads", Int(1, I32), Some("8"), High, RUNTIME),
    no_effect("num.network.threads", Int(1, I32), Some("3"), High, RUNTIME),
    no_effect("num.recovery.threads.per.data.dir", Int(1, I32), Some("2"), High, RUNTIME),
    no_effect("producer.purgatory.purge.interval.requests", Int(I32_MIN, I32), Some("1000"), Medium, RUNTIME),
    no_effect("queued.max.requests", Int(1, I32), Some("500"), High, RUNTIME),
    no_effect("controlled.shutdown.enable", Bool, Some("true"), Medium, CONTROLLER),
    no_effect("controller.quorum.append.linger.ms", Int(0, I32), Some("25"), Medium, CONTROLLER),
    no_effect("controller.quorum.auto.join.enable", Bool, Some("false"), Low, CONTROLLER),
    no_effect("controller.quorum.bootstrap.servers", List(&[]), Some(""), High, CONTROLLER),
    no_effect("controller.quorum.election.backoff.max.ms", Int(0, I32), Some("1000"), High, CONTROLLER),
    no_effect("controller.quorum.election.timeout.ms", Int(0, I32), Some("1000"), High, CONTROLLER),
    no_effect("controller.quorum.fetch.max.bytes", Int(1, I32), Some("1048576"), Low, CONTROLLER),
    no_effect("controller.quorum.fetch.snapshot.max.bytes", Int(1, I32), Some("1048576"), Low, CONTROLLER),
    no_effect("controller.quorum.fetch.timeout.ms", Int(0, I32), Some("2000"), High, CONTROLLER),
    no_effect("controller.quorum.request.timeout.ms", Int(0, I32), Some("2000"), Medium, CONTROLLER),
    no_effect("controller.quorum.retry.backoff.ms", Int(0, I32), Some("20"), Low, CONTROLLER),
    no_effect("controller.quorum.voters", List(&[]), Some(""), High, CONTROLLER),
    no_effect("controller.quota.window.num", Int(1, I32), Some("11"), Low, CONTROLLER),
    no_effect("controller.quota.window.size.seconds", Int(1, I32), Some("1"), Low, CONTROLLER),
    no_effect("controller.socket.timeout.ms", Int(I32_MIN, I32), Some("30000"), Medium, CONTROLLER),
    no_effect("initial.broker.registration.timeout.ms", Int(I32_MIN, I32), Some("60000"), Medium, CONTROLLER),
    no_effect("metadata.log.dir", Text, None, High, CONTROLLER),
    no_effect("metadata.log.max.record.bytes.between.snapshots", Long(1, I64), Some("20971520"), High, CONTROLLER),
    no_effect("metadata.log.max.snapshot.interval.ms", Long(0, I64), Some("3600000"), High, CONTROLLER),
    no_effect("metadata.log.segment.bytes", Int(8388608, I32), Some("1073741824"), High, CONTROLLER),
    no_effect("metadata.log.segment.ms", Long(I64_MIN, I64), Some("604800000"), High, CONTROLLER),
    no_effect("metadata.max.idle.interval.ms", Int(0, I32), Some("500"), Low, CONTROLLER),
    no_effect("metadata.max.retention.bytes", Long(I64_MIN, I64), Some("104857600"), High, CONTROLLER),
    no_effect("metadata.max.retention.ms", Long(I64_MIN, I64), Some("604800000"), High, CONTROLLER),
    no_effect("process.roles", List(&[]), Some("broker,controller"), High, CONTROLLER),
    default_only("cordoned.log.dirs", List(&[]), Some(""), Medium, ONE_DIRECTORY),
    no_effect("log.dir.failure.timeout.ms", Long(1, I64), Some("30000"), Low, ONE_DIRECTORY),
    default_only("follower.fetch.last.tiered.offset.enable", Bool, Some("false"), Medium, TIERED),
    default_only("log.local.retention.bytes", Long(-2, I64), Some("-2"), Medium, TIERED),
    default_only("log.local.retention.ms", Long(-2, I64), Some("-2"), Medium, TIERED),
    default_only("log.remote.copy.lag.bytes", Long(-1, I64), Some("-1"), Medium, TIERED),
    default_only("log.remote.copy.lag.ms", Long(-1, I64), Some("0"), Medium, TIERED),
    no_effect("remote.fetch.max.wait.ms", Int(1, I32), Some("500"), Medium, TIERED),
    no_effect("remote.list.offsets.request.timeout.ms", Long(1, I64), Some("30000"), Medium, TIERED),
    no_effect("remote.log.index.file.cache.total.size.bytes", Long(1, I64), Some("1073741824"), Low, TIERED),
    no_effect("remote.log.manager.copier.thread.pool.size", Int(1, I32), Some("10"), Medium, TIERED),
    no_effect("remote.log.manager.copy.max.bytes.per.second", Long(1, I64), Some("9223372036854775807"), Medium, TIERED),
    no_effect("remote.log.manager.copy.quota.window.num", Int(1, I32), Some("11"), Medium, TIERED),
    no_effect("remote.log.manager.copy.quota.window.size.seconds", Int(1, I32), Some("1"), Medium, TIERED),
    no_effect("remote.log.manager.expiration.thread.pool.size", Int(1, I32), Some("10"), Medium, TIERED),
    no_effect("remote.log.manager.fetch.max.bytes.per.second", Long(1, I64), Some("9223372036854775807"), Medium, TIERED),
    no_effect("remote.log.manager.fetch.quota.window.num", Int(1, I32), Some("11"), Medium, TIERED),
    no_effect("remote.log.manager.fetch.quota.window.size.seconds", Int(1, I32), Some("1"), Medium, TIERED),
    no_effect("remote.log.manager.follower.thread.pool.size", Int(1, I32), Some("2"), Medium, TIERED),
    no_effect("remote.log.manager.task.interval.ms", Long(1, I64), Some("30000"), Low, TIERED),
    no_effect("remote.log.manager.thread.pool.size", Int(1, I32), Some("2"), Medium, TIERED),
    no_effect("remote.log.metadata.custom.metadata.max.bytes", Int(0, I32), Some("128"), Low, TIERED),
    no_effect("remote.log.metadata.manager.class.name", Text, Some("org.apache.kafka.server.log.remote.metadata.storage.TopicBasedRemoteLogMetadataManager"), Medium, TIERED),
    no_effect("remote.log.metadata.manager.class.path", Text, None, Medium, TIERED),
    no_effect("remote.log.metadata.manager.impl.prefix", Text, Some("rlmm.config."), Medium, TIERED),
    no_effect("remote.log.metadata.manager.listener.name", Text, None, Medium, TIERED),
    no_effect("remote.log.reader.max.pending.tasks", Int(1, I32), Some("100"), Medium, TIERED),
    no_effect("remote.log.reader.threads", Int(1, I32), Some("10"), Medium, TIERED),
    no_effect("remote.log.storage.manager.class.name", Text, None, Medium, TIERED),
    no_effect("remote.log.storage.manager.class.path", Text, None, Medium, TIERED),
    no_effect("remote.log.storage.manager.impl.prefix", Text, Some("rsm.config."), Medium, TIERED),
    default_only("remote.log.storage.system.enable", Bool, Some("false"), Medium, TIERED),
    no_effect("kafka.metrics.polling.interval.secs", Int(1, I32), Some("10"), Low, METRICS),
    no_effect("kafka.metrics.reporters", List(&[]), Some(""), Low, METRICS),
    no_effect("metric.reporters", List(&[]), Some("org.apache.kafka.common.metrics.JmxReporter"), Low, METRICS),
    no_effect("metrics.num.samples", Int(1, I32), Some("2"), Low, METRICS),
    no_effect("metrics.recording.level", Text, Some("INFO"), Low, METRICS),
    no_effect("metrics.sample.window.ms", Long(1, I64), Some("30000"), Low, METRICS),
    no_effect_dynamic("log.cleaner.io.buffer.load.factor", Double(f64::MIN, f64::MAX), Some("0.9"), Medium, CLEANER),
    no_effect_dynamic("log.cleaner.io.buffer.size", Int(0, I32), Some("524288"), Medium, CLEANER),
    no_effect("log.flush.interval.messages", Long(1, I64), Some("9223372036854775807"), High, FLUSH),
    no_effect("log.flush.interval.ms", Long(I64_MIN, I64), None, High, FLUSH),
    no_effect("log.flush.offset.checkpoint.interval.ms", Int(0, I32), Some("60000"), High, FLUSH),
    no_effect("log.flush.scheduler.interval.ms", Long(I64_MIN, I64), Some("9223372036854775807"), High, FLUSH),
    no_effect("log.flush.start.offset.checkpoint.interval.ms", Int(0, I32), Some("60000"), High, FLUSH),
    no_effect("log.preallocate", Bool, Some("false"), Medium, SEGMENTS),
    no_effect("log.roll.jitter.hours", Int(0, I32), Some("0"), High, SEGMENTS),
    no_effect("log.roll.jitter.ms", Long(I64_MIN, I64), None, High, SEGMENTS),
    no_effect("log.segment.delete.delay.ms", Long(0, I64), Some("60000"), High, SEGMENTS),
    default_only("max.connection.creation.rate", Int(0, I32), Some("2147483647"), Medium, CONNECTION_RATE),
    no_effect("num.replica.alter.log.dirs.threads", Int(I32_MIN, I32), None, High, REPLICATION),
    no_effect("num.replica.fetchers", Int(1, I32), Some("1"), High, REPLICATION),
    no_effect("replica.fetch.backoff.ms", Int(0, I32), Some("1000"), Medium, REPLICATION),
    no_effect("replica.fetch.max.bytes", Int(0, I32), Some("1048576"), Medium, REPLICATION),
    no_effect("replica.fetch.min.bytes", Int(I32_MIN, I32), Some("1"), High, REPLICATION),
    no_effect("replica.fetch.response.max.bytes", Int(0, I32), Some("10485760"), Medium, REPLICATION),
    no_effect("replica.fetch.wait.max.ms", Int(I32_MIN, I32), Some("500"), High, REPLICATION),
    no_effect("replica.high.watermark.checkpoint.interval.ms", Long(I64_MIN, I64), Some("5000"), High, REPLICATION),
    no_effect("replica.socket.receive.buffer.bytes", Int(I32_MIN, I32), Some("65536"), High, REPLICATION),
    no_effect("replica.socket.timeout.ms", Int(I32_MIN, I32), Some("30000"), High, REPLICATION),
    no_effect("socket.connection.setup.timeout.max.ms", Long(I64_MIN, I64), Some("30000"), Medium, SOCKETS),
    no_effect("socket.connection.setup.timeout.ms", Long(I64_MIN, I64), Some("10000"), Medium, SOCKETS),
    no_effect("socket.receive.buffer.bytes", Int(I32_MIN, I32), Some("102400"), High, SOCKETS),
    no_effect("socket.send.buffer.bytes", Int(I32_MIN, I32), Some("102400"), High, SOCKETS),
    no_effect("telemetry.max.bytes", Int(1, I32), Some("1048576"), Low, TELEMETRY),
    default_only("compression.gzip.level", GzipLevel, Some("-1"), Medium, LEVELS),
    default_only("compression.lz4.level", Int(1, 17), Some("9"), Medium, LEVELS),
    default_only("compression.zstd.level", Int(-131_072, 22), Some("3"), Medium, LEVELS),
    default_only("max.decompressed.message.bytes", Int(1, 2_147_483_639), Some("2147483639"), Medium, INFLATED),
    default_only("unclean.leader.election.enable", Bool, Some("false"), High, UNCLEAN),
    no_effect("broker.heartbeat.interval.ms", Int(I32_MIN, I32), Some("2000"), Medium, CLUSTER),
    no_effect("log.initial.task.delay.ms", Long(0, I64), Some("30000"), Low, RUNTIME),
    no_effect("producer.id.expiration.check.interval.ms", Int(1, I32), Some("600000"), Low, PRODUCERS),
];
