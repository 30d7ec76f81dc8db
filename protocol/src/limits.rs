//! Every bound on what comes from the network, with its reason. No code here, only numbers.
//!
//! A size that the wire claims is compared with one of these, and with the bytes at hand, before anything is
//! allocated for it.

/// Largest request or reply frame without its size prefix: Kafka's default of `socket.request.max.bytes`.
pub const FRAME_BYTES_MAX: usize = 100 * 1024 * 1024;

/// Smallest request frame: API key, API version, correlation id.
pub const FRAME_BYTES_MIN: usize = 8;

/// Most array elements in one request, all arrays together. Kafka 4.4 allows as many in each array; the largest
/// element decodes to some hundred bytes, so a request costs at most that many MB beside its frame.
pub const REQUEST_ELEMENTS_MAX: usize = 1_000_000;

/// Most tagged fields in one request, all sections together. Kafka 4.4 allows as many in each section; no
/// message has ten, and an unknown one costs a tree node of memory.
pub const TAGGED_FIELDS_MAX: usize = 10_000;

/// Most bytes that the records of one batch may inflate to. Above the largest frame, so that what is accepted
/// uncompressed is accepted compressed; a decompression bomb costs at most this much memory and its filling.
pub const DECOMPRESSED_BYTES_MAX: usize = 128 * 1024 * 1024;

/// Scratch memory that a decompression buffer keeps between batches. One larger batch must not pin memory for
/// the life of a connection; Kafka's default `max.message.bytes` is 1 MiB.
pub const SCRATCH_KEPT_BYTES: usize = 4 * 1024 * 1024;

/// Most headers of one record. Java clients hold them in an array list; nobody sends more than hundreds.
pub const RECORD_HEADERS_MAX: usize = 100_000;

/// Most records that are named one by one in a Produce rejection. Kafka names all; a batch of a million keyless
/// records must not answer with a hundred megabytes of text.
pub const RECORD_ERRORS_MAX: usize = 1_000;

/// Most record bytes that one reply may splice, all partitions together. Above `fetch.max.bytes` (55 MiB) plus
/// the one batch that rule 13 of Fetch allows over it.
pub const REPLY_RECORD_BYTES_MAX: usize = 2 * FRAME_BYTES_MAX;

/// Most ropes (partitions with records) in one reply. No more than the request that asked for them could
/// name.
pub const REPLY_ROPES_MAX: usize = REQUEST_ELEMENTS_MAX;

/// Pieces below this are copied into the reply instead of spliced: an entry of a vectored write and a
/// reference count cost more than moving this many bytes.
pub const SPLICE_BYTES_MIN: usize = 2048;

/// Requests that wait for one partition of `__consumer_offsets`. Enough for the members of its groups to join at
/// once; more wait in their connections, which bound themselves.
pub const COORDINATOR_MAILBOX_MAX: usize = 1_024;

/// Requests that a coordinator takes from its mailbox before it looks at timers and appends again.
pub const COORDINATOR_TURN_MAX: usize = 256;

/// Record bytes up to which a coordinator gathers waiting changes into one batch: Kafka's batch size for it.
pub const COORDINATOR_BATCH_BYTES: usize = 1024 * 1024;

/// Largest change that a coordinator stores, all its records together: a group of 10,000 members with 1 KiB each
/// fits. Consumers of `__consumer_offsets` must be able to fetch it.
pub const COORDINATOR_CHANGE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Bytes that a coordinator reads at once when it loads its state.
pub const COORDINATOR_LOAD_BYTES: usize = 4 * 1024 * 1024;

/// Most protocols that one member of a group may support. Clients have one for each of their assignors: up to five.
pub const GROUP_PROTOCOLS_MAX: usize = 100;

/// Most bytes of one member's protocols, names and subscriptions together: one subscription of that size fills the
/// largest record that a Kafka broker with default settings stores for a group.
pub const GROUP_MEMBER_BYTES_MAX: usize = 1024 * 1024;

/// Most bytes that the members of all groups of a broker may hold, as they outlive the requests that brought them:
/// 100,000 members with 2 KiB each fit.
pub const GROUP_MEMBERS_BYTES_MAX: usize = 256 * 1024 * 1024;

/// What a member is counted beside its protocols.
pub const GROUP_MEMBER_BYTES: usize = 512;

/// What an array element of a request is counted when it is decoded; the frame is counted by itself.
pub const REQUEST_ELEMENT_BYTES: usize = 128;

/// Request bodies below this are not counted by their elements, nor replies by their bytes: most are, and a connection
/// has few of them in flight.
pub const UNCOUNTED_BYTES_MAX: usize = 1024;

/// Most bytes of one reply without records: what the largest topic listing of a cluster with a million partitions
/// takes. A request whose answer would be larger ends its connection.
pub const REPLY_BYTES_MAX: usize = FRAME_BYTES_MAX;

/// Most partitions of all fetch sessions of a broker together: some 100 bytes each.
pub const SESSION_PARTITIONS_MAX: usize = 200_000;
