//! Properties of identity, listeners, connections and requests.

use super::super::definition::Importance::{High, Low, Medium};
use super::super::definition::Kind::{Bool, Choice, Int, List, Long, Text};
use super::super::definition::{Definition, dynamic, used};
use super::{I32, I64, REPLICA_SELECTORS};

/// The properties.
#[rustfmt::skip]
pub static DEFINITIONS: &[Definition] = &[
    used("node.id", Int(0, I32), Some("1"), High, "Number of this broker in its cluster. Never changes for a data directory."),
    used("broker.id", Int(-1, I32), Some("-1"), High, "Older name of node.id; -1 means not set. If both are set, they must agree."),
    used("broker.rack", Text, None, Medium, "Rack or availability zone of this broker, for the spread of replicas. Any text."),
    used("listeners", List(&[]), Some("PLAINTEXT://127.0.0.1:9092"), High, "Where Kafka clients connect to: NAME://host:port, separated by commas. An empty host means all interfaces, port 0 a free one. Only this machine by default."),
    used("advertised.listeners", List(&[]), None, High, "Addresses that clients are told, one for each listener by name. Default: those of listeners, with the machine's host name where a listener is on all interfaces."),
    used("listener.security.protocol.map", List(&[]), Some("SASL_SSL:SASL_SSL,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT"), Low, "Security protocol of each listener name: NAME:PROTOCOL, separated by commas. Only PLAINTEXT is built so far."),
    used("controller.listener.names", List(&[]), Some(""), High, "Names of listeners that a Kafka configuration file keeps for its controllers. Tidelog's controller needs none: entries of listeners with these names are left out."),
    used("inter.broker.listener.name", Text, None, Medium, "Listener whose advertised address stands for a broker towards clients of a listener that it does not have. Default: the first one."),
    used("inter.broker.listener", Text, None, High, "Where the other brokers of the cluster connect to: host:port, port 0 for a free one. Not Kafka's protocol. Without it the broker stays alone. Only on loopback unless cluster.secret.file is set."),
    used("inter.broker.advertised.listener", Text, None, High, "Address of inter.broker.listener that other brokers are told. Default: that of inter.broker.listener."),
    used("cluster.join", List(&[]), None, High, "Brokers of the cluster that this one joins if its data directory is empty: host:port of their inter.broker.listener, separated by commas. The same as --join."),
    used("cluster.secret.file", Text, None, High, "File with a secret of at least 16 bytes, the same on every broker of the cluster: who does not know it cannot join."),
    used("broker.session.timeout.ms", Int(500, I32), Some("3000"), Medium, "Silence after which the controller counts a broker as dead and others take over what it led. A process that ends is noticed at once."),
    used("replica.lag.time.max.ms", Long(I64_MIN, I64), Some("30000"), High, "How long a replica may lack something that its leader has and still be in sync. Replicas of a broker that is counted as dead are not."),
    dynamic("leader.replication.throttled.rate", Long(0, I64), Some("9223372036854775807"), Medium, "Bytes per second that this broker sends to replicas that are not in sync, of those leaders that leader.replication.throttled.replicas of their topic names. Best above 1 MB/s, as a megabyte is sent at a time."),
    dynamic("follower.replication.throttled.rate", Long(0, I64), Some("9223372036854775807"), Medium, "Bytes per second that this broker's replicas receive while they are not in sync, of those that follower.replication.throttled.replicas of their topic names. Best above 1 MB/s, as a megabyte is sent at a time."),
    used("auto.leader.rebalance.enable", Bool, Some("true"), High, "Whether a partition goes back to its preferred leader, the first of its replicas, once that is up and has caught up."),
    used("partition.hibernation.idle.ms", Long(-1, I64), Some("-1"), Medium, "A partition that is not used for so long keeps its record in memory only, and wakes when it is used again; -1 means never."),
    used("leader.imbalance.check.interval.seconds", Long(1, I64), Some("300"), High, "How often brokers look for leaderships that should go back to the preferred leader."),
    used("auto.rebalance", Choice(&["none", "on_join"]), Some("none"), Medium, "What moves by itself. on_join: when this broker joins a cluster, replicas of others move to it until it holds its share."),
    dynamic("broker.filling", Bool, Some("false"), Medium, "Whether replicas of others move to this broker until it holds its share. Set when it joins with auto.rebalance=on_join, taken away when that is done."),
    dynamic("broker.draining", Bool, Some("false"), Medium, "Whether this broker is being emptied: it gets no new replicas, and those that it has move to others. Set for one broker, by `tidelog broker drain`."),
    used("http.listeners", List(&[]), Some("http://127.0.0.1:9094"), High, "Where the HTTP interface (health, metrics) listens: http://host:port, separated by commas. Empty turns it off."),
    dynamic("max.connections", Int(0, I32), Some("2147483647"), Medium, "Connections that the broker accepts at any time, all listeners together."),
    dynamic("max.connections.per.ip", Int(0, I32), Some("2147483647"), Medium, "Connections that the broker accepts from one address."),
    dynamic("max.connections.per.ip.overrides", Text, Some(""), Medium, "Other limits for single addresses: address:count, separated by commas. Host names are not resolved."),
    used("connections.max.idle.ms", Long(I64_MIN, I64), Some("600000"), Medium, "A connection that was idle for this long, or whose client took no byte of its replies for this long, is closed; negative means never."),
    used("socket.request.max.bytes", Int(1, I32), Some("104857600"), High, "Largest request that is read; a larger one closes its connection."),
    used("queued.max.request.bytes", Long(-1, I64), Some("-1"), Medium, "Memory for requests being read or answered and for their answers, all connections together; beyond it the broker stops reading. -1 means 512 MiB. At least socket.request.max.bytes."),
    used("socket.listen.backlog.size", Int(1, I32), Some("50"), Medium, "Connections that may wait to be accepted, for each listener."),
    used("request.timeout.ms", Int(1, I32), Some("30000"), High, "How long an administrative request may wait for its effect before it is answered with a time-out."),
    used("fetch.max.bytes", Int(1024, I32), Some("57671680"), Medium, "Most bytes of records in one Fetch reply, whatever the client asks for."),
    used("replica.selector.class", Choice(REPLICA_SELECTORS), None, Medium, "Where consumers are sent to read. With RackAwareReplicaSelector to a replica in the rack that their client.rack names, if one is in sync. By default to the leader. Also written replica.selector, and without the package."),
    used("max.incremental.fetch.session.cache.slots", Int(0, I32), Some("1000"), Medium, "Incremental fetch sessions that are kept at a time."),
    used("max.request.partition.size.limit", Int(1, I32), Some("2000"), Medium, "Most partitions in one DescribeTopicPartitions reply."),
    used("num.partitions", Int(1, I32), Some("1"), Medium, "Partitions of a topic that is created without a number of them."),
    used("default.replication.factor", Int(1, I16), None, Medium, "Replicas of a topic that is created without a number of them. Unless it is set, the largest odd number up to 3 that there are brokers for: a majority of two is two, so that the second replica of two would only cost."),
    used("auto.create.topics.enable", Bool, Some("true"), High, "Whether a client's metadata request creates a topic that does not exist."),
    used("delete.topic.enable", Bool, Some("true"), High, "Whether topics can be deleted."),
];

const I64_MIN: i64 = i64::MIN;
const I16: i64 = 32767;
