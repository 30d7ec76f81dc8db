//! Bounds of this crate, each with its reason.

/// Partitions of one topic. A topic's image and its creation record are one allocation and one log entry each.
pub const TOPIC_PARTITIONS_MAX: usize = 100_000;

/// Replicas of one partition. More than a handful only slows the commit.
pub const PARTITION_REPLICAS_MAX: usize = 32;

/// Bytes of one configuration key.
pub const CONFIG_KEY_BYTES_MAX: usize = 256;

/// Bytes of one configuration value: as Kafka's longest string.
pub const CONFIG_VALUE_BYTES_MAX: usize = 32_767;

/// Configuration keys of one resource.
pub const CONFIG_KEYS_MAX: usize = 1_000;

/// Resources with a configuration of their own, topics not counted.
pub const CONFIG_RESOURCES_MAX: usize = 100_000;

/// Bytes of a topic name: Kafka's rule.
pub const TOPIC_NAME_BYTES_MAX: usize = 249;

/// Producer ids handed out at once.
pub const PRODUCER_IDS_MAX: i32 = 1_000_000;

/// Leader reports in one record: about 100 KiB.
pub const LEADER_REPORTS_MAX: usize = 1_000;

/// Bytes of one metadata record, which is one log entry.
pub const METADATA_RECORD_BYTES_MAX: usize = 16 << 20;

/// Brokers that one introduction names: far more than a cluster has.
pub const CONTROL_MEMBERS_MAX: usize = 10_000;

/// Heartbeats that wait for the controller's leader: several of each broker.
pub const HEARTBEATS_MAX: usize = 4_096;

/// Bytes of one piece of a metadata snapshot in the key-value store.
pub const SNAPSHOT_CHUNK_BYTES: usize = 1 << 20;

/// Batches that may wait for their commit in one partition. Below the group's mailbox, so that a submit never waits for it.
pub const PARTITION_IN_FLIGHT_BATCHES_MAX: usize = 384;

/// Mailbox of a consensus group, in messages.
pub const GROUP_MAILBOX: u64 = 512;

/// Groups that are started or stopped at the same time: enough to share the syncs of their votes.
pub const GROUPS_CHANGING_MAX: usize = 256;

/// Groups that are woken at the same time: enough to keep the processors busy, few enough that a storm of them leaves room
/// for those that are awake.
pub const GROUPS_WAKING_MAX: usize = 64;

/// Sleepers that one request asks about: less than 40 KiB.
pub const SLEEPERS_ASKED_MAX: usize = 1_000;

/// Groups that are put to sleep at the same time.
pub const GROUPS_FALLING_ASLEEP_MAX: usize = 16;

/// Entries read at once for the state machine: headers only.
pub const APPLY_HEADERS_MAX: usize = 4_096;

/// Bytes of records in one answer to a replica that reads them from another one.
pub const RECORDS_PIECE_BYTES: usize = 1 << 20;

/// Bytes of entries read at once for a peer.
pub const REPLICATION_READ_BYTES_MAX: usize = 1 << 20;

/// Bytes that are paid for before they are read, where replication is throttled: what one read of either kind yields.
pub const PACED_BYTES: i64 = 1 << 20;

/// Body of a handshake frame: fixed fields and at most one short text. It is read from strangers.
pub const PEER_HANDSHAKE_BYTES_MAX: usize = 1_024;

/// Body of a frame without entries, bytes or text: a vote, two entry ids and the ids of group and replica take less than
/// 200 bytes.
pub const PEER_SMALL_BYTES_MAX: usize = 1_024;

/// Body of an append: what one read for a peer yields, which is [`REPLICATION_READ_BYTES_MAX`] and the batch that
/// passed it, with room for the descriptions of the entries.
pub const PEER_APPEND_BYTES_MAX: usize =
    tidelog_protocol::limits::FRAME_BYTES_MAX + REPLICATION_READ_BYTES_MAX + (1 << 20);

/// Body of a snapshot's description: memberships of [`PARTITION_REPLICAS_MAX`] replicas, three times, with room to grow.
pub const PEER_DESCRIPTION_BYTES_MAX: usize = 16 << 10;

/// Bytes of a snapshot in one frame: small enough that many snapshots share a connection fairly.
pub const PEER_PIECE_BYTES: usize = 256 << 10;

/// Body of such a frame.
pub const PEER_PIECE_BYTES_MAX: usize = PEER_PIECE_BYTES + PEER_SMALL_BYTES_MAX;

/// Pieces of one snapshot on their way at once: what a round trip of some milliseconds needs.
pub const PEER_PIECES_IN_FLIGHT_MAX: usize = 8;

/// Body of a call or its answer: a metadata record and what describes it.
pub const PEER_CALL_BYTES_MAX: usize = METADATA_RECORD_BYTES_MAX + (1 << 20);

/// Calls with larger bodies take the bulk lane, so that they hold up no vote.
pub const PEER_CONTROL_CALL_BYTES_MAX: usize = 64 << 10;

/// Partitions named in one call that says so much about each: short enough for the lane of votes and calls.
pub const PEER_CALL_GROUPS_MAX: usize = 2_048;

/// Text of a refusal.
pub const PEER_TEXT_BYTES_MAX: usize = 512;

/// Body of a frame that says why a request failed.
pub const PEER_FAILED_BYTES_MAX: usize = PEER_TEXT_BYTES_MAX + 64;

/// Frames that wait in one lane, or for their answers: a vote for each of ten thousand groups, and some.
pub const PEER_LANE_FRAMES_MAX: usize = 16_384;

/// Bytes that wait in the lane of votes and calls.
pub const PEER_CONTROL_QUEUE_BYTES_MAX: usize = 8 << 20;

/// Bytes that wait in the lane of appends: a moment of a fast network. What does not fit is read again later.
pub const PEER_APPEND_QUEUE_BYTES_MAX: usize = 16 << 20;

/// Bytes that wait in the bulk lane.
pub const PEER_BULK_QUEUE_BYTES_MAX: usize = 8 << 20;

/// Bytes written with one call.
pub const PEER_WRITE_BYTES_MAX: usize = 4 << 20;

/// Pieces written with one call: Linux takes 1,024.
pub const PEER_WRITE_PIECES_MAX: usize = 512;

/// Bytes read ahead of the frame that is wanted.
pub const PEER_READ_AHEAD_BYTES: usize = 64 << 10;

/// Requests of one connection that are not answered: as many as its other end lets wait.
pub const PEER_REQUESTS_IN_FLIGHT_MAX: usize = PEER_LANE_FRAMES_MAX;

/// Request bodies in memory, one lane of all peers together. Above the largest body, or it could never be read.
pub const PEER_RECEIVE_BYTES_MAX: usize = 256 << 20;

/// Connections that have not said who they are. Strangers can make no more.
pub const PEER_HANDSHAKES_MAX: usize = 64;

/// Connections of peers: three lanes of a thousand brokers.
pub const PEER_CONNECTIONS_MAX: usize = 3_072;

/// The same for the lane of votes and calls, whose bodies are short.
pub const PEER_CONTROL_RECEIVE_BYTES_MAX: usize = 16 << 20;

/// Snapshots that arrive at the same time.
pub const PEER_SNAPSHOTS_ARRIVING_MAX: usize = 64;

/// Bytes of all snapshots that arrive, as announced. They are held in memory.
pub const PEER_SNAPSHOT_BYTES_MAX: u64 = 1 << 30;
